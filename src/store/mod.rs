//! Durable state in one SQLite file: the `Store` port of a live daemon.
//!
//! Does: one atomic compare-and-set per commit, write-ahead log, `synchronous = FULL`, so that a commit that was
//! reported survives a power cut. Never does: decide anything, or change a row outside of a commit.
//!
//! Two daemons on the same data: the second is refused when it opens (a lock file per owner, held by the operating
//! system for as long as the process lives). Where that lock does not work, e.g. on some network file systems, the
//! compare-and-set of the sequence refuses the write of whoever comes late.

mod lock;
mod sqlite;

pub use sqlite::{OpenError, SqliteStore};

#[cfg(test)]
mod tests;
