//! Golden vectors: every entry of every file that this package can judge.
//!
//! The folder is `tests/vectors` of the workspace, or the one named by `TIDEGATE_VECTORS_DIR` (a corpus with more entries of
//! the same form, in which files may be absent). Each test prints how many entries it judged; tests that break a vector in
//! a known place always start from our own.

// A broken entry is to fail the test that reads it, and a run says what it judged.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod accounts;
mod batch;
mod channels;
mod later;
mod local;
mod modifications;
mod money;
mod musig2;
mod orders;
mod strict;
mod support;
mod tickets;

/// A folder may hold other files; that nobody reads them is said.
#[test]
fn files_that_nobody_reads_are_named() {
    let folder = std::fs::read_dir(support::folder()).unwrap();
    let names: Vec<String> = folder.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    for name in names.iter().filter(|name| name.ends_with(".json") && !support::FILES.contains(&name.as_str())) {
        println!("{name}: not a file of vectors, not read");
    }
    if std::env::var_os("TIDEGATE_VECTORS_DIR").is_none() {
        assert!(support::FILES.iter().all(|file| names.iter().any(|name| name == file)), "{names:?}");
    }
}
