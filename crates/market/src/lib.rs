//! Pairing, clearing price, settlement and batch assembly: pure functions.
//!
//! Does: pairs sealed asks and bids per lease duration, prices each duration at its last accepted bid, computes every
//! account's ending balance, and assembles the one transaction that settles a batch.
//!
//! Never does: look at a clock, a file or a random number; decide who is online or banned (its caller hands it the
//! orders that may be matched).
//!
//! Invariants, checked by property tests: `ask <= price <= bid` for every pair; no order is filled beyond its open units
//! or below its smallest match; no excluded pair; durations do not influence each other; not a satoshi is lost.

mod clearing;
mod matching;
mod pairing;
mod settlement;
mod transaction;

pub use clearing::{Clearing, Plan, PlannedMarket, TICK_WORK, clear, clear_within, plan};
pub use matching::Meeting;
pub use pairing::{
    BookOrder, Conflicts, MAX_PAIRS, Market, Pair, PairingRules, accounts_differ, allowed_by_lists, announcement_fits,
    auction_equal, channel_type_equal, confirmation_fits, durations_equal, fill, nodes_differ, not_in_conflict,
    owners_differ, prices_cross, self_balance_fits, tier_suffices,
};
pub use settlement::{AccountValue, SettledAccount, Settlement, SettlementError, settle, settle_each};
pub use transaction::{
    AccountInput, Assembly, AssemblyError, AssemblyRequest, Channel, ExtraInput, OPERATOR_DUST, assemble,
};

#[cfg(test)]
mod equality;
#[cfg(test)]
mod pairing_tests;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod testkit;
#[cfg(test)]
mod worst;
