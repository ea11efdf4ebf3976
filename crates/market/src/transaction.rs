//! The one transaction that settles a batch.

use crate::pairing::{Market, Pair};
use crate::settlement::Settlement;
use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use std::collections::BTreeMap;
use thiserror::Error;
use tidegate_protocol::account::AccountTerms;
use tidegate_protocol::channel::{CommitmentType, funding_script};
use tidegate_protocol::keys::{AccountKey, KeyError, OrderNonce};
use tidegate_protocol::sizes::cooperative_witness_size;
use tidegate_protocol::units::{BlockCount, BlockHeight, SatPerKw, Sats, UnitError};

/// Smallest output that pays the operator, in satoshi: dust limit of the largest usual script.
pub const OPERATOR_DUST: Sats = Sats::constant(330);

/// Weight units of everything but inputs and outputs: version, lock time, segwit marker (counters are extra).
const FIXED_WEIGHT: u64 = 4 * 8 + 2;
/// Bytes of an input without witness and with an empty script.
const INPUT_BYTES: u64 = 41;

/// An account that takes part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountInput {
    /// Terms of its current output.
    pub terms: AccountTerms,
    /// Value of that output.
    pub value: Sats,
    /// The output.
    pub outpoint: OutPoint,
    /// Expiry of the new output when it changes.
    pub new_expiry: Option<BlockHeight>,
}

/// A coin of the operator that is spent along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraInput {
    /// The coin.
    pub outpoint: OutPoint,
    /// What it is.
    pub output: TxOut,
    /// Weight units of the witness that will spend it.
    pub witness_weight: u64,
}

/// What a batch transaction is made of.
#[derive(Clone, Debug)]
pub struct AssemblyRequest<'a> {
    /// Matched markets.
    pub markets: &'a BTreeMap<BlockCount, Market>,
    /// The accounts, settled.
    pub settlement: &'a Settlement,
    /// The accounts' outputs; exactly those of the settlement.
    pub accounts: &'a BTreeMap<AccountKey, AccountInput>,
    /// Coins of the operator.
    pub extra_inputs: &'a [ExtraInput],
    /// Outputs that the operator pays besides its income.
    pub extra_outputs: &'a [TxOut],
    /// Script that receives the operator's income.
    pub operator: &'a ScriptBuf,
    /// Satoshi of its income that the operator leaves to the miners.
    pub extra_fee: Sats,
    /// Chain fee rate of the batch.
    pub fee_rate: SatPerKw,
}

/// One channel of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// The maker's order.
    pub ask: OrderNonce,
    /// The taker's order.
    pub bid: OrderNonce,
    /// The funding output.
    pub outpoint: OutPoint,
    /// Capacity, in satoshi.
    pub capacity: Sats,
    /// Commitment type.
    pub commitment: CommitmentType,
}

/// An assembled batch transaction, without witnesses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assembly {
    /// The transaction.
    pub transaction: Transaction,
    /// Output spent by each input, in order.
    pub prev_outputs: Vec<TxOut>,
    /// Account → index of its input.
    pub inputs: BTreeMap<AccountKey, usize>,
    /// Recreated account → index of its new output.
    pub outputs: BTreeMap<AccountKey, u32>,
    /// Recreated account → terms of its new output.
    pub new_terms: BTreeMap<AccountKey, AccountTerms>,
    /// The channels, by duration and in order of the pairs.
    pub channels: Vec<Channel>,
    /// Value of the operator's output; nothing when all goes to the miners.
    pub operator_value: Option<Sats>,
    /// Chain fee actually paid.
    pub fee: Sats,
    /// Estimated weight when signed.
    pub weight: u64,
}

/// A batch that cannot be assembled.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AssemblyError {
    /// Settlement and accounts differ.
    #[error("account {0} is settled, but its output is not known")]
    MissingAccount(AccountKey),
    /// Two pairs have the same two funding keys.
    #[error("two channels of the batch have the same funding output: order {0} uses a funding key twice")]
    SharedFundingKey(OrderNonce),
    /// The transaction would not be relayed.
    #[error("the batch pays {fee} for {weight} weight units, less than the relay floor")]
    BelowFloor {
        /// Fee.
        fee: Sats,
        /// Estimated weight.
        weight: u64,
    },
    /// The outputs exceed the inputs: a broken settlement.
    #[error("the batch pays out more than it takes in")]
    Overspent,
    /// A key failed.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A quantity failed.
    #[error(transparent)]
    Unit(#[from] UnitError),
}

struct Draft {
    inputs: Vec<(OutPoint, TxOut, u64)>,
    outputs: Vec<TxOut>,
    new_terms: BTreeMap<AccountKey, AccountTerms>,
}

/// Assembles the batch transaction: version 2, lock time 0, sequences 0, BIP-69 order.
///
/// The operator's output takes the execution fees and the traders' chain fees less the real chain fee, when that leaves
/// at least [`OPERATOR_DUST`] after the output's own cost; else the miners get it.
///
/// # Errors
/// [`AssemblyError`] by variant.
///
/// # Source
/// Protocol notes, auctioneer §11.
pub fn assemble(request: &AssemblyRequest<'_>) -> Result<Assembly, AssemblyError> {
    let mut draft = draft(request)?;
    let income = surplus(&draft)?;
    let operator = TxOut { value: bitcoin::Amount::ZERO, script_pubkey: request.operator.clone() };
    let with_operator = estimate(&draft, Some(&operator));
    let cost = request.fee_rate.fee_floor(with_operator)?.checked_add(request.extra_fee);
    let operator_value = cost.and_then(|cost| income.checked_sub(cost)).filter(|value| *value >= OPERATOR_DUST);
    if let Some(value) = operator_value {
        draft.outputs.push(TxOut { value: value.into(), ..operator });
    }
    let weight = estimate(&draft, None);
    let fee = surplus(&draft)?;
    if fee < SatPerKw::FLOOR.fee_floor(weight)? {
        return Err(AssemblyError::BelowFloor { fee, weight });
    }
    finish(request, draft, operator_value, fee, weight)
}

fn draft(request: &AssemblyRequest<'_>) -> Result<Draft, AssemblyError> {
    let mut draft = Draft { inputs: Vec::new(), outputs: Vec::new(), new_terms: BTreeMap::new() };
    for (key, settled) in &request.settlement.accounts {
        let account = request.accounts.get(key).ok_or(AssemblyError::MissingAccount(*key))?;
        let spent = account.terms.output(account.value)?;
        draft.inputs.push((account.outpoint, spent, cooperative_witness_size(account.terms.version)));
        if settled.recreated {
            let mut terms = account.terms.next()?;
            terms.expiry = account.new_expiry.unwrap_or(terms.expiry);
            draft.outputs.push(terms.output(settled.ending)?);
            draft.new_terms.insert(*key, terms);
        }
    }
    for extra in request.extra_inputs {
        draft.inputs.push((extra.outpoint, extra.output.clone(), extra.witness_weight));
    }
    draft.outputs.extend(request.extra_outputs.iter().cloned());
    for pair in pairs(request.markets) {
        draft.outputs.push(funding_output(pair)?);
    }
    Ok(draft)
}

fn pairs(markets: &BTreeMap<BlockCount, Market>) -> impl Iterator<Item = &Pair> {
    markets.values().flat_map(|market| &market.pairs)
}

fn commitment(pair: &Pair) -> CommitmentType {
    CommitmentType::of_pair(pair.ask.order.channel_type, pair.bid.order.channel_type)
}

fn funding_output(pair: &Pair) -> Result<TxOut, AssemblyError> {
    let script_pubkey = funding_script(pair.ask.multisig, pair.bid.multisig, commitment(pair))?;
    Ok(TxOut { value: capacity(pair)?.into(), script_pubkey })
}

fn capacity(pair: &Pair) -> Result<Sats, UnitError> {
    pair.units.to_sats().checked_add(pair.bid.order.self_balance()).ok_or(UnitError::Overflow("channel capacity"))
}

/// Inputs less outputs.
fn surplus(draft: &Draft) -> Result<Sats, AssemblyError> {
    let inputs = total(draft.inputs.iter().map(|(_, output, _)| output))?;
    let outputs = total(draft.outputs.iter())?;
    inputs.checked_sub(outputs).ok_or(AssemblyError::Overspent)
}

fn total<'a>(mut outputs: impl Iterator<Item = &'a TxOut>) -> Result<Sats, UnitError> {
    outputs.try_fold(Sats::ZERO, |sum, output| {
        sum.checked_add(Sats::try_from(output.value)?).ok_or(UnitError::Overflow("batch total"))
    })
}

fn bytes(len: usize) -> u64 {
    u64::try_from(len).expect("lengths fit 64 bits")
}

fn counter(len: usize) -> u64 {
    bytes(bitcoin::VarInt::from(len).size())
}

fn output_bytes(output: &TxOut) -> u64 {
    let script = output.script_pubkey.len();
    8 + counter(script) + bytes(script)
}

/// Estimated weight when signed, with one more output if given.
fn estimate(draft: &Draft, more: Option<&TxOut>) -> u64 {
    let outputs: u64 = draft.outputs.iter().chain(more).map(output_bytes).sum();
    let witnesses: u64 = draft.inputs.iter().map(|(_, _, witness)| witness).sum();
    let counters = counter(draft.inputs.len()) + counter(draft.outputs.len() + usize::from(more.is_some()));
    FIXED_WEIGHT + 4 * (counters + bytes(draft.inputs.len()) * INPUT_BYTES + outputs) + witnesses
}

/// Sorts, and finds everybody's index by script.
fn finish(
    request: &AssemblyRequest<'_>,
    mut draft: Draft,
    operator_value: Option<Sats>,
    fee: Sats,
    weight: u64,
) -> Result<Assembly, AssemblyError> {
    draft.inputs.sort_by_key(|(outpoint, _, _)| bip69_key(outpoint));
    draft.outputs.sort_by(|a, b| (a.value, a.script_pubkey.as_bytes()).cmp(&(b.value, b.script_pubkey.as_bytes())));
    let transaction = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: draft.inputs.iter().map(|(outpoint, _, _)| unsigned_input(*outpoint)).collect(),
        output: draft.outputs,
    };
    let channels = channels(request, &transaction)?;
    let mut inputs = BTreeMap::new();
    let mut outputs = BTreeMap::new();
    for (key, account) in request.accounts.iter().filter(|(key, _)| request.settlement.accounts.contains_key(key)) {
        let at = draft.inputs.iter().position(|(outpoint, _, _)| *outpoint == account.outpoint);
        inputs.insert(*key, at.ok_or(AssemblyError::MissingAccount(*key))?);
    }
    for (key, terms) in &draft.new_terms {
        let at = only_output(&transaction, &terms.output_script()?);
        outputs.insert(*key, at.ok_or(AssemblyError::MissingAccount(*key))?);
    }
    Ok(Assembly {
        transaction,
        prev_outputs: draft.inputs.into_iter().map(|(_, output, _)| output).collect(),
        inputs,
        outputs,
        new_terms: draft.new_terms,
        channels,
        operator_value,
        fee,
        weight,
    })
}

fn channels(request: &AssemblyRequest<'_>, transaction: &Transaction) -> Result<Vec<Channel>, AssemblyError> {
    let txid = transaction.compute_txid();
    pairs(request.markets)
        .map(|pair| {
            let script = funding_output(pair)?.script_pubkey;
            let nonce = pair.bid.order.nonce;
            let vout = only_output(transaction, &script).ok_or(AssemblyError::SharedFundingKey(nonce))?;
            Ok(Channel {
                ask: pair.ask.order.nonce,
                bid: nonce,
                outpoint: OutPoint { txid, vout },
                capacity: capacity(pair)?,
                commitment: commitment(pair),
            })
        })
        .collect()
}

/// Index of the output with this script, when there is exactly one.
fn only_output(transaction: &Transaction, script: &bitcoin::Script) -> Option<u32> {
    let mut found = transaction.output.iter().enumerate().filter(|(_, output)| *output.script_pubkey == *script);
    let (index, _) = found.next()?;
    if found.next().is_some() { None } else { u32::try_from(index).ok() }
}

/// BIP-69 compares transaction ids as they are displayed: last byte first.
fn bip69_key(outpoint: &OutPoint) -> ([u8; 32], u32) {
    let mut id = outpoint.txid.to_byte_array();
    id.reverse();
    (id, outpoint.vout)
}

fn unsigned_input(previous_output: OutPoint) -> TxIn {
    TxIn { previous_output, script_sig: ScriptBuf::new(), sequence: Sequence::ZERO, witness: Witness::new() }
}
