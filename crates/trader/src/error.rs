//! What can go wrong, one enum per boundary, and what follows from it.

use thiserror::Error;
use tidegate_ports::{LinkError, NodeError, StoreError};
use tidegate_protocol::account::{AccountState, AccountVersion};
use tidegate_protocol::keys::{AccountKey, KeyError, OrderNonce};
use tidegate_protocol::modification::ModificationError;
use tidegate_protocol::order::{OrderError, OrderState};
use tidegate_protocol::spend::SpendError;
use tidegate_protocol::units::{BlockCount, SatPerKw, Sats, UnitError};

use bitcoin::Txid;

/// What the caller does about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// The same request may succeed later.
    Retry,
    /// The request is wrong or was refused: change it or give it up.
    DropIntent,
    /// Something that must hold does not: stop trading and ask a human.
    HaltTrading,
    /// The trader cannot go on: its durable state cannot be trusted.
    Exit,
}

/// Why a trader ended by itself. A node or a venue that is away is never a reason.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Halt {
    /// The store failed, or somebody else writes to it.
    #[error("the trader's store cannot be trusted: {0}")]
    Store(#[from] StoreError),
    /// The node's keys are not those with which the stored accounts were made.
    #[error("account {account} was made with another node or seed: its shared secret differs")]
    WrongNode {
        /// The account.
        account: AccountKey,
    },
    /// The node has another identity than the one that this store belongs to.
    #[error("the store belongs to node {stored}, but the node is {found}")]
    OtherNode {
        /// Identity in the store.
        stored: String,
        /// Identity of the node.
        found: String,
    },
    /// A stored account has no valid script: its row is damaged.
    #[error("account {account} has no valid script: {source}")]
    Script {
        /// The account.
        account: AccountKey,
        /// What fails.
        source: KeyError,
    },
}

impl Halt {
    /// What the owner does: nothing but ending helps.
    pub fn reaction(&self) -> Reaction {
        match self {
            Halt::Store(_) | Halt::WrongNode { .. } | Halt::OtherNode { .. } | Halt::Script { .. } => Reaction::Exit,
        }
    }
}

/// The trader ended before it could answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the trader is not running")]
pub struct Gone;

impl Gone {
    /// What the caller does.
    pub fn reaction(&self) -> Reaction {
        Reaction::Exit
    }
}

/// A receipt that does not cover what is about to be released: a defect of this program.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReleaseError {
    /// Nothing about the account was committed.
    #[error("no commit covers a spend of account {account}")]
    NotCommitted {
        /// The account.
        account: AccountKey,
    },
    /// Another transaction was committed for the account.
    #[error("transaction {committed} was committed, {found} is about to leave")]
    OtherTransaction {
        /// What the store knows.
        committed: Txid,
        /// What would leave.
        found: Txid,
    },
    /// The commit belongs to another batch, or to none.
    #[error("the commit belongs to another batch")]
    OtherBatch,
    /// The transaction does not spend the output that the commit says.
    #[error("account {account}: the transaction does not spend the committed output")]
    OtherOutput {
        /// The account.
        account: AccountKey,
    },
}

impl ReleaseError {
    /// What the caller does.
    pub fn reaction(&self) -> Reaction {
        match self {
            ReleaseError::NotCommitted { .. } | ReleaseError::OtherTransaction { .. } => Reaction::HaltTrading,
            ReleaseError::OtherBatch | ReleaseError::OtherOutput { .. } => Reaction::HaltTrading,
        }
    }
}

/// A node that does not answer is a reason to come back, all else is not.
fn node_reaction(error: &NodeError) -> Reaction {
    match error {
        NodeError::Unreachable { .. } | NodeError::NotReady { .. } | NodeError::InsufficientFunds { .. } => {
            Reaction::Retry
        }
        NodeError::Permission { .. } | NodeError::Refused { .. } => Reaction::DropIntent,
        NodeError::BadAnswer { .. } => Reaction::HaltTrading,
    }
}

fn link_reaction(error: &LinkError) -> Reaction {
    match error {
        LinkError::Unreachable { .. } => Reaction::Retry,
        LinkError::Refused { .. } | LinkError::NoOrder | LinkError::NoSnapshot => Reaction::DropIntent,
        LinkError::BadAnswer { .. } => Reaction::HaltTrading,
    }
}

/// Why an account was not opened.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// Value outside the limits.
    #[error("an account holds {min} to {max}, not {found}")]
    Value {
        /// Smallest.
        min: Sats,
        /// Largest, by the venue's terms.
        max: Sats,
        /// Wanted.
        found: Sats,
    },
    /// Expiry outside the limits.
    #[error("an account expires {min} to {max} ahead, not {found}")]
    Expiry {
        /// Soonest.
        min: BlockCount,
        /// Latest.
        max: BlockCount,
        /// Wanted.
        found: BlockCount,
    },
    /// Fee rate below the floor of 253 sat/kW.
    #[error("a fee rate of {0} is below the floor of 253 sat/kW")]
    FeeRate(SatPerKw),
    /// The venue keeps one reservation at a time, and this account is not funded yet.
    #[error("account {0} is reserved and waits for its funding: only one account can be opened at a time")]
    InProgress(AccountKey),
    /// Before it was funded, the account came too close to its expiry: it is canceled, and another one may be opened.
    #[error("account {0} would expire too soon by now and was not funded")]
    TooLate(AccountKey),
    /// A reservation was interrupted, and the venue still holds it: it must be completed with the same numbers.
    #[error("an interrupted reservation of a {value} account ({version:?}) must be completed first: open that one")]
    Unfinished {
        /// Its value.
        value: Sats,
        /// Its version.
        version: AccountVersion,
    },
    /// The reservation is durable, but its funding did not succeed yet; it is tried again with growing pauses.
    #[error("account {account} is reserved, but its funding failed and will be tried again: {source}")]
    Funding {
        /// The account.
        account: AccountKey,
        /// What the node says.
        source: NodeError,
    },
    /// The venue.
    #[error(transparent)]
    Venue(#[from] LinkError),
    /// The node.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The keys do not make a script.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The trader ended.
    #[error(transparent)]
    Gone(#[from] Gone),
}

impl OpenError {
    /// What the caller does.
    pub fn reaction(&self) -> Reaction {
        match self {
            OpenError::Value { .. } | OpenError::Expiry { .. } | OpenError::FeeRate(_) => Reaction::DropIntent,
            OpenError::InProgress(_) | OpenError::Unfinished { .. } | OpenError::Funding { .. } => Reaction::DropIntent,
            OpenError::TooLate(_) => Reaction::Retry,
            OpenError::Venue(error) => link_reaction(error),
            OpenError::Node(error) => node_reaction(error),
            OpenError::Key(_) => Reaction::DropIntent,
            OpenError::Gone(error) => error.reaction(),
        }
    }
}

/// Why an account was not closed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CloseError {
    /// Not ours.
    #[error("account {0} is unknown")]
    Unknown(AccountKey),
    /// Nothing to close in this state.
    #[error("an account in state {0:?} cannot be closed")]
    State(AccountState),
    /// Orders that are still in the book.
    #[error("{0} orders of the account are still active: cancel them first")]
    ActiveOrders(usize),
    /// A batch that spends the account was signed and is not settled.
    #[error("a batch with this account is under way: try again when it is settled")]
    InBatch,
    /// Fee rate below the floor of 253 sat/kW.
    #[error("a fee rate of {0} is below the floor of 253 sat/kW")]
    FeeRate(SatPerKw),
    /// The account changed while its close was being signed.
    #[error("the account changed meanwhile: try again")]
    Changed,
    /// The venue's half of the signature is not valid.
    #[error("the venue's signature of the close is not valid")]
    BadSignature,
    /// The closing transaction cannot be made.
    #[error(transparent)]
    Spend(#[from] SpendError),
    /// The account cannot be closed like this.
    #[error(transparent)]
    Change(ModificationError),
    /// The venue.
    #[error(transparent)]
    Venue(#[from] LinkError),
    /// The node.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The keys do not make a script.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A signature was about to leave without a commit.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// The trader ended.
    #[error(transparent)]
    Gone(#[from] Gone),
}

impl CloseError {
    /// What the caller does.
    pub fn reaction(&self) -> Reaction {
        match self {
            CloseError::Unknown(_) | CloseError::State(_) | CloseError::ActiveOrders(_) => Reaction::DropIntent,
            CloseError::FeeRate(_) | CloseError::Spend(_) | CloseError::Key(_) => Reaction::DropIntent,
            CloseError::Change(_) => Reaction::DropIntent,
            CloseError::InBatch | CloseError::Changed => Reaction::Retry,
            CloseError::Venue(error) => link_reaction(error),
            CloseError::Node(error) => node_reaction(error),
            CloseError::BadSignature => Reaction::HaltTrading,
            CloseError::Release(error) => error.reaction(),
            CloseError::Gone(error) => error.reaction(),
        }
    }
}

/// Why an account was not changed by its owner. No signature of ours left, and the account is as it was; coins that the
/// wallet kept for it are released.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ModifyError {
    /// Not ours.
    #[error("account {0} is unknown")]
    Unknown(AccountKey),
    /// Fee rate below the floor of 253 sat/kW.
    #[error("a fee rate of {0} is below the floor of 253 sat/kW")]
    FeeRate(SatPerKw),
    /// The account would hold less than its orders could cost.
    #[error("the account would hold {left}, but its orders could cost {reserved}: cancel some first")]
    Reserved {
        /// Reserved for active orders.
        reserved: Sats,
        /// What would be left.
        left: Sats,
    },
    /// A batch that spends the account was signed and is not settled.
    #[error("a batch with this account is under way: try again when it is settled")]
    InBatch,
    /// The account changed while the change was being signed.
    #[error("the account changed meanwhile: try again")]
    Changed,
    /// The venue's half of the signature is not valid.
    #[error("the venue's signature of the change is not valid")]
    BadSignature,
    /// The node signed something else, or not all of it.
    #[error("the node did not sign the transaction that it was given: {0}")]
    BadTransaction(&'static str),
    /// The account cannot be changed like this.
    #[error(transparent)]
    Change(#[from] ModificationError),
    /// The venue.
    #[error(transparent)]
    Venue(#[from] LinkError),
    /// The node.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The keys do not make a script.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A quantity.
    #[error(transparent)]
    Unit(#[from] UnitError),
    /// A signature was about to leave without a commit.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// The trader ended.
    #[error(transparent)]
    Gone(#[from] Gone),
}

impl ModifyError {
    /// What the caller does.
    pub fn reaction(&self) -> Reaction {
        match self {
            ModifyError::Unknown(_) | ModifyError::FeeRate(_) | ModifyError::Reserved { .. } => Reaction::DropIntent,
            ModifyError::Change(_) | ModifyError::Key(_) | ModifyError::Unit(_) => Reaction::DropIntent,
            ModifyError::InBatch | ModifyError::Changed => Reaction::Retry,
            ModifyError::Venue(error) => link_reaction(error),
            ModifyError::Node(error) => node_reaction(error),
            ModifyError::BadSignature | ModifyError::BadTransaction(_) => Reaction::HaltTrading,
            ModifyError::Release(error) => error.reaction(),
            ModifyError::Gone(error) => error.reaction(),
        }
    }
}

/// Why the fee of an unconfirmed transaction was not raised.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BumpError {
    /// Not ours.
    #[error("account {0} is unknown")]
    Unknown(AccountKey),
    /// A fee rate that is nothing in whole satoshis per virtual byte: a node could take it for no wish at all.
    #[error("a fee rate of {0} is less than 1 sat/vB")]
    FeeRate(SatPerKw),
    /// No transaction of ours is unconfirmed in this state.
    #[error("an account in state {0:?} has no unconfirmed transaction whose fee we may raise")]
    State(AccountState),
    /// None of its outputs belongs to the node's wallet.
    #[error("no output of {0} belongs to the node's wallet: nothing of ours can pay for it")]
    NoOutput(Txid),
    /// The node.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The trader ended.
    #[error(transparent)]
    Gone(#[from] Gone),
}

impl BumpError {
    /// What the caller does.
    pub fn reaction(&self) -> Reaction {
        match self {
            BumpError::Unknown(_) | BumpError::FeeRate(_) => Reaction::DropIntent,
            BumpError::State(_) | BumpError::NoOutput(_) => Reaction::DropIntent,
            BumpError::Node(error) => node_reaction(error),
            BumpError::Gone(error) => error.reaction(),
        }
    }
}

/// Why a question about costs was not answered.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum QuoteError {
    /// Value outside the limits.
    #[error("an account holds {min} to {max}, not {found}")]
    Value {
        /// Smallest.
        min: Sats,
        /// Largest, by the venue's terms.
        max: Sats,
        /// Wanted.
        found: Sats,
    },
    /// A confirmation target of no blocks.
    #[error("a confirmation target of 0 blocks cannot be met")]
    Target,
    /// The venue.
    #[error(transparent)]
    Venue(#[from] LinkError),
    /// The node.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The trader ended.
    #[error(transparent)]
    Gone(#[from] Gone),
}

impl QuoteError {
    /// What the caller does.
    pub fn reaction(&self) -> Reaction {
        match self {
            QuoteError::Value { .. } | QuoteError::Target => Reaction::DropIntent,
            QuoteError::Venue(error) => link_reaction(error),
            QuoteError::Node(error) => node_reaction(error),
            QuoteError::Gone(error) => error.reaction(),
        }
    }
}

/// Why an order was not placed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SubmitError {
    /// Not ours.
    #[error("account {0} is unknown")]
    UnknownAccount(AccountKey),
    /// The account takes no orders in this state.
    #[error("an account in state {0:?} takes no orders")]
    AccountState(AccountState),
    /// The venue has no market of this duration.
    #[error("the venue has no market for leases of {0}")]
    UnknownDuration(BlockCount),
    /// A rule of every order.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// The order wants a channel that is usable unconfirmed, which node or order cannot give.
    #[error("zero-conf needs a node that advertises it and an anchor-type channel (script enforced or taproot)")]
    ZeroConf,
    /// The order wants a simple taproot channel, which the node does not offer.
    #[error("simple taproot channels need a node that advertises them")]
    Taproot,
    /// The order is larger than the channels that the node offers.
    #[error("an order above {max} needs a node that advertises large channels, this one is of {found}")]
    LargeChannel {
        /// Largest order without them.
        max: Sats,
        /// Wanted.
        found: Sats,
    },
    /// The worst case of all orders exceeds the account.
    #[error("the account's orders could cost {needed}, but it holds {available}")]
    Funds {
        /// Reserved for all orders, this one included.
        needed: Sats,
        /// Value of the account.
        available: Sats,
    },
    /// The venue calls the order invalid; it is stored as failed.
    #[error("the venue calls order {nonce} invalid: {reason}")]
    Invalid {
        /// The order.
        nonce: OrderNonce,
        /// What it says.
        reason: String,
    },
    /// The venue refused the call; the order is stored as failed.
    #[error("the venue refused order {nonce}: {reason}")]
    Refused {
        /// The order.
        nonce: OrderNonce,
        /// What it says.
        reason: String,
    },
    /// The order may or may not be in the book: it stays submitted, and its state is asked for until it is known.
    #[error("it is unknown whether order {nonce} is in the book: {source}")]
    OutcomeUnknown {
        /// The order.
        nonce: OrderNonce,
        /// Why.
        source: LinkError,
    },
    /// The venue, before anything was stored.
    #[error(transparent)]
    Venue(#[from] LinkError),
    /// The node.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A quantity.
    #[error(transparent)]
    Unit(#[from] UnitError),
    /// The trader ended.
    #[error(transparent)]
    Gone(#[from] Gone),
}

impl SubmitError {
    /// What the caller does.
    pub fn reaction(&self) -> Reaction {
        match self {
            SubmitError::UnknownAccount(_) | SubmitError::UnknownDuration(_) => Reaction::DropIntent,
            SubmitError::AccountState(_) | SubmitError::Order(_) | SubmitError::ZeroConf => Reaction::DropIntent,
            SubmitError::Taproot | SubmitError::LargeChannel { .. } => Reaction::DropIntent,
            SubmitError::Funds { .. } | SubmitError::Unit(_) => Reaction::DropIntent,
            SubmitError::Invalid { .. } | SubmitError::Refused { .. } => Reaction::DropIntent,
            // A second order would be a second commitment: the first one is asked for until it is known.
            SubmitError::OutcomeUnknown { .. } => Reaction::DropIntent,
            SubmitError::Venue(error) => link_reaction(error),
            SubmitError::Node(error) => node_reaction(error),
            SubmitError::Gone(error) => error.reaction(),
        }
    }
}

/// Why an order was not cancelled.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CancelError {
    /// Not ours.
    #[error("order {0} is unknown")]
    Unknown(OrderNonce),
    /// Already at rest.
    #[error("an order in state {0:?} cannot be cancelled")]
    Archived(OrderState),
    /// Its preimage was never known here.
    #[error("the order's preimage is not known")]
    NoPreimage,
    /// The venue; when it was not reached, the order's state is asked for later.
    #[error(transparent)]
    Venue(#[from] LinkError),
    /// The trader ended.
    #[error(transparent)]
    Gone(#[from] Gone),
}

impl CancelError {
    /// What the caller does.
    pub fn reaction(&self) -> Reaction {
        match self {
            CancelError::Unknown(_) | CancelError::Archived(_) | CancelError::NoPreimage => Reaction::DropIntent,
            CancelError::Venue(error) => link_reaction(error),
            CancelError::Gone(error) => error.reaction(),
        }
    }
}

/// Why an order was not replaced.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReplaceError {
    /// The old one cannot be cancelled; nothing was placed.
    #[error("the order is not cancelled: {0}")]
    Cancel(#[from] CancelError),
    /// The new one was not placed.
    #[error("the new order is not placed: {0}")]
    Submit(#[from] SubmitError),
    /// The trader ended.
    #[error(transparent)]
    Gone(#[from] Gone),
}

impl ReplaceError {
    /// What the caller does.
    pub fn reaction(&self) -> Reaction {
        match self {
            ReplaceError::Cancel(error) => error.reaction(),
            ReplaceError::Submit(error) => error.reaction(),
            ReplaceError::Gone(error) => error.reaction(),
        }
    }
}
