//! Orders: what a trader asks or bids, how it is named, digested and validated.

use crate::curve::sha256_of;
use crate::execution_fee::ExecutionFee;
use crate::keys::{AccountKey, KeyDescriptor, MultisigKey, NodeId, OrderNonce, OrderPreimage};
use crate::units::{BlockCount, RatePerBillion, SatPerKw, Sats, UnitCount, UnitError};
use serde::{Deserialize, Serialize};

/// Version of an order: decides what its digest covers.
///
/// # Source
/// Protocol notes, batch §1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u32)]
#[allow(missing_docs)]
pub enum OrderVersion {
    /// Base.
    V0 = 0,
    /// Adds node tier and minimum match.
    V1 = 1,
    /// Adds lease duration buckets.
    V2 = 2,
    /// Adds the self channel balance.
    V3 = 3,
    /// Adds sidecar channels.
    V4 = 4,
    /// Adds the channel type.
    V5 = 5,
}

/// Which way the bought liquidity flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AuctionType {
    /// The taker buys inbound liquidity (0).
    #[default]
    Inbound,
    /// The taker buys a channel mostly funded by itself (1).
    Outbound,
}

/// Channel type that an order asks for. Numbers are the persisted and digested ones (wire enum minus one).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum OrderChannelType {
    /// 0: whatever the two nodes negotiate.
    #[default]
    PeerDependent,
    /// 1: lease expiry enforced by the commitment scripts.
    ScriptEnforced,
    /// 2: taproot funding output, unannounced only.
    SimpleTaproot,
}

/// Tier of a node. Numbers are those of the wire and of the digest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NodeTier {
    /// 1 on the wire: any node.
    Tier0,
    /// 2 on the wire: rated good; what a bid asks for unless it says otherwise.
    #[default]
    Tier1,
}

/// An ask's wish about announcement of the channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AnnouncementConstraint {
    /// 0: either.
    #[default]
    None,
    /// 1: announced channels only.
    OnlyAnnounced,
    /// 2: unannounced channels only.
    OnlyUnannounced,
}

/// An ask's wish about confirmation of the channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ConfirmationConstraint {
    /// 0: either.
    #[default]
    None,
    /// 1: confirmed channels only.
    OnlyConfirmed,
    /// 2: zero-conf channels only.
    OnlyZeroConf,
}

/// What only an ask says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskTerms {
    /// Announcement wish.
    pub announcement: AnnouncementConstraint,
    /// Confirmation wish.
    pub confirmation: ConfirmationConstraint,
}

/// What only a bid says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BidTerms {
    /// Lowest acceptable tier of the seller's node.
    pub min_node_tier: NodeTier,
    /// Satoshis of the taker's own on its side of the new channel.
    pub self_balance: Sats,
    /// The channel goes to a third party (sidecar).
    pub sidecar: bool,
    /// The channel is not announced.
    pub unannounced: bool,
    /// The channel is usable before it confirms.
    pub zero_conf: bool,
}

/// Ask or bid, with what only that side says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OrderSide {
    /// Sells liquidity (type 0): the maker.
    Ask(AskTerms),
    /// Buys liquidity (type 1): the taker.
    Bid(BidTerms),
}

/// The terms of an order, as both sides of the wire know them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Name.
    pub nonce: OrderNonce,
    /// Version of the digest.
    pub version: OrderVersion,
    /// Account that backs the order.
    pub account: AccountKey,
    /// Market.
    pub auction: AuctionType,
    /// Limit price.
    pub rate: RatePerBillion,
    /// Amount of the lease, in satoshi.
    pub amount: Sats,
    /// Smallest match.
    pub min_units: UnitCount,
    /// Lease duration.
    pub duration: BlockCount,
    /// Highest chain fee rate of a batch that this order may take part in.
    pub max_batch_fee_rate: SatPerKw,
    /// Channel type.
    pub channel_type: OrderChannelType,
    /// When not empty, the only nodes that may be matched.
    pub allowed_nodes: Vec<NodeId>,
    /// Nodes that may not be matched.
    pub denied_nodes: Vec<NodeId>,
    /// The owner allows the order to be shared.
    pub public: bool,
    /// Ask or bid.
    pub side: OrderSide,
}

/// Address of a node: `host:port` over TCP (onion hosts too).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeAddress(pub String);

/// An order as it is submitted, and as it is shown to the matched side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmittedOrder {
    /// The terms.
    pub order: Order,
    /// DER signature by the account key over the digest (hashed once more); may be empty in a prepare message.
    pub signature: Vec<u8>,
    /// Funding key of this side.
    pub multisig: MultisigKey,
    /// Node of this side.
    pub node: NodeId,
    /// Where that node can be reached.
    pub addresses: Vec<NodeAddress>,
}

/// State of an order. Numbers are the persisted and wire ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum OrderState {
    /// In the book, untouched.
    Submitted = 0,
    /// Part of a batch under execution.
    Cleared = 1,
    /// Some units filled, the rest still matchable.
    PartiallyFilled = 2,
    /// Nothing left, or less than the minimum match.
    Executed = 3,
    /// Cancelled.
    Canceled = 4,
    /// Life time exceeded.
    Expired = 5,
    /// Refused, or unknown to the venue.
    Failed = 6,
}

impl OrderState {
    /// Archived orders can not be matched and reserve nothing.
    pub fn is_archived(self) -> bool {
        match self {
            OrderState::Submitted | OrderState::Cleared | OrderState::PartiallyFilled => false,
            OrderState::Executed | OrderState::Canceled | OrderState::Expired | OrderState::Failed => true,
        }
    }
}

/// An order of ours, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnOrder {
    /// The terms.
    pub order: Order,
    /// Secret that cancels it, when known.
    pub preimage: Option<OrderPreimage>,
    /// State.
    pub state: OrderState,
    /// Units not yet filled.
    pub units_unfulfilled: UnitCount,
    /// Funding key and its place in the node's wallet. For a sidecar bid both are the recipient's, as in its ticket: the
    /// channel, its shim and its waiting are then the recipient node's affair.
    pub multisig: KeyDescriptor,
    /// Highest execution fee that the owner agreed to when it was signed.
    pub fee_ceiling: ExecutionFee,
    /// Blocks by which the venue said, when it was signed, that it extends the expiry of a matched account.
    pub extension_quoted: BlockCount,
}

impl Order {
    /// Whether this is an ask.
    pub fn is_ask(&self) -> bool {
        matches!(self.side, OrderSide::Ask(_))
    }

    /// The bid's terms, when this is a bid.
    pub fn bid(&self) -> Option<&BidTerms> {
        match &self.side {
            OrderSide::Bid(terms) => Some(terms),
            OrderSide::Ask(_) => None,
        }
    }

    /// The ask's terms, when this is an ask.
    pub fn ask(&self) -> Option<&AskTerms> {
        match &self.side {
            OrderSide::Ask(terms) => Some(terms),
            OrderSide::Bid(_) => None,
        }
    }

    /// Satoshis that a bid puts on its own side; zero for asks.
    pub fn self_balance(&self) -> Sats {
        self.bid().map_or(Sats::ZERO, |terms| terms.self_balance)
    }
}

impl OrderVersion {
    /// The number of the wire and of the digest.
    pub fn number(self) -> u32 {
        match self {
            OrderVersion::V0 => 0,
            OrderVersion::V1 => 1,
            OrderVersion::V2 => 2,
            OrderVersion::V3 => 3,
            OrderVersion::V4 => 4,
            OrderVersion::V5 => 5,
        }
    }

    /// The version with this number, when it can be digested.
    pub fn from_number(number: u32) -> Option<OrderVersion> {
        match number {
            0 => Some(OrderVersion::V0),
            1 => Some(OrderVersion::V1),
            2 => Some(OrderVersion::V2),
            3 => Some(OrderVersion::V3),
            4 => Some(OrderVersion::V4),
            5 => Some(OrderVersion::V5),
            _ => None,
        }
    }
}

impl OrderChannelType {
    /// The persisted and digested number.
    pub fn number(self) -> u8 {
        match self {
            OrderChannelType::PeerDependent => 0,
            OrderChannelType::ScriptEnforced => 1,
            OrderChannelType::SimpleTaproot => 2,
        }
    }
}

impl NodeTier {
    /// The number of the wire and of the digest.
    pub fn number(self) -> u32 {
        match self {
            NodeTier::Tier0 => 1,
            NodeTier::Tier1 => 2,
        }
    }
}

impl Order {
    /// The digest that the account key signs (as a message, hashed once more), SHA-256 by version.
    ///
    /// # Source
    /// Protocol notes, batch §1.
    pub fn digest(&self) -> [u8; 32] {
        let mut bytes = Vec::with_capacity(96);
        bytes.extend_from_slice(self.nonce.as_bytes());
        bytes.extend_from_slice(&self.version.number().to_be_bytes());
        bytes.extend_from_slice(&self.rate.get().to_be_bytes());
        bytes.extend_from_slice(&self.amount.get().to_be_bytes());
        bytes.extend_from_slice(&self.duration.get().to_be_bytes());
        bytes.extend_from_slice(&self.max_batch_fee_rate.get().to_be_bytes());
        if self.version >= OrderVersion::V1 {
            if let Some(bid) = self.bid() {
                bytes.extend_from_slice(&bid.min_node_tier.number().to_be_bytes());
            }
            bytes.extend_from_slice(&self.min_units.get().to_be_bytes());
        }
        if let Some(bid) = self.bid() {
            if self.version >= OrderVersion::V3 {
                bytes.extend_from_slice(&bid.self_balance.get().to_be_bytes());
            }
            if self.version >= OrderVersion::V4 {
                bytes.push(u8::from(bid.sidecar));
            }
        }
        if self.version >= OrderVersion::V5 {
            bytes.push(self.channel_type.number());
        }
        sha256_of(&[&bytes])
    }

    /// Units of the whole order, rounded down.
    ///
    /// # Errors
    /// [`UnitError::Overflow`] beyond 32 bits.
    pub fn units(&self) -> Result<UnitCount, UnitError> {
        UnitCount::floor_from(self.amount)
    }

    /// Whether the node lists of this order accept `node`: a list of allowed nodes decides alone, else one of denied nodes.
    ///
    /// # Source
    /// Protocol notes, batch §7 step 5.
    pub fn accepts_node(&self, node: NodeId) -> bool {
        if self.allowed_nodes.is_empty() {
            !self.denied_nodes.contains(&node)
        } else {
            self.allowed_nodes.contains(&node)
        }
    }
}

impl OrderPreimage {
    /// The nonce that this preimage opens: its SHA-256.
    pub fn nonce(&self) -> OrderNonce {
        OrderNonce::new(sha256_of(&[self.as_bytes()]))
    }
}

/// An order that breaks a rule which does not depend on its account.
///
/// # Source
/// Protocol notes, batch §1 "Validation before submission" and auctioneer §5.2.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// The amount is zero.
    #[error("the amount is zero")]
    NoAmount,
    /// The amount has a remainder that could never be matched, or does not fit.
    #[error(transparent)]
    Amount(#[from] UnitError),
    /// The smallest match is zero units.
    #[error("the smallest match is zero units")]
    NoMinimum,
    /// The smallest match exceeds the order (inbound market).
    #[error("the smallest match of {min} units exceeds the order's {units}")]
    MinimumAboveOrder {
        /// Smallest match.
        min: u32,
        /// Units of the order.
        units: u32,
    },
    /// The duration is zero.
    #[error("the lease duration is zero")]
    NoDuration,
    /// The highest batch fee rate is below the floor.
    #[error("a highest batch fee rate of {found} is below {floor}")]
    FeeRateBelowFloor {
        /// The order's.
        found: SatPerKw,
        /// The lowest allowed.
        floor: SatPerKw,
    },
    /// A feature needs a later order version.
    #[error("{feature} needs order version {needed}, not {found}")]
    VersionTooLow {
        /// What the order uses.
        feature: &'static str,
        /// Lowest version.
        needed: u32,
        /// The order's version.
        found: u32,
    },
    /// The self balance exceeds the amount (inbound market).
    #[error("the self balance of {self_balance} exceeds the amount of {amount}")]
    SelfBalanceAboveAmount {
        /// Self balance.
        self_balance: Sats,
        /// Amount.
        amount: Sats,
    },
    /// The self balance is not a positive number of whole units (outbound market).
    #[error("the self balance of {0} is not a positive number of whole units")]
    SelfBalanceNotWholeUnits(Sats),
    /// A bid with a self balance, or a sidecar bid, that could be filled in parts.
    #[error("{feature} needs a smallest match of the whole order: {units} units, not {min}")]
    NotAllOrNothing {
        /// What the order uses.
        feature: &'static str,
        /// Smallest match.
        min: u32,
        /// Units of the order.
        units: u32,
    },
    /// An order of the outbound market is not exactly one unit.
    #[error("an order of the outbound market must be one unit, not {0}")]
    OutboundNotOneUnit(u32),
    /// A sidecar bid in the outbound market.
    #[error("a sidecar bid must be in the inbound market")]
    SidecarOutbound,
    /// Both node lists are set.
    #[error("allowed and denied nodes exclude each other")]
    BothNodeLists,
    /// Zero-conf without a channel type that is safe for it.
    #[error("a zero-conf channel must be script enforced or simple taproot")]
    ZeroConfChannelType,
    /// Simple taproot for a channel that might be announced.
    #[error("a simple taproot channel must be unannounced")]
    TaprootAnnounced,
    /// An ask whose node cannot be reached.
    #[error("an ask needs an address of its node")]
    NoAddress,
}

/// The duration of the oldest market, which needs no order version.
const LEGACY_DURATION: BlockCount = BlockCount::new(2016);

impl Order {
    /// Checks every rule that needs neither account nor book nor the node's addresses.
    ///
    /// # Errors
    /// One variant of [`OrderError`] per rule.
    ///
    /// # Source
    /// Protocol notes, batch §1 and auctioneer §5.2.
    pub fn validate(&self) -> Result<(), OrderError> {
        self.check_amounts()?;
        if self.duration.get() == 0 {
            return Err(OrderError::NoDuration);
        }
        let floor = SatPerKw::FLOOR;
        if self.max_batch_fee_rate < floor {
            return Err(OrderError::FeeRateBelowFloor { found: self.max_batch_fee_rate, floor });
        }
        if self.duration != LEGACY_DURATION {
            self.needs_version(OrderVersion::V2, "a lease duration other than 2016 blocks")?;
        }
        if self.channel_type != OrderChannelType::PeerDependent {
            self.needs_version(OrderVersion::V5, "a channel type")?;
        }
        if !self.allowed_nodes.is_empty() && !self.denied_nodes.is_empty() {
            return Err(OrderError::BothNodeLists);
        }
        self.check_channel()?;
        match &self.side {
            OrderSide::Ask(_) => Ok(()),
            // A zero is only refused by the venue, and by us before we ask it.
            OrderSide::Bid(bid) if self.auction == AuctionType::Outbound && bid.self_balance == Sats::ZERO => {
                Err(OrderError::SelfBalanceNotWholeUnits(Sats::ZERO))
            }
            OrderSide::Bid(bid) => self.check_self_balance(bid).and_then(|()| self.check_sidecar(bid)),
        }
    }

    fn check_amounts(&self) -> Result<(), OrderError> {
        if self.amount == Sats::ZERO {
            return Err(OrderError::NoAmount);
        }
        let units = UnitCount::exactly_from(self.amount)?.get();
        let min = self.min_units.get();
        if min == 0 {
            return Err(OrderError::NoMinimum);
        }
        match self.auction {
            AuctionType::Inbound if min > units => Err(OrderError::MinimumAboveOrder { min, units }),
            AuctionType::Outbound if units != 1 => Err(OrderError::OutboundNotOneUnit(units)),
            AuctionType::Inbound | AuctionType::Outbound => Ok(()),
        }
    }

    fn check_channel(&self) -> Result<(), OrderError> {
        let (zero_conf, may_be_announced) = match &self.side {
            OrderSide::Ask(ask) => (
                ask.confirmation == ConfirmationConstraint::OnlyZeroConf,
                ask.announcement == AnnouncementConstraint::OnlyAnnounced,
            ),
            OrderSide::Bid(bid) => (bid.zero_conf, !bid.unannounced),
        };
        match self.channel_type {
            OrderChannelType::PeerDependent if zero_conf => Err(OrderError::ZeroConfChannelType),
            OrderChannelType::SimpleTaproot if may_be_announced => Err(OrderError::TaprootAnnounced),
            OrderChannelType::PeerDependent | OrderChannelType::ScriptEnforced | OrderChannelType::SimpleTaproot => {
                Ok(())
            }
        }
    }

    /// The rules of a bid's self balance alone.
    ///
    /// # Errors
    /// [`OrderError`]: version, whole units, size, all-or-nothing.
    ///
    /// # Source
    /// Protocol notes, batch §1. No self balance is none of its affair: that the outbound market needs one is a rule of the
    /// venue, auctioneer §5.2, which [`Self::validate`] adds.
    pub fn check_self_balance(&self, bid: &BidTerms) -> Result<(), OrderError> {
        let self_balance = bid.self_balance;
        match (self.auction, self_balance) {
            (AuctionType::Inbound | AuctionType::Outbound, Sats::ZERO) => return Ok(()),
            (AuctionType::Inbound, _) if self_balance > self.amount => {
                return Err(OrderError::SelfBalanceAboveAmount { self_balance, amount: self.amount });
            }
            (AuctionType::Outbound, _) if UnitCount::exactly_from(self_balance).is_err() => {
                return Err(OrderError::SelfBalanceNotWholeUnits(self_balance));
            }
            (AuctionType::Inbound | AuctionType::Outbound, _) => {}
        }
        self.needs_version(OrderVersion::V3, "a self balance")?;
        self.all_or_nothing("a self balance")
    }

    fn check_sidecar(&self, bid: &BidTerms) -> Result<(), OrderError> {
        if !bid.sidecar {
            return Ok(());
        }
        self.needs_version(OrderVersion::V4, "a sidecar channel")?;
        if self.auction == AuctionType::Outbound {
            return Err(OrderError::SidecarOutbound);
        }
        self.all_or_nothing("a sidecar channel")
    }

    fn all_or_nothing(&self, feature: &'static str) -> Result<(), OrderError> {
        let units = UnitCount::exactly_from(self.amount)?;
        if units == UnitCount::ZERO || self.min_units != units {
            return Err(OrderError::NotAllOrNothing { feature, min: self.min_units.get(), units: units.get() });
        }
        Ok(())
    }

    fn needs_version(&self, needed: OrderVersion, feature: &'static str) -> Result<(), OrderError> {
        if self.version < needed {
            return Err(OrderError::VersionTooLow { feature, needed: needed.number(), found: self.version.number() });
        }
        Ok(())
    }
}

impl SubmittedOrder {
    /// Whether the signature is the account key's over this order's digest.
    pub fn signature_is_valid(&self) -> bool {
        crate::auth::verify_message(self.order.account.point(), &self.order.digest(), &self.signature)
    }

    /// Checks every rule of a submission that needs neither account nor book: amounts, minimum match, versions,
    /// channel type, self balance, node lists, addresses of asks, fee rate floor. Signature excluded.
    ///
    /// # Errors
    /// One variant of [`OrderError`] per rule.
    pub fn validate(&self) -> Result<(), OrderError> {
        self.order.validate()?;
        if self.order.is_ask() && self.addresses.is_empty() {
            return Err(OrderError::NoAddress);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "028e87bdd134238f8347f845d9ecc827b843d0d1e27cdcb46da704d916613f4fce";

    fn ask() -> Order {
        Order {
            nonce: OrderNonce::new([1; 32]),
            version: OrderVersion::V5,
            account: KEY.parse().unwrap(),
            auction: AuctionType::Inbound,
            rate: RatePerBillion::new(1000),
            amount: Sats::constant(1_000_000),
            min_units: UnitCount::new(1),
            duration: BlockCount::new(4032),
            max_batch_fee_rate: SatPerKw::FLOOR,
            channel_type: OrderChannelType::PeerDependent,
            allowed_nodes: Vec::new(),
            denied_nodes: Vec::new(),
            public: false,
            side: OrderSide::Ask(AskTerms::default()),
        }
    }

    fn bid(terms: BidTerms) -> Order {
        Order { min_units: UnitCount::new(10), side: OrderSide::Bid(terms), ..ask() }
    }

    fn pushing(sat: u64) -> BidTerms {
        BidTerms { self_balance: Sats::constant(sat), ..BidTerms::default() }
    }

    #[test]
    fn honest_orders_are_valid() {
        let taproot = BidTerms { unannounced: true, ..BidTerms::default() };
        let outbound = Order {
            amount: Sats::constant(100_000),
            min_units: UnitCount::new(1),
            auction: AuctionType::Outbound,
            ..bid(pushing(500_000))
        };
        let big_outbound_ask = Order {
            amount: Sats::constant(100_000),
            min_units: UnitCount::new(30),
            auction: AuctionType::Outbound,
            ..ask()
        };
        let zero_conf = BidTerms { zero_conf: true, ..BidTerms::default() };
        let orders = [
            ask(),
            Order { version: OrderVersion::V0, duration: BlockCount::new(2016), ..ask() },
            bid(BidTerms::default()),
            bid(pushing(1_000_000)),
            bid(BidTerms { sidecar: true, ..pushing(1) }),
            Order { channel_type: OrderChannelType::SimpleTaproot, ..bid(taproot) },
            Order { channel_type: OrderChannelType::ScriptEnforced, ..bid(zero_conf) },
            outbound,
            big_outbound_ask,
        ];
        for order in orders {
            assert_eq!(order.validate(), Ok(()), "{order:?}");
        }
    }

    #[test]
    fn each_broken_rule_has_its_error() {
        let outbound = AuctionType::Outbound;
        let one = Sats::constant(100_000);
        let old = |needed, feature, found| OrderError::VersionTooLow { feature, needed, found };
        let node: NodeId = KEY.parse().unwrap();
        let rows = [
            (Order { amount: Sats::ZERO, ..ask() }, OrderError::NoAmount),
            (Order { amount: Sats::constant(150_000), ..ask() }, OrderError::Amount(UnitError::NotWholeUnits(150_000))),
            (Order { min_units: UnitCount::ZERO, ..ask() }, OrderError::NoMinimum),
            (Order { min_units: UnitCount::new(11), ..ask() }, OrderError::MinimumAboveOrder { min: 11, units: 10 }),
            (Order { duration: BlockCount::new(0), ..ask() }, OrderError::NoDuration),
            (
                Order { max_batch_fee_rate: SatPerKw::new(252), ..ask() },
                OrderError::FeeRateBelowFloor { found: SatPerKw::new(252), floor: SatPerKw::FLOOR },
            ),
            (Order { version: OrderVersion::V1, ..ask() }, old(2, "a lease duration other than 2016 blocks", 1)),
            (
                Order { version: OrderVersion::V4, channel_type: OrderChannelType::ScriptEnforced, ..ask() },
                old(5, "a channel type", 4),
            ),
            (Order { version: OrderVersion::V2, ..bid(pushing(1)) }, old(3, "a self balance", 2)),
            (
                bid(pushing(1_000_001)),
                OrderError::SelfBalanceAboveAmount {
                    self_balance: Sats::constant(1_000_001),
                    amount: Sats::constant(1_000_000),
                },
            ),
            (
                Order { min_units: UnitCount::new(9), ..bid(pushing(1)) },
                OrderError::NotAllOrNothing { feature: "a self balance", min: 9, units: 10 },
            ),
            (
                Order { auction: outbound, amount: one, min_units: UnitCount::new(1), ..bid(pushing(0)) },
                OrderError::SelfBalanceNotWholeUnits(Sats::ZERO),
            ),
            (Order { auction: outbound, ..ask() }, OrderError::OutboundNotOneUnit(10)),
            (
                Order {
                    auction: outbound,
                    amount: one,
                    min_units: UnitCount::new(1),
                    ..bid(BidTerms { sidecar: true, ..pushing(100_000) })
                },
                OrderError::SidecarOutbound,
            ),
            (Order { allowed_nodes: vec![node], denied_nodes: vec![node], ..ask() }, OrderError::BothNodeLists),
            (bid(BidTerms { zero_conf: true, ..BidTerms::default() }), OrderError::ZeroConfChannelType),
            (
                Order { channel_type: OrderChannelType::SimpleTaproot, ..bid(BidTerms::default()) },
                OrderError::TaprootAnnounced,
            ),
        ];
        for (order, error) in rows {
            assert_eq!(order.validate(), Err(error));
        }
    }

    #[test]
    fn a_rule_of_the_venue_is_no_rule_of_self_balances() {
        let (amount, min_units) = (Sats::constant(100_000), UnitCount::new(1));
        let outbound = Order { auction: AuctionType::Outbound, amount, min_units, ..bid(pushing(0)) };
        assert_eq!(outbound.check_self_balance(&pushing(0)), Ok(()));
        assert_eq!(outbound.validate(), Err(OrderError::SelfBalanceNotWholeUnits(Sats::ZERO)));
    }

    #[test]
    fn only_an_ask_needs_an_address() {
        let submitted = |order| SubmittedOrder {
            order,
            signature: Vec::new(),
            multisig: KEY.parse().unwrap(),
            node: KEY.parse().unwrap(),
            addresses: Vec::new(),
        };
        assert_eq!(submitted(ask()).validate(), Err(OrderError::NoAddress));
        assert_eq!(submitted(bid(BidTerms::default())).validate(), Ok(()));
    }
}
