//! One wish to stop, heard by everybody.

use tokio::sync::watch;

/// A switch that is off until somebody wants the process to stop.
#[derive(Clone, Debug)]
pub struct Shutdown {
    sender: watch::Sender<bool>,
}

impl Default for Shutdown {
    fn default() -> Shutdown {
        Shutdown { sender: watch::Sender::new(false) }
    }
}

impl Shutdown {
    /// Asks everybody to stop.
    pub fn trigger(&self) {
        self.sender.send_replace(true);
    }

    /// Whether somebody asked.
    pub fn is_wanted(&self) -> bool {
        *self.sender.borrow()
    }

    /// Returns once somebody asked.
    pub async fn wanted(&self) {
        let mut receiver = self.sender.subscribe();
        // The sender lives in `self`, so the wait ends only by the value.
        let _ = receiver.wait_for(|stop| *stop).await;
    }

    /// Triggers on SIGINT or SIGTERM.
    ///
    /// # Errors
    /// When the signal handlers cannot be installed.
    pub fn on_signals(&self) -> std::io::Result<()> {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
        let shutdown = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("stopping on signal");
            shutdown.trigger();
        });
        Ok(())
    }
}
