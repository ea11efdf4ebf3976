//! A store in memory.

use crate::wakers::lock;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tidegate_ports::{Change, Row, Sequence, Store, StoreError};

/// Rows in memory with the compare-and-set of a real store. Clones share the rows: a clone handed to a second owner
/// is the same data after a restart.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    sequence: Sequence,
    rows: BTreeMap<(String, String), String>,
}

impl MemoryStore {
    /// An empty store at sequence 0.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }
}

impl Store for MemoryStore {
    async fn load(&self, tables: &[&'static str]) -> Result<(Sequence, Vec<Row>), StoreError> {
        let inner = lock(&self.inner);
        let rows = inner
            .rows
            .iter()
            .filter(|((table, _), _)| tables.contains(&table.as_str()))
            .map(|((table, key), value)| Row { table: table.clone(), key: key.clone(), value: value.clone() })
            .collect();
        Ok((inner.sequence, rows))
    }

    async fn apply(&self, expected: Sequence, changes: &[Change]) -> Result<Sequence, StoreError> {
        let mut inner = lock(&self.inner);
        if inner.sequence != expected {
            return Err(StoreError::Moved { expected: expected.0, found: inner.sequence.0 });
        }
        let next = expected
            .0
            .checked_add(1)
            .ok_or_else(|| StoreError::Failed { reason: "the commit number overflows".to_owned() })?;
        for change in changes {
            match change {
                Change::Put { table, key, value } => {
                    inner.rows.insert(((*table).to_owned(), key.clone()), value.clone());
                }
                Change::Delete { table, key } => {
                    inner.rows.remove(&((*table).to_owned(), key.clone()));
                }
            }
        }
        inner.sequence = Sequence(next);
        Ok(inner.sequence)
    }
}
