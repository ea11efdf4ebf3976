//! `tidegate venue`: an auction venue on a real node.

use crate::config::VenueConfigFile;
use crate::daemon;
use std::path::PathBuf;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration file (TOML); config/venue.example.toml explains each key.
    #[arg(long, env = "TIDEGATE_CONFIG")]
    config: PathBuf,
}

pub(super) async fn execute(args: Args) -> anyhow::Result<()> {
    let config = VenueConfigFile::load(&args.config)?;
    daemon::run_venue(config).await
}
