//! Traders that stand in the way: everybody else still clears in the same tick.

use super::bench::{Bench, config};
use super::changes::{Wish, change, pay_out};
use super::trader::Manners;
use crate::node::{PATIENCE_MS, RESPITE_MS};
use crate::{ServeError, TickReason, VenueConfig};
use core::sync::atomic::Ordering;
use std::collections::BTreeSet;
use tidegate_ports::NodeError;
use tidegate_protocol::account::AccountVersion;
use tidegate_protocol::order::{BidTerms, OrderSide, OrderState};
use tidegate_protocol::units::{BlockCount, UnitCount};

const ALL: [Manners; 12] = [
    Manners::SilentAtPrepare,
    Manners::SilentAtSign,
    Manners::HangsUpAtSign,
    Manners::GarbageSignature,
    Manners::NoSignature,
    Manners::OtherKindOfSignature,
    Manners::NoChannelInfo,
    Manners::RejectsAtPrepare,
    Manners::RejectsAtSign,
    Manners::RefusesPeer,
    Manners::FundingFails,
    Manners::RejectsUnknownNonce,
];

#[test]
fn the_others_clear_in_the_same_tick() {
    for manners in ALL {
        for version in [AccountVersion::V2, AccountVersion::V0] {
            let mut bench = Bench::new();
            let mut seller = bench.trader("seller", AccountVersion::V2, 5_000_000);
            let mut rogue = bench.trader("rogue", version, 1_000_000);
            let mut honest = bench.trader("honest", AccountVersion::V2, 1_000_000);
            seller.ask(&mut bench, 500, 4);
            // The rogue bids more and is served first.
            let bad = rogue.bid(&mut bench, 2000, 4);
            let good = honest.bid(&mut bench, 1000, 4);
            rogue.manners = manners;
            let outcome = bench.tick(&mut [&mut seller, &mut rogue, &mut honest]);
            assert_eq!(outcome.reason, TickReason::Cleared, "{manners:?} {version:?}");
            let handle = bench.handle.clone();
            assert_eq!(bench.call(handle.order_state(good)), Ok((OrderState::Executed, UnitCount::ZERO)));
            assert_eq!(bench.call(handle.order_state(bad)), Ok((OrderState::Submitted, UnitCount::new(4))));
            honest.answer_all(&mut bench);
            assert_eq!((rogue.finalized.len(), honest.finalized.len()), (0, 1), "{manners:?}");
            bench.mine(1);
            assert_eq!(bench.call(handle.status()).unwrap().unconfirmed, 0, "{manners:?}");
        }
    }
}

#[test]
fn a_rogue_seller_is_passed_over_as_well() {
    for manners in ALL {
        let mut bench = Bench::new();
        let mut rogue = bench.trader("rogue", AccountVersion::V2, 5_000_000);
        let mut honest = bench.trader("honest", AccountVersion::V0, 5_000_000);
        let mut buyer = bench.trader("buyer", AccountVersion::V2, 1_000_000);
        // The rogue asks less and is served first.
        let bad = rogue.ask(&mut bench, 400, 4);
        let good = honest.ask(&mut bench, 500, 4);
        buyer.bid(&mut bench, 1000, 4);
        rogue.manners = manners;
        let outcome = bench.tick(&mut [&mut rogue, &mut honest, &mut buyer]);
        assert_eq!(outcome.reason, TickReason::Cleared, "{manners:?}");
        let handle = bench.handle.clone();
        assert_eq!(bench.call(handle.order_state(good)), Ok((OrderState::Executed, UnitCount::ZERO)), "{manners:?}");
        assert_eq!(bench.call(handle.order_state(bad)), Ok((OrderState::Submitted, UnitCount::new(4))), "{manners:?}");
    }
}

#[test]
fn contradicting_reports_get_both_accounts_banned_twice_as_long_each_time() {
    let mut bench = Bench::new();
    let mut seller = bench.trader("seller", AccountVersion::V2, 5_000_000);
    let mut rogue = bench.trader("rogue", AccountVersion::V2, 1_000_000);
    seller.ask(&mut bench, 500, 4);
    rogue.bid(&mut bench, 2000, 4);
    rogue.manners = Manners::LiesInChannelInfo;
    let outcome = bench.tick(&mut [&mut seller, &mut rogue]);
    assert_eq!(outcome.reason, TickReason::GaveUp { attempts: 1 });
    assert_eq!(bench.call(bench.handle.clone().status()).unwrap().batches, 0);
    let handle = bench.handle.clone();
    assert_eq!(bench.call(handle.status()).unwrap().banned, 2);
    let until = bench.world.height().checked_add(BlockCount::new(144)).unwrap();
    // No match, no order, no change, also after a restart.
    assert_eq!(bench.tick(&mut [&mut seller, &mut rogue]).reason, TickReason::NoMatch);
    bench.restart();
    seller.subscribe(&mut bench);
    rogue.subscribe(&mut bench);
    let handle = bench.handle.clone();
    let account = rogue.account.key();
    let (order, _) = rogue.order(500, 1, OrderSide::Bid(BidTerms::default()));
    assert_eq!(bench.call(handle.submit(order)), Err(ServeError::Banned { account, until }));
    let close = Wish { outputs: vec![pay_out(&rogue, 900_000)], ..Wish::default() };
    assert_eq!(change(&mut bench, &rogue, &close).err(), Some(ServeError::Banned { account, until }));
    bench.mine(143);
    bench.pump();
    assert_eq!(bench.tick(&mut [&mut seller, &mut rogue]).reason, TickReason::NoMatch);
    bench.mine(1);
    let outcome = bench.tick(&mut [&mut seller, &mut rogue]);
    assert_eq!(outcome.reason, TickReason::GaveUp { attempts: 1 });
    // The second time: 288 blocks.
    bench.mine(287);
    bench.pump();
    rogue.manners = Manners::Honest;
    assert_eq!(bench.tick(&mut [&mut seller, &mut rogue]).reason, TickReason::NoMatch);
    bench.mine(1);
    assert_eq!(bench.tick(&mut [&mut seller, &mut rogue]).reason, TickReason::Cleared);
}

#[test]
fn who_waits_in_vain_for_somebody_that_left_is_not_kept_apart_from_it() {
    for gone in [Manners::HangsUpAtSign, Manners::SilentAtSign, Manners::RejectsAtSign] {
        let mut bench = Bench::new();
        let mut seller = bench.trader("seller", AccountVersion::V2, 5_000_000);
        let mut buyer = bench.trader("buyer", AccountVersion::V2, 1_000_000);
        seller.ask(&mut bench, 500, 1);
        buyer.bid(&mut bench, 2000, 1);
        (seller.manners, buyer.manners) = (gone, Manners::FundingFails);
        let outcome = bench.tick(&mut [&mut seller, &mut buyer]);
        assert_eq!(outcome.reason, TickReason::GaveUp { attempts: 1 }, "{gone:?}");
        (seller.manners, buyer.manners) = (Manners::Honest, Manners::Honest);
        if gone != Manners::RejectsAtSign {
            seller.subscribe(&mut bench);
        }
        assert_eq!(bench.tick(&mut [&mut seller, &mut buyer]).reason, TickReason::Cleared, "{gone:?}");
    }
}

#[test]
fn a_failed_channel_is_tried_again_once_when_one_of_the_two_comes_back() {
    let mut bench = Bench::new();
    let mut seller = bench.trader("seller", AccountVersion::V2, 5_000_000);
    let mut buyer = bench.trader("buyer", AccountVersion::V2, 1_000_000);
    seller.ask(&mut bench, 500, 1);
    buyer.bid(&mut bench, 2000, 1);
    buyer.manners = Manners::FundingFails;
    let failed = TickReason::GaveUp { attempts: 1 };
    assert_eq!(bench.tick(&mut [&mut seller, &mut buyer]).reason, failed);
    assert_eq!(bench.tick(&mut [&mut seller, &mut buyer]).reason, TickReason::NoMatch, "kept apart");
    seller.subscribe(&mut bench);
    assert_eq!(bench.tick(&mut [&mut seller, &mut buyer]).reason, failed, "tried again");
    seller.subscribe(&mut bench);
    assert_eq!(bench.tick(&mut [&mut seller, &mut buyer]).reason, TickReason::NoMatch, "once");
    buyer.manners = Manners::Honest;
    bench.env.clock.advance(3_600_000);
    bench.pump();
    assert_eq!(bench.tick(&mut [&mut seller, &mut buyer]).reason, TickReason::Cleared, "after an hour");
}

#[test]
fn a_rogue_that_names_the_node_of_another_keeps_only_itself_apart() {
    let mut bench = Bench::new();
    let mut honest = bench.trader("honest", AccountVersion::V2, 5_000_000);
    let mut rogue = bench.trader("rogue", AccountVersion::V2, 5_000_000);
    let mut buyer = bench.trader("buyer", AccountVersion::V2, 1_000_000);
    // The rogue claims to be the honest seller's node, asks less, and reports that the channel failed.
    rogue.named_node = Some(honest.node.id());
    rogue.ask(&mut bench, 400, 4);
    let good = honest.ask(&mut bench, 500, 4);
    buyer.bid(&mut bench, 1000, 4);
    rogue.manners = Manners::FundingFails;
    let outcome = bench.tick(&mut [&mut honest, &mut rogue, &mut buyer]);
    assert_eq!(outcome.reason, TickReason::Cleared);
    let (state, _) = bench.call(bench.handle.clone().order_state(good)).unwrap();
    assert_eq!(state, OrderState::Executed);
}

#[test]
fn a_batch_that_was_to_be_signed_never_comes_back_under_the_same_transaction_id() {
    // Reported nodes are not kept apart here, so that the same pair meets again and again.
    let mut bench = Bench::with(VenueConfig { funding_conflict_ms: 0, ..config() });
    let mut seller = bench.trader("seller", AccountVersion::V2, 5_000_000);
    let mut buyer = bench.trader("buyer", AccountVersion::V2, 1_000_000);
    seller.ask(&mut bench, 500, 1);
    buyer.bid(&mut bench, 2000, 1);
    buyer.manners = Manners::FundingFails;
    // Three refusals of a counterpart are heard in one round; with the fourth the trader leaves it.
    for _ in 0..3 {
        let outcome = bench.tick(&mut [&mut seller, &mut buyer]);
        assert_eq!(outcome.reason, TickReason::GaveUp { attempts: 4 });
    }
    let different: BTreeSet<_> = buyer.prepared.iter().collect();
    assert_eq!((buyer.prepared.len(), different.len()), (12, 12));
    buyer.manners = Manners::Honest;
    assert_eq!(bench.tick(&mut [&mut seller, &mut buyer]).reason, TickReason::Cleared);
    assert!(!buyer.prepared[..12].contains(&buyer.prepared[12]));
}

#[test]
fn an_order_cancelled_while_it_is_signed_is_not_filled() {
    let mut bench = Bench::new();
    let mut seller = bench.trader("seller", AccountVersion::V2, 5_000_000);
    let mut buyer = bench.trader("buyer", AccountVersion::V2, 1_000_000);
    seller.ask(&mut bench, 500, 4);
    let bid = buyer.bid(&mut bench, 2000, 4);
    let handle = bench.handle.clone();
    let mut tick = Box::pin(handle.tick());
    assert!(futures_util::FutureExt::now_or_never(&mut tick).is_none());
    bench.pump();
    // Both are asked to prepare; the owner cancels before anything is signed.
    bench.call(handle.cancel(buyer.preimages[&bid])).unwrap();
    for _ in 0..6 {
        seller.answer_all(&mut bench);
        buyer.answer_all(&mut bench);
        bench.pump();
    }
    assert_eq!(bench.call(tick).unwrap().reason, TickReason::GaveUp { attempts: 1 });
    assert_eq!(bench.call(handle.order_state(bid)), Ok((OrderState::Canceled, UnitCount::new(4))));
    assert_eq!(bench.call(handle.status()).unwrap().batches, 0);
}

#[test]
fn who_refuses_one_counterpart_after_the_other_does_not_use_up_the_round() {
    let mut bench = Bench::new();
    let mut rogue = bench.trader("rogue", AccountVersion::V2, 5_000_000);
    rogue.ask(&mut bench, 400, 12);
    let names = (0..12).map(|number| format!("buyer {number}"));
    let mut buyers: Vec<_> = names.map(|name| bench.trader(&name, AccountVersion::V2, 300_000)).collect();
    for buyer in &mut buyers {
        buyer.bid(&mut bench, 1000, 1);
    }
    let mut seller = bench.trader("seller", AccountVersion::V2, 1_000_000);
    let mut honest = bench.trader("honest", AccountVersion::V2, 1_000_000);
    seller.ask(&mut bench, 500, 4);
    let good = honest.bid(&mut bench, 600, 4);
    rogue.manners = Manners::RefusesOnePeer;
    let mut all = vec![&mut rogue, &mut seller, &mut honest];
    all.extend(buyers.iter_mut());
    assert_eq!(bench.tick(&mut all).reason, TickReason::Cleared);
    let handle = bench.handle.clone();
    let (state, _) = bench.call(handle.order_state(good)).unwrap();
    assert_ne!(state, OrderState::Canceled);
    assert!(rogue.finalized.is_empty());
}

#[test]
fn a_signature_for_somebody_elses_account_does_not_count() {
    for rogue_first in [true, false] {
        let mut bench = Bench::new();
        let mut one = bench.trader("one", AccountVersion::V2, 5_000_000);
        let mut two = bench.trader("two", AccountVersion::V2, 5_000_000);
        // Streams are asked in the order in which they were opened, so both orders are tried.
        let (rogue, victim) = if rogue_first { (&mut one, &mut two) } else { (&mut two, &mut one) };
        rogue.ask(&mut bench, 400, 2);
        let bid = victim.bid(&mut bench, 1000, 2);
        rogue.manners = Manners::SignsForOthers;
        let outcome = bench.tick(&mut [rogue, victim]);
        assert_eq!(outcome.reason, TickReason::Cleared, "rogue first: {rogue_first}");
        let handle = bench.handle.clone();
        assert_eq!(bench.call(handle.order_state(bid)), Ok((OrderState::Executed, UnitCount::ZERO)));
    }
}

#[test]
fn a_node_that_hangs_does_not_stop_the_venue() {
    let mut bench = Bench::new();
    let mut seller = bench.trader("seller", AccountVersion::V2, 5_000_000);
    let mut buyer = bench.trader("buyer", AccountVersion::V2, 1_000_000);
    seller.ask(&mut bench, 500, 2);
    buyer.bid(&mut bench, 1000, 2);
    bench.env.chain.hangs.store(true, Ordering::Relaxed);
    let handle = bench.handle.clone();
    let mut tick = Box::pin(handle.tick());
    assert!(futures_util::FutureExt::now_or_never(&mut tick).is_none());
    bench.pump();
    bench.env.clock.advance(PATIENCE_MS - 1);
    bench.pump();
    assert!(futures_util::FutureExt::now_or_never(&mut tick).is_none());
    bench.env.clock.advance(1);
    let outcome = bench.call(tick).unwrap();
    assert!(matches!(outcome.reason, TickReason::Node(NodeError::NotReady { .. })), "{outcome:?}");
    // For a while nothing waits for it: the next attempt fails at once, other calls are answered.
    let outcome = bench.call(handle.tick()).unwrap();
    assert!(matches!(outcome.reason, TickReason::Node(NodeError::NotReady { .. })), "{outcome:?}");
    bench.call(handle.terms()).unwrap();
    bench.env.chain.hangs.store(false, Ordering::Relaxed);
    bench.env.clock.advance(RESPITE_MS);
    assert_eq!(bench.tick(&mut [&mut seller, &mut buyer]).reason, TickReason::Cleared);
}

#[test]
fn a_node_that_lost_its_signing_sessions_blames_no_trader() {
    let mut bench = Bench::new();
    let mut seller = bench.trader("seller", AccountVersion::V2, 5_000_000);
    let mut buyer = bench.trader("buyer", AccountVersion::V1, 1_000_000);
    seller.ask(&mut bench, 500, 2);
    buyer.bid(&mut bench, 1000, 2);
    let handle = bench.handle.clone();
    let mut tick = Box::pin(handle.tick());
    assert!(futures_util::FutureExt::now_or_never(&mut tick).is_none());
    // Prepare is answered, and the request to sign is out; then the venue's node starts again.
    bench.pump();
    seller.answer_all(&mut bench);
    buyer.answer_all(&mut bench);
    bench.pump();
    bench.env.node.restart();
    seller.answer_all(&mut bench);
    buyer.answer_all(&mut bench);
    let outcome = bench.call(tick).unwrap();
    assert!(matches!(outcome.reason, TickReason::Node(_)), "{outcome:?}");
    assert_eq!(bench.tick(&mut [&mut seller, &mut buyer]).reason, TickReason::Cleared);
}
