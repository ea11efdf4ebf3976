use super::{Buyer, BuyerConfig, BuyerState, PRESET, deadline_bid};
use crate::fixtures::{
    D2016, D4032, DAY_MS, FEE, NOW, account, always, clearing, interest, later, lease, now, order, rate, seen, traded,
    units, view,
};
use proptest::prelude::*;
use tidegate_engine::strategy::{Decision, Intent, OrderIntent, Reason, Strategy};
use tidegate_engine::valuation::{BuyerValue, chain_share};
use tidegate_engine::view::{AccountView, MarketView, OrderView, Side, Timestamp};
use tidegate_protocol::account::{AccountState, AccountVersion};
use tidegate_protocol::order::{NodeTier, OrderState};
use tidegate_protocol::units::{BlockCount, BlockHeight, RatePerBillion, SatPerKw, Sats, UnitCount};

fn config() -> BuyerConfig {
    match crate::AnyStrategy::from_toml(PRESET).unwrap() {
        crate::AnyStrategy::Buyer(buyer) => buyer.config().clone(),
        crate::AnyStrategy::Seller(_) => unreachable!("the preset is the buyer's"),
    }
}

fn decide_with(config: BuyerConfig, view: &MarketView, state: &mut BuyerState) -> Decision {
    Buyer::new(config).unwrap().decide(view, state, now(view))
}

fn decide(view: &MarketView) -> Decision {
    decide_with(config(), view, &mut BuyerState::default())
}

fn overdue() -> BuyerState {
    BuyerState { short_since: Some(Timestamp(NOW.0 - 20 * DAY_MS)) }
}

fn bids(decision: &Decision) -> Vec<&OrderIntent> {
    let bids = decision.intents.iter().filter_map(|intent| match intent {
        Intent::PlaceBid { order, .. } => Some(order),
        _ => None,
    });
    bids.collect()
}

/// The willingness of the preset for its smallest match, computed beside the strategy: the substitute binds.
fn willingness(fee_rate: u64) -> Option<RatePerBillion> {
    let value = BuyerValue {
        budget: Sats::constant(15_000),
        duration: D2016,
        execution_fee: FEE,
        chain_share: chain_share(SatPerKw::new(fee_rate), AccountVersion::V2).unwrap(),
        self_balance: Sats::ZERO,
    };
    value.willingness(Sats::constant(1_000_000)).unwrap()
}

#[test]
fn worked_example_of_the_notes() {
    let table = [(1_200, 0.15), (1_600, 0.35), (2_000, 0.60), (2_600, 0.85)].map(|(ppb, p)| (rate(ppb), p));
    let bid = |left: u32| deadline_bid(rate(3_000), &table, rate(1_500), left).unwrap();
    let rates: Vec<u32> = (1..=5).map(|left| bid(left).rate.get()).collect();
    assert_eq!(rates, [2_600, 2_000, 1_600, 1_600, 1_600]);
    let values: Vec<String> = (1..=3).map(|left| format!("{:.1}", bid(left).value)).collect();
    assert_eq!(values, ["115.0", "646.0", "909.9"]);
    assert_eq!(deadline_bid(rate(1_000), &table, rate(1_500), 3), None);
}

#[test]
fn without_an_account_it_opens_one_for_the_purchase() {
    let mut view = view();
    view.accounts.clear();
    let decision = decide(&view);
    let [Intent::OpenAccount { value, expiry_blocks, version }] = &decision.intents[..] else {
        panic!("an account expected: {decision:?}")
    };
    assert_eq!((*expiry_blocks, *version), (BlockCount::new(8_064), AccountVersion::V2));
    // Five smallest matches at their full worth of 15,000 sat, their fees at the ceiling of the first bid, a tenth more.
    assert!((100_000..120_000).contains(&value.get()), "{value}");
    let mut whole = BuyerConfig { target_inbound_units: units(500), max_order_units: units(500), ..config() };
    whole.receipts_sats_per_block = Sats::constant(30_000);
    let larger = decide_with(whole.clone(), &view, &mut BuyerState::default());
    let [Intent::OpenAccount { value, .. }] = &larger.intents[..] else { panic!("{larger:?}") };
    assert!((900_000..=1_000_000).contains(&value.get()), "{value}");
    // The account that it opens backs the bid that it wants.
    view.accounts.push(seen(account(1, value.get())));
    assert_eq!(bids(&decide_with(whole, &view, &mut BuyerState::default()))[0].units, units(500));
}

#[test]
fn it_waits_for_an_account_and_says_when_the_wallet_is_too_small() {
    let mut view = view();
    view.accounts = vec![seen(AccountView { state: AccountState::PendingOpen, ..account(1, 200_000) })];
    assert_eq!(decide(&view).reasons.last(), Some(&Reason::AccountPending));
    view.accounts.clear();
    view.node[0].value.wallet_confirmed = Sats::constant(150_000);
    let poor = decide(&view);
    assert!(poor.intents.is_empty());
    assert!(matches!(poor.reasons.last(), Some(Reason::WalletTooSmall { free_sats, .. }) if free_sats.get() == 50_000));
}

#[test]
fn without_data_the_bid_rises_to_the_willingness_at_the_deadline() {
    let first = view();
    let mut state = BuyerState::default();
    let limit = willingness(1_000).unwrap().get();
    let start = bids(&decide_with(config(), &first, &mut state))[0].clone();
    assert!((limit * 2 / 3 - 2..=limit * 2 / 3).contains(&start.rate.get()), "{} of {limit}", start.rate);
    assert_eq!((start.units, start.min_units), (units(50), units(10)));
    let mut before = start.rate;
    for days in [3, 7, 10, 14, 40] {
        let bid = bids(&decide_with(config(), &later(&first, days * DAY_MS), &mut state))[0].rate;
        assert!(bid > before || days == 40, "day {days}");
        before = bid;
    }
    assert!((limit - 1..=limit).contains(&before.get()), "{before} of {limit}");
}

#[test]
fn a_fill_starts_the_deadline_anew_and_the_target_ends_it() {
    let mut view = view();
    let mut state = overdue();
    let limit = bids(&decide_with(config(), &view, &mut state))[0].rate;
    view.leases.push(seen(lease(1, Side::Bid, 20)));
    let next = decide_with(config(), &view, &mut state);
    assert_eq!(bids(&next)[0].units, units(30));
    assert!(bids(&next)[0].rate < limit);
    view.leases.push(seen(lease(2, Side::Bid, 25)));
    let done = decide_with(config(), &view, &mut state);
    // Five units are missing, less than the smallest match.
    assert!(done.intents.is_empty());
    assert!(matches!(done.reasons[..], [Reason::TargetReached { running, .. }] if running == units(45)));
    assert_eq!(state.short_since, None);
    // Close to maturity they no longer count.
    view.heights.push(seen(BlockHeight::new(99_900 + 2_016 - 288)));
    assert_eq!(bids(&decide_with(config(), &view, &mut state))[0].units, units(50));
}

#[test]
fn a_live_bid_is_not_doubled_and_one_above_the_limit_goes_at_once() {
    let mut view = view();
    let wanted = bids(&decide(&view))[0].clone();
    view.orders.push(seen(order(3, Side::Bid, wanted.rate.get(), 50)));
    let keeps = decide(&view);
    assert!(keeps.intents.is_empty());
    assert!(matches!(keeps.reasons.last(), Some(Reason::KeepsQuote { .. })));
    view.orders[0].value.state = OrderState::Cleared;
    assert!(decide(&view).intents.is_empty());
    let dear = OrderView { placed_at: NOW, ..order(3, Side::Bid, 50_000, 50) };
    view.orders = vec![seen(dear)];
    assert!(matches!(&decide(&view).intents[..], [Intent::Cancel { .. }, Intent::PlaceBid { .. }]));
    view.orders.push(seen(order(4, Side::Bid, 3_000, 50)));
    let cancels = decide(&view).intents.iter().filter(|intent| matches!(intent, Intent::Cancel { .. })).count();
    assert!(cancels >= 1 && bids(&decide(&view)).len() <= 1);
}

#[test]
fn bids_on_an_expiring_account_count_until_they_are_gone() {
    let mut view = view();
    view.heights.push(seen(BlockHeight::new(109_500)));
    view.accounts.push(seen(AccountView { expiry: BlockHeight::new(120_000), ..account(2, 1_000_000) }));
    view.orders.push(seen(OrderView { state: OrderState::Cleared, ..order(3, Side::Bid, 3_000, 50) }));
    let decision = decide(&view);
    assert!(decision.intents.is_empty());
    assert!(matches!(decision.reasons.last(), Some(Reason::TargetReached { on_order, .. }) if *on_order == units(50)));
}

#[test]
fn with_clearings_it_shades_below_the_willingness_and_less_so_as_time_runs_out() {
    let limit = willingness(1_000).unwrap();
    let at = |days: u64| {
        let mut state = BuyerState { short_since: Some(Timestamp(NOW.0 - days * DAY_MS)) };
        let decision = decide_with(config(), &traded(), &mut state);
        assert_eq!(
            days < 14,
            decision.reasons.iter().any(|reason| matches!(reason, Reason::FillEstimate { windows: 20, .. }))
        );
        bids(&decision)[0].rate
    };
    // Bids between 2,500 and 2,675 filled; two weeks before the deadline there is time for bargains.
    assert!(at(0) < rate(2_000), "{}", at(0));
    assert!(at(13) > rate(2_000) && at(13) < limit, "{} of {limit}", at(13));
    assert!(at(14) <= limit && at(14).get() >= limit.get() - 1, "{} of {limit}", at(14));
}

#[test]
fn it_bids_for_the_duration_that_costs_least_per_usable_block() {
    let longer = BuyerConfig { durations_blocks: vec![D2016, D4032], ..config() };
    let mut state = overdue();
    // One budget for either, so the longer lease is the cheaper per block.
    assert_eq!(bids(&decide_with(longer, &view(), &mut state))[0].duration, D4032);
}

#[test]
fn sellers_of_the_wanted_rating_are_asked_for() {
    let rated = BuyerConfig { require_rated_sellers: true, ..config() };
    let decision = decide_with(rated.clone(), &view(), &mut BuyerState::default());
    assert!(matches!(
        &decision.intents[..],
        [Intent::PlaceBid { terms, .. }] if terms.min_node_tier == NodeTier::Tier1
    ));
    // Without an ask that it accepts, past clearings do not move it from patience.
    let mut view = traded();
    view.interest.push(seen(interest(100, 0)));
    let patient = decide_with(rated, &view, &mut BuyerState::default());
    assert!(patient.reasons.iter().any(|reason| matches!(reason, Reason::ThinMarket { .. })));
}

#[test]
fn worthless_leases_are_not_bid_for() {
    let poor = BuyerConfig { margin_ppm: 1, ..config() };
    let mut view = view();
    view.orders.push(seen(order(3, Side::Bid, 3_000, 50)));
    let decision = decide_with(poor, &view, &mut BuyerState::default());
    assert!(decision.reasons.contains(&Reason::NotWorthIt { duration: D2016 }));
    assert!(matches!(decision.intents[..], [Intent::Cancel { .. }]));
}

fn random_view(clearings: &[(u32, u32, u32)], fee_rate: u64, value: u64, bought: u32) -> MarketView {
    let mut view = view();
    view.observed_since = Timestamp(NOW.0 - 25 * DAY_MS);
    for (days, ask, more) in clearings {
        view.clearings.push(clearing(*days, D2016, *ask, ask + more));
    }
    view.fee_rates = vec![seen(SatPerKw::new(fee_rate))];
    view.accounts = vec![seen(account(1, value))];
    if bought > 0 {
        view.leases.push(seen(lease(1, Side::Bid, bought)));
    }
    view
}

proptest! {
    #![proptest_config(always(96))]

    #[test]
    fn bids_stay_within_willingness_target_and_account(
        clearings in prop::collection::vec((0u32..25, 1u32..9_000, 0u32..6_000), 0..25),
        fee_rate in 253u64..40_000, value in 100_000u64..300_000, bought in 0u32..60, days in 0u64..30,
    ) {
        let view = random_view(&clearings, fee_rate, value, bought);
        let mut state = BuyerState { short_since: Some(Timestamp(NOW.0 - days * DAY_MS)) };
        let decision = decide_with(config(), &view, &mut state);
        for bid in bids(&decision) {
            prop_assert!(bid.rate <= willingness(fee_rate).unwrap());
            prop_assert!(bid.units.get() + bought <= 50);
            let intent = decision.intents.iter().find(|intent| matches!(intent, Intent::PlaceBid { .. })).unwrap();
            prop_assert!(intent.reserve(&FEE, AccountVersion::V2).unwrap().get() <= value);
        }
    }

    #[test]
    fn the_same_input_gives_the_same_bytes(
        clearings in prop::collection::vec((0u32..25, 1u32..9_000, 0u32..6_000), 0..25), fee_rate in 253u64..20_000,
    ) {
        let view = random_view(&clearings, fee_rate, 500_000, 0);
        let copy: MarketView = serde_json::from_str(&serde_json::to_string(&view).unwrap()).unwrap();
        let text = |view: &MarketView| serde_json::to_string(&decide(view)).unwrap();
        prop_assert_eq!(text(&view), text(&copy));
    }

    #[test]
    fn deadline_bids_rise_as_time_shrinks_and_as_the_penalty_grows(
        mut steps in prop::collection::vec((1u32..400, 0.0f64..0.2), 1..20), penalty in 0u32..5_000, more in 1u32..5_000,
    ) {
        let (mut ppb, mut p) = (0, 0.0);
        let table: Vec<(RatePerBillion, f64)> = steps.drain(..).map(|(step, gain)| {
            ppb += step;
            p = f64::min(p + gain, 1.0);
            (rate(ppb), p)
        }).collect();
        let limit = rate(ppb);
        let bid = |penalty: u32, left: u32| deadline_bid(limit, &table, rate(penalty), left).unwrap();
        for left in 1..12 {
            prop_assert!(bid(penalty, left).rate >= bid(penalty, left + 1).rate);
            prop_assert!(bid(penalty + more, left).rate >= bid(penalty, left).rate);
        }
    }

    #[test]
    fn bids_do_not_fall_as_the_deadline_comes_nearer(
        clearings in prop::collection::vec((0u32..25, 1u32..6_000, 0u32..4_000), 0..25), days in 0u64..20,
    ) {
        let view = random_view(&clearings, 1_000, 500_000, 0);
        let bid = |days: u64| {
            let mut state = BuyerState { short_since: Some(Timestamp(NOW.0 - days * DAY_MS)) };
            bids(&decide_with(config(), &view, &mut state))[0].rate
        };
        prop_assert!(bid(days + 1) >= bid(days));
    }
}

#[test]
fn unit_counts_are_plain_numbers_in_the_text() {
    assert_eq!(config().target_inbound_units, UnitCount::new(50));
}
