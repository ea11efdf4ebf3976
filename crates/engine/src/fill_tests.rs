use super::*;
use proptest::prelude::*;

fn rate(ppb: u32) -> RatePerBillion {
    RatePerBillion::new(ppb)
}

fn cleared(highest_ask: u32, price: u32, units: u32) -> Window {
    let pair = ClearedPair { ask_rate: rate(highest_ask), bid_rate: rate(price), units: UnitCount::new(units) };
    let batch = WindowBatch { price: rate(price), highest_ask: Some(rate(highest_ask)), pairs: vec![pair] };
    Window { batches: vec![batch], probes: vec![] }
}

/// Strategy notes §3, F-ex: ten daily windows, newest first.
fn worked(units: u32) -> Vec<Window> {
    let silent = Window::default;
    vec![
        cleared(900, 1_500, units),
        silent(),
        cleared(1_200, 1_600, units),
        cleared(1_000, 1_000, units),
        silent(),
        silent(),
        cleared(1_400, 2_000, units),
        cleared(800, 1_200, units),
        silent(),
        cleared(1_500, 1_800, units),
    ]
}

const FLAT: FillModel =
    FillModel { half_life_windows: f64::INFINITY, prior_windows: 2.0, prior_steepness: 3.0, unknown: 0.5 };

fn digits(fill: Fill) -> String {
    format!("{:.4} [{:.4}, {:.4}]", fill.p, fill.lo, fill.hi)
}

#[test]
fn worked_example_of_the_notes() {
    let windows = worked(1);
    let estimator = Estimator::new(FLAT, Side::Ask, rate(1_500), UnitCount::new(1), &windows);
    assert_eq!(format!("{:.4}", estimator.prior(rate(1_100))), "0.7172");
    assert_eq!(digits(estimator.at(rate(1_100))), "0.4529 [0.1622, 0.7607]");
    assert_eq!(digits(estimator.at(rate(1_300))), "0.3510 [0.0899, 0.6674]");
    assert_eq!(digits(estimator.at(rate(1_700))), "0.1512 [0.0021, 0.4515]");
    let decayed = Estimator::new(FillModel::default(), Side::Ask, rate(1_500), UnitCount::new(1), &windows);
    assert_eq!(format!("{:.4}", decayed.at(rate(1_100)).p), "0.4539");
}

#[test]
fn worked_yields_of_the_notes() {
    use crate::valuation::SellerCosts;
    use tidegate_protocol::fees::ExecutionFee;
    use tidegate_protocol::units::{BlockCount, Sats};
    // So many units that ours move nothing: λ = 1.
    let windows = worked(1_000_000_000);
    let estimator = Estimator::new(FLAT, Side::Ask, rate(1_500), UnitCount::new(1), &windows);
    let costs = SellerCosts {
        required_return_ppm: 0,
        duration: BlockCount::new(2_016),
        wait: BlockCount::new(6),
        settle: BlockCount::new(144),
        execution_fee: ExecutionFee { base: Sats::constant(1), rate_ppm: 1_000 },
        chain_share: Sats::constant(300),
        close_cost: Sats::ZERO,
        income_ppm: 0,
    };
    let amount = Sats::constant(1_000_000);
    for (ask, percent) in [(1_000, "4.30"), (1_100, "4.58"), (1_300, "4.81"), (1_500, "4.28"), (1_700, "4.36")] {
        let price = estimator.expected_rate(rate(ask));
        let yearly = costs.annual_return(amount, price, estimator.at(rate(ask)).p, BlockCount::new(144)).unwrap();
        assert_eq!(format!("{:.2}", yearly * 100.0), percent, "ask {ask}");
    }
}

#[test]
fn horizon_of_the_notes() {
    assert_eq!(format!("{:.3}", fill_within(0.4529, 5, 0.3)), "0.881");
    assert_eq!(format!("{:.3}", fill_within(0.4529, 5, 0.0)), "0.951");
    assert_eq!(fill_within(0.5, 0, 0.0).to_bits(), 0.0_f64.to_bits());
}

#[test]
fn beta_quantiles_match_closed_forms() {
    // Beta(1, b): 1 - (1 - q)^(1/b); Beta(a, 1): q^(1/a); the symmetric ones have their median in the middle.
    for (a, b, q, expected) in [
        (1.0, 4.0, 0.05, 1.0 - libm::pow(0.95, 0.25)),
        (3.0, 1.0, 0.95, libm::pow(0.95, 1.0 / 3.0)),
        (7.5, 7.5, 0.5, 0.5),
        (0.5, 0.5, 0.5, 0.5),
    ] {
        assert!((beta_quantile(q, a, b) - expected).abs() < 1e-12, "Beta({a}, {b})");
    }
    assert!(beta_quantile(0.5, 0.0, 1.0).abs() < 1e-12);
    assert!((beta_quantile(0.5, 1.0, 0.0) - 1.0).abs() < 1e-12);
}

#[test]
fn bids_mirror_asks() {
    let window = cleared(900, 1_500, 5);
    let units = UnitCount::new(5);
    assert_eq!(evidence(&window, Side::Bid, rate(1_501), units), Evidence::Filled);
    assert_eq!(evidence(&window, Side::Bid, rate(1_501), UnitCount::new(6)), Evidence::Unknown);
    assert_eq!(evidence(&window, Side::Bid, rate(1_500), units), Evidence::Unknown);
    assert_eq!(evidence(&window, Side::Bid, rate(899), units), Evidence::Missed);
    assert_eq!(evidence(&Window::default(), Side::Bid, rate(5_000), units), Evidence::Missed);
}

#[test]
fn own_orders_are_evidence() {
    let units = UnitCount::new(5);
    let filled = Window { batches: vec![], probes: vec![Probe::Filled { rate: rate(1_000), units }] };
    assert_eq!(evidence(&filled, Side::Ask, rate(1_000), units), Evidence::Filled);
    assert_eq!(evidence(&filled, Side::Ask, rate(1_001), units), Evidence::Missed);
    let mut stood = cleared(900, 1_500, 1);
    stood.probes.push(Probe::Unfilled { rate: rate(1_200) });
    assert_eq!(evidence(&stood, Side::Ask, rate(1_100), units), Evidence::Unknown);
    assert_eq!(evidence(&stood, Side::Ask, rate(1_200), units), Evidence::Missed);
}

#[test]
fn grid_steps_by_five_percent_and_holds_both_ends() {
    let grid: Vec<u32> = rate_grid(rate(1_000), rate(1_110)).iter().map(|rate| rate.get()).collect();
    assert_eq!(grid, [1_000, 1_050, 1_102, 1_110]);
    assert_eq!(rate_grid(rate(10), rate(5)), [rate(10)]);
    assert_eq!(rate_grid(rate(u32::MAX - 1), rate(u32::MAX)).len(), 2);
}

proptest! {
    #[test]
    fn curves_are_monotone_and_inside_their_intervals(
        clearings in prop::collection::vec(prop::option::of((1u32..3_000, 0u32..3_000, 1u32..50)), 0..20),
        own in prop::collection::vec((0usize..20, 1u32..4_000, any::<bool>()), 0..4),
        units in 1u32..40,
        asks in any::<bool>(),
    ) {
        let side = if asks { Side::Ask } else { Side::Bid };
        let mut windows: Vec<Window> = clearings
            .iter()
            .map(|cleared_at| cleared_at.map_or_else(Window::default, |(ask, more, units)| cleared(ask, ask + more, units)))
            .collect();
        for (index, ppb, filled) in own {
            let probe = if filled {
                Probe::Filled { rate: rate(ppb), units: UnitCount::new(units) }
            } else {
                Probe::Unfilled { rate: rate(ppb) }
            };
            if let Some(window) = windows.get_mut(index) {
                window.probes.push(probe);
            }
        }
        let estimator = Estimator::new(FillModel::default(), side, rate(1_500), UnitCount::new(units), &windows);
        let curve = estimator.curve(&rate_grid(rate(100), rate(10_000)));
        for pair in curve.windows(2) {
            let (before, after) = match side {
                Side::Ask => (pair[1].1, pair[0].1),
                Side::Bid => (pair[0].1, pair[1].1),
            };
            prop_assert!(before.p <= after.p && before.lo <= after.lo && before.hi <= after.hi);
        }
        for (_, fill) in curve {
            prop_assert!((0.0..=1.0).contains(&fill.p) && (0.0..=1.0).contains(&fill.lo) && fill.lo <= fill.hi);
        }
    }
}
