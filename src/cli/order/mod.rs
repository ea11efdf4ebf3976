//! `tidegate order`: ask, bid, list, cancel, replace.

mod cancel;
mod list;
mod place;
mod quote;

pub(super) use list::{shaped, table};

use super::console::Console;
use super::link::Daemon;
use clap::Subcommand;

const EXAMPLES: &str = "\
Examples:
  tidegate order ask 2M --apr 5% --for 14d        sell capacity for 14 days, at 5 % or more a year
  tidegate order bid 1M --premium 3000 --for 30d  buy capacity for 30 days, for 3,000 sat or less
  tidegate order list";

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
    /// Offers capacity: you lock coins in a channel to somebody else and earn a premium.
    Ask(Box<place::AskArgs>),
    /// Buys capacity: somebody else locks coins in a channel to you and you pay a premium.
    Bid(Box<place::BidArgs>),
    /// Lists orders.
    List(list::Args),
    /// Cancels an order, or all of them.
    Cancel(cancel::Args),
    /// Puts a new order in the place of an open one: what is not said stays as it was.
    Replace(Box<place::ReplaceArgs>),
}

pub(super) async fn execute(args: Args, console: &mut Console<'_>) -> anyhow::Result<()> {
    let Args { daemon, verb } = args;
    let mut agent = daemon.connect().await?;
    let json = daemon.json;
    match verb {
        Verb::Ask(args) => place::ask(*args, &mut agent, json, console).await,
        Verb::Bid(args) => place::bid(*args, &mut agent, json, console).await,
        Verb::List(args) => list::execute(&args, &mut agent, json, console).await,
        Verb::Cancel(args) => cancel::execute(args, &mut agent, json, console).await,
        Verb::Replace(args) => place::replace(*args, &mut agent, json, console).await,
    }
}
