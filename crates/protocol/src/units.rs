//! Typed quantities. Arithmetic is checked; every division names its rounding.

use core::fmt;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Satoshis in existence at most: 21 million bitcoin.
const MAX_SATS: u64 = 2_100_000_000_000_000;

/// Satoshis in one unit of supply.
pub const SATS_PER_UNIT: u64 = 100_000;

/// A quantity that does not fit its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UnitError {
    /// More satoshis than can exist.
    #[error("{0} sat is more than 21 million bitcoin")]
    TooManySats(u64),
    /// An amount that is not a whole number of units of 100,000 sat.
    #[error("{0} sat is not a multiple of 100,000")]
    NotWholeUnits(u64),
    /// The result of an operation does not fit.
    #[error("arithmetic overflow on {0}")]
    Overflow(&'static str),
}

/// An amount of satoshis, 0 to 21 million bitcoin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Sats(u64);

impl Sats {
    /// No satoshi.
    pub const ZERO: Sats = Sats(0);
    /// 21 million bitcoin.
    pub const MAX: Sats = Sats(MAX_SATS);

    /// An amount known when the program is compiled.
    ///
    /// # Panics
    /// At compile time, when `sat` is more than 21 million bitcoin.
    pub const fn constant(sat: u64) -> Sats {
        assert!(sat <= MAX_SATS, "more than 21 million bitcoin");
        Sats(sat)
    }

    /// `sat` satoshis.
    ///
    /// # Errors
    /// [`UnitError::TooManySats`] above 21 million bitcoin.
    pub const fn new(sat: u64) -> Result<Sats, UnitError> {
        if sat > MAX_SATS { Err(UnitError::TooManySats(sat)) } else { Ok(Sats(sat)) }
    }

    /// The number of satoshis.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The sum, or nothing above 21 million bitcoin.
    pub fn checked_add(self, other: Sats) -> Option<Sats> {
        self.0.checked_add(other.0).and_then(|sat| Sats::new(sat).ok())
    }

    /// The difference, or nothing below zero.
    pub fn checked_sub(self, other: Sats) -> Option<Sats> {
        self.0.checked_sub(other.0).map(Sats)
    }

    /// The sum of many, or nothing above 21 million bitcoin.
    pub fn checked_sum(amounts: impl IntoIterator<Item = Sats>) -> Option<Sats> {
        amounts.into_iter().try_fold(Sats::ZERO, Sats::checked_add)
    }

    /// The same amount as a signed change.
    pub fn to_delta(self) -> SatsDelta {
        SatsDelta(i64::try_from(self.0).expect("21 million bitcoin fit i64"))
    }

    /// `self + delta`, or nothing outside 0..=21 million bitcoin.
    pub fn checked_add_delta(self, delta: SatsDelta) -> Option<Sats> {
        self.to_delta().checked_add(delta).and_then(|sum| sum.to_sats())
    }
}

impl TryFrom<u64> for Sats {
    type Error = UnitError;
    fn try_from(sat: u64) -> Result<Sats, UnitError> {
        Sats::new(sat)
    }
}

impl From<Sats> for u64 {
    fn from(sats: Sats) -> u64 {
        sats.0
    }
}

impl From<Sats> for bitcoin::Amount {
    fn from(sats: Sats) -> bitcoin::Amount {
        bitcoin::Amount::from_sat(sats.0)
    }
}

impl TryFrom<bitcoin::Amount> for Sats {
    type Error = UnitError;
    fn try_from(amount: bitcoin::Amount) -> Result<Sats, UnitError> {
        Sats::new(amount.to_sat())
    }
}

impl fmt::Display for Sats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sat", self.0)
    }
}

/// A change of an amount of satoshis, positive or negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SatsDelta(i64);

impl SatsDelta {
    /// No change.
    pub const ZERO: SatsDelta = SatsDelta(0);

    /// A change of `sat` satoshis.
    pub const fn new(sat: i64) -> SatsDelta {
        SatsDelta(sat)
    }

    /// The number of satoshis, negative for a loss.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The sum, or nothing on overflow.
    pub fn checked_add(self, other: SatsDelta) -> Option<SatsDelta> {
        self.0.checked_add(other.0).map(SatsDelta)
    }

    /// The difference, or nothing on overflow.
    pub fn checked_sub(self, other: SatsDelta) -> Option<SatsDelta> {
        self.0.checked_sub(other.0).map(SatsDelta)
    }

    /// The opposite change, or nothing on overflow.
    pub fn checked_neg(self) -> Option<SatsDelta> {
        self.0.checked_neg().map(SatsDelta)
    }

    /// The same number as an amount, or nothing when it is negative or too large.
    pub fn to_sats(self) -> Option<Sats> {
        u64::try_from(self.0).ok().and_then(|sat| Sats::new(sat).ok())
    }
}

impl fmt::Display for SatsDelta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sat", self.0)
    }
}

/// A number of units of supply; one unit is 100,000 sat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnitCount(u32);

impl UnitCount {
    /// No unit.
    pub const ZERO: UnitCount = UnitCount(0);

    /// `count` units.
    pub const fn new(count: u32) -> UnitCount {
        UnitCount(count)
    }

    /// The number of units.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The units in `sats`, rounded down: the remainder is never matched.
    ///
    /// # Errors
    /// [`UnitError::Overflow`] when the number of units exceeds 32 bits.
    pub fn floor_from(sats: Sats) -> Result<UnitCount, UnitError> {
        let units = sats.get() / SATS_PER_UNIT;
        u32::try_from(units).map(UnitCount).map_err(|_| UnitError::Overflow("units"))
    }

    /// The units in `sats`, rounded up.
    ///
    /// # Errors
    /// [`UnitError::Overflow`] when the number of units exceeds 32 bits.
    pub fn ceil_from(sats: Sats) -> Result<UnitCount, UnitError> {
        let units = sats.get().div_ceil(SATS_PER_UNIT);
        u32::try_from(units).map(UnitCount).map_err(|_| UnitError::Overflow("units"))
    }

    /// The units in `sats`, which must be a whole number of them.
    ///
    /// # Errors
    /// [`UnitError::NotWholeUnits`] for a remainder, [`UnitError::Overflow`] beyond 32 bits.
    pub fn exactly_from(sats: Sats) -> Result<UnitCount, UnitError> {
        if !sats.get().is_multiple_of(SATS_PER_UNIT) {
            return Err(UnitError::NotWholeUnits(sats.get()));
        }
        UnitCount::floor_from(sats)
    }

    /// The amount that these units are. Always fits: 2^32 units are less than 21 million bitcoin.
    pub fn to_sats(self) -> Sats {
        Sats(u64::from(self.0) * SATS_PER_UNIT)
    }

    /// The sum, or nothing on overflow.
    pub fn checked_add(self, other: UnitCount) -> Option<UnitCount> {
        self.0.checked_add(other.0).map(UnitCount)
    }

    /// The difference, or nothing below zero.
    pub fn checked_sub(self, other: UnitCount) -> Option<UnitCount> {
        self.0.checked_sub(other.0).map(UnitCount)
    }
}

macro_rules! plain_number {
    ($(#[$doc:meta])* $name:ident, $suffix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(u32);

        impl $name {
            /// The quantity with this number.
            pub const fn new(number: u32) -> $name {
                $name(number)
            }
            /// The bare number.
            pub const fn get(self) -> u32 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("{}", $suffix), self.0)
            }
        }
    };
}

plain_number!(
    /// The price of a lease: parts per billion of the amount, per block.
    RatePerBillion, " ppb"
);
plain_number!(
    /// An absolute block height.
    BlockHeight, ""
);
plain_number!(
    /// A number of blocks.
    BlockCount, " blocks"
);

impl BlockHeight {
    /// The height `count` blocks later, or nothing on overflow.
    pub fn checked_add(self, count: BlockCount) -> Option<BlockHeight> {
        self.0.checked_add(count.0).map(BlockHeight)
    }

    /// The height `count` blocks earlier; height 0 when there is none.
    pub fn saturating_sub(self, count: BlockCount) -> BlockHeight {
        BlockHeight(self.0.saturating_sub(count.0))
    }

    /// The blocks from `earlier` to here; 0 when `earlier` is later.
    pub fn blocks_since(self, earlier: BlockHeight) -> BlockCount {
        BlockCount(self.0.saturating_sub(earlier.0))
    }

    /// The distance between two heights, whichever is larger.
    pub fn distance(self, other: BlockHeight) -> BlockCount {
        BlockCount(self.0.abs_diff(other.0))
    }
}

/// A chain fee rate in satoshi per 1,000 weight units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SatPerKw(u64);

impl SatPerKw {
    /// The lowest rate anywhere in the market: 253 sat/kW.
    pub const FLOOR: SatPerKw = SatPerKw(253);

    /// A rate of `rate` sat/kW.
    pub const fn new(rate: u64) -> SatPerKw {
        SatPerKw(rate)
    }

    /// The number of sat/kW.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The fee of `weight` weight units, rounded down.
    ///
    /// # Errors
    /// [`UnitError::Overflow`] when the product leaves 64 bits, [`UnitError::TooManySats`] when the fee cannot exist.
    pub fn fee_floor(self, weight: u64) -> Result<Sats, UnitError> {
        let product = self.0.checked_mul(weight).ok_or(UnitError::Overflow("chain fee"))?;
        Sats::new(product / 1000)
    }
}

impl fmt::Display for SatPerKw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sat/kW", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_more_satoshis_than_exist() {
        assert_eq!(Sats::new(MAX_SATS).map(Sats::get), Ok(MAX_SATS));
        assert_eq!(Sats::new(MAX_SATS + 1), Err(UnitError::TooManySats(MAX_SATS + 1)));
        assert_eq!(Sats::MAX.checked_add(Sats::constant(1)), None);
        assert_eq!(Sats::ZERO.checked_sub(Sats::constant(1)), None);
    }

    #[test]
    fn sums_end_where_all_bitcoin_end() {
        let amounts = [1, 20, 300].map(Sats::constant);
        assert_eq!(Sats::checked_sum(amounts), Some(Sats::constant(321)));
        assert_eq!(Sats::checked_sum([]), Some(Sats::ZERO));
        assert_eq!(Sats::checked_sum([Sats::MAX, Sats::constant(1)]), None);
        assert_eq!(UnitCount::new(2).checked_add(UnitCount::new(3)), Some(UnitCount::new(5)));
        assert_eq!(UnitCount::new(u32::MAX).checked_add(UnitCount::new(1)), None);
    }

    #[test]
    fn heights_stop_at_zero() {
        let (low, high) = (BlockHeight::new(7), BlockHeight::new(10));
        assert_eq!(high.saturating_sub(BlockCount::new(3)), low);
        assert_eq!(low.saturating_sub(BlockCount::new(8)), BlockHeight::new(0));
        assert_eq!((high.blocks_since(low), low.blocks_since(high)), (BlockCount::new(3), BlockCount::new(0)));
        assert_eq!((high.distance(low), low.distance(high)), (BlockCount::new(3), BlockCount::new(3)));
    }

    #[test]
    fn amounts_are_plain_numbers_elsewhere() {
        assert_eq!(Sats::try_from(5_u64), Ok(Sats::constant(5)));
        assert_eq!(Sats::try_from(MAX_SATS + 1), Err(UnitError::TooManySats(MAX_SATS + 1)));
        assert_eq!(u64::from(Sats::constant(7)), 7);
    }

    #[test]
    fn quantities_are_shown_with_their_unit() {
        let shown = [
            Sats::constant(12).to_string(),
            SatsDelta::new(-12).to_string(),
            RatePerBillion::new(12).to_string(),
            BlockCount::new(12).to_string(),
            BlockHeight::new(12).to_string(),
            SatPerKw::new(12).to_string(),
        ];
        assert_eq!(shown, ["12 sat", "-12 sat", "12 ppb", "12 blocks", "12", "12 sat/kW"]);
    }

    #[test]
    fn units_name_their_rounding() {
        let odd = Sats::constant(250_000);
        assert_eq!(UnitCount::floor_from(odd), Ok(UnitCount::new(2)));
        assert_eq!(UnitCount::ceil_from(odd), Ok(UnitCount::new(3)));
        assert_eq!(UnitCount::exactly_from(odd), Err(UnitError::NotWholeUnits(250_000)));
    }
}
