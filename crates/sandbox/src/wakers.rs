//! Tasks that wait for the state to change.

use core::task::Waker;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Wakers of the tasks that found nothing and want to look again. A task that went away costs one needless wake-up.
#[derive(Debug, Default)]
pub(crate) struct Wakers(Vec<Waker>);

impl Wakers {
    /// Remembers a task until the next change; a task is held once.
    pub(crate) fn add(&mut self, waker: &Waker) {
        if !self.0.iter().any(|known| known.will_wake(waker)) {
            self.0.push(waker.clone());
        }
    }

    /// All waiting tasks, to be woken after the lock is released.
    pub(crate) fn take(&mut self) -> Vec<Waker> {
        core::mem::take(&mut self.0)
    }
}

/// Locks, also after another holder panicked: that panic is the report, the rest of the world goes on.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
