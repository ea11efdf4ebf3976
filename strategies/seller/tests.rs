use super::{PRESET, Seller, SellerConfig, SellerState};
use crate::fixtures::{
    D2016, D4032, DAY_MS, NOW, account, always, clearing, interest, later, lease, now, order, rate, rated, seen,
    traded, units, view,
};
use proptest::prelude::*;
use tidegate_engine::strategy::{AnchorSource, Decision, Intent, Now, OrderIntent, Reason, Strategy};
use tidegate_engine::valuation::{SellerCosts, chain_share, close_cost};
use tidegate_engine::view::{AccountView, MarketView, OrderView, Side, Timestamp};
use tidegate_protocol::account::{AccountState, AccountVersion};
use tidegate_protocol::order::{NodeTier, OrderState};
use tidegate_protocol::units::{BlockCount, BlockHeight, RatePerBillion, SatPerKw, Sats, UnitCount};

fn config() -> SellerConfig {
    match crate::AnyStrategy::from_toml(PRESET).unwrap() {
        crate::AnyStrategy::Seller(seller) => seller.config().clone(),
        crate::AnyStrategy::Buyer(_) => unreachable!("the preset is the seller's"),
    }
}

fn decide_with(config: SellerConfig, view: &MarketView, state: &mut SellerState) -> Decision {
    Seller::new(config).unwrap().decide(view, state, now(view))
}

fn decide(view: &MarketView) -> Decision {
    decide_with(config(), view, &mut SellerState::default())
}

fn asks(decision: &Decision) -> Vec<&OrderIntent> {
    let asks = decision.intents.iter().filter_map(|intent| match intent {
        Intent::PlaceAsk { order, .. } => Some(order),
        _ => None,
    });
    asks.collect()
}

/// The reservation rate, computed beside the strategy.
fn reservation(config: &SellerConfig, min_units: UnitCount, fee_rate: u64) -> RatePerBillion {
    let fee_rate = SatPerKw::new(fee_rate);
    let costs = SellerCosts {
        required_return_ppm: config.required_return_ppm_per_year,
        duration: D2016,
        wait: config.wait_blocks,
        settle: config.settle_blocks,
        execution_fee: crate::fixtures::FEE,
        chain_share: chain_share(fee_rate, AccountVersion::V2).unwrap(),
        close_cost: close_cost(config.force_close_probability_ppm, fee_rate).unwrap(),
        income_ppm: config.forwarding_income_ppm_per_year,
    };
    costs.reservation_rate(min_units.to_sats()).unwrap()
}

fn anchor_of(decision: &Decision) -> (AnchorSource, u32, u32) {
    let found = decision.reasons.iter().find_map(|reason| match reason {
        Reason::Anchor { source, rate, quote, .. } => Some((*source, rate.get(), quote.get())),
        _ => None,
    });
    found.unwrap()
}

#[test]
fn without_an_account_it_opens_one_with_the_capital() {
    let mut view = view();
    view.accounts.clear();
    let decision = decide(&view);
    let expected = Intent::OpenAccount {
        value: Sats::constant(20_000_000),
        expiry_blocks: BlockCount::new(8_064),
        version: AccountVersion::V2,
    };
    assert_eq!(decision.intents, [expected]);
    view.leases.push(seen(lease(1, Side::Ask, 150)));
    assert!(matches!(decide(&view).intents[..], [Intent::OpenAccount { value, .. }] if value.get() == 5_000_000));
    view.node[0].value.wallet_confirmed = Sats::constant(1_000_000);
    let poor = decide(&view);
    assert!(poor.intents.is_empty());
    assert!(matches!(poor.reasons[..], [Reason::WalletTooSmall { free_sats, .. }] if free_sats.get() == 500_000));
}

#[test]
fn it_waits_for_an_account_that_is_being_opened_and_for_terms() {
    let mut view = view();
    view.accounts = vec![seen(AccountView { state: AccountState::PendingOpen, ..account(1, 10_000_000) })];
    let decision = decide(&view);
    assert!(decision.intents.is_empty());
    assert_eq!(decision.reasons, [Reason::AccountPending]);
    view.terms.clear();
    assert_eq!(decide(&view).reasons, [Reason::NoTerms]);
}

#[test]
fn without_data_it_asks_at_one_and_a_half_times_the_reservation() {
    let decision = decide(&view());
    let floor = reservation(&config(), units(10), 1_000);
    let [ask] = asks(&decision)[..] else { panic!("one ask expected: {decision:?}") };
    // The strategy reckons with one satoshi more of chain share than the venue takes: half a ppb here.
    assert!((1..=2).contains(&(ask.rate.get() - floor.get() * 3 / 2)), "{} against {}", ask.rate, floor);
    // The premium pays for the fees, so that the whole account can be lent.
    assert_eq!((ask.min_units, ask.units, ask.duration), (units(10), units(100), D2016));
    assert_eq!(anchor_of(&decision).0, AnchorSource::OwnLimit);
}

#[test]
fn patience_lowers_the_ask_with_each_silent_window_down_to_the_reservation() {
    let first = view();
    let mut state = SellerState::default();
    let start = asks(&decide_with(config(), &first, &mut state))[0].rate.get();
    let after = |days: u64, state: &mut SellerState| {
        asks(&decide_with(config(), &later(&first, days * DAY_MS), state))[0].rate.get()
    };
    assert_eq!(after(1, &mut state), start * 95 / 100);
    assert!(after(3, &mut state) < start * 90 / 100);
    let floor = reservation(&config(), units(10), 1_000).get();
    assert!((floor..=floor + 1).contains(&after(60, &mut state)));
    // A fill starts patience anew.
    let mut filled = later(&first, 3 * DAY_MS);
    let mut sold = lease(1, Side::Ask, 10);
    sold.booked_at = filled.at;
    filled.leases.push(seen(sold));
    assert_eq!(asks(&decide_with(config(), &filled, &mut state))[0].rate.get(), start);
}

#[test]
fn a_neighbour_bucket_gives_the_anchor_at_equal_return() {
    let mut view = view();
    view.clearings = vec![clearing(1, D4032, 2_000, 4_000)].into();
    let (source, anchor, quote) = anchor_of(&decide(&view));
    assert_eq!(source, AnchorSource::NeighbourBucket);
    // Shorter leases spread the same fees over fewer blocks: the rate is higher.
    assert!(anchor > 4_000 && anchor < 6_000, "{anchor}");
    assert_eq!(anchor, quote);
}

#[test]
fn with_twenty_clearings_it_asks_at_the_best_expected_yield() {
    let view = traded();
    let decision = decide(&view);
    let ask = asks(&decision)[0];
    assert!(ask.rate >= reservation(&config(), ask.min_units, 1_000));
    // A quarter of the median pair of 50 units.
    assert_eq!(ask.min_units, units(12));
    let estimate = decision.reasons.iter().find_map(|reason| match reason {
        Reason::FillEstimate { rate, p, windows, .. } => Some((*rate, *p, *windows)),
        _ => None,
    });
    let (at, p, windows) = estimate.unwrap();
    assert_eq!((at, windows), (ask.rate, 20));
    assert!(p > 0.5, "{p}");
    assert!(decision.reasons.iter().any(|reason| matches!(
        reason,
        Reason::ExpectedReturn { annual_net, .. } if *annual_net >= 0.03
    )));
    // Inside what cleared: above the reservation, below the highest price.
    assert!(ask.rate.get() > 1_500 && ask.rate.get() < 2_700, "{}", ask.rate);
}

#[test]
fn interest_that_its_rating_can_not_reach_does_not_count() {
    let mut unrated = traded();
    unrated.interest.push(seen(interest(0, 500)));
    let decision = decide(&unrated);
    assert!(decision.reasons.iter().any(|reason| matches!(
        reason,
        Reason::UnreachableInterest { reachable_units: 0, all_units: 500, own_tier: NodeTier::Tier0, .. }
    )));
    assert!(decision.reasons.iter().any(|reason| matches!(reason, Reason::ThinMarket { clearings: 20, .. })));
    let mut half = traded();
    half.interest.push(seen(interest(250, 250)));
    let share = |view: &MarketView| {
        decide(view).reasons.iter().find_map(|reason| match reason {
            Reason::FillEstimate { reachable_share, .. } => Some(format!("{reachable_share:.1}")),
            _ => None,
        })
    };
    assert_eq!(share(&half).as_deref(), Some("0.5"));
    rated(&mut half, NodeTier::Tier1);
    assert_eq!(share(&half).as_deref(), Some("1.0"));
}

#[test]
fn too_low_returns_rest_at_the_patient_price_or_not_at_all() {
    let mut strict = SellerConfig { required_return_ppm_per_year: 500_000, ..config() };
    let view = traded();
    let resting = decide_with(strict.clone(), &view, &mut SellerState::default());
    assert!(resting.reasons.iter().any(|reason| matches!(reason, Reason::ReturnTooLow { .. })));
    assert!(asks(&resting)[0].rate >= reservation(&strict, units(12), 1_000));
    strict.quote_when_return_too_low = false;
    assert!(decide_with(strict, &view, &mut SellerState::default()).intents.is_empty());
}

#[test]
fn a_close_quote_stays_and_a_distant_one_is_replaced() {
    let view = view();
    let wanted = asks(&decide(&view))[0].clone();
    let with = |order: OrderView| {
        let mut view = view.clone();
        view.accounts.push(seen(AccountView { reserved: order.reserved, ..account(1, 10_000_000) }));
        view.orders.push(seen(order));
        view
    };
    let live = |ppb: u32, count: u32| order(3, Side::Ask, ppb, count);
    let near = decide(&with(live(wanted.rate.get() * 104 / 100, 90)));
    assert!(near.intents.is_empty());
    assert!(matches!(near.reasons.last(), Some(Reason::KeepsQuote { .. })));
    for (name, distant) in [("rate", live(wanted.rate.get() * 107 / 100, 99)), ("size", live(wanted.rate.get(), 70))] {
        let moved = decide(&with(distant));
        assert!(matches!(&moved.intents[..], [Intent::Cancel { .. }, Intent::PlaceAsk { .. }]), "{name}: {moved:?}");
    }
    let waiting = [
        ("too fresh", OrderView { placed_at: Timestamp(NOW.0 - 1_000), ..live(9_000, 99) }),
        ("in a batch", OrderView { state: OrderState::Cleared, ..live(9_000, 99) }),
    ];
    for (name, order) in waiting {
        let waits = decide(&with(order));
        assert!(waits.intents.is_empty(), "{name}");
        assert!(matches!(waits.reasons.last(), Some(Reason::Waits { .. })), "{name}");
    }
    let mut closing = with(live(9_000, 99));
    closing.terms[0].value.next_clear_time = NOW.seconds() + 30;
    assert!(decide(&closing).intents.is_empty());
    // Below the reservation no rule holds it back.
    let mut cheap = with(OrderView { placed_at: NOW, ..live(100, 99) });
    cheap.terms[0].value.next_clear_time = NOW.seconds() + 30;
    assert!(matches!(&decide(&cheap).intents[..], [Intent::Cancel { .. }, Intent::PlaceAsk { .. }]));
}

#[test]
fn one_ask_per_bucket_and_none_in_closed_ones() {
    let mut view = view();
    for seed in [3, 4] {
        view.orders.push(seen(order(seed, Side::Ask, 2_700, 40)));
    }
    view.orders.push(seen(OrderView { duration: D4032, ..order(5, Side::Ask, 2_700, 10) }));
    view.accounts.push(seen(AccountView { reserved: Sats::constant(9_000_000), ..account(1, 10_000_000) }));
    let decision = decide(&view);
    let cancelled: Vec<u8> = decision
        .intents
        .iter()
        .filter_map(|intent| match intent {
            Intent::Cancel { nonce } => Some(nonce.as_bytes()[0]),
            _ => None,
        })
        .collect();
    assert!(cancelled.contains(&4) && cancelled.contains(&5), "{cancelled:?}");
    assert!(asks(&decision).len() <= 1);
    view.terms[0].value.durations.clear();
    let closed = decide(&view);
    assert!(asks(&closed).is_empty());
    assert_eq!(closed.intents.len(), 3);
}

#[test]
fn a_refused_order_is_not_repeated_at_once() {
    let mut view = view();
    let failed =
        OrderView { state: OrderState::Failed, placed_at: Timestamp(NOW.0 - 1_000), ..order(3, Side::Ask, 2_700, 99) };
    view.orders.push(seen(failed));
    assert!(decide(&view).intents.is_empty());
    assert_eq!(asks(&decide(&later(&view, 3_600_000))).len(), 1);
}

#[test]
fn an_expiring_account_is_wound_up() {
    let mut view = view();
    view.heights.push(seen(BlockHeight::new(109_500)));
    view.orders.push(seen(order(3, Side::Ask, 2_700, 50)));
    let decision = decide(&view);
    assert!(matches!(decision.intents[0], Intent::Cancel { .. }));
    view.orders[0].value.state = OrderState::Canceled;
    let decision = decide(&view);
    assert!(matches!(decision.intents[0], Intent::CloseAccount { .. }), "{decision:?}");
}

/// A market drawn at random.
fn any_view() -> impl Strategy_ {
    let clearings = prop::collection::vec((0u32..25, 1u32..6_000, 0u32..6_000), 0..25);
    let wealth = (0u64..30_000_000, 253u64..20_000, 0u64..30, any::<bool>());
    let live = prop::option::of((1u32..10_000, 10u32..120, 0u64..100_000_000));
    (clearings, wealth, live, prop::option::of((0u32..300, 0u32..300))).prop_map(
        |(clearings, (value, fee_rate, observed, tier1), live, bids)| {
            let mut view = view();
            view.observed_since = Timestamp(NOW.0 - observed * DAY_MS);
            for (days, ask, more) in clearings {
                view.clearings.push(clearing(days, D2016, ask, ask + more));
            }
            view.fee_rates = vec![seen(SatPerKw::new(fee_rate))];
            view.accounts = vec![seen(account(1, value))];
            if let Some((ppb, count, age)) = live {
                let order = OrderView { placed_at: Timestamp(NOW.0 - age), ..order(3, Side::Ask, ppb, count) };
                let reserved = order.reserved;
                view.accounts.push(seen(AccountView { reserved, ..account(1, value.max(reserved.get())) }));
                view.orders.push(seen(order));
            }
            if let Some((any, rated)) = bids {
                view.interest.push(seen(interest(any, rated)));
            }
            rated(&mut view, if tier1 { NodeTier::Tier1 } else { NodeTier::Tier0 });
            (view, fee_rate)
        },
    )
}

use proptest::strategy::Strategy as PropStrategy;
trait Strategy_: PropStrategy<Value = (MarketView, u64)> {}
impl<T: PropStrategy<Value = (MarketView, u64)>> Strategy_ for T {}

fn check_limits(view: &MarketView, fee_rate: u64, decision: &Decision) -> Result<(), TestCaseError> {
    let mut free = view.accounts().next().unwrap().free();
    for intent in &decision.intents {
        if let Intent::Cancel { nonce } = intent {
            let order = view.live_orders().find(|order| order.nonce == *nonce).unwrap();
            free = free.checked_add(order.reserved).unwrap();
        }
        if let Intent::PlaceAsk { order, .. } = intent {
            prop_assert!(order.rate >= reservation(&config(), order.min_units, fee_rate), "below the reservation");
            prop_assert!(order.max_batch_fee_rate >= SatPerKw::FLOOR);
            let reserve = intent.reserve(&crate::fixtures::FEE, AccountVersion::V2).unwrap();
            prop_assert!(reserve <= free, "reserve {reserve} above free {free}");
            free = free.checked_sub(reserve).unwrap();
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(always(96))]

    #[test]
    fn asks_never_fall_below_the_reservation_nor_exceed_the_account((view, fee_rate) in any_view()) {
        check_limits(&view, fee_rate, &decide(&view))?;
    }

    #[test]
    fn the_same_input_gives_the_same_bytes((view, _) in any_view()) {
        let text = |view: &MarketView| serde_json::to_string(&decide(view)).unwrap();
        let copy: MarketView = serde_json::from_str(&serde_json::to_string(&view).unwrap()).unwrap();
        prop_assert_eq!(text(&view), text(&copy));
    }

    #[test]
    fn nothing_seen_later_changes_a_decision((view, _) in any_view(), (future, _) in any_view()) {
        let mut leaky = view.clone();
        for mut datum in future.clearings {
            datum.seen_at = Timestamp(NOW.0 + 1);
            leaky.clearings.push(datum);
        }
        leaky.fee_rates.push(tidegate_engine::view::Seen::now(Timestamp(NOW.0 + 1), SatPerKw::new(90_000)));
        let at = Now { time: NOW, height: BlockHeight::new(100_000) };
        let seller = Seller::new(config()).unwrap();
        let decide = |view: &MarketView| seller.decide(view, &mut SellerState::default(), at);
        prop_assert_eq!(decide(&view), decide(&leaky));
    }

    #[test]
    fn without_clearings_the_ask_is_the_anchor(fee_rate in 253u64..20_000, h in 0u32..200_000) {
        let mut view = view();
        view.fee_rates = vec![seen(SatPerKw::new(fee_rate))];
        let config = SellerConfig { required_return_ppm_per_year: h, ..config() };
        let decision = decide_with(config.clone(), &view, &mut SellerState::default());
        let floor = reservation(&config, units(10), fee_rate).get();
        let ask = asks(&decision)[0].rate;
        prop_assert!(ask >= rate(floor * 3 / 2) && ask <= rate((floor + 1) * 3 / 2), "{ask} against {floor}");
    }
}
