//! The batch transaction itself: what no honest batch contains, and that it spends of ours only what it reports.

use super::accounts::checked_total;
use super::{EndingAccount, LocalView, VerifyError};
use crate::batch::Prepare;
use crate::keys::AccountKey;
use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{Sequence, Transaction};
use std::collections::{BTreeMap, BTreeSet};

/// Judges the transaction: version 2, lock time 0, sequences 0, unsigned, no double spends, no money from nowhere.
///
/// # Source
/// Protocol notes, batch §7 "A strict client checks as well".
pub(super) fn judge(
    view: &LocalView<'_>,
    prepare: &Prepare,
    accounts: &BTreeMap<AccountKey, EndingAccount>,
) -> Result<(), VerifyError> {
    let transaction = &prepare.transaction;
    if transaction.version != Version::TWO {
        return Err(VerifyError::TransactionVersion { found: transaction.version.0 });
    }
    if transaction.lock_time != LockTime::ZERO {
        return Err(VerifyError::LockTime { found: transaction.lock_time.to_consensus_u32() });
    }
    check_inputs(transaction)?;
    if checked_total(&transaction.output).is_none() {
        return Err(VerifyError::OutputSum);
    }
    check_only_reported(view, transaction, accounts)
}

fn check_inputs(transaction: &Transaction) -> Result<(), VerifyError> {
    let mut spent = BTreeSet::new();
    for (index, input) in transaction.input.iter().enumerate() {
        if input.sequence != Sequence::ZERO {
            return Err(VerifyError::Sequence { input: index, found: input.sequence.to_consensus_u32() });
        }
        if !input.script_sig.is_empty() || !input.witness.is_empty() {
            return Err(VerifyError::NotUnsigned { input: index });
        }
        if !spent.insert(input.previous_output) {
            return Err(VerifyError::InputTwice { found: input.previous_output });
        }
    }
    Ok(())
}

/// No account of ours is spent without a report of what becomes of it.
fn check_only_reported(
    view: &LocalView<'_>,
    transaction: &Transaction,
    accounts: &BTreeMap<AccountKey, EndingAccount>,
) -> Result<(), VerifyError> {
    let unreported = view.accounts.values().filter(|account| !accounts.contains_key(&account.key()));
    for account in unreported {
        if transaction.input.iter().any(|input| Some(input.previous_output) == account.outpoint) {
            return Err(VerifyError::OwnInputSpent { account: account.key() });
        }
    }
    Ok(())
}
