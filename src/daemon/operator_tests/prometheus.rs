//! Debian's Prometheus and its `promtool`, run by tests.
#![allow(clippy::print_stderr, reason = "a test that cannot run says so")]

use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Longest real wait for something that must happen, and the pause between two looks.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(25);

/// Looks again and again until it is there.
async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("it never happened: {what}"))
}

/// Whether a program of Debian's package `prometheus` is here. Where every change is checked it has to be.
fn is_here(program: &str) -> bool {
    let here = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    assert!(here || std::env::var_os("CI").is_none(), "{program} is missing: install the package `prometheus`");
    if !here {
        eprintln!("NOT CHECKED: {program} is missing: install the package `prometheus`");
    }
    here
}

/// Refuses what `promtool check metrics` does not like.
pub(super) fn check_metrics(text: &str) {
    if !is_here("promtool") {
        return;
    }
    let (input, output) = (Stdio::piped(), Stdio::piped());
    let tool = Command::new("promtool").args(["check", "metrics"]).stdin(input).stderr(output).spawn();
    let mut tool = tool.expect("it starts");
    tool.stdin.take().expect("piped").write_all(text.as_bytes()).expect("it reads");
    let ended = tool.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && said.trim().is_empty(), "promtool check metrics:\n{said}");
}

/// What this page answers.
pub(super) async fn get(address: SocketAddr, path: &str) -> String {
    try_get(address, path).await.expect("it answers")
}

async fn try_get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    let asked = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
    });
    asked.await.expect("it does not panic")
}

/// A running Prometheus with a folder of its own; it ends with the value.
pub(super) struct Prometheus {
    process: Child,
    address: SocketAddr,
    folder: TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Prometheus {
    /// Starts one that scrapes these pages as agents five times a second, and watches them by the shipped rules. Nothing
    /// when it is not installed.
    pub(super) async fn start(pages: &[SocketAddr]) -> Option<Prometheus> {
        if !is_here("prometheus") {
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards/prometheus/alerts.yml");
        let targets: Vec<String> = pages.iter().map(|page| format!("\"{page}\"")).collect();
        let configuration = format!(
            "global: {{scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms}}\n\
             rule_files: [\"{}\"]\n\
             scrape_configs: [{{job_name: tidegate-agent, static_configs: [{{targets: [{}]}}]}}]\n",
            rules.display(),
            targets.join(", ")
        );
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, configuration).expect("a new file");
        // Free a moment ago; should somebody take it meanwhile, Prometheus says so in its log.
        let address = TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr()).expect("a port is free");
        let log = std::fs::File::create(folder.path().join("log")).expect("a new file");
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("it starts");
        let mut prometheus = Prometheus { process, address, folder };
        eventually("Prometheus is ready", async || {
            if let Ok(Some(status)) = prometheus.process.try_wait() {
                let log = std::fs::read_to_string(prometheus.folder.path().join("log")).unwrap_or_default();
                panic!("Prometheus ended with {status}:\n{log}");
            }
            try_get(address, "/-/ready").await.ok().filter(|answer| answer.contains("is Ready"))
        })
        .await;
        Some(prometheus)
    }

    /// What a query gives now.
    pub(super) async fn query(&self, query: &str) -> Vec<Value> {
        let escaped: String = query
            .bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
                other => format!("%{other:02X}"),
            })
            .collect();
        let answer = get(self.address, &format!("/api/v1/query?query={escaped}")).await;
        let answer: Value =
            serde_json::from_str(&answer).unwrap_or_else(|error| panic!("`{query}`: {error}: {answer}"));
        assert_eq!(answer["status"], "success", "`{query}`: {answer}");
        answer["data"]["result"].as_array().expect("a list").clone()
    }

    /// Waits until a query gives something.
    pub(super) async fn until(&self, query: &str) {
        eventually(query, async || (!self.query(query).await.is_empty()).then_some(())).await;
    }

    /// All rules, once each was judged.
    pub(super) async fn rules(&self) -> Vec<Value> {
        eventually("every rule is judged", async || {
            let answer: Value = serde_json::from_str(&get(self.address, "/api/v1/rules").await).expect("JSON");
            let groups = answer["data"]["groups"].as_array().expect("groups").clone();
            let rules: Vec<Value> =
                groups.iter().flat_map(|group| group["rules"].as_array().expect("rules").clone()).collect();
            let judged = !rules.is_empty() && rules.iter().all(|rule| rule["health"] != "unknown");
            judged.then_some(rules)
        })
        .await
    }
}
