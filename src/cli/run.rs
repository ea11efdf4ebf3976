//! `tidegate run`: the agent on a real node.

use crate::config::AgentConfig;
use crate::daemon;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Before the first start:
  tidegate permissions --role trader          bake the macaroon with the command that this prints
  tidegate config init --network mainnet      write agent.toml; then set the venue and every limit
  tidegate doctor                             is everything there that it needs?
  tidegate run --config agent.toml

With a section [api] it also serves the interface of the market's existing client, which then drives this agent:
  pool --network regtest --basedir data/agent/api --rpcserver 127.0.0.1:12010 accounts list

It starts with limits.dry_run = true: it decides and journals, and places nothing. Set it to false to trade.

While it runs: tidegate status, tidegate order --help. Without [api], the address is status_listen:
  curl 127.0.0.1:12081/healthz                ok while the process serves
  curl 127.0.0.1:12081/v1/status              accounts, orders, leases, yields; 503 and why while it waits for the node
  curl 127.0.0.1:12081/metrics                the same for Prometheus
  kill -USR1 PID                              trade no more: the same as tidegate stop; kill -USR2 resumes

A node or a venue that is away, starting or locked is waited for. SIGTERM or Ctrl-C stops it at any moment; what it
has signed is stored first, and the next start goes on from there.";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Configuration file (TOML); config/agent.example.toml explains each key.
    #[arg(long, env = "TIDEGATE_CONFIG")]
    config: PathBuf,
}

pub(super) async fn execute(args: Args) -> anyhow::Result<()> {
    let config = AgentConfig::load(&args.config)?;
    daemon::run_agent(config).await
}
