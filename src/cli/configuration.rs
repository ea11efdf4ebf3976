//! `tidegate config`: init, check, explain.

use super::console::Console;
use super::exit::Failure;
use super::show;
use crate::config::{AgentConfig, NETWORKS, VenueConfigFile, load_strategy};
use anyhow::Context as _;
use clap::builder::PossibleValuesParser;
use clap::{Subcommand, ValueEnum};
use serde::Serialize;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

const AGENT_EXAMPLE: &str = include_str!("../../config/agent.example.toml");
const VENUE_EXAMPLE: &str = include_str!("../../config/venue.example.toml");
const SELLER: &str = include_str!("../../strategies/seller/seller.toml");
const BUYER: &str = include_str!("../../strategies/buyer/buyer.toml");

const EXAMPLES: &str = "\
Examples:
  tidegate config init --network regtest      write agent.toml and seller.toml, to be completed
  tidegate config check agent.toml            is it right?
  tidegate config explain max_daily_cost      what does a key mean?";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Writes a configuration with careful limits.
    Init(InitArgs),
    /// Reads a configuration and says whether it is right.
    Check(CheckArgs),
    /// Says what the keys of a configuration mean.
    Explain(ExplainArgs),
}

/// For which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Role {
    /// `tidegate run`.
    Agent,
    /// `tidegate venue`.
    Venue,
}

/// The strategy of a new agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Strategy {
    /// Sells idle coins.
    Seller,
    /// Keeps inbound capacity.
    Buyer,
    /// Decides nothing; does what it is asked.
    None,
}

const INIT_EXAMPLES: &str = "\
Examples:
  tidegate config init --network mainnet --strategy seller
  tidegate config init --network regtest --strategy none --lnd-dir lnd --out my/agent.toml
  tidegate config init --role venue --network regtest --out venue.toml

It overwrites nothing, and the new agent trades nothing: limits.dry_run is true until you change it.";

#[derive(Debug, clap::Args)]
#[command(after_help = INIT_EXAMPLES)]
struct InitArgs {
    /// For which program.
    #[arg(long, value_enum, default_value = "agent")]
    role: Role,
    /// The node's network.
    #[arg(long, value_parser = PossibleValuesParser::new(NETWORKS))]
    network: String,
    /// The agent's strategy; its preset is written beside the configuration.
    #[arg(long, value_enum, default_value = "seller")]
    strategy: Strategy,
    /// lnd's gRPC address.
    #[arg(long, default_value = "127.0.0.1:10009", value_name = "ADDRESS")]
    node: String,
    /// lnd's folder, where its tls.cert is [default: ~/.lnd].
    #[arg(long, value_name = "FOLDER")]
    lnd_dir: Option<PathBuf>,
    /// Where the macaroon is, or will be baked [default: tidegate-ROLE.macaroon beside the configuration].
    #[arg(long, value_name = "FILE")]
    macaroon: Option<PathBuf>,
    /// Folder for database and identity [default: data/ROLE].
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// The new file [default: agent.toml or venue.toml].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

const CHECK_EXAMPLES: &str = "\
Examples:
  tidegate config check                       agent.toml of this folder
  tidegate config check venue.toml --json
For what lies outside the file (node, venue, disk, clock): tidegate doctor.";

#[derive(Debug, clap::Args)]
#[command(after_help = CHECK_EXAMPLES)]
struct CheckArgs {
    /// The configuration.
    #[arg(default_value = "agent.toml", env = "TIDEGATE_CONFIG")]
    file: PathBuf,
    /// Writes the answer as JSON.
    #[arg(long)]
    json: bool,
}

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  tidegate config explain                     every key, with its value in the example
  tidegate config explain limits              keys with this in their name
  tidegate config explain --role venue terms";

#[derive(Debug, clap::Args)]
#[command(after_help = EXPLAIN_EXAMPLES)]
struct ExplainArgs {
    /// A key or a part of it, e.g. limits or max_order [default: all].
    #[arg(default_value = "", hide_default_value = true)]
    key: String,
    /// For which program.
    #[arg(long, value_enum, default_value = "agent")]
    role: Role,
    /// Writes the answer as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn execute(args: Args, console: &mut Console<'_>) -> anyhow::Result<()> {
    match args.verb {
        Verb::Init(args) => init(&args, console),
        Verb::Check(args) => check(&args, console),
        Verb::Explain(args) => explain(&args, console),
    }
}

/// The example with another value for a key that must stand there once, at the beginning of a line.
fn with(text: &str, key: &str, value: &str) -> String {
    let start = format!("{key} = ");
    let lines: Vec<String> = text
        .lines()
        .map(|line| if line.starts_with(&start) { format!("{start}{value}") } else { line.to_owned() })
        .collect();
    lines.join("\n") + "\n"
}

fn toml_text(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn init(args: &InitArgs, console: &mut Console<'_>) -> anyhow::Result<()> {
    let (name, role) = match args.role {
        Role::Agent => ("agent", "trader"),
        Role::Venue => ("venue", "venue"),
    };
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.toml")));
    let folder = std::path::absolute(&out).context("the folder of --out is not known")?;
    let folder = folder.parent().unwrap_or(Path::new("/")).to_owned();
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".lnd"));
    let lnd_dir = args.lnd_dir.clone().or_else(home);
    let lnd_dir = lnd_dir.ok_or_else(|| Failure::Usage("where is lnd? State --lnd-dir".to_owned()))?;
    let path = |path: &Path| toml_text(&path.display().to_string());
    let macaroon = args.macaroon.clone().unwrap_or_else(|| folder.join(format!("tidegate-{role}.macaroon")));
    let data_dir = args.data_dir.clone().unwrap_or_else(|| PathBuf::from(format!("data/{name}")));
    let mut text = match args.role {
        Role::Agent => AGENT_EXAMPLE.to_owned(),
        Role::Venue => VENUE_EXAMPLE.to_owned(),
    };
    text = with(&text, "network", &toml_text(&args.network));
    text = with(&text, "data_dir", &path(&data_dir));
    text = with(&text, "tls_cert", &path(&lnd_dir.join("tls.cert")));
    text = with(&text, "macaroon", &path(&macaroon));
    text = with_node_address(&text, &args.node);
    let mut made = Vec::new();
    if args.role == Role::Agent {
        let preset = match args.strategy {
            Strategy::Seller => Some(("seller.toml", SELLER)),
            Strategy::Buyer => Some(("buyer.toml", BUYER)),
            Strategy::None => None,
        };
        text = match preset {
            Some((file, _)) => with(&text, "strategy_file", &toml_text(file)),
            None => text.replace("\nstrategy_file = ", "\n# strategy_file = "),
        };
        if let Some((file, preset)) = preset {
            made.push((out.with_file_name(file), preset.to_owned()));
        }
    }
    made.push((out.clone(), text));
    write_new(&made)?;
    let files: Vec<String> = made.iter().map(|(path, _)| path.display().to_string()).collect();
    let command = if args.role == Role::Agent { "run" } else { "venue" };
    let (out, network) = (out.display(), &args.network);
    console.say(&format!(
        "wrote {}\nnext:\n  tidegate permissions --role {role} --network {network} --save-to {}\n  read the limits in {out} and set them to what you can lose\n  tidegate config check {out}{}\n  tidegate {command} --config {out}",
        files.join(" and "),
        macaroon.display(),
        if args.role == Role::Agent { format!("\n  tidegate doctor --config {out}") } else { String::new() },
    ))
}

/// The address in section `[node]`: an agent's example has another one of its venue.
fn with_node_address(text: &str, address: &str) -> String {
    let mut section = "";
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.starts_with('[') {
            section = line;
        }
        let ours = section == "[node]" && line.starts_with("address = ");
        lines.push(if ours { format!("address = {}", toml_text(address)) } else { line.to_owned() });
    }
    lines.join("\n") + "\n"
}

/// Writes new files; none when one of them exists.
fn write_new(files: &[(PathBuf, String)]) -> anyhow::Result<()> {
    if let Some((path, _)) = files.iter().find(|(path, _)| path.exists()) {
        let sentence =
            format!("{} exists: remove it, or choose another file with --out. Nothing was written", path.display());
        return Err(Failure::Refused(sentence).into());
    }
    for (path, text) in files {
        let written = std::fs::File::create_new(path).and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                Failure::Refused(format!("the folder of {} does not exist: make it first", path.display()))
            }
            _ => Failure::Refused(format!("can not write {}: {error}", path.display())),
        })?;
    }
    Ok(())
}

/// What a check found.
#[derive(Debug, Serialize)]
struct Checked {
    file: String,
    role: &'static str,
    network: String,
    data_dir: String,
    /// What is allowed but worth a thought.
    remarks: Vec<String>,
}

fn check(args: &CheckArgs, console: &mut Console<'_>) -> anyhow::Result<()> {
    let file = args.file.display().to_string();
    let text = std::fs::read_to_string(&args.file).unwrap_or_default();
    // What only a venue has. Everything else is read as an agent's, whose errors say what is missing.
    let venue = text.parse::<toml::Table>().is_ok_and(|table| table.contains_key("terms"));
    let checked = if venue {
        let config = VenueConfigFile::load(&args.file)?;
        let remarks = missing_files(&config.node);
        Checked {
            file,
            role: "venue",
            network: config.network,
            data_dir: config.data_dir.display().to_string(),
            remarks,
        }
    } else {
        let config = AgentConfig::load(&args.file)?;
        config.strategy_file.as_deref().map(load_strategy).transpose()?;
        let remarks = agent_remarks(&config);
        Checked {
            file,
            role: "agent",
            network: config.network,
            data_dir: config.data_dir.display().to_string(),
            remarks,
        }
    };
    console.answer(args.json, &checked, |checked| {
        let Checked { file, role, network, .. } = checked;
        let mut text =
            format!("{file} is a valid configuration of an {role} on {network}").replace("an venue", "a venue");
        for remark in &checked.remarks {
            text.push_str(&format!("\n  note: {remark}"));
        }
        text
    })
}

fn missing_files(node: &crate::config::NodeConfig) -> Vec<String> {
    let files = [("node.tls_cert", &node.tls_cert), ("node.macaroon", &node.macaroon)];
    let missing = files.into_iter().filter(|(_, path)| !path.exists());
    missing.map(|(key, path)| format!("{key}: {} is not there (yet)", path.display())).collect()
}

/// What an agent's configuration lets happen, as far as it may surprise.
fn agent_remarks(config: &AgentConfig) -> Vec<String> {
    let mut remarks = missing_files(&config.node);
    let rows = [
        (config.limits.dry_run, "limits.dry_run = true: it decides and journals, and places nothing"),
        (config.api.is_none(), "there is no section [api]: `tidegate account`, `order` and the like can not reach it"),
        (config.strategy_file.is_none(), "there is no strategy_file: it does only what it is asked"),
    ];
    remarks.extend(rows.into_iter().filter(|(holds, _)| *holds).map(|(_, text)| text.to_owned()));
    remarks.extend(limit_remarks(config));
    remarks
}

/// Limits that contradict each other.
pub(super) fn limit_remarks(config: &AgentConfig) -> Vec<String> {
    let limits = &config.limits;
    let rows = [
        (
            limits.max_order_sats > limits.max_leased_sats,
            "limits.max_order_sats is above limits.max_leased_sats, which holds for asks anyway",
        ),
        (
            limits.max_account_sats > limits.max_accounts_total_sats,
            "limits.max_account_sats is above limits.max_accounts_total_sats, which holds anyway",
        ),
        (
            limits.ask_rate_min_ppb > limits.rate_max_ppb,
            "limits.ask_rate_min_ppb is above limits.rate_max_ppb: no ask passes",
        ),
        (limits.max_open_orders == 0, "limits.max_open_orders = 0: no order passes"),
    ];
    rows.into_iter().filter(|(holds, _)| *holds).map(|(_, text)| text.to_owned()).collect()
}

/// A key and what it means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Key {
    key: String,
    example: String,
    meaning: String,
}

/// The keys of an example, with the comments in front of them; keys that follow each other share one.
fn keys(example: &str) -> Vec<Key> {
    let (mut found, mut section, mut comment, mut meaning) = (Vec::new(), String::new(), Vec::new(), String::new());
    for line in example.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix('#') {
            comment.push(text.trim().to_owned());
            continue;
        }
        if !comment.is_empty() {
            meaning = comment.join(" ");
            comment.clear();
        }
        if line.is_empty() {
            meaning.clear();
        } else if let Some(name) = line.strip_prefix('[') {
            section = format!("{}.", name.trim_matches(|c| c == '[' || c == ']'));
        } else if let Some((key, value)) = line.split_once('=') {
            let (key, example) = (format!("{section}{}", key.trim()), value.trim().to_owned());
            found.push(Key { key, example, meaning: meaning.clone() });
        }
    }
    found
}

fn explain(args: &ExplainArgs, console: &mut Console<'_>) -> anyhow::Result<()> {
    let mut all = match args.role {
        Role::Agent => keys(AGENT_EXAMPLE),
        Role::Venue => keys(VENUE_EXAMPLE),
    };
    all.retain(|key| key.key.contains(&args.key));
    if all.is_empty() {
        let sentence = format!("no key has {:?} in its name: `tidegate config explain` lists all of them", args.key);
        return Err(Failure::Refused(sentence).into());
    }
    console.answer(args.json, &all, |all| {
        let one = |key: &Key| {
            let meaning = if key.meaning.is_empty() { "" } else { "\n" };
            format!("{} = {}{meaning}{}", key.key, key.example, indented(&key.meaning))
        };
        all.iter().map(one).collect::<Vec<_>>().join("\n")
    })
}

/// A text in lines that fit the terminal, each a little to the right.
fn indented(text: &str) -> String {
    let width = usize::from(show::WIDTH) - 4;
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Every key of a TOML text, with its sections.
    fn names(text: &str) -> BTreeSet<String> {
        fn walk(prefix: &str, table: &toml::Table, names: &mut BTreeSet<String>) {
            for (key, value) in table {
                match value {
                    toml::Value::Table(inner) => walk(&format!("{prefix}{key}."), inner, names),
                    _ => drop(names.insert(format!("{prefix}{key}"))),
                }
            }
        }
        let mut found = BTreeSet::new();
        walk("", &text.parse().expect("an example is TOML"), &mut found);
        found
    }

    #[test]
    fn every_key_of_the_examples_is_explained() {
        for example in [AGENT_EXAMPLE, VENUE_EXAMPLE] {
            let keys = keys(example);
            let told: BTreeSet<String> = keys.iter().map(|key| key.key.clone()).collect();
            assert_eq!(told, names(example));
            for key in keys {
                assert!(!key.meaning.is_empty(), "{} has no meaning", key.key);
            }
        }
    }

    #[test]
    fn keys_that_follow_each_other_share_a_comment() {
        let all = keys(AGENT_EXAMPLE);
        let of = |name: &str| all.iter().find(|key| key.key == name).expect("a key").clone();
        assert_eq!(of("limits.bid_rate_max_ppb").meaning, of("limits.ask_rate_min_ppb").meaning);
        assert_ne!(of("limits.max_order_sats").meaning, of("limits.max_leased_sats").meaning);
        assert_eq!(of("limits.max_order_sats").example, "2_000_000");
    }
}
