//! What can go wrong between a flow and its ports.
//!
//! Does: a [`Gate`] stands before every port call of one process. It lets a call through, fails it before its effect, or
//! after its effect so that only the answer is lost; it delays calls; and it can be the end of the process at one call.
//! Which of these happens follows from a seed. [`Gated`] and [`FaultyStore`] put a gate before a node and a store.

use crate::SandboxNode;
use crate::executor::SimClock;
use crate::random::Random;
use crate::wakers::{Wakers, lock};
use bitcoin::psbt::Psbt;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{OutPoint, ScriptBuf, Transaction, TxOut};
use core::future::{Future, pending, poll_fn};
use core::pin::pin;
use core::task::{Poll, Waker};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use tidegate_ports::{
    AddressKind, Bump, Chain, ChainEvent, Change, Channels, CoinLock, FundedPsbt, Musig2Request, NodeData, NodeError,
    NodeInfo, Row, Sequence, SessionId, SignInput, Signer, Store, StoreError, Wallet, WalletTransaction, Watch,
};
use tidegate_protocol::batch::ChannelInfo;
use tidegate_protocol::channel::{AcceptorRule, FundingShim, OpenChannel};
use tidegate_protocol::keys::{KeyDescriptor, KeyLocator, NodeId, PendingChannelId, SharedSecret};
use tidegate_protocol::musig2::{PartialSignature, PublicNonce};
use tidegate_protocol::order::NodeAddress;
use tidegate_protocol::units::{BlockHeight, SatPerKw, Sats};

/// How often calls go wrong, in parts of a million calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Fails, without effect.
    pub fail_before: u32,
    /// Takes effect, and fails: the answer is lost.
    pub fail_after: u32,
    /// Waits first.
    pub delay_before: u32,
    /// Takes effect at once, and answers late.
    pub delay_after: u32,
    /// Longest wait, in milliseconds.
    pub max_delay_ms: u64,
    /// Is the last call of the process, before or after its effect.
    pub cut: u32,
}

/// The end of a process at one of its calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Calls that still pass.
    pub calls: u64,
    /// Whether the effect of the last call takes place.
    pub after: bool,
}

/// Stands before the port calls of one process. Clones are the same gate.
#[derive(Clone, Debug)]
pub struct Gate {
    inner: Arc<Mutex<Inner>>,
    clock: SimClock,
}

#[derive(Debug)]
struct Inner {
    random: Random,
    rates: Rates,
    /// Ends that are still to come, one per life.
    cuts: VecDeque<Cut>,
    /// Calls that were made so far.
    calls: u64,
    /// No call passes until the process starts anew.
    dead: bool,
    /// The last call of the last life.
    last: &'static str,
    wakers: Wakers,
}

enum Fate {
    Passes,
    FailsBefore,
    FailsAfter,
    EndsBefore,
    EndsAfter,
}

struct Plan {
    fate: Fate,
    before_ms: u64,
    after_ms: u64,
}

impl Inner {
    fn plan(&mut self, call: &'static str) -> Plan {
        self.calls = self.calls.saturating_add(1);
        self.last = call;
        let cut = match self.cuts.front_mut() {
            Some(Cut { calls: 0, .. }) => self.cuts.pop_front().map(|cut| cut.after),
            Some(cut) => {
                cut.calls = cut.calls.saturating_sub(1);
                None
            }
            None if self.random.chance(self.rates.cut) => Some(self.random.chance(500_000)),
            None => None,
        };
        let mut delay =
            |parts| if self.random.chance(parts) { self.random.between(1, self.rates.max_delay_ms) } else { 0 };
        let (before_ms, after_ms) = (delay(self.rates.delay_before), delay(self.rates.delay_after));
        let fate = match cut {
            Some(false) => Fate::EndsBefore,
            Some(true) => Fate::EndsAfter,
            None if self.random.chance(self.rates.fail_before) => Fate::FailsBefore,
            None if self.random.chance(self.rates.fail_after) => Fate::FailsAfter,
            None => Fate::Passes,
        };
        Plan { fate, before_ms, after_ms }
    }
}

impl Gate {
    /// A gate that lets everything pass until it is told otherwise. Its draws follow from `seed` and `name`.
    pub fn new(seed: u64, name: &str, clock: SimClock) -> Gate {
        let inner = Inner {
            random: Random::named(seed, name),
            rates: Rates::default(),
            cuts: VecDeque::new(),
            calls: 0,
            dead: false,
            last: "",
            wakers: Wakers::default(),
        };
        Gate { inner: Arc::new(Mutex::new(inner)), clock }
    }

    /// Sets how often calls go wrong from now on.
    pub fn set_rates(&self, rates: Rates) {
        lock(&self.inner).rates = rates;
    }

    /// Ends the process at a later call, and its next lives alike: each end counts calls from the one before.
    pub fn set_cuts(&self, cuts: &[Cut]) {
        lock(&self.inner).cuts = cuts.iter().copied().collect();
    }

    /// Calls so far, those of earlier lives too.
    pub fn calls(&self) -> u64 {
        lock(&self.inner).calls
    }

    /// Name of the call that was made last.
    pub fn last_call(&self) -> &'static str {
        lock(&self.inner).last
    }

    /// Ends the process now, wherever it stands.
    pub fn kill(&self) {
        let woken = {
            let mut inner = lock(&self.inner);
            inner.dead = true;
            inner.wakers.take()
        };
        woken.into_iter().for_each(Waker::wake);
    }

    /// Returns when the process is to end: whoever drives its flow drops it then.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + use<'_> {
        poll_fn(|context| {
            let mut inner = lock(&self.inner);
            if inner.dead {
                return Poll::Ready(());
            }
            inner.wakers.add(context.waker());
            Poll::Pending
        })
    }

    /// The process starts anew: calls pass again.
    pub fn revive(&self) {
        lock(&self.inner).dead = false;
    }

    /// Makes a call, or what the gate makes of it. `broken` is the answer of a call that fails.
    pub async fn pass<T: Send>(
        &self,
        call: &'static str,
        effect: impl Future<Output = T> + Send,
        broken: impl FnOnce() -> T + Send,
    ) -> T {
        let plan = self.admit(call).await;
        self.wait(plan.before_ms).await;
        let answer = match plan.fate {
            Fate::FailsBefore => broken(),
            Fate::EndsBefore => self.end().await,
            Fate::Passes => self.unless_dead(effect).await,
            Fate::FailsAfter => {
                drop(self.unless_dead(effect).await);
                broken()
            }
            Fate::EndsAfter => {
                drop(self.unless_dead(effect).await);
                self.end().await
            }
        };
        self.wait(plan.after_ms).await;
        answer
    }

    /// As [`Gate::pass`] for a call that waits for an event and may be given up: an event is never lost by giving up.
    pub async fn pass_event<T: Send>(
        &self,
        call: &'static str,
        effect: impl Future<Output = T> + Send,
        broken: impl FnOnce() -> T + Send,
    ) -> T {
        let plan = self.admit(call).await;
        self.wait(plan.before_ms).await;
        match plan.fate {
            Fate::FailsBefore => broken(),
            Fate::EndsBefore => self.end().await,
            Fate::Passes => self.unless_dead(effect).await,
            Fate::FailsAfter => {
                drop(self.unless_dead(effect).await);
                broken()
            }
            Fate::EndsAfter => {
                drop(self.unless_dead(effect).await);
                self.end().await
            }
        }
    }

    /// As [`Gate::pass_event`] for a call that can not fail: it is late, or the last one.
    pub async fn pass_surely<T: Send>(&self, call: &'static str, effect: impl Future<Output = T> + Send) -> T {
        let plan = self.admit(call).await;
        self.wait(plan.before_ms).await;
        match plan.fate {
            Fate::EndsBefore => self.end().await,
            Fate::Passes | Fate::FailsBefore | Fate::FailsAfter => self.unless_dead(effect).await,
            Fate::EndsAfter => {
                drop(self.unless_dead(effect).await);
                self.end().await
            }
        }
    }

    /// Nothing that a dead process does has an effect: all that it still holds is never polled to its end.
    async fn unless_dead<T>(&self, effect: impl Future<Output = T>) -> T {
        let mut effect = pin!(effect);
        poll_fn(|context| if lock(&self.inner).dead { Poll::Pending } else { effect.as_mut().poll(context) }).await
    }

    async fn admit(&self, call: &'static str) -> Plan {
        let plan = {
            let mut inner = lock(&self.inner);
            (!inner.dead).then(|| inner.plan(call))
        };
        match plan {
            Some(plan) => plan,
            None => pending().await,
        }
    }

    async fn wait(&self, ms: u64) {
        if ms > 0 {
            self.clock.sleep(ms).await;
        }
    }

    async fn end<T>(&self) -> T {
        self.kill();
        pending().await
    }
}

fn away<T>() -> Result<T, NodeError> {
    Err(NodeError::Unreachable { address: "sandbox".to_owned(), reason: "the connection broke".to_owned() })
}

/// A node behind a gate, as one process is connected to it: when the node restarts, what waits for events fails.
#[derive(Clone, Debug)]
pub struct Gated<N> {
    gate: Gate,
    node: N,
    connection: Arc<Mutex<Connection>>,
}

#[derive(Debug)]
struct Connection {
    to: SandboxNode,
    starts: u64,
}

impl<N> Gated<N> {
    /// A new connection to `node`, which is `to` or something around it.
    pub fn new(gate: Gate, node: N, to: SandboxNode) -> Gated<N> {
        let starts = to.starts();
        Gated { gate, node, connection: Arc::new(Mutex::new(Connection { to, starts })) }
    }

    /// Whether the node restarted since this was asked last.
    fn broke(&self) -> bool {
        let mut connection = lock(&self.connection);
        let starts = connection.to.starts();
        core::mem::replace(&mut connection.starts, starts) != starts
    }

    /// Waits for something that ends with the connection.
    async fn wait<T>(&self, effect: impl Future<Output = Result<T, NodeError>>) -> Result<T, NodeError> {
        let starts = lock(&self.connection).to.starts();
        let mut effect = pin!(effect);
        poll_fn(move |context| match effect.as_mut().poll(context) {
            Poll::Pending if lock(&self.connection).to.starts() != starts => Poll::Ready(away()),
            other => other,
        })
        .await
    }
}

impl<N: Wallet> Wallet for Gated<N> {
    async fn send_outputs(&self, outputs: &[TxOut], fee_rate: SatPerKw, label: &str) -> Result<Transaction, NodeError> {
        self.gate.pass("send_outputs", self.node.send_outputs(outputs, fee_rate, label), away).await
    }

    async fn find_payment(&self, output: &TxOut) -> Result<Option<(Transaction, OutPoint)>, NodeError> {
        self.gate.pass("find_payment", self.node.find_payment(output), away).await
    }

    async fn new_address(&self, kind: AddressKind) -> Result<ScriptBuf, NodeError> {
        self.gate.pass("new_address", self.node.new_address(kind), away).await
    }

    async fn confirmed_balance(&self) -> Result<Sats, NodeError> {
        self.gate.pass("confirmed_balance", self.node.confirmed_balance(), away).await
    }

    async fn publish(&self, transaction: &Transaction, label: &str) -> Result<(), NodeError> {
        self.gate.pass("publish", self.node.publish(transaction, label), away).await
    }

    async fn estimate_fee(&self, conf_target: u32) -> Result<SatPerKw, NodeError> {
        self.gate.pass("estimate_fee", self.node.estimate_fee(conf_target), away).await
    }

    async fn estimate_payment(&self, output: &TxOut, conf_target: u32) -> Result<Sats, NodeError> {
        self.gate.pass("estimate_payment", self.node.estimate_payment(output, conf_target), away).await
    }

    async fn fund_psbt(&self, template: &Psbt, sat_per_vbyte: u64) -> Result<FundedPsbt, NodeError> {
        self.gate.pass("fund_psbt", self.node.fund_psbt(template, sat_per_vbyte), away).await
    }

    async fn release(&self, lock: &CoinLock) -> Result<(), NodeError> {
        self.gate.pass("release", self.node.release(lock), away).await
    }

    async fn finalize_psbt(&self, psbt: &Psbt) -> Result<Transaction, NodeError> {
        self.gate.pass("finalize_psbt", self.node.finalize_psbt(psbt), away).await
    }

    async fn bump_fee(&self, outpoint: OutPoint, sat_per_vbyte: u64) -> Result<Bump, NodeError> {
        self.gate.pass("bump_fee", self.node.bump_fee(outpoint, sat_per_vbyte), away).await
    }

    async fn wallet_transactions(&self) -> Result<Vec<WalletTransaction>, NodeError> {
        self.gate.pass("wallet_transactions", self.node.wallet_transactions(), away).await
    }
}

impl<N: Signer> Signer for Gated<N> {
    async fn derive_next_key(&self, family: u32) -> Result<KeyDescriptor, NodeError> {
        self.gate.pass("derive_next_key", self.node.derive_next_key(family), away).await
    }

    async fn derive_key(&self, locator: KeyLocator) -> Result<KeyDescriptor, NodeError> {
        self.gate.pass("derive_key", self.node.derive_key(locator), away).await
    }

    async fn shared_secret(&self, other: &PublicKey, locator: KeyLocator) -> Result<SharedSecret, NodeError> {
        self.gate.pass("shared_secret", self.node.shared_secret(other, locator), away).await
    }

    async fn sign_message(&self, message: &[u8], locator: KeyLocator) -> Result<Vec<u8>, NodeError> {
        self.gate.pass("sign_message", self.node.sign_message(message, locator), away).await
    }

    async fn sign_input(&self, request: &SignInput) -> Result<Vec<u8>, NodeError> {
        self.gate.pass("sign_input", self.node.sign_input(request), away).await
    }

    async fn musig2_begin(&self, request: &Musig2Request) -> Result<(SessionId, PublicNonce), NodeError> {
        self.gate.pass("musig2_begin", self.node.musig2_begin(request), away).await
    }

    async fn musig2_register(&self, session: SessionId, other: &PublicNonce) -> Result<(), NodeError> {
        self.gate.pass("musig2_register", self.node.musig2_register(session, other), away).await
    }

    async fn musig2_sign(
        &self,
        session: SessionId,
        message: [u8; 32],
        last: bool,
    ) -> Result<PartialSignature, NodeError> {
        self.gate.pass("musig2_sign", self.node.musig2_sign(session, message, last), away).await
    }

    async fn musig2_combine(&self, session: SessionId, other: &PartialSignature) -> Result<[u8; 64], NodeError> {
        self.gate.pass("musig2_combine", self.node.musig2_combine(session, other), away).await
    }

    async fn musig2_cleanup(&self, session: SessionId) -> Result<(), NodeError> {
        self.gate.pass("musig2_cleanup", self.node.musig2_cleanup(session), away).await
    }
}

impl<N: Chain> Chain for Gated<N> {
    async fn best_height(&self) -> Result<BlockHeight, NodeError> {
        self.gate.pass("best_height", self.node.best_height(), away).await
    }

    async fn watch(&self, name: &str, watch: Watch) -> Result<(), NodeError> {
        self.gate.pass("watch", self.node.watch(name, watch), away).await
    }

    async fn unwatch(&self, name: &str) -> Result<(), NodeError> {
        self.gate.pass("unwatch", self.node.unwatch(name), away).await
    }

    async fn next_event(&self) -> Result<ChainEvent, NodeError> {
        let mut event = pin!(self.node.next_event());
        // The watches died with the node, whatever else it says.
        let connected =
            poll_fn(|context| if self.broke() { Poll::Ready(away()) } else { event.as_mut().poll(context) });
        self.gate.pass_event("next_event", connected, away).await
    }
}

impl<N: NodeData> NodeData for Gated<N> {
    async fn info(&self) -> Result<NodeInfo, NodeError> {
        self.gate.pass("info", self.node.info(), away).await
    }

    async fn channel_peers(&self) -> Result<Vec<NodeId>, NodeError> {
        self.gate.pass("channel_peers", self.node.channel_peers(), away).await
    }
}

impl<N: Channels> Channels for Gated<N> {
    async fn connect(&self, node: NodeId, addresses: &[NodeAddress]) -> Result<(), NodeError> {
        self.gate.pass("connect", self.node.connect(node, addresses), away).await
    }

    async fn online_peers(&self) -> Result<Vec<NodeId>, NodeError> {
        self.gate.pass("online_peers", self.node.online_peers(), away).await
    }

    async fn wait_online(&self, node: NodeId) -> Result<(), NodeError> {
        self.gate.pass("wait_online", self.wait(self.node.wait_online(node)), away).await
    }

    async fn register_shim(&self, shim: &FundingShim) -> Result<(), NodeError> {
        self.gate.pass("register_shim", self.node.register_shim(shim), away).await
    }

    async fn cancel_shim(&self, id: PendingChannelId) -> Result<(), NodeError> {
        self.gate.pass("cancel_shim", self.node.cancel_shim(id), away).await
    }

    async fn expect(&self, id: PendingChannelId, rule: AcceptorRule) -> Result<(), NodeError> {
        self.gate.pass("expect", self.node.expect(id, rule), away).await
    }

    async fn unexpect(&self, id: PendingChannelId) -> Result<(), NodeError> {
        self.gate.pass("unexpect", self.node.unexpect(id), away).await
    }

    async fn open(&self, request: &OpenChannel) -> Result<(), NodeError> {
        self.gate.pass("open", self.node.open(request), away).await
    }

    async fn wait_pending(&self, channel: OutPoint) -> Result<(), NodeError> {
        self.gate.pass("wait_pending", self.wait(self.node.wait_pending(channel)), away).await
    }

    async fn report(&self, channel: OutPoint) -> Result<ChannelInfo, NodeError> {
        self.gate.pass("report", self.node.report(channel), away).await
    }

    async fn abandon(&self, channel: OutPoint) -> Result<(), NodeError> {
        self.gate.pass("abandon", self.node.abandon(channel), away).await
    }

    async fn active_channels(&self) -> Result<Vec<(OutPoint, Sats)>, NodeError> {
        self.gate.pass("active_channels", self.node.active_channels(), away).await
    }
}

/// A store behind a gate: a commit fails before it is made, or it is made and nobody is told.
#[derive(Clone, Debug)]
pub struct FaultyStore<S> {
    gate: Gate,
    store: S,
}

impl<S> FaultyStore<S> {
    /// A store behind this gate.
    pub fn new(gate: Gate, store: S) -> FaultyStore<S> {
        FaultyStore { gate, store }
    }
}

fn broken<T>() -> Result<T, StoreError> {
    Err(StoreError::Failed { reason: "the medium failed".to_owned() })
}

impl<S: Store> Store for FaultyStore<S> {
    async fn load(&self, tables: &[&'static str]) -> Result<(Sequence, Vec<Row>), StoreError> {
        self.gate.pass("load", self.store.load(tables), broken).await
    }

    async fn apply(&self, expected: Sequence, changes: &[Change]) -> Result<Sequence, StoreError> {
        self.gate.pass("apply", self.store.apply(expected, changes), broken).await
    }
}
