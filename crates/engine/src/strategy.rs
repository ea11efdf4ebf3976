//! The interface of a strategy: what it may want, and how it explains itself.

use crate::view::{MarketView, Side};
use core::fmt;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tidegate_ports::Timestamp;
use tidegate_protocol::account::AccountVersion;
use tidegate_protocol::fees::{ExecutionFee, reserved_value};
use tidegate_protocol::keys::{AccountKey, OrderNonce};
use tidegate_protocol::order::{
    AskTerms, AuctionType, BidTerms, NodeTier, Order, OrderChannelType, OrderSide, OrderState, OrderVersion,
};
use tidegate_protocol::units::{BlockCount, BlockHeight, RatePerBillion, SatPerKw, Sats, UnitCount, UnitError};

/// The moment of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Now {
    /// Time.
    pub time: Timestamp,
    /// Best height.
    pub height: BlockHeight,
}

/// What an ask and a bid have in common. Inbound market, order version 5.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderIntent {
    /// Account that backs it.
    pub account: AccountKey,
    /// Limit.
    pub rate: RatePerBillion,
    /// Units.
    pub units: UnitCount,
    /// Smallest match.
    pub min_units: UnitCount,
    /// Lease duration.
    pub duration: BlockCount,
    /// Highest chain fee rate of a batch.
    pub max_batch_fee_rate: SatPerKw,
    /// Channel type.
    pub channel_type: OrderChannelType,
}

impl OrderIntent {
    /// The protocol's order of this intent, under a given name.
    pub fn order(&self, nonce: OrderNonce, side: OrderSide) -> Order {
        Order {
            nonce,
            version: OrderVersion::V5,
            account: self.account,
            auction: AuctionType::Inbound,
            rate: self.rate,
            amount: self.units.to_sats(),
            min_units: self.min_units,
            duration: self.duration,
            max_batch_fee_rate: self.max_batch_fee_rate,
            channel_type: self.channel_type,
            allowed_nodes: Vec::new(),
            denied_nodes: Vec::new(),
            public: false,
            side,
        }
    }
}

/// Something that a strategy, or a person, wants done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intent {
    /// Offer liquidity.
    PlaceAsk {
        /// Common part.
        order: OrderIntent,
        /// The ask's part.
        terms: AskTerms,
    },
    /// Buy liquidity.
    PlaceBid {
        /// Common part.
        order: OrderIntent,
        /// The bid's part.
        terms: BidTerms,
    },
    /// Cancel an order of ours. Intents of one decision are carried out in order; when a cancel fails, what follows
    /// it may no longer fit and is decided anew at the next tick.
    Cancel {
        /// Name.
        nonce: OrderNonce,
    },
    /// Open an account.
    OpenAccount {
        /// Value in satoshi.
        value: Sats,
        /// Expiry, in blocks from now.
        expiry_blocks: BlockCount,
        /// Script version.
        version: AccountVersion,
    },
    /// Close an account.
    CloseAccount {
        /// Name.
        account: AccountKey,
    },
    /// Move coins from the node's wallet into an account.
    Deposit {
        /// Account.
        account: AccountKey,
        /// What is added, in satoshi.
        amount: Sats,
    },
    /// Move coins out of an account.
    Withdraw {
        /// Account.
        account: AccountKey,
        /// What is paid out, without fee, in satoshi.
        amount: Sats,
    },
    /// Give an account a later expiry.
    Renew {
        /// Account.
        account: AccountKey,
        /// The new expiry.
        expiry: BlockHeight,
    },
    /// Pay more for the unconfirmed transaction of an account.
    BumpFee {
        /// Account.
        account: AccountKey,
        /// Fee rate of the transaction and its child together.
        fee_rate: SatPerKw,
    },
}

impl Intent {
    /// The order that this intent places, under a given name; nothing for intents that place none.
    pub fn order(&self, nonce: OrderNonce) -> Option<Order> {
        match self {
            Intent::PlaceAsk { order, terms } => Some(order.order(nonce, OrderSide::Ask(terms.clone()))),
            Intent::PlaceBid { order, terms } => Some(order.order(nonce, OrderSide::Bid(terms.clone()))),
            Intent::Cancel { .. } | Intent::OpenAccount { .. } | Intent::CloseAccount { .. } => None,
            Intent::Deposit { .. } | Intent::Withdraw { .. } | Intent::Renew { .. } | Intent::BumpFee { .. } => None,
        }
    }

    /// The value that the placed order reserves of its account, in satoshi; 0 for intents that place none.
    ///
    /// # Errors
    /// [`UnitError`] when it cannot be computed.
    ///
    /// # Source
    /// Protocol notes, batch §3.
    pub fn reserve(&self, fee: &ExecutionFee, version: AccountVersion) -> Result<Sats, UnitError> {
        match self.order(OrderNonce::new([0; 32])) {
            Some(order) => reserved_value(&order, order.units()?, OrderState::Submitted, fee, version),
            None => Ok(Sats::ZERO),
        }
    }
}

/// Where a first price came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnchorSource {
    /// Past clearings of the same duration.
    SameBucket,
    /// Past clearings of another duration, at equal net return.
    NeighbourBucket,
    /// The own reservation rate or willingness: no clearing is known.
    OwnLimit,
}

/// One line of why a decision is what it is. Rates in ppb, amounts in satoshi.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields are named by unit, and each line prints as a sentence")]
pub enum Reason {
    /// The venue's terms are not known.
    NoTerms,
    /// The venue takes no orders of this duration.
    MarketClosed { duration: BlockCount },
    /// An account is being opened or changed: wait.
    AccountPending,
    /// The wallet lacks coins for an account that makes sense.
    WalletTooSmall { free_sats: Sats, needed_sats: Sats },
    /// The free value of the accounts is too small for an order.
    AccountTooSmall { free_sats: Sats, units: UnitCount },
    /// No account exists: one is opened.
    OpensAccount { value_sats: Sats },
    /// The account is close to its expiry: it is wound up.
    AccountExpires { account: AccountKey, blocks_left: BlockCount },
    /// The reservation rate at the smallest match.
    Reservation { duration: BlockCount, min_units: UnitCount, rate: RatePerBillion },
    /// The highest rate worth paying at the smallest match.
    Willingness { duration: BlockCount, min_units: UnitCount, rate: RatePerBillion },
    /// The lease costs more than it is worth at any rate.
    NotWorthIt { duration: BlockCount },
    /// No chain fee rate of the network leaves the required return at this rate.
    FeesTooHigh { duration: BlockCount },
    /// The first price, lowered (ask) or raised (bid) with patience.
    Anchor { duration: BlockCount, source: AnchorSource, rate: RatePerBillion, quote: RatePerBillion },
    /// Too few clearings for an estimate.
    ThinMarket { duration: BlockCount, clearings: u32, windows_with_clearing: u32 },
    /// The fill estimate at the chosen rate; `reachable_share` counts interest that our rating can reach.
    FillEstimate {
        rate: RatePerBillion,
        p: f64,
        lo: f64,
        hi: f64,
        windows: u32,
        prior_share: f64,
        reachable_share: f64,
    },
    /// The expected annual return at the chosen rate, as a ratio.
    ExpectedReturn { rate: RatePerBillion, annual_net: f64 },
    /// No rate promises the required return.
    ReturnTooLow { duration: BlockCount, best_annual_net: f64, required_ppm: u32 },
    /// Bids that demand a rating which we lack do not count.
    UnreachableInterest { duration: BlockCount, reachable_units: u32, all_units: u32, own_tier: NodeTier },
    /// Windows left until the capacity is needed; 0 when it is overdue.
    Deadline { windows_left: u32 },
    /// Enough is bought or on order.
    TargetReached { target: UnitCount, running: UnitCount, on_order: UnitCount },
    /// The live order is close enough to what would be placed now.
    KeepsQuote { nonce: OrderNonce, rate: RatePerBillion, wanted: RatePerBillion },
    /// The live order can not be touched now: a batch runs, it is too fresh, or the next clearing is too close.
    Waits { nonce: OrderNonce },
    /// The live order is replaced.
    Requotes { nonce: OrderNonce, rate: RatePerBillion, wanted: RatePerBillion },
    /// The live order breaks a limit of the strategy, or there is one too many: it is cancelled at once.
    CancelsOrder { nonce: OrderNonce },
    /// A new order.
    Quotes { side: Side, duration: BlockCount, rate: RatePerBillion, units: UnitCount, min_units: UnitCount },
    /// The valuation has no answer.
    Valuation { problem: String },
    /// The stored state of the strategy did not parse and starts empty.
    StateReset,
    /// Not the strategy's wish: a person asked for it.
    Asked { by: String },
    /// A person stopped trading: open orders are cancelled, and none is placed.
    Stopped { by: String, why: String },
    /// A person lets it trade again.
    Resumed { by: String },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NoTerms => f.write_str("the venue's terms are not known yet"),
            Reason::MarketClosed { duration } => write!(f, "the venue takes no orders of {duration}"),
            Reason::AccountPending => f.write_str("an account is being opened or changed"),
            Reason::WalletTooSmall { free_sats, needed_sats } => {
                write!(f, "the wallet has {free_sats} to spare, an account needs {needed_sats}")
            }
            Reason::AccountTooSmall { free_sats, units } => {
                write!(f, "{free_sats} free in accounts do not back an order of {} units", units.get())
            }
            Reason::OpensAccount { value_sats } => write!(f, "opens an account of {value_sats}"),
            Reason::AccountExpires { account, blocks_left } => {
                write!(f, "account {account} expires in {blocks_left}: no new orders on it")
            }
            Reason::Reservation { duration, min_units, rate } => {
                write!(f, "leases of {duration} pay from {rate} on, at {} units", min_units.get())
            }
            Reason::Willingness { duration, min_units, rate } => {
                write!(f, "leases of {duration} are worth at most {rate}, at {} units", min_units.get())
            }
            Reason::NotWorthIt { duration } => write!(f, "leases of {duration} cost more than they are worth"),
            Reason::FeesTooHigh { duration } => write!(f, "chain fees eat the return of leases of {duration}"),
            Reason::Anchor { duration, source, rate, quote } => {
                write!(f, "first price for {duration}: {rate} by {source:?}, now {quote}")
            }
            Reason::ThinMarket { duration, clearings, windows_with_clearing } => {
                write!(
                    f,
                    "{clearings} clearings of {duration} in {windows_with_clearing} windows are too few to estimate"
                )
            }
            Reason::FillEstimate { rate, p, lo, hi, windows, prior_share, reachable_share } => write!(
                f,
                "at {rate} {p:.3} [{lo:.3}, {hi:.3}] fill per window ({windows} windows, prior {prior_share:.2}, reachable {reachable_share:.2})"
            ),
            Reason::ExpectedReturn { rate, annual_net } => {
                write!(f, "at {rate} {:.2} % net per year", annual_net * 100.0)
            }
            Reason::ReturnTooLow { duration, best_annual_net, required_ppm } => write!(
                f,
                "leases of {duration} promise at best {:.2} % net per year, {required_ppm} ppm are required",
                best_annual_net * 100.0
            ),
            Reason::UnreachableInterest { duration, reachable_units, all_units, own_tier } => write!(
                f,
                "{reachable_units} of {all_units} units wanted for {duration} accept our rating ({own_tier:?})"
            ),
            Reason::Deadline { windows_left } => write!(f, "{windows_left} windows left"),
            Reason::TargetReached { target, running, on_order } => {
                write!(f, "of {} units {} run and {} are on order", target.get(), running.get(), on_order.get())
            }
            Reason::KeepsQuote { nonce, rate, wanted } => write!(f, "order {nonce} stays at {rate} ({wanted} wanted)"),
            Reason::Waits { nonce } => write!(f, "order {nonce} is left alone for now"),
            Reason::Requotes { nonce, rate, wanted } => write!(f, "order {nonce} moves from {rate} to {wanted}"),
            Reason::CancelsOrder { nonce } => write!(f, "order {nonce} is cancelled"),
            Reason::Quotes { side, duration, rate, units, min_units } => {
                write!(f, "{side:?} {} units (at least {}) for {duration} at {rate}", units.get(), min_units.get())
            }
            Reason::Valuation { problem } => write!(f, "no valuation: {problem}"),
            Reason::StateReset => f.write_str("the strategy's state did not parse and starts empty"),
            Reason::Asked { by } => write!(f, "asked for by {by}"),
            Reason::Stopped { by, why } if why.is_empty() => write!(f, "stopped by {by}"),
            Reason::Stopped { by, why } => write!(f, "stopped by {by}: {why}"),
            Reason::Resumed { by } => write!(f, "resumed by {by}"),
        }
    }
}

/// What a strategy wants, and why; also when it wants nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Wishes, in the order in which they are to be carried out.
    pub intents: Vec<Intent>,
    /// Reasons, in the order of thought.
    pub reasons: Vec<Reason>,
}

/// A strategy: a pure function of the view, its own state and the moment.
pub trait Strategy {
    /// What it remembers between decisions; kept with the journal.
    type State: Serialize + DeserializeOwned + Default;

    /// Its name in the journal.
    fn name(&self) -> &str;

    /// Decides. The same view, state and moment give the same decision on every machine; data seen after `now` does
    /// not count.
    fn decide(&self, view: &MarketView, state: &mut Self::State, now: Now) -> Decision;
}
