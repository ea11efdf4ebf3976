//! The buyer's price for one lease duration: willingness, patience until the deadline, best expected gain.
//!
//! # Source
//! Strategy notes §1 (thin market), §2, §3, §4.2.

use super::config::BuyerConfig;
use super::deadline::deadline_bid;
use crate::common::{MILLION, lowered, weighted_quantile};
use tidegate_engine::fill::{Estimator, Fill, rate_grid};
use tidegate_engine::strategy::{AnchorSource, Reason};
use tidegate_engine::valuation::{BuyerValue, ValuationError, receipts_margin};
use tidegate_engine::view::{Clearing, MarketView, Side};
use tidegate_engine::windows::windows;
use tidegate_protocol::account::AccountVersion;
use tidegate_protocol::order::NodeTier;
use tidegate_protocol::units::{BlockCount, RatePerBillion, SatPerKw, Sats, UnitCount};

/// Clearings that a first price looks back on.
const ANCHOR_CLEARINGS: usize = 20;
/// Quantile of matched ask rates at which a patient bid starts.
const START_QUANTILE_PPM: u32 = 200_000;
/// Lowest bid considered, as a part of the willingness.
const LOWEST_PART: u32 = 5;

/// A price with what led to it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Quote {
    /// Lease duration.
    pub duration: BlockCount,
    /// The rate to bid.
    pub rate: RatePerBillion,
    /// The highest rate worth paying, at the smallest match.
    pub willingness: RatePerBillion,
    /// Smallest match.
    pub min_units: UnitCount,
    /// Highest chain fee rate at which the lease is still worth it.
    pub fee_ceiling: SatPerKw,
    /// Cost of one smallest match at that rate, in satoshi.
    pub cost: Sats,
    /// Why.
    pub reasons: Vec<Reason>,
}

/// How much time there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadline {
    /// Milliseconds since the need arose.
    pub elapsed_ms: u64,
    /// Milliseconds from need to deadline.
    pub allowed_ms: u64,
    /// Windows left; 0 when overdue.
    pub windows_left: u32,
}

/// What pricing one duration needs.
pub(crate) struct Pricing<'a> {
    /// Configuration.
    pub config: &'a BuyerConfig,
    /// The market, already cut to the present.
    pub view: &'a MarketView,
    /// Version of the account that would back the bid.
    pub version: AccountVersion,
    /// Lease duration.
    pub duration: BlockCount,
    /// Time left.
    pub deadline: Deadline,
    /// Units wanted.
    pub units: UnitCount,
}

impl Pricing<'_> {
    /// The price of a bid; on the error side, reasons say why there is none.
    pub(crate) fn quote(&self) -> Result<Quote, Vec<Reason>> {
        let valuation = |problem: ValuationError| vec![Reason::Valuation { problem: problem.to_string() }];
        let min_units = self.config.min_match_units.min(self.units);
        let amount = min_units.to_sats();
        let value = self.value(amount).map_err(valuation)?;
        let mut reasons = Vec::new();
        let Some(willingness) = value.willingness(amount).map_err(valuation)? else {
            return Err(vec![Reason::NotWorthIt { duration: self.duration }]);
        };
        reasons.push(Reason::Willingness { duration: self.duration, min_units, rate: willingness });
        let rate = match self.best_gain(min_units, willingness, &mut reasons) {
            Some(rate) => rate,
            None => self.patient(willingness, &mut reasons),
        };
        let ceiling = value.fee_ceiling(amount, rate, self.version).map_err(valuation)?;
        let Some(fee_ceiling) = ceiling else {
            reasons.push(Reason::FeesTooHigh { duration: self.duration });
            return Err(reasons);
        };
        let cost = value.total_cost(amount, rate).map_err(valuation)?;
        let duration = self.duration;
        Ok(Quote { duration, rate, willingness, min_units, fee_ceiling, cost, reasons })
    }

    /// What a lease of `amount` is worth: its part of the receipts' margin, capped by the substitute.
    fn value(&self, amount: Sats) -> Result<BuyerValue, ValuationError> {
        let config = self.config;
        let delay = config.usable_after_blocks;
        let margin = receipts_margin(config.margin_ppm, config.receipts_sats_per_block, self.duration, delay)?;
        let part = part_of(margin, amount.get(), config.target_inbound_units.to_sats().get())?;
        let budget = match config.substitute_cost_ppm {
            Some(ppm) => part.min(part_of(amount, u64::from(ppm), u64::from(MILLION))?),
            None => part,
        };
        Ok(BuyerValue {
            budget,
            duration: self.duration,
            execution_fee: self.view.execution_fee().unwrap_or_default(),
            chain_share: config.fees.share(self.view, self.version)?,
            self_balance: Sats::ZERO,
        })
    }

    fn recent(&self) -> Vec<&Clearing> {
        let all: Vec<&Clearing> = self.view.clearings_of(self.duration).collect();
        all.into_iter().rev().take(ANCHOR_CLEARINGS).collect()
    }

    /// The thin market's price: starts low, reaches the willingness at the deadline.
    fn patient(&self, willingness: RatePerBillion, reasons: &mut Vec<Reason>) -> RatePerBillion {
        let recent = self.recent();
        let asks = recent.iter().flat_map(|clearing| &clearing.pairs).map(|pair| (pair.ask_rate, pair.units));
        let known = weighted_quantile(asks.collect(), START_QUANTILE_PPM);
        let source = if known.is_some() { AnchorSource::SameBucket } else { AnchorSource::OwnLimit };
        let start = known.unwrap_or_else(|| lowered(willingness, self.config.anchor_discount_ppm));
        let start = start.min(willingness).max(RatePerBillion::new(1));
        let gap = u128::from(willingness.get() - start.get());
        let (elapsed, allowed) = (self.deadline.elapsed_ms, self.deadline.allowed_ms.max(1));
        let rise = gap * u128::from(elapsed.min(allowed)) / u128::from(allowed);
        let rise = u32::try_from(rise).unwrap_or(u32::MAX);
        let quote = RatePerBillion::new(start.get().saturating_add(rise)).min(willingness);
        reasons.push(Reason::Anchor { duration: self.duration, source, rate: start, quote });
        quote
    }

    /// The estimate's price, once enough is known; nothing in a thin market. Overdue: the willingness.
    fn best_gain(
        &self,
        min_units: UnitCount,
        willingness: RatePerBillion,
        reasons: &mut Vec<Reason>,
    ) -> Option<RatePerBillion> {
        let windows_left = self.deadline.windows_left;
        reasons.push(Reason::Deadline { windows_left });
        if windows_left == 0 {
            return Some(willingness);
        }
        let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let cut = windows(self.view, self.duration, Side::Bid, min_units, self.config.windows.spec());
        let cleared = count(cut.iter().filter(|window| !window.batches.is_empty()).count());
        let recent = self.recent();
        let prices = recent.iter().map(|clearing| (clearing.price, UnitCount::new(1)));
        let anchor = weighted_quantile(prices.collect(), MILLION / 2);
        let nobody = self.view.ask_interest(self.duration, self.min_tier()) == Some(0);
        let thin = cleared < self.config.windows.min_cleared_windows || nobody;
        let Some(anchor) = anchor.filter(|_| !thin) else {
            let clearings = count(self.view.clearings_of(self.duration).count());
            let duration = self.duration;
            reasons.push(Reason::ThinMarket { duration, clearings, windows_with_clearing: cleared });
            return None;
        };
        let estimator = Estimator::new(self.config.windows.model(), Side::Bid, anchor, min_units, &cut);
        let lowest = RatePerBillion::new((willingness.get() / LOWEST_PART).max(1));
        let curve = estimator.curve(&rate_grid(lowest, willingness));
        let table: Vec<(RatePerBillion, f64)> = curve.iter().map(|(rate, fill)| (*rate, fill.p)).collect();
        let bid = deadline_bid(willingness, &table, self.config.shortage_penalty_ppb, windows_left)?;
        if let Some((rate, Fill { p, lo, hi })) = curve.iter().find(|(rate, _)| *rate == bid.rate).copied() {
            let (windows, prior_share) = (count(cut.len()), estimator.prior_share());
            reasons.push(Reason::FillEstimate { rate, p, lo, hi, windows, prior_share, reachable_share: 1.0 });
        }
        Some(bid.rate)
    }

    fn min_tier(&self) -> NodeTier {
        if self.config.require_rated_sellers { NodeTier::Tier1 } else { NodeTier::Tier0 }
    }
}

/// `amount · numerator / denominator`, rounded down.
fn part_of(amount: Sats, numerator: u64, denominator: u64) -> Result<Sats, ValuationError> {
    let product = u128::from(amount.get()) * u128::from(numerator) / u128::from(denominator.max(1));
    let part = u64::try_from(product).map_err(|_| ValuationError::Range("budget"))?;
    Ok(Sats::new(part)?)
}
