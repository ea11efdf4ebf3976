//! What an order can still cost in the worst case, apart from principal.

use crate::strategy::OrderIntent;
use crate::view::{OrderView, Side};
use tidegate_protocol::account::AccountVersion;
use tidegate_protocol::fees::{ExecutionFee, chain_fee, reference_premium};
use tidegate_protocol::units::{BlockCount, RatePerBillion, SatPerKw, Sats, UnitCount, UnitError};

/// The terms of an order of the inbound market on which its cost depends. A self balance bears neither premium nor fee
/// there, so it does not appear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exposure {
    /// Side.
    pub side: Side,
    /// Limit.
    pub rate: RatePerBillion,
    /// Units that can still be filled.
    pub units: UnitCount,
    /// Smallest match.
    pub min_units: UnitCount,
    /// Lease duration.
    pub duration: BlockCount,
    /// Highest chain fee rate.
    pub max_batch_fee_rate: SatPerKw,
}

impl Exposure {
    /// Of an order that is wanted.
    pub fn of(order: &OrderIntent, side: Side) -> Exposure {
        Exposure {
            side,
            rate: order.rate,
            units: order.units,
            min_units: order.min_units,
            duration: order.duration,
            max_batch_fee_rate: order.max_batch_fee_rate,
        }
    }

    /// Of what is left of a live order.
    pub fn left_of(order: &OrderView) -> Exposure {
        Exposure {
            side: order.side,
            rate: order.rate,
            units: order.units_unfulfilled,
            min_units: order.min_units,
            duration: order.duration,
            max_batch_fee_rate: order.max_batch_fee_rate,
        }
    }

    /// Fees when every match has the smallest size and its own batch, and for bids the premium at the limit, in
    /// satoshi. What a bid reserves of its account is never more.
    ///
    /// # Errors
    /// [`UnitError`] when it cannot exist.
    pub fn worst_cost(&self, fee: &ExecutionFee, version: AccountVersion) -> Result<Sats, UnitError> {
        let too_much = || UnitError::Overflow("worst cost");
        let matches = u64::from(self.units.get().div_ceil(self.min_units.get().max(1)));
        let per_match = fee.base.checked_add(chain_fee(1, self.max_batch_fee_rate, version)?).ok_or_else(too_much)?;
        let fixed = Sats::new(per_match.get().checked_mul(matches).ok_or_else(too_much)?)?;
        let amount = self.units.to_sats();
        let variable = ExecutionFee { base: Sats::ZERO, rate_ppm: fee.rate_ppm }.on(amount)?;
        let premium = match self.side {
            Side::Ask => Sats::ZERO,
            // Truncated once for the whole, it is not below the sum of the parts' truncated premiums.
            Side::Bid => reference_premium(amount, self.rate, self.duration)?,
        };
        Sats::checked_sum([fixed, variable, premium]).ok_or_else(too_much)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::Intent;
    use crate::view::fixtures::point;
    use proptest::prelude::*;
    use tidegate_protocol::keys::AccountKey;
    use tidegate_protocol::order::{BidTerms, OrderChannelType};

    proptest! {
        #[test]
        fn a_bid_never_reserves_more_than_its_worst_cost(
            rate in 1u32..50_000, min in 1u32..40, more in 0u32..200, fee_rate in 253u64..20_000,
        ) {
            let order = OrderIntent {
                account: AccountKey::new(point(1)),
                rate: RatePerBillion::new(rate),
                units: UnitCount::new(min + more),
                min_units: UnitCount::new(min),
                duration: BlockCount::new(2_016),
                max_batch_fee_rate: SatPerKw::new(fee_rate),
                channel_type: OrderChannelType::PeerDependent,
            };
            let fee = ExecutionFee { base: Sats::constant(1), rate_ppm: 1_000 };
            let cost = Exposure::of(&order, Side::Bid).worst_cost(&fee, AccountVersion::V2).unwrap();
            let reserve = Intent::PlaceBid { order, terms: BidTerms::default() }.reserve(&fee, AccountVersion::V2).unwrap();
            // One satoshi: the doubles of the whole and of the parts round on their own.
            prop_assert!(reserve.get() <= cost.get() + 1);
        }
    }
}
