//! Durable state: rows that change together or not at all.

use core::future::Future;
use thiserror::Error;

/// Number of commits so far; each commit raises it by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sequence(pub u64);

/// One change of a commit. Rows are named by table and key; values are JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Writes a row, replacing it.
    Put {
        /// Kind of row, e.g. `account`.
        table: &'static str,
        /// Name of the row.
        key: String,
        /// JSON.
        value: String,
    },
    /// Removes a row; absent is no error.
    Delete {
        /// Kind of row.
        table: &'static str,
        /// Name of the row.
        key: String,
    },
}

/// A row as loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Kind of row.
    pub table: String,
    /// Name of the row.
    pub key: String,
    /// JSON.
    pub value: String,
}

/// The store could not do it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StoreError {
    /// Somebody else wrote since we loaded: a second daemon works on the same data.
    #[error("another process wrote to the store (expected commit {expected}, found {found}): stop one of them")]
    Moved {
        /// Sequence that the caller knew.
        expected: u64,
        /// Sequence in the store.
        found: u64,
    },
    /// The medium failed; whether the commit happened is unknown.
    #[error("the store failed: {reason}")]
    Failed {
        /// What happened.
        reason: String,
    },
    /// A stored row does not parse.
    #[error("row {table}/{key} can not be read: {reason}")]
    Corrupt {
        /// Kind of row.
        table: String,
        /// Name of the row.
        key: String,
        /// What is wrong.
        reason: String,
    },
}

/// All durable state of one owner (a trader, a venue). The only write is one atomic compare-and-set.
pub trait Store: Send + Sync {
    /// Every row of these tables, ordered by table and key, with the sequence they belong to.
    fn load(&self, tables: &[&'static str]) -> impl Future<Output = Result<(Sequence, Vec<Row>), StoreError>> + Send;
    /// The last rows of a table, at most `count`, in the order of their keys; with `before` only rows whose key is less.
    fn last(
        &self,
        table: &'static str,
        before: Option<String>,
        count: usize,
    ) -> impl Future<Output = Result<Vec<Row>, StoreError>> + Send {
        async move {
            let (_, mut rows) = self.load(&[table]).await?;
            if let Some(before) = before {
                rows.retain(|row| row.key < before);
            }
            let older = rows.len().saturating_sub(count);
            Ok(rows.split_off(older))
        }
    }
    /// Commits all changes durably, or none.
    fn apply(
        &self,
        expected: Sequence,
        changes: &[Change],
    ) -> impl Future<Output = Result<Sequence, StoreError>> + Send;
}
