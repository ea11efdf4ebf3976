//! The executor: order by seed, time only when nothing is awake, and a name for everything that is stuck.

use crate::{Executor, SimClock, Stuck};
use core::future::{pending, poll_fn};
use core::task::Poll;
use futures_util::future::{Either, select};
use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use tidegate_ports::{Clock, Timestamp};

const START: Timestamp = Timestamp(1_000);

type Log = Rc<RefCell<Vec<String>>>;

fn say(log: &Log, clock: &SimClock, what: &str) {
    log.borrow_mut().push(format!("{} {what}", clock.now().0));
}

/// Three tasks that sleep for the same times, and what they say in which order.
fn told(seed: u64) -> Vec<String> {
    let mut executor = Executor::new(seed, START);
    let log = Log::default();
    for name in ["a", "b", "c"] {
        let (clock, log) = (executor.clock(), Rc::clone(&log));
        executor.spawn(name, async move {
            for _ in 0..4 {
                say(&log, &clock, name);
                clock.sleep(10).await;
            }
        });
    }
    executor.run_until(Timestamp(2_000)).expect("nothing is stuck");
    assert_eq!(executor.clock().now(), Timestamp(2_000), "time passes although nobody waits for it");
    log.take()
}

#[test]
fn the_seed_decides_the_order_and_nothing_else() {
    assert_eq!(told(1), told(1));
    assert!((2..20).any(|seed| told(seed) != told(1)), "another seed, another order");
    for seed in 0..20 {
        let mut lines = told(seed);
        lines.sort();
        let expected: Vec<String> = [1_000, 1_010, 1_020, 1_030]
            .into_iter()
            .flat_map(|at| ["a", "b", "c"].map(|name| format!("{at} {name}")))
            .collect();
        assert_eq!(lines, expected, "everybody runs at every time");
    }
}

#[test]
fn time_moves_only_when_nothing_is_awake() {
    let mut executor = Executor::new(1, START);
    let clock = executor.clock();
    let sleeper = clock.clone();
    executor.spawn("sleeper", async move { sleeper.sleep(5).await });
    let mut yields = 0;
    let busy = poll_fn(|context| {
        yields += 1;
        context.waker().wake_by_ref();
        if yields == 100 { Poll::Ready(()) } else { Poll::Pending }
    });
    executor.run(busy).expect("it ends");
    assert_eq!((clock.now(), yields), (START, 100));
    executor.run(clock.clone().sleep(7)).expect("a timer is set");
    assert_eq!(clock.now(), Timestamp(1_007));
}

#[test]
fn who_waits_for_ever_is_named() {
    let mut executor = Executor::new(1, START);
    executor.spawn("alice", pending());
    executor.spawn("bob", pending());
    let found = executor.run(pending::<()>());
    assert_eq!(found, Err(Stuck::Deadlock { waiting: vec!["alice".into(), "bob".into()] }));
    assert_eq!(executor.run_until(Timestamp(9_000)), Ok(()), "waiting is no error while time may pass");
}

#[test]
fn who_runs_in_circles_is_named() {
    let mut executor = Executor::new(1, START);
    executor.spawn(
        "dizzy",
        poll_fn(|context| {
            context.waker().wake_by_ref();
            Poll::Pending
        }),
    );
    assert_eq!(executor.run_until(Timestamp(2_000)), Err(Stuck::Livelock { awake: vec!["dizzy".into()] }));
}

#[test]
fn a_sleep_that_is_given_up_moves_no_time() {
    let mut executor = Executor::new(1, START);
    let clock = executor.clock();
    let short = clock.clone();
    executor
        .run(async move {
            let (one, other) = (short.sleep(3), short.sleep(50));
            assert!(matches!(select(pin!(one), pin!(other)).await, Either::Left(_)));
        })
        .expect("the short one ends");
    assert_eq!(executor.run(pending::<()>()), Err(Stuck::Deadlock { waiting: Vec::new() }), "no timer is left");
    assert_eq!(clock.now(), Timestamp(1_003));
}

#[test]
fn a_killed_task_is_dropped_where_it_stands() {
    let mut executor = Executor::new(1, START);
    let (clock, log) = (executor.clock(), Log::default());
    let inner = (clock.clone(), Rc::clone(&log));
    let task = executor.spawn("victim", async move {
        say(&inner.1, &inner.0, "begins");
        inner.0.sleep(10).await;
        say(&inner.1, &inner.0, "ends");
    });
    executor.run_until(Timestamp(1_005)).expect("nothing is stuck");
    assert!(executor.is_running(task));
    executor.kill(task);
    executor.run_until(Timestamp(2_000)).expect("nothing is stuck");
    assert!(!executor.is_running(task));
    assert_eq!(log.take(), ["1000 begins"]);
    assert_eq!(Rc::strong_count(&log), 1, "what it held is dropped");
}
