//! Several leases at once, several batches before a block, and a block that is taken back.

use std::collections::BTreeSet;

use crate::btcd::spent;
use crate::failure::{Failure, Outcome};
use crate::group::{Group, Party, check_account};
use crate::money::{Deal, chain_fee, rate_of_percent};
use crate::pool::{AccountVersion, Order, PoolAccount};
use crate::process::Wait;
use crate::trade::{CONFIRMATIONS, LEASE_BLOCKS, OrderTerms, Side, known_channels, txid_of};

/// Smallest channel of these cases, satoshi; all amounts are multiples.
const STEP_SAT: u64 = 2_000_000;
/// What the lowest bid that gets anything pays, so the price.
const PRICE_PERCENT: f64 = 0.6;
/// Batches before a block.
const CHAIN: usize = 3;

fn order(side: Side, account: &PoolAccount, steps: u64, min_steps: u64, percent: f64) -> Order {
    let terms = OrderTerms { amount_sat: steps * STEP_SAT, blocks: LEASE_BLOCKS, percent };
    Order { min_sat: min_steps * STEP_SAT, ..Order::whole(side, &account.trader_key, &terms) }
}

fn deal(steps: u64) -> Deal {
    let rate_ppb = rate_of_percent(PRICE_PERCENT, LEASE_BLOCKS);
    Deal { amount_sat: steps * STEP_SAT, own_sat: 0, outbound: false, blocks: LEASE_BLOCKS, rate_ppb }
}

/// An account's balance after a batch in which it had these leases.
fn after(side: Side, account: &PoolAccount, steps: &[u64], fee_rate_sat_per_kw: u64) -> u64 {
    let settled = steps.iter().fold(account.value_sat, |value_sat, steps| match side {
        Side::Seller => deal(*steps).seller_after(value_sat),
        Side::Buyer => deal(*steps).buyer_after(value_sat),
    });
    settled - chain_fee(account.version, u64::try_from(steps.len()).expect("few"), fee_rate_sat_per_kw)
}

/// The channels that both nodes have and did not have before; exactly `count`.
fn new_channels(group: &Group<'_>, before: &BTreeSet<String>, count: usize) -> Outcome<BTreeSet<String>> {
    Wait::new(format!("{count} new channels at both nodes")).log(group.venue.log()).until(|| {
        let [sold, bought] = [&group.network.alice, &group.network.bob].map(known_channels);
        let fresh: BTreeSet<String> =
            sold?.intersection(&bought?).filter(|one| !before.contains(*one)).cloned().collect();
        match fresh.len() == count {
            true => Ok(fresh),
            false => Err(Failure::new(format!("{fresh:?}"))),
        }
    })
}

/// Every channel is active at both nodes, with this capacity.
fn check_active<'a>(group: &Group<'_>, points: impl IntoIterator<Item = &'a String>, capacity_sat: u64) -> Outcome<()> {
    for point in points {
        for node in [&group.network.alice, &group.network.bob] {
            assert_eq!(node.wait_active(point)?.capacity_sat, capacity_sat);
        }
        assert_eq!(group.network.chain.unspent(point)?.value_sat, capacity_sat);
    }
    Ok(())
}

/// Reports an account that must now be worth this much, in this state, after the batch `txid`.
fn check(
    group: &Group<'_>,
    party: &Party,
    before: &PoolAccount,
    sat: u64,
    state: &str,
    txid: &str,
) -> Outcome<PoolAccount> {
    let account = party.wait_state(&before.trader_key, state)?;
    assert_eq!((account.value_sat, account.latest_txid.as_str()), (sat, txid), "{:?}: {account:?}", party.side);
    assert_eq!(txid_of(&account.outpoint)?, txid);
    check_account(group.network, &account, sat)?;
    Ok(account)
}

/// One batch with three channels between the same two nodes: an ask that fills two bids and keeps a rest, and a second
/// pair of accounts. The rest is taken back.
pub(crate) fn several_matches(group: &mut Group<'_>) -> Outcome<()> {
    let (v0, v1, v2) = (AccountVersion::V0.index(), AccountVersion::V1.index(), AccountVersion::V2.index());
    let (asks, bids) = (group.seller.accounts.clone(), group.buyer.accounts.clone());
    let before = known_channels(&group.network.alice)?;
    let seller = group.seller.client.cli();
    let rest = seller.submit(&order(Side::Seller, &asks[v0], 3, 1, 0.2))?;
    let whole = seller.submit(&order(Side::Seller, &asks[v2], 2, 2, 0.25))?;
    let buyer = group.buyer.client.cli();
    let mut bought = Vec::new();
    for (account, steps, percent) in [(v1, 1, 0.8), (v1, 1, 0.7), (v2, 2, PRICE_PERCENT)] {
        bought.push(buyer.submit(&order(Side::Buyer, &bids[account], steps, steps, percent))?);
    }
    group.tick()?;
    let points = new_channels(group, &before, 3)?;
    let txids: BTreeSet<&str> = points.iter().map(|point| txid_of(point)).collect::<Outcome<_>>()?;
    assert_eq!(txids.len(), 1, "one transaction: {points:?}");
    group.network.mine(CONFIRMATIONS)?;
    let batch = group.buyer.client.cli().latest_batch(LEASE_BLOCKS)?;
    assert_eq!(batch.clearing_rate_ppb, deal(1).rate_ppb);
    assert!(txids.contains(batch.txid.as_str()));
    let capacities: Vec<u64> = {
        let mut all = Vec::new();
        for point in &points {
            let [sold, got] = [&group.network.alice, &group.network.bob].map(|node| node.wait_active(point));
            let (sold, got) = (sold?, got?);
            assert_eq!((sold.capacity_sat, sold.initiator, got.initiator), (got.capacity_sat, true, false));
            assert_eq!(group.network.chain.unspent(point)?.value_sat, sold.capacity_sat);
            all.push(sold.capacity_sat);
        }
        all.sort_unstable();
        all
    };
    assert_eq!(capacities, [STEP_SAT, STEP_SAT, 2 * STEP_SAT]);
    group.audit.transaction(&group.network.chain.transaction(&batch.txid)?)?;
    let cases: [(Side, usize, &[u64]); 4] =
        [(Side::Seller, v0, &[1, 1]), (Side::Seller, v2, &[2]), (Side::Buyer, v1, &[1, 1]), (Side::Buyer, v2, &[2])];
    for (side, at, steps) in cases {
        let (party, before) = match side {
            Side::Seller => (&group.seller, &asks[at]),
            Side::Buyer => (&group.buyer, &bids[at]),
        };
        let sat = after(side, before, steps, batch.fee_rate_sat_per_kw);
        check(group, party, before, sat, "OPEN", &batch.txid)?;
    }
    let seller = group.seller.client.cli();
    assert_eq!(seller.order_state(&rest)?, ("ORDER_PARTIALLY_FILLED".into(), STEP_SAT / 100_000));
    assert_eq!(seller.order_state(&whole)?, ("ORDER_EXECUTED".into(), 0));
    for nonce in &bought {
        assert_eq!(group.buyer.client.cli().order_state(nonce)?, ("ORDER_EXECUTED".into(), 0));
    }
    let reserved = seller.account(&asks[v0].trader_key)?;
    assert!(reserved.available_sat + STEP_SAT <= reserved.value_sat, "{reserved:?}");
    seller.cancel(&rest)?;
    assert_eq!(seller.order_state(&rest)?.0, "ORDER_CANCELED");
    let freed = seller.account(&asks[v0].trader_key)?;
    assert_eq!(freed.available_sat, freed.value_sat);
    group.traded(3, 1, 4)
}

/// Three batches before a block, each on the unconfirmed outputs of the one before; then all confirm at once.
pub(crate) fn unconfirmed_batches(group: &mut Group<'_>) -> Outcome<()> {
    let start = known_channels(&group.network.alice)?;
    let (mut sold, mut bought) = (
        group.seller.accounts[AccountVersion::V2.index()].clone(),
        group.buyer.accounts[AccountVersion::V0.index()].clone(),
    );
    let mut seen = start.clone();
    let mut txids = Vec::new();
    for _ in 0..CHAIN {
        group.seller.client.cli().submit(&order(Side::Seller, &sold, 1, 1, 0.2))?;
        group.buyer.client.cli().submit(&order(Side::Buyer, &bought, 1, 1, PRICE_PERCENT))?;
        group.tick()?;
        seen.extend(new_channels(group, &seen, 1)?);
        let batch = group.buyer.client.cli().latest_batch(LEASE_BLOCKS)?;
        let inputs = spent(&group.network.chain.wait_for_transaction(&batch.txid)?)?;
        for account in [&sold, &bought] {
            assert!(inputs.contains(&account.outpoint), "{inputs:?} has not {account:?}");
        }
        for (party, account) in [(&group.seller, &mut sold), (&group.buyer, &mut bought)] {
            let sat = after(party.side, account, &[1], batch.fee_rate_sat_per_kw);
            *account = check(group, party, account, sat, "PENDING_BATCH", &batch.txid)?;
            assert_eq!(group.network.chain.unspent(&account.outpoint)?.confirmations, 0);
        }
        txids.push(batch.txid);
    }
    group.network.mine(CONFIRMATIONS)?;
    check_active(group, seen.difference(&start), STEP_SAT)?;
    let last = txids.last().ok_or_else(|| Failure::fatal("no batch"))?;
    for (party, account) in [(&group.seller, &sold), (&group.buyer, &bought)] {
        check(group, party, account, account.value_sat, "OPEN", last)?;
    }
    for txid in &txids {
        group.audit.transaction(&group.network.chain.transaction(txid)?)?;
    }
    group.traded(CHAIN, CHAIN, 2 * CHAIN)
}

/// A batch is in a block, the block is taken back, and a longer chain has the batch again: nobody counts twice.
pub(crate) fn reorganisation(group: &mut Group<'_>) -> Outcome<()> {
    let before = known_channels(&group.network.alice)?;
    let (sold, bought) = (
        group.seller.accounts[AccountVersion::V1.index()].clone(),
        group.buyer.accounts[AccountVersion::V1.index()].clone(),
    );
    group.seller.client.cli().submit(&order(Side::Seller, &sold, 1, 1, 0.2))?;
    group.buyer.client.cli().submit(&order(Side::Buyer, &bought, 1, 1, PRICE_PERCENT))?;
    group.tick()?;
    let points = new_channels(group, &before, 1)?;
    let batch = group.buyer.client.cli().latest_batch(LEASE_BLOCKS)?;
    let height = group.network.confirm(&batch.txid, 1)?;
    let point = points.first().ok_or_else(|| Failure::fatal("no channel"))?;
    assert_eq!(group.network.chain.unspent(point)?.confirmations, 1);
    group.network.chain.invalidate_best()?;
    assert_eq!(group.network.chain.height()?, height - 1);
    // Whoever has it brings it back: the chain's own mempool, a node, or the venue.
    Wait::new("the batch waits for a block again").log(group.venue.log()).until(|| {
        match group.network.chain.unspent(point)?.confirmations {
            0 => Ok(()),
            other => Err(Failure::new(format!("{other} confirmations"))),
        }
    })?;
    group.network.mine(CONFIRMATIONS + 1)?;
    check_active(group, &points, STEP_SAT)?;
    for (party, account) in [(&group.seller, &sold), (&group.buyer, &bought)] {
        let sat = after(party.side, account, &[1], batch.fee_rate_sat_per_kw);
        check(group, party, account, sat, "OPEN", &batch.txid)?;
    }
    group.audit.transaction(&group.network.chain.transaction(&batch.txid)?)?;
    group.traded(1, 1, 2)
}
