//! Mistakes that an auctioneer can make, one test each. Numbers 6 (bans that do not compound), 7 and 14 (whose commitment
//! closed a channel, and whether it is one) are tables in `bans` and `tests/leases`. Numbers 4 and 13 are about calls that
//! this venue does not offer: batches by account, and the stream of sidecar recipients.
//!
//! # Source
//! Protocol notes, auctioneer §24, by its numbers.

use super::bench::{Bench, config};
use super::trader::{Manners, TestTrader};
use crate::round::{Answer, Collector, Phase};
use crate::{Gone, Ratings, TickOutcome, TickReason, VenueAccountState, VenueConfig};
use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use tidegate_ports::{ClientMessage, Clock, StreamId, Submission, TraderEvent};
use tidegate_protocol::account::AccountVersion;
use tidegate_protocol::fees::ExecutionFee;
use tidegate_protocol::order::{AskTerms, NodeTier, OrderSide, OrderState};
use tidegate_protocol::script::INITIAL_BATCH_KEY;
use tidegate_protocol::units::{Sats, UnitCount};

fn pair(bench: &mut Bench) -> (TestTrader, TestTrader) {
    let mut seller = bench.trader("seller", AccountVersion::V2, 5_000_000);
    let mut buyer = bench.trader("buyer", AccountVersion::V2, 1_000_000);
    seller.ask(bench, 500, 2);
    buyer.bid(bench, 1000, 2);
    (seller, buyer)
}

#[test]
fn m01_the_full_reject_of_any_trader_counts_not_only_of_the_last_one() {
    for rogue in 0..3 {
        let mut bench = Bench::new();
        let mut traders: Vec<TestTrader> =
            (0..3).map(|n| bench.trader(&format!("t{n}"), AccountVersion::V2, 3_000_000)).collect();
        traders[0].ask(&mut bench, 500, 8);
        for buyer in &mut traders[1..] {
            buyer.bid(&mut bench, 1000, 2);
        }
        traders[rogue].manners = Manners::RejectsAtPrepare;
        let outcome = bench.tick(&mut traders.iter_mut().collect::<Vec<_>>());
        let expected = if rogue == 0 { TickReason::GaveUp { attempts: 1 } } else { TickReason::Cleared };
        assert_eq!(outcome.reason, expected, "trader {rogue} rejects");
    }
}

#[test]
fn m02_the_ticker_goes_on_after_a_tick_that_made_nothing() {
    let mut bench = Bench::with(VenueConfig { tick_ms: Some(20_000), ..config() });
    for _ in 0..3 {
        let next = bench.call(bench.handle.clone().terms()).unwrap().next_clear_time;
        bench.env.clock.advance(20_000);
        bench.pump();
        let later = bench.call(bench.handle.clone().terms()).unwrap().next_clear_time;
        assert_eq!(later, next + 20);
        assert!(later > bench.env.clock.now().seconds());
    }
}

#[test]
fn m03_an_accept_of_another_batch_is_no_accept() {
    let batch: tidegate_protocol::keys::BatchId = INITIAL_BATCH_KEY.parse().unwrap();
    let stream = StreamId(1);
    let mut collector = Collector::new(Phase::Prepare, batch, BTreeSet::from([stream]));
    collector.hear(stream, ClientMessage::Accept { batch_id: batch.next().unwrap() });
    assert!(!collector.is_complete());
    collector.hear(StreamId(2), ClientMessage::Accept { batch_id: batch });
    assert!(!collector.is_complete(), "nobody asked this one");
    collector.hear(stream, ClientMessage::Accept { batch_id: batch });
    assert_eq!(collector.finish()[&stream], Answer::Accepted);
}

#[test]
fn m05_a_node_off_the_list_is_rated_by_the_default_and_only_by_it() {
    let node = super::orders::submitted(1, true).node;
    let listed = Ratings { listed: [node].into(), ..Ratings::default() };
    assert_eq!((listed.tier(node), Ratings::default().tier(node)), (NodeTier::Tier1, NodeTier::Tier0));
    let off = Ratings { enabled: false, ..Ratings::default() };
    assert_eq!(off.tier(node), NodeTier::Tier1);
}

#[test]
fn m08_orders_of_an_expired_account_end() {
    let mut bench = Bench::new();
    let (seller, buyer) = pair(&mut bench);
    bench.world.mine(2000);
    bench.mine(1);
    for _ in 0..100 {
        bench.pump();
    }
    let status = bench.call(bench.handle.clone().status()).unwrap();
    assert_eq!((status.asks, status.bids, status.accounts[&VenueAccountState::Expired]), (0, 0, 2));
    for nonce in seller.orders.keys().chain(buyer.orders.keys()) {
        let (state, _) = bench.call(bench.handle.clone().order_state(*nonce)).unwrap();
        assert_eq!(state, OrderState::Canceled);
    }
}

#[test]
fn m09_an_order_is_covered_by_the_schedule_of_its_owner_not_by_the_usual_one() {
    let mut bench = Bench::new();
    let mut trader = bench.trader("trader", AccountVersion::V2, 300_000);
    let dear = ExecutionFee { base: Sats::ZERO, rate_ppm: 500_000 };
    // 200,000 sat, 200 of premium less, 100,001 of fee, 1,100 for the chain: more than there is.
    for (custom_fees, accepted) in [([(trader.id.0, dear)].into(), false), (BTreeMap::new(), true)] {
        bench.restart_with(VenueConfig { custom_fees, ..config() });
        trader.subscribe(&mut bench);
        let (order, _) = trader.order(500, 2, OrderSide::Ask(AskTerms::default()));
        let answer = bench.call(bench.handle.clone().submit(order)).unwrap();
        assert_eq!(answer == Submission::Accepted, accepted, "{answer:?}");
    }
}

#[test]
fn m10_a_long_series_of_attempts_tells_the_height_of_the_day() {
    let mut bench = Bench::new();
    let (mut seller, mut buyer) = pair(&mut bench);
    let mut rogue = bench.trader("rogue", AccountVersion::V2, 1_000_000);
    rogue.bid(&mut bench, 2000, 2);
    rogue.manners = Manners::SilentAtPrepare;
    let handle = bench.handle.clone();
    let mut tick = Box::pin(handle.tick());
    assert!(futures_util::FutureExt::now_or_never(&mut tick).is_none());
    bench.pump();
    seller.answer_all(&mut bench);
    assert!(buyer.prepared.is_empty(), "served after the rogue, who bids more");
    // Blocks arrive while everybody waits for the silent one. Traders refuse a height that is off by more than three.
    bench.mine(5);
    bench.env.clock.advance(30_000);
    for _ in 0..6 {
        bench.pump();
        seller.answer_all(&mut bench);
        buyer.answer_all(&mut bench);
    }
    assert_eq!(bench.call(tick).unwrap().reason, TickReason::Cleared);
    assert_eq!((seller.prepared.len(), buyer.finalized.len()), (2, 1));
}

/// A tick under way.
fn start_tick(bench: &mut Bench) -> Pin<Box<dyn Future<Output = Result<TickOutcome, Gone>>>> {
    let handle = bench.handle.clone();
    let mut tick: Pin<Box<dyn Future<Output = _>>> = Box::pin(async move { handle.tick().await });
    assert!(futures_util::FutureExt::now_or_never(&mut tick).is_none());
    bench.pump();
    tick
}

/// A repeated round has the same id: nothing in an acceptance tells to which proposal it belongs.
#[test]
fn a_late_acceptance_does_not_pass_for_one_of_the_next_proposal() {
    let mut bench = Bench::new();
    let (mut seller, mut buyer) = pair(&mut bench);
    buyer.manners = Manners::SilentAtPrepare;
    let mut silent = start_tick(&mut bench);
    seller.answer_all(&mut bench);
    buyer.answer_all(&mut bench);
    bench.pump();
    assert_eq!(bench.closed(buyer.stream), None);
    bench.env.clock.advance(30_000);
    assert_eq!(bench.call(&mut silent).unwrap().reason, TickReason::GaveUp { attempts: 1 });
    assert!(bench.closed(buyer.stream).is_some(), "who does not answer in time");
    assert_eq!(bench.closed(seller.stream), None, "who answered");

    let batch_id = buyer.staged.as_ref().unwrap().prepare().batch_id;
    let (trader, late) = (buyer.id, buyer.stream);
    buyer.subscribe(&mut bench);
    let mut again = start_tick(&mut bench);
    seller.answer_all(&mut bench);
    buyer.answer_all(&mut bench);
    bench.push(TraderEvent::Said { trader, stream: late, message: ClientMessage::Accept { batch_id } });
    bench.pump();
    assert_eq!((bench.read(seller.stream), bench.read(buyer.stream)), (None, None), "nobody is asked to sign");
    buyer.say(&mut bench, ClientMessage::Accept { batch_id });
    for _ in 0..3 {
        bench.pump();
        seller.answer_all(&mut bench);
        buyer.answer_all(&mut bench);
    }
    assert_eq!(bench.call(&mut again).unwrap().reason, TickReason::Cleared);
}

#[test]
fn m11_a_message_that_lacks_its_signature_costs_its_sender_only() {
    for manners in [Manners::NoSignature, Manners::OtherKindOfSignature, Manners::NoChannelInfo] {
        let mut bench = Bench::new();
        let (mut seller, mut buyer) = pair(&mut bench);
        let mut rogue = bench.trader("rogue", AccountVersion::V0, 1_000_000);
        rogue.bid(&mut bench, 2000, 2);
        rogue.manners = manners;
        let outcome = bench.tick(&mut [&mut seller, &mut rogue, &mut buyer]);
        assert_eq!(outcome.reason, TickReason::Cleared, "{manners:?}");
        buyer.answer_all(&mut bench);
        assert_eq!(buyer.finalized.len(), 1);
    }
}

#[test]
fn m12_the_second_counterparts_reject_of_one_order_counts() {
    let mut bench = Bench::new();
    let mut seller = bench.trader("seller", AccountVersion::V2, 5_000_000);
    let mut first = bench.trader("first", AccountVersion::V2, 1_000_000);
    let mut second = bench.trader("second", AccountVersion::V2, 1_000_000);
    seller.ask(&mut bench, 500, 8);
    let good = first.bid(&mut bench, 2000, 2);
    let bad = second.bid(&mut bench, 1000, 2);
    second.manners = Manners::RefusesPeer;
    let outcome = bench.tick(&mut [&mut seller, &mut first, &mut second]);
    assert_eq!(outcome.reason, TickReason::Cleared);
    let handle = bench.handle.clone();
    assert_eq!(bench.call(handle.order_state(good)), Ok((OrderState::Executed, UnitCount::ZERO)));
    assert_eq!(bench.call(handle.order_state(bad)), Ok((OrderState::Submitted, UnitCount::new(2))));
}
