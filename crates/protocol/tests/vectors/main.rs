//! Golden vectors: every entry of every file that this package can judge.
//!
//! The folder is `tests/vectors` of the workspace, or the one named by `TIDEGATE_VECTORS_DIR` (a corpus with more entries of
//! the same form, in which files may be absent). Each test prints how many entries it judged.

// A broken entry is to fail the test that reads it, and a run says what it judged.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod accounts;
mod batch;
mod channels;
mod modifications;
mod money;
mod musig2;
mod orders;
mod strict;
mod support;
mod tickets;
