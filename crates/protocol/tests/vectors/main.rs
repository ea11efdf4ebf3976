//! Golden vectors: every entry of every file that this package can judge.
//!
//! The folder is `tests/vectors` of the workspace, or the one named by `TIDEGATE_VECTORS_DIR` (a corpus with more entries of
//! the same form, in which files may be absent). Each test prints how many entries it judged.

mod accounts;
mod batch;
mod channels;
mod money;
mod musig2;
mod orders;
mod strict;
mod support;
