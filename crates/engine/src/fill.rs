//! How likely an order fills, and at which price: an estimate with its uncertainty.
//!
//! Snapshots are interval-censored evidence: a rate surely filled, surely missed, or is unknown. The estimate mixes
//! the weighted evidence of windows with a prior around an anchor rate, and is projected onto monotone curves.
//!
//! # Source
//! Strategy notes §0 (F1–F3) and §3.

use crate::float;
use crate::view::{ClearedPair, Side};
use crate::windows::{Probe, Window, WindowBatch};
use serde::{Deserialize, Serialize};
use tidegate_protocol::units::{RatePerBillion, UnitCount};

/// Parameters of the estimator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FillModel {
    /// Half-life of evidence in windows `τ`; infinity switches decay off.
    pub half_life_windows: f64,
    /// Weight of the prior in windows `n0`.
    pub prior_windows: f64,
    /// Steepness of the prior `ψ`.
    pub prior_steepness: f64,
    /// What an unknown outcome counts as `φ`, 0 to 1.
    pub unknown: f64,
}

impl Default for FillModel {
    fn default() -> FillModel {
        FillModel { half_life_windows: 14.0, prior_windows: 2.0, prior_steepness: 3.0, unknown: 0.5 }
    }
}

/// What a window says about one rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// The order would surely have filled.
    Filled,
    /// It can not be told.
    Unknown,
    /// It would surely not have filled.
    Missed,
}

impl Evidence {
    fn value(self, unknown: f64) -> f64 {
        match self {
            Evidence::Filled => 1.0,
            Evidence::Unknown => unknown,
            Evidence::Missed => 0.0,
        }
    }
}

/// Probability of a fill within one window, with a 90 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fill {
    /// Estimate.
    pub p: f64,
    /// 5 % quantile, unknowns counted as missed.
    pub lo: f64,
    /// 95 % quantile, unknowns counted as filled.
    pub hi: f64,
}

/// What one window says about `units` more at `rate` on `side`.
///
/// # Source
/// Strategy notes §3 by F2: on the best single batch of the window.
pub fn evidence(window: &Window, side: Side, rate: RatePerBillion, units: UnitCount) -> Evidence {
    if window.probes.iter().any(|probe| probe_filled(*probe, side, rate, units)) {
        return Evidence::Filled;
    }
    if window.batches.iter().any(|batch| batch_evidence(batch, side, rate, units) == Evidence::Filled) {
        return Evidence::Filled;
    }
    let missed = window.batches.iter().all(|batch| batch_evidence(batch, side, rate, units) == Evidence::Missed);
    let refused = window.probes.iter().any(|probe| probe_missed(*probe, side, rate));
    if missed || refused { Evidence::Missed } else { Evidence::Unknown }
}

/// An own order at this rate or a worse one for us (a higher ask, a lower bid) filled.
fn probe_filled(probe: Probe, side: Side, rate: RatePerBillion, wanted: UnitCount) -> bool {
    match (probe, side) {
        (Probe::Filled { rate: own, units }, Side::Ask) => own >= rate && units >= wanted,
        (Probe::Filled { rate: own, units }, Side::Bid) => own <= rate && units >= wanted,
        (Probe::Unfilled { .. }, _) => false,
    }
}

/// An own order at this rate or a better one for the others did not fill.
fn probe_missed(probe: Probe, side: Side, rate: RatePerBillion) -> bool {
    match (probe, side) {
        (Probe::Unfilled { rate: own }, Side::Ask) => own <= rate,
        (Probe::Unfilled { rate: own }, Side::Bid) => own >= rate,
        (Probe::Filled { .. }, _) => false,
    }
}

fn batch_evidence(batch: &WindowBatch, side: Side, rate: RatePerBillion, units: UnitCount) -> Evidence {
    let beaten = |pair: &&ClearedPair| match side {
        Side::Ask => pair.ask_rate > rate,
        Side::Bid => pair.bid_rate < rate,
    };
    let displaced: u64 = batch.pairs.iter().filter(beaten).map(|pair| u64::from(pair.units.get())).sum();
    if displaced >= u64::from(units.get()) && displaced > 0 {
        return Evidence::Filled;
    }
    let missed = match side {
        Side::Ask => rate > batch.price,
        Side::Bid => batch.highest_ask.is_some_and(|highest| rate < highest),
    };
    if missed { Evidence::Missed } else { Evidence::Unknown }
}

/// Windows, weighed: answers how likely `units` on one side fill at a rate. Before monotone projection.
#[derive(Clone, Debug)]
pub struct Estimator<'a> {
    model: FillModel,
    side: Side,
    anchor: RatePerBillion,
    units: UnitCount,
    windows: &'a [Window],
}

impl<'a> Estimator<'a> {
    /// An estimator over `windows` (newest first) with the prior centred on `anchor` (at least 1 ppb).
    pub fn new(
        model: FillModel,
        side: Side,
        anchor: RatePerBillion,
        units: UnitCount,
        windows: &'a [Window],
    ) -> Estimator<'a> {
        Estimator { model, side, anchor: anchor.max(RatePerBillion::new(1)), units, windows }
    }

    /// The prior's probability at `rate`.
    pub fn prior(&self, rate: RatePerBillion) -> f64 {
        let ratio = f64::from(rate.get()) / f64::from(self.anchor.get());
        let falling = 1.0 / (1.0 + libm::pow(ratio, self.model.prior_steepness));
        match self.side {
            Side::Ask => falling,
            Side::Bid => 1.0 - falling,
        }
    }

    /// Windows with their weights, newest first.
    fn weighted(&self) -> impl Iterator<Item = (f64, &Window)> {
        let half_life = self.model.half_life_windows;
        (0_u32..).zip(self.windows).map(move |(age, window)| (libm::exp2(-f64::from(age) / half_life), window))
    }

    /// The share of the prior in the estimate, 0 to 1.
    pub fn prior_share(&self) -> f64 {
        let weight: f64 = self.weighted().map(|(weight, _)| weight).sum();
        self.model.prior_windows / (weight + self.model.prior_windows)
    }

    /// The estimate at one rate, not yet projected onto monotone curves.
    pub fn at(&self, rate: RatePerBillion) -> Fill {
        let (mut sum, mut squares, mut mixed, mut low, mut high) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for (weight, window) in self.weighted() {
            let evidence = evidence(window, self.side, rate, self.units);
            sum += weight;
            squares += weight * weight;
            mixed += weight * evidence.value(self.model.unknown);
            low += weight * evidence.value(0.0);
            high += weight * evidence.value(1.0);
        }
        let prior = self.prior(rate);
        let n0 = self.model.prior_windows;
        // v rescales the weights to their effective number, so that decayed evidence counts less in the interval.
        let v = if squares > 0.0 { sum / squares } else { 0.0 };
        let quantile = |probability: f64, hits: f64| {
            beta_quantile(probability, v * hits + n0 * prior, v * (sum - hits) + n0 * (1.0 - prior))
        };
        Fill { p: (mixed + n0 * prior) / (sum + n0), lo: quantile(0.05, low), hi: quantile(0.95, high) }
    }

    /// The expected clearing rate (ppb) given that an order at `rate` fills: own impact counted, so between `rate`
    /// and the price for an ask; for a bid its own rate, which is certain in a market of one bid.
    pub fn expected_rate(&self, rate: RatePerBillion) -> f64 {
        let own = f64::from(rate.get());
        if self.side == Side::Bid {
            return own;
        }
        let (mut weights, mut sum) = (0.0, 0.0);
        for (weight, window) in self.weighted() {
            let z = evidence(window, self.side, rate, self.units).value(self.model.unknown);
            if let (true, Some(batch)) = (z > 0.0, self.filling_batch(window, rate)) {
                let impact = self.impact(batch);
                weights += weight * z;
                sum += weight * z * ((1.0 - impact) * f64::from(batch.price.get()) + impact * own);
            }
        }
        if weights > 0.0 { (sum / weights).max(own) } else { own }
    }

    /// The batch of a window in which the order would have filled first, if any could have filled it.
    fn filling_batch<'w>(&self, window: &'w Window, rate: RatePerBillion) -> Option<&'w WindowBatch> {
        let of = |wanted: Evidence| {
            window.batches.iter().find(|batch| batch_evidence(batch, self.side, rate, self.units) == wanted)
        };
        of(Evidence::Filled).or_else(|| of(Evidence::Unknown))
    }

    /// Share of the price that our own units would move, 0 to 1.
    fn impact(&self, batch: &WindowBatch) -> f64 {
        let matched: u64 = batch.pairs.iter().map(|pair| u64::from(pair.units.get())).sum();
        if matched == 0 { 1.0 } else { (f64::from(self.units.get()) / float::from_u64(matched)).min(1.0) }
    }

    /// The estimates on a grid, projected onto monotone curves: falling in the rate for asks, rising for bids.
    pub fn curve(&self, grid: &[RatePerBillion]) -> Vec<(RatePerBillion, Fill)> {
        let raw: Vec<Fill> = grid.iter().map(|rate| self.at(*rate)).collect();
        let project = |pick: fn(&Fill) -> f64| {
            let values: Vec<f64> = raw.iter().map(pick).collect();
            match self.side {
                Side::Ask => falling(&values),
                Side::Bid => rising(&values),
            }
        };
        let (p, lo, hi) = (project(|fill| fill.p), project(|fill| fill.lo), project(|fill| fill.hi));
        let fills = p.into_iter().zip(lo).zip(hi).map(|((p, lo), hi)| Fill { p, lo, hi });
        grid.iter().copied().zip(fills).collect()
    }
}

/// A geometric grid of 5 % steps (at least 1 ppb each) from `from` to `to`, both included; `from` alone when it is not
/// below `to`.
pub fn rate_grid(from: RatePerBillion, to: RatePerBillion) -> Vec<RatePerBillion> {
    let mut rate = from.get();
    let mut grid = vec![from];
    while rate < to.get() {
        rate = rate.saturating_add((rate / 20).max(1)).min(to.get());
        grid.push(RatePerBillion::new(rate));
    }
    grid
}

/// Probability of a fill within `windows` windows, when outcomes of neighbouring windows correlate by `rho`
/// (clipped to 0..=0.95).
///
/// # Source
/// Strategy notes §3, "horizon".
pub fn fill_within(p: f64, windows: u32, rho: f64) -> f64 {
    if windows == 0 {
        return 0.0;
    }
    let rho = rho.clamp(0.0, 0.95);
    1.0 - (1.0 - p) * libm::pow(1.0 - p * (1.0 - rho), f64::from(windows - 1))
}

/// Least-squares projection onto non-decreasing sequences (pool adjacent violators, equal weights).
fn rising(values: &[f64]) -> Vec<f64> {
    let mut blocks: Vec<(f64, u32)> = Vec::new();
    for value in values {
        blocks.push((*value, 1));
        while let [.., (left, left_count), (right, right_count)] = blocks[..] {
            if left <= right {
                break;
            }
            let count = left_count + right_count;
            let mean = (left * f64::from(left_count) + right * f64::from(right_count)) / f64::from(count);
            blocks.truncate(blocks.len() - 2);
            blocks.push((mean, count));
        }
    }
    blocks.into_iter().flat_map(|(value, count)| (0..count).map(move |_| value)).collect()
}

fn falling(values: &[f64]) -> Vec<f64> {
    let mirrored: Vec<f64> = values.iter().map(|value| -value).collect();
    rising(&mirrored).into_iter().map(|value| -value).collect()
}

/// The quantile of a Beta distribution, by bisection of the regularised incomplete beta function. A parameter that is
/// not positive puts all weight on its end of 0..=1.
fn beta_quantile(probability: f64, a: f64, b: f64) -> f64 {
    if a <= 0.0 {
        return 0.0;
    }
    if b <= 0.0 {
        return 1.0;
    }
    let (mut low, mut high) = (0.0_f64, 1.0_f64);
    // 60 halvings reach the last bits of a double in 0..=1; the number is fixed so that machines agree.
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if incomplete_beta(middle, a, b) < probability { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// The regularised incomplete beta function `I_x(a, b)` for positive `a`, `b`.
fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    let ln_front = libm::lgamma(a + b) - libm::lgamma(a) - libm::lgamma(b) + a * libm::log(x) + b * libm::log1p(-x);
    let front = libm::exp(ln_front);
    // The fraction converges fast only on one side of the mean; the other side follows by symmetry.
    if x < (a + 1.0) / (a + b + 2.0) {
        front * beta_fraction(x, a, b) / a
    } else {
        1.0 - front * beta_fraction(1.0 - x, b, a) / b
    }
}

/// The continued fraction of the incomplete beta function, evaluated by Lentz's method.
fn beta_fraction(x: f64, a: f64, b: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let guard = |value: f64| if value.abs() < TINY { TINY } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / guard(1.0 - (a + b) * x / (a + 1.0));
    let mut result = d;
    for step in 1..=300_u32 {
        let m = f64::from(step);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / guard(1.0 + even * d);
        c = guard(1.0 + even / c);
        result *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / guard(1.0 + odd * d);
        c = guard(1.0 + odd / c);
        result *= d * c;
        if (d * c - 1.0).abs() < 1e-15 {
            break;
        }
    }
    result
}

#[cfg(test)]
#[path = "fill_tests.rs"]
mod tests;
