//! Tables of what people type.

use super::*;

#[test]
fn amounts_are_read_as_people_type_them() {
    let rows = [
        ("5000000", Ok(5_000_000)),
        ("5_000_000", Ok(5_000_000)),
        ("5_000_000 sat", Ok(5_000_000)),
        (" 5000000sats ", Ok(5_000_000)),
        ("500k", Ok(500_000)),
        ("500K", Ok(500_000)),
        ("5M", Ok(5_000_000)),
        ("1.5M", Ok(1_500_000)),
        ("0.05btc", Ok(5_000_000)),
        ("0.05 BTC", Ok(5_000_000)),
        ("0.00000001btc", Ok(1)),
        ("21000000btc", Ok(2_100_000_000_000_000)),
        ("21000000.00000001btc", Err("21 million")),
        ("99999999999999999999999999999999", Err("write an amount")),
        ("0.000000001btc", Err("fraction of a satoshi")),
        ("1.5", Err("fraction of a satoshi")),
        ("0", Err("more than nothing")),
        ("", Err("write an amount")),
        ("-5", Err("write an amount")),
        ("+5", Err("write an amount")),
        ("5,000,000", Err("group digits with `_`")),
        ("0,05btc", Err("decimal point")),
        ("5m", Err("write M for a million")),
        ("5msat", Err("not used here")),
        ("5 euro", Err("write an amount")),
        ("1e6", Err("write an amount")),
        ("_5", Err("write an amount")),
        ("5_", Err("write an amount")),
        ("1.2.3", Err("write an amount")),
        (".5M", Err("write an amount")),
        ("5.M", Err("write an amount")),
        ("0x10", Err("write an amount")),
        ("٥", Err("write an amount")),
    ];
    for (text, expected) in rows {
        check(text, amount(text).map(Sats::get), expected);
    }
    assert_eq!(amount_or_nothing("0"), Ok(Sats::ZERO));
    assert!(amount_or_nothing("x").is_err());
}

#[test]
fn durations_are_blocks_or_days() {
    let rows = [
        ("2016", Ok(2_016)),
        ("2016 blocks", Ok(2_016)),
        ("1block", Ok(1)),
        ("30d", Ok(4_320)),
        ("14 days", Ok(2_016)),
        ("0.5d", Ok(72)),
        ("2w", Ok(2_016)),
        ("4294967295", Ok(u32::MAX)),
        ("4294967296", Err("no lease is that long")),
        ("99999999w", Err("no lease is that long")),
        ("0", Err("at least one block")),
        ("0.001d", Err("fraction of a block")),
        ("1.5", Err("fraction of a block")),
        ("3 months", Err("write blocks or days")),
        ("1,5d", Err("decimal point")),
        ("", Err("write blocks or days")),
        ("d", Err("write blocks or days")),
    ];
    for (text, expected) in rows {
        check(text, duration(text).map(BlockCount::get), expected);
    }
}

#[test]
fn rates_are_parts_per_billion_per_block() {
    let rows = [
        ("1488", Ok(1_488)),
        ("1_488ppb", Ok(1_488)),
        ("1488 ppb", Ok(1_488)),
        ("0", Err("at least 1 ppb")),
        ("5%", Err("use --apr")),
        ("3000sat", Err("use --premium")),
        ("1.5", Err("whole number")),
        ("4294967296", Err("whole number")),
    ];
    for (text, expected) in rows {
        check(text, rate(text).map(RatePerBillion::get), expected);
    }
}

#[test]
fn fee_rates_are_per_vbyte_unless_they_say_otherwise() {
    let rows = [
        ("1", Ok(253)),
        ("2", Ok(500)),
        ("2.5", Ok(625)),
        ("2.001 sat/vB", Ok(501)),
        ("10sat/vbyte", Ok(2_500)),
        ("500sat/kw", Ok(500)),
        ("253 sat/kw", Ok(253)),
        ("100sat/kw", Err("253 sat/kw")),
        ("0", Err("not relayed")),
        ("10000", Ok(2_500_000)),
        ("10001", Err("a slip")),
        ("2 sat", Err("write sat per vbyte")),
        ("fast", Err("write sat per vbyte")),
    ];
    for (text, expected) in rows {
        check(text, fee_rate(text).map(SatPerKw::get), expected);
    }
}

#[test]
fn percentages_are_exact_or_refused() {
    let rows = [
        ("5%", Ok(5_000_000)),
        ("5", Ok(5_000_000)),
        ("0.75 %", Ok(750_000)),
        ("0.000001%", Ok(1)),
        ("0.0000001%", Err("six digits")),
        ("0%", Err("above 0")),
        ("1000%", Ok(1_000_000_000)),
        ("1000.1%", Err("at most 1000")),
        ("5 apr", Err("write a percentage")),
        ("5,5%", Err("decimal point")),
    ];
    for (text, expected) in rows {
        check(text, percent(text).map(|percent| percent.0), expected);
    }
}

#[test]
fn a_yearly_percentage_is_rounded_to_the_side_of_who_typed_it() {
    let rate = |text, side| rate_of_apr(percent(text).expect("a percentage"), side).map(RatePerBillion::get);
    // 5 % over 52,560 blocks is 951.29 ppb per block.
    assert_eq!(rate("5%", Side::Sells), Ok(952));
    assert_eq!(rate("5%", Side::Buys), Ok(951));
    // 5.256 % is 1000 exactly.
    assert_eq!((rate("5.256%", Side::Sells), rate("5.256%", Side::Buys)), (Ok(1_000), Ok(1_000)));
    assert_eq!(rate("0.005%", Side::Sells), Ok(1));
    assert!(rate("0.005%", Side::Buys).expect_err("nothing").contains("lowest rate"));
    assert_eq!(apr_micro(RatePerBillion::new(1_000)), 5_256_000);
}

#[test]
fn a_premium_in_total_gives_the_best_rate_that_keeps_the_word() {
    let (amount, blocks) = (Sats::constant(1_000_000), BlockCount::new(2_016));
    let premium = |rate: u32| reference_premium(amount, RatePerBillion::new(rate), blocks).expect("small").get();
    for total in [3, 2_999, 3_000, 3_001, 250_000] {
        let total_sats = Sats::constant(total);
        let ask = rate_of_premium(total_sats, amount, blocks, Side::Sells).expect("a rate").get();
        assert!(premium(ask) >= total && premium(ask - 1) < total, "{total}: {ask}");
        let bid = rate_of_premium(total_sats, amount, blocks, Side::Buys).expect("a rate").get();
        assert!(premium(bid) <= total && premium(bid + 1) > total, "{total}: {bid}");
    }
    let refusal = rate_of_premium(Sats::constant(1), amount, blocks, Side::Buys).expect_err("2 sat are the least");
    assert!(refusal.contains("less than the lowest rate"), "{refusal}");
    let small = BlockCount::new(1);
    let refusal = rate_of_premium(Sats::MAX, Sats::constant(100_000), small, Side::Sells).expect_err("too much");
    assert!(refusal.contains("no rate"), "{refusal}");
}

fn check<T: PartialEq + std::fmt::Debug>(text: &str, found: Result<T, String>, expected: Result<T, &str>) {
    match (found, expected) {
        (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text:?}"),
        (Err(found), Err(words)) => assert!(found.contains(words), "{text:?}: {found}"),
        (found, expected) => panic!("{text:?}: found {found:?}, expected {expected:?}"),
    }
}
