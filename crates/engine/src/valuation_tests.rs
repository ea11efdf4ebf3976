use super::*;
use proptest::prelude::*;

const FEE: ExecutionFee = ExecutionFee { base: Sats::constant(1), rate_ppm: 1_000 };

fn v1_costs() -> SellerCosts {
    SellerCosts {
        required_return_ppm: 50_000,
        duration: BlockCount::new(2_016),
        wait: BlockCount::new(144),
        settle: BlockCount::new(144),
        execution_fee: FEE,
        chain_share: Sats::constant(500),
        close_cost: Sats::ZERO,
        income_ppm: 0,
    }
}

fn v2_costs() -> SellerCosts {
    let rate = SatPerKw::new(2_500);
    SellerCosts {
        chain_share: chain_share(rate, AccountVersion::V1).unwrap(),
        close_cost: close_cost(100_000, rate).unwrap(),
        ..v1_costs()
    }
}

#[test]
fn example_v1_reservation_of_ten_million() {
    let costs = v1_costs();
    let amount = Sats::constant(10_000_000);
    assert_eq!(costs.required_premium(amount).unwrap().get(), 32_419);
    let rate = costs.reservation_rate(amount).unwrap();
    assert_eq!(rate.get(), 1_609);
    assert_eq!(reference_premium(amount, rate, costs.duration).unwrap().get(), 32_437);
}

#[test]
fn example_v2_small_fills_need_high_rates() {
    let costs = v2_costs();
    assert_eq!((costs.chain_share.get(), costs.close_cost.get()), (1_225, 2_000));
    for (units, needed, rate) in [(1, 3_546, 17_590), (10, 6_418, 3_184), (100, 35_144, 1_744)] {
        let amount = Sats::new(units * 100_000).unwrap();
        assert_eq!(costs.required_premium(amount).unwrap().get(), needed, "{units} units");
        assert_eq!(costs.reservation_rate(amount).unwrap().get(), rate, "{units} units");
    }
}

#[test]
fn example_v3_willingness_of_a_merchant() {
    let duration = BlockCount::new(4_032);
    let budget = receipts_margin(5_000, Sats::constant(1_500), duration, BlockCount::new(18)).unwrap();
    assert_eq!(budget.get(), 30_105);
    let value =
        BuyerValue { budget, duration, execution_fee: FEE, chain_share: Sats::constant(490), self_balance: Sats::ZERO };
    let amount = Sats::constant(5_000_000);
    let rate = value.willingness(amount).unwrap().unwrap();
    assert_eq!(rate.get(), 1_220);
    assert_eq!(value.total_cost(amount, rate).unwrap().get(), 30_086);
}

#[test]
fn example_v4_economic_fee_ceiling() {
    let costs = SellerCosts { close_cost: Sats::constant(2_000), ..v1_costs() };
    let ceiling = costs.fee_ceiling(Sats::constant(1_000_000), RatePerBillion::new(4_000), AccountVersion::V1);
    assert_eq!(ceiling.unwrap().unwrap().get(), 5_859);
    let low = costs.fee_ceiling(Sats::constant(1_000_000), RatePerBillion::new(100), AccountVersion::V1);
    assert_eq!(low, Ok(None));
}

#[test]
fn worked_yields_of_the_seller_match_the_notes() {
    // Strategy notes §4.1: probabilities and expected prices of F-ex, caution 0, no own impact.
    let costs = SellerCosts { wait: BlockCount::new(6), chain_share: Sats::constant(300), ..v1_costs() };
    let amount = Sats::constant(1_000_000);
    let at_1300 = costs.annual_return(amount, 5_350.0 / 3.0, 0.351_01, BlockCount::new(144)).unwrap();
    assert_eq!(format!("{:.2}", at_1300 * 100.0), "4.81");
    assert_eq!(costs.annual_return(amount, 1_000.0, 0.0, BlockCount::new(144)), None);
}

#[test]
fn equal_return_spreads_fixed_costs_over_longer_leases() {
    let short = v2_costs();
    let long = SellerCosts { duration: BlockCount::new(4_032), ..short };
    let amount = Sats::constant(1_000_000);
    let rate = RatePerBillion::new(4_000);
    assert_eq!(short.equal_return_rate(amount, &short, rate), Ok(Some(rate)));
    // net 8,064 - 1,001 - 1,225 - 2,000 = 3,838 over 2,304 blocks; 7,197 over 4,320, plus 4,226: 11,423 sat.
    assert_eq!(long.equal_return_rate(amount, &short, rate), Ok(Some(RatePerBillion::new(2_834))));
    assert_eq!(long.equal_return_rate(amount, &short, RatePerBillion::new(1_000)), Ok(None));
}

#[test]
fn self_balance_raises_the_cost_and_lowers_the_limit() {
    let plain = BuyerValue {
        budget: Sats::constant(20_000),
        duration: BlockCount::new(2_016),
        execution_fee: FEE,
        chain_share: Sats::constant(490),
        self_balance: Sats::ZERO,
    };
    let with = BuyerValue { self_balance: Sats::constant(500_000), ..plain };
    let amount = Sats::constant(1_000_000);
    assert!(with.willingness(amount).unwrap().unwrap() < plain.willingness(amount).unwrap().unwrap());
    let poor = BuyerValue { budget: Sats::constant(1_000), ..plain };
    assert_eq!(poor.willingness(amount), Ok(None));
}

#[test]
fn empty_leases_have_no_rate() {
    assert_eq!(v1_costs().reservation_rate(Sats::ZERO), Err(ValuationError::Empty));
    let costs = SellerCosts { duration: BlockCount::new(0), ..v1_costs() };
    assert_eq!(costs.reservation_rate(Sats::constant(100_000)), Err(ValuationError::Empty));
    assert_eq!(close_cost(1_000_001, SatPerKw::FLOOR), Err(ValuationError::Range("force close probability")));
}

proptest! {
    #[test]
    fn reservation_is_the_smallest_rate_that_pays(
        h in 0u32..200_000, units in 1u32..5_000, duration in 2_016u32..52_560, wait in 0u32..1_000, fixed in 0u64..20_000,
    ) {
        let costs = SellerCosts {
            required_return_ppm: h,
            duration: BlockCount::new(duration),
            wait: BlockCount::new(wait),
            chain_share: Sats::new(fixed).unwrap(),
            ..v1_costs()
        };
        let amount = Sats::new(u64::from(units) * 100_000).unwrap();
        let needed = costs.required_premium(amount).unwrap();
        let rate = costs.reservation_rate(amount).unwrap();
        prop_assert!(reference_premium(amount, rate, costs.duration).unwrap() >= needed);
        if rate.get() > 1 {
            let below = reference_premium(amount, RatePerBillion::new(rate.get() - 1), costs.duration).unwrap();
            // One satoshi of the doubles' rounding is allowed: the exact quotient is where the search starts.
            prop_assert!(below.get() <= needed.get());
        }
    }

    #[test]
    fn reservation_rises_with_return_wait_and_fees(
        h in 0u32..100_000, more in 1u32..50_000, units in 1u32..500, wait in 0u32..1_000, fixed in 0u64..20_000,
    ) {
        let amount = Sats::new(u64::from(units) * 100_000).unwrap();
        let costs = SellerCosts {
            required_return_ppm: h,
            wait: BlockCount::new(wait),
            chain_share: Sats::new(fixed).unwrap(),
            ..v1_costs()
        };
        let base = costs.reservation_rate(amount).unwrap();
        let dearer = [
            SellerCosts { required_return_ppm: h + more, ..costs },
            SellerCosts { wait: BlockCount::new(wait + more), ..costs },
            SellerCosts { chain_share: Sats::new(fixed + u64::from(more)).unwrap(), ..costs },
        ];
        for costs in dearer {
            prop_assert!(costs.reservation_rate(amount).unwrap() >= base);
        }
    }

    #[test]
    fn willingness_never_exceeds_the_budget(
        budget in 0u64..5_000_000, units in 1u32..1_000, duration in 2_016u32..52_560, own in 0u64..1_000_000,
    ) {
        let value = BuyerValue {
            budget: Sats::new(budget).unwrap(),
            duration: BlockCount::new(duration),
            execution_fee: FEE,
            chain_share: Sats::constant(490),
            self_balance: Sats::new(own).unwrap(),
        };
        let amount = Sats::new(u64::from(units) * 100_000).unwrap();
        if let Some(rate) = value.willingness(amount).unwrap() {
            prop_assert!(value.total_cost(amount, rate).unwrap() <= value.budget);
        }
    }
}
