//! Time and randomness, as ports: flows have neither of their own.

use core::future::Future;
use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// This time plus `ms` milliseconds, at most the largest time.
    pub fn plus_ms(self, ms: u64) -> Timestamp {
        Timestamp(self.0.saturating_add(ms))
    }

    /// Seconds since the Unix epoch, rounded down.
    pub fn seconds(self) -> u64 {
        self.0 / 1000
    }
}

/// The time, and waiting for it.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;
    /// Returns at `deadline` or later.
    fn sleep_until(&self, deadline: Timestamp) -> impl Future<Output = ()> + Send;
}

/// Unpredictable bytes. An implementation never repeats a draw, also not after a restart.
pub trait Entropy: Send + Sync {
    /// 32 fresh bytes.
    fn draw(&self) -> [u8; 32];
}
