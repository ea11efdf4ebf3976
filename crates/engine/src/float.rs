//! The few conversions between integers and doubles. Statistics only.

/// Blocks of a year, as yields count it.
pub(crate) const BLOCKS_PER_YEAR: u32 = 52_560;

/// The nearest double; exact below 2^53.
#[expect(clippy::as_conversions, reason = "no lossless From exists; statistics tolerate the rounding above 2^53")]
pub(crate) fn from_u64(number: u64) -> f64 {
    number as f64
}

/// The nearest double; exact below 2^53.
#[expect(clippy::as_conversions, reason = "no lossless From exists; statistics tolerate the rounding above 2^53")]
pub(crate) fn from_i64(number: i64) -> f64 {
    number as f64
}

/// The nearest double.
#[expect(clippy::as_conversions, reason = "no lossless From exists; statistics tolerate the rounding above 2^53")]
pub(crate) fn from_u128(number: u128) -> f64 {
    number as f64
}

/// Rounded toward minus infinity; nothing for NaN and for what exceeds 2^53.
#[expect(clippy::as_conversions, reason = "the range is checked first")]
pub(crate) fn floor_to_i64(number: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let floor = libm::floor(number);
    (-EXACT..=EXACT).contains(&floor).then_some(floor as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floors_toward_minus_infinity_and_refuses_nan() {
        assert_eq!(floor_to_i64(-1.5), Some(-2));
        assert_eq!(floor_to_i64(2.9), Some(2));
        assert_eq!(floor_to_i64(f64::NAN), None);
        assert_eq!(floor_to_i64(1e300), None);
    }
}
