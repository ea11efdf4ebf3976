//! What a commit moves: found by comparing the accounts before and after, so that no flow can forget to record it.
//!
//! Does: add to the updates of a commit the movements that they mean. Everything here is synchronous and pure.

use crate::book::{Book, ChangeKind, Lease, OwnChange, Update};
use bitcoin::{OutPoint, Txid};
use tidegate_ports::{MatchMoney, Movement, MovementKind, Timestamp};
use tidegate_protocol::account::Account;
use tidegate_protocol::keys::AccountKey;
use tidegate_protocol::units::Sats;

/// The movements that these updates of the book mean, those that are recorded already left out.
pub(crate) fn of(book: &Book, updates: &[Update]) -> Vec<Update> {
    let mut found: Vec<Movement> = Vec::new();
    for update in updates {
        let Update::Account(after) = update else { continue };
        let known = |moved: &Movement| {
            let name = (moved.account, moved.txid);
            book.movements.contains_key(&name) || found.iter().any(|other| (other.account, other.txid) == name)
        };
        let moved = movement(book, updates, after).filter(|moved| !known(moved));
        found.extend(moved);
    }
    found.into_iter().map(|moved| Update::Movement(Box::new(moved))).collect()
}

/// What makes an account of the book this one; nothing when no money moves.
fn movement(book: &Book, updates: &[Update], after: &Account) -> Option<Movement> {
    let before = book.accounts.get(&after.key());
    let before_output = before.and_then(|account| account.outpoint);
    let txid = after.latest_tx.as_ref()?.compute_txid();
    let recreated = after.outpoint.filter(|outpoint| outpoint.txid == txid);
    if recreated.is_some() && recreated == before_output {
        return None;
    }
    if let Some(change) = change(book, updates, after.key(), txid) {
        return Some(owners(change));
    }
    let batch = updates.iter().find_map(|update| match update {
        Update::Batch(record) if record.txid == txid => Some(record.settled_at),
        _ => None,
    });
    if let Some(at) = batch {
        return Some(batched(book, updates, after, txid, recreated, at));
    }
    let moved = |kind, spent, before| Movement {
        account: after.key(),
        txid,
        kind,
        spent,
        next: recreated,
        before,
        after: if recreated.is_some() { after.value } else { Sats::ZERO },
        fee: Sats::ZERO,
        matches: Vec::new(),
        at: None,
        height: after.height_hint,
    };
    match (before, before_output) {
        (None, _) => recreated.map(|_| moved(MovementKind::Opening, None, Sats::ZERO)),
        (Some(_), None) => recreated.map(|_| moved(MovementKind::Funding, None, Sats::ZERO)),
        (Some(account), Some(output)) => {
            foreign(book, account, output, after).map(|(spent, value)| moved(MovementKind::Foreign, Some(spent), value))
        }
    }
}

/// The output that a transaction which is none of ours spends, with its value: the account's current one, or the one
/// before a change that lost. Nothing when it spends neither, as when a change is void and the account is as before.
fn foreign(book: &Book, account: &Account, output: OutPoint, after: &Account) -> Option<(OutPoint, Sats)> {
    let spender = after.latest_tx.as_ref()?;
    let spends = |outpoint: OutPoint| spender.input.iter().any(|input| input.previous_output == outpoint);
    if spends(output) {
        return Some((output, account.value));
    }
    let mut earlier = book.changes_of(account.key()).map(|change| &change.before);
    earlier.find_map(|before| {
        before.outpoint.filter(|outpoint| spends(*outpoint)).map(|outpoint| (outpoint, before.value))
    })
}

/// The owner's change that this transaction is: of this commit, or of an earlier one.
fn change<'a>(book: &'a Book, updates: &'a [Update], key: AccountKey, txid: Txid) -> Option<&'a OwnChange> {
    let new = updates.iter().find_map(|update| match update {
        Update::Change(change) if change.txid() == txid => Some(change.as_ref()),
        _ => None,
    });
    new.or_else(|| book.changes.get(&txid)).filter(|change| change.after.key() == key)
}

fn owners(change: &OwnChange) -> Movement {
    let (before, after) = (&change.before, &change.after);
    Movement {
        account: after.key(),
        txid: change.txid(),
        kind: match change.kind {
            ChangeKind::Deposit => MovementKind::Deposit,
            ChangeKind::Withdraw => MovementKind::Withdraw,
            ChangeKind::Renew => MovementKind::Renew,
            ChangeKind::Close => MovementKind::Close,
        },
        spent: before.outpoint,
        next: change.next(),
        before: before.value,
        after: after.value,
        fee: change.fee,
        matches: Vec::new(),
        at: Some(change.signed_at),
        height: change.height,
    }
}

fn batched(
    book: &Book,
    updates: &[Update],
    after: &Account,
    txid: Txid,
    next: Option<OutPoint>,
    at: Timestamp,
) -> Movement {
    let key = after.key();
    let staged =
        book.staged.get(&txid).and_then(|batch| batch.accounts.iter().find(|staged| staged.after.key() == key));
    let leases = updates.iter().filter_map(|update| match update {
        Update::Lease(lease) if lease.account == key && lease.txid == txid => Some(money(lease)),
        _ => None,
    });
    let matches: Vec<MatchMoney> = leases.collect();
    // What is too little for an output of its own is left to the miner.
    let (value, left) = if next.is_some() { (after.value, Sats::ZERO) } else { (Sats::ZERO, after.value) };
    Movement {
        account: key,
        txid,
        kind: MovementKind::Batch,
        spent: staged.map(|staged| staged.spent),
        next,
        before: staged.and_then(|staged| value_of(book, key, staged.spent)).unwrap_or(Sats::ZERO),
        after: value,
        fee: left,
        matches,
        at: Some(at),
        height: after.height_hint,
    }
}

/// Value of an output of the account: the current one's, or one before a change or a batch that did not come true.
fn value_of(book: &Book, key: AccountKey, outpoint: OutPoint) -> Option<Sats> {
    let current = book.accounts.get(&key).filter(|account| account.outpoint == Some(outpoint));
    let earlier = || book.changes_of(key).map(|change| &change.before).find(|before| before.outpoint == Some(outpoint));
    let made = || book.movements.values().find(|moved| moved.account == key && moved.next == Some(outpoint));
    made().map(|moved| moved.after).or_else(|| current.or_else(earlier).map(|account| account.value))
}

fn money(lease: &Lease) -> MatchMoney {
    MatchMoney {
        channel: lease.channel,
        maker: lease.maker,
        principal: if lease.maker { lease.units.to_sats() } else { lease.self_balance },
        premium: lease.premium,
        execution_fee: lease.execution_fee,
        chain_fee: lease.chain_fee,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::book::{Settlement, StagedBatch, Standing};
    use crate::fixtures;
    use crate::staging::{self, Settled};
    use tidegate_protocol::account::AccountState;
    use tidegate_protocol::units::BlockHeight;

    /// What these updates record, after which they are true.
    fn commit(book: &mut Book, mut updates: Vec<Update>) -> Vec<Movement> {
        updates.extend(of(book, &updates));
        let moved = |update: &Update| match update {
            Update::Movement(moved) => Some(moved.as_ref().clone()),
            _ => None,
        };
        let found = updates.iter().filter_map(moved).collect();
        updates.into_iter().for_each(|update| book.apply(update));
        found
    }

    fn stored(account: Account) -> Update {
        Update::Account(Box::new(account))
    }

    /// The account of [`fixtures::account`], reserved and not funded.
    fn reserved() -> Account {
        Account { state: AccountState::Initiated, outpoint: None, ..fixtures::account(1) }
    }

    fn funded() -> Account {
        let transaction = fixtures::spend_of(fixtures::outpoint(99));
        let outpoint = Some(OutPoint::new(transaction.compute_txid(), 0));
        Account { state: AccountState::PendingOpen, outpoint, latest_tx: Some(transaction), ..fixtures::account(1) }
    }

    fn figures(moved: &[Movement]) -> Vec<(MovementKind, u64, u64, u64)> {
        moved.iter().map(|moved| (moved.kind, moved.before.get(), moved.after.get(), moved.fee.get())).collect()
    }

    #[test]
    fn a_funding_is_recorded_once() {
        let mut book = Book::default();
        assert_eq!(commit(&mut book, vec![stored(reserved())]), []);
        let moved = commit(&mut book, vec![stored(funded())]);
        assert_eq!(figures(&moved), [(MovementKind::Funding, 0, 1_000_000, 0)]);
        assert_eq!((moved[0].spent, moved[0].next), (None, funded().outpoint));
        let open = Account { state: AccountState::Open, ..funded() };
        assert_eq!(commit(&mut book, vec![stored(open)]), []);
        let recovered = commit(&mut Book::default(), vec![stored(funded())]);
        assert_eq!(figures(&recovered), [(MovementKind::Opening, 0, 1_000_000, 0)]);
    }

    #[test]
    fn a_change_is_recorded_when_it_is_stored_and_its_end_moves_nothing() {
        let kinds = [
            (ChangeKind::Deposit, MovementKind::Deposit, 800_000),
            (ChangeKind::Withdraw, MovementKind::Withdraw, 800_000),
            (ChangeKind::Renew, MovementKind::Renew, 800_000),
            (ChangeKind::Close, MovementKind::Close, 0),
        ];
        for (kind, expected, after) in kinds {
            let mut book = Book::default();
            book.apply(stored(fixtures::account(1)));
            let change = fixtures::own_change(1, kind);
            let updates = vec![stored(change.after.clone()), Update::Change(Box::new(change.clone()))];
            let moved = commit(&mut book, updates);
            assert_eq!(figures(&moved), [(expected, 1_000_000, after, 200)], "{kind:?}");
            assert_eq!((moved[0].spent, moved[0].next), (Some(fixtures::outpoint(1)), change.next()));
            let updates = match kind {
                ChangeKind::Close => {
                    staging::spent(&book, change.after.key(), change.transaction(), Timestamp(9), BlockHeight::new(800))
                }
                _ => staging::confirmed(&book, change.after.key(), change.transaction(), BlockHeight::new(800)),
            };
            assert!(!updates.is_empty(), "{kind:?}");
            assert_eq!(commit(&mut book, updates), [], "{kind:?}");
        }
    }

    #[test]
    fn a_void_change_moves_nothing_and_neither_does_its_return() {
        let mut book = Book::default();
        commit(&mut book, vec![stored(reserved())]);
        commit(&mut book, vec![stored(funded())]);
        let before = Account { state: AccountState::Open, ..funded() };
        commit(&mut book, vec![stored(before.clone())]);
        let change = OwnChange { before: before.clone(), ..fixtures::own_change(1, ChangeKind::Deposit) };
        let updates = vec![stored(change.after.clone()), Update::Change(Box::new(change.clone()))];
        assert_eq!(commit(&mut book, updates).len(), 1);
        let updates = vec![stored(before), Update::Change(Box::new(OwnChange { void: true, ..change.clone() }))];
        assert_eq!(commit(&mut book, updates), []);
        let updates = vec![stored(change.after.clone()), Update::Change(Box::new(change))];
        assert_eq!(commit(&mut book, updates), [], "it is in a block after all");
        assert_eq!(book.movements.len(), 2);
    }

    fn with_batch(staged: &StagedBatch) -> Book {
        let mut book = Book::default();
        book.apply(stored(fixtures::account(1)));
        book.apply(Update::Order(Box::new(fixtures::own_ask(1))));
        book.apply(Update::Stage(Box::new(staged.clone())));
        book
    }

    #[test]
    fn a_batch_is_recorded_with_its_matches_when_it_is_final() {
        let staged = fixtures::staged_batch();
        let mut book = with_batch(&staged);
        let settled = Settled { by: Settlement::Finalized, at: Timestamp(5), height: BlockHeight::new(701) };
        let updates = staging::settle(&book, staged.txid(), settled).unwrap();
        let moved = commit(&mut book, updates);
        assert_eq!(figures(&moved), [(MovementKind::Batch, 1_000_000, 900_000, 0)]);
        let money = MatchMoney {
            channel: staged.matches[0].lease.channel,
            maker: true,
            principal: Sats::constant(200_000),
            premium: Sats::constant(322),
            execution_fee: Sats::constant(201),
            chain_fee: Sats::constant(300),
        };
        assert_eq!((moved[0].matches.as_slice(), moved[0].at), ([money].as_slice(), Some(Timestamp(5))));
        assert_eq!((moved[0].spent, moved[0].next), (Some(fixtures::outpoint(1)), staged.accounts[0].after.outpoint));
        assert_eq!(book.staged.values().map(|batch| batch.standing).collect::<Vec<_>>(), [Standing::Booked]);
    }

    #[test]
    fn what_a_batch_leaves_of_an_account_that_ends_is_a_fee() {
        let mut staged = fixtures::staged_batch();
        let ending = &mut staged.accounts[0];
        ending.recreated = false;
        ending.after = Account {
            state: AccountState::PendingClosed,
            value: Sats::constant(400),
            latest_tx: Some(staged.transaction.clone()),
            ..fixtures::account(1)
        };
        let mut book = with_batch(&staged);
        let settled = Settled { by: Settlement::Chain, at: Timestamp(5), height: BlockHeight::new(701) };
        let updates = staging::settle(&book, staged.txid(), settled).unwrap();
        let moved = commit(&mut book, updates);
        assert_eq!(figures(&moved), [(MovementKind::Batch, 1_000_000, 0, 400)]);
        assert_eq!(moved[0].next, None);
    }

    #[test]
    fn a_transaction_that_is_none_of_ours_is_foreign() {
        let mut book = Book::default();
        book.apply(stored(fixtures::account(1)));
        let spender = fixtures::spend_of(fixtures::outpoint(1));
        let updates = staging::spent(&book, fixtures::account_key(1), &spender, Timestamp(5), BlockHeight::new(701));
        let moved = commit(&mut book, updates);
        assert_eq!(figures(&moved), [(MovementKind::Foreign, 1_000_000, 0, 0)]);
        assert_eq!((moved[0].spent, moved[0].txid), (Some(fixtures::outpoint(1)), spender.compute_txid()));
    }
}
