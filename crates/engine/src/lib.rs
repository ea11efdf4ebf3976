//! Market view, valuation, fill estimates, the `Strategy` trait, the risk gate, the decision journal and the ledger.
//!
//! Does: turns what was observed into decisions, approves them against limits, and says why. Everything is synchronous
//! and pure: the same inputs give the same decisions on every machine.
//!
//! Never does: read a clock, a file or a socket; sign; keep money as a float. Floats appear only in statistics (fill
//! probabilities, yields) and never leave as an amount without a named rounding.
//!
//! Invariants: only [`gate::RiskGate`] makes an [`gate::Approved`]; a decision at time *t* sees only data whose
//! `seen_at` is not after *t* ([`view::MarketView::as_of`]).

pub mod driver;
pub mod exposure;
pub mod fill;
mod float;
pub mod gate;
pub mod journal;
pub mod ledger;
pub mod strategy;
pub mod valuation;
pub mod view;
pub mod windows;
pub mod yields;
