//! Tasks that run beside the flows for as long as the process does: one that ends by itself brings the process down.

use crate::runtime::Shutdown;
use anyhow::{Context as _, anyhow};
use core::future::Future;
use std::time::Duration;
use tokio::task::JoinSet;

/// Longest wait for tasks once the process is to end: a client that never finishes its request must not hold it.
const GRACE: Duration = Duration::from_secs(5);

/// Tasks of one process.
pub(crate) struct Crew {
    shutdown: Shutdown,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Crew {
    /// Nobody yet; `shutdown` is triggered as soon as one ends before it is wanted.
    pub(crate) fn new(shutdown: Shutdown) -> Crew {
        Crew { shutdown, tasks: JoinSet::new() }
    }

    /// Runs a task, `name` says what it is in a sentence like "the status listener ended".
    pub(crate) fn spawn<E>(&mut self, name: &'static str, task: impl Future<Output = Result<(), E>> + Send + 'static)
    where
        E: Into<anyhow::Error> + Send + 'static,
    {
        let shutdown = self.shutdown.clone();
        // A task of its own, so that a panic ends it alone and is seen here.
        let running = tokio::spawn(task);
        self.tasks.spawn(async move {
            let outcome = running.await;
            let early = !shutdown.is_wanted();
            shutdown.trigger();
            match outcome {
                Ok(Ok(())) if early => Err(anyhow!("{name} ended by itself, so everything else was stopped")),
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(error.into()).with_context(|| format!("{name} failed")),
                Err(error) => Err(error).with_context(|| format!("{name} failed")),
            }
        });
    }

    /// Waits for everybody, at most [`GRACE`]; call it when the shutdown is wanted.
    ///
    /// # Errors
    /// The first failure, with the name of its task.
    pub(crate) async fn finish(mut self) -> anyhow::Result<()> {
        let mut first = Ok(());
        let grace = tokio::time::sleep(GRACE);
        tokio::pin!(grace);
        loop {
            let joined = tokio::select! {
                joined = self.tasks.join_next() => joined,
                () = &mut grace => {
                    tracing::warn!(tasks = self.tasks.len(), "still busy at the end: cut off");
                    None
                }
            };
            let Some(outcome) = joined else { return first };
            match outcome.unwrap_or_else(|error| Err(error.into())) {
                Err(error) if first.is_ok() => first = Err(error),
                Err(error) => tracing::error!(%error, "failed too"),
                Ok(()) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    async fn until(shutdown: Shutdown) -> io::Result<()> {
        shutdown.wanted().await;
        Ok(())
    }

    #[tokio::test]
    async fn a_task_that_ends_by_itself_stops_the_others_and_is_named() {
        type Task = fn() -> io::Result<()>;
        let cases: [(Task, &str); 3] = [
            (|| Ok(()), "the listener ended by itself"),
            (|| Err(io::Error::other("no more sockets")), "no more sockets"),
            (|| panic!("a defect"), "a defect"),
        ];
        for (task, reason) in cases {
            let shutdown = Shutdown::default();
            let mut crew = Crew::new(shutdown.clone());
            crew.spawn("the decisions", until(shutdown.clone()));
            crew.spawn("the listener", async move { task() });
            shutdown.wanted().await;
            let error = format!("{:#}", crew.finish().await.expect_err("it ended"));
            assert!(error.contains("the listener") && error.contains(reason), "{error}");
            assert!(!error.contains("the decisions"), "{error}");
        }
    }

    #[tokio::test]
    async fn tasks_that_end_after_the_wish_to_stop_are_no_failure() {
        let shutdown = Shutdown::default();
        let mut crew = Crew::new(shutdown.clone());
        crew.spawn("one", until(shutdown.clone()));
        crew.spawn("two", until(shutdown.clone()));
        shutdown.trigger();
        crew.finish().await.expect("both ended when asked to");
    }
}
