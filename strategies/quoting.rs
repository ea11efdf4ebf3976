//! From a wanted order to intents: keep, wait, replace or place; and how many units an account backs.
//!
//! # Source
//! Strategy notes §4.0, "own lots" and "requote".

use crate::common::{ConfigProblem, MILLION, require};
use serde::{Deserialize, Serialize};
use tidegate_engine::strategy::{Decision, Intent, Now, OrderIntent, Reason};
use tidegate_engine::view::{AccountView, MarketView, OrderView, Side};
use tidegate_protocol::fees::ExecutionFee;
use tidegate_protocol::order::{AskTerms, BidTerms, NodeTier, OrderState};
use tidegate_protocol::units::{BlockCount, RatePerBillion, Sats, UnitCount};

/// When a live order is replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequoteConfig {
    /// A move of the rate beyond this replaces the order: logarithm of the ratio, in parts per million.
    pub rate_tolerance_ppm: u32,
    /// A change of the units beyond this replaces the order, in parts per million of what is open.
    pub size_tolerance_ppm: u32,
    /// An order stands at least this long, in seconds.
    pub interval_s: u64,
    /// Nothing is replaced this close to the next clearing, in seconds.
    pub quiet_before_clearing_s: u64,
}

impl RequoteConfig {
    pub(crate) fn check(&self) -> Result<(), ConfigProblem> {
        let tolerance = self.rate_tolerance_ppm;
        require(tolerance <= MILLION, "requote.rate_tolerance_ppm", tolerance, "must be at most 1000000")?;
        let tolerance = self.size_tolerance_ppm;
        require(tolerance <= MILLION, "requote.size_tolerance_ppm", tolerance, "must be at most 1000000")
    }

    fn differs(&self, order: &OrderView, wanted: &OrderIntent) -> bool {
        let ratio = f64::from(wanted.rate.get().max(1)) / f64::from(order.rate.get().max(1));
        if libm::log(ratio).abs() > f64::from(self.rate_tolerance_ppm) / f64::from(MILLION) {
            return true;
        }
        let (open, units) = (u64::from(order.units_unfulfilled.get()), u64::from(wanted.units.get()));
        open.abs_diff(units) * u64::from(MILLION) > open * u64::from(self.size_tolerance_ppm)
    }

    /// Whether this is no moment to replace the order for a better price.
    fn holds(&self, order: &OrderView, view: &MarketView, now: Now) -> bool {
        let age_s = now.time.0.saturating_sub(order.placed_at.0) / 1_000;
        let next = view.terms().map_or(0, |terms| terms.value.next_clear_time);
        let seconds = now.time.seconds();
        let quiet = seconds <= next && seconds.saturating_add(self.quiet_before_clearing_s) >= next;
        age_s < self.interval_s || (quiet && self.quiet_before_clearing_s > 0)
    }

    /// Whether an order of this bucket was refused so recently that trying again would only be noise.
    pub(crate) fn failed_recently(&self, view: &MarketView, side: Side, duration: BlockCount, now: Now) -> bool {
        view.orders().any(|order| {
            let same = order.side == side && order.duration == duration && order.state == OrderState::Failed;
            same && now.time.0.saturating_sub(order.placed_at.0) < self.interval_s.saturating_mul(1_000)
        })
    }
}

/// An order that a strategy would like to have in the book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The order.
    pub order: OrderIntent,
    /// The side; a bid names the lowest tier of sellers.
    pub side: WantedSide,
    /// A live ask below it, or a live bid above it, is cancelled at once.
    pub limit: RatePerBillion,
}

/// Side of a wanted order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WantedSide {
    /// Ask.
    Ask,
    /// Bid on sellers of at least this tier.
    Bid(NodeTier),
}

impl WantedSide {
    fn side(self) -> Side {
        match self {
            WantedSide::Ask => Side::Ask,
            WantedSide::Bid(_) => Side::Bid,
        }
    }
}

impl Wanted {
    /// The intent that places it.
    pub(crate) fn intent(&self) -> Intent {
        let order = self.order.clone();
        match self.side {
            WantedSide::Ask => Intent::PlaceAsk { order, terms: AskTerms::default() },
            WantedSide::Bid(min_node_tier) => {
                Intent::PlaceBid { order, terms: BidTerms { min_node_tier, ..BidTerms::default() } }
            }
        }
    }

    /// The same with as many units, at most the present ones, as `free` satoshi of the account back; nothing when not
    /// even one smallest match fits.
    pub(crate) fn fitted(mut self, free: Sats, fee: &ExecutionFee, account: &AccountView) -> Option<Wanted> {
        let fits = |wanted: &Wanted| wanted.intent().reserve(fee, account.version).is_ok_and(|reserve| reserve <= free);
        // An ask reserves its principal, so this is close to the answer; the steps below pay for fees.
        if self.side == WantedSide::Ask {
            self.order.units = self.order.units.min(UnitCount::floor_from(free).ok()?);
        }
        let smallest = self.order.min_units.get().max(1);
        while self.order.units.get() >= smallest {
            if fits(&self) {
                return Some(self);
            }
            self.order.units = UnitCount::new(self.order.units.get() - 1);
        }
        None
    }
}

/// Brings the book to `wanted`: at most one of `live` (own orders that it would replace) stays.
pub(crate) fn settle(
    config: &RequoteConfig,
    wanted: Option<Wanted>,
    live: &[&OrderView],
    view: &MarketView,
    now: Now,
    out: &mut Decision,
) {
    let Some((first, extra)) = live.split_first() else {
        return wanted.into_iter().for_each(|wanted| place(wanted, out));
    };
    for order in extra {
        cancel(order, Reason::CancelsOrder { nonce: order.nonce }, out);
    }
    if first.state == OrderState::Cleared {
        out.reasons.push(Reason::Waits { nonce: first.nonce });
        return;
    }
    let Some(wanted) = wanted else {
        return cancel(first, Reason::CancelsOrder { nonce: first.nonce }, out);
    };
    let breaks_limit = match wanted.side {
        WantedSide::Ask => first.rate < wanted.limit,
        WantedSide::Bid(_) => first.rate > wanted.limit,
    };
    let (nonce, rate, new) = (first.nonce, first.rate, wanted.order.rate);
    if breaks_limit {
        cancel(first, Reason::CancelsOrder { nonce }, out);
        place(wanted, out);
    } else if first.duration == wanted.order.duration && !config.differs(first, &wanted.order) {
        out.reasons.push(Reason::KeepsQuote { nonce, rate, wanted: new });
    } else if config.holds(first, view, now) {
        out.reasons.push(Reason::Waits { nonce });
    } else {
        cancel(first, Reason::Requotes { nonce, rate, wanted: new }, out);
        place(wanted, out);
    }
}

fn cancel(order: &OrderView, reason: Reason, out: &mut Decision) {
    if order.state == OrderState::Cleared {
        out.reasons.push(Reason::Waits { nonce: order.nonce });
        return;
    }
    out.reasons.push(reason);
    out.intents.push(Intent::Cancel { nonce: order.nonce });
}

fn place(wanted: Wanted, out: &mut Decision) {
    let order = &wanted.order;
    out.reasons.push(Reason::Quotes {
        side: wanted.side.side(),
        duration: order.duration,
        rate: order.rate,
        units: order.units,
        min_units: order.min_units,
    });
    out.intents.push(wanted.intent());
}
