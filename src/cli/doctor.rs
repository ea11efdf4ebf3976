//! `tidegate doctor`: looks at everything an agent needs, and says of each what is wrong and what to do.
//!
//! Reads only. It may run beside the agent: it takes no lock of its store, registers nothing at its node, and does not
//! connect to the venue's batch stream.

mod local;
mod remote;

use super::console::Console;
use super::exit::Failure;
use super::link::Daemon;
use crate::config::{AgentConfig, load_strategy};
use serde::Serialize;

const EXAMPLES: &str = "\
Examples:
  tidegate doctor                             with agent.toml of this folder
  tidegate doctor --config my/agent.toml --json | jq '.checks[] | select(.state != \"ok\")'

The exit code is 0 when nothing fails, also with warnings.";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    daemon: Daemon,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// As it should be.
    Ok,
    /// It goes on, but look at it.
    Warn,
    /// The agent can not work like this.
    Fail,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Check {
    name: &'static str,
    state: State,
    found: String,
    /// What to do; nothing when all is well.
    advice: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Check {
        Check { name, state: State::Ok, found: found.into(), advice: None }
    }

    fn warn(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Check {
        Check { name, state: State::Warn, found: found.into(), advice: Some(advice.into()) }
    }

    fn fail(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Check {
        Check { name, state: State::Fail, found: found.into(), advice: Some(advice.into()) }
    }
}

/// All of them.
#[derive(Debug, Serialize)]
struct Report {
    checks: Vec<Check>,
}

pub(super) async fn execute(args: Args, console: &mut Console<'_>) -> anyhow::Result<()> {
    let report = Report { checks: examine(&args.daemon).await };
    console.answer(args.daemon.json, &report, text)?;
    let failed = report.checks.iter().filter(|check| check.state == State::Fail).count();
    match failed {
        0 => Ok(()),
        1 => Err(Failure::Refused("1 check failed".to_owned()).into()),
        many => Err(Failure::Refused(format!("{many} checks failed")).into()),
    }
}

async fn examine(daemon: &Daemon) -> Vec<Check> {
    const NAME: &str = "configuration";
    let Some(path) = daemon.config_path() else {
        let advice = "name it with --config, or write one with `tidegate config init`";
        return vec![Check::fail(NAME, "there is no agent.toml here and none is named", advice)];
    };
    let config = match AgentConfig::load(&path) {
        Ok(config) => config,
        Err(error) => return vec![Check::fail(NAME, error.to_string(), "correct it: `tidegate config explain KEY`")],
    };
    let mut checks = vec![Check::ok(NAME, format!("{} is valid, for {}", path.display(), config.network))];
    checks.push(strategy(&config));
    checks.extend(limits(&config));
    checks.extend(local::checks(&config));
    checks.extend(remote::node(&config).await);
    checks.push(remote::venue(&config).await);
    checks.push(remote::agent(&config, daemon).await);
    checks
}

fn strategy(config: &AgentConfig) -> Check {
    const NAME: &str = "strategy";
    match &config.strategy_file {
        None => Check::ok(NAME, "none: the agent does only what it is asked"),
        Some(path) => match load_strategy(path) {
            Ok(_) => Check::ok(NAME, format!("{} is valid", path.display())),
            Err(error) => Check::fail(NAME, error.to_string(), "compare it with the preset, or remove strategy_file"),
        },
    }
}

fn limits(config: &AgentConfig) -> Vec<Check> {
    const NAME: &str = "limits";
    if config.limits.dry_run {
        let advice = "read `tidegate decisions` for a day, then set limits.dry_run = false and restart";
        return vec![Check::warn(NAME, "dry run: it decides and places nothing", advice)];
    }
    let remarks = super::configuration::limit_remarks(config);
    if remarks.is_empty() {
        return vec![Check::ok(NAME, "they fit each other; orders are placed")];
    }
    remarks.into_iter().map(|remark| Check::warn(NAME, remark, "see `tidegate config explain limits`")).collect()
}

fn text(report: &Report) -> String {
    let width = report.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let one = |check: &Check| {
        let mark = match check.state {
            State::Ok => "ok  ",
            State::Warn => "WARN",
            State::Fail => "FAIL",
        };
        let advice =
            check.advice.as_ref().map_or_else(String::new, |advice| format!("\n      {:width$}  -> {advice}", ""));
        format!("{mark}  {:width$}  {}{advice}", check.name, check.found)
    };
    report.checks.iter().map(one).collect::<Vec<_>>().join("\n")
}
