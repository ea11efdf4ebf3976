//! The venue's own coin: income, lineage, withdrawals, and children that pay for their parents.

use super::bench::{Bench, config};
use super::trader::TestTrader;
use crate::{OperatorWish, ServeClass, TickReason, VenueConfig};
use bitcoin::{Amount, ScriptBuf, Transaction, TxOut};
use tidegate_protocol::account::AccountVersion;
use tidegate_protocol::fees::ExecutionFee;
use tidegate_protocol::units::{SatPerKw, Sats};

pub(super) const FIVE_PERCENT: ExecutionFee = ExecutionFee { base: Sats::constant(1), rate_ppm: 50_000 };

/// A venue that takes this fee, and two traders who know it.
pub(super) fn market(fee: ExecutionFee) -> (Bench, TestTrader, TestTrader) {
    let mut bench = Bench::with(VenueConfig { execution_fee: fee, ..config() });
    let mut seller = bench.trader("seller", AccountVersion::V2, 5_000_000);
    let mut buyer = bench.trader("buyer", AccountVersion::V0, 2_000_000);
    (seller.fee, buyer.fee) = (fee, fee);
    (bench, seller, buyer)
}

/// One more batch of one unit; its transaction.
pub(super) fn batch(bench: &mut Bench, seller: &mut TestTrader, buyer: &mut TestTrader) -> Transaction {
    seller.ask(bench, 500, 1);
    buyer.bid(bench, 1000, 1);
    assert_eq!(bench.tick(&mut [&mut *seller, &mut *buyer]).reason, TickReason::Cleared);
    seller.answer_all(bench);
    buyer.answer_all(bench);
    bench.book().batches.last().unwrap().transaction.clone()
}

pub(super) fn held(bench: &mut Bench) -> u64 {
    bench.call(bench.handle.clone().status()).unwrap().master.get()
}

/// Fee and weight as the chain sees them.
fn cost(bench: &Bench, transaction: &Transaction) -> (u64, u64) {
    let output = |outpoint: bitcoin::OutPoint| {
        let (parent, _) = bench.world.transaction(outpoint.txid).unwrap();
        parent.output[usize::try_from(outpoint.vout).unwrap()].value.to_sat()
    };
    let inputs: u64 = transaction.input.iter().map(|input| output(input.previous_output)).sum();
    let outputs: u64 = transaction.output.iter().map(|output| output.value.to_sat()).sum();
    (inputs - outputs, transaction.weight().to_wu())
}

#[test]
fn the_income_of_all_batches_gathers_in_one_coin() {
    let (mut bench, mut seller, mut buyer) = market(ExecutionFee { base: Sats::constant(1), rate_ppm: 10_000 });
    let mut before = None;
    for number in 1..=3 {
        let transaction = batch(&mut bench, &mut seller, &mut buyer);
        let book = bench.book();
        let coin = book.master.unwrap();
        assert_eq!(coin.outpoint.txid, transaction.compute_txid());
        assert_eq!(coin.batch, book.batch_key);
        assert_eq!(bench.world.utxo(coin.outpoint).unwrap().value.to_sat(), coin.value.get());
        if let Some(before) = before {
            assert!(transaction.input.iter().any(|input| input.previous_output == before), "batch {number}");
        }
        before = Some(coin.outpoint);
        // Each batch brings 2 * 1,001 sat of execution fees and costs what the traders do not pay.
        let value = held(&mut bench);
        assert!(value > 1_700 * number && value <= 2_002 * number, "{value} after {number}");
        bench.mine(u32::from(number == 2));
    }
}

#[test]
fn a_batch_without_income_makes_no_coin_and_is_valid() {
    let (mut bench, mut seller, mut buyer) = market(ExecutionFee { base: Sats::ZERO, rate_ppm: 0 });
    for _ in 0..2 {
        let transaction = batch(&mut bench, &mut seller, &mut buyer);
        assert_eq!(transaction.output.len(), 3, "two accounts and a channel");
        assert_eq!(held(&mut bench), 0);
    }
    bench.mine(1);
    assert_eq!(bench.call(bench.handle.clone().status()).unwrap().unconfirmed, 0);
}

#[test]
fn a_batch_lifts_its_unconfirmed_parents_to_the_rate_of_the_day() {
    let (mut bench, mut seller, mut buyer) = market(FIVE_PERCENT);
    let parents = [1, 2].map(|_| batch(&mut bench, &mut seller, &mut buyer));
    bench.world.set_fee_rate(SatPerKw::new(1_000));
    let child = batch(&mut bench, &mut seller, &mut buyer);
    let all = parents.iter().chain([&child]).map(|transaction| cost(&bench, transaction));
    let (fee, weight) = all.fold((0, 0), |(fees, weights), (fee, weight)| (fees + fee, weights + weight));
    assert!(fee * 1000 / weight >= 1_000, "{fee} sat for {weight} weight units");
    let (own_fee, own_weight) = cost(&bench, &child);
    let own = own_fee * 1000 / own_weight;
    assert!((2_000..4_000).contains(&own), "the child pays more than its own share: {own}");
    // Nothing to lift: the rate of the day is enough.
    bench.mine(1);
    let (fee, weight) = {
        let next = batch(&mut bench, &mut seller, &mut buyer);
        cost(&bench, &next)
    };
    assert!((1_000..1_020).contains(&(fee * 1000 / weight)), "{}", fee * 1000 / weight);
}

#[test]
fn orders_that_can_not_pay_for_the_parents_wait_for_them() {
    let (mut bench, mut seller, mut buyer) = market(FIVE_PERCENT);
    batch(&mut bench, &mut seller, &mut buyer);
    // The orders allow 10,000 sat/kW: enough for their own batch, not for two.
    bench.world.set_fee_rate(SatPerKw::new(9_000));
    seller.ask(&mut bench, 500, 1);
    buyer.bid(&mut bench, 1000, 1);
    assert_eq!(bench.tick(&mut [&mut seller, &mut buyer]).reason, TickReason::NoMatch);
    bench.mine(1);
    assert_eq!(bench.tick(&mut [&mut seller, &mut buyer]).reason, TickReason::Cleared);
}

#[test]
fn an_empty_batch_pays_for_a_stuck_one_when_the_operator_wants_it() {
    let (mut bench, mut seller, mut buyer) = market(FIVE_PERCENT);
    let parent = batch(&mut bench, &mut seller, &mut buyer);
    let before = held(&mut bench);
    let handle = bench.handle.clone();
    bench.call(handle.wish(OperatorWish { withdrawals: Vec::new(), rate: Some(SatPerKw::new(1_500)) })).unwrap();
    bench.restart_with(VenueConfig { execution_fee: FIVE_PERCENT, ..config() });
    let outcome = bench.tick(&mut []);
    assert_eq!(outcome.reason, TickReason::Cleared);
    let child = bench.book().batches.last().unwrap().clone();
    assert_eq!((child.markets.len(), child.accounts.len(), child.transaction.output.len()), (0, 0, 1));
    let ((fee, weight), (own, own_weight)) = (cost(&bench, &parent), cost(&bench, &child.transaction));
    assert!((fee + own) * 1000 / (weight + own_weight) >= 1_500);
    assert_eq!(held(&mut bench), before - own, "paid from the venue's own coin");
    // The wish is fulfilled: nothing more is made.
    assert_eq!(bench.tick(&mut []).reason, TickReason::NoMatch);
    bench.mine(1);
    assert_eq!(bench.call(bench.handle.clone().status()).unwrap().unconfirmed, 0);
}

#[test]
fn the_operator_withdraws_what_there_is_and_not_more() {
    let (mut bench, mut seller, mut buyer) = market(FIVE_PERCENT);
    let script_pubkey = ScriptBuf::from_bytes([vec![0x51, 0x20], vec![7; 32]].concat());
    let wish = |value| OperatorWish {
        withdrawals: vec![TxOut { value: Amount::from_sat(value), script_pubkey: script_pubkey.clone() }],
        rate: None,
    };
    let handle = bench.handle.clone();
    for (value, what) in [(4_000, "nothing to withdraw yet"), (100, "dust")] {
        let refused = bench.call(handle.wish(wish(value))).unwrap_err();
        assert_eq!(refused.class(), ServeClass::InvalidArgument, "{what}");
    }
    batch(&mut bench, &mut seller, &mut buyer);
    let before = held(&mut bench);
    bench.call(handle.wish(wish(4_000))).unwrap();
    let transaction = batch(&mut bench, &mut seller, &mut buyer);
    assert!(transaction.output.iter().any(|output| output.value.to_sat() == 4_000));
    assert!(held(&mut bench) > before + 5_000, "income less withdrawal");
    // Without orders, an empty batch pays it.
    bench.call(handle.wish(wish(5_000))).unwrap();
    assert_eq!(bench.tick(&mut []).reason, TickReason::Cleared);
    let last = bench.book().batches.last().unwrap().transaction.clone();
    assert_eq!(last.output.len(), 2);
    // All of it, without anything left for the chain: dropped, and trading goes on.
    let all = held(&mut bench);
    bench.call(handle.wish(wish(all))).unwrap();
    assert_eq!(bench.tick(&mut []).reason, TickReason::NoMatch);
    assert_eq!(held(&mut bench), all);
    bench.mine(1);
    assert_eq!(bench.call(handle.status()).unwrap().unconfirmed, 0);
}

#[test]
fn income_above_the_limit_goes_to_the_wallet_along_with_a_trade() {
    let sweep = Some(crate::Sweep { above: Sats::constant(6_000), keep: Sats::constant(1_000) });
    let mut bench = Bench::with(VenueConfig { execution_fee: FIVE_PERCENT, sweep, ..config() });
    let mut seller = bench.trader("seller", AccountVersion::V2, 5_000_000);
    let mut buyer = bench.trader("buyer", AccountVersion::V0, 2_000_000);
    (seller.fee, buyer.fee) = (FIVE_PERCENT, FIVE_PERCENT);
    batch(&mut bench, &mut seller, &mut buyer);
    let before = held(&mut bench);
    assert!(before > 6_000);
    assert_eq!(bench.tick(&mut []).reason, TickReason::NoMatch, "not without a trade");
    let transaction = batch(&mut bench, &mut seller, &mut buyer);
    let swept = transaction.output.iter().filter(|output| output.value.to_sat() == before - 1_000).count();
    assert_eq!(swept, 1);
    bench.mine(1);
    let wallet = super::bench::ready(tidegate_ports::Wallet::confirmed_balance(&bench.env.node)).unwrap();
    assert_eq!(wallet.get(), before - 1_000);
}

#[test]
fn a_trader_with_a_schedule_of_its_own_pays_by_it() {
    let cheap = ExecutionFee { base: Sats::ZERO, rate_ppm: 100 };
    let mut bench = Bench::new();
    let mut seller = bench.trader("seller", AccountVersion::V2, 5_000_000);
    let mut buyer = bench.trader("buyer", AccountVersion::V2, 2_000_000);
    // The tokens are known only now: the venue starts again with the operator's list.
    bench.restart_with(VenueConfig { custom_fees: [(seller.id.0, cheap)].into(), ..config() });
    seller.subscribe(&mut bench);
    buyer.subscribe(&mut bench);
    seller.fee = cheap;
    let handle = bench.handle.clone();
    assert_eq!(bench.call(handle.terms_for(seller.id)).unwrap().execution_fee, cheap);
    assert_ne!(bench.call(handle.terms_for(buyer.id)).unwrap().execution_fee, cheap);
    seller.ask(&mut bench, 500, 10);
    buyer.bid(&mut bench, 1000, 10);
    assert_eq!(bench.tick(&mut [&mut seller, &mut buyer]).reason, TickReason::Cleared);
    let accounts = &bench.book().batches[0].accounts;
    assert_eq!(accounts[&seller.account.key()].execution_fee.get(), 100);
    assert_eq!(accounts[&buyer.account.key()].execution_fee.get(), 1_001);
}
