//! Orders, and which of them may meet.

use std::collections::BTreeSet;
use tidegate_protocol::batch::BatchVersion;
use tidegate_protocol::channel;
use tidegate_protocol::keys::AccountKey;
use tidegate_protocol::order::{AuctionType, NodeTier, Order, OrderVersion, SubmittedOrder};
use tidegate_protocol::units::{RatePerBillion, Sats, UnitCount};

/// Most pairs of one batch: two version 0 accounts and a channel take about 1,300 weight units per pair, and a
/// transaction above 400,000 is not relayed.
pub const MAX_PAIRS: usize = 250;

/// An order that may be matched, with what the venue knows about its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BookOrder {
    /// The order, as it will be shown to the matched side.
    pub submitted: SubmittedOrder,
    /// Units not yet filled.
    pub open: UnitCount,
    /// Token of the owner; orders of one owner never meet.
    pub owner: [u8; 32],
    /// Rating of the order's node.
    pub tier: NodeTier,
    /// Version of the batch conversation that the owner speaks.
    pub batch_version: BatchVersion,
}

impl BookOrder {
    pub(crate) fn order(&self) -> &Order {
        &self.submitted.order
    }
}

/// Pairs of accounts that shall not meet. An entry works in both directions. Of accounts, not of nodes: an order names
/// any node that it likes, but only the owner of an account can sign for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conflicts(BTreeSet<(AccountKey, AccountKey)>);

impl Conflicts {
    /// No conflicts.
    pub fn new() -> Conflicts {
        Conflicts::default()
    }

    /// Keeps these two accounts apart.
    pub fn insert(&mut self, reporter: AccountKey, subject: AccountKey) {
        self.0.insert((reporter, subject));
    }

    /// Whether the two accounts are kept apart, whoever reported whom.
    pub fn contains(&self, a: AccountKey, b: AccountKey) -> bool {
        self.0.contains(&(a, b)) || self.0.contains(&(b, a))
    }

    /// Reporters and subjects.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &(AccountKey, AccountKey)> {
        self.0.iter()
    }
}

impl FromIterator<(AccountKey, AccountKey)> for Conflicts {
    fn from_iter<I: IntoIterator<Item = (AccountKey, AccountKey)>>(pairs: I) -> Conflicts {
        Conflicts(pairs.into_iter().collect())
    }
}

/// Rules of pairing that are not properties of the orders.
#[derive(Clone, Debug)]
pub struct PairingRules<'a> {
    /// Accounts that shall not meet.
    pub conflicts: &'a Conflicts,
    /// Whether node tiers count.
    pub ratings_enabled: bool,
    /// Most pairs of one batch.
    pub max_pairs: usize,
}

/// Two matched orders: one channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The maker's order.
    pub ask: SubmittedOrder,
    /// The taker's order.
    pub bid: SubmittedOrder,
    /// Units matched.
    pub units: UnitCount,
}

/// The matched part of one lease duration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Market {
    /// What every pair of the duration pays: the rate of the last accepted bid.
    pub price: RatePerBillion,
    /// The pairs, best bid first.
    pub pairs: Vec<Pair>,
}

/// The accounts are different.
pub fn accounts_differ(ask: &BookOrder, bid: &BookOrder) -> bool {
    ask.order().account != bid.order().account
}

/// The nodes are different.
pub fn nodes_differ(ask: &BookOrder, bid: &BookOrder) -> bool {
    ask.submitted.node != bid.submitted.node
}

/// The owners are different, so that nobody sets the price by trading with himself.
pub fn owners_differ(ask: &BookOrder, bid: &BookOrder) -> bool {
    ask.owner != bid.owner
}

/// The ask is not dearer than the bid.
pub fn prices_cross(ask: &BookOrder, bid: &BookOrder) -> bool {
    ask.order().rate <= bid.order().rate
}

/// Both want the same lease duration.
pub fn durations_equal(ask: &BookOrder, bid: &BookOrder) -> bool {
    ask.order().duration == bid.order().duration
}

/// Both are in the same kind of auction.
pub fn auction_equal(ask: &BookOrder, bid: &BookOrder) -> bool {
    ask.order().auction == bid.order().auction
}

/// A self balance needs an ask that knows of it.
pub fn self_balance_fits(ask: &BookOrder, bid: &BookOrder) -> bool {
    bid.order().self_balance() == Sats::ZERO || ask.order().version >= OrderVersion::V4
}

/// Both want the same channel type. Orders of versions that cannot say are peer dependent.
pub fn channel_type_equal(ask: &BookOrder, bid: &BookOrder) -> bool {
    ask.order().channel_type == bid.order().channel_type
}

/// The seller's node is rated as the buyer demands.
pub fn tier_suffices(ask: &BookOrder, bid: &BookOrder) -> bool {
    bid.order().bid().is_none_or(|terms| ask.tier >= terms.min_node_tier)
}

/// Each order's node lists accept the other's node.
pub fn allowed_by_lists(ask: &BookOrder, bid: &BookOrder) -> bool {
    ask.order().accepts_node(bid.submitted.node) && bid.order().accepts_node(ask.submitted.node)
}

/// The ask's wish about announcement is met, and a seller of an unannounced channel knows of the wish.
pub fn announcement_fits(ask: &BookOrder, bid: &BookOrder) -> bool {
    let (Some(asked), Some(wanted)) = (ask.order().ask(), bid.order().bid()) else {
        return false;
    };
    channel::announcement_matches(asked, wanted) && (!wanted.unannounced || ask.batch_version.unannounced_channels())
}

/// The ask's wish about confirmation is met, and both sides can do zero-conf when it is wanted.
pub fn confirmation_fits(ask: &BookOrder, bid: &BookOrder) -> bool {
    let (Some(asked), Some(wanted)) = (ask.order().ask(), bid.order().bid()) else {
        return false;
    };
    let able = ask.batch_version.zero_conf() && bid.batch_version.zero_conf();
    channel::confirmation_matches(asked, wanted) && (!wanted.zero_conf || able)
}

/// No earlier report keeps the accounts apart.
pub fn not_in_conflict(ask: &BookOrder, bid: &BookOrder, conflicts: &Conflicts) -> bool {
    !conflicts.contains(ask.order().account, bid.order().account)
}

/// The units that the two orders can exchange, given what is left of each; nothing when that is too little for one.
///
/// Inbound: every single match respects both smallest matches. Outbound: exactly one unit, and the bid's self balance
/// is at least the smallest channel of the ask.
pub fn fill(ask: &BookOrder, ask_left: UnitCount, bid: &BookOrder, bid_left: UnitCount) -> Option<UnitCount> {
    let (asked, wanted) = (ask.order(), bid.order());
    fill_units(wanted.auction, (ask_left, asked.min_units), (bid_left, wanted.min_units), wanted.self_balance())
}

/// [`fill`] by numbers: what is left and the smallest match of ask and bid, and the bid's self balance.
pub(crate) fn fill_units(
    auction: AuctionType,
    (ask_left, ask_min): (UnitCount, UnitCount),
    (bid_left, bid_min): (UnitCount, UnitCount),
    self_balance: Sats,
) -> Option<UnitCount> {
    let units = ask_left.min(bid_left);
    if units == UnitCount::ZERO {
        return None;
    }
    match auction {
        AuctionType::Inbound => {
            let enough = units >= ask_min && units >= bid_min;
            // A self balance belongs to one channel: such a bid is filled at once or not at all.
            let whole = self_balance == Sats::ZERO || units == bid_left;
            (enough && whole).then_some(units)
        }
        AuctionType::Outbound => {
            let one = UnitCount::new(1);
            let large_enough = ask_min.to_sats() <= self_balance;
            (bid_left == one && large_enough).then_some(one)
        }
    }
}

/// The predicates that read neither rate nor sizes nor who the two are.
pub(crate) fn kinds_meet(ask: &BookOrder, bid: &BookOrder, rules: &PairingRules<'_>) -> bool {
    durations_equal(ask, bid)
        && auction_equal(ask, bid)
        && self_balance_fits(ask, bid)
        && channel_type_equal(ask, bid)
        && (!rules.ratings_enabled || tier_suffices(ask, bid))
        && announcement_fits(ask, bid)
        && confirmation_fits(ask, bid)
}
