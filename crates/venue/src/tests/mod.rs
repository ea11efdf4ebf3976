//! Whole flows over a simulated chain and node, with traders that judge the venue as strictly as real ones.

mod accounts;
mod batches;
mod bench;
mod misconduct;
pub(crate) mod orders;
mod trader;
