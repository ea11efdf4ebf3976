//! The SQLite file.

use super::lock::{LockFailure, OwnerLock, private};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, Row as _, Sqlite, SqliteConnection, Transaction};
use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tidegate_ports::{Change, Row, Sequence, Store, StoreError};

/// The layout that this program reads and writes.
const LAYOUT: i64 = 1;
/// Greater than every key that is text.
const BEYOND: &str = "\u{10ffff}";
const SCHEMA: &str = include_str!("schema.sql");
/// How long a statement waits for another owner's commit on the same file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The store can not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The folder can not be made.
    #[error("cannot make the data folder {}: {source}; choose another folder or mend its permissions", path.display())]
    Folder {
        /// Folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file can not be made, locked or protected.
    #[error("cannot use {}: {source}; check that the folder is on a local disk, writable for this user", path.display())]
    File {
        /// File.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process works on the same data.
    #[error("another tidegate process uses {} as '{owner}' (it holds {}): stop that one first", database.display(), lock.display())]
    InUse {
        /// Database.
        database: PathBuf,
        /// Whose data.
        owner: String,
        /// The lock file.
        lock: PathBuf,
    },
    /// A newer program wrote the file.
    #[error("{} has layout {found}, this program knows {known}: use the newer program that wrote it", path.display())]
    Layout {
        /// Database.
        path: PathBuf,
        /// Layout of the file.
        found: i64,
        /// Layout that we know.
        known: i64,
    },
    /// Another program's database.
    #[error("{} is a database of another program (it has a table '{table}'): choose another data folder", path.display())]
    Foreign {
        /// Database.
        path: PathBuf,
        /// A table that is not ours.
        table: String,
    },
    /// The file is no database, or is damaged.
    #[error("cannot open the database {}: {reason}; restore it from a backup if it is damaged", path.display())]
    Database {
        /// Database.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// No room for the database.
    #[error("cannot write the database {}: {reason}; make room on its disk", path.display())]
    Full {
        /// Database.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// All durable state of one owner in a SQLite file. Clones share the connection and the lock.
///
/// Dropping a call to [`Store::apply`] leaves open whether the commit happened; the sequence tells.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    pool: SqlitePool,
    owner: Arc<str>,
    _lock: Option<Arc<OwnerLock>>,
}

impl SqliteStore {
    /// Opens or makes the file. `owner` names whose data in it: several owners share a file without seeing each
    /// other, one owner is open once at a time.
    ///
    /// A new folder gets mode 0700, the file 0600. The lock belongs to the file itself, by whatever path or symbolic
    /// link it is opened; only a hard link would be another file.
    ///
    /// # Errors
    /// [`OpenError`]; each says what to do. A file that is refused is left as it was.
    pub async fn open(path: &Path, owner: &str) -> Result<SqliteStore, OpenError> {
        make_folder(path)?;
        let path = &real_path(path)?;
        let lock = OwnerLock::take(path, owner).map_err(|failure| match failure {
            LockFailure::Held(lock) => OpenError::InUse { database: path.to_owned(), owner: owner.to_owned(), lock },
            LockFailure::Io(path, source) => OpenError::File { path, source },
        })?;
        let mut store = SqliteStore::open_unlocked(path, owner).await?;
        store._lock = Some(Arc::new(lock));
        Ok(store)
    }

    /// As [`SqliteStore::open`], without the guard against a second process.
    pub(super) async fn open_unlocked(path: &Path, owner: &str) -> Result<SqliteStore, OpenError> {
        make_file(path)?;
        let failed = |error| open_failed(path, &error);
        refuse_foreign(path).await?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        // One connection: commits are short and come from one task.
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.map_err(failed)?;
        let found = prepare_layout(&pool).await.map_err(failed)?;
        if found != LAYOUT {
            return Err(OpenError::Layout { path: path.to_owned(), found, known: LAYOUT });
        }
        Ok(SqliteStore { pool, owner: Arc::from(owner), _lock: None })
    }

    /// Lets the file grow no further than to this many pages, as a full disk would.
    #[cfg(test)]
    pub(super) async fn limit_pages(&self, pages: u32) {
        let limit = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
        sqlx::raw_sql(limit).execute(&self.pool).await.expect("SQLite knows the pragma");
    }

    /// Flushes and closes the file; later calls on any clone fail.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    async fn sequence(&self, transaction: &mut Transaction<'_, Sqlite>) -> Result<Sequence, StoreError> {
        let found = sqlx::query("SELECT n FROM sequence WHERE owner = ?1")
            .bind(&*self.owner)
            .fetch_optional(&mut **transaction)
            .await
            .map_err(failed)?;
        let Some(row) = found else { return Ok(Sequence(0)) };
        let number: i64 = row.try_get("n").map_err(failed)?;
        u64::try_from(number).map(Sequence).map_err(|_| StoreError::Corrupt {
            table: "sequence".to_owned(),
            key: self.owner.to_string(),
            reason: format!("{number} is negative"),
        })
    }

    async fn rows(&self, table: &str, transaction: &mut Transaction<'_, Sqlite>) -> Result<Vec<Row>, StoreError> {
        let rows = sqlx::query("SELECT key, value FROM row WHERE owner = ?1 AND tbl = ?2 ORDER BY key")
            .bind(&*self.owner)
            .bind(table)
            .fetch_all(&mut **transaction)
            .await
            .map_err(failed)?;
        rows.iter().map(|row| read_row(table, row)).collect()
    }

    async fn write(&self, change: &Change, transaction: &mut Transaction<'_, Sqlite>) -> Result<(), StoreError> {
        let query = match change {
            Change::Put { table, key, value } => sqlx::query(
                "INSERT INTO row (owner, tbl, key, value) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT (owner, tbl, key) DO UPDATE SET value = excluded.value",
            )
            .bind(&*self.owner)
            .bind(*table)
            .bind(key)
            .bind(value),
            Change::Delete { table, key } => sqlx::query("DELETE FROM row WHERE owner = ?1 AND tbl = ?2 AND key = ?3")
                .bind(&*self.owner)
                .bind(*table)
                .bind(key),
        };
        query.execute(&mut **transaction).await.map_err(failed)?;
        Ok(())
    }

    async fn commit(
        &self,
        connection: &mut SqliteConnection,
        expected: Sequence,
        changes: &[Change],
    ) -> Result<Sequence, StoreError> {
        // IMMEDIATE takes the write lock first: nobody commits between our comparison and our commit.
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        let found = self.sequence(&mut transaction).await?;
        if found != expected {
            return Err(StoreError::Moved { expected: expected.0, found: found.0 });
        }
        for change in changes {
            self.write(change, &mut transaction).await?;
        }
        let next = found.0.checked_add(1).map(Sequence).ok_or_else(|| too_many(found))?;
        let number = i64::try_from(next.0).map_err(|_| too_many(found))?;
        sqlx::query("INSERT INTO sequence (owner, n) VALUES (?1, ?2) ON CONFLICT (owner) DO UPDATE SET n = excluded.n")
            .bind(&*self.owner)
            .bind(number)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(next)
    }
}

impl Store for SqliteStore {
    async fn load(&self, tables: &[&'static str]) -> Result<(Sequence, Vec<Row>), StoreError> {
        // One transaction: rows and sequence are of the same moment.
        let mut transaction = self.pool.begin().await.map_err(failed)?;
        let sequence = self.sequence(&mut transaction).await?;
        let mut rows = Vec::new();
        for table in tables.iter().collect::<BTreeSet<_>>() {
            rows.extend(self.rows(table, &mut transaction).await?);
        }
        transaction.rollback().await.map_err(failed)?;
        Ok((sequence, rows))
    }

    async fn last(&self, table: &'static str, before: Option<String>, count: usize) -> Result<Vec<Row>, StoreError> {
        // The index answers it from its end: a journal grows for years.
        let query = "SELECT key, value FROM row WHERE owner = ?1 AND tbl = ?2 AND key < ?3 \
                     ORDER BY key DESC LIMIT ?4";
        let rows = sqlx::query(query)
            .bind(&*self.owner)
            .bind(table)
            .bind(before.unwrap_or_else(|| BEYOND.to_owned()))
            .bind(i64::try_from(count).unwrap_or(i64::MAX))
            .fetch_all(&self.pool)
            .await
            .map_err(failed)?;
        rows.iter().rev().map(|row| read_row(table, row)).collect()
    }

    async fn apply(&self, expected: Sequence, changes: &[Change]) -> Result<Sequence, StoreError> {
        let mut connection = self.pool.acquire().await.map_err(failed)?;
        let outcome = self.commit(&mut connection, expected, changes).await;
        if let Err(StoreError::Failed { .. }) = outcome {
            // A full disk makes SQLite end the transaction by itself, and the connection still counts it as begun.
            connection.close_on_drop();
        }
        outcome
    }
}

fn read_row(table: &str, row: &sqlx::sqlite::SqliteRow) -> Result<Row, StoreError> {
    let key = row.try_get("key").map_err(failed)?;
    let value = row.try_get("value").map_err(failed)?;
    Ok(Row { table: table.to_owned(), key, value })
}

fn failed(error: sqlx::Error) -> StoreError {
    StoreError::Failed { reason: error.to_string() }
}

/// SQLite's number for a medium without room.
const SQLITE_FULL: &str = "13";

/// What an operator can do about a failure to open: make room, or restore.
fn open_failed(path: &Path, error: &sqlx::Error) -> OpenError {
    let (path, reason) = (path.to_owned(), error.to_string());
    let full = error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == SQLITE_FULL);
    if full { OpenError::Full { path, reason } } else { OpenError::Database { path, reason } }
}

/// Looks, without writing, whether the file is another program's: it has tables, and none of them is our `layout`.
async fn refuse_foreign(path: &Path) -> Result<(), OpenError> {
    let failed = |error| open_failed(path, &error);
    let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(BUSY_TIMEOUT);
    let mut connection = options.connect().await.map_err(failed)?;
    let tables = sqlx::query("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
        .fetch_all(&mut connection)
        .await
        .map_err(failed)?;
    connection.close().await.map_err(failed)?;
    let names: Result<Vec<String>, sqlx::Error> = tables.iter().map(|row| row.try_get("name")).collect();
    let names = names.map_err(failed)?;
    match names.first() {
        Some(table) if !names.iter().any(|name| name == "layout") => {
            Err(OpenError::Foreign { path: path.to_owned(), table: table.clone() })
        }
        _ => Ok(()),
    }
}

fn too_many(found: Sequence) -> StoreError {
    StoreError::Failed { reason: format!("commit number {} has no successor", found.0) }
}

/// Makes missing tables and returns the layout of the file; another layout is left as it is.
async fn prepare_layout(pool: &SqlitePool) -> Result<i64, sqlx::Error> {
    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::raw_sql(SCHEMA).execute(&mut *transaction).await?;
    let found = sqlx::query("SELECT version FROM layout").fetch_optional(&mut *transaction).await?;
    let version = match found {
        Some(row) => row.try_get("version")?,
        None => {
            sqlx::query("INSERT INTO layout (version) VALUES (?1)").bind(LAYOUT).execute(&mut *transaction).await?;
            LAYOUT
        }
    };
    if version == LAYOUT {
        transaction.commit().await?;
    }
    Ok(version)
}

/// Makes the folder of the file, closed to others when it is new.
fn make_folder(path: &Path) -> Result<(), OpenError> {
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return Ok(()) };
    if folder.is_dir() {
        return Ok(());
    }
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(folder).map_err(|source| OpenError::Folder { path: folder.to_owned(), source })
}

/// Makes the file before SQLite does, so that it, its log and its index are never readable for others; an older file
/// is closed to others too.
///
/// A file that exists is never opened here: closing it again would release the locks that SQLite holds on it for other
/// owners in this process, since POSIX locks belong to process and file.
fn make_file(path: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::File { path: path.to_owned(), source };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    private(&mut options);
    match options.open(path) {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error)),
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
        if mode & 0o077 != 0 {
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        }
    }
    Ok(())
}

/// The file behind all symbolic links, made when it does not exist: one file has one lock.
fn real_path(path: &Path) -> Result<PathBuf, OpenError> {
    make_file(path)?;
    fs::canonicalize(path).map_err(|source| OpenError::File { path: path.to_owned(), source })
}
