//! Deterministic simulation: traders, a venue, a chain and every fault, from one seed.
//!
//! Does: run the flows of real traders and of a real venue over ports that fail as a [`Plan`] says, on a virtual clock,
//! with every message through its bytes; watch what they sign; and compare their books with each other and with the chain
//! at all times and at rest. Never does: use a thread, a socket, the wall clock or randomness beyond the seed. The same
//! seed is the same run, poll by poll.

mod audit;
mod hub;
mod ledger;
mod link;
mod plan;
mod plant;
mod process;
mod record;
mod run;
mod script;
mod tally;
mod widen;

pub use hub::{Hub, Tamper, WireRates};
pub use plan::{
    AccountChange, NatureRates, Plan, PlannedBump, PlannedChange, PlannedOperator, PlannedOrder, PlannedTrader, rerun,
};
pub use plant::Plant;
pub use process::Party;
pub use record::{Record, Violations};
pub use run::{Failure, Report, Run, TraderParty, run, run_with, twice};
pub use tally::{Counts, Element};
