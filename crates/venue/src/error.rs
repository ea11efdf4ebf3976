//! Why the venue refuses a call, and why it stops.

use crate::machine::VenueAccountState;
use thiserror::Error;
use tidegate_ports::{NodeError, StoreError};
use tidegate_protocol::account::AccountVersion;
use tidegate_protocol::keys::{AccountKey, AuctioneerKey, KeyError};
use tidegate_protocol::order::{OrderError, OrderState};
use tidegate_protocol::spend::SpendError;
use tidegate_protocol::units::{BlockCount, BlockHeight, Sats, UnitError};

/// Class of a refusal, for the status code of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServeClass {
    /// The request itself is wrong.
    InvalidArgument,
    /// What it names is unknown.
    NotFound,
    /// It does not fit the present state, or is not offered.
    FailedPrecondition,
    /// The venue can not answer now; try again.
    Unavailable,
    /// The venue failed.
    Internal,
}

/// A refused call. The texts `no order found` and `batch snapshot not found` are part of the protocol.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ServeError {
    /// Account value outside the limits.
    #[error("an account value of {found} is not within {min} to {max}")]
    AccountValue {
        /// Requested.
        found: Sats,
        /// Smallest.
        min: Sats,
        /// Largest.
        max: Sats,
    },
    /// Account expiry outside the limits.
    #[error("an account expiry at height {found} is not within {min} to {max}")]
    AccountExpiry {
        /// Requested.
        found: BlockHeight,
        /// Lowest.
        min: BlockHeight,
        /// Highest.
        max: BlockHeight,
    },
    /// The trader has another reservation.
    #[error("an earlier reservation, of account {0}, was not completed yet")]
    ReservationOpen(AccountKey),
    /// The key has an account.
    #[error("account {0} exists already")]
    AccountExists(AccountKey),
    /// Announced without a reservation.
    #[error("there is no reservation for account {0}")]
    NoReservation(AccountKey),
    /// Announced otherwise than reserved.
    #[error("the {what} differs from the reservation")]
    ReservationMismatch {
        /// Which field.
        what: &'static str,
    },
    /// The announced outpoint names no transaction.
    #[error("the account's outpoint is empty")]
    EmptyOutpoint,
    /// User agents have a limit.
    #[error("a user agent of {0} characters is longer than 255")]
    UserAgent(usize),
    /// Unknown account.
    #[error("there is no account {0}")]
    NoAccount(AccountKey),
    /// The caller does not speak for the account.
    #[error("account {0} is not yours: subscribe it on the batch stream of the same client first")]
    NotTheOwner(AccountKey),
    /// The state forbids it.
    #[error("account {account} is {state:?}: {what} is not possible")]
    AccountState {
        /// Account.
        account: AccountKey,
        /// Its state.
        state: VenueAccountState,
        /// What was wanted.
        what: &'static str,
    },
    /// The account is part of the batch being made.
    #[error("modification not allowed: account {0} is part of the batch under way")]
    AccountBusy(AccountKey),
    /// A close was signed before.
    #[error("account {0} is being closed: publish the close, or renew the account to keep it")]
    AccountClosing(AccountKey),
    /// The account is banned.
    #[error("account {account} is banned until height {until}")]
    Banned {
        /// Account.
        account: AccountKey,
        /// First height at which it is not.
        until: BlockHeight,
    },
    /// Open orders hold the account's value.
    #[error("account {0} has open orders: cancel them first")]
    OrdersOpen(AccountKey),
    /// Too small a deposit of the operator.
    #[error("a deposit of {found} is too small: at least {min}")]
    DepositTooSmall {
        /// Wished.
        found: Sats,
        /// Smallest.
        min: Sats,
    },
    /// What the operator wants to take is more than there is.
    #[error("the withdrawals of {found} are more than the venue's coins hold: {held}")]
    WithdrawalTooLarge {
        /// Wished.
        found: Sats,
        /// Held.
        held: Sats,
    },
    /// The closing transaction is refused.
    #[error("the transaction is refused: {0}")]
    Spend(#[from] SpendError),
    /// Versions only rise.
    #[error("account version {from:?} can not become {to:?}")]
    Downgrade {
        /// Version of the account.
        from: AccountVersion,
        /// Wished.
        to: AccountVersion,
    },
    /// Open orders hold more than would remain.
    #[error("the account would hold {found}, but its open orders reserve {reserved}: cancel some first")]
    ValueReserved {
        /// What would remain.
        found: Sats,
        /// What the orders reserve.
        reserved: Sats,
    },
    /// Inputs, outputs and previous outputs of a change do not fit together.
    #[error("the change of the account makes no sense: {0}")]
    PrevOutputs(&'static str),
    /// A mailbox is claimed without right.
    #[error("the mailbox is not yours: {0}")]
    BoxClaim(&'static str),
    /// A taproot account needs the trader's nonces.
    #[error("a taproot account needs the trader's nonces")]
    NonceMissing,
    /// Not offered.
    #[error("not offered by this venue: {0}")]
    Unsupported(&'static str),
    /// The order breaks a rule.
    #[error("the order is invalid: {0}")]
    Order(#[from] OrderError),
    /// The order's signature is not the account's.
    #[error("the order's signature is invalid")]
    OrderSignature,
    /// Another order has that nonce.
    #[error("an order with this nonce exists already")]
    NonceUsed,
    /// Another active order has that funding key.
    #[error("the funding key is used by another active order")]
    FundingKeyUsed,
    /// Too much of something.
    #[error("too many {what}: {found}, at most {max}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// Count.
        found: usize,
        /// Limit.
        max: usize,
    },
    /// No market of that duration takes orders.
    #[error("no market of {0} takes orders")]
    NoMarket(BlockCount),
    /// Unknown order.
    #[error("no order found")]
    NoOrder,
    /// The order is archived.
    #[error("the order is {0:?} and can not be cancelled")]
    OrderArchived(OrderState),
    /// Unknown batch.
    #[error("batch snapshot not found")]
    NoSnapshot,
    /// Number of batches out of range.
    #[error("between 1 and 100 batches can be asked for, not {0}")]
    SnapshotCount(u32),
    /// A key failed.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A quantity failed.
    #[error(transparent)]
    Unit(#[from] UnitError),
    /// The venue's node failed.
    #[error("the venue's node failed: {0}")]
    Node(#[from] NodeError),
    /// The venue's store failed.
    #[error("the venue's store failed: {0}")]
    Store(#[from] StoreError),
    /// A rule of the venue itself was broken.
    #[error("the venue broke a rule of its own: {0}")]
    Internal(&'static str),
    /// Too many calls at once.
    #[error("the venue is busy: try again")]
    Busy,
    /// The venue waits for its node.
    #[error("the venue is starting: it waits for its node")]
    Starting,
    /// The venue stopped.
    #[error("the venue has stopped")]
    Gone,
}

impl ServeError {
    /// The class of the refusal.
    pub fn class(&self) -> ServeClass {
        match self {
            ServeError::AccountValue { .. }
            | ServeError::AccountExpiry { .. }
            | ServeError::DepositTooSmall { .. }
            | ServeError::WithdrawalTooLarge { .. }
            | ServeError::ReservationMismatch { .. }
            | ServeError::EmptyOutpoint
            | ServeError::UserAgent(_)
            | ServeError::Spend(_)
            | ServeError::Downgrade { .. }
            | ServeError::PrevOutputs(_)
            | ServeError::BoxClaim(_)
            | ServeError::NonceMissing
            | ServeError::Order(_)
            | ServeError::OrderSignature
            | ServeError::NonceUsed
            | ServeError::FundingKeyUsed
            | ServeError::TooMany { .. }
            | ServeError::NoMarket(_)
            | ServeError::SnapshotCount(_)
            | ServeError::Key(_)
            | ServeError::Unit(_) => ServeClass::InvalidArgument,
            ServeError::NoReservation(_) | ServeError::NoAccount(_) | ServeError::NoOrder | ServeError::NoSnapshot => {
                ServeClass::NotFound
            }
            ServeError::ReservationOpen(_)
            | ServeError::AccountExists(_)
            | ServeError::NotTheOwner(_)
            | ServeError::AccountState { .. }
            | ServeError::AccountBusy(_)
            | ServeError::AccountClosing(_)
            | ServeError::OrdersOpen(_)
            | ServeError::Banned { .. }
            | ServeError::ValueReserved { .. }
            | ServeError::Unsupported(_)
            | ServeError::OrderArchived(_) => ServeClass::FailedPrecondition,
            // Whether a failed commit was made is unknown until the venue starts again: no caller may take it for a refusal.
            ServeError::Store(_) => ServeClass::Unavailable,
            ServeError::Node(_) | ServeError::Busy | ServeError::Starting | ServeError::Gone => ServeClass::Unavailable,
            ServeError::Internal(_) => ServeClass::Internal,
        }
    }
}

/// The venue has stopped: nobody answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the venue has stopped")]
pub struct Gone;

/// Why a venue ends by itself. A node that is away is no reason.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Halt {
    /// The store can not be trusted any more.
    #[error("the venue stops: {0}")]
    Store(#[from] StoreError),
    /// The node's wallet has another seed than the accounts were made with.
    #[error("the venue stops: {0}; connect the right node")]
    WrongWallet(Box<KeyMismatch>),
    /// A constant of the protocol does not parse, or a key sequence ended.
    #[error("the venue stops: {0}")]
    Key(#[from] KeyError),
}

/// The auctioneer key of the stored accounts is not the node's.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("its accounts belong to auctioneer key {stored}, but the node has {found}")]
pub struct KeyMismatch {
    /// Key of the stored accounts.
    pub stored: AuctioneerKey,
    /// Key of the node.
    pub found: AuctioneerKey,
}
