//! Reaching the node: a permanent problem ends the start, a passing one is waited out.

use crate::node::{LndConfig, LndNode, Role};
use crate::runtime::Shutdown;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// First wait after a failure; doubles up to [`LONGEST`].
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// What the start waits for, for the pages that are served meanwhile. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Waiting(Arc<Mutex<Option<String>>>);

impl Waiting {
    /// Waiting for the first answer of the node at `address`.
    pub(crate) fn for_node(address: &str) -> Waiting {
        Waiting(Arc::new(Mutex::new(Some(format!("connecting to the node at {address}")))))
    }

    /// The sentence, or nothing when the start is over.
    pub(crate) fn reason(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is waited for from now on; nothing once the start is over.
    pub(crate) fn set(&self, reason: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }
}

/// Connects, waiting while the node is away, locked or behind the chain. Each wait is told in the log and in `waiting`.
/// Nothing when the process shall stop before that.
///
/// # Errors
/// A problem that only a person can solve.
pub(crate) async fn connect(
    config: &LndConfig,
    role: Role,
    waiting: &Waiting,
    shutdown: &Shutdown,
) -> anyhow::Result<Option<LndNode>> {
    let mut wait = FIRST;
    loop {
        // A node that takes calls and does not answer must not keep a signal waiting.
        let connected = tokio::select! {
            connected = LndNode::connect(config, role) => connected,
            () = shutdown.wanted() => return Ok(None),
        };
        let error = match connected {
            Ok(node) => {
                waiting.set(None);
                return Ok(Some(node));
            }
            Err(error) if error.is_temporary() => error,
            Err(error) => return Err(error.into()),
        };
        tracing::warn!(%error, retry_seconds = wait.as_secs(), "waiting for the node");
        waiting.set(Some(format!("waiting for the node: {error}")));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.wanted() => return Ok(None),
        }
        wait = (wait * 2).min(LONGEST);
    }
}
