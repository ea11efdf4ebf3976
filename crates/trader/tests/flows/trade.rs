//! From an account to a lease and back, and every interruption on the way.

use crate::crash::CrashStore;
use crate::sim::Sim;
use crate::venue::{DURATION, Made, TestLink, TestVenue};
use std::sync::{Arc, Mutex};
use tidegate_ports::*;
use tidegate_protocol::account::{Account, AccountState, AccountVersion};
use tidegate_protocol::batch::{MatchRejectCode, RejectReason};
use tidegate_protocol::keys::*;
use tidegate_protocol::order::*;
use tidegate_protocol::units::*;
use tidegate_sandbox::{ManualClock, SandboxEntropy, SandboxNode, World};
use tidegate_trader::*;

struct Env {
    node: SandboxNode,
    chain: PickyChain,
    link: TestLink,
    store: CrashStore,
    clock: ManualClock,
    entropy: SandboxEntropy,
}

/// The chain of a node that refuses to watch anything of one account.
#[derive(Clone)]
pub(crate) struct PickyChain {
    node: SandboxNode,
    refused: Arc<Mutex<Option<AccountKey>>>,
}

impl Chain for PickyChain {
    async fn best_height(&self) -> Result<BlockHeight, NodeError> {
        self.node.best_height().await
    }

    async fn watch(&self, name: &str, watch: Watch) -> Result<(), NodeError> {
        let refused = self.refused.lock().unwrap().is_some_and(|key| name.contains(&key.to_string()));
        if refused {
            return Err(NodeError::Refused { call: "watch", reason: "it does not like this account".into() });
        }
        self.node.watch(name, watch).await
    }

    async fn unwatch(&self, name: &str) -> Result<(), NodeError> {
        self.node.unwatch(name).await
    }

    async fn next_event(&self) -> Result<ChainEvent, NodeError> {
        self.node.next_event().await
    }
}

impl TraderEnv for Env {
    type Wallet = SandboxNode;
    type Signer = SandboxNode;
    type Chain = PickyChain;
    type Channels = SandboxNode;
    type NodeData = SandboxNode;
    type Link = TestLink;
    type Store = CrashStore;
    type Clock = ManualClock;
    type Entropy = SandboxEntropy;

    fn wallet(&self) -> &SandboxNode {
        &self.node
    }
    fn signer(&self) -> &SandboxNode {
        &self.node
    }
    fn chain(&self) -> &PickyChain {
        &self.chain
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
    fn store(&self) -> &CrashStore {
        &self.store
    }
    fn clock(&self) -> &ManualClock {
        &self.clock
    }
    fn entropy(&self) -> &SandboxEntropy {
        &self.entropy
    }
}

pub(crate) struct Party {
    name: &'static str,
    pub(crate) node: SandboxNode,
    pub(crate) store: CrashStore,
    pub(crate) handle: Handle,
}

/// Two traders, their nodes, a chain and a venue.
pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) sim: Sim,
    pub(crate) venue: TestVenue,
    pub(crate) alice: Party,
    pub(crate) bob: Party,
}

const FUNDS: Sats = Sats::constant(10_000_000);
pub(crate) const ALICE: Sats = Sats::constant(2_000_000);
pub(crate) const BOB: Sats = Sats::constant(500_000);

fn start(sim: &mut Sim, venue: &TestVenue, name: &'static str, node: &SandboxNode, store: &CrashStore) -> Handle {
    start_with(TraderConfig::default(), sim, venue, name, node, store)
}

fn start_with(
    config: TraderConfig,
    sim: &mut Sim,
    venue: &TestVenue,
    name: &'static str,
    node: &SandboxNode,
    store: &CrashStore,
) -> Handle {
    let (handle, trader) = trader(config);
    let env = Env {
        node: node.clone(),
        chain: PickyChain { node: node.clone(), refused: store.refused_watch() },
        link: venue.link(name),
        store: store.clone(),
        clock: sim.clock.clone(),
        entropy: node.world().entropy(name),
    };
    sim.spawn(name, Box::pin(async move { format!("{:?}", trader.run(&env).await) }));
    sim.settle();
    handle
}

impl Stage {
    pub(crate) fn new() -> Stage {
        let world = World::new(1);
        let mut sim = Sim::new(ManualClock::new(Timestamp(1_000_000)));
        let node = world.add_node("venue");
        let auctioneer = sim.wait(node.derive_key(KeyLocator { family: FAMILY_AUCTIONEER, index: 0 })).unwrap();
        let venue = TestVenue::new(&world, AuctioneerKey::new(auctioneer.point));
        let mut party = |name| {
            let (node, store) = (world.add_node(name), CrashStore::default());
            world.fund(&node, FUNDS).unwrap();
            let handle = start(&mut sim, &venue, name, &node, &store);
            Party { name, node, store, handle }
        };
        let (alice, bob) = (party("alice"), party("bob"));
        Stage { world, sim, venue, alice, bob }
    }

    pub(crate) fn mine(&mut self, blocks: u32) {
        for _ in 0..blocks {
            self.world.mine(1);
            self.sim.settle();
        }
    }

    pub(crate) fn open(&mut self, handle: Handle, value: Sats, version: AccountVersion) -> Result<Account, OpenError> {
        let request = OpenAccount { value, expiry_blocks: BlockCount::new(4_000), version, fee_rate: None };
        self.sim.wait(async move { handle.open_account(request).await })
    }

    pub(crate) fn status(&mut self, who: &'static str) -> Status {
        let handle = self.handle(who);
        self.sim.wait(async move { handle.status().await }).unwrap()
    }

    pub(crate) fn state(&mut self, who: &'static str) -> AccountState {
        self.status(who).accounts[0].state
    }

    /// Both have an open, subscribed account.
    pub(crate) fn with_accounts(version: AccountVersion) -> Stage {
        Stage::with_values(version, ALICE, BOB)
    }

    fn with_values(version: AccountVersion, alice: Sats, bob: Sats) -> Stage {
        let mut stage = Stage::new();
        for (handle, value) in [(stage.alice.handle.clone(), alice), (stage.bob.handle.clone(), bob)] {
            let account = stage.open(handle, value, version).unwrap();
            assert_eq!(account.state, AccountState::PendingOpen);
            assert_eq!(account.value, value);
        }
        stage.sim.settle();
        stage.mine(3);
        for who in ["alice", "bob"] {
            assert_eq!(stage.state(who), AccountState::Open);
            let status = stage.status(who);
            assert!(status.subscribed && status.connected, "{who}");
        }
        stage
    }

    pub(crate) fn order(&mut self, who: &'static str, rate: u32, units: u32) -> Result<OrderNonce, SubmitError> {
        self.order_of(who, rate, units, 1, 1_000)
    }

    pub(crate) fn order_of(
        &mut self,
        who: &'static str,
        rate: u32,
        units: u32,
        min: u32,
        fee: u64,
    ) -> Result<OrderNonce, SubmitError> {
        let order = self.new_order(who, rate, units, min, fee);
        let handle = self.handle(who);
        self.sim.wait(async move { handle.submit_order(order).await })
    }

    /// Outputs of the chain that pay the current script of the trader's account.
    pub(crate) fn payments(&mut self, who: &'static str) -> usize {
        let script = self.status(who).accounts[0].terms.output_script().unwrap();
        let blocks = (0..=self.world.height().get()).filter_map(|height| self.world.block(BlockHeight::new(height)));
        blocks.flatten().flat_map(|tx| tx.output).filter(|output| output.script_pubkey == script).count()
    }

    pub(crate) fn handle(&self, who: &str) -> Handle {
        if who == "alice" { self.alice.handle.clone() } else { self.bob.handle.clone() }
    }

    pub(crate) fn new_order(&mut self, who: &'static str, rate: u32, units: u32, min: u32, fee: u64) -> NewOrder {
        let account = self.status(who).accounts[0].key();
        let side = match who {
            "alice" => OrderSide::Ask(AskTerms::default()),
            _ => OrderSide::Bid(BidTerms::default()),
        };
        NewOrder {
            account,
            rate: RatePerBillion::new(rate),
            units: UnitCount::new(units),
            min_units: UnitCount::new(min),
            duration: DURATION,
            max_batch_fee_rate: SatPerKw::new(fee),
            channel_type: OrderChannelType::PeerDependent,
            auction: AuctionType::Inbound,
            allowed_nodes: Vec::new(),
            denied_nodes: Vec::new(),
            public: false,
            side,
        }
    }

    /// Both have an order: ask of 10 units at 700, bid of 4 units at 900.
    pub(crate) fn with_orders(version: AccountVersion) -> (Stage, OrderNonce, OrderNonce) {
        let mut stage = Stage::with_accounts(version);
        let ask = stage.order("alice", 700, 10).unwrap();
        let bid = stage.order("bob", 900, 4).unwrap();
        (stage, ask, bid)
    }

    pub(crate) fn accepted(&mut self, made: &Made) {
        self.venue.propose(made);
        self.sim.settle();
        for who in ["alice", "bob"] {
            let heard = self.venue.heard(who);
            assert_eq!(heard, Some(ClientMessage::Accept { batch_id: made.batch_id }), "{who}");
        }
    }

    /// Runs a batch up to the signatures of both, and returns the complete transaction.
    pub(crate) fn signed(&mut self, made: &mut Made) -> bitcoin::Transaction {
        self.accepted(made);
        let venue = self.venue.clone();
        self.sim.wait(venue.ask_to_sign(made));
        self.sim.settle();
        self.sim.wait(venue.complete(made))
    }

    pub(crate) fn restart(&mut self, who: &'static str) {
        self.restart_with(who, TraderConfig::default());
    }

    pub(crate) fn restart_with(&mut self, who: &'static str, config: TraderConfig) {
        self.sim.kill(who);
        let party = if who == "alice" { &mut self.alice } else { &mut self.bob };
        party.handle = start_with(config, &mut self.sim, &self.venue, party.name, &party.node, &party.store);
    }

    pub(crate) fn close(&mut self, who: &'static str) -> Result<bitcoin::Txid, CloseError> {
        let account = self.status(who).accounts[0].key();
        let handle = self.handle(who);
        self.sim.wait(async move { handle.close_account(CloseAccount::to_wallet(account)).await })
    }

    pub(crate) fn assert_traded(&mut self, made: &Made) {
        for who in ["alice", "bob"] {
            let status = self.status(who);
            assert_eq!(status.leases.len(), 1, "{who}");
            let (lease, account) = (&status.leases[0], &status.accounts[0]);
            let (terms, value) = made.after[&account.key()];
            assert_eq!((account.terms, account.value), (terms, value), "{who}");
            assert_eq!(lease.txid, made.transaction.compute_txid());
            assert_eq!(lease.maker, who == "alice");
            assert_eq!((lease.units, lease.clearing_price), (UnitCount::new(4), RatePerBillion::new(800)));
            let before = if who == "alice" { ALICE } else { BOB };
            let principal = if lease.maker { lease.units.to_sats() } else { Sats::ZERO };
            let costs = Sats::checked_sum([principal, lease.execution_fee, lease.chain_fee]).unwrap();
            let expected = if lease.maker {
                before.checked_add(lease.premium).unwrap().checked_sub(costs)
            } else {
                before.checked_sub(costs).unwrap().checked_sub(lease.premium)
            };
            assert_eq!(Some(account.value), expected, "the lease explains the balance of {who} to the satoshi");
        }
    }
}

pub(crate) fn batch_id(seed: u8) -> BatchId {
    let secret = bitcoin::secp256k1::SecretKey::from_slice(&[seed; 32]).unwrap();
    BatchId::new(bitcoin::secp256k1::PublicKey::from_secret_key(&bitcoin::secp256k1::Secp256k1::new(), &secret))
}

fn whole_life(version: AccountVersion) {
    let (mut stage, ask, bid) = Stage::with_orders(version);
    let mut made = stage.venue.make(batch_id(1), ask, bid, 4, 800, 500);
    let transaction = stage.signed(&mut made);
    assert_eq!(stage.status("alice").pending_batches, [made.batch_id], "stored before the signature left");
    stage.venue.finalize(&made);
    stage.venue.book(&made);
    stage.sim.settle();
    for who in ["alice", "bob"] {
        assert_eq!(stage.state(who), AccountState::PendingBatch, "{who}");
    }
    stage.world.publish(&transaction).unwrap();
    stage.mine(3);
    stage.assert_traded(&made);
    for who in ["alice", "bob"] {
        assert_eq!(stage.state(who), AccountState::Open, "{who}");
        assert!(stage.status(who).subscribed, "{who}");
    }
    let channel = stage.status("alice").leases[0].channel;
    for node in [stage.alice.node.clone(), stage.bob.node.clone()] {
        let active = stage.sim.wait(node.active_channels()).unwrap();
        assert_eq!(active, [(channel, Sats::constant(400_000))]);
    }
    let orders = stage.status("alice").orders;
    assert_eq!((orders[0].state, orders[0].units_unfulfilled), (OrderState::PartiallyFilled, UnitCount::new(6)));
    assert_eq!(stage.status("bob").orders[0].state, OrderState::Executed);

    assert_eq!(stage.close("alice"), Err(CloseError::ActiveOrders(1)));
    let handle = stage.alice.handle.clone();
    stage.sim.wait(async move { handle.cancel_order(ask).await }).unwrap();
    for who in ["alice", "bob"] {
        let txid = stage.close(who).unwrap();
        assert_eq!(stage.state(who), AccountState::PendingClosed);
        stage.mine(1);
        assert!(stage.world.transaction(txid).unwrap().1.is_some(), "the close confirmed");
        assert_eq!(stage.state(who), AccountState::Closed);
    }
    assert!(stage.sim.ended.is_empty(), "{:?}", stage.sim.ended);
}

#[test]
fn a_lease_is_sold_and_bought_on_accounts_of_version_2() {
    whole_life(AccountVersion::V2);
}

#[test]
fn a_lease_is_sold_and_bought_on_accounts_of_version_1() {
    whole_life(AccountVersion::V1);
}

#[test]
fn a_lease_is_sold_and_bought_on_accounts_of_version_0() {
    whole_life(AccountVersion::V0);
}

#[test]
fn a_batch_without_finalize_is_booked_when_a_block_spends_the_account() {
    let (mut stage, ask, bid) = Stage::with_orders(AccountVersion::V2);
    let mut made = stage.venue.make(batch_id(1), ask, bid, 4, 800, 500);
    let transaction = stage.signed(&mut made);
    stage.restart("bob");
    assert_eq!(stage.status("bob").pending_batches, [made.batch_id], "not final yet: kept");
    stage.world.publish(&transaction).unwrap();
    stage.venue.book(&made);
    stage.mine(4);
    stage.assert_traded(&made);
    assert_eq!(stage.state("alice"), AccountState::Open);
    assert_eq!(stage.state("bob"), AccountState::Open);
}

#[test]
fn a_batch_that_became_final_while_the_stream_was_cut_is_booked_from_its_snapshot() {
    let (mut stage, ask, bid) = Stage::with_orders(AccountVersion::V2);
    let mut made = stage.venue.make(batch_id(1), ask, bid, 4, 800, 500);
    stage.signed(&mut made);
    stage.venue.set_down(true);
    stage.sim.settle();
    assert!(!stage.status("alice").connected);
    stage.venue.publish_snapshot(&made);
    stage.venue.set_down(false);
    stage.sim.advance(20_000);
    stage.assert_traded(&made);
    assert_eq!(stage.state("alice"), AccountState::PendingBatch);
    assert!(stage.status("alice").subscribed);
}

#[test]
fn a_repeated_proposal_takes_the_place_of_a_signed_one() {
    let (mut stage, ask, bid) = Stage::with_orders(AccountVersion::V2);
    let mut first = stage.venue.make(batch_id(1), ask, bid, 4, 800, 500);
    stage.signed(&mut first);
    let mut second = stage.venue.make(batch_id(1), ask, bid, 4, 800, 600);
    let transaction = stage.signed(&mut second);
    stage.venue.finalize(&first);
    stage.sim.settle();
    assert!(stage.status("alice").leases.is_empty(), "the first one is superseded");
    stage.venue.finalize(&second);
    stage.venue.book(&second);
    stage.world.publish(&transaction).unwrap();
    stage.mine(3);
    stage.assert_traded(&second);
    assert_eq!(stage.state("alice"), AccountState::Open);
}

#[test]
fn a_superseded_batch_that_confirms_instead_of_the_final_one_is_what_counts() {
    let (mut stage, ask, bid) = Stage::with_orders(AccountVersion::V2);
    let mut first = stage.venue.make(batch_id(1), ask, bid, 4, 800, 500);
    let transaction = stage.signed(&mut first);
    let mut second = stage.venue.make(batch_id(1), ask, bid, 4, 800, 600);
    stage.signed(&mut second);
    stage.venue.finalize(&second);
    stage.sim.settle();
    assert_eq!(stage.status("alice").leases[0].txid, second.transaction.compute_txid());
    stage.world.publish(&transaction).unwrap();
    stage.venue.book(&first);
    stage.mine(4);
    stage.assert_traded(&first);
    assert_eq!(stage.state("alice"), AccountState::Open);
    assert_eq!(stage.state("bob"), AccountState::Open);
}

#[test]
fn a_batch_that_became_final_without_us_is_dropped() {
    let (mut stage, ask, bid) = Stage::with_orders(AccountVersion::V2);
    let mut made = stage.venue.make(batch_id(1), ask, bid, 4, 800, 500);
    stage.signed(&mut made);
    let other = stage.venue.make(batch_id(1), ask, bid, 4, 800, 600);
    stage.venue.set_down(true);
    stage.sim.settle();
    stage.venue.publish_snapshot(&other);
    stage.venue.set_down(false);
    stage.sim.advance(20_000);
    let status = stage.status("alice");
    assert_eq!((status.pending_batches.len(), status.leases.len()), (0, 0));
    assert_eq!(stage.state("alice"), AccountState::Open);
    let mut next = stage.venue.make(batch_id(2), ask, bid, 4, 800, 700);
    stage.signed(&mut next);
}

#[test]
fn refuses_a_batch_that_pays_a_satoshi_too_little() {
    let (mut stage, ask, bid) = Stage::with_orders(AccountVersion::V2);
    let mut made = stage.venue.make(batch_id(1), ask, bid, 4, 800, 500);
    let prepare = made.prepares.get_mut("alice").unwrap();
    prepare.accounts[0].ending_balance = prepare.accounts[0].ending_balance.checked_sub(Sats::constant(1)).unwrap();
    stage.venue.propose(&made);
    stage.sim.settle();
    match stage.venue.heard("alice") {
        Some(ClientMessage::Reject(reject)) => {
            assert_eq!(reject.reason, RejectReason::ServerMisbehavior);
            assert_eq!(reject.batch_id, made.batch_id.serialize());
        }
        other => panic!("{other:?}"),
    }
    stage.accepted(&stage.venue.make(batch_id(1), ask, bid, 4, 800, 500));
}

#[test]
fn a_peer_that_is_not_online_in_time_is_refused_by_its_order() {
    let (mut stage, ask, bid) = Stage::with_orders(AccountVersion::V2);
    stage.world.set_listening(&stage.alice.node, false);
    let made = stage.venue.make(batch_id(1), ask, bid, 4, 800, 500);
    stage.venue.propose(&made);
    stage.sim.settle();
    assert_eq!(stage.venue.heard("bob"), None, "still waiting");
    stage.sim.advance(15_000);
    match stage.venue.heard("bob") {
        Some(ClientMessage::Reject(reject)) => match reject.reason {
            RejectReason::Partial(matches) => {
                assert_eq!(matches.len(), 1);
                assert_eq!(matches[&ask].0, MatchRejectCode::ChannelFundingFailed);
            }
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_maker_whose_openings_all_fail_refuses_and_signs_nothing() {
    let (mut stage, ask, bid) = Stage::with_orders(AccountVersion::V2);
    let mut made = stage.venue.make(batch_id(1), ask, bid, 4, 800, 500);
    stage.accepted(&made);
    stage.world.disconnect(&stage.alice.node, &stage.bob.node);
    let venue = stage.venue.clone();
    stage.sim.wait(venue.ask_to_sign(&mut made));
    stage.sim.settle();
    match stage.venue.heard("alice") {
        Some(ClientMessage::Reject(reject)) => {
            assert!(matches!(reject.reason, RejectReason::Partial(matches) if matches.contains_key(&bid)));
        }
        other => panic!("{other:?}"),
    }
    assert!(stage.status("alice").pending_batches.is_empty());
    stage.sim.advance(15_000);
    assert!(matches!(stage.venue.heard("bob"), Some(ClientMessage::Reject(_))), "the taker waits in vain");
}

#[test]
fn a_node_that_was_started_just_now_opens_the_channel_when_it_is_ready() {
    let (mut stage, ask, bid) = Stage::with_orders(AccountVersion::V2);
    let mut made = stage.venue.make(batch_id(1), ask, bid, 4, 800, 500);
    stage.accepted(&made);
    stage.world.set_opening(&stage.alice.node, false);
    let venue = stage.venue.clone();
    stage.sim.wait(venue.ask_to_sign(&mut made));
    stage.sim.advance(5_000);
    assert_eq!((stage.venue.heard("alice"), stage.venue.heard("bob")), (None, None), "nobody gives up");
    stage.world.set_opening(&stage.alice.node, true);
    stage.sim.advance(1_000);
    for who in ["alice", "bob"] {
        assert!(matches!(stage.venue.heard(who), Some(ClientMessage::Sign(_))), "{who}");
    }
}

#[test]
fn a_node_that_is_not_ready_in_time_is_the_reason_of_the_refusal() {
    let (mut stage, ask, bid) = Stage::with_orders(AccountVersion::V2);
    let mut made = stage.venue.make(batch_id(1), ask, bid, 4, 800, 500);
    stage.accepted(&made);
    stage.world.set_opening(&stage.alice.node, false);
    let venue = stage.venue.clone();
    stage.sim.wait(venue.ask_to_sign(&mut made));
    stage.sim.settle();
    stage.sim.advance(15_000);
    let Some(ClientMessage::Reject(reject)) = stage.venue.heard("alice") else { panic!("no refusal") };
    assert_eq!(reject.reason, RejectReason::Unknown, "the counterpart is not to blame");
    assert!(reject.message.contains("still starting"), "{}", reject.message);
    assert!(stage.status("alice").pending_batches.is_empty());
}

#[test]
fn an_account_waits_for_coins_and_is_paid_once() {
    let mut stage = Stage::new();
    let handle = stage.alice.handle.clone();
    let found = stage.open(handle.clone(), Sats::constant(50_000_000), AccountVersion::V2);
    let Err(OpenError::Funding { account, source: NodeError::InsufficientFunds { .. } }) = found else {
        panic!("{found:?}")
    };
    assert_eq!(stage.state("alice"), AccountState::Initiated);
    let again = stage.open(handle, Sats::constant(300_000), AccountVersion::V2);
    assert_eq!(again, Err(OpenError::InProgress(account)));
    stage.world.fund(&stage.alice.node.clone(), Sats::constant(60_000_000)).unwrap();
    stage.restart("alice");
    stage.sim.advance(120_000);
    assert_eq!(stage.state("alice"), AccountState::PendingOpen);
    stage.restart("alice");
    stage.mine(3);
    assert_eq!(stage.state("alice"), AccountState::Open);
    assert_eq!(stage.payments("alice"), 1);
}

#[test]
fn an_account_is_announced_until_the_venue_accepts_it() {
    let mut stage = Stage::new();
    stage.open(stage.alice.handle.clone(), ALICE, AccountVersion::V2).unwrap();
    stage.venue.set_down(true);
    stage.restart("alice");
    let before = stage.venue.calls("init");
    stage.sim.advance(30_000);
    assert!(stage.venue.calls("init") > before, "repeated while the venue is away");
    stage.venue.set_down(false);
    stage.mine(6);
    stage.sim.advance(60_000);
    assert_eq!(stage.state("alice"), AccountState::Open);
    assert!(stage.status("alice").subscribed);
    let calls = stage.venue.calls("init");
    stage.sim.advance(120_000);
    assert_eq!(stage.venue.calls("init"), calls, "accepted once is enough");
}

#[test]
fn an_account_that_the_venue_does_not_know_is_announced_and_subscribed_again() {
    let mut stage = Stage::new();
    stage.venue.set_forgetful(true);
    stage.open(stage.alice.handle.clone(), ALICE, AccountVersion::V2).unwrap();
    stage.mine(3);
    assert!(!stage.status("alice").subscribed);
    let before = stage.venue.calls("init");
    stage.venue.set_forgetful(false);
    stage.sim.advance(30_000);
    assert!(stage.status("alice").subscribed);
    assert!(stage.venue.calls("init") >= before);
}

#[test]
fn an_order_of_unknown_outcome_is_asked_for_until_it_is_known() {
    let mut stage = Stage::with_accounts(AccountVersion::V2);
    stage.venue.lose_next_submission();
    let found = stage.order("alice", 700, 5);
    let Err(SubmitError::OutcomeUnknown { nonce, .. }) = found else { panic!("{found:?}") };
    stage.sim.settle();
    assert_eq!(stage.status("alice").orders[0].state, OrderState::Submitted, "it may still be on its way");
    assert_eq!(stage.status("alice").unsure_orders, 1);
    stage.sim.advance(6_000);
    let order = stage.status("alice").orders.into_iter().find(|own| own.order.nonce == nonce).unwrap();
    assert_eq!(order.state, OrderState::Failed, "the venue never got it");
    assert_eq!(stage.status("alice").unsure_orders, 0);
}

#[test]
fn orders_unknown_at_the_venue_fail_at_the_start_before_anything_is_subscribed() {
    let (mut stage, ask, _) = Stage::with_orders(AccountVersion::V2);
    stage.venue.forget_order(ask);
    stage.restart("alice");
    let status = stage.status("alice");
    assert_eq!(status.orders[0].state, OrderState::Failed);
    assert!(status.subscribed);
    assert_eq!(status.reserved.values().copied().collect::<Vec<_>>(), [Sats::ZERO]);
}

#[test]
fn refuses_orders_that_the_account_does_not_cover() {
    let mut stage = Stage::with_accounts(AccountVersion::V2);
    assert!(matches!(stage.order("alice", 700, 20), Err(SubmitError::Funds { .. })));
    stage.order("alice", 700, 15).unwrap();
    assert!(matches!(stage.order("alice", 700, 5), Err(SubmitError::Funds { .. })));
    let status = stage.status("alice");
    assert_eq!(status.orders.len(), 1);
    assert!(status.reserved[&status.accounts[0].key()] > Sats::constant(1_500_000));
}

fn uses_up_an_account(finalize: bool) {
    // 4 units, their execution fee and the chain fee at 600 sat/kW, less the premium at 700: exactly what is reserved.
    let chain_fee = tidegate_protocol::fees::chain_fee(1, SatPerKw::new(600), AccountVersion::V2).unwrap().get();
    let value = Sats::constant(400_000 + 401 - 564).get() + chain_fee;
    let mut stage = Stage::with_values(AccountVersion::V2, Sats::new(value).unwrap(), BOB);
    let ask = stage.order_of("alice", 700, 4, 4, 600).unwrap();
    let bid = stage.order("bob", 900, 4).unwrap();
    let mut made = stage.venue.make(batch_id(1), ask, bid, 4, 700, 500);
    let transaction = stage.signed(&mut made);
    if finalize {
        stage.venue.finalize(&made);
        stage.sim.settle();
        assert_eq!(stage.state("alice"), AccountState::PendingClosed);
    }
    stage.venue.book(&made);
    stage.world.publish(&transaction).unwrap();
    stage.mine(4);
    let status = stage.status("alice");
    assert_eq!(status.accounts[0].state, AccountState::Closed);
    assert_eq!((status.leases.len(), status.pending_batches.len()), (1, 0));
    assert_eq!(status.orders[0].state, OrderState::Executed);
    assert_eq!(stage.state("bob"), AccountState::Open);
}

#[test]
fn an_account_that_a_final_batch_uses_up_is_closed() {
    uses_up_an_account(true);
}

#[test]
fn an_account_that_a_batch_uses_up_is_closed_also_without_finalize() {
    uses_up_an_account(false);
}

#[test]
fn a_proposal_that_is_not_verified_gives_up_nothing() {
    let (mut stage, ask, bid) = Stage::with_orders(AccountVersion::V2);
    let mut made = stage.venue.make(batch_id(1), ask, bid, 4, 800, 500);
    let transaction = stage.signed(&mut made);
    let mut bad = stage.venue.make(batch_id(1), ask, bid, 4, 800, 600);
    for prepare in bad.prepares.values_mut() {
        prepare.accounts[0].ending_balance = Sats::constant(1);
    }
    stage.venue.propose(&bad);
    stage.sim.settle();
    assert!(matches!(stage.venue.heard("alice"), Some(ClientMessage::Reject(_))));
    stage.venue.finalize(&made);
    stage.venue.book(&made);
    stage.world.publish(&transaction).unwrap();
    stage.mine(3);
    stage.assert_traded(&made);
    let node = stage.alice.node.clone();
    assert_eq!(stage.sim.wait(node.active_channels()).unwrap().len(), 1, "its channel lives");
}

#[test]
fn a_channel_booked_from_the_chain_is_not_given_up_for_the_next_batch() {
    let (mut stage, ask, bid) = Stage::with_orders(AccountVersion::V2);
    let mut made = stage.venue.make(batch_id(1), ask, bid, 3, 800, 500);
    let transaction = stage.signed(&mut made);
    stage.venue.book(&made);
    stage.world.publish(&transaction).unwrap();
    stage.mine(4);
    assert_eq!(stage.status("alice").leases.len(), 1);
    let mut next = stage.venue.make(batch_id(2), ask, bid, 1, 800, 500);
    let transaction = stage.signed(&mut next);
    stage.venue.finalize(&next);
    stage.venue.book(&next);
    stage.world.publish(&transaction).unwrap();
    stage.mine(3);
    let node = stage.bob.node.clone();
    assert_eq!(stage.sim.wait(node.active_channels()).unwrap().len(), 2);
    assert_eq!(stage.status("bob").leases.len(), 2);
    assert_eq!(stage.status("bob").orders[0].state, OrderState::Executed);
}

fn closes_alone_after_expiry(version: AccountVersion) {
    let mut stage = Stage::with_accounts(version);
    stage.order("alice", 700, 5).unwrap();
    stage.mine(4_000);
    assert_eq!(stage.state("alice"), AccountState::Expired);
    stage.venue.set_down(true);
    let txid = stage.close("alice").unwrap();
    stage.mine(1);
    assert!(stage.world.transaction(txid).unwrap().1.is_some());
    assert_eq!(stage.state("alice"), AccountState::Closed);
    assert_eq!(stage.status("alice").orders[0].state, OrderState::Expired);
}

#[test]
fn an_expired_account_of_version_2_is_closed_without_the_venue() {
    closes_alone_after_expiry(AccountVersion::V2);
}

#[test]
fn an_expired_account_of_version_1_is_closed_without_the_venue() {
    closes_alone_after_expiry(AccountVersion::V1);
}

#[test]
fn an_expired_account_of_version_0_is_closed_without_the_venue() {
    closes_alone_after_expiry(AccountVersion::V0);
}

#[test]
fn a_second_writer_halts_the_trader() {
    let mut stage = Stage::with_accounts(AccountVersion::V2);
    let store = stage.alice.store.clone();
    let change = Change::Put { table: "other", key: "x".into(), value: "1".into() };
    let (sequence, _) = stage.sim.wait(store.load(&[])).unwrap();
    stage.sim.wait(store.apply(sequence, &[change])).unwrap();
    let account = stage.status("alice").accounts[0].key();
    let handle = stage.alice.handle.clone();
    let request = CloseAccount::to_wallet(account);
    let found = stage.sim.wait(async move { handle.close_account(request).await });
    assert_eq!(found, Err(CloseError::Gone(Gone)));
    assert!(stage.sim.ended[0].1.contains("Moved"), "{:?}", stage.sim.ended);
    assert!(stage.world.mempool().is_empty(), "nothing left without a commit");
    let handle = stage.alice.handle.clone();
    assert_eq!(stage.sim.wait(async move { handle.status().await }), Err(Gone));
}

#[test]
fn a_store_of_another_node_is_refused() {
    let mut stage = Stage::with_accounts(AccountVersion::V2);
    stage.sim.kill("alice");
    let mallory = stage.world.add_node("mallory");
    start(&mut stage.sim, &stage.venue.clone(), "alice", &mallory, &stage.alice.store.clone());
    assert!(stage.sim.ended[0].1.contains("OtherNode"), "{:?}", stage.sim.ended);
}

#[test]
fn shutdown_ends_the_trader_in_order() {
    let mut stage = Stage::with_accounts(AccountVersion::V2);
    let handle = stage.alice.handle.clone();
    stage.sim.wait(async move { handle.shutdown().await });
    stage.sim.settle();
    assert_eq!(stage.sim.ended, [("alice".to_owned(), "Ok(())".to_owned())]);
    let handle = stage.alice.handle.clone();
    assert_eq!(stage.sim.wait(async move { handle.status().await }), Err(Gone));
}

#[test]
fn a_trader_that_never_ran_is_gone() {
    let (handle, trader) = trader(TraderConfig::default());
    let mut sim = Sim::new(ManualClock::new(Timestamp(0)));
    let waiting = handle.clone();
    assert_eq!(sim.try_wait(async move { waiting.status().await }), None, "nothing is known yet");
    drop(trader);
    assert_eq!(sim.wait(async move { handle.status().await }), Err(Gone));
}
