//! The only writer of the store, and what lets a signature go.
//!
//! Does: commit updates, and testify what was committed. [`Receipt`] has no public constructor: holding one proves that
//! the state which it names is durable. The functions that release something which spends an account take the receipt
//! and compare it with the transaction.

use crate::book::{OwnChange, Standing, Update};
use crate::error::ReleaseError;
use bitcoin::{OutPoint, Transaction, Txid};
use std::collections::BTreeMap;
use tidegate_ports::{Change, ClientMessage, Sequence, Store, StoreError};
use tidegate_protocol::account::{Account, AccountState};
use tidegate_protocol::batch::BatchSignatures;
use tidegate_protocol::keys::{AccountKey, BatchId};

/// A committed spend of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommittedSpend {
    /// Batch, when it is a batch's.
    pub batch: Option<BatchId>,
    /// The spending transaction.
    pub txid: Txid,
    /// Output that it spends.
    pub spent: OutPoint,
    /// The account's next output, when there is one.
    pub next: Option<OutPoint>,
}

/// Proof that a commit is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    sequence: Sequence,
    spends: BTreeMap<AccountKey, CommittedSpend>,
}

impl Receipt {
    /// Number of the commit.
    pub fn sequence(&self) -> Sequence {
        self.sequence
    }

    /// What the commit says of an account's spend.
    pub fn spend(&self, account: AccountKey) -> Option<&CommittedSpend> {
        self.spends.get(&account)
    }

    /// The spends that these updates announce.
    fn of(sequence: Sequence, updates: &[Update]) -> Receipt {
        let mut spends = BTreeMap::new();
        for update in updates {
            match update {
                // A void change releases nothing any more.
                Update::Change(change) if change.void => {}
                Update::Change(change) => spends.extend(changing(change).map(|spend| (change.after.key(), spend))),
                // A batch that loses its place, e.g. to a close in the same commit, releases nothing any more.
                Update::Stage(batch) if batch.standing != Standing::Active => {}
                Update::Stage(batch) => {
                    for staged in &batch.accounts {
                        let next = if staged.recreated { staged.after.outpoint } else { None };
                        let spend = CommittedSpend {
                            batch: Some(batch.batch_id),
                            txid: batch.txid(),
                            spent: staged.spent,
                            next,
                        };
                        spends.insert(staged.after.key(), spend);
                    }
                }
                Update::Account(_) | Update::Order(_) | Update::Unstage(_) | Update::Lease(_) => {}
                Update::Batch(_) | Update::Event(_) | Update::Node(_) | Update::Placed(..) => {}
                Update::DropLease(_) | Update::Unchange(_) | Update::Reserving(_) => {}
                Update::Remains(_) | Update::Forget(_) | Update::Rate(_) | Update::Unrate(_) => {}
                Update::Movement(_) | Update::Turned(_) => {}
            }
        }
        Receipt { sequence, spends }
    }
}

/// The spend that a stored change announces.
fn changing(change: &OwnChange) -> Option<CommittedSpend> {
    let spent = change.before.outpoint?;
    Some(CommittedSpend { batch: None, txid: change.txid(), spent, next: change.next() })
}

/// Commits the updates, given as rows too, durably, or none. This is the only call of [`Store::apply`] of a trader.
///
/// # Errors
/// [`StoreError`] of the store.
pub(crate) async fn commit<S: Store>(
    store: &S,
    expected: Sequence,
    changes: &[Change],
    updates: &[Update],
) -> Result<Receipt, StoreError> {
    if updates.is_empty() {
        return Ok(Receipt::of(expected, updates));
    }
    let sequence = store.apply(expected, changes).await?;
    Ok(Receipt::of(sequence, updates))
}

fn covered(
    receipt: &Receipt,
    account: AccountKey,
    batch: Option<BatchId>,
    transaction: &Transaction,
) -> Result<(), ReleaseError> {
    let spend = receipt.spend(account).ok_or(ReleaseError::NotCommitted { account })?;
    if spend.batch != batch {
        return Err(ReleaseError::OtherBatch);
    }
    let found = transaction.compute_txid();
    if spend.txid != found {
        return Err(ReleaseError::OtherTransaction { committed: spend.txid, found });
    }
    if !transaction.input.iter().any(|input| input.previous_output == spend.spent) {
        return Err(ReleaseError::OtherOutput { account });
    }
    Ok(())
}

/// The answer that carries our signatures of a batch. Signatures leave through this function only.
///
/// # Errors
/// [`ReleaseError`] when the receipt does not cover every signature.
pub fn release_batch(
    receipt: &Receipt,
    transaction: &Transaction,
    signatures: BatchSignatures,
) -> Result<ClientMessage, ReleaseError> {
    for account in signatures.accounts.keys() {
        covered(receipt, *account, Some(signatures.batch_id), transaction)?;
    }
    Ok(ClientMessage::Sign(signatures))
}

/// A signed transaction of ours that may be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Released(Transaction);

impl Released {
    /// The transaction, fully signed.
    pub fn transaction(&self) -> &Transaction {
        &self.0
    }
}

/// Lets a signed change of an account go: a deposit, withdrawal, renewal or close. It leaves through this function or,
/// after a restart, from the store itself.
///
/// # Errors
/// [`ReleaseError`] when the receipt does not cover it.
pub fn release_change(receipt: &Receipt, change: &OwnChange) -> Result<Released, ReleaseError> {
    let transaction = change.transaction();
    covered(receipt, change.after.key(), None, transaction)?;
    Ok(Released(transaction.clone()))
}

/// A change that the book holds: it was committed before. Nothing when it is void or not fully signed.
pub(crate) fn stored_change(change: &OwnChange) -> Option<Released> {
    let transaction = change.transaction();
    (!change.void && is_signed(transaction)).then(|| Released(transaction.clone()))
}

/// The transaction that made an account's output or closes it, as far as it is ours to publish: a batch is not.
pub(crate) fn stored_latest(account: &Account) -> Option<Released> {
    match account.state {
        AccountState::PendingOpen | AccountState::PendingClosed => {}
        AccountState::Initiated | AccountState::PendingUpdate | AccountState::Open | AccountState::Expired => {
            return None;
        }
        AccountState::Closed | AccountState::CanceledAfterRecovery => return None,
        AccountState::PendingBatch | AccountState::ExpiredPendingUpdate => return None,
    }
    account.latest_tx.as_ref().filter(|transaction| is_signed(transaction)).cloned().map(Released)
}

fn is_signed(transaction: &Transaction) -> bool {
    transaction.input.iter().all(|input| !input.witness.is_empty() || !input.script_sig.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::book::ChangeKind;
    use crate::fixtures;
    use std::collections::BTreeMap;
    use tidegate_protocol::batch::AccountSignature;

    fn signatures(batch_id: BatchId, accounts: &[AccountKey]) -> BatchSignatures {
        let accounts = accounts.iter().map(|key| (*key, AccountSignature::Ecdsa(vec![0x30]))).collect();
        BatchSignatures { batch_id, accounts, channels: BTreeMap::new() }
    }

    #[test]
    fn releases_a_batch_that_was_committed_and_nothing_else() {
        let staged = fixtures::staged_batch();
        let key = staged.accounts[0].after.key();
        let receipt = Receipt::of(Sequence(5), &[Update::Stage(Box::new(staged.clone()))]);
        assert_eq!(receipt.spend(key).unwrap().next, staged.accounts[0].after.outpoint);
        let good = release_batch(&receipt, &staged.transaction, signatures(staged.batch_id, &[key]));
        assert!(matches!(good, Ok(ClientMessage::Sign(_))));

        let stranger = fixtures::account_key(9);
        let found = release_batch(&receipt, &staged.transaction, signatures(staged.batch_id, &[key, stranger]));
        assert_eq!(found, Err(ReleaseError::NotCommitted { account: stranger }));

        let found = release_batch(&receipt, &staged.transaction, signatures(fixtures::batch_key(9), &[key]));
        assert_eq!(found, Err(ReleaseError::OtherBatch));

        let mut other = staged.transaction.clone();
        other.output[0].value += bitcoin::Amount::ONE_SAT;
        let found = release_batch(&receipt, &other, signatures(staged.batch_id, &[key]));
        let (committed, found_txid) = (staged.txid(), other.compute_txid());
        assert_eq!(found, Err(ReleaseError::OtherTransaction { committed, found: found_txid }));
    }

    #[test]
    fn refuses_a_batch_that_does_not_spend_the_committed_output() {
        let mut staged = fixtures::staged_batch();
        staged.accounts[0].spent.vout += 1;
        let key = staged.accounts[0].after.key();
        let receipt = Receipt::of(Sequence(5), &[Update::Stage(Box::new(staged.clone()))]);
        let found = release_batch(&receipt, &staged.transaction, signatures(staged.batch_id, &[key]));
        assert_eq!(found, Err(ReleaseError::OtherOutput { account: key }));
    }

    #[test]
    fn releases_a_change_only_for_the_committed_transaction() {
        for kind in [ChangeKind::Deposit, ChangeKind::Withdraw, ChangeKind::Renew, ChangeKind::Close] {
            let change = fixtures::own_change(1, kind);
            let key = change.after.key();
            let receipt = Receipt::of(Sequence(1), &[Update::Change(Box::new(change.clone()))]);
            assert!(release_change(&receipt, &change).is_ok());
            assert_eq!(receipt.spend(key).unwrap().next, change.next(), "{kind:?}");

            let mut other = change.clone();
            other.after.latest_tx.as_mut().unwrap().lock_time = bitcoin::absolute::LockTime::from_consensus(7);
            let found = release_change(&receipt, &other);
            assert!(matches!(found, Err(ReleaseError::OtherTransaction { .. })), "{kind:?}");

            let account = Update::Account(Box::new(change.after.clone()));
            let void = Update::Change(Box::new(OwnChange { void: true, ..change.clone() }));
            let nothing = Receipt::of(Sequence(1), &[account, void]);
            assert_eq!(release_change(&nothing, &change), Err(ReleaseError::NotCommitted { account: key }));
        }
    }

    #[test]
    fn what_lacks_witnesses_or_is_void_is_not_published() {
        let mut change = fixtures::own_change(1, ChangeKind::Withdraw);
        assert!(stored_change(&change).is_some());
        assert!(stored_change(&OwnChange { void: true, ..change.clone() }).is_none());
        change.after.latest_tx.as_mut().unwrap().input[0].witness.clear();
        assert!(stored_change(&change).is_none());
        let mut account = fixtures::closing_account(1);
        assert!(stored_latest(&account).is_none(), "the fixture is unsigned, like a batch transaction");
        account.latest_tx.as_mut().unwrap().input[0].witness.push([1u8; 64]);
        assert!(stored_latest(&account).is_some());
        account.state = AccountState::PendingBatch;
        assert!(stored_latest(&account).is_none());
    }
}
