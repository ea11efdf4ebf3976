//! The sandbox from outside: it repeats by its seed, and its JSON can be piped.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tidegate::daemon::sandbox::{Settings, run};

/// The report of a fresh market as JSON, which is what users compare.
async fn trade(batches: u32, seed: u64) -> Value {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let settings = Settings { batches, seed, data_dir: folder.path().join("data") };
    let report = run(&settings, |_| ()).await.unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
    serde_json::to_value(&report).expect("a report is JSON")
}

fn in_a_runtime<T>(future: impl Future<Output = T>) -> T {
    // As the binary does: tasks run beside each other, so that a race would show.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build();
    runtime.expect("threads can be had").block_on(future)
}

#[test]
fn the_same_seed_trades_the_same_and_another_does_not() {
    in_a_runtime(async {
        // Side by side, so that they disturb each other's timing.
        let reports = futures_util::future::join_all([trade(4, 11), trade(4, 11), trade(4, 11), trade(4, 12)]).await;
        let [first, second, third, other] = reports.try_into().expect("four were asked for");
        assert_eq!(first, second);
        assert_eq!(first, third);
        for part in ["/batches", "/leases", "/participants"] {
            let (this, that) = (first.pointer(part).expect(part), other.pointer(part).expect(part));
            assert_ne!(this, that, "{part} does not depend on the seed");
        }
    });
}

#[test]
fn a_report_adds_up() {
    let report = in_a_runtime(trade(2, 5));
    let list = |name: &str| report.pointer(name).and_then(Value::as_array).cloned().expect("a list");
    let number = |value: &Value, name: &str| value.get(name).and_then(Value::as_u64).expect("a whole number");
    let sum = |rows: &[Value], name: &str| rows.iter().map(|row| number(row, name)).sum::<u64>();
    let (batches, leases, traders) = (list("/batches"), list("/leases"), list("/participants"));
    assert_eq!(batches.len(), 2);
    assert!(!leases.is_empty());
    assert!(batches.iter().all(|batch| batch.get("height").is_some_and(Value::is_u64)), "confirmed: {batches:?}");
    // What sellers get is what buyers pay, and what the leases say.
    let premium = sum(&leases, "premium_sats");
    assert!(premium > 0);
    assert_eq!(sum(&traders, "premium_earned_sats"), premium);
    assert_eq!(sum(&traders, "premium_paid_sats"), premium);
}

#[test]
fn the_binary_prints_only_json_on_standard_output() {
    let ended = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["sandbox", "--batches", "1", "--json"])
        .env_remove("TIDEGATE_LOG")
        .output()
        .expect("the binary starts");
    let log = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(0), "{log}");
    let report: Value = serde_json::from_slice(&ended.stdout).expect("nothing but JSON");
    assert_eq!(report.pointer("/batches").and_then(Value::as_array).map(Vec::len), Some(1));
    assert!(log.contains("batch 1 of 1"), "progress goes to standard error: {log}");
}

#[test]
fn databases_are_kept_where_asked_and_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let kept = folder.path().join("kept");
    let kept_text = kept.display().to_string();
    let ended = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["sandbox", "--batches", "1", "--keep", &kept_text])
        .output()
        .expect("the binary starts");
    assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
    let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&kept), 0o700);
    for name in ["venue.sqlite", "anna.sqlite"] {
        assert_eq!(mode(&kept.join(name)), 0o600, "{name}");
    }
}

/// The live market as a user runs it: its output is read line by line until `enough`, then it is told to stop.
fn watch(args: &[&str], mut enough: impl FnMut(&str) -> bool) -> (Vec<String>, std::process::ExitStatus) {
    use std::io::{BufRead as _, BufReader};
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["sandbox", "--speed", "4"])
        .args(args)
        .env_remove("TIDEGATE_LOG")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut lines = Vec::new();
    let mut reader = BufReader::new(child.stdout.take().expect("it was asked for"));
    let mut stopping = false;
    let mut line = String::new();
    while reader.read_line(&mut line).expect("it says text") > 0 {
        let told = std::mem::take(&mut line).trim_end_matches('\n').to_owned();
        if !stopping && enough(&told) {
            stopping = true;
            let pid = child.id().to_string();
            assert!(Command::new("kill").args(["-INT", &pid]).status().expect("kill is there").success());
        }
        lines.push(told);
    }
    (lines, child.wait().expect("it ends"))
}

#[test]
fn plain_lines_have_no_control_characters_and_tell_of_leases() {
    let (lines, status) = watch(&["--plain"], |line| line.starts_with("our lease: "));
    assert_eq!(status.code(), Some(0));
    assert!(lines.iter().all(|line| !line.chars().any(char::is_control)), "{lines:?}");
    assert!(lines[0].contains("the market is open; metrics http://127.0.0.1:"), "{}", lines[0]);
    assert!(lines.iter().any(|line| line.starts_with("batch ")), "{lines:?}");
    assert!(lines.last().is_some_and(|line| line.starts_with("stopped in order at block ")), "{lines:?}");
}

#[test]
fn live_json_is_an_object_per_line_and_the_same_folder_goes_on() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let kept = folder.path().join("market").display().to_string();
    let args = ["--json", "--seed", "3", "--data-dir", &kept];
    let event = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        (value["event"].as_str().expect("its kind").to_owned(), value)
    };
    let (lines, status) = watch(&args, |line| event(line).0 == "lease");
    assert_eq!(status.code(), Some(0));
    let events: Vec<(String, Value)> = lines.iter().map(|line| event(line)).collect();
    assert_eq!((events[0].0.as_str(), events[0].1["start"].as_u64()), ("opened", Some(0)));
    let of = |kind: &str| events.iter().find(|(found, _)| found == kind).map(|(_, value)| value);
    let (batch, lease) = (of("batch").expect("a batch"), of("lease").expect("a lease"));
    assert!(batch["rate_ppb"].as_u64().is_some_and(|rate| rate > 0), "{batch}");
    for number in ["amount_sats", "premium_sats", "maturity_height", "gross_ppb", "net_ppb", "net_apr_ratio"] {
        assert!(lease[number].is_number(), "{number}: {lease}");
    }
    let scene = of("status").expect("a status");
    for list in ["accounts", "orders", "leases", "clearings"] {
        assert!(scene[list].is_array(), "{list}: {scene}");
    }
    assert_eq!(events.last().map(|(kind, _)| kind.as_str()), Some("stopped"));

    let (again, _) = watch(&["--json", "--data-dir", &kept], |line| event(line).0 == "status");
    let opened = event(&again[0]).1;
    assert_eq!((opened["event"].as_str(), opened["start"].as_u64()), (Some("opened"), Some(1)));
    let seen = again.iter().map(|line| event(line).1).find(|value| value["event"] == "status").expect("a status");
    assert_eq!(seen["seed"], 3);
    assert!(seen["leases"].as_array().is_some_and(|leases| !leases.is_empty()), "{seen}");
}

#[test]
fn a_folder_keeps_its_seed_and_listeners_stay_on_this_machine() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let kept = folder.path().join("market").display().to_string();
    let (_, status) = watch(&["--json", "--seed", "3", "--data-dir", &kept], |_| true);
    assert_eq!(status.code(), Some(0));
    for (args, words) in [
        (["--seed", "4", "--data-dir", &kept], ["seed 3, not 4", "--data-dir"]),
        (["--listen", "0.0.0.0:0", "--seed", "1"], ["--listen", "127.0.0.1"]),
    ] {
        let ended = Command::new(env!("CARGO_BIN_EXE_tidegate")).arg("sandbox").args(args).output().expect("it starts");
        let told = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(1), "{told}");
        assert!(words.iter().all(|word| told.contains(word)), "{told}");
    }
}
