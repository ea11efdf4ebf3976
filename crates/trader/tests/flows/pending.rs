//! Batches that are signed and not settled, and what proposals leave behind, whatever comes in between.

use crate::trade::{ALICE, Stage, batch_id};
use crate::venue::Made;
use bitcoin::OutPoint;
use tidegate_ports::*;
use tidegate_protocol::account::{AccountState, AccountVersion};
use tidegate_protocol::batch::RejectReason;
use tidegate_protocol::keys::OrderNonce;
use tidegate_protocol::order::OrderState;
use tidegate_protocol::units::*;
use tidegate_sandbox::SandboxNode;
use tidegate_trader::{CloseError, OpenAccount, OpenError, TABLES};

/// Channels that a node holds, pending or open.
fn channels(node: &SandboxNode) -> Vec<OutPoint> {
    let records = node.channel_records().into_iter().filter(|record| !record.abandoned);
    records.map(|record| record.channel_point).collect()
}

fn rows(stage: &mut Stage, table: &str) -> usize {
    let store = stage.alice.store.clone();
    let rows = stage.sim.wait(async move { store.load(&TABLES).await }).unwrap().1;
    rows.iter().filter(|row| row.table == table).count()
}

fn request(value: Sats, blocks: u32) -> OpenAccount {
    OpenAccount { value, expiry_blocks: BlockCount::new(blocks), version: AccountVersion::V2, fee_rate: None }
}

/// Alice has an ask on each of two accounts; she signed a batch of the first one.
struct TwoAccounts {
    stage: Stage,
    first: Made,
    transaction: bitcoin::Transaction,
    channel: OutPoint,
    second_ask: OrderNonce,
    bid: OrderNonce,
}

fn signed_on_the_first_of_two_accounts() -> TwoAccounts {
    let (mut stage, ask, bid) = Stage::with_orders(AccountVersion::V2);
    let first_account = stage.status("alice").accounts[0].key();
    let handle = stage.handle("alice");
    let wanted = request(Sats::constant(3_000_000), 4_000);
    stage.sim.wait(async move { handle.open_account(wanted).await }).unwrap();
    stage.sim.settle();
    stage.mine(3);
    let accounts = stage.status("alice").accounts;
    let second = accounts.iter().map(|account| account.key()).find(|key| *key != first_account).unwrap();
    let mut order = stage.new_order("alice", 600, 10, 1, 1_000);
    order.account = second;
    let handle = stage.handle("alice");
    let second_ask = stage.sim.wait(async move { handle.submit_order(order).await }).unwrap();
    let mut first = stage.venue.make(batch_id(1), ask, bid, 2, 800, 500);
    let transaction = stage.signed(&mut first);
    let channel = channels(&stage.alice.node)[0];
    TwoAccounts { stage, first, transaction, channel, second_ask, bid }
}

#[test]
fn a_lost_finalize_is_made_up_for_before_the_next_proposal_is_judged() {
    let TwoAccounts { mut stage, first, transaction, channel, second_ask, bid } = signed_on_the_first_of_two_accounts();
    stage.venue.publish_snapshot(&first);
    stage.venue.book(&first);
    stage.venue.finalize_for("bob", &first);
    stage.sim.settle();
    assert_eq!(stage.status("alice").pending_batches.len(), 1, "she did not hear of it");
    let next = stage.venue.make(batch_id(2), second_ask, bid, 2, 800, 500);
    stage.accepted(&next);
    assert_eq!(stage.status("alice").leases.len(), 1, "booked on the venue's word");
    assert_eq!(channels(&stage.alice.node), [channel]);
    stage.world.publish(&transaction).unwrap();
    stage.mine(4);
    let node = stage.alice.node.clone();
    let active = stage.sim.wait(async move { node.active_channels().await }).unwrap();
    assert_eq!(active.iter().map(|(channel, _)| *channel).collect::<Vec<_>>(), [channel]);
}

#[test]
fn a_proposal_leaves_a_signed_batch_of_another_account_alone() {
    let TwoAccounts { mut stage, first, channel, second_ask, bid, .. } = signed_on_the_first_of_two_accounts();
    let mut next = stage.venue.make(batch_id(2), second_ask, bid, 2, 800, 500);
    stage.signed(&mut next);
    assert_eq!(stage.status("alice").pending_batches.len(), 2, "neither excludes the other");
    assert!(channels(&stage.alice.node).contains(&channel));
    for made in [&first, &next] {
        stage.venue.finalize_for("alice", made);
    }
    stage.sim.settle();
    assert_eq!(stage.status("alice").leases.len(), 2);
    assert_eq!(channels(&stage.alice.node).len(), 2);
}

#[test]
fn a_finalize_of_another_account_does_not_end_the_batch_under_way() {
    let TwoAccounts { mut stage, first, second_ask, bid, .. } = signed_on_the_first_of_two_accounts();
    let mut next = stage.venue.make(batch_id(2), second_ask, bid, 2, 800, 500);
    stage.accepted(&next);
    stage.venue.finalize_for("alice", &first);
    stage.sim.settle();
    let venue = stage.venue.clone();
    stage.sim.wait(venue.ask_to_sign(&mut next));
    stage.sim.settle();
    assert!(stage.venue.all_signed(&next));
}

#[test]
fn a_proposal_is_refused_while_the_venue_does_not_tell_of_a_signed_batch() {
    let TwoAccounts { mut stage, channel, second_ask, bid, .. } = signed_on_the_first_of_two_accounts();
    let next = stage.venue.make(batch_id(2), second_ask, bid, 2, 800, 500);
    stage.venue.hide_snapshots(true);
    stage.venue.propose(&next);
    stage.sim.settle();
    match stage.venue.heard("alice") {
        Some(ClientMessage::Reject(reject)) => assert_eq!(reject.reason, RejectReason::Unknown, "{}", reject.message),
        other => panic!("{other:?}"),
    }
    assert_eq!(stage.status("alice").pending_batches.len(), 1);
    assert_eq!(channels(&stage.alice.node), [channel]);
    stage.venue.clear(&next);
    stage.venue.hide_snapshots(false);
    stage.accepted(&next);
}

#[test]
fn a_batch_may_follow_one_whose_finalize_was_lost_on_the_same_account() {
    let (mut stage, ask, bid) = Stage::with_orders(AccountVersion::V2);
    let mut first = stage.venue.make(batch_id(1), ask, bid, 2, 800, 500);
    stage.signed(&mut first);
    stage.venue.publish_snapshot(&first);
    stage.venue.book(&first);
    let mut next = stage.venue.make(batch_id(2), ask, bid, 2, 800, 500);
    stage.signed(&mut next);
    assert_eq!(stage.status("alice").leases.len(), 1);
}

#[test]
fn a_close_that_a_signed_batch_holds_up_finds_the_venues_decision() {
    let (mut stage, ask, bid) = Stage::with_orders(AccountVersion::V2);
    let mut made = stage.venue.make(batch_id(1), ask, bid, 4, 800, 500);
    stage.signed(&mut made);
    let handle = stage.handle("alice");
    stage.sim.wait(async move { handle.cancel_order(ask).await }).unwrap();
    let other = stage.venue.make(batch_id(1), ask, bid, 4, 800, 600);
    stage.venue.publish_snapshot(&other);
    assert_eq!(stage.close("alice"), Err(CloseError::InBatch));
    assert!(stage.close("alice").is_ok(), "the venue made another batch final");
}

#[test]
fn an_order_cancelled_after_it_was_signed_stays_cancelled() {
    let (mut stage, ask, bid) = Stage::with_orders(AccountVersion::V2);
    let mut made = stage.venue.make(batch_id(1), ask, bid, 4, 800, 500);
    let transaction = stage.signed(&mut made);
    let handle = stage.handle("alice");
    stage.sim.wait(async move { handle.cancel_order(ask).await }).unwrap();
    stage.venue.finalize(&made);
    stage.venue.book(&made);
    stage.sim.settle();
    let status = stage.status("alice");
    let found = (status.orders[0].state, status.orders[0].units_unfulfilled);
    assert_eq!(found, (OrderState::Canceled, UnitCount::new(6)));
    assert_eq!(status.reserved.values().copied().collect::<Vec<_>>(), [Sats::ZERO]);
    stage.world.publish(&transaction).unwrap();
    stage.mine(3);
    stage.assert_traded(&made);
    assert!(stage.close("alice").is_ok(), "nothing holds the account");
}

#[test]
fn a_channel_opened_for_a_signature_that_was_never_stored_is_given_up_at_the_next_start() {
    let (mut stage, ask, bid) = Stage::with_orders(AccountVersion::V2);
    let mut made = stage.venue.make(batch_id(1), ask, bid, 2, 800, 500);
    stage.accepted(&made);
    assert_eq!(rows(&mut stage, "remains"), 1, "what it may leave is known before it leaves it");
    stage.alice.store.stop_after(0);
    let venue = stage.venue.clone();
    stage.sim.wait(venue.ask_to_sign(&mut made));
    stage.sim.settle();
    assert_eq!(channels(&stage.alice.node).len(), 1);
    // Also while the venue is away.
    stage.venue.set_down(true);
    stage.restart("alice");
    stage.sim.settle();
    assert!(channels(&stage.alice.node).is_empty());
    assert_eq!(rows(&mut stage, "remains"), 0);
    assert_eq!(stage.status("alice").pending_batches, []);
}

#[test]
fn the_channel_of_a_signed_batch_is_not_given_up_at_the_next_start() {
    let (mut stage, ask, bid) = Stage::with_orders(AccountVersion::V2);
    let mut made = stage.venue.make(batch_id(1), ask, bid, 2, 800, 500);
    stage.signed(&mut made);
    assert_eq!(rows(&mut stage, "remains"), 0, "the signed batch says it");
    stage.restart("alice");
    stage.sim.settle();
    assert_eq!(channels(&stage.alice.node).len(), 1);
}

#[test]
fn a_superseded_channel_is_given_up_also_by_a_trader_that_was_cut_while_it_did() {
    let (mut stage, ask, bid) = Stage::with_orders(AccountVersion::V2);
    let mut first = stage.venue.make(batch_id(1), ask, bid, 4, 800, 500);
    stage.signed(&mut first);
    let second = stage.venue.make(batch_id(1), ask, bid, 4, 800, 600);
    // The commit that takes the first one's place is made, the one after the cleaning is not.
    stage.alice.store.stop_after(1);
    stage.venue.propose(&second);
    stage.sim.settle();
    stage.restart("alice");
    stage.sim.settle();
    assert!(channels(&stage.alice.node).is_empty());
    assert_eq!(rows(&mut stage, "remains"), 0);
    assert_eq!(rows(&mut stage, "staged"), 1, "it may still confirm");
}

/// Two final batches in a row, the first one unconfirmed.
fn chained() -> (Stage, [bitcoin::Transaction; 2]) {
    let (mut stage, ask, bid) = Stage::with_orders(AccountVersion::V2);
    let transactions = [1, 2].map(|number| {
        let mut made = stage.venue.make(batch_id(number), ask, bid, 2, 800, 500);
        let transaction = stage.signed(&mut made);
        stage.venue.finalize(&made);
        stage.venue.book(&made);
        stage.sim.settle();
        transaction
    });
    (stage, transactions)
}

#[test]
fn nothing_is_kept_of_batches_in_a_row_once_the_last_one_confirmed() {
    let (mut stage, transactions) = chained();
    assert_eq!(rows(&mut stage, "staged"), 2);
    for transaction in &transactions {
        stage.world.publish(transaction).unwrap();
    }
    stage.mine(3);
    assert_eq!(stage.state("alice"), AccountState::Open);
    assert_eq!(rows(&mut stage, "staged"), 0);
    assert_eq!(stage.status("alice").leases.len(), 2);
}

#[test]
fn nothing_is_kept_of_a_batch_whose_account_was_closed_before_it_confirmed() {
    let (mut stage, transactions) = chained();
    for transaction in &transactions {
        stage.world.publish(transaction).unwrap();
    }
    let ask = stage.status("alice").orders[0].order.nonce;
    let handle = stage.handle("alice");
    stage.sim.wait(async move { handle.cancel_order(ask).await }).unwrap();
    stage.close("alice").unwrap();
    stage.mine(2);
    assert_eq!(stage.state("alice"), AccountState::Closed);
    assert_eq!(rows(&mut stage, "staged"), 0);
}

#[test]
fn an_account_that_waited_for_coins_too_long_makes_room_for_another() {
    let mut stage = Stage::new();
    let handle = stage.handle("alice");
    let wanted = request(Sats::constant(50_000_000), 150);
    let found = stage.sim.wait(async move { handle.open_account(wanted).await });
    let Err(OpenError::Funding { account, .. }) = found else { panic!("{found:?}") };
    stage.mine(6);
    stage.sim.advance(120_000);
    assert_eq!(stage.state("alice"), AccountState::Initiated, "144 blocks are left: not too late");
    stage.mine(1);
    stage.sim.advance(120_000);
    assert_eq!(stage.state("alice"), AccountState::CanceledAfterRecovery);
    let node = stage.alice.node.clone();
    stage.world.fund(&node, Sats::constant(60_000_000)).unwrap();
    stage.sim.advance(120_000);
    assert_eq!(stage.payments("alice"), 0);
    let handle = stage.handle("alice");
    let other = stage.sim.wait(async move { handle.open_account(request(ALICE, 4_000)).await }).unwrap();
    assert!(other.key() != account && other.state == AccountState::PendingOpen);
}

#[test]
fn an_account_that_was_paid_in_time_is_not_cancelled_when_its_commit_was_lost() {
    let mut stage = Stage::new();
    // The reservation and the account are stored; that it is paid is not.
    stage.alice.store.stop_after(2);
    let handle = stage.handle("alice");
    let paid = stage.sim.try_wait(async move { handle.open_account(request(ALICE, 150)).await });
    assert_eq!(paid, None);
    stage.mine(10);
    stage.restart("alice");
    stage.sim.settle();
    assert_eq!(stage.state("alice"), AccountState::Open, "with the same payment");
    assert_eq!(stage.payments("alice"), 1);
}

#[test]
fn a_close_overtakes_a_signed_batch_that_the_venue_gave_up() {
    let (mut stage, ask, bid) = Stage::with_orders(AccountVersion::V2);
    let mut made = stage.venue.make(batch_id(1), ask, bid, 4, 800, 500);
    stage.signed(&mut made);
    stage.venue.clear(&made);
    let channel = channels(&stage.alice.node);
    assert_eq!(channel.len(), 1);
    let handle = stage.handle("alice");
    stage.sim.wait(async move { handle.cancel_order(ask).await }).unwrap();
    let txid = stage.close("alice").expect("the venue signs the close, so no round of its goes on");
    assert_eq!(channels(&stage.alice.node), channel, "our signature is out: only the chain gives the channel up");
    assert!(stage.status("alice").pending_batches.is_empty());
    stage.mine(1);
    assert!(stage.world.transaction(txid).unwrap().1.is_some());
    assert_eq!(stage.state("alice"), AccountState::Closed);
    assert_eq!(rows(&mut stage, "staged"), 0);
}
