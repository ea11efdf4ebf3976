//! The pool client: accounts, orders, batches and channels, as flows over ports.
//!
//! [`trader`] makes a [`Handle`] and a [`Trader`]; [`Trader::run`] is the one task, driven by whatever runtime the shell
//! has. Inside, four flows run side by side and share a desk: commands and upkeep, the chain, the venue's stream, and
//! the writer, which alone changes the store.
//!
//! Never does: spawn, read a clock or random numbers of its own, let a signature go whose consequences are not durable.

mod accounts;
mod batch;
mod book;
mod close;
mod config;
mod desk;
mod error;
#[cfg(test)]
mod fixtures;
mod funding;
mod handle;
mod machine;
mod orders;
mod pending;
mod receipt;
mod run;
mod staging;
mod subscribe;
mod upkeep;
mod watch;

pub use book::{
    BatchRecord, Book, Lease, OrderEvent, OrderEventKind, Remains, Reserving, Settlement, StagedAccount, StagedBatch,
    StagedMatch, StagedOrder, Standing, TABLES,
};
pub use config::{CloseAccount, NewOrder, OpenAccount, Status, TraderConfig};
pub use error::{CancelError, CloseError, Gone, Halt, OpenError, Reaction, ReleaseError, SubmitError};
pub use handle::{Handle, trader};
pub use machine::{AccountEvent, Transition, next};
pub use receipt::{CommittedSpend, Receipt, ReleasedClose, release_batch, release_close};
pub use run::Trader;
