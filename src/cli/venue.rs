//! `tidegate venue`: an auction venue on a real node.

use crate::config::VenueConfigFile;
use crate::daemon;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Before the first start:
  tidegate permissions --role venue           bake the macaroon with the command that this prints
  tidegate config init --role venue --network mainnet    write venue.toml; then set terms and ratings
  tidegate venue --config venue.toml

While it runs (the address is status_listen):
  curl 127.0.0.1:12082/healthz                ok while the process serves
  curl 127.0.0.1:12082/v1/status              traders, accounts, orders, batches; 503 and why while it waits for the node
  curl -X POST 127.0.0.1:12082/v1/tick        try to clear the market now; tells the batch, or why there is none

A node that is away, starting or locked is waited for. SIGTERM or Ctrl-C stops it at any moment; accounts, orders and
batches are stored, and the next start publishes unconfirmed batches again.";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Configuration file (TOML); config/venue.example.toml explains each key.
    #[arg(long, env = "TIDEGATE_CONFIG")]
    config: PathBuf,
}

pub(super) async fn execute(args: Args) -> anyhow::Result<()> {
    let config = VenueConfigFile::load(&args.config)?;
    daemon::run_venue(config).await
}
