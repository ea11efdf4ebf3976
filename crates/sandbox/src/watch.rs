//! The chain as a node's one consumer sees it: blocks in order, and watches.

use crate::chain::ChainState;
use crate::node::{SandboxNode, refused};
use bitcoin::{Transaction, Txid};
use core::future::{Future, poll_fn};
use core::task::Poll;
use std::collections::{BTreeMap, VecDeque};
use tidegate_ports::{Chain, ChainEvent, NodeError, Watch};
use tidegate_protocol::units::BlockHeight;

/// Blocks under which a transaction is settled, and a watch that told it is done.
const MAX_REORGANISATION: u32 = 144;

/// Watches and the consumer's position. Events are made when they are asked for, so that a node that nobody listens
/// to costs nothing.
#[derive(Debug)]
pub(crate) struct Watcher {
    /// Last height whose events were made.
    seen: u32,
    watches: BTreeMap<String, Watching>,
    queue: VecDeque<ChainEvent>,
}

/// A watch, and what it said last: as in a real node it stays until it is ended, and says again what a reorganisation
/// undid.
#[derive(Debug)]
struct Watching {
    watch: Watch,
    /// Height and name of the transaction that was told.
    told: Option<(u32, Txid)>,
}

impl Watching {
    /// What it has to say at height `seen`, unless it said so already.
    fn news(&mut self, name: &str, chain: &ChainState, seen: u32) -> Option<ChainEvent> {
        let found = found(&self.watch, chain, seen);
        let told = core::mem::replace(&mut self.told, found.map(|(txid, _, height)| (height, txid)));
        let (txid, transaction, height) = found?;
        if told == Some((height, txid)) {
            return None;
        }
        let (name, height, transaction) = (name.to_owned(), BlockHeight::new(height), transaction.clone());
        Some(match &self.watch {
            Watch::Confirmation { .. } => ChainEvent::Confirmed { name, height, transaction },
            Watch::Spend { .. } => ChainEvent::Spent { name, height, transaction },
        })
    }

    /// Told so long ago that no reorganisation undoes it.
    fn is_settled(&self, seen: u32) -> bool {
        self.told.is_some_and(|(height, _)| seen.saturating_sub(height) > MAX_REORGANISATION)
    }
}

impl Watcher {
    /// A consumer that starts after block `height`.
    pub(crate) fn new(height: u32) -> Watcher {
        Watcher { seen: height, watches: BTreeMap::new(), queue: VecDeque::new() }
    }

    /// Starts a watch, which fires at once for what happened up to the consumer's position.
    fn watch(&mut self, name: &str, watch: Watch, chain: &ChainState) {
        self.unwatch(name);
        let mut watching = Watching { watch, told: None };
        self.queue.extend(watching.news(name, chain, self.seen));
        self.watches.insert(name.to_owned(), watching);
    }

    /// The chain was taken back to this height: what follows is told anew. What nobody read yet stays in the queue, as
    /// in a real node.
    pub(crate) fn rewind(&mut self, height: u32) {
        self.seen = self.seen.min(height);
    }

    /// Ends a watch; what it already said but nobody read is dropped too, so that no event of a replaced watch is
    /// taken for one of its successor.
    fn unwatch(&mut self, name: &str) {
        self.watches.remove(name);
        self.queue.retain(|event| match event {
            ChainEvent::Block { .. } => true,
            ChainEvent::Confirmed { name: of, .. } | ChainEvent::Spent { name: of, .. } => of != name,
        });
    }

    /// The next event: of each height first the block, then its watches by name.
    fn next(&mut self, chain: &ChainState) -> Option<ChainEvent> {
        if self.queue.is_empty() && self.seen < chain.height() {
            self.seen += 1;
            self.queue.push_back(ChainEvent::Block { height: BlockHeight::new(self.seen) });
            let seen = self.seen;
            for (name, watching) in &mut self.watches {
                self.queue.extend(watching.news(name, chain, seen));
            }
            self.watches.retain(|_, watching| !watching.is_settled(seen));
        }
        self.queue.pop_front()
    }
}

/// The transaction that a watch waits for, once its condition holds at height `seen`, with the height of its block. As
/// in a real node, what lies below the hint is not found.
fn found<'c>(watch: &Watch, chain: &'c ChainState, seen: u32) -> Option<(Txid, &'c Transaction, u32)> {
    match watch {
        Watch::Confirmation { txid, script, confirmations, height_hint } => {
            let (transaction, height) = chain.transaction(txid)?;
            let height = height?;
            let deep = height.checked_add(*confirmations)? <= seen.checked_add(1)?;
            let pays = transaction.output.iter().any(|output| output.script_pubkey == *script);
            (deep && pays && height >= height_hint.get()).then_some((*txid, transaction, height))
        }
        Watch::Spend { outpoint, script, height_hint } => {
            let (txid, transaction, height) = chain.spending(outpoint)?;
            let height = height?;
            let pays = chain.coin(outpoint).is_some_and(|coin| coin.output.script_pubkey == *script);
            (height <= seen && pays && height >= height_hint.get()).then_some((txid, transaction, height))
        }
    }
}

impl Chain for SandboxNode {
    async fn best_height(&self) -> Result<BlockHeight, NodeError> {
        Ok(self.world().height())
    }

    async fn watch(&self, name: &str, watch: Watch) -> Result<(), NodeError> {
        if let Watch::Confirmation { confirmations: 0, .. } = watch {
            return Err(refused("watch", "a confirmation watch needs at least 1 confirmation"));
        }
        self.change(|node, chain| node.watcher.watch(name, watch, chain));
        Ok(())
    }

    async fn unwatch(&self, name: &str) -> Result<(), NodeError> {
        self.change(|node, _| node.watcher.unwatch(name));
        Ok(())
    }

    fn next_event(&self) -> impl Future<Output = Result<ChainEvent, NodeError>> + Send {
        // An event leaves the queue only in the poll that returns it: dropping the future loses nothing.
        poll_fn(move |context| match self.wait(context.waker(), |node, chain| node.watcher.next(chain)) {
            Some(event) => Poll::Ready(Ok(event)),
            None => Poll::Pending,
        })
    }
}
