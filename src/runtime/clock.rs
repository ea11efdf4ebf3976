//! The operating system's clock.

use core::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tidegate_ports::{Clock, Timestamp};

/// A difference between the wall clock and our own time that is told, in milliseconds.
const JUMP_MS: u64 = 5_000;
/// How often the wall clock jumped.
static JUMPS: AtomicU64 = AtomicU64::new(0);
/// The time of this process.
static SHOWN: Mutex<Option<(Shown, Instant)>> = Mutex::new(None);

/// Wall-clock time that never goes back, and tokio's timer. All parts of a process share the time.
///
/// When somebody sets the system's clock back, deadlines of the old time would be hours away and things would seem to
/// happen before their causes: so the process goes on with its own time until the system's catches up. A jump ahead (or
/// a suspended machine that wakes) is followed; a wait that has begun still lasts as long as it was to last. Both are
/// told in the log.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    /// How often the system's clock was found set by more than 5 seconds, either way, since the start.
    pub fn jumps() -> u64 {
        JUMPS.load(Ordering::Relaxed)
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        // A clock before 1970 reads as 1970; a clock beyond the year 500 million saturates.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let wall_ms = millis(wall);
        let mut place = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let (shown, started) = place.get_or_insert_with(|| (Shown::new(wall_ms), Instant::now()));
        let jump = shown.advance(wall_ms, millis(started.elapsed()));
        let now = Timestamp(shown.now_ms);
        drop(place);
        if let Some(jump) = jump {
            JUMPS.fetch_add(1, Ordering::Relaxed);
            jump.tell();
        }
        now
    }

    fn sleep_until(&self, deadline: Timestamp) -> impl Future<Output = ()> + Send {
        let wait = Duration::from_millis(deadline.0.saturating_sub(self.now().0));
        tokio::time::sleep(wait)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What the wall clock did between two looks, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Jump {
    Ahead(u64),
    Back(u64),
}

impl Jump {
    fn tell(self) {
        match self {
            Jump::Ahead(ms) => tracing::warn!(
                seconds = ms / 1000,
                "the system's clock jumped ahead, and this process follows it: check the time service if this machine did \
                 not sleep"
            ),
            Jump::Back(ms) => tracing::warn!(
                seconds = ms / 1000,
                "the system's clock was set back: this process goes on with its own time until the clock catches up; \
                 check the time service"
            ),
        }
    }
}

/// The time shown, and what it follows from.
#[derive(Clone, Copy, Debug)]
struct Shown {
    now_ms: u64,
    /// Steady time at which it was shown.
    steady_ms: u64,
    /// How far the wall clock was behind.
    behind_ms: u64,
}

impl Shown {
    fn new(wall_ms: u64) -> Shown {
        Shown { now_ms: wall_ms, steady_ms: 0, behind_ms: 0 }
    }

    /// The later of the wall clock and of what was shown before plus the steady time since.
    fn advance(&mut self, wall_ms: u64, steady_ms: u64) -> Option<Jump> {
        let due_ms = self.now_ms.saturating_add(steady_ms.saturating_sub(self.steady_ms));
        let behind_ms = due_ms.saturating_sub(wall_ms);
        let ahead_ms = wall_ms.saturating_sub(due_ms);
        let set_back_ms = behind_ms.saturating_sub(self.behind_ms);
        *self = Shown { now_ms: due_ms.max(wall_ms), steady_ms, behind_ms };
        if ahead_ms > JUMP_MS {
            Some(Jump::Ahead(ahead_ms))
        } else {
            (set_back_ms > JUMP_MS).then_some(Jump::Back(set_back_ms))
        }
    }
}

/// A clock of the sandbox: time passes when the market is told so, and while somebody waits; waits last as long as they
/// say.
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
        let now_ms = Arc::clone(&self.now_ms);
        let wait = Duration::from_millis(deadline.0.saturating_sub(self.now().0));
        async move {
            tokio::time::sleep(wait).await;
            // Whoever waited finds that it is time: else a retry that is due would never be.
            now_ms.fetch_max(deadline.0, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_700_000_000_000;
    const DAY: u64 = 86_400_000;

    #[test]
    fn time_never_goes_back_and_never_stands_still() {
        let mut shown = Shown::new(START);
        assert_eq!((shown.advance(START + 1_000, 1_000), shown.now_ms), (None, START + 1_000));
        // Set back by a day: told once, and our own time goes on at its pace.
        assert_eq!(shown.advance(START + 2_000 - DAY, 2_000), Some(Jump::Back(DAY)));
        assert_eq!(shown.now_ms, START + 2_000);
        for step in 3..100 {
            assert_eq!(shown.advance(START + step * 1_000 - DAY, step * 1_000), None, "told once");
            assert_eq!(shown.now_ms, START + step * 1_000);
        }
        // Set back again, then right again: nothing is repeated.
        assert_eq!(shown.advance(START + 100_000 - 3 * DAY, 100_000), Some(Jump::Back(2 * DAY)));
        assert_eq!((shown.advance(START + 101_000, 101_000), shown.now_ms), (None, START + 101_000));
    }

    #[tokio::test]
    async fn who_waited_on_a_stepped_clock_finds_that_it_is_time() {
        let clock = SteppedClock::new(Timestamp(START));
        clock.sleep_until(Timestamp(START + 3)).await;
        assert_eq!(clock.now(), Timestamp(START + 3));
        clock.advance(DAY);
        clock.sleep_until(Timestamp(START + 5)).await;
        assert_eq!(clock.now(), Timestamp(START + 3 + DAY), "never back");
    }

    #[test]
    fn a_jump_ahead_is_followed() {
        let mut shown = Shown::new(START);
        assert_eq!(shown.advance(START + DAY, 1_000), Some(Jump::Ahead(DAY - 1_000)));
        assert_eq!(shown.now_ms, START + DAY);
        assert_eq!((shown.advance(START + DAY + 500, 1_500), shown.now_ms), (None, START + DAY + 500));
        // Back to what is right: our time does not repeat the day.
        assert_eq!(shown.advance(START + 2_500, 2_500), Some(Jump::Back(DAY - 1_000)));
        assert_eq!(shown.now_ms, START + DAY + 1_500);
    }

    #[test]
    fn small_corrections_are_not_worth_a_word() {
        let mut shown = Shown::new(START);
        let mut last = START;
        for step in 1..1_000_u64 {
            // A wall clock that trembles by up to 4 seconds.
            let tremble = (step * 7_919) % 4_000;
            assert_eq!(shown.advance(START + step * 10_000 + tremble, step * 10_000), None);
            assert!(shown.now_ms > last);
            last = shown.now_ms;
        }
    }
}
