//! Batches: the complete one, its variations, conversations, hostile messages. Messages are read by `tidegate-wire`.

use crate::local::{Local, account, change, message, order_names, order_state, step_message, version};
use crate::support::{Entry, hex, judge, label, load, load_own, report};
use prost::Message;
use serde_json::Value;
use std::cell::RefCell;
use std::collections::BTreeSet;
use tidegate_protocol::account::{AccountState, AccountTerms, AccountVersion};
use tidegate_protocol::auth::verify_message;
use tidegate_protocol::batch::{Finalize, Prepare, RejectReason, SignBegin};
use tidegate_protocol::bitcoin::hashes::Hash;
use tidegate_protocol::bitcoin::secp256k1::{self, Secp256k1, ecdsa, schnorr};
use tidegate_protocol::bitcoin::{OutPoint, consensus};
use tidegate_protocol::channel::CommitmentType;
use tidegate_protocol::keys::{AccountKey, BatchId, OrderNonce};
use tidegate_protocol::musig2::{PartialSignature, PublicNonce, SigningContext};
use tidegate_protocol::script::{key_spend_sighash, segwit_v0_sighash};
use tidegate_protocol::units::{BlockHeight, UnitCount};
use tidegate_protocol::verify::{
    EndingOrder, LocalView, VerifiedBatch, VerifyError, verify_finalize, verify_prepare, verify_sign,
};
use tidegate_wire::bounded::{self, Shaped};
use tidegate_wire::{batch as wire, poolrpc};

impl Local {
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
    /// A message out of its turn.
    Turn(&'static str),
}

impl From<VerifyError> for Refusal {
    fn from(error: VerifyError) -> Refusal {
        Refusal::Verify(error)
    }
}

fn decode<M: Message + Default + Shaped, T, E: std::fmt::Display>(
    bytes: &[u8],
    read: impl Fn(M) -> Result<T, E>,
) -> Result<T, Refusal> {
    let message: M = bounded::decode(bytes).map_err(|error| Refusal::Decode(error.to_string()))?;
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

/// A client's side of a conversation about batches: what it knows, and where the batch under way stands.
struct Client {
    local: Local,
    accepted: Option<VerifiedBatch>,
    signed: Option<VerifiedBatch>,
    /// Names of final batches: they are not given twice.
    done: BTreeSet<BatchId>,
}

impl Client {
    fn read(entry: &Value) -> Client {
        Client { local: Local::read(entry.at("local_state")), accepted: None, signed: None, done: BTreeSet::new() }
    }

    /// A proposal takes the place of the one before, also when it is refused; a signed batch keeps its place until
    /// another one is verified that spends the same outputs, as all of one conversation do.
    fn prepare(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.accepted = None;
        let batch = self.local.prepare(bytes)?;
        if self.done.contains(&batch.prepare().batch_id) {
            return Err(Refusal::Turn("the name of a final batch"));
        }
        self.accepted = Some(batch);
        self.signed = None;
        Ok(())
    }

    /// A refused request ends the batch; none is signed twice.
    fn sign(&mut self, bytes: &[u8]) -> Result<SignBegin, Refusal> {
        let batch = self.accepted.take().ok_or(Refusal::Turn("nothing to sign"))?;
        let sign = self.local.sign(&batch, bytes)?;
        self.signed = Some(batch);
        Ok(sign)
    }

    /// A word about another batch changes nothing.
    fn finalize(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let batch = self.signed.clone().ok_or(Refusal::Turn("nothing signed"))?;
        verify_finalize(&batch, &decode_finalize(bytes)?)?;
        self.local.complete(&batch);
        self.done.insert(batch.prepare().batch_id);
        self.signed = None;
        Ok(())
    }

    fn hear(&mut self, kind: &str, bytes: &[u8]) -> Result<(), Refusal> {
        match kind {
            "prepare" => self.prepare(bytes),
            "sign" => self.sign(bytes).map(drop),
            "finalize" => self.finalize(bytes),
            other => panic!("a message of type {other}"),
        }
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
        state: order_state(expected),
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

#[test]
fn every_variation_of_the_batch_has_its_outcome() {
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
        let outcome = local.prepare(&message(entry, "prepare_msg").unwrap());
        match (entry.text("result"), outcome) {
            ("ACCEPTED", Ok(_)) => assert_eq!(entry.text("stage"), "accepted"),
            // Refused by a strict client, for whatever reason.
            ("REFUSED", Err(_)) => {}
            (result, Err(Refusal::Verify(error))) => {
                assert_eq!(reason(&error), result, "{error}");
                assert_ne!(entry.text("stage"), "parse", "{error}");
            }
            // A message that we do not even parse is refused for the generic reason.
            (_, Err(Refusal::Decode(text))) => assert_eq!(entry.text("stage"), "parse", "{text}"),
            (_, Err(Refusal::Turn(text))) => panic!("{text}"),
            (result, Ok(_)) => panic!("accepted, expected {result}"),
        }
    });
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
    judge("batch_honest.json", &file, "vectors", |entry| match entry.get("steps") {
        Some(_) => honest_steps(entry),
        None => honest_batch(entry),
    });
}

fn honest_batch(entry: &Value) {
    let mut client = Client::read(entry);
    client.prepare(&message(entry, "prepare_msg").unwrap()).unwrap();
    let batch = client.accepted.clone().unwrap();
    let sign = client.sign(&message(entry, "sign_msg").unwrap()).unwrap();
    check_transaction(entry, &batch);
    check_channels(entry.list("channels"), &batch);
    check_staged(entry, &batch);
    check_inputs(entry, &client.local, &batch, &sign);
    if let Some(message) = message(entry, "finalize_msg") {
        client.finalize(&message).unwrap();
    }
}

fn honest_steps(entry: &Value) {
    let mut client = Client::read(entry);
    assert!(!entry.list("steps").is_empty(), "no steps");
    for step in entry.list("steps") {
        note_height(&mut client, step);
        let bytes = step_message(step);
        if step.text("type") != "sign" {
            client.hear(step.text("type"), &bytes).unwrap();
            continue;
        }
        let batch = client.accepted.clone().unwrap();
        let sign = client.sign(&bytes).unwrap();
        if step.get("channels").is_some() {
            check_channels(step.list("channels"), &batch);
        }
        check_staged(step, &batch);
        check_inputs(step, &client.local, &batch, &sign);
    }
}

/// A conversation may last for some blocks.
fn note_height(client: &mut Client, step: &Value) {
    if step.get("best_height").is_some() {
        client.local.best_height = BlockHeight::new(step.u32("best_height"));
    }
}

#[test]
fn hostile_messages_are_refused_in_time() {
    let Some(file) = load("batch_hostile.json") else { return };
    let doubted = RefCell::new(0);
    judge("batch_hostile.json", &file, "vectors", |entry| {
        let verdict = match entry.get("steps") {
            Some(_) => hostile_steps(entry),
            None => hostile_messages(entry),
        };
        let doubt = entry.get("doubt").is_some_and(|doubt| !doubt.is_null() && doubt != &Value::Bool(false));
        if doubt {
            *doubted.borrow_mut() += 1;
            println!("in doubt, {}: {verdict:?}", label(entry));
        } else {
            verdict.unwrap();
        }
    });
    println!("batch_hostile.json: {} entries in doubt among them", doubted.borrow());
}

/// Phases of a batch, in order.
const PHASES: [&str; 3] = ["prepare", "sign", "finalize"];

/// Feeds the messages of one batch; whether one is refused in the phase that the entry names, or earlier.
fn hostile_messages(entry: &Value) -> Result<(), String> {
    let mut client = Client::read(entry);
    let by = PHASES.iter().position(|phase| *phase == entry.text("reject_by")).expect("reject_by is a phase");
    for phase in &PHASES[..=by] {
        let Some(bytes) = message(entry, &format!("{phase}_msg")) else { continue };
        if client.hear(phase, &bytes).is_err() {
            return Ok(());
        }
    }
    Err(format!("nothing refused until {}", PHASES[by]))
}

/// Feeds a conversation; whether the steps to be refused, and only those, are refused.
fn hostile_steps(entry: &Value) -> Result<(), String> {
    let mut client = Client::read(entry);
    assert!(entry.list("steps").iter().any(|step| step.text("expect") == "reject"), "no step is to be refused");
    for (index, step) in entry.list("steps").iter().enumerate() {
        note_height(&mut client, step);
        let kind = step.text("type");
        match (step.text("expect"), client.hear(kind, &step_message(step))) {
            ("reject", Ok(())) => return Err(format!("step {index}: a {kind} to be refused is not")),
            ("reject", Err(_)) | ("accept" | "sign" | "finalize", Ok(())) => {}
            ("accept" | "sign" | "finalize", Err(error)) => return Err(format!("step {index}: {kind}: {error:?}")),
            (other, _) => panic!("expect {other}"),
        }
    }
    Ok(())
}

#[test]
fn recorded_messages_are_no_signatures_of_orders() {
    let file = load_own("batch_accept.json");
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
