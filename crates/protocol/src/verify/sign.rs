//! Judging the request to sign a verified batch, and the word that it is final.

use super::accounts::checked_total;
use super::matches::check_own_state;
use super::{EndingAccount, LocalView, VerifiedBatch, VerifyError};
use crate::account::{Account, AccountVersion};
use crate::batch::{Finalize, SignBegin};
use crate::keys::AccountKey;
use crate::musig2::PublicNonce;
use bitcoin::TxOut;
use bitcoin::hashes::Hash;

/// Judges the request to sign a verified batch: names, nonces, previous outputs.
///
/// # Errors
/// The first check that fails.
///
/// # Source
/// Protocol notes, batch §8.
pub fn verify_sign(view: &LocalView<'_>, batch: &VerifiedBatch, sign: &SignBegin) -> Result<(), VerifyError> {
    check_batch_id(batch, &sign.batch_id)?;
    check_prev_outputs(batch, &sign.prev_outputs)?;
    for (key, ending) in batch.accounts() {
        let account = view.accounts.get(key).ok_or(VerifyError::UnknownAccount(*key))?;
        check_account(*key, account, ending, batch, &sign.prev_outputs)?;
        match account.terms.version {
            AccountVersion::V0 => {}
            AccountVersion::V1 | AccountVersion::V2 => {
                let nonce = sign.server_nonces.get(key).ok_or(VerifyError::NonceMissing(*key))?;
                PublicNonce::from_slice(&nonce.0)
                    .map_err(|cause| VerifyError::NonceInvalid { account: *key, cause })?;
            }
        }
    }
    // Its owner may have taken an order or an account back since.
    for ending in batch.orders() {
        let own = view.orders.get(&ending.nonce).ok_or(VerifyError::UnknownOrder(ending.nonce))?;
        let key = own.order.account;
        let account = view.accounts.get(&key).ok_or(VerifyError::UnknownAccount(key))?;
        check_own_state(ending.nonce, own, account, view.best_height)?;
    }
    Ok(())
}

/// Judges the word that a verified batch is final: its name and its transaction.
///
/// # Errors
/// The first check that fails.
///
/// # Source
/// Protocol notes, batch §9. The bytes of the transaction's id are accepted in both orders, because venues differ.
pub fn verify_finalize(batch: &VerifiedBatch, finalize: &Finalize) -> Result<(), VerifyError> {
    check_batch_id(batch, &finalize.batch_id)?;
    let expected = batch.prepare().transaction.compute_txid();
    let mut reversed = finalize.txid.to_byte_array();
    reversed.reverse();
    if finalize.txid != expected && reversed != expected.to_byte_array() {
        return Err(VerifyError::FinalizedTransaction { expected, found: finalize.txid });
    }
    Ok(())
}

fn check_batch_id(batch: &VerifiedBatch, found: &[u8]) -> Result<(), VerifyError> {
    let expected = batch.prepare().batch_id;
    if found != expected.serialize() {
        return Err(VerifyError::BatchId { expected, found: hex::DisplayHex::to_lower_hex_string(found) });
    }
    Ok(())
}

/// One previous output per input, all witness programs, worth at least the outputs.
///
/// A signature of a taproot input covers all of them; one that is not a witness program would let its owner change the
/// transaction's name, on which channels and recreated accounts depend.
fn check_prev_outputs(batch: &VerifiedBatch, prev_outputs: &[TxOut]) -> Result<(), VerifyError> {
    let transaction = &batch.prepare().transaction;
    let (expected, found) = (transaction.input.len(), prev_outputs.len());
    if expected != found {
        return Err(VerifyError::PrevOutputCount { expected, found });
    }
    if let Some(input) = prev_outputs.iter().position(|output| !output.script_pubkey.is_witness_program()) {
        let found = prev_outputs[input].script_pubkey.clone();
        return Err(VerifyError::PrevOutputNotWitness { input, found });
    }
    let (inputs, outputs) = (checked_total(prev_outputs), checked_total(&transaction.output));
    match (inputs, outputs) {
        (Some(inputs), Some(outputs)) if inputs >= outputs => Ok(()),
        (inputs, outputs) => Err(VerifyError::InputSum { inputs, outputs }),
    }
}

/// The input of our account spends the output that we stored, and it is still the same account.
fn check_account(
    key: AccountKey,
    account: &Account,
    ending: &EndingAccount,
    batch: &VerifiedBatch,
    prev_outputs: &[TxOut],
) -> Result<(), VerifyError> {
    let input = batch.prepare().transaction.input.get(ending.input);
    if input.map(|input| input.previous_output) != account.outpoint {
        return Err(VerifyError::AccountChanged(key));
    }
    let prev = prev_outputs.get(ending.input).ok_or(VerifyError::AccountChanged(key))?;
    if prev.value != account.value.into() {
        return Err(VerifyError::PrevOutputValue { account: key, expected: account.value, found: prev.value });
    }
    let expected = account.terms.output_script()?;
    if prev.script_pubkey != expected {
        return Err(VerifyError::PrevOutputScript { account: key, expected, found: prev.script_pubkey.clone() });
    }
    Ok(())
}
