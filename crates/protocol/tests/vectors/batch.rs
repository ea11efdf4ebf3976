//! Batches: the complete one, its variations, conversations, hostile messages. Messages are read by `tidegate-wire`.

use crate::accounts::{terms, version};
use crate::money::state;
use crate::orders::{announcement, channel_type, confirmation, nodes, tier};
use crate::support::{Entry, hex, load, report, unhex};
use prost::Message;
use serde_json::Value;
use std::collections::BTreeMap;
use tidegate_protocol::account::{self, Account, AccountState, AccountTerms, AccountVersion};
use tidegate_protocol::auth::verify_message;
use tidegate_protocol::batch::{BatchVersion, Finalize, Prepare, RejectReason, SignBegin};
use tidegate_protocol::bitcoin::hashes::Hash;
use tidegate_protocol::bitcoin::secp256k1::{self, Secp256k1, ecdsa, schnorr};
use tidegate_protocol::bitcoin::{OutPoint, Txid, consensus};
use tidegate_protocol::channel::CommitmentType;
use tidegate_protocol::fees::ExecutionFee;
use tidegate_protocol::keys::{AccountKey, KeyDescriptor, KeyLocator, NodeId, OrderNonce};
use tidegate_protocol::musig2::{PartialSignature, PublicNonce, SigningContext};
use tidegate_protocol::order::{AskTerms, AuctionType, BidTerms, Order, OrderSide, OrderState, OrderVersion, OwnOrder};
use tidegate_protocol::script::{key_spend_sighash, segwit_v0_sighash};
use tidegate_protocol::ticket::Ticket;
use tidegate_protocol::units::{BlockCount, BlockHeight, RatePerBillion, SatPerKw, Sats, UnitCount};
use tidegate_protocol::verify::{
    EndingOrder, LocalView, NodeRating, VerifiedBatch, VerifyError, verify_finalize, verify_prepare, verify_sign,
};
use tidegate_wire::{batch as wire, poolrpc};

/// What the client knows before a message.
pub(crate) struct Local {
    pub(crate) node: NodeId,
    pub(crate) best_height: BlockHeight,
    pub(crate) batch_version: BatchVersion,
    pub(crate) accounts: BTreeMap<AccountKey, Account>,
    pub(crate) orders: BTreeMap<OrderNonce, OwnOrder>,
    pub(crate) extension: BlockCount,
    pub(crate) ratings: BTreeMap<NodeId, NodeRating>,
}

impl Local {
    pub(crate) fn read(entry: &Value) -> Local {
        let fee = entry.get("terms").map_or(ExecutionFee { base: Sats::constant(1), rate_ppm: 1000 }, |terms| {
            ExecutionFee { base: terms.sats("execution_fee_base"), rate_ppm: terms.u64("execution_fee_rate") }
        });
        // A file without terms does not limit the extension.
        let extension = entry
            .get("terms")
            .map_or(account::MAX_EXPIRY_AHEAD, |terms| BlockCount::new(terms.u32("auto_renew_extension_blocks")));
        let accounts = entry.list("accounts").iter().map(account).map(|account| (account.key(), account)).collect();
        let orders = entry.list("orders").iter().map(|order| own_order(order, fee, extension));
        Local {
            node: entry.parse("our_node_key"),
            best_height: BlockHeight::new(entry.u32("best_height")),
            batch_version: BatchVersion(entry.u32("client_batch_version")),
            accounts,
            orders: orders.map(|own| (own.order.nonce, own)).collect(),
            extension,
            ratings: ratings(entry),
        }
    }

    pub(crate) fn view(&self) -> LocalView<'_> {
        LocalView {
            node: self.node,
            best_height: self.best_height,
            batch_version: self.batch_version,
            accounts: &self.accounts,
            orders: &self.orders,
            extension_now: self.extension,
            ratings: &self.ratings,
            reject_unrated: false,
        }
    }

    fn prepare(&self, message: &[u8]) -> Result<VerifiedBatch, Refusal> {
        let prepare = decode_prepare(message)?;
        Ok(verify_prepare(&self.view(), &prepare)?)
    }

    fn sign(&self, batch: &VerifiedBatch, message: &[u8]) -> Result<SignBegin, Refusal> {
        let sign = decode_sign(message)?;
        verify_sign(&self.view(), batch, &sign)?;
        Ok(sign)
    }

    /// What a completed batch changes.
    fn complete(&mut self, batch: &VerifiedBatch) {
        for (key, ending) in batch.accounts() {
            self.accounts.insert(*key, ending.after.clone());
        }
        for ending in batch.orders() {
            let own = self.orders.get_mut(&ending.nonce).unwrap();
            (own.state, own.units_unfulfilled) = (ending.state, ending.units_unfulfilled);
        }
    }
}

/// Why a message is refused.
#[derive(Debug)]
pub(crate) enum Refusal {
    Decode(String),
    Verify(VerifyError),
}

impl From<VerifyError> for Refusal {
    fn from(error: VerifyError) -> Refusal {
        Refusal::Verify(error)
    }
}

fn decode<M: Message + Default, T, E: std::fmt::Display>(
    bytes: &[u8],
    read: impl Fn(M) -> Result<T, E>,
) -> Result<T, Refusal> {
    let message = M::decode(bytes).map_err(|error| Refusal::Decode(error.to_string()))?;
    read(message).map_err(|error| Refusal::Decode(error.to_string()))
}

pub(crate) fn decode_prepare(bytes: &[u8]) -> Result<Prepare, Refusal> {
    decode::<poolrpc::OrderMatchPrepare, _, _>(bytes, wire::from_prepare)
}

pub(crate) fn decode_sign(bytes: &[u8]) -> Result<SignBegin, Refusal> {
    decode::<poolrpc::OrderMatchSignBegin, _, _>(bytes, wire::from_sign_begin)
}

pub(crate) fn decode_finalize(bytes: &[u8]) -> Result<Finalize, Refusal> {
    decode::<poolrpc::OrderMatchFinalize, _, _>(bytes, wire::from_finalize)
}

fn has_ticket(order: &Value) -> bool {
    order.get("sidecar_ticket").and_then(Value::as_str).is_some_and(|ticket| !ticket.is_empty())
}

/// The recipient's multisig key in the ticket.
fn recipient_key(ticket: &str) -> secp256k1::PublicKey {
    *ticket.parse::<Ticket>().unwrap().recipient_keys().unwrap().1.point()
}

fn ratings(entry: &Value) -> BTreeMap<NodeId, NodeRating> {
    let Some(ratings) = entry.get("node_ratings").filter(|ratings| !ratings.is_null()) else { return BTreeMap::new() };
    let rating = |(node, rating): (&String, &Value)| {
        (node.parse().unwrap(), NodeRating { tier: tier(rating.as_u64().unwrap()), age_seconds: 0 })
    };
    ratings.as_object().unwrap().iter().map(rating).collect()
}

fn account_state(number: u64) -> AccountState {
    match number {
        0 => AccountState::Initiated,
        1 => AccountState::PendingOpen,
        2 => AccountState::PendingUpdate,
        3 => AccountState::Open,
        4 => AccountState::Expired,
        5 => AccountState::PendingClosed,
        6 => AccountState::Closed,
        7 => AccountState::CanceledAfterRecovery,
        8 => AccountState::PendingBatch,
        9 => AccountState::ExpiredPendingUpdate,
        other => panic!("account state {other}"),
    }
}

pub(crate) fn account(entry: &Value) -> Account {
    let txid = Txid::from_byte_array(entry.b32("outpoint_txid_bytes"));
    let account = Account {
        terms: terms(entry, "version"),
        locator: KeyLocator { family: entry.u32("trader_key_family"), index: entry.u32("trader_key_index") },
        value: entry.sats("value"),
        state: account_state(entry.u64("state_number")),
        height_hint: BlockHeight::new(entry.u32("height_hint")),
        outpoint: Some(OutPoint { txid, vout: entry.u32("outpoint_index") }),
        latest_tx: None,
    };
    assert_eq!(account.terms.output_script().unwrap().to_hex_string(), entry.text("pk_script"));
    account
}

fn own_order(entry: &Value, fee_ceiling: ExecutionFee, extension_quoted: BlockCount) -> OwnOrder {
    let side = match entry.text("type") {
        "ask" => OrderSide::Ask(AskTerms {
            announcement: announcement(entry.u64("announcement_constraints")),
            confirmation: confirmation(entry.u64("confirmation_constraints")),
        }),
        _ => OrderSide::Bid(BidTerms {
            min_node_tier: tier(entry.u64("min_node_tier")),
            self_balance: entry.sats("self_chan_balance"),
            sidecar: has_ticket(entry),
            unannounced: entry.flag("unannounced_channel"),
            zero_conf: entry.flag("zero_conf_channel"),
        }),
    };
    let order = Order {
        nonce: entry.parse("nonce"),
        version: OrderVersion::from_number(entry.u32("version")).unwrap(),
        account: entry.parse("account_key"),
        auction: if entry.u64("auction_type") == 1 { AuctionType::Outbound } else { AuctionType::Inbound },
        rate: RatePerBillion::new(entry.u32("rate")),
        amount: entry.sats("amount"),
        min_units: UnitCount::new(entry.u32("min_units_match")),
        duration: BlockCount::new(entry.u32("duration")),
        max_batch_fee_rate: SatPerKw::new(entry.u64("max_batch_fee_rate")),
        channel_type: channel_type(entry.u64("channel_type")),
        allowed_nodes: nodes(entry, "allowed_node_ids"),
        denied_nodes: nodes(entry, "not_allowed_node_ids"),
        public: false,
        side,
    };
    let locator = KeyLocator { family: entry.u32("multisig_key_family"), index: entry.u32("multisig_key_index") };
    // The channel of a sidecar bid goes to the key in the ticket.
    let point =
        if has_ticket(entry) { recipient_key(entry.text("sidecar_ticket")) } else { entry.point("multisig_pubkey") };
    OwnOrder {
        order,
        preimage: Some(entry.parse("preimage")),
        state: entry.get("state").and_then(Value::as_str).map_or(OrderState::Submitted, state),
        units_unfulfilled: UnitCount::new(entry.u32("units_unfulfilled")),
        multisig: KeyDescriptor { point, locator },
        fee_ceiling,
        extension_quoted,
    }
}

fn check_staged(entry: &Value, batch: &VerifiedBatch) {
    let staged = entry.list("staged_accounts");
    assert_eq!(batch.accounts().len(), staged.len());
    for expected in staged {
        let mut expected = account(expected);
        expected.latest_tx = Some(batch.prepare().transaction.clone());
        let found = &batch.accounts()[&expected.key()];
        assert_eq!(found.after, expected);
        assert_eq!(found.recreated, expected.state == AccountState::PendingBatch);
    }
    let ending = |expected: &Value| EndingOrder {
        nonce: expected.parse("nonce"),
        state: state(expected.text("state")),
        units_unfulfilled: UnitCount::new(expected.u32("units_unfulfilled")),
    };
    let mut staged: Vec<EndingOrder> = entry.list("staged_orders").iter().map(ending).collect();
    staged.sort_by_key(|order| order.nonce);
    assert_eq!(batch.orders(), staged);
}

fn check_channels(channels: &[Value], batch: &VerifiedBatch) {
    assert_eq!(batch.matches().len(), channels.len());
    let transaction = &batch.prepare().transaction;
    for channel in channels {
        let (ours, theirs): (OrderNonce, OrderNonce) = (channel.parse("our_nonce"), channel.parse("their_nonce"));
        let found = batch.matches().iter().find(|found| found.ours == ours && found.theirs == theirs).unwrap();
        let commitment = match channel.u64("commitment_type") {
            0 => CommitmentType::Negotiated,
            4 => CommitmentType::ScriptEnforcedLease,
            5 => CommitmentType::SimpleTaproot,
            other => panic!("commitment {other}"),
        };
        assert_eq!(found.open.commitment, commitment);
        assert_eq!(found.shim.musig2, channel.flag("musig2"));
        assert_eq!(found.shim.pending_id, channel.parse("pending_chan_id"));
        let output = &transaction.output[usize::try_from(channel.u32("output_index")).unwrap()];
        assert_eq!(output.script_pubkey.to_hex_string(), channel.text("pk_script"));
        assert_eq!(
            found.shim.channel_point,
            OutPoint { txid: transaction.compute_txid(), vout: channel.u32("output_index") }
        );
        assert_eq!(found.shim.thaw_height, channel.u32("thaw_height"));
        assert_eq!(found.units.get(), channel.u32("units_filled"));
        assert_eq!(found.shim.capacity, channel.sats("value"));
    }
}

/// Recomputes every sighash and checks both sides' recorded signatures against it.
fn check_inputs(entry: &Value, local: &Local, batch: &VerifiedBatch, sign: &SignBegin) {
    let inputs = entry.list("account_inputs");
    assert_eq!(batch.accounts().len(), inputs.len());
    let transaction = &batch.prepare().transaction;
    for expected in inputs {
        let key: AccountKey = expected.parse("account_key");
        let (before, ending) = (&local.accounts[&key], &batch.accounts()[&key]);
        assert_eq!(ending.input, usize::try_from(expected.u32("input_index")).unwrap());
        assert_eq!(before.terms.version, version(expected.u64("account_version")));
        match before.terms.version {
            AccountVersion::V0 => {
                let script = before.terms.inner_script().unwrap();
                assert_eq!(hex(script.as_bytes()), expected.text("witness_script"));
                let sighash = segwit_v0_sighash(transaction, ending.input, before.value, &script).unwrap();
                assert_eq!(sighash, expected.b32("sighash"));
                check_ecdsa(&before.terms, sighash, expected);
            }
            AccountVersion::V1 | AccountVersion::V2 => {
                let sighash = key_spend_sighash(transaction, ending.input, &sign.prev_outputs).unwrap();
                assert_eq!(sighash, expected.b32("sighash"));
                assert_eq!(hex(&sign.server_nonces[&key].0), expected.text("server_nonces"));
                check_musig2(&before.terms, sighash, expected);
            }
        }
    }
}

fn check_ecdsa(terms: &AccountTerms, sighash: [u8; 32], expected: &Value) {
    let secp = Secp256k1::new();
    let message = secp256k1::Message::from_digest(sighash);
    let trader = ecdsa::Signature::from_der(&expected.bytes("trader_sig")).unwrap();
    secp.verify_ecdsa(&message, &trader, &terms.tweaked_trader().unwrap()).unwrap();
    let with_flag = expected.bytes("auctioneer_sig_with_sighash_flag");
    let (flag, der) = with_flag.split_last().unwrap();
    assert_eq!(*flag, 1);
    let auctioneer = ecdsa::Signature::from_der(der).unwrap();
    secp.verify_ecdsa(&message, &auctioneer, &terms.tweaked_auctioneer().unwrap()).unwrap();
}

fn check_musig2(terms: &AccountTerms, sighash: [u8; 32], expected: &Value) {
    let nonces = ["trader_nonces", "server_nonces"].map(|key| PublicNonce::from_slice(&expected.bytes(key)).unwrap());
    let context = SigningContext {
        version: terms.version.musig2().unwrap(),
        keys: [*terms.trader.point(), *terms.auctioneer.point()],
        merkle_root: terms.merkle_root().unwrap(),
        nonces,
        message: sighash,
    };
    let halves = ["trader_sig", "auctioneer_partial_sig"].map(|key| PartialSignature(expected.b32(key)));
    assert!(context.verify_partial(&context.keys[0], &nonces[0], &halves[0]));
    assert!(context.verify_partial(&context.keys[1], &nonces[1], &halves[1]));
    assert_eq!(hex(&context.combine(halves).unwrap()), expected.text("final_sig"));
    let output = terms.output_script().unwrap();
    let key = secp256k1::XOnlyPublicKey::from_slice(&output.as_bytes()[2..]).unwrap();
    let signature = schnorr::Signature::from_slice(&expected.bytes("final_sig")).unwrap();
    Secp256k1::new().verify_schnorr(&signature, &secp256k1::Message::from_digest(sighash), &key).unwrap();
}

fn check_transaction(entry: &Value, batch: &VerifiedBatch) {
    let transaction = &batch.prepare().transaction;
    assert_eq!(hex(&consensus::serialize(transaction)), entry.text("batch_tx_unsigned"));
    assert_eq!(transaction.compute_txid().to_byte_array(), entry.b32("batch_txid_bytes"));
    let complete: tidegate_protocol::bitcoin::Transaction = consensus::deserialize(&entry.bytes("final_tx")).unwrap();
    assert_eq!(complete.compute_txid(), transaction.compute_txid());
}

#[test]
fn the_complete_batch_is_verified_to_the_last_byte() {
    let Some(file) = load("batch_accept.json") else { return };
    let local = Local::read(&file);
    let batch = local.prepare(&file.bytes("prepare_msg")).unwrap();
    let sign = local.sign(&batch, &file.bytes("sign_msg")).unwrap();
    check_transaction(&file, &batch);
    check_channels(file.list("channels"), &batch);
    check_staged(&file, &batch);
    check_inputs(&file, &local, &batch, &sign);
    report("batch_accept.json", "channels", file.list("channels").len());
    report("batch_accept.json", "account_inputs", file.list("account_inputs").len());
}

/// Applies the changes of one variation to the local state.
fn change(local: &mut Local, names: &BTreeMap<String, OrderNonce>, changes: &Value) {
    let order = changes.get("order").and_then(Value::as_str).map(|name| names[name]);
    let account: Option<AccountKey> = changes.get("account").and_then(Value::as_str).map(|key| key.parse().unwrap());
    for (name, value) in changes.as_object().unwrap() {
        match name.as_str() {
            "order" | "account" => continue,
            "best_height" => local.best_height = BlockHeight::new(changes.u32(name)),
            "client_batch_version" => local.batch_version = BatchVersion(changes.u32(name)),
            "remove_order" => drop(local.orders.remove(&names[value.as_str().unwrap()]).unwrap()),
            "remove_account" => drop(local.accounts.remove(&changes.parse::<AccountKey>(name)).unwrap()),
            "value" => local.accounts.get_mut(&account.unwrap()).unwrap().value = changes.sats(name),
            _ => change_order(local.orders.get_mut(&order.unwrap()).unwrap(), name, changes),
        }
    }
}

fn change_order(own: &mut OwnOrder, name: &str, changes: &Value) {
    match name {
        "units_unfulfilled" => own.units_unfulfilled = UnitCount::new(changes.u32(name)),
        "min_units_match" => own.order.min_units = UnitCount::new(changes.u32(name)),
        "max_batch_fee_rate" => own.order.max_batch_fee_rate = SatPerKw::new(changes.u64(name)),
        "state" => own.state = state(changes.text(name)),
        "not_allowed_node_ids" => own.order.denied_nodes = nodes(changes, name),
        "allowed_node_ids" => own.order.allowed_nodes = nodes(changes, name),
        "announcement_constraints" | "confirmation_constraints" => {
            let OrderSide::Ask(ask) = &mut own.order.side else { panic!("{name} of a bid") };
            match name {
                "announcement_constraints" => ask.announcement = announcement(changes.u64(name)),
                _ => ask.confirmation = confirmation(changes.u64(name)),
            }
        }
        other => panic!("change {other}"),
    }
}

#[test]
fn every_variation_of_the_batch_has_its_outcome() {
    let (Some(accept), Some(file)) = (load("batch_accept.json"), load("batch_mutations.json")) else { return };
    let names: BTreeMap<String, OrderNonce> =
        accept.list("orders").iter().map(|order| (order.text("name").to_owned(), order.parse("nonce"))).collect();
    for entry in file.list("vectors") {
        let mut local = Local::read(&accept);
        if let Some(changes) = entry.get("local_changes").filter(|changes| !changes.is_null()) {
            change(&mut local, &names, changes);
        }
        let outcome = local.prepare(&entry.bytes("prepare_msg"));
        let name = entry.text("name");
        match (entry.text("result"), outcome) {
            ("ACCEPTED", Ok(_)) => assert_eq!(entry.text("stage"), "accepted"),
            ("REFUSED", Err(Refusal::Verify(_))) => assert_eq!(entry.text("stage"), "strict"),
            (result, Err(Refusal::Verify(error))) => assert_eq!(reason(&error), result, "{name}: {error}"),
            (_, Err(Refusal::Decode(text))) => assert_eq!(entry.text("stage"), "parse", "{name}: {text}"),
            (result, Ok(_)) => panic!("{name}: accepted, expected {result}"),
        }
    }
    report("batch_mutations.json", "vectors", file.list("vectors").len());
}

fn reason(error: &VerifyError) -> &'static str {
    match error.reject_reason() {
        RejectReason::Unknown => "UNKNOWN",
        RejectReason::ServerMisbehavior => "SERVER_MISBEHAVIOR",
        RejectReason::BatchVersionMismatch => "BATCH_VERSION_MISMATCH",
        RejectReason::Partial(_) => "PARTIAL_REJECT",
    }
}

#[test]
fn honest_batches_are_accepted_signed_and_finalized() {
    let Some(file) = load("batch_honest.json") else { return };
    for entry in file.list("vectors") {
        let mut local = Local::read(entry.at("local_state"));
        match entry.get("steps") {
            Some(_) => honest_steps(&mut local, entry),
            None => honest_batch(&mut local, entry),
        }
    }
    report("batch_honest.json", "vectors", file.list("vectors").len());
}

fn honest_batch(local: &mut Local, entry: &Value) {
    let name = entry.text("name");
    let batch =
        local.prepare(&message(entry, "prepare_msg").unwrap()).unwrap_or_else(|error| panic!("{name}: {error:?}"));
    let sign = local.sign(&batch, &entry.bytes("sign_msg")).unwrap_or_else(|error| panic!("{name}: {error:?}"));
    check_transaction(entry, &batch);
    check_channels(entry.list("channels"), &batch);
    check_staged(entry, &batch);
    check_inputs(entry, local, &batch, &sign);
    if let Some(message) = message(entry, "finalize_msg") {
        verify_finalize(&batch, &decode_finalize(&message).unwrap()).unwrap();
    }
}

fn honest_steps(local: &mut Local, entry: &Value) {
    let name = entry.text("name");
    let mut pending = None;
    for step in entry.list("steps") {
        let bytes = step.bytes("msg");
        match step.text("type") {
            "prepare" => pending = Some(local.prepare(&bytes).unwrap_or_else(|error| panic!("{name}: {error:?}"))),
            "sign" => {
                let batch = pending.as_ref().unwrap();
                let sign = local.sign(batch, &bytes).unwrap_or_else(|error| panic!("{name}: {error:?}"));
                check_staged(step, batch);
                check_inputs(step, local, batch, &sign);
            }
            "finalize" => {
                let batch = pending.take().unwrap();
                verify_finalize(&batch, &decode_finalize(&bytes).unwrap()).unwrap();
                local.complete(&batch);
            }
            other => panic!("step {other}"),
        }
    }
}

/// A message of an entry: whole, or in parts that repeat.
fn message(entry: &Value, key: &str) -> Option<Vec<u8>> {
    if let Some(text) = entry.get(key).and_then(Value::as_str) {
        return Some(unhex(text));
    }
    let parts = entry.get(format!("{key}_parts"))?.as_array()?;
    let mut bytes = Vec::new();
    for part in parts.iter().filter(|part| part.get("hex").is_some()) {
        let times = part.get("times").and_then(Value::as_u64).unwrap_or(1);
        bytes.extend(unhex(part.text("hex")).repeat(usize::try_from(times).unwrap()));
    }
    if let Some(length) = parts.last().and_then(|last| last.get("length")).and_then(Value::as_u64) {
        assert_eq!(u64::try_from(bytes.len()).unwrap(), length);
    }
    Some(bytes)
}

#[test]
fn hostile_messages_are_refused_in_time() {
    let Some(file) = load("batch_hostile.json") else { return };
    let (mut judged, mut doubted) = (0, 0);
    let mut accepted = Vec::new();
    for entry in file.list("vectors") {
        let refused = match entry.get("steps") {
            Some(_) => hostile_steps(entry),
            None => hostile_messages(entry),
        };
        let doubt = entry.get("doubt").is_some();
        if doubt {
            doubted += 1;
            println!("in doubt, {}: {}", if refused { "refused" } else { "accepted" }, entry.text("name"));
        } else {
            judged += 1;
            if !refused {
                accepted.push(entry.text("name").to_owned());
            }
        }
    }
    report("batch_hostile.json", "vectors", judged);
    println!("batch_hostile.json: {doubted} entries in doubt");
    assert!(accepted.is_empty(), "accepted: {accepted:#?}");
}

/// Feeds the messages of one batch; whether one is refused in the phase that the entry names, or earlier.
fn hostile_messages(entry: &Value) -> bool {
    let local = Local::read(entry.at("local_state"));
    let by = entry.text("reject_by");
    let batch = match local.prepare(&message(entry, "prepare_msg").unwrap()) {
        Err(_) => return true,
        Ok(_) if by == "prepare" => return false,
        Ok(batch) => batch,
    };
    if let Some(sign) = message(entry, "sign_msg") {
        match local.sign(&batch, &sign) {
            Err(_) => return true,
            Ok(_) if by == "sign" => return false,
            Ok(_) => {}
        }
    }
    let Some(finalize) = message(entry, "finalize_msg") else { return false };
    decode_finalize(&finalize).and_then(|finalize| Ok(verify_finalize(&batch, &finalize)?)).is_err()
}

/// Feeds a conversation; whether the steps to be refused, and only those, are refused.
fn hostile_steps(entry: &Value) -> bool {
    let mut local = Local::read(entry.at("local_state"));
    let mut pending: Option<VerifiedBatch> = None;
    for step in entry.list("steps") {
        let bytes = step.get("msg").map(|_| step.bytes("msg")).or_else(|| message(step, "msg")).unwrap();
        let outcome = match step.text("type") {
            "prepare" => local.prepare(&bytes).map(|batch| pending = Some(batch)),
            "sign" => match &pending {
                Some(batch) => local.sign(batch, &bytes).map(drop),
                None => Err(Refusal::Decode("nothing to sign".to_owned())),
            },
            "finalize" => match &pending {
                Some(batch) => decode_finalize(&bytes).and_then(|finalize| Ok(verify_finalize(batch, &finalize)?)),
                None => Err(Refusal::Decode("nothing to finalize".to_owned())),
            },
            other => panic!("step {other}"),
        };
        match (step.text("expect"), outcome) {
            ("reject", Err(_)) => return true,
            ("reject", Ok(())) => return false,
            (_, Err(error)) => panic!("{}: {error:?}", entry.text("name")),
            ("finalize", Ok(())) => local.complete(&pending.take().unwrap()),
            (_, Ok(())) => {}
        }
    }
    false
}

#[test]
fn recorded_messages_are_no_signatures_of_orders() {
    let Some(file) = load("batch_accept.json") else { return };
    let local = Local::read(&file);
    let batch = local.prepare(&file.bytes("prepare_msg")).unwrap();
    for market in batch.prepare().markets.values() {
        for matched in market.orders.values().flatten() {
            // Vectors leave order signatures empty: a client must not depend on them.
            assert!(!verify_message(
                matched.order.order.account.point(),
                &matched.order.order.digest(),
                &matched.order.signature
            ));
        }
    }
}
