//! The promises of the port, on real files.

use super::{OpenError, SqliteStore};
use std::path::{Path, PathBuf};
use tidegate_ports::{Change, Row, Sequence, Store, StoreError};

fn database(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("data").join("tidegate.sqlite")
}

fn put(table: &'static str, key: &str, value: &str) -> Change {
    Change::Put { table, key: key.to_owned(), value: value.to_owned() }
}

fn row(table: &str, key: &str, value: &str) -> Row {
    Row { table: table.to_owned(), key: key.to_owned(), value: value.to_owned() }
}

async fn open(path: &Path, owner: &str) -> SqliteStore {
    SqliteStore::open(path, owner).await.expect("opens")
}

#[tokio::test]
async fn rows_come_back_ordered_and_only_of_the_tables_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&database(&folder), "trader").await;
    assert_eq!(store.load(&["order", "account"]).await.unwrap(), (Sequence(0), vec![]));

    let first = [put("order", "b", "2"), put("order", "a", "1"), put("account", "z", "{}"), put("event", "x", "0")];
    assert_eq!(store.apply(Sequence(0), &first).await, Ok(Sequence(1)));
    let gone = Change::Delete { table: "order", key: "absent".to_owned() };
    let second = [put("order", "b", "3"), Change::Delete { table: "account", key: "z".to_owned() }, gone];
    assert_eq!(store.apply(Sequence(1), &second).await, Ok(Sequence(2)));

    let expected = vec![row("order", "a", "1"), row("order", "b", "3")];
    assert_eq!(store.load(&["order", "account", "order"]).await.unwrap(), (Sequence(2), expected));
}

#[tokio::test]
async fn a_stale_sequence_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = database(&folder);
    let ours = open(&path, "trader").await;
    // What a daemon would be whose lock the file system ignored.
    let other = SqliteStore::open_unlocked(&path, "trader").await.unwrap();
    assert_eq!(other.apply(Sequence(0), &[put("account", "a", "other")]).await, Ok(Sequence(1)));

    let late = ours.apply(Sequence(0), &[put("account", "a", "ours"), put("account", "b", "ours")]).await;
    assert_eq!(late, Err(StoreError::Moved { expected: 0, found: 1 }));
    let ahead = ours.apply(Sequence(2), &[put("account", "a", "ours")]).await;
    assert_eq!(ahead, Err(StoreError::Moved { expected: 2, found: 1 }));
    assert_eq!(ours.load(&["account"]).await.unwrap(), (Sequence(1), vec![row("account", "a", "other")]));
}

#[tokio::test]
async fn commits_survive_reopening_without_a_clean_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = database(&folder);
    let first = open(&path, "trader").await;
    first.apply(Sequence(0), &[put("staged", "batch", "1")]).await.unwrap();
    // Copies are what a crash leaves: the write-ahead log was not folded into the file.
    let crashed = folder.path().join("crashed.sqlite");
    for suffix in ["", "-wal"] {
        let name = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
        std::fs::copy(name(&path), name(&crashed)).unwrap();
    }
    let again = open(&crashed, "trader").await;
    assert_eq!(again.load(&["staged"]).await.unwrap(), (Sequence(1), vec![row("staged", "batch", "1")]));
}

#[tokio::test]
async fn a_call_that_was_dropped_commits_all_or_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&database(&folder), "trader").await;
    let changes: Vec<Change> = (0..200).map(|n| put("order", &format!("{n:03}"), "x")).collect();
    for polls in 0..40_u32 {
        let (before, rows) = store.load(&["order"]).await.unwrap();
        {
            let mut call = std::pin::pin!(store.apply(before, &changes));
            for _ in 0..polls {
                let mut done = false;
                let once = std::future::poll_fn(|context| {
                    done = call.as_mut().poll(context).is_ready();
                    std::task::Poll::Ready(())
                });
                once.await;
                if done {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        let (after, now) = store.load(&["order"]).await.unwrap();
        let unchanged = after == before && now == rows;
        let complete = after == Sequence(before.0 + 1) && now.len() == changes.len();
        assert!(unchanged || complete, "{before:?} {after:?} {} rows", now.len());
    }
}

#[tokio::test]
async fn a_second_process_of_one_owner_is_refused_with_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let path = database(&folder);
    let first = open(&path, "trader").await;
    let error = SqliteStore::open(&path, "trader").await.expect_err("the first still runs");
    assert!(matches!(&error, OpenError::InUse { owner, .. } if owner == "trader"), "{error:?}");
    assert!(error.to_string().contains("stop that one first"), "{error}");

    drop(first);
    open(&path, "trader").await;
}

#[tokio::test]
async fn owners_share_a_file_without_seeing_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = database(&folder);
    let (alice, bob) = (open(&path, "alice").await, open(&path, "bob/1").await);
    alice.apply(Sequence(0), &[put("account", "a", "alice")]).await.unwrap();
    bob.apply(Sequence(0), &[put("account", "a", "bob")]).await.unwrap();
    alice.apply(Sequence(1), &[put("account", "b", "alice")]).await.unwrap();
    assert_eq!(bob.load(&["account"]).await.unwrap(), (Sequence(1), vec![row("account", "a", "bob")]));
}

#[tokio::test]
async fn a_file_of_a_newer_program_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = database(&folder);
    let store = open(&path, "trader").await;
    store.close().await;
    drop(store);
    let url = format!("sqlite://{}", path.display());
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    sqlx::raw_sql("UPDATE layout SET version = 2").execute(&pool).await.unwrap();
    pool.close().await;
    let error = SqliteStore::open(&path, "trader").await.expect_err("layout 2 is not known");
    assert!(matches!(error, OpenError::Layout { found: 2, known: 1, .. }), "{error:?}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    std::fs::write(&path, "certainly not a database, but long enough to have a header ".repeat(20)).unwrap();
    let error = SqliteStore::open(&path, "trader").await.expect_err("it is a text");
    assert!(matches!(error, OpenError::Database { .. }), "{error:?}");
}

#[cfg(unix)]
#[tokio::test]
async fn nobody_else_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = database(&folder);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let store = open(&path, "trader").await;
    store.apply(Sequence(0), &[put("account", "a", "{}")]).await.unwrap();
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    for entry in std::fs::read_dir(path.parent().unwrap()).unwrap() {
        let file = entry.unwrap().path();
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}
