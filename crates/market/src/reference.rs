//! The specification of clearing as it is written: every bid walks over every ask. For comparison in tests.

use crate::pairing::*;
use crate::{Conflicts, Market, Pair, PairingRules};
use std::collections::BTreeMap;
use tidegate_protocol::units::{BlockCount, UnitCount};

fn may_meet(ask: &BookOrder, bid: &BookOrder, conflicts: &Conflicts, ratings_enabled: bool) -> bool {
    accounts_differ(ask, bid)
        && nodes_differ(ask, bid)
        && owners_differ(ask, bid)
        && prices_cross(ask, bid)
        && durations_equal(ask, bid)
        && auction_equal(ask, bid)
        && self_balance_fits(ask, bid)
        && channel_type_equal(ask, bid)
        && (!ratings_enabled || tier_suffices(ask, bid))
        && allowed_by_lists(ask, bid)
        && announcement_fits(ask, bid)
        && confirmation_fits(ask, bid)
        && not_in_conflict(ask, bid, conflicts)
}

/// What [`crate::clear`] must return.
pub(crate) fn clear(orders: &[BookOrder], rules: &PairingRules<'_>) -> BTreeMap<BlockCount, Market> {
    let mut paired = pair_up(orders, rules);
    while paired.values().map(Vec::len).sum::<usize>() > rules.max_pairs {
        paired.values_mut().max_by_key(|pairs| pairs.len()).unwrap().pop();
    }
    paired.into_iter().filter_map(|(duration, pairs)| Some((duration, price(pairs)?))).collect()
}

/// Pairs of every duration, before the limit and the price.
pub(crate) fn pair_up(orders: &[BookOrder], rules: &PairingRules<'_>) -> BTreeMap<BlockCount, Vec<Pair>> {
    let (mut asks, mut bids) = (Vec::new(), Vec::new());
    for order in orders {
        let side: &mut Vec<(&BookOrder, UnitCount)> =
            if order.submitted.order.is_ask() { &mut asks } else { &mut bids };
        side.push((order, order.open));
    }
    asks.sort_by_key(|(ask, _)| ask.submitted.order.rate);
    bids.sort_by_key(|(bid, _)| core::cmp::Reverse(bid.submitted.order.rate));
    let mut paired: BTreeMap<BlockCount, Vec<Pair>> = BTreeMap::new();
    for (bid, bid_left) in &mut bids {
        for (ask, ask_left) in &mut asks {
            let Some(units) = fill(ask, *ask_left, bid, *bid_left) else { continue };
            if may_meet(ask, bid, rules.conflicts, rules.ratings_enabled) {
                *bid_left = bid_left.checked_sub(units).unwrap();
                *ask_left = ask_left.checked_sub(units).unwrap();
                let pair = Pair { ask: ask.submitted.clone(), bid: bid.submitted.clone(), units };
                paired.entry(bid.submitted.order.duration).or_default().push(pair);
            }
        }
    }
    paired
}

/// Price of one duration, and removal of the pairs whose ask is dearer than it.
pub(crate) fn price(mut pairs: Vec<Pair>) -> Option<Market> {
    let price = pairs.last()?.bid.order.rate;
    pairs.retain(|pair| pair.ask.order.rate <= price);
    Some(Market { price, pairs })
}
