//! Batches that succeed.

use super::bench::{Bench, config};
use super::trader::{Manners, TestTrader};
use crate::{TickOutcome, TickReason, VenueAccountState, VenueConfig};
use tidegate_protocol::account::AccountVersion;
use tidegate_protocol::order::OrderState;
use tidegate_protocol::units::{BlockCount, RatePerBillion, SatPerKw, UnitCount};

fn pair(bench: &mut Bench, seller: AccountVersion, buyer: AccountVersion) -> (TestTrader, TestTrader) {
    (bench.trader("seller", seller, 5_000_000), bench.trader("buyer", buyer, 1_000_000))
}

#[test]
fn two_strict_traders_of_every_account_version_settle_a_batch() {
    use AccountVersion::{V0, V1, V2};
    for (seller_version, buyer_version) in [(V2, V2), (V0, V0), (V1, V2), (V0, V1)] {
        let mut bench = Bench::new();
        let (mut seller, mut buyer) = pair(&mut bench, seller_version, buyer_version);
        let ask = seller.ask(&mut bench, 500, 20);
        let bid = buyer.bid(&mut bench, 1000, 12);
        let first = bench.call(bench.handle.clone().status()).unwrap().next_batch;

        let outcome = bench.tick(&mut [&mut seller, &mut buyer]);
        assert_eq!(outcome, TickOutcome { cleared: Some(first), reason: TickReason::Cleared, cut: false });
        seller.answer_all(&mut bench);
        buyer.answer_all(&mut bench);
        assert_eq!((seller.finalized.len(), buyer.finalized.len()), (1, 1));

        // Premium of 1,200,000 sat at 1000 for 2,016 blocks is 2,419; each side pays 1,201.
        let taproot = |version| if version == V0 { 229 } else { 66 };
        let chain_fee = |version| (4 * (43 + 41 + 22) + taproot(version)) * 253 / 1000;
        assert_eq!(seller.account.value.get(), 5_000_000 - 1_200_000 + 2_419 - 1_201 - chain_fee(seller_version));
        assert_eq!(buyer.account.value.get(), 1_000_000 - 2_419 - 1_201 - chain_fee(buyer_version));

        let handle = bench.handle.clone();
        let left = (OrderState::PartiallyFilled, UnitCount::new(8));
        assert_eq!(bench.call(handle.order_state(ask)), Ok(left));
        assert_eq!(bench.call(handle.order_state(bid)), Ok((OrderState::Executed, UnitCount::ZERO)));
        let snapshot = bench.call(handle.snapshot(Some(first))).unwrap();
        assert_eq!((snapshot.txid(), snapshot.previous), (seller.finalized[0], None));
        assert_eq!(snapshot.markets[&BlockCount::new(2016)].0, RatePerBillion::new(1000));

        // The chain (Core's own script check) took the transaction; it confirms, and the accounts open again.
        let status = bench.call(handle.status()).unwrap();
        assert_eq!((status.unconfirmed, status.accounts[&VenueAccountState::PendingBatch]), (1, 2));
        bench.mine(6);
        let status = bench.call(handle.status()).unwrap();
        assert_eq!((status.unconfirmed, status.accounts[&VenueAccountState::Open]), (0, 2));
        for account in [&seller.account, &buyer.account] {
            let output = bench.world.utxo(account.outpoint.unwrap()).expect("the recreated output exists");
            assert_eq!(output, account.terms.output(account.value).unwrap());
        }
    }
}

#[test]
fn a_second_batch_chains_on_unconfirmed_outputs_of_the_first() {
    let mut bench = Bench::new();
    let (mut seller, mut buyer) = pair(&mut bench, AccountVersion::V2, AccountVersion::V0);
    seller.ask(&mut bench, 500, 20);
    for round in 1..=2 {
        buyer.bid(&mut bench, 1000, 3);
        let outcome = bench.tick(&mut [&mut seller, &mut buyer]);
        assert_eq!(outcome.reason, TickReason::Cleared);
        seller.answer_all(&mut bench);
        buyer.answer_all(&mut bench);
        assert_eq!(seller.finalized.len(), round);
    }
    let snapshots = bench.call(bench.handle.clone().snapshots(None, 10)).unwrap();
    assert_eq!(snapshots.len(), 2);
    assert_eq!(snapshots[0].previous, Some(snapshots[1].batch_id));
    assert_eq!(snapshots[1].batch_id.next().unwrap(), snapshots[0].batch_id);
    bench.mine(6);
    let status = bench.call(bench.handle.clone().status()).unwrap();
    assert_eq!((status.unconfirmed, status.accounts[&VenueAccountState::Open]), (0, 2));
}

#[test]
fn matched_accounts_near_their_expiry_are_extended() {
    let mut bench = Bench::new();
    let (mut seller, mut buyer) = pair(&mut bench, AccountVersion::V2, AccountVersion::V2);
    seller.ask(&mut bench, 500, 2);
    buyer.bid(&mut bench, 1000, 2);
    let before = seller.account.terms.expiry;
    let extended = bench.world.height().checked_add(BlockCount::new(3024)).unwrap();
    assert!(before < extended);
    bench.tick(&mut [&mut seller, &mut buyer]);
    seller.answer_all(&mut bench);
    assert_eq!(seller.account.terms.expiry, extended);
}

#[test]
fn nothing_clears_without_a_meeting_of_orders() {
    let mut bench = Bench::new();
    let (mut seller, mut buyer) = pair(&mut bench, AccountVersion::V2, AccountVersion::V2);
    assert_eq!(bench.tick(&mut []).reason, TickReason::NoMatch);
    seller.ask(&mut bench, 2000, 2);
    buyer.bid(&mut bench, 1000, 2);
    assert_eq!(bench.tick(&mut [&mut seller, &mut buyer]).reason, TickReason::NoMatch);
}

#[test]
fn a_tick_without_work_left_clears_nothing_and_says_that_it_was_cut() {
    let mut bench = Bench::with(VenueConfig { clearing_work: 0, ..config() });
    let (mut seller, mut buyer) = pair(&mut bench, AccountVersion::V2, AccountVersion::V2);
    seller.ask(&mut bench, 500, 2);
    buyer.bid(&mut bench, 1000, 2);
    let outcome = bench.tick(&mut [&mut seller, &mut buyer]);
    assert_eq!(outcome, TickOutcome { cleared: None, reason: TickReason::NoMatch, cut: true });
}

#[test]
fn orders_with_a_lower_fee_limit_than_the_batch_stay_out() {
    let mut bench = Bench::new();
    let (mut seller, mut buyer) = pair(&mut bench, AccountVersion::V2, AccountVersion::V2);
    seller.ask(&mut bench, 500, 2);
    buyer.bid(&mut bench, 1000, 2);
    bench.world.set_fee_rate(SatPerKw::new(10_001));
    assert_eq!(bench.tick(&mut [&mut seller, &mut buyer]).reason, TickReason::NoMatch);
    bench.world.set_fee_rate(SatPerKw::new(10_000));
    assert_eq!(bench.tick(&mut [&mut seller, &mut buyer]).reason, TickReason::Cleared);
}

#[test]
fn a_trader_that_left_is_not_matched() {
    let mut bench = Bench::new();
    let (mut seller, mut buyer) = pair(&mut bench, AccountVersion::V2, AccountVersion::V2);
    seller.ask(&mut bench, 500, 2);
    buyer.bid(&mut bench, 1000, 2);
    bench.push(tidegate_ports::TraderEvent::Closed { trader: buyer.id, stream: buyer.stream });
    bench.pump();
    assert_eq!(bench.tick(&mut [&mut seller]).reason, TickReason::NoMatch);
    buyer.subscribe(&mut bench);
    assert_eq!(bench.tick(&mut [&mut seller, &mut buyer]).reason, TickReason::Cleared);
}

#[test]
fn a_killed_venue_knows_everything_and_publishes_what_is_unconfirmed() {
    let mut bench = Bench::new();
    let (mut seller, mut buyer) = pair(&mut bench, AccountVersion::V2, AccountVersion::V2);
    let ask = seller.ask(&mut bench, 500, 20);
    buyer.bid(&mut bench, 1000, 12);
    bench.tick(&mut [&mut seller, &mut buyer]);
    seller.answer_all(&mut bench);
    let before = bench.call(bench.handle.clone().status()).unwrap();
    let snapshot = bench.call(bench.handle.clone().snapshot(None)).unwrap();
    bench.restart();
    let after = bench.call(bench.handle.clone().status()).unwrap();
    assert_eq!((after.accounts, after.next_batch, after.asks), (before.accounts, before.next_batch, before.asks));
    assert_eq!(bench.call(bench.handle.clone().snapshot(None)), Ok(snapshot));
    assert_eq!(bench.call(bench.handle.clone().order_state(ask)), Ok((OrderState::PartiallyFilled, UnitCount::new(8))));
    bench.mine(6);
    let status = bench.call(bench.handle.clone().status()).unwrap();
    assert_eq!((status.unconfirmed, status.accounts[&VenueAccountState::Open]), (0, 2));
}

#[test]
fn a_venue_that_dies_before_the_commit_makes_the_batch_again_under_another_transaction_id() {
    let mut bench = Bench::new();
    let (mut seller, mut buyer) = pair(&mut bench, AccountVersion::V2, AccountVersion::V2);
    seller.ask(&mut bench, 500, 20);
    buyer.bid(&mut bench, 1000, 12);
    buyer.manners = Manners::SilentAtSign;
    let handle = bench.handle.clone();
    let mut tick = Box::pin(handle.tick());
    for _ in 0..4 {
        let polled = futures_util::FutureExt::now_or_never(&mut tick);
        assert!(polled.is_none());
        bench.pump();
        seller.answer_all(&mut bench);
        buyer.answer_all(&mut bench);
    }
    assert!(buyer.staged.is_some(), "killed while the buyer is asked to sign");
    drop(tick);
    bench.restart();
    assert_eq!(bench.call(bench.handle.clone().status()).unwrap().batches, 0);
    buyer.manners = Manners::Honest;
    seller.subscribe(&mut bench);
    buyer.subscribe(&mut bench);
    assert_eq!(bench.tick(&mut [&mut seller, &mut buyer]).reason, TickReason::Cleared);
    assert_ne!(buyer.prepared[0], buyer.prepared[1]);
}

#[test]
fn a_venue_that_dies_in_any_phase_of_a_batch_makes_it_afterwards() {
    // Who has answered what when it dies: prepare asked; one accepted; sign asked; one signed.
    for phase in 0..4 {
        let mut bench = Bench::new();
        let (mut seller, mut buyer) = pair(&mut bench, AccountVersion::V1, AccountVersion::V0);
        let ask = seller.ask(&mut bench, 500, 4);
        let bid = buyer.bid(&mut bench, 1000, 4);
        let handle = bench.handle.clone();
        let mut tick = Box::pin(handle.tick());
        assert!(futures_util::FutureExt::now_or_never(&mut tick).is_none());
        bench.pump();
        for step in 0..phase {
            seller.answer_all(&mut bench);
            if step == 1 {
                buyer.answer_all(&mut bench);
            }
            bench.pump();
        }
        drop(tick);
        bench.restart();
        assert_eq!(bench.call(bench.handle.clone().status()).unwrap().batches, 0, "phase {phase}");
        for trader in [&mut seller, &mut buyer] {
            trader.subscribe(&mut bench);
        }
        assert_eq!(bench.tick(&mut [&mut seller, &mut buyer]).reason, TickReason::Cleared, "phase {phase}");
        let handle = bench.handle.clone();
        for nonce in [ask, bid] {
            assert_eq!(bench.call(handle.order_state(nonce)), Ok((OrderState::Executed, UnitCount::ZERO)));
        }
        // What was once to be signed never comes back under the same name.
        let asked: std::collections::BTreeSet<_> = seller.prepared.iter().collect();
        assert_eq!(asked.len(), if phase < 2 { 1 } else { 2 }, "phase {phase}");
        bench.mine(6);
        let status = bench.call(handle.status()).unwrap();
        assert_eq!((status.unconfirmed, status.accounts[&VenueAccountState::Open]), (0, 2));
    }
}

#[test]
fn the_market_clears_by_itself_at_every_tick() {
    let mut bench = Bench::with(VenueConfig { tick_ms: Some(20_000), ..config() });
    let (mut seller, mut buyer) = pair(&mut bench, AccountVersion::V2, AccountVersion::V2);
    seller.ask(&mut bench, 500, 20);
    for batches in 1..=2 {
        buyer.bid(&mut bench, 1000, 3);
        bench.env.clock.advance(20_000);
        for _ in 0..6 {
            bench.pump();
            seller.answer_all(&mut bench);
            buyer.answer_all(&mut bench);
        }
        let status = bench.call(bench.handle.clone().status()).unwrap();
        assert_eq!((status.batches, status.last_tick.unwrap().reason), (batches, TickReason::Cleared));
        let next = bench.call(bench.handle.clone().terms()).unwrap().next_clear_time;
        assert_eq!(next, tidegate_ports::Clock::now(&bench.env.clock).plus_ms(20_000).seconds());
    }
}

#[test]
fn a_rest_below_the_smallest_match_ends_an_order() {
    for (min, state) in [(8, OrderState::PartiallyFilled), (9, OrderState::Executed)] {
        let mut bench = Bench::new();
        let (mut seller, mut buyer) = pair(&mut bench, AccountVersion::V2, AccountVersion::V2);
        let ask = seller.ask_of_at_least(&mut bench, 500, 20, min);
        buyer.bid(&mut bench, 1000, 12);
        bench.tick(&mut [&mut seller, &mut buyer]);
        seller.answer_all(&mut bench);
        assert_eq!(bench.call(bench.handle.clone().order_state(ask)), Ok((state, UnitCount::new(8))));
        let own = &seller.orders[&ask];
        assert_eq!((own.state, own.units_unfulfilled), (state, UnitCount::new(8)), "the trader says the same");
    }
}
