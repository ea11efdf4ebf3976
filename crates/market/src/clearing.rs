//! Which orders meet, and at which price.

use crate::matching::{Found, Meeting, pair_up};
use crate::pairing::{BookOrder, Market, Pair, PairingRules};
use std::collections::{BTreeMap, BinaryHeap};
use tidegate_protocol::units::{BlockCount, RatePerBillion};

/// Work that one tick of a venue may spend on clearing. An ordinary book of a million orders needs a fortieth of it; the
/// worst books known reach it in 10 to 20 seconds of one core.
pub const TICK_WORK: u64 = 5_000_000_000;

/// A cleared book, by the places of its orders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The durations with a pair.
    pub markets: BTreeMap<BlockCount, PlannedMarket>,
    /// Work done: orders read, nodes of search trees and orders looked at, pairs tested (each counts several times).
    pub work: u64,
    /// The work ran out: later pairs may be missing.
    pub cut: bool,
}

/// The matched part of one lease duration, by the places of its orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedMarket {
    /// What every pair of the duration pays.
    pub price: RatePerBillion,
    /// The pairs, best bid first.
    pub meetings: Vec<Meeting>,
}

/// A cleared book.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clearing {
    /// The durations with a pair.
    pub markets: BTreeMap<BlockCount, Market>,
    /// Work done, as in [`Plan`].
    pub work: u64,
    /// The work ran out: later pairs may be missing. What is here is as valid as in a complete clearing.
    pub cut: bool,
}

/// Pairs all orders and prices each lease duration; durations without a pair are absent.
///
/// Ties of the rate are broken by the order of `orders`. The book itself is not changed. The time is bounded only by the
/// product of asks and bids, for books made to be slow: [`clear_within`] bounds it.
///
/// # Source
/// Protocol notes, auctioneer §8.3 and §8.4.
pub fn clear(orders: &[BookOrder], rules: &PairingRules<'_>) -> BTreeMap<BlockCount, Market> {
    clear_within(orders, rules, u64::MAX).markets
}

/// As [`clear`], but stops where `work` runs out, and says so. Where that is depends on the book alone, not on time.
///
/// Every duration has an equal share of the work, so that the orders of one do not hold up another. The pairs of a cut
/// duration are the first ones that [`clear`] would find, priced at the last bid among them.
pub fn clear_within(orders: &[BookOrder], rules: &PairingRules<'_>, work: u64) -> Clearing {
    let Plan { markets, work, cut } = plan(orders, rules, work);
    let pair = |meeting: Meeting| Pair {
        ask: orders[meeting.ask].submitted.clone(),
        bid: orders[meeting.bid].submitted.clone(),
        units: meeting.units,
    };
    let market = |planned: PlannedMarket| Market {
        price: planned.price,
        pairs: planned.meetings.into_iter().map(pair).collect(),
    };
    let markets = markets.into_iter().map(|(duration, planned)| (duration, market(planned))).collect();
    Clearing { markets, work, cut }
}

/// As [`clear_within`], but copies no order: pairs are named by their places in `orders`.
pub fn plan(orders: &[BookOrder], rules: &PairingRules<'_>, work: u64) -> Plan {
    let (reading, mut found) = pair_up(orders, rules, work);
    limit(&mut found, rules.max_pairs);
    let mut plan = Plan { work: reading, ..Plan::default() };
    for (duration, found) in found {
        plan.work = plan.work.saturating_add(found.work);
        plan.cut |= found.cut;
        plan.markets.extend(price(orders, found.meetings).map(|market| (duration, market)));
    }
    plan
}

/// Drops the pairs of lowest priority (the last ones of the longest duration) until the batch fits one transaction.
/// Done before pricing: a price is always that of a bid that is served.
///
/// No duration brings more than `max_pairs`: it would lose what is beyond first.
fn limit(found: &mut BTreeMap<BlockCount, Found>, max_pairs: usize) {
    let mut total: usize = found.values().map(|found| found.meetings.len()).sum();
    let mut lengths: BinaryHeap<(usize, BlockCount)> =
        found.iter().map(|(duration, found)| (found.meetings.len(), *duration)).collect();
    while total > max_pairs {
        let Some((length, duration)) = lengths.pop() else { return };
        lengths.push((length - 1, duration));
        total -= 1;
    }
    for (length, duration) in lengths {
        if let Some(found) = found.get_mut(&duration) {
            found.meetings.truncate(length);
        }
    }
}

/// Price of one duration, and removal of the pairs whose ask is dearer than it.
///
/// The pair that sets the price always survives, so the price needs no second look.
fn price(orders: &[BookOrder], mut meetings: Vec<Meeting>) -> Option<PlannedMarket> {
    let price = orders[meetings.last()?.bid].submitted.order.rate;
    meetings.retain(|meeting| orders[meeting.ask].submitted.order.rate <= price);
    Some(PlannedMarket { price, meetings })
}
