//! The chain as a node's one consumer sees it: blocks in order, and watches.

use crate::chain::ChainState;
use crate::node::{SandboxNode, refused};
use core::future::{Future, poll_fn};
use core::task::Poll;
use std::collections::{BTreeMap, VecDeque};
use tidegate_ports::{Chain, ChainEvent, NodeError, Watch};
use tidegate_protocol::units::BlockHeight;

/// Watches and the consumer's position. Events are made when they are asked for, so that a node that nobody listens
/// to costs nothing.
#[derive(Debug)]
pub(crate) struct Watcher {
    /// Last height whose events were made.
    seen: u32,
    watches: BTreeMap<String, Watch>,
    queue: VecDeque<ChainEvent>,
}

impl Watcher {
    /// A consumer that starts after block `height`.
    pub(crate) fn new(height: u32) -> Watcher {
        Watcher { seen: height, watches: BTreeMap::new(), queue: VecDeque::new() }
    }

    /// Starts a watch, which fires at once for what happened up to the consumer's position.
    fn watch(&mut self, name: &str, watch: Watch, chain: &ChainState) {
        self.unwatch(name);
        match fired(name, &watch, chain, self.seen) {
            Some(event) => self.queue.push_back(event),
            None => {
                self.watches.insert(name.to_owned(), watch);
            }
        }
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
            let queue = &mut self.queue;
            self.watches.retain(|name, watch| match fired(name, watch, chain, seen) {
                Some(event) => {
                    queue.push_back(event);
                    false
                }
                None => true,
            });
        }
        self.queue.pop_front()
    }
}

/// The event of a watch whose condition holds at height `seen`. As in a real node, what lies below the hint is not
/// found.
fn fired(name: &str, watch: &Watch, chain: &ChainState, seen: u32) -> Option<ChainEvent> {
    let name = name.to_owned();
    match watch {
        Watch::Confirmation { txid, script, confirmations, height_hint } => {
            let (transaction, height) = chain.transaction(txid)?;
            let height = height?;
            let deep = height.checked_add(*confirmations)? <= seen.checked_add(1)?;
            let pays = transaction.output.iter().any(|output| output.script_pubkey == *script);
            let found = deep && pays && height >= height_hint.get();
            found.then(|| ChainEvent::Confirmed {
                name,
                height: BlockHeight::new(height),
                transaction: transaction.clone(),
            })
        }
        Watch::Spend { outpoint, script, height_hint } => {
            let (transaction, height) = chain.spender(outpoint)?;
            let height = height?;
            let pays = chain.coin(outpoint).is_some_and(|coin| coin.output.script_pubkey == *script);
            let found = height <= seen && pays && height >= height_hint.get();
            found.then(|| ChainEvent::Spent {
                name,
                height: BlockHeight::new(height),
                transaction: transaction.clone(),
            })
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
