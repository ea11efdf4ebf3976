//! A small executor: polls what is awake until nothing is, and advances the clock only when told to.

use futures_util::future::BoxFuture;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use tidegate_sandbox::ManualClock;

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

struct Task {
    name: String,
    future: BoxFuture<'static, String>,
    flag: Arc<Flag>,
}

/// Tasks that run whenever the test waits for something.
pub(crate) struct Sim {
    tasks: Vec<Task>,
    /// Name of each task that ended, and how.
    pub(crate) ended: Vec<(String, String)>,
    pub(crate) clock: ManualClock,
}

impl Sim {
    pub(crate) fn new(clock: ManualClock) -> Sim {
        Sim { tasks: Vec::new(), ended: Vec::new(), clock }
    }

    pub(crate) fn spawn(&mut self, name: &str, future: BoxFuture<'static, String>) {
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        self.tasks.push(Task { name: name.to_owned(), future, flag });
    }

    /// Drops a task as a crash would.
    pub(crate) fn kill(&mut self, name: &str) {
        self.tasks.retain(|task| task.name != name);
    }

    /// Polls all tasks until none is awake.
    pub(crate) fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut polled = false;
            let mut index = 0;
            while let Some(task) = self.tasks.get_mut(index) {
                if !task.flag.0.swap(false, Ordering::SeqCst) {
                    index += 1;
                    continue;
                }
                polled = true;
                let waker = Waker::from(Arc::clone(&task.flag));
                match task.future.as_mut().poll(&mut Context::from_waker(&waker)) {
                    Poll::Pending => index += 1,
                    Poll::Ready(outcome) => {
                        let task = self.tasks.remove(index);
                        self.ended.push((task.name, outcome));
                    }
                }
            }
            if !polled {
                return;
            }
        }
        panic!("the tasks never come to rest");
    }

    /// Advances the clock in small steps, letting everything settle in between.
    pub(crate) fn advance(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(1_000) {
            self.clock.advance(1_000);
            self.settle();
        }
    }

    /// Runs a future together with all tasks. The clock stands still.
    pub(crate) fn wait<T>(&mut self, future: impl Future<Output = T>) -> T {
        self.try_wait(future).expect("nothing is awake and the test still waits")
    }

    /// As [`Sim::wait`]; nothing when nobody is awake and the future still waits.
    pub(crate) fn try_wait<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        let flag = Arc::new(Flag::default());
        let waker = Waker::from(Arc::clone(&flag));
        loop {
            flag.0.store(false, Ordering::SeqCst);
            if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Some(value);
            }
            self.settle();
            if !flag.0.load(Ordering::SeqCst) {
                return None;
            }
        }
    }
}
