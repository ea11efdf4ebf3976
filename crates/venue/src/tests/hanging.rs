//! A node that takes calls and never answers: everybody else is served meanwhile.

use super::bench::Bench;
use super::trader::TestTrader;
use crate::TickReason;
use core::sync::atomic::Ordering;
use futures_util::FutureExt;
use tidegate_ports::{NodeError, StreamId};
use tidegate_protocol::account::AccountVersion;

fn hang(bench: &Bench, hangs: bool) {
    bench.env.chain.hangs.store(hangs, Ordering::Relaxed);
}

/// Orders are taken and cancelled, terms told, accounts subscribed: without the clock moving.
fn serves_everybody(bench: &mut Bench, seller: &mut TestTrader, newcomer: &mut TestTrader) {
    let nonce = seller.ask(bench, 700, 1);
    let handle = bench.handle.clone();
    bench.call(handle.cancel(seller.preimages[&nonce])).expect("an order is cancelled");
    bench.call(handle.terms()).expect("terms are told");
    bench.call(handle.status()).expect("the status is told");
    newcomer.subscribe(bench);
    assert_ne!(newcomer.stream, StreamId(0));
}

#[test]
fn a_node_that_hangs_at_a_tick_keeps_nobody_waiting() {
    let mut bench = Bench::new();
    let mut seller = bench.trader("seller", AccountVersion::V2, 5_000_000);
    let mut newcomer = bench.trader("newcomer", AccountVersion::V0, 1_000_000);
    hang(&bench, true);
    let handle = bench.handle.clone();
    let mut tick = Box::pin(handle.tick());
    assert!((&mut tick).now_or_never().is_none());
    bench.pump();
    serves_everybody(&mut bench, &mut seller, &mut newcomer);
    assert!((&mut tick).now_or_never().is_none(), "the tick still waits for the node");
    bench.env.clock.advance(10_000);
    let outcome = bench.call(tick).unwrap();
    assert!(matches!(outcome.reason, TickReason::Node(NodeError::NotReady { .. })), "{}", outcome.reason);
    hang(&bench, false);
    bench.env.clock.advance(20_000);
    bench.pump();
    let bid = newcomer.bid(&mut bench, 1000, 1);
    seller.ask(&mut bench, 700, 1);
    assert_eq!(bench.tick(&mut [&mut seller, &mut newcomer]).reason, TickReason::Cleared);
    assert!(newcomer.orders.contains_key(&bid));
}

#[test]
fn a_node_that_hangs_when_a_batch_is_made_keeps_nobody_waiting() {
    let mut bench = Bench::new();
    let mut seller = bench.trader("seller", AccountVersion::V2, 5_000_000);
    let mut buyer = bench.trader("buyer", AccountVersion::V2, 2_000_000);
    let mut newcomer = bench.trader("newcomer", AccountVersion::V0, 1_000_000);
    seller.ask(&mut bench, 500, 1);
    buyer.bid(&mut bench, 1000, 1);
    let handle = bench.handle.clone();
    let mut tick = Box::pin(handle.tick());
    assert!((&mut tick).now_or_never().is_none());
    for _ in 0..3 {
        bench.pump();
        seller.answer_all(&mut bench);
        buyer.answer_all(&mut bench);
        // All answered: what is left is to store the batch, to publish it and to watch it.
        hang(&bench, seller.prepared.len() == 1 && buyer.prepared.len() == 1);
    }
    bench.pump();
    seller.answer_all(&mut bench);
    buyer.answer_all(&mut bench);
    assert_eq!((seller.finalized.len(), buyer.finalized.len()), (1, 1), "both hear that it is final");
    assert!((&mut tick).now_or_never().is_none(), "the batch can not be watched");
    serves_everybody(&mut bench, &mut seller, &mut newcomer);
    bench.env.clock.advance(10_000);
    assert_eq!(bench.call(tick).unwrap().reason, TickReason::Cleared);
    hang(&bench, false);
    // The watches are set later, and tell what happened meanwhile.
    bench.world.mine(1);
    for _ in 0..6 {
        bench.env.clock.advance(5_000);
        bench.pump();
    }
    assert_eq!(bench.call(handle.status()).unwrap().unconfirmed, 0);
}
