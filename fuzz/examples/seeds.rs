//! Writes the seeds of the corpus: real messages out of the shared vectors, and small ones made here.
//!
//! `cargo run -p tidegate-fuzz --example seeds` writes files named `seed-*` below `fuzz/corpus/`; other files (kept
//! finds) are left alone.

use bitcoin::consensus::{deserialize, serialize};
use bitcoin::psbt::Psbt;
use bitcoin::{Transaction, TxOut};
use hex::FromHex;
use prost::Message;
use serde_json::Value;
use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use tidegate_ports::{
    BatchSnapshot, ClientMessage, DurationState, InitAccount, Interest, MarketInterest, ModifyAccount, ModifySignature,
    Reservation, ReservedKeys, ServerMessage, SnapshotMatch, Submission, SubscribeErrorCode, Terms,
};
use tidegate_protocol::account::AccountVersion;
use tidegate_protocol::auth::{AuthChallenge, CommitHash};
use tidegate_protocol::batch::{
    AccountSignature, BatchSignatures, BatchVersion, ChannelInfo, Finalize, MatchRejectCode, Reject, RejectReason,
    ReportedChannelType,
};
use tidegate_protocol::fees::ExecutionFee;
use tidegate_protocol::keys::{AuctioneerKey, BatchKey, OrderPreimage};
use tidegate_protocol::musig2::PartialSignature;
use tidegate_protocol::order::{NodeTier, OrderChannelType, OrderState, SubmittedOrder};
use tidegate_protocol::units::{BlockCount, BlockHeight, RatePerBillion, SatPerKw, Sats, UnitCount};
use tidegate_strategies::{buyer, seller};
use tidegate_wire::{account, batch, market, order, poolrpc, stream};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    batches()?;
    orders_and_accounts()?;
    streams()?;
    markets()?;
    small()?;
    vectors()?;
    choices()?;
    changes()?;
    handshakes()?;
    operators()?;
    mails()?;
    texts()
}

fn write(target: &str, name: &str, bytes: &[u8]) -> Outcome<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    std::fs::create_dir_all(&folder)?;
    Ok(std::fs::write(folder.join(format!("seed-{name}")), bytes)?)
}

fn say(target: &str, name: &str, message: &impl Message) -> Outcome<()> {
    write(target, name, &message.encode_to_vec())
}

/// Name of a vector as a file's.
fn file_name(name: &str) -> String {
    name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).take(40).collect()
}

fn batches() -> Outcome<()> {
    for recorded in tidegate_fuzz::recorded() {
        let name = file_name(&recorded.name);
        // One long message is enough.
        if recorded.prepare_bytes.len() < 4_000 {
            write("prepare", &name, &recorded.prepare_bytes)?;
            write("sign_begin", &name, &recorded.sign_bytes)?;
        }
    }
    let first = &tidegate_fuzz::recorded()[0];
    let finalize = Finalize {
        batch_id: first.prepare.batch_id.serialize().to_vec(),
        txid: first.prepare.transaction.compute_txid(),
    };
    say("finalize", "batch", &batch::to_finalize(&finalize))?;
    write("finalize", "empty", &[])?;
    for (base, name) in ["five-accounts", "one", "two", "three", "four", "five"].iter().enumerate() {
        write("verify", name, &[u8::try_from(base)?])?;
    }
    Ok(())
}

fn all_orders() -> Vec<SubmittedOrder> {
    let markets = tidegate_fuzz::recorded().iter().flat_map(|recorded| recorded.prepare.markets.values());
    let matches = markets.flat_map(|market| market.orders.values()).flatten();
    matches.map(|matched| matched.order.clone()).collect()
}

fn orders_and_accounts() -> Outcome<()> {
    for (number, submitted) in all_orders().iter().take(8).enumerate() {
        let mut submitted = submitted.clone();
        if number % 2 == 1 {
            submitted.order.allowed_nodes = vec![submitted.node];
        }
        say("submit_order", &number.to_string(), &order::to_submit_request(&submitted, "tidegate/0.1"))?;
    }
    let first = &tidegate_fuzz::recorded()[0];
    let mine = first.accounts.values().next().ok_or("an account")?;
    let output = TxOut { value: bitcoin::Amount::from_sat(200_000), script_pubkey: mine.terms.output_script()? };
    let nonce = first.sign.server_nonces.values().next().copied();
    let modify = ModifyAccount {
        account: mine.key(),
        new_inputs: vec![(mine.outpoint.ok_or("open")?, bitcoin::ScriptBuf::from_bytes(vec![1, 2]))],
        new_outputs: vec![output.clone()],
        new_params: Some((mine.value, mine.terms.expiry, AccountVersion::V2)),
        trader_nonce: nonce,
        prev_outputs: vec![output],
    };
    say("modify_account", "all", &account::to_modify_request(&modify))?;
    let close = ModifyAccount { new_inputs: Vec::new(), new_params: None, trader_nonce: None, ..modify };
    say("modify_account", "close", &account::to_modify_request(&close))
}

fn channel_report() -> Outcome<ChannelInfo> {
    let first = &tidegate_fuzz::recorded()[0];
    let other = all_orders().first().ok_or("an order")?.clone();
    Ok(ChannelInfo {
        channel_type: ReportedChannelType::Anchors,
        local_node: first.node,
        remote_node: other.node,
        local_payment_point: *first.node.point(),
        remote_payment_point: *other.multisig.point(),
    })
}

fn streams() -> Outcome<()> {
    let first = &tidegate_fuzz::recorded()[0];
    let (key, mine) = first.accounts.iter().next().ok_or("an account")?;
    let (batch_id, nonce) = (first.prepare.batch_id, *first.sign.server_nonces.values().next().ok_or("a nonce")?);
    let half = AccountSignature::Musig2 { partial: PartialSignature([5; 32]), nonce };
    let other = *first.accounts.keys().nth(1).ok_or("another account")?;
    let accounts = BTreeMap::from([(*key, AccountSignature::Ecdsa(vec![0x30, 6, 2, 1, 1, 2, 1, 1])), (other, half)]);
    let channels = BTreeMap::from([(mine.outpoint.ok_or("open")?, channel_report()?)]);
    let signatures = BatchSignatures { batch_id, accounts, channels };
    say("signatures", "both-kinds", &batch::to_signatures(&signatures))?;
    let order = all_orders().first().ok_or("an order")?.order.nonce;
    let partial =
        RejectReason::Partial(BTreeMap::from([(order, (MatchRejectCode::DuplicatePeer, "known".to_owned()))]));
    let reasons = [RejectReason::Unknown, RejectReason::ServerMisbehavior, RejectReason::BatchVersionMismatch, partial];
    for (number, reason) in reasons.into_iter().enumerate() {
        let reject = Reject { batch_id: batch_id.serialize().to_vec(), message: "why".to_owned(), reason };
        say("reject", &number.to_string(), &batch::to_reject(&reject))?;
        let message = ClientMessage::Reject(reject);
        say("client_message", &format!("reject-{number}"), &stream::to_client_message(&message))?;
    }
    let said = [
        ("commit", ClientMessage::Commit { commit: CommitHash([1; 32]), version: BatchVersion(58) }),
        ("subscribe", ClientMessage::Subscribe { account: *key, nonce: [2; 32], signature: vec![0x30, 6] }),
        ("accept", ClientMessage::Accept { batch_id }),
        ("sign", ClientMessage::Sign(signatures)),
    ];
    for (name, message) in said {
        say("client_message", name, &stream::to_client_message(&message))?;
    }
    let finalize = Finalize { batch_id: batch_id.serialize().to_vec(), txid: first.prepare.transaction.compute_txid() };
    let error = |account| ServerMessage::Error {
        account,
        code: SubscribeErrorCode::AccountDoesNotExist,
        message: "unknown".to_owned(),
    };
    let short = &tidegate_fuzz::recorded()[1];
    let heard = [
        ("challenge", ServerMessage::Challenge { challenge: AuthChallenge([3; 32]), commit: CommitHash([1; 32]) }),
        ("success", ServerMessage::Success { account: *key }),
        ("error", error(Some(*key))),
        ("error-of-none", error(None)),
        ("prepare", ServerMessage::Prepare(Box::new(short.prepare.clone()))),
        ("sign", ServerMessage::Sign(Box::new(short.sign.clone()))),
        ("finalize", ServerMessage::Finalize(finalize)),
    ];
    for (name, message) in heard {
        say("server_message", name, &stream::to_server_message(&message)?)?;
    }
    Ok(())
}

fn markets() -> Outcome<()> {
    let first = &tidegate_fuzz::recorded()[0];
    let terms = Terms {
        max_account_value: Sats::constant(1_000_000_000),
        execution_fee: ExecutionFee { base: Sats::constant(1), rate_ppm: 1_000 },
        durations: BTreeMap::from([
            (BlockCount::new(2_016), DurationState::Open),
            (BlockCount::new(4_032), DurationState::Closed),
        ]),
        next_batch_fee_rate: SatPerKw::new(253),
        next_clear_time: 1_790_000_000,
        auto_renew_blocks: BlockCount::new(3_024),
    };
    say("terms", "two", &market::to_terms(&terms, 6))?;
    let matched = SnapshotMatch {
        ask_rate: RatePerBillion::new(1_000),
        bid_rate: RatePerBillion::new(2_000),
        units: UnitCount::new(10),
        channel_type: OrderChannelType::ScriptEnforced,
    };
    let snapshot = |previous| BatchSnapshot {
        batch_id: first.prepare.batch_id,
        previous,
        transaction: first.prepare.transaction.clone(),
        fee_rate: SatPerKw::new(253),
        created_ns: 1_790_000_000_000_000_000,
        markets: BTreeMap::from([(BlockCount::new(2_016), (RatePerBillion::new(2_000), vec![matched.clone()]))]),
    };
    say("snapshot", "first", &market::to_snapshot(&snapshot(None)))?;
    say("snapshot", "later", &market::to_snapshot(&snapshot(Some(first.prepare.batch_id))))?;
    say("snapshots", "two", &market::to_snapshots(&[snapshot(Some(first.prepare.batch_id)), snapshot(None)]))?;
    let interest = Interest { orders_tier0: 1, orders_tier1: 2, units_tier0: 30, units_tier1: 40 };
    let info = BTreeMap::from([(BlockCount::new(2_016), MarketInterest { asks: interest, bids: interest })]);
    say("market_info", "one", &market::to_market_info(&info))?;
    let other = all_orders().first().ok_or("an order")?.node;
    say("ratings", "two", &market::to_ratings(&[(first.node, NodeTier::Tier1), (other, NodeTier::Tier0)]))?;
    write("ratings", "none", &[])
}

/// The small messages, each after the byte that selects it.
fn small() -> Outcome<()> {
    let first = &tidegate_fuzz::recorded()[0];
    let mine = first.accounts.values().next().ok_or("an account")?;
    let version = AccountVersion::V2;
    let reservation = Reservation { value: mine.value, expiry: mine.terms.expiry, trader: mine.key(), version };
    let keys = ReservedKeys {
        auctioneer: AuctioneerKey::new(*mine.terms.auctioneer.point()),
        batch: BatchKey::new(*mine.terms.batch.point()),
    };
    let init = InitAccount {
        reservation: reservation.clone(),
        outpoint: mine.outpoint.ok_or("open")?,
        script: mine.terms.output_script()?,
    };
    let nonce = first.orders.keys().next().copied().ok_or("an order")?;
    let half =
        ModifySignature { signature: vec![5; 32], server_nonce: first.sign.server_nonces.values().next().copied() };
    let refused = Submission::Invalid { reason: "too small".to_owned() };
    let messages: [(u8, Vec<u8>); 12] = [
        (0, account::to_reserve_request(&reservation).encode_to_vec()),
        (1, account::to_reserve_response(&keys).encode_to_vec()),
        (2, account::to_init_request(&init, "tidegate/0.1").encode_to_vec()),
        (3, account::to_modify_response(&half).encode_to_vec()),
        (4, order::to_cancel_request(&OrderPreimage::new([4; 32])).encode_to_vec()),
        (5, order::to_state_request(nonce).encode_to_vec()),
        (6, order::to_state_response(OrderState::PartiallyFilled, UnitCount::new(7)).encode_to_vec()),
        (7, order::to_submit_response(nonce, &refused).encode_to_vec()),
        (8, market::to_snapshot_request(Some(first.prepare.batch_id)).encode_to_vec()),
        (9, market::to_snapshots_request(Some(first.prepare.batch_id), 10).encode_to_vec()),
        (10, market::to_ratings_request(&[first.node]).encode_to_vec()),
        (11, first.node.serialize().to_vec()),
    ];
    for (which, message) in messages {
        write("small_messages", &which.to_string(), &[&[which][..], &message].concat())?;
    }
    Ok(())
}

fn vector_file(name: &str) -> Outcome<Value> {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors").join(name);
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

fn bytes_of(value: &Value) -> Outcome<Vec<u8>> {
    Ok(Vec::from_hex(value.as_str().ok_or("text")?)?)
}

fn vectors() -> Outcome<()> {
    let witnesses = vector_file("witness_classification.json")?;
    for (number, entry) in witnesses["vectors"].as_array().ok_or("a list")?.iter().enumerate() {
        let mut seed = Vec::new();
        // No witness at all is null.
        for element in entry["witness"].as_array().into_iter().flatten() {
            let element = bytes_of(element)?;
            seed.push(u8::try_from(element.len())?);
            seed.extend(element);
        }
        write("witness", &number.to_string(), &seed)?;
    }
    let backups = vector_file("channel_backups.json")?;
    for (number, entry) in backups["vectors"].as_array().ok_or("a list")?.iter().enumerate().step_by(3) {
        let seed = [bytes_of(&entry["base_encryption_pubkey"])?, bytes_of(&entry["encrypted"])?].concat();
        write("channel_backup", &number.to_string(), &seed)?;
    }
    let tickets = vector_file("sidecar_tickets.json")?;
    for (number, entry) in tickets["tickets"].as_array().ok_or("a list")?.iter().enumerate().step_by(9) {
        write("ticket", &number.to_string(), &bytes_of(&entry["tlv"])?)?;
        write("ticket_text", &number.to_string(), entry["encoded"].as_str().ok_or("text")?.as_bytes())?;
    }
    // The transaction of a batch with witnesses, as a snapshot may show it.
    let complete: Transaction = deserialize(&bytes_of(&vector_file("batch_accept.json")?["final_tx"])?)?;
    let batch_id = tidegate_fuzz::recorded()[0].prepare.batch_id.serialize().to_vec();
    let signed = poolrpc::BatchSnapshotResponse { batch_id, batch_tx: serialize(&complete), ..Default::default() };
    say("snapshot", "signed", &signed)?;
    backup_plain(5, true)?;
    backup_plain(4, false)
}

/// A decrypted backup of that version; `0x80` adds what a close needs.
fn backup_plain(version: u8, close_inputs: bool) -> Outcome<()> {
    let node = tidegate_fuzz::recorded()[0].node.serialize();
    let mut body = vec![1];
    body.extend([2; 32 + 32 + 2 + 8]);
    body.extend(node);
    body.extend([0, 4, 127, 0, 0, 1]);
    body.extend(1_500_000_u64.to_be_bytes());
    body.extend([0; 2 + 5 * 8 + 2]);
    body.extend(node.repeat(5));
    body.extend([3; 33 + 8]);
    if version == 4 {
        body.extend([0; 4]);
    }
    let mut plain = vec![version];
    if close_inputs {
        plain[0] |= 0x80;
        body.extend([9; 20]);
    }
    plain.extend(u16::try_from(body.len())?.to_be_bytes());
    plain.extend(body);
    write("channel_backup_plain", &format!("version-{version}"), &plain)
}

/// Inputs that are read as choices: any bytes are good, so a fixed sequence of them is kept.
fn choices() -> Outcome<()> {
    let mut state = 1_u64;
    let mut draw = |count: usize| -> Vec<u8> {
        (0..count)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                state.to_be_bytes()[0]
            })
            .collect()
    };
    for (target, lengths) in [
        ("acceptor", &[24_usize, 24, 24][..]),
        ("account_spend", &[60, 120, 120, 200]),
        ("matcher", &[200, 600, 1_500, 2_500]),
        ("musig2", &[160, 160]),
        ("order_rules", &[64, 64, 96]),
        ("strategy_values", &[7, 14, 28, 56]),
        ("verify", &[8, 16, 24, 48, 96, 96]),
    ] {
        for (number, length) in lengths.iter().enumerate() {
            write(target, &format!("draw-{number}"), &draw(*length))?;
        }
    }
    // Bids and asks that meet: a repaired batch after each kind of bend.
    for kind in 0..7_u8 {
        write("verify", &format!("bend-{kind}-repaired"), &[0, kind, 0, 0, 0, 0, 0, 7, 0])?;
    }
    Ok(())
}

/// Changes of an account that are made: of each version, with and without new terms.
fn changes() -> Outcome<()> {
    // An output of the first kind, and of about half a million satoshis.
    const OUTPUT: [u8; 2] = [0, 0];
    let coin = [&[0][..], &OUTPUT, &[0]].concat();
    for version in 0..3_u8 {
        for (terms, change) in [("same", &[0, 0][..]), ("new", &[1, 0, 1, 2, 0])] {
            // State, version, expiry, value, output, best height, new terms, fee rate.
            let account = [&[0, 0, version, 0, 0, 8, 0, 0][..], change, &[0]].concat();
            let write = |target: &str, kind: &str, rest: &[&[u8]]| {
                write(target, &format!("{kind}-{version}-{terms}"), &[&account[..], &rest.concat()].concat())
            };
            write("modification", "renew", &[&[0, 0]])?;
            write("modification", "withdraw", &[&[1], &OUTPUT, &[1]])?;
            write("modification", "close", &[&[0, 2], &OUTPUT])?;
            write("modification", "close-to-outputs", &[&[2], &OUTPUT, &OUTPUT, &[3]])?;
            // Amount, limit, place of the change; then how many coins, their names, other outputs, what is known of coins.
            write("deposit", "without-change", &[&[0, 0, 0, 0, 1, 9, 0], &coin])?;
            write("deposit", "with-change", &[&[0, 0, 1, 1, 0, 2, 9, 8, 1], &OUTPUT, &coin, &coin])?;
            let unsigned = Psbt::from_unsigned_tx(Transaction {
                version: bitcoin::transaction::Version::TWO,
                lock_time: bitcoin::absolute::LockTime::ZERO,
                input: vec![bitcoin::TxIn::default()],
                output: vec![TxOut::NULL],
            })?;
            write("deposit", "foreign", &[&[0, 0, 0, 1], &unsigned.serialize()])?;
        }
    }
    Ok(())
}

/// A signature as it is, with a byte changed, with bytes behind it, and bytes that are none.
fn handshakes() -> Outcome<()> {
    let who = [&[0, 0, 1, 0][..], &[7; 32], &[8; 32]].concat();
    for (name, rest) in [
        ("valid", &[0, 0, 0, 0, 0][..]),
        ("bent-in-its-head", &[0, 1, 0, 1, 0]),
        ("bent-in-its-tail", &[0, 60, 0, 1, 0]),
        ("longer", &[0, 0, 0, 0, 1, 0]),
        ("none", &[1, 0x30, 6, 2, 1, 1, 2, 1, 1]),
    ] {
        write("handshake", name, &[&who[..], rest].concat())?;
    }
    Ok(())
}

/// What an operator sends: an order of each side, a filter, a question.
fn operators() -> Outcome<()> {
    use poolrpc::submit_order_request::Details;
    let key = Vec::from_hex("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")?;
    let details = Some(poolrpc::Order {
        trader_key: key.clone(),
        rate_fixed: 1_000,
        amt: 1_000_000,
        max_batch_fee_rate_sat_per_kw: 253,
        min_units_match: 1,
        channel_type: 1,
        allowed_node_ids: vec![key.clone()],
        ..Default::default()
    });
    let ask = poolrpc::Ask { details: details.clone(), lease_duration_blocks: 2_016, version: 5, ..Default::default() };
    let bid = poolrpc::Bid { details, lease_duration_blocks: 4_032, version: 5, ..Default::default() };
    for (name, details) in [("ask", Details::Ask(ask)), ("bid", Details::Bid(bid))] {
        let request = poolrpc::SubmitOrderRequest { details: Some(details), ..Default::default() };
        write("operator", name, &[&[0], &request.encode_to_vec()[..]].concat())?;
    }
    let leases = poolrpc::LeasesRequest { batch_ids: vec![key.clone()], accounts: vec![key.clone()] };
    write("operator", "leases", &[&[1], &leases.encode_to_vec()[..]].concat())?;
    let ratings = poolrpc::NodeRatingRequest { node_pubkeys: vec![key] };
    write("operator", "ratings", &[&[2], &ratings.encode_to_vec()[..]].concat())
}

/// A mailbox asked for with an account's key and with a ticket, and a message for it.
fn mails() -> Outcome<()> {
    use poolrpc::cipher_box_auth::Auth;
    let desc = Some(poolrpc::CipherBoxDesc { stream_id: vec![7; 64] });
    let acct_key = Vec::from_hex("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")?;
    let account = Auth::AcctAuth(poolrpc::PoolAccountAuth { acct_key, stream_sig: vec![0x30; 70] });
    let tickets = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/ticket_text");
    let mut texts: Vec<_> = std::fs::read_dir(tickets)?.map(|entry| Ok(entry?.path())).collect::<Outcome<_>>()?;
    texts.sort();
    let text = texts.iter().find_map(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    let ticket = Auth::SidecarAuth(poolrpc::SidecarAuth { ticket: text });
    for (name, auth) in [("account", account), ("ticket", ticket)] {
        let request = poolrpc::CipherBoxAuth { desc: desc.clone(), auth: Some(auth) };
        write("mail", name, &[&[0], &request.encode_to_vec()[..]].concat())?;
    }
    let message = poolrpc::CipherBox { desc, msg: b"sidecar".to_vec() };
    write("mail", "message", &[&[1], &message.encode_to_vec()[..]].concat())
}

fn texts() -> Outcome<()> {
    let presets = [
        ("seller", seller::PRESET),
        ("seller-sandbox", seller::SANDBOX_PRESET),
        ("buyer", buyer::PRESET),
        ("buyer-sandbox", buyer::SANDBOX_PRESET),
    ];
    for (name, text) in presets {
        write("strategy_text", name, text.as_bytes())?;
    }
    let height = BlockHeight::new(1);
    write("strategy_text", "not-a-table", format!("strategy = {}", height.get()).as_bytes())
}
