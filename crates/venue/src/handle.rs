//! The calls of a venue. Any number of callers, one owner of the state.

use crate::actor::Venue;
use crate::bans::{Ban, Banned};
use crate::book::OperatorWish;
use crate::config::VenueConfig;
use crate::deposits::Deposit;
use crate::error::{Gone, ServeError};
use crate::machine::VenueAccountState;
use futures_channel::{mpsc, oneshot};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use thiserror::Error;
use tidegate_market::AssemblyError;
use tidegate_ports::{
    BatchSnapshot, BoxClaim, BoxId, BoxOwner, InitAccount, MarketInterest, ModifyAccount, ModifySignature, NodeError,
    Reservation, ReservedKeys, Submission, Terms, TraderId,
};
use tidegate_protocol::keys::{BatchId, NodeId, OrderNonce, OrderPreimage};
use tidegate_protocol::order::{NodeTier, OrderState, SubmittedOrder};
use tidegate_protocol::units::{BlockCount, BlockHeight, SatPerKw, Sats, UnitCount};

/// Calls that wait to be served, at most.
const QUEUE: usize = 1024;

pub(crate) type Reply<T> = oneshot::Sender<Result<T, ServeError>>;

pub(crate) enum Command {
    Reserve(TraderId, Reservation, Reply<ReservedKeys>),
    Init(TraderId, InitAccount, String, Reply<()>),
    Modify(TraderId, Box<ModifyAccount>, Reply<ModifySignature>),
    Submit(Box<SubmittedOrder>, Reply<Submission>),
    Cancel(OrderPreimage, Reply<()>),
    OrderState(OrderNonce, Reply<(OrderState, UnitCount)>),
    Terms(Option<TraderId>, Reply<Terms>),
    Snapshot(Option<BatchId>, Reply<BatchSnapshot>),
    Snapshots(Option<BatchId>, u32, Reply<Vec<BatchSnapshot>>),
    MarketInfo(Reply<BTreeMap<BlockCount, MarketInterest>>),
    Ratings(Vec<NodeId>, Reply<Vec<(NodeId, NodeTier)>>),
    Status(Reply<Status>),
    BoxOwner(BoxId, BoxClaim, Reply<BoxOwner>),
    Wish(OperatorWish, Reply<()>),
    Deposit(Sats, Option<SatPerKw>, Reply<Deposit>),
    Ban(Banned, Option<BlockCount>, Reply<()>),
    Bans(Reply<Vec<Ban>>),
    Tick(oneshot::Sender<TickOutcome>),
    Shutdown,
}

/// How an attempt to clear ended.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TickReason {
    /// A batch was made.
    #[error("a batch was made")]
    Cleared,
    /// No two orders meet.
    #[error("no two orders meet")]
    NoMatch,
    /// Every attempt failed on a trader.
    #[error("{attempts} attempts failed on traders")]
    GaveUp {
        /// Attempts.
        attempts: u32,
    },
    /// The node failed.
    #[error("the node failed: {0}")]
    Node(#[from] NodeError),
    /// The batch transaction could not be made.
    #[error("the batch could not be assembled: {0}")]
    Assembly(#[from] AssemblyError),
    /// The venue was told to stop.
    #[error("the venue stops")]
    Stopping,
}

/// The end of one attempt to clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TickOutcome {
    /// The batch that was made.
    pub cleared: Option<BatchId>,
    /// How it ended.
    pub reason: TickReason,
    /// The book took more work than a tick may spend: orders that meet may have been left for the next one.
    pub cut: bool,
}

/// Counts of a venue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Network.
    pub network: String,
    /// Best height seen.
    pub best_height: BlockHeight,
    /// Name of the next batch.
    pub next_batch: BatchId,
    /// Open streams.
    pub streams: usize,
    /// Accounts subscribed on them.
    pub subscribed: usize,
    /// Accounts by state.
    pub accounts: BTreeMap<VenueAccountState, usize>,
    /// Reservations not completed.
    pub reservations: usize,
    /// Active asks.
    pub asks: usize,
    /// Active bids.
    pub bids: usize,
    /// Batches made.
    pub batches: usize,
    /// Batches not confirmed.
    pub unconfirmed: usize,
    /// Value of the venue's own coin.
    pub master: Sats,
    /// Deposits that are not part of it for good.
    pub deposits: Vec<Deposit>,
    /// What the operator wants of the next batch.
    pub wish: OperatorWish,
    /// Accounts and nodes that are banned at the moment.
    pub banned: usize,
    /// Leased channels that have not matured.
    pub leases: usize,
    /// A batch is being made.
    pub executing: bool,
    /// The last attempt to clear.
    pub last_tick: Option<TickOutcome>,
}

/// Access to a running venue. Clones are equal.
#[derive(Clone, Debug)]
pub struct Handle {
    queue: Arc<Mutex<mpsc::Sender<Command>>>,
}

/// A venue and the handle to it. The venue does nothing until [`Venue::run`] is driven.
pub fn venue(config: VenueConfig) -> (Handle, Venue) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Handle { queue: Arc::new(Mutex::new(sender)) }, Venue::new(config, receiver))
}

impl Handle {
    fn push(&self, command: Command) -> Result<(), ServeError> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.try_send(command).map_err(|refused| if refused.is_full() { ServeError::Busy } else { ServeError::Gone })
    }

    async fn call<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, ServeError> {
        let (reply, answer) = oneshot::channel();
        self.push(command(reply))?;
        answer.await.map_err(|_| ServeError::Gone)?
    }

    /// Reserves an account for a trader; the same account key gets the same keys again.
    ///
    /// # Errors
    /// Limits of value and expiry, an account that exists, another reservation that is open.
    pub async fn reserve(&self, trader: TraderId, request: Reservation) -> Result<ReservedKeys, ServeError> {
        self.call(|reply| Command::Reserve(trader, request, reply)).await
    }

    /// Announces a funded account; repeating is harmless.
    ///
    /// # Errors
    /// No reservation, or another than announced.
    pub async fn init(&self, trader: TraderId, request: InitAccount, user_agent: String) -> Result<(), ServeError> {
        self.call(|reply| Command::Init(trader, request, user_agent, reply)).await
    }

    /// The venue's half of a deposit, a withdrawal, a renewal, an upgrade or a close.
    ///
    /// # Errors
    /// State of the account, open orders, a running batch, limits, the transaction.
    pub async fn modify(&self, trader: TraderId, request: ModifyAccount) -> Result<ModifySignature, ServeError> {
        self.call(|reply| Command::Modify(trader, Box::new(request), reply)).await
    }

    /// Takes an order into the book. The same order again is accepted again.
    ///
    /// # Errors
    /// Every rule but the account's value, which is answered with [`Submission::Invalid`].
    pub async fn submit(&self, order: SubmittedOrder) -> Result<Submission, ServeError> {
        self.call(|reply| Command::Submit(Box::new(order), reply)).await
    }

    /// Cancels the order that this preimage opens.
    ///
    /// # Errors
    /// [`ServeError::NoOrder`], [`ServeError::OrderArchived`].
    pub async fn cancel(&self, preimage: OrderPreimage) -> Result<(), ServeError> {
        self.call(|reply| Command::Cancel(preimage, reply)).await
    }

    /// State of an order and its open units.
    ///
    /// # Errors
    /// [`ServeError::NoOrder`].
    pub async fn order_state(&self, nonce: OrderNonce) -> Result<(OrderState, UnitCount), ServeError> {
        self.call(|reply| Command::OrderState(nonce, reply)).await
    }

    /// The terms; never asks the node.
    ///
    /// # Errors
    /// Only when the venue does not run.
    pub async fn terms(&self) -> Result<Terms, ServeError> {
        self.call(|reply| Command::Terms(None, reply)).await
    }

    /// The terms for this trader, who may have a fee schedule of its own.
    ///
    /// # Errors
    /// Only when the venue does not run.
    pub async fn terms_for(&self, trader: TraderId) -> Result<Terms, ServeError> {
        self.call(|reply| Command::Terms(Some(trader), reply)).await
    }

    /// A past batch; nothing names the latest.
    ///
    /// # Errors
    /// [`ServeError::NoSnapshot`].
    pub async fn snapshot(&self, batch: Option<BatchId>) -> Result<BatchSnapshot, ServeError> {
        self.call(|reply| Command::Snapshot(batch, reply)).await
    }

    /// At most `count` (1..=100) batches from `start` (nothing: the latest) backwards.
    ///
    /// # Errors
    /// [`ServeError::SnapshotCount`], [`ServeError::NoSnapshot`].
    pub async fn snapshots(&self, start: Option<BatchId>, count: u32) -> Result<Vec<BatchSnapshot>, ServeError> {
        self.call(|reply| Command::Snapshots(start, count, reply)).await
    }

    /// Open interest by duration, for durations with an active order.
    ///
    /// # Errors
    /// Only when the venue does not run.
    pub async fn market_info(&self) -> Result<BTreeMap<BlockCount, MarketInterest>, ServeError> {
        self.call(Command::MarketInfo).await
    }

    /// Ratings, in the order of `nodes`.
    ///
    /// # Errors
    /// [`ServeError::TooMany`] beyond 1,000.
    pub async fn ratings(&self, nodes: &[NodeId]) -> Result<Vec<(NodeId, NodeTier)>, ServeError> {
        self.call(|reply| Command::Ratings(nodes.to_vec(), reply)).await
    }

    /// Counts.
    ///
    /// # Errors
    /// Only when the venue does not run.
    pub async fn status(&self) -> Result<Status, ServeError> {
        self.call(Command::Status).await
    }

    /// Whose mailbox this is, when the claim to it holds.
    ///
    /// # Errors
    /// [`ServeError::BoxClaim`], and accounts that may not have one.
    pub async fn box_owner(&self, id: BoxId, claim: BoxClaim) -> Result<BoxOwner, ServeError> {
        self.call(|reply| Command::BoxOwner(id, claim, reply)).await
    }

    /// What the operator wants of the next batch: withdrawals from the master account, another fee rate. A later wish
    /// replaces an earlier one; it is fulfilled, and over, when a batch was made.
    ///
    /// # Errors
    /// [`ServeError::TooMany`], [`ServeError::WithdrawalTooLarge`], [`ServeError::PrevOutputs`].
    pub async fn wish(&self, wish: OperatorWish) -> Result<(), ServeError> {
        self.call(|reply| Command::Wish(wish, reply)).await
    }

    /// Pays a deposit from the node's wallet, at this chain fee rate or the estimated one. It is stored before it is
    /// published; when it is confirmed, the next batch takes it into the venue's own coin.
    ///
    /// # Errors
    /// [`ServeError::DepositTooSmall`], [`ServeError::TooMany`], [`ServeError::Busy`] while another one is being made, and
    /// [`ServeError::Node`] when the wallet can not pay it. Nothing was paid then.
    pub async fn deposit(&self, value: Sats, rate: Option<SatPerKw>) -> Result<Deposit, ServeError> {
        self.call(|reply| Command::Deposit(value, rate, reply)).await
    }

    /// The operator's own ban of an account or a node, of this many blocks; nothing lifts a ban. What an offender did
    /// before counts for the length of its next one all the same.
    ///
    /// # Errors
    /// [`ServeError::NoAccount`].
    pub async fn ban(&self, who: Banned, length: Option<BlockCount>) -> Result<(), ServeError> {
        self.call(|reply| Command::Ban(who, length, reply)).await
    }

    /// The bans that are in force.
    ///
    /// # Errors
    /// Only when the venue does not run.
    pub async fn bans(&self) -> Result<Vec<Ban>, ServeError> {
        self.call(Command::Bans).await
    }

    /// Runs one attempt to clear to its end. During another attempt it waits for a new one.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn tick(&self) -> Result<TickOutcome, Gone> {
        let (reply, answer) = oneshot::channel();
        self.push(Command::Tick(reply)).map_err(|_| Gone)?;
        answer.await.map_err(|_| Gone)
    }

    /// Tells the venue to say goodbye to its traders and end.
    pub async fn shutdown(&self) {
        // A clone of the sender has a place of its own even when the queue is full.
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // A venue that is gone needs no goodbye.
        drop(queue.try_send(Command::Shutdown));
    }
}
