//! The batch stream: connecting, handshakes, and the conversation of the batches.
//!
//! One account is subscribed after the other, since deployed venues keep a single challenge per stream; messages about
//! batches may come in between. A lost stream is opened again with growing pauses; before accounts are subscribed anew,
//! the venue is asked what became of a batch that was signed.

use crate::batch;
use crate::book::{Book, OrderEventKind, Settlement, Standing};
use crate::desk::{Backoff, Desk};
use crate::error::Halt;
use crate::funding::{self, Refusal};
use crate::orders;
use crate::pending;
use crate::verified::Verified;
use bitcoin::Txid;
use bitcoin::hashes::Hash;
use core::convert::Infallible;
use core::future::poll_fn;
use core::task::Poll;
use futures_channel::mpsc;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, pin_mut, select_biased};
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;
use tidegate_ports::{
    ClientMessage, Clock, Entropy, LinkError, NodeError, ServerMessage, Signer, SubscribeErrorCode, Timestamp,
    TraderEnv, VenueLink,
};
use tidegate_protocol::account::AccountState;
use tidegate_protocol::auth::{AuthChallenge, CommitHash};
use tidegate_protocol::batch::{Finalize, Prepare, SignBegin};
use tidegate_protocol::keys::AccountKey;

/// Why the stream is not open (any more).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
enum Cut {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error("the venue shuts down: {0}")]
    Shutdown(String),
    #[error("the venue did not answer the handshake of account {0} in time")]
    Silent(AccountKey),
}

/// Accounts that take part in batches.
pub(crate) fn subscribable(book: &Book) -> BTreeSet<AccountKey> {
    let live = book.accounts.values().filter(|account| match account.state {
        AccountState::Open | AccountState::PendingBatch => true,
        AccountState::Initiated | AccountState::PendingOpen | AccountState::PendingUpdate | AccountState::Expired => {
            false
        }
        AccountState::PendingClosed | AccountState::Closed | AccountState::CanceledAfterRecovery => false,
        AccountState::ExpiredPendingUpdate => false,
    });
    live.map(|account| account.key()).collect()
}

/// Keeps the batch stream open for ever, and takes part in batches.
///
/// # Errors
/// None so far: whatever the venue does, the trader goes on.
pub(crate) async fn serve<E: TraderEnv>(env: &E, desk: &Desk) -> Result<Infallible, Halt> {
    let mut bell = desk.listen();
    let mut backoff = Backoff::new(&desk.config);
    pending::tidy(env, desk).await;
    learn_terms(env, desk).await;
    sync_orders(env, desk).await;
    let mut synchronised = true;
    loop {
        while desk.read(|book| subscribable(book).is_empty()) {
            pending::tidy(env, desk).await;
            bell.select_next_some().await;
        }
        let cut = match connect(env, desk, core::mem::take(&mut synchronised)).await {
            Ok(()) => Session::new(env, desk).run(&mut bell, &mut backoff).await,
            Err(cut) => cut,
        };
        desk.note(|moment| {
            moment.connected = false;
            moment.subscribed.clear();
        });
        tracing::warn!(reason = %cut, "the batch stream is closed");
        backoff.pause(env.clock()).await;
    }
}

/// Start: the terms decide how many confirmations an account waits for.
async fn learn_terms<E: TraderEnv>(env: &E, desk: &Desk) {
    let mut backoff = Backoff::new(&desk.config);
    loop {
        match env.link().terms().await {
            Ok(terms) => {
                desk.note(|moment| moment.terms = Some(terms));
                return desk.ring();
            }
            Err(error) => tracing::warn!(%error, "the venue's terms are not known"),
        }
        backoff.pause(env.clock()).await;
    }
}

/// Start: asks for the state of every active order before anything is subscribed.
///
/// # Source
/// Protocol notes, batch §1 "Start-up synchronisation".
async fn sync_orders<E: TraderEnv>(env: &E, desk: &Desk) {
    let mut backoff = Backoff::new(&desk.config);
    while let Err(error) = sync_once(env, desk).await {
        tracing::warn!(%error, "the state of the orders is not known");
        backoff.pause(env.clock()).await;
    }
}

/// Asks for the state of every active order.
///
/// # Errors
/// [`LinkError::Unreachable`]. One order that the venue cannot tell does not keep all others away: upkeep asks again.
async fn sync_once<E: TraderEnv>(env: &E, desk: &Desk) -> Result<(), LinkError> {
    let active = desk.read(|book| {
        let active = book.orders.values().filter(|own| !own.state.is_archived());
        active.map(|own| own.order.nonce).collect::<Vec<_>>()
    });
    for nonce in active {
        match orders::reconcile(env, desk, nonce).await {
            Ok(()) => {}
            Err(error @ LinkError::Unreachable { .. }) => return Err(error),
            Err(error) => {
                tracing::warn!(%nonce, %error, "the order's state is not known");
                desk.note(|moment| moment.doubt(nonce));
                desk.ring();
            }
        }
    }
    Ok(())
}

/// Probes the venue, settles what was pending, asks for the orders unless that was just done, and opens the stream:
/// accounts are subscribed when all of it is known.
async fn connect<E: TraderEnv>(env: &E, desk: &Desk, synchronised: bool) -> Result<(), Cut> {
    let terms = env.link().terms().await?;
    desk.note(|moment| moment.terms = Some(terms));
    desk.ring();
    pending::resolve(env, desk).await?;
    pending::tidy(env, desk).await;
    if !synchronised {
        sync_once(env, desk).await?;
    }
    env.link().connect().await?;
    desk.note(|moment| moment.connected = true);
    desk.ring();
    tracing::info!("the batch stream is open");
    Ok(())
}

/// A subscription under way.
#[derive(Clone, Copy, Debug)]
struct Handshake {
    account: AccountKey,
    nonce: [u8; 32],
    commit: CommitHash,
    deadline: Timestamp,
}

/// Where the current batch stands.
#[derive(Debug)]
enum Progress {
    /// No batch.
    Idle,
    /// Being verified, peers being reached.
    Preparing,
    /// Accepted; a request to sign may come.
    Accepted(Verified),
    /// Channels being opened, signatures being made.
    Signing,
    /// Signatures of this transaction left.
    Signed(Txid),
}

/// The end of a step.
enum Done {
    Prepared { batch_id: Vec<u8>, outcome: Result<Verified, Refusal> },
    Signed { batch_id: Vec<u8>, txid: Txid, outcome: Result<ClientMessage, Refusal> },
}

/// What a session waits for.
enum Event {
    Step(Done),
    Message(Result<ServerMessage, LinkError>),
    Look,
}

/// One open stream.
struct Session<'a, E: TraderEnv> {
    env: &'a E,
    desk: &'a Desk,
    handshake: Option<Handshake>,
    retry: BTreeMap<AccountKey, (Timestamp, Backoff)>,
    progress: Progress,
    step: Option<BoxFuture<'a, Done>>,
    /// A request to sign that came while the batch was still being verified: its turn is after the answer.
    asked: Option<Box<SignBegin>>,
}

impl<'a, E: TraderEnv> Session<'a, E> {
    fn new(env: &'a E, desk: &'a Desk) -> Session<'a, E> {
        Session {
            env,
            desk,
            handshake: None,
            retry: BTreeMap::new(),
            progress: Progress::Idle,
            step: None,
            asked: None,
        }
    }

    /// Runs until the stream ends, and says why it did.
    async fn run(&mut self, bell: &mut mpsc::Receiver<()>, backoff: &mut Backoff) -> Cut {
        loop {
            if let Err(cut) = self.subscribe_next().await {
                return cut;
            }
            let handled = match self.next_event(bell).await {
                Event::Step(done) => self.step_done(done).await,
                Event::Message(Ok(message)) => self.handle(message, backoff).await,
                Event::Message(Err(error)) => Err(error.into()),
                Event::Look => Ok(()),
            };
            if let Err(cut) = handled {
                return cut;
            }
        }
    }

    async fn next_event(&mut self, bell: &mut mpsc::Receiver<()>) -> Event {
        let deadline = self.deadline();
        let clock = self.env.clock();
        let timer = async move {
            match deadline {
                Some(at) => clock.sleep_until(at).await,
                None => core::future::pending().await,
            }
        }
        .fuse();
        let message = self.env.link().receive().fuse();
        let step = &mut self.step;
        let done = poll_fn(|context| match step.as_mut() {
            Some(future) => future.as_mut().poll(context),
            None => Poll::Pending,
        })
        .fuse();
        pin_mut!(timer, message, done);
        select_biased! {
            done = done => Event::Step(done),
            message = message => Event::Message(message),
            () = bell.select_next_some() => Event::Look,
            () = timer => Event::Look,
        }
    }

    /// When the session must look again by itself.
    fn deadline(&self) -> Option<Timestamp> {
        match &self.handshake {
            Some(handshake) => Some(handshake.deadline),
            None => self.retry.values().map(|(at, _)| *at).min(),
        }
    }

    /// Starts the next handshake, unless one is under way.
    async fn subscribe_next(&mut self) -> Result<(), Cut> {
        let now = self.env.clock().now();
        if let Some(handshake) = self.handshake {
            if now < handshake.deadline {
                return Ok(());
            }
            self.silent(handshake.account)?;
        }
        let wanted = self.desk.look(|book, moment| {
            let all = subscribable(book);
            all.difference(&moment.subscribed).copied().collect::<BTreeSet<_>>()
        });
        self.retry.retain(|account, _| wanted.contains(account));
        let due = |account: &AccountKey| self.retry.get(account).is_none_or(|(at, _)| *at <= now);
        let silent = self.desk.note(|moment| moment.silent.clone());
        let mut due: Vec<AccountKey> = wanted.into_iter().filter(due).collect();
        due.sort_by_key(|account| silent.contains(account));
        let Some(account) = due.into_iter().next() else { return Ok(()) };
        let nonce = self.env.entropy().draw();
        let commit = CommitHash::of(account, &nonce);
        let deadline = now.plus_ms(self.desk.config.step_timeout_ms);
        self.handshake = Some(Handshake { account, nonce, commit, deadline });
        self.send(ClientMessage::Commit { commit, version: self.desk.batch_version() }).await
    }

    /// The venue does not answer a handshake. As long as it answers for other accounts they go on, and this one is tried
    /// again later; else the stream is dead.
    fn silent(&mut self, account: AccountKey) -> Result<(), Cut> {
        self.handshake = None;
        let others = self.desk.note(|moment| {
            moment.silent.insert(account);
            !moment.subscribed.is_empty()
        });
        if !others {
            return Err(Cut::Silent(account));
        }
        tracing::warn!(%account, "the venue does not answer the handshake of the account");
        self.retry_later(account);
        Ok(())
    }

    fn retry_later(&mut self, account: AccountKey) {
        let now = self.env.clock().now();
        let (at, backoff) = self.retry.entry(account).or_insert_with(|| (now, Backoff::new(&self.desk.config)));
        *at = backoff.next(now);
    }

    /// The future borrows the ports only: a session holds a step, and may not be shared between threads.
    fn send(&self, message: ClientMessage) -> impl Future<Output = Result<(), Cut>> + Send + 'a {
        let env = self.env;
        async move { Ok(env.link().send(message).await?) }
    }

    async fn handle(&mut self, message: ServerMessage, backoff: &mut Backoff) -> Result<(), Cut> {
        match message {
            ServerMessage::Challenge { challenge, commit } => self.answer(challenge, commit).await,
            ServerMessage::Success { account } => {
                backoff.reset();
                self.subscribed(account);
                Ok(())
            }
            ServerMessage::Error { account, code, message } => self.refused(account, code, message),
            ServerMessage::Reserved { reservation, message } => {
                let account = reservation.reservation.trader;
                self.refused(Some(account), SubscribeErrorCode::IncompleteReservation, message)
            }
            ServerMessage::Account(recovered) => {
                tracing::warn!(account = %recovered.reservation.trader, "an account that nobody asked to recover");
                Ok(())
            }
            ServerMessage::Prepare(prepare) => {
                self.prepare(prepare);
                Ok(())
            }
            ServerMessage::Malformed { batch_id, reason } => {
                self.refuse(batch_id, Refusal::unknown(format!("the message does not parse: {reason}"))).await
            }
            ServerMessage::Sign(request) => self.sign(request).await,
            ServerMessage::Finalize(finalize) => {
                self.finalize(finalize).await;
                Ok(())
            }
        }
    }

    /// Second and third step of a handshake.
    async fn answer(&mut self, challenge: AuthChallenge, commit: CommitHash) -> Result<(), Cut> {
        let Some(handshake) = self.handshake.filter(|handshake| handshake.commit == commit) else {
            tracing::warn!("a challenge that nobody asked for");
            return Ok(());
        };
        let key = handshake.account;
        let Some(account) = self.desk.account(key) else { return Ok(()) };
        let digest = challenge.auth_hash(commit);
        let signature = match self.env.signer().sign_message(&digest, account.locator).await {
            Ok(signature) => signature,
            // One key that the node does not use must not keep the other accounts away.
            Err(error @ (NodeError::Refused { .. } | NodeError::BadAnswer { .. })) => {
                tracing::error!(account = %key, %error, "the node does not sign the handshake of the account");
                self.handshake = None;
                self.retry_later(key);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        self.send(ClientMessage::Subscribe { account: key, nonce: handshake.nonce, signature }).await
    }

    fn subscribed(&mut self, account: AccountKey) {
        tracing::info!(%account, "account subscribed");
        if self.handshake.is_some_and(|handshake| handshake.account == account) {
            self.handshake = None;
        }
        self.retry.remove(&account);
        if self.desk.account(account).is_some() {
            self.desk.note(|moment| {
                moment.silent.remove(&account);
                moment.subscribed.insert(account)
            });
        }
    }

    fn refused(&mut self, account: Option<AccountKey>, code: SubscribeErrorCode, message: String) -> Result<(), Cut> {
        match code {
            SubscribeErrorCode::ServerShutdown => return Err(Cut::Shutdown(message)),
            SubscribeErrorCode::Unknown
            | SubscribeErrorCode::AccountDoesNotExist
            | SubscribeErrorCode::IncompleteReservation => {}
        }
        let Some(account) = account.or(self.handshake.map(|handshake| handshake.account)) else { return Ok(()) };
        tracing::warn!(%account, ?code, message, "the venue does not subscribe the account");
        if self.handshake.is_some_and(|handshake| handshake.account == account) {
            self.handshake = None;
        }
        self.retry_later(account);
        // It may never have heard of the account: then it is told again.
        self.desk.note(|moment| moment.unannounced.insert(account));
        self.desk.ring();
        Ok(())
    }

    /// A proposal takes the place of whatever was under way.
    fn prepare(&mut self, prepare: Box<Prepare>) {
        let (env, desk) = (self.env, self.desk);
        let batch_id = prepare.batch_id.serialize().to_vec();
        tracing::info!(batch = %prepare.batch_id, txid = %prepare.transaction.compute_txid(), "batch proposed");
        self.progress = Progress::Preparing;
        self.asked = None;
        // The entries of a replaced proposal are not worth a commit of their own.
        self.desk.note(|moment| {
            moment.verified = None;
            moment.tally.proposed = moment.tally.proposed.saturating_add(1);
        });
        self.step =
            Some(async move { Done::Prepared { batch_id, outcome: batch::prepare(env, desk, prepare).await } }.boxed());
    }

    async fn sign(&mut self, request: Box<SignBegin>) -> Result<(), Cut> {
        let verified = match &self.progress {
            Progress::Accepted(verified) => verified.clone(),
            Progress::Signing => {
                tracing::warn!("asked to sign while signing");
                return Ok(());
            }
            // A repeated round has the same id, so a late answer to the earlier one may pass for ours.
            Progress::Preparing => {
                tracing::info!("asked to sign before the answer: first things first");
                self.asked = Some(request);
                return Ok(());
            }
            Progress::Idle | Progress::Signed(_) => {
                // Never a second signature: what was signed stays as it is, and nothing is undone for it.
                let refusal = Refusal::unknown("there is no accepted batch to sign");
                return self.send(batch::reject(request.batch_id, refusal)).await;
            }
        };
        let (env, desk) = (self.env, self.desk);
        let prepare = verified.batch.prepare();
        let (batch_id, txid) = (prepare.batch_id.serialize().to_vec(), prepare.transaction.compute_txid());
        self.progress = Progress::Signing;
        self.step = Some(
            async move {
                let outcome = batch::sign(env, desk, &verified, request).await;
                Done::Signed { batch_id, txid, outcome }
            }
            .boxed(),
        );
        Ok(())
    }

    async fn step_done(&mut self, done: Done) -> Result<(), Cut> {
        self.step = None;
        match done {
            Done::Prepared { outcome: Ok(mut verified), .. } => {
                verified.happened(self.env.clock().now(), OrderEventKind::Accepted);
                self.desk.note(|moment| {
                    moment.verified = Some(verified.clone());
                    moment.tally.accepted = moment.tally.accepted.saturating_add(1);
                });
                let batch_id = verified.batch.prepare().batch_id;
                self.progress = Progress::Accepted(verified);
                tracing::info!(batch = %batch_id, "batch accepted");
                self.send(ClientMessage::Accept { batch_id }).await?;
                match self.asked.take() {
                    Some(request) => self.sign(request).await,
                    None => Ok(()),
                }
            }
            Done::Signed { txid, outcome: Ok(signatures), .. } => {
                self.progress = Progress::Signed(txid);
                self.desk.note(|moment| {
                    moment.verified = None;
                    moment.tally.signed = moment.tally.signed.saturating_add(1);
                });
                self.send(signatures).await
            }
            Done::Prepared { batch_id, outcome: Err(refusal) }
            | Done::Signed { batch_id, outcome: Err(refusal), .. } => self.refuse(batch_id, refusal).await,
        }
    }

    /// Ends the current batch: shims go first, then the refusal.
    ///
    /// # Source
    /// Protocol notes, batch §7.
    async fn refuse(&mut self, batch_id: Vec<u8>, refusal: Refusal) -> Result<(), Cut> {
        self.step = None;
        self.asked = None;
        self.progress = Progress::Idle;
        for remains in self.desk.read(|book| book.remains.values().cloned().collect::<Vec<_>>()) {
            funding::cancel_shims(self.env, &remains).await;
        }
        let now = self.env.clock().now();
        self.desk.note(|moment| moment.tally.refuse(&refusal.reason));
        let events = self.desk.note(|moment| moment.verified.take()).map(|mut verified| {
            verified.happened(now, OrderEventKind::Rejected { reason: refusal.message.clone() });
            verified.events()
        });
        self.send(batch::reject(batch_id, refusal)).await?;
        self.desk.update(move |_| events.unwrap_or_default()).await;
        Ok(())
    }

    /// The venue says that a batch is final.
    ///
    /// # Source
    /// Protocol notes, batch §9.
    async fn finalize(&mut self, finalize: Finalize) {
        let Some(txid) = self.desk.read(|book| named(book, &finalize)) else {
            tracing::warn!(batch = %batch::hex(&finalize.batch_id), txid = %finalize.txid, "finalize without a signed batch");
            return;
        };
        // It may be an earlier batch of another account: then the one under way goes on, judged by the book when signed.
        if matches!(self.progress, Progress::Signed(signed) if signed == txid) {
            self.progress = Progress::Idle;
        }
        pending::settle(self.env, self.desk, txid, Settlement::Finalized).await;
    }
}

/// The signed batch that a finalize message names: both its id and its transaction must be right. The transaction's id
/// is accepted in either byte order.
fn named(book: &Book, finalize: &Finalize) -> Option<Txid> {
    let mut reversed = finalize.txid.to_byte_array();
    reversed.reverse();
    let candidates = [finalize.txid, Txid::from_byte_array(reversed)];
    let active = |txid: &Txid| {
        book.staged.get(txid).is_some_and(|batch| {
            batch.standing == Standing::Active && batch.batch_id.serialize().as_slice() == finalize.batch_id
        })
    };
    candidates.into_iter().find(active)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::book::{StagedBatch, Update};
    use crate::fixtures;

    #[test]
    fn a_finalize_must_name_batch_and_transaction_of_an_active_stage() {
        let staged = fixtures::staged_batch();
        let (txid, id) = (staged.txid(), staged.batch_id.serialize().to_vec());
        let mut book = Book::default();
        let finalize = |batch_id: &[u8], txid| Finalize { batch_id: batch_id.to_vec(), txid };
        assert_eq!(named(&book, &finalize(&id, txid)), None, "nothing signed");
        book.apply(Update::Stage(Box::new(staged.clone())));
        assert_eq!(named(&book, &finalize(&id, txid)), Some(txid));
        let mut bytes = txid.to_byte_array();
        bytes.reverse();
        assert_eq!(named(&book, &finalize(&id, Txid::from_byte_array(bytes))), Some(txid), "the other byte order");
        assert_eq!(named(&book, &finalize(&id[1..], txid)), None, "another batch");
        assert_eq!(named(&book, &finalize(&id, Txid::from_byte_array([1; 32]))), None, "another transaction");
        for standing in [Standing::Superseded, Standing::Booked] {
            book.apply(Update::Stage(Box::new(StagedBatch { standing, ..staged.clone() })));
            assert_eq!(named(&book, &finalize(&id, txid)), None, "{standing:?}");
        }
    }
}
