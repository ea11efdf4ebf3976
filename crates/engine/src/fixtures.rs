//! Data for tests.

use super::*;
use tidegate_protocol::bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};

/// A valid point that depends on `seed` (1..=255).
pub(crate) fn point(seed: u8) -> PublicKey {
    PublicKey::from_secret_key(&Secp256k1::new(), &SecretKey::from_slice(&[seed; 32]).unwrap())
}

/// Terms with one open market of 2,016 blocks.
pub(crate) fn terms() -> Terms {
    Terms {
        max_account_value: Sats::constant(1_000_000_000),
        execution_fee: ExecutionFee { base: Sats::constant(1), rate_ppm: 1_000 },
        durations: BTreeMap::from([
            (BlockCount::new(2_016), DurationState::Open),
            (BlockCount::new(4_032), DurationState::Closed),
        ]),
        next_batch_fee_rate: SatPerKw::new(253),
        next_clear_time: 0,
        auto_renew_blocks: BlockCount::new(3_024),
    }
}

/// An open account.
pub(crate) fn account(seed: u8, value: u64) -> AccountView {
    AccountView {
        key: AccountKey::new(point(seed)),
        version: AccountVersion::V2,
        value: Sats::new(value).unwrap(),
        reserved: Sats::ZERO,
        expiry: BlockHeight::new(10_000),
        state: AccountState::Open,
    }
}

/// An open order of 10 units on account 1.
pub(crate) fn order(seed: u8, side: Side) -> OrderView {
    OrderView {
        nonce: OrderNonce::new([seed; 32]),
        account: AccountKey::new(point(1)),
        side,
        rate: RatePerBillion::new(2_000),
        units: UnitCount::new(10),
        units_unfulfilled: UnitCount::new(10),
        min_units: UnitCount::new(1),
        duration: BlockCount::new(2_016),
        max_batch_fee_rate: SatPerKw::new(1_000),
        self_balance: Sats::ZERO,
        min_node_tier: NodeTier::Tier1,
        state: OrderState::Submitted,
        reserved: Sats::constant(50_000),
        placed_at: Timestamp(1_000),
    }
}

/// A lease of 10 units from order `seed` in batch `seed`.
pub(crate) fn lease(seed: u8, side: Side) -> LeaseView {
    LeaseView {
        batch_id: BatchId::new(point(seed)),
        account: AccountKey::new(point(1)),
        nonce: OrderNonce::new([seed; 32]),
        side,
        limit_rate: RatePerBillion::new(2_000),
        units: UnitCount::new(10),
        self_balance: Sats::ZERO,
        duration: BlockCount::new(2_016),
        clearing_rate: RatePerBillion::new(2_500),
        premium: Sats::constant(5_040),
        execution_fee: Sats::constant(1_001),
        chain_fee: Sats::constant(123),
        start: BlockHeight::new(1_000),
        booked_at: Timestamp(5_000),
    }
}

/// A clearing of 10 units in batch `seed`, asked at 2,000 and bid at `price`.
pub(crate) fn clearing(seed: u8, at_ms: u64, price: u32) -> Clearing {
    Clearing {
        batch_id: BatchId::new(point(seed)),
        event_at: Timestamp(at_ms),
        seen_at: Timestamp(at_ms),
        duration: BlockCount::new(2_016),
        price: RatePerBillion::new(price),
        pairs: vec![ClearedPair {
            ask_rate: RatePerBillion::new(2_000),
            bid_rate: RatePerBillion::new(price),
            units: UnitCount::new(10),
        }],
        batch_fee_rate: SatPerKw::new(253),
    }
}

/// A view at 10 s, height 1,000, with terms, a node of 10M sat and one account of 5M sat.
pub(crate) fn view() -> MarketView {
    let at = Timestamp(10_000);
    MarketView {
        at,
        observed_since: Timestamp(0),
        terms: vec![Seen::now(at, terms())],
        accounts: vec![Seen::now(at, account(1, 5_000_000))],
        node: vec![Seen::now(
            at,
            NodeView { id: NodeId::new(point(9)), wallet_confirmed: Sats::constant(10_000_000), synced: true },
        )],
        heights: vec![Seen::now(at, BlockHeight::new(1_000))],
        ..MarketView::default()
    }
}
