//! The on-chain wallet of a node: addresses, coin selection, signing.

use crate::chain::ChainState;
use crate::keys::{KeyRing, WalletPath, bip86_pair, secp};
use crate::node::{SandboxNode, refused};
use crate::snapshot::WalletCounters;
use bitcoin::absolute::LockTime;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::psbt::{Input, Psbt};
use bitcoin::secp256k1::Message;
use bitcoin::sighash::{EcdsaSighashType, Prevouts, SighashCache, TapSighashType};
use bitcoin::transaction::Version;
use bitcoin::{OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use std::collections::{BTreeMap, BTreeSet};
use tidegate_ports::{AddressKind, Bump, CoinLock, FundedPsbt, NodeError, Wallet, WalletTransaction};
use tidegate_protocol::units::{BlockHeight, SatPerKw, Sats};

/// Non-witness bytes of an input.
const INPUT_BYTES: u64 = 41;
/// Witness weight of a P2WPKH input with the largest signature.
const WITNESS_P2WPKH: u64 = 109;
/// Witness weight of a P2TR key spend.
const WITNESS_P2TR: u64 = 66;
/// Dust limit of a P2TR output: smaller change is left to the fee.
const CHANGE_DUST: Sats = Sats::constant(330);

/// Whose locks the wallet makes.
const LOCK_ID: [u8; 32] = [0xed; 32];
/// Blocks after which a coin that was kept is let go; real wallets count minutes.
const LOCK_BLOCKS: u32 = 2;
/// What a child that raises a fee adds besides its own fee: relay's price for replacing an earlier child.
const REPLACEMENT: SatPerKw = SatPerKw::new(250);

/// Addresses handed out, and what was sent.
#[derive(Debug, Default)]
pub(crate) struct WalletState {
    pub(crate) counters: WalletCounters,
    pub(crate) scripts: BTreeMap<ScriptBuf, WalletPath>,
    pub(crate) labels: BTreeMap<Txid, String>,
    /// Coins kept for a transaction that is not made yet, with the height at which they are let go.
    pub(crate) locks: BTreeMap<OutPoint, u32>,
    /// Output that a child of ours spends to raise the fee of its parent → that child.
    pub(crate) bumps: BTreeMap<OutPoint, Txid>,
}

/// A coin of the wallet.
#[derive(Clone)]
struct OwnCoin {
    outpoint: OutPoint,
    output: TxOut,
    path: WalletPath,
}

impl WalletState {
    /// Makes the key at `path` known, and counts it as used.
    pub(crate) fn reveal(&mut self, ring: &KeyRing, path: WalletPath) -> Option<ScriptBuf> {
        let script = ring.wallet_script(path)?;
        let counter = self.counters.of(path.taproot, path.change);
        *counter = (*counter).max(path.index.saturating_add(1));
        self.scripts.insert(script.clone(), path);
        Some(script)
    }

    /// A fresh address.
    pub(crate) fn fresh(&mut self, ring: &KeyRing, kind: AddressKind) -> Result<ScriptBuf, NodeError> {
        self.next(ring, WalletPath::is_taproot(kind), false)
    }

    fn next(&mut self, ring: &KeyRing, taproot: bool, change: bool) -> Result<ScriptBuf, NodeError> {
        let index = *self.counters.of(taproot, change);
        let revealed = self.reveal(ring, WalletPath { taproot, change, index });
        revealed.ok_or_else(|| refused("new_address", "no address is left"))
    }

    /// Confirmed, mature, unspent coins that are not kept; the largest first. What a transaction spends that the network
    /// lost stays spent, as in real wallets.
    fn coins(&self, chain: &ChainState) -> Vec<OwnCoin> {
        let lost: BTreeSet<OutPoint> =
            chain.lost().flat_map(|(_, lost)| &lost.input).map(|input| input.previous_output).collect();
        let unlocked = |outpoint: &OutPoint| self.locks.get(outpoint).is_none_or(|until| *until <= chain.height());
        let free = |outpoint: &OutPoint| unlocked(outpoint) && !lost.contains(outpoint);
        let mut coins: Vec<OwnCoin> = self
            .scripts
            .iter()
            .flat_map(|(script, path)| {
                chain.spendable(script).filter(|(outpoint, _)| free(outpoint)).map(|(outpoint, output)| OwnCoin {
                    outpoint,
                    output: output.clone(),
                    path: *path,
                })
            })
            .collect();
        coins.sort_by_key(|coin| (core::cmp::Reverse(coin.output.value), coin.outpoint));
        coins
    }

    /// Sum of the confirmed coins.
    fn balance(&self, chain: &ChainState) -> Option<Sats> {
        let values = self.coins(chain).into_iter().map(|coin| Sats::try_from(coin.output.value));
        Sats::checked_sum(values.collect::<Result<Vec<_>, _>>().ok()?)
    }

    /// Makes, signs and publishes a payment.
    pub(crate) fn send(
        &mut self,
        ring: &KeyRing,
        chain: &mut ChainState,
        outputs: &[TxOut],
        fee_rate: SatPerKw,
        label: &str,
    ) -> Result<Transaction, NodeError> {
        let call = "send_outputs";
        if outputs.is_empty() {
            return Err(refused(call, "there is nothing to pay"));
        }
        if fee_rate < SatPerKw::FLOOR {
            return Err(refused(call, format!("the fee rate of {fee_rate} is below the floor of {}", SatPerKw::FLOOR)));
        }
        let (coins, change) = select(self.coins(chain), outputs, fee_rate)?;
        let mut outputs = outputs.to_vec();
        if let Some(value) = change {
            let script_pubkey = self.next(ring, true, true)?;
            let place = change_place(&coins, outputs.len());
            outputs.insert(place, TxOut { value: value.into(), script_pubkey });
        }
        let transaction = signed(ring, &coins, outputs).ok_or_else(|| refused(call, "the coins can not be signed"))?;
        chain.accept(&transaction).map_err(|refusal| refused(call, refusal))?;
        self.labels.insert(transaction.compute_txid(), label.to_owned());
        Ok(transaction)
    }

    /// Coins and change for a template; the coins are kept.
    fn fund(
        &mut self,
        ring: &KeyRing,
        chain: &ChainState,
        template: &Psbt,
        rate: SatPerKw,
    ) -> Result<FundedPsbt, NodeError> {
        let call = "fund_psbt";
        let outputs = &template.unsigned_tx.output;
        if outputs.is_empty() || !template.unsigned_tx.input.is_empty() {
            return Err(refused(call, "a template has outputs and no inputs"));
        }
        let (coins, change) = select(self.coins(chain), outputs, rate)?;
        let mut unsigned =
            Transaction { input: coins.iter().map(unsigned_input).collect(), ..template.unsigned_tx.clone() };
        let mut place = None;
        if let Some(value) = change {
            let script_pubkey = self.next(ring, true, true)?;
            let at = change_place(&coins, outputs.len());
            unsigned.output.insert(at, TxOut { value: value.into(), script_pubkey });
            place = Some(at);
        }
        let mut psbt = Psbt::from_unsigned_tx(unsigned).map_err(|error| refused(call, error))?;
        for (input, coin) in psbt.inputs.iter_mut().zip(&coins) {
            *input = Input { witness_utxo: Some(coin.output.clone()), ..Input::default() };
        }
        let until = chain.height().saturating_add(LOCK_BLOCKS);
        self.locks.extend(coins.iter().map(|coin| (coin.outpoint, until)));
        let locks = coins.iter().map(|coin| CoinLock { id: LOCK_ID, outpoint: coin.outpoint }).collect();
        Ok(FundedPsbt { psbt, change: place, locks })
    }

    /// Signs our inputs; all others are final already.
    fn finalize(&self, ring: &KeyRing, psbt: &Psbt) -> Result<Transaction, NodeError> {
        let call = "finalize_psbt";
        let mut transaction = psbt.unsigned_tx.clone();
        let spent: Option<Vec<TxOut>> = psbt.inputs.iter().map(|input| input.witness_utxo.clone()).collect();
        let spent = spent.ok_or_else(|| refused(call, "an input is not described"))?;
        let mut witnesses = Vec::with_capacity(spent.len());
        for (index, (input, output)) in psbt.inputs.iter().zip(&spent).enumerate() {
            let ours = self.scripts.get(&output.script_pubkey);
            witnesses.push(match (&input.final_script_witness, ours) {
                (Some(witness), _) => witness.clone(),
                (None, Some(path)) => witness(ring, &transaction, &spent, index, *path)
                    .ok_or_else(|| refused(call, format!("input {index} can not be signed")))?,
                (None, None) => return Err(refused(call, format!("input {index} is neither ours nor final"))),
            });
        }
        for (input, witness) in transaction.input.iter_mut().zip(witnesses) {
            input.witness = witness;
        }
        Ok(transaction)
    }

    /// A child that pays for its parent: alone it pays enough that both together reach the fee rate.
    fn bump(
        &mut self,
        ring: &KeyRing,
        chain: &mut ChainState,
        outpoint: OutPoint,
        rate: SatPerKw,
    ) -> Result<Bump, NodeError> {
        let call = "bump_fee";
        let Some(output) = chain.coin(&outpoint).map(|coin| coin.output.clone()) else { return Ok(Bump::NotOurs) };
        let Some(path) = self.scripts.get(&output.script_pubkey).copied() else { return Ok(Bump::NotOurs) };
        let parent = chain.transaction(&outpoint.txid).filter(|(_, height)| height.is_none());
        let parent = parent.map(|(transaction, _)| transaction.weight().to_wu());
        let parent = parent.ok_or_else(|| refused(call, "the transaction is confirmed"))?;
        let coin = OwnCoin { outpoint, output, path };
        let script_pubkey = self.next(ring, true, true)?;
        let too_much = || refused(call, "the output does not pay for such a fee");
        let own = weight(std::slice::from_ref(&coin), &[], true);
        let earlier = self.bumps.get(&outpoint).map_or(0, |_| own);
        let fee = rate.fee_floor(parent.saturating_add(own)).map_err(|_| too_much())?;
        let fee = fee.checked_add(REPLACEMENT.fee_floor(earlier).map_err(|_| too_much())?).ok_or_else(too_much)?;
        let value = Sats::try_from(coin.output.value).ok().and_then(|value| value.checked_sub(fee));
        let value = value.filter(|value| *value >= CHANGE_DUST).ok_or_else(too_much)?;
        let child = signed(ring, &[coin], vec![TxOut { value: value.into(), script_pubkey }]);
        let child = child.ok_or_else(|| refused(call, "the output can not be signed"))?;
        if let Some(earlier) = self.bumps.get(&outpoint) {
            chain.evict(earlier);
        }
        chain.accept(&child).map_err(|refusal| refused(call, refusal))?;
        self.bumps.insert(outpoint, child.compute_txid());
        Ok(Bump::Bumped)
    }

    /// Pays a coin of the wallet back to it, whatever else spends or keeps it: what the owner does with another program.
    pub(crate) fn spend_alone(
        &mut self,
        ring: &KeyRing,
        chain: &mut ChainState,
        outpoint: OutPoint,
        rate: SatPerKw,
    ) -> Option<Transaction> {
        let output = chain.coin(&outpoint)?.output.clone();
        let path = *self.scripts.get(&output.script_pubkey)?;
        let coin = OwnCoin { outpoint, output, path };
        let fee = rate.fee_floor(weight(core::slice::from_ref(&coin), &[], true)).ok()?;
        let value = Sats::try_from(coin.output.value).ok()?.checked_sub(fee).filter(|value| *value >= CHANGE_DUST)?;
        let script_pubkey = self.next(ring, true, true).ok()?;
        let transaction = signed(ring, &[coin], vec![TxOut { value: value.into(), script_pubkey }])?;
        chain.accept(&transaction).ok().map(|_| transaction)
    }

    /// Every transaction that touches the wallet, or that it published.
    fn transactions(&self, chain: &ChainState) -> Vec<WalletTransaction> {
        // A world has no time: its blocks are ten minutes apart.
        let seen_s = |height: Option<u32>| u64::from(height.unwrap_or_else(|| chain.height())) * 600;
        let lost = chain.lost().map(|(txid, transaction)| (txid, transaction, None));
        let own = chain
            .transactions()
            .chain(lost)
            .filter(|(txid, transaction, _)| self.labels.contains_key(*txid) || self.touches(chain, transaction));
        own.map(|(txid, transaction, height)| WalletTransaction {
            transaction: transaction.clone(),
            label: self.labels.get(txid).cloned().unwrap_or_default(),
            height: height.map(BlockHeight::new),
            seen_s: seen_s(height),
        })
        .collect()
    }

    /// A transaction that touches the wallet and pays exactly `output`; of several the first that arrived, those that
    /// the network lost last.
    fn find_payment(&self, chain: &ChainState, output: &TxOut) -> Option<(Transaction, OutPoint)> {
        let known = chain.paid_to(&output.script_pubkey).iter().find_map(|outpoint| {
            let (transaction, _) = chain.transaction(&outpoint.txid)?;
            let exact = chain.coin(outpoint)?.output.value == output.value;
            (exact && self.touches(chain, transaction)).then(|| (transaction.clone(), *outpoint))
        });
        let lost = || {
            chain.lost().filter(|(_, lost)| self.touches(chain, lost)).find_map(|(txid, lost)| {
                let (vout, _) = (0_u32..).zip(&lost.output).find(|(_, paid)| *paid == output)?;
                Some((lost.clone(), OutPoint { txid: *txid, vout }))
            })
        };
        known.or_else(lost)
    }

    fn touches(&self, chain: &ChainState, transaction: &Transaction) -> bool {
        let ours = |output: &TxOut| self.scripts.contains_key(&output.script_pubkey);
        transaction.output.iter().any(ours)
            || transaction
                .input
                .iter()
                .any(|input| chain.coin(&input.previous_output).is_some_and(|coin| ours(coin.output)))
    }
}

/// Takes coins, largest first, until they pay outputs and fee. Returns them with the change, unless it would be dust.
fn select(
    candidates: Vec<OwnCoin>,
    outputs: &[TxOut],
    fee_rate: SatPerKw,
) -> Result<(Vec<OwnCoin>, Option<Sats>), NodeError> {
    let too_much = || refused("send_outputs", "the amounts are more than 21 million bitcoin");
    let amount = |output: &TxOut| Sats::try_from(output.value).map_err(|_| too_much());
    let values: Vec<Sats> = outputs.iter().map(amount).collect::<Result<_, _>>()?;
    let target = Sats::checked_sum(values).ok_or_else(too_much)?;
    let mut coins: Vec<OwnCoin> = Vec::new();
    let mut total = Sats::ZERO;
    for coin in candidates {
        total = total.checked_add(amount(&coin.output)?).ok_or_else(too_much)?;
        coins.push(coin);
        let fee = |change: bool| fee_rate.fee_floor(weight(&coins, outputs, change)).map_err(|_| too_much());
        let left = |fee: Sats| total.checked_sub(target).and_then(|rest| rest.checked_sub(fee));
        if left(fee(false)?).is_some() {
            let change = left(fee(true)?).filter(|change| *change >= CHANGE_DUST);
            return Ok((coins, change));
        }
    }
    Err(NodeError::InsufficientFunds { reason: format!("{target} and fees are needed, {total} are confirmed") })
}

/// Estimated weight: largest signatures, and one more P2TR output when there is change.
fn weight(coins: &[OwnCoin], outputs: &[TxOut], change: bool) -> u64 {
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let size = |number: u64| if number < 0xfd { 1 } else { 3 };
    let inputs = count(coins.len());
    let made = count(outputs.len()).saturating_add(u64::from(change));
    let output_bytes: u64 =
        outputs.iter().map(|output| count(output.size())).sum::<u64>() + if change { 43 } else { 0 };
    let witnesses: u64 = coins.iter().map(|coin| if coin.path.taproot { WITNESS_P2TR } else { WITNESS_P2WPKH }).sum();
    4 * (8 + size(inputs) + inputs * INPUT_BYTES + size(made) + output_bytes) + 2 + witnesses
}

/// Where the change goes: anywhere, as in real wallets, but the same for the same coins.
fn change_place(coins: &[OwnCoin], outputs: usize) -> usize {
    let seed: Vec<u8> = coins.iter().flat_map(|coin| coin.outpoint.txid.to_byte_array()).collect();
    let digest = sha256::Hash::hash(&seed).to_byte_array();
    usize::from(digest[0]) % outputs.saturating_add(1)
}

fn unsigned_input(coin: &OwnCoin) -> TxIn {
    TxIn {
        previous_output: coin.outpoint,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::new(),
    }
}

/// The transaction that spends all coins to the outputs, with witnesses.
fn signed(ring: &KeyRing, coins: &[OwnCoin], outputs: Vec<TxOut>) -> Option<Transaction> {
    let mut transaction = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: coins.iter().map(unsigned_input).collect(),
        output: outputs,
    };
    let spent: Vec<TxOut> = coins.iter().map(|coin| coin.output.clone()).collect();
    let witnesses = coins.iter().enumerate().map(|(index, coin)| witness(ring, &transaction, &spent, index, coin.path));
    let witnesses: Vec<Witness> = witnesses.collect::<Option<_>>()?;
    for (input, witness) in transaction.input.iter_mut().zip(witnesses) {
        input.witness = witness;
    }
    Some(transaction)
}

/// The witness of one input that spends an output of the wallet.
fn witness(
    ring: &KeyRing,
    transaction: &Transaction,
    spent: &[TxOut],
    index: usize,
    path: WalletPath,
) -> Option<Witness> {
    let (secret, output) = (ring.wallet_key(path)?, spent.get(index)?);
    let mut cache = SighashCache::new(transaction);
    Some(if path.taproot {
        let hash =
            cache.taproot_key_spend_signature_hash(index, &Prevouts::All(spent), TapSighashType::Default).ok()?;
        let pair = bip86_pair(&secret).to_keypair();
        let signature = secp().sign_schnorr_no_aux_rand(&Message::from(hash), &pair);
        Witness::p2tr_key_spend(&bitcoin::taproot::Signature { signature, sighash_type: TapSighashType::Default })
    } else {
        let script = &output.script_pubkey;
        let hash = cache.p2wpkh_signature_hash(index, script, output.value, EcdsaSighashType::All).ok()?;
        let signature = secp().sign_ecdsa_low_r(&Message::from(hash), &secret);
        let signature = bitcoin::ecdsa::Signature { signature, sighash_type: EcdsaSighashType::All };
        Witness::p2wpkh(&signature, &secret.public_key(secp()))
    })
}

/// Whole satoshi per virtual byte as sat/kW: four weight units are a virtual byte.
fn per_kw(sat_per_vbyte: u64) -> SatPerKw {
    SatPerKw::new(sat_per_vbyte.saturating_mul(250))
}

impl Wallet for SandboxNode {
    async fn send_outputs(&self, outputs: &[TxOut], fee_rate: SatPerKw, label: &str) -> Result<Transaction, NodeError> {
        self.world().change(|state| {
            let (node, chain) = state.node_and_chain(&self.id());
            node.wallet.send(&node.ring, chain, outputs, fee_rate, label)
        })
    }

    async fn find_payment(&self, output: &TxOut) -> Result<Option<(Transaction, OutPoint)>, NodeError> {
        Ok(self.read(|node, chain| node.wallet.find_payment(chain, output)))
    }

    async fn new_address(&self, kind: AddressKind) -> Result<ScriptBuf, NodeError> {
        self.change(|node, _| node.wallet.fresh(&node.ring, kind))
    }

    async fn confirmed_balance(&self) -> Result<Sats, NodeError> {
        let balance = self.read(|node, chain| node.wallet.balance(chain));
        balance.ok_or_else(|| NodeError::BadAnswer {
            call: "confirmed_balance",
            reason: "the coins are worth more than 21 million bitcoin".to_owned(),
        })
    }

    async fn publish(&self, transaction: &Transaction, label: &str) -> Result<(), NodeError> {
        self.world().change(|state| {
            let (node, chain) = state.node_and_chain(&self.id());
            chain.accept(transaction).map_err(|refusal| refused("publish", refusal))?;
            node.wallet.labels.entry(transaction.compute_txid()).or_insert_with(|| label.to_owned());
            Ok(())
        })
    }

    async fn estimate_fee(&self, conf_target: u32) -> Result<SatPerKw, NodeError> {
        if conf_target == 0 {
            return Err(refused("estimate_fee", "the confirmation target is 0"));
        }
        Ok(self.world().fee_rate())
    }

    async fn estimate_payment(&self, output: &TxOut, conf_target: u32) -> Result<Sats, NodeError> {
        let rate = self.estimate_fee(conf_target).await?;
        self.read(|node, chain| {
            let outputs = std::slice::from_ref(output);
            let (coins, change) = select(node.wallet.coins(chain), outputs, rate)?;
            let fee = rate.fee_floor(weight(&coins, outputs, change.is_some()));
            fee.map_err(|error| refused("estimate_payment", error))
        })
    }

    async fn fund_psbt(&self, template: &Psbt, sat_per_vbyte: u64) -> Result<FundedPsbt, NodeError> {
        if sat_per_vbyte == 0 {
            return Err(refused("fund_psbt", "the fee rate is 0"));
        }
        self.change(|node, chain| node.wallet.fund(&node.ring, chain, template, per_kw(sat_per_vbyte)))
    }

    async fn release(&self, lock: &CoinLock) -> Result<(), NodeError> {
        self.change(|node, _| {
            if lock.id == LOCK_ID {
                node.wallet.locks.remove(&lock.outpoint);
            }
            Ok(())
        })
    }

    async fn finalize_psbt(&self, psbt: &Psbt) -> Result<Transaction, NodeError> {
        self.read(|node, _| node.wallet.finalize(&node.ring, psbt))
    }

    async fn bump_fee(&self, outpoint: OutPoint, sat_per_vbyte: u64) -> Result<Bump, NodeError> {
        self.world().change(|state| {
            let (node, chain) = state.node_and_chain(&self.id());
            node.wallet.bump(&node.ring, chain, outpoint, per_kw(sat_per_vbyte))
        })
    }

    async fn wallet_transactions(&self) -> Result<Vec<WalletTransaction>, NodeError> {
        Ok(self.read(|node, chain| node.wallet.transactions(chain)))
    }
}
