//! Changes of an account by its owner: deposit, withdrawal, renewal, close. What is built here is unsigned.
//!
//! Does: the transaction, the account as it will be stored before the transaction is published, and what the venue is
//! asked to co-sign. [`crate::psbt`] makes of it what the node is asked to sign.
//!
//! Never does: choose a fee rate, know a maximum that it was not told, sign.
//!
//! # Source
//! Protocol notes, accounts §6 and §7, scripts §5 and §6.

use crate::account::{
    Account, AccountState, AccountTerms, AccountVersion, MAX_EXPIRY_AHEAD, MIN_ACCOUNT_VALUE, MIN_EXPIRY_AHEAD,
};
use crate::keys::KeyError;
use crate::script::find_output;
use crate::sizes;
use crate::spend::{ClosePath, SpendError, WalletInput, close_to_script, remaining_value, spend_to_outputs};
use crate::units::{BlockHeight, SatPerKw, Sats, UnitError};
use bitcoin::psbt::{self, Psbt};
use bitcoin::script::PushBytesBuf;
use bitcoin::transaction::Version;
use bitcoin::{OutPoint, ScriptBuf, Transaction, TxOut};

/// Why an account can not be changed as wished.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModificationError {
    /// The account's state does not allow the change.
    #[error("the account is {found:?}")]
    State {
        /// Its state.
        found: AccountState,
    },
    /// Only a renewal or the expiry path can spend an expired account.
    #[error("the account expired at {expiry}, the best height is {best}")]
    Expired {
        /// The account's expiry.
        expiry: BlockHeight,
        /// Best height.
        best: BlockHeight,
    },
    /// A new expiry outside of what the market allows.
    #[error("a new expiry of {found} is not within {earliest} to {latest}")]
    Expiry {
        /// First height allowed.
        earliest: BlockHeight,
        /// Last height allowed.
        latest: BlockHeight,
        /// Wished.
        found: BlockHeight,
    },
    /// Versions only rise.
    #[error("account version {from:?} can not become {to:?}")]
    Downgrade {
        /// Version of the account.
        from: AccountVersion,
        /// Wished.
        to: AccountVersion,
    },
    /// A deposit of nothing, or a withdrawal to nobody.
    #[error("nothing to deposit or to withdraw")]
    Nothing,
    /// More than the venue allows in one account.
    #[error("the account would hold {found}, at most {limit} allowed")]
    AboveMaximum {
        /// Limit.
        limit: Sats,
        /// What it would hold.
        found: Sats,
    },
    /// The wallet's transaction is not the one that was asked for.
    #[error("the funded transaction is not what was asked for: {0}")]
    Funding(&'static str),
    /// The transaction can not be made.
    #[error(transparent)]
    Spend(#[from] SpendError),
    /// A key failed.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A quantity failed.
    #[error(transparent)]
    Unit(#[from] UnitError),
}

/// What the owner changes besides the value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TermsChange {
    /// New expiry; nothing keeps the old.
    pub expiry: Option<BlockHeight>,
    /// New version; nothing keeps the old.
    pub version: Option<AccountVersion>,
}

impl TermsChange {
    /// The terms of the recreated account: next batch key, new expiry and version.
    fn apply(&self, account: &Account, best: BlockHeight) -> Result<AccountTerms, ModificationError> {
        let mut terms = account.terms.next()?;
        if let Some(found) = self.expiry {
            let ahead = |blocks| best.checked_add(blocks).ok_or(UnitError::Overflow("expiry"));
            let (earliest, latest) = (ahead(MIN_EXPIRY_AHEAD)?, ahead(MAX_EXPIRY_AHEAD)?);
            if !(earliest..=latest).contains(&found) {
                return Err(ModificationError::Expiry { earliest, latest, found });
            }
            terms.expiry = found;
        }
        if let Some(to) = self.version {
            let from = terms.version;
            if to < from {
                return Err(ModificationError::Downgrade { from, to });
            }
            terms.version = to;
        }
        Ok(terms)
    }
}

/// A change of an account, built and not yet signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Modification {
    /// The account as it is.
    pub before: Account,
    /// The account as it is stored before the transaction is published. Its latest transaction lacks witnesses.
    pub after: Account,
    /// The transaction without witnesses; nested inputs carry their script signature.
    pub transaction: Transaction,
    /// Inputs besides the account's.
    pub others: Vec<WalletInput>,
    /// Chain fee.
    pub fee: Sats,
    /// Who spends.
    pub path: ClosePath,
    /// What the wallet knows about its inputs and outputs, for the node.
    pub(crate) funded: Option<Psbt>,
}

/// Value, expiry and version of the account that a change leaves: what the venue is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewParams {
    /// Value.
    pub value: Sats,
    /// Expiry.
    pub expiry: BlockHeight,
    /// Version.
    pub version: AccountVersion,
}

impl Modification {
    /// A later expiry, or a higher version, paid from the account. Always together with the venue, also when expired.
    ///
    /// # Errors
    /// [`ModificationError`] by variant.
    pub fn renew(
        account: &Account,
        change: TermsChange,
        fee_rate: SatPerKw,
        best: BlockHeight,
    ) -> Result<Modification, ModificationError> {
        match account.state {
            AccountState::Open | AccountState::Expired => {}
            found => return Err(ModificationError::State { found }),
        }
        let value = remaining_value(account, &[], fee_rate)?;
        recreated(account, Vec::new(), value, change.apply(account, best)?, best)
    }

    /// Pays outputs from the account.
    ///
    /// # Errors
    /// [`ModificationError`] by variant.
    pub fn withdraw(
        account: &Account,
        outputs: &[TxOut],
        change: TermsChange,
        fee_rate: SatPerKw,
        best: BlockHeight,
    ) -> Result<Modification, ModificationError> {
        check_open(account, best)?;
        if outputs.is_empty() {
            return Err(ModificationError::Nothing);
        }
        let value = remaining_value(account, outputs, fee_rate)?;
        recreated(account, outputs.to_vec(), value, change.apply(account, best)?, best)
    }

    /// Closes the account to one output, which bears the fee.
    ///
    /// # Errors
    /// [`ModificationError`] by variant.
    pub fn close(
        account: &Account,
        to: ScriptBuf,
        fee_rate: SatPerKw,
        best: BlockHeight,
    ) -> Result<Modification, ModificationError> {
        let path = close_path(account, best)?;
        let transaction = close_to_script(account, to, fee_rate, path)?;
        closed(account, transaction, path, best)
    }

    /// Closes the account to these outputs; the fee is the rest.
    ///
    /// # Errors
    /// [`ModificationError`] by variant.
    pub fn close_to_outputs(
        account: &Account,
        outputs: Vec<TxOut>,
        best: BlockHeight,
    ) -> Result<Modification, ModificationError> {
        if outputs.is_empty() {
            return Err(ModificationError::Nothing);
        }
        let path = close_path(account, best)?;
        let transaction = spend_to_outputs(account, &[], outputs, path)?;
        closed(account, transaction, path, best)
    }

    /// Place of the input that spends the account.
    pub fn own_input(&self) -> usize {
        let own = |input: &bitcoin::TxIn| Some(input.previous_output) == self.before.outpoint;
        self.transaction.input.iter().position(own).expect("every change spends the account")
    }

    /// Output spent by every input, in order.
    ///
    /// # Errors
    /// [`KeyError::Degenerate`].
    pub fn prev_outputs(&self) -> Result<Vec<TxOut>, KeyError> {
        let own = self.before.terms.output(self.before.value)?;
        let other = |outpoint: &OutPoint| self.others.iter().find(|other| other.outpoint == *outpoint);
        let prev = |input: &bitcoin::TxIn| {
            other(&input.previous_output).map_or_else(|| own.clone(), |other| other.prev_output.clone())
        };
        Ok(self.transaction.input.iter().map(prev).collect())
    }

    /// Inputs besides the account's, in order of the transaction, with their script signature: what the venue is told.
    pub fn new_inputs(&self) -> Vec<(OutPoint, ScriptBuf)> {
        let inputs = self.transaction.input.iter().map(|input| (input.previous_output, input.script_sig.clone()));
        inputs.filter(|(outpoint, _)| Some(*outpoint) != self.before.outpoint).collect()
    }

    /// Outputs besides the recreated account's, in order of the transaction: what the venue is told.
    pub fn new_outputs(&self) -> Vec<TxOut> {
        let own = self.recreated_index();
        let outputs = (0u32..).zip(&self.transaction.output).filter(|(index, _)| Some(*index) != own);
        outputs.map(|(_, output)| output.clone()).collect()
    }

    /// What the account becomes; nothing means close.
    pub fn new_params(&self) -> Option<NewParams> {
        let AccountTerms { expiry, version, .. } = self.after.terms;
        self.recreated_index().map(|_| NewParams { value: self.after.value, expiry, version })
    }

    /// Index of the recreated account's output.
    pub fn recreated_index(&self) -> Option<u32> {
        match self.after.state {
            AccountState::PendingClosed => None,
            _ => self.after.outpoint.map(|outpoint| outpoint.vout),
        }
    }
}

fn check_open(account: &Account, best: BlockHeight) -> Result<(), ModificationError> {
    match account.state {
        AccountState::Open if best < account.terms.expiry => Ok(()),
        AccountState::Open => Err(ModificationError::Expired { expiry: account.terms.expiry, best }),
        found => Err(ModificationError::State { found }),
    }
}

/// The trader alone once the account is expired, else together with the venue.
fn close_path(account: &Account, best: BlockHeight) -> Result<ClosePath, ModificationError> {
    match account.state {
        AccountState::PendingClosed | AccountState::Closed | AccountState::CanceledAfterRecovery => {
            Err(ModificationError::State { found: account.state })
        }
        AccountState::Initiated => Err(SpendError::NoOutput.into()),
        AccountState::Expired => Ok(ClosePath::Expiry(best)),
        _ if best >= account.terms.expiry => Ok(ClosePath::Expiry(best)),
        _ => Ok(ClosePath::Cooperative),
    }
}

/// A change that spends the account alone and makes it anew.
fn recreated(
    account: &Account,
    mut outputs: Vec<TxOut>,
    value: Sats,
    terms: AccountTerms,
    best: BlockHeight,
) -> Result<Modification, ModificationError> {
    outputs.push(terms.output(value)?);
    let transaction = spend_to_outputs(account, &[], outputs, ClosePath::Cooperative)?;
    updated(account, transaction, Vec::new(), value, terms, best)
}

fn updated(
    account: &Account,
    transaction: Transaction,
    others: Vec<WalletInput>,
    value: Sats,
    terms: AccountTerms,
    best: BlockHeight,
) -> Result<Modification, ModificationError> {
    let vout = find_output(&transaction, &terms.output_script()?).expect("the account's output was put there");
    let after = Account {
        terms,
        value,
        state: AccountState::PendingUpdate,
        height_hint: best,
        outpoint: Some(OutPoint { txid: transaction.compute_txid(), vout }),
        latest_tx: Some(transaction.clone()),
        ..account.clone()
    };
    let fee = fee(account, &others, &transaction)?;
    let (before, path) = (account.clone(), ClosePath::Cooperative);
    Ok(Modification { before, after, transaction, others, fee, path, funded: None })
}

fn closed(
    account: &Account,
    transaction: Transaction,
    path: ClosePath,
    best: BlockHeight,
) -> Result<Modification, ModificationError> {
    let after = Account {
        value: Sats::ZERO,
        state: AccountState::PendingClosed,
        height_hint: best,
        latest_tx: Some(transaction.clone()),
        ..account.clone()
    };
    let fee = fee(account, &[], &transaction)?;
    Ok(Modification { before: account.clone(), after, transaction, others: Vec::new(), fee, path, funded: None })
}

fn fee(account: &Account, others: &[WalletInput], transaction: &Transaction) -> Result<Sats, ModificationError> {
    let add = |sum: Sats, output: &TxOut| sum.checked_add(Sats::try_from(output.value).ok()?);
    let overflow = UnitError::Overflow("amounts of the transaction");
    let inputs = others.iter().map(|other| &other.prev_output).try_fold(account.value, add).ok_or(overflow)?;
    let outputs = transaction.output.iter().try_fold(Sats::ZERO, add).ok_or(overflow)?;
    Ok(inputs.checked_sub(outputs).ok_or(SpendError::Overspent)?)
}

/// A deposit before the wallet chose its coins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deposit {
    account: Account,
    terms: AccountTerms,
    value: Sats,
    /// What the wallet has to pay: the amount, and the fee of the account's input, which the wallet does not know.
    template: TxOut,
    fee_rate: SatPerKw,
    best: BlockHeight,
}

impl Deposit {
    /// A deposit of `amount`.
    ///
    /// # Errors
    /// [`ModificationError`] by variant.
    pub fn new(
        account: &Account,
        amount: Sats,
        change: TermsChange,
        fee_rate: SatPerKw,
        max_account_value: Sats,
        best: BlockHeight,
    ) -> Result<Deposit, ModificationError> {
        check_open(account, best)?;
        let overflow = UnitError::Overflow("deposit");
        let value = account.value.checked_add(amount).ok_or(overflow)?;
        if amount == Sats::ZERO {
            return Err(ModificationError::Nothing);
        }
        if value > max_account_value {
            return Err(ModificationError::AboveMaximum { limit: max_account_value, found: value });
        }
        if value < MIN_ACCOUNT_VALUE {
            return Err(SpendError::BelowMinimum { value, limit: MIN_ACCOUNT_VALUE }.into());
        }
        let witness = sizes::cooperative_witness_size(account.terms.version);
        let weight = sizes::transaction_weight(&[sizes::INPUT], &[], &[witness]).ok_or(overflow)?;
        let fee = fee_rate.fee_floor(weight)?;
        if fee_rate < SatPerKw::FLOOR {
            return Err(SpendError::FeeTooLow { fee }.into());
        }
        let terms = change.apply(account, best)?;
        let template = terms.output(amount.checked_add(fee).ok_or(overflow)?)?;
        Ok(Deposit { account: account.clone(), terms, value, template, fee_rate, best })
    }

    /// What the wallet is asked to fund: one output and nothing else.
    pub fn template(&self) -> Psbt {
        let transaction = Transaction {
            version: Version::TWO,
            lock_time: bitcoin::absolute::LockTime::ZERO,
            input: Vec::new(),
            output: vec![self.template.clone()],
        };
        Psbt::from_unsigned_tx(transaction).expect("a transaction without inputs is unsigned")
    }

    /// Fee rate for the wallet, rounded down.
    pub fn sat_per_vbyte(&self) -> u64 {
        // Rounded down as by the network's software: four weight units are a virtual byte.
        self.fee_rate.get().saturating_mul(4) / 1000
    }

    /// Completes the deposit with what the wallet added: inputs, and change at index `change`.
    ///
    /// # Errors
    /// [`ModificationError::Funding`] when the wallet did something else, and others by variant.
    pub fn complete(self, funded: Psbt, change: Option<usize>) -> Result<Modification, ModificationError> {
        let outputs = self.outputs(&funded, change)?;
        let others = wallet_inputs(&funded)?;
        if others.iter().any(|other| Some(other.outpoint) == self.account.outpoint) {
            return Err(ModificationError::Funding("it spends the account"));
        }
        let transaction = spend_to_outputs(&self.account, &others, outputs, ClosePath::Cooperative)?;
        let updated = updated(&self.account, transaction, others, self.value, self.terms, self.best)?;
        Ok(Modification { funded: Some(funded), ..updated })
    }

    /// The final outputs: the wallet's change, and the account with its new value.
    fn outputs(&self, funded: &Psbt, change: Option<usize>) -> Result<Vec<TxOut>, ModificationError> {
        let bad = ModificationError::Funding;
        let (mut outputs, mut ours) = (Vec::new(), 0);
        for (index, output) in funded.unsigned_tx.output.iter().enumerate() {
            if Some(index) == change {
                outputs.push(output.clone());
            } else if *output == self.template {
                ours += 1;
            } else {
                return Err(bad("an output is neither ours nor change"));
            }
        }
        if change.is_some() && outputs.is_empty() {
            return Err(bad("the change does not exist"));
        }
        if ours != 1 || outputs.iter().any(|output| output.script_pubkey == self.template.script_pubkey) {
            return Err(bad("the account is not paid exactly once"));
        }
        outputs.push(self.terms.output(self.value)?);
        Ok(outputs)
    }
}

/// The coins that the wallet chose.
fn wallet_inputs(funded: &Psbt) -> Result<Vec<WalletInput>, ModificationError> {
    let inputs = &funded.unsigned_tx.input;
    if inputs.is_empty() || inputs.len() != funded.inputs.len() {
        return Err(ModificationError::Funding("it has no inputs"));
    }
    let input = |(input, known): (&bitcoin::TxIn, &psbt::Input)| {
        let prev_output = spent_output(&input.previous_output, known)?;
        let script_sig = nested_script_sig(&prev_output, known)?;
        Ok(WalletInput { outpoint: input.previous_output, prev_output, script_sig })
    };
    inputs.iter().zip(&funded.inputs).map(input).collect()
}

fn spent_output(outpoint: &OutPoint, known: &psbt::Input) -> Result<TxOut, ModificationError> {
    let whole = known.non_witness_utxo.as_ref().map(|transaction| {
        let index = usize::try_from(outpoint.vout).ok().filter(|_| transaction.compute_txid() == outpoint.txid);
        index.and_then(|index| transaction.output.get(index)).ok_or(ModificationError::Funding("a coin is another"))
    });
    match (known.witness_utxo.as_ref(), whole.transpose()?) {
        (Some(output), Some(whole)) if output != whole => Err(ModificationError::Funding("a coin has two values")),
        (Some(output), _) | (None, Some(output)) => Ok(output.clone()),
        (None, None) => Err(ModificationError::Funding("a coin is not described")),
    }
}

/// The push of the redeem script of a nested P2WKH coin; nothing for a native one.
fn nested_script_sig(output: &TxOut, known: &psbt::Input) -> Result<ScriptBuf, ModificationError> {
    let script = &output.script_pubkey;
    if script.is_p2wpkh() || script.is_p2tr() {
        return Ok(ScriptBuf::new());
    }
    let redeem = known.redeem_script.as_ref().filter(|redeem| redeem.is_p2wpkh() && redeem.to_p2sh() == *script);
    let redeem = redeem.ok_or(SpendError::UnknownInput)?;
    let push = PushBytesBuf::try_from(redeem.to_bytes()).map_err(|_| SpendError::UnknownInput)?;
    Ok(bitcoin::script::Builder::new().push_slice(push).into_script())
}

#[cfg(test)]
mod tests;
