//! Requests that come out of turn.

use crate::trade::{Stage, batch_id};
use tidegate_ports::{ClientMessage, ServerMessage};
use tidegate_protocol::account::{AccountState, AccountVersion};

#[test]
fn sign_and_finalize_without_a_batch_do_nothing() {
    let (mut stage, ask, bid) = Stage::with_orders(AccountVersion::V2);
    let mut made = stage.venue.make(batch_id(1), ask, bid, 4, 800, 500);
    let venue = stage.venue.clone();
    stage.sim.wait(venue.ask_to_sign(&mut made));
    stage.venue.finalize(&made);
    stage.sim.settle();
    for who in ["alice", "bob"] {
        assert!(matches!(stage.venue.heard(who), Some(ClientMessage::Reject(_))), "{who}");
        assert_eq!(stage.venue.heard(who), None);
        assert_eq!(stage.state(who), AccountState::Open);
    }
}

/// A repeated round has the same id, so that a venue may take a late answer for the present one and ask too early.
#[test]
fn a_request_to_sign_that_comes_too_early_waits_for_the_acceptance() {
    let (mut stage, ask, bid) = Stage::with_orders(AccountVersion::V2);
    let mut made = stage.venue.make(batch_id(1), ask, bid, 4, 800, 500);
    let venue = stage.venue.clone();
    stage.accepted(&made);
    // Told again and asked in one breath: alice is still verifying.
    venue.say("alice", ServerMessage::Prepare(Box::new(made.prepares["alice"].clone())));
    stage.sim.wait(venue.ask_to_sign(&mut made));
    stage.sim.settle();
    assert_eq!(stage.venue.heard("alice"), Some(ClientMessage::Accept { batch_id: made.batch_id }));
    stage.sim.wait(venue.complete(&made));
}

#[test]
fn a_second_request_to_sign_gets_no_second_signature() {
    let (mut stage, ask, bid) = Stage::with_orders(AccountVersion::V2);
    let mut made = stage.venue.make(batch_id(1), ask, bid, 4, 800, 500);
    stage.signed(&mut made);
    let venue = stage.venue.clone();
    stage.sim.wait(venue.ask_to_sign(&mut made));
    stage.sim.settle();
    assert!(matches!(stage.venue.heard("alice"), Some(ClientMessage::Reject(_))));
    assert_eq!(stage.status("alice").pending_batches.len(), 1, "what was signed stays");
}
