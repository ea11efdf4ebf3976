//! Two traders whose nodes count signing calls, a chain, and the scripted auctioneer.

use crate::sim::Sim;
use crate::venue::{DURATION, Made, TestLink, TestVenue};
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tidegate_ports::*;
use tidegate_protocol::account::AccountVersion;
use tidegate_protocol::keys::{
    AuctioneerKey, BatchId, FAMILY_AUCTIONEER, KeyDescriptor, KeyLocator, OrderNonce, SharedSecret,
};
use tidegate_protocol::musig2::{PartialSignature, PublicNonce};
use tidegate_protocol::order::{AskTerms, AuctionType, BidTerms, OrderChannelType, OrderSide};
use tidegate_protocol::units::{BlockCount, RatePerBillion, SatPerKw, Sats, UnitCount};
use tidegate_sandbox::{ManualClock, MemoryStore, SandboxEntropy, SandboxNode, World};
use tidegate_trader::{BatchTally, Handle, NewOrder, OpenAccount, Status, TABLES, TraderConfig, trader};

/// A node's signer that counts every call which uses a secret.
#[derive(Clone)]
pub(crate) struct CountingSigner {
    node: SandboxNode,
    calls: Arc<AtomicUsize>,
}

impl CountingSigner {
    fn count(&self) -> &SandboxNode {
        self.calls.fetch_add(1, Ordering::SeqCst);
        &self.node
    }
}

impl Signer for CountingSigner {
    async fn derive_next_key(&self, family: u32) -> Result<KeyDescriptor, NodeError> {
        self.node.derive_next_key(family).await
    }
    async fn derive_key(&self, locator: KeyLocator) -> Result<KeyDescriptor, NodeError> {
        self.node.derive_key(locator).await
    }
    async fn shared_secret(&self, other: &PublicKey, locator: KeyLocator) -> Result<SharedSecret, NodeError> {
        self.node.shared_secret(other, locator).await
    }
    async fn sign_message(&self, message: &[u8], locator: KeyLocator) -> Result<Vec<u8>, NodeError> {
        self.count().sign_message(message, locator).await
    }
    async fn sign_input(&self, request: &SignInput) -> Result<Vec<u8>, NodeError> {
        self.count().sign_input(request).await
    }
    async fn musig2_begin(&self, request: &Musig2Request) -> Result<(SessionId, PublicNonce), NodeError> {
        self.count().musig2_begin(request).await
    }
    async fn musig2_register(&self, session: SessionId, other: &PublicNonce) -> Result<(), NodeError> {
        self.count().musig2_register(session, other).await
    }
    async fn musig2_sign(
        &self,
        session: SessionId,
        message: [u8; 32],
        last: bool,
    ) -> Result<PartialSignature, NodeError> {
        self.count().musig2_sign(session, message, last).await
    }
    async fn musig2_combine(&self, session: SessionId, other: &PartialSignature) -> Result<[u8; 64], NodeError> {
        self.count().musig2_combine(session, other).await
    }
    async fn musig2_cleanup(&self, session: SessionId) -> Result<(), NodeError> {
        self.node.musig2_cleanup(session).await
    }
}

struct Env {
    node: SandboxNode,
    signer: CountingSigner,
    link: TestLink,
    store: MemoryStore,
    clock: ManualClock,
    entropy: SandboxEntropy,
}

impl TraderEnv for Env {
    type Wallet = SandboxNode;
    type Signer = CountingSigner;
    type Chain = SandboxNode;
    type Channels = SandboxNode;
    type NodeData = SandboxNode;
    type Link = TestLink;
    type Store = MemoryStore;
    type Clock = ManualClock;
    type Entropy = SandboxEntropy;

    fn wallet(&self) -> &SandboxNode {
        &self.node
    }
    fn signer(&self) -> &CountingSigner {
        &self.signer
    }
    fn chain(&self) -> &SandboxNode {
        &self.node
    }
    fn channels(&self) -> &SandboxNode {
        &self.node
    }
    fn node(&self) -> &SandboxNode {
        &self.node
    }
    fn link(&self) -> &TestLink {
        &self.link
    }
    fn store(&self) -> &MemoryStore {
        &self.store
    }
    fn clock(&self) -> &ManualClock {
        &self.clock
    }
    fn entropy(&self) -> &SandboxEntropy {
        &self.entropy
    }
}

struct Party {
    handle: Handle,
    store: MemoryStore,
    calls: Arc<AtomicUsize>,
}

/// Alice sells, bob buys.
pub(crate) struct Stage {
    world: World,
    pub(crate) sim: Sim,
    pub(crate) venue: TestVenue,
    parties: BTreeMap<&'static str, Party>,
}

pub(crate) fn batch_id(seed: u8) -> BatchId {
    BatchId::new(SecretKey::from_slice(&[seed; 32]).unwrap().public_key(&Secp256k1::new()))
}

impl Stage {
    fn new() -> Stage {
        let world = World::new(1);
        let mut sim = Sim::new(ManualClock::new(Timestamp(1_000_000)));
        let node = world.add_node("venue");
        let auctioneer = sim.wait(node.derive_key(KeyLocator { family: FAMILY_AUCTIONEER, index: 0 })).unwrap();
        let venue = TestVenue::new(&world, AuctioneerKey::new(auctioneer.point));
        let mut parties = BTreeMap::new();
        for name in ["alice", "bob"] {
            let node = world.add_node(name);
            world.fund(&node, Sats::constant(10_000_000)).unwrap();
            let (handle, trader) = trader(TraderConfig::default());
            let (store, calls) = (MemoryStore::default(), Arc::new(AtomicUsize::default()));
            let env = Env {
                signer: CountingSigner { node: node.clone(), calls: Arc::clone(&calls) },
                link: venue.link(name),
                store: store.clone(),
                clock: sim.clock.clone(),
                entropy: world.entropy(name),
                node,
            };
            sim.spawn(name, Box::pin(async move { format!("{:?}", trader.run(&env).await) }));
            sim.settle();
            parties.insert(name, Party { handle, store, calls });
        }
        Stage { world, sim, venue, parties }
    }

    /// Both have an account, and orders that meet: ask of 10 units at 700, bid of 4 at 900.
    pub(crate) fn with_orders(version: AccountVersion) -> (Stage, OrderNonce, OrderNonce) {
        let mut stage = Stage::new();
        for (name, value) in [("alice", 2_000_000), ("bob", 500_000)] {
            let handle = stage.parties[name].handle.clone();
            let (value, expiry_blocks) = (Sats::new(value).unwrap(), BlockCount::new(4_000));
            let request = OpenAccount { value, expiry_blocks, version, fee_rate: None };
            stage.sim.wait(async move { handle.open_account(request).await }).unwrap();
        }
        stage.sim.settle();
        for _ in 0..3 {
            stage.world.mine(1);
            stage.sim.settle();
        }
        let ask = stage.order("alice", 700, 10, OrderSide::Ask(AskTerms::default()));
        let bid = stage.order("bob", 900, 4, OrderSide::Bid(BidTerms::default()));
        (stage, ask, bid)
    }

    fn order(&mut self, name: &str, rate: u32, units: u32, side: OrderSide) -> OrderNonce {
        let handle = self.parties[name].handle.clone();
        let order = NewOrder {
            account: self.status(name).accounts[0].key(),
            rate: RatePerBillion::new(rate),
            units: UnitCount::new(units),
            min_units: UnitCount::new(2),
            duration: DURATION,
            max_batch_fee_rate: SatPerKw::new(1_000),
            channel_type: OrderChannelType::PeerDependent,
            auction: AuctionType::Inbound,
            allowed_nodes: Vec::new(),
            denied_nodes: Vec::new(),
            public: false,
            side,
        };
        self.sim.wait(async move { handle.submit_order(order).await }).unwrap()
    }

    pub(crate) fn status(&mut self, name: &str) -> Status {
        let handle = self.parties[name].handle.clone();
        self.sim.wait(async move { handle.status().await }).unwrap()
    }

    /// Calls of alice's node that used a secret, so far.
    pub(crate) fn signatures(&self) -> usize {
        self.parties["alice"].calls.load(Ordering::SeqCst)
    }

    /// Alice's whole store, with the number of its last commit.
    pub(crate) fn rows(&mut self) -> (Sequence, Vec<Row>) {
        let store = self.parties["alice"].store.clone();
        self.sim.wait(async move { store.load(&TABLES).await }).unwrap()
    }

    /// Alice's accounts, orders, leases and signed batches.
    pub(crate) fn book(&mut self) -> Status {
        // The log and the count of refusals grow, and nothing else.
        Status { events_count: 0, sequence: Sequence(0), batches: BatchTally::default(), ..self.status("alice") }
    }

    pub(crate) fn accepted(&mut self, made: &Made) {
        self.venue.propose(made);
        self.sim.settle();
        for who in ["alice", "bob"] {
            let heard = self.venue.heard(who);
            assert_eq!(heard, Some(ClientMessage::Accept { batch_id: made.batch_id }), "{who}");
        }
    }

    /// Runs an honest batch up to the signatures of both.
    pub(crate) fn signed(&mut self, made: &mut Made) {
        self.accepted(made);
        let venue = self.venue.clone();
        self.sim.wait(venue.ask_to_sign(made));
        self.sim.settle();
        self.sim.wait(venue.complete(made));
    }

    /// After all those lies an honest batch is signed, and the signing calls are seen.
    pub(crate) fn trades(&mut self, ask: OrderNonce, bid: OrderNonce) {
        let before = self.signatures();
        let mut made = self.venue.make(batch_id(1), ask, bid, 4, 800, 500);
        self.signed(&mut made);
        assert!(self.signatures() > before, "a signature is counted");
        assert_eq!(self.status("alice").pending_batches, [made.batch_id]);
    }
}
