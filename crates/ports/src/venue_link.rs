//! A trader's link to a venue.

use bitcoin::{OutPoint, ScriptBuf, Transaction, TxOut, Txid};
use core::future::Future;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use thiserror::Error;
use tidegate_protocol::account::AccountVersion;
use tidegate_protocol::auth::{AuthChallenge, CommitHash};
use tidegate_protocol::batch::{BatchSignatures, BatchVersion, Finalize, Prepare, Reject, SignBegin};
use tidegate_protocol::fees::ExecutionFee;
use tidegate_protocol::keys::{AccountKey, AuctioneerKey, BatchId, BatchKey, NodeId, OrderNonce, OrderPreimage};
use tidegate_protocol::musig2::PublicNonce;
use tidegate_protocol::order::{NodeTier, OrderChannelType, OrderState, SubmittedOrder};
use tidegate_protocol::units::{BlockCount, BlockHeight, RatePerBillion, SatPerKw, Sats, UnitCount};

/// A call to the venue that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LinkError {
    /// No connection, or it broke. The effect of the call is unknown.
    #[error("the venue at {address} can not be reached: {reason}")]
    Unreachable {
        /// Where.
        address: String,
        /// What happened.
        reason: String,
    },
    /// The venue refused.
    #[error("the venue refused {call}: {reason}")]
    Refused {
        /// The call.
        call: &'static str,
        /// What it says.
        reason: String,
    },
    /// The answer can not be understood.
    #[error("the venue's answer to {call} makes no sense: {reason}")]
    BadAnswer {
        /// The call.
        call: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The venue does not know the order.
    #[error("the venue does not know the order")]
    NoOrder,
    /// The venue has not made the batch final.
    #[error("the venue has no final batch of that name")]
    NoSnapshot,
}

/// What an account shall be, for a reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Value in satoshi.
    pub value: Sats,
    /// Absolute expiry.
    pub expiry: BlockHeight,
    /// Trader key.
    pub trader: AccountKey,
    /// Script version.
    pub version: AccountVersion,
}

/// The venue's keys for a new account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReservedKeys {
    /// Auctioneer's base key.
    pub auctioneer: AuctioneerKey,
    /// First batch key of the account.
    pub batch: BatchKey,
}

/// The announcement of a funded account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitAccount {
    /// What was reserved.
    pub reservation: Reservation,
    /// The funding output.
    pub outpoint: OutPoint,
    /// Its script.
    pub script: ScriptBuf,
}

/// A cooperative spend outside of batches that the venue shall sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModifyAccount {
    /// Account.
    pub account: AccountKey,
    /// Inputs besides the account's, with their script signature (nested segwit only).
    pub new_inputs: Vec<(OutPoint, ScriptBuf)>,
    /// Outputs besides the recreated account's.
    pub new_outputs: Vec<TxOut>,
    /// Resulting value, expiry and version; nothing means close.
    pub new_params: Option<(Sats, BlockHeight, AccountVersion)>,
    /// Our nonces, for taproot accounts.
    pub trader_nonce: Option<PublicNonce>,
    /// Output spent by every input, in final order.
    pub prev_outputs: Vec<TxOut>,
}

/// The venue's half of a cooperative spend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModifySignature {
    /// Version 0: DER with sighash byte. Taproot: 32-byte partial signature.
    pub signature: Vec<u8>,
    /// The venue's nonces, for taproot accounts.
    pub server_nonce: Option<PublicNonce>,
}

/// Answer to a submitted order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Submission {
    /// In the book.
    Accepted,
    /// The account's value does not cover it.
    Invalid {
        /// What the venue says.
        reason: String,
    },
}

/// State of a market of one lease duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DurationState {
    /// 0: does not exist.
    NoMarket,
    /// 1: takes nothing.
    Closed,
    /// 2: takes orders, does not clear.
    AcceptingOrders,
    /// 3: clears.
    Open,
}

/// The venue's terms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Largest account.
    pub max_account_value: Sats,
    /// Fee per match.
    pub execution_fee: ExecutionFee,
    /// Markets.
    pub durations: BTreeMap<BlockCount, DurationState>,
    /// Expected chain fee rate of the next batch.
    pub next_batch_fee_rate: SatPerKw,
    /// Unix seconds of the next attempt to clear.
    pub next_clear_time: u64,
    /// Accounts closer than this to their expiry are extended when matched.
    pub auto_renew_blocks: BlockCount,
}

/// One pair of a past batch, without names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotMatch {
    /// Limit of the ask.
    pub ask_rate: RatePerBillion,
    /// Limit of the bid.
    pub bid_rate: RatePerBillion,
    /// Units.
    pub units: UnitCount,
    /// Channel type of the ask.
    pub channel_type: OrderChannelType,
}

/// A past batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchSnapshot {
    /// Name.
    pub batch_id: BatchId,
    /// The one before; nothing for the first.
    pub previous: Option<BatchId>,
    /// Transaction.
    pub transaction: Transaction,
    /// Chain fee rate.
    pub fee_rate: SatPerKw,
    /// When it was made, Unix nanoseconds.
    pub created_ns: u64,
    /// Duration → price and pairs.
    pub markets: BTreeMap<BlockCount, (RatePerBillion, Vec<SnapshotMatch>)>,
}

impl BatchSnapshot {
    /// The transaction's name.
    pub fn txid(&self) -> Txid {
        self.transaction.compute_txid()
    }
}

/// Open interest of one side by tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interest {
    /// Orders of tier 0.
    pub orders_tier0: u32,
    /// Orders of tier 1.
    pub orders_tier1: u32,
    /// Open units of tier 0.
    pub units_tier0: u32,
    /// Open units of tier 1.
    pub units_tier1: u32,
}

/// Open interest of one duration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarketInterest {
    /// Asks, by the seller's rating.
    pub asks: Interest,
    /// Bids, by their minimum tier.
    pub bids: Interest,
}

/// What a trader says on the batch stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientMessage {
    /// First step of the handshake.
    Commit {
        /// Commitment.
        commit: CommitHash,
        /// Batch version.
        version: BatchVersion,
    },
    /// Third step of the handshake.
    Subscribe {
        /// Account.
        account: AccountKey,
        /// Opening of the commitment.
        nonce: [u8; 32],
        /// DER signature over the authentication hash.
        signature: Vec<u8>,
    },
    /// Accepts a prepared batch.
    Accept {
        /// Name of the batch.
        batch_id: BatchId,
    },
    /// Refuses a batch.
    Reject(Reject),
    /// Signs a batch.
    Sign(BatchSignatures),
    /// Asks for the account's state, to recover it. Ends its active orders.
    Recover {
        /// Account, subscribed on this stream.
        account: AccountKey,
    },
}

/// State of a recovered account, in the words of the interface.
///
/// # Source
/// Protocol notes, rpc §6.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoveredState {
    /// Funding unconfirmed.
    PendingOpen,
    /// Confirmed.
    Open,
    /// Past its expiry.
    Expired,
    /// A change by the owner is signed or unconfirmed.
    PendingUpdate,
    /// Spent for good.
    Closed,
    /// Recreated by an unconfirmed batch.
    PendingBatch,
    /// Past its expiry with an unconfirmed change.
    ExpiredPendingUpdate,
}

/// What the venue knows about an account, told to its owner.
///
/// # Source
/// Protocol notes, rpc §9.3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredAccount {
    /// What was reserved, as it is now.
    pub reservation: Reservation,
    /// Auctioneer's base key, and the batch key of the current output.
    pub keys: ReservedKeys,
    /// State.
    pub state: RecoveredState,
    /// Height from which to look for the output.
    pub height_hint: BlockHeight,
    /// The current output.
    pub outpoint: OutPoint,
    /// The transaction that made it, maybe without witnesses; nothing while the funding is unconfirmed.
    pub latest_tx: Option<Transaction>,
}

/// A reservation that was never completed, told to its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReservedAccount {
    /// What was reserved.
    pub reservation: Reservation,
    /// The keys.
    pub keys: ReservedKeys,
    /// Height from which to look for the funding.
    pub height_hint: BlockHeight,
}

/// Why an account could not subscribe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscribeErrorCode {
    /// 0.
    Unknown,
    /// 1: the stream is about to close.
    ServerShutdown,
    /// 2: no such account.
    AccountDoesNotExist,
    /// 3: only a reservation exists.
    IncompleteReservation,
}

/// What a venue says on the batch stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerMessage {
    /// Second step of the handshake.
    Challenge {
        /// Challenge.
        challenge: AuthChallenge,
        /// Which commitment it answers.
        commit: CommitHash,
    },
    /// The account is subscribed.
    Success {
        /// Account.
        account: AccountKey,
    },
    /// The account is not subscribed, or the venue goes down.
    Error {
        /// Account, when the error is about one.
        account: Option<AccountKey>,
        /// Class.
        code: SubscribeErrorCode,
        /// Sentence.
        message: String,
    },
    /// The account is not subscribed: it was reserved and never announced.
    Reserved {
        /// What is known about it.
        reservation: Box<ReservedAccount>,
        /// Sentence.
        message: String,
    },
    /// The state of an account, to recover it.
    Account(Box<RecoveredAccount>),
    /// A batch is proposed.
    Prepare(Box<Prepare>),
    /// A message of a batch that does not parse; it is answered with a reject.
    Malformed {
        /// Name of the batch, raw.
        batch_id: Vec<u8>,
        /// What is wrong.
        reason: String,
    },
    /// Signatures are wanted.
    Sign(Box<SignBegin>),
    /// The batch is final.
    Finalize(Finalize),
}

/// The calls and the stream of a venue.
pub trait VenueLink: Send + Sync {
    /// Terms; also the probe of the connection.
    fn terms(&self) -> impl Future<Output = Result<Terms, LinkError>> + Send;
    /// Reserves an account; repeating with the same key returns the same keys.
    fn reserve(&self, request: &Reservation) -> impl Future<Output = Result<ReservedKeys, LinkError>> + Send;
    /// Announces a funded account; repeating is harmless.
    fn init(&self, request: &InitAccount) -> impl Future<Output = Result<(), LinkError>> + Send;
    /// Asks for the venue's half of a cooperative spend.
    fn modify(&self, request: &ModifyAccount) -> impl Future<Output = Result<ModifySignature, LinkError>> + Send;
    /// Submits an order.
    fn submit(&self, order: &SubmittedOrder) -> impl Future<Output = Result<Submission, LinkError>> + Send;
    /// Cancels the order whose nonce is the hash of `preimage`.
    fn cancel(&self, preimage: OrderPreimage) -> impl Future<Output = Result<(), LinkError>> + Send;
    /// State of an order and its open units.
    fn order_state(&self, nonce: OrderNonce)
    -> impl Future<Output = Result<(OrderState, UnitCount), LinkError>> + Send;
    /// One past batch; nothing names the latest.
    fn snapshot(&self, batch: Option<BatchId>) -> impl Future<Output = Result<BatchSnapshot, LinkError>> + Send;
    /// The latest `count` (1..=100) batches, newest first.
    fn snapshots(&self, count: u32) -> impl Future<Output = Result<Vec<BatchSnapshot>, LinkError>> + Send;
    /// Open interest by duration.
    fn market_info(&self) -> impl Future<Output = Result<BTreeMap<BlockCount, MarketInterest>, LinkError>> + Send;
    /// Ratings, in the order of `nodes`.
    fn ratings(&self, nodes: &[NodeId]) -> impl Future<Output = Result<Vec<(NodeId, NodeTier)>, LinkError>> + Send;
    /// Opens the batch stream, replacing an open one.
    fn connect(&self) -> impl Future<Output = Result<(), LinkError>> + Send;
    /// Sends on the open stream.
    fn send(&self, message: ClientMessage) -> impl Future<Output = Result<(), LinkError>> + Send;
    /// The next message of the open stream; an error means that it ended. One consumer.
    fn receive(&self) -> impl Future<Output = Result<ServerMessage, LinkError>> + Send;
}
