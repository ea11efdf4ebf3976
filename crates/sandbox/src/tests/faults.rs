//! Gates: what fails before and after its effect, what is late, and what is the last call of a process.

use super::{funded, now};
use crate::{Cut, Executor, FaultyStore, Gate, Gated, MemoryStore, Rates, SimClock};
use core::future::Future;
use core::pin::pin;
use futures_util::FutureExt;
use futures_util::future::{Either, select};
use tidegate_ports::{Chain, Change, Channels, Clock, NodeError, Sequence, Store, StoreError, Timestamp, Wallet};

const ALWAYS: u32 = 1_000_000;

fn gate(rates: Rates) -> (Executor, SimClock, Gate) {
    let executor = Executor::new(1, Timestamp(0));
    let clock = executor.clock();
    let gate = Gate::new(1, "test", clock.clone());
    gate.set_rates(rates);
    (executor, clock, gate)
}

fn put() -> Change {
    Change::Put { table: "t", key: "k".into(), value: "1".into() }
}

fn rows(store: &MemoryStore) -> usize {
    now(store.load(&["t"])).expect("loaded").1.len()
}

#[test]
fn a_commit_fails_before_it_is_made_or_after() {
    for (rates, made) in
        [(Rates { fail_before: ALWAYS, ..Rates::default() }, 0), (Rates { fail_after: ALWAYS, ..Rates::default() }, 1)]
    {
        let (_, _, gate) = gate(rates);
        let rows_of = MemoryStore::new();
        let store = FaultyStore::new(gate, rows_of.clone());
        let answer = now(store.apply(Sequence(0), &[put()]));
        assert!(matches!(answer, Err(StoreError::Failed { .. })), "{answer:?}");
        assert_eq!(rows(&rows_of), made);
    }
}

#[test]
fn a_healed_gate_lets_everything_pass() {
    let (_, _, gate) = gate(Rates { fail_before: ALWAYS, ..Rates::default() });
    let store = FaultyStore::new(gate.clone(), MemoryStore::new());
    assert!(now(store.apply(Sequence(0), &[put()])).is_err());
    gate.set_rates(Rates::default());
    assert_eq!(now(store.apply(Sequence(0), &[put()])), Ok(Sequence(1)));
    assert_eq!((gate.calls(), gate.last_call()), (2, "apply"));
}

#[test]
fn a_delay_lies_before_or_after_the_effect() {
    let delay = Rates { max_delay_ms: 50, ..Rates::default() };
    for (rates, at_once) in [(Rates { delay_before: ALWAYS, ..delay }, 0), (Rates { delay_after: ALWAYS, ..delay }, 1)]
    {
        let (mut executor, clock, gate) = gate(rates);
        let rows_of = MemoryStore::new();
        let store = FaultyStore::new(gate, rows_of.clone());
        let changes = [put()];
        let mut apply = Box::pin(store.apply(Sequence(0), &changes));
        assert!((&mut apply).now_or_never().is_none());
        assert_eq!(rows(&rows_of), at_once);
        assert_eq!(executor.run(apply), Ok(Ok(Sequence(1))));
        assert!((1..=50).contains(&clock.now().0), "{:?}", clock.now());
    }
}

/// Makes calls until the gate ends the process; how many rows it wrote.
fn lived(executor: &mut Executor, gate: &Gate, rows: &MemoryStore) -> u64 {
    let store = FaultyStore::new(gate.clone(), rows.clone());
    let changes = [put()];
    let life = async {
        let (mut at, _) = store.load(&[]).await.expect("loaded");
        loop {
            at = store.apply(at, &changes).await.expect("committed");
        }
    };
    let life: core::pin::Pin<&mut dyn Future<Output = Sequence>> = pin!(life);
    assert!(matches!(executor.run(select(pin!(gate.ended()), life)), Ok(Either::Left(_))));
    now(rows.load(&[])).expect("loaded").0.0
}

#[test]
fn a_process_ends_at_the_named_call_of_each_life() {
    let (mut executor, _, gate) = gate(Rates::default());
    let rows = MemoryStore::new();
    gate.set_cuts(&[Cut { calls: 3, after: false }, Cut { calls: 3, after: true }]);
    assert_eq!(lived(&mut executor, &gate, &rows), 2, "load, two commits, and the fourth call has no effect");
    assert!(gate.ended().now_or_never().is_some(), "dead until it is revived");
    gate.revive();
    assert_eq!(lived(&mut executor, &gate, &rows), 2 + 3, "the fourth call takes effect");
    gate.revive();
    let store = FaultyStore::new(gate.clone(), rows.clone());
    for at in 5..100 {
        assert!(now(store.apply(Sequence(at), &[put()])).is_ok(), "no cut is left");
    }
}

#[test]
fn a_killed_process_has_no_effect_any_more() {
    let (_, _, gate) = gate(Rates::default());
    let rows_of = MemoryStore::new();
    let store = FaultyStore::new(gate.clone(), rows_of.clone());
    gate.kill();
    assert!(store.apply(Sequence(0), &[put()]).now_or_never().is_none());
    assert_eq!(rows(&rows_of), 0);
}

#[test]
fn whoever_waits_on_a_node_that_restarts_is_told() {
    let (world, node) = funded(10_000);
    let other = world.add_node("bob");
    let (_, _, gate) = gate(Rates::default());
    let gated = Gated::new(gate.clone(), node.clone(), node.clone());
    let mut waiting = Box::pin(gated.wait_online(other.id()));
    assert!((&mut waiting).now_or_never().is_none());
    node.restart();
    assert!(matches!(now(waiting), Err(NodeError::Unreachable { .. })));
    assert!(matches!(now(gated.next_event()), Err(NodeError::Unreachable { .. })), "its watches died");
    assert!(gated.next_event().now_or_never().is_none(), "told once");
    let later = Gated::new(gate, node.clone(), node);
    assert!(later.next_event().now_or_never().is_none(), "a new connection is whole");
    assert!(now(later.confirmed_balance()).is_ok());
}
