//! From a verified batch to rows: what is staged before a signature leaves, and what becomes true when it is final.
//!
//! Does: compute updates of the book. Everything here is synchronous and pure.

use crate::book::{
    BatchRecord, Book, ChangeKind, Lease, OrderEvent, OrderEventKind, OwnChange, Remains, Settlement, StagedAccount,
    StagedBatch, StagedMatch, StagedOrder, Standing, Update,
};
use crate::machine::{AccountEvent, OrderFate, next, next_order};
use bitcoin::{OutPoint, Transaction, Txid};
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;
use tidegate_ports::Timestamp;
use tidegate_protocol::account::{Account, AccountState, AccountTerms, AccountVersion};
use tidegate_protocol::keys::AccountKey;
use tidegate_protocol::order::OwnOrder;
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
/// [`StageError::NoInput`], and [`StageError::AccountChanged`] for an account that it was not verified against.
pub(crate) fn staged(batch: &VerifiedBatch, basis: &Basis, now: Timestamp) -> Result<StagedBatch, StageError> {
    let prepare = batch.prepare();
    let mut accounts = Vec::new();
    for (key, ending) in batch.accounts() {
        let before = basis.account(*key).ok_or(StageError::AccountChanged(*key))?.terms;
        let input = prepare.transaction.input.get(ending.input).ok_or(StageError::NoInput)?;
        let (after, recreated) = (ending.after.clone(), ending.recreated);
        accounts.push(StagedAccount { spent: input.previous_output, before, after, recreated });
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
        let settled = settled_account(book, staged);
        // A change of the owner's that spends the same output, or what that one made, lost against the batch.
        let lost = book.changes_of(staged.after.key()).filter(|_| settled.is_some());
        updates.extend(lost.map(|change| Update::Unchange(change.txid())));
        updates.extend(settled);
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

/// An order after a final batch.
fn settled_order(own: &OwnOrder, staged: &StagedOrder) -> OwnOrder {
    let fate = if staged.state.is_archived() { OrderFate::Filled } else { OrderFate::PartlyFilled };
    let state = next_order(own.state, fate).state(own.state).unwrap_or(own.state);
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
    if let Some(change) = book.changes.get(&txid) {
        updates.extend(rivals(book, change.before.outpoint, txid));
    }
    updates.extend(book.changes_of(key).map(|change| Update::Unchange(change.txid())));
    updates
}

/// The signed batches that spent this output, now that another transaction does for good.
fn rivals(book: &Book, spent: Option<OutPoint>, winner: Txid) -> Vec<Update> {
    let mut updates = Vec::new();
    for batch in book.staged.values().filter(|batch| batch.spends_any(&spent.into_iter().collect())) {
        updates.push(Update::Unstage(batch.txid()));
        // One that a change of ours overtook has its channels still.
        if batch.standing != Standing::Booked && batch.txid() != winner {
            updates.push(remains(batch));
        }
    }
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
    if let Some(change) = book.changes.get(&txid).filter(|change| change.after.key() == key) {
        return changed(book, change, spender, height);
    }
    let spends = |outpoint: Option<OutPoint>| outpoint.is_some_and(|outpoint| witness_of(spender, outpoint).is_some());
    // Somebody else's spend of the output before a change: the change is lost.
    let before = || book.changes_of(key).map(|change| &change.before).find(|before| spends(before.outpoint));
    let Some(account) = Some(account).filter(|account| spends(account.outpoint)).or_else(before) else {
        return Vec::new();
    };
    let Some(witness) = account.outpoint.and_then(|outpoint| witness_of(spender, outpoint)) else { return Vec::new() };
    let kind = classify_spend(witness);
    if kind == SpendKind::Cooperative
        && let Some(update) = adopted(account, spender, height)
    {
        tracing::warn!(account = %key, %txid, "the account moved in a transaction that we did not know");
        let lost = book.changes_of(key).map(|change| Update::Unchange(change.txid()));
        return lost.chain([update]).collect();
    }
    let event = match kind {
        SpendKind::Expiry => AccountEvent::SpentByExpiry,
        SpendKind::Cooperative => AccountEvent::SpentForGood,
        SpendKind::Unknown => {
            tracing::error!(account = %key, %txid, "the account was spent in an unknown way");
            AccountEvent::SpentForGood
        }
    };
    closed(book, key, event, account.outpoint, spender, height)
}

/// A block holds a change of the owner's. It is waited for by its depth, unless it ends the account.
fn changed(book: &Book, change: &OwnChange, spender: &Transaction, height: BlockHeight) -> Vec<Update> {
    let key = change.after.key();
    match change.kind {
        ChangeKind::Close => {
            let expired = change.before.outpoint.and_then(|outpoint| witness_of(spender, outpoint)).map(classify_spend)
                == Some(SpendKind::Expiry);
            let event = if expired { AccountEvent::SpentByExpiry } else { AccountEvent::SpentForGood };
            closed(book, key, event, change.before.outpoint, spender, height)
        }
        ChangeKind::Deposit | ChangeKind::Withdraw | ChangeKind::Renew if change.void => {
            // It was believed to be impossible: the account moved all the same.
            tracing::warn!(account = %key, txid = %change.txid(), "a change that was given up is in a block");
            let revived = OwnChange { void: false, ..change.clone() };
            vec![Update::Account(Box::new(change.after.clone())), Update::Change(Box::new(revived))]
        }
        ChangeKind::Deposit | ChangeKind::Withdraw | ChangeKind::Renew => Vec::new(),
    }
}

/// A block spends a coin of the wallet that a change of ours spends. Unless it is that change, the change can not confirm
/// any more: the account is again as it was before. Rows of later changes are void with it.
///
/// # Source
/// Design, "Point of no return": unknown outcomes stay pending, only the chain settles them.
pub(crate) fn coin_spent(book: &Book, key: AccountKey, spender: &Transaction) -> Vec<Update> {
    let txid = spender.compute_txid();
    let spent = |coin: &OutPoint| spender.input.iter().any(|input| input.previous_output == *coin);
    let lost =
        |change: &&OwnChange| !change.void && change.txid() != txid && change.coins.iter().any(|(coin, _)| spent(coin));
    let Some(lost) = book.changes_of(key).find(lost) else { return Vec::new() };
    let Some(now) = book.accounts.get(&key) else { return Vec::new() };
    let built_on = |change: &OwnChange| change.before.outpoint.is_some_and(|outpoint| outpoint.txid == lost.txid());
    let current = |change: &OwnChange| now.latest_tx.as_ref().is_some_and(|tx| tx.compute_txid() == change.txid());
    let later: Vec<&OwnChange> = book.changes_of(key).filter(|change| built_on(change)).collect();
    if !current(lost) && !later.iter().any(|change| current(change)) {
        return Vec::new();
    }
    tracing::error!(account = %key, change = %lost.txid(), by = %txid, "a coin of the change was spent elsewhere: it is void");
    let void = |change: &OwnChange| Update::Change(Box::new(OwnChange { void: true, ..change.clone() }));
    let mut updates = vec![Update::Account(Box::new(lost.before.clone())), void(lost)];
    updates.extend(later.into_iter().map(void));
    updates
}

fn witness_of(transaction: &Transaction, outpoint: OutPoint) -> Option<&bitcoin::Witness> {
    transaction.input.iter().find(|input| input.previous_output == outpoint).map(|input| &input.witness)
}

/// The account's next output in a cooperative spend that is not in the book, e.g. after the store was restored: with the
/// same expiry, and this version or a higher one. Any other expiry is for the search of a recovery.
fn adopted(account: &Account, spender: &Transaction, height: BlockHeight) -> Option<Update> {
    let next_terms = account.terms.next().ok()?;
    let versions = [AccountVersion::V0, AccountVersion::V1, AccountVersion::V2];
    let higher = versions.into_iter().filter(|version| *version >= next_terms.version);
    let (terms, vout) = higher.map(|version| AccountTerms { version, ..next_terms }).find_map(|terms| {
        let vout = find_output(spender, &terms.output_script().ok()?)?;
        Some((terms, vout))
    })?;
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
    spent: Option<OutPoint>,
    spender: &Transaction,
    height: BlockHeight,
) -> Vec<Update> {
    let Some(account) = book.after(key, event) else { return Vec::new() };
    let account = Account { outpoint: spent, ..account };
    let latest_tx = Some(spender.clone());
    let mut updates =
        vec![Update::Account(Box::new(Account { value: Sats::ZERO, height_hint: height, latest_tx, ..account }))];
    updates.extend(rivals(book, spent, spender.compute_txid()));
    updates.extend(book.changes_of(key).map(|change| Update::Unchange(change.txid())));
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
    let nonces = book.active_orders(key).map(|own| own.order.nonce);
    let expired = nonces.filter_map(|nonce| book.order_after(nonce, OrderFate::AccountEnded));
    expired.map(Box::new).map(Update::Order).collect()
}

/// Accounts whose expiry height is reached, and the end of their orders: the venue matches them no more. Orders that a
/// signed batch may still fill stay until it is settled.
pub(crate) fn expired(book: &Book, best: BlockHeight) -> Vec<Update> {
    let due = book.accounts.values().filter(|account| account.terms.expiry <= best);
    let moved = due.filter_map(|account| {
        let state = next(account.state, AccountEvent::ExpiryReached).state(account.state)?;
        (state != account.state).then(|| Account { state, ..account.clone() })
    });
    let with_orders = moved.flat_map(|account| {
        let key = account.key();
        let orders = if book.active_stage(key).is_none() { expired_orders(book, key) } else { Vec::new() };
        core::iter::once(Update::Account(Box::new(account))).chain(orders)
    });
    with_orders.collect()
}

#[cfg(test)]
mod tests;
