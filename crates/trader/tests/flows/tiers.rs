//! A bid that asks for a rated node is matched with one, as far as the venue tells.

use crate::trade::{Stage, batch_id};
use crate::venue::Made;
use std::collections::BTreeMap;
use tidegate_ports::*;
use tidegate_protocol::account::AccountVersion;
use tidegate_protocol::batch::RejectReason;
use tidegate_protocol::order::NodeTier;
use tidegate_trader::{OrderEvent, OrderEventKind, TABLES};

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
    let events = events.map(|row| serde_json::from_str::<OrderEvent>(&row.value).unwrap());
    events.filter(|event| event.kind == OrderEventKind::TierUnverified).count()
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
