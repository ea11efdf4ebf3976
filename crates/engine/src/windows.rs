//! Past clearings cut into windows: the evidence from which fill probabilities are estimated.
//!
//! A window without a clearing is data too: silence. Own pairs, and pairs below our smallest match, are taken out;
//! what happened to own orders enters as probes of its own.
//!
//! # Source
//! Strategy notes §3, "data".

use crate::view::{ClearedPair, Clearing, LeaseView, MarketView, Side};
use serde::{Deserialize, Serialize};
use tidegate_ports::Timestamp;
use tidegate_protocol::units::{BlockCount, RatePerBillion, UnitCount};

/// One clearing of a window, without own and too small pairs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowBatch {
    /// Clearing price `p`.
    pub price: RatePerBillion,
    /// Highest matched ask rate `a*`, own and small pairs included; nothing when the venue published no pair.
    pub highest_ask: Option<RatePerBillion>,
    /// Pairs that are evidence for us.
    pub pairs: Vec<ClearedPair>,
}

/// What happened to an own order in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Probe {
    /// It filled.
    Filled {
        /// Limit.
        rate: RatePerBillion,
        /// Units filled.
        units: UnitCount,
    },
    /// It stood through the whole window and did not fill.
    Unfilled {
        /// Limit.
        rate: RatePerBillion,
    },
}

/// One window of one duration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Clearings, oldest first. Empty: silent.
    pub batches: Vec<WindowBatch>,
    /// Own orders on the side in question.
    pub probes: Vec<Probe>,
}

/// How time is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSpec {
    /// Length of a window in milliseconds; the notes use 144 ticks of ten minutes.
    pub length_ms: u64,
    /// Windows at most, newest first.
    pub max_windows: u32,
}

/// The windows of one duration, newest first, ending at the view's time and not reaching back before
/// `observed_since` (of the oldest clearing, when that is earlier).
pub fn windows(
    view: &MarketView,
    duration: BlockCount,
    side: Side,
    min_units: UnitCount,
    spec: WindowSpec,
) -> Vec<Window> {
    let oldest = view.clearings_of(duration).map(|clearing| clearing.event_at).min();
    let since = oldest.map_or(view.observed_since, |oldest| oldest.min(view.observed_since));
    let age_ms = view.at.0.saturating_sub(since.0);
    let length_ms = spec.length_ms.max(1);
    // A window that is only partly observed still counts when something cleared in it.
    let partly = u64::from(age_ms % length_ms != 0 && oldest.is_some());
    let count = (age_ms / length_ms + partly).min(u64::from(spec.max_windows));
    (0..count)
        .map(|index| {
            let end = view.at.0.saturating_sub(index * length_ms);
            let start = end.saturating_sub(length_ms);
            window(view, duration, side, min_units, (Timestamp(start), Timestamp(end)))
        })
        .collect()
}

fn window(
    view: &MarketView,
    duration: BlockCount,
    side: Side,
    min_units: UnitCount,
    (start, end): (Timestamp, Timestamp),
) -> Window {
    let inside = |at: Timestamp| start < at && at <= end;
    let of_window = view.clearings_of(duration).filter(|clearing| inside(clearing.event_at));
    let batches = of_window.map(|clearing| evidence(view, clearing, min_units)).collect();
    let mut probes: Vec<Probe> = view
        .leases()
        .filter(|lease| lease.side == side && lease.duration == duration && inside(lease.booked_at))
        .map(|lease| Probe::Filled { rate: lease.limit_rate, units: lease.units })
        .collect();
    let own = view.live_orders().filter(|order| order.side == side && order.duration == duration);
    for order in own.filter(|order| order.placed_at <= start) {
        let filled = view.leases().any(|lease| lease.nonce == order.nonce && inside(lease.booked_at));
        if !filled {
            probes.push(Probe::Unfilled { rate: order.rate });
        }
    }
    Window { batches, probes }
}

fn evidence(view: &MarketView, clearing: &Clearing, min_units: UnitCount) -> WindowBatch {
    let mut pairs = clearing.pairs.clone();
    for lease in view.leases() {
        if lease.batch_id == clearing.batch_id && lease.duration == clearing.duration {
            remove_own(&mut pairs, lease);
        }
    }
    pairs.retain(|pair| pair.units >= min_units);
    let highest_ask = clearing.pairs.iter().map(|pair| pair.ask_rate).max();
    WindowBatch { price: clearing.price, highest_ask, pairs }
}

/// Takes out the first pair that a lease of ours can be: same limit on our side, same units.
fn remove_own(pairs: &mut Vec<ClearedPair>, lease: &LeaseView) {
    let own = pairs.iter().position(|pair| {
        let rate = match lease.side {
            Side::Ask => pair.ask_rate,
            Side::Bid => pair.bid_rate,
        };
        rate == lease.limit_rate && pair.units == lease.units
    });
    if let Some(index) = own {
        pairs.remove(index);
    }
}
