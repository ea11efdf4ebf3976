//! Account modifications: the venue signs what the trader asks for.
//!
//! # Source
//! Protocol notes, accounts §6 and §7, scripts §6.

use std::collections::BTreeSet;

use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};

use crate::account::outpoint;
use crate::batch::bip69_sort;
use crate::finding::{Caller, Party, Problems, Rule};
use crate::keys::{next_batch_key, sha};
use crate::script::{draft, taproot_key};
use crate::signature::{Partial, Verdict, der_all, key_sighash, legacy_sighash, points};
use crate::state::{Account, Modification, Output, Reason, Spend};
use crate::wire::{decode, hexed, key, rpc};
use crate::{Auditor, CallId};

/// Smallest value of an account that goes on.
const MIN_ACCOUNT_SAT: u64 = 100_000;
/// Smallest fee rate; weight without the witnesses is a lower bound of the weight.
const MIN_FEE_SAT_PER_KW: u128 = 253;

impl Auditor {
    /// The answer to a modification: the venue's signature leaves, if there is one.
    pub(crate) fn modified(&mut self, id: CallId, caller: &Caller, request: &[u8], response: Option<&[u8]>) {
        let asked = sha(&[request]);
        let Ok(request) = decode::<rpc::ServerModifyAccountRequest>(request) else {
            return self.breach(Party::Trader, caller, Rule::Decoding, &"modification", ("a message", &"other bytes"));
        };
        let subject = format!("account {}", hexed(&request.trader_key));
        let mut problems = Problems::default();
        // A nonce belongs to one request, answered or not; the wire may carry that twice.
        self.nonces.shown(&request.trader_nonces, &[b"modification", &asked], &mut problems, &subject);
        let account = key(&request.trader_key).and_then(|key| self.accounts.get(&key)).cloned();
        let before = account.as_ref().and_then(|account| spent(account, &request)).cloned();
        let Some(response) = response else {
            // Nothing was signed. Who does not know yet that its account was spent may ask.
            return self.report(Party::Trader, Some(caller), problems);
        };
        let Some((account, before)) = account.zip(before) else {
            problems.add(Rule::Modification, &subject, "an open account", &"none that was seen");
            return self.report(Party::Trader, Some(caller), problems);
        };
        problems.equal(Rule::Modification, &subject, &account.owner, caller);
        let Ok(response) = decode::<rpc::ServerModifyAccountResponse>(response) else {
            return self.breach(Party::Venue, caller, Rule::Decoding, &subject, ("a message", &"other bytes"));
        };
        let Some(modification) = build(&account, &before, &request, &mut problems, &subject) else {
            return self.report(Party::Trader, Some(caller), problems);
        };
        self.counts.modifications += 1;
        self.report(Party::Trader, Some(caller), problems);
        self.venue_signature(id, caller, &account, &before, &modification, (&request, &response));
        self.commit_modification(caller, &before, modification);
    }

    fn venue_signature(
        &mut self,
        id: CallId,
        caller: &Caller,
        account: &Account,
        before: &Output,
        modification: &Modification,
        (request, response): (&rpc::ServerModifyAccountRequest, &rpc::ServerModifyAccountResponse),
    ) {
        let subject = format!("account {}", account.key);
        let (verdict, sighash) = judge(account, before, modification, request, response);
        if self.judge(Party::Venue, Some(caller), Rule::AccountSignature, &subject, &verdict) {
            self.counts.modifications_verified += 1;
        }
        if before.version == 0 {
            return;
        }
        let session = sighash.map_or_else(|| id.0.to_be_bytes().to_vec(), |sighash| sighash.to_vec());
        let (own, theirs) = (&request.trader_nonces, &response.server_nonces);
        let mut problems = Problems::default();
        self.nonces.shown(theirs, &[b"venue", &session, own], &mut problems, &subject);
        self.report(Party::Venue, Some(caller), problems);
    }

    /// Notes the spend, and the output that it will make.
    fn commit_modification(&mut self, caller: &Caller, before: &Output, modification: Modification) {
        let txid = modification.tx.as_ref().map(Transaction::compute_txid);
        let mut problems = Problems::default();
        let subject = format!("account {}", hexed(&modification.account));
        let spends = self.spends.entry(before.outpoint).or_default();
        for spend in spends.iter_mut().filter(|spend| !spend.superseded && (spend.txid != txid || txid.is_none())) {
            match &spend.reason {
                Reason::Modification => {
                    spend.superseded = true;
                    self.counts.modifications_replaced += 1;
                }
                Reason::Batch { caller, .. } => {
                    let record = spend.txid.and_then(|txid| self.batches.get(&txid));
                    let settled = record.and_then(|record| record.views.get(caller)).is_some_and(|view| view.settled);
                    if settled {
                        problems.add(Rule::DoubleSigned, &subject, "one spend", &"a final batch and a modification");
                    } else {
                        spend.superseded = true;
                        self.counts.superseded += 1;
                    }
                }
            }
        }
        spends.push(Spend { txid, reason: Reason::Modification, superseded: false });
        // The venue's half is out, the trader's is not: the account is what it was until the chain, or what is built on
        // the new output, says otherwise.
        let account = self.accounts.get_mut(&modification.account);
        if let (Some(account), Some(tx)) = (account, &modification.tx) {
            let after = modification.recreated.and_then(|recreated| output(account, tx, recreated));
            after.into_iter().for_each(|output| account.learn(output));
        }
        self.modifications.push(modification);
        self.report(Party::Venue, Some(caller), problems);
    }
}

/// The output that a modification spends: the newest of those that it shows, else the current one. A closed account has
/// none.
fn spent<'a>(account: &'a Account, request: &rpc::ServerModifyAccountRequest) -> Option<&'a Output> {
    let current = account.current()?;
    let shown = |output: &&Output| {
        let same = |one: &rpc::TxOut| one.value == output.value_sat && one.pk_script == output.script.as_bytes();
        request.prev_outputs.iter().any(same)
    };
    account.outputs.iter().rev().find(shown).or(Some(current))
}

/// The new account output in the transaction of a modification.
fn output(
    account: &Account,
    tx: &Transaction,
    (value_sat, expiry, version, batch_key): (u64, u32, u32, bitcoin::secp256k1::PublicKey),
) -> Option<Output> {
    let script = account.scripts(version, &batch_key, expiry)?.output;
    let mut outputs = (0_u32..).zip(&tx.output);
    let (vout, _) = outputs.find(|(_, output)| output.script_pubkey == script && output.value.to_sat() == value_sat)?;
    let outpoint = OutPoint { txid: tx.compute_txid(), vout };
    Some(Output { outpoint, value_sat, script, expiry, version, batch_key })
}

/// The modification as the venue has to build it. Its transaction is known unless an output is recreated whose script
/// depends on a secret that nobody told.
fn build(
    account: &Account,
    before: &Output,
    request: &rpc::ServerModifyAccountRequest,
    problems: &mut Problems,
    subject: &str,
) -> Option<Modification> {
    let sorted = |outpoint: OutPoint, script_sig: ScriptBuf| TxIn {
        previous_output: outpoint,
        script_sig,
        sequence: Sequence::ZERO,
        witness: Witness::new(),
    };
    let mut tx =
        Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: Vec::new(), output: Vec::new() };
    tx.input.push(sorted(before.outpoint, ScriptBuf::new()));
    for input in &request.new_inputs {
        let Some(outpoint) = input.outpoint.as_ref().and_then(outpoint) else {
            problems.add(Rule::Decoding, &subject, "outpoints", &"other bytes");
            return None;
        };
        tx.input.push(sorted(outpoint, ScriptBuf::from_bytes(input.sig_script.clone())));
    }
    let txout = |value: u64, script: &[u8]| TxOut {
        value: Amount::from_sat(value),
        script_pubkey: ScriptBuf::from_bytes(script.to_vec()),
    };
    tx.output = request.new_outputs.iter().map(|output| txout(output.value, &output.script)).collect();
    let outputs = tx.output.clone();
    let recreated = match &request.new_params {
        None => None,
        Some(new) => {
            let expiry = if new.expiry == 0 { before.expiry } else { new.expiry };
            let value = if new.value == 0 { before.value_sat } else { new.value };
            let batch_key = next_batch_key(&before.batch_key)?;
            let rule = Rule::Modification;
            problems.demand(new.version <= 2, rule, subject, "version 0, 1 or 2", &new.version);
            let least = format!("at least {MIN_ACCOUNT_SAT} sat");
            problems.demand(value >= MIN_ACCOUNT_SAT, rule, subject, &least, &value);
            Some((value, expiry, new.version.max(before.version), batch_key))
        }
    };
    let mut known = true;
    if let Some((value_sat, expiry, version, batch_key)) = recreated {
        match account.scripts(version, &batch_key, expiry) {
            Some(scripts) => tx.output.push(txout(value_sat, scripts.output.as_bytes())),
            None => known = false,
        }
    }
    problems.demand(!tx.output.is_empty() || !known, Rule::Modification, subject, "an output", &"none");
    bip69_sort(&mut tx);
    let spent: Vec<TxOut> = request.prev_outputs.iter().map(|output| txout(output.value, &output.pk_script)).collect();
    let at = tx.input.iter().position(|input| input.previous_output == before.outpoint)?;
    if !spent.is_empty() {
        let found = spent.get(at).map(|output| (output.value.to_sat(), output.script_pubkey.clone()));
        problems.equal(Rule::PreviousOutputs, subject, &Some((before.value_sat, before.script.clone())), &found);
        problems.equal(Rule::PreviousOutputs, subject, &tx.input.len(), &spent.len());
        let sum = |outputs: &[TxOut]| outputs.iter().map(|output| u128::from(output.value.to_sat())).sum::<u128>();
        let made = sum(&outputs) + recreated.map_or(0, |(value, ..)| u128::from(value));
        let paid = sum(&spent);
        problems.demand(made <= paid, Rule::Conservation, subject, &format!("at most {paid} sat"), &made);
        if request.new_inputs.is_empty() && made <= paid {
            // Nothing but the account pays: it bears the fee, which the network relays.
            let size = u128::from(tx.weight().to_wu());
            let fee = paid.saturating_sub(made) * 1_000;
            let least = size.saturating_mul(MIN_FEE_SAT_PER_KW);
            problems.demand(fee >= least, Rule::Modification, subject, "a fee of at least 253 sat/kw", &fee);
        }
    }
    Some(Modification {
        account: account.key.serialize(),
        spends: before.outpoint,
        inputs: tx.input.iter().map(|input| input.previous_output).collect::<BTreeSet<_>>(),
        outputs,
        recreated,
        tx: known.then_some(tx),
        spent,
    })
}

/// The venue's signature, with the message that it signs where that is known.
fn judge(
    account: &Account,
    before: &Output,
    modification: &Modification,
    request: &rpc::ServerModifyAccountRequest,
    response: &rpc::ServerModifyAccountResponse,
) -> (Verdict, Option<[u8; 32]>) {
    let Some(tx) = &modification.tx else { return (Verdict::Unjudged, None) };
    let at = tx.input.iter().position(|input| input.previous_output == before.outpoint);
    let Some(at) = at else { return (Verdict::Invalid("the account is not spent"), None) };
    let scripts = account.scripts_of(before);
    if before.version == 0 {
        let Some(scripts) = scripts else { return (Verdict::Unjudged, None) };
        let Some(sighash) = legacy_sighash(tx, at, &scripts.script, before.value_sat) else {
            return (Verdict::Invalid("no such input"), None);
        };
        return (der_all(&scripts.auctioneer, sighash, &response.account_sig), Some(sighash));
    }
    let key = draft(before.version).zip(taproot_key(&before.script));
    let Some(((draft, output), sighash)) = key.zip(key_sighash(tx, at, &modification.spent)) else {
        return (Verdict::Invalid("no taproot output to sign for"), None);
    };
    if points(&request.trader_nonces).is_none() || points(&response.server_nonces).is_none() {
        return (Verdict::Invalid("a nonce is missing"), Some(sighash));
    }
    let partial = Partial {
        draft,
        signer: &account.auctioneer,
        other: &account.key,
        output: &output,
        taproot: scripts.and_then(|scripts| scripts.taproot),
        own_nonce: &response.server_nonces,
        other_nonce: &request.trader_nonces,
        sighash,
        signature: &response.account_sig,
    };
    (partial.judge(), Some(sighash))
}
