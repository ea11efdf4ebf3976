//! `tidegate permissions`: what a role's macaroon must allow, and nothing more.

use crate::cli::say;
use crate::config::NETWORKS;
use crate::node::permissions::{Role, bake_command_for, permissions};
use clap::ValueEnum;
use clap::builder::PossibleValuesParser;
use std::path::PathBuf;

/// Which program the macaroon is for.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum RoleArg {
    /// `tidegate run`.
    Trader,
    /// `tidegate venue`.
    Venue,
}

const EXAMPLES: &str = "\
Examples:
  tidegate permissions --role trader                          print the command, and run it where lncli is
  tidegate permissions --role venue --network regtest | sh    print it and run it
  tidegate permissions --role trader --json                   the list alone, e.g. for another way to bake

lncli needs its own options when lnd is not in its usual place: insert --lnddir or --rpcserver after `lncli`.
The macaroon can fund accounts from the node's wallet: guard it like a wallet.";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Which program the macaroon is for.
    #[arg(long)]
    role: RoleArg,
    /// The node's network, as lncli must be told; lncli's own default is mainnet.
    #[arg(long, value_parser = PossibleValuesParser::new(NETWORKS))]
    network: Option<String>,
    /// Where the command puts the macaroon [default: tidegate-ROLE.macaroon].
    #[arg(long)]
    save_to: Option<PathBuf>,
    /// Prints the list of permissions as JSON instead of the command.
    #[arg(long, conflicts_with_all = ["network", "save_to"])]
    json: bool,
}

pub(super) fn execute(args: &Args) -> anyhow::Result<()> {
    let role = match args.role {
        RoleArg::Trader => Role::Trader,
        RoleArg::Venue => Role::Venue,
    };
    if args.json {
        return say(&serde_json::to_string_pretty(&permissions(role))?);
    }
    let usual = || PathBuf::from(format!("tidegate-{}.macaroon", role.name()));
    let save_to = args.save_to.clone().unwrap_or_else(usual);
    say(&bake_command_for(role, args.network.as_deref(), &save_to))
}
