//! `tidegate permissions`: what a role's macaroon must allow, and nothing more.

use crate::cli::say;
use crate::node::permissions::{Role, bake_command, permissions};
use clap::ValueEnum;

/// Which program the macaroon is for.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum RoleArg {
    /// `tidegate run`.
    Trader,
    /// `tidegate venue`.
    Venue,
}

/// Arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which program the macaroon is for.
    #[arg(long)]
    role: RoleArg,
    /// Prints the list of permissions as JSON instead of the command.
    #[arg(long)]
    json: bool,
}

pub(super) fn execute(args: &Args) -> anyhow::Result<()> {
    let role = match args.role {
        RoleArg::Trader => Role::Trader,
        RoleArg::Venue => Role::Venue,
    };
    if args.json {
        say(&serde_json::to_string_pretty(&permissions(role))?);
    } else {
        say(&bake_command(role));
    }
    Ok(())
}
