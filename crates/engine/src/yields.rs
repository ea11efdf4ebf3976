//! Lease yields: integers in, ratios per year out, for reporting only.
//!
//! Yields are annualised over 52,560 blocks on the principal and the lease's own blocks: waiting and settlement are
//! not in the denominator. *Gross* counts the premium alone; *net* subtracts execution fee and chain fee share.

use crate::float::{self, BLOCKS_PER_YEAR};
use crate::view::{LeaseView, Side};

/// Sums over leases of one side, from which the ratios follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseSums {
    /// Leases.
    pub count: u64,
    /// Principal in satoshi.
    pub principal_sats: u128,
    /// Sum of principal times blocks.
    pub principal_blocks: u128,
    /// Premium received (sold) or paid (bought), in satoshi.
    pub premium_sats: u128,
    /// Execution fees paid, in satoshi.
    pub execution_fee_sats: u128,
    /// Chain fee shares paid, in satoshi.
    pub chain_fee_sats: u128,
}

/// Annualised ratios: 0.05 is five percent per year.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Yields {
    /// Premium alone.
    pub gross: f64,
    /// Sold: premium minus fees. Bought: premium plus fees, the yearly cost.
    pub net: f64,
}

impl LeaseSums {
    /// The sums over the leases of `side`.
    pub fn of<'a>(leases: impl IntoIterator<Item = &'a LeaseView>, side: Side) -> LeaseSums {
        let mut sums = LeaseSums::default();
        for lease in leases.into_iter().filter(|lease| lease.side == side) {
            let principal = u128::from(lease.units.to_sats().get());
            sums.count += 1;
            sums.principal_sats += principal;
            sums.principal_blocks += principal * u128::from(lease.duration.get());
            sums.premium_sats += u128::from(lease.premium.get());
            sums.execution_fee_sats += u128::from(lease.execution_fee.get());
            sums.chain_fee_sats += u128::from(lease.chain_fee.get());
        }
        sums
    }

    /// The yields of leases sold; nothing without a lease. Net may be negative.
    ///
    /// # Source
    /// White paper notes H 33–34, on the lease's own blocks.
    pub fn sold(&self) -> Option<Yields> {
        let fees = float::from_u128(self.execution_fee_sats) + float::from_u128(self.chain_fee_sats);
        self.ratios(-fees)
    }

    /// The yearly cost of leases bought; nothing without a lease.
    pub fn bought(&self) -> Option<Yields> {
        let fees = float::from_u128(self.execution_fee_sats) + float::from_u128(self.chain_fee_sats);
        self.ratios(fees)
    }

    fn ratios(&self, extra: f64) -> Option<Yields> {
        if self.principal_blocks == 0 {
            return None;
        }
        let per_year = f64::from(BLOCKS_PER_YEAR) / float::from_u128(self.principal_blocks);
        let premium = float::from_u128(self.premium_sats);
        Some(Yields { gross: premium * per_year, net: (premium + extra) * per_year })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::fixtures;
    use tidegate_protocol::units::{BlockCount, Sats, UnitCount};

    #[test]
    fn yields_are_annualised_gross_and_net() {
        // 10M for 2,016 blocks at 1,488 ppb: the bare rate reads 7.8 % (white paper notes H 37).
        let lease = LeaseView {
            units: UnitCount::new(100),
            duration: BlockCount::new(2_016),
            premium: Sats::constant(29_998),
            execution_fee: Sats::constant(10_001),
            chain_fee: Sats::constant(500),
            ..fixtures::lease(1, Side::Ask)
        };
        let sums = LeaseSums::of([&lease], Side::Ask);
        let yields = sums.sold().unwrap();
        assert_eq!(format!("{:.4} {:.4}", yields.gross, yields.net), "0.0782 0.0508");
        assert_eq!(format!("{:.4}", sums.bought().unwrap().net), "0.1056");
        assert_eq!(LeaseSums::of([&lease], Side::Bid).sold(), None);
    }
}
