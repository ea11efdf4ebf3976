//! Every file in `config/` loads with the code that reads it live, and a wrong file is refused with a sentence that
//! says what, where and what to do.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tidegate::config::{AgentConfig, VenueConfigFile};
use tidegate_strategies::AnyStrategy;

fn config_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config")
}

fn shipped() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(config_folder()).expect("config/ exists");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry of config/ is readable").path()).collect();
    paths.sort();
    paths
}

/// The first word of the file's name says whose it is: `agent.example.toml` is an agent's.
fn role(path: &Path) -> &str {
    let name = path.file_name().and_then(|name| name.to_str()).expect("the name is text");
    name.split('.').next().unwrap_or_default()
}

#[test]
fn every_shipped_file_loads_and_each_role_has_one() {
    let mut roles: Vec<String> = Vec::new();
    for path in shipped() {
        let role = role(&path);
        match role {
            "agent" => {
                let config = AgentConfig::load(&path).unwrap_or_else(|error| panic!("{error}"));
                assert!(config.limits.dry_run, "{}: trading must be off until somebody switches it on", path.display());
                let file = config.strategy_file.expect("the examples have a strategy");
                let strategy = std::fs::read_to_string(file).expect("the strategy's file is there");
                AnyStrategy::from_toml(&strategy).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            }
            "venue" => {
                VenueConfigFile::load(&path).unwrap_or_else(|error| panic!("{error}"));
            }
            other => panic!("{}: no program reads the configuration of a {other}", path.display()),
        }
        roles.push(role.to_owned());
    }
    assert_eq!(roles, ["agent", "venue"]);
}

/// An example in which `from` is replaced, in a folder of its own.
fn changed(file: &str, from: &str, to: &str) -> (TempDir, PathBuf) {
    let text = std::fs::read_to_string(config_folder().join(file)).expect("the example is readable");
    assert_eq!(text.matches(from).count(), 1, "{file}: `{from}` must stand there once");
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join(file);
    std::fs::write(&path, text.replace(from, to)).expect("the temporary folder is writable");
    (folder, path)
}

/// What is changed, and words that the refusal must contain.
type Case = (&'static str, &'static str, &'static [&'static str]);

#[test]
fn agent_refuses_a_wrong_file_by_name_of_the_key() {
    let cases: &[Case] = &[
        ("dry_run = true", "dry_run = true\nspeed = 1", &["speed", "unknown"]),
        ("network = \"regtest\"\n", "", &["network", "missing"]),
        ("network = \"regtest\"", "network = \"main\"", &["network", "\"main\"", "mainnet"]),
        ("max_leased_sats = 20_000_000\n", "", &["max_leased_sats", "missing"]),
        ("max_order_sats = 2_000_000", "max_order_sats = -1", &["max_order_sats"]),
        ("insecure = true", "insecure = false", &["venue.insecure", "must be true"]),
        ("\"127.0.0.1:12009\"", "\"192.0.2.1:12009\"", &["venue.address", "loopback"]),
        ("\"127.0.0.1:12010\"", "\"0.0.0.0:12010\"", &["api.rpc_listen", "loopback"]),
        ("rpc_listen =", "rpc_listen = \"127.0.0.1:1\"\nweb_listen =", &["web_listen", "unknown"]),
        ("rpc_listen =", "rest_listen = \"0.0.0.0:1\"\nrpc_listen =", &["api.rest_listen", "loopback"]),
        ("\"127.0.0.1:12081\"", "\"0.0.0.0:12081\"", &["status_listen", "loopback"]),
        ("decide_every_seconds = 60", "decide_every_seconds = 0", &["decide_every_seconds", "at least 1"]),
        ("_sat_per_kw = 25_000", "_sat_per_kw = 252", &["max_batch_fee_rate_sat_per_kw", "at least 253"]),
    ];
    for (from, to, words) in cases {
        let (_folder, path) = changed("agent.example.toml", from, to);
        let refusal = AgentConfig::load(&path).expect_err(to).to_string();
        assert_sentence(&refusal, &path, words);
    }
}

#[test]
fn venue_refuses_a_wrong_file_by_name_of_the_key() {
    let cases: &[Case] = &[
        ("tick_seconds = 600", "tick_seconds = 600\ntick_minutes = 10", &["tick_minutes", "unknown"]),
        ("network = \"regtest\"\n", "", &["network", "missing"]),
        ("\"127.0.0.1:12009\"", "\"0.0.0.0:12009\"", &["listen", "loopback"]),
        ("durations_blocks = [2016]", "durations_blocks = []", &["terms.durations_blocks", "at least one"]),
        ("durations_blocks = [2016]", "durations_blocks = [2000]", &["terms.durations_blocks", "144"]),
        ("fee_rate_ppm = 1_000", "fee_rate_ppm = 1_000_001", &["terms.fee_rate_ppm", "at most"]),
        ("unlisted_tier = 1", "unlisted_tier = 2", &["ratings.unlisted_tier", "0 or 1"]),
        ("keep_sats = 20_000", "keep_sats = 100_000", &["income.keep_sats", "at most"]),
        ("sweep_above_sats = 100_000", "sweep_above_sats = 0", &["income.sweep_above_sats", "at least 1000"]),
        ("= 10_000_000", "= 99_999", &["terms.max_account_sats", "at least 100000"]),
        (
            "# [api]\n# admin_listen = \"127.0.0.1:12083\"",
            "[api]\nadmin_listen = \"0.0.0.0:1\"",
            &["api.admin_listen", "loopback"],
        ),
    ];
    for (from, to, words) in cases {
        let (_folder, path) = changed("venue.example.toml", from, to);
        let refusal = VenueConfigFile::load(&path).expect_err(to).to_string();
        assert_sentence(&refusal, &path, words);
    }
}

#[test]
fn a_missing_file_is_named() {
    let path = config_folder().join("nobody.toml");
    let refusal = AgentConfig::load(&path).expect_err("the file does not exist").to_string();
    assert_sentence(&refusal, &path, &["can not read", "--config"]);
}

#[test]
fn a_relative_strategy_file_is_looked_for_beside_the_configuration() {
    let (folder, path) = changed("agent.example.toml", "\"../strategies/seller/seller.toml\"", "\"mine/careful.toml\"");
    let config = AgentConfig::load(&path).expect("only a name changed");
    assert_eq!(config.strategy_file, Some(folder.path().join("mine/careful.toml")));
}

/// The example without the lines that contain any of `words`, in a folder of its own.
fn without(words: &[&str]) -> (TempDir, PathBuf) {
    let text = std::fs::read_to_string(config_folder().join("agent.example.toml")).expect("the example is readable");
    let kept: Vec<&str> = text.lines().filter(|line| !words.iter().any(|word| line.contains(word))).collect();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("agent.toml");
    std::fs::write(&path, kept.join("\n")).expect("the temporary folder is writable");
    (folder, path)
}

#[test]
fn an_agent_needs_a_strategy_or_somebody_who_asks() {
    let (_folder, path) = without(&["strategy_file"]);
    let config = AgentConfig::load(&path).expect("it is asked over the API");
    assert!(config.strategy_file.is_none() && config.api.is_some());
    let (_folder, path) = without(&["[api]", "rpc_listen"]);
    assert!(AgentConfig::load(&path).expect("it has a strategy").api.is_none());
    let (_folder, path) = without(&["rpc_listen"]);
    let api = AgentConfig::load(&path).expect("the address has a usual value").api.expect("the section is there");
    assert_eq!(api.rpc_listen.to_string(), "127.0.0.1:12010");
    let (_folder, path) = without(&["strategy_file", "[api]", "rpc_listen"]);
    let refusal = AgentConfig::load(&path).expect_err("nobody decides and nobody can ask").to_string();
    assert_sentence(&refusal, &path, &["strategy_file", "[api]", "nothing"]);
}

fn assert_sentence(refusal: &str, path: &Path, words: &[&str]) {
    assert!(refusal.contains(&path.display().to_string()), "the file is not named: {refusal}");
    for word in words {
        assert!(refusal.contains(word), "`{word}` is missing in: {refusal}");
    }
}
