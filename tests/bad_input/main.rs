//! What goes wrong around a daemon: full and damaged disks, a clock that jumps, a node on another chain, behind or locked,
//! and a venue that speaks another version, sends garbage, floods or never answers. Each gets a sentence, a metric where
//! there is one, and the daemon comes to a safe rest.
//!
//! Needs no node: the real lnd's own refusals are in `tests/interop/bad_input.rs`, files and values in `tests/cli`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod admin;
mod clock;
mod disk;
mod lnd;
mod node;
#[path = "../cli/program.rs"]
#[allow(dead_code, reason = "shared with other tests, which look at more")]
mod program;
#[path = "../rig/mod.rs"]
#[allow(dead_code, reason = "shared with other tests, which look at more")]
mod rig;
mod venue;

use lnd::FakeLnd;
use program::{Bench, Daemon, NOBODY, Running, http};

/// A daemon's folder with this node in its configuration.
fn bench_at(daemon: Daemon, lnd: &FakeLnd) -> Bench {
    let bench = Bench::new(daemon);
    bench.write("tls.cert", &lnd.certificate);
    bench.set(&format!("[node]\naddress = \"{NOBODY}\""), &format!("[node]\naddress = \"{}\"", lnd.address));
    if daemon == Daemon::Agent {
        bench.set("decide_every_seconds = 60", "decide_every_seconds = 1");
    }
    bench
}

/// The value of a metric with exactly this name and these labels.
fn metric(running: &mut Running, name: &str) -> f64 {
    let address = running.status_address();
    let (code, body) = http("GET", address, "/metrics");
    assert_eq!(code, 200, "{body}");
    let line = body.lines().find(|line| line.rsplit_once(' ').is_some_and(|(found, _)| found == name));
    line.and_then(|line| line.rsplit_once(' ')).map_or(0.0, |(_, value)| value.parse().unwrap())
}

/// Looks until it holds.
fn until(running: &mut Running, what: &str, mut holds: impl FnMut(&mut Running) -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !holds(running) {
        assert!(std::time::Instant::now() < deadline, "it never came to this: {what}\n{}", running.stderr());
        assert!(running.runs(), "{what}: it ended\n{}", running.stderr());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// The daemon ends by itself: code 1, and one sentence with these words as its last line.
fn assert_refused(running: Running, words: &[&str]) {
    let ended = running.end();
    let last = ended.stderr.lines().last().unwrap_or_default();
    assert!(last.starts_with("error: "), "{}", ended.stderr);
    words.iter().for_each(|word| assert!(last.contains(word), "`{word}` is missing in: {last}"));
    assert_eq!((ended.code, ended.stderr.contains("panicked")), (Some(1), false), "{}", ended.stderr);
}

/// The daemon still serves, and ends when it is asked to.
fn assert_at_rest(mut running: Running) {
    let address = running.status_address();
    assert_eq!(http("GET", address, "/healthz"), (200, "ok\n".to_owned()));
    assert!(running.runs());
    running.terminate();
    let ended = running.end();
    assert_eq!((ended.code, ended.stderr.contains("panicked")), (Some(0), false), "{}", ended.stderr);
}
