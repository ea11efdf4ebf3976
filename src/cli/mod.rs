//! The command line: one file per command.

mod permissions;
mod run;
mod sandbox;
mod venue;

use clap::{Parser, Subcommand};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Automated market maker for Lightning channel leases.
///
/// Start with `tidegate sandbox`: a whole market in one process, without any service. Then bake macaroons with
/// `tidegate permissions`, and run an agent (`tidegate run`) or a venue (`tidegate venue`) on a real node.
///
/// Independent implementation, not affiliated with Lightning Labs.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, about, long_about)]
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
    let cli = Cli::parse();
    start_logging(&cli);
    // The process-wide TLS provider; a second installation is refused, which can only mean that it is there already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::new(error).context("can not start the runtime")),
    };
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Sandbox(args) => sandbox::execute(args).await,
            Command::Run(args) => run::execute(args).await,
            Command::Venue(args) => venue::execute(args).await,
            Command::Permissions(args) => permissions::execute(&args),
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn start_logging(cli: &Cli) {
    let filter = EnvFilter::try_new(&cli.log).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if cli.log_json { builder.json().init() } else { builder.init() }
}

#[allow(clippy::print_stderr, reason = "the place where a command's failure is told to its user")]
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

/// Prints a command's result.
#[allow(clippy::print_stdout, reason = "the place where a command's result is told to its user")]
fn say(text: &str) {
    println!("{text}");
}
