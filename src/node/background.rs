//! Tasks that live as long as the connection, and how they wait between attempts.

use std::future::Future;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tidegate_ports::NodeError;
use tokio::task::{JoinHandle, JoinSet};

/// Pause after the first failure.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause: an lnd that is back is noticed within this time.
const LAST_PAUSE: Duration = Duration::from_secs(10);
/// An attempt that held this long was a success.
const SUCCESS: Duration = Duration::from_secs(30);

/// Tasks that end when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Background {
    tasks: Mutex<JoinSet<()>>,
}

impl Background {
    /// Starts a task.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        // A panic elsewhere leaves the set usable.
        self.tasks.lock().unwrap_or_else(std::sync::PoisonError::into_inner).spawn(task);
    }
}

/// One task that ends when this is dropped.
#[derive(Debug)]
pub(super) struct Task(JoinHandle<()>);

impl Task {
    /// Starts a task.
    pub(super) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Task {
        Task(tokio::spawn(task))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Doubling pauses between attempts to reach the node; after a long success they start anew.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
    last: Instant,
}

impl Backoff {
    /// Starts with the shortest pause.
    pub(super) fn new() -> Backoff {
        Backoff { next: FIRST_PAUSE, last: Instant::now() }
    }

    /// Notes why an attempt ended and waits, longer each time. The first failure of a row is a warning.
    pub(super) async fn pause(&mut self, what: &str, error: &NodeError) {
        let pause = self.length(self.last.elapsed());
        if pause == FIRST_PAUSE {
            tracing::warn!(what, %error, "lnd is away; trying again until it is back");
        } else {
            tracing::debug!(what, %error, "lnd is still away");
        }
        tokio::time::sleep(pause).await;
        self.last = Instant::now();
    }

    /// How long to wait after an attempt that took `attempt`.
    fn length(&mut self, attempt: Duration) -> Duration {
        let pause = if attempt > SUCCESS { FIRST_PAUSE } else { self.next };
        self.next = pause.saturating_mul(2).min(LAST_PAUSE);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit_and_start_anew_after_success() {
        let mut backoff = Backoff::new();
        let pauses: Vec<f64> = (0..7).map(|_| backoff.length(Duration::ZERO).as_secs_f64()).collect();
        assert_eq!(pauses, [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]);
        assert_eq!(backoff.length(SUCCESS * 2), FIRST_PAUSE);
        assert_eq!(backoff.length(Duration::ZERO), FIRST_PAUSE * 2);
    }
}
