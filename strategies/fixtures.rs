//! Data for tests.

use proptest::test_runner::{Config as ProptestConfig, RngSeed};
use std::collections::BTreeMap;
use tidegate_engine::strategy::Now;
use tidegate_engine::view::{
    AccountView, ClearedPair, Clearing, DurationState, Interest, LeaseView, MarketInterest, MarketView, NodeView,
    OrderView, Rating, Seen, Side, Terms, Timestamp,
};
use tidegate_protocol::account::{AccountState, AccountVersion};
use tidegate_protocol::bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use tidegate_protocol::fees::ExecutionFee;
use tidegate_protocol::keys::{AccountKey, BatchId, NodeId, OrderNonce};
use tidegate_protocol::order::{NodeTier, OrderState};
use tidegate_protocol::units::{BlockCount, BlockHeight, RatePerBillion, SatPerKw, Sats, UnitCount};

pub(crate) const DAY_MS: u64 = 86_400_000;
/// Time of [`view`]: day 30.
pub(crate) const NOW: Timestamp = Timestamp(30 * DAY_MS);
pub(crate) const D2016: BlockCount = BlockCount::new(2_016);
pub(crate) const D4032: BlockCount = BlockCount::new(4_032);
pub(crate) const FEE: ExecutionFee = ExecutionFee { base: Sats::constant(1), rate_ppm: 1_000 };

/// A valid point for each number above 0.
/// So many cases, always the same: a failure repeats by itself.
pub(crate) fn always(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(20_261_122),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

pub(crate) fn point(seed: u32) -> PublicKey {
    let mut secret = [7_u8; 32];
    secret[28..].copy_from_slice(&seed.to_be_bytes());
    PublicKey::from_secret_key(&Secp256k1::new(), &SecretKey::from_slice(&secret).unwrap())
}

pub(crate) fn rate(ppb: u32) -> RatePerBillion {
    RatePerBillion::new(ppb)
}

pub(crate) fn units(count: u32) -> UnitCount {
    UnitCount::new(count)
}

pub(crate) fn seen<T>(value: T) -> Seen<T> {
    Seen::now(NOW, value)
}

pub(crate) fn terms() -> Terms {
    Terms {
        max_account_value: Sats::constant(1_000_000_000),
        execution_fee: FEE,
        durations: BTreeMap::from([(D2016, DurationState::Open), (D4032, DurationState::Open)]),
        next_batch_fee_rate: SatPerKw::new(253),
        next_clear_time: NOW.seconds() + 600,
        auto_renew_blocks: BlockCount::new(3_024),
    }
}

pub(crate) fn account(seed: u32, value: u64) -> AccountView {
    AccountView {
        key: AccountKey::new(point(seed)),
        version: AccountVersion::V2,
        value: Sats::new(value).unwrap(),
        reserved: Sats::ZERO,
        expiry: BlockHeight::new(110_000),
        state: AccountState::Open,
    }
}

/// A live order on account 1, placed a day ago.
pub(crate) fn order(seed: u8, side: Side, ppb: u32, count: u32) -> OrderView {
    OrderView {
        nonce: OrderNonce::new([seed; 32]),
        account: AccountKey::new(point(1)),
        side,
        rate: rate(ppb),
        units: units(count),
        units_unfulfilled: units(count),
        min_units: units(10),
        duration: D2016,
        max_batch_fee_rate: SatPerKw::new(2_500),
        self_balance: Sats::ZERO,
        min_node_tier: NodeTier::Tier0,
        state: OrderState::Submitted,
        reserved: Sats::new(if side == Side::Ask { u64::from(count) * 100_000 } else { 60_000 }).unwrap(),
        placed_at: Timestamp(NOW.0 - DAY_MS),
    }
}

pub(crate) fn lease(seed: u32, side: Side, count: u32) -> LeaseView {
    LeaseView {
        batch_id: BatchId::new(point(1_000 + seed)),
        account: AccountKey::new(point(1)),
        nonce: OrderNonce::new([9; 32]),
        side,
        limit_rate: rate(3_000),
        units: units(count),
        self_balance: Sats::ZERO,
        duration: D2016,
        clearing_rate: rate(3_000),
        premium: Sats::constant(6_048),
        execution_fee: Sats::constant(1_001),
        chain_fee: Sats::constant(123),
        start: BlockHeight::new(99_900),
        booked_at: Timestamp(NOW.0 - DAY_MS),
    }
}

/// A foreign clearing `days` days ago: 50 units asked at `ask`, bid at `price`.
pub(crate) fn clearing(days: u32, duration: BlockCount, ask: u32, price: u32) -> Clearing {
    let at = Timestamp(NOW.0 - u64::from(days) * DAY_MS - DAY_MS / 2);
    Clearing {
        batch_id: BatchId::new(point(days + 1)),
        event_at: at,
        seen_at: at,
        duration,
        price: rate(price),
        pairs: vec![ClearedPair { ask_rate: rate(ask), bid_rate: rate(price), units: units(50) }],
        batch_fee_rate: SatPerKw::new(253),
    }
}

/// Day 30, height 100,000: terms with two open durations, a wallet of 50M sat, one account of 10M sat, no clearing.
pub(crate) fn view() -> MarketView {
    let node = NodeView { id: NodeId::new(point(99)), wallet_confirmed: Sats::constant(50_000_000), synced: true };
    MarketView {
        at: NOW,
        observed_since: NOW,
        terms: vec![seen(terms())],
        accounts: vec![seen(account(1, 10_000_000))],
        node: vec![seen(node)],
        heights: vec![seen(BlockHeight::new(100_000))],
        fee_rates: vec![seen(SatPerKw::new(1_000))],
        ..MarketView::default()
    }
}

/// The view with twenty daily clearings of 2,016 blocks between 2,000 and 3,000 ppb.
pub(crate) fn traded() -> MarketView {
    let clearings = (0..20).rev().map(|days| clearing(days, D2016, 1_800 + 10 * days, 2_500 + 25 * (days % 8)));
    MarketView { clearings: clearings.collect(), observed_since: Timestamp(NOW.0 - 20 * DAY_MS), ..view() }
}

pub(crate) fn interest(tier0: u32, tier1: u32) -> BTreeMap<BlockCount, MarketInterest> {
    let bids = Interest { orders_tier0: 1, orders_tier1: 1, units_tier0: tier0, units_tier1: tier1 };
    BTreeMap::from([(D2016, MarketInterest { asks: bids, bids })])
}

pub(crate) fn rated(view: &mut MarketView, tier: NodeTier) {
    view.ratings.push(seen(Rating { node: NodeId::new(point(99)), tier }));
}

pub(crate) fn now(view: &MarketView) -> Now {
    Now { time: view.at, height: view.height().unwrap() }
}

/// The same view `ms` milliseconds later, terms refreshed.
pub(crate) fn later(view: &MarketView, ms: u64) -> MarketView {
    let mut view = view.clone();
    view.at = Timestamp(view.at.0 + ms);
    let mut terms = terms();
    terms.next_clear_time = view.at.seconds() + 600;
    view.terms.push(Seen::now(view.at, terms));
    view
}
