//! The command line: one file per command.
//!
//! Commands that ask the running agent are clients of its gRPC interface (`link`), say what they found through one door
//! that lets nothing harmful pass (`console`), and end with a documented exit code (`exit`).

mod account;
mod auction;
mod completions;
mod configuration;
mod console;
mod control;
mod doctor;
mod exit;
mod harmless;
mod lease;
mod link;
mod log;
mod order;
mod permissions;
mod run;
mod sandbox;
mod shape;
mod show;
mod status;
mod units;
mod venue;
mod venue_ctl;

pub(crate) use console::Console;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand};
use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Automated market maker for Lightning channel leases.
///
/// Start with `tidegate sandbox`: a whole market in one process, without any service. Then write a configuration
/// (`tidegate config init`), bake a macaroon (`tidegate permissions`), and run an agent (`tidegate run`) or a venue
/// (`tidegate venue`) on a real node. The agent trades by itself; `tidegate account`, `order`, `auction` and `lease` do by
/// hand what it does.
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
        default_value = DEFAULT_LOG
    )]
    log: String,
    /// Log lines as JSON.
    #[arg(long, global = true)]
    log_json: bool,
}

/// What is logged unless somebody says otherwise.
const DEFAULT_LOG: &str = "warn,tidegate=info,tidegate_trader=info,tidegate_venue=info";
/// As [`DEFAULT_LOG`], for a command that shows by itself what happens to a dozen traders.
const QUIET_LOG: &str = "error";

const EXAMPLES: &str = "\
Examples:
  tidegate sandbox                            trade on a simulated chain, now, without any service
  tidegate permissions --role trader          print the command that bakes the agent's macaroon
  tidegate run --config agent.toml            run the agent beside its lnd
  tidegate venue --config venue.toml          run an auction venue beside its lnd
  tidegate doctor                             is everything there that the agent needs?
  tidegate status                             how does it stand?
  tidegate account open 5M                    by hand: coins into an account,
  tidegate order ask 2M --apr 5%              and an order that they back
  tidegate COMMAND --help                     examples of each command

The exit code tells how it ended; results go to standard output, questions, logs and errors to standard error:
  0  it did what it was asked for (also when it was stopped by a signal)
  1  it was refused or failed; nothing was changed unless the sentence says so
  2  the command line is wrong or incomplete, or nobody could be asked to confirm; nothing was done
  3  the agent (or lnd) can not be reached, or is not ready; nothing was done
  4  it is not known whether it was done, or only a part was done: look before you repeat it";

#[derive(Debug, Subcommand)]
enum Command {
    /// A whole market in this process, live, on a simulated chain; needs no service.
    Sandbox(sandbox::Args),
    /// Runs the agent on a real node: strategy, pool client, metrics.
    Run(run::Args),
    /// Runs an auction venue on a real node.
    Venue(venue::Args),
    /// Asks something of a running venue, as its operator: deposits, withdrawals, bans, an attempt to clear.
    VenueCtl(venue_ctl::Args),
    /// How the agent stands: market, accounts, orders, leases.
    Status(status::Args),
    /// Accounts: open, list, deposit, withdraw, renew, bump, close.
    Account(Box<account::Args>),
    /// Orders: ask, bid, list, cancel, replace.
    Order(Box<order::Args>),
    /// The market: rates, snapshot, ratings, next.
    Auction(auction::Args),
    /// Leases sold and bought.
    Lease(lease::Args),
    /// Why the agent did what it did: its journal.
    Decisions(control::DecisionsArgs),
    /// The limits in force, and what is used of them.
    Limits(control::LimitsArgs),
    /// The books in double entry, and whether they agree with the chain.
    Ledger(control::LedgerArgs),
    /// Stops trading: no new orders, and the open ones are cancelled.
    Stop(control::StopArgs),
    /// Undoes `stop`.
    Resume(control::ResumeArgs),
    /// Looks at everything an agent needs, and says what is wrong and what to do.
    Doctor(doctor::Args),
    /// Configurations: init, check, explain.
    Config(configuration::Args),
    /// Prints the macaroon permissions that a role needs, as the command that bakes them, or bakes it.
    Permissions(permissions::Args),
    /// Prints what a shell needs to complete this command line.
    Completions(completions::Args),
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
    let interactive = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    let (mut out, mut err, mut input) = (std::io::stdout(), std::io::stderr(), std::io::stdin().lock());
    let mut console = Console { out: &mut out, err: &mut err, input: &mut input, interactive };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("can not start the runtime")?.block_on(dispatch(cli.command, &mut console))
}

// Boxed: the state of all of them together would not fit a thread with a small stack.
async fn dispatch(command: Command, console: &mut Console<'_>) -> anyhow::Result<()> {
    match command {
        Command::Sandbox(args) => Box::pin(sandbox::execute(args)).await,
        Command::Run(args) => Box::pin(run::execute(args)).await,
        Command::Venue(args) => Box::pin(venue::execute(args)).await,
        Command::VenueCtl(args) => Box::pin(venue_ctl::execute(args, console)).await,
        Command::Status(args) => Box::pin(status::execute(args, console)).await,
        Command::Account(args) => Box::pin(account::execute(*args, console)).await,
        Command::Order(args) => Box::pin(order::execute(*args, console)).await,
        Command::Auction(args) => Box::pin(auction::execute(args, console)).await,
        Command::Lease(args) => Box::pin(lease::execute(args, console)).await,
        Command::Decisions(args) => Box::pin(control::decisions(args, console)).await,
        Command::Limits(args) => Box::pin(control::limits(args, console)).await,
        Command::Ledger(args) => Box::pin(control::ledger(args, console)).await,
        Command::Stop(args) => Box::pin(control::stop(args, console)).await,
        Command::Resume(args) => Box::pin(control::resume(args, console)).await,
        Command::Doctor(args) => Box::pin(doctor::execute(args, console)).await,
        Command::Config(args) => configuration::execute(args, console),
        Command::Permissions(args) => Box::pin(permissions::execute(&args, console)).await,
        Command::Completions(args) => completions::execute(&args, Cli::command(), console),
    }
}

/// Runs a command line in this process, for tests against an agent in this process: its exit code.
#[cfg(test)]
pub(crate) async fn run_in_process(args: &[&str], console: &mut Console<'_>) -> u8 {
    let cli = match Cli::try_parse_from(std::iter::once("tidegate").chain(args.iter().copied())) {
        Ok(cli) => cli,
        Err(error) => {
            console.remark(&error.to_string()).expect("a buffer takes everything");
            return 2;
        }
    };
    match dispatch(cli.command, console).await {
        Ok(()) => 0,
        Err(error) => {
            console.remark(&format!("error: {}", sentence(&error))).expect("a buffer takes everything");
            exit::code_of(&error)
        }
    }
}

fn start_logging(cli: &Cli) -> anyhow::Result<()> {
    let shows = matches!(&cli.command, Command::Sandbox(args) if args.is_live()) && cli.log == DEFAULT_LOG;
    let filter = EnvFilter::try_new(if shows { QUIET_LOG } else { &cli.log }).with_context(|| {
        format!("--log (or TIDEGATE_LOG): {:?} is not a log filter; write e.g. info or tidegate=debug", cli.log)
    })?;
    // Colours are for people: a file or a journal gets none.
    let ansi = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(log::writer).with_ansi(ansi);
    if cli.log_json {
        builder.json().init()
    } else {
        builder.init()
    }
    Ok(())
}

#[allow(clippy::print_stderr, reason = "the place where a command's failure is told to its user")]
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {}", harmless::harmless(&sentence(error)));
    ExitCode::from(exit::code_of(error))
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
