//! The venue's own coin. Every batch spends the one of the batch before and makes the next, so that each batch is a child
//! that pays for its unconfirmed parents, and the venue's income gathers in one place.
//!
//! The line starts by itself: the first batch whose income is worth an output makes the first coin. A batch whose coin
//! would be dust makes none, and a later one starts again.
//!
//! # Source
//! Protocol notes, auctioneer §11, §12 and §16.

use crate::actor::Actor;
use crate::book::{BatchRecord, MasterRecord, OperatorWish, Write};
use crate::error::{Halt, ServeError};
use crate::proposal::Proposal;
use crate::witness::strict_der;
use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::opcodes::all::OP_CHECKSIG;
use bitcoin::script::Builder;
use bitcoin::secp256k1::{PublicKey, Scalar, Secp256k1};
use bitcoin::{OutPoint, ScriptBuf, Transaction, TxOut, Txid, Witness};
use std::collections::{BTreeMap, BTreeSet};
use tidegate_market::{Assembly, ExtraInput};
use tidegate_ports::{NodeError, ScriptSpend, SignInput, Signer, VenueEnv};
use tidegate_protocol::keys::{AuctioneerKey, BatchKey, KeyDescriptor, KeyError};
use tidegate_protocol::script::{find_output, segwit_v0_sighash};
use tidegate_protocol::units::{SatPerKw, Sats};
use tracing::{info, warn};

/// Weight of the witness: counters, a signature of 73 bytes, a script of 35.
const WITNESS_WEIGHT: u64 = 111;
/// SIGHASH_ALL, appended to the signature.
const SIGHASH_ALL: u8 = 1;
/// Steps of the fee rate, in sat/kW, by which a batch is raised to lift its parents.
const LIFT_STEP: u64 = 250;
/// Outputs that the operator may ask for at a time.
const MAX_WITHDRAWALS: usize = 20;

/// The scalar that is added to our key for the coin under this batch key: `SHA256(ser33(B) || ser33(A))`.
fn tweak(batch: &BatchKey, auctioneer: &AuctioneerKey) -> [u8; 32] {
    let mut engine = sha256::Hash::engine();
    engine.input(&batch.serialize());
    engine.input(&auctioneer.serialize());
    sha256::Hash::from_engine(engine).to_byte_array()
}

fn tweaked(tweak: &[u8; 32], auctioneer: &AuctioneerKey) -> Result<PublicKey, KeyError> {
    let degenerate = || KeyError::Degenerate { what: "key of the master account" };
    let scalar = Scalar::from_be_bytes(*tweak).map_err(|_| degenerate())?;
    auctioneer.point().add_exp_tweak(&Secp256k1::verification_only(), &scalar).map_err(|_| degenerate())
}

/// One key, one signature: 35 bytes.
fn witness_script(tweak: &[u8; 32], auctioneer: &AuctioneerKey) -> Result<ScriptBuf, KeyError> {
    let key = tweaked(tweak, auctioneer)?;
    Ok(Builder::new().push_slice(key.serialize()).push_opcode(OP_CHECKSIG).into_script())
}

/// The script of a coin of the venue's.
pub(crate) fn coin_script(tweak: &[u8; 32], auctioneer: &AuctioneerKey) -> Result<ScriptBuf, KeyError> {
    Ok(witness_script(tweak, auctioneer)?.to_p2wsh())
}

/// Where the income of the batch before `next` goes.
pub(crate) fn output_script(next: &BatchKey, auctioneer: &AuctioneerKey) -> Result<ScriptBuf, KeyError> {
    coin_script(&tweak(next, auctioneer), auctioneer)
}

/// A coin of the venue's that a batch spends: the one of the batch before, or a deposit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Coin {
    pub(crate) outpoint: OutPoint,
    pub(crate) value: Sats,
    /// The scalar that is added to our key for it.
    pub(crate) tweak: [u8; 32],
}

impl Coin {
    /// The coin as an input of a batch.
    pub(crate) fn input(&self, auctioneer: &AuctioneerKey) -> Result<ExtraInput, KeyError> {
        let script_pubkey = coin_script(&self.tweak, auctioneer)?;
        let output = TxOut { value: self.value.into(), script_pubkey };
        Ok(ExtraInput { outpoint: self.outpoint, output, witness_weight: WITNESS_WEIGHT })
    }
}

impl MasterRecord {
    pub(crate) fn coin(&self, auctioneer: &AuctioneerKey) -> Coin {
        Coin { outpoint: self.outpoint, value: self.value, tweak: tweak(&self.batch, auctioneer) }
    }

    /// The coin that a batch makes; nothing when it makes none.
    pub(crate) fn made_by(assembly: &Assembly, next: BatchKey, auctioneer: &AuctioneerKey) -> Option<MasterRecord> {
        let value = assembly.operator_value?;
        let script = output_script(&next, auctioneer).ok()?;
        let vout = find_output(&assembly.transaction, &script)?;
        let outpoint = OutPoint { txid: assembly.transaction.compute_txid(), vout };
        Some(MasterRecord { outpoint, value, batch: next })
    }
}

/// Fee and weight of the batches that a transaction depends on and that are not confirmed.
fn unconfirmed_parents(transaction: &Transaction, batches: &[BatchRecord]) -> (u64, u64) {
    let waiting: BTreeMap<Txid, &BatchRecord> = batches
        .iter()
        .filter(|batch| !batch.confirmed)
        .map(|batch| (batch.transaction.compute_txid(), batch))
        .collect();
    let parents = |transaction: &Transaction| -> Vec<Txid> {
        transaction.input.iter().map(|input| input.previous_output.txid).filter(|id| waiting.contains_key(id)).collect()
    };
    let (mut open, mut seen) = (parents(transaction), BTreeSet::new());
    let (mut fee, mut weight) = (0u64, 0u64);
    while let Some(id) = open.pop() {
        if let (true, Some(batch)) = (seen.insert(id), waiting.get(&id)) {
            fee = fee.saturating_add(batch.fee.get());
            weight = weight.saturating_add(batch.transaction.weight().to_wu());
            open.extend(parents(&batch.transaction));
        }
    }
    (fee, weight)
}

/// Whether a batch brings its unconfirmed parents and itself to this rate together; without such parents there is nothing
/// to bring.
pub(crate) fn lifts_parents(assembly: &Assembly, batches: &[BatchRecord], target: SatPerKw) -> bool {
    let (fee, weight) = unconfirmed_parents(&assembly.transaction, batches);
    let (fee, all) = (fee.saturating_add(assembly.fee.get()), weight.saturating_add(assembly.weight));
    weight == 0 || fee.saturating_mul(1000) / all.max(1) >= target.get()
}

/// The next rate to try when a batch at `rate` does not lift its parents to `target`: in steps, as far as the missing fee
/// says.
pub(crate) fn raised(rate: SatPerKw, target: SatPerKw, assembly: &Assembly, batches: &[BatchRecord]) -> SatPerKw {
    let (fee, weight) = unconfirmed_parents(&assembly.transaction, batches);
    let all = weight.saturating_add(assembly.weight);
    let needed = target.get().saturating_mul(all).div_ceil(1000).saturating_sub(fee);
    let wanted = needed.saturating_mul(1000).div_ceil(assembly.weight.max(1));
    let steps = wanted.saturating_sub(rate.get()).div_ceil(LIFT_STEP).max(1);
    SatPerKw::new(rate.get().saturating_add(steps.saturating_mul(LIFT_STEP)))
}

/// Puts the witnesses of the venue's own coins in place.
pub(crate) async fn sign_coins<S: Signer>(
    signer: &S,
    key: &KeyDescriptor,
    proposal: &Proposal,
    transaction: &mut Transaction,
) -> Result<(), NodeError> {
    for coin in &proposal.coins {
        let (at, witness) = sign_coin(signer, key, &proposal.assembly, coin).await?;
        if let Some(input) = transaction.input.get_mut(at) {
            input.witness = witness;
        }
    }
    Ok(())
}

/// The witness of one of them, and which input it is for.
async fn sign_coin<S: Signer>(
    signer: &S,
    key: &KeyDescriptor,
    assembly: &Assembly,
    coin: &Coin,
) -> Result<(usize, Witness), NodeError> {
    let bad = |reason: &str| NodeError::BadAnswer { call: "sign_input", reason: reason.to_owned() };
    let at = assembly.transaction.input.iter().position(|input| input.previous_output == coin.outpoint);
    let at = at.ok_or_else(|| bad("the venue's own coin is not spent"))?;
    let auctioneer = AuctioneerKey::new(key.point);
    let script = witness_script(&coin.tweak, &auctioneer).map_err(|error| bad(&error.to_string()))?;
    let request = SignInput {
        transaction: assembly.transaction.clone(),
        input: at,
        prev_outputs: assembly.prev_outputs.clone(),
        key: *key,
        tweak: coin.tweak,
        spend: ScriptSpend::SegwitV0 { script: script.clone() },
    };
    let signature = signer.sign_input(&request).await?;
    let message =
        segwit_v0_sighash(&assembly.transaction, at, coin.value, &script).map_err(|error| bad(&error.to_string()))?;
    let point = tweaked(&coin.tweak, &auctioneer).map_err(|error| bad(&error.to_string()))?;
    let mut der = strict_der(&point, &message, &signature).ok_or_else(|| bad("an invalid signature"))?;
    der.push(SIGHASH_ALL);
    Ok((at, Witness::from_slice(&[der.as_slice(), script.as_bytes()])))
}

impl<E: VenueEnv> Actor<'_, E> {
    /// Our base key.
    pub(crate) fn auctioneer(&self) -> AuctioneerKey {
        AuctioneerKey::new(self.key.point)
    }

    /// The coins that the next batch spends for the venue.
    pub(crate) fn coins(&self) -> Vec<Coin> {
        let auctioneer = self.auctioneer();
        let deposits = self.deposited().map(|deposit| deposit.coin(&auctioneer));
        self.book.master.iter().map(|master| master.coin(&auctioneer)).chain(deposits).collect()
    }

    /// What they are worth.
    fn held(&self) -> Option<Sats> {
        Sats::checked_sum(self.coins().iter().map(|coin| coin.value))
    }

    /// What the operator wants of the next batch; a later wish replaces an earlier one.
    pub(crate) async fn set_wish(&mut self, wish: OperatorWish) -> Result<(), ServeError> {
        let found = wish.withdrawals.len();
        if found > MAX_WITHDRAWALS {
            return Err(ServeError::TooMany { what: "withdrawals", found, max: MAX_WITHDRAWALS });
        }
        if wish.withdrawals.iter().any(|output| output.value < output.script_pubkey.minimal_non_dust()) {
            return Err(ServeError::PrevOutputs("a withdrawal is below the dust limit"));
        }
        let mut wanted = wish.withdrawals.iter().map(|output| output.value.to_sat());
        let wanted = wanted.try_fold(0u64, |sum, value| sum.checked_add(value));
        let found = wanted.and_then(|wanted| Sats::new(wanted).ok()).unwrap_or(Sats::MAX);
        let held = self.held().unwrap_or(Sats::ZERO);
        if found > held {
            return Err(ServeError::WithdrawalTooLarge { found, held });
        }
        info!(withdrawals = found.get(), rate = wish.rate.map(SatPerKw::get), "wish of the operator");
        self.commit(vec![Write::Wish(wish)]).await?;
        Ok(())
    }

    /// A wish that can not be fulfilled is dropped, so that it does not keep the others from trading.
    pub(crate) async fn drop_wish(&mut self, reason: &str) -> Result<(), tidegate_ports::StoreError> {
        warn!(reason, "the operator's wish is dropped");
        self.commit(vec![Write::Wish(OperatorWish::default())]).await.map(drop)
    }

    /// An address of the node's wallet, when the next batch is to pay the income there. A node that is away is no reason
    /// against a batch.
    pub(crate) async fn prepare_sweep(&mut self) -> Result<(), Halt> {
        let due = self.sweep_value().is_some() && self.wallet_script.is_none();
        if !due {
            return Ok(());
        }
        let node = self.node.clone();
        match self.beside(node.new_address()).await? {
            Ok(script) => self.wallet_script = Some(script),
            Err(error) => warn!(%error, "the income stays where it is: the node's wallet gives no address"),
        }
        Ok(())
    }

    fn sweep_value(&self) -> Option<Sats> {
        let sweep = self.config.sweep?;
        let held = self.book.master.as_ref()?.value;
        let value = held.checked_sub(sweep.keep)?;
        (held > sweep.above && value >= Sats::constant(330)).then_some(value)
    }

    /// What the next batch pays from the venue's own coin: what the operator wants, else the income above the limit, the
    /// latter only along with a trade.
    pub(crate) fn withdrawals(&self, trades: bool) -> Vec<TxOut> {
        let wanted = self.book.wish.withdrawals.clone();
        if !wanted.is_empty() || !trades {
            return wanted;
        }
        let swept = self.sweep_value().zip(self.wallet_script.clone());
        swept.map(|(value, script_pubkey)| TxOut { value: value.into(), script_pubkey }).into_iter().collect()
    }

    /// Whether a batch is to be made although no two orders meet.
    pub(crate) fn wants_empty_batch(&self) -> bool {
        let wish = &self.book.wish;
        let bump = wish.rate.is_some() && self.book.batches.iter().any(|batch| !batch.confirmed);
        !self.coins().is_empty() && (bump || !wish.withdrawals.is_empty())
    }
}
