//! Golden conversations, held with a whole trader: the flows over ports, bytes in, messages out.
//!
//! The folder is `tests/vectors` of the workspace, or the one named by `TIDEGATE_VECTORS_DIR` (a corpus with more entries of
//! the same form, in which files may be absent). Each test prints how many entries it judged.

// A broken entry is to fail the test that reads it, and a run says what it judged.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod client;
#[path = "../../../protocol/tests/vectors/local.rs"]
#[allow(dead_code, reason = "shared with the protocol's tests, which look at more")]
mod local;
mod ports;
#[path = "../flows/sim.rs"]
#[allow(dead_code, reason = "shared with the other flows, which do more")]
mod sim;
#[path = "../../../protocol/tests/vectors/support.rs"]
#[allow(dead_code, reason = "shared with the protocol's tests, which look at more")]
mod support;

use client::{Client, Heard};
use local::{Local, change, message, order_names, order_state, step_message};
use ports::Used;
use prost::Message as _;
use serde_json::Value;
use std::cell::Cell;
use std::collections::BTreeSet;
use support::{Entry, judge, label, load, report};
use tidegate_ports::ClientMessage;
use tidegate_protocol::account::{Account, AccountState, AccountTerms};
use tidegate_protocol::batch::{AccountSignature, BatchSignatures, Prepare, Reject, RejectReason};
use tidegate_protocol::bitcoin::OutPoint;
use tidegate_protocol::bitcoin::secp256k1::{Message, Secp256k1, ecdsa};
use tidegate_protocol::channel::CommitmentType;
use tidegate_protocol::keys::{AccountKey, OrderNonce};
use tidegate_protocol::musig2::{PublicNonce, SigningContext};
use tidegate_protocol::units::UnitCount;
use tidegate_trader::StagedBatch;
use tidegate_wire::poolrpc;

/// The proposal was accepted, and nothing else happened.
fn accepted(heard: Heard) -> Result<Box<Prepare>, String> {
    let prepare = heard.prepare.ok_or_else(|| format!("the proposal does not parse: {:?}", heard.said))?;
    match &heard.said[..] {
        [ClientMessage::Accept { batch_id }] if *batch_id == prepare.batch_id => {}
        said => return Err(format!("not accepted: {said:?}")),
    }
    assert!(heard.used.is_empty(), "signing calls before a request to sign: {:?}", heard.used);
    assert_eq!(heard.before, heard.after, "an accepted proposal changes nothing yet");
    Ok(prepare)
}

/// The batch was signed, and nothing is true yet.
fn signed(heard: Heard) -> Result<(BatchSignatures, Vec<Used>), String> {
    let [ClientMessage::Sign(signatures)] = &heard.said[..] else {
        return Err(format!("not signed: {:?}", heard.said));
    };
    assert_eq!(heard.before, heard.after, "a signed batch is not true yet");
    Ok((signatures.clone(), heard.used))
}

/// The message was refused: neither acceptance nor signature, no secret used, nothing changed.
fn refused(heard: &Heard) -> Result<(), String> {
    let yes = |said: &ClientMessage| !matches!(said, ClientMessage::Reject(_));
    if let Some(yes) = heard.said.iter().find(|said| yes(said)) {
        return Err(format!("said {yes:?}"));
    }
    if heard.before != heard.after {
        return Err("accounts, orders or leases changed".to_owned());
    }
    assert!(heard.used.is_empty(), "signing calls for a refused message: {:?}", heard.used);
    Ok(())
}

/// The batch under way in a conversation.
#[derive(Default)]
struct Progress {
    prepare: Option<Box<Prepare>>,
    staged: Option<StagedBatch>,
}

impl Progress {
    /// Feeds one honest message, and checks all that the entry says of it.
    fn honest(&mut self, client: &mut Client, kind: &str, bytes: &[u8], entry: &Value) -> Result<(), String> {
        let heard = client.hear(kind, bytes);
        match kind {
            "prepare" => self.prepare = Some(accepted(heard)?),
            "sign" => {
                let before = heard.before.accounts.clone();
                let prepare = self.prepare.take().ok_or("signed without a proposal")?;
                let (signatures, used) = signed(heard)?;
                assert_eq!(signatures.batch_id, prepare.batch_id);
                let staged = client.staged(prepare.transaction.compute_txid());
                self.check_signed(client, entry, &before, (&signatures, &used), &staged);
                self.staged = Some(staged);
            }
            "finalize" => {
                let staged = self.staged.take().ok_or("final without being signed")?;
                if heard.after == heard.before {
                    return Err("not finalized".to_owned());
                }
                check_final(client, &heard, &staged);
            }
            other => panic!("a message of type {other}"),
        }
        Ok(())
    }

    fn check_signed(
        &self,
        client: &mut Client,
        entry: &Value,
        before: &[Account],
        (signatures, used): (&BatchSignatures, &[Used]),
        staged: &StagedBatch,
    ) {
        if let Some(inputs) = entry.get("account_inputs") {
            let inputs = inputs.as_array().expect("account_inputs is a list");
            assert_eq!(signatures.accounts.len(), inputs.len(), "accounts signed");
            inputs.iter().for_each(|expected| check_signature(expected, before, signatures, used, staged));
        }
        if entry.get("staged_accounts").is_some() {
            check_staged(entry, staged);
        }
        if entry.get("channels").is_some() {
            check_channels(client, entry, signatures, staged);
        }
    }
}

/// One account's signature is by its key, over the sighash that the entry says.
fn check_signature(
    expected: &Value,
    before: &[Account],
    signatures: &BatchSignatures,
    used: &[Used],
    staged: &StagedBatch,
) {
    let key: AccountKey = expected.parse("account_key");
    let terms = before.iter().find(|account| account.key() == key).expect("an account of ours").terms;
    let index = usize::try_from(expected.u32("input_index")).unwrap();
    let spent = staged.accounts.iter().find(|staged| staged.after.key() == key).unwrap().spent;
    assert_eq!(staged.transaction.input[index].previous_output, spent, "the account's input");
    let sighash = expected.b32("sighash");
    match &signatures.accounts[&key] {
        AccountSignature::Ecdsa(der) => {
            let asked = |used: &Used| matches!(used, Used::Single { point, sighash: asked } if point == key.point() && *asked == sighash);
            assert_eq!(used.iter().filter(|used| asked(used)).count(), 1, "one call for the account: {used:?}");
            let signature = ecdsa::Signature::from_der(der).unwrap();
            let tweaked = terms.tweaked_trader().unwrap();
            Secp256k1::new().verify_ecdsa(&Message::from_digest(sighash), &signature, &tweaked).unwrap();
        }
        AccountSignature::Musig2 { partial, nonce } => {
            let server = PublicNonce::from_slice(&expected.bytes("server_nonces")).unwrap();
            let drawn = |used: &Used| matches!(used, Used::Nonce { keys, other, nonce: drawn } if keys.contains(key.point()) && *other == Some(server) && drawn == nonce);
            assert_eq!(used.iter().filter(|used| drawn(used)).count(), 1, "one nonce for the account: {used:?}");
            let half = |used: &Used| matches!(used, Used::Half { nonce: by, sighash: asked } if by == nonce && *asked == sighash);
            assert_eq!(used.iter().filter(|used| half(used)).count(), 1, "one half for the nonce: {used:?}");
            let context = context(&terms, [*nonce, server], sighash);
            assert!(context.verify_partial(key.point(), nonce, partial), "the half is the account's");
        }
    }
}

fn context(terms: &AccountTerms, nonces: [PublicNonce; 2], message: [u8; 32]) -> SigningContext {
    SigningContext {
        version: terms.version.musig2().expect("a taproot account"),
        keys: [*terms.trader.point(), *terms.auctioneer.point()],
        merkle_root: terms.merkle_root().unwrap(),
        nonces,
        message,
    }
}

/// What is stored before a signature leaves is what the entry says.
fn check_staged(entry: &Value, staged: &StagedBatch) {
    assert_eq!(staged.accounts.len(), entry.list("staged_accounts").len());
    for expected in entry.list("staged_accounts").iter().map(local::account) {
        let found = staged.accounts.iter().find(|staged| staged.after.key() == expected.key()).expect("staged");
        let recreated = expected.state == AccountState::PendingBatch;
        // Where the key is in the wallet is the harness's affair.
        let expected =
            Account { latest_tx: Some(staged.transaction.clone()), locator: found.after.locator, ..expected };
        assert_eq!(found.after, expected);
        assert_eq!(found.recreated, recreated);
    }
    assert_eq!(staged.orders.len(), entry.list("staged_orders").len());
    for expected in entry.list("staged_orders") {
        let nonce: OrderNonce = expected.parse("nonce");
        let found = staged.orders.iter().find(|order| order.nonce == nonce).expect("the order is staged");
        let units = UnitCount::new(expected.u32("units_unfulfilled"));
        assert_eq!((found.state, found.units_unfulfilled), (order_state(expected), units));
    }
}

/// Every channel was negotiated as the entry says, and reported.
fn check_channels(client: &mut Client, entry: &Value, signatures: &BatchSignatures, staged: &StagedBatch) {
    let txid = staged.txid();
    assert_eq!(staged.matches.len(), entry.list("channels").len());
    let scene = client.ports.lock();
    for expected in entry.list("channels") {
        let (ours, theirs): (OrderNonce, OrderNonce) = (expected.parse("our_nonce"), expected.parse("their_nonce"));
        let found = staged.matches.iter().find(|found| found.lease.ours == ours && found.lease.theirs == theirs);
        let found = found.expect("the match is staged");
        let channel = OutPoint { txid, vout: expected.u32("output_index") };
        assert_eq!((found.lease.channel, found.pending_id), (channel, expected.parse("pending_chan_id")));
        assert_eq!(found.lease.units, UnitCount::new(expected.u32("units_filled")));
        let sidecar = client.local.orders[&ours].order.bid().is_some_and(|bid| bid.sidecar);
        // The channel of a sidecar bid is the affair of its recipient's node.
        if sidecar {
            continue;
        }
        assert!(signatures.channels.contains_key(&channel), "channel {channel} is reported");
        let opened = scene.opened.iter().find(|open| open.shim.channel_point == channel);
        let shim = if found.lease.maker {
            let open = opened.expect("the maker opens");
            assert_eq!(open.commitment, commitment(expected.u64("commitment_type")));
            assert_eq!(open.push, found.lease.self_balance);
            &open.shim
        } else {
            assert!(opened.is_none(), "the taker waits");
            assert!(scene.rules.contains_key(&found.pending_id), "the taker expects the channel");
            scene.shims.iter().find(|shim| shim.channel_point == channel).expect("the taker registers")
        };
        assert_eq!(shim.pending_id, found.pending_id);
        assert_eq!((shim.capacity, shim.thaw_height), (expected.sats("value"), expected.u32("thaw_height")));
        assert_eq!(shim.musig2, expected.flag("musig2"));
        let output = &staged.transaction.output[usize::try_from(channel.vout).unwrap()];
        assert_eq!(output.script_pubkey.to_hex_string(), expected.text("pk_script"));
    }
    let all = staged.matches.iter().map(|found| found.lease.channel).collect::<BTreeSet<_>>();
    assert!(signatures.channels.keys().all(|channel| all.contains(channel)), "no other channel is reported");
}

fn commitment(number: u64) -> CommitmentType {
    match number {
        0 => CommitmentType::Negotiated,
        4 => CommitmentType::ScriptEnforcedLease,
        5 => CommitmentType::SimpleTaproot,
        other => panic!("commitment {other}"),
    }
}

/// What was staged is true, and recorded.
fn check_final(client: &mut Client, heard: &Heard, staged: &StagedBatch) {
    for expected in &staged.accounts {
        let key = expected.after.key();
        let found = heard.after.accounts.iter().find(|account| account.key() == key).unwrap();
        assert_eq!(found, &expected.after);
    }
    for expected in &staged.orders {
        let found = heard.after.orders.iter().find(|own| own.order.nonce == expected.nonce).unwrap();
        assert_eq!((found.state, found.units_unfulfilled), (expected.state, expected.units_unfulfilled));
    }
    let leases: BTreeSet<OutPoint> = heard.after.leases.iter().map(|lease| lease.channel).collect();
    assert!(staged.matches.iter().all(|matched| leases.contains(&matched.lease.channel)), "every match is a lease");
    assert!(client.records().iter().any(|record| record.txid == staged.txid()), "the batch is recorded");
}

/// The three messages of a batch, in order.
const PHASES: [&str; 3] = ["prepare", "sign", "finalize"];

fn honest(entry: &Value, local: Local, state: &Value) {
    let mut client = Client::start(state, local);
    let mut progress = Progress::default();
    for phase in PHASES {
        let Some(bytes) = message(entry, &format!("{phase}_msg")) else {
            assert_eq!(phase, "finalize", "the entry has no message to {phase}");
            continue;
        };
        progress.honest(&mut client, phase, &bytes, entry).unwrap_or_else(|text| panic!("{phase}: {text}"));
    }
}

fn honest_steps(entry: &Value) {
    let state = entry.at("local_state");
    let mut client = Client::start(state, Local::read(state));
    let mut progress = Progress::default();
    assert!(!entry.list("steps").is_empty(), "no steps");
    for (index, step) in entry.list("steps").iter().enumerate() {
        client.note_height(step);
        let outcome = progress.honest(&mut client, step.text("type"), &step_message(step), step);
        outcome.unwrap_or_else(|text| panic!("step {index}, {}: {text}", step.text("type")));
    }
}

#[test]
fn the_complete_batch_is_accepted_and_signed() {
    let Some(file) = load("batch_accept.json") else { return };
    honest(&file, Local::read(&file), &file);
    report("batch_accept.json", "account_inputs", file.list("account_inputs").len());
    report("batch_accept.json", "channels", file.list("channels").len());
}

#[test]
fn honest_conversations_are_carried_through() {
    let Some(file) = load("batch_honest.json") else { return };
    judge("batch_honest.json", &file, "vectors", |entry| match entry.get("steps") {
        Some(_) => honest_steps(entry),
        None => honest(entry, Local::read(entry.at("local_state")), entry.at("local_state")),
    });
}

/// Feeds the messages of one batch; whether one is refused in the phase that the entry names, or earlier.
fn hostile(entry: &Value) -> Result<(), String> {
    let state = entry.at("local_state");
    let mut client = Client::start(state, Local::read(state));
    let by = PHASES.iter().position(|phase| *phase == entry.text("reject_by")).expect("reject_by is a phase");
    for (index, phase) in PHASES.iter().enumerate().take(by + 1) {
        let Some(bytes) = message(entry, &format!("{phase}_msg")) else { continue };
        let heard = client.hear(phase, &bytes);
        match (refused(&heard), index == by) {
            (Ok(()), _) => return Ok(()),
            (Err(text), true) => return Err(format!("{phase}: {text}")),
            (Err(_), false) => {}
        }
    }
    Err(format!("nothing refused until {}", PHASES[by]))
}

/// Feeds a conversation; whether the steps to be refused, and only those, are refused.
fn hostile_steps(entry: &Value) -> Result<(), String> {
    let state = entry.at("local_state");
    let mut client = Client::start(state, Local::read(state));
    let mut progress = Progress::default();
    assert!(entry.list("steps").iter().any(|step| step.text("expect") == "reject"), "no step is to be refused");
    for (index, step) in entry.list("steps").iter().enumerate() {
        client.note_height(step);
        let (kind, bytes) = (step.text("type"), step_message(step));
        let outcome = match step.text("expect") {
            "reject" => refused(&client.hear(kind, &bytes)),
            "accept" | "sign" | "finalize" => progress.honest(&mut client, kind, &bytes, step),
            other => panic!("expect {other}"),
        };
        outcome.map_err(|text| format!("step {index}, {kind}: {text}"))?;
    }
    Ok(())
}

#[test]
fn hostile_conversations_are_refused_in_time() {
    let Some(file) = load("batch_hostile.json") else { return };
    let doubted = Cell::new(0);
    judge("batch_hostile.json", &file, "vectors", |entry| {
        let verdict = match entry.get("steps") {
            Some(_) => hostile_steps(entry),
            None => hostile(entry),
        };
        let doubt = entry.get("doubt").is_some_and(|doubt| !doubt.is_null() && doubt != &Value::Bool(false));
        if doubt {
            doubted.set(doubted.get() + 1);
            println!("in doubt, {}: {verdict:?}", label(entry));
        } else {
            verdict.unwrap();
        }
    });
    println!("batch_hostile.json: {} entries in doubt among them", doubted.get());
}

fn reason(reject: &Reject) -> &'static str {
    match reject.reason {
        RejectReason::Unknown => "UNKNOWN",
        RejectReason::ServerMisbehavior => "SERVER_MISBEHAVIOR",
        RejectReason::BatchVersionMismatch => "BATCH_VERSION_MISMATCH",
        RejectReason::Partial(_) => "PARTIAL_REJECT",
    }
}

#[test]
fn every_variation_is_answered_as_the_file_says() {
    let Some(file) = load("batch_mutations.json") else { return };
    let Some(accept) = load("batch_accept.json") else {
        println!("batch_mutations.json: not checked without batch_accept.json");
        return;
    };
    let names = order_names(&accept);
    judge("batch_mutations.json", &file, "vectors", |entry| {
        let mut local = Local::read(&accept);
        if let Some(changes) = entry.get("local_changes").filter(|changes| !changes.is_null()) {
            change(&mut local, &names, changes);
        }
        let mut client = Client::start(&accept, local);
        let heard = client.hear("prepare", &message(entry, "prepare_msg").unwrap());
        match entry.text("result") {
            "ACCEPTED" => drop(accepted(heard).unwrap()),
            result => {
                refused(&heard).unwrap();
                let [ClientMessage::Reject(reject)] = &heard.said[..] else { panic!("said {:?}", heard.said) };
                assert!(result == "REFUSED" || result == reason(reject), "{result}, said {reject:?}");
            }
        }
    });
}

/// The second of two successive batches, under the name of the first.
#[test]
fn a_final_batch_keeps_its_name() {
    let file = support::load_own("batch_honest.json");
    let successive = |entry: &&Value| label(entry).starts_with("two successive batches");
    let entry = file.list("vectors").iter().find(successive).expect("there are successive batches");
    let state = entry.at("local_state");
    let mut client = Client::start(state, Local::read(state));
    let mut progress = Progress::default();
    let (first, second) = entry.list("steps").split_at(3);
    let mut name = None;
    for step in first {
        progress.honest(&mut client, step.text("type"), &step_message(step), step).unwrap();
        name = name.or(progress.prepare.as_ref().map(|prepare| prepare.batch_id));
    }
    let honest = step_message(&second[0]);
    let mut named = poolrpc::OrderMatchPrepare::decode(&*honest).unwrap();
    named.batch_id = name.unwrap().serialize().to_vec();
    refused(&client.hear("prepare", &named.encode_to_vec())).unwrap();
    progress.honest(&mut client, "prepare", &honest, &second[0]).unwrap();
}

/// An entry that is broken, between two that are not, is named, and the others are judged all the same.
#[test]
fn a_broken_entry_is_named_and_hides_no_other() {
    let file = support::load_own("batch_honest.json");
    let mut entries: Vec<Value> = file.list("vectors").iter().take(2).cloned().collect();
    let mut broken = entries[0].clone();
    broken["name"] = "one satoshi more".into();
    let value = broken["staged_accounts"][0].u64("value");
    broken["staged_accounts"][0]["value"] = (value + 1).into();
    entries.insert(1, broken);
    let file = serde_json::json!({ "vectors": entries });
    let judged = Cell::new(0);
    let failure = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        judge("with a broken entry", &file, "vectors", |entry| {
            judged.set(judged.get() + 1);
            honest(entry, Local::read(entry.at("local_state")), entry.at("local_state"));
        });
    }))
    .expect_err("the broken entry fails");
    let text = support::text_of(failure.as_ref());
    assert_eq!(judged.get(), 3);
    assert!(text.contains("1 of 3 failed") && text.contains("one satoshi more: assertion"), "{text}");
}
