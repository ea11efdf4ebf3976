//! The one owner of a venue's state: waits for whatever happens next and hands it to its flow.

use crate::accounts::Announcement;
use crate::book::{Book, Receipt, Write};
use crate::changes::ChangeCall;
use crate::config::VenueConfig;
use crate::deposits::{DepositCall, Payment};
use crate::error::{Halt, KeyMismatch, ServeError};
use crate::handle::{Command, TickOutcome};
use crate::node::{Node, set};
use crate::rejects::ConflictList;
use crate::round::Collector;
use crate::streams::Streams;
use bitcoin::ScriptBuf;
use core::future::poll_fn;
use core::pin::pin;
use core::task::Poll;
use futures_channel::{mpsc, oneshot};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt, select_biased};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use tidegate_ports::{
    Chain, ChainEvent, Clock, ModifySignature, NodeError, Signer, StoreError, StreamId, Timestamp, TraderEvent,
    Traders, VenueEnv,
};
use tidegate_protocol::keys::{
    AccountKey, AuctioneerKey, BatchKey, FAMILY_AUCTIONEER, KeyDescriptor, KeyLocator, SharedSecret,
};
use tidegate_protocol::script::INITIAL_BATCH_KEY;
use tidegate_protocol::units::{BlockHeight, SatPerKw};
use tracing::{info, warn};

/// Wait before the node is asked again after a failure, in milliseconds.
const NODE_RETRY_MS: u64 = 5_000;
/// Calls that may wait for the node at a time.
const MAX_JOBS: usize = 64;

/// A venue that waits to be run.
pub struct Venue {
    config: VenueConfig,
    commands: mpsc::Receiver<Command>,
}

impl core::fmt::Debug for Venue {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Venue").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Venue {
    pub(crate) fn new(config: VenueConfig, commands: mpsc::Receiver<Command>) -> Venue {
        Venue { config, commands }
    }

    /// Runs the venue until it is told to stop, or until its state can not be trusted.
    ///
    /// A node that is away at the start is waited for; calls are answered with [`ServeError::Starting`] meanwhile.
    ///
    /// # Errors
    /// [`Halt`] by variant.
    pub async fn run<E: VenueEnv>(self, env: &E) -> Result<(), Halt> {
        let Some(mut actor) = start(self, env).await? else { return Ok(()) };
        actor.resume().await?;
        while !actor.stopping {
            if actor.is_due(actor.repair_at) {
                actor.repair().await?;
                continue;
            }
            if actor.tick_is_due() {
                actor.clear_once().await?;
                continue;
            }
            if core::mem::take(&mut actor.estimate_due) {
                actor.renew_estimate().await?;
                continue;
            }
            let deadline = actor.next_deadline();
            let event = actor.next_event(deadline).await;
            actor.handle(event).await?;
        }
        actor.say_goodbye().await;
        Ok(())
    }
}

/// Whatever happens next.
pub(crate) enum Event {
    Command(Option<Command>),
    Trader(TraderEvent),
    Chain(Result<ChainEvent, NodeError>),
    /// The node answered to what a call needs of it.
    Node(Answered),
    Deadline,
}

/// What the node answered, and the call that goes on with it.
pub(crate) enum Answered {
    Secret(Box<Announcement>, Result<SharedSecret, NodeError>),
    Half(Box<ChangeCall>, Result<ModifySignature, ServeError>),
    Paid(Box<DepositCall>, Result<Payment, NodeError>),
}

/// A question to the node on behalf of a call. Others are served meanwhile.
pub(crate) type Job<'e> = BoxFuture<'e, Answered>;

pub(crate) struct Actor<'e, E: VenueEnv> {
    pub(crate) env: &'e E,
    /// The node behind it, with a bounded patience.
    pub(crate) node: Node<'e, E>,
    pub(crate) config: VenueConfig,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) book: Book,
    /// Our base key.
    pub(crate) key: KeyDescriptor,
    pub(crate) streams: Streams,
    /// Best height seen.
    pub(crate) height: BlockHeight,
    /// Last estimate of the chain fee rate.
    pub(crate) estimate: SatPerKw,
    /// There is a new block: the estimate is to be renewed.
    pub(crate) estimate_due: bool,
    /// A deposit of the operator is being made.
    pub(crate) depositing: bool,
    /// How many calls wait for the node.
    waiting: usize,
    /// Calls that wait for the node. Never locked: only the owner gets at them, and a shared actor must be shareable.
    jobs: Mutex<FuturesUnordered<Job<'e>>>,
    pub(crate) conflicts: ConflictList,
    /// Script of the node's wallet to which the next batch may pay the income.
    pub(crate) wallet_script: Option<ScriptBuf>,
    /// Partial refusals of each stream in the attempt to clear that is under way.
    pub(crate) refusals: BTreeMap<StreamId, u32>,
    /// Answers of the step under way.
    pub(crate) collector: Option<Collector>,
    /// Accounts of the batch under way.
    pub(crate) running: BTreeSet<AccountKey>,
    pub(crate) pending_ticks: Vec<oneshot::Sender<TickOutcome>>,
    pub(crate) next_tick: Option<Timestamp>,
    pub(crate) last_tick: Option<TickOutcome>,
    /// When to ask the node again for what it refused.
    pub(crate) repair_at: Option<Timestamp>,
    /// The event stream of the chain broke: watches must be set again.
    pub(crate) chain_lost: bool,
    /// Whose turn it is among calls and traders.
    calls_first: bool,
    pub(crate) stopping: bool,
}

/// Loads the state, waits for the node, and compares its key with the stored one. Nothing when told to stop meanwhile.
async fn start<E: VenueEnv>(venue: Venue, env: &E) -> Result<Option<Actor<'_, E>>, Halt> {
    let Venue { config, mut commands } = venue;
    let first: BatchKey = INITIAL_BATCH_KEY.parse()?;
    let mut book = Book::load(env.store(), first).await?;
    let node = Node::new(env);
    let (key, height, estimate) = loop {
        match ask_node(&node, &config).await {
            Ok(answers) => break answers,
            Err(error) => warn!(%error, "waiting for the node"),
        }
        let retry = env.clock().now().plus_ms(NODE_RETRY_MS);
        if refuse_until(env, &mut commands, retry).await {
            return Ok(None);
        }
    };
    let found = AuctioneerKey::new(key.point);
    match book.auctioneer {
        Some(stored) if stored != found => return Err(Halt::WrongWallet(Box::new(KeyMismatch { stored, found }))),
        Some(_) => {}
        None => {
            let writes = vec![Write::Auctioneer(found), Write::BatchKey(book.batch_key)];
            book.commit(env.store(), writes).await?;
        }
    }
    info!(network = %config.network, %height, auctioneer = %found, batch = %book.batch_key, "venue starts");
    let next_tick = config.tick_ms.map(|ms| env.clock().now().plus_ms(ms));
    Ok(Some(Actor {
        env,
        node,
        config,
        commands,
        book,
        key,
        streams: Streams::default(),
        height,
        estimate,
        estimate_due: false,
        depositing: false,
        waiting: 0,
        jobs: Mutex::default(),
        conflicts: ConflictList::default(),
        wallet_script: None,
        refusals: BTreeMap::new(),
        collector: None,
        running: BTreeSet::new(),
        pending_ticks: Vec::new(),
        next_tick,
        last_tick: None,
        repair_at: None,
        chain_lost: false,
        calls_first: false,
        stopping: false,
    }))
}

async fn ask_node<E: VenueEnv>(
    node: &Node<'_, E>,
    config: &VenueConfig,
) -> Result<(KeyDescriptor, BlockHeight, SatPerKw), NodeError> {
    let key = node.derive_key(KeyLocator { family: FAMILY_AUCTIONEER, index: 0 }).await?;
    let height = node.best_height().await?;
    let estimate = node.estimate_fee(config.fee_conf_target).await?;
    Ok((key, height, estimate))
}

/// Answers every call with "starting" until `until`; true when told to stop.
async fn refuse_until<E: VenueEnv>(env: &E, commands: &mut mpsc::Receiver<Command>, until: Timestamp) -> bool {
    let mut sleep = pin!(env.clock().sleep_until(until).fuse());
    loop {
        select_biased! {
            () = sleep => return false,
            command = commands.next() => match command {
                None | Some(Command::Shutdown) => return true,
                Some(command) => command.refuse(ServeError::Starting),
            },
        }
    }
}

impl Command {
    /// Answers with an error, whatever the call.
    fn refuse(self, error: ServeError) {
        // A caller that does not wait any more needs no answer.
        match self {
            Command::Reserve(_, _, reply) => drop(reply.send(Err(error))),
            Command::Init(_, _, _, reply)
            | Command::Cancel(_, reply)
            | Command::Ban(_, _, reply)
            | Command::Wish(_, reply) => drop(reply.send(Err(error))),
            Command::Modify(_, _, reply) => drop(reply.send(Err(error))),
            Command::BoxOwner(_, _, reply) => drop(reply.send(Err(error))),
            Command::Submit(_, reply) => drop(reply.send(Err(error))),
            Command::OrderState(_, reply) => drop(reply.send(Err(error))),
            Command::Terms(_, reply) => drop(reply.send(Err(error))),
            Command::Snapshot(_, reply) => drop(reply.send(Err(error))),
            Command::Snapshots(_, _, reply) => drop(reply.send(Err(error))),
            Command::MarketInfo(reply) => drop(reply.send(Err(error))),
            Command::Ratings(_, reply) => drop(reply.send(Err(error))),
            Command::Status(reply) => drop(reply.send(Err(error))),
            Command::Deposit(_, _, reply) => drop(reply.send(Err(error))),
            Command::Bans(reply) => drop(reply.send(Err(error))),
            Command::Tick(_) | Command::Shutdown => {}
        }
    }
}

impl<'e, E: VenueEnv> Actor<'e, E> {
    pub(crate) fn now(&self) -> Timestamp {
        self.env.clock().now()
    }

    /// The only way to write. A store that fails stops the venue.
    pub(crate) async fn commit(&mut self, writes: Vec<Write>) -> Result<Receipt, StoreError> {
        self.book.commit(self.env.store(), writes).await
    }

    fn tick_is_due(&self) -> bool {
        !self.pending_ticks.is_empty() || self.is_due(self.next_tick)
    }

    fn is_due(&self, at: Option<Timestamp>) -> bool {
        at.is_some_and(|at| at <= self.now())
    }

    /// Waits for the node, and serves everybody meanwhile. Only for what the venue does by itself: what serves an event
    /// or a call never gets here.
    pub(crate) async fn beside<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Halt> {
        let mut work = pin!(work.fuse());
        loop {
            let deadline = self.streams.next_deadline();
            let event = {
                let mut next = pin!(self.next_event(deadline).fuse());
                select_biased! {
                    done = work => return Ok(done),
                    event = next => event,
                }
            };
            self.handle(event).await?;
        }
    }

    /// Has the node asked on behalf of a call.
    pub(crate) fn ask_beside(&mut self, job: impl Future<Output = Answered> + Send + 'e) {
        let jobs = self.jobs.get_mut().unwrap_or_else(PoisonError::into_inner);
        jobs.push(Box::pin(job));
        self.waiting = jobs.len();
    }

    /// One attempt to clear; everybody who asked for one before it began gets its outcome.
    async fn clear_once(&mut self) -> Result<(), Halt> {
        let waiting = core::mem::take(&mut self.pending_ticks);
        let outcome = self.tick().await?;
        info!(cleared = ?outcome.cleared, reason = %outcome.reason, cut = outcome.cut, "tick");
        self.next_tick = self.config.tick_ms.map(|ms| self.now().plus_ms(ms));
        self.last_tick = Some(outcome.clone());
        for reply in waiting {
            // A caller that does not wait any more needs no answer.
            drop(reply.send(outcome.clone()));
        }
        Ok(())
    }

    /// The next moment at which something is to be done unasked.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        [self.next_tick, self.repair_at, self.streams.next_deadline()].into_iter().flatten().min()
    }

    /// Waits for the next event, at most until `deadline`.
    pub(crate) async fn next_event(&mut self, deadline: Option<Timestamp>) -> Event {
        let env = self.env;
        let lost = self.chain_lost;
        let mut sleep = pin!(
            async move {
                match deadline {
                    Some(at) => env.clock().sleep_until(at).await,
                    None => core::future::pending().await,
                }
            }
            .fuse()
        );
        let mut chain = pin!(
            async move { if lost { core::future::pending().await } else { env.chain().next_event().await } }.fuse()
        );
        let mut trader = pin!(env.traders().next_event().fuse());
        let jobs = self.jobs.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.waiting = jobs.len();
        let mut job = pin!(
            poll_fn(move |context| match jobs.poll_next_unpin(context) {
                Poll::Ready(Some(answered)) => Poll::Ready(answered),
                Poll::Ready(None) | Poll::Pending => Poll::Pending,
            })
            .fuse()
        );
        // Turn and turn about, so that neither many calls nor a talkative trader keeps the others waiting.
        self.calls_first = !self.calls_first;
        if self.calls_first {
            select_biased! {
                () = sleep => Event::Deadline,
                answered = job => Event::Node(answered),
                event = chain => Event::Chain(event),
                command = self.commands.next() => Event::Command(command),
                event = trader => Event::Trader(event),
            }
        } else {
            select_biased! {
                () = sleep => Event::Deadline,
                answered = job => Event::Node(answered),
                event = chain => Event::Chain(event),
                event = trader => Event::Trader(event),
                command = self.commands.next() => Event::Command(command),
            }
        }
    }

    pub(crate) async fn handle(&mut self, event: Event) -> Result<(), Halt> {
        match event {
            // All handles are gone: nobody could ever stop us.
            Event::Command(None) => self.stopping = true,
            Event::Command(Some(command)) => self.serve(command).await?,
            Event::Trader(event) => self.on_trader(event).await?,
            Event::Chain(Ok(event)) => self.on_chain(event).await?,
            Event::Chain(Err(error)) => {
                warn!(%error, "the chain's events broke off");
                self.chain_lost = true;
                self.repair_later();
            }
            Event::Node(Answered::Secret(call, secret)) => self.announced(*call, secret).await?,
            Event::Node(Answered::Half(call, half)) => self.changed(*call, half).await?,
            Event::Node(Answered::Paid(call, payment)) => self.paid(*call, payment).await?,
            Event::Deadline => self.sweep_streams().await,
        }
        Ok(())
    }

    pub(crate) fn repair_later(&mut self) {
        self.repair_at = Some(self.now().plus_ms(NODE_RETRY_MS));
    }

    /// After a start: watches everything and publishes again what is unconfirmed.
    async fn resume(&mut self) -> Result<(), Halt> {
        self.on_block(self.height).await?;
        self.chain_lost = true;
        self.repair().await
    }

    /// Sets all watches again when they were lost, and publishes every unconfirmed batch, oldest first.
    async fn repair(&mut self) -> Result<(), Halt> {
        self.repair_at = None;
        if self.chain_lost {
            // No event of the chain is served until all is set, so that no watch takes the place of a later one.
            let (node, watches) = (self.node.clone(), self.all_watches());
            if let Err(error) = self.beside(set(&node, &watches)).await? {
                warn!(%error, "the chain can not be watched");
                self.repair_later();
                return Ok(());
            }
            // Unless a watch that was wanted meanwhile failed.
            self.chain_lost = self.repair_at.is_some();
        }
        self.publish_unconfirmed().await
    }

    async fn renew_estimate(&mut self) -> Result<(), Halt> {
        let (node, target) = (self.node.clone(), self.config.fee_conf_target);
        match self.beside(node.estimate_fee(target)).await? {
            Ok(rate) => self.estimate = rate,
            Err(error) => warn!(%error, "no fee estimate"),
        }
        Ok(())
    }

    async fn serve(&mut self, command: Command) -> Result<(), Halt> {
        match command {
            Command::Reserve(trader, request, reply) => answer(reply, self.reserve(trader, &request).await),
            Command::Init(.., reply) if self.waiting >= MAX_JOBS => answer(reply, Err(ServeError::Busy)),
            Command::Modify(.., reply) if self.waiting >= MAX_JOBS => answer(reply, Err(ServeError::Busy)),
            Command::Init(trader, request, agent, reply) => self.init(Announcement { trader, request, agent, reply }),
            Command::Modify(trader, request, reply) => self.modify(ChangeCall::new(trader, *request, reply)),
            Command::Submit(order, reply) => answer(reply, self.submit(*order).await),
            Command::Cancel(preimage, reply) => answer(reply, self.cancel(preimage).await),
            Command::OrderState(nonce, reply) => answer(reply, self.order_state(nonce)),
            Command::Terms(trader, reply) => answer(reply, Ok(self.terms(trader))),
            Command::Snapshot(batch, reply) => answer(reply, self.snapshot(batch)),
            Command::Snapshots(start, count, reply) => answer(reply, self.snapshots(start, count)),
            Command::MarketInfo(reply) => answer(reply, Ok(self.market_info())),
            Command::Ratings(nodes, reply) => answer(reply, self.ratings(&nodes)),
            Command::Status(reply) => answer(reply, Ok(self.status())),
            Command::BoxOwner(id, claim, reply) => answer(reply, self.box_owner(id, &claim)),
            Command::Wish(wish, reply) => answer(reply, self.set_wish(wish).await),
            Command::Deposit(value, rate, reply) => self.deposit(value, rate, reply),
            Command::Ban(who, length, reply) => answer(reply, self.set_ban(who, length).await),
            Command::Bans(reply) => answer(reply, Ok(self.bans())),
            Command::Tick(reply) => {
                self.pending_ticks.push(reply);
                Ok(())
            }
            Command::Shutdown => {
                self.stopping = true;
                Ok(())
            }
        }
    }
}

/// Answers a call. A store that failed stops the venue after the answer.
pub(crate) fn answer<T>(
    reply: oneshot::Sender<Result<T, ServeError>>,
    result: Result<T, ServeError>,
) -> Result<(), Halt> {
    let halt = match &result {
        Err(ServeError::Store(error)) => Err(Halt::Store(error.clone())),
        Ok(_) | Err(_) => Ok(()),
    };
    // A caller that does not wait any more needs no answer.
    drop(reply.send(result));
    halt
}
