//! Deposits: coins of the node's wallet that the operator hands to the venue.
//!
//! A deposit is a transaction of its own. The node's wallet funds and signs it; it is stored, and only then published, so
//! that it is paid once, whatever happens. When it is deep enough in the chain, the next batch spends it together with the
//! venue's own coin. The wallet's coins are never inputs of a batch: whatever else uses the wallet could spend them before
//! the batch confirms, and a batch is never replaced.
//!
//! # Source
//! Protocol notes, auctioneer §16 ("operator I/O"); that it is no part of the batch is our choice.

use crate::accounts::REORGANISATION;
use crate::actor::{Actor, Answered, answer};
use crate::book::Write;
use crate::error::{Halt, ServeError};
use crate::handle::Reply;
use crate::master::{Coin, coin_script};
use crate::node::{Node, Watched, set};
use bitcoin::absolute::LockTime;
use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::psbt::Psbt;
use bitcoin::transaction::Version;
use bitcoin::{OutPoint, ScriptBuf, Transaction, TxOut, Txid};
use serde::{Deserialize, Serialize};
use tidegate_ports::{NodeError, VenueEnv, Watch};
use tidegate_protocol::keys::{AuctioneerKey, BatchId};
use tidegate_protocol::script::find_output;
use tidegate_protocol::units::{BlockHeight, SatPerKw, Sats};
use tracing::{info, warn};

/// Smallest deposit: a smaller one would hardly pay for the input that collects it.
const SMALLEST: Sats = Sats::constant(10_000);
/// Deposits on their way at a time: each is an input of the next batch.
const MAX_DEPOSITS: usize = 10;
/// Confirmations until a batch may spend it.
const CONFIRMATIONS: u32 = 3;
/// Prefixes of the names of watches; the deposit's number follows.
const CONFIRMATION: &str = "deposit/";
const INPUT: &str = "deposit-input/";

/// Where a deposit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DepositState {
    /// Published, and not deep enough in the chain.
    Waiting,
    /// The next batch takes it into the venue's own coin.
    Confirmed,
    /// Taken by this batch, which is not confirmed.
    Spent(BatchId),
    /// Another transaction of the wallet spent its coins: nothing was deposited.
    Replaced,
}

/// A deposit that is not yet part of the venue's own coin for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deposit {
    /// Its coin.
    pub outpoint: OutPoint,
    /// Value of the coin.
    pub value: Sats,
    /// Where it stands.
    pub state: DepositState,
}

/// A deposit as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DepositRecord {
    /// From 0; never used twice, for the coin's key follows from it.
    pub(crate) number: u64,
    /// With witnesses.
    pub(crate) transaction: Transaction,
    pub(crate) vout: u32,
    pub(crate) value: Sats,
    /// The wallet's coins that it spends, and their scripts.
    pub(crate) inputs: Vec<(OutPoint, ScriptBuf)>,
    pub(crate) height_hint: BlockHeight,
    pub(crate) state: DepositState,
}

/// The scalar that is added to our key for the coin of this deposit.
fn tweak(number: u64, auctioneer: &AuctioneerKey) -> [u8; 32] {
    let mut engine = sha256::Hash::engine();
    engine.input(b"tidegate deposit");
    engine.input(&number.to_be_bytes());
    engine.input(&auctioneer.serialize());
    sha256::Hash::from_engine(engine).to_byte_array()
}

impl DepositRecord {
    pub(crate) fn txid(&self) -> Txid {
        self.transaction.compute_txid()
    }

    pub(crate) fn public(&self) -> Deposit {
        let outpoint = OutPoint { txid: self.txid(), vout: self.vout };
        Deposit { outpoint, value: self.value, state: self.state }
    }

    pub(crate) fn coin(&self, auctioneer: &AuctioneerKey) -> Coin {
        let Deposit { outpoint, value, .. } = self.public();
        Coin { outpoint, value, tweak: tweak(self.number, auctioneer) }
    }

    fn watches(&self) -> Vec<Watched> {
        let height_hint = self.height_hint.saturating_sub(REORGANISATION);
        let inputs = self.inputs.iter().enumerate().map(|(index, (outpoint, script))| {
            let watch = Watch::Spend { outpoint: *outpoint, script: script.clone(), height_hint };
            (format!("{INPUT}{}/{index}", self.number), watch)
        });
        let output = self.transaction.output.iter().zip(0..).find(|(_, vout)| *vout == self.vout);
        let confirmation = output.map(|(output, _)| {
            let script = output.script_pubkey.clone();
            let watch = Watch::Confirmation { txid: self.txid(), script, confirmations: CONFIRMATIONS, height_hint };
            (format!("{CONFIRMATION}{}", self.number), watch)
        });
        inputs.chain(confirmation).collect()
    }
}

/// The number of the deposit that a watch of this name belongs to.
fn watched(name: &str) -> Option<u64> {
    let number = name.strip_prefix(CONFIRMATION).or_else(|| name.strip_prefix(INPUT)?.split('/').next());
    number?.parse().ok()
}

/// The operator's call.
pub(crate) struct DepositCall {
    number: u64,
    output: TxOut,
    reply: Reply<Deposit>,
}

/// What the wallet made: a signed payment, and what it spends.
pub(crate) type Payment = (Transaction, Vec<(OutPoint, ScriptBuf)>);

/// Has the wallet fund and sign a payment of `output`. Nothing is published, and no coin stays locked after a failure.
async fn make_payment<E: VenueEnv>(node: &Node<'_, E>, output: &TxOut, rate: SatPerKw) -> Result<Payment, NodeError> {
    let refuse = |reason: String| NodeError::BadAnswer { call: "fund_psbt", reason };
    let unsigned = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: Vec::new(),
        output: vec![output.clone()],
    };
    let template = Psbt::from_unsigned_tx(unsigned).map_err(|error| refuse(error.to_string()))?;
    // Four weight units are a virtual byte.
    let sat_per_vbyte = rate.get().saturating_mul(4).div_ceil(1000).max(1);
    let funded = node.fund_psbt(&template, sat_per_vbyte).await?;
    let outcome = match node.finalize_psbt(&funded.psbt).await {
        Ok(signed) if signed.output.iter().filter(|found| *found == output).count() == 1 => {
            let spent = funded.psbt.unsigned_tx.input.iter().zip(&funded.psbt.inputs);
            let script =
                |described: &bitcoin::psbt::Input| Some(described.witness_utxo.as_ref()?.script_pubkey.clone());
            let spent = spent.filter_map(|(input, described)| Some((input.previous_output, script(described)?)));
            Ok((signed, spent.collect()))
        }
        Ok(_) => Err(refuse("the wallet signed another payment".to_owned())),
        Err(error) => Err(error),
    };
    if outcome.is_err() {
        for lock in &funded.locks {
            // The wallet lets go of it after some minutes anyway.
            drop(node.release(lock).await);
        }
    }
    outcome
}

impl<'e, E: VenueEnv> Actor<'e, E> {
    /// Has the node's wallet pay a deposit, at this chain fee rate or the estimated one.
    pub(crate) fn deposit(&mut self, value: Sats, rate: Option<SatPerKw>, reply: Reply<Deposit>) -> Result<(), Halt> {
        let number = self.book.deposit_count;
        let output = match self.deposit_output(number, value) {
            Ok(output) => output,
            Err(error) => return answer(reply, Err(error)),
        };
        self.depositing = true;
        let rate = rate.unwrap_or(self.estimate).max(SatPerKw::FLOOR);
        let (node, call) = (self.node.clone(), DepositCall { number, output, reply });
        self.ask_beside(async move {
            let payment = make_payment(&node, &call.output, rate).await;
            Answered::Paid(Box::new(call), payment)
        });
        Ok(())
    }

    fn deposit_output(&self, number: u64, value: Sats) -> Result<TxOut, ServeError> {
        if self.depositing {
            return Err(ServeError::Busy);
        }
        if value < SMALLEST {
            return Err(ServeError::DepositTooSmall { found: value, min: SMALLEST });
        }
        let on_their_way = self.book.deposits.values().filter(|deposit| deposit.state != DepositState::Replaced);
        let found = on_their_way.count() + 1;
        if found > MAX_DEPOSITS {
            return Err(ServeError::TooMany { what: "deposits on their way", found, max: MAX_DEPOSITS });
        }
        let auctioneer = self.auctioneer();
        let script_pubkey = coin_script(&tweak(number, &auctioneer), &auctioneer)?;
        Ok(TxOut { value: value.into(), script_pubkey })
    }

    /// The wallet made the payment: it is stored, then published.
    pub(crate) async fn paid(
        &mut self,
        DepositCall { number, output, reply }: DepositCall,
        payment: Result<Payment, NodeError>,
    ) -> Result<(), Halt> {
        self.depositing = false;
        let outcome = match payment {
            Ok(payment) => self.store_deposit(number, &output, payment).await,
            Err(error) => Err(error.into()),
        };
        answer(reply, outcome)
    }

    async fn store_deposit(
        &mut self,
        number: u64,
        output: &TxOut,
        (transaction, inputs): Payment,
    ) -> Result<Deposit, ServeError> {
        let lost = ServeError::Internal("a deposit pays nothing");
        let vout = find_output(&transaction, &output.script_pubkey).ok_or(lost.clone())?;
        let value = Sats::try_from(output.value).map_err(|_| lost)?;
        let (height_hint, state) = (self.height, DepositState::Waiting);
        let record = DepositRecord { number, transaction, vout, value, inputs, height_hint, state };
        let deposit = record.public();
        info!(number, outpoint = %deposit.outpoint, value = value.get(), "deposit of the operator");
        let watches = record.watches();
        let writes = vec![Write::DepositCount(number.saturating_add(1)), Write::Deposit(record)];
        let receipt = self.commit(writes).await?;
        if !receipt.names_deposit(deposit.outpoint.txid) {
            return Err(ServeError::Internal("a deposit was not stored"));
        }
        if let Err(error) = set(&self.node, &watches).await {
            warn!(number, %error, "the deposit can not be watched yet");
            self.chain_lost = true;
        }
        // The main loop publishes it.
        self.repair_at = Some(self.now());
        Ok(deposit)
    }

    /// Coins that a batch may spend.
    pub(crate) fn deposited(&self) -> impl Iterator<Item = &crate::deposits::DepositRecord> {
        self.book.deposits.values().filter(|deposit| deposit.state == DepositState::Confirmed)
    }

    pub(crate) fn deposit_watches(&self) -> impl Iterator<Item = Watched> {
        self.book.deposits.values().flat_map(DepositRecord::watches)
    }

    /// Deposits that are to be handed to the network again: those that wait, and those whose batch waits.
    pub(crate) fn unconfirmed_deposits(&self) -> impl Iterator<Item = &DepositRecord> {
        let unsure = |deposit: &&DepositRecord| match deposit.state {
            DepositState::Waiting | DepositState::Spent(_) => true,
            DepositState::Confirmed | DepositState::Replaced => false,
        };
        self.book.deposits.values().filter(unsure)
    }

    /// Whether the watch of this name is a deposit's; what it told is noted.
    pub(crate) async fn on_deposit(&mut self, name: &str, transaction: &Transaction) -> Result<bool, Halt> {
        let Some(number) = watched(name) else { return Ok(false) };
        let Some(mut record) = self.book.deposits.get(&number).cloned() else { return Ok(true) };
        let ours = transaction.compute_txid() == record.txid();
        let state = match (record.state, name.starts_with(CONFIRMATION), ours) {
            (DepositState::Waiting | DepositState::Replaced, true, true) => DepositState::Confirmed,
            (DepositState::Waiting, false, false) => DepositState::Replaced,
            (_, _, _) => return Ok(true),
        };
        info!(number, outpoint = %record.public().outpoint, ?state, "deposit");
        record.state = state;
        self.commit(vec![Write::Deposit(record)]).await?;
        Ok(true)
    }

    /// The rows of deposits that a batch takes into the venue's own coin.
    pub(crate) fn spent_deposits(&self, coins: &[Coin], batch: BatchId) -> Vec<Write> {
        let taken = self.deposited().filter(|deposit| {
            let outpoint = deposit.public().outpoint;
            coins.iter().any(|coin| coin.outpoint == outpoint)
        });
        taken
            .map(|record| Write::Deposit(DepositRecord { state: DepositState::Spent(batch), ..record.clone() }))
            .collect()
    }

    /// The rows of deposits whose batch is confirmed: part of the venue's own coin for good.
    pub(crate) fn collected_deposits(&self, batch: BatchId) -> Vec<Write> {
        let of_batch = self.book.deposits.values().filter(|deposit| deposit.state == DepositState::Spent(batch));
        of_batch.map(|deposit| Write::DropDeposit(deposit.number)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_watches_lead_to_the_deposit() {
        for (name, number) in [
            ("deposit/0", Some(0)),
            ("deposit/17", Some(17)),
            ("deposit-input/17/3", Some(17)),
            ("deposit/x", None),
            ("batch/17", None),
            ("spend/17", None),
        ] {
            assert_eq!(watched(name), number, "{name}");
        }
    }
}
