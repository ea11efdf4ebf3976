//! `tidegate order cancel`.

use super::list::{Found, open_orders, pick};
use crate::cli::account::digits;
use crate::cli::console::Console;
use crate::cli::exit::Failure;
use crate::cli::link::{Agent, change};
use crate::cli::shape::hex_of;
use crate::cli::show;
use serde::Serialize;
use tidegate_wire::poolrpc as rpc;

const EXAMPLES: &str = "\
Examples:
  tidegate order cancel 5f3c2a                      by the first digits of its nonce
  tidegate order cancel --all                       every open order, one after the other";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The order's nonce, or the first digits of it.
    #[arg(value_parser = digits, required_unless_present = "all", conflicts_with = "all")]
    nonce: Option<String>,
    /// Every open order.
    #[arg(long)]
    all: bool,
}

/// What `cancel` answers.
#[derive(Debug, Default, Serialize)]
struct Cancelled {
    cancelled: Vec<String>,
    failed: Vec<Failed>,
}

#[derive(Debug, Serialize)]
struct Failed {
    nonce: String,
    reason: String,
}

pub(super) async fn execute(
    args: Args,
    agent: &mut Agent,
    json: bool,
    console: &mut Console<'_>,
) -> anyhow::Result<()> {
    let orders: Vec<Found> = match &args.nonce {
        Some(digits) => vec![pick(agent, digits).await?],
        None => open_orders(agent).await?,
    };
    let mut outcome = Cancelled::default();
    let mut worst = None;
    for order in orders {
        let nonce = order.nonce();
        let request = rpc::CancelOrderRequest { order_nonce: nonce.clone() };
        match change("tidegate order list", agent.trader.cancel_order(request)).await {
            Ok(_) => outcome.cancelled.push(hex_of(&nonce)),
            Err(failure) => {
                outcome.failed.push(Failed { nonce: hex_of(&nonce), reason: failure.to_string() });
                worst = Some(failure);
            }
        }
    }
    let (done, failed) = (outcome.cancelled.len(), outcome.failed.len());
    match worst {
        // One order was asked for: its own reason says all.
        Some(failure) if args.nonce.is_some() => return Err(failure.into()),
        _ => console.answer(json, &outcome, text)?,
    }
    match (done, worst) {
        (_, None) => Ok(()),
        (0, Some(failure)) => Err(failure.into()),
        (_, Some(_)) => {
            Err(Failure::Unknown(format!("{done} orders are cancelled, {failed} are not: try again later")).into())
        }
    }
}

fn text(outcome: &Cancelled) -> String {
    if outcome.cancelled.is_empty() && outcome.failed.is_empty() {
        return "no order is open".to_owned();
    }
    let done = outcome.cancelled.iter().map(|nonce| format!("order {} is cancelled", show::short(nonce)));
    let failed = outcome.failed.iter();
    let failed =
        failed.map(|failed| format!("order {} is NOT cancelled: {}", show::short(&failed.nonce), failed.reason));
    done.chain(failed).collect::<Vec<_>>().join("\n")
}
