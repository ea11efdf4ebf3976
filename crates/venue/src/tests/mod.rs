//! Whole flows over a simulated chain and node, with traders that judge the venue as strictly as real ones.

mod accounts;
mod batches;
mod bench;
mod changes;
mod deposits;
mod hanging;
mod invariants;
mod leases;
mod mail;
mod master;
mod misconduct;
mod mistakes;
pub(crate) mod orders;
mod trader;
