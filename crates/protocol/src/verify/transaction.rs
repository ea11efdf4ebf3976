//! The batch transaction itself: what no honest batch contains, and that it spends of ours only what it reports.

use super::accounts::checked_total;
use super::{EndingAccount, LocalView, VerifyError};
use crate::batch::Prepare;
use crate::keys::AccountKey;
use crate::spend::{bip69_input, bip69_output};
use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{Sequence, Transaction, Weight};
use core::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// Judges the transaction: version 2, lock time 0, sequences 0, sorted, unsigned, no double spends, no
/// money from nowhere.
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
    let (expected, found) = (Weight::MAX_BLOCK.to_wu(), transaction.weight().to_wu());
    if found > expected {
        return Err(VerifyError::TransactionWeight { expected, found });
    }
    check_inputs(transaction)?;
    if checked_total(&transaction.output).is_none() {
        return Err(VerifyError::OutputSum);
    }
    check_sorted(transaction)?;
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

/// Inputs and outputs stand as every honest venue sorts them, so that their order tells and hides nothing.
///
/// # Source
/// Protocol notes, batch §7 "Layout to expect"; BIP-69.
fn check_sorted(transaction: &Transaction) -> Result<(), VerifyError> {
    let names = transaction.input.iter().map(|input| bip69_input(&input.previous_output));
    if let Some(before) = first_out_of_order(names, Ord::cmp) {
        return Err(VerifyError::InputOrder { input: before });
    }
    if let Some(output) = first_out_of_order(transaction.output.iter(), |left, right| bip69_output(left, right)) {
        return Err(VerifyError::OutputOrder { output });
    }
    Ok(())
}

/// Place of the first item that is less than the one before it.
fn first_out_of_order<T>(
    items: impl Iterator<Item = T> + Clone,
    compare: impl Fn(&T, &T) -> Ordering,
) -> Option<usize> {
    let behind = items.clone().skip(1);
    items.zip(behind).position(|(left, right)| compare(&left, &right) == Ordering::Greater).map(|index| index + 1)
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
