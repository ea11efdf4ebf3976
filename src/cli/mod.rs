//! The command line: one file per command.

mod permissions;
mod run;
mod sandbox;
mod venue;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Automated market maker for Lightning channel leases.
///
/// Start with `tidegate sandbox`: a whole market in one process, without any service. Then bake macaroons with
/// `tidegate permissions`, and run an agent (`tidegate run`) or a venue (`tidegate venue`) on a real node.
///
/// Independent implementation, not affiliated with Lightning Labs.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, about, long_about, after_help = EXAMPLES)]
struct Cli {
    /// What to do.
    #[command(subcommand)]
    command: Command,
    /// Log filter, e.g. `info` or `tidegate=debug`.
    #[arg(
        long,
        global = true,
        env = "TIDEGATE_LOG",
        default_value = "warn,tidegate=info,tidegate_trader=info,tidegate_venue=info"
    )]
    log: String,
    /// Log lines as JSON.
    #[arg(long, global = true)]
    log_json: bool,
}

const EXAMPLES: &str = "\
Examples:
  tidegate sandbox                            trade on a simulated chain, now, without any service
  tidegate permissions --role trader          print the command that bakes the agent's macaroon
  tidegate run --config agent.toml            run the agent beside its lnd
  tidegate venue --config venue.toml          run an auction venue beside its lnd

Results go to standard output, logs and errors to standard error. The exit code is 0 when the command did what it
was asked for (also when it was stopped by a signal), 1 when it could not go on, and 2 when the command line is wrong.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Trades on a simulated chain in this process until some batches cleared; needs no service.
    Sandbox(sandbox::Args),
    /// Runs the agent on a real node: strategy, pool client, metrics.
    Run(run::Args),
    /// Runs an auction venue on a real node.
    Venue(venue::Args),
    /// Prints the macaroon permissions that a role needs, as the command that bakes them.
    Permissions(permissions::Args),
}

/// Parses the command line, runs the command, and turns its outcome into the exit code.
pub fn main() -> ExitCode {
    match execute(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn execute(cli: Cli) -> anyhow::Result<()> {
    start_logging(&cli)?;
    // The process-wide TLS provider; a second installation is refused, which can only mean that it is there already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("can not start the runtime")?.block_on(async {
        match cli.command {
            Command::Sandbox(args) => sandbox::execute(args).await,
            Command::Run(args) => run::execute(args).await,
            Command::Venue(args) => venue::execute(args).await,
            Command::Permissions(args) => permissions::execute(&args),
        }
    })
}

fn start_logging(cli: &Cli) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&cli.log).with_context(|| {
        format!("--log (or TIDEGATE_LOG): {:?} is not a log filter; write e.g. info or tidegate=debug", cli.log)
    })?;
    // Colours are for people: a file or a journal gets none.
    let ansi = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi);
    if cli.log_json {
        builder.json().init()
    } else {
        builder.init()
    }
    Ok(())
}

#[allow(clippy::print_stderr, reason = "the place where a command's failure is told to its user")]
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {}", sentence(error));
    ExitCode::FAILURE
}

/// The error and its causes, each once: many of ours tell their cause themselves.
fn sentence(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.contains(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    text
}

/// Prints a command's result. A reader that has seen enough (`| head`) is no failure.
///
/// # Errors
/// When standard output cannot be written.
fn say(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("can not write to standard output"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_cause_that_was_told_is_not_told_again() {
        #[derive(Debug, thiserror::Error)]
        #[error("can not read a file: {source}")]
        struct Told {
            source: std::io::Error,
        }
        let told = Told { source: std::io::Error::other("no disk") };
        assert_eq!(sentence(&anyhow::Error::new(told)), "can not read a file: no disk");
        let error = anyhow::anyhow!("no disk").context("can not write").context("stopped");
        assert_eq!(sentence(&error), "stopped: can not write: no disk");
    }
}
