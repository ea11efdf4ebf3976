//! What a trade costs, computed a second time.
//!
//! # Source
//! Protocol notes, batch §2 and scripts §5.

/// Satoshi in a unit of supply.
pub(crate) const UNIT_SAT: u64 = 100_000;
/// Smallest balance that gets an output again.
pub(crate) const MIN_NO_DUST_SAT: u64 = 435;

/// `trunc(((f64(amount) * f64(rate)) / 1e9) * f64(blocks))` in IEEE-754 doubles, in this order: the network's premium.
#[expect(clippy::as_conversions, reason = "the network's own formula is made of these conversions")]
pub fn premium_sat(amount_sat: u64, rate_ppb: u32, blocks: u32) -> u64 {
    let per_block = (amount_sat as f64 * f64::from(rate_ppb)) / 1_000_000_000.0;
    (per_block * f64::from(blocks)) as u64
}

/// Base fee plus parts per million of the amount, rounded down.
pub fn execution_fee_sat(amount_sat: u64, base_sat: u64, ppm: u64) -> u64 {
    let variable = u128::from(amount_sat) * u128::from(ppm) / 1_000_000;
    u64::try_from(variable).unwrap_or(u64::MAX).saturating_add(base_sat)
}

/// An account's share of the batch transaction: its input, its output, and half an output for each of its channels.
pub fn chain_fee_sat(channels: u64, fee_rate_sat_per_kw: u64, account_version: u32) -> u64 {
    let bytes = 43 + 41 + (43 * channels).div_ceil(2);
    let witness = if account_version == 0 { 229 } else { 66 };
    let weight = u128::from(4 * bytes + witness);
    u64::try_from(u128::from(fee_rate_sat_per_kw) * weight / 1_000).unwrap_or(u64::MAX)
}

/// One match of an order at the clearing price, in satoshi.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatchTerms {
    /// Whether the order sells.
    pub maker: bool,
    /// Whether it is in the outbound market.
    pub outbound: bool,
    /// Units filled.
    pub units: u32,
    /// What the bidder puts on its own side.
    pub self_balance_sat: u64,
    /// Clearing price.
    pub rate_ppb: u32,
    /// Lease duration.
    pub blocks: u32,
    /// Execution fee.
    pub base_fee_sat: u64,
    /// Execution fee.
    pub fee_ppm: u64,
}

impl MatchTerms {
    /// Filled amount.
    pub fn filled_sat(&self) -> u64 {
        u64::from(self.units) * UNIT_SAT
    }

    /// Capacity of the channel.
    pub fn capacity_sat(&self) -> u64 {
        self.filled_sat().saturating_add(self.self_balance_sat)
    }

    /// The execution fee of this side. In the outbound market only the bidder pays it on the whole capacity.
    pub fn execution_fee_sat(&self) -> u64 {
        let amount = if self.maker || !self.outbound { self.filled_sat() } else { self.capacity_sat() };
        execution_fee_sat(amount, self.base_fee_sat, self.fee_ppm)
    }

    /// What the bidder pays to the asker.
    pub fn premium_sat(&self) -> u64 {
        let amount = if self.outbound { self.capacity_sat() } else { self.filled_sat() };
        premium_sat(amount, self.rate_ppb, self.blocks)
    }

    /// Change of the account's balance.
    pub fn delta_sat(&self) -> i128 {
        let (premium, fee) = (i128::from(self.premium_sat()), i128::from(self.execution_fee_sat()));
        if self.maker {
            premium - i128::from(self.filled_sat()) - fee
        } else {
            -premium - i128::from(self.self_balance_sat) - fee
        }
    }
}
