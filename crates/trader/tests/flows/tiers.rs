//! A bid that asks for a rated node is matched with one, as far as the venue tells.

use crate::trade::{Stage, batch_id};
use crate::venue::Made;
use std::collections::BTreeMap;
use tidegate_ports::*;
use tidegate_protocol::account::AccountVersion;
use tidegate_protocol::batch::RejectReason;
use tidegate_protocol::keys::OrderNonce;
use tidegate_protocol::order::NodeTier;
use tidegate_trader::{OrderEventKind, OrderLogEntry, TABLES, TraderConfig};

/// A proposal for a bid that asks for a rated node.
fn proposed(ratings: impl Fn(&Stage) -> Option<BTreeMap<tidegate_protocol::keys::NodeId, NodeTier>>) -> (Stage, Made) {
    let (mut stage, ask, bid) = Stage::with_orders(AccountVersion::V2);
    let ratings = ratings(&stage);
    stage.venue.set_ratings(ratings);
    let made = stage.venue.make(batch_id(1), ask, bid, 4, 800, 500);
    stage.venue.propose(&made);
    stage.sim.settle();
    (stage, made)
}

fn rated(tier: NodeTier) -> impl Fn(&Stage) -> Option<BTreeMap<tidegate_protocol::keys::NodeId, NodeTier>> {
    move |stage| Some(BTreeMap::from([(stage.alice.node.id(), tier)]))
}

/// Signs, so that the order log is written, and says how often bob's log has a node of unknown tier.
fn unverified(stage: &mut Stage, made: &mut Made) -> usize {
    let venue = stage.venue.clone();
    stage.sim.wait(venue.ask_to_sign(made));
    stage.sim.settle();
    assert!(stage.venue.all_signed(made));
    let store = stage.bob.store.clone();
    let rows = stage.sim.wait(async move { store.load(&TABLES).await }).unwrap().1;
    let events = rows.iter().filter(|row| row.table == "event");
    let events = events.map(|row| serde_json::from_str::<OrderLogEntry>(&row.value).unwrap());
    let unverified = |entry: &OrderLogEntry| match entry {
        OrderLogEntry::Matched(event) => event.kind == OrderEventKind::TierUnverified,
        OrderLogEntry::Turned(_) => false,
    };
    events.filter(unverified).count()
}

#[test]
fn refuses_a_node_that_is_rated_below_what_the_bid_asks_for() {
    let (stage, _) = proposed(rated(NodeTier::Tier0));
    match stage.venue.heard("bob") {
        Some(ClientMessage::Reject(reject)) => {
            assert_eq!(reject.reason, RejectReason::Unknown);
            assert!(reject.message.contains("wants Tier1"), "{}", reject.message);
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(stage.venue.heard("alice"), Some(ClientMessage::Accept { .. })), "asks take any node");
    assert_eq!(stage.venue.calls("ratings"), 1, "asked for the bid only");
}

#[test]
fn accepts_a_node_that_is_rated_as_the_bid_asks_for() {
    let (mut stage, mut made) = proposed(rated(NodeTier::Tier1));
    assert!(matches!(stage.venue.heard("bob"), Some(ClientMessage::Accept { .. })));
    stage.venue.clear(&made);
    assert_eq!(unverified(&mut stage, &mut made), 0);
}

#[test]
fn accepts_a_node_whose_rating_is_not_told_in_time_and_says_so_in_the_order_log() {
    let (mut stage, mut made) = proposed(|_| None);
    assert_eq!(stage.venue.heard("bob"), None, "waiting for the answer");
    stage.sim.advance(3_000);
    assert!(matches!(stage.venue.heard("bob"), Some(ClientMessage::Accept { .. })));
    stage.venue.clear(&made);
    assert_eq!(unverified(&mut stage, &mut made), 1);
}

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// How long a step waits for the ratings.
const WAIT_MS: u64 = 3_000;

/// A proposal about which the venue tells this rating, and later the next one, about which it is silent: the age of the
/// rating when that one is judged. Bob is killed and started again in between, or not.
fn asked_again(tier: NodeTier, age_ms: u64, restart: bool) -> (Stage, Made) {
    let (mut stage, made) = proposed(rated(tier));
    assert!(stage.venue.heard("bob").is_some(), "an answer to the first proposal");
    stage.venue.set_ratings(None);
    stage.sim.clock.advance(age_ms - WAIT_MS);
    stage.sim.settle();
    if restart {
        stage.restart("bob");
    }
    stage.venue.clear(&made);
    let (ask, bid) = orders(&mut stage);
    let made = stage.venue.make(batch_id(2), ask, bid, 4, 800, 500);
    stage.venue.propose(&made);
    stage.sim.settle();
    assert_eq!(stage.venue.heard("bob"), None, "waiting for the answer");
    stage.sim.advance(WAIT_MS);
    (stage, made)
}

/// The orders of alice and bob.
fn orders(stage: &mut Stage) -> (OrderNonce, OrderNonce) {
    (stage.status("alice").orders[0].order.nonce, stage.status("bob").orders[0].order.nonce)
}

#[test]
fn a_silent_venue_is_taken_at_its_last_word_for_a_day() {
    for restart in [false, true] {
        for age_ms in [60 * 60 * 1000, DAY_MS / 24 * 23, DAY_MS - 1_000] {
            let (stage, _) = asked_again(NodeTier::Tier0, age_ms, restart);
            match stage.venue.heard("bob") {
                Some(ClientMessage::Reject(reject)) => {
                    assert_eq!(reject.reason, RejectReason::Unknown);
                    assert!(reject.message.contains("wants Tier1"), "{}", reject.message);
                }
                other => panic!("{age_ms} ms, restart {restart}: {other:?}"),
            }
            let (mut stage, mut made) = asked_again(NodeTier::Tier1, age_ms, restart);
            let answer = stage.venue.heard("bob");
            assert!(matches!(answer, Some(ClientMessage::Accept { .. })), "{age_ms} ms, restart {restart}: {answer:?}");
            stage.venue.clear(&made);
            assert_eq!(unverified(&mut stage, &mut made), 0, "{age_ms} ms, restart {restart}");
        }
    }
}

#[test]
fn a_word_of_yesterday_counts_as_none() {
    for (tier, restart) in [(NodeTier::Tier0, false), (NodeTier::Tier0, true), (NodeTier::Tier1, false)] {
        let (mut stage, mut made) = asked_again(tier, DAY_MS, restart);
        let answer = stage.venue.heard("bob");
        assert!(matches!(answer, Some(ClientMessage::Accept { .. })), "{tier:?}, restart {restart}: {answer:?}");
        stage.venue.clear(&made);
        assert_eq!(unverified(&mut stage, &mut made), 1, "{tier:?}, restart {restart}");
    }
}

#[test]
fn a_new_word_takes_the_place_of_the_old_one() {
    let (mut stage, made) = proposed(rated(NodeTier::Tier0));
    assert!(matches!(stage.venue.heard("bob"), Some(ClientMessage::Reject(_))));
    let better = rated(NodeTier::Tier1)(&stage);
    stage.venue.set_ratings(better);
    stage.venue.clear(&made);
    let (ask, bid) = orders(&mut stage);
    let made = stage.venue.make(batch_id(2), ask, bid, 4, 800, 500);
    stage.venue.propose(&made);
    stage.sim.settle();
    assert!(matches!(stage.venue.heard("bob"), Some(ClientMessage::Accept { .. })));
}

#[test]
fn who_wants_rated_nodes_only_refuses_one_that_was_never_rated() {
    let (mut stage, ask, bid) = Stage::with_orders(AccountVersion::V2);
    stage.restart_with("bob", TraderConfig { reject_unrated: true, ..TraderConfig::default() });
    stage.venue.set_ratings(None);
    let made = stage.venue.make(batch_id(1), ask, bid, 4, 800, 500);
    stage.venue.clear(&made);
    stage.venue.propose(&made);
    stage.sim.settle();
    stage.sim.advance(WAIT_MS);
    match stage.venue.heard("bob") {
        Some(ClientMessage::Reject(reject)) => assert!(reject.message.contains("no recent"), "{}", reject.message),
        other => panic!("{other:?}"),
    }
}

/// What the venue tells is written with what a proposal writes anyway.
#[test]
fn remembering_costs_an_accepted_proposal_no_commit() {
    let commits = |ratings: Option<NodeTier>| {
        let (mut stage, ask, bid) = Stage::with_orders(AccountVersion::V2);
        let ratings = ratings.and_then(|tier| rated(tier)(&stage));
        stage.venue.set_ratings(ratings);
        let made = stage.venue.make(batch_id(1), ask, bid, 4, 800, 500);
        let before = stage.bob.store.writes();
        stage.venue.propose(&made);
        stage.sim.settle();
        stage.sim.advance(WAIT_MS);
        assert!(matches!(stage.venue.heard("bob"), Some(ClientMessage::Accept { .. })));
        stage.bob.store.writes() - before
    };
    assert_eq!(commits(Some(NodeTier::Tier1)), commits(None));
}
