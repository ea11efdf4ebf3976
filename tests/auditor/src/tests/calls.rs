//! Unary calls and the handshake, with signatures made here.

use bitcoin::hashes::Hash as _;
use bitcoin::secp256k1::{Keypair, Message, PublicKey, SecretKey};
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use prost::Message as _;

use super::support::{me, report, rules};
use crate::keys::{curve, scalar, sha};
use crate::script::{AccountKeys, account_scripts};
use crate::signature::{key_sighash, legacy_sighash};
use crate::wire::rpc::{self, client_auction_message as said, server_auction_message as told};
use crate::wire::{bid, order_digest};
use crate::{Auditor, Caller, Rule};

const VALUE_SAT: u64 = 10_000_000;
const EXPIRY: u32 = 5_000;

fn secret_key(byte: u8) -> SecretKey {
    SecretKey::from_slice(&[byte; 32]).unwrap()
}

fn public(key: &SecretKey) -> PublicKey {
    key.public_key(curve())
}

fn der(key: &SecretKey, digest: [u8; 32]) -> Vec<u8> {
    curve().sign_ecdsa(&Message::from_digest(digest), key).serialize_der().to_vec()
}

/// A trader with one account of version 0, opened before the eyes of the auditor.
struct Opened {
    auditor: Auditor,
    trader: SecretKey,
    auctioneer: SecretKey,
    shared: [u8; 32],
}

impl Opened {
    fn batch_key() -> PublicKey {
        public(&secret_key(3))
    }

    fn outpoint() -> OutPoint {
        OutPoint { txid: Txid::from_byte_array([9; 32]), vout: 1 }
    }

    fn init(&self) -> rpc::ServerInitAccountRequest {
        rpc::ServerInitAccountRequest {
            account_point: Some(rpc::OutPoint { txid: vec![9; 32], output_index: 1 }),
            account_script: self.scripts().output.to_bytes(),
            account_value: VALUE_SAT,
            account_expiry: EXPIRY,
            trader_key: public(&self.trader).serialize().to_vec(),
            user_agent: String::new(),
            version: 0,
        }
    }

    fn scripts(&self) -> crate::script::AccountScripts {
        let (trader, auctioneer, batch) = (public(&self.trader), public(&self.auctioneer), Opened::batch_key());
        let keys = AccountKeys { trader: &trader, auctioneer: &auctioneer, batch: &batch, secret: &self.shared };
        account_scripts(0, keys, EXPIRY).unwrap()
    }

    /// Reserves, and lets `change` spoil the opening.
    fn new(change: impl FnOnce(&mut rpc::ServerInitAccountRequest)) -> Opened {
        let shared = [5; 32];
        let auditor = Auditor::with_secrets(Box::new(move |_, _| Some(shared)));
        let mut opened = Opened { auditor, trader: secret_key(1), auctioneer: secret_key(2), shared };
        let terms = rpc::TermsResponse {
            execution_fee: Some(rpc::ExecutionFee { base_fee: 1, fee_rate: 1_000 }),
            ..rpc::TermsResponse::default()
        };
        opened.auditor.unary(&me(), "Terms", &[], Some(&terms.encode_to_vec()));
        let request = rpc::ReserveAccountRequest {
            account_value: VALUE_SAT,
            account_expiry: EXPIRY,
            trader_key: public(&opened.trader).serialize().to_vec(),
            version: 0,
        };
        let response = rpc::ReserveAccountResponse {
            auctioneer_key: public(&opened.auctioneer).serialize().to_vec(),
            initial_batch_key: Opened::batch_key().serialize().to_vec(),
        };
        let request = request.encode_to_vec();
        opened.auditor.unary(&me(), "ReserveAccount", &request, Some(&response.encode_to_vec()));
        let mut init = opened.init();
        change(&mut init);
        opened.auditor.unary(&me(), "InitAccount", &init.encode_to_vec(), Some(&[]));
        opened
    }

    /// An order, with a signature by `signer`.
    fn submit(&mut self, caller: &Caller, signer: &SecretKey, nonce: u8) {
        let mut message = rpc::ServerBid {
            details: Some(rpc::ServerOrder {
                trader_key: public(&self.trader).serialize().to_vec(),
                rate_fixed: 500,
                amt: 1_000_000,
                min_chan_amt: 100_000,
                order_nonce: vec![nonce; 32],
                multi_sig_key: public(&secret_key(7)).serialize().to_vec(),
                node_pub: public(&secret_key(8)).serialize().to_vec(),
                max_batch_fee_rate_sat_per_kw: 1_000,
                ..rpc::ServerOrder::default()
            }),
            lease_duration_blocks: 2_016,
            version: 5,
            ..rpc::ServerBid::default()
        };
        let digest = order_digest(&bid(&message).unwrap()).unwrap();
        message.details.as_mut().unwrap().order_sig = der(signer, sha(&[&digest]));
        let details = Some(rpc::server_submit_order_request::Details::Bid(message));
        let request = rpc::ServerSubmitOrderRequest { details, user_agent: String::new() };
        self.auditor.unary(caller, "SubmitOrder", &request.encode_to_vec(), Some(&[]));
    }

    /// The three steps of the handshake, signed by `signer`.
    fn subscribe(&mut self, signer: &SecretKey) {
        let key = public(&self.trader).serialize().to_vec();
        let commitment = sha(&[&key, &[4; 32]]).to_vec();
        let commit = rpc::AccountCommitment { commit_hash: commitment.clone(), batch_version: 10 };
        let challenge = rpc::ServerChallenge { challenge: vec![6; 32], commit_hash: commitment.clone() };
        let subscribe = rpc::AccountSubscription {
            trader_key: key,
            commit_nonce: vec![4; 32],
            auth_sig: der(signer, sha(&[&sha(&[&commitment, &[6; 32]])])),
        };
        let client = |auditor: &mut Auditor, msg| {
            auditor.client_message(&me(), &rpc::ClientAuctionMessage { msg: Some(msg) }.encode_to_vec());
        };
        client(&mut self.auditor, said::Msg::Commit(commit));
        let msg = Some(told::Msg::Challenge(challenge));
        self.auditor.server_message(&me(), &rpc::ServerAuctionMessage { msg }.encode_to_vec());
        client(&mut self.auditor, said::Msg::Subscribe(subscribe));
    }

    /// A close to one output, and its transaction.
    fn close(&self, value_sat: u64) -> (rpc::ServerModifyAccountRequest, Transaction) {
        let script = ScriptBuf::from_bytes([vec![0, 20], vec![7; 20]].concat());
        let request = rpc::ServerModifyAccountRequest {
            trader_key: public(&self.trader).serialize().to_vec(),
            new_outputs: vec![rpc::ServerOutput { value: value_sat, script: script.to_bytes() }],
            prev_outputs: vec![rpc::TxOut { value: VALUE_SAT, pk_script: self.scripts().output.to_bytes() }],
            ..rpc::ServerModifyAccountRequest::default()
        };
        let tx = Transaction {
            version: bitcoin::transaction::Version::TWO,
            lock_time: bitcoin::absolute::LockTime::ZERO,
            input: vec![TxIn {
                previous_output: Opened::outpoint(),
                script_sig: ScriptBuf::new(),
                sequence: Sequence::ZERO,
                witness: Witness::new(),
            }],
            output: vec![TxOut { value: Amount::from_sat(value_sat), script_pubkey: script }],
        };
        (request, tx)
    }

    /// Both halves of a cooperative version 0 spend, with sighash byte.
    fn halves(&self, tx: &Transaction) -> [Vec<u8>; 2] {
        let scripts = self.scripts();
        let sighash = legacy_sighash(tx, 0, &scripts.script, VALUE_SAT).unwrap();
        let batch = Opened::batch_key().serialize();
        let tweak = scalar(sha(&[&batch, &self.shared, &public(&self.trader).serialize()]));
        let trader = self.trader.add_tweak(&tweak).unwrap();
        let tweak = scalar(sha(&[&scripts.trader.serialize(), &public(&self.auctioneer).serialize()]));
        let auctioneer = self.auctioneer.add_tweak(&tweak).unwrap();
        [trader, auctioneer].map(|key| [der(&key, sighash), vec![1]].concat())
    }

    fn modify(&mut self, request: &rpc::ServerModifyAccountRequest, signature: Vec<u8>) {
        let response = rpc::ServerModifyAccountResponse { account_sig: signature, server_nonces: Vec::new() };
        self.auditor.unary(&me(), "ModifyAccount", &request.encode_to_vec(), Some(&response.encode_to_vec()));
    }
}

#[test]
fn honest_calls_are_without_findings() {
    let mut opened = Opened::new(|_| {});
    let trader = opened.trader;
    opened.subscribe(&trader);
    opened.submit(&me(), &trader, 11);
    let (request, mut tx) = opened.close(VALUE_SAT - 500);
    let [own, theirs] = opened.halves(&tx);
    opened.modify(&request, theirs.clone());
    tx.input[0].witness = Witness::from_slice(&[theirs, own, opened.scripts().script.to_bytes()]);
    opened.auditor.transaction(&tx);
    assert_eq!(report(&opened.auditor), "");
    let counts = opened.auditor.counts();
    assert_eq!((counts.accounts, counts.secrets, counts.orders, counts.message_signatures), (1, 1, 1, 2));
    assert_eq!((counts.modifications, counts.modifications_verified, counts.witnesses_verified), (1, 1, 1));
}

#[test]
fn an_opening_that_differs_from_its_reservation_is_found() {
    let lies: [fn(&mut rpc::ServerInitAccountRequest); 4] = [
        |init| init.account_value += 1,
        |init| init.account_expiry += 1,
        |init| init.account_script[5] ^= 1,
        |init| init.trader_key = public(&secret_key(99)).serialize().to_vec(),
    ];
    for lie in lies {
        assert!(rules(&Opened::new(lie).auditor).contains(&Rule::AccountOpening));
    }
}

#[test]
fn a_second_opening_must_repeat_the_first() {
    let mut opened = Opened::new(|_| {});
    let again = opened.init();
    opened.auditor.unary(&me(), "InitAccount", &again.encode_to_vec(), Some(&[]));
    assert_eq!(report(&opened.auditor), "");
    let other = rpc::ServerInitAccountRequest {
        account_point: Some(rpc::OutPoint { txid: vec![8; 32], output_index: 1 }),
        ..again
    };
    opened.auditor.unary(&me(), "InitAccount", &other.encode_to_vec(), Some(&[]));
    assert_eq!(rules(&opened.auditor), [Rule::AccountOpening]);
}

#[test]
fn an_order_signed_by_another_key_is_found() {
    let mut opened = Opened::new(|_| {});
    opened.submit(&me(), &secret_key(42), 11);
    assert_eq!(rules(&opened.auditor), [Rule::OrderSignature]);
}

#[test]
fn an_order_for_a_foreign_account_is_found() {
    let mut opened = Opened::new(|_| {});
    let trader = opened.trader;
    opened.submit(&Caller("somebody else".to_owned()), &trader, 11);
    assert_eq!(rules(&opened.auditor), [Rule::OrderAccount]);
}

#[test]
fn a_subscription_signed_by_another_key_is_found() {
    let mut opened = Opened::new(|_| {});
    opened.subscribe(&secret_key(42));
    assert_eq!(rules(&opened.auditor), [Rule::Authentication]);
}

#[test]
fn a_challenge_without_commitment_is_found() {
    let mut opened = Opened::new(|_| {});
    let challenge = rpc::ServerChallenge { challenge: vec![6; 32], commit_hash: vec![1; 32] };
    let msg = Some(told::Msg::Challenge(challenge));
    opened.auditor.server_message(&me(), &rpc::ServerAuctionMessage { msg }.encode_to_vec());
    assert_eq!(rules(&opened.auditor), [Rule::Authentication]);
}

#[test]
fn a_wrong_signature_of_the_venue_is_found() {
    let mut opened = Opened::new(|_| {});
    let (request, _) = opened.close(VALUE_SAT - 500);
    let (_, other) = opened.close(VALUE_SAT - 501);
    let [_, theirs] = opened.halves(&other);
    opened.modify(&request, theirs);
    assert_eq!(rules(&opened.auditor), [Rule::AccountSignature]);
}

#[test]
fn a_modification_that_makes_satoshi_is_found() {
    let mut opened = Opened::new(|_| {});
    let (request, tx) = opened.close(VALUE_SAT + 1);
    let [_, theirs] = opened.halves(&tx);
    opened.modify(&request, theirs);
    assert_eq!(rules(&opened.auditor), [Rule::Conservation]);
}

#[test]
fn a_modification_of_an_unknown_account_is_found() {
    let mut opened = Opened::new(|_| {});
    let (mut request, _) = opened.close(VALUE_SAT - 500);
    request.trader_key = public(&secret_key(99)).serialize().to_vec();
    opened.modify(&request, Vec::new());
    assert_eq!(rules(&opened.auditor), [Rule::Modification]);
}

#[test]
fn a_spend_that_nobody_agreed_on_is_found() {
    let mut opened = Opened::new(|_| {});
    let (_, mut tx) = opened.close(VALUE_SAT - 500);
    let [own, theirs] = opened.halves(&tx);
    tx.input[0].witness = Witness::from_slice(&[theirs, own, opened.scripts().script.to_bytes()]);
    opened.auditor.transaction(&tx);
    assert_eq!(rules(&opened.auditor), [Rule::AgreedSpend]);
}

#[test]
fn a_bad_witness_is_found() {
    let mut opened = Opened::new(|_| {});
    let (request, mut tx) = opened.close(VALUE_SAT - 500);
    let [own, theirs] = opened.halves(&tx);
    opened.modify(&request, theirs.clone());
    tx.input[0].witness = Witness::from_slice(&[own, theirs, opened.scripts().script.to_bytes()]);
    opened.auditor.transaction(&tx);
    assert_eq!(rules(&opened.auditor), [Rule::Witness]);
}

#[test]
fn an_expiry_spend_needs_its_height() {
    for (height, expected) in [(EXPIRY, vec![]), (EXPIRY - 1, vec![Rule::Witness])] {
        let mut opened = Opened::new(|_| {});
        let (_, mut tx) = opened.close(VALUE_SAT - 500);
        tx.lock_time = bitcoin::absolute::LockTime::from_height(height).unwrap();
        let [own, _] = opened.halves(&tx);
        tx.input[0].witness = Witness::from_slice(&[vec![], own, opened.scripts().script.to_bytes()]);
        opened.auditor.transaction(&tx);
        assert_eq!(rules(&opened.auditor), expected, "{height}");
    }
}

/// An account whose output is spent by its key, in the form of version 2, with a key that stands for both.
#[test]
fn a_taproot_witness_is_judged_with_all_spent_outputs() {
    let mut auditor = Auditor::new();
    let pair = Keypair::from_secret_key(curve(), &secret_key(21));
    let script = ScriptBuf::from_bytes([vec![0x51, 0x20], pair.x_only_public_key().0.serialize().to_vec()].concat());
    let baseline = crate::Baseline {
        key: public(&secret_key(1)),
        auctioneer: public(&secret_key(2)),
        batch_key: public(&secret_key(3)),
        secret: None,
        outpoint: Opened::outpoint(),
        value_sat: VALUE_SAT,
        script: script.clone(),
        expiry: EXPIRY,
        version: 2,
        batch_version: 10,
    };
    auditor.adopt_account(&me(), baseline);
    let (_, mut tx) = Opened::new(|_| {}).close(VALUE_SAT - 500);
    let spent = [TxOut { value: Amount::from_sat(VALUE_SAT), script_pubkey: script }];
    let sighash = key_sighash(&tx, 0, &spent).unwrap();
    let signature = curve().sign_schnorr_no_aux_rand(&Message::from_digest(sighash), &pair);
    tx.input[0].witness = Witness::from_slice(&[signature.serialize()]);
    auditor.transaction(&tx);
    assert_eq!(auditor.counts().witnesses_verified, 1);
    assert_eq!(rules(&auditor), [Rule::AgreedSpend]);
}

/// Whoever loses the venue's half before it stored anything asks again; of two halves only the last may be used.
#[test]
fn a_modification_that_is_asked_for_again_replaces_the_first() {
    for (used, expected) in [(1, vec![]), (0, vec![Rule::DoubleSigned])] {
        let mut opened = Opened::new(|_| {});
        let asked = [VALUE_SAT - 500, VALUE_SAT - 700].map(|value| opened.close(value));
        for (request, tx) in &asked {
            let [_, theirs] = opened.halves(tx);
            opened.modify(request, theirs);
        }
        assert_eq!(report(&opened.auditor), "");
        assert_eq!(opened.auditor.counts().modifications_replaced, 1);
        let mut tx = asked[used].1.clone();
        let [own, theirs] = opened.halves(&tx);
        tx.input[0].witness = Witness::from_slice(&[theirs, own, opened.scripts().script.to_bytes()]);
        opened.auditor.transaction(&tx);
        assert_eq!(rules(&opened.auditor), expected, "the {used}. of two");
    }
}

#[test]
fn a_refused_modification_of_a_spent_account_is_no_finding() {
    let mut opened = Opened::new(|_| {});
    let (request, mut tx) = opened.close(VALUE_SAT - 500);
    let [own, theirs] = opened.halves(&tx);
    opened.modify(&request, theirs.clone());
    tx.input[0].witness = Witness::from_slice(&[theirs.clone(), own, opened.scripts().script.to_bytes()]);
    opened.auditor.transaction(&tx);
    opened.auditor.unary(&me(), "ModifyAccount", &request.encode_to_vec(), None);
    assert_eq!(report(&opened.auditor), "", "its owner does not know yet");
    opened.modify(&request, theirs);
    assert_eq!(rules(&opened.auditor), [Rule::Modification], "but nobody signs for it any more");
}

#[test]
fn a_modification_beyond_its_limits_is_found() {
    type Spoil = fn(&mut rpc::ServerModifyAccountRequest);
    let new = |value, version| rpc::server_modify_account_request::NewAccountParameters { value, expiry: 0, version };
    let cases: [(&str, Spoil); 3] = [
        ("nothing is left for the fee", |request| request.new_outputs[0].value = VALUE_SAT),
        ("too little is left", |request| request.new_outputs[0].value = 1_000),
        ("an unknown version", |request| request.new_outputs[0].value = 1_000),
    ];
    for (index, (name, spoil)) in cases.into_iter().enumerate() {
        let mut opened = Opened::new(|_| {});
        let (mut request, tx) = opened.close(VALUE_SAT - 500);
        spoil(&mut request);
        request.new_params = match index {
            1 => Some(new(99_999, 0)),
            2 => Some(new(VALUE_SAT - 5_000, 3)),
            _ => None,
        };
        let [_, theirs] = opened.halves(&tx);
        opened.modify(&request, theirs);
        assert!(rules(&opened.auditor).contains(&Rule::Modification), "{name}: {}", report(&opened.auditor));
    }
}
