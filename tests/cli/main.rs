//! The binary from outside: what it says and how it ends when something is wrong, and that it waits where it can.
//!
//! Needs no node and no network but loopback; what lnd itself must refuse is in `tests/interop/bad_input.rs`.

mod commands;
mod program;
mod refusals;
mod waiting;

use program::Running;
use std::process::{Command, Stdio};

fn tidegate(args: &[&str]) -> program::Ended {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    Running::start(args, folder.path()).end()
}

#[test]
fn each_command_teaches_its_use() {
    let cases: &[(&[&str], &[&str])] = &[
        (&["--help"], &["tidegate sandbox", "tidegate run --config", "exit code"]),
        (&["sandbox", "--help"], &["--seed", "tidegate sandbox --batches 20 --seed 7"]),
        (&["run", "--help"], &["/v1/status", "dry_run", "tidegate permissions --role trader"]),
        (&["venue", "--help"], &["/v1/tick", "tidegate permissions --role venue"]),
        (&["permissions", "--help"], &["--network", "tidegate permissions --role trader --json"]),
    ];
    for (args, words) in cases {
        let ended = tidegate(args);
        assert_eq!(ended.code, Some(0), "{args:?}: {}", ended.stderr);
        for word in *words {
            assert!(ended.stdout.contains(word), "{args:?}: `{word}` is missing in\n{}", ended.stdout);
        }
    }
}

#[test]
fn permissions_are_printed_as_command_and_as_json() {
    let plain = tidegate(&["permissions", "--role", "trader"]);
    assert_eq!(plain.code, Some(0));
    assert!(plain.stdout.starts_with("lncli bakemacaroon --save_to=tidegate-trader.macaroon "), "{}", plain.stdout);
    let network = tidegate(&["permissions", "--role", "venue", "--network", "regtest", "--save-to", "my.macaroon"]);
    assert!(network.stdout.starts_with("lncli --network=regtest bakemacaroon --save_to=my.macaroon "));
    let json = tidegate(&["permissions", "--role", "trader", "--json"]);
    let list: Vec<String> = serde_json::from_str(&json.stdout).expect("a list of texts");
    let words: Vec<&str> = plain.stdout.split_whitespace().filter(|word| word.starts_with("uri:")).collect();
    assert_eq!(list, words);
}

/// As `tidegate permissions --role trader | head -1` does.
#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["permissions", "--role", "trader"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    drop(child.stdout.take());
    let ended = child.wait_with_output().expect("it ends");
    assert_eq!((ended.status.code(), String::from_utf8_lossy(&ended.stderr).as_ref()), (Some(0), ""));
}
