//! Whether the agent trades: a switch that an operator turns off and on, and that outlives the process.
//!
//! Does: remember who turned it, when and why; keep it in the store. Never does: cancel or place anything; the task that
//! decides looks at the switch before every order.

use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tidegate_ports::{Change, Sequence, Store, StoreError, Timestamp};

/// The one table, with one row.
const SWITCH: &str = "switch";

/// How the switch stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// An operator stopped trading.
    pub stopped: bool,
    /// Who turned it last; empty when nobody ever did.
    pub by: String,
    /// Why.
    pub why: String,
    /// When; zero when nobody ever did.
    pub at: Timestamp,
    /// How often it was turned.
    pub turns: u64,
}

#[derive(Debug, Default)]
struct State {
    position: Position,
    /// A promise was broken; forgotten by a restart.
    halted: bool,
}

#[derive(Debug)]
struct Shared<S> {
    store: S,
    state: Mutex<State>,
    /// Commits of the store, when they are known.
    sequence: tokio::sync::Mutex<Option<Sequence>>,
}

/// The switch. Clones are the same one.
#[derive(Debug)]
pub struct Switch<S>(Arc<Shared<S>>);

impl<S> Clone for Switch<S> {
    fn clone(&self) -> Switch<S> {
        Switch(Arc::clone(&self.0))
    }
}

impl<S: Store> Switch<S> {
    /// The switch as it was left; `store` belongs to it alone.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub async fn load(store: S) -> Result<Switch<S>, StoreError> {
        let (sequence, position) = read(&store).await?;
        let state = State { position, halted: false };
        let sequence = tokio::sync::Mutex::new(Some(sequence));
        Ok(Switch(Arc::new(Shared { store, state: Mutex::new(state), sequence })))
    }

    /// How it stands.
    pub fn position(&self) -> Position {
        self.state().position.clone()
    }

    /// An operator stopped trading.
    pub fn is_stopped(&self) -> bool {
        self.state().position.stopped
    }

    /// A promise was broken: nothing is placed until a restart.
    pub fn is_halted(&self) -> bool {
        self.state().halted
    }

    /// Remembers that a promise was broken.
    pub(crate) fn halt(&self) {
        self.state().halted = true;
    }

    /// Turns it. A stop holds from the moment of the call, also when it cannot be kept; trading is resumed only once that
    /// is durable.
    ///
    /// # Errors
    /// [`StoreError`]: a stop that is not kept ends with the process, and a resumption did not happen.
    pub async fn turn(&self, stopped: bool, by: &str, why: &str, at: Timestamp) -> Result<Position, StoreError> {
        let Shared { store, sequence, .. } = &*self.0;
        // One turn at a time.
        let mut sequence = sequence.lock().await;
        let turns = self.state().position.turns.saturating_add(1);
        let position = Position { stopped, by: by.to_owned(), why: why.to_owned(), at, turns };
        if stopped {
            self.state().position = position.clone();
        }
        // While a commit is under way, and when it was cut off, its number is not known.
        let expected = match sequence.take() {
            Some(known) => known,
            None => read(store).await?.0,
        };
        let value = serde_json::to_string(&position).expect("plain data");
        let change = Change::Put { table: SWITCH, key: SWITCH.to_owned(), value };
        *sequence = Some(store.apply(expected, &[change]).await?);
        self.state().position = position.clone();
        Ok(position)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere does not make plain data wrong.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read<S: Store>(store: &S) -> Result<(Sequence, Position), StoreError> {
    let (sequence, rows) = store.load(&[SWITCH]).await?;
    let Some(row) = rows.first() else { return Ok((sequence, Position::default())) };
    let position = serde_json::from_str(&row.value).map_err(|error| StoreError::Corrupt {
        table: row.table.clone(),
        key: row.key.clone(),
        reason: error.to_string(),
    })?;
    Ok((sequence, position))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_sandbox::MemoryStore;

    #[tokio::test]
    async fn a_turn_outlives_the_process_and_a_halt_does_not() {
        let store = MemoryStore::new();
        let switch = Switch::load(store.clone()).await.expect("empty");
        assert_eq!((switch.position(), switch.is_halted()), (Position::default(), false));
        let stopped = switch.turn(true, "anna", "fees", Timestamp(7)).await.expect("kept");
        switch.halt();
        assert!(switch.is_stopped() && switch.clone().is_halted());
        let again = Switch::load(store.clone()).await.expect("readable");
        assert_eq!((again.position(), again.is_halted()), (stopped, false));
        let resumed = again.turn(false, "boris", "", Timestamp(8)).await.expect("kept");
        assert_eq!((resumed.turns, resumed.stopped, again.is_stopped()), (2, false, false));
        assert_eq!(Switch::load(store).await.expect("readable").position(), resumed);
    }

    #[tokio::test]
    async fn a_stop_that_can_not_be_kept_holds_and_a_resumption_that_can_not_does_not() {
        let store = MemoryStore::new();
        let switch = Switch::load(store.clone()).await.expect("empty");
        // Somebody else writes: the commit is refused.
        store.apply(Sequence(0), &[]).await.expect("committed");
        switch.turn(true, "anna", "", Timestamp(1)).await.expect_err("refused");
        assert!(switch.is_stopped());
        store.apply(Sequence(1), &[]).await.expect("committed");
        // The number is read again first, so that the next turn is kept.
        switch.turn(true, "anna", "", Timestamp(2)).await.expect("kept");
        store.apply(Sequence(3), &[]).await.expect("committed");
        switch.turn(false, "anna", "", Timestamp(3)).await.expect_err("refused");
        assert!(switch.is_stopped());
    }
}
