//! A chain that checks scripts, and nodes with real keys: seeded, in memory.
//!
//! Does: a [`World`] holds one chain and any number of nodes. Its transactions are checked by Bitcoin Core's own code
//! before they enter the mempool, its nodes implement the ports of a Lightning node (wallet, signer, chain, channels,
//! facts) with keys derived from the seed. [`MemoryStore`], [`SandboxEntropy`] and [`ManualClock`] are the remaining
//! ports for tests. An [`Executor`] drives flows by a seed, with a clock of its own; a [`Gate`] stands between a flow and
//! its ports, and lets calls fail, wait, or be the last that the flow makes.
//!
//! Never does: use a runtime, a socket, a file, the wall clock or the system's randomness; pass a lock across an await.
//!
//! Invariants: a transaction is known only when every input it spends existed and its scripts were satisfied; an
//! output is spent at most once; a MuSig2 session signs at most once; a restored world never repeats a nonce.
//!
//! Simulated, not real: peers are connected at once or not at all, no channel message is exchanged and no commitment
//! transaction exists; blocks have no header and no time, so that locks by time are never reached.

mod chain;
mod channels;
mod checkpoint;
mod clock;
mod consensus;
mod demand;
mod entropy;
mod executor;
mod faults;
mod keys;
mod node;
mod random;
mod signer;
mod snapshot;
mod store;
mod traffic;
mod wakers;
mod wallet;
mod watch;
mod world;

pub use chain::{Acceptance, BASE_SUBSIDY, COINBASE_MATURITY, GENESIS_HEIGHT, TxRefusal};
pub use channels::{CHANNEL_CONFIRMATIONS, OpenRefusal};
pub use checkpoint::{Checkpoint, Keeper, Planned};
pub use clock::ManualClock;
pub use consensus::ScriptRefusal;
pub use demand::{Demand, Traffic};
pub use entropy::SandboxEntropy;
pub use executor::{Executor, SimClock, Stuck, TaskId};
pub use faults::{Cut, FaultyStore, Gate, Gated, Rates};
pub use node::SandboxNode;
pub use random::Random;
pub use snapshot::{ChannelRecord, NodeSnapshot, RestoreError, WalletCounters, WorldSnapshot};
pub use store::MemoryStore;
pub use traffic::{ChannelUse, Lane};
pub use world::World;

#[cfg(test)]
mod tests;
