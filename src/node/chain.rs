//! The chain through lnd's notifier.
//!
//! One task follows the blocks, one task follows each watch; all feed one bounded queue. When lnd goes away a task
//! registers again, with growing pauses, until lnd is back: nothing is lost, since lnd looks back to the height hint,
//! and blocks continue after the last one told. When the queue is full the tasks wait, and lnd buffers.
//!
//! Order: a confirmation or a spend is told after the block in which it happened. When a reorganisation of the chain
//! undoes it, the watch goes on and tells the event again, perhaps with another height or transaction; the undoing
//! itself is only logged, and the repeated event may come before the new block.

use super::LndNode;
use super::background::{Background, Backoff, Task};
use super::convert::{array, transaction, unsendable};
use super::error::{bad_answer, is_temporary};
use super::link::Link;
use super::permissions::{REGISTER_BLOCKS, REGISTER_CONFIRMATIONS, REGISTER_SPEND};
use bitcoin::hashes::Hash;
use bitcoin::{Transaction, Txid};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tidegate_ports::{Chain, ChainEvent, NodeError, Watch};
use tidegate_protocol::units::BlockHeight;
use tidegate_wire::lnd::chainrpc::{
    BlockEpoch, ConfDetails, ConfRequest, Outpoint, SpendDetails, SpendRequest, conf_event, spend_event,
};
use tokio::sync::{mpsc, watch};

/// Events that wait for the consumer before the tasks wait too.
const QUEUE: usize = 256;
/// Depths that lnd's notifier takes.
const CONFIRMATIONS: std::ops::RangeInclusive<u32> = 1..=144;

/// The tasks and the queue between them and the one consumer.
pub(super) struct ChainHub {
    queue: mpsc::Sender<Item>,
    /// Locked for as long as the one consumer waits.
    events: tokio::sync::Mutex<mpsc::Receiver<Item>>,
    tip: watch::Receiver<u32>,
    watches: Mutex<Watches>,
}

#[derive(Default)]
struct Watches {
    /// Tells a watch from an earlier one of the same name.
    started: u64,
    running: BTreeMap<String, (u64, Task)>,
}

/// A name and the number under which its watch was started.
type Source = (Arc<str>, u64);

struct Item {
    /// Nothing for blocks.
    source: Option<Source>,
    event: Result<ChainEvent, NodeError>,
}

impl ChainHub {
    /// Starts to follow the blocks.
    pub(super) fn start(link: &Link, background: &Background) -> ChainHub {
        let (queue, events) = mpsc::channel(QUEUE);
        let (told, tip) = watch::channel(0);
        background.spawn(follow_blocks(link.clone(), queue.clone(), told));
        ChainHub { queue, events: tokio::sync::Mutex::new(events), tip, watches: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Watches> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next event of a watch that still runs, or of the blocks.
    async fn next(&self) -> Result<ChainEvent, NodeError> {
        let mut events = self.events.lock().await;
        loop {
            let item = events.recv().await.expect("this hub holds a sender too");
            // Events of a watch that was replaced or ended since are void.
            if item.source.as_ref().is_none_or(|source| self.is_current(source)) {
                return item.event;
            }
        }
    }

    /// Whether the watch of this event still runs.
    fn is_current(&self, source: &Source) -> bool {
        self.lock().running.get(&*source.0).is_some_and(|(number, _)| *number == source.1)
    }
}

impl Chain for LndNode {
    async fn best_height(&self) -> Result<BlockHeight, NodeError> {
        Ok(BlockHeight::new(self.get_info().await?.block_height))
    }

    /// Watches from now on; a registration that fails is tried again until it succeeds, one that lnd refuses is
    /// also told by [`Chain::next_event`].
    async fn watch(&self, name: &str, watch: Watch) -> Result<(), NodeError> {
        let request = registration(watch)?;
        let hub = &self.inner.chain;
        let mut watches = hub.lock();
        watches.started = watches.started.saturating_add(1);
        let number = watches.started;
        let follower = Follower {
            link: self.inner.link.clone(),
            source: (Arc::from(name), number),
            queue: hub.queue.clone(),
            tip: hub.tip.clone(),
            told: None,
        };
        // An older task of this name ends as it is replaced.
        watches.running.insert(name.to_owned(), (number, Task::spawn(follower.follow(request))));
        Ok(())
    }

    async fn unwatch(&self, name: &str) -> Result<(), NodeError> {
        self.inner.chain.lock().running.remove(name);
        Ok(())
    }

    /// May be dropped at any time without losing an event.
    async fn next_event(&self) -> Result<ChainEvent, NodeError> {
        self.inner.chain.next().await
    }
}

/// What is asked of lnd's notifier.
#[derive(Clone)]
enum Registration {
    Confirmation(Txid, ConfRequest),
    Spend(SpendRequest),
}

fn registration(watch: Watch) -> Result<Registration, NodeError> {
    match watch {
        Watch::Confirmation { txid, script, confirmations, height_hint } => {
            if !CONFIRMATIONS.contains(&confirmations) || script.is_empty() {
                return Err(unsendable(REGISTER_CONFIRMATIONS, "1 to 144 confirmations and a script can be watched"));
            }
            let request = ConfRequest {
                txid: txid.to_byte_array().to_vec(),
                script: script.into_bytes(),
                num_confs: confirmations,
                height_hint: height_hint.get().max(1),
                include_block: false,
            };
            Ok(Registration::Confirmation(txid, request))
        }
        Watch::Spend { outpoint, script, height_hint } => {
            if script.is_empty() {
                return Err(unsendable(REGISTER_SPEND, "no script to watch"));
            }
            let hash = outpoint.txid.to_byte_array().to_vec();
            Ok(Registration::Spend(SpendRequest {
                outpoint: Some(Outpoint { hash, index: outpoint.vout }),
                script: script.into_bytes(),
                height_hint: height_hint.get().max(1),
            }))
        }
    }
}

/// The task of one watch.
struct Follower {
    link: Link,
    source: Source,
    queue: mpsc::Sender<Item>,
    tip: watch::Receiver<u32>,
    /// What was told last: the same event after a new registration is not told again, another one (after a
    /// reorganisation of the chain) is.
    told: Option<(u32, Txid)>,
}

impl Follower {
    async fn follow(mut self, request: Registration) {
        let mut backoff = Backoff::new();
        let mut complained = false;
        loop {
            let ended = match &request {
                Registration::Confirmation(txid, request) => self.confirmations(*txid, request).await,
                Registration::Spend(request) => self.spends(request).await,
            };
            let Err(error) = ended else { return };
            if !is_temporary(&error) && !complained {
                complained = true;
                self.send(Err(error.clone())).await;
            }
            backoff.pause(&self.source.0, &error).await;
        }
    }

    /// Returns when lnd is done with the watch.
    async fn confirmations(&mut self, txid: Txid, request: &ConfRequest) -> Result<(), NodeError> {
        let call = REGISTER_CONFIRMATIONS;
        let answer = self.link.notifier().register_confirmations_ntfn(request.clone()).await;
        let mut stream = answer.map_err(|status| self.link.error(call, &status))?.into_inner();
        loop {
            let message = stream.message().await.map_err(|status| self.link.error(call, &status))?;
            match message.map(|message| message.event) {
                Some(Some(conf_event::Event::Conf(details))) => {
                    self.confirmed(txid, request.num_confs, details).await?
                }
                Some(Some(conf_event::Event::Reorg(_))) => self.undone(),
                Some(None) => {}
                None => return self.stream_ended(call),
            }
        }
    }

    async fn confirmed(&mut self, txid: Txid, confirmations: u32, details: ConfDetails) -> Result<(), NodeError> {
        let found = transaction(REGISTER_CONFIRMATIONS, &details.raw_tx)?;
        if found.compute_txid() != txid {
            return Err(bad_answer(REGISTER_CONFIRMATIONS, "another transaction than the watched one"));
        }
        let height = details.block_height;
        let deep = height.saturating_add(confirmations.saturating_sub(1));
        let event = |name, height, transaction| ChainEvent::Confirmed { name, height, transaction };
        self.tell(height, deep, found, event).await;
        Ok(())
    }

    /// Returns when lnd is done with the watch.
    async fn spends(&mut self, request: &SpendRequest) -> Result<(), NodeError> {
        let call = REGISTER_SPEND;
        let answer = self.link.notifier().register_spend_ntfn(request.clone()).await;
        let mut stream = answer.map_err(|status| self.link.error(call, &status))?.into_inner();
        loop {
            let message = stream.message().await.map_err(|status| self.link.error(call, &status))?;
            match message.map(|message| message.event) {
                Some(Some(spend_event::Event::Spend(details))) => self.spent(request, details).await?,
                Some(Some(spend_event::Event::Reorg(_))) => self.undone(),
                Some(None) => {}
                None => return self.stream_ended(call),
            }
        }
    }

    async fn spent(&mut self, request: &SpendRequest, details: SpendDetails) -> Result<(), NodeError> {
        let spender = transaction(REGISTER_SPEND, &details.raw_spending_tx)?;
        let watched = request.outpoint.clone().unwrap_or_default();
        let txid = Txid::from_byte_array(array(REGISTER_SPEND, "a txid", &watched.hash)?);
        let spends =
            |input: &bitcoin::TxIn| input.previous_output.txid == txid && input.previous_output.vout == watched.index;
        if !spender.input.iter().any(spends) {
            return Err(bad_answer(REGISTER_SPEND, "a transaction that does not spend the watched output"));
        }
        let height = details.spending_height;
        let event = |name, height, transaction| ChainEvent::Spent { name, height, transaction };
        self.tell(height, height, spender, event).await;
        Ok(())
    }

    /// Tells an event of the block at `height` once the block at `due` has been told.
    async fn tell(
        &mut self,
        height: u32,
        due: u32,
        transaction: Transaction,
        event: impl FnOnce(String, BlockHeight, Transaction) -> ChainEvent,
    ) {
        let this = (height, transaction.compute_txid());
        if self.told == Some(this) {
            return;
        }
        // The sender ends only with the whole node.
        let _ = self.tip.wait_for(|tip| *tip >= due).await;
        self.send(Ok(event(self.source.0.to_string(), BlockHeight::new(height), transaction))).await;
        self.told = Some(this);
    }

    fn undone(&mut self) {
        tracing::warn!(watch = %self.source.0, told = ?self.told, "a reorganisation of the chain undid the event");
        self.told = None;
    }

    /// lnd ends a stream when the event is too deep to be undone, or with itself.
    fn stream_ended(&self, call: &'static str) -> Result<(), NodeError> {
        if self.told.is_some() {
            return Ok(());
        }
        let reason = format!("the node ended {call}");
        Err(NodeError::Unreachable { address: self.link.address().to_owned(), reason })
    }

    async fn send(&self, event: Result<ChainEvent, NodeError>) {
        // The receiver ends only with the whole node.
        let _ = self.queue.send(Item { source: Some(self.source.clone()), event }).await;
    }
}

async fn follow_blocks(link: Link, queue: mpsc::Sender<Item>, told: watch::Sender<u32>) {
    let mut backoff = Backoff::new();
    let mut last: Option<BlockEpoch> = None;
    loop {
        let error = match blocks_after(&link, &mut last, &queue, &told).await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        if !is_temporary(&error) {
            // It may be our last block that lnd does not like.
            last = None;
            let _ = queue.send(Item { source: None, event: Err(error.clone()) }).await;
        }
        backoff.pause("blocks", &error).await;
    }
}

/// Tells every block after `last`, and raises the tip; ends only with an error.
async fn blocks_after(
    link: &Link,
    last: &mut Option<BlockEpoch>,
    queue: &mpsc::Sender<Item>,
    told: &watch::Sender<u32>,
) -> Result<std::convert::Infallible, NodeError> {
    let from = last.clone().unwrap_or_default();
    let answer = link.notifier().register_block_epoch_ntfn(from).await;
    let mut stream = answer.map_err(|status| link.error(REGISTER_BLOCKS, &status))?.into_inner();
    loop {
        let block = link.next(REGISTER_BLOCKS, &mut stream).await?;
        if last.as_ref() == Some(&block) {
            continue;
        }
        let event = Ok(ChainEvent::Block { height: BlockHeight::new(block.height) });
        let _ = queue.send(Item { source: None, event }).await;
        told.send_replace(block.height);
        *last = Some(block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::link::Gate;
    use crate::node::permissions::Role;
    use bitcoin::{OutPoint, ScriptBuf, absolute, transaction};
    use futures_util::FutureExt as _;

    /// A hub without tasks, a link to nowhere, and the end of the tip that the blocks' task holds.
    fn hub() -> (ChainHub, Link, watch::Sender<u32>) {
        let channel = tonic::transport::Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
        let link = Link::new(channel, Gate::new(b"x", Role::Trader), "127.0.0.1:1");
        let (queue, events) = mpsc::channel(QUEUE);
        let (told, tip) = watch::channel(0);
        let watches = Mutex::default();
        (ChainHub { queue, events: tokio::sync::Mutex::new(events), tip, watches }, link, told)
    }

    fn follower(hub: &ChainHub, link: &Link, name: &str, number: u64) -> Follower {
        let (queue, tip) = (hub.queue.clone(), hub.tip.clone());
        hub.lock().running.insert(name.to_owned(), (number, Task::spawn(std::future::pending())));
        Follower { link: link.clone(), source: (Arc::from(name), number), queue, tip, told: None }
    }

    fn a_transaction(lock_time: u32) -> Transaction {
        let lock_time = absolute::LockTime::from_consensus(lock_time);
        Transaction { version: transaction::Version::TWO, lock_time, input: vec![], output: vec![] }
    }

    fn conf(height: u32, transaction: &Transaction) -> ConfDetails {
        let raw_tx = bitcoin::consensus::encode::serialize(transaction);
        ConfDetails { raw_tx, block_height: height, ..ConfDetails::default() }
    }

    #[tokio::test]
    async fn a_confirmation_waits_for_its_block_and_is_told_once() {
        let (hub, link, told) = hub();
        let mut watch = follower(&hub, &link, "account", 1);
        let transaction = a_transaction(0);
        let txid = transaction.compute_txid();
        {
            let early = watch.confirmed(txid, 3, conf(10, &transaction));
            let mut early = std::pin::pin!(early);
            assert!(early.as_mut().now_or_never().is_none(), "three deep at height 12");
            assert!(hub.next().now_or_never().is_none());
            told.send_replace(12);
            early.await.expect("told");
        }
        watch.confirmed(txid, 3, conf(10, &transaction)).await.expect("the same after a new registration");
        watch.undone();
        watch.confirmed(txid, 3, conf(10, &transaction)).await.expect("again after a reorganisation");
        let height = BlockHeight::new(10);
        let event = Ok(ChainEvent::Confirmed { name: "account".to_owned(), height, transaction });
        assert_eq!((hub.next().await, hub.next().await), (event.clone(), event));
        assert!(hub.next().now_or_never().is_none());
    }

    #[tokio::test]
    async fn foreign_transactions_are_refused() {
        let (hub, link, _told) = hub();
        let mut watch = follower(&hub, &link, "account", 1);
        let other = watch.confirmed(a_transaction(1).compute_txid(), 1, conf(0, &a_transaction(2))).await;
        assert!(matches!(other, Err(NodeError::BadAnswer { .. })), "{other:?}");
        let request =
            SpendRequest { outpoint: Some(Outpoint { hash: vec![1; 32], index: 0 }), ..SpendRequest::default() };
        let raw_spending_tx = bitcoin::consensus::encode::serialize(&a_transaction(3));
        let other = watch.spent(&request, SpendDetails { raw_spending_tx, ..SpendDetails::default() }).await;
        assert!(matches!(other, Err(NodeError::BadAnswer { .. })), "{other:?}");
        assert!(hub.next().now_or_never().is_none());
    }

    #[tokio::test]
    async fn events_of_replaced_and_ended_watches_are_void() {
        let (hub, link, _told) = hub();
        let mut old = follower(&hub, &link, "account", 1);
        let mut ended = follower(&hub, &link, "ended", 2);
        let transaction = a_transaction(0);
        for watch in [&mut old, &mut ended] {
            watch.confirmed(transaction.compute_txid(), 1, conf(0, &transaction)).await.expect("told");
        }
        let mut new = follower(&hub, &link, "account", 3);
        hub.lock().running.remove("ended");
        assert!(hub.next().now_or_never().is_none());
        new.confirmed(transaction.compute_txid(), 1, conf(0, &transaction)).await.expect("told");
        assert!(matches!(hub.next().await, Ok(ChainEvent::Confirmed { name, .. }) if name == "account"));
    }

    #[test]
    fn watches_that_lnd_would_refuse_are_refused_at_once() {
        let (txid, height_hint) = (a_transaction(0).compute_txid(), BlockHeight::new(0));
        let confirmation =
            |confirmations, script| registration(Watch::Confirmation { txid, script, confirmations, height_hint });
        let script = ScriptBuf::from_bytes(vec![0x51]);
        assert!(confirmation(0, script.clone()).is_err() && confirmation(145, script.clone()).is_err());
        assert!(confirmation(3, ScriptBuf::new()).is_err());
        let outpoint = OutPoint { txid, vout: 1 };
        assert!(registration(Watch::Spend { outpoint, script: ScriptBuf::new(), height_hint }).is_err());
        let Ok(Registration::Confirmation(_, request)) = confirmation(3, script) else { panic!("lnd takes it") };
        assert_eq!((request.num_confs, request.height_hint), (3, 1), "lnd refuses height hint 0");
    }
}
