//! What operators read fits the code: every metric that a dashboard shows is one that we register, every dashboard can be
//! imported, every alert fires when it should and has a runbook, and every sentence that a runbook explains is one that the
//! program can say. What a running agent answers to the queries is tested with a real Prometheus in `src/daemon`.

#![allow(clippy::print_stderr, reason = "a test that cannot run says so")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use prometheus::{Gauge, Registry};
use serde_json::Value;
use tidegate::api::{AgentMetrics, VenueMetrics};

/// First word of the names of our metrics.
const PREFIX: &str = "tidegate_";

fn registries() -> [Registry; 2] {
    let agent = AgentMetrics::new().expect("names are valid and unique");
    let venue = VenueMetrics::new().expect("names are valid and unique");
    [agent.registry, venue.registry]
}

/// Whether the name is taken. A metric with labels shows up in the exposition only once it has a value, so the registry
/// is asked the other way round: it refuses a second metric of a name that it has.
fn is_registered(registry: &Registry, name: &str) -> bool {
    let probe = Gauge::new(name, "probe").expect("the name is valid");
    match registry.register(Box::new(probe.clone())) {
        Err(_) => true,
        Ok(()) => {
            registry.unregister(Box::new(probe)).expect("it was registered a moment ago");
            false
        }
    }
}

/// Names of our metrics in a text.
fn names_in(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|word| word.starts_with(PREFIX)).collect()
}

fn unregistered<'a>(registries: &[Registry], text: &'a str) -> Vec<&'a str> {
    // A histogram is three.
    let whole =
        |name: &str| ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part)).map(str::to_owned);
    let registered = |name: &str| registries.iter().any(|registry| is_registered(registry, name));
    let known = |name: &str| registered(name) || whole(name).is_some_and(|name| registered(&name));
    names_in(text).into_iter().filter(|name| !known(name)).collect()
}

fn dashboards() -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards");
    let entries = std::fs::read_dir(folder).expect("dashboards/ exists");
    let paths = entries.map(|entry| entry.expect("an entry of dashboards/ is readable").path());
    let boards = paths.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    boards.map(|path| (path.clone(), std::fs::read_to_string(&path).expect("a dashboard is text"))).collect()
}

/// Queries of one panel.
fn queries(panel: &Value) -> Vec<&str> {
    let targets = panel["targets"].as_array().map(Vec::as_slice).unwrap_or_default();
    targets.iter().filter_map(|target| target["expr"].as_str()).collect()
}

#[test]
fn every_metric_of_a_dashboard_is_registered() {
    let registries = registries();
    let dashboards = dashboards();
    assert!(!dashboards.is_empty(), "dashboards/ is empty");
    for (path, text) in dashboards {
        assert!(!names_in(&text).is_empty(), "{} shows none of our metrics", path.display());
        assert_eq!(unregistered(&registries, &text), Vec::<&str>::new(), "{}", path.display());
    }
}

#[test]
fn a_planted_name_is_found() {
    let text = r#"sum(tidegate_leases_total{role="maker"}) / tidegate_no_such_thing + rate(tidegate_venue_orders[5m])"#;
    assert_eq!(unregistered(&registries(), text), ["tidegate_no_such_thing"]);
}

#[test]
fn every_panel_has_a_title_a_unit_and_queries() {
    for (path, text) in dashboards() {
        let dashboard: Value = serde_json::from_str(&text).expect("a dashboard is JSON");
        let panels = dashboard["panels"].as_array().expect("a dashboard has panels");
        let mut ids = BTreeSet::new();
        for panel in panels {
            let title = panel["title"].as_str().unwrap_or_default();
            assert!(!title.is_empty(), "{}: a panel without title", path.display());
            assert!(ids.insert(panel["id"].as_u64()), "{}: {title}: its id is taken or missing", path.display());
            if panel["type"] == "row" {
                continue;
            }
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{}: {title}: no unit", path.display());
            let queries = queries(panel);
            assert!(!queries.is_empty(), "{}: {title}: no queries", path.display());
            for query in queries {
                let asks = !names_in(query).is_empty() || query.contains("process_");
                assert!(asks, "{}: {title}: `{query}` asks for nothing", path.display());
                let chosen = query.contains("job=~\"$job\",instance=~\"$instance\"");
                assert!(chosen, "{}: {title}: `{query}` ignores the choice of instances", path.display());
            }
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}: {title}", path.display());
            let description = panel["description"].as_str().unwrap_or_default();
            assert!(description.ends_with('.'), "{}: {title}: no description", path.display());
        }
        assert!(dashboard["id"].is_null() && dashboard.get("id").is_some(), "{}: Grafana gives the id", path.display());
        assert!(dashboard["uid"].as_str().is_some_and(|uid| !uid.is_empty()), "{}: no uid", path.display());
        let variables = dashboard["templating"]["list"].as_array().expect("a dashboard has variables");
        let sources = variables.iter().filter(|variable| variable["type"] == "datasource");
        assert_eq!(sources.count(), 1, "{}: the source of the data is chosen once", path.display());
    }
}

/// A file of `dashboards/prometheus`.
fn prometheus_file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards/prometheus").join(name);
    std::fs::read_to_string(path).expect("it is shipped")
}

/// What follows a key in the lines of a YAML file.
fn values<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| line.trim_start().trim_start_matches("- ").strip_prefix(key).map(str::trim))
}

#[test]
fn every_alert_is_proved_and_has_a_runbook() {
    let (alerts, proofs) = (prometheus_file("alerts.yml"), prometheus_file("alerts.test.yml"));
    assert_eq!(unregistered(&registries(), &alerts), Vec::<&str>::new());
    let names: Vec<&str> = values(&alerts, "alert:").collect();
    let runbooks: Vec<&str> = values(&alerts, "runbook:").collect();
    assert!(names.len() > 8, "{names:?}");
    assert_eq!(names.len(), runbooks.len(), "one runbook for each");
    for (name, runbook) in names.iter().zip(runbooks) {
        let proved = values(&proofs, "alertname:").filter(|proof| proof == name).count();
        assert_eq!(proved, 2, "{name}: once silent, once firing");
        let (file, heading) = runbook.split_once('#').expect("a file and a heading");
        assert_eq!(heading, name.to_lowercase());
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("it is there");
        assert!(text.contains(&format!("\n## {name}\n")), "{file} says nothing about {name}");
    }
}

/// Runs Debian's `promtool` in `dashboards/prometheus`. Where every change is checked it has to be there.
fn promtool(arguments: &[&str]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards/prometheus");
    match Command::new("promtool").args(arguments).current_dir(folder).output() {
        Ok(ended) => {
            let said = [ended.stdout, ended.stderr].concat();
            assert!(ended.status.success(), "promtool {arguments:?}:\n{}", String::from_utf8_lossy(&said));
        }
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "promtool: {error}: install the package `prometheus`");
            eprintln!("NOT CHECKED: promtool: {error}: install the package `prometheus`");
        }
    }
}

#[test]
fn alerts_fire_when_they_should_and_only_then() {
    promtool(&["check", "config", "prometheus.yml"]);
    promtool(&["check", "rules", "alerts.yml"]);
    promtool(&["test", "rules", "alerts.test.yml"]);
}

/// Source files of the programs that operators run.
fn sources() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = ["src", "crates", "strategies"].map(|name| root.join(name)).to_vec();
    let mut text = String::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the folder is readable") {
            let path = entry.expect("the entry is readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&std::fs::read_to_string(&path).expect("a source file is text"));
            }
        }
    }
    text
}

/// First cells of the tables headed "it says": sentences as they stand in the code.
fn quoted(runbook: &str) -> Vec<&str> {
    let rows = runbook.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split_once('`')).map(|(sentence, _)| sentence).collect()
}

#[test]
fn every_sentence_of_a_runbook_stands_in_the_code() {
    let sources = sources();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbooks");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("docs/runbooks/ exists") {
        let path = entry.expect("the entry is readable").path();
        let runbook = std::fs::read_to_string(&path).expect("a runbook is text");
        for sentence in quoted(&runbook) {
            assert!(sources.contains(sentence), "{}: nothing says `{sentence}`", path.display());
            count += 1;
        }
    }
    assert!(count > 20, "the tables of sentences were not found");
}
