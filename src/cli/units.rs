//! What people type: amounts, durations, rates, fee rates. Each is read exactly or refused with a sentence; where a
//! number must be rounded, it is rounded to the side of the one who typed it.

use tidegate_protocol::fees::reference_premium;
use tidegate_protocol::units::{BlockCount, RatePerBillion, SatPerKw, Sats};

/// Blocks of a day.
pub(super) const BLOCKS_PER_DAY: u32 = 144;
/// Blocks of a year, as yields count it.
const BLOCKS_PER_YEAR: u128 = 52_560;
const SATS_PER_BTC: u128 = 100_000_000;
/// Millionths of a percent in one percent.
const MICRO: u128 = 1_000_000;
/// Above this a yearly rate or a fee rate is a slip.
const MAX_PERCENT: u128 = 1_000;
const MAX_SAT_PER_VBYTE: u128 = 10_000;

/// Which side of the market a person is on: who sells rounds a rate up, who buys rounds it down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Asks: never less than was typed.
    Sells,
    /// Bids: never more than was typed.
    Buys,
}

/// A percentage, exact to the millionth of a percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Percent(u128);

/// A decimal number as typed: `digits / 10^places`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Decimal {
    digits: u128,
    places: u32,
}

impl Decimal {
    /// Digits, with `_` between them if wanted, and at most one point.
    fn parse(text: &str) -> Option<Decimal> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits_of = |part: &str| -> Option<String> {
            let edges = part.starts_with('_') || part.ends_with('_');
            let plain = part.chars().all(|c| c.is_ascii_digit() || c == '_');
            (plain && !edges).then(|| part.replace('_', ""))
        };
        let (whole, fraction) = (digits_of(whole)?, digits_of(fraction)?);
        if whole.is_empty() || (text.contains('.') && fraction.is_empty()) || whole.len() + fraction.len() > 30 {
            return None;
        }
        let digits = format!("{whole}{fraction}").parse().ok()?;
        Some(Decimal { digits, places: u32::try_from(fraction.len()).ok()? })
    }

    /// This number of times `unit`, when that is whole.
    fn exactly(self, unit: u128) -> Option<u128> {
        let scale = 10u128.checked_pow(self.places)?;
        let product = self.digits.checked_mul(unit)?;
        product.is_multiple_of(scale).then(|| product / scale)
    }

    /// The same, rounded up.
    fn ceil(self, unit: u128) -> Option<u128> {
        Some(self.digits.checked_mul(unit)?.div_ceil(10u128.checked_pow(self.places)?))
    }
}

/// A number and the word after it.
fn split(text: &str) -> Option<(Decimal, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '_' || c == '.')).unwrap_or(text.len());
    let (number, word) = text.split_at(end);
    Some((Decimal::parse(number)?, word.trim()))
}

fn comma(text: &str) -> Option<String> {
    text.contains(',').then(|| "write the decimal point as `.`, and group digits with `_`, e.g. 5_000_000".to_owned())
}

/// An amount: `5000000`, `5_000_000 sat`, `500k`, `5M`, `0.05btc`.
pub(super) fn amount(text: &str) -> Result<Sats, String> {
    const HOW: &str = "write an amount like 5000000, 5_000_000sat, 500k, 5M or 0.05btc";
    if let Some(refusal) = comma(text) {
        return Err(refusal);
    }
    let (number, word) = split(text).ok_or(HOW)?;
    let unit = match word {
        "" | "sat" | "sats" => 1,
        "k" | "K" => 1_000,
        "M" => 1_000_000,
        "btc" | "BTC" | "bitcoin" => SATS_PER_BTC,
        "m" => return Err("`m` could be thousandths or millions: write M for a million sat".to_owned()),
        "msat" | "mbtc" | "mBTC" => return Err(format!("the unit {word} is not used here: {HOW}")),
        _ => return Err(HOW.to_owned()),
    };
    let sats = number.exactly(unit).ok_or("an amount is whole satoshis: this one has a fraction of a satoshi")?;
    let sats = u64::try_from(sats).ok().and_then(|sats| Sats::new(sats).ok());
    let sats = sats.ok_or("there are no more than 21 million bitcoin")?;
    if sats == Sats::ZERO { Err("the amount must be more than nothing".to_owned()) } else { Ok(sats) }
}

/// An amount that may be nothing.
pub(super) fn amount_or_nothing(text: &str) -> Result<Sats, String> {
    if text.trim() == "0" { Ok(Sats::ZERO) } else { amount(text) }
}

/// A duration: `2016`, `2016 blocks`, `30d`, `2w`.
pub(super) fn duration(text: &str) -> Result<BlockCount, String> {
    const HOW: &str = "write blocks or days, e.g. 2016, 2016blocks, 14d or 2w (a day is 144 blocks)";
    if let Some(refusal) = comma(text) {
        return Err(refusal);
    }
    let (number, word) = split(text).ok_or(HOW)?;
    let unit = match word {
        "" | "b" | "block" | "blocks" => 1,
        "d" | "day" | "days" => u128::from(BLOCKS_PER_DAY),
        "w" | "week" | "weeks" => 7 * u128::from(BLOCKS_PER_DAY),
        _ => return Err(HOW.to_owned()),
    };
    let blocks = number.exactly(unit).ok_or("a duration is whole blocks: this one has a fraction of a block")?;
    match u32::try_from(blocks) {
        Ok(0) => Err("a duration is at least one block".to_owned()),
        Ok(blocks) => Ok(BlockCount::new(blocks)),
        Err(_) => Err("no lease is that long".to_owned()),
    }
}

/// A rate: `1488` or `1488ppb`, in parts per billion per block.
pub(super) fn rate(text: &str) -> Result<RatePerBillion, String> {
    const HOW: &str = "write parts per billion per block as a whole number, e.g. 1488; for percent per year use --apr, \
                       for satoshi in total use --premium";
    if let Some(refusal) = comma(text) {
        return Err(refusal);
    }
    let (number, word) = split(text).ok_or(HOW)?;
    if !matches!(word, "" | "ppb") {
        return Err(HOW.to_owned());
    }
    match number.exactly(1).and_then(|rate| u32::try_from(rate).ok()) {
        Some(0) => Err("the rate must be at least 1 ppb per block".to_owned()),
        Some(rate) => Ok(RatePerBillion::new(rate)),
        None => Err(HOW.to_owned()),
    }
}

/// A percentage: `5%`, `0.3 %` or `5`.
pub(super) fn percent(text: &str) -> Result<Percent, String> {
    const HOW: &str = "write a percentage like 5% or 0.75%";
    if let Some(refusal) = comma(text) {
        return Err(refusal);
    }
    let (number, word) = split(text).ok_or(HOW)?;
    if !matches!(word, "" | "%") {
        return Err(HOW.to_owned());
    }
    let micro = number.exactly(MICRO).ok_or("at most six digits after the point count in a percentage")?;
    if micro == 0 || micro > MAX_PERCENT * MICRO {
        return Err(format!("a percentage is above 0 and at most {MAX_PERCENT}"));
    }
    Ok(Percent(micro))
}

/// A chain fee rate: `10`, `2.5sat/vb`, `500sat/kw`; rounded up to whole sat per 1,000 weight units, and to the floor.
pub(super) fn fee_rate(text: &str) -> Result<SatPerKw, String> {
    const HOW: &str = "write sat per vbyte, e.g. 10 or 2.5; or sat per 1000 weight units, e.g. 500sat/kw";
    if let Some(refusal) = comma(text) {
        return Err(refusal);
    }
    let (number, word) = split(text).ok_or(HOW)?;
    let unit = match word.to_ascii_lowercase().as_str() {
        "" | "sat/vb" | "sat/vbyte" | "sats/vb" => 250,
        "sat/kw" | "sats/kw" => 1,
        _ => return Err(HOW.to_owned()),
    };
    let rate = number.ceil(unit).ok_or(HOW)?;
    if rate == 0 {
        return Err("a transaction without a fee is not relayed: the least is 1 sat/vB".to_owned());
    }
    if rate > MAX_SAT_PER_VBYTE * 250 {
        return Err(format!("more than {MAX_SAT_PER_VBYTE} sat/vB must be a slip"));
    }
    let rate = u64::try_from(rate).map_err(|_| HOW)?;
    // One satoshi per vbyte is 250; nodes relay from 253 on.
    if rate >= 250 || unit == 250 { Ok(SatPerKw::new(rate.max(SatPerKw::FLOOR.get()))) } else { below_floor() }
}

fn below_floor() -> Result<SatPerKw, String> {
    Err("the least that nodes relay is 253 sat/kw (1 sat/vB)".to_owned())
}

/// The rate per block that is this much per year.
pub(super) fn rate_of_apr(apr: Percent, side: Side) -> Result<RatePerBillion, String> {
    // micro-percent / 1e8 is the ratio per year; times 1e9 is parts per billion.
    let per_year = apr.0.checked_mul(10).ok_or("that rate is too high")?;
    let rate = match side {
        Side::Sells => per_year.div_ceil(BLOCKS_PER_YEAR),
        Side::Buys => per_year / BLOCKS_PER_YEAR,
    };
    match u32::try_from(rate) {
        Ok(0) => Err("that is less than 1 ppb per block, the lowest rate".to_owned()),
        Ok(rate) => Ok(RatePerBillion::new(rate)),
        Err(_) => Err("that rate is too high".to_owned()),
    }
}

/// The rate at which `total` is the premium of the whole order: the lowest that brings at least so much, or the highest
/// that costs at most so much.
pub(super) fn rate_of_premium(
    total: Sats,
    amount: Sats,
    blocks: BlockCount,
    side: Side,
) -> Result<RatePerBillion, String> {
    // The premium never falls when the rate rises; one that cannot exist is beyond every total.
    let premium = |rate: u32| reference_premium(amount, RatePerBillion::new(rate), blocks).unwrap_or(Sats::MAX);
    let holds = |rate: u32| match side {
        Side::Sells => premium(rate) < total,
        Side::Buys => premium(rate) <= total,
    };
    // The last rate for which it holds.
    let (mut low, mut high) = (0u32, u32::MAX);
    while low < high {
        let middle = high - (high - low) / 2;
        if holds(middle) { low = middle } else { high = middle - 1 }
    }
    let rate = match side {
        Side::Sells => low.checked_add(1).ok_or("no rate brings that much")?,
        Side::Buys => low,
    };
    if rate == 0 {
        return Err(format!("{} sat is less than the lowest rate (1 ppb per block) costs", total.get()));
    }
    Ok(RatePerBillion::new(rate))
}

/// Millionths of a percent per year of a rate per block.
pub(super) fn apr_micro(rate: RatePerBillion) -> u128 {
    u128::from(rate.get()) * BLOCKS_PER_YEAR / 10
}

#[cfg(test)]
#[path = "units_tests.rs"]
mod tests;
