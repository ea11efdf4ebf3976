//! Accounts: the reported ending balances and the recreated outputs.

use super::matches::Tally;
use super::{EndingAccount, HEIGHT_TOLERANCE, LocalView, VerifyError};
use crate::account::{Account, AccountState, AccountTerms, MAX_EXPIRY_AHEAD, MIN_RECREATED_VALUE};
use crate::batch::{AccountDiff, EndingState, Prepare};
use crate::fees::chain_fee;
use crate::keys::AccountKey;
use crate::units::{BlockCount, BlockHeight, Sats, UnitError};
use bitcoin::{OutPoint, Txid};
use std::collections::BTreeMap;

/// Judges the changes of our accounts against what the matches give: one change for every account that takes part.
pub(super) fn judge(
    view: &LocalView<'_>,
    prepare: &Prepare,
    tallies: &BTreeMap<AccountKey, Tally>,
) -> Result<BTreeMap<AccountKey, EndingAccount>, VerifyError> {
    let txid = prepare.transaction.compute_txid();
    let mut accounts = BTreeMap::new();
    for diff in &prepare.accounts {
        let tally = tallies.get(&diff.account).ok_or(VerifyError::DiffForUninvolved(diff.account))?;
        let account = view.accounts.get(&diff.account).ok_or(VerifyError::UnknownAccount(diff.account))?;
        let ending = judge_one(view, prepare, txid, account, tally, diff)?;
        if accounts.insert(diff.account, ending).is_some() {
            return Err(VerifyError::DiffTwice(diff.account));
        }
    }
    match tallies.keys().find(|key| !accounts.contains_key(*key)) {
        Some(key) => Err(VerifyError::DiffMissing(*key)),
        None => Ok(accounts),
    }
}

fn judge_one(
    view: &LocalView<'_>,
    prepare: &Prepare,
    txid: Txid,
    account: &Account,
    tally: &Tally,
    diff: &AccountDiff,
) -> Result<EndingAccount, VerifyError> {
    let fee = chain_fee(tally.channels, prepare.fee_rate, account.terms.version)?;
    let expected = tally.balance.checked_sub(fee.to_delta()).ok_or(UnitError::Overflow("account balance"))?;
    if expected != diff.ending_balance.to_delta() {
        return Err(VerifyError::EndingBalance { account: diff.account, expected, found: diff.ending_balance });
    }
    let recreated = diff.ending_balance >= MIN_RECREATED_VALUE;
    let mut after = Account {
        value: diff.ending_balance,
        state: AccountState::PendingClosed,
        height_hint: prepare.height_hint,
        latest_tx: Some(prepare.transaction.clone()),
        ..account.clone()
    };
    if recreated {
        let terms = new_terms(view, prepare, account, tally, diff)?;
        let index = check_output(prepare, &terms, diff)?;
        after.terms = terms;
        after.state = AccountState::PendingBatch;
        after.outpoint = Some(OutPoint { txid, vout: index });
    } else {
        // The claims are judged, but an account that ends keeps its terms.
        new_terms(view, prepare, account, tally, diff)?;
        check_gone(diff)?;
    }
    Ok(EndingAccount { after, input: find_input(prepare, account)?, chain_fee: fee, recreated })
}

/// Terms of the recreated output: next batch key, and the new expiry and version as far as the conversation knows them.
fn new_terms(
    view: &LocalView<'_>,
    prepare: &Prepare,
    account: &Account,
    tally: &Tally,
    diff: &AccountDiff,
) -> Result<AccountTerms, VerifyError> {
    let mut terms = account.terms.next()?;
    if let (true, Some(expiry)) = (prepare.batch_version.extends_accounts(), diff.new_expiry) {
        check_expiry(view, account, tally.extension, expiry)?;
        terms.expiry = expiry;
    }
    if prepare.batch_version.upgrades_taproot() {
        let unknown = VerifyError::AccountVersion { account: diff.account, found: diff.new_version };
        // A version that is not higher changes nothing.
        terms.version = terms.version.max(diff.known_version().ok_or(unknown)?);
    }
    Ok(terms)
}

/// An extension leads away from the old expiry, but no further than was quoted, and never beyond what may be opened.
///
/// The venue counts from its own best height, which may be ahead of ours.
fn check_expiry(
    view: &LocalView<'_>,
    account: &Account,
    extension: BlockCount,
    found: BlockHeight,
) -> Result<(), VerifyError> {
    let (key, old) = (account.key(), account.terms.expiry);
    if found <= old {
        return Err(VerifyError::ExpiryNotLater { account: key, expected: old, found });
    }
    let latest = view.best_height.checked_add(MAX_EXPIRY_AHEAD).ok_or(UnitError::Overflow("expiry"))?;
    if found > latest {
        return Err(VerifyError::ExpiryTooFar { account: key, expected: latest, found });
    }
    let quoted = view.best_height.checked_add(HEIGHT_TOLERANCE).and_then(|height| height.checked_add(extension));
    let quoted = quoted.ok_or(UnitError::Overflow("expiry"))?;
    if found > quoted {
        return Err(VerifyError::ExtensionTooLong { account: key, expected: quoted, found });
    }
    Ok(())
}

/// The index of the recreated output.
fn check_output(prepare: &Prepare, terms: &AccountTerms, diff: &AccountDiff) -> Result<u32, VerifyError> {
    let (account, balance) = (diff.account, diff.ending_balance);
    match diff.ending_state {
        EndingState::Recreated => {}
        found @ (EndingState::DustExtendedOffchain | EndingState::DustAddedToFees | EndingState::FullySpent) => {
            return Err(VerifyError::NotRecreated { account, balance, found });
        }
    }
    let index = diff.output_index.ok_or(VerifyError::OutputIndexMissing(account))?;
    let outputs = &prepare.transaction.output;
    let out_of_range = VerifyError::OutputIndexRange { account, outputs: outputs.len(), found: index };
    let output = usize::try_from(index).ok().and_then(|index| outputs.get(index)).ok_or(out_of_range)?;
    if output.value != balance.into() {
        return Err(VerifyError::OutputValue { account, expected: balance, found: output.value });
    }
    let expected = terms.output_script()?;
    if output.script_pubkey != expected {
        return Err(VerifyError::OutputScript { account, expected, found: output.script_pubkey.clone() });
    }
    let first = outputs.iter().position(|output| output.script_pubkey == expected);
    if outputs.iter().rposition(|output| output.script_pubkey == expected) != first {
        return Err(VerifyError::OutputTwice { index });
    }
    Ok(index)
}

/// What is left is too little for an output, and none may be claimed.
fn check_gone(diff: &AccountDiff) -> Result<(), VerifyError> {
    let (account, balance) = (diff.account, diff.ending_balance);
    match diff.ending_state {
        EndingState::DustExtendedOffchain | EndingState::DustAddedToFees | EndingState::FullySpent => {}
        found @ EndingState::Recreated => return Err(VerifyError::DustState { account, balance, found }),
    }
    match diff.output_index {
        None => Ok(()),
        Some(found) => Err(VerifyError::DustIndex { account, found }),
    }
}

/// The input that spends the account's output. That it is the only one follows from [`super::transaction`].
fn find_input(prepare: &Prepare, account: &Account) -> Result<usize, VerifyError> {
    let expected = account.outpoint.ok_or(VerifyError::AccountWithoutOutput(account.key()))?;
    let position = prepare.transaction.input.iter().position(|input| input.previous_output == expected);
    position.ok_or(VerifyError::OwnInputMissing { account: account.key(), expected })
}

/// The sum of amounts of outputs, or nothing above 21 million bitcoin.
pub(super) fn checked_total<'a>(outputs: impl IntoIterator<Item = &'a bitcoin::TxOut>) -> Option<Sats> {
    outputs.into_iter().try_fold(Sats::ZERO, |total, output| total.checked_add(Sats::try_from(output.value).ok()?))
}
