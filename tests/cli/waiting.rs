//! What passes is waited for, and the program says so, in its log and on its pages.

use crate::program::{Bench, Daemon, NOBODY, http};

#[test]
fn a_node_that_is_away_is_waited_for() {
    for daemon in [Daemon::Agent, Daemon::Venue] {
        let bench = Bench::new(daemon);
        let mut running = bench.start();
        running.wait_for("waiting for the node");
        let reason = format!("cannot reach lnd at {NOBODY}");
        running.wait_for(&reason);
        running.wait_for("retry_seconds=2");

        let address = running.status_address();
        assert_eq!(http("GET", address, "/healthz"), (200, "ok\n".to_owned()));
        let (code, body) = http("GET", address, "/v1/status");
        assert_eq!(code, 503, "{body}");
        assert!(body.starts_with("waiting for the node: ") && body.contains(&reason), "{body}");
        let (code, body) = http("GET", address, "/metrics");
        assert!(code == 200 && body.contains("# TYPE tidegate_"), "{code}: {body}");
        let (code, body) = http("POST", address, "/v1/tick");
        assert_eq!(code, 503, "{body}");

        assert!(running.runs());
        running.terminate();
        let ended = running.end();
        assert_eq!(ended.code, Some(0), "a wish is no failure: {}", ended.stderr);
        assert!(!ended.stderr.lines().any(|line| line.starts_with("error: ")), "{}", ended.stderr);
    }
}

#[test]
fn a_second_daemon_on_the_same_folder_is_refused_and_the_first_goes_on() {
    for (daemon, owner) in [(Daemon::Agent, "'trader'"), (Daemon::Venue, "'venue'")] {
        let bench = Bench::new(daemon);
        let mut first = bench.start();
        first.wait_for("waiting for the node");
        let second = bench.start().end();
        assert_eq!(second.code, Some(1), "{}", second.stderr);
        let last = second.stderr.lines().last().unwrap_or_default();
        for word in ["error: another tidegate process uses", "data", owner, ".lock", "stop that one first"] {
            assert!(last.contains(word), "`{word}` is missing in: {last}");
        }
        assert!(first.runs());
        first.terminate();
        assert_eq!(first.end().code, Some(0));
        // The lock went with its process.
        let mut third = bench.start();
        third.wait_for("waiting for the node");
        third.terminate();
        assert_eq!(third.end().code, Some(0));
    }
}
