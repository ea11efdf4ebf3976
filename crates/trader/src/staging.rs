//! From a verified batch to rows: what is staged before a signature leaves, and what becomes true when it is final.
//!
//! Does: compute updates of the book. Everything here is synchronous and pure.

use crate::book::{
    BatchRecord, Book, Lease, OrderEvent, OrderEventKind, Remains, Settlement, StagedAccount, StagedBatch, StagedMatch,
    StagedOrder, Standing, Update,
};
use crate::machine::{AccountEvent, next};
use bitcoin::{OutPoint, Transaction, Txid};
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;
use tidegate_ports::Timestamp;
use tidegate_protocol::account::{Account, AccountState};
use tidegate_protocol::keys::AccountKey;
use tidegate_protocol::order::{OrderState, OwnOrder};
use tidegate_protocol::script::{SpendKind, classify_spend, find_output};
use tidegate_protocol::units::{BlockHeight, Sats};
use tidegate_protocol::verify::{VerifiedBatch, VerifiedMatch};

/// A batch that may no longer be signed: the book moved since it was verified.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum StageError {
    #[error("account {0} changed since the batch was verified")]
    AccountChanged(AccountKey),
    #[error("order {0} changed since the batch was verified")]
    OrderChanged(tidegate_protocol::keys::OrderNonce),
    #[error("the verified batch names an input that its transaction does not have")]
    NoInput,
}

/// What a batch was verified against, to be compared when it is signed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Basis {
    accounts: BTreeMap<AccountKey, Account>,
    orders: Vec<OwnOrder>,
}

impl Basis {
    /// The accounts and orders of ours in the batch, as the book has them.
    pub(crate) fn of(book: &Book, batch: &VerifiedBatch) -> Basis {
        let accounts = batch.accounts().keys().filter_map(|key| book.accounts.get(key)).map(|a| (a.key(), a.clone()));
        let orders = batch.orders().iter().filter_map(|ending| book.orders.get(&ending.nonce)).cloned();
        Basis { accounts: accounts.collect(), orders: orders.collect() }
    }

    /// The account before the batch.
    pub(crate) fn account(&self, key: AccountKey) -> Option<&Account> {
        self.accounts.get(&key)
    }

    /// Whether the book still has what was verified. A confirmation in between is no change.
    fn holds(&self, book: &Book) -> Result<(), StageError> {
        for (key, before) in &self.accounts {
            let usable = |now: &&Account| {
                matches!(now.state, AccountState::Open | AccountState::PendingBatch)
                    && (now.outpoint, now.value, now.terms) == (before.outpoint, before.value, before.terms)
            };
            book.accounts.get(key).filter(usable).ok_or(StageError::AccountChanged(*key))?;
        }
        for before in &self.orders {
            let nonce = before.order.nonce;
            book.orders.get(&nonce).filter(|now| *now == before).ok_or(StageError::OrderChanged(nonce))?;
        }
        Ok(())
    }
}

/// What is stored of a batch before it is signed.
///
/// # Errors
/// [`StageError::NoInput`].
pub(crate) fn staged(batch: &VerifiedBatch, now: Timestamp) -> Result<StagedBatch, StageError> {
    let prepare = batch.prepare();
    let mut accounts = Vec::new();
    for ending in batch.accounts().values() {
        let input = prepare.transaction.input.get(ending.input).ok_or(StageError::NoInput)?;
        let (after, recreated) = (ending.after.clone(), ending.recreated);
        accounts.push(StagedAccount { spent: input.previous_output, after, recreated });
    }
    let orders = batch.orders().iter().map(|ending| StagedOrder {
        nonce: ending.nonce,
        state: ending.state,
        units_unfulfilled: ending.units_unfulfilled,
    });
    let shares = chain_fee_shares(batch);
    let matches = batch.matches().iter().zip(shares).map(|(matched, share)| staged_match(batch, matched, share, now));
    Ok(StagedBatch {
        batch_id: prepare.batch_id,
        transaction: prepare.transaction.clone(),
        standing: Standing::Active,
        height_hint: prepare.height_hint,
        fee_rate: prepare.fee_rate,
        execution_fee: prepare.execution_fee,
        prices: prepare.markets.iter().map(|(duration, market)| (*duration, market.clearing_price)).collect(),
        accounts,
        orders: orders.collect(),
        matches: matches.collect(),
        signed_at: now,
    })
}

fn staged_match(batch: &VerifiedBatch, matched: &VerifiedMatch, chain_fee: Sats, now: Timestamp) -> StagedMatch {
    let prepare = batch.prepare();
    let lease = Lease {
        batch_id: prepare.batch_id,
        txid: prepare.transaction.compute_txid(),
        channel: matched.shim.channel_point,
        account: matched.account,
        ours: matched.ours,
        theirs: matched.theirs,
        node: matched.node,
        maker: matched.maker,
        units: matched.units,
        duration: matched.duration,
        clearing_price: matched.clearing_price,
        premium: matched.premium,
        execution_fee: matched.execution_fee,
        chain_fee,
        self_balance: matched.self_balance,
        booked_at: now,
        height: prepare.height_hint,
    };
    StagedMatch { lease, pending_id: matched.shim.pending_id }
}

/// Each match's share of its account's chain fee, in the order of the matches.
fn chain_fee_shares(batch: &VerifiedBatch) -> Vec<Sats> {
    let matches = batch.matches();
    let keys: Vec<AccountKey> = matches.iter().map(|matched| matched.account).collect();
    let fee = |key: AccountKey| batch.accounts().get(&key).map_or(Sats::ZERO, |ending| ending.chain_fee);
    shares(&keys, fee)
}

/// Splits each account's fee evenly over its matches, remainder to the first.
fn shares(keys: &[AccountKey], fee: impl Fn(AccountKey) -> Sats) -> Vec<Sats> {
    let mut result = Vec::with_capacity(keys.len());
    for (index, key) in keys.iter().enumerate() {
        let count = u64::try_from(keys.iter().filter(|other| *other == key).count()).unwrap_or(u64::MAX).max(1);
        let first = !keys.iter().take(index).any(|other| other == key);
        let whole = fee(*key).get();
        let share = whole / count + if first { whole % count } else { 0 };
        result.push(Sats::new(share).expect("a share is at most the whole"));
    }
    result
}

/// The commit before a signature leaves: the batch, and every earlier one that spends the same outputs superseded.
///
/// # Errors
/// [`StageError`] when the book moved since the batch was verified.
pub(crate) fn stage(book: &Book, batch: StagedBatch, basis: &Basis) -> Result<Vec<Update>, StageError> {
    basis.holds(book)?;
    let (txid, at) = (batch.txid(), batch.signed_at);
    let mut updates = supersede(book, |other| other.txid() != txid && other.conflicts_with(&batch));
    // From now on the signed batch says what is to be cleaned up.
    updates.extend(book.remains.contains_key(&txid).then_some(Update::Forget(txid)));
    updates.extend(events(&batch, at, |_| OrderEventKind::Signed));
    updates.push(Update::Stage(Box::new(batch)));
    Ok(updates)
}

/// Every active batch of this kind loses its place; its channels are to be given up.
pub(crate) fn supersede(book: &Book, which: impl Fn(&StagedBatch) -> bool) -> Vec<Update> {
    let active = book.staged.values().filter(|batch| batch.standing == Standing::Active && which(batch));
    let superseded = |batch: &StagedBatch| {
        let stage = StagedBatch { standing: Standing::Superseded, ..batch.clone() };
        [Update::Stage(Box::new(stage)), remains(batch)]
    };
    active.flat_map(superseded).collect()
}

fn remains(batch: &StagedBatch) -> Update {
    Update::Remains(Box::new(Remains::of_staged(batch)))
}

/// One event per match of a signed batch.
fn events(batch: &StagedBatch, at: Timestamp, kind: impl Fn(&Lease) -> OrderEventKind) -> Vec<Update> {
    let event = |staged: &StagedMatch| OrderEvent {
        at,
        order: staged.lease.ours,
        batch: batch.batch_id,
        theirs: staged.lease.theirs,
        units: staged.lease.units,
        kind: kind(&staged.lease),
    };
    batch.matches.iter().map(|staged| Update::Event(Box::new(event(staged)))).collect()
}

/// When and how a batch became final.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settled {
    pub(crate) by: Settlement,
    pub(crate) at: Timestamp,
    pub(crate) height: BlockHeight,
}

/// What becomes true when a signed batch is final; nothing when it is not known or already booked, or when the venue's
/// word contradicts what the chain made of its accounts.
pub(crate) fn settle(book: &Book, txid: Txid, settled: Settled) -> Option<Vec<Update>> {
    let batch = book.staged.get(&txid).filter(|batch| batch.standing != Standing::Booked)?;
    // On a word of the venue only outputs that we know are spent; the chain is always right.
    if settled.by != Settlement::Chain
        && let Some(other) = batch.accounts.iter().find(|staged| !spends_current(book, staged))
    {
        tracing::error!(account = %other.after.key(), %txid, "the batch spends another output than the account's");
        return None;
    }
    if batch.standing == Standing::Superseded {
        tracing::error!(batch = %batch.batch_id, %txid, "a batch came true whose channels were given up: close them with the peers");
    }
    let mut updates = Vec::new();
    for staged in &batch.accounts {
        updates.extend(settled_account(book, staged));
    }
    for staged in &batch.orders {
        if let Some(own) = book.orders.get(&staged.nonce) {
            updates.push(Update::Order(Box::new(settled_order(own, staged))));
        }
    }
    // A batch that was booked on the venue's word, but lost on the chain.
    let lost = book.staged.values().filter(|other| other.standing == Standing::Booked && other.conflicts_with(batch));
    for other in lost {
        tracing::error!(batch = %other.batch_id, txid = %other.txid(), by = %txid, "a final batch was replaced on the chain");
        updates.extend(other.matches.iter().map(|staged| Update::DropLease(staged.lease.channel)));
        updates.extend([Update::Unstage(other.txid()), remains(other)]);
    }
    for staged in &batch.matches {
        let lease = Lease { booked_at: settled.at, height: settled.height, ..staged.lease.clone() };
        updates.push(Update::Lease(Box::new(lease)));
    }
    updates.extend(events(batch, settled.at, |_| OrderEventKind::Finalized));
    updates.push(Update::Batch(Box::new(BatchRecord {
        batch_id: batch.batch_id,
        txid,
        fee_rate: batch.fee_rate,
        execution_fee: batch.execution_fee,
        height_hint: batch.height_hint,
        prices: batch.prices.clone(),
        settlement: settled.by,
        settled_at: settled.at,
    })));
    updates.push(Update::Stage(Box::new(StagedBatch { standing: Standing::Booked, ..batch.clone() })));
    Some(updates)
}

/// An order after a final batch. What is left of one that was cancelled or expired since we signed stays so: nothing is
/// reserved for it any more.
fn settled_order(own: &OwnOrder, staged: &StagedOrder) -> OwnOrder {
    let at_rest = own.state.is_archived() && !staged.state.is_archived();
    let state = if at_rest { own.state } else { staged.state };
    OwnOrder { state, units_unfulfilled: staged.units_unfulfilled, ..own.clone() }
}

fn spends_current(book: &Book, staged: &StagedAccount) -> bool {
    book.accounts.get(&staged.after.key()).is_some_and(|account| account.outpoint == Some(staged.spent))
}

fn settled_account(book: &Book, staged: &StagedAccount) -> Option<Update> {
    let key = staged.after.key();
    let current = book.accounts.get(&key)?;
    let event = if staged.recreated { AccountEvent::BatchRecreated } else { AccountEvent::BatchConsumed };
    match book.after(key, event) {
        Some(Account { state, .. }) => Some(Update::Account(Box::new(Account { state, ..staged.after.clone() }))),
        None => {
            tracing::error!(account = %key, state = ?current.state, "a batch became final for an account that cannot be in one");
            None
        }
    }
}

/// The current output reached its depth.
pub(crate) fn confirmed(book: &Book, key: AccountKey, transaction: &Transaction, height: BlockHeight) -> Vec<Update> {
    let txid = transaction.compute_txid();
    let current = book.accounts.get(&key).and_then(|account| account.outpoint);
    if current.is_none_or(|outpoint| outpoint.txid != txid) {
        return Vec::new();
    }
    let Some(account) = book.after(key, AccountEvent::Confirmed) else { return Vec::new() };
    if book.accounts.get(&key).is_some_and(|before| before.state == account.state) {
        return Vec::new();
    }
    let mut updates = vec![Update::Account(Box::new(Account { height_hint: height, ..account }))];
    updates.extend(decided(book, &lineage(book, txid)));
    updates
}

/// A transaction and, as far as they are booked batches, those whose outputs of ours it spends: all of them confirmed
/// when it is.
fn lineage(book: &Book, txid: Txid) -> BTreeSet<Txid> {
    let mut found = BTreeSet::from([txid]);
    let mut open = vec![txid];
    while let Some(batch) = open.pop().map(|txid| book.staged.get(&txid)) {
        let parents = batch.into_iter().flat_map(|batch| batch.accounts.iter().map(|staged| staged.spent.txid));
        let booked = |txid: &Txid| book.staged.get(txid).is_some_and(|batch| batch.standing == Standing::Booked);
        let new: Vec<Txid> = parents.filter(booked).filter(|txid| !found.contains(txid)).collect();
        found.extend(new.iter().copied());
        open.extend(new);
    }
    found
}

/// The chain has spoken: these batches need no memory any more, and whatever spent the same outputs is void.
fn decided(book: &Book, confirmed: &BTreeSet<Txid>) -> Vec<Update> {
    let mut updates = Vec::new();
    for batch in book.staged.values() {
        let txid = batch.txid();
        let mut winners = confirmed.iter().filter_map(|winner| book.staged.get(winner));
        if !winners.any(|winner| winner.conflicts_with(batch)) {
            continue;
        }
        updates.push(Update::Unstage(txid));
        if batch.standing == Standing::Active && !confirmed.contains(&txid) {
            updates.push(remains(batch));
        }
    }
    updates
}

/// A block spends an output of the account.
///
/// # Source
/// Protocol notes, accounts §3 and §4, batch §9.
pub(crate) fn spent(
    book: &Book,
    key: AccountKey,
    spender: &Transaction,
    at: Timestamp,
    height: BlockHeight,
) -> Vec<Update> {
    let Some(account) = book.accounts.get(&key) else { return Vec::new() };
    let txid = spender.compute_txid();
    let settled = Settled { by: Settlement::Chain, at, height };
    let involved = book.staged.get(&txid).is_some_and(|batch| batch.accounts.iter().any(|s| s.after.key() == key));
    if involved && let Some(updates) = settle(book, txid, settled) {
        // A batch that we signed: also when its finalize message never came.
        return updates;
    }
    let Some(witness) = account.outpoint.and_then(|outpoint| witness_of(spender, outpoint)) else { return Vec::new() };
    let kind = classify_spend(witness);
    if kind == SpendKind::Cooperative
        && let Some(update) = adopted(account, spender, height)
    {
        tracing::warn!(account = %key, %txid, "the account moved in a transaction that we did not know");
        return vec![update];
    }
    let event = match kind {
        SpendKind::Expiry => AccountEvent::SpentByExpiry,
        SpendKind::Cooperative => AccountEvent::SpentForGood,
        SpendKind::Unknown => {
            tracing::error!(account = %key, %txid, "the account was spent in an unknown way");
            AccountEvent::SpentForGood
        }
    };
    closed(book, key, event, spender, height)
}

fn witness_of(transaction: &Transaction, outpoint: OutPoint) -> Option<&bitcoin::Witness> {
    transaction.input.iter().find(|input| input.previous_output == outpoint).map(|input| &input.witness)
}

/// The account's next output in a cooperative spend that is not in the book, e.g. after the store was restored.
fn adopted(account: &Account, spender: &Transaction, height: BlockHeight) -> Option<Update> {
    let terms = account.terms.next().ok()?;
    let script = terms.output_script().ok()?;
    let vout = find_output(spender, &script)?;
    let output = spender.output.get(usize::try_from(vout).ok()?)?;
    let state = next(account.state, AccountEvent::BatchRecreated).state(account.state)?;
    let value = Sats::try_from(output.value).ok()?;
    let outpoint = Some(OutPoint::new(spender.compute_txid(), vout));
    let latest_tx = Some(spender.clone());
    Some(Update::Account(Box::new(Account {
        terms,
        value,
        state,
        height_hint: height,
        outpoint,
        latest_tx,
        locator: account.locator,
    })))
}

fn closed(
    book: &Book,
    key: AccountKey,
    event: AccountEvent,
    spender: &Transaction,
    height: BlockHeight,
) -> Vec<Update> {
    let Some(account) = book.after(key, event) else { return Vec::new() };
    let spent = account.outpoint;
    let latest_tx = Some(spender.clone());
    let mut updates =
        vec![Update::Account(Box::new(Account { value: Sats::ZERO, height_hint: height, latest_tx, ..account }))];
    let spender = spender.compute_txid();
    for batch in book.staged.values().filter(|batch| batch.spends_any(&spent.into_iter().collect())) {
        updates.push(Update::Unstage(batch.txid()));
        // One that a close overtook has its channels still.
        if batch.standing != Standing::Booked && batch.txid() != spender {
            updates.push(remains(batch));
        }
    }
    // The output that was spent confirmed before; other accounts of the same batch may still wait for their depth.
    if let Some(parent) = spent.map(|outpoint| outpoint.txid) {
        let awaited = |txid: &Txid| book.accounts.values().any(|other| other.key() != key && awaits(other, *txid));
        let confirmed = lineage(book, parent).into_iter().filter(|txid| !awaited(txid)).collect();
        updates.extend(decided(book, &confirmed));
    }
    updates.extend(expired_orders(book, key));
    updates
}

/// Whether the account waits until this transaction confirms.
fn awaits(account: &Account, txid: Txid) -> bool {
    let pending = matches!(account.state, AccountState::PendingBatch | AccountState::ExpiredPendingUpdate);
    pending && account.outpoint.is_some_and(|outpoint| outpoint.txid == txid)
}

/// Orders cannot outlive their account.
pub(crate) fn expired_orders(book: &Book, key: AccountKey) -> Vec<Update> {
    let expired = |own: &OwnOrder| Update::Order(Box::new(OwnOrder { state: OrderState::Expired, ..own.clone() }));
    book.active_orders(key).map(expired).collect()
}

/// Accounts whose expiry height is reached.
pub(crate) fn expired(book: &Book, best: BlockHeight) -> Vec<Update> {
    let due = book.accounts.values().filter(|account| account.terms.expiry <= best);
    let moved = due.filter_map(|account| {
        let state = next(account.state, AccountEvent::ExpiryReached).state(account.state)?;
        (state != account.state).then(|| Update::Account(Box::new(Account { state, ..account.clone() })))
    });
    moved.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;
    use bitcoin::Witness;
    use tidegate_protocol::units::UnitCount;

    fn book() -> Book {
        let mut book = Book::default();
        for update in [Update::Account(Box::new(fixtures::account(1))), Update::Order(Box::new(fixtures::own_ask(1)))] {
            book.apply(update);
        }
        book
    }

    fn basis() -> Basis {
        let account = fixtures::account(1);
        Basis { accounts: BTreeMap::from([(account.key(), account)]), orders: vec![fixtures::own_ask(1)] }
    }

    fn settled(by: Settlement) -> Settled {
        Settled { by, at: Timestamp(5), height: BlockHeight::new(701) }
    }

    fn applied(mut book: Book, updates: Vec<Update>) -> Book {
        updates.into_iter().for_each(|update| book.apply(update));
        book
    }

    fn staged_book() -> (Book, Txid) {
        let updates = stage(&book(), fixtures::staged_batch(), &basis()).unwrap();
        (applied(book(), updates), fixtures::staged_batch().txid())
    }

    #[test]
    fn a_fee_is_split_evenly_and_the_first_match_takes_the_remainder() {
        let (one, two) = (fixtures::account_key(1), fixtures::account_key(2));
        let fee = |key| if key == one { Sats::constant(100) } else { Sats::constant(7) };
        let found: Vec<u64> = shares(&[one, two, one, one], fee).into_iter().map(Sats::get).collect();
        assert_eq!(found, [34, 7, 33, 33]);
        assert!(shares(&[], fee).is_empty());
    }

    #[test]
    fn a_batch_is_not_staged_when_the_book_moved() {
        let order = |state| Update::Order(Box::new(OwnOrder { state, ..fixtures::own_ask(1) }));
        let account = |edit: fn(&mut Account)| {
            let mut account = fixtures::account(1);
            edit(&mut account);
            Update::Account(Box::new(account))
        };
        let refused = [
            order(OrderState::Canceled),
            order(OrderState::PartiallyFilled),
            account(|account| account.state = AccountState::PendingClosed),
            account(|account| account.value = Sats::ZERO),
            account(|account| account.outpoint = Some(fixtures::outpoint(9))),
        ];
        for update in refused {
            let moved = applied(book(), vec![update.clone()]);
            assert!(stage(&moved, fixtures::staged_batch(), &basis()).is_err(), "{update:?}");
        }
        let confirmed = account(|account| account.height_hint = BlockHeight::new(699));
        assert!(stage(&applied(book(), vec![confirmed]), fixtures::staged_batch(), &basis()).is_ok());
    }

    #[test]
    fn a_final_batch_changes_account_order_and_leases_once() {
        let (book, txid) = staged_book();
        assert_eq!(book.accounts[&fixtures::account_key(1)], fixtures::account(1), "staging changes nothing live");
        let after = applied(book.clone(), settle(&book, txid, settled(Settlement::Finalized)).unwrap());
        let expected = fixtures::staged_batch().accounts[0].after.clone();
        assert_eq!(after.accounts[&expected.key()], expected);
        assert_eq!(after.orders[&fixtures::nonce(1)].units_unfulfilled.get(), 3);
        let lease = after.leases.values().next().unwrap();
        assert_eq!((lease.booked_at, lease.height), (Timestamp(5), BlockHeight::new(701)));
        assert_eq!(after.batches.len(), 1);
        assert!(settle(&after, txid, settled(Settlement::Chain)).is_none(), "booked already");
    }

    #[test]
    fn a_word_of_the_venue_changes_nothing_when_the_accounts_output_is_another() {
        let (book, txid) = staged_book();
        let moved = Account { outpoint: Some(fixtures::outpoint(9)), ..fixtures::account(1) };
        let book = applied(book, vec![Update::Account(Box::new(moved))]);
        for by in [Settlement::Finalized, Settlement::Snapshot] {
            assert!(settle(&book, txid, settled(by)).is_none(), "{by:?}");
        }
        assert!(settle(&book, txid, settled(Settlement::Chain)).is_some(), "the chain is always right");
    }

    #[test]
    fn a_confirmation_ends_the_memory_of_the_batch_and_of_its_rivals() {
        let (book, txid) = staged_book();
        let mut rival = fixtures::staged_batch();
        rival.transaction.output[0].value += bitcoin::Amount::ONE_SAT;
        rival.standing = Standing::Superseded;
        let book = applied(book, vec![Update::Stage(Box::new(rival))]);
        let book = applied(book.clone(), settle(&book, txid, settled(Settlement::Finalized)).unwrap());
        assert_eq!(book.staged.len(), 2);
        let (key, transaction) = (fixtures::account_key(1), fixtures::staged_batch().transaction);
        let stale = confirmed(&book, key, &fixtures::spend_of(fixtures::outpoint(8)), BlockHeight::new(702));
        assert!(stale.is_empty(), "another transaction");
        let after = applied(book.clone(), confirmed(&book, key, &transaction, BlockHeight::new(702)));
        assert!(after.staged.is_empty());
        let account = &after.accounts[&key];
        assert_eq!((account.state, account.height_hint), (AccountState::Open, BlockHeight::new(702)));
    }

    /// A booked batch of accounts 1 and 2, and the spend of account 1's new output.
    fn batch_of_two() -> (Book, Txid, Transaction) {
        let mut batch = fixtures::staged_batch();
        let mut other = batch.accounts[0].clone();
        (other.spent, other.after.terms.trader) = (fixtures::outpoint(2), fixtures::account_key(2));
        batch.accounts.push(other);
        batch.standing = Standing::Booked;
        let mut book = Book::default();
        for staged in &batch.accounts {
            book.apply(Update::Account(Box::new(staged.after.clone())));
        }
        let mut spender = fixtures::spend_of(batch.accounts[0].after.outpoint.unwrap());
        spender.input[0].witness = Witness::from_slice(&[[1u8; 64]]);
        spender.output[0].value = bitcoin::Amount::from_sat(1_000);
        let txid = batch.txid();
        book.apply(Update::Stage(Box::new(batch)));
        (book, txid, spender)
    }

    #[test]
    fn a_close_forgets_the_batch_before_it_unless_another_account_waits_for_it() {
        let (waiting, txid, spender) = batch_of_two();
        let close = |book: &Book| {
            let updates = spent(book, fixtures::account_key(1), &spender, Timestamp(5), BlockHeight::new(703));
            applied(book.clone(), updates)
        };
        let after = close(&waiting);
        assert_eq!(after.accounts[&fixtures::account_key(1)].state, AccountState::Closed);
        assert!(after.staged.contains_key(&txid), "account 2 may still see a rival confirm");
        let open = Account { state: AccountState::Open, ..waiting.accounts[&fixtures::account_key(2)].clone() };
        let confirmed = applied(waiting, vec![Update::Account(Box::new(open))]);
        assert!(close(&confirmed).staged.is_empty());
    }

    #[test]
    fn a_batch_takes_the_place_of_those_only_that_spend_the_same_outputs() {
        let (mut book, _) = staged_book();
        let mut elsewhere = fixtures::staged_batch();
        elsewhere.transaction.output[0].value += bitcoin::Amount::ONE_SAT;
        elsewhere.accounts[0].spent = fixtures::outpoint(9);
        book.apply(Update::Stage(Box::new(elsewhere.clone())));
        let mut next = fixtures::staged_batch();
        next.transaction.output[0].value += bitcoin::Amount::from_sat(2);
        let first = fixtures::staged_batch().txid();
        let after = applied(book.clone(), stage(&book, next.clone(), &basis()).unwrap());
        let standing = |txid| after.staged[&txid].standing;
        assert_eq!(standing(first), Standing::Superseded);
        assert_eq!(standing(elsewhere.txid()), Standing::Active);
        assert_eq!(standing(next.txid()), Standing::Active);
        assert_eq!(after.remains.keys().copied().collect::<Vec<_>>(), [first], "its channels are to be given up");
    }

    #[test]
    fn channels_of_a_signed_batch_are_to_be_given_up_when_a_rival_confirms() {
        let (book, txid) = staged_book();
        let mut rival = fixtures::staged_batch();
        rival.transaction.output[0].value += bitcoin::Amount::ONE_SAT;
        let rival_txid = rival.txid();
        let book = applied(book, vec![Update::Stage(Box::new(rival))]);
        let book = applied(book.clone(), settle(&book, txid, settled(Settlement::Chain)).unwrap());
        let transaction = fixtures::staged_batch().transaction;
        let updates = confirmed(&book, fixtures::account_key(1), &transaction, BlockHeight::new(702));
        let after = applied(book, updates);
        assert!(after.staged.is_empty());
        assert_eq!(after.remains.keys().copied().collect::<Vec<_>>(), [rival_txid]);
    }

    #[test]
    fn an_order_that_is_at_rest_stays_so_but_knows_what_was_filled() {
        let staged = fixtures::staged_batch().orders[0];
        let all = StagedOrder { state: OrderState::Executed, units_unfulfilled: UnitCount::new(0), ..staged };
        let cases = [
            (OrderState::Submitted, staged, OrderState::PartiallyFilled),
            (OrderState::Canceled, staged, OrderState::Canceled),
            (OrderState::Expired, staged, OrderState::Expired),
            (OrderState::Canceled, all, OrderState::Executed),
        ];
        for (state, staged, expected) in cases {
            let after = settled_order(&OwnOrder { state, ..fixtures::own_ask(1) }, &staged);
            assert_eq!((after.state, after.units_unfulfilled), (expected, staged.units_unfulfilled), "{state:?}");
        }
    }

    fn spend_with(witness: Witness) -> Transaction {
        let mut spender = fixtures::spend_of(fixtures::outpoint(1));
        spender.input[0].witness = witness;
        spender
    }

    #[test]
    fn a_foreign_spend_closes_the_account_its_orders_and_what_was_staged() {
        let (book, _) = staged_book();
        let key = fixtures::account_key(1);
        let mut spender = spend_with(Witness::from_slice(&[[1u8; 64]]));
        spender.output[0].value = bitcoin::Amount::from_sat(1_000);
        let at = |transaction: &Transaction| spent(&book, key, transaction, Timestamp(5), BlockHeight::new(703));
        let after = applied(book.clone(), at(&spender));
        assert_eq!(after.accounts[&key].state, AccountState::Closed);
        assert_eq!(after.orders[&fixtures::nonce(1)].state, OrderState::Expired);
        assert!(after.staged.is_empty());
        let elsewhere = fixtures::spend_of(fixtures::outpoint(7));
        assert!(at(&elsewhere).is_empty(), "an output that is not the account's");
    }

    #[test]
    fn the_next_output_is_found_in_a_spend_that_the_book_does_not_know() {
        let key = fixtures::account_key(1);
        let next = fixtures::account(1).terms.next().unwrap();
        let mut spender = spend_with(Witness::from_slice(&[[1u8; 64]]));
        spender.output.push(next.output(Sats::constant(777_777)).unwrap());
        let after = applied(book(), spent(&book(), key, &spender, Timestamp(5), BlockHeight::new(703)));
        let account = &after.accounts[&key];
        assert_eq!((account.state, account.value), (AccountState::PendingBatch, Sats::constant(777_777)));
        assert_eq!(account.outpoint, Some(OutPoint::new(spender.compute_txid(), 1)));
        assert_eq!(account.terms, next);
    }

    #[test]
    fn accounts_expire_at_their_height() {
        let at = |height| {
            applied(book(), expired(&book(), BlockHeight::new(height))).accounts[&fixtures::account_key(1)].state
        };
        assert_eq!(at(4_999), AccountState::Open);
        assert_eq!(at(5_000), AccountState::Expired);
    }
}
