//! A node on another chain, behind its chain, or locked in the middle.

use crate::lnd::FakeLnd;
use crate::program::{Daemon, http};
use crate::{assert_at_rest, assert_refused, bench_at, metric, until};

#[test]
fn a_node_on_another_chain_is_refused() {
    let lnd = FakeLnd::start(|state| state.network = "mainnet");
    for daemon in [Daemon::Agent, Daemon::Venue] {
        let bench = bench_at(daemon, &lnd);
        assert_refused(
            bench.start(),
            &["is on mainnet, but regtest is configured", "correct the address or the network"],
        );
    }
}

#[test]
fn a_node_that_is_behind_is_waited_for() {
    for (daemon, ready) in [(Daemon::Agent, "the agent runs"), (Daemon::Venue, "the venue is open")] {
        let lnd = FakeLnd::start(|state| state.synced = false);
        let bench = bench_at(daemon, &lnd);
        let mut running = bench.start();
        running.wait_for("is not synced to the chain (at height 700)");
        let address = running.status_address();
        let (code, body) = http("GET", address, "/v1/status");
        assert!(code == 503 && body.contains("waiting for the node: ") && body.contains("not synced"), "{code} {body}");
        lnd.set(|state| state.synced = true);
        running.wait_for(ready);
        assert_at_rest(running);
    }
}

#[test]
fn a_wallet_that_is_locked_in_the_middle_is_waited_for() {
    let lnd = FakeLnd::start(|_| ());
    let bench = bench_at(Daemon::Agent, &lnd);
    let mut running = bench.start();
    running.wait_for("the agent runs");
    let height = |running: &mut crate::program::Running| metric(running, "tidegate_best_height_blocks");
    until(&mut running, "it knows the height", |running| (height(running) - 700.0).abs() < 0.5);

    lnd.set(|state| state.locked = true);
    running.wait_for("wallet locked");
    let failures = "tidegate_failures_total{counterpart=\"node\"}";
    until(&mut running, "the failures are counted", |running| metric(running, failures) > 0.5);
    let address = running.status_address();
    assert_eq!(http("GET", address, "/healthz").0, 200);
    assert_eq!(http("GET", address, "/v1/status").0, 200, "what is known is still told");

    lnd.set(|state| {
        state.locked = false;
        state.height = 712;
    });
    until(&mut running, "it follows the chain again", |running| (height(running) - 712.0).abs() < 0.5);
    assert_at_rest(running);
}
