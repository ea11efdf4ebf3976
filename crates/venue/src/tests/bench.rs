//! A venue on a simulated chain, driven by hand.

use super::trader::TestTrader;
use crate::book::{AccountRecord, Book};
use crate::{Halt, Handle, TickOutcome, VenueConfig, venue};
use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll};
use futures_util::task::noop_waker;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use tidegate_ports::{
    Chain, ChainEvent, NodeError, ServerMessage, StreamId, Timestamp, TraderEvent, TraderId, Traders, VenueEnv, Watch,
};
use tidegate_protocol::account::AccountVersion;
use tidegate_protocol::keys::AccountKey;
use tidegate_protocol::script::INITIAL_BATCH_KEY;
use tidegate_protocol::units::BlockHeight;
use tidegate_sandbox::{ManualClock, MemoryStore, SandboxEntropy, SandboxNode, World};

/// Streams in memory.
#[derive(Clone, Default)]
pub(super) struct FakeTraders(Arc<Mutex<Wires>>);

#[derive(Default)]
pub(super) struct Wires {
    pub(super) events: VecDeque<TraderEvent>,
    pub(super) outbox: BTreeMap<StreamId, VecDeque<ServerMessage>>,
    pub(super) closed: BTreeMap<StreamId, String>,
}

impl FakeTraders {
    pub(super) fn with<R>(&self, f: impl FnOnce(&mut Wires) -> R) -> R {
        f(&mut self.0.lock().unwrap())
    }
}

impl Traders for FakeTraders {
    fn next_event(&self) -> impl Future<Output = TraderEvent> + Send {
        poll_fn(|_| self.with(|wires| wires.events.pop_front().map_or(Poll::Pending, Poll::Ready)))
    }

    async fn send(&self, stream: StreamId, message: ServerMessage) -> bool {
        self.with(|wires| wires.outbox.get_mut(&stream).map(|queue| queue.push_back(message)).is_some())
    }

    async fn close(&self, stream: StreamId, reason: &str) {
        self.with(|wires| {
            wires.outbox.remove(&stream);
            wires.closed.insert(stream, reason.to_owned());
        });
    }
}

/// The node's chain, and events of the test's own: the simulated chain knows no commitment transactions.
pub(super) struct TestChain {
    pub(super) node: SandboxNode,
    pub(super) extra: Mutex<VecDeque<ChainEvent>>,
    /// The node takes calls and never answers.
    pub(super) hangs: AtomicBool,
}

impl TestChain {
    async fn answer_at_last(&self) {
        if self.hangs.load(Ordering::Relaxed) {
            core::future::pending::<()>().await;
        }
    }
}

impl Chain for TestChain {
    async fn best_height(&self) -> Result<BlockHeight, NodeError> {
        self.answer_at_last().await;
        self.node.best_height().await
    }

    async fn watch(&self, name: &str, watch: Watch) -> Result<(), NodeError> {
        self.answer_at_last().await;
        self.node.watch(name, watch).await
    }

    fn unwatch(&self, name: &str) -> impl Future<Output = Result<(), NodeError>> + Send {
        self.node.unwatch(name)
    }

    async fn next_event(&self) -> Result<ChainEvent, NodeError> {
        let extra = self.extra.lock().unwrap().pop_front();
        match extra {
            Some(event) => Ok(event),
            None => self.node.next_event().await,
        }
    }
}

pub(super) struct Env {
    pub(super) node: SandboxNode,
    pub(super) chain: TestChain,
    pub(super) store: MemoryStore,
    pub(super) clock: ManualClock,
    pub(super) entropy: SandboxEntropy,
    pub(super) traders: FakeTraders,
}

impl VenueEnv for Env {
    type Wallet = SandboxNode;
    type Signer = SandboxNode;
    type Chain = TestChain;
    type Traders = FakeTraders;
    type Store = MemoryStore;
    type Clock = ManualClock;
    type Entropy = SandboxEntropy;

    fn wallet(&self) -> &SandboxNode {
        &self.node
    }
    fn signer(&self) -> &SandboxNode {
        &self.node
    }
    fn chain(&self) -> &TestChain {
        &self.chain
    }
    fn traders(&self) -> &FakeTraders {
        &self.traders
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

/// `Send`, so that any runtime may drive it.
type Run = Pin<Box<dyn Future<Output = Result<(), Halt>> + Send>>;

pub(super) struct Bench {
    pub(super) world: World,
    pub(super) env: &'static Env,
    pub(super) handle: Handle,
    run: Run,
    streams: u64,
    starts: u64,
}

pub(super) fn config() -> VenueConfig {
    VenueConfig { tick_ms: None, ..VenueConfig::usual("regtest") }
}

/// A future of the simulation that is ready at once.
pub(super) fn ready<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = noop_waker();
    for _ in 0..10 {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
    }
    panic!("the simulated node waits");
}

fn start(world: &World, store: MemoryStore, starts: u64, config: VenueConfig) -> (&'static Env, Handle, Run) {
    let node = world.add_node("venue");
    let env: &'static Env = Box::leak(Box::new(Env {
        chain: TestChain { node: node.clone(), extra: Mutex::default(), hangs: AtomicBool::new(false) },
        node,
        store,
        clock: ManualClock::new(Timestamp(1_000_000)),
        entropy: SandboxEntropy::new(7, starts),
        traders: FakeTraders::default(),
    }));
    let (handle, venue) = venue(config);
    (env, handle, Box::pin(venue.run(env)))
}

impl Bench {
    pub(super) fn new() -> Bench {
        Bench::with(config())
    }

    pub(super) fn with(config: VenueConfig) -> Bench {
        let world = World::new(1);
        let (env, handle, run) = start(&world, MemoryStore::new(), 0, config);
        let mut bench = Bench { world, env, handle, run, streams: 0, starts: 0 };
        bench.pump();
        bench
    }

    /// Kills the venue where it stands, and starts another on the same data. Streams are gone.
    pub(super) fn restart(&mut self) {
        self.restart_with(config());
    }

    pub(super) fn restart_with(&mut self, config: VenueConfig) {
        self.starts += 1;
        self.env.node.restart();
        (self.env, self.handle, self.run) = start(&self.world, self.env.store.clone(), self.starts, config);
        self.pump();
    }

    /// Lets the venue work until it surely waits.
    pub(super) fn pump(&mut self) {
        let waker = noop_waker();
        for _ in 0..40 {
            assert!(self.run.as_mut().poll(&mut Context::from_waker(&waker)).is_pending(), "the venue ended");
        }
    }

    /// The end of a venue that has a reason to end.
    pub(super) fn end(&mut self) -> Result<(), Halt> {
        let waker = noop_waker();
        for _ in 0..40 {
            if let Poll::Ready(end) = self.run.as_mut().poll(&mut Context::from_waker(&waker)) {
                return end;
            }
        }
        panic!("the venue does not end");
    }

    /// Waits for a call.
    pub(super) fn call<T>(&mut self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let waker = noop_waker();
        for _ in 0..1000 {
            if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return value;
            }
            self.pump();
        }
        panic!("the venue does not answer");
    }

    /// Everything as it is stored.
    pub(super) fn book(&self) -> Book {
        ready(Book::load(&self.env.store, INITIAL_BATCH_KEY.parse().unwrap())).unwrap()
    }

    pub(super) fn stored_account(&self, account: AccountKey) -> AccountRecord {
        self.book().accounts[&account].clone()
    }

    pub(super) fn mine(&mut self, blocks: u32) {
        self.world.mine(blocks);
        self.pump();
        self.pump();
    }

    pub(super) fn next_stream(&mut self) -> StreamId {
        self.streams += 1;
        StreamId(self.streams)
    }

    pub(super) fn push(&mut self, event: TraderEvent) {
        self.env.traders.with(|wires| wires.events.push_back(event));
    }

    pub(super) fn open_stream(&mut self, trader: TraderId) -> StreamId {
        let stream = self.next_stream();
        self.env.traders.with(|wires| wires.outbox.insert(stream, VecDeque::new()));
        self.push(TraderEvent::Opened { trader, stream });
        stream
    }

    pub(super) fn read(&mut self, stream: StreamId) -> Option<ServerMessage> {
        self.env.traders.with(|wires| wires.outbox.get_mut(&stream).and_then(VecDeque::pop_front))
    }

    pub(super) fn closed(&self, stream: StreamId) -> Option<String> {
        self.env.traders.with(|wires| wires.closed.get(&stream).cloned())
    }

    /// A trader with an open, subscribed account.
    pub(super) fn trader(&mut self, name: &str, version: AccountVersion, value: u64) -> TestTrader {
        let mut trader = TestTrader::open_account(self, name, version, value);
        self.mine(6);
        trader.subscribe(self);
        trader
    }

    /// One tick, with these traders answering; the clock moves only when everybody waits.
    pub(super) fn tick(&mut self, traders: &mut [&mut TestTrader]) -> TickOutcome {
        let handle = self.handle.clone();
        let mut tick = pin!(handle.tick());
        let waker = noop_waker();
        for _ in 0..200 {
            if let Poll::Ready(outcome) = tick.as_mut().poll(&mut Context::from_waker(&waker)) {
                return outcome.unwrap();
            }
            self.pump();
            let spoke = traders.iter_mut().map(|trader| trader.answer_all(self)).filter(|spoke| *spoke).count();
            if spoke == 0 {
                self.env.clock.advance(5_000);
            }
        }
        panic!("the tick does not end");
    }
}
