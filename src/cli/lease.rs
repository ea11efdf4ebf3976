//! `tidegate lease list`.

use super::console::Console;
use super::exit::Failure;
use super::link::{Agent, Daemon, ask};
use super::shape::Lease;
use super::show::{self, Align};
use clap::{Subcommand, ValueEnum};
use serde::Serialize;
use tidegate_wire::poolrpc as rpc;

const EXAMPLES: &str = "\
Examples:
  tidegate lease list                         leases sold and bought, with premium, fees and yield
  tidegate lease list --side sold --json | jq .net_sats";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    daemon: Daemon,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Lists leases.
    List(ListArgs),
}

/// One side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SideArg {
    /// We sold: our coins are in the channel.
    Sold,
    /// We bought.
    Bought,
}

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
struct ListArgs {
    /// Only leases of this side.
    #[arg(long)]
    side: Option<SideArg>,
}

/// Leases and their sums.
#[derive(Debug, Serialize)]
pub(super) struct List {
    pub(super) leases: Vec<Lease>,
    pub(super) premium_earned_sats: u64,
    pub(super) premium_paid_sats: u64,
    pub(super) fees_sats: u64,
    /// Earned less paid less fees.
    pub(super) net_sats: i64,
}

impl List {
    pub(super) fn of(leases: Vec<Lease>) -> List {
        let sum = |side: &str, value: fn(&Lease) -> u64| {
            leases
                .iter()
                .filter(|lease| side.is_empty() || lease.side == side)
                .fold(0u64, |sum, lease| sum.saturating_add(value(lease)))
        };
        let (earned, paid) = (sum("sold", |lease| lease.premium_sats), sum("bought", |lease| lease.premium_sats));
        let fees = sum("", |lease| lease.execution_fee_sats.saturating_add(lease.chain_fee_sats));
        let net = i128::from(earned) - i128::from(paid) - i128::from(fees);
        List {
            premium_earned_sats: earned,
            premium_paid_sats: paid,
            fees_sats: fees,
            net_sats: i64::try_from(net).unwrap_or(i64::MIN),
            leases,
        }
    }
}

pub(super) async fn execute(args: Args, console: &mut Console<'_>) -> anyhow::Result<()> {
    let Args { daemon, verb: Verb::List(args) } = args;
    let mut agent = daemon.connect().await?;
    let mut leases = fetch(&mut agent).await?;
    if let Some(side) = args.side {
        let wanted = if side == SideArg::Sold { "sold" } else { "bought" };
        leases.retain(|lease| lease.side == wanted);
    }
    console.answer(daemon.json, &List::of(leases), text)
}

/// All leases, oldest first.
pub(super) async fn fetch(agent: &mut Agent) -> Result<Vec<Lease>, Failure> {
    let answer = ask(agent.trader.leases(rpc::LeasesRequest::default())).await?;
    Ok(answer.leases.iter().map(Lease::of).collect())
}

fn text(list: &List) -> String {
    let columns = [
        ("side", Align::Left),
        ("amount", Align::Right),
        ("for", Align::Left),
        ("ends at", Align::Right),
        ("ppb", Align::Right),
        ("premium", Align::Right),
        ("fees", Align::Right),
        ("gross", Align::Right),
        ("net", Align::Right),
        ("node", Align::Left),
    ];
    let row = |lease: &Lease| {
        let percent = |micro: i64| show::percent_micro(micro.into()).replace(' ', "");
        vec![
            lease.side.to_owned(),
            show::grouped(lease.amount_sats),
            show::days(lease.duration_blocks).replace("days", "d").replace("day", "d").replace(' ', ""),
            lease.maturity_height.map_or_else(|| "-".to_owned(), |height| height.to_string()),
            show::grouped(lease.clearing_rate_ppb),
            show::grouped(lease.premium_sats),
            show::grouped(lease.execution_fee_sats.saturating_add(lease.chain_fee_sats)),
            percent(lease.apr_gross_micropercent),
            percent(lease.apr_net_micropercent),
            lease.node.chars().take(6).collect(),
        ]
    };
    if list.leases.is_empty() {
        return "no lease yet".to_owned();
    }
    format!(
        "{}\n\nearned {}, paid {}, fees {}: net {} sat\nAmounts in sat; gross and net (of fees) in percent a year on the leased amount",
        show::table(&columns, list.leases.iter().map(row).collect(), ""),
        show::sats(list.premium_earned_sats),
        show::sats(list.premium_paid_sats),
        show::sats(list.fees_sats),
        show::signed(list.net_sats.into()),
    )
}
