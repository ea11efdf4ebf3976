//! What the flows of one trader share: the book, what is known for the moment, and the way to the writer.
//!
//! The flows of a trader run side by side in one task. They read the book at any time, under a lock that is never held
//! across an await; they change it only by sending an edit to the writer, which judges it against the book as it is
//! then, makes it durable, and only then true. A flow that is cut loses its answer, never a commit.

use crate::book::{Book, Update};
use crate::config::TraderConfig;
use crate::error::Halt;
use crate::movements;
use crate::ratings::ToldRating;
use crate::receipt::{self, Receipt};
use crate::tally::BatchTally;
use crate::turns;
use crate::verified::Verified;
use bitcoin::Txid;
use core::convert::Infallible;
use core::future::{pending, poll_fn};
use futures_channel::{mpsc, oneshot};
use futures_util::StreamExt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tidegate_ports::{Clock, NodeError, NodeInfo, Sequence, Store, Terms, Timestamp};
use tidegate_protocol::account::Account;
use tidegate_protocol::batch::BatchVersion;
use tidegate_protocol::keys::{AccountKey, NodeId, OrderNonce};
use tidegate_protocol::units::BlockHeight;

/// What is known now, and is asked anew after a restart.
#[derive(Debug, Default)]
pub(crate) struct Moment {
    /// Number of the store's last commit.
    pub(crate) sequence: Sequence,
    /// The book was read.
    pub(crate) ready: bool,
    /// The trader ended.
    pub(crate) ended: bool,
    /// Best height.
    pub(crate) best_height: Option<BlockHeight>,
    /// The venue's terms when last asked.
    pub(crate) terms: Option<Terms>,
    /// Our node.
    pub(crate) node: Option<NodeInfo>,
    /// The batch stream is open.
    pub(crate) connected: bool,
    /// Accounts that take part in batches.
    pub(crate) subscribed: BTreeSet<AccountKey>,
    /// When our node told that an account's output confirmed.
    pub(crate) confirmed: BTreeMap<AccountKey, Timestamp>,
    /// Orders whose state at the venue is unknown, with the number of the latest doubt.
    pub(crate) unsure: BTreeMap<OrderNonce, u64>,
    /// Doubts so far.
    pub(crate) doubts: u64,
    /// Orders on their way to the venue: that it does not know one of them yet says nothing.
    pub(crate) sending: BTreeSet<OrderNonce>,
    /// Accounts for which the venue did not answer a handshake in time: the others come first.
    pub(crate) silent: BTreeSet<AccountKey>,
    /// Partly filled orders that the venue dropped, and whose rest is to be placed again.
    pub(crate) dropped: BTreeSet<OrderNonce>,
    /// Orders that were ended, or signed anew, because the venue's fee rose above what they agreed to.
    pub(crate) outgrown: u64,
    /// Transactions of ours that the node refused when they were published last, and why.
    pub(crate) refused: BTreeMap<Txid, String>,
    /// Accounts that the venue did not know when we subscribed them.
    pub(crate) unannounced: BTreeSet<AccountKey>,
    /// What the venue said about nodes since the start.
    pub(crate) ratings: BTreeMap<NodeId, ToldRating>,
    /// What became of proposals since the start.
    pub(crate) tally: BatchTally,
    /// The batch under way, once it is verified and until it is signed or refused.
    pub(crate) verified: Option<Verified>,
}

impl Moment {
    /// What the venue did with the order is not known.
    pub(crate) fn doubt(&mut self, nonce: OrderNonce) {
        self.doubts += 1;
        self.unsure.insert(nonce, self.doubts);
    }

    /// The venue told. A doubt that arose after it was asked stays: the answer may be older than what raised it.
    pub(crate) fn resolve(&mut self, nonce: OrderNonce, doubt: Option<u64>) {
        if self.unsure.get(&nonce).copied() == doubt {
            self.unsure.remove(&nonce);
        }
    }
}

struct State {
    book: Book,
    moment: Moment,
    listeners: Vec<mpsc::Sender<()>>,
}

type Edit = Box<dyn FnOnce(&Book) -> Option<Vec<Update>> + Send>;

/// An edit on its way to the writer.
pub(crate) struct Write {
    edit: Edit,
    done: oneshot::Sender<Receipt>,
}

/// Edits that wait for the writer at most; the flows wait beyond that.
const WRITES: usize = 16;

pub(crate) struct Desk {
    pub(crate) config: TraderConfig,
    state: Mutex<State>,
    writes: mpsc::Sender<Write>,
}

impl Desk {
    /// A desk with an empty book, and the writer's end.
    pub(crate) fn new(config: TraderConfig) -> (Desk, mpsc::Receiver<Write>) {
        let (writes, receiver) = mpsc::channel(WRITES);
        let state = State { book: Book::default(), moment: Moment::default(), listeners: Vec::new() };
        (Desk { config, state: Mutex::new(state), writes }, receiver)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere does not make plain data wrong: all changes are single assignments of finished values.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the book.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Book) -> T) -> T {
        read(&self.lock().book)
    }

    /// Reads book and moment together.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Book, &Moment) -> T) -> T {
        let state = self.lock();
        look(&state.book, &state.moment)
    }

    /// Changes what is known for the moment.
    pub(crate) fn note<T>(&self, note: impl FnOnce(&mut Moment) -> T) -> T {
        note(&mut self.lock().moment)
    }

    /// Remembers whether the node took a transaction of ours.
    pub(crate) fn published(&self, txid: Txid, refusal: Option<&NodeError>) {
        self.note(|moment| match refusal {
            Some(error) => moment.refused.insert(txid, error.to_string()),
            None => moment.refused.remove(&txid),
        });
    }

    /// The account, as the book has it now.
    pub(crate) fn account(&self, key: AccountKey) -> Option<Account> {
        self.read(|book| book.accounts.get(&key).cloned())
    }

    /// The batch version that we speak with this node.
    ///
    /// # Source
    /// Protocol notes, batch §4.
    pub(crate) fn batch_version(&self) -> BatchVersion {
        const ZERO_CONF: u32 = 0x10;
        let zero_conf = self.note(|moment| moment.node.as_ref().is_some_and(|node| node.zero_conf));
        let wanted = self.config.batch_version.0;
        BatchVersion(if zero_conf { wanted } else { wanted & !ZERO_CONF })
    }

    /// A bell that rings after each commit and each [`Desk::ring`].
    pub(crate) fn listen(&self) -> mpsc::Receiver<()> {
        let (bell, receiver) = mpsc::channel(1);
        self.lock().listeners.push(bell);
        receiver
    }

    /// Rings all bells: something changed that the other flows may want to look at.
    pub(crate) fn ring(&self) {
        self.lock().listeners.retain_mut(|bell| match bell.try_send(()) {
            Ok(()) => true,
            // Full means that the listener has not looked since the last ring, and will.
            Err(error) => error.is_full(),
        });
    }

    /// Judges an edit against the book, makes it durable, then true.
    ///
    /// # Errors
    /// What the edit refuses with. A failing store does not return: the trader halts.
    pub(crate) async fn commit<T, X, F>(&self, edit: F) -> Result<(T, Receipt), X>
    where
        F: FnOnce(&Book) -> Result<(Vec<Update>, T), X> + Send + 'static,
        T: Send + 'static,
        X: Send + 'static,
    {
        let (verdict, judged) = oneshot::channel();
        let (done, receipt) = oneshot::channel();
        let edit: Edit = Box::new(move |book| match edit(book) {
            Ok((updates, value)) => {
                // Nobody waits when the flow was cut; the commit stands all the same.
                drop(verdict.send(Ok(value)));
                Some(updates)
            }
            Err(refusal) => {
                drop(verdict.send(Err(refusal)));
                None
            }
        });
        self.send(Write { edit, done }).await;
        match judged.await {
            Ok(Ok(value)) => match receipt.await {
                Ok(receipt) => Ok((value, receipt)),
                Err(oneshot::Canceled) => pending().await,
            },
            Ok(Err(refusal)) => Err(refusal),
            Err(oneshot::Canceled) => pending().await,
        }
    }

    /// Commits updates that nothing refuses.
    pub(crate) async fn update<F>(&self, edit: F) -> Receipt
    where
        F: FnOnce(&Book) -> Vec<Update> + Send + 'static,
    {
        match self.commit::<(), Infallible, _>(move |book| Ok((edit(book), ()))).await {
            Ok(((), receipt)) => receipt,
            Err(never) => match never {},
        }
    }

    async fn send(&self, write: Write) {
        let mut writes = self.writes.clone();
        let open = poll_fn(|context| writes.poll_ready(context)).await.is_ok();
        if !open || writes.start_send(write).is_err() {
            // The writer is gone: the trader is ending and drops this flow.
            pending::<()>().await;
        }
    }

    /// Reads the book from the store.
    ///
    /// # Errors
    /// [`Halt::Store`].
    pub(crate) async fn load<S: Store>(&self, store: &S) -> Result<Sequence, Halt> {
        let (sequence, rows) = store.load(&crate::book::TABLES).await?;
        let book = Book::from_rows(&rows)?;
        let mut state = self.lock();
        state.book = book;
        state.moment.sequence = sequence;
        Ok(sequence)
    }

    /// The writer: one edit after the other. Returns only when the store fails.
    pub(crate) async fn write<S: Store, C: Clock>(
        &self,
        store: &S,
        clock: &C,
        mut sequence: Sequence,
        mut writes: mpsc::Receiver<Write>,
    ) -> Halt {
        loop {
            let Some(write) = writes.next().await else { return pending().await };
            let edited = {
                let state = self.lock();
                (write.edit)(&state.book).map(|mut updates| {
                    updates.extend(movements::of(&state.book, &updates));
                    updates.extend(turns::of(&state.book, &updates, clock.now()));
                    (state.book.rows(&updates), updates)
                })
            };
            let Some((changes, updates)) = edited else { continue };
            match receipt::commit(store, sequence, &changes, &updates).await {
                Ok(receipt) => {
                    sequence = receipt.sequence();
                    let changed = !updates.is_empty();
                    let mut state = self.lock();
                    state.moment.sequence = sequence;
                    updates.into_iter().for_each(|update| state.book.apply(update));
                    drop(state);
                    drop(write.done.send(receipt));
                    if changed {
                        self.ring();
                    }
                }
                Err(error) => return Halt::Store(error),
            }
        }
    }
}

/// Growing pauses between attempts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    min_ms: u64,
    max_ms: u64,
    next_ms: u64,
}

impl Backoff {
    pub(crate) fn new(config: &TraderConfig) -> Backoff {
        let min_ms = config.reconnect_min_ms.max(1);
        Backoff { min_ms, max_ms: config.reconnect_max_ms.max(min_ms), next_ms: min_ms }
    }

    /// When to try again; each call doubles the pause.
    pub(crate) fn next(&mut self, now: Timestamp) -> Timestamp {
        let at = now.plus_ms(self.next_ms);
        self.next_ms = self.next_ms.saturating_mul(2).min(self.max_ms);
        at
    }

    /// Success: the next pause is short again.
    pub(crate) fn reset(&mut self) {
        self.next_ms = self.min_ms;
    }

    /// Waits for the next attempt.
    pub(crate) async fn pause<C: Clock>(&mut self, clock: &C) {
        let at = self.next(clock.now());
        clock.sleep_until(at).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_maximum_and_start_over() {
        let config = TraderConfig { reconnect_min_ms: 5, reconnect_max_ms: 12, ..TraderConfig::default() };
        let mut backoff = Backoff::new(&config);
        let pauses: Vec<u64> = (0..4).map(|_| backoff.next(Timestamp(100)).0 - 100).collect();
        assert_eq!(pauses, [5, 10, 12, 12]);
        backoff.reset();
        assert_eq!(backoff.next(Timestamp(0)), Timestamp(5));
    }

    #[test]
    fn a_doubt_that_arose_while_the_venue_was_asked_stays() {
        let (nonce, mut moment) = (OrderNonce::new([1; 32]), Moment::default());
        moment.doubt(nonce);
        let first = moment.unsure.get(&nonce).copied();
        moment.resolve(nonce, None);
        assert!(moment.unsure.contains_key(&nonce), "asked before the first doubt");
        moment.resolve(nonce, first);
        assert!(moment.unsure.is_empty());
        moment.doubt(nonce);
        moment.resolve(nonce, first);
        assert!(moment.unsure.contains_key(&nonce), "asked before the second doubt");
    }
}
