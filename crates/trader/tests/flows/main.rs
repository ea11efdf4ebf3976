//! Whole flows of traders against nodes with real keys, a chain that checks scripts, and a scripted auctioneer.

#![allow(missing_docs, clippy::indexing_slicing)]

mod sim;
mod trade;
mod venue;
