//! What a lease must earn, may cost, and which chain fee it bears: integers, each rounding named.

use crate::float::{self, BLOCKS_PER_YEAR};
use thiserror::Error;
use tidegate_protocol::account::AccountVersion;
use tidegate_protocol::fees::{ExecutionFee, chain_fee, reference_premium};
use tidegate_protocol::units::{BlockCount, RatePerBillion, SatPerKw, Sats, UnitError};

/// A valuation that has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ValuationError {
    /// An amount or duration of zero has no rate.
    #[error("amount and duration must be positive")]
    Empty,
    /// The rate does not fit 32 bits, or an amount leaves its range.
    #[error("the valuation leaves the range of {0}")]
    Range(&'static str),
    /// An amount cannot exist.
    #[error(transparent)]
    Unit(#[from] UnitError),
}

/// Weight of a force close that the owner pays, in weight units.
///
/// # Source
/// Strategy notes §2 (an inference, to be tuned).
pub const FORCE_CLOSE_WEIGHT: u64 = 1_700;
/// Weight of a cooperative close, in weight units.
///
/// # Source
/// Strategy notes §2 (an inference, to be tuned).
pub const COOPERATIVE_CLOSE_WEIGHT: u64 = 700;

const MILLION: u128 = 1_000_000;
const BILLION: u128 = 1_000_000_000;

/// The expected cost of closing a leased channel, rounded up: the mix of force close (with probability
/// `force_ppm` parts per million) and cooperative close at `rate`.
///
/// # Errors
/// [`ValuationError::Range`] when `force_ppm` is above a million; [`ValuationError::Unit`] when the cost cannot exist.
///
/// # Source
/// Strategy notes §2.
pub fn close_cost(force_ppm: u32, rate: SatPerKw) -> Result<Sats, ValuationError> {
    let force = u128::from(force_ppm);
    let cooperative = MILLION.checked_sub(force).ok_or(ValuationError::Range("force close probability"))?;
    let weight = force * u128::from(FORCE_CLOSE_WEIGHT) + cooperative * u128::from(COOPERATIVE_CLOSE_WEIGHT);
    let scaled = weight.checked_mul(u128::from(rate.get())).ok_or(ValuationError::Range("close cost"))?;
    sats(scaled.div_ceil(BILLION))
}

/// The chain share of a lease that is alone in its batch, rounded down as the venue does.
///
/// # Errors
/// [`ValuationError::Unit`] on overflow.
pub fn chain_share(rate: SatPerKw, version: AccountVersion) -> Result<Sats, ValuationError> {
    Ok(chain_fee(1, rate, version)?)
}

/// The chain fee rate that `share` satoshi just pay for, rounded down: the inverse of [`chain_share`].
fn affordable_rate(share: i64, version: AccountVersion) -> Result<Option<SatPerKw>, ValuationError> {
    let Ok(budget) = u64::try_from(share) else { return Ok(None) };
    // A rate of a million sat/kW makes the fee a thousand times the weight: the weight without a second formula.
    let weight = chain_fee(1, SatPerKw::new(1_000_000), version)?.get() / 1_000;
    let rate = budget.checked_mul(1_000).ok_or(ValuationError::Range("fee ceiling"))? / weight;
    Ok((rate >= SatPerKw::FLOOR.get()).then_some(SatPerKw::new(rate)))
}

/// All that a seller's price depends on besides the amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SellerCosts {
    /// Required return `h`, in parts per million per year.
    pub required_return_ppm: u32,
    /// Lease duration `D`.
    pub duration: BlockCount,
    /// Expected wait before the lease starts `w`.
    pub wait: BlockCount,
    /// Settlement delay after maturity `s`.
    pub settle: BlockCount,
    /// The venue's fee `e`.
    pub execution_fee: ExecutionFee,
    /// Chain share `c` per lease, in satoshi.
    pub chain_share: Sats,
    /// Expected close cost `k` per lease, in satoshi.
    pub close_cost: Sats,
    /// Expected forwarding income of the leased coins, in parts per million of the amount per year.
    pub income_ppm: u32,
}

impl SellerCosts {
    /// Blocks for which the coins are locked: `L = w + D + s`.
    fn locked_blocks(&self) -> u128 {
        u128::from(self.wait.get()) + u128::from(self.duration.get()) + u128::from(self.settle.get())
    }

    /// What the locked coins must earn, rounded up: `ceil(h·A·L / (10^6·Y))`.
    fn capital_charge(&self, amount: Sats) -> Result<Sats, ValuationError> {
        let product = u128::from(self.required_return_ppm) * u128::from(amount.get()) * self.locked_blocks();
        sats(product.div_ceil(MILLION * u128::from(BLOCKS_PER_YEAR)))
    }

    /// Expected forwarding income over the lease, rounded down.
    fn income(&self, amount: Sats) -> Result<Sats, ValuationError> {
        let product = u128::from(self.income_ppm) * u128::from(amount.get()) * u128::from(self.duration.get());
        sats(product / (MILLION * u128::from(BLOCKS_PER_YEAR)))
    }

    /// Fees of one lease of `amount`: execution fee, chain share, close cost.
    fn fixed(&self, amount: Sats) -> Result<Sats, ValuationError> {
        total([self.execution_fee.on(amount)?, self.chain_share, self.close_cost])
    }

    /// The premium `N` that a lease of `amount` must bring, in satoshi; 0 when forwarding alone pays for it.
    ///
    /// # Errors
    /// [`ValuationError::Unit`] when a sum cannot exist.
    ///
    /// # Source
    /// Strategy notes §2.
    pub fn required_premium(&self, amount: Sats) -> Result<Sats, ValuationError> {
        let costs = total([self.capital_charge(amount)?, self.fixed(amount)?])?;
        Ok(costs.checked_sub(self.income(amount)?).unwrap_or(Sats::ZERO))
    }

    /// The reservation rate `R`: the smallest rate, at least 1 ppb, at which the truncated premium of a lease of
    /// `amount` (the *smallest* fill allowed) reaches [`SellerCosts::required_premium`].
    ///
    /// # Errors
    /// [`ValuationError::Empty`] for an amount or duration of zero, [`ValuationError::Range`] when no 32-bit rate is
    /// high enough.
    ///
    /// # Source
    /// Strategy notes §2.
    pub fn reservation_rate(&self, amount: Sats) -> Result<RatePerBillion, ValuationError> {
        let volume = volume(amount, self.duration)?;
        let needed = self.required_premium(amount)?;
        let start = (BILLION * u128::from(needed.get())).div_ceil(volume).max(1);
        let mut rate = u32::try_from(start).map_err(|_| ValuationError::Range("rate"))?;
        // The network truncates doubles, so the exact quotient can fall one satoshi short.
        while reference_premium(amount, RatePerBillion::new(rate), self.duration)? < needed {
            rate = rate.checked_add(1).ok_or(ValuationError::Range("rate"))?;
        }
        Ok(RatePerBillion::new(rate))
    }

    /// The rate at which a lease of `amount` nets as much per locked block as `other` does at `other_rate`, rounded
    /// up; nothing when that one loses money.
    ///
    /// # Errors
    /// As [`SellerCosts::reservation_rate`].
    ///
    /// # Source
    /// Strategy notes §1, "neighbour bucket at equal net APR".
    pub fn equal_return_rate(
        &self,
        amount: Sats,
        other: &SellerCosts,
        other_rate: RatePerBillion,
    ) -> Result<Option<RatePerBillion>, ValuationError> {
        let earned = total([reference_premium(amount, other_rate, other.duration)?, other.income(amount)?])?;
        let Some(net) = earned.checked_sub(other.fixed(amount)?) else { return Ok(None) };
        let same = (u128::from(net.get()) * self.locked_blocks()).div_ceil(other.locked_blocks().max(1));
        let needed = total([sats(same)?, self.fixed(amount)?])?;
        let premium = needed.checked_sub(self.income(amount)?).unwrap_or(Sats::ZERO);
        let rate = (BILLION * u128::from(premium.get())).div_ceil(volume(amount, self.duration)?).max(1);
        let rate = u32::try_from(rate).map_err(|_| ValuationError::Range("rate"))?;
        Ok(Some(RatePerBillion::new(rate)))
    }

    /// The highest chain fee rate at which a lease of `amount` at `rate` still returns `h`, rounded down; nothing
    /// when that is below the network's floor: then do not quote.
    ///
    /// # Errors
    /// [`ValuationError::Unit`] when a sum cannot exist.
    ///
    /// # Source
    /// Strategy notes §2, "economic fee ceiling".
    pub fn fee_ceiling(
        &self,
        amount: Sats,
        rate: RatePerBillion,
        version: AccountVersion,
    ) -> Result<Option<SatPerKw>, ValuationError> {
        let premium = reference_premium(amount, rate, self.duration)?.to_delta().get();
        let income = self.income(amount)?.to_delta().get();
        let costs = total([self.capital_charge(amount)?, self.execution_fee.on(amount)?, self.close_cost])?;
        affordable_rate(premium + income - costs.to_delta().get(), version)
    }

    /// Expected annual return, as a ratio, of a lease of `amount` that clears at `expected_rate` (ppb) and fills
    /// with probability `fill` per window of `window_blocks` blocks.
    ///
    /// Renewal-reward: the wait for a fill is paid in locked blocks. `self.wait` is the wait apart from the fill.
    /// The net amount is rounded down to a satoshi. Nothing when `fill` is not positive.
    ///
    /// # Source
    /// Strategy notes §4.1.
    pub fn annual_return(&self, amount: Sats, expected_rate: f64, fill: f64, window_blocks: BlockCount) -> Option<f64> {
        if fill.is_nan() || fill <= 0.0 || amount == Sats::ZERO {
            return None;
        }
        let principal = float::from_u64(amount.get());
        let premium = float::floor_to_i64(principal * expected_rate * f64::from(self.duration.get()) / 1e9)?;
        let fixed = self.fixed(amount).ok()?.to_delta().get();
        let net = premium.checked_sub(fixed)?.checked_add(self.income(amount).ok()?.to_delta().get())?;
        let wait = f64::from(window_blocks.get()) * (1.0 / fill - 0.5);
        let locked = wait + f64::from(self.wait.get()) + f64::from(self.duration.get()) + f64::from(self.settle.get());
        Some(float::from_i64(net) / principal * f64::from(BLOCKS_PER_YEAR) / locked)
    }
}

/// All that a buyer's limit depends on besides the amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuyerValue {
    /// Worth `B` of the whole lease to the buyer, in satoshi.
    pub budget: Sats,
    /// Lease duration `D`.
    pub duration: BlockCount,
    /// The venue's fee `e`.
    pub execution_fee: ExecutionFee,
    /// Chain share `c`, in satoshi.
    pub chain_share: Sats,
    /// The buyer's own coins on his side of the channel `b`, in satoshi, where they bear premium and fee: in the
    /// outbound market. Zero in the inbound market.
    pub self_balance: Sats,
}

/// What inbound capacity earns until the lease ends, rounded down: margin (parts per million of receipts) times
/// receipts per block times the blocks for which the channel is usable.
///
/// # Errors
/// [`ValuationError::Unit`] when it cannot exist.
///
/// # Source
/// Strategy notes §2, "buyer's willingness".
pub fn receipts_margin(
    margin_ppm: u32,
    receipts_per_block: Sats,
    duration: BlockCount,
    delay: BlockCount,
) -> Result<Sats, ValuationError> {
    let usable = duration.get().saturating_sub(delay.get());
    let product = u128::from(margin_ppm) * u128::from(receipts_per_block.get());
    let product = product.checked_mul(u128::from(usable)).ok_or(ValuationError::Range("receipts"))?;
    sats(product / MILLION)
}

impl BuyerValue {
    fn base(&self, amount: Sats) -> Result<Sats, ValuationError> {
        total([amount, self.self_balance])
    }

    /// What a lease of `amount` costs at `rate` in all: premium, execution fee and chain share, in satoshi.
    ///
    /// # Errors
    /// [`ValuationError::Unit`] when a sum cannot exist.
    pub fn total_cost(&self, amount: Sats, rate: RatePerBillion) -> Result<Sats, ValuationError> {
        let base = self.base(amount)?;
        total([reference_premium(base, rate, self.duration)?, self.execution_fee.on(base)?, self.chain_share])
    }

    /// The willingness `W`: the highest rate at which a lease of `amount` costs at most the budget; nothing when
    /// even a free lease costs too much, or when `W` would be zero: no bid.
    ///
    /// # Errors
    /// [`ValuationError::Empty`] for an amount or duration of zero.
    ///
    /// # Source
    /// Strategy notes §2.
    pub fn willingness(&self, amount: Sats) -> Result<Option<RatePerBillion>, ValuationError> {
        let base = self.base(amount)?;
        let volume = volume(base, self.duration)?;
        let fees = total([self.execution_fee.on(base)?, self.chain_share])?;
        let Some(left) = self.budget.checked_sub(fees) else { return Ok(None) };
        let rate = (BILLION * u128::from(left.get()) / volume).min(u128::from(u32::MAX));
        let mut rate = u32::try_from(rate).map_err(|_| ValuationError::Range("rate"))?;
        // The network's doubles can come out one satoshi above the exact quotient.
        while rate > 0 && self.total_cost(amount, RatePerBillion::new(rate))? > self.budget {
            rate -= 1;
        }
        Ok((rate > 0).then_some(RatePerBillion::new(rate)))
    }

    /// The highest chain fee rate at which a lease of `amount` at `rate` stays within the budget, rounded down;
    /// nothing when that is below the network's floor.
    ///
    /// # Errors
    /// [`ValuationError::Unit`] when a sum cannot exist.
    pub fn fee_ceiling(
        &self,
        amount: Sats,
        rate: RatePerBillion,
        version: AccountVersion,
    ) -> Result<Option<SatPerKw>, ValuationError> {
        let base = self.base(amount)?;
        let costs = total([reference_premium(base, rate, self.duration)?, self.execution_fee.on(base)?])?;
        affordable_rate(self.budget.to_delta().get() - costs.to_delta().get(), version)
    }
}

fn volume(amount: Sats, duration: BlockCount) -> Result<u128, ValuationError> {
    let volume = u128::from(amount.get()) * u128::from(duration.get());
    if volume == 0 { Err(ValuationError::Empty) } else { Ok(volume) }
}

fn total<const N: usize>(parts: [Sats; N]) -> Result<Sats, ValuationError> {
    Sats::checked_sum(parts).ok_or(ValuationError::Range("satoshi"))
}

fn sats(number: u128) -> Result<Sats, ValuationError> {
    let number = u64::try_from(number).map_err(|_| ValuationError::Range("satoshi"))?;
    Ok(Sats::new(number)?)
}

#[cfg(test)]
#[path = "valuation_tests.rs"]
mod tests;
