//! From acceptance to finalize: the signatures of a batch, and the order in which they leave.
//!
//! # Source
//! Protocol notes, batch §7–§9, scripts §3.

use std::collections::BTreeSet;

use bitcoin::hashes::Hash as _;
use bitcoin::{Amount, ScriptBuf, TxOut, Txid};

use crate::Auditor;
use crate::finding::{Caller, Party, Problems, Rule};
use crate::script::{draft, taproot_key};
use crate::signature::{Partial, Verdict, der, key_sighash, legacy_sighash};
use crate::state::{Account, AccountLine, Begun, Key, Proposal, Reason, Spend};
use crate::wire::{hexed, key, rpc, unhexed};

impl Auditor {
    fn proposal(&mut self, caller: &Caller) -> Option<&mut Proposal> {
        let txid = self.current.get(caller)?;
        self.batches.get_mut(txid)?.views.get_mut(caller)
    }

    pub(crate) fn accepted(&mut self, caller: &Caller, accept: &rpc::OrderMatchAccept) {
        self.counts.acceptances += 1;
        let mut problems = Problems::default();
        let subject = format!("batch {}", hexed(&accept.batch_id));
        match self.proposal(caller) {
            Some(proposal) => {
                proposal.accepted = true;
                problems.equal(Rule::MessageOrder, &subject, &proposal.common.id, &accept.batch_id);
                let clean = proposal.breaches == 0;
                let found = format!("{} breaches", proposal.breaches);
                problems.demand(clean, Rule::AcceptedRefused, &subject, "a batch without breach", &found);
            }
            None => problems.add(Rule::AcceptedRefused, &subject, "a batch that can be read", &"none"),
        }
        self.report(Party::Trader, Some(caller), problems);
    }

    pub(crate) fn rejected(&mut self, caller: &Caller) {
        self.counts.rejections += 1;
        if let Some(proposal) = self.proposal(caller) {
            proposal.accepted = false;
        }
    }

    /// The venue asks for signatures.
    pub(crate) fn begun(&mut self, caller: &Caller, sign: rpc::OrderMatchSignBegin) {
        let mut problems = Problems::default();
        let subject = format!("batch {}", hexed(&sign.batch_id));
        let spent: Vec<TxOut> = sign
            .prev_outputs
            .into_iter()
            .map(|output| TxOut {
                value: Amount::from_sat(output.value),
                script_pubkey: ScriptBuf::from_bytes(output.pk_script),
            })
            .collect();
        let Some(proposal) = self.proposal(caller).cloned() else {
            problems.add(Rule::MessageOrder, &subject, "a prepared batch", &"none");
            return self.report(Party::Venue, Some(caller), problems);
        };
        problems.equal(Rule::MessageOrder, &subject, &proposal.common.id, &sign.batch_id);
        if proposal.begun.as_ref().is_some_and(|told| told.spent == spent && told.nonces == sign.server_nonces) {
            // Told again, word for word: the trader may have given up in between.
            return self.report(Party::Venue, Some(caller), problems);
        }
        problems.demand(proposal.accepted, Rule::MessageOrder, &subject, "an accepted batch", &"one that is not");
        // Who asks too early is at fault for that alone: the trader may still accept, and sign after it.
        let early = problems.0.len();
        self.spent_outputs(&subject, &proposal, &spent, &mut problems);
        for line in &proposal.lines {
            self.server_nonce(line, &proposal, &spent, &sign.server_nonces, &mut problems);
        }
        let breaches = problems.0.len() - early;
        if let Some(record) = self.batches.get_mut(&proposal.txid) {
            match &record.spent {
                Some(told) => problems.demand(*told == spent, Rule::OneBatch, &subject, "the same outputs", &"others"),
                None => record.spent = Some(spent.clone()),
            }
        }
        if let Some(proposal) = self.proposal(caller) {
            proposal.breaches += breaches;
            proposal.begun = Some(Begun { spent, nonces: sign.server_nonces });
        }
        self.report(Party::Venue, Some(caller), problems);
    }

    fn spent_outputs(&self, subject: &str, proposal: &Proposal, spent: &[TxOut], problems: &mut Problems) {
        let rule = Rule::PreviousOutputs;
        problems.equal(rule, subject, &proposal.tx.input.len(), &spent.len());
        let programs = spent.iter().all(|output| output.script_pubkey.is_witness_program());
        problems.demand(programs, rule, subject, "only witness programs", &"another script");
        for line in &proposal.lines {
            let what = format!("account {}", hexed(&line.key));
            let found = spent.get(line.input).map(|output| (output.value.to_sat(), output.script_pubkey.clone()));
            problems.equal(rule, &what, &Some((line.before.value_sat, line.before.script.clone())), &found);
        }
        for (input, told) in proposal.tx.input.iter().zip(spent) {
            if let Some(coin) = self.coins.get(&input.previous_output) {
                problems.equal(rule, &input.previous_output.to_string(), coin, told);
            }
        }
        let sum = |outputs: &[TxOut]| outputs.iter().map(|output| u128::from(output.value.to_sat())).sum::<u128>();
        let (paid, made) = (sum(spent), sum(&proposal.tx.output));
        problems.demand(made <= paid, Rule::Conservation, subject, &format!("at most {paid} sat"), &made);
    }

    fn server_nonce(
        &mut self,
        line: &AccountLine,
        proposal: &Proposal,
        spent: &[TxOut],
        nonces: &std::collections::BTreeMap<String, Vec<u8>>,
        problems: &mut Problems,
    ) {
        if line.before.version == 0 {
            return;
        }
        let subject = format!("account {}", hexed(&line.key));
        let nonce = nonces.get(&hexed(&line.key)).filter(|nonce| crate::signature::points(nonce).is_some());
        match (nonce, key_sighash(&proposal.tx, line.input, spent)) {
            (Some(nonce), Some(sighash)) => self.nonces.shown(nonce, &[b"venue", &sighash], problems, &subject),
            (None, _) => problems.add(Rule::Decoding, &subject, "a nonce of the venue", &"none"),
            (_, None) => {}
        }
    }

    /// Signatures leave.
    pub(crate) fn signed(&mut self, caller: &Caller, sign: &rpc::OrderMatchSign) {
        let mut problems = Problems::default();
        let subject = format!("batch {}", hexed(&sign.batch_id));
        let Some(proposal) = self.proposal(caller).cloned() else {
            self.counts.account_signatures += u64::try_from(sign.account_sigs.len()).unwrap_or(u64::MAX);
            problems.add(Rule::MessageOrder, &subject, "a prepared batch", &"none");
            return self.report(Party::Trader, Some(caller), problems);
        };
        problems.equal(Rule::MessageOrder, &subject, &proposal.common.id, &sign.batch_id);
        problems.demand(proposal.accepted, Rule::MessageOrder, &subject, "acceptance before", &"a signature");
        let asked = proposal.begun.is_some();
        problems.demand(asked, Rule::MessageOrder, &subject, "the venue's request before", &"a signature");
        let found = format!("{} breaches", proposal.breaches);
        problems.demand(proposal.breaches == 0, Rule::SignedRefused, &subject, "a batch without breach", &found);
        self.signature_set(&subject, &proposal, sign, &mut problems);
        channel_infos(&subject, &proposal, sign, &mut problems);
        for line in &proposal.lines {
            self.account_signature(caller, line, &proposal, sign, &mut problems);
        }
        for line in &proposal.lines {
            self.commit_spend(caller, line, &proposal, &mut problems);
        }
        if let Some(view) = self.proposal(caller) {
            view.signed = true;
        }
        self.report(Party::Trader, Some(caller), problems);
    }

    fn signature_set(
        &mut self,
        subject: &str,
        proposal: &Proposal,
        sign: &rpc::OrderMatchSign,
        problems: &mut Problems,
    ) {
        self.counts.account_signatures += u64::try_from(sign.account_sigs.len()).unwrap_or(u64::MAX);
        let keys: BTreeSet<Key> = proposal.lines.iter().map(|line| line.key).collect();
        let signed = sign.account_sigs.keys().map(|text| unhexed(text).and_then(|bytes| key(&bytes)));
        let signed: Option<BTreeSet<Key>> = signed.collect();
        let expected = format!("signatures of {} accounts", keys.len());
        let exact = signed.as_ref() == Some(&keys) && sign.account_sigs.len() == keys.len();
        problems.demand(exact, Rule::SignatureSet, subject, &expected, &sign.account_sigs.len());
    }

    fn account_signature(
        &mut self,
        caller: &Caller,
        line: &AccountLine,
        proposal: &Proposal,
        sign: &rpc::OrderMatchSign,
        problems: &mut Problems,
    ) {
        let name = hexed(&line.key);
        let subject = format!("account {name}");
        let Some(signature) = sign.account_sigs.get(&name) else { return };
        let (Some(begun), Some(account)) = (&proposal.begun, self.accounts.get(&line.key)) else { return };
        let nonces = begun.nonces.get(&name).zip(sign.trader_nonces.get(&name));
        let verdict = batch_signature(account, line, proposal, begun, signature, nonces);
        match &verdict {
            Verdict::Valid => self.counts.account_signatures_verified += 1,
            Verdict::Unjudged => {}
            Verdict::Invalid(reason) => {
                problems.add(Rule::AccountSignature, &subject, "a valid signature", reason);
            }
        }
        if let Some((server, own)) = nonces.filter(|_| line.before.version > 0)
            && let Some(sighash) = key_sighash(&proposal.tx, line.input, &begun.spent)
        {
            self.nonces.shown(own, &[b"trader", &sighash, server], problems, &subject);
        }
        let record = self.batches.get_mut(&proposal.txid);
        if let Some(record) = record {
            record.signatures.insert(line.key, signature.clone());
        }
        if let (Some(account), Some(after)) = (self.accounts.get_mut(&line.key), &line.after)
            && account.owner == *caller
        {
            account.learn(after.clone());
        }
    }

    /// Notes that a signature exists; a second one for another transaction needs a reason.
    fn commit_spend(&mut self, caller: &Caller, line: &AccountLine, proposal: &Proposal, problems: &mut Problems) {
        let settled = |txid: &Txid, batches: &std::collections::BTreeMap<Txid, crate::state::BatchRecord>| {
            batches.get(txid).and_then(|record| record.views.get(caller)).is_some_and(|view| view.settled)
        };
        let spends = self.spends.entry(line.before.outpoint).or_default();
        let others = spends.iter_mut().filter(|spend| spend.txid != Some(proposal.txid) && !spend.superseded);
        for spend in others {
            match &spend.reason {
                Reason::Batch { .. } if spend.txid.is_some_and(|txid| settled(&txid, &self.batches)) => {
                    let found = format!("{:?} is final", spend.txid);
                    let subject = format!("account {}", hexed(&line.key));
                    problems.add(Rule::DoubleSigned, &subject, "an output that is not spent", &found);
                }
                Reason::Batch { id, .. } => {
                    spend.superseded = true;
                    if *id == proposal.common.id {
                        self.counts.repeated_rounds += 1;
                    } else {
                        self.counts.superseded += 1;
                    }
                }
                // The trader's half of a modification shows on the chain alone.
                Reason::Modification if spend.txid.is_some_and(|txid| self.seen.contains(&txid)) => {
                    let subject = format!("account {}", hexed(&line.key));
                    problems.add(Rule::DoubleSigned, &subject, "one spend", &"a modification and a batch");
                }
                Reason::Modification => {
                    spend.superseded = true;
                    self.counts.modifications_replaced += 1;
                }
            }
        }
        if !spends.iter().any(|spend| spend.txid == Some(proposal.txid)) {
            let reason = Reason::Batch { id: proposal.common.id.clone(), caller: caller.clone() };
            spends.push(Spend { txid: Some(proposal.txid), reason, superseded: false });
        }
    }

    pub(crate) fn finalized(&mut self, caller: &Caller, finalize: &rpc::OrderMatchFinalize) {
        let mut problems = Problems::default();
        let subject = format!("batch {}", hexed(&finalize.batch_id));
        match self.proposal(caller).cloned() {
            Some(proposal) => {
                let expected = (proposal.common.id.clone(), Some(proposal.txid), true);
                let found = (finalize.batch_id.clone(), Txid::from_slice(&finalize.batch_txid).ok(), proposal.signed);
                problems.equal(Rule::Finalize, &subject, &expected, &found);
                if expected == found {
                    self.counts.finalized += 1;
                    self.settle(caller, proposal.txid);
                }
            }
            None => problems.add(Rule::Finalize, &subject, "a signed batch", &"none"),
        }
        self.report(Party::Venue, Some(caller), problems);
    }
}

/// One account's signature of a batch.
fn batch_signature(
    account: &Account,
    line: &AccountLine,
    proposal: &Proposal,
    begun: &Begun,
    signature: &[u8],
    nonces: Option<(&Vec<u8>, &Vec<u8>)>,
) -> Verdict {
    let scripts = account.scripts_of(&line.before);
    if line.before.version == 0 {
        let Some(scripts) = scripts else { return Verdict::Unjudged };
        return match legacy_sighash(&proposal.tx, line.input, &scripts.script, line.before.value_sat) {
            Some(sighash) => der(&scripts.trader, sighash, signature),
            None => Verdict::Invalid("no such input"),
        };
    }
    let Some((server, own)) = nonces else { return Verdict::Invalid("a nonce is missing") };
    let key = draft(line.before.version).zip(taproot_key(&line.before.script));
    let sighash = key_sighash(&proposal.tx, line.input, &begun.spent);
    let Some(((draft, output), sighash)) = key.zip(sighash) else {
        return Verdict::Invalid("no taproot output to sign for");
    };
    Partial {
        draft,
        signer: &account.key,
        other: &account.auctioneer,
        output: &output,
        taproot: scripts.and_then(|scripts| scripts.taproot),
        own_nonce: own,
        other_nonce: server,
        sighash,
        signature,
    }
    .judge()
}

/// The channels that the trader reports pending are those of its matches.
fn channel_infos(subject: &str, proposal: &Proposal, sign: &rpc::OrderMatchSign, problems: &mut Problems) {
    let points = proposal.matches.iter().filter_map(|line| line.vout);
    let expected: BTreeSet<String> = points.map(|vout| format!("{}:{vout}", proposal.txid)).collect();
    let found: BTreeSet<String> = sign.channel_infos.keys().cloned().collect();
    problems.equal(Rule::ChannelInfos, subject, &expected, &found);
}
