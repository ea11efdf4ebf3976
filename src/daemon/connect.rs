//! Reaching the node: a permanent problem ends the start, a passing one is waited out.

use crate::node::{ConnectError, LndConfig, LndNode, Role};
use crate::runtime::Shutdown;
use anyhow::bail;
use std::time::Duration;

/// First wait after a failure; doubles up to [`LONGEST`].
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// Connects, waiting while the node is away, locked or behind the chain. Each wait is told in the log.
///
/// # Errors
/// A problem that only a person can solve, or the wish to stop.
pub(crate) async fn connect(config: &LndConfig, role: Role, shutdown: &Shutdown) -> anyhow::Result<LndNode> {
    let mut wait = FIRST;
    loop {
        let error: ConnectError = match LndNode::connect(config, role).await {
            Ok(node) => return Ok(node),
            Err(error) if error.is_temporary() => error,
            Err(error) => return Err(error.into()),
        };
        tracing::warn!(%error, retry_seconds = wait.as_secs(), "the node can not be used yet");
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.wanted() => bail!("stopped while waiting for the node: {error}"),
        }
        wait = (wait * 2).min(LONGEST);
    }
}
