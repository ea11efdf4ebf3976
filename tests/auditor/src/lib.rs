//! An independent auditor of the market.
//!
//! It sees the bytes that traders and venue exchange and the transactions of the chain, and nothing else: no state of
//! the programs under test, none of their code. It decodes, computes money, builds scripts and checks signatures for
//! itself, with the `bitcoin` package for transactions and the curve and with a second MuSig2 library, and it keeps
//! its own balance sheet for each account. Whatever breaks a [`Rule`] is a [`Finding`].
//!
//! # What it cannot see
//! An account's scripts depend on a secret that only trader and auctioneer share. A test that knows it supplies a
//! [`SecretOracle`]; then every script is recomputed and every signature is judged when it leaves. Without it, the
//! script in `InitAccount` is taken as told; what follows from it is still held to account: values, outpoints, form of
//! the script, halves of MuSig2 signatures (the tweak does not enter them), and on the chain the whole witness. A
//! version 0 signature, or a modification that recreates the output, is then judged only on the chain.
//!
//! The venue's half of a batch signature never crosses the wire; it is judged as part of the witness on the chain.
//! Node tiers, feature bits and the reserved value of orders are not judged.
//!
//! # Use
//! Feed everything in the order in which it happened: [`Auditor::call`] and [`Auditor::answer`] for unary calls,
//! [`Auditor::client_message`] and [`Auditor::server_message`] for the batch stream, [`Auditor::transaction`] for the
//! chain, parents first. [`proxy::Proxy`] does the first three between real programs.

mod account;
mod batch;
mod chain;
mod finding;
mod keys;
mod modification;
pub mod money;
mod nonces;
mod order;
pub mod proxy;
mod script;
mod sign;
mod signature;
mod state;
mod stream;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bitcoin::secp256k1::PublicKey;
use bitcoin::{OutPoint, TxOut, Txid};

pub use account::Baseline;
pub use finding::{Caller, Counts, Finding, Party, Rule};
pub use state::{Order, Quote};

use finding::Problems;
use nonces::Nonces;
use signature::Verdict;
use state::{Account, BatchRecord, Key, Modification, Nonce, OrderRecord, Spend};
use stream::Handshake;

/// Tells the secret that an account's trader shares with the auctioneer, from the trader's and the auctioneer's key.
pub type SecretOracle = Box<dyn FnMut(&PublicKey, &PublicKey) -> Option<[u8; 32]> + Send>;

/// A unary call whose answer is awaited.
#[derive(Clone, Debug)]
struct Call {
    caller: Caller,
    method: String,
    request: Vec<u8>,
}

/// Names a call until its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(u64);

/// The auditor. See the package's documentation.
#[derive(Default)]
pub struct Auditor {
    oracle: Option<SecretOracle>,
    findings: Vec<Finding>,
    counts: Counts,
    calls: BTreeMap<CallId, Call>,
    next_call: u64,
    accounts: BTreeMap<Key, Account>,
    orders: BTreeMap<Nonce, OrderRecord>,
    quotes: BTreeMap<Caller, Quote>,
    handshakes: BTreeMap<Caller, Vec<Handshake>>,
    /// Callers that proved to be one who is known by an earlier name: the deployed client takes a new token at each
    /// start where no token is paid for.
    names: BTreeMap<Caller, Caller>,
    /// The batch that each trader was told last.
    current: BTreeMap<Caller, Txid>,
    batches: BTreeMap<Txid, BatchRecord>,
    modifications: Vec<Modification>,
    spends: BTreeMap<OutPoint, Vec<Spend>>,
    nonces: Nonces,
    /// Outputs of all transactions of the chain that were fed.
    coins: BTreeMap<OutPoint, TxOut>,
    seen: BTreeSet<Txid>,
}

impl fmt::Debug for Auditor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auditor")
            .field("counts", &self.counts)
            .field("findings", &self.findings)
            .finish_non_exhaustive()
    }
}

impl Auditor {
    /// An auditor that knows no secrets.
    pub fn new() -> Auditor {
        Auditor::default()
    }

    /// An auditor that can ask for the accounts' secrets.
    pub fn with_secrets(oracle: SecretOracle) -> Auditor {
        Auditor { oracle: Some(oracle), ..Auditor::default() }
    }

    /// Every breach so far, in the order in which they were seen.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Breaches by one party.
    pub fn findings_of(&self, party: Party) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |finding| finding.party == party)
    }

    /// How much was seen so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// A unary call leaves for the venue. `method` is the last part of its path, such as `SubmitOrder`.
    pub fn call(&mut self, caller: &Caller, method: &str, request: &[u8]) -> CallId {
        let caller = &self.known_as(caller);
        self.counts.unary_calls += 1;
        let id = CallId(self.next_call);
        self.next_call += 1;
        let problems = match method {
            "SubmitOrder" => self.submit(caller, request),
            _ => Problems::default(),
        };
        self.report(Party::Trader, Some(caller), problems);
        let call = Call { caller: caller.clone(), method: method.to_owned(), request: request.to_vec() };
        self.calls.insert(id, call);
        id
    }

    /// Its answer; nothing when the call failed. An answer to an unknown call is ignored.
    pub fn answer(&mut self, id: CallId, response: Option<&[u8]>) {
        let Some(Call { caller, method, request }) = self.calls.remove(&id) else { return };
        match (method.as_str(), response) {
            ("ReserveAccount", Some(response)) => self.reserved(&caller, &request, response),
            ("InitAccount", Some(_)) => self.opened(&caller, &request),
            ("SubmitOrder", response) => self.submitted(&caller, &request, response),
            ("CancelOrder", Some(_)) => self.cancelled(&caller, &request),
            ("ModifyAccount", response) => self.modified(id, &caller, &request, response),
            ("Terms", Some(response)) => self.quoted(&caller, response),
            _ => {}
        }
    }

    /// A whole unary call at once.
    pub fn unary(&mut self, caller: &Caller, method: &str, request: &[u8], response: Option<&[u8]>) {
        let id = self.call(caller, method, request);
        self.answer(id, response);
    }

    /// The name under which this caller was first seen.
    fn known_as(&self, caller: &Caller) -> Caller {
        self.names.get(caller).unwrap_or(caller).clone()
    }

    fn report(&mut self, party: Party, caller: Option<&Caller>, problems: Problems) {
        self.findings.extend(problems.0.into_iter().map(|problem| Finding {
            rule: problem.rule,
            party,
            caller: caller.cloned(),
            subject: problem.subject,
            expected: problem.expected,
            found: problem.found,
        }));
    }

    /// Reports one breach.
    fn breach(
        &mut self,
        party: Party,
        caller: &Caller,
        rule: Rule,
        subject: &dyn fmt::Display,
        claim: (&str, &dyn fmt::Display),
    ) {
        let mut problems = Problems::default();
        problems.add(rule, subject, claim.0, claim.1);
        self.report(party, Some(caller), problems);
    }

    /// Reports a bad verdict; tells whether it was a good one.
    fn judge(
        &mut self,
        party: Party,
        caller: Option<&Caller>,
        rule: Rule,
        subject: &dyn fmt::Display,
        verdict: &Verdict,
    ) -> bool {
        if let Verdict::Invalid(reason) = verdict {
            let mut problems = Problems::default();
            problems.add(rule, subject, "a valid signature", reason);
            self.report(party, caller, problems);
        }
        *verdict == Verdict::Valid
    }
}

#[cfg(test)]
mod tests;
