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
