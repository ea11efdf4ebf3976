//! The chain: blocks, mempool, and the rules by which a transaction enters them.
//!
//! Pure state: no waker, no lock. Every transaction ever accepted is kept; whether an output is unspent follows from
//! the index of spenders, so that taking a block back needs to change heights only.

use crate::consensus::{ScriptRefusal, check_scripts};
use bitcoin::absolute::LockTime;
use bitcoin::script::Builder;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, Script, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use thiserror::Error;
use tidegate_protocol::units::{SatPerKw, Sats};

/// Height of a new world.
pub const GENESIS_HEIGHT: u32 = 500;
/// Blocks from a block reward until it can be spent.
pub const COINBASE_MATURITY: u32 = 100;
/// Block reward without fees in the first halving period.
pub const BASE_SUBSIDY: Sats = Sats::constant(5_000_000_000);
/// Blocks of a halving period.
const HALVING: u32 = 210_000;
/// Weight units of a transaction that is relayed.
const MAX_STANDARD_WEIGHT: u64 = 400_000;
/// Weight units that a block takes from the mempool.
const MAX_BLOCK_WEIGHT: u64 = 3_996_000;
/// Fee rate under which nothing is relayed: 1 sat/vB.
const MIN_RELAY: SatPerKw = SatPerKw::new(250);

/// Why a transaction does not enter the mempool.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TxRefusal {
    /// No input, no output, an input twice, or a block reward.
    #[error("the transaction is malformed: {0}")]
    Malformed(&'static str),
    /// Version that is not relayed.
    #[error("transactions of version {0} are not relayed")]
    Version(i32),
    /// Too large to be relayed.
    #[error("{weight} weight units are more than the {MAX_STANDARD_WEIGHT} that are relayed")]
    TooLarge {
        /// Its weight.
        weight: u64,
    },
    /// The spent output does not exist.
    #[error("the output {0} does not exist")]
    MissingInput(OutPoint),
    /// The spent output is spent by another transaction, in a block or in the mempool.
    #[error("the output {outpoint} is spent by {by} already")]
    DoubleSpend {
        /// The output.
        outpoint: OutPoint,
        /// Its spender.
        by: Txid,
    },
    /// A block reward spent too early.
    #[error("the block reward {outpoint} can not be spent before block {from}")]
    Immature {
        /// The output.
        outpoint: OutPoint,
        /// First block that may spend it.
        from: u32,
    },
    /// The lock time is not reached. A lock by time never is: blocks have no time.
    #[error("the lock time {lock} is not reached: the next block is {next}")]
    NotFinal {
        /// Lock time.
        lock: LockTime,
        /// Height of the next block.
        next: u32,
    },
    /// The relative lock of an input is not reached.
    #[error("input {input} is locked until its output is older")]
    RelativeLock {
        /// Index of the input.
        input: usize,
    },
    /// Outputs exceed the inputs.
    #[error("the outputs are worth {outputs}, the inputs only {inputs}")]
    Overspent {
        /// Sum of the inputs.
        inputs: Sats,
        /// Sum of the outputs.
        outputs: Sats,
    },
    /// Sums beyond 21 million bitcoin.
    #[error("the amounts are more than 21 million bitcoin")]
    Amounts,
    /// An output that costs more to spend than it is worth.
    #[error("output {output} of {value} is below the dust limit of {limit}")]
    Dust {
        /// Index of the output.
        output: usize,
        /// Its value.
        value: Sats,
        /// Its limit.
        limit: Sats,
    },
    /// The fee is not enough to be relayed.
    #[error("a fee of {fee} is below the {minimum} that relaying costs")]
    FeeTooLow {
        /// The fee.
        fee: Sats,
        /// Smallest fee.
        minimum: Sats,
    },
    /// Bitcoin Core's interpreter says no.
    #[error(transparent)]
    Script(#[from] ScriptRefusal),
}

/// What became of a transaction that was not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// Entered the mempool now.
    New,
    /// Was in the mempool.
    InMempool,
    /// Is in a block.
    Confirmed,
}

/// An accepted transaction.
#[derive(Clone, Debug)]
struct Known {
    transaction: Transaction,
    /// Height of its block; nothing while in the mempool.
    height: Option<u32>,
    /// It was in a block at some time.
    mined: bool,
}

/// An output that was created by an accepted transaction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Coin<'a> {
    pub(crate) output: &'a TxOut,
    /// Height of the block that holds it; nothing while in the mempool.
    pub(crate) height: Option<u32>,
    pub(crate) coinbase: bool,
}

/// Blocks, mempool and their indexes.
#[derive(Clone, Debug)]
pub(crate) struct ChainState {
    /// Transactions of each block, by height; block 0 is empty.
    blocks: Vec<Vec<Txid>>,
    known: BTreeMap<Txid, Known>,
    /// Unconfirmed transactions in the order of arrival: parents first.
    mempool: Vec<Txid>,
    /// Spent output → spender, in blocks and mempool.
    spent: BTreeMap<OutPoint, Txid>,
    /// Script → every output that ever paid it, in the order of arrival.
    paid: BTreeMap<ScriptBuf, Vec<OutPoint>>,
    /// What the network lost before it was in a block. Who made it remembers it.
    lost: BTreeMap<Txid, Transaction>,
}

impl ChainState {
    /// A chain of [`GENESIS_HEIGHT`] blocks whose rewards pay `miner`.
    pub(crate) fn new(miner: &Script) -> ChainState {
        let mut chain = ChainState {
            blocks: vec![Vec::new()],
            known: BTreeMap::new(),
            mempool: Vec::new(),
            spent: BTreeMap::new(),
            paid: BTreeMap::new(),
            lost: BTreeMap::new(),
        };
        for _ in 0..GENESIS_HEIGHT {
            chain.mine(miner);
        }
        chain
    }

    /// Height of the best block.
    pub(crate) fn height(&self) -> u32 {
        u32::try_from(self.blocks.len() - 1).expect("fewer than 2^32 blocks fit in memory")
    }

    /// A transaction with the height of its block.
    pub(crate) fn transaction(&self, txid: &Txid) -> Option<(&Transaction, Option<u32>)> {
        self.known.get(txid).map(|known| (&known.transaction, known.height))
    }

    /// Every transaction that was accepted, with its name and the height of its block.
    pub(crate) fn transactions(&self) -> impl Iterator<Item = (&Txid, &Transaction, Option<u32>)> {
        self.known.iter().map(|(txid, known)| (txid, &known.transaction, known.height))
    }

    /// The transactions of a block, reward first.
    pub(crate) fn block(&self, height: u32) -> Option<Vec<&Transaction>> {
        let txids = self.blocks.get(usize::try_from(height).ok()?)?;
        txids.iter().map(|txid| self.known.get(txid).map(|known| &known.transaction)).collect()
    }

    /// Unconfirmed transactions, parents first.
    pub(crate) fn mempool(&self) -> impl Iterator<Item = &Transaction> {
        self.mempool.iter().filter_map(|txid| self.known.get(txid).map(|known| &known.transaction))
    }

    /// An output, spent or not.
    pub(crate) fn coin(&self, outpoint: &OutPoint) -> Option<Coin<'_>> {
        let known = self.known.get(&outpoint.txid)?;
        let output = known.transaction.output.get(usize::try_from(outpoint.vout).ok()?)?;
        Some(Coin { output, height: known.height, coinbase: known.transaction.is_coinbase() })
    }

    /// The spender of an output, in a block or in the mempool.
    pub(crate) fn spender(&self, outpoint: &OutPoint) -> Option<(&Transaction, Option<u32>)> {
        self.spent.get(outpoint).and_then(|txid| self.transaction(txid))
    }

    /// As [`ChainState::spender`], with its name.
    pub(crate) fn spending(&self, outpoint: &OutPoint) -> Option<(Txid, &Transaction, Option<u32>)> {
        let txid = self.spent.get(outpoint)?;
        self.transaction(txid).map(|(transaction, height)| (*txid, transaction, height))
    }

    /// Every output that ever paid `script`, in the order of arrival.
    pub(crate) fn paid_to(&self, script: &Script) -> &[OutPoint] {
        self.paid.get(script).map_or(&[], Vec::as_slice)
    }

    /// Outputs paying `script` that are confirmed, unspent also in the mempool, and mature.
    pub(crate) fn spendable(&self, script: &Script) -> impl Iterator<Item = (OutPoint, &TxOut)> {
        let next = self.height() + 1;
        self.paid_to(script).iter().filter_map(move |outpoint| {
            let coin = self.coin(outpoint)?;
            let height = coin.height?;
            let mature = !coin.coinbase || next - height >= COINBASE_MATURITY;
            (mature && !self.spent.contains_key(outpoint)).then_some((*outpoint, coin.output))
        })
    }

    /// Takes a transaction into the mempool. Known is no error.
    pub(crate) fn accept(&mut self, transaction: &Transaction) -> Result<Acceptance, TxRefusal> {
        let txid = transaction.compute_txid();
        if let Some(known) = self.known.get(&txid) {
            return Ok(if known.height.is_some() { Acceptance::Confirmed } else { Acceptance::InMempool });
        }
        self.check(transaction)?;
        self.insert(txid, transaction.clone(), None);
        self.mempool.push(txid);
        Ok(Acceptance::New)
    }

    /// Makes the next block: reward to `miner`, and the mempool in the order of arrival until the block is full.
    pub(crate) fn mine(&mut self, miner: &Script) -> u32 {
        self.mine_from(miner, true)
    }

    /// Takes the last `depth` blocks back, but none of the first [`GENESIS_HEIGHT`]. Their transactions return to the
    /// mempool, before those that wait there; their rewards never were. Returns the new height.
    pub(crate) fn disconnect(&mut self, depth: u32) -> u32 {
        let mut returned = VecDeque::new();
        for _ in 0..depth.min(self.height().saturating_sub(GENESIS_HEIGHT)) {
            let block = self.blocks.pop().expect("the height counts the blocks");
            let mut txids = block.into_iter();
            // A reward that young was never spent.
            txids.next().into_iter().for_each(|reward| self.forget(&reward));
            for txid in txids.rev() {
                self.known.get_mut(&txid).expect("blocks name known transactions").height = None;
                returned.push_front(txid);
            }
        }
        self.mempool.splice(0..0, returned);
        self.height()
    }

    /// As [`ChainState::mine`]; the block is empty when it takes nothing.
    pub(crate) fn mine_from(&mut self, miner: &Script, take: bool) -> u32 {
        let chosen = if take { self.choose(self.height() + 1) } else { Vec::new() };
        self.mine_chosen(miner, chosen)
    }

    /// What the next block would take now.
    pub(crate) fn plan(&mut self) -> Vec<Txid> {
        let mempool = self.mempool.clone();
        let chosen = self.choose(self.height() + 1);
        self.mempool = mempool;
        chosen
    }

    /// As [`ChainState::mine`], with these of the mempool: what [`ChainState::plan`] named, nothing that came later.
    pub(crate) fn mine_planned(&mut self, miner: &Script, planned: &[Txid]) -> u32 {
        let chosen: Vec<Txid> = planned.iter().copied().filter(|txid| self.mempool.contains(txid)).collect();
        self.mempool.retain(|txid| !chosen.contains(txid));
        self.mine_chosen(miner, chosen)
    }

    /// Makes the next block of transactions that were taken out of the mempool.
    fn mine_chosen(&mut self, miner: &Script, chosen: Vec<Txid>) -> u32 {
        let height = self.height() + 1;
        let fees: u64 = chosen.iter().map(|txid| self.fee_of(txid)).sum();
        let subsidy = BASE_SUBSIDY.get().checked_shr(height / HALVING).unwrap_or(0);
        let coinbase = coinbase(height, miner, Amount::from_sat(subsidy + fees));
        let coinbase_id = coinbase.compute_txid();
        self.insert(coinbase_id, coinbase, Some(height));
        for txid in &chosen {
            let known = self.known.get_mut(txid).expect("the mempool names known transactions");
            (known.height, known.mined) = (Some(height), true);
        }
        self.blocks.push(core::iter::once(coinbase_id).chain(chosen).collect());
        height
    }

    /// Takes what fits into block `height` out of the mempool. After a reorganisation some of it may have to wait.
    fn choose(&mut self, height: u32) -> Vec<Txid> {
        let mut weight = 0_u64;
        let mut chosen = Vec::new();
        let mut waiting = Vec::new();
        for txid in core::mem::take(&mut self.mempool) {
            let transaction = &self.known.get(&txid).expect("the mempool names known transactions").transaction;
            let heavier = weight.saturating_add(transaction.weight().to_wu());
            let orphan = transaction.input.iter().any(|input| waiting.contains(&input.previous_output.txid));
            if orphan || heavier > MAX_BLOCK_WEIGHT || !self.may_be_in(transaction, height) {
                waiting.push(txid);
            } else {
                weight = heavier;
                chosen.push(txid);
            }
        }
        self.mempool = waiting;
        chosen
    }

    /// Whether the locks of a transaction, whose parents are in blocks or in the same one, are reached at a height.
    fn may_be_in(&self, transaction: &Transaction, height: u32) -> bool {
        let relative = |input: &TxIn| {
            let born = self.coin(&input.previous_output).and_then(|coin| coin.height).unwrap_or(height);
            transaction.version.0 < 2 || relative_lock_reached(input.sequence, born, height)
        };
        check_final(transaction, height).is_ok() && transaction.input.iter().all(relative)
    }

    /// Unspent outputs in blocks, in satoshi: equal to the rewards without fees, whatever happens.
    pub(crate) fn circulating(&self) -> u64 {
        let in_block = |outpoint: &OutPoint| self.spender(outpoint).is_some_and(|(_, height)| height.is_some());
        let outputs = self.known.iter().filter(|(_, known)| known.height.is_some()).flat_map(|(txid, known)| {
            (0_u32..).zip(&known.transaction.output).map(|(vout, output)| (OutPoint { txid: *txid, vout }, output))
        });
        outputs.filter(|(outpoint, _)| !in_block(outpoint)).map(|(_, output)| output.value.to_sat()).sum()
    }

    /// Every reward so far without fees, in satoshi.
    pub(crate) fn subsidies(&self) -> u64 {
        let subsidy = |height: u32| BASE_SUBSIDY.get().checked_shr(height / HALVING).unwrap_or(0);
        (1..=self.height()).map(subsidy).sum()
    }

    /// Takes an unconfirmed transaction back that nothing else spends from, as when another one replaces it. Returns
    /// whether it did.
    pub(crate) fn evict(&mut self, txid: &Txid) -> bool {
        let Some(known) = self.known.get(txid).filter(|known| known.height.is_none()) else { return false };
        let outputs = (0_u32..).zip(&known.transaction.output).map(|(vout, _)| OutPoint { txid: *txid, vout });
        if outputs.into_iter().any(|outpoint| self.spent.contains_key(&outpoint)) {
            return false;
        }
        self.mempool.retain(|other| other != txid);
        self.spent.retain(|_, spender| spender != txid);
        self.forget(txid);
        true
    }

    /// The network loses a transaction that was never in a block and that nothing else spends from, as full nodes drop
    /// what pays least: somebody has to publish it again. Returns whether it did.
    pub(crate) fn lose(&mut self, txid: &Txid) -> bool {
        let known = self.known.get(txid).filter(|known| !known.mined);
        let Some(transaction) = known.map(|known| known.transaction.clone()) else { return false };
        let evicted = self.evict(txid);
        if evicted {
            self.lost.insert(*txid, transaction);
        }
        evicted
    }

    /// Transactions that the network lost and that could still be published: no input of them is spent elsewhere.
    pub(crate) fn lost(&self) -> impl Iterator<Item = (&Txid, &Transaction)> {
        let possible = |input: &TxIn| !self.spent.contains_key(&input.previous_output);
        self.lost.iter().filter(move |(_, transaction)| transaction.input.iter().all(possible))
    }

    fn forget(&mut self, txid: &Txid) {
        let Some(known) = self.known.remove(txid) else { return };
        for output in known.transaction.output {
            if let Some(paid) = self.paid.get_mut(&output.script_pubkey) {
                paid.retain(|outpoint| outpoint.txid != *txid);
            }
        }
    }

    fn insert(&mut self, txid: Txid, transaction: Transaction, height: Option<u32>) {
        if !transaction.is_coinbase() {
            self.spent.extend(transaction.input.iter().map(|input| (input.previous_output, txid)));
        }
        for (vout, output) in (0_u32..).zip(&transaction.output) {
            self.paid.entry(output.script_pubkey.clone()).or_default().push(OutPoint { txid, vout });
        }
        self.lost.remove(&txid);
        self.known.insert(txid, Known { transaction, height, mined: height.is_some() });
    }

    /// Fee of an accepted transaction, in satoshi.
    fn fee_of(&self, txid: &Txid) -> u64 {
        let transaction = &self.known.get(txid).expect("fees are asked of known transactions").transaction;
        let inputs = transaction.input.iter().filter_map(|input| self.coin(&input.previous_output));
        let paid: u64 = inputs.map(|coin| coin.output.value.to_sat()).sum();
        let kept: u64 = transaction.output.iter().map(|output| output.value.to_sat()).sum();
        paid.checked_sub(kept).expect("an accepted transaction does not overspend")
    }

    /// All rules, cheapest first: scripts come last.
    fn check(&self, transaction: &Transaction) -> Result<(), TxRefusal> {
        check_form(transaction)?;
        let next = self.height() + 1;
        let spent = self.check_inputs(transaction, next)?;
        check_final(transaction, next)?;
        check_amounts(transaction, &spent)?;
        check_scripts(transaction, &spent)?;
        Ok(())
    }

    /// Existence, double spends, maturity and relative locks; returns the spent outputs.
    fn check_inputs(&self, transaction: &Transaction, next: u32) -> Result<Vec<TxOut>, TxRefusal> {
        let mut spent = Vec::with_capacity(transaction.input.len());
        for (input, txin) in transaction.input.iter().enumerate() {
            let outpoint = txin.previous_output;
            let coin = self.coin(&outpoint).ok_or(TxRefusal::MissingInput(outpoint))?;
            if let Some(by) = self.spent.get(&outpoint) {
                return Err(TxRefusal::DoubleSpend { outpoint, by: *by });
            }
            let height = coin.height.unwrap_or(next);
            let from = height.saturating_add(COINBASE_MATURITY);
            if coin.coinbase && next < from {
                return Err(TxRefusal::Immature { outpoint, from });
            }
            if transaction.version.0 >= 2 && !relative_lock_reached(txin.sequence, height, next) {
                return Err(TxRefusal::RelativeLock { input });
            }
            spent.push(coin.output.clone());
        }
        Ok(spent)
    }
}

/// What can be said without knowing the chain.
fn check_form(transaction: &Transaction) -> Result<(), TxRefusal> {
    if transaction.input.is_empty() || transaction.output.is_empty() {
        return Err(TxRefusal::Malformed("it has no input or no output"));
    }
    if transaction.input.iter().any(|input| input.previous_output.is_null()) {
        return Err(TxRefusal::Malformed("a block reward can not be published"));
    }
    let outpoints: BTreeSet<OutPoint> = transaction.input.iter().map(|input| input.previous_output).collect();
    if outpoints.len() != transaction.input.len() {
        return Err(TxRefusal::Malformed("it spends an output twice"));
    }
    if !(1..=2).contains(&transaction.version.0) {
        return Err(TxRefusal::Version(transaction.version.0));
    }
    let weight = transaction.weight().to_wu();
    if weight > MAX_STANDARD_WEIGHT {
        return Err(TxRefusal::TooLarge { weight });
    }
    Ok(())
}

/// The absolute lock time, for a transaction in block `next`.
fn check_final(transaction: &Transaction, next: u32) -> Result<(), TxRefusal> {
    let lock = transaction.lock_time;
    let reached = match lock {
        LockTime::Blocks(height) => height.to_consensus_u32() < next,
        LockTime::Seconds(_) => false,
    };
    let ignored = transaction.input.iter().all(|input| input.sequence == Sequence::MAX);
    if reached || ignored { Ok(()) } else { Err(TxRefusal::NotFinal { lock, next }) }
}

/// BIP-68 for an input whose output is in block `height`, spent in block `next`.
fn relative_lock_reached(sequence: Sequence, height: u32, next: u32) -> bool {
    match sequence.to_relative_lock_time() {
        None => true,
        Some(bitcoin::relative::LockTime::Blocks(blocks)) => next >= height.saturating_add(u32::from(blocks.value())),
        Some(bitcoin::relative::LockTime::Time(time)) => time.value() == 0,
    }
}

/// Sums, dust and the fee.
fn check_amounts(transaction: &Transaction, spent: &[TxOut]) -> Result<(), TxRefusal> {
    let inputs = sum(spent)?;
    let outputs = sum(&transaction.output)?;
    for (index, output) in transaction.output.iter().enumerate() {
        let limit = output.script_pubkey.minimal_non_dust();
        if output.value < limit && !output.script_pubkey.is_op_return() {
            let amount = |amount| Sats::try_from(amount).map_err(|_| TxRefusal::Amounts);
            return Err(TxRefusal::Dust { output: index, value: amount(output.value)?, limit: amount(limit)? });
        }
    }
    let fee = inputs.checked_sub(outputs).ok_or(TxRefusal::Overspent { inputs, outputs })?;
    let minimum = MIN_RELAY.fee_floor(transaction.weight().to_wu()).map_err(|_| TxRefusal::Amounts)?;
    if fee < minimum { Err(TxRefusal::FeeTooLow { fee, minimum }) } else { Ok(()) }
}

fn sum(outputs: &[TxOut]) -> Result<Sats, TxRefusal> {
    let amounts: Result<Vec<Sats>, _> = outputs.iter().map(|output| Sats::try_from(output.value)).collect();
    Sats::checked_sum(amounts.map_err(|_| TxRefusal::Amounts)?).ok_or(TxRefusal::Amounts)
}

/// The reward of block `height`; the height in its script makes its name unique (BIP-34).
fn coinbase(height: u32, miner: &Script, value: Amount) -> Transaction {
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: Builder::new().push_int(i64::from(height)).push_slice(b"tidegate sandbox").into_script(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut { value, script_pubkey: miner.to_owned() }],
    }
}
