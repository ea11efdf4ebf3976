//! `tidegate sandbox`: a whole market in this process.

use crate::cli::say;
use crate::daemon::sandbox::{self, SandboxReport, Settings};
use anyhow::Context as _;
use comfy_table::Table;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  tidegate sandbox                            3 batches, as tables
  tidegate sandbox --batches 20 --seed 7      another market; the same seed gives the same keys, prices and leases
  tidegate sandbox --json | jq .batches       for machines: only JSON goes to standard output
  tidegate sandbox --keep run1                keep the databases: sqlite3 run1/anna.sqlite .dump";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Trade until this many batches cleared.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    batches: u32,
    /// Fixes keys, orders and prices; the same seed trades the same.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Prints the result as JSON.
    #[arg(long)]
    json: bool,
    /// Keeps the databases in this new folder instead of a temporary one.
    #[arg(long)]
    keep: Option<PathBuf>,
}

pub(super) async fn execute(args: Args) -> anyhow::Result<()> {
    let temporary = tempfile::tempdir().context("can not make a temporary folder")?;
    let data_dir = args.keep.clone().unwrap_or_else(|| temporary.path().to_owned());
    if args.keep.is_some() && data_dir.exists() {
        anyhow::bail!("{} exists: give --keep a folder that does not", data_dir.display());
    }
    let settings = Settings { batches: args.batches, seed: args.seed, data_dir };
    let report = sandbox::run(&settings, |line| tracing::info!("{line}")).await?;
    if args.json { say(&serde_json::to_string_pretty(&report)?) } else { say(&text(&report)) }
}

fn text(report: &SandboxReport) -> String {
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
