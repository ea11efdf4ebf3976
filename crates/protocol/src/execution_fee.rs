//! The venue's fee on a match: known to orders, which carry a ceiling for it, and to whoever computes balances.

use crate::units::{Sats, UnitError};
use serde::{Deserialize, Serialize};

/// Parts in a rate of parts per million.
const MILLION: u128 = 1_000_000;

/// The venue's fee on each match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutionFee {
    /// Fixed part per match, in satoshi.
    pub base: Sats,
    /// Variable part, in parts per million of the amount.
    pub rate_ppm: u64,
}

impl ExecutionFee {
    /// The fee on `amount`: base plus floor(amount · ppm / 1,000,000).
    ///
    /// # Errors
    /// [`UnitError`] on overflow.
    pub fn on(&self, amount: Sats) -> Result<Sats, UnitError> {
        let overflow = UnitError::Overflow("execution fee");
        // 64 bits times 64 bits fit 128.
        let variable = u128::from(amount.get()) * u128::from(self.rate_ppm) / MILLION;
        let variable = Sats::new(u64::try_from(variable).map_err(|_| overflow)?)?;
        self.base.checked_add(variable).ok_or(overflow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn execution_fee_beyond_all_bitcoin_is_refused() {
        let fee = ExecutionFee { base: Sats::ZERO, rate_ppm: u64::MAX };
        assert!(fee.on(Sats::MAX).is_err());
    }
}
