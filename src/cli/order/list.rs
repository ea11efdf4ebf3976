//! `tidegate order list`, and how an order is found by the first digits of its nonce.

use crate::cli::console::Console;
use crate::cli::exit::Failure;
use crate::cli::link::{Agent, ask};
use crate::cli::shape::{Order, hex_of};
use crate::cli::show::{self, Align};
use serde::Serialize;
use tidegate_wire::poolrpc as rpc;

const EXAMPLES: &str = "\
Examples:
  tidegate order list                               open orders
  tidegate order list --all --verbose               every order, and what happened to it
  tidegate order list --json | jq '.orders[] | select(.side == \"ask\") | .filled_sats'";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Orders that are executed, cancelled, expired or failed too.
    #[arg(long)]
    all: bool,
    /// What happened to each order.
    #[arg(long, short)]
    verbose: bool,
}

/// Orders, oldest first.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct List {
    pub(in crate::cli) orders: Vec<Order>,
}

pub(super) async fn execute(
    args: &Args,
    agent: &mut Agent,
    json: bool,
    console: &mut Console<'_>,
) -> anyhow::Result<()> {
    let request = rpc::ListOrdersRequest { verbose: args.verbose, active_only: !args.all };
    let list = shaped(&fetch(agent, request).await?);
    console.answer(json, &list, |list| {
        let mut text = table(&list.orders, "no order: place one with `tidegate order ask` or `tidegate order bid`");
        for order in list.orders.iter().filter(|_| args.verbose) {
            text.push_str(&format!("\n\n{} {}", order.side, order.nonce));
            for event in &order.events {
                let reason = event.reject_reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
                let with = event.matched_order.as_ref().map_or_else(String::new, |nonce| {
                    format!(" with {}, {}", show::short(nonce), show::sats(event.filled_sats.unwrap_or(0)))
                });
                text.push_str(&format!("\n  {}  {}{with}{reason}", show::time(event.time_ms / 1_000), event.text));
            }
        }
        text
    })
}

pub(super) async fn fetch(
    agent: &mut Agent,
    request: rpc::ListOrdersRequest,
) -> Result<rpc::ListOrdersResponse, Failure> {
    ask(agent.trader.list_orders(request)).await
}

/// Asks and bids in one list, by age.
pub(in crate::cli) fn shaped(list: &rpc::ListOrdersResponse) -> List {
    let mut orders: Vec<Order> =
        list.asks.iter().map(Order::of_ask).chain(list.bids.iter().map(Order::of_bid)).collect();
    orders.sort_by(|a, b| (a.created_ms, &a.nonce).cmp(&(b.created_ms, &b.nonce)));
    List { orders }
}

/// Orders as a table.
pub(in crate::cli) fn table(orders: &[Order], empty: &str) -> String {
    let columns = [
        ("nonce", Align::Left),
        ("side", Align::Left),
        ("amount (sat)", Align::Right),
        ("filled", Align::Right),
        ("ppb", Align::Right),
        ("a year", Align::Right),
        ("for", Align::Left),
        ("state", Align::Left),
    ];
    let row = |order: &Order| {
        vec![
            show::short(&order.nonce),
            order.side.to_owned(),
            show::grouped(order.amount_sats),
            show::grouped(order.filled_sats),
            show::grouped(order.rate_ppb.into()),
            show::percent_micro(order.apr_micropercent.into()),
            show::days(order.duration_blocks),
            order.state.clone(),
        ]
    };
    show::table(&columns, orders.iter().map(row).collect(), empty)
}

/// An open order.
#[derive(Clone, Debug)]
pub(super) enum Found {
    Ask(rpc::Ask),
    Bid(rpc::Bid),
}

impl Found {
    pub(super) fn shaped(&self) -> Order {
        match self {
            Found::Ask(ask) => Order::of_ask(ask),
            Found::Bid(bid) => Order::of_bid(bid),
        }
    }

    pub(super) fn nonce(&self) -> Vec<u8> {
        let details = match self {
            Found::Ask(ask) => &ask.details,
            Found::Bid(bid) => &bid.details,
        };
        details.as_ref().map(|details| details.order_nonce.clone()).unwrap_or_default()
    }
}

/// The open orders.
pub(super) async fn open_orders(agent: &mut Agent) -> Result<Vec<Found>, Failure> {
    let list = fetch(agent, rpc::ListOrdersRequest { verbose: false, active_only: true }).await?;
    Ok(list.asks.into_iter().map(Found::Ask).chain(list.bids.into_iter().map(Found::Bid)).collect())
}

/// The open order whose nonce begins with these digits.
pub(super) async fn pick(agent: &mut Agent, digits: &str) -> Result<Found, Failure> {
    let mut found = open_orders(agent).await?;
    found.retain(|order| hex_of(&order.nonce()).starts_with(digits));
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(Failure::Refused(format!("no open order begins with {digits}: `tidegate order list` shows them"))),
        _ => {
            let all = found.iter().map(|order| show::short(&hex_of(&order.nonce()))).collect::<Vec<_>>().join(", ");
            Err(Failure::Usage(format!("{digits} could be {all}: write more digits")))
        }
    }
}
