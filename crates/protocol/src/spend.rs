//! Transactions that spend an account outside of batches.
//!
//! # Source
//! Protocol notes, scripts §5 and §6, accounts §7.

use crate::account::{Account, AccountVersion, MIN_ACCOUNT_VALUE};
use crate::keys::KeyError;
use crate::sizes;
use crate::units::{BlockHeight, SatPerKw, Sats, UnitError};
use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{OutPoint, Script, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};

/// A spend that would not be relayed, or that costs more than there is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpendError {
    /// Nothing to spend yet.
    #[error("the account has no output yet")]
    NoOutput,
    /// The output would be below its dust limit.
    #[error("the remaining {value} is below the dust limit of {limit}")]
    Dust {
        /// What would remain.
        value: Sats,
        /// Limit.
        limit: Sats,
    },
    /// The account would be left with less than it may hold.
    #[error("the remaining {value} is below the smallest account of {limit}")]
    BelowMinimum {
        /// What would remain.
        value: Sats,
        /// Limit.
        limit: Sats,
    },
    /// Fee rate under the floor.
    #[error("a fee of {fee} is below the floor of 253 sat/kW")]
    FeeTooLow {
        /// The fee.
        fee: Sats,
    },
    /// Outputs exceed the input.
    #[error("the outputs are worth more than the account")]
    Overspent,
    /// The account's expiry was not reached.
    #[error("the account expires at {expiry}, the best height is {best}")]
    NotExpired {
        /// The account's expiry.
        expiry: BlockHeight,
        /// Best height.
        best: BlockHeight,
    },
    /// An input of the wallet that cannot be estimated.
    #[error("an input of the wallet is neither P2WKH, nested P2WKH nor P2TR")]
    UnknownInput,
    /// Output type that cannot be estimated.
    #[error("the output script is of a type that cannot be estimated")]
    UnknownOutput,
    /// A key failed.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A quantity failed.
    #[error(transparent)]
    Unit(#[from] UnitError),
}

/// Which path a close takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosePath {
    /// Both sign, lock time 0.
    Cooperative,
    /// The trader alone, lock time = this best height.
    Expiry(BlockHeight),
}

impl ClosePath {
    fn witness_size(self, version: AccountVersion) -> u64 {
        match self {
            ClosePath::Cooperative => sizes::cooperative_witness_size(version),
            ClosePath::Expiry(_) => sizes::expiry_witness_size(version),
        }
    }

    fn lock_time(self, account: &Account) -> Result<LockTime, SpendError> {
        match self {
            ClosePath::Cooperative => Ok(LockTime::ZERO),
            ClosePath::Expiry(best) if best < account.terms.expiry => {
                Err(SpendError::NotExpired { expiry: account.terms.expiry, best })
            }
            ClosePath::Expiry(best) => {
                let overflow = |_| SpendError::Unit(UnitError::Overflow("lock time"));
                LockTime::from_height(best.get()).map_err(overflow)
            }
        }
    }
}

/// The unsigned transaction that closes `account` to the single output script `to` at `fee_rate`. The fee is rounded down.
///
/// # Errors
/// [`SpendError`] by variant; an account that does not pay its own fee counts as dust of zero.
///
/// # Source
/// Protocol notes, accounts §7, scripts §5 and §6.
pub fn close_to_script(
    account: &Account,
    to: ScriptBuf,
    fee_rate: SatPerKw,
    path: ClosePath,
) -> Result<Transaction, SpendError> {
    let (size, limit) = close_output(&to).ok_or(SpendError::UnknownOutput)?;
    let witness = path.witness_size(account.terms.version);
    let weight =
        sizes::transaction_weight(&[sizes::INPUT], &[size], &[witness]).ok_or(UnitError::Overflow("weight"))?;
    let fee = fee_rate.fee_floor(weight)?;
    if fee_rate < SatPerKw::FLOOR {
        return Err(SpendError::FeeTooLow { fee });
    }
    let value = account.value.checked_sub(fee).unwrap_or(Sats::ZERO);
    if value < limit {
        return Err(SpendError::Dust { value, limit });
    }
    let output = TxOut { value: value.into(), script_pubkey: to };
    assemble(account, &[], vec![output], path.lock_time(account)?)
}

/// Bytes of an output that a close may pay to, and the least value that it may have.
///
/// # Source
/// Protocol notes, scripts §5.
fn close_output(script: &Script) -> Option<(u64, Sats)> {
    if script.is_p2wpkh() {
        Some((sizes::P2WKH_OUTPUT, Sats::constant(294)))
    } else if script.is_p2wsh() {
        Some((sizes::P2WSH_OUTPUT, Sats::constant(330)))
    } else if script.is_p2tr() {
        Some((sizes::P2TR_OUTPUT, Sats::constant(330)))
    } else if script.is_p2sh() {
        Some((sizes::P2SH_OUTPUT, Sats::constant(540)))
    } else {
        None
    }
}

/// Value of the account after its owner renews it, or withdraws to these outputs, at `fee_rate`. The fee is rounded down.
///
/// # Errors
/// [`SpendError`] by variant; [`SpendError::BelowMinimum`] when less than 100,000 sat would remain.
///
/// # Source
/// Protocol notes, accounts §6: one input with the cooperative witness of the *current* version, a new account output of
/// 43 bytes whatever its version, and the outputs by type.
pub fn remaining_value(account: &Account, withdrawn: &[TxOut], fee_rate: SatPerKw) -> Result<Sats, SpendError> {
    let mut sizes = vec![sizes::P2WSH_OUTPUT];
    for output in withdrawn {
        let (size, _) = close_output(&output.script_pubkey).ok_or(SpendError::UnknownOutput)?;
        sizes.push(size);
    }
    let witness = sizes::cooperative_witness_size(account.terms.version);
    let weight = sizes::transaction_weight(&[sizes::INPUT], &sizes, &[witness]).ok_or(UnitError::Overflow("weight"))?;
    let fee = fee_rate.fee_floor(weight)?;
    if fee_rate < SatPerKw::FLOOR {
        return Err(SpendError::FeeTooLow { fee });
    }
    let spent = withdrawn.iter().try_fold(fee, |sum, output| sum.checked_add(Sats::try_from(output.value).ok()?));
    let spent = spent.ok_or(UnitError::Overflow("amounts of the transaction"))?;
    let value = account.value.checked_sub(spent).ok_or(SpendError::Overspent)?;
    let limit = MIN_ACCOUNT_VALUE;
    if value < limit { Err(SpendError::BelowMinimum { value, limit }) } else { Ok(value) }
}

/// An input beside the account's: a coin of the trader's wallet that pays into the account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalletInput {
    /// The coin.
    pub outpoint: OutPoint,
    /// Value and script of the coin.
    pub prev_output: TxOut,
    /// The push of the redeem script of a nested P2WKH coin; empty otherwise. Part of the transaction's name.
    pub script_sig: ScriptBuf,
}

/// The unsigned transaction that both sides build for a spend to these outputs: version 2, lock time 0, sequences 0,
/// BIP-69 order. Used by the venue to rebuild what it co-signs.
///
/// # Errors
/// [`SpendError`] by variant.
pub fn cooperative_transaction(account: &Account, outputs: Vec<TxOut>) -> Result<Transaction, SpendError> {
    spend_to_outputs(account, &[], outputs, ClosePath::Cooperative)
}

/// The unsigned transaction that spends the account and these coins to these outputs: version 2, sequences 0, BIP-69
/// order; lock time 0, or the best height on the expiry path. The fee is what remains.
///
/// # Errors
/// [`SpendError`] by variant: dust outputs, outputs above the inputs, a fee below 253 sat/kW.
///
/// # Source
/// Protocol notes, scripts §6.
pub fn spend_to_outputs(
    account: &Account,
    others: &[WalletInput],
    outputs: Vec<TxOut>,
    path: ClosePath,
) -> Result<Transaction, SpendError> {
    let overflow = || SpendError::Unit(UnitError::Overflow("amounts of the transaction"));
    for output in &outputs {
        check_not_dust(output)?;
    }
    let total_in = others
        .iter()
        .try_fold(account.value, |sum, other| sum.checked_add(Sats::try_from(other.prev_output.value).ok()?));
    let total_out =
        outputs.iter().try_fold(Sats::ZERO, |sum, output| sum.checked_add(Sats::try_from(output.value).ok()?));
    let fee =
        total_in.ok_or_else(overflow)?.checked_sub(total_out.ok_or_else(overflow)?).ok_or(SpendError::Overspent)?;
    let transaction = assemble(account, others, outputs, path.lock_time(account)?)?;
    let mut weight =
        u64::try_from(transaction.base_size()).map_err(|_| overflow())?.checked_mul(4).ok_or_else(overflow)?;
    weight = weight.checked_add(2 + path.witness_size(account.terms.version)).ok_or_else(overflow)?;
    for other in others {
        weight = weight.checked_add(wallet_witness_size(other)?).ok_or_else(overflow)?;
    }
    if fee < SatPerKw::FLOOR.fee_floor(weight)? {
        return Err(SpendError::FeeTooLow { fee });
    }
    Ok(transaction)
}

fn wallet_witness_size(input: &WalletInput) -> Result<u64, SpendError> {
    let script = &input.prev_output.script_pubkey;
    if script.is_p2wpkh() || script.is_p2sh() {
        Ok(sizes::P2WKH_WITNESS)
    } else if script.is_p2tr() {
        Ok(sizes::P2TR_WITNESS)
    } else {
        Err(SpendError::UnknownInput)
    }
}

/// Relay's dust rule at 1,000 sat/kvB.
///
/// # Source
/// Protocol notes, scripts §5.
fn check_not_dust(output: &TxOut) -> Result<(), SpendError> {
    let spending_witness = if output.script_pubkey.is_witness_program() { 26 } else { 107 };
    let size = u64::try_from(output.size()).map_err(|_| UnitError::Overflow("output size"))?;
    // Dust is `value·1000 / (3·size) < 1000` in integers, which is `value < 3·size`.
    let limit = Sats::new(3 * (size + sizes::INPUT + spending_witness))?;
    let value = Sats::try_from(output.value)?;
    if value < limit { Err(SpendError::Dust { value, limit }) } else { Ok(()) }
}

/// Version 2, sequences 0, BIP-69 order.
fn assemble(
    account: &Account,
    others: &[WalletInput],
    mut outputs: Vec<TxOut>,
    lock_time: LockTime,
) -> Result<Transaction, SpendError> {
    let own = (account.outpoint.ok_or(SpendError::NoOutput)?, ScriptBuf::new());
    let wallet = others.iter().map(|other| (other.outpoint, other.script_sig.clone()));
    let mut inputs: Vec<TxIn> = core::iter::once(own)
        .chain(wallet)
        .map(|(previous_output, script_sig)| TxIn {
            previous_output,
            script_sig,
            sequence: Sequence::ZERO,
            witness: Witness::new(),
        })
        .collect();
    inputs.sort_by_key(|input| bip69_input(&input.previous_output));
    outputs.sort_by(bip69_output);
    Ok(Transaction { version: Version::TWO, lock_time, input: inputs, output: outputs })
}

/// Sorts like the transaction id as shown (last byte first), then the index.
///
/// # Source
/// BIP-69.
pub fn bip69_input(outpoint: &OutPoint) -> ([u8; 32], u32) {
    let mut shown = outpoint.txid.to_byte_array();
    shown.reverse();
    (shown, outpoint.vout)
}

/// Compares by value, then by script.
///
/// # Source
/// BIP-69.
pub fn bip69_output(left: &TxOut, right: &TxOut) -> core::cmp::Ordering {
    (left.value, &left.script_pubkey).cmp(&(right.value, &right.script_pubkey))
}

#[cfg(test)]
mod tests;
