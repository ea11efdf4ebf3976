//! A market for tests: the venue and its traders as they are in a daemon, on a simulated chain, with real sockets between
//! them and a meddler in the middle.

pub(crate) mod meddler;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use meddler::{Meddler, identity};
use tidegate::runtime::{Shutdown, SteppedClock};
use tidegate::venue::{GrpcLink, GrpcTraders, Token};
use tidegate_ports::{Store, Timestamp, TraderEnv, VenueEnv};
use tidegate_protocol::account::{Account, AccountState, AccountVersion};
use tidegate_protocol::keys::{AccountKey, BatchId, OrderNonce};
use tidegate_protocol::order::{AskTerms, AuctionType, BidTerms, OrderChannelType, OrderSide};
use tidegate_protocol::units::{BlockCount, RatePerBillion, SatPerKw, Sats, UnitCount};
use tidegate_sandbox::{MemoryStore, SandboxEntropy, SandboxNode, World};
use tidegate_trader::{CloseAccount, Halt, Handle, NewOrder, OpenAccount, Status, SubmitError, TraderConfig};
use tidegate_venue::{TickOutcome, VenueConfig};
use tokio::task::JoinHandle;

/// Duration of every lease here.
pub(crate) const DURATION: BlockCount = BlockCount::new(2016);
/// Blocks until a new account expires.
pub(crate) const LIFETIME: BlockCount = BlockCount::new(4_000);
const ENDOWMENT: Sats = Sats::constant(500_000_000);
const START: Timestamp = Timestamp(1_767_225_600_000);
/// Shorter than usual, since tests make traders wait in vain.
const STEP_MS: u64 = 4_000;
/// Longest real wait for anything, and the pause between two looks.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(2);

/// The ports of a trader.
pub(crate) struct TraderParts<S> {
    node: SandboxNode,
    link: GrpcLink,
    store: S,
    clock: SteppedClock,
    entropy: SandboxEntropy,
}

/// The ports of a venue.
pub(crate) struct VenueParts<S> {
    node: SandboxNode,
    traders: GrpcTraders,
    store: S,
    clock: SteppedClock,
    entropy: SandboxEntropy,
}

macro_rules! port {
    ($($name:ident: $type:ty = $field:ident;)*) => {
        $(fn $name(&self) -> &$type { &self.$field })*
    };
}

impl<S: Store> TraderEnv for TraderParts<S> {
    type Wallet = SandboxNode;
    type Signer = SandboxNode;
    type Chain = SandboxNode;
    type Channels = SandboxNode;
    type NodeData = SandboxNode;
    type Link = GrpcLink;
    type Store = S;
    type Clock = SteppedClock;
    type Entropy = SandboxEntropy;

    port! {
        wallet: SandboxNode = node;
        signer: SandboxNode = node;
        chain: SandboxNode = node;
        channels: SandboxNode = node;
        node: SandboxNode = node;
        link: GrpcLink = link;
        store: S = store;
        clock: SteppedClock = clock;
        entropy: SandboxEntropy = entropy;
    }
}

impl<S: Store> VenueEnv for VenueParts<S> {
    type Wallet = SandboxNode;
    type Signer = SandboxNode;
    type Chain = SandboxNode;
    type Traders = GrpcTraders;
    type Store = S;
    type Clock = SteppedClock;
    type Entropy = SandboxEntropy;

    port! {
        wallet: SandboxNode = node;
        signer: SandboxNode = node;
        chain: SandboxNode = node;
        traders: GrpcTraders = traders;
        store: S = store;
        clock: SteppedClock = clock;
        entropy: SandboxEntropy = entropy;
    }
}

/// A running trader.
pub(crate) struct Trader {
    pub(crate) node: SandboxNode,
    pub(crate) handle: Handle,
    pub(crate) flows: JoinHandle<Result<(), Halt>>,
}

/// Everything that runs. What still runs at the end of a test ends with its runtime.
pub(crate) struct Market {
    pub(crate) world: World,
    pub(crate) clock: SteppedClock,
    pub(crate) venue: tidegate_venue::Handle,
    pub(crate) venue_node: SandboxNode,
    /// Where the venue itself listens.
    pub(crate) address: SocketAddr,
    pub(crate) meddler: Meddler,
    pub(crate) traders: BTreeMap<String, Trader>,
    /// How long traders that are started wait for others in one step of a batch.
    pub(crate) step_ms: u64,
    shutdown: Shutdown,
}

/// A close to the node's wallet at an estimated fee rate.
pub(crate) fn close(account: AccountKey) -> CloseAccount {
    CloseAccount::to_wallet(account)
}

/// Runs a test in a runtime with threads, as the binary does. With `TIDEGATE_LOG` set, as for the binary, it logs.
pub(crate) fn in_a_runtime<T>(future: impl Future<Output = T>) -> T {
    if let Ok(filter) = std::env::var("TIDEGATE_LOG") {
        // Another test of this process may have been first.
        drop(tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("threads can be had").block_on(future)
}

impl Market {
    /// A world of this seed with an open venue and nobody at it.
    pub(crate) async fn open(seed: u64) -> Market {
        Market::open_on(seed, MemoryStore::default()).await
    }

    /// As [`Market::open`], with the venue on this store.
    pub(crate) async fn open_on<S: Store + 'static>(seed: u64, store: S) -> Market {
        let world = World::new(seed);
        let clock = SteppedClock::new(START);
        let venue_node = world.add_node("venue");
        let server = tidegate::venue::bind("127.0.0.1:0".parse().expect("loopback")).await.expect("a port is free");
        let address = server.address().expect("it is bound");
        let traders = GrpcTraders::default();
        let config = VenueConfig { tick_ms: None, ..VenueConfig::usual("regtest") };
        let (venue, flows) = tidegate_venue::venue(config);
        let parts = VenueParts {
            node: venue_node.clone(),
            traders: traders.clone(),
            store,
            clock: clock.clone(),
            entropy: world.entropy("venue"),
        };
        tokio::spawn(async move { flows.run(&parts).await.expect("the venue goes on") });
        let shutdown = Shutdown::default();
        tokio::spawn(server.serve(venue.clone(), 6, traders, shutdown.clone()));
        let meddler = Meddler::start(address).await;
        let (traders, step_ms) = (BTreeMap::new(), STEP_MS);
        Market { world, clock, venue, venue_node, address, meddler, traders, step_ms, shutdown }
    }

    /// The venue stops for ever.
    pub(crate) async fn close_the_venue(&self) {
        self.venue.shutdown().await;
        self.shutdown.trigger();
    }

    /// A link to the venue, through the meddler, under this name.
    pub(crate) fn link(&self, name: &str) -> GrpcLink {
        GrpcLink::new(&self.meddler.address.to_string(), Token::new(identity(name))).expect("an address")
    }

    /// Starts a trader; its node has coins.
    pub(crate) fn start(&mut self, name: &str) {
        let link = self.link(name);
        self.start_on(name, link, MemoryStore::default());
    }

    /// Starts a trader on this link and store.
    pub(crate) fn start_on<S: Store + 'static>(&mut self, name: &str, link: GrpcLink, store: S) {
        let known = self.world.node(name);
        let node = known.clone().unwrap_or_else(|| self.world.add_node(name));
        if known.is_none() {
            self.world.fund(&node, ENDOWMENT).expect("the miner is rich");
        }
        let (handle, trader) =
            tidegate_trader::trader(TraderConfig { step_timeout_ms: self.step_ms, ..TraderConfig::default() });
        let (clock, entropy) = (self.clock.clone(), self.world.entropy(name));
        let parts = TraderParts { node: node.clone(), link, store, clock, entropy };
        let flows = tokio::spawn(async move { trader.run(&parts).await });
        self.traders.insert(name.to_owned(), Trader { node, handle, flows });
    }

    pub(crate) fn handle(&self, name: &str) -> Handle {
        self.traders[name].handle.clone()
    }

    pub(crate) fn node(&self, name: &str) -> SandboxNode {
        self.traders[name].node.clone()
    }

    pub(crate) async fn status(&self, name: &str) -> Status {
        self.handle(name).status().await.expect("the trader runs")
    }

    /// The one account of a trader.
    pub(crate) async fn account(&self, name: &str) -> Account {
        let accounts = self.status(name).await.accounts;
        assert_eq!(accounts.len(), 1, "{name}");
        accounts.into_iter().next().expect("one")
    }

    /// Looks again and again until it holds.
    pub(crate) async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !holds().await {
            assert!(tokio::time::Instant::now() < deadline, "it never came to this: {what}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Mines, and waits until every trader has seen it.
    pub(crate) async fn mine(&self, blocks: u32) {
        let height = self.world.mine(blocks);
        for name in self.traders.keys() {
            let seen = async || self.status(name).await.best_height == Some(height);
            self.until(&format!("{name} has seen block {height}"), seen).await;
        }
    }

    /// Starts traders and opens an account for each; returns when all of them take part in batches.
    pub(crate) async fn join(&mut self, names: &[&str], value: u64, version: AccountVersion) {
        for name in names {
            self.start(name);
        }
        self.open_accounts(names, value, version).await;
    }

    /// Opens an account for each; returns when all of them take part in batches.
    pub(crate) async fn open_accounts(&self, names: &[&str], value: u64, version: AccountVersion) {
        let value = Sats::new(value).expect("an amount");
        for name in names {
            let request = OpenAccount { value, expiry_blocks: LIFETIME, version, fee_rate: None };
            self.handle(name).open_account(request).await.expect("an account is opened");
        }
        self.mine(6).await;
        for name in names {
            self.ready(name).await;
        }
    }

    /// Waits until the account is open and subscribed.
    pub(crate) async fn ready(&self, name: &str) {
        let ready = async || {
            let status = self.status(name).await;
            let mut accounts = status.accounts.iter();
            accounts.all(|account| {
                account.state == AccountState::Open && status.subscribed_accounts.contains(&account.key())
            })
        };
        self.until(&format!("{name}'s account is open and subscribed"), ready).await;
    }

    /// An order of the one account of a trader.
    pub(crate) async fn order(
        &self,
        name: &str,
        rate: u32,
        units: u32,
        side: OrderSide,
    ) -> Result<OrderNonce, SubmitError> {
        self.order_with(name, rate, units, side, |_| ()).await
    }

    /// As [`Market::order`], with something else about it.
    pub(crate) async fn order_with(
        &self,
        name: &str,
        rate: u32,
        units: u32,
        side: OrderSide,
        edit: impl FnOnce(&mut NewOrder),
    ) -> Result<OrderNonce, SubmitError> {
        let mut order = NewOrder {
            account: self.account(name).await.key(),
            rate: RatePerBillion::new(rate),
            units: UnitCount::new(units),
            min_units: UnitCount::new(1),
            duration: DURATION,
            max_batch_fee_rate: SatPerKw::new(5_000),
            channel_type: OrderChannelType::PeerDependent,
            auction: AuctionType::Inbound,
            allowed_nodes: Vec::new(),
            denied_nodes: Vec::new(),
            public: false,
            side,
        };
        edit(&mut order);
        self.handle(name).submit_order(order).await
    }

    pub(crate) async fn ask(&self, name: &str, rate: u32, units: u32) -> OrderNonce {
        self.order(name, rate, units, OrderSide::Ask(AskTerms::default())).await.expect("the ask is taken")
    }

    pub(crate) async fn bid(&self, name: &str, rate: u32, units: u32) -> OrderNonce {
        self.order(name, rate, units, OrderSide::Bid(BidTerms::default())).await.expect("the bid is taken")
    }

    /// One attempt to clear.
    pub(crate) async fn tick(&self) -> TickOutcome {
        self.venue.tick().await.expect("the venue runs")
    }

    /// An attempt to clear that succeeds; returns when every trader has booked the batch and it is confirmed.
    pub(crate) async fn clear(&self) -> BatchId {
        let outcome = self.tick().await;
        let batch = outcome.cleared.unwrap_or_else(|| panic!("nothing cleared: {}", outcome.reason));
        self.booked(batch).await;
        batch
    }

    /// Attempts to clear, hours apart, until one succeeds: late answers of a round that was given up, traders that come
    /// back, or nodes that are kept apart, may spoil some.
    pub(crate) async fn clear_at_last(&self) -> BatchId {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            self.clock.advance(2 * 3_600_000);
            self.give_time_to_come_back().await;
            let outcome = self.tick().await;
            if let Some(batch) = outcome.cleared {
                self.booked(batch).await;
                return batch;
            }
            assert!(tokio::time::Instant::now() < deadline, "nothing clears any more: {}", outcome.reason);
        }
    }

    /// Time for traders that lost their stream to take part again: the clock stands, so that no handshake is late. One
    /// that noticed its loss only now waits for the clock, and comes back after the next jump.
    async fn give_time_to_come_back(&self) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(1);
        while tokio::time::Instant::now() < deadline {
            tokio::time::sleep(LOOK).await;
            let mut all = true;
            for name in self.traders.keys() {
                all &= self.status(name).await.subscribed;
            }
            if all {
                return;
            }
        }
    }

    async fn booked(&self, batch: BatchId) {
        for name in self.traders.keys() {
            let booked = async || !self.status(name).await.pending_batches.contains(&batch);
            self.until(&format!("{name} has booked {batch}"), booked).await;
        }
        self.mine(6).await;
        for name in self.traders.keys() {
            self.ready(name).await;
        }
    }
}
