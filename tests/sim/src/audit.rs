//! What must be true of a run as a whole: satoshi, books, fills and leases, compared across traders, venue and chain.

use crate::ledger;
use crate::process::Party;
use crate::run::Run;
use bitcoin::{OutPoint, Transaction, Txid};
use futures_util::FutureExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use tidegate_ports::{Store, Wallet};
use tidegate_protocol::account::{AccountState, AccountTerms};
use tidegate_protocol::keys::{AccountKey, OrderNonce};
use tidegate_protocol::order::{OrderState, SubmittedOrder};
use tidegate_protocol::units::{BlockCount, RatePerBillion, Sats, UnitCount};
use tidegate_trader::{Book, Lease, Standing};
use tidegate_venue::VenueAccountState;

/// An account in the venue's store.
#[derive(Debug, Deserialize)]
struct VenueAccount {
    terms: AccountTerms,
    value: Sats,
    state: VenueAccountState,
    outpoint: OutPoint,
}

/// An order in the venue's store.
#[derive(Debug, Deserialize)]
struct VenueOrder {
    submitted: SubmittedOrder,
    state: OrderState,
    open: UnitCount,
}

#[derive(Debug, Deserialize)]
struct VenuePair {
    ask: OrderNonce,
    bid: OrderNonce,
    units: UnitCount,
}

/// What a batch did to an account.
#[derive(Debug, Deserialize)]
struct VenueDiff {
    chain_fee: Sats,
}

/// The venue's own coin.
#[derive(Debug, Deserialize)]
struct VenueCoin {
    outpoint: OutPoint,
    value: Sats,
}

#[derive(Debug, Deserialize)]
struct VenueMarket {
    price: RatePerBillion,
    pairs: Vec<VenuePair>,
}

/// A batch in the venue's store.
#[derive(Debug, Deserialize)]
struct VenueBatch {
    transaction: Transaction,
    /// Of the miners.
    fee: Sats,
    execution_fees: Sats,
    markets: BTreeMap<BlockCount, VenueMarket>,
    accounts: BTreeMap<AccountKey, VenueDiff>,
    confirmed: bool,
}

impl VenueBatch {
    /// What it left to the venue.
    fn income(&self) -> i128 {
        let sat = |sats: Sats| i128::from(sats.get());
        let paid: i128 = self.accounts.values().map(|diff| sat(diff.chain_fee)).sum();
        sat(self.execution_fees) + paid - sat(self.fee)
    }
}

/// The venue's store.
#[derive(Debug, Default)]
pub(crate) struct VenueBook {
    accounts: BTreeMap<AccountKey, VenueAccount>,
    orders: BTreeMap<OrderNonce, VenueOrder>,
    batches: Vec<VenueBatch>,
    coin: Option<VenueCoin>,
    reservations: usize,
}

impl VenueBook {
    pub(crate) fn read(venue: &Party) -> VenueBook {
        fn parse<T: DeserializeOwned>(value: &str) -> T {
            serde_json::from_str(value).expect("the venue wrote this row")
        }
        let mut book = VenueBook::default();
        let tables = ["v_account", "v_reservation", "v_order", "v_batch", "v_meta"];
        let (_, rows) = venue.rows.load(&tables).now_or_never().and_then(Result::ok).unwrap_or_default();
        for row in rows {
            match row.table.as_str() {
                "v_account" => {
                    let account: VenueAccount = parse(&row.value);
                    book.accounts.insert(account.terms.trader, account);
                }
                "v_order" => {
                    let order: VenueOrder = parse(&row.value);
                    book.orders.insert(order.submitted.order.nonce, order);
                }
                "v_batch" => book.batches.push(parse(&row.value)),
                "v_meta" if row.key == "master" => book.coin = parse(&row.value),
                "v_meta" => {}
                _ => book.reservations += 1,
            }
        }
        book
    }

    /// Batches that were made.
    pub(crate) fn batches(&self) -> usize {
        self.batches.len()
    }

    /// The transactions of all batches.
    pub(crate) fn transactions(&self) -> impl Iterator<Item = &Transaction> {
        self.batches.iter().map(|batch| &batch.transaction)
    }

    fn made(&self, txid: Txid) -> bool {
        self.batches.iter().any(|batch| batch.transaction.compute_txid() == txid)
    }

    fn pairs(&self) -> impl Iterator<Item = (Txid, RatePerBillion, &VenuePair)> {
        self.batches.iter().flat_map(|batch| {
            let txid = batch.transaction.compute_txid();
            batch.markets.values().flat_map(move |market| market.pairs.iter().map(move |p| (txid, market.price, p)))
        })
    }
}

/// Sentences about what is wrong.
#[derive(Debug, Default)]
pub(crate) struct Findings(pub(crate) Vec<String>);

impl Findings {
    pub(crate) fn expect(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.0.push(otherwise());
        }
    }
}

/// What holds at every moment.
pub(crate) fn always(run: &Run) -> Findings {
    let mut findings = Findings::default();
    let (unspent, mined) = run.world.satoshi();
    findings.expect(unspent == mined, || format!("{mined} sat were mined, {unspent} sat exist"));
    let venue = VenueBook::read(&run.venue);
    let mut filled: BTreeMap<OrderNonce, u32> = BTreeMap::new();
    for (_, _, pair) in venue.pairs() {
        for nonce in [pair.ask, pair.bid] {
            *filled.entry(nonce).or_default() += pair.units.get();
        }
    }
    for (nonce, order) in &venue.orders {
        let (done, wanted) = (filled.get(nonce).copied().unwrap_or(0), order.submitted.order.units());
        let wanted = wanted.map(UnitCount::get).unwrap_or(0);
        findings.expect(done <= wanted, || format!("order {nonce} of {wanted} units is filled with {done}"));
        let open = order.open.get();
        findings.expect(done + open == wanted, || {
            format!("order {nonce}: {done} filled and {open} open of {wanted} at the venue")
        });
    }
    for trader in &run.traders {
        let book = trader.party.record.book();
        ledger::always(&mut findings, run, &trader.party, &book);
        let mut leased: BTreeMap<OrderNonce, u32> = BTreeMap::new();
        for lease in book.leases.values() {
            *leased.entry(lease.ours).or_default() += lease.units.get();
        }
        for (nonce, units) in leased {
            let wanted = book.orders.get(&nonce).and_then(|own| own.order.units().ok()).map_or(0, UnitCount::get);
            let name = &trader.party.name;
            findings.expect(units <= wanted, || format!("{name}: order {nonce} of {wanted} units leased {units}"));
        }
    }
    findings
}

/// What holds once faults stopped and everything came to rest.
pub(crate) fn at_rest(run: &Run) -> Findings {
    let mut findings = always(run);
    let venue = VenueBook::read(&run.venue);
    findings.expect(venue.batches.iter().all(|batch| batch.confirmed), || "the venue has an unconfirmed batch".into());
    findings.expect(venue.reservations == 0, || format!("{} reservations are stuck", venue.reservations));
    for trader in &run.traders {
        let book = trader.party.record.book();
        accounts(&mut findings, run, &trader.party, &book, &venue);
        orders(&mut findings, &trader.party, &book, &venue);
        channels(&mut findings, &trader.party, &book);
        money(&mut findings, run, &trader.party, &book);
    }
    leases(&mut findings, run, &venue);
    ledger::at_rest(&mut findings, run);
    income(&mut findings, run, &venue);
    findings
}

/// What the venue earned is in its own coin or in its wallet.
fn income(findings: &mut Findings, run: &Run, venue: &VenueBook) {
    let coin = venue.coin.as_ref().map_or(0, |coin| coin.value.get());
    if let Some(coin) = &venue.coin {
        let found = run.world.utxo(coin.outpoint).map(|output| output.value.to_sat());
        findings.expect(found == Some(coin.value.get()), || {
            format!("the venue's coin is {coin:?}, the chain has {found:?}")
        });
    }
    let wallet = balance(&run.venue);
    let earned: i128 = venue.batches.iter().map(VenueBatch::income).sum();
    findings.expect(i128::from(coin) + i128::from(wallet) == earned, || {
        format!("the venue earned {earned} sat; its coin has {coin}, its wallet {wallet}")
    });
}

fn balance(party: &Party) -> u64 {
    party.node.confirmed_balance().now_or_never().and_then(Result::ok).map_or(0, Sats::get)
}

/// Accounts are open or closed, and trader, venue and chain say the same of them.
fn accounts(findings: &mut Findings, run: &Run, party: &Party, book: &Book, venue: &VenueBook) {
    let name = &party.name;
    for batch in book.staged.values() {
        // A round that the venue gave up after we signed: our signature is out, so only a spend of the account ends it.
        let given_up = batch.standing != Standing::Booked && !venue.made(batch.txid());
        findings.expect(given_up, || format!("{name}: batch {} is left as {:?}", batch.txid(), batch.standing));
    }
    findings.expect(book.reserving.is_none(), || format!("{name}: a reservation is left"));
    for (key, account) in &book.accounts {
        let there = venue.accounts.get(key);
        // Reserved, never funded: the venue has forgotten it by now, or will.
        if account.state == AccountState::CanceledAfterRecovery && account.outpoint.is_none() {
            continue;
        }
        let Some(there) = there else {
            findings.0.push(format!("{name}: the venue does not know account {key} ({:?})", account.state));
            continue;
        };
        match account.state {
            AccountState::Open | AccountState::Expired => {
                let expected = account.terms.output(account.value).ok();
                let found = account.outpoint.and_then(|outpoint| run.world.utxo(outpoint));
                findings.expect(expected.is_some() && found == expected, || {
                    format!("{name}: the chain has {found:?} for account {key}, not {expected:?}")
                });
                let (ours, theirs) = ((account.outpoint, account.value), (Some(there.outpoint), there.value));
                let state = match account.state {
                    AccountState::Expired => VenueAccountState::Expired,
                    _ => VenueAccountState::Open,
                };
                findings.expect(ours == theirs && there.state == state, || {
                    format!("{name}: account {key} is {ours:?} here, {theirs:?} {:?} at the venue", there.state)
                });
                findings.expect(account.terms == there.terms, || format!("{name}: terms of account {key} differ"));
            }
            AccountState::Closed => {
                findings.expect(there.state == VenueAccountState::Closed, || {
                    format!("{name}: account {key} is closed here, {:?} at the venue", there.state)
                });
                let spent = account.outpoint.is_none_or(|outpoint| run.world.utxo(outpoint).is_none());
                findings.expect(spent, || format!("{name}: account {key} is closed, but its output exists"));
            }
            other => findings.0.push(format!("{name}: account {key} rests as {other:?}")),
        }
    }
}

/// Orders are archived, or open on both sides with the same rest.
fn orders(findings: &mut Findings, party: &Party, book: &Book, venue: &VenueBook) {
    for (nonce, own) in &book.orders {
        let there = venue.orders.get(nonce);
        let (active, their) = (!own.state.is_archived(), there.is_some_and(|order| !order.state.is_archived()));
        findings.expect(active == their, || {
            format!("{}: order {nonce} is {:?} here, {:?} at the venue", party.name, own.state, there.map(|o| o.state))
        });
        if let Some(there) = there.filter(|_| own.state != OrderState::Failed) {
            findings.expect(own.units_unfulfilled == there.open, || {
                let (here, there) = (own.units_unfulfilled, there.open);
                format!("{}: order {nonce} has {here:?} open units here, {there:?} at the venue", party.name)
            });
        }
    }
}

/// The channels of all leases exist at the node.
fn channels(findings: &mut Findings, party: &Party, book: &Book) {
    let records: BTreeMap<OutPoint, _> =
        party.node.channel_records().into_iter().map(|record| (record.channel_point, record)).collect();
    for channel in book.leases.keys() {
        let state = records.get(channel).map(|record| record.abandoned);
        findings.expect(state == Some(false), || {
            format!("{}: the leased channel {channel} is {state:?} (given up?) at the node", party.name)
        });
    }
}

/// Every satoshi that the trader got is in its wallet, in its accounts, or explained by a lease or a fee.
fn money(findings: &mut Findings, run: &Run, party: &Party, book: &Book) {
    let wallet = balance(party);
    let open = book.accounts.values();
    let open = open.filter(|account| matches!(account.state, AccountState::Open | AccountState::Expired));
    let in_accounts: u64 = open.map(|account| account.value.get()).sum();
    let fees: u64 = party.record.own_transactions().iter().map(|transaction| fee_of(run, transaction)).sum();
    let costs: i128 = book.leases.values().map(cost).sum();
    let found = i128::from(wallet) + i128::from(in_accounts) + i128::from(fees) + costs;
    let funded = i128::from(run.funds.get());
    findings.expect(found == funded, || {
        format!(
            "{}: of {funded} sat, {found} sat are explained: wallet {wallet}, accounts {in_accounts}, fees {fees}, leases {costs}",
            party.name
        )
    });
}

/// What a lease cost its trader.
fn cost(lease: &Lease) -> i128 {
    let sat = |sats: Sats| i128::from(sats.get());
    let fees = sat(lease.execution_fee) + sat(lease.chain_fee);
    if lease.maker {
        sat(lease.units.to_sats()) + fees - sat(lease.premium)
    } else {
        sat(lease.self_balance) + fees + sat(lease.premium)
    }
}

/// The fee of a transaction of the trader's own, if it is in a block.
pub(crate) fn fee_of(run: &Run, transaction: &Transaction) -> u64 {
    let confirmed = run.world.transaction(transaction.compute_txid()).is_some_and(|(_, height)| height.is_some());
    if !confirmed {
        return 0;
    }
    let spent = transaction.input.iter().filter_map(|input| {
        let (parent, _) = run.world.transaction(input.previous_output.txid)?;
        let vout = usize::try_from(input.previous_output.vout).ok()?;
        parent.output.get(vout).map(|output| output.value.to_sat())
    });
    let kept: u64 = transaction.output.iter().map(|output| output.value.to_sat()).sum();
    spent.sum::<u64>().saturating_sub(kept)
}

/// Each pair of the venue is one lease of its maker and one of its taker, on the same channel.
fn leases(findings: &mut Findings, run: &Run, venue: &VenueBook) {
    type Sides = (Vec<OutPoint>, Vec<OutPoint>);
    let mut leased: BTreeMap<(Txid, OrderNonce, OrderNonce, u32, u32), Sides> = BTreeMap::new();
    for trader in &run.traders {
        for lease in trader.party.record.book().leases.values() {
            let (ask, bid) = if lease.maker { (lease.ours, lease.theirs) } else { (lease.theirs, lease.ours) };
            let name = (lease.txid, ask, bid, lease.units.get(), lease.clearing_price.get());
            let sides = leased.entry(name).or_default();
            if lease.maker {
                sides.0.push(lease.channel)
            } else {
                sides.1.push(lease.channel)
            };
        }
    }
    for (txid, price, pair) in venue.pairs() {
        let sides = leased.remove(&(txid, pair.ask, pair.bid, pair.units.get(), price.get())).unwrap_or_default();
        findings.expect(sides.0.len() == 1 && sides.0 == sides.1, || {
            format!("pair {} / {} of batch {txid} is leased as {sides:?}", pair.ask, pair.bid)
        });
    }
    for (name, sides) in leased {
        findings.0.push(format!("a lease that the venue does not know: {name:?} {sides:?}"));
    }
}
