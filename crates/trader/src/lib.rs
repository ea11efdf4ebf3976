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
mod changes;
mod close;
mod command;
mod config;
mod cosign;
mod desk;
mod error;
#[cfg(test)]
mod fixtures;
mod funding;
mod handle;
mod machine;
mod movements;
mod orders;
mod pending;
mod ratings;
mod receipt;
mod run;
mod staging;
mod status;
mod stuck;
mod subscribe;
mod tally;
mod turns;
mod upkeep;
mod verified;
mod watch;

pub use book::{
    BatchRecord, Book, ChangeKind, Lease, OrderEvent, OrderEventKind, OwnChange, Remains, Reserving, Settlement,
    StagedAccount, StagedBatch, StagedMatch, StagedOrder, Standing, TABLES,
};
pub use config::{
    AccountQuote, BumpAccount, CloseAccount, CloseTo, DepositAccount, FeeRise, Modified, NewOrder, OpenAccount,
    QuoteAccount, RenewAccount, TraderConfig, WithdrawAccount,
};
pub use error::{
    BumpError, CancelError, CloseError, Gone, Halt, ModifyError, OpenError, QuoteError, Reaction, ReleaseError,
    ReplaceError, SubmitError,
};
pub use handle::Handle;
pub use machine::{AccountEvent, OrderFate, Transition, next, next_order};
pub use ratings::ToldRating;
pub use receipt::{CommittedSpend, Receipt, Released, release_batch, release_change};
pub use run::{Trader, trader};
pub use status::{Status, Stuck, Waiting};
pub use tally::{BatchTally, Times, VERIFICATION_BOUNDS_MS};
pub use turns::{OrderLogEntry, OrderTurn};
