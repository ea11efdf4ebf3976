//! `tidegate run`: the agent on a real node.

use crate::config::AgentConfig;
use crate::daemon;
use std::path::PathBuf;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration file (TOML); config/agent.example.toml explains each key.
    #[arg(long, env = "TIDEGATE_CONFIG")]
    config: PathBuf,
}

pub(super) async fn execute(args: Args) -> anyhow::Result<()> {
    let config = AgentConfig::load(&args.config)?;
    daemon::run_agent(config).await
}
