//! Seeded bytes that are never drawn twice.

use bitcoin::hashes::{Hash, HashEngine, sha256};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tidegate_ports::Entropy;

/// `SHA256(tag || seed || start counter || draw number)`.
///
/// Whoever keeps data over a restart passes a start counter that was never used with this seed, so that a restart
/// repeats no nonce. Clones share the draw number. Predictable to who knows the seed: play money only.
#[derive(Clone, Debug)]
pub struct SandboxEntropy {
    seed: u64,
    start: u64,
    draws: Arc<AtomicU64>,
}

impl SandboxEntropy {
    /// The draws of the `start`-th start under `seed`.
    pub fn new(seed: u64, start: u64) -> SandboxEntropy {
        SandboxEntropy { seed, start, draws: Arc::new(AtomicU64::new(0)) }
    }

    /// As [`SandboxEntropy::new`], with draws of its own for each name.
    pub(crate) fn named(seed: u64, name: &str, start: u64) -> SandboxEntropy {
        let mut engine = sha256::Hash::engine();
        engine.input(b"tidegate sandbox participant");
        engine.input(&seed.to_be_bytes());
        engine.input(name.as_bytes());
        let hash = sha256::Hash::from_engine(engine).to_byte_array();
        let mut own = [0_u8; 8];
        own.copy_from_slice(&hash[..8]);
        SandboxEntropy::new(u64::from_be_bytes(own), start)
    }

    /// The start counter that this was made with.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// The next draw.
    pub(crate) fn next(&self) -> [u8; 32] {
        let draw = self.draws.fetch_add(1, Ordering::Relaxed);
        let mut engine = sha256::Hash::engine();
        engine.input(b"tidegate sandbox entropy");
        for number in [self.seed, self.start, draw] {
            engine.input(&number.to_be_bytes());
        }
        sha256::Hash::from_engine(engine).to_byte_array()
    }
}

impl Entropy for SandboxEntropy {
    fn draw(&self) -> [u8; 32] {
        self.next()
    }
}
