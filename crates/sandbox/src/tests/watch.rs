//! The chain as a consumer sees it.

use super::{anyone, funded, now, sats, unsigned};
use crate::{SandboxNode, World};
use bitcoin::{OutPoint, Transaction};
use core::pin::pin;
use futures_util::FutureExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use tidegate_ports::{Chain, ChainEvent, NodeError, Watch};
use tidegate_protocol::units::BlockHeight;

fn height(number: u32) -> BlockHeight {
    BlockHeight::new(number)
}

fn block(number: u32) -> ChainEvent {
    ChainEvent::Block { height: height(number) }
}

/// Every event that is ready.
fn drain(node: &SandboxNode) -> Vec<ChainEvent> {
    core::iter::from_fn(|| node.next_event().now_or_never()).map(|event| event.expect("an event")).collect()
}

/// A spend of an output that anyone may spend; the output is confirmed in block 502.
fn spendable() -> (World, SandboxNode, OutPoint, Transaction) {
    let (world, node) = funded(10_000);
    let outpoint = world.pay(anyone().0, sats(100_000)).expect("paid");
    world.mine(1);
    let mut tx = unsigned(&node, outpoint, 1_000, 0);
    tx.input[0].witness = anyone().1;
    drain(&node);
    (world, node, outpoint, tx)
}

fn confirmation(tx: &Transaction, confirmations: u32, hint: u32) -> Watch {
    let script = tx.output[0].script_pubkey.clone();
    Watch::Confirmation { txid: tx.compute_txid(), script, confirmations, height_hint: height(hint) }
}

fn spend(outpoint: OutPoint, hint: u32) -> Watch {
    Watch::Spend { outpoint, script: anyone().0, height_hint: height(hint) }
}

#[test]
fn tells_blocks_then_spends_and_confirmations_in_the_order_of_the_chain() {
    let (world, node, outpoint, tx) = spendable();
    now(node.watch("deep", confirmation(&tx, 3, 500))).expect("watching");
    now(node.watch("first", confirmation(&tx, 1, 500))).expect("watching");
    now(node.watch("spend", spend(outpoint, 500))).expect("watching");
    world.publish(&tx).expect("accepted");
    assert_eq!(drain(&node), [], "the mempool is no block");
    world.mine(4);
    let confirmed =
        |name: &str| ChainEvent::Confirmed { name: name.into(), height: height(503), transaction: tx.clone() };
    let spent = ChainEvent::Spent { name: "spend".into(), height: height(503), transaction: tx.clone() };
    let expected = [block(503), confirmed("first"), spent, block(504), block(505), confirmed("deep"), block(506)];
    assert_eq!(drain(&node), expected);
    world.mine(1);
    assert_eq!(drain(&node), [block(507)], "each watch fires once");
}

#[test]
fn fires_for_what_happened_before_the_watch() {
    let (world, node, outpoint, tx) = spendable();
    world.publish(&tx).expect("accepted");
    world.mine(3);
    drain(&node);
    now(node.watch("c", confirmation(&tx, 3, 503))).expect("watching");
    now(node.watch("s", spend(outpoint, 503))).expect("watching");
    now(node.watch("deeper", confirmation(&tx, 4, 503))).expect("watching");
    let names = |events: Vec<ChainEvent>| -> Vec<String> {
        let name = |event| match event {
            ChainEvent::Confirmed { name, .. } | ChainEvent::Spent { name, .. } => name,
            ChainEvent::Block { height } => height.to_string(),
        };
        events.into_iter().map(name).collect()
    };
    assert_eq!(names(drain(&node)), ["c", "s"]);
    world.mine(1);
    assert_eq!(names(drain(&node)), ["506", "deeper"]);
}

#[test]
fn finds_nothing_below_the_hint_or_with_another_script() {
    let (world, node, outpoint, tx) = spendable();
    world.publish(&tx).expect("accepted");
    world.mine(1);
    drain(&node);
    let script = tx.output[0].script_pubkey.clone();
    now(node.watch("late", confirmation(&tx, 1, 504))).expect("watching");
    now(node.watch("late spend", spend(outpoint, 504))).expect("watching");
    let wrong = Watch::Spend { outpoint, script, height_hint: height(500) };
    now(node.watch("wrong", wrong)).expect("watching");
    let txid = tx.compute_txid();
    let wrong = Watch::Confirmation { txid, script: anyone().0, confirmations: 1, height_hint: height(500) };
    now(node.watch("wrong too", wrong)).expect("watching");
    assert_eq!(drain(&node), []);
    let none = now(node.watch("none", confirmation(&tx, 0, 500)));
    assert!(matches!(none, Err(NodeError::Refused { .. })), "{none:?}");
}

#[test]
fn replaced_and_ended_watches_are_silent_even_when_they_fired_unread() {
    let (world, node, outpoint, tx) = spendable();
    world.publish(&tx).expect("accepted");
    world.mine(1);
    drain(&node);
    now(node.watch("x", spend(outpoint, 500))).expect("watching");
    now(node.watch("x", confirmation(&tx, 2, 500))).expect("watching");
    now(node.watch("y", spend(outpoint, 500))).expect("watching");
    now(node.unwatch("y")).expect("ended");
    now(node.unwatch("unknown")).expect("no error");
    assert_eq!(drain(&node), []);
    world.mine(1);
    let confirmed = ChainEvent::Confirmed { name: "x".into(), height: height(503), transaction: tx };
    assert_eq!(drain(&node), [block(504), confirmed]);
}

#[test]
fn restart_forgets_watches_and_starts_at_the_best_block() {
    let (world, node, outpoint, tx) = spendable();
    now(node.watch("s", spend(outpoint, 500))).expect("watching");
    world.publish(&tx).expect("accepted");
    world.mine(2);
    node.restart();
    assert_eq!(drain(&node), []);
    assert_eq!(now(node.best_height()), Ok(height(504)));
    world.mine(1);
    assert_eq!(drain(&node), [block(505)]);
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn waiting_consumer_is_woken_and_a_dropped_wait_loses_nothing() {
    let (world, node, ..) = spendable();
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    let mut context = Context::from_waker(&waker);
    {
        let mut wait = pin!(node.next_event());
        assert!(wait.as_mut().poll(&mut context).is_pending());
        assert!(wait.as_mut().poll(&mut context).is_pending());
        world.mine(1);
        assert_eq!(count.0.load(Ordering::SeqCst), 1, "woken once");
        // Dropped here without being asked again.
    }
    assert_eq!(now(node.next_event()), Ok(block(503)));
}
