//! Who meets whom, at which price, and what it does to the accounts.

use super::World;
use super::book::{UNIT, fill};
use super::money::{self, Outcome, Terms, outcome, signed};
use std::collections::BTreeMap;
use tidegate_protocol::fees::ExecutionFee;
use tidegate_protocol::keys::{AccountKey, OrderNonce};

/// Balances around the one below which no output is made.
const EDGES: [i64; 7] = [0, 1, 433, 434, 435, 436, 437];

/// Two orders that meet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    pub(crate) ask: OrderNonce,
    pub(crate) bid: OrderNonce,
    pub(crate) units: u32,
    pub(crate) duration: u32,
    pub(crate) outcome: Outcome,
}

/// The matched and settled part of a batch.
#[derive(Clone, Debug)]
pub(crate) struct Settlement {
    pub(crate) fee_rate: u64,
    /// Duration → price.
    pub(crate) prices: BTreeMap<u32, u32>,
    pub(crate) pairs: Vec<Pair>,
    /// What each trader is charged.
    pub(crate) fees: Vec<ExecutionFee>,
    /// Account → value afterwards, chain fee paid.
    pub(crate) endings: BTreeMap<AccountKey, (u64, u64)>,
}

#[derive(Clone, Copy)]
struct Meeting {
    ask: OrderNonce,
    bid: OrderNonce,
    units: u32,
}

impl World {
    /// Matches and settles what is in the book, or nothing when nothing meets. Owners deposit what they need.
    pub(crate) fn settle(&mut self, fee_rate: u64) -> Option<Settlement> {
        let (mut prices, mut pairs) = (BTreeMap::new(), Vec::new());
        let fees = self.charges();
        let durations: Vec<u32> = self.orders.values().map(|order| order.own.order.duration.get()).collect();
        for duration in durations.into_iter().collect::<std::collections::BTreeSet<_>>() {
            let mut meetings = self.meetings(duration, fee_rate);
            let rate = |nonce: &OrderNonce| self.orders[nonce].own.order.rate.get();
            let Some(high) = meetings.iter().map(|met| rate(&met.bid)).min() else { continue };
            meetings.retain(|met| rate(&met.ask) <= high);
            let Some(low) = meetings.iter().map(|met| rate(&met.ask)).max() else { continue };
            let price = self.draw.u32(low, high);
            prices.insert(duration, price);
            pairs.extend(meetings.into_iter().map(|met| self.pair(met, price, &fees)));
        }
        if pairs.is_empty() {
            return None;
        }
        let endings = self.endings(&pairs, fee_rate);
        Some(Settlement { fee_rate, prices, pairs, fees, endings })
    }

    /// What each trader is charged: what was quoted, or less.
    fn charges(&mut self) -> Vec<ExecutionFee> {
        let draw = &mut self.draw;
        let fees = self.traders.iter().map(|trader| match draw.chance(70) {
            true => trader.fee,
            false => ExecutionFee { rate_ppm: draw.between(0, trader.fee.rate_ppm), ..trader.fee },
        });
        fees.collect()
    }

    /// Orders that meet, each as far as it is not used up.
    fn meetings(&mut self, duration: u32, fee_rate: u64) -> Vec<Meeting> {
        let (mut asks, mut bids) = (Vec::new(), Vec::new());
        for (nonce, order) in &self.orders {
            let terms = &order.own.order;
            if terms.duration.get() == duration && terms.max_batch_fee_rate.get() >= fee_rate {
                if terms.is_ask() { asks.push(*nonce) } else { bids.push(*nonce) }
            }
        }
        self.draw.shuffle(&mut asks);
        self.draw.shuffle(&mut bids);
        let units = |nonce: &OrderNonce| (*nonce, self.orders[nonce].own.units_unfulfilled.get());
        let mut left: BTreeMap<OrderNonce, u32> = asks.iter().chain(&bids).map(units).collect();
        let mut meetings = Vec::new();
        for bid in bids {
            for ask in &asks {
                let (seller, buyer) = (&self.orders[ask], &self.orders[&bid]);
                if let Some(units) = fill(seller, left[ask], buyer, left[&bid]) {
                    meetings.push(Meeting { ask: *ask, bid, units });
                    *left.get_mut(ask).unwrap() -= units;
                    *left.get_mut(&bid).unwrap() -= units;
                }
            }
        }
        meetings
    }

    fn pair(&self, met: Meeting, price: u32, fees: &[ExecutionFee]) -> Pair {
        let (ask, bid) = (&self.orders[&met.ask], &self.orders[&met.bid]);
        let duration = bid.own.order.duration.get();
        let terms = Terms {
            auction: bid.own.order.auction,
            filled: u64::from(met.units) * UNIT,
            self_balance: bid.own.order.self_balance().get(),
            price,
            duration,
        };
        let outcome = outcome(&terms, &fees[ask.owner.trader], &fees[bid.owner.trader]);
        Pair { ask: met.ask, bid: met.bid, units: met.units, duration, outcome }
    }

    /// Values afterwards. Some owners deposit or withdraw first, so that nothing is left, or just as much as matters.
    fn endings(&mut self, pairs: &[Pair], fee_rate: u64) -> BTreeMap<AccountKey, (u64, u64)> {
        let mut changes: BTreeMap<AccountKey, (i64, u64)> = BTreeMap::new();
        for pair in pairs {
            for (nonce, change) in [(pair.ask, pair.outcome.maker), (pair.bid, pair.outcome.taker)] {
                let found = changes.entry(self.orders[&nonce].owner.account).or_default();
                *found = (found.0 + change, found.1 + 1);
            }
        }
        let mut endings = BTreeMap::new();
        for (key, (change, channels)) in changes {
            let account = &self.accounts[&key].account;
            let fee = money::chain_fee(channels, fee_rate, account.terms.version);
            let mut ending = signed(account.value.get()) + change - signed(fee);
            if ending < 0 || self.draw.chance(30) {
                let rich = signed(self.draw.between(0, 50_000_000));
                let target = if self.draw.chance(60) { self.draw.pick(&EDGES) } else { rich };
                if let Ok(value) = u64::try_from(target - change + signed(fee)) {
                    self.modify(key, value);
                    ending = target;
                }
            }
            // A negative target is impossible: whoever earns enough to end below zero does not exist.
            endings.insert(key, (u64::try_from(ending).unwrap(), fee));
        }
        endings
    }
}
