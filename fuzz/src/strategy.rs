//! Configuration of strategies: any text is refused or accepted, and what is accepted decides without panic.

use crate::bytes::Bytes;
use crate::material::point;
use serde_json::Value;
use std::sync::LazyLock;
use tidegate_engine::strategy::{Now, Strategy};
use tidegate_engine::view::{
    AccountView, ClearedPair, Clearing, DurationState, MarketView, NodeView, Seen, Terms, Timestamp,
};
use tidegate_protocol::account::{AccountState, AccountVersion};
use tidegate_protocol::fees::ExecutionFee;
use tidegate_protocol::keys::{AccountKey, BatchId, NodeId};
use tidegate_protocol::units::{BlockCount, BlockHeight, RatePerBillion, SatPerKw, Sats, UnitCount};
use tidegate_strategies::{AnyStrategy, buyer, seller};

const DAY_MS: u64 = 86_400_000;
const NOW: Timestamp = Timestamp(30 * DAY_MS);
const PRESETS: [&str; 4] = [seller::PRESET, seller::SANDBOX_PRESET, buyer::PRESET, buyer::SANDBOX_PRESET];
const NUMBERS: [&str; 16] = [
    "0",
    "1",
    "-1",
    "2",
    "3",
    "1000",
    "999_999",
    "1_000_000",
    "1_000_001",
    "4_294_967_295",
    "4_294_967_296",
    "2_100_000_000_000_000",
    "9_223_372_036_854_775_807",
    "0.5",
    "1e300",
    "nan",
];

/// Any text.
pub fn strategy_text(data: &[u8]) {
    if let Ok(text) = core::str::from_utf8(data) {
        decide(text);
    }
}

/// A preset with some of its values replaced by extreme ones.
pub fn strategy_values(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let mut lines: Vec<String> = bytes.pick(&PRESETS).lines().map(str::to_owned).collect();
    while !bytes.is_empty() {
        let at = bytes.below(lines.len());
        if let Some((key, _)) = lines[at].split_once(" = ") {
            let number = if bytes.u8() < 64 { bytes.u32().to_string() } else { bytes.pick(&NUMBERS).to_owned() };
            let list = key == "durations_blocks";
            lines[at] = if list { format!("{key} = [{number}, 2016]") } else { format!("{key} = {number}") };
        }
    }
    decide(&lines.join("\n"));
}

fn decide(text: &str) {
    let strategy = match AnyStrategy::from_toml(text) {
        Ok(strategy) => strategy,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert_eq!(AnyStrategy::from_toml(text).as_ref().ok(), Some(&strategy), "the same text, another strategy");
    for view in VIEWS.iter() {
        let now = Now { time: view.at, height: BlockHeight::new(100_000) };
        let (mut state, mut again) = (Value::Null, Value::Null);
        let decision = strategy.decide(view, &mut state, now);
        assert_eq!(strategy.decide(view, &mut again, now), decision, "the same view, another decision");
        assert_eq!(state, again);
        strategy.decide(view, &mut state, now);
    }
}

/// Nothing known; an account and no clearing; a history.
static VIEWS: LazyLock<[MarketView; 3]> = LazyLock::new(|| {
    let seen = view();
    let clearings = (0..20u32).rev().map(clearing).collect();
    let observed_since = Timestamp(NOW.0 - 20 * DAY_MS);
    [MarketView { at: NOW, ..MarketView::default() }, seen.clone(), MarketView { clearings, observed_since, ..seen }]
});

fn view() -> MarketView {
    let terms = Terms {
        max_account_value: Sats::constant(1_000_000_000),
        execution_fee: ExecutionFee { base: Sats::constant(1), rate_ppm: 1_000 },
        durations: [2_016, 4_032].map(|blocks| (BlockCount::new(blocks), DurationState::Open)).into(),
        next_batch_fee_rate: SatPerKw::new(253),
        next_clear_time: NOW.0 / 1_000 + 600,
        auto_renew_blocks: BlockCount::new(3_024),
    };
    let account = AccountView {
        key: AccountKey::new(point(1)),
        version: AccountVersion::V2,
        value: Sats::constant(10_000_000),
        reserved: Sats::ZERO,
        expiry: BlockHeight::new(110_000),
        state: AccountState::Open,
    };
    let node = NodeView { id: NodeId::new(point(9)), wallet_confirmed: Sats::constant(50_000_000), synced: true };
    MarketView {
        at: NOW,
        observed_since: NOW,
        terms: vec![Seen::now(NOW, terms)],
        accounts: vec![Seen::now(NOW, account)],
        node: vec![Seen::now(NOW, node)],
        heights: vec![Seen::now(NOW, BlockHeight::new(100_000))],
        fee_rates: vec![Seen::now(NOW, SatPerKw::new(1_000))],
        ..MarketView::default()
    }
}

/// A foreign clearing that many days ago.
fn clearing(days: u32) -> Clearing {
    let at = Timestamp(NOW.0 - u64::from(days) * DAY_MS - DAY_MS / 2);
    let price = RatePerBillion::new(2_500 + 25 * (days % 8));
    Clearing {
        batch_id: BatchId::new(point(usize::try_from(days).unwrap_or(0))),
        event_at: at,
        seen_at: at,
        duration: BlockCount::new(2_016),
        price,
        pairs: vec![ClearedPair {
            ask_rate: RatePerBillion::new(1_800 + 10 * days),
            bid_rate: price,
            units: UnitCount::new(50),
        }],
        batch_fee_rate: SatPerKw::new(253),
    }
}
