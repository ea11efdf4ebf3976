use super::*;
use crate::view::fixtures::{account, lease, order, point, terms, view};
use crate::view::{AccountView, LeaseView};
use tidegate_ports::Timestamp;
use tidegate_protocol::order::{AskTerms, BidTerms, OrderChannelType};
use tidegate_protocol::units::{BlockHeight, UnitCount};

fn limits() -> Limits {
    Limits {
        dry_run: false,
        max_order_sats: Sats::constant(4_000_000),
        max_leased_sats: Sats::constant(6_000_000),
        max_daily_cost_sats: Sats::constant(30_000),
        ask_rate_min_ppb: RatePerBillion::new(500),
        bid_rate_max_ppb: RatePerBillion::new(3_000),
        rate_max_ppb: RatePerBillion::new(20_000),
        max_account_sats: Sats::constant(8_000_000),
        max_accounts_total_sats: Sats::constant(12_000_000),
        wallet_reserve_sats: Sats::constant(1_000_000),
        max_batch_fee_rate_sat_per_kw: SatPerKw::new(5_000),
        max_open_orders: 3,
        max_terms_age_s: 60,
    }
}

fn intent() -> OrderIntent {
    OrderIntent {
        account: AccountKey::new(point(1)),
        rate: RatePerBillion::new(2_000),
        units: UnitCount::new(20),
        min_units: UnitCount::new(10),
        duration: BlockCount::new(2_016),
        max_batch_fee_rate: SatPerKw::new(1_000),
        channel_type: OrderChannelType::PeerDependent,
    }
}

fn ask(order: OrderIntent) -> Intent {
    Intent::PlaceAsk { order, terms: AskTerms::default() }
}

fn bid(order: OrderIntent) -> Intent {
    Intent::PlaceBid { order, terms: BidTerms::default() }
}

fn open(value: u64, blocks: u32) -> Intent {
    Intent::OpenAccount {
        value: Sats::new(value).unwrap(),
        expiry_blocks: BlockCount::new(blocks),
        version: AccountVersion::V2,
    }
}

fn refusal(intent: Intent, view: &MarketView) -> RiskRefusal {
    RiskGate::new(limits()).approve(intent, view).unwrap_err()
}

fn seen<T>(value: T) -> Seen<T> {
    Seen::now(Timestamp(10_000), value)
}

#[test]
fn approves_what_is_within_the_limits() {
    let gate = RiskGate::new(limits());
    let mut view = view();
    view.orders.push(seen(order(5, Side::Ask)));
    for wish in
        [ask(intent()), bid(intent()), open(5_000_000, 4_032), Intent::Cancel { nonce: OrderNonce::new([5; 32]) }]
    {
        assert_eq!(gate.approve(wish.clone(), &view).unwrap().into_inner(), wish);
    }
}

#[test]
fn dry_run_refuses_everything() {
    let gate = RiskGate::new(Limits { dry_run: true, ..limits() });
    let account = AccountKey::new(point(1));
    let wishes = [ask(intent()), bid(intent()), open(5_000_000, 4_032), Intent::CloseAccount { account }];
    for wish in wishes {
        assert_eq!(gate.approve(wish, &view()), Err(RiskRefusal::DryRun));
    }
}

/// One row per order limit: a name, a wish that breaks just this limit, the refusal.
#[test]
fn refuses_orders_beyond_each_limit() {
    let ppb = RatePerBillion::new;
    let kw = SatPerKw::new;
    let rows = [
        (
            "unknown account",
            ask(OrderIntent { account: AccountKey::new(point(7)), ..intent() }),
            RiskRefusal::UnknownAccount { account: AccountKey::new(point(7)) },
        ),
        (
            "closed market",
            ask(OrderIntent { duration: BlockCount::new(4_032), ..intent() }),
            RiskRefusal::MarketClosed { duration: BlockCount::new(4_032) },
        ),
        (
            "minimum match above units",
            ask(OrderIntent { min_units: UnitCount::new(21), ..intent() }),
            RiskRefusal::Units { units: 20, min_units: 21 },
        ),
        (
            "no minimum match",
            ask(OrderIntent { min_units: UnitCount::ZERO, ..intent() }),
            RiskRefusal::Units { units: 20, min_units: 0 },
        ),
        (
            "too large",
            ask(OrderIntent { units: UnitCount::new(41), ..intent() }),
            RiskRefusal::OrderSize { order: Sats::constant(4_100_000), max: Sats::constant(4_000_000) },
        ),
        (
            "ask too cheap",
            ask(OrderIntent { rate: ppb(499), ..intent() }),
            RiskRefusal::RateBand { rate: ppb(499), min: ppb(500), max: ppb(20_000) },
        ),
        (
            "ask absurdly dear",
            ask(OrderIntent { rate: ppb(20_001), ..intent() }),
            RiskRefusal::RateBand { rate: ppb(20_001), min: ppb(500), max: ppb(20_000) },
        ),
        (
            "bid too dear",
            bid(OrderIntent { rate: ppb(3_001), ..intent() }),
            RiskRefusal::RateBand { rate: ppb(3_001), min: ppb(1), max: ppb(3_000) },
        ),
        (
            "fee rate too high",
            ask(OrderIntent { max_batch_fee_rate: kw(5_001), ..intent() }),
            RiskRefusal::FeeRate { rate: kw(5_001), min: kw(253), max: kw(5_000) },
        ),
        (
            "fee rate below the floor",
            ask(OrderIntent { max_batch_fee_rate: kw(252), ..intent() }),
            RiskRefusal::FeeRate { rate: kw(252), min: kw(253), max: kw(5_000) },
        ),
    ];
    for (name, wish, expected) in rows {
        assert_eq!(refusal(wish, &view()), expected, "{name}");
    }
}

#[test]
fn refuses_orders_when_terms_are_missing_or_old_or_the_node_lags() {
    let mut none = view();
    none.terms.clear();
    assert_eq!(refusal(ask(intent()), &none), RiskRefusal::NoTerms);
    let mut old = view();
    old.at = Timestamp(10_000 + 61_000);
    assert_eq!(refusal(ask(intent()), &old), RiskRefusal::StaleTerms { age_s: 61, max_s: 60 });
    let mut lagging = view();
    let mut node = lagging.node().unwrap().clone();
    node.synced = false;
    lagging.node.push(seen(node));
    assert_eq!(refusal(ask(intent()), &lagging), RiskRefusal::NotSynced);
}

#[test]
fn refuses_what_the_account_does_not_cover() {
    let mut view = view();
    let tight = AccountView { reserved: Sats::constant(4_000_000), ..account(1, 5_000_000) };
    view.accounts.push(seen(tight));
    assert!(matches!(
        refusal(ask(intent()), &view),
        RiskRefusal::Reserve { free, reserve, .. } if free == Sats::constant(1_000_000) && reserve > free
    ));
    view.accounts.push(seen(AccountView { state: AccountState::PendingOpen, ..account(1, 5_000_000) }));
    assert!(matches!(refusal(ask(intent()), &view), RiskRefusal::AccountState { .. }));
}

#[test]
fn caps_leased_principal_over_leases_and_open_asks() {
    let mut view = view();
    view.leases.push(seen(LeaseView { units: UnitCount::new(35), ..lease(1, Side::Ask) }));
    view.leases.push(seen(LeaseView { units: UnitCount::new(500), ..lease(2, Side::Bid) }));
    assert!(RiskGate::new(limits()).approve(ask(intent()), &view).is_ok());
    view.orders.push(seen(order(5, Side::Ask)));
    let expected = RiskRefusal::Leased { total: Sats::constant(6_500_000), max: Sats::constant(6_000_000) };
    assert_eq!(refusal(ask(intent()), &view), expected);
    // A lease that is over frees its principal.
    view.heights.push(seen(tidegate_protocol::units::BlockHeight::new(3_016)));
    assert!(RiskGate::new(limits()).approve(ask(intent()), &view).is_ok());
}

#[test]
fn caps_what_a_day_can_cost() {
    let mut view = view();
    // 20 units at 2,000 ppb: premium 8,064, execution 2,002, two chain shares of 490.
    let single = RiskGate::new(Limits { max_daily_cost_sats: Sats::constant(11_046), ..limits() });
    assert!(single.approve(bid(intent()), &view).is_ok());
    let less = RiskGate::new(Limits { max_daily_cost_sats: Sats::constant(11_045), ..limits() });
    assert_eq!(
        less.approve(bid(intent()), &view),
        Err(RiskRefusal::DailyCost { total: Sats::constant(11_046), max: Sats::constant(11_045) })
    );
    view.leases.push(seen(lease(1, Side::Bid)));
    assert!(matches!(
        single.approve(bid(intent()), &view),
        Err(RiskRefusal::DailyCost { total, .. }) if total.get() == 11_046 + 5_040 + 1_001 + 123
    ));
    view.at = Timestamp(10_000 + DAY_MS);
    view.terms.push(Seen::now(view.at, terms()));
    assert!(single.approve(bid(intent()), &view).is_ok());
}

#[test]
fn caps_the_number_of_open_orders() {
    let mut view = view();
    for seed in 3..6 {
        view.orders.push(seen(order(seed, Side::Bid)));
    }
    assert_eq!(refusal(bid(intent()), &view), RiskRefusal::OpenOrders { open: 3, max: 3 });
}

#[test]
fn refuses_accounts_beyond_each_limit() {
    let mut view = view();
    assert!(matches!(refusal(open(99_999, 4_032), &view), RiskRefusal::AccountSize { .. }));
    assert!(matches!(refusal(open(8_000_001, 4_032), &view), RiskRefusal::AccountSize { .. }));
    assert!(matches!(refusal(open(1_000_000, 143), &view), RiskRefusal::AccountExpiry { .. }));
    assert!(matches!(refusal(open(7_500_000, 4_032), &view), RiskRefusal::AccountsTotal { .. }));
    view.accounts.clear();
    view.node[0].value.wallet_confirmed = Sats::constant(7_000_000);
    assert!(RiskGate::new(limits()).approve(open(6_000_000, 4_032), &view).is_ok());
    assert!(matches!(refusal(open(6_000_001, 4_032), &view), RiskRefusal::Wallet { .. }));
}

fn funded() -> AccountView {
    account(1, 5_000_000)
}

#[test]
fn refuses_to_close_accounts_in_use_and_to_cancel_strangers() {
    let mut view = view();
    let account = AccountKey::new(point(1));
    let nonce = OrderNonce::new([5; 32]);
    assert!(RiskGate::new(limits()).approve(Intent::CloseAccount { account }, &view).is_ok());
    assert_eq!(refusal(Intent::Cancel { nonce }, &view), RiskRefusal::UnknownOrder { nonce });
    for (state, closes) in [
        (AccountState::PendingBatch, true),
        (AccountState::ExpiredPendingUpdate, true),
        (AccountState::Initiated, false),
        (AccountState::PendingClosed, false),
        (AccountState::Closed, false),
    ] {
        view.accounts.push(seen(AccountView { state, ..funded() }));
        let answer = RiskGate::new(limits()).approve(Intent::CloseAccount { account }, &view);
        assert_eq!(answer.is_ok(), closes, "{state:?}");
    }
    view.accounts.push(seen(funded()));
    view.orders.push(seen(order(5, Side::Ask)));
    assert_eq!(refusal(Intent::CloseAccount { account }, &view), RiskRefusal::AccountInUse { account, orders: 1 });
}

#[test]
fn money_moves_in_and_out_of_accounts_within_limits_and_in_the_states_that_allow_it() {
    let key = AccountKey::new(point(1));
    let amount = |sat| Sats::constant(sat);
    let wide = Limits { wallet_reserve_sats: Sats::ZERO, max_account_sats: amount(6_000_000), ..limits() };
    let gate = RiskGate::new(wide);
    let mut view = view();
    let deposit = |sat| Intent::Deposit { account: key, amount: amount(sat) };
    let withdraw = Intent::Withdraw { account: key, amount: amount(1_000) };
    let renew = Intent::Renew { account: key, expiry: BlockHeight::new(900_000) };
    let bump = Intent::BumpFee { account: key, fee_rate: SatPerKw::new(500) };
    view.accounts.push(seen(account(1, 5_000_000)));
    view.node[0].value.wallet_confirmed = amount(1_000_000);
    for wish in [deposit(1_000_000), withdraw.clone(), renew.clone()] {
        assert_eq!(gate.approve(wish.clone(), &view).unwrap().into_inner(), wish);
    }
    let too_large = gate.approve(deposit(1_000_001), &view);
    assert!(matches!(too_large, Err(RiskRefusal::AccountSize { .. })), "{too_large:?}");
    view.node[0].value.wallet_confirmed = amount(999_999);
    assert!(matches!(gate.approve(deposit(1_000_000), &view), Err(RiskRefusal::Wallet { .. })));
    assert!(matches!(gate.approve(bump.clone(), &view), Err(RiskRefusal::AccountState { .. })));
    // Two of one decision: the second sees what the first does.
    let answers = gate.approve_all(vec![deposit(600_000), deposit(600_000)], &view);
    assert!(answers[0].is_ok());
    assert!(matches!(answers[1], Err(RiskRefusal::AccountState { .. })));
    view.accounts.push(seen(AccountView { state: AccountState::PendingUpdate, ..account(1, 5_000_000) }));
    assert!(gate.approve(bump, &view).is_ok());
    for wish in [deposit(1), withdraw, renew] {
        assert!(matches!(gate.approve(wish, &view), Err(RiskRefusal::AccountState { .. })));
    }
    let nobody = Intent::Withdraw { account: AccountKey::new(point(7)), amount: amount(1) };
    assert!(matches!(gate.approve(nobody, &view), Err(RiskRefusal::UnknownAccount { .. })));
}

#[test]
fn intents_of_one_decision_count_together() {
    let gate = RiskGate::new(limits());
    let mut view = view();
    // Each of the two fits alone, both together do not; a cancel before them makes room.
    let large = ask(OrderIntent { units: UnitCount::new(30), ..intent() });
    let answers = gate.approve_all(vec![large.clone(), large.clone()], &view);
    assert!(answers[0].is_ok());
    assert!(matches!(answers[1], Err(RiskRefusal::Reserve { .. })));
    view.accounts.push(seen(AccountView { reserved: Sats::constant(3_000_000), ..account(1, 5_000_000) }));
    view.orders.push(seen(OrderView { reserved: Sats::constant(3_000_000), ..order(5, Side::Ask) }));
    assert!(gate.approve(large.clone(), &view).is_err());
    let answers = gate.approve_all(vec![Intent::Cancel { nonce: OrderNonce::new([5; 32]) }, large], &view);
    assert!(answers.iter().all(Result::is_ok));
}

#[test]
fn accounts_of_one_decision_count_together_and_closed_ones_do_not() {
    let gate = RiskGate::new(Limits { wallet_reserve_sats: Sats::ZERO, ..limits() });
    let mut view = view();
    view.node[0].value.wallet_confirmed = Sats::constant(50_000_000);
    let answers = gate.approve_all(vec![open(4_000_000, 4_032), open(4_000_000, 4_032)], &view);
    assert!(answers[0].is_ok());
    let expected = RiskRefusal::AccountsTotal { total: Sats::constant(13_000_000), max: Sats::constant(12_000_000) };
    assert_eq!(answers[1], Err(expected));
    view.accounts.push(seen(AccountView { state: AccountState::Closed, ..account(1, 5_000_000) }));
    assert!(gate.approve_all(vec![open(4_000_000, 4_032), open(8_000_000, 4_032)], &view).iter().all(Result::is_ok));
}

#[test]
fn limits_without_a_value_or_with_an_unknown_key_do_not_load() {
    let mut json = serde_json::to_value(limits()).unwrap();
    assert_eq!(serde_json::from_value::<Limits>(json.clone()).unwrap(), limits());
    json["max_oder_sats"] = 1.into();
    assert!(serde_json::from_value::<Limits>(json.clone()).is_err());
    let fields = json.as_object_mut().unwrap();
    fields.remove("max_oder_sats");
    fields.remove("max_leased_sats");
    assert!(serde_json::from_value::<Limits>(json).is_err());
}
