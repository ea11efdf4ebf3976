//! Account outputs on the chain: who may spend them, and when. Core's interpreter is the judge.

use super::{now, sats, unsigned};
use crate::{Acceptance, SandboxNode, ScriptRefusal, TxRefusal, World};
use bitcoin::{OutPoint, Transaction, TxOut, Witness};
use tidegate_ports::{Musig2Request, NodeError, ScriptSpend, SessionId, SignInput, Signer};
use tidegate_protocol::account::{AccountTerms, AccountVersion};
use tidegate_protocol::keys::{AccountKey, AuctioneerKey, BatchKey, FAMILY_ACCOUNT, FAMILY_AUCTIONEER, KeyDescriptor};
use tidegate_protocol::musig2::{Musig2Version, PublicNonce};
use tidegate_protocol::script::{INITIAL_BATCH_KEY, SpendKind, classify_spend, key_spend_sighash};
use tidegate_protocol::units::{BlockCount, BlockHeight};

const VERSIONS: [AccountVersion; 3] = [AccountVersion::V0, AccountVersion::V1, AccountVersion::V2];

/// A confirmed account of one million satoshi that expires 20 blocks after the start.
struct Fixture {
    world: World,
    trader: SandboxNode,
    auctioneer: SandboxNode,
    trader_key: KeyDescriptor,
    auctioneer_key: KeyDescriptor,
    terms: AccountTerms,
    outpoint: OutPoint,
}

impl Fixture {
    fn new(version: AccountVersion) -> Fixture {
        let world = World::new(11);
        let (trader, auctioneer) = (world.add_node("trader"), world.add_node("auctioneer"));
        let trader_key = now(trader.derive_next_key(FAMILY_ACCOUNT)).expect("a key");
        let auctioneer_key = now(auctioneer.derive_next_key(FAMILY_AUCTIONEER)).expect("a key");
        let secret = now(trader.shared_secret(&auctioneer_key.point, trader_key.locator)).expect("a secret");
        let same = now(auctioneer.shared_secret(&trader_key.point, auctioneer_key.locator)).expect("a secret");
        assert_eq!(secret, same, "both sides compute one secret");
        let terms = AccountTerms {
            version,
            trader: AccountKey::new(trader_key.point),
            auctioneer: AuctioneerKey::new(auctioneer_key.point),
            batch: INITIAL_BATCH_KEY.parse::<BatchKey>().expect("a key"),
            secret,
            expiry: world.height().checked_add(BlockCount::new(20)).expect("a height"),
        };
        let outpoint = world.pay(terms.output_script().expect("a script"), sats(1_000_000)).expect("the miner pays");
        world.mine(1);
        Fixture { world, trader, auctioneer, trader_key, auctioneer_key, terms, outpoint }
    }

    fn spent(&self) -> Vec<TxOut> {
        vec![self.terms.output(sats(1_000_000)).expect("an output")]
    }

    /// One side's signature of the script path.
    fn sign_script(&self, node: &SandboxNode, key: KeyDescriptor, tweak: [u8; 32], tx: &Transaction) -> Vec<u8> {
        let script = self.terms.inner_script().expect("a script");
        let spend = match self.terms.version {
            AccountVersion::V0 => ScriptSpend::SegwitV0 { script },
            AccountVersion::V1 | AccountVersion::V2 => ScriptSpend::Tapscript { leaf: script },
        };
        let request = SignInput { transaction: tx.clone(), input: 0, prev_outputs: self.spent(), key, tweak, spend };
        now(node.sign_input(&request)).expect("a signature")
    }

    fn expiry_witness(&self, tx: &Transaction) -> Witness {
        let signature = self.sign_script(&self.trader, self.trader_key, self.terms.trader_tweak(), tx);
        self.terms.expiry_witness(&signature).expect("a witness")
    }

    fn request(&self, key: KeyDescriptor, other_nonce: Option<PublicNonce>) -> Musig2Request {
        let version = match self.terms.version {
            AccountVersion::V1 => Musig2Version::V040,
            AccountVersion::V0 | AccountVersion::V2 => Musig2Version::V100Rc2,
        };
        let keys = [self.trader_key.point, self.auctioneer_key.point];
        let merkle_root = self.terms.merkle_root().expect("a root");
        Musig2Request { signer: key.locator, keys, version, merkle_root, other_nonce }
    }

    /// The auctioneer begins, the trader answers with its half, the auctioneer combines.
    fn musig2_witness(&self, tx: &Transaction) -> Witness {
        let message = key_spend_sighash(tx, 0, &self.spent()).expect("a hash");
        let (theirs, nonce) =
            now(self.auctioneer.musig2_begin(&self.request(self.auctioneer_key, None))).expect("begun");
        let (ours, answer) = now(self.trader.musig2_begin(&self.request(self.trader_key, Some(nonce)))).expect("begun");
        let half = now(self.trader.musig2_sign(ours, message, true)).expect("signed");
        now(self.auctioneer.musig2_register(theirs, &answer)).expect("registered");
        now(self.auctioneer.musig2_sign(theirs, message, false)).expect("signed");
        let signature = now(self.auctioneer.musig2_combine(theirs, &half)).expect("combined");
        Witness::from_slice(&[signature])
    }

    fn cooperative_witness(&self, tx: &Transaction) -> Witness {
        match self.terms.version {
            AccountVersion::V0 => {
                let tweak = self.terms.auctioneer_tweak().expect("a tweak");
                let theirs = self.sign_script(&self.auctioneer, self.auctioneer_key, tweak, tx);
                let ours = self.sign_script(&self.trader, self.trader_key, self.terms.trader_tweak(), tx);
                self.terms.cooperative_witness_v0(&theirs, &ours).expect("a witness")
            }
            AccountVersion::V1 | AccountVersion::V2 => self.musig2_witness(tx),
        }
    }
}

#[test]
fn both_sides_spend_an_account_before_expiry() {
    for version in VERSIONS {
        let fixture = Fixture::new(version);
        let mut tx = unsigned(&fixture.trader, fixture.outpoint, 1_000, 0);
        tx.input[0].witness = fixture.cooperative_witness(&tx);
        assert_eq!(classify_spend(&tx.input[0].witness), SpendKind::Cooperative, "{version:?}");
        assert_eq!(fixture.world.publish(&tx), Ok(Acceptance::New), "{version:?}");
        let height = fixture.world.mine(1);
        let (_, confirmed) = fixture.world.transaction(tx.compute_txid()).expect("known");
        assert_eq!(confirmed, Some(height), "{version:?}");
    }
}

#[test]
fn trader_alone_spends_an_account_from_expiry_on_and_not_before() {
    for version in VERSIONS {
        let fixture = Fixture::new(version);
        let expiry = fixture.terms.expiry.get();
        let mut tx = unsigned(&fixture.trader, fixture.outpoint, 1_000, expiry);
        tx.input[0].witness = fixture.expiry_witness(&tx);
        assert_eq!(classify_spend(&tx.input[0].witness), SpendKind::Expiry, "{version:?}");
        fixture.world.mine(expiry - 1 - fixture.world.height().get());
        let early = fixture.world.publish(&tx);
        assert!(matches!(early, Err(TxRefusal::NotFinal { .. })), "{version:?}: {early:?}");
        assert_eq!(fixture.world.mine(1), BlockHeight::new(expiry));
        assert_eq!(fixture.world.publish(&tx), Ok(Acceptance::New), "{version:?}");
    }
}

#[test]
fn script_refuses_the_expiry_path_with_a_lock_time_below_expiry() {
    for version in VERSIONS {
        let fixture = Fixture::new(version);
        fixture.world.mine(30);
        let mut tx = unsigned(&fixture.trader, fixture.outpoint, 1_000, fixture.terms.expiry.get() - 1);
        tx.input[0].witness = fixture.expiry_witness(&tx);
        let refusal = fixture.world.publish(&tx);
        let script = matches!(refusal, Err(TxRefusal::Script(ScriptRefusal::Unsatisfied { input: 0, .. })));
        assert!(script, "{version:?}: {refusal:?}");
    }
}

#[test]
fn script_refuses_a_signature_of_another_transaction() {
    for version in VERSIONS {
        let fixture = Fixture::new(version);
        let mut tx = unsigned(&fixture.trader, fixture.outpoint, 1_000, 0);
        let witness = fixture.cooperative_witness(&tx);
        tx.output[0].value -= bitcoin::Amount::from_sat(1);
        tx.input[0].witness = witness;
        let refusal = fixture.world.publish(&tx);
        let script = matches!(refusal, Err(TxRefusal::Script(ScriptRefusal::Unsatisfied { input: 0, .. })));
        assert!(script, "{version:?}: {refusal:?}");
    }
}

fn reason(error: NodeError) -> String {
    match error {
        NodeError::Refused { reason, .. } => reason,
        other => panic!("not a refusal: {other:?}"),
    }
}

#[test]
fn session_signs_once() {
    let fixture = Fixture::new(AccountVersion::V2);
    let (_, nonce) =
        now(fixture.auctioneer.musig2_begin(&fixture.request(fixture.auctioneer_key, None))).expect("begun");
    let request = fixture.request(fixture.trader_key, Some(nonce));
    let (session, _) = now(fixture.trader.musig2_begin(&request)).expect("begun");
    now(fixture.trader.musig2_sign(session, [1; 32], false)).expect("the first signature");
    for message in [[1; 32], [2; 32]] {
        let second = now(fixture.trader.musig2_sign(session, message, false)).expect_err("a second signature");
        assert_eq!(reason(second), "the session has signed already");
    }
}

#[test]
fn sessions_refuse_steps_out_of_order() {
    let fixture = Fixture::new(AccountVersion::V2);
    let (trader, key) = (&fixture.trader, fixture.trader_key);
    let (session, nonce) = now(trader.musig2_begin(&fixture.request(key, None))).expect("begun");
    let unready = now(trader.musig2_sign(session, [1; 32], true)).expect_err("no nonces yet");
    assert_eq!(reason(unready), "the other side's nonces are missing");
    let (theirs, other) =
        now(fixture.auctioneer.musig2_begin(&fixture.request(fixture.auctioneer_key, None))).expect("begun");
    now(trader.musig2_register(session, &other)).expect("registered");
    assert_eq!(
        reason(now(trader.musig2_register(session, &other)).expect_err("twice")),
        "all nonces are known already"
    );
    now(fixture.auctioneer.musig2_register(theirs, &nonce)).expect("registered");
    let half = now(fixture.auctioneer.musig2_sign(theirs, [1; 32], true)).expect("signed");
    assert_eq!(
        reason(now(trader.musig2_combine(session, &half)).expect_err("unsigned")),
        "the session has not signed yet"
    );
    now(trader.musig2_cleanup(session)).expect("forgotten");
    now(trader.musig2_sign(session, [1; 32], true)).expect_err("forgotten");
    now(fixture.auctioneer.musig2_register(SessionId([9; 32]), &nonce)).expect_err("unknown");
    let foreign = Musig2Request { keys: [fixture.auctioneer_key.point; 2], ..fixture.request(key, None) };
    assert_eq!(
        reason(now(trader.musig2_begin(&foreign)).expect_err("not ours")),
        "our key is not among the signers' keys"
    );
}

#[test]
fn combining_with_a_half_of_another_message_is_refused() {
    let fixture = Fixture::new(AccountVersion::V2);
    let (theirs, nonce) =
        now(fixture.auctioneer.musig2_begin(&fixture.request(fixture.auctioneer_key, None))).expect("begun");
    let (ours, answer) =
        now(fixture.trader.musig2_begin(&fixture.request(fixture.trader_key, Some(nonce)))).expect("begun");
    now(fixture.auctioneer.musig2_register(theirs, &answer)).expect("registered");
    let half = now(fixture.auctioneer.musig2_sign(theirs, [2; 32], true)).expect("signed");
    now(fixture.trader.musig2_sign(ours, [1; 32], false)).expect("signed");
    now(fixture.trader.musig2_combine(ours, &half)).expect_err("halves of two messages make no signature");
}

#[test]
fn signer_refuses_a_key_that_is_not_at_its_place() {
    let fixture = Fixture::new(AccountVersion::V0);
    let tx = unsigned(&fixture.trader, fixture.outpoint, 1_000, 0);
    let key = KeyDescriptor { point: fixture.auctioneer_key.point, locator: fixture.trader_key.locator };
    let spend = ScriptSpend::SegwitV0 { script: fixture.terms.inner_script().expect("a script") };
    let request = SignInput { transaction: tx, input: 0, prev_outputs: fixture.spent(), key, tweak: [0; 32], spend };
    now(fixture.trader.sign_input(&request)).expect_err("a foreign key");
    let missing = SignInput { key: fixture.trader_key, input: 1, ..request };
    now(fixture.trader.sign_input(&missing)).expect_err("no such input");
}
