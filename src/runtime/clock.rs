//! The operating system's clock.

use core::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tidegate_ports::{Clock, Timestamp};

/// Wall-clock time and tokio's timer.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        // A clock before 1970 reads as 1970; a clock beyond the year 500 million saturates.
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Timestamp(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
    }

    fn sleep_until(&self, deadline: Timestamp) -> impl Future<Output = ()> + Send {
        let wait = Duration::from_millis(deadline.0.saturating_sub(self.now().0));
        tokio::time::sleep(wait)
    }
}

/// A clock of the sandbox: time passes only when the market is told so, and waits last as long as they say.
///
/// A simulated day passes in an instant, while timeouts between real tasks keep their real length.
#[derive(Clone, Debug)]
pub struct SteppedClock {
    now_ms: Arc<AtomicU64>,
}

impl SteppedClock {
    /// A clock that shows `start`.
    pub fn new(start: Timestamp) -> SteppedClock {
        SteppedClock { now_ms: Arc::new(AtomicU64::new(start.0)) }
    }

    /// Lets `ms` milliseconds pass.
    pub fn advance(&self, ms: u64) {
        self.now_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for SteppedClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.now_ms.load(Ordering::SeqCst))
    }

    fn sleep_until(&self, deadline: Timestamp) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(Duration::from_millis(deadline.0.saturating_sub(self.now().0)))
    }
}
