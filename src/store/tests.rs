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
async fn the_last_rows_of_a_table_are_found_from_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&database(&folder), "journal").await;
    let keys = ["01", "02", "03", "04"];
    let mut all: Vec<Change> = keys.iter().map(|key| put("journal", key, key)).collect();
    all.push(put("latest", "99", "99"));
    store.apply(Sequence(0), &all).await.unwrap();
    let memory = tidegate_sandbox::MemoryStore::new();
    memory.apply(Sequence(0), &all).await.unwrap();
    let cases: [(Option<&str>, usize, &[&str]); 6] = [
        (None, 2, &["03", "04"]),
        (None, 9, &keys),
        (None, 0, &[]),
        (Some("03"), 1, &["02"]),
        (Some("03"), 9, &["01", "02"]),
        (Some("01"), 9, &[]),
    ];
    for (before, count, expected) in cases {
        let found = store.last("journal", before.map(str::to_owned), count).await.unwrap();
        assert_eq!(found.iter().map(|row| row.key.as_str()).collect::<Vec<_>>(), expected, "{before:?} {count}");
        assert_eq!(memory.last("journal", before.map(str::to_owned), count).await.unwrap(), found);
    }
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

/// Ways in which a database comes to harm, and words of the sentence that names them.
type Damage = (&'static str, fn(&mut Vec<u8>), &'static [&'static str]);

const DAMAGES: &[Damage] = &[
    ("cut after its first page", |bytes| bytes.truncate(4096), &["malformed"]),
    ("cut in the middle of a page", |bytes| bytes.truncate(bytes.len() / 2 + 100), &["malformed"]),
    ("another beginning", |bytes| bytes[..16].fill(b'x'), &["not a database", "restore it from a backup"]),
    ("noise behind the header", |bytes| noise(&mut bytes[100..]), &["malformed"]),
    ("zeros behind the header", |bytes| bytes[100..].fill(0), &["malformed"]),
];

/// Bytes that are nothing, the same at each run.
fn noise(bytes: &mut [u8]) {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for byte in bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *byte = state.to_be_bytes()[0];
    }
}

/// A database with some hundred rows, closed: everything is in the one file.
async fn filled(path: &Path) -> Vec<u8> {
    let store = open(path, "trader").await;
    let changes: Vec<Change> = (0..300).map(|n| put("order", &format!("{n:04}"), &"x".repeat(200))).collect();
    store.apply(Sequence(0), &changes).await.unwrap();
    store.close().await;
    std::fs::read(path).unwrap()
}

#[tokio::test]
async fn a_damaged_database_is_refused_with_a_sentence_and_left_alone() {
    for (name, spoil, words) in DAMAGES {
        let folder = tempfile::tempdir().unwrap();
        let path = database(&folder);
        let mut bytes = filled(&path).await;
        spoil(&mut bytes);
        std::fs::write(&path, &bytes).unwrap();
        let sentence = match SqliteStore::open(&path, "trader").await {
            Err(error) => {
                assert!(matches!(error, OpenError::Database { .. }), "{name}: {error:?}");
                assert!(error.to_string().contains(&path.display().to_string()), "{name}: {error}");
                error.to_string()
            }
            // What lies in pages that opening does not need is found when the rows are read, before anybody acts.
            Ok(store) => {
                let error = store.load(&["order"]).await.expect_err(name);
                assert!(matches!(error, StoreError::Failed { .. }), "{name}: {error:?}");
                store.close().await;
                error.to_string()
            }
        };
        assert!(words.iter().all(|word| sentence.contains(word)), "{name}: {sentence}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "{name}: the file was changed");
    }
}

#[tokio::test]
async fn a_full_disk_fails_the_commit_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&database(&folder), "trader").await;
    assert_eq!(store.apply(Sequence(0), &[put("account", "a", "1")]).await, Ok(Sequence(1)));

    store.limit_pages(1).await;
    let big = [put("account", "a", "2"), put("order", "b", &"x".repeat(1 << 20))];
    let error = store.apply(Sequence(1), &big).await.expect_err("there is no room");
    let StoreError::Failed { reason } = &error else { panic!("{error:?}") };
    assert!(reason.contains("database or disk is full"), "{reason}");
    let kept = vec![row("account", "a", "1")];
    assert_eq!(store.load(&["account", "order"]).await.unwrap(), (Sequence(1), kept), "all or nothing");

    // With room again the same commit goes through, from the same sequence.
    store.limit_pages(1 << 20).await;
    assert_eq!(store.apply(Sequence(1), &big).await, Ok(Sequence(2)));
}

#[cfg(unix)]
#[tokio::test]
async fn the_same_file_by_another_path_is_in_use_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = database(&folder);
    let first = open(&path, "trader").await;
    let (link, linked_folder) = (folder.path().join("link.sqlite"), folder.path().join("linked"));
    std::os::unix::fs::symlink(&path, &link).unwrap();
    std::os::unix::fs::symlink(path.parent().unwrap(), &linked_folder).unwrap();
    let detour = folder.path().join("data").join("..").join("data").join("tidegate.sqlite");
    let paths = [path.clone(), link, linked_folder.join("tidegate.sqlite"), detour];
    for other in &paths {
        let error = SqliteStore::open(other, "trader").await.expect_err("the first still runs");
        assert!(matches!(&error, OpenError::InUse { .. }), "{}: {error:?}", other.display());
    }
    drop(first);
    for other in &paths {
        open(other, "trader").await;
    }
}

#[tokio::test]
async fn a_database_of_another_program_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.sqlite");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let foreign = "CREATE TABLE row (id INTEGER); CREATE TABLE wallet (secret TEXT); INSERT INTO wallet VALUES ('s')";
    sqlx::raw_sql(foreign).execute(&pool).await.unwrap();
    pool.close().await;
    let before = std::fs::read(&path).unwrap();
    let error = SqliteStore::open(&path, "trader").await.expect_err("it is somebody else's");
    assert!(matches!(&error, OpenError::Foreign { table, .. } if table == "row"), "{error:?}");
    assert!(error.to_string().contains("choose another data folder"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

/// POSIX locks go when *any* descriptor of the file is closed by the process: what another owner does to open the file
/// must not take SQLite's locks away, else a second program could remove the log that is in use.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_second_owner_does_not_release_the_locks_of_the_first() {
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir().unwrap();
    let path = database(&folder);
    let (first, _second) = (open(&path, "trader").await, open(&path, "journal").await);
    first.apply(Sequence(0), &[put("account", "a", "1")]).await.unwrap();
    let inode = format!(":{}", std::fs::metadata(&path).unwrap().ino());
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    let held = |line: &&str| line.contains("POSIX") && line.split_whitespace().any(|word| word.ends_with(&inode));
    assert!(locks.lines().any(|line| held(&line)), "no lock on inode {inode}:\n{locks}");
}
