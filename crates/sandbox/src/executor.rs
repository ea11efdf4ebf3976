//! A deterministic executor: one thread, an order of polls drawn from a seed, and a clock of its own.
//!
//! Does: poll what is awake, in an order that the seed decides; when nothing is awake, move the clock to the next timer;
//! when there is no timer either, say who waits. Never does: use a thread, the wall clock or a runtime.

use crate::random::Random;
use crate::wakers::lock;
use core::future::Future;
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::task::Wake;
use thiserror::Error;
use tidegate_ports::{Clock, Timestamp};

/// Polls without any progress of time after which tasks are said to run in circles.
const MAX_POLLS_PER_INSTANT: u64 = 200_000;
/// Number of the future that [`Executor::run`] waits for.
const MAIN: u64 = 0;

/// Why an executor can not go on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Stuck {
    /// Nothing is awake and no timer is set.
    #[error("deadlock: nothing is awake and no timer is set; waiting: {}", waiting.join(", "))]
    Deadlock {
        /// Names of the waiting tasks.
        waiting: Vec<String>,
    },
    /// Tasks wake each other for ever while time stands still.
    #[error("livelock: {MAX_POLLS_PER_INSTANT} polls without a step of the clock; awake: {}", awake.join(", "))]
    Livelock {
        /// Names of the tasks that were awake.
        awake: Vec<String>,
    },
}

/// Name of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(u64);

struct Task {
    name: String,
    future: Pin<Box<dyn Future<Output = ()>>>,
    /// One for the life of the task, so that who waits for the same thing again is known as the same.
    waker: Waker,
}

type Ready = Arc<Mutex<BTreeSet<u64>>>;

/// Puts its task among those that are awake.
struct Alarm {
    task: u64,
    ready: Ready,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        lock(&self.ready).insert(self.task);
    }
}

/// Runs tasks. They need not be `Send`.
pub struct Executor {
    tasks: BTreeMap<u64, Task>,
    ready: Ready,
    clock: SimClock,
    random: Random,
    next: u64,
    polls: u64,
}

impl core::fmt::Debug for Executor {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Executor").field("tasks", &self.names()).field("polls", &self.polls).finish_non_exhaustive()
    }
}

impl Executor {
    /// An executor whose order of polls follows from `seed`, and whose clock shows `now`.
    pub fn new(seed: u64, now: Timestamp) -> Executor {
        Executor {
            tasks: BTreeMap::new(),
            ready: Ready::default(),
            clock: SimClock::new(now),
            random: Random::named(seed, "executor"),
            next: MAIN + 1,
            polls: 0,
        }
    }

    /// The clock that this executor moves.
    pub fn clock(&self) -> SimClock {
        self.clock.clone()
    }

    /// Polls made so far: a fingerprint of the schedule.
    pub fn polls(&self) -> u64 {
        self.polls
    }

    /// Adds a task; it is polled when the executor runs.
    pub fn spawn(&mut self, name: &str, future: impl Future<Output = ()> + 'static) -> TaskId {
        let id = self.next;
        self.next = self.next.saturating_add(1);
        let task = Task { name: name.to_owned(), future: Box::pin(future), waker: self.waker(id) };
        self.tasks.insert(id, task);
        lock(&self.ready).insert(id);
        TaskId(id)
    }

    /// Drops a task where it stands, as a crash would. A task that ended is no error.
    pub fn kill(&mut self, task: TaskId) {
        self.tasks.remove(&task.0);
    }

    /// Whether the task has not ended.
    pub fn is_running(&self, task: TaskId) -> bool {
        self.tasks.contains_key(&task.0)
    }

    /// Runs every task until the clock shows `deadline`. Nothing to do is no error: time passes.
    ///
    /// # Errors
    /// [`Stuck::Livelock`].
    pub fn run_until(&mut self, deadline: Timestamp) -> Result<(), Stuck> {
        loop {
            self.run_awake(None::<(Pin<&mut core::future::Pending<()>>, &Waker)>)?;
            match self.clock.next_timer().filter(|at| *at <= deadline) {
                Some(at) => self.clock.set(at),
                None => break,
            }
        }
        self.clock.set(deadline);
        Ok(())
    }

    /// Runs every task until `future` is ready; the others stay.
    ///
    /// # Errors
    /// [`Stuck`] by variant.
    pub fn run<T>(&mut self, future: impl Future<Output = T>) -> Result<T, Stuck> {
        let mut main = pin!(future);
        let waker = self.waker(MAIN);
        lock(&self.ready).insert(MAIN);
        loop {
            if let Some(value) = self.run_awake(Some((main.as_mut(), &waker)))? {
                return Ok(value);
            }
            match self.clock.next_timer() {
                Some(at) => self.clock.set(at),
                None => return Err(Stuck::Deadlock { waiting: self.names() }),
            }
        }
    }

    fn waker(&self, task: u64) -> Waker {
        Waker::from(Arc::new(Alarm { task, ready: Arc::clone(&self.ready) }))
    }

    fn names(&self) -> Vec<String> {
        self.tasks.values().map(|task| task.name.clone()).collect()
    }

    /// Polls until nothing is awake, or the main future is ready.
    fn run_awake<F: Future>(&mut self, mut main: Option<(Pin<&mut F>, &Waker)>) -> Result<Option<F::Output>, Stuck> {
        for _ in 0..MAX_POLLS_PER_INSTANT {
            let Some(id) = self.next_awake() else { return Ok(None) };
            if id == MAIN {
                if let Some((future, waker)) = &mut main
                    && let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(waker))
                {
                    return Ok(Some(value));
                }
                continue;
            }
            let Some(task) = self.tasks.get_mut(&id) else { continue };
            self.polls = self.polls.saturating_add(1);
            if task.future.as_mut().poll(&mut Context::from_waker(&task.waker)).is_ready() {
                self.tasks.remove(&id);
            }
        }
        let ready = lock(&self.ready).clone();
        let awake = ready.iter().filter_map(|id| self.tasks.get(id)).map(|task| task.name.clone()).collect();
        Err(Stuck::Livelock { awake })
    }

    /// Takes one of the tasks that are awake, by the seed.
    fn next_awake(&mut self) -> Option<u64> {
        let mut ready = lock(&self.ready);
        let count = u64::try_from(ready.len()).unwrap_or(u64::MAX);
        let index = usize::try_from(self.random.below(count)).unwrap_or(0);
        let id = ready.iter().nth(index).copied()?;
        ready.remove(&id);
        Some(id)
    }
}

/// The time of an [`Executor`]: it stands still while anything is awake. Clones share the time.
#[derive(Clone, Debug)]
pub struct SimClock {
    inner: Arc<Mutex<Times>>,
}

#[derive(Debug)]
struct Times {
    now: Timestamp,
    next: u64,
    /// Deadline and number of each sleep → who sleeps.
    timers: BTreeMap<(Timestamp, u64), Waker>,
}

impl SimClock {
    fn new(now: Timestamp) -> SimClock {
        SimClock { inner: Arc::new(Mutex::new(Times { now, next: 0, timers: BTreeMap::new() })) }
    }

    fn next_timer(&self) -> Option<Timestamp> {
        lock(&self.inner).timers.keys().next().map(|(at, _)| *at)
    }

    /// Moves the time forward, never back, and wakes whose time has come.
    fn set(&self, now: Timestamp) {
        let woken: Vec<Waker> = {
            let mut times = lock(&self.inner);
            times.now = times.now.max(now);
            let now = times.now;
            let later = times.timers.split_off(&(now.plus_ms(1), 0));
            core::mem::replace(&mut times.timers, later).into_values().collect()
        };
        woken.into_iter().for_each(Waker::wake);
    }

    /// Waits `ms` milliseconds.
    pub fn sleep(&self, ms: u64) -> impl Future<Output = ()> + Send + use<'_> {
        self.sleep_until(self.now().plus_ms(ms))
    }
}

/// A sleep. When it is given up its timer ends, so that no time passes for its sake.
struct Sleep<'c> {
    clock: &'c SimClock,
    deadline: Timestamp,
    /// Of the timer, once it is set.
    number: Option<u64>,
}

impl Future for Sleep<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let sleep = self.get_mut();
        let mut times = lock(&sleep.clock.inner);
        if times.now >= sleep.deadline {
            return Poll::Ready(());
        }
        let number = *sleep.number.get_or_insert(times.next);
        times.next = times.next.max(number.saturating_add(1));
        times.timers.insert((sleep.deadline, number), context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            lock(&self.clock.inner).timers.remove(&(self.deadline, number));
        }
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        lock(&self.inner).now
    }

    fn sleep_until(&self, deadline: Timestamp) -> impl Future<Output = ()> + Send {
        Sleep { clock: self, deadline, number: None }
    }
}
