//! A clock that moves when told to.

use crate::wakers::{Wakers, lock};
use core::future::{Future, poll_fn};
use core::task::Poll;
use std::sync::{Arc, Mutex};
use tidegate_ports::{Clock, Timestamp};

/// Time for tests: stands still until [`ManualClock::advance`]. Clones share the time.
#[derive(Clone, Debug)]
pub struct ManualClock {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    now: Timestamp,
    wakers: Wakers,
}

impl ManualClock {
    /// A clock that shows `now`.
    pub fn new(now: Timestamp) -> ManualClock {
        ManualClock { inner: Arc::new(Mutex::new(Inner { now, wakers: Wakers::default() })) }
    }

    /// Moves the time `ms` milliseconds ahead and wakes every sleeper.
    pub fn advance(&self, ms: u64) {
        let woken = {
            let mut inner = lock(&self.inner);
            inner.now = inner.now.plus_ms(ms);
            inner.wakers.take()
        };
        woken.into_iter().for_each(core::task::Waker::wake);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        lock(&self.inner).now
    }

    fn sleep_until(&self, deadline: Timestamp) -> impl Future<Output = ()> + Send {
        poll_fn(move |context| {
            let mut inner = lock(&self.inner);
            if inner.now >= deadline {
                return Poll::Ready(());
            }
            inner.wakers.add(context.waker());
            Poll::Pending
        })
    }
}
