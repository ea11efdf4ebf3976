//! Which orders meet, and at which price.

use std::collections::{BTreeMap, BTreeSet};
use tidegate_protocol::batch::BatchVersion;
use tidegate_protocol::channel;
use tidegate_protocol::keys::NodeId;
use tidegate_protocol::order::{AuctionType, NodeTier, Order, OrderVersion, SubmittedOrder};
use tidegate_protocol::units::{BlockCount, RatePerBillion, Sats, UnitCount};

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
    fn order(&self) -> &Order {
        &self.submitted.order
    }
}

/// Pairs of nodes that shall not meet. An entry works in both directions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conflicts(BTreeSet<(NodeId, NodeId)>);

impl Conflicts {
    /// No conflicts.
    pub fn new() -> Conflicts {
        Conflicts::default()
    }

    /// Keeps these two nodes apart.
    pub fn insert(&mut self, reporter: NodeId, subject: NodeId) {
        self.0.insert((reporter, subject));
    }

    /// Whether the two nodes are kept apart, whoever reported whom.
    pub fn contains(&self, a: NodeId, b: NodeId) -> bool {
        self.0.contains(&(a, b)) || self.0.contains(&(b, a))
    }
}

impl FromIterator<(NodeId, NodeId)> for Conflicts {
    fn from_iter<I: IntoIterator<Item = (NodeId, NodeId)>>(pairs: I) -> Conflicts {
        Conflicts(pairs.into_iter().collect())
    }
}

/// Rules of pairing that are not properties of the orders.
#[derive(Clone, Debug)]
pub struct PairingRules<'a> {
    /// Nodes that shall not meet.
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

/// No earlier report keeps the nodes apart.
pub fn not_in_conflict(ask: &BookOrder, bid: &BookOrder, conflicts: &Conflicts) -> bool {
    !conflicts.contains(ask.submitted.node, bid.submitted.node)
}

/// The units that the two orders can exchange, given what is left of each; nothing when that is too little for one.
///
/// Inbound: every single match respects both smallest matches. Outbound: exactly one unit, and the bid's self balance
/// is at least the smallest channel of the ask.
pub fn fill(ask: &BookOrder, ask_left: UnitCount, bid: &BookOrder, bid_left: UnitCount) -> Option<UnitCount> {
    let units = ask_left.min(bid_left);
    if units == UnitCount::ZERO {
        return None;
    }
    match bid.order().auction {
        AuctionType::Inbound => {
            let enough = units >= ask.order().min_units && units >= bid.order().min_units;
            // A self balance belongs to one channel: such a bid is filled at once or not at all.
            let whole = bid.order().self_balance() == Sats::ZERO || units == bid_left;
            (enough && whole).then_some(units)
        }
        AuctionType::Outbound => {
            let one = UnitCount::new(1);
            let large_enough = ask.order().min_units.to_sats() <= bid.order().self_balance();
            (bid_left == one && large_enough).then_some(one)
        }
    }
}

fn may_meet(ask: &BookOrder, bid: &BookOrder, rules: &PairingRules<'_>) -> bool {
    accounts_differ(ask, bid)
        && nodes_differ(ask, bid)
        && owners_differ(ask, bid)
        && prices_cross(ask, bid)
        && durations_equal(ask, bid)
        && auction_equal(ask, bid)
        && self_balance_fits(ask, bid)
        && channel_type_equal(ask, bid)
        && (!rules.ratings_enabled || tier_suffices(ask, bid))
        && allowed_by_lists(ask, bid)
        && announcement_fits(ask, bid)
        && confirmation_fits(ask, bid)
        && not_in_conflict(ask, bid, rules.conflicts)
}

/// Pairs all orders and prices each lease duration; durations without a pair are absent.
///
/// Ties of the rate are broken by the order of `orders`. The book itself is not changed.
///
/// # Source
/// Protocol notes, auctioneer §8.3 and §8.4.
pub fn clear(orders: &[BookOrder], rules: &PairingRules<'_>) -> BTreeMap<BlockCount, Market> {
    let mut durations: BTreeMap<BlockCount, Vec<&BookOrder>> = BTreeMap::new();
    for order in orders {
        durations.entry(order.order().duration).or_default().push(order);
    }
    let mut paired: BTreeMap<BlockCount, Vec<Pair>> =
        durations.into_iter().map(|(duration, orders)| (duration, pair_up(&orders, rules))).collect();
    limit(&mut paired, rules.max_pairs);
    paired.into_iter().filter_map(|(duration, pairs)| Some((duration, price(pairs)?))).collect()
}

/// Greedy pairing of one duration: best bids first, each walking the asks from the cheapest on.
fn pair_up(orders: &[&BookOrder], rules: &PairingRules<'_>) -> Vec<Pair> {
    let mut asks: Vec<(&BookOrder, UnitCount)> = Vec::new();
    let mut bids: Vec<(&BookOrder, UnitCount)> = Vec::new();
    for order in orders {
        let side = if order.order().is_ask() { &mut asks } else { &mut bids };
        side.push((order, order.open));
    }
    asks.sort_by_key(|(ask, _)| ask.order().rate);
    bids.sort_by_key(|(bid, _)| core::cmp::Reverse(bid.order().rate));

    let mut pairs = Vec::new();
    for (bid, bid_left) in &mut bids {
        for (ask, ask_left) in &mut asks {
            if *bid_left == UnitCount::ZERO || !prices_cross(ask, bid) {
                break;
            }
            let Some(units) = fill(ask, *ask_left, bid, *bid_left) else { continue };
            if !may_meet(ask, bid, rules) {
                continue;
            }
            *bid_left = bid_left.checked_sub(units).expect("a fill is at most what is left of the bid");
            *ask_left = ask_left.checked_sub(units).expect("a fill is at most what is left of the ask");
            pairs.push(Pair { ask: ask.submitted.clone(), bid: bid.submitted.clone(), units });
        }
    }
    pairs
}

/// Drops the pairs of lowest priority (the last ones of the longest duration) until the batch fits one transaction.
/// Done before pricing: a price is always that of a bid that is served.
fn limit(paired: &mut BTreeMap<BlockCount, Vec<Pair>>, max_pairs: usize) {
    while paired.values().map(Vec::len).sum::<usize>() > max_pairs {
        let Some(longest) = paired.values_mut().max_by_key(|pairs| pairs.len()) else { return };
        longest.pop();
    }
}

/// Price of one duration, and removal of the pairs whose ask is dearer than it.
///
/// The pair that sets the price always survives, so the price needs no second look.
fn price(mut pairs: Vec<Pair>) -> Option<Market> {
    let price = pairs.last()?.bid.order.rate;
    pairs.retain(|pair| pair.ask.order.rate <= price);
    Some(Market { price, pairs })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::{ask, ask_terms, bid, bid_terms, nonce, point};
    use tidegate_protocol::order::{AnnouncementConstraint, ConfirmationConstraint, OrderChannelType};

    fn cleared(orders: &[BookOrder]) -> Option<Market> {
        let conflicts = Conflicts::new();
        let rules = PairingRules { conflicts: &conflicts, ratings_enabled: true, max_pairs: MAX_PAIRS };
        let mut markets = clear(orders, &rules);
        assert!(markets.len() <= 1);
        markets.remove(&BlockCount::new(2016))
    }

    fn names(market: &Market) -> Vec<(u32, u32, u32)> {
        let number = |wanted| (0..100).find(|n| nonce(*n) == wanted).unwrap();
        let row = |pair: &Pair| (number(pair.ask.order.nonce), number(pair.bid.order.nonce), pair.units.get());
        market.pairs.iter().map(row).collect()
    }

    /// The rules that stop a pair, each alone.
    #[test]
    fn each_predicate_alone_keeps_a_pair_apart() {
        type Spoil = fn(&mut BookOrder, &mut BookOrder);
        let rows: [(&str, Spoil); 15] = [
            ("same account", |a, b| b.submitted.order.account = a.submitted.order.account),
            ("same node", |a, b| b.submitted.node = a.submitted.node),
            ("same owner", |a, b| b.owner = a.owner),
            ("ask dearer than bid", |a, b| {
                a.submitted.order.rate = RatePerBillion::new(b.submitted.order.rate.get() + 1)
            }),
            ("other duration", |a, _| a.submitted.order.duration = BlockCount::new(4032)),
            ("other auction", |a, _| a.submitted.order.auction = AuctionType::Outbound),
            ("self balance with old ask", |a, b| {
                a.submitted.order.version = OrderVersion::V3;
                bid_terms(b).self_balance = Sats::constant(100_000);
            }),
            ("channel type", |a, _| a.submitted.order.channel_type = OrderChannelType::ScriptEnforced),
            ("node tier", |a, _| a.tier = NodeTier::Tier0),
            ("ask denies node", |a, b| a.submitted.order.denied_nodes = vec![b.submitted.node]),
            ("bid allows others", |_, b| b.submitted.order.allowed_nodes = vec![NodeId::new(point("node", 77))]),
            ("announcement", |a, _| ask_terms(a).announcement = AnnouncementConstraint::OnlyUnannounced),
            ("unannounced, old conversation", |a, b| {
                bid_terms(b).unannounced = true;
                a.batch_version = BatchVersion(1);
            }),
            ("confirmation", |a, _| ask_terms(a).confirmation = ConfirmationConstraint::OnlyZeroConf),
            ("smallest match", |a, _| a.submitted.order.min_units = UnitCount::new(3)),
        ];
        let pair = || (ask(1, 1, 10, 4), bid(2, 2, 20, 2));
        let (a, b) = pair();
        assert_eq!(cleared(&[a, b]).map(|m| names(&m)), Some(vec![(1, 2, 2)]), "unspoilt pair");
        for (rule, spoil) in rows {
            let (mut a, mut b) = pair();
            spoil(&mut a, &mut b);
            assert_eq!(cleared(&[a, b]), None, "{rule}");
        }
    }

    #[test]
    fn a_reported_pair_does_not_meet_in_either_direction() {
        let (a, b) = (ask(1, 1, 10, 1), bid(2, 2, 20, 1));
        for (reporter, subject) in [(a.submitted.node, b.submitted.node), (b.submitted.node, a.submitted.node)] {
            let conflicts: Conflicts = [(reporter, subject)].into_iter().collect();
            let rules = PairingRules { conflicts: &conflicts, ratings_enabled: true, max_pairs: MAX_PAIRS };
            assert!(clear(&[a.clone(), b.clone()], &rules).is_empty());
        }
    }

    #[test]
    fn tiers_do_not_count_when_ratings_are_off() {
        let (mut a, b) = (ask(1, 1, 10, 1), bid(2, 2, 20, 1));
        a.tier = NodeTier::Tier0;
        let rules = PairingRules { conflicts: &Conflicts::new(), ratings_enabled: false, max_pairs: MAX_PAIRS };
        assert_eq!(clear(&[a, b], &rules).len(), 1);
    }

    #[test]
    fn the_last_accepted_bid_sets_the_price_for_all() {
        let market =
            cleared(&[ask(1, 1, 5, 3), ask(2, 2, 8, 5), bid(3, 3, 30, 4), bid(4, 4, 12, 2), bid(5, 5, 7, 9)]).unwrap();
        assert_eq!(names(&market), vec![(1, 3, 3), (2, 3, 1), (2, 4, 2)]);
        assert_eq!(market.price, RatePerBillion::new(12));
    }

    #[test]
    fn ties_keep_the_order_of_arrival() {
        let market = cleared(&[ask(1, 1, 5, 1), ask(2, 2, 5, 1), bid(3, 3, 9, 1)]).unwrap();
        assert_eq!(names(&market), vec![(1, 3, 1)]);
    }

    #[test]
    fn a_pair_whose_ask_is_dearer_than_the_price_is_removed() {
        // The best bid may only meet the dear ask; the cheap ask serves the lower bid, which sets the price.
        let mut picky = bid(3, 3, 30, 1);
        picky.submitted.order.denied_nodes = vec![ask(1, 1, 5, 1).submitted.node];
        let market = cleared(&[ask(1, 1, 5, 1), ask(2, 2, 20, 1), picky, bid(4, 4, 10, 1)]).unwrap();
        assert_eq!(names(&market), vec![(1, 4, 1)]);
        assert_eq!(market.price, RatePerBillion::new(10));
    }

    #[test]
    fn a_self_balance_is_filled_by_one_ask_or_not_at_all() {
        let mut wants = bid(3, 3, 30, 4);
        wants.submitted.order.min_units = UnitCount::new(4);
        bid_terms(&mut wants).self_balance = Sats::constant(100_000);
        let market = cleared(&[ask(1, 1, 5, 3), ask(2, 2, 6, 4), wants]).unwrap();
        assert_eq!(names(&market), vec![(2, 3, 4)]);
    }

    #[test]
    fn outbound_matches_one_unit_and_the_self_balance_meets_the_smallest_channel() {
        let outbound = |order: &mut BookOrder| order.submitted.order.auction = AuctionType::Outbound;
        let (mut a, mut b) = (ask(1, 1, 5, 1), bid(2, 2, 9, 1));
        outbound(&mut a);
        outbound(&mut b);
        a.submitted.order.min_units = UnitCount::new(10);
        bid_terms(&mut b).self_balance = Sats::constant(900_000);
        assert_eq!(cleared(&[a.clone(), b.clone()]), None);
        bid_terms(&mut b).self_balance = Sats::constant(1_000_000);
        assert_eq!(cleared(&[a, b]).map(|m| names(&m)), Some(vec![(1, 2, 1)]));
    }

    #[test]
    fn the_pairs_of_lowest_priority_leave_a_batch_that_is_too_large() {
        let orders: Vec<_> = (0..5).flat_map(|n| [ask(n, n, 5, 1), bid(50 + n, 50 + n, 40 - n, 1)]).collect();
        let rules = PairingRules { conflicts: &Conflicts::new(), ratings_enabled: true, max_pairs: 3 };
        let market = clear(&orders, &rules).remove(&BlockCount::new(2016)).unwrap();
        assert_eq!(names(&market), vec![(0, 50, 1), (1, 51, 1), (2, 52, 1)]);
        assert_eq!(market.price, RatePerBillion::new(38));
    }
}
