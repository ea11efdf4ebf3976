//! The chain has the last word: every spend of an account is verified, explained and booked.
//!
//! # Source
//! Protocol notes, scripts §2–§4, accounts §3.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::secp256k1::XOnlyPublicKey;
use bitcoin::taproot::ControlBlock;
use bitcoin::{OutPoint, ScriptBuf, Transaction, TxOut, Txid};

use crate::Auditor;
use crate::finding::{Caller, Party, Problems, Rule};
use crate::keys::curve;
use crate::script::{legacy_keys, taproot_key};
use crate::signature::{Verdict, der_all, key_sighash, leaf_sighash, legacy_sighash, schnorr};
use crate::state::{Account, BatchRecord, Key, Modification, Output, Proposal};
use crate::wire::hexed;

/// How an account output was spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    Cooperative,
    Expiry,
}

impl Auditor {
    /// A transaction of the chain or of a mempool, parents before children. Saying it again does no harm.
    pub fn transaction(&mut self, tx: &Transaction) {
        let txid = tx.compute_txid();
        if !self.seen.insert(txid) {
            return;
        }
        self.counts.transactions += 1;
        let spends: Vec<(usize, Key, Output)> = self.account_inputs(tx);
        let spent = self.spent_by(tx, txid);
        for (at, key, before) in spends {
            self.spend(tx, txid, at, key, &before, spent.as_deref());
        }
        for (vout, output) in (0_u32..).zip(&tx.output) {
            self.coins.insert(OutPoint { txid, vout }, output.clone());
        }
        self.batch_on_chain(txid);
    }

    fn account_inputs(&self, tx: &Transaction) -> Vec<(usize, Key, Output)> {
        let inputs = tx.input.iter().enumerate();
        inputs
            .filter_map(|(at, input)| {
                let mut accounts = self.accounts.iter();
                accounts.find_map(|(key, account)| Some((at, *key, account.output(&input.previous_output)?.clone())))
            })
            .collect()
    }

    /// The outputs that a transaction spends: from the chain, else as they were told.
    fn spent_by(&self, tx: &Transaction, txid: Txid) -> Option<Vec<TxOut>> {
        let told = self.batches.get(&txid).and_then(|record| record.spent.as_deref());
        let told = told.or_else(|| self.modification_of(tx).map(|modification| modification.spent.as_slice()));
        let inputs = tx.input.iter().enumerate();
        inputs
            .map(|(at, input)| {
                let own = || {
                    let accounts = self.accounts.values();
                    let output = accounts.flat_map(|account| account.output(&input.previous_output)).next()?;
                    let value = bitcoin::Amount::from_sat(output.value_sat);
                    Some(TxOut { value, script_pubkey: output.script.clone() })
                };
                let coin = self.coins.get(&input.previous_output).cloned();
                coin.or_else(|| told.and_then(|told| told.get(at)).cloned()).or_else(own)
            })
            .collect()
    }

    /// The modification that this transaction carries out.
    fn modification_of(&self, tx: &Transaction) -> Option<&Modification> {
        let inputs: BTreeSet<OutPoint> = tx.input.iter().map(|input| input.previous_output).collect();
        self.modifications.iter().rev().find(|modification| {
            inputs.contains(&modification.spends)
                && inputs == modification.inputs
                && match &modification.tx {
                    Some(known) => known.compute_txid() == tx.compute_txid(),
                    None => rest(tx, modification).is_some(),
                }
        })
    }

    fn spend(&mut self, tx: &Transaction, txid: Txid, at: usize, key: Key, before: &Output, spent: Option<&[TxOut]>) {
        let Some(account) = self.accounts.get(&key).cloned() else { return };
        let subject = format!("account {}, spent by {txid}", hexed(&key));
        let (path, verdict) = witness(tx, at, &account, before, spent);
        match verdict {
            Verdict::Unjudged => self.counts.witnesses_unjudged += 1,
            _ if self.judge(Party::Chain, None, Rule::Witness, &subject, &verdict) => {
                self.counts.witnesses_verified += 1;
            }
            _ => {}
        }
        let mut problems = Problems::default();
        let view = self.batches.get(&txid).and_then(|record| record.views.get(&account.owner)).cloned();
        let modification = self.modification_of(tx).filter(|one| one.account == key).cloned();
        match (path, view, modification) {
            (Path::Expiry, ..) => self.close(&key),
            (Path::Cooperative, Some(view), _) => self.batch_spend(tx, &account, &key, &view, &mut problems),
            (Path::Cooperative, None, Some(modification)) => {
                let spends = self.spends.get(&modification.spends).into_iter().flatten();
                let given_up = spends.into_iter().any(|spend| spend.txid == Some(txid) && spend.superseded);
                problems.demand(!given_up, Rule::DoubleSigned, &subject, "one spend", &"one that was given up before");
                self.modification_spend(tx, txid, &modification);
            }
            (Path::Cooperative, None, None) => {
                problems.add(Rule::AgreedSpend, &subject, "a batch or modification", &"neither");
            }
        }
        self.report(Party::Chain, None, problems);
    }

    fn close(&mut self, key: &Key) {
        if let Some(account) = self.accounts.get_mut(key) {
            account.current = None;
        }
    }

    fn batch_spend(
        &mut self,
        tx: &Transaction,
        account: &Account,
        key: &Key,
        view: &Proposal,
        problems: &mut Problems,
    ) {
        let subject = format!("account {}, batch {}", hexed(key), hexed(&view.common.id));
        problems.demand(view.signed, Rule::AgreedSpend, &subject, "a batch that was signed", &"one that was not");
        problems.demand(view.breaches == 0, Rule::AgreedSpend, &subject, "a batch without breach", &view.breaches);
        // The signature in the witness is the one that left.
        let sent = self.batches.get(&view.txid).and_then(|record| record.signatures.get(key));
        let line = view.lines.iter().find(|line| line.key == *key);
        if let (Some(sent), Some(line)) = (sent, line)
            && line.before.version == 0
        {
            let used = tx.input.get(line.input).and_then(|input| input.witness.nth(1)).and_then(|sig| sig.split_last());
            let same = used.is_some_and(|(_, signature)| signature == sent.as_slice());
            problems.demand(same, Rule::Witness, &subject, "the signature that left", &"another");
        }
        self.settle(&account.owner, view.txid);
    }

    fn modification_spend(&mut self, tx: &Transaction, txid: Txid, modification: &Modification) {
        let Some(account) = self.accounts.get_mut(&modification.account) else { return };
        let Some((value_sat, expiry, version, batch_key)) = modification.recreated else {
            account.current = None;
            return;
        };
        let script = account.scripts(version, &batch_key, expiry).map(|scripts| scripts.output);
        let vout = match script {
            Some(script) => (0_u32..).zip(&tx.output).find(|(_, output)| output.script_pubkey == script),
            None => rest(tx, modification),
        };
        if let Some((vout, output)) = vout {
            let script = output.script_pubkey.clone();
            let outpoint = OutPoint { txid, vout };
            account.current = Some(outpoint);
            account.learn(Output { outpoint, value_sat, script, expiry, version, batch_key });
        }
    }

    /// Once a batch is on the chain, what its traders lost must be what its channels, the venue and the miners got.
    fn batch_on_chain(&mut self, txid: Txid) {
        let Some(record) = self.batches.get_mut(&txid).filter(|record| !record.conserved) else { return };
        record.conserved = true;
        let mut problems = Problems::default();
        let id = format!("batch {}", hexed(&record.common.id));
        let signed: Vec<&Proposal> = record.views.values().filter(|view| view.signed).collect();
        for pair in signed.windows(2) {
            problems.equal(Rule::OneBatch, &id, &pair[0].common.terms(), &pair[1].common.terms());
        }
        let channels: BTreeMap<u32, u64> =
            matches(record).filter_map(|line| Some((line.vout?, line.capacity_sat))).collect();
        self.counts.channels += u64::try_from(channels.len()).unwrap_or(u64::MAX);
        let mut sides: BTreeMap<([u8; 32], [u8; 32]), BTreeSet<&Caller>> = BTreeMap::new();
        for (caller, view) in &record.views {
            for line in &view.matches {
                sides.entry((line.ask, line.bid)).or_default().insert(caller);
            }
        }
        if !sides.values().all(|callers| callers.len() == 2) {
            return self.report(Party::Venue, None, problems);
        }
        let lines = record.views.values().flat_map(|view| &view.lines);
        let mut sum: i128 = channels.values().map(|capacity| i128::from(*capacity)).sum();
        for line in lines {
            sum += i128::from(line.ending_sat) - i128::from(line.before.value_sat) + i128::from(line.chain_fee_sat);
        }
        sum += matches(record).map(|line| i128::from(line.fee_sat)).sum::<i128>();
        problems.equal(Rule::Conservation, &id, &0, &sum);
        if sum == 0 {
            self.counts.batches_conserved += 1;
        }
        self.report(Party::Venue, None, problems);
    }
}

fn matches(record: &BatchRecord) -> impl Iterator<Item = &crate::state::MatchLine> {
    record.views.values().flat_map(|view| &view.matches)
}

/// The one output beside those that a modification names, if its value fits.
fn rest<'a>(tx: &'a Transaction, modification: &Modification) -> Option<(u32, &'a TxOut)> {
    let mut named = modification.outputs.clone();
    let mut others = (0_u32..).zip(&tx.output).filter(|(_, output)| {
        let known = named.iter().position(|one| one == *output);
        known.map(|at| named.swap_remove(at)).is_none()
    });
    let (first, second) = (others.next(), others.next());
    let value = modification.recreated.map(|(value, ..)| value);
    first.filter(|(_, output)| second.is_none() && value == Some(output.value.to_sat()))
}

/// Recognises and verifies the witness of an account's input.
fn witness(
    tx: &Transaction,
    at: usize,
    account: &Account,
    before: &Output,
    spent: Option<&[TxOut]>,
) -> (Path, Verdict) {
    let stack: Vec<&[u8]> = tx.input.get(at).map(|input| input.witness.iter().collect()).unwrap_or_default();
    let scripts = account.scripts_of(before);
    let wrong = |reason| (Path::Cooperative, Verdict::Invalid(reason));
    if before.version == 0 {
        let [first, signature, script] = stack.as_slice() else { return wrong("not three elements") };
        let script = ScriptBuf::from_bytes(script.to_vec());
        if script.to_p2wsh() != before.script || scripts.is_some_and(|scripts| scripts.script != script) {
            return wrong("another witness script");
        }
        let Some((trader, auctioneer)) = legacy_keys(&script) else { return wrong("no account script") };
        let Some(sighash) = legacy_sighash(tx, at, &script, before.value_sat) else { return wrong("no such input") };
        let own = der_all(&trader, sighash, signature);
        if first.is_empty() {
            return (Path::Expiry, if expired(tx, before) { own } else { Verdict::Invalid("before its expiry") });
        }
        let theirs = der_all(&auctioneer, sighash, first);
        return (Path::Cooperative, if own == Verdict::Valid { theirs } else { own });
    }
    let Some(key) = taproot_key(&before.script) else { return wrong("no taproot output") };
    let Some(spent) = spent else {
        let path = if stack.len() == 1 { Path::Cooperative } else { Path::Expiry };
        return (path, Verdict::Unjudged);
    };
    match stack.as_slice() {
        [signature] => match key_sighash(tx, at, spent) {
            Some(sighash) => (Path::Cooperative, schnorr(&key, sighash, signature)),
            None => wrong("no sighash"),
        },
        [signature, leaf, control] => {
            let leaf = ScriptBuf::from_bytes(leaf.to_vec());
            if scripts.is_some_and(|scripts| scripts.script != leaf) || !commits(&key, &leaf, control) {
                return (Path::Expiry, Verdict::Invalid("another leaf"));
            }
            let trader = leaf.as_bytes().get(1..33).and_then(|key| XOnlyPublicKey::from_slice(key).ok());
            let verdict = match trader.zip(leaf_sighash(tx, at, spent, &leaf)) {
                Some((trader, sighash)) if expired(tx, before) => schnorr(&trader, sighash, signature),
                _ => Verdict::Invalid("before its expiry, or no account leaf"),
            };
            (Path::Expiry, verdict)
        }
        _ => wrong("neither key spend nor expiry"),
    }
}

fn expired(tx: &Transaction, before: &Output) -> bool {
    let height = tx.lock_time.to_consensus_u32();
    tx.lock_time.is_block_height() && height >= before.expiry
}

/// Whether an output key commits to a leaf.
fn commits(key: &XOnlyPublicKey, leaf: &ScriptBuf, control: &[u8]) -> bool {
    ControlBlock::decode(control).is_ok_and(|control| control.verify_taproot_commitment(curve(), *key, leaf))
}
