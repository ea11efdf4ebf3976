//! The commands for people: every one teaches its use, every wrong flag is refused with a sentence, and those that need no
//! agent do what they say.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::program::{Bench, Daemon, Ended, Running};
use crate::tidegate;

/// Every command that does something.
const LEAVES: [&str; 33] = [
    "sandbox",
    "run",
    "venue",
    "status",
    "account open",
    "account list",
    "account deposit",
    "account withdraw",
    "account renew",
    "account bump",
    "account close",
    "order ask",
    "order bid",
    "order list",
    "order cancel",
    "order replace",
    "auction rates",
    "auction snapshot",
    "auction ratings",
    "auction next",
    "lease list",
    "decisions",
    "limits",
    "ledger",
    "stop",
    "resume",
    "doctor",
    "config init",
    "config check",
    "config explain",
    "permissions",
    "completions",
    "account",
];

fn words(line: &str) -> Vec<&str> {
    line.split(' ').filter(|word| !word.is_empty()).collect()
}

#[test]
fn every_command_has_examples_that_name_it() {
    for command in LEAVES {
        let ended = tidegate(&[words(command), vec!["--help"]].concat());
        assert_eq!(ended.code, Some(0), "{command}: {}", ended.stderr);
        // Once in the line of usage, and in an example.
        let named = ended.stdout.matches(&["tidegate ", command].concat()).count();
        assert!(named >= 2, "{command}: no example in\n{}", ended.stdout);
    }
    let all = tidegate(&["--help"]).stdout;
    for code in ["  0  ", "  1  ", "  2  ", "  3  ", "  4  "] {
        assert!(all.contains(code), "exit code{code}is not documented");
    }
}

/// A command line that is refused before anybody is asked, and words of the sentence.
const WRONG: &[(&str, &[&str])] = &[
    ("account", &["Usage: tidegate account"]),
    ("account open", &["<AMOUNT>"]),
    ("account open 5m", &["'5m'", "M for a million"]),
    ("account open 0", &["more than nothing"]),
    ("account open 1.5", &["fraction of a satoshi"]),
    ("account open 5,000", &["group digits with `_`"]),
    ("account open 5M --expires tomorrow", &["--expires", "write blocks or days"]),
    ("account open 5M --fee-rate fast", &["--fee-rate", "sat per vbyte"]),
    ("account open 5M --fee-rate 20000", &["--fee-rate", "a slip"]),
    ("account open 5M --fee-rate 2 --conf-target 3", &["--fee-rate", "cannot be used with"]),
    ("account open 5M --conf-target 0", &["--conf-target", "1..=1008"]),
    ("account open 5M --script segwit", &["--script", "legacy"]),
    ("account deposit 5M --account xyz", &["--account", "4 hexadecimal digits"]),
    ("account withdraw 5M", &["--to <TO>"]),
    ("account withdraw 5M --to my;wallet", &["--to", "no Bitcoin address"]),
    ("account bump", &["--fee-rate"]),
    ("order ask 2M", &["--rate", "--apr", "--premium"]),
    ("order ask 2M --rate 5%", &["--rate", "use --apr"]),
    ("order ask 2M --apr 5 --rate 7", &["cannot be used with"]),
    ("order ask 2M --apr 5000%", &["--apr", "at most 1000"]),
    ("order ask 150k --apr 5%", &["multiple of 100,000 sat"]),
    ("order ask 2M --apr 5% --for 3months", &["--for", "write blocks or days"]),
    ("order ask 2M --apr 5% --min-match 50k", &["--min-match", "multiple of 100,000 sat"]),
    ("order ask 2M --apr 5% --announced maybe", &["--announced", "maybe"]),
    ("order ask 2M --apr 5% --only-node 02ab", &["--only-node", "66 hexadecimal digits"]),
    ("order bid 2M --apr 5% --min-tier 2", &["--min-tier", "0..=1"]),
    ("order bid 2M --apr 5% --self-balance -5", &["unexpected argument '-5'"]),
    ("order bid 2M --apr 5% --self-balance half", &["--self-balance", "write an amount"]),
    ("order bid 2M --apr 5% --market sideways", &["--market", "inbound"]),
    ("order bid 2M --premium 0", &["--premium", "more than nothing"]),
    ("order cancel", &["<NONCE>"]),
    ("order cancel 12", &["hexadecimal digits"]),
    ("order cancel 1234 --all", &["cannot be used with"]),
    ("order replace 1234 --amount 1", &["--amount", "multiple of 100,000 sat"]),
    ("auction rates --batches 0", &["--batches", "1..=100"]),
    ("auction snapshot 02ab", &["all 66 digits"]),
    ("auction ratings 02ab", &["66 hexadecimal digits"]),
    ("lease list --side both", &["--side", "sold"]),
    ("decisions --count 1001", &["--count", "1..=1000"]),
    ("ledger --entries -1", &["-1"]),
    ("status --network main", &["--network", "mainnet"]),
    ("config init", &["--network"]),
    ("config init --network main", &["--network", "mainnet"]),
    ("config init --network regtest --strategy gambler", &["--strategy", "seller"]),
    ("permissions --role trader --bake", &["--admin-macaroon", "--tls-cert"]),
    ("permissions --role trader --network regtest --bake --tls-cert a --admin-macaroon b", &["cannot be used with"]),
    ("permissions --role trader --deposits", &["--deposits", "only a venue's"]),
    ("completions tcsh", &["'tcsh'", "bash"]),
];

#[test]
fn every_wrong_flag_is_refused_with_a_sentence() {
    for (line, wanted) in WRONG {
        let ended = tidegate(&words(line));
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{line}: {}", ended.stderr);
        for word in *wanted {
            assert!(ended.stderr.contains(word), "{line}: `{word}` is missing in: {}", ended.stderr);
        }
    }
}

#[test]
fn a_long_reason_is_refused() {
    for reason in ["x".repeat(201), "two\nlines".to_owned()] {
        let ended = tidegate(&["stop", "--reason", &reason]);
        assert!(ended.code == Some(2) && ended.stderr.contains("one line of at most 200"), "{ended:?}");
    }
}

#[test]
fn an_agent_that_is_not_there_is_told_from_one_that_is_not_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().display().to_string();
    let file = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(folder.path().join("tls.cert"), crate::program::CERTIFICATE).expect("written");
    std::fs::write(folder.path().join("pool.macaroon"), "not looked at").expect("written");
    let nobody = crate::program::NOBODY;
    let rows: [(&[&str], i32, &str); 6] = [
        (&["status"], 2, "which agent? There is no agent.toml here"),
        (&["status", "--data-dir", &file("none")], 2, "is no data folder of an agent"),
        (&["status", "--config", &file("none.toml")], 1, "can not read the configuration"),
        (&["status", "--data-dir", &path, "--macaroon", &file("none"), "--rpc", nobody], 3, "no agent answers at"),
        (&["account", "list", "--data-dir", &path, "--rpc", nobody], 3, "no agent answers at 127.0.0.1:1"),
        (&["status", "--data-dir", &path, "--rpc", "nowhere"], 2, "--rpc: \"nowhere\" is not an address"),
    ];
    for (args, code, sentence) in rows {
        let ended = tidegate(args);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(code), ""), "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.starts_with("error: ") && ended.stderr.contains(sentence), "{args:?}: {}", ended.stderr);
    }
}

/// The program in a folder of its own.
fn inside(folder: &Path, line: &str) -> Ended {
    let args = words(line);
    Running::start_in(&args, folder, folder).end()
}

#[test]
fn a_written_configuration_is_valid_and_nothing_is_overwritten() {
    for (role, strategy, file, valid) in [
        ("agent", "seller", "agent.toml", "a valid configuration of an agent on signet"),
        ("agent", "buyer", "agent.toml", "a valid configuration of an agent on signet"),
        ("agent", "none", "agent.toml", "there is no strategy_file"),
        ("venue", "none", "venue.toml", "a valid configuration of a venue on signet"),
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let init = format!(
            "config init --role {role} --network signet --strategy {strategy} --lnd-dir lnd --node 127.0.0.1:7"
        );
        let written = inside(folder.path(), &init);
        assert_eq!(written.code, Some(0), "{role} {strategy}: {}", written.stderr);
        assert!(written.stdout.contains("tidegate permissions --role"), "{}", written.stdout);
        let text = std::fs::read_to_string(folder.path().join(file)).expect("written");
        assert!(text.contains("network = \"signet\"") && text.contains("[node]\naddress = \"127.0.0.1:7\""), "{text}");
        let checked = inside(folder.path(), &format!("config check {file}"));
        assert_eq!(checked.code, Some(0), "{role} {strategy}: {}", checked.stderr);
        assert!(checked.stdout.contains(valid), "{}", checked.stdout);
        let again = inside(folder.path(), &init);
        assert!(again.code == Some(1) && again.stderr.contains("exists"), "{again:?}");
        assert_eq!(std::fs::read_to_string(folder.path().join(file)).expect("still there"), text);
    }
}

#[test]
fn keys_are_explained() {
    let one = tidegate(&["config", "explain", "max_daily_cost"]);
    let expected = "limits.max_daily_cost_sats = 50_000\n    Premium and fees paid in 24 hours, worst case of open orders included.\n";
    assert_eq!((one.code, one.stdout.as_str()), (Some(0), expected));
    let all = tidegate(&["config", "explain", "--role", "venue", "--json"]);
    let keys: Value = serde_json::from_str(&all.stdout).expect("JSON");
    assert!(keys.as_array().is_some_and(|keys| keys.iter().all(|key| key["meaning"] != "")), "{keys}");
    assert_eq!(tidegate(&["config", "explain", "nothing_like_it"]).code, Some(1));
}

#[test]
fn the_doctor_names_what_is_wrong_and_changes_nothing() {
    let bench = Bench::new(Daemon::Agent);
    let config = bench.path("tidegate.toml").display().to_string();
    let ended = tidegate(&["doctor", "--config", &config, "--json"]);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let report: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let of = |name: &str| {
        let checks = report["checks"].as_array().expect("checks");
        checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("{name} was not checked: {report}"))
    };
    for (name, state) in [
        ("configuration", "ok"),
        ("strategy", "ok"),
        ("limits", "warn"),
        ("data folder", "ok"),
        ("disk", "ok"),
        ("node", "fail"),
        ("venue", "fail"),
        ("agent", "warn"),
    ] {
        assert_eq!(of(name)["state"], state, "{name}: {}", of(name));
        assert_eq!(of(name)["advice"].is_null(), state == "ok", "{name}: {}", of(name));
    }
    assert!(of("node")["found"].as_str().is_some_and(|found| found.contains("cannot reach lnd at 127.0.0.1:1")));
    assert!(!bench.path("data").exists(), "nothing was made");
    let text = tidegate(&["doctor", "--config", &config]);
    assert!(text.stdout.contains("FAIL  node") && text.stdout.contains("  -> "), "{}", text.stdout);
    bench.set("network = \"regtest\"", "network = \"moon\"");
    let ended = tidegate(&["doctor", "--config", &config]);
    assert!(ended.code == Some(1) && ended.stdout.contains("FAIL  configuration"), "{ended:?}");
}

#[test]
fn a_macaroon_is_not_baked_where_lnd_is_not() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("tls.cert"), crate::program::CERTIFICATE).expect("written");
    std::fs::write(folder.path().join("admin.macaroon"), "x").expect("written");
    let bake =
        "permissions --role trader --bake --tls-cert tls.cert --admin-macaroon admin.macaroon --save-to new.macaroon";
    let ended = inside(folder.path(), &format!("{bake} --node {}", crate::program::NOBODY));
    assert!(ended.code == Some(3) && ended.stderr.contains("can not reach lnd at 127.0.0.1:1"), "{ended:?}");
    assert!(!folder.path().join("new.macaroon").exists());
    std::fs::write(folder.path().join("new.macaroon"), "mine").expect("written");
    let ended = inside(folder.path(), bake);
    assert!(ended.code == Some(1) && ended.stderr.contains("new.macaroon exists"), "{ended:?}");
    assert_eq!(std::fs::read_to_string(folder.path().join("new.macaroon")).expect("there"), "mine");
}

/// What a shell offers after these words, the last of which is being typed.
fn offered(script: &Path, typed: &[&str]) -> Vec<String> {
    let words: Vec<String> = typed.iter().map(|word| format!("'{word}'")).collect();
    let line = format!(
        "source '{}'; COMP_WORDS=({}); COMP_CWORD={}; _tidegate; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        script.display(),
        words.join(" "),
        typed.len() - 1
    );
    let output = Command::new("bash").args(["-c", &line]).output().expect("bash is there");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect()
}

#[test]
fn a_shell_completes_commands_flags_and_values() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let script = folder.path().join("tidegate.bash");
    std::fs::write(&script, tidegate(&["completions", "bash"]).stdout).expect("written");
    assert_eq!(offered(&script, &["tidegate", "acc"]), ["account"]);
    assert_eq!(offered(&script, &["tidegate", "order", "a"]), ["ask"]);
    assert_eq!(offered(&script, &["tidegate", "order", "bid", "--mark"]), ["--market"]);
    assert_eq!(offered(&script, &["tidegate", "order", "bid", "--market", ""]), ["inbound", "outbound"]);
    assert_eq!(offered(&script, &["tidegate", "completions", "b"]), ["bash"]);
    let leaf = offered(&script, &["tidegate", "account", "open", "--"]);
    assert!(leaf.contains(&"--fee-rate".to_owned()) && leaf.contains(&"--yes".to_owned()), "{leaf:?}");
    let (zsh, fish) = (tidegate(&["completions", "zsh"]).stdout, tidegate(&["completions", "fish"]).stdout);
    assert!(zsh.starts_with("autoload") && zsh.contains("complete -o default -F _tidegate tidegate"), "{zsh}");
    for (text, name) in [("-a 'account'", "commands"), ("-l market -x -a 'inbound outbound'", "values")] {
        assert!(fish.contains(text), "{name} are missing in\n{fish}");
    }
}
