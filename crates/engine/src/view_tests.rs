use super::fixtures::{self, clearing, lease, order, point, view};
use super::*;
use crate::windows::{Probe, WindowSpec, windows};
use tidegate_ports::SnapshotMatch;
use tidegate_protocol::bitcoin::absolute::LockTime;
use tidegate_protocol::bitcoin::{Transaction, transaction};
use tidegate_protocol::order::OrderChannelType;

const DAY: BlockCount = BlockCount::new(2_016);

fn later<T>(value: T, seen_at: u64) -> Seen<T> {
    Seen { event_at: Timestamp(0), seen_at: Timestamp(seen_at), value }
}

#[test]
fn as_of_hides_what_was_seen_later_whenever_it_happened() {
    let mut view = view();
    view.clearings =
        vec![clearing(1, 1_000, 2_000), Clearing { seen_at: Timestamp(9_000), ..clearing(2, 1_500, 2_000) }].into();
    view.heights.push(later(BlockHeight::new(2_000), 20_000));
    view.accounts.push(later(fixtures::account(1, 1), 20_000));
    view.leases.push(later(lease(1, Side::Ask), 20_000));
    let early = view.as_of(Timestamp(5_000));
    assert_eq!(early.clearings.len(), 1);
    assert!(early.terms().is_none() && early.node().is_none() && early.accounts().next().is_none());
    let now = view.as_of(Timestamp(10_000));
    assert_eq!(now.clearings.len(), 2);
    assert_eq!(now.height(), Some(BlockHeight::new(1_000)));
    assert_eq!(now.accounts().map(|account| account.value.get()).collect::<Vec<_>>(), [5_000_000]);
    assert_eq!(now.leases().count(), 0);
    let late = view.as_of(Timestamp(20_000));
    assert_eq!(late.height(), Some(BlockHeight::new(2_000)));
    assert_eq!(late.accounts().map(|account| account.value.get()).collect::<Vec<_>>(), [1]);
}

#[test]
fn newest_row_of_an_order_wins() {
    let mut view = view();
    view.orders.push(later(order(1, Side::Ask), 1));
    view.orders.push(later(OrderView { state: OrderState::Executed, ..order(1, Side::Ask) }, 2));
    view.orders.push(later(order(2, Side::Ask), 1));
    assert_eq!(view.orders().count(), 2);
    assert_eq!(view.live_orders().map(|order| order.nonce).collect::<Vec<_>>(), [OrderNonce::new([2; 32])]);
}

/// What the venue tells of batch `seed`, made at this second.
fn snapshot(seed: u8, second: u64, durations: &[u32]) -> BatchSnapshot {
    let pair = SnapshotMatch {
        ask_rate: RatePerBillion::new(800),
        bid_rate: RatePerBillion::new(900),
        units: UnitCount::new(4),
        channel_type: OrderChannelType::PeerDependent,
    };
    let market = || (RatePerBillion::new(900), vec![pair.clone()]);
    BatchSnapshot {
        batch_id: BatchId::new(point(seed)),
        previous: None,
        transaction: Transaction {
            version: transaction::Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![],
            output: vec![],
        },
        fee_rate: SatPerKw::new(300),
        created_ns: second * 1_000_000_000,
        markets: durations.iter().map(|blocks| (BlockCount::new(*blocks), market())).collect(),
    }
}

#[test]
fn snapshots_become_clearings_once() {
    let snapshot = snapshot(3, 7, &[2_016]);
    let mut view = view();
    view.add_snapshot(&snapshot, Timestamp(8_000));
    view.add_snapshot(&snapshot, Timestamp(9_000));
    assert_eq!(view.clearings.len(), 1);
    assert_eq!((view.clearings[0].event_at, view.clearings[0].seen_at), (Timestamp(7_000), Timestamp(8_000)));
}

/// As it was done before: look through all, append, sort all.
fn add_by_sorting(clearings: &mut Vec<Clearing>, snapshot: &BatchSnapshot, seen_at: Timestamp) {
    let mut fresh = MarketView::default();
    fresh.add_snapshot(snapshot, seen_at);
    fresh
        .clearings
        .retain(|new| !clearings.iter().any(|known| (known.batch_id, known.duration) == (new.batch_id, new.duration)));
    clearings.append(&mut fresh.clearings);
    clearings.sort_by_key(|clearing| (clearing.event_at, clearing.duration));
}

#[test]
fn snapshots_take_their_places_in_whatever_order_they_are_told() {
    // Two batches of one moment, batches of several durations, each told several times and in each order.
    let told = [
        snapshot(1, 7, &[2_016, 4_032]),
        snapshot(2, 7, &[2_016]),
        snapshot(3, 5, &[4_032]),
        snapshot(4, 9, &[2_016, 4_032, 6_048]),
        snapshot(5, 7, &[4_032, 6_048]),
    ];
    let count = told.len();
    for number in 0..count.pow(6) {
        let (mut view, mut sorted) = (MarketView::default(), Vec::new());
        for step in 0..6 {
            let snapshot = &told[number / count.pow(step) % count];
            let seen_at = Timestamp(10_000 + u64::from(step));
            view.add_snapshot(snapshot, seen_at);
            add_by_sorting(&mut sorted, snapshot, seen_at);
        }
        assert_eq!(*view.clearings, sorted, "{number}");
    }
}

#[test]
fn unrated_sellers_reach_only_bids_without_a_tier_wish() {
    let mut view = view();
    let bids = Interest { orders_tier0: 1, orders_tier1: 1, units_tier0: 5, units_tier1: 20 };
    let interest = MarketInterest { asks: Interest::default(), bids };
    assert_eq!(view.bid_interest(DAY), None);
    view.interest.push(later(BTreeMap::from([(DAY, interest)]), 1));
    assert_eq!(view.bid_interest(DAY), Some((5, 25)));
    assert_eq!(view.bid_interest(BlockCount::new(4_032)), Some((0, 0)));
    view.ratings.push(later(Rating { node: NodeId::new(point(9)), tier: NodeTier::Tier1 }, 1));
    assert_eq!(view.bid_interest(DAY), Some((25, 25)));
    view.orders.push(later(order(1, Side::Bid), 1));
    assert_eq!(view.bid_interest(DAY), Some((15, 15)));
    view.ratings.push(later(Rating { node: NodeId::new(point(9)), tier: NodeTier::Tier0 }, 2));
    assert_eq!(view.bid_interest(DAY), Some((5, 15)));
}

#[test]
fn ask_interest_is_net_of_own_asks_and_of_the_tier() {
    let mut view = view();
    let asks = Interest { orders_tier0: 2, orders_tier1: 1, units_tier0: 30, units_tier1: 7 };
    view.interest.push(later(BTreeMap::from([(DAY, MarketInterest { asks, bids: Interest::default() })]), 1));
    view.orders.push(later(order(1, Side::Ask), 1));
    assert_eq!(view.ask_interest(DAY, NodeTier::Tier0), Some(27));
    assert_eq!(view.ask_interest(DAY, NodeTier::Tier1), Some(7));
}

#[test]
fn fee_quantile_is_the_nearest_rank() {
    let mut view = view();
    assert_eq!(view.fee_rate_quantile(800_000), None);
    view.fee_rates = [500, 100, 400, 200, 300].map(|rate| later(SatPerKw::new(rate), 1)).to_vec();
    for (ppm, rate) in [(0, 100), (200_000, 100), (800_000, 400), (1_000_000, 500)] {
        assert_eq!(view.fee_rate_quantile(ppm), Some(SatPerKw::new(rate)), "{ppm}");
    }
}

#[test]
fn windows_count_silence_and_take_own_pairs_out() {
    let mut view = view();
    let own = lease(2, Side::Ask);
    view.clearings = vec![clearing(1, 1_500, 2_400), clearing(2, 4_500, 2_500)].into();
    view.leases.push(later(LeaseView { booked_at: Timestamp(4_600), ..own }, 1));
    let spec = WindowSpec { length_ms: 3_000, max_windows: 10 };
    let cut = windows(&view, DAY, Side::Ask, UnitCount::new(1), spec);
    // (7,10] silent, (4,7] our own lease, (1,4] a foreign one, (-2,1] observed only in part.
    assert_eq!(cut.len(), 4);
    assert!(cut[0].batches.is_empty() && cut[0].probes.is_empty());
    assert!(cut[1].batches[0].pairs.is_empty());
    assert_eq!(cut[1].probes, [Probe::Filled { rate: RatePerBillion::new(2_000), units: UnitCount::new(10) }]);
    assert_eq!(cut[2].batches[0].pairs.len(), 1);
    let large = windows(&view, DAY, Side::Ask, UnitCount::new(11), spec);
    assert!(large[2].batches[0].pairs.is_empty() && large[2].batches[0].highest_ask.is_some());
}

#[test]
fn an_order_that_stood_through_a_window_is_a_probe() {
    let mut view = view();
    view.orders.push(later(OrderView { placed_at: Timestamp(5_000), ..order(1, Side::Ask) }, 1));
    let spec = WindowSpec { length_ms: 2_000, max_windows: 10 };
    let cut = windows(&view, DAY, Side::Ask, UnitCount::new(1), spec);
    let probes: Vec<usize> = cut.iter().map(|window| window.probes.len()).collect();
    assert_eq!(probes, [1, 1, 0, 0, 0]);
    assert!(windows(&view, DAY, Side::Bid, UnitCount::new(1), spec).iter().all(|window| window.probes.is_empty()));
}

#[test]
fn copies_share_the_history_until_one_changes() {
    let mut view = view();
    view.clearings = vec![clearing(1, 1_000, 2_000), clearing(2, 1_500, 2_000)].into();
    let address = view.clearings.as_ptr();
    let (copy, now) = (view.clone(), view.as_of(Timestamp(10_000)));
    assert_eq!([copy.clearings.as_ptr(), now.clearings.as_ptr()], [address; 2], "shared");
    let mut changed = copy;
    changed.add_snapshot(&snapshot(3, 7, &[2_016]), Timestamp(8_000));
    assert_eq!((changed.clearings.len(), view.clearings.len()), (3, 2));
    // Nobody else looks at it any more: it grows where it is, and a known batch leaves it alone.
    drop(now);
    view.clearings.reserve(1);
    let address = view.clearings.as_ptr();
    let lent = view.clone();
    view.add_snapshot(&snapshot(1, 1, &[2_016]), Timestamp(9_000));
    let before = view.clearings.as_ptr();
    drop(lent);
    view.add_snapshot(&snapshot(4, 9, &[2_016]), Timestamp(9_000));
    assert_eq!((before, view.clearings.as_ptr(), view.clearings.len()), (address, address, 3));
}

#[test]
fn views_survive_json() {
    let mut view = view();
    view.clearings.push(clearing(1, 1_000, 2_000));
    view.orders.push(later(order(1, Side::Bid), 1));
    view.leases.push(later(lease(1, Side::Bid), 1));
    view.interest.push(later(BTreeMap::from([(DAY, MarketInterest::default())]), 1));
    let text = serde_json::to_string(&view).unwrap();
    assert_eq!(serde_json::from_str::<MarketView>(&text).unwrap(), view);
}
