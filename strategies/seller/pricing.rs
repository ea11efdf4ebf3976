//! The seller's price for one lease duration: reservation, anchor, patience, best expected yield.
//!
//! # Source
//! Strategy notes §1 (thin market, cold start), §2, §3, §4.1.

use super::config::SellerConfig;
use crate::common::{MILLION, raised, weighted_quantile};
use tidegate_engine::fill::{Estimator, Fill, rate_grid};
use tidegate_engine::strategy::{AnchorSource, Reason};
use tidegate_engine::valuation::{SellerCosts, ValuationError, close_cost};
use tidegate_engine::view::{Clearing, MarketView, Side};
use tidegate_engine::windows::{Window, windows};
use tidegate_protocol::account::AccountVersion;
use tidegate_protocol::units::{BlockCount, RatePerBillion, SatPerKw, Sats, UnitCount};

/// Clearings that an anchor looks back on.
const ANCHOR_CLEARINGS: usize = 20;
/// Quantile of matched bid rates at which a patient ask starts.
const START_QUANTILE_PPM: u32 = 800_000;
/// Highest ask as a multiple of the anchor: one outlier is not chased further.
const MAX_ANCHOR_MULTIPLE: u32 = 5;

/// A price with what led to it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Quote {
    /// The rate to ask.
    pub rate: RatePerBillion,
    /// The reservation rate at the smallest match.
    pub reservation: RatePerBillion,
    /// Smallest match.
    pub min_units: UnitCount,
    /// Highest chain fee rate at which the lease still pays.
    pub fee_ceiling: SatPerKw,
    /// Expected annual return, when it could be estimated.
    pub annual_net: Option<f64>,
    /// Why.
    pub reasons: Vec<Reason>,
}

/// What pricing one duration needs.
pub(crate) struct Pricing<'a> {
    /// Configuration.
    pub config: &'a SellerConfig,
    /// The market, already cut to the present.
    pub view: &'a MarketView,
    /// Version of the account that would back the ask.
    pub version: AccountVersion,
    /// Lease duration.
    pub duration: BlockCount,
    /// Silent windows since the patient price started anew.
    pub patience_windows: u32,
}

impl Pricing<'_> {
    /// The price of an ask when `free` satoshi back it; on the error side, reasons say why there is none.
    pub(crate) fn quote(&self, free: Sats) -> Result<Quote, Vec<Reason>> {
        let valuation = |problem: ValuationError| vec![Reason::Valuation { problem: problem.to_string() }];
        let min_units = self.min_units(free);
        let amount = min_units.to_sats();
        let costs = self.costs(self.duration).map_err(valuation)?;
        let reservation = costs.reservation_rate(amount).map_err(valuation)?;
        let mut reasons = vec![Reason::Reservation { duration: self.duration, min_units, rate: reservation }];
        let (source, anchor) = self.anchor(&costs, amount, reservation).map_err(valuation)?;
        let cut = windows(self.view, self.duration, Side::Ask, min_units, self.config.windows.spec());
        let estimate = self.best_yield(&costs, min_units, reservation, anchor, &cut, &mut reasons);
        let (rate, annual_net) = match estimate {
            Estimate::Best { rate, annual_net } => (rate, Some(annual_net)),
            Estimate::TooLow if !self.config.quote_when_return_too_low => return Err(reasons),
            Estimate::TooLow | Estimate::Thin => (self.patient(source, anchor, reservation, &mut reasons), None),
        };
        let ceiling = costs.fee_ceiling(amount, rate, self.version).map_err(valuation)?;
        let Some(fee_ceiling) = ceiling else {
            reasons.push(Reason::FeesTooHigh { duration: self.duration });
            return Err(reasons);
        };
        Ok(Quote { rate, reservation, min_units, fee_ceiling, annual_net, reasons })
    }

    /// Costs of a lease of `duration`.
    fn costs(&self, duration: BlockCount) -> Result<SellerCosts, ValuationError> {
        let config = self.config;
        Ok(SellerCosts {
            required_return_ppm: config.required_return_ppm_per_year,
            duration,
            wait: config.wait_blocks,
            settle: config.settle_blocks,
            execution_fee: self.view.execution_fee().unwrap_or_default(),
            chain_share: config.fees.share(self.view, self.version)?,
            close_cost: close_cost(config.force_close_probability_ppm, config.fees.rate(self.view))?,
            income_ppm: config.forwarding_income_ppm_per_year,
        })
    }

    /// The newest clearings of a duration, at most twenty.
    fn recent(&self, duration: BlockCount) -> Vec<&Clearing> {
        let all: Vec<&Clearing> = self.view.clearings_of(duration).collect();
        all.into_iter().rev().take(ANCHOR_CLEARINGS).collect()
    }

    fn median_price(&self, duration: BlockCount) -> Option<RatePerBillion> {
        let one = UnitCount::new(1);
        weighted_quantile(self.recent(duration).iter().map(|clearing| (clearing.price, one)).collect(), MILLION / 2)
    }

    /// A quarter of the median matched pair, at least the configured minimum, and no more than half of what the order
    /// can be, so that fees around it still fit.
    fn min_units(&self, free: Sats) -> UnitCount {
        let recent = self.recent(self.duration);
        let pairs = recent.iter().flat_map(|clearing| &clearing.pairs);
        let mut sizes: Vec<u32> = pairs.map(|pair| pair.units.get()).collect();
        sizes.sort_unstable();
        let quarter = sizes.get(sizes.len() / 2).copied().unwrap_or(0) / 4;
        let backed = UnitCount::floor_from(free).unwrap_or(self.config.max_order_units);
        let half = backed.min(self.config.max_order_units).get() / 2;
        self.config.min_match_units.max(UnitCount::new(quarter.min(half)))
    }

    /// Where prices of this duration are expected.
    fn anchor(
        &self,
        costs: &SellerCosts,
        amount: Sats,
        reservation: RatePerBillion,
    ) -> Result<(AnchorSource, RatePerBillion), ValuationError> {
        if let Some(price) = self.median_price(self.duration) {
            return Ok((AnchorSource::SameBucket, price));
        }
        // The neighbour is the bucket with clearings whose duration is nearest; ties go to the shorter.
        let others = self.view.clearings.iter().map(|clearing| clearing.duration);
        let nearest = others.min_by_key(|other| (other.get().abs_diff(self.duration.get()), *other));
        if let Some((neighbour, price)) = nearest.and_then(|other| Some((other, self.median_price(other)?))) {
            let other = self.costs(neighbour)?;
            if let Some(rate) = costs.equal_return_rate(amount, &other, price)? {
                return Ok((AnchorSource::NeighbourBucket, rate.max(reservation)));
            }
        }
        Ok((AnchorSource::OwnLimit, raised(reservation, self.config.anchor_markup_ppm)))
    }

    /// The thin market's price: starts high, falls with each silent window, never below the reservation.
    fn patient(
        &self,
        source: AnchorSource,
        anchor: RatePerBillion,
        reservation: RatePerBillion,
        reasons: &mut Vec<Reason>,
    ) -> RatePerBillion {
        let recent = self.recent(self.duration);
        let bids = recent.iter().flat_map(|clearing| &clearing.pairs).map(|pair| (pair.bid_rate, pair.units));
        let start = weighted_quantile(bids.collect(), START_QUANTILE_PPM).unwrap_or(anchor);
        let keep = u64::from(MILLION - self.config.patience_ppm_per_window.min(MILLION));
        let mut rate = start.max(reservation);
        for _ in 0..self.patience_windows.min(1_000) {
            let less = u64::from(rate.get()) * keep / u64::from(MILLION);
            rate = RatePerBillion::new(u32::try_from(less).unwrap_or(u32::MAX)).max(reservation);
        }
        reasons.push(Reason::Anchor { duration: self.duration, source, rate: start, quote: rate });
        rate
    }

    /// Share of the bid interest that our rating can reach; 1 when nothing is known or nobody bids.
    fn reachable_share(&self, reasons: &mut Vec<Reason>) -> f64 {
        let Some((reachable, all)) = self.view.bid_interest(self.duration) else { return 1.0 };
        if reachable < all {
            reasons.push(Reason::UnreachableInterest {
                duration: self.duration,
                reachable_units: reachable,
                all_units: all,
                own_tier: self.view.own_tier(),
            });
        }
        if all == 0 { 1.0 } else { f64::from(reachable) / f64::from(all) }
    }

    fn best_yield(
        &self,
        costs: &SellerCosts,
        min_units: UnitCount,
        reservation: RatePerBillion,
        anchor: RatePerBillion,
        cut: &[Window],
        reasons: &mut Vec<Reason>,
    ) -> Estimate {
        let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let cleared = count(cut.iter().filter(|window| !window.batches.is_empty()).count());
        let reachable_share = self.reachable_share(reasons);
        if cleared < self.config.windows.min_cleared_windows || reachable_share <= 0.0 {
            let clearings = count(self.view.clearings_of(self.duration).count());
            let duration = self.duration;
            reasons.push(Reason::ThinMarket { duration, clearings, windows_with_clearing: cleared });
            return Estimate::Thin;
        }
        let estimator = Estimator::new(self.config.windows.model(), Side::Ask, anchor, min_units, cut);
        let highest = RatePerBillion::new(anchor.get().saturating_mul(MAX_ANCHOR_MULTIPLE));
        let mut best: Option<(RatePerBillion, Fill, f64)> = None;
        for (rate, fill) in estimator.curve(&rate_grid(reservation, highest)) {
            let cautious = (fill.p - self.config.caution_ratio * (fill.p - fill.lo)) * reachable_share;
            let price = estimator.expected_rate(rate);
            let wait = self.config.windows.length_blocks;
            let Some(annual) = costs.annual_return(min_units.to_sats(), price, cautious, wait) else { continue };
            if best.is_none_or(|(_, _, yet)| annual > yet) {
                best = Some((rate, fill, annual));
            }
        }
        let Some((rate, Fill { p, lo, hi }, annual_net)) = best else { return Estimate::Thin };
        let (windows, prior_share) = (count(cut.len()), estimator.prior_share());
        reasons.push(Reason::FillEstimate { rate, p, lo, hi, windows, prior_share, reachable_share });
        let required_ppm = self.config.required_return_ppm_per_year;
        if annual_net < f64::from(required_ppm) / f64::from(MILLION) {
            let duration = self.duration;
            reasons.push(Reason::ReturnTooLow { duration, best_annual_net: annual_net, required_ppm });
            return Estimate::TooLow;
        }
        reasons.push(Reason::ExpectedReturn { rate, annual_net });
        Estimate::Best { rate, annual_net }
    }
}

/// What past clearings say about the best rate.
enum Estimate {
    /// This rate has the best expected return, and it suffices.
    Best {
        /// Rate.
        rate: RatePerBillion,
        /// Expected annual return.
        annual_net: f64,
    },
    /// No rate promises the required return.
    TooLow,
    /// There is too little to estimate from.
    Thin,
}
