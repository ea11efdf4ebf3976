//! Who may know whom: reads `cargo metadata` and refuses a dependency that the architecture forbids.
//!
//! The rule binds normal dependencies; tests and build scripts may use more. `ARCHITECTURE.md` draws the same arrows
//! and `docs/adr/0001-workspace-and-arrows.md` says why they exist.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// A package of the workspace and the other packages of the workspace that it may know.
/// `None`: it may know all of them (the root, which puts everything together).
type Row = (&'static str, Option<&'static [&'static str]>);

const ARROWS: &[Row] = &[
    ("tidegate", None),
    ("tidegate-protocol", Some(&[])),
    ("tidegate-market", Some(&["tidegate-protocol"])),
    ("tidegate-ports", Some(&["tidegate-protocol"])),
    ("tidegate-wire", Some(&["tidegate-protocol", "tidegate-ports"])),
    ("tidegate-trader", Some(&["tidegate-protocol", "tidegate-ports"])),
    ("tidegate-venue", Some(&["tidegate-protocol", "tidegate-ports", "tidegate-market"])),
    ("tidegate-sandbox", Some(&["tidegate-protocol", "tidegate-ports"])),
    ("tidegate-engine", Some(&["tidegate-protocol", "tidegate-ports", "tidegate-market"])),
    ("tidegate-strategies", Some(&["tidegate-protocol", "tidegate-engine"])),
    ("tidegate-auditor", Some(&[])),
    (
        "tidegate-sim",
        Some(&[
            "tidegate-protocol",
            "tidegate-ports",
            "tidegate-wire",
            "tidegate-trader",
            "tidegate-venue",
            "tidegate-sandbox",
            "tidegate-engine",
            "tidegate-auditor",
        ]),
    ),
    (
        "tidegate-fuzz",
        Some(&[
            "tidegate-protocol",
            "tidegate-ports",
            "tidegate-market",
            "tidegate-wire",
            "tidegate-engine",
            "tidegate-strategies",
        ]),
    ),
];

/// First words of the names of packages that do input and output, keep time or draw randomness: `tokio` stands for
/// `tokio`, `tokio-stream` and so on.
const OUTSIDE_WORLD: &[&str] = &[
    "async",
    "axum",
    "fastrand",
    "getrandom",
    "hyper",
    "mio",
    "polars",
    "postgres",
    "prometheus",
    "rand",
    "reqwest",
    "rusqlite",
    "rustls",
    "smol",
    "socket2",
    "sqlx",
    "tokio",
    "tonic",
    "tower",
];

/// Exceptions to [`OUTSIDE_WORLD`] beside the root package: generated gRPC code speaks tonic.
/// The auditor stands between real programs.
const MAY_USE: &[(&str, &str)] =
    &[("tidegate-wire", "tonic"), ("tidegate-auditor", "tokio"), ("tidegate-auditor", "tonic")];

const SHELL: &str = "tidegate";

/// What of a package the rules are about.
#[derive(Clone, Debug, Default)]
struct Package {
    name: String,
    /// Folder of its manifest, relative to the root of the workspace.
    folder: String,
    dependencies: Vec<Dependency>,
    license: Option<String>,
    inherits_lints: bool,
}

#[derive(Clone, Debug, Default)]
struct Dependency {
    name: String,
    features: Vec<String>,
}

/// Every breach of the rules, as sentences; empty when there is none.
fn violations(packages: &[Package]) -> Vec<String> {
    let names: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let mut found: Vec<String> = ARROWS
        .iter()
        .filter(|(name, _)| !names.contains(name))
        .map(|(name, _)| format!("{name} has a row in the table of arrows but is not in the workspace"))
        .collect();
    for package in packages {
        found.extend(manifest_violations(package));
        match ARROWS.iter().find(|(name, _)| *name == package.name) {
            None => found.push(format!("{} has no row in the table of arrows", package.name)),
            Some((_, None)) => {}
            Some((_, Some(allowed))) => found.extend(
                package
                    .dependencies
                    .iter()
                    .filter(|dependency| names.contains(dependency.name.as_str()))
                    .filter(|dependency| !allowed.contains(&dependency.name.as_str()))
                    .map(|dependency| format!("{} must not know {}", package.name, dependency.name)),
            ),
        }
        if package.name != SHELL {
            found.extend(package.dependencies.iter().filter_map(|dependency| impurity(&package.name, dependency)));
        }
    }
    found
}

fn manifest_violations(package: &Package) -> Vec<String> {
    let mut found = Vec::new();
    if package.license.as_deref() != Some("MIT OR Apache-2.0") {
        found.push(format!("{}: the licence must be that of the workspace", package.name));
    }
    if !package.inherits_lints {
        found.push(format!("{}: `[lints] workspace = true` is missing", package.name));
    }
    let expected = match package.folder.rsplit('/').next() {
        Some("") | None => SHELL.to_owned(),
        Some(folder) => format!("tidegate-{folder}"),
    };
    if package.name != expected {
        found.push(format!("{}: the package in `{}` must be called {expected}", package.name, package.folder));
    }
    found
}

/// Why a package outside the shell must not list this dependency, if so.
fn impurity(package: &str, dependency: &Dependency) -> Option<String> {
    let word = dependency.name.split(['-', '_']).next().unwrap_or_default();
    if OUTSIDE_WORLD.contains(&word) && !MAY_USE.contains(&(package, word)) {
        return Some(format!("{package} must not use {}: only the shell does input and output", dependency.name));
    }
    // The Bitcoin packages bring the operating system's randomness along only when asked to.
    let random = dependency.features.iter().find(|feature| feature.starts_with("rand"))?;
    Some(format!(
        "{package} must not ask for the feature {random} of {}: randomness comes from a port",
        dependency.name
    ))
}

/// The packages of the answer of `cargo metadata`.
fn packages_of(metadata: &Value) -> Vec<Package> {
    let root = Path::new(text(metadata, "workspace_root"));
    let list = metadata["packages"].as_array().expect("metadata lists packages");
    list.iter()
        .map(|package| {
            let manifest = Path::new(text(package, "manifest_path"));
            let folder = manifest.parent().expect("a manifest is in a folder");
            let dependencies = package["dependencies"].as_array().expect("metadata lists dependencies");
            Package {
                name: text(package, "name").to_owned(),
                folder: folder.strip_prefix(root).expect("members are below the root").display().to_string(),
                // `kind` is null for normal dependencies, also for those of one platform.
                dependencies: dependencies.iter().filter(|entry| entry["kind"].is_null()).map(dependency_of).collect(),
                license: package["license"].as_str().map(str::to_owned),
                inherits_lints: inherits_lints(manifest),
            }
        })
        .collect()
}

fn dependency_of(entry: &Value) -> Dependency {
    let features = entry["features"].as_array().expect("metadata lists features");
    Dependency {
        name: text(entry, "name").to_owned(),
        features: features.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().expect("metadata has the text field")
}

/// `cargo metadata` does not tell this, so the manifest itself is read.
fn inherits_lints(manifest: &Path) -> bool {
    let manifest = std::fs::read_to_string(manifest).expect("the manifest is readable");
    let manifest: toml::Table = toml::from_str(&manifest).expect("cargo read this manifest");
    manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(toml::Value::as_bool) == Some(true)
}

fn workspace() -> Vec<Package> {
    // With --no-deps nothing is resolved or downloaded: the answer restates the manifests.
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--locked", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    packages_of(&serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON"))
}

#[test]
fn workspace_keeps_to_the_arrows() {
    assert_eq!(violations(&workspace()), Vec::<String>::new());
}

#[test]
fn architecture_draws_the_same_arrows() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md");
    let text = std::fs::read_to_string(path).expect("ARCHITECTURE.md is readable");
    let drawn: BTreeSet<(&str, &str)> = text
        .lines()
        .filter_map(|line| line.split_once(" → "))
        .filter(|(from, _)| from.trim_end().bytes().all(|byte| byte.is_ascii_lowercase()))
        .map(|(from, to)| (from.trim_end(), to))
        .collect();
    let short = |name: &'static str| name.strip_prefix("tidegate-").unwrap_or("root");
    let table: Vec<(&str, String)> = ARROWS
        .iter()
        .map(|(name, allowed)| {
            let to = match allowed {
                None => "all".to_owned(),
                Some([]) => "nobody".to_owned(),
                Some(names) => names.iter().map(|name| short(name)).collect::<Vec<_>>().join(", "),
            };
            (short(name), to)
        })
        .collect();
    assert_eq!(drawn, table.iter().map(|(from, to)| (*from, to.as_str())).collect());
}

fn planted(name: &str, dependency: Dependency) -> Vec<String> {
    let mut packages = workspace();
    let package = packages.iter_mut().find(|package| package.name == name).expect("the package exists");
    package.dependencies.push(dependency);
    violations(&packages)
}

fn on(name: &str) -> Dependency {
    Dependency { name: name.to_owned(), features: Vec::new() }
}

#[test]
fn refuses_each_planted_edge() {
    let edges = [
        ("tidegate-protocol", "tidegate-ports"),
        ("tidegate-protocol", "tidegate"),
        ("tidegate-market", "tidegate-ports"),
        ("tidegate-trader", "tidegate-venue"),
        ("tidegate-venue", "tidegate-trader"),
        ("tidegate-trader", "tidegate-wire"),
        ("tidegate-trader", "tidegate-market"),
        ("tidegate-sandbox", "tidegate-trader"),
        ("tidegate-strategies", "tidegate-ports"),
        ("tidegate-protocol", "rand"),
        ("tidegate-trader", "tokio"),
        ("tidegate-venue", "tokio-stream"),
        ("tidegate-sandbox", "getrandom"),
        ("tidegate-engine", "polars"),
        ("tidegate-engine", "tonic"),
        ("tidegate-wire", "reqwest"),
    ];
    for (from, to) in edges {
        let found = planted(from, on(to));
        assert!(
            matches!(found.as_slice(), [one] if one.starts_with(&format!("{from} must not")) && one.contains(to)),
            "{from} -> {to}: {found:?}"
        );
    }
}

#[test]
fn refuses_randomness_by_feature() {
    let found = planted("tidegate-protocol", Dependency { features: vec!["rand-std".into()], ..on("bitcoin") });
    assert_eq!(
        found,
        ["tidegate-protocol must not ask for the feature rand-std of bitcoin: randomness comes from a port"]
    );
}

#[test]
fn accepts_what_the_shell_needs() {
    for name in ["tokio", "tonic", "sqlx", "getrandom", "tidegate-venue", "tidegate-trader"] {
        assert_eq!(planted("tidegate", on(name)), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn refuses_a_package_without_row_licence_lints_or_its_proper_name() {
    let mut packages = workspace();
    packages.push(Package { name: "tidegate-extra".into(), folder: "crates/other".into(), ..Package::default() });
    let expected = [
        "tidegate-extra: the licence must be that of the workspace",
        "tidegate-extra: `[lints] workspace = true` is missing",
        "tidegate-extra: the package in `crates/other` must be called tidegate-other",
        "tidegate-extra has no row in the table of arrows",
    ];
    assert_eq!(violations(&packages), expected);
}

#[test]
fn refuses_a_row_without_package() {
    let packages: Vec<Package> = workspace().into_iter().filter(|package| package.name != "tidegate-market").collect();
    let found = violations(&packages);
    assert_eq!(found, ["tidegate-market has a row in the table of arrows but is not in the workspace"]);
}

#[test]
fn only_normal_dependencies_count() {
    let entry = |kind: Value| serde_json::json!({ "name": "tokio", "kind": kind, "features": [] });
    let metadata = serde_json::json!({
        "workspace_root": env!("CARGO_MANIFEST_DIR"),
        "packages": [{
            "name": "made-up",
            "manifest_path": concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
            "license": null,
            "dependencies": [entry("dev".into()), entry("build".into()), entry(Value::Null)],
        }],
    });
    let [package] = &packages_of(&metadata)[..] else { panic!("one package goes in, one comes out") };
    assert_eq!(package.dependencies.len(), 1);
    assert!(package.inherits_lints && package.license.is_none() && package.folder.is_empty());
}
