//! What cannot be waited for: a sentence with what, where and what to do, and a code that is not 0.

use std::net::TcpListener;

use crate::program::{Bench, CERTIFICATE, Daemon};
use crate::tidegate;

/// Something that is wrong.
struct Row {
    name: &'static str,
    daemon: Daemon,
    spoil: fn(&Bench),
    /// Words of the one line on standard error that begins with `error:`.
    words: &'static [&'static str],
}

const fn agent(name: &'static str, spoil: fn(&Bench), words: &'static [&'static str]) -> Row {
    Row { name, daemon: Daemon::Agent, spoil, words }
}

const fn venue(name: &'static str, spoil: fn(&Bench), words: &'static [&'static str]) -> Row {
    Row { name, daemon: Daemon::Venue, spoil, words }
}

fn remove(bench: &Bench, name: &str) {
    std::fs::remove_file(bench.path(name)).expect("it was there");
}

fn data_dir(bench: &Bench, path: &str) {
    let data = format!("\"{}\"", bench.path("data").display());
    bench.set(&data, &format!("\"{path}\""));
}

const FILES: &[Row] = &[
    agent(
        "no configuration",
        |bench| remove(bench, "tidegate.toml"),
        &["can not read the configuration", "tidegate.toml", "No such file", "--config", "examples are in config/"],
    ),
    agent(
        "not TOML",
        |bench| bench.write("tidegate.toml", "network = regtest\n"),
        &["the configuration", "tidegate.toml", "line 1", "is not valid", "Compare it with the example in config/"],
    ),
    agent(
        "not text",
        |bench| std::fs::write(bench.path("tidegate.toml"), [0xff, 0xfe]).expect("written"),
        &["can not read the configuration", "tidegate.toml"],
    ),
    agent(
        "an unknown key",
        |bench| bench.set("insecure = true", "insecure = true\ntls = false"),
        &["tidegate.toml", "line 3", "is not valid", "unknown field `tls`", "Compare it with"],
    ),
    venue(
        "an unknown key",
        |bench| bench.set("tick_seconds = 600", "tick_seconds = 600\ntick_minutes = 10"),
        &["tidegate.toml", "is not valid", "unknown field `tick_minutes`"],
    ),
    agent(
        "a missing limit",
        |bench| bench.set("max_open_orders = 10\n", ""),
        &["is not valid", "missing field `max_open_orders`"],
    ),
    agent(
        "no strategy",
        |bench| remove(bench, "strategy.toml"),
        &["can not read the strategy", "strategy.toml", "No such file", "strategy_file"],
    ),
    agent(
        "a damaged strategy",
        |bench| bench.write("strategy.toml", "strategy = \"seller\"\n\n[seller]\nspeed ="),
        &["the strategy", "strategy.toml", "line 4", "is not valid", "the preset in strategies/"],
    ),
    agent(
        "an unknown key of the strategy",
        |bench| bench.edit("strategy.toml", "[seller]\n", "[seller]\nspeed = 1\n"),
        &["strategy.toml", "line", "is not valid", "unknown field `speed`"],
    ),
    agent(
        "a strategy of nobody",
        |bench| bench.edit("strategy.toml", "strategy = \"seller\"", "strategy = \"gambler\""),
        &["strategy.toml", "is not valid", "gambler", "buyer"],
    ),
    agent(
        "a strategy without its table",
        |bench| bench.write("strategy.toml", "strategy = \"buyer\"\n"),
        &["strategy.toml", "is not valid", "needs a table [buyer]"],
    ),
];

const VALUES: &[Row] = &[
    agent(
        "no such network",
        |bench| bench.set("network = \"regtest\"", "network = \"bitcoin\""),
        &["tidegate.toml", "network is \"bitcoin\"", "must be one of mainnet, testnet, testnet4, signet, regtest"],
    ),
    agent(
        "status for everybody",
        |bench| bench.set("status_listen = \"127.0.0.1:0\"", "status_listen = \"0.0.0.0:12081\""),
        &["status_listen is 0.0.0.0:12081", "only a loopback address", "127.0.0.1:12081"],
    ),
    agent(
        "an API for everybody",
        |bench| bench.set("rpc_listen = \"127.0.0.1:0\"", "rpc_listen = \"0.0.0.0:12010\""),
        &["api.rpc_listen is 0.0.0.0:12010", "only a loopback address"],
    ),
    agent(
        "nothing to do",
        |bench| {
            bench.set("strategy_file = \"strategy.toml\"\n", "");
            bench.set("[api]\nrpc_listen = \"127.0.0.1:0\"\n", "");
        },
        &["strategy_file is missing", "no section [api]"],
    ),
    venue(
        "a venue for everybody",
        |bench| bench.set("listen = \"127.0.0.1:0\"\n\n# /metrics", "listen = \"0.0.0.0:12010\"\n\n# /metrics"),
        &["listen is 0.0.0.0:12010", "only a loopback address"],
    ),
    agent(
        "not an address",
        |bench| bench.set("status_listen = \"127.0.0.1:0\"", "status_listen = \"localhost\""),
        &["is not valid", "line", "socket address"],
    ),
    agent(
        "TLS to the venue",
        |bench| bench.set("insecure = true", "insecure = false"),
        &["venue.insecure must be true in this version", "TLS"],
    ),
    agent(
        "a node's address without port",
        |bench| bench.set("[node]\naddress = \"127.0.0.1:1\"", "[node]\naddress = \"127.0.0.1\""),
        &["'127.0.0.1' is not an address", "host:port"],
    ),
    venue(
        "a rated node that is none",
        |bench| bench.set("tier1_nodes = []", "tier1_nodes = [\"alice\"]"),
        &["ratings.tier1_nodes", "\"alice\"", "66 hexadecimal digits"],
    ),
    venue(
        "a confirmation target that lnd refuses",
        |bench| bench.set("batch_conf_target_blocks = 6", "batch_conf_target_blocks = 1"),
        &["terms.batch_conf_target_blocks is 1", "at least 2"],
    ),
    agent(
        "decisions once in an age",
        |bench| bench.set("decide_every_seconds = 60", "decide_every_seconds = 9_000_000_000_000_000_000"),
        &["decide_every_seconds is 9000000000000000000", "at most 86400"],
    ),
];

const MACHINE: &[Row] = &[
    agent(
        "a data folder inside a file",
        |bench| {
            let path = bench.path("tls.cert/data");
            data_dir(bench, &path.display().to_string());
        },
        &["can not create the data folder", "tls.cert/data", "choose another data_dir"],
    ),
    venue(
        "a data folder inside a file",
        |bench| {
            let path = bench.path("tls.cert/data");
            data_dir(bench, &path.display().to_string());
        },
        &["can not create the data folder", "tls.cert/data", "choose another data_dir"],
    ),
    // Not even root can make files there.
    #[cfg(target_os = "linux")]
    agent(
        "a data folder that is not writable",
        |bench| data_dir(bench, "/proc/self"),
        &["cannot use /proc/self/agent.sqlite", "writable for this user"],
    ),
    agent(
        "a damaged database",
        |bench| bench.write("data/agent.sqlite", &"no database. ".repeat(1000)),
        &["cannot open the database", "agent.sqlite", "restore it from a backup"],
    ),
    venue(
        "a damaged database",
        |bench| bench.write("data/venue.sqlite", &"no database. ".repeat(1000)),
        &["cannot open the database", "venue.sqlite", "restore it from a backup"],
    ),
    agent(
        "a damaged token",
        |bench| bench.write("data/venue.token", "cafe"),
        &["venue.token is damaged", "64 hexadecimal characters", "Restore it from a backup"],
    ),
    agent(
        "a damaged root key of the API",
        |bench| bench.write("data/api/regtest/root.key", "cafe"),
        &["root.key is damaged", "64 hexadecimal digits", "Restore it from a backup"],
    ),
    agent(
        "a certificate of the API without its key",
        |bench| bench.write("data/api/regtest/tls.cert", CERTIFICATE),
        &["tls.cert is damaged", "tls.key is missing"],
    ),
    agent(
        "a certificate of the API that is none",
        |bench| {
            bench.write("data/api/regtest/tls.cert", "hello");
            bench.write("data/api/regtest/tls.key", "hello");
        },
        &["can not use the certificate", "Remove tls.cert and tls.key"],
    ),
    agent(
        "no certificate of the node",
        |bench| remove(bench, "tls.cert"),
        &["cannot read the node's certificate", "tls.cert", "correct the path"],
    ),
    venue(
        "another file as certificate",
        |bench| bench.write("tls.cert", "hello"),
        &["tls.cert is not a certificate", "lnd's tls.cert"],
    ),
    agent(
        "no macaroon",
        |bench| remove(bench, "node.macaroon"),
        &["cannot read the node's macaroon", "node.macaroon", "correct the path"],
    ),
];

fn check(row: &Row) {
    let bench = Bench::new(row.daemon);
    (row.spoil)(&bench);
    let ended = bench.start().end();
    let what = format!("{:?}, {}", row.daemon, row.name);
    assert_sentence(&what, &ended.stderr, row.words);
    assert_eq!(ended.code, Some(1), "{what}: {}", ended.stderr);
    assert_eq!(ended.stdout, "", "{what}");
}

/// One line for people, at the end, with all the words, and nothing twice.
fn assert_sentence(what: &str, stderr: &str, words: &[&str]) {
    let last = stderr.lines().last().unwrap_or_default();
    assert!(last.starts_with("error: "), "{what}: the last line is not the error:\n{stderr}");
    let errors = stderr.lines().filter(|line| line.starts_with("error: ")).count();
    assert_eq!(errors, 1, "{what}: {stderr}");
    for word in words {
        assert!(last.contains(word), "{what}: `{word}` is missing in: {last}");
    }
    assert!(last.matches("os error").count() <= 1, "{what}: told twice: {last}");
    assert!(!stderr.contains('\u{1b}'), "{what}: colours in a file: {stderr}");
    assert!(!stderr.contains("panicked"), "{what}: {stderr}");
}

#[test]
fn wrong_files_are_refused() {
    FILES.iter().for_each(check);
}

#[test]
fn wrong_values_are_refused() {
    VALUES.iter().for_each(check);
}

#[test]
fn what_this_machine_does_not_give_is_named() {
    MACHINE.iter().for_each(check);
}

#[test]
fn a_port_in_use_is_named_with_its_key() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("it is bound").to_string();
    let listen = "listen = \"127.0.0.1:0\"\n\n# /metrics";
    for (daemon, from, key) in [
        (Daemon::Agent, "status_listen = \"127.0.0.1:0\"", "(status_listen)"),
        (Daemon::Agent, "rpc_listen = \"127.0.0.1:0\"", "(api.rpc_listen)"),
        (Daemon::Venue, "status_listen = \"127.0.0.1:0\"", "(status_listen)"),
        (Daemon::Venue, listen, "(listen)"),
    ] {
        let bench = Bench::new(daemon);
        bench.set(from, &from.replace("127.0.0.1:0", &address));
        let ended = bench.start().end();
        let words = ["can not listen on", &address, key, "Is another program using the port? Choose another"];
        assert_sentence(&format!("{daemon:?} {key}"), &ended.stderr, &words);
        assert_eq!(ended.code, Some(1));
    }
}

/// What the user has is left as it was.
#[test]
fn a_refused_start_changes_no_file() {
    let bench = Bench::new(Daemon::Agent);
    let damaged = "no database. ".repeat(1000);
    bench.write("data/agent.sqlite", &damaged);
    bench.write("data/venue.token", "cafe");
    assert_eq!(bench.start().end().code, Some(1));
    assert_eq!(std::fs::read_to_string(bench.path("data/agent.sqlite")).expect("there"), damaged);
    assert_eq!(std::fs::read_to_string(bench.path("data/venue.token")).expect("there"), "cafe");
}

#[test]
fn a_wrong_command_line_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let existing = folder.path().display().to_string();
    let cases: &[(&[&str], i32, &[&str])] = &[
        (&[], 2, &["Usage: tidegate"]),
        (&["trade"], 2, &["unrecognized subcommand 'trade'"]),
        (&["run"], 2, &["--config <CONFIG>"]),
        (&["run", "--speed", "1"], 2, &["unexpected argument '--speed'"]),
        (&["sandbox", "--batches", "0"], 2, &["--batches", "1..=1000"]),
        (&["sandbox", "--seed", "-1"], 2, &["-1"]),
        (&["permissions", "--role", "owner"], 2, &["'owner'", "trader", "venue"]),
        (&["permissions", "--role", "venue", "--network", "main"], 2, &["'main'", "mainnet"]),
        (&["sandbox", "--batches", "1", "--keep", &existing], 1, &["error: ", &existing, "exists", "--keep"]),
        (&["--log", "tidegate=loud=yes", "sandbox"], 1, &["error: ", "--log", "tidegate=loud=yes", "write e.g."]),
    ];
    for (args, code, words) in cases {
        let ended = tidegate(args);
        assert_eq!(ended.code, Some(*code), "{args:?}: {}", ended.stderr);
        assert_eq!(ended.stdout, "", "{args:?}");
        for word in *words {
            assert!(ended.stderr.contains(word), "{args:?}: `{word}` is missing in: {}", ended.stderr);
        }
    }
}
