//! The auditor of one participant: it sees every signature that is made and everything that leaves, and compares it
//! with what the participant's store held at that moment.
//!
//! Does: find a nonce that signs twice, a signature that leaves before what it makes true is durable, and two different
//! spends of one output of which the first was not superseded. Never does: change what it sees, but for planted defects.

use crate::plant::Plant;
use crate::process::Watched;
use bitcoin::psbt::Psbt;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{OutPoint, ScriptBuf, Transaction, TxOut, Txid};
use futures_util::FutureExt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tidegate_ports::{
    AddressKind, Bump, ClientMessage, CoinLock, FundedPsbt, Musig2Request, NodeError, ServerMessage, SessionId,
    SignInput, Signer, Store, Wallet, WalletTransaction,
};
use tidegate_protocol::account::{Account, AccountState};
use tidegate_protocol::batch::BatchSignatures;
use tidegate_protocol::keys::{BatchId, KeyDescriptor, KeyLocator, SharedSecret};
use tidegate_protocol::musig2::{PartialSignature, PublicNonce};
use tidegate_protocol::units::{SatPerKw, Sats};
use tidegate_sandbox::{MemoryStore, SandboxNode, World};
use tidegate_trader::{Book, Standing, TABLES};

/// What went wrong so far, in sentences. Clones are the same list.
#[derive(Clone, Debug, Default)]
pub struct Violations(Arc<Mutex<Vec<String>>>);

impl Violations {
    /// Adds one.
    pub fn add(&self, sentence: String) {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !list.contains(&sentence) {
            list.push(sentence);
        }
    }

    /// All of them.
    pub fn list(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Batch,
    Alone,
}

#[derive(Debug, Default)]
struct Inner {
    /// Transaction of the latest proposal of each name.
    proposed: BTreeMap<BatchId, Transaction>,
    /// Spent output → transactions for which a signature left.
    left: BTreeMap<OutPoint, Vec<(Txid, Kind)>>,
    /// Those that spend an account and make its next output.
    recreations: BTreeSet<Txid>,
    /// Inputs of the transactions that were signed.
    inputs: BTreeMap<Txid, Vec<OutPoint>>,
    sessions: BTreeMap<SessionId, PublicNonce>,
    /// Nonces that signed, with their message.
    spent: Vec<(PublicNonce, [u8; 32])>,
    /// Transactions that the wallet made or published by itself.
    own: BTreeMap<Txid, Transaction>,
    first_nonce: Option<PublicNonce>,
}

/// The record of one participant. Clones are the same record.
#[derive(Clone)]
pub struct Record {
    name: String,
    world: World,
    store: MemoryStore,
    watched: Watched,
    inner: Arc<Mutex<Inner>>,
}

impl Record {
    /// An empty record of the participant with this store.
    pub(crate) fn new(name: &str, world: World, store: MemoryStore, watched: Watched) -> Record {
        Record { name: name.to_owned(), world, store, watched, inner: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn violated(&self, what: &str) {
        self.watched.violations.add(format!("{}: {what}", self.name));
    }

    /// What the trader's store holds at this moment.
    pub fn book(&self) -> Book {
        let (_, rows) = self.store.load(&TABLES).now_or_never().and_then(Result::ok).unwrap_or_default();
        Book::from_rows(&rows).unwrap_or_else(|error| {
            self.violated(&format!("the store can not be read: {error}"));
            Book::default()
        })
    }

    /// The transactions that the wallet made or published by itself.
    pub fn own_transactions(&self) -> Vec<Transaction> {
        self.lock().own.values().cloned().collect()
    }

    /// Transactions of the wallet's own that spend an account and make another one: changes of accounts.
    pub(crate) fn recreations(&self) -> usize {
        self.lock().recreations.len()
    }

    /// A message of the venue arrives.
    pub(crate) fn arrives(&self, message: &ServerMessage) {
        if let ServerMessage::Prepare(prepare) = message {
            self.lock().proposed.insert(prepare.batch_id, prepare.transaction.clone());
        }
    }

    /// A message leaves for the venue.
    pub(crate) fn leaves(&self, message: &ClientMessage) {
        if let ClientMessage::Sign(signatures) = message {
            self.signed(signatures);
        }
    }

    fn signed(&self, signatures: &BatchSignatures) {
        let Some(transaction) = self.lock().proposed.get(&signatures.batch_id).cloned() else {
            return self.violated("a batch is signed that was never proposed");
        };
        let (book, txid) = (self.book(), transaction.compute_txid());
        let Some(staged) = book.staged.get(&txid).filter(|staged| staged.standing == Standing::Active) else {
            return self.violated(&format!("the signatures of batch {txid} leave, but the batch is not stored"));
        };
        let inputs = transaction.input.iter().map(|input| input.previous_output).collect();
        self.lock().inputs.insert(txid, inputs);
        for account in signatures.accounts.keys() {
            match staged.accounts.iter().find(|stored| stored.after.key() == *account) {
                Some(stored) => self.spends(&book, stored.spent, txid, Kind::Batch),
                None => self.violated(&format!("account {account} is signed, but its part of {txid} is not stored")),
            }
        }
    }

    /// A signature for this spend leaves. An earlier one of another transaction must be of a superseded batch.
    fn spends(&self, book: &Book, outpoint: OutPoint, txid: Txid, kind: Kind) {
        let mut inner = self.lock();
        let earlier = inner.left.entry(outpoint).or_default();
        let rivals: Vec<(Txid, Kind)> = earlier.iter().filter(|(other, _)| *other != txid).copied().collect();
        if !earlier.contains(&(txid, kind)) {
            earlier.push((txid, kind));
        }
        drop(inner);
        for (rival, of) in rivals {
            let standing = book.staged.get(&rival).map(|staged| staged.standing);
            let superseded = match standing {
                Some(Standing::Superseded) => true,
                // Nobody needs to remember what the chain has made impossible.
                None => self.is_void(rival),
                Some(Standing::Active | Standing::Booked) => false,
            };
            let allowed = match of {
                Kind::Batch => superseded,
                // Another input of it went elsewhere: it can never be.
                Kind::Alone => self.is_void(rival),
            };
            if !allowed {
                self.violated(&format!("{outpoint} is signed away twice: {rival} ({of:?}, {standing:?}), then {txid}"));
            }
        }
    }

    /// Whether a block holds another spend of an output that the transaction spends.
    fn is_void(&self, txid: Txid) -> bool {
        let inputs = self.lock().inputs.get(&txid).cloned().unwrap_or_default();
        inputs
            .into_iter()
            .filter_map(|input| self.world.spender(input))
            .any(|(spender, height)| height.is_some() && spender.compute_txid() != txid)
    }

    fn publishes(&self, transaction: &Transaction, trader: bool) {
        let txid = transaction.compute_txid();
        let inputs: Vec<OutPoint> = transaction.input.iter().map(|input| input.previous_output).collect();
        let book = if trader { self.book() } else { Book::default() };
        if let Some(change) = book.changes.get(&txid) {
            self.watched.tally.changed(change);
        }
        {
            let mut inner = self.lock();
            inner.own.insert(txid, transaction.clone());
            inner.inputs.insert(txid, inputs.clone());
            let made = |account: &Account| account.outpoint.is_some_and(|outpoint| outpoint.txid == txid);
            let pending = |state| matches!(state, AccountState::PendingUpdate | AccountState::ExpiredPendingUpdate);
            if book.accounts.values().any(|account| made(account) && pending(account.state)) {
                inner.recreations.insert(txid);
            }
        }
        for input in inputs {
            self.spends(&book, input, txid, Kind::Alone);
        }
    }

    /// The wallet paid for something that may be replaced by it later.
    pub(crate) fn pays(&self, transaction: &Transaction) {
        self.lock().own.insert(transaction.compute_txid(), transaction.clone());
    }

    fn began(&self, session: SessionId, nonce: PublicNonce) {
        self.lock().sessions.insert(session, nonce);
    }

    fn partly_signed(&self, session: SessionId, message: [u8; 32]) {
        let mut inner = self.lock();
        let Some(nonce) = inner.sessions.get(&session).copied() else {
            drop(inner);
            return self.violated("an unknown session signs");
        };
        let repeated = inner.spent.iter().any(|(spent, _)| *spent == nonce);
        inner.spent.push((nonce, message));
        drop(inner);
        if repeated {
            self.violated("a nonce signs twice");
        }
    }
}

/// Wallet and signer of a node, with their auditor.
#[derive(Clone)]
pub(crate) struct Audited {
    node: SandboxNode,
    record: Record,
    plant: Option<Plant>,
    trader: bool,
}

impl Audited {
    /// The keys of `node`, which belong to a trader or to a venue.
    pub(crate) fn new(node: SandboxNode, record: Record, plant: Option<Plant>, trader: bool) -> Audited {
        Audited { node, record, plant, trader }
    }
}

impl Wallet for Audited {
    async fn send_outputs(&self, outputs: &[TxOut], fee_rate: SatPerKw, label: &str) -> Result<Transaction, NodeError> {
        let transaction = self.node.send_outputs(outputs, fee_rate, label).await?;
        self.record.publishes(&transaction, self.trader);
        Ok(transaction)
    }

    async fn find_payment(&self, output: &TxOut) -> Result<Option<(Transaction, OutPoint)>, NodeError> {
        self.node.find_payment(output).await
    }

    async fn new_address(&self, kind: AddressKind) -> Result<ScriptBuf, NodeError> {
        self.node.new_address(kind).await
    }

    async fn confirmed_balance(&self) -> Result<Sats, NodeError> {
        self.node.confirmed_balance().await
    }

    async fn publish(&self, transaction: &Transaction, label: &str) -> Result<(), NodeError> {
        self.record.publishes(transaction, self.trader);
        self.node.publish(transaction, label).await
    }

    async fn estimate_fee(&self, conf_target: u32) -> Result<SatPerKw, NodeError> {
        self.node.estimate_fee(conf_target).await
    }

    async fn estimate_payment(&self, output: &TxOut, conf_target: u32) -> Result<Sats, NodeError> {
        self.node.estimate_payment(output, conf_target).await
    }

    async fn fund_psbt(&self, template: &Psbt, sat_per_vbyte: u64) -> Result<FundedPsbt, NodeError> {
        self.node.fund_psbt(template, sat_per_vbyte).await
    }

    async fn release(&self, lock: &CoinLock) -> Result<(), NodeError> {
        self.node.release(lock).await
    }

    async fn finalize_psbt(&self, psbt: &Psbt) -> Result<Transaction, NodeError> {
        self.node.finalize_psbt(psbt).await
    }

    async fn bump_fee(&self, outpoint: OutPoint, sat_per_vbyte: u64) -> Result<Bump, NodeError> {
        let bumped = self.node.bump_fee(outpoint, sat_per_vbyte).await?;
        if let (Bump::Bumped, Some((child, _))) = (bumped, self.node.world().spender(outpoint)) {
            self.record.pays(&child);
        }
        Ok(bumped)
    }

    async fn wallet_transactions(&self) -> Result<Vec<WalletTransaction>, NodeError> {
        self.node.wallet_transactions().await
    }
}

impl Signer for Audited {
    async fn derive_next_key(&self, family: u32) -> Result<KeyDescriptor, NodeError> {
        self.node.derive_next_key(family).await
    }

    async fn derive_key(&self, locator: KeyLocator) -> Result<KeyDescriptor, NodeError> {
        self.node.derive_key(locator).await
    }

    async fn shared_secret(&self, other: &PublicKey, locator: KeyLocator) -> Result<SharedSecret, NodeError> {
        self.node.shared_secret(other, locator).await
    }

    async fn sign_message(&self, message: &[u8], locator: KeyLocator) -> Result<Vec<u8>, NodeError> {
        self.node.sign_message(message, locator).await
    }

    async fn sign_input(&self, request: &SignInput) -> Result<Vec<u8>, NodeError> {
        self.node.sign_input(request).await
    }

    async fn musig2_begin(&self, request: &Musig2Request) -> Result<(SessionId, PublicNonce), NodeError> {
        let (session, mut nonce) = self.node.musig2_begin(request).await?;
        if self.plant == Some(Plant::RepeatedNonce) {
            nonce = *self.record.lock().first_nonce.get_or_insert(nonce);
        }
        self.record.began(session, nonce);
        Ok((session, nonce))
    }

    async fn musig2_register(&self, session: SessionId, other: &PublicNonce) -> Result<(), NodeError> {
        self.node.musig2_register(session, other).await
    }

    async fn musig2_sign(
        &self,
        session: SessionId,
        message: [u8; 32],
        last: bool,
    ) -> Result<PartialSignature, NodeError> {
        let partial = self.node.musig2_sign(session, message, last).await?;
        self.record.partly_signed(session, message);
        Ok(partial)
    }

    async fn musig2_combine(&self, session: SessionId, other: &PartialSignature) -> Result<[u8; 64], NodeError> {
        self.node.musig2_combine(session, other).await
    }

    async fn musig2_cleanup(&self, session: SessionId) -> Result<(), NodeError> {
        self.node.musig2_cleanup(session).await
    }
}
