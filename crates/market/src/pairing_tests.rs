//! Which orders meet, at which price: one case per rule.

use crate::testkit::{ask, ask_terms, bid, bid_terms, nonce, point};
use crate::{BookOrder, Conflicts, MAX_PAIRS, Market, Pair, PairingRules, clear};
use tidegate_protocol::batch::BatchVersion;
use tidegate_protocol::keys::NodeId;
use tidegate_protocol::order::{AnnouncementConstraint, ConfirmationConstraint, OrderChannelType};
use tidegate_protocol::order::{AuctionType, NodeTier, OrderVersion};
use tidegate_protocol::units::{BlockCount, RatePerBillion, Sats, UnitCount};

fn cleared(orders: &[BookOrder]) -> Option<Market> {
    let conflicts = Conflicts::new();
    let rules = PairingRules { conflicts: &conflicts, ratings_enabled: true, max_pairs: MAX_PAIRS };
    let mut markets = clear(orders, &rules);
    assert!(markets.len() <= 1);
    markets.remove(&BlockCount::new(2016))
}

fn names(market: &Market) -> Vec<(u32, u32, u32)> {
    let number = |wanted| (0..100).find(|n| nonce(*n) == wanted).unwrap();
    let row = |pair: &Pair| (number(pair.ask.order.nonce), number(pair.bid.order.nonce), pair.units.get());
    market.pairs.iter().map(row).collect()
}

/// The rules that stop a pair, each alone.
#[test]
fn each_predicate_alone_keeps_a_pair_apart() {
    type Spoil = fn(&mut BookOrder, &mut BookOrder);
    let rows: [(&str, Spoil); 15] = [
        ("same account", |a, b| b.submitted.order.account = a.submitted.order.account),
        ("same node", |a, b| b.submitted.node = a.submitted.node),
        ("same owner", |a, b| b.owner = a.owner),
        ("ask dearer than bid", |a, b| a.submitted.order.rate = RatePerBillion::new(b.submitted.order.rate.get() + 1)),
        ("other duration", |a, _| a.submitted.order.duration = BlockCount::new(4032)),
        ("other auction", |a, _| a.submitted.order.auction = AuctionType::Outbound),
        ("self balance with old ask", |a, b| {
            a.submitted.order.version = OrderVersion::V3;
            bid_terms(b).self_balance = Sats::constant(100_000);
        }),
        ("channel type", |a, _| a.submitted.order.channel_type = OrderChannelType::ScriptEnforced),
        ("node tier", |a, _| a.tier = NodeTier::Tier0),
        ("ask denies node", |a, b| a.submitted.order.denied_nodes = vec![b.submitted.node]),
        ("bid allows others", |_, b| b.submitted.order.allowed_nodes = vec![NodeId::new(point("node", 77))]),
        ("announcement", |a, _| ask_terms(a).announcement = AnnouncementConstraint::OnlyUnannounced),
        ("unannounced, old conversation", |a, b| {
            bid_terms(b).unannounced = true;
            a.batch_version = BatchVersion(1);
        }),
        ("confirmation", |a, _| ask_terms(a).confirmation = ConfirmationConstraint::OnlyZeroConf),
        ("smallest match", |a, _| a.submitted.order.min_units = UnitCount::new(3)),
    ];
    let pair = || (ask(1, 1, 10, 4), bid(2, 2, 20, 2));
    let (a, b) = pair();
    assert_eq!(cleared(&[a, b]).map(|m| names(&m)), Some(vec![(1, 2, 2)]), "unspoilt pair");
    for (rule, spoil) in rows {
        let (mut a, mut b) = pair();
        spoil(&mut a, &mut b);
        assert_eq!(cleared(&[a, b]), None, "{rule}");
    }
}

#[test]
fn a_reported_pair_does_not_meet_in_either_direction() {
    let (a, b) = (ask(1, 1, 10, 1), bid(2, 2, 20, 1));
    let (one, other) = (a.order().account, b.order().account);
    for (reporter, subject) in [(one, other), (other, one)] {
        let conflicts: Conflicts = [(reporter, subject)].into_iter().collect();
        let rules = PairingRules { conflicts: &conflicts, ratings_enabled: true, max_pairs: MAX_PAIRS };
        assert!(clear(&[a.clone(), b.clone()], &rules).is_empty());
    }
}

#[test]
fn tiers_do_not_count_when_ratings_are_off() {
    let (mut a, b) = (ask(1, 1, 10, 1), bid(2, 2, 20, 1));
    a.tier = NodeTier::Tier0;
    let rules = PairingRules { conflicts: &Conflicts::new(), ratings_enabled: false, max_pairs: MAX_PAIRS };
    assert_eq!(clear(&[a, b], &rules).len(), 1);
}

#[test]
fn the_last_accepted_bid_sets_the_price_for_all() {
    let market =
        cleared(&[ask(1, 1, 5, 3), ask(2, 2, 8, 5), bid(3, 3, 30, 4), bid(4, 4, 12, 2), bid(5, 5, 7, 9)]).unwrap();
    assert_eq!(names(&market), vec![(1, 3, 3), (2, 3, 1), (2, 4, 2)]);
    assert_eq!(market.price, RatePerBillion::new(12));
}

#[test]
fn ties_keep_the_order_of_arrival() {
    let market = cleared(&[ask(1, 1, 5, 1), ask(2, 2, 5, 1), bid(3, 3, 9, 1)]).unwrap();
    assert_eq!(names(&market), vec![(1, 3, 1)]);
}

#[test]
fn a_pair_whose_ask_is_dearer_than_the_price_is_removed() {
    // The best bid may only meet the dear ask; the cheap ask serves the lower bid, which sets the price.
    let mut picky = bid(3, 3, 30, 1);
    picky.submitted.order.denied_nodes = vec![ask(1, 1, 5, 1).submitted.node];
    let market = cleared(&[ask(1, 1, 5, 1), ask(2, 2, 20, 1), picky, bid(4, 4, 10, 1)]).unwrap();
    assert_eq!(names(&market), vec![(1, 4, 1)]);
    assert_eq!(market.price, RatePerBillion::new(10));
}

#[test]
fn a_self_balance_is_filled_by_one_ask_or_not_at_all() {
    let mut wants = bid(3, 3, 30, 4);
    wants.submitted.order.min_units = UnitCount::new(4);
    bid_terms(&mut wants).self_balance = Sats::constant(100_000);
    let market = cleared(&[ask(1, 1, 5, 3), ask(2, 2, 6, 4), wants]).unwrap();
    assert_eq!(names(&market), vec![(2, 3, 4)]);
}

#[test]
fn outbound_matches_one_unit_and_the_self_balance_meets_the_smallest_channel() {
    let outbound = |order: &mut BookOrder| order.submitted.order.auction = AuctionType::Outbound;
    let (mut a, mut b) = (ask(1, 1, 5, 1), bid(2, 2, 9, 1));
    outbound(&mut a);
    outbound(&mut b);
    a.submitted.order.min_units = UnitCount::new(10);
    bid_terms(&mut b).self_balance = Sats::constant(900_000);
    assert_eq!(cleared(&[a.clone(), b.clone()]), None);
    bid_terms(&mut b).self_balance = Sats::constant(1_000_000);
    assert_eq!(cleared(&[a, b]).map(|m| names(&m)), Some(vec![(1, 2, 1)]));
}

#[test]
fn the_pairs_of_lowest_priority_leave_a_batch_that_is_too_large() {
    let orders: Vec<_> = (0..5).flat_map(|n| [ask(n, n, 5, 1), bid(50 + n, 50 + n, 40 - n, 1)]).collect();
    let rules = PairingRules { conflicts: &Conflicts::new(), ratings_enabled: true, max_pairs: 3 };
    let market = clear(&orders, &rules).remove(&BlockCount::new(2016)).unwrap();
    assert_eq!(names(&market), vec![(0, 50, 1), (1, 51, 1), (2, 52, 1)]);
    assert_eq!(market.price, RatePerBillion::new(38));
}
