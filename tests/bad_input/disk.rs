//! Disks that are full, and rows that are damaged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tidegate::store::SqliteStore;
use tidegate_ports::{Change, Row, Sequence, Store, StoreError};
use tidegate_protocol::account::AccountVersion;
use tidegate_sandbox::MemoryStore;
use tidegate_trader::{Halt, Reaction};
use tidegate_wire::poolrpc::client_auction_message::Msg;

use crate::lnd::FakeLnd;
use crate::program::Daemon;
use crate::rig::{Market, in_a_runtime};
use crate::{assert_refused, bench_at};

/// A store on a disk that may be full.
#[derive(Clone)]
struct Disk {
    store: MemoryStore,
    full: Arc<AtomicBool>,
}

impl Store for Disk {
    async fn load(&self, tables: &[&'static str]) -> Result<(Sequence, Vec<Row>), StoreError> {
        self.store.load(tables).await
    }

    async fn apply(&self, expected: Sequence, changes: &[Change]) -> Result<Sequence, StoreError> {
        if self.full.load(Ordering::SeqCst) {
            return Err(StoreError::Failed { reason: "database or disk is full".to_owned() });
        }
        self.store.apply(expected, changes).await
    }
}

/// The disk fills while a batch is made: no signature leaves, the trader ends with a sentence, and with room again it
/// goes on where it stood.
#[test]
fn a_full_disk_ends_the_trader_before_a_signature_leaves() {
    in_a_runtime(async {
        let mut market = Market::open(31).await;
        let disk = Disk { store: MemoryStore::default(), full: Arc::default() };
        market.join(&["carla"], 5_000_000, AccountVersion::V2).await;
        let link = market.link("anna");
        market.start_on("anna", link, disk.clone());
        market.open_accounts(&["anna"], 5_000_000, AccountVersion::V2).await;
        market.ask("anna", 700, 10).await;
        market.bid("carla", 900, 4).await;
        let (before, mark) = (market.account("anna").await, market.meddler.mark());

        disk.full.store(true, Ordering::SeqCst);
        assert_eq!(market.tick().await.cleared, None);
        let ended = market.traders.remove("anna").expect("she was there").flows.await.expect("no panic");
        let halt = ended.expect_err("the store failed");
        assert!(matches!(&halt, Halt::Store(StoreError::Failed { .. })), "{halt:?}");
        assert_eq!(halt.reaction(), Reaction::Exit);
        assert!(halt.to_string().contains("database or disk is full"), "{halt}");
        let said = market.meddler.said("anna", mark);
        assert!(!said.iter().any(|message| matches!(message, Msg::Sign(_))), "{said:?}");
        assert!(market.world.utxo(before.outpoint.unwrap()).is_some(), "the account is unspent");

        disk.full.store(false, Ordering::SeqCst);
        let link = market.link("anna");
        market.start_on("anna", link, disk);
        market.ready("anna").await;
        assert_eq!(market.account("anna").await, before);
        market.clear_at_last().await;
        assert_eq!(market.status("anna").await.leases.len(), 1);
    });
}

/// A row that does not parse stops the agent with its name; nothing is repaired by guessing.
#[test]
fn a_damaged_row_stops_the_agent() {
    let lnd = FakeLnd::start(|_| ());
    for table in ["account", "order"] {
        let bench = bench_at(Daemon::Agent, &lnd);
        let file = bench.path("data/agent.sqlite");
        in_a_runtime(async {
            let store = SqliteStore::open(&file, "trader").await.expect("a new file");
            let damaged = Change::Put { table, key: "02aa".to_owned(), value: "{\"half\": ".to_owned() };
            store.apply(Sequence(0), &[damaged]).await.expect("written");
            store.close().await;
        });
        assert_refused(bench.start(), &["its state can not be trusted", &format!("row {table}/02aa can not be read")]);
    }
}

/// The same file by another path is the same file.
#[cfg(unix)]
#[test]
fn a_second_daemon_on_a_link_to_the_database_is_refused() {
    let bench = crate::program::Bench::new(Daemon::Agent);
    let mut first = bench.start();
    first.wait_for("waiting for the node");
    let other = crate::program::Bench::new(Daemon::Agent);
    std::fs::create_dir(other.path("data")).unwrap();
    std::os::unix::fs::symlink(bench.path("data/agent.sqlite"), other.path("data/agent.sqlite")).unwrap();
    assert_refused(other.start(), &["another tidegate process uses", "stop that one first"]);
    assert!(first.runs());
}
