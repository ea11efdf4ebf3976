//! `tidegate status`: how the agent stands, on one page.

use super::account;
use super::console::Console;
use super::exit::Failure;
use super::lease;
use super::link::{Agent, Daemon, ask};
use super::order;
use super::shape::hex_of;
use super::show;
use super::{auction, control};
use serde::Serialize;
use tidegate_wire::poolrpc as rpc;
use tidegate_wire::tidegate::v1;

const EXAMPLES: &str = "\
Examples:
  tidegate status                             agent, market, accounts, orders, leases
  tidegate status --json | jq .agent.trading
  watch -n 30 tidegate status --data-dir data/agent";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    daemon: Daemon,
}

/// The whole page.
#[derive(Debug, Serialize)]
struct Page {
    agent: AgentFacts,
    /// Nothing while the agent waits for its node, or the venue is silent.
    next_batch: Option<auction::Next>,
    accounts: Vec<crate::cli::shape::Account>,
    orders: Vec<crate::cli::shape::Order>,
    leases: Option<Leases>,
}

/// The agent itself.
#[derive(Debug, Serialize)]
struct AgentFacts {
    version: String,
    network: String,
    /// For what it waits; nothing when it does not.
    waiting: Option<String>,
    trading: control::Trading,
    strategy: Option<String>,
    block_height: Option<u32>,
    node: Option<String>,
    venue: String,
    venue_connected: bool,
    subscribed_accounts: usize,
    pending_batches: usize,
    unsure_orders: u32,
    stuck: Vec<Stuck>,
    journal_entries: u64,
}

#[derive(Debug, Serialize)]
struct Stuck {
    txid: String,
    account: String,
    blocks: u32,
    explanation: String,
}

/// Leases in sums.
#[derive(Debug, Serialize)]
struct Leases {
    sold: u64,
    bought: u64,
    premium_earned_sats: u64,
    premium_paid_sats: u64,
    fees_sats: u64,
    net_sats: i64,
}

impl AgentFacts {
    fn of(status: v1::StatusResponse) -> AgentFacts {
        let stuck = |stuck: v1::StuckTransaction| Stuck {
            txid: stuck.txid,
            account: hex_of(&stuck.trader_key),
            blocks: stuck.blocks,
            explanation: stuck.explanation,
        };
        let said = |text: String| Some(text).filter(|text| !text.is_empty());
        AgentFacts {
            version: status.version,
            network: status.network,
            waiting: said(status.waiting),
            trading: control::Trading::of(status.trading.unwrap_or_default()),
            strategy: said(status.strategy),
            block_height: Some(status.block_height).filter(|height| *height > 0),
            node: said(hex_of(&status.node_key)),
            venue: status.venue_address,
            venue_connected: status.venue_connected,
            subscribed_accounts: status.subscribed_accounts.len(),
            pending_batches: status.pending_batches.len(),
            unsure_orders: status.unsure_orders,
            stuck: status.stuck.into_iter().map(stuck).collect(),
            journal_entries: status.journal_entries,
        }
    }
}

impl Leases {
    fn of(list: &lease::List) -> Leases {
        let count = |side: &str| list.leases.iter().filter(|lease| lease.side == side).fold(0u64, |sum, _| sum + 1);
        Leases {
            sold: count("sold"),
            bought: count("bought"),
            premium_earned_sats: list.premium_earned_sats,
            premium_paid_sats: list.premium_paid_sats,
            fees_sats: list.fees_sats,
            net_sats: list.net_sats,
        }
    }
}

pub(super) async fn execute(args: Args, console: &mut Console<'_>) -> anyhow::Result<()> {
    let mut agent = args.daemon.connect().await?;
    let page = page(&mut agent).await?;
    console.answer(args.daemon.json, &page, text)
}

async fn page(agent: &mut Agent) -> Result<Page, Failure> {
    let status = ask(agent.control.status(v1::StatusRequest {})).await?;
    let facts = AgentFacts::of(status);
    if facts.waiting.is_some() {
        // Nothing else answers yet; that it waits is what there is to tell.
        return Ok(Page { agent: facts, next_batch: None, accounts: Vec::new(), orders: Vec::new(), leases: None });
    }
    let orders = ask(agent.trader.list_orders(rpc::ListOrdersRequest { verbose: false, active_only: true })).await?;
    Ok(Page {
        agent: facts,
        // A silent venue must not hide what we know ourselves.
        next_batch: auction::next(agent).await.ok(),
        accounts: account::accounts(agent, true).await?.accounts,
        orders: order::shaped(&orders).orders,
        leases: Some(Leases::of(&lease::List::of(lease::fetch(agent).await?))),
    })
}

fn text(page: &Page) -> String {
    let mut parts = vec![agent_text(&page.agent)];
    if page.agent.waiting.is_none() {
        parts.push(match &page.next_batch {
            Some(next) => auction::next_facts(next),
            None => "Next batch\n  the venue does not answer".to_owned(),
        });
        parts.push(format!("Accounts\n{}", account::table(&page.accounts, "  none")));
        parts.push(format!("Open orders\n{}", order::table(&page.orders, "  none")));
    }
    if let Some(leases) = &page.leases {
        parts.push(show::facts(
            "Leases",
            &[
                ("sold", format!("{}, earned {}", leases.sold, show::sats(leases.premium_earned_sats))),
                ("bought", format!("{}, paid {}", leases.bought, show::sats(leases.premium_paid_sats))),
                ("fees", show::sats(leases.fees_sats)),
                ("net", format!("{} sat", show::signed(leases.net_sats.into()))),
            ],
        ));
    }
    parts.join("\n\n")
}

fn agent_text(agent: &AgentFacts) -> String {
    let dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let venue = if agent.venue_connected { "connected" } else { "NOT connected" };
    let mut rows = vec![
        ("version", agent.version.clone()),
        ("network", agent.network.clone()),
        ("trading", agent.trading.sentence()),
        ("strategy", agent.strategy.clone().unwrap_or_else(|| "none: it does what it is asked".to_owned())),
        ("node", dash(&agent.node)),
        ("block", agent.block_height.map_or_else(|| "-".to_owned(), |height| show::grouped(height.into()))),
        ("venue", format!("{}, {venue}, {} accounts take part", agent.venue, agent.subscribed_accounts)),
    ];
    if let Some(waiting) = &agent.waiting {
        rows.push(("WAITS", waiting.clone()));
    }
    if agent.pending_batches > 0 {
        rows.push(("batches", format!("{} signed and not settled yet", agent.pending_batches)));
    }
    if agent.unsure_orders > 0 {
        rows.push(("orders", format!("{} whose state at the venue is not known", agent.unsure_orders)));
    }
    let stuck: Vec<String> = agent.stuck.iter().map(|stuck| format!("{}: {}", stuck.txid, stuck.explanation)).collect();
    rows.extend(stuck.into_iter().map(|stuck| ("STUCK", stuck)));
    show::facts("Agent", &rows)
}
