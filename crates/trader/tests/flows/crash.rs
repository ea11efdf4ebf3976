//! A trader that is cut at any of its commits, before or after, goes on from its store and arrives where it would have.

use crate::trade::{ALICE, BOB, Stage, batch_id};
use bitcoin::Transaction;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tidegate_ports::{Change, Channels, ClientMessage, Row, Sequence, Store, StoreError};
use tidegate_protocol::account::{AccountState, AccountVersion};
use tidegate_protocol::keys::AccountKey;
use tidegate_protocol::order::OrderState;
use tidegate_protocol::units::{BlockCount, Sats};
use tidegate_sandbox::MemoryStore;
use tidegate_trader::{OpenAccount, OpenError, SubmitError};

/// When a store stops answering.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crash {
    /// Commits that still succeed.
    commits: u32,
    /// Whether the commit in which it stops is made.
    made: bool,
}

/// A store whose owner can be cut at a commit.
#[derive(Clone, Default)]
pub(crate) struct CrashStore {
    rows: MemoryStore,
    crash: Arc<Mutex<Option<Crash>>>,
    writes: Arc<AtomicUsize>,
    /// The account whose watches the node of this store's owner refuses.
    refused: Arc<Mutex<Option<AccountKey>>>,
}

impl CrashStore {
    /// The account whose watches the node refuses, to be set.
    pub(crate) fn refused_watch(&self) -> Arc<Mutex<Option<AccountKey>>> {
        Arc::clone(&self.refused)
    }

    /// Commits that were made so far.
    pub(crate) fn writes(&self) -> usize {
        self.writes.load(Ordering::SeqCst)
    }

    pub(crate) fn arm(&self, crash: Option<Crash>) {
        *self.crash.lock().unwrap() = crash;
    }

    /// After this many commits more, the next one is neither made nor answered.
    pub(crate) fn stop_after(&self, commits: u32) {
        self.arm(Some(Crash { commits, made: false }));
    }

    /// After this many commits more, the next one is made, but its answer is lost.
    pub(crate) fn stop_made_after(&self, commits: u32) {
        self.arm(Some(Crash { commits, made: true }));
    }

    /// Whether the next commit is the one.
    fn stops(&self) -> Option<bool> {
        let mut crash = self.crash.lock().unwrap();
        let armed = crash.as_mut()?;
        match armed.commits.checked_sub(1) {
            Some(left) => {
                armed.commits = left;
                None
            }
            None => crash.take().map(|crash| crash.made),
        }
    }
}

impl Store for CrashStore {
    async fn load(&self, tables: &[&'static str]) -> Result<(Sequence, Vec<Row>), StoreError> {
        self.rows.load(tables).await
    }

    async fn apply(&self, expected: Sequence, changes: &[Change]) -> Result<Sequence, StoreError> {
        match self.stops() {
            None => {
                self.writes.fetch_add(1, Ordering::SeqCst);
                self.rows.apply(expected, changes).await
            }
            Some(made) => {
                if made {
                    self.rows.apply(expected, changes).await?;
                }
                std::future::pending().await
            }
        }
    }
}

/// Alice opens an account, however often she is cut.
fn open(stage: &mut Stage, who: &'static str, value: Sats) {
    let request =
        OpenAccount { value, expiry_blocks: BlockCount::new(4_000), version: AccountVersion::V2, fee_rate: None };
    for _ in 0..5 {
        let handle = stage.handle(who);
        match stage.sim.try_wait(async move { handle.open_account(request).await }) {
            Some(Ok(_) | Err(OpenError::InProgress(_))) => break,
            None => stage.restart(who),
            other => panic!("{other:?}"),
        }
        // The funding may be under way already, from the store.
        if stage.status(who).accounts.len() == 1 {
            break;
        }
    }
    // A commit of upkeep may be the one at which it is cut.
    stage.sim.advance(1_000);
    stage.mine(1);
    if stage.state(who) == AccountState::PendingOpen {
        stage.mine(2);
    }
    if stage.state(who) != AccountState::Open {
        stage.restart(who);
        stage.sim.advance(10_000);
        stage.mine(3);
    }
    assert_eq!(stage.state(who), AccountState::Open);
    assert_eq!(stage.status(who).accounts.len(), 1, "one account");
    assert_eq!(stage.payments(who), 1, "paid once");
}

fn submit(stage: &mut Stage, who: &'static str, rate: u32, units: u32) {
    for _ in 0..3 {
        let active = stage.status(who).orders.into_iter().filter(|own| own.state == OrderState::Submitted).count();
        if active == 1 {
            return;
        }
        let order = stage.new_order(who, rate, units, 1, 1_000);
        let handle = stage.handle(who);
        match stage.sim.try_wait(async move { handle.submit_order(order).await }) {
            Some(Ok(_)) => return,
            Some(Err(SubmitError::OutcomeUnknown { .. })) | None => {}
            other => panic!("{other:?}"),
        }
        stage.restart(who);
        stage.sim.advance(10_000);
    }
    panic!("no order in the book");
}

/// The venue proposes until both have signed. Each attempt has another transaction.
fn trade(stage: &mut Stage) -> (crate::venue::Made, Transaction) {
    let nonce = |stage: &mut Stage, who| {
        let orders = stage.status(who).orders;
        orders.iter().find(|own| own.state == OrderState::Submitted).unwrap().order.nonce
    };
    for attempt in 0..4 {
        let (ask, bid) = (nonce(stage, "alice"), nonce(stage, "bob"));
        let mut made = stage.venue.make(batch_id(1), ask, bid, 4, 800, 500 + attempt * 50);
        stage.venue.propose(&made);
        stage.sim.settle();
        let accepted = ["alice", "bob"].map(|who| matches!(stage.venue.heard(who), Some(ClientMessage::Accept { .. })));
        if accepted == [true, true] {
            let venue = stage.venue.clone();
            stage.sim.wait(venue.ask_to_sign(&mut made));
            stage.sim.settle();
            if stage.venue.all_signed(&made) {
                let transaction = stage.sim.wait(venue.complete(&made));
                return (made, transaction);
            }
            stage.venue.clear(&made);
        }
        stage.restart("alice");
        stage.sim.advance(16_000);
        stage.venue.clear(&made);
    }
    panic!("never signed");
}

/// One life in which alice is cut at the commit of this number. Says whether that commit was reached.
fn life(crash: Crash) -> bool {
    let mut stage = Stage::new();
    let store = stage.alice.store.clone();
    store.arm(Some(crash));
    // The node's identity is written at the start: the first commits come from there.
    stage.restart("alice");
    stage.sim.settle();
    let handle = stage.handle("alice");
    if stage.sim.try_wait(async move { handle.status().await }).is_none() {
        stage.restart("alice");
    }
    open(&mut stage, "alice", ALICE);
    open(&mut stage, "bob", BOB);
    submit(&mut stage, "alice", 700, 10);
    submit(&mut stage, "bob", 900, 4);
    let (made, transaction) = trade(&mut stage);
    stage.venue.publish_snapshot(&made);
    stage.venue.finalize(&made);
    stage.venue.book(&made);
    stage.sim.settle();
    stage.world.publish(&transaction).unwrap();
    stage.mine(4);
    let reached = store.crash.lock().unwrap().is_none();
    stage.restart("alice");
    stage.sim.advance(10_000);
    stage.mine(3);
    stage.assert_traded(&made);
    for who in ["alice", "bob"] {
        assert_eq!(stage.state(who), AccountState::Open, "{who} {crash:?}");
        assert!(stage.status(who).pending_batches.is_empty(), "{who} {crash:?}");
    }
    let node = stage.alice.node.clone();
    let active = stage.sim.wait(async move { node.active_channels().await }).unwrap();
    assert_eq!(active.len(), 1, "{crash:?}");
    reached
}

#[test]
fn a_trader_that_is_cut_at_any_commit_arrives_all_the_same() {
    for made in [false, true] {
        let reached = (0..40).take_while(|commits| life(Crash { commits: *commits, made })).count();
        assert!((8..40).contains(&reached), "every commit of a life was cut once: {reached}");
        println!("{reached} crash points, commit made: {made}");
    }
}
