//! Reorganisations: blocks are taken back, transactions wait again, watchers are told anew.

use super::{anyone, funded, now, sats, unsigned};
use crate::{GENESIS_HEIGHT, World};
use futures_util::FutureExt;
use tidegate_ports::{Chain, ChainEvent, Wallet, Watch};
use tidegate_protocol::units::BlockHeight;

fn drain(node: &crate::SandboxNode) -> Vec<ChainEvent> {
    core::iter::from_fn(|| node.next_event().now_or_never()).map(|event| event.expect("an event")).collect()
}

fn names(events: Vec<ChainEvent>) -> Vec<String> {
    let name = |event| match event {
        ChainEvent::Block { height } => height.to_string(),
        ChainEvent::Confirmed { name, height, .. } | ChainEvent::Spent { name, height, .. } => {
            format!("{name}@{height}")
        }
    };
    events.into_iter().map(name).collect()
}

#[test]
fn transactions_wait_again_and_satoshi_are_conserved() {
    let (world, node) = funded(10_000);
    let outpoint = world.pay(anyone().0, sats(100_000)).expect("paid");
    let height = world.mine(1);
    let mut tx = unsigned(&node, outpoint, 1_000, 0);
    tx.input[0].witness = anyone().1;
    world.publish(&tx).expect("accepted");
    world.mine(1);
    assert_eq!(world.transaction(tx.compute_txid()).expect("known").1, Some(BlockHeight::new(height.get() + 1)));
    let (unspent, mined) = world.satoshi();
    assert_eq!(unspent, mined);
    // Two blocks go, three come, all empty: parent and child wait.
    let after = world.reorganise(2, 3);
    assert_eq!(after, BlockHeight::new(height.get() + 2));
    let waiting: Vec<_> = world.mempool().iter().map(bitcoin::Transaction::compute_txid).collect();
    assert_eq!(waiting, [outpoint.txid, tx.compute_txid()], "parents first");
    let (unspent, mined) = world.satoshi();
    assert_eq!(unspent, mined);
    world.mine(1);
    assert!(world.mempool().is_empty());
    assert_eq!(world.transaction(tx.compute_txid()).expect("known").1, Some(BlockHeight::new(after.get() + 1)));
    let (unspent, mined) = world.satoshi();
    assert_eq!(unspent, mined);
}

#[test]
fn watches_tell_again_what_was_undone() {
    let (world, node) = funded(10_000);
    let outpoint = world.pay(anyone().0, sats(100_000)).expect("paid");
    world.mine(1);
    let mut tx = unsigned(&node, outpoint, 1_000, 0);
    tx.input[0].witness = anyone().1;
    drain(&node);
    let script = anyone().0;
    let hint = BlockHeight::new(500);
    now(node.watch("spend", Watch::Spend { outpoint, script, height_hint: hint })).expect("watching");
    let (txid, script) = (tx.compute_txid(), tx.output[0].script_pubkey.clone());
    now(node.watch("conf", Watch::Confirmation { txid, script, confirmations: 2, height_hint: hint }))
        .expect("watching");
    world.publish(&tx).expect("accepted");
    world.mine(2);
    assert_eq!(names(drain(&node)), ["503", "spend@503", "504", "conf@503"]);
    // The spend moves from block 503 to block 504, of a branch that begins after 502.
    world.reorganise(2, 1);
    assert_eq!(names(drain(&node)), ["503", "504", "spend@504", "505", "conf@504"]);
    world.reorganise(1, 0);
    assert_eq!(names(drain(&node)), ["505", "506"], "what was not undone is not told again");
    now(node.unwatch("spend")).expect("ended");
    world.reorganise(3, 0);
    assert_eq!(names(drain(&node)), ["504", "505", "conf@504", "506", "507"]);
}

#[test]
fn a_lock_that_was_reached_holds_again() {
    let (world, node) = funded(10_000);
    let outpoint = world.pay(anyone().0, sats(100_000)).expect("paid");
    let height = world.mine(1).get();
    // Final in the block after the next.
    world.mine(1);
    let mut tx = unsigned(&node, outpoint, 1_000, height + 1);
    tx.input[0].witness = anyone().1;
    world.publish(&tx).expect("final in the next block");
    // The branch begins one block lower: its first block may not hold the transaction.
    world.reorganise(1, 0);
    assert_eq!(world.transaction(tx.compute_txid()).expect("known").1, Some(BlockHeight::new(height + 2)));
}

#[test]
fn the_first_blocks_are_never_taken_back() {
    let world = World::new(3);
    world.mine(2);
    let after = world.reorganise(50, 0);
    assert_eq!(after, BlockHeight::new(GENESIS_HEIGHT + 3));
    let node = world.add_node("alice");
    world.fund(&node, sats(50_000)).expect("rewards stay spendable");
    assert_eq!(now(node.confirmed_balance()), Ok(sats(50_000)));
}
