//! `tidegate sandbox`: a whole market in this process, live, or so many batches and a result.

mod live;
mod screen;
mod text;

use crate::cli::say;
use crate::cli::show::grouped;
use crate::daemon::sandbox::live::{Faults, LiveSettings, Role};
use crate::daemon::sandbox::{self, SandboxReport, Settings};
use anyhow::Context as _;
use comfy_table::Table;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  tidegate sandbox                            a live market: our agent sells and buys among a dozen traders; Ctrl-C ends it
  tidegate sandbox --data-dir run1            the same, kept: the next start goes on where this one ended
  tidegate sandbox --role seller --speed 5    five blocks per second, and the agent only sells
  tidegate sandbox --hostile-venue            the venue lies to our agent, which says what rule was broken
  tidegate sandbox --listen 127.0.0.1:9300    metrics and status there, the API at :9301, the venue at :9302
  tidegate sandbox --json | jq -c .event      for machines: one JSON object per line
  tidegate sandbox --batches 20 --seed 7      as fast as it goes, then a result: the same seed, the same bytes
  tidegate sandbox --batches 3 --keep run2    keep the databases: sqlite3 run2/anna.sqlite .dump

Blocks are simulated, scripts, signatures, messages and databases are real. The agent's own commands work on it:
  tidegate status --help                      (the sandbox shows where its API and macaroon are)";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Trade as fast as it goes until this many batches cleared, print the result, and end.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    batches: Option<u32>,
    /// Fixes keys, orders, prices and payments; 1 when there is no market yet.
    #[arg(long)]
    seed: Option<u64>,
    /// Prints JSON: with --batches the result, else one object per line for everything that happens.
    #[arg(long)]
    json: bool,
    /// Prints lines instead of a view that is drawn again and again; also when standard output is no terminal.
    #[arg(long, conflicts_with = "json")]
    plain: bool,
    /// What our agent does.
    #[arg(long, value_enum, default_value_t = RoleArg::Both, conflicts_with = "batches")]
    role: RoleArg,
    /// Blocks per second, 0.01 to 200. A clearing follows every 6 blocks, at high speeds every 2 seconds.
    #[arg(long, default_value_t = 0.5, value_parser = speed, conflicts_with = "batches")]
    speed: f64,
    /// Keeps everything in this folder, and goes on with what is there.
    #[arg(long, conflicts_with = "batches")]
    data_dir: Option<PathBuf>,
    /// Serves status and metrics on this loopback address; the API gets the port after it, the venue the next.
    #[arg(long, value_name = "IP:PORT", conflicts_with = "batches")]
    listen: Option<SocketAddr>,
    /// Our node dies now and then, and comes back some blocks later.
    #[arg(long, conflicts_with = "batches")]
    kill_node: bool,
    /// The venue lies to our agent at every second proposal, each time differently.
    #[arg(long, conflicts_with = "batches")]
    hostile_venue: bool,
    /// Chain fees rise twentyfold now and then.
    #[arg(long, conflicts_with = "batches")]
    fee_spike: bool,
    /// Keeps the databases of the --batches in this new folder instead of a temporary one.
    #[arg(long, requires = "batches")]
    keep: Option<PathBuf>,
}

/// What our agent does.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum RoleArg {
    /// Sells leases.
    Seller,
    /// Buys leases.
    Buyer,
    /// Both, from one account.
    Both,
}

fn speed(text: &str) -> Result<f64, String> {
    let speed: f64 = text.parse().map_err(|_| "a number of blocks per second, like 0.5 or 100".to_owned())?;
    if (0.01..=200.0).contains(&speed) { Ok(speed) } else { Err("from 0.01 to 200 blocks per second".to_owned()) }
}

impl Args {
    /// Whether log lines that only tell of progress would drown what is shown.
    pub(super) fn is_live(&self) -> bool {
        self.batches.is_none()
    }
}

pub(super) async fn execute(args: Args) -> anyhow::Result<()> {
    let temporary = tempfile::tempdir().context("can not make a temporary folder")?;
    match args.batches {
        Some(batches) => execute_batches(&args, batches, temporary.path().to_owned()).await,
        None => {
            let role = match args.role {
                RoleArg::Seller => Role::Seller,
                RoleArg::Buyer => Role::Buyer,
                RoleArg::Both => Role::Both,
            };
            let faults =
                Faults { kill_node: args.kill_node, hostile_venue: args.hostile_venue, fee_spike: args.fee_spike };
            let data_dir = args.data_dir.unwrap_or_else(|| temporary.path().join("sandbox"));
            let (seed, speed, listen) = (args.seed, args.speed, args.listen);
            let settings = LiveSettings { seed, speed, data_dir, listen, role, faults };
            let form = match (args.json, args.plain || !std::io::stdout().is_terminal()) {
                (true, _) => live::Form::Json,
                (false, true) => live::Form::Plain,
                (false, false) => live::Form::Screen,
            };
            live::execute(&settings, form).await
        }
    }
}

async fn execute_batches(args: &Args, batches: u32, temporary: PathBuf) -> anyhow::Result<()> {
    let data_dir = args.keep.clone().unwrap_or(temporary);
    if args.keep.is_some() && data_dir.exists() {
        anyhow::bail!("{} exists: give --keep a folder that does not", data_dir.display());
    }
    let settings = Settings { batches, seed: args.seed.unwrap_or(1), data_dir };
    let report = sandbox::run(&settings, |line| tracing::info!("{line}")).await?;
    if args.json { say(&serde_json::to_string_pretty(&report)?) } else { say(&result(&report)) }
}

fn result(report: &SandboxReport) -> String {
    let mut leases = Table::new();
    leases.set_header(["seller", "buyer", "amount (sat)", "blocks", "rate (ppb)", "premium", "exec. fee", "chain fee"]);
    for lease in &report.leases {
        leases.add_row([
            lease.seller.clone(),
            lease.buyer.clone(),
            lease.amount_sats.to_string(),
            lease.duration_blocks.to_string(),
            lease.clearing_rate_ppb.to_string(),
            lease.premium_sats.to_string(),
            lease.execution_fee_sats.to_string(),
            lease.chain_fee_sats.to_string(),
        ]);
    }
    let mut traders = Table::new();
    traders.set_header(["trader", "role", "in accounts (sat)", "earned", "paid", "fees", "gross yield", "net yield"]);
    for trader in &report.participants {
        traders.add_row([
            trader.name.clone(),
            trader.role.to_owned(),
            trader.account_sats.to_string(),
            trader.premium_earned_sats.to_string(),
            trader.premium_paid_sats.to_string(),
            trader.execution_fee_sats.saturating_add(trader.chain_fee_sats).to_string(),
            percent(trader.gross_yield_ratio),
            percent(trader.net_yield_ratio),
        ]);
    }
    let batches = report.batches.len();
    format!(
        "{batches} batches cleared, {} leases, chain at height {}; every balance equals its output on the chain.\n\n\
         Leases\n{leases}\n\nTraders (yields are annualised over 52,560 blocks)\n{traders}",
        report.leases.len(),
        report.height
    )
}

fn percent(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{:.2} %", ratio * 100.0))
}

/// Satoshi in at most seven characters where that is close enough: `412.3M`.
fn coins(sats: u64) -> String {
    match sats {
        0..=999_999 => grouped(sats),
        _ => format!("{}.{}M", grouped(sats / 1_000_000), sats % 1_000_000 / 100_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coins_are_short() {
        assert_eq!([0, 1_234, 999_999, 1_000_000, 412_345_678].map(coins), ["0", "1,234", "999,999", "1.0M", "412.3M"]);
    }

    #[test]
    fn speeds_are_bounded() {
        assert_eq!((speed("100"), speed("0.01")), (Ok(100.0), Ok(0.01)));
        for bad in ["0", "-1", "201", "NaN", "inf", "fast", ""] {
            assert!(speed(bad).is_err(), "{bad}");
        }
    }
}
