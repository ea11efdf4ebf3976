//! What holds in every round, whoever trades and however they behave.

use super::bench::{Bench, config};
use super::trader::{Manners, TestTrader};
use crate::book::BatchRecord;
use crate::rejects::of_reject;
use crate::{TickReason, VenueConfig};
use std::collections::BTreeMap;
use tidegate_market::Pair;
use tidegate_ports::DurationState;
use tidegate_protocol::account::AccountVersion;
use tidegate_protocol::batch::{MatchRejectCode, RejectReason};
use tidegate_protocol::keys::OrderNonce;
use tidegate_protocol::units::{BlockCount, UnitCount};

/// Draws from a seed.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.below(u64::try_from(all.len()).unwrap())).unwrap()]
    }
}

const DURATIONS: [u32; 2] = [2016, 4032];

const MANNERS: [Manners; 10] = [
    Manners::SilentAtPrepare,
    Manners::SilentAtSign,
    Manners::GarbageSignature,
    Manners::NoSignature,
    Manners::NoChannelInfo,
    Manners::LiesInChannelInfo,
    Manners::RejectsAtPrepare,
    Manners::FundingFails,
    Manners::RefusesOnePeer,
    Manners::RejectsUnknownNonce,
];

fn venue() -> VenueConfig {
    let durations = DURATIONS.map(|blocks| (BlockCount::new(blocks), DurationState::Open));
    VenueConfig { durations: durations.into(), ..config() }
}

/// Five traders with random orders, one of them perhaps a rogue.
fn crowd(bench: &mut Bench, dice: &mut Dice) -> Vec<TestTrader> {
    let versions = [AccountVersion::V0, AccountVersion::V1, AccountVersion::V2];
    let mut traders: Vec<TestTrader> =
        (0..5).map(|number| bench.trader(&format!("trader {number}"), dice.pick(&versions), 3_000_000)).collect();
    for number in 0..12 {
        let trader = &mut traders[usize::try_from(dice.below(5)).unwrap()];
        trader.duration = BlockCount::new(dice.pick(&DURATIONS));
        let rate = 400 + u32::try_from(dice.below(600)).unwrap();
        let units = 1 + u32::try_from(dice.below(4)).unwrap();
        if number % 2 == 0 {
            trader.ask(bench, rate, units)
        } else {
            trader.bid(bench, rate, units)
        };
    }
    if dice.below(3) > 0 {
        traders[0].manners = dice.pick(&MANNERS);
    }
    traders
}

fn spent(bench: &Bench, batch: &BatchRecord) -> u64 {
    let value = |input: &bitcoin::TxIn| {
        let (parent, _) = bench.world.transaction(input.previous_output.txid).unwrap();
        parent.output[usize::try_from(input.previous_output.vout).unwrap()].value.to_sat()
    };
    batch.transaction.input.iter().map(value).sum()
}

/// Satoshi are conserved, limits kept, one price rules each duration, nobody meets itself, nothing is filled twice.
fn check(bench: &Bench, traders: &[TestTrader], batch: &BatchRecord) {
    let paid: u64 = batch.transaction.output.iter().map(|output| output.value.to_sat()).sum();
    assert_eq!(spent(bench, batch), paid + batch.fee.get(), "inputs are outputs and fee");
    let mut filled: BTreeMap<OrderNonce, u32> = BTreeMap::new();
    for (duration, market) in &batch.markets {
        for pair in &market.pairs {
            assert!(pair.ask_rate <= market.price && market.price <= pair.bid_rate, "beyond a limit");
            let own = |nonce: OrderNonce| traders.iter().position(|trader| trader.orders.contains_key(&nonce)).unwrap();
            assert_ne!(own(pair.ask), own(pair.bid), "an owner meets itself");
            for nonce in [pair.ask, pair.bid] {
                let order = &traders[own(nonce)].orders[&nonce].order;
                assert_eq!(order.duration, *duration);
                *filled.entry(nonce).or_default() += pair.units.get();
            }
        }
        let lowest = market.pairs.iter().map(|pair| pair.bid_rate).min();
        assert_eq!(lowest, Some(market.price), "the price is the lowest rate among the bids that got something");
    }
    let archive = bench.book().orders;
    for (nonce, units) in filled {
        let order = traders.iter().find_map(|trader| trader.orders.get(&nonce)).unwrap();
        let total = UnitCount::exactly_from(order.order.amount).unwrap().get();
        let (_, open) = archive.state(nonce).unwrap();
        assert_eq!(units + open.get(), total, "filled and open units are the order");
    }
}

#[test]
fn every_round_keeps_the_invariants_whoever_trades() {
    let mut cleared = 0;
    for seed in 0..24 {
        let mut dice = Dice(seed);
        let mut bench = Bench::with(venue());
        let mut traders = crowd(&mut bench, &mut dice);
        let outcome = bench.tick(&mut traders.iter_mut().collect::<Vec<_>>());
        match outcome.reason {
            TickReason::Cleared => {
                cleared += 1;
                let book = bench.book();
                check(&bench, &traders, book.batches.last().unwrap());
            }
            TickReason::NoMatch => {}
            // Every failed attempt shrinks the problem, so that few are needed.
            TickReason::GaveUp { attempts } => assert!(attempts < 10, "seed {seed}: {attempts} attempts"),
            other => panic!("seed {seed}: {other}"),
        }
        bench.mine(1);
        assert_eq!(bench.call(bench.handle.clone().status()).unwrap().unconfirmed, 0, "seed {seed}");
    }
    assert!(cleared >= 16, "only {cleared} of 24 rounds made a batch");
}

#[test]
fn what_happens_in_one_market_changes_nothing_in_another() {
    let price = |with_other: bool| {
        let mut bench = Bench::with(venue());
        let mut seller = bench.trader("seller", AccountVersion::V2, 5_000_000);
        let mut buyer = bench.trader("buyer", AccountVersion::V2, 3_000_000);
        seller.ask(&mut bench, 500, 2);
        buyer.bid(&mut bench, 800, 2);
        if with_other {
            (seller.duration, buyer.duration) = (BlockCount::new(4032), BlockCount::new(4032));
            seller.ask(&mut bench, 100, 3);
            buyer.bid(&mut bench, 300, 3);
        }
        assert_eq!(bench.tick(&mut [&mut seller, &mut buyer]).reason, TickReason::Cleared);
        let markets = bench.book().batches.last().unwrap().markets.clone();
        assert_eq!(markets.len(), if with_other { 2 } else { 1 });
        let market = &markets[&BlockCount::new(2016)];
        (market.price, market.pairs.iter().map(|pair| pair.units).collect::<Vec<_>>())
    };
    assert_eq!(price(false), price(true));
}

#[test]
fn every_reject_removes_an_order_or_keeps_a_pair_apart() {
    let mut dice = Dice(9);
    for _ in 0..500 {
        let order = |number, ask| super::orders::submitted(u8::try_from(number).unwrap(), ask);
        let count = 1 + dice.below(5);
        let pairs: Vec<Pair> = (0..count)
            .map(|_| {
                let (ask, bid) = (1 + dice.below(3), 4 + dice.below(3));
                Pair { ask: order(ask, true), bid: order(bid, false), units: UnitCount::new(1) }
            })
            .collect();
        let reporter = dice.pick(&[&pairs[0].ask, &pairs[0].bid]).order.account;
        let named = (0..dice.below(4)).map(|_| {
            let number = 1 + dice.below(8);
            (order(number, true).order.nonce, (MatchRejectCode::ChannelFundingFailed, String::new()))
        });
        let named: BTreeMap<_, _> = named.collect();
        let reason = if dice.below(4) == 0 { RejectReason::Unknown } else { RejectReason::Partial(named) };
        let found = of_reject(pairs.iter(), &[reporter].into(), &reason);
        let sides = || pairs.iter().flat_map(|pair| [&pair.ask, &pair.bid]);
        let removes = sides().any(|side| found.remove.contains(&side.order.nonce));
        let parts = found.conflicts.iter().any(|(one, other, _)| {
            pairs.iter().any(|pair| {
                let both = [pair.ask.order.account, pair.bid.order.account];
                both.contains(one) && both.contains(other) && one != other
            })
        });
        assert!(removes || parts, "{reason:?}");
        for nonce in &found.remove {
            let owner = sides().find(|side| side.order.nonce == *nonce).unwrap().order.account;
            assert_eq!(owner, reporter, "a reject removes nobody else's orders");
        }
    }
}
