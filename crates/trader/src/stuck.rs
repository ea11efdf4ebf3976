//! Transactions that are unconfirmed for too long: which, why as far as it is known, and what can be done.
//!
//! Does: find them in the book, with what the node said. Never does: act; upkeep publishes again by itself, and the owner
//! raises fees.

use crate::book::Book;
use crate::desk::Moment;
use crate::status::{Stuck, Waiting};
use bitcoin::Txid;
use tidegate_protocol::account::{Account, AccountState};
use tidegate_protocol::keys::AccountKey;
use tidegate_protocol::units::{BlockCount, BlockHeight, Sats};

/// The transactions that are stuck at this height.
pub(crate) fn stuck(book: &Book, moment: &Moment, longest: BlockCount) -> Vec<Stuck> {
    let Some(best) = moment.best_height else { return Vec::new() };
    let candidates = book.accounts.values().filter_map(|account| unconfirmed(book, account));
    candidates
        .filter_map(|(account, txid, waiting, since, fee)| {
            let blocks = Some(best.blocks_since(since)).filter(|blocks| *blocks >= longest)?;
            let refusal = moment.refused.get(&txid).cloned();
            Some(Stuck { account, txid, waiting, since, blocks, fee, refusal })
        })
        .collect()
}

type Unconfirmed = (AccountKey, Txid, Waiting, BlockHeight, Option<Sats>);

/// The transaction that an account waits for.
fn unconfirmed(book: &Book, account: &Account) -> Option<Unconfirmed> {
    let txid = match account.state {
        AccountState::PendingOpen | AccountState::PendingUpdate | AccountState::PendingBatch => account.outpoint?.txid,
        AccountState::ExpiredPendingUpdate => account.outpoint?.txid,
        AccountState::PendingClosed => account.latest_tx.as_ref()?.compute_txid(),
        AccountState::Initiated | AccountState::Open | AccountState::Expired | AccountState::Closed => return None,
        AccountState::CanceledAfterRecovery => return None,
    };
    let key = account.key();
    if let Some(change) = book.changes.get(&txid) {
        return Some((key, txid, Waiting::Change(change.kind), change.height, Some(change.fee)));
    }
    if let Some(batch) = book.staged.get(&txid) {
        return Some((key, txid, Waiting::Batch, batch.height_hint, None));
    }
    let waiting = if account.state == AccountState::PendingOpen { Waiting::Funding } else { Waiting::Unknown };
    Some((key, txid, waiting, account.height_hint, None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::book::{ChangeKind, StagedBatch, Standing, Update};
    use crate::fixtures;

    const LONGEST: BlockCount = BlockCount::new(12);

    fn moment(height: u32) -> Moment {
        Moment { best_height: Some(BlockHeight::new(height)), ..Moment::default() }
    }

    #[test]
    fn a_change_is_stuck_after_its_time_and_says_why() {
        let change = fixtures::own_change(1, ChangeKind::Withdraw);
        let mut book = Book::default();
        book.apply(Update::Account(Box::new(change.after.clone())));
        book.apply(Update::Change(Box::new(change.clone())));
        assert!(stuck(&book, &moment(711), LONGEST).is_empty());
        let mut now = moment(712);
        let found = stuck(&book, &now, LONGEST);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].txid, found[0].waiting), (change.txid(), Waiting::Change(ChangeKind::Withdraw)));
        assert!(found[0].to_string().contains("its fee can be raised"), "{}", found[0]);
        now.refused.insert(change.txid(), "min relay fee not met".into());
        let found = stuck(&book, &now, LONGEST);
        assert!(found[0].to_string().contains("min relay fee not met"), "{}", found[0]);
    }

    #[test]
    fn every_kind_of_waiting_has_its_sentence() {
        let account = |state| Account { state, ..fixtures::account(1) };
        let with = |update: Vec<Update>| {
            let mut book = Book::default();
            update.into_iter().for_each(|update| book.apply(update));
            let mut found = stuck(&book, &moment(2_000), LONGEST);
            found.pop().map(|stuck| (stuck.waiting, stuck.to_string()))
        };
        let one = |account: Account| vec![Update::Account(Box::new(account))];
        assert_eq!(with(one(account(AccountState::Open))), None);
        assert_eq!(with(one(account(AccountState::Closed))), None);
        let (waiting, text) = with(one(account(AccountState::PendingOpen))).unwrap();
        assert_eq!(waiting, Waiting::Funding);
        assert!(text.starts_with("the funding"), "{text}");
        assert_eq!(with(one(account(AccountState::ExpiredPendingUpdate))).unwrap().0, Waiting::Unknown);
        let staged = StagedBatch { standing: Standing::Booked, ..fixtures::staged_batch() };
        let after = staged.accounts[0].after.clone();
        let (waiting, text) = with(vec![Update::Account(Box::new(after)), Update::Stage(Box::new(staged))]).unwrap();
        assert_eq!(waiting, Waiting::Batch);
        assert!(text.contains("the venue publishes it"), "{text}");
        for (kind, word) in [(ChangeKind::Renew, "cannot be raised"), (ChangeKind::Close, "the close")] {
            let change = fixtures::own_change(1, kind);
            let rows = vec![Update::Account(Box::new(change.after.clone())), Update::Change(Box::new(change))];
            let (waiting, text) = with(rows).unwrap();
            assert_eq!(waiting, Waiting::Change(kind));
            assert!(text.contains(word), "{text}");
        }
    }
}
