//! The live market from inside: it opens, trades, shows why not, goes on after a stop, and bears its faults.

use super::*;
use crate::runtime::Shutdown;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Longest wait for anything: a loaded machine is slow.
const PATIENCE: Duration = Duration::from_secs(150);

/// A market under way, and what it tells.
struct Run {
    told: mpsc::UnboundedReceiver<Told>,
    shutdown: Shutdown,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Run {
    fn start(folder: &std::path::Path, role: Role, faults: Faults) -> Run {
        let data_dir = folder.join("market");
        let settings = LiveSettings { seed: None, speed: 4.0, data_dir, listen: None, role, faults };
        let (sender, told) = mpsc::unbounded_channel();
        let shutdown = Shutdown::default();
        let stop = shutdown.clone();
        let task = tokio::spawn(async move {
            run_live(&settings, &stop, |told| {
                // A test that has seen enough does not listen any more.
                drop(sender.send(told));
            })
            .await
        });
        Run { told, shutdown, task }
    }

    /// Listens until something is told that `wanted` makes something of.
    async fn until<T>(&mut self, what: &str, mut wanted: impl FnMut(&Told) -> Option<T>) -> T {
        let waiting = async {
            while let Some(told) = self.told.recv().await {
                if let Some(found) = wanted(&told) {
                    return Some(found);
                }
            }
            None
        };
        let found = tokio::time::timeout(PATIENCE, waiting).await;
        match found.unwrap_or_else(|_| panic!("it never came to this: {what}")) {
            Some(found) => found,
            None => panic!("the market ended before this: {what}: {:?}", (&mut self.task).await),
        }
    }

    async fn lease(&mut self) -> LeaseLine {
        self.until("our first lease", |told| match told {
            Told::Event(Event::Lease(lease)) => Some((**lease).clone()),
            _ => None,
        })
        .await
    }

    async fn scene(&mut self, what: &str, wanted: impl Fn(&Scene) -> bool) -> Scene {
        self.until(what, |told| match told {
            Told::Scene(scene) if wanted(scene) => Some((**scene).clone()),
            _ => None,
        })
        .await
    }
}

fn in_a_runtime<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("threads can be had").block_on(future)
}

/// The answer of an HTTP server, head and all.
async fn get(url: &str) -> String {
    let (address, path) = url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).expect("an address");
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read");
    answer
}

#[test]
fn the_market_opens_trades_and_goes_on_after_a_stop() {
    in_a_runtime(async {
        let folder = tempfile::tempdir().expect("a folder");
        let mut run = Run::start(folder.path(), Role::Both, Faults::default());
        let lease = run.lease().await;
        assert!(lease.premium_sats > 0 && lease.gross_ppb > 0.0 && lease.blocks_left > 0, "{lease:?}");
        assert!(super::habits::CAST.iter().any(|cast| cast.name == lease.counterparty), "{lease:?}");
        let why = |scene: &Scene| scene.orders.iter().any(|order| order.why_not_filled.is_some());
        let scene = run.scene("an open order with its reason", why).await;
        assert!(!scene.clearings.is_empty() && !scene.leases.is_empty());
        let metrics = get(&scene.served.metrics).await;
        assert!(metrics.starts_with("HTTP/1.1 200") && metrics.contains("tidegate_leases_total{"), "{metrics}");
        let status = get(&scene.served.status).await;
        assert!(status.contains(&lease.channel_point), "{status}");
        let before = run.stop_after_lease(&lease).await;

        let mut run = Run::start(folder.path(), Role::Both, Faults::default());
        let (height, start) = run
            .until("the second opening", |told| match told {
                Told::Event(Event::Opened { height, start, .. }) => Some((*height, *start)),
                _ => None,
            })
            .await;
        assert_eq!(start, 1);
        assert!(height >= before.height, "{height} after {}", before.height);
        let after =
            run.scene("the accounts", |scene| scene.accounts.iter().any(|account| account.state == "open")).await;
        assert_eq!(after.seed, before.seed);
        assert!(after.batches >= before.batches);
        for kept in &before.leases {
            let found = after.leases.iter().find(|lease| lease.channel_point == kept.channel_point);
            assert_eq!(found.map(|lease| lease.premium_sats), Some(kept.premium_sats));
        }
        let accounts = |scene: &Scene| scene.accounts.iter().map(|line| line.account.clone()).collect::<Vec<_>>();
        assert_eq!(accounts(&after), accounts(&before));
        run.scene("another batch", |scene| scene.batches > before.batches).await;
        run.stop_quietly().await;
    });
}

impl Run {
    /// Stops; the lease is still there.
    async fn stop_after_lease(mut self, lease: &LeaseLine) -> Scene {
        let known = |scene: &Scene| scene.leases.iter().any(|line| line.channel_point == lease.channel_point);
        let last = self.scene("the lease", known).await;
        self.stop_quietly().await;
        last
    }
}

#[test]
fn a_seller_only_sells_and_a_buyer_only_buys() {
    in_a_runtime(async {
        for (role, side) in [(Role::Seller, "sold"), (Role::Buyer, "bought")] {
            let folder = tempfile::tempdir().expect("a folder");
            let mut run = Run::start(folder.path(), role, Faults::default());
            assert_eq!(run.lease().await.side, side);
            let scene = run.scene("all its leases", |scene| scene.leases.len() > 1).await;
            assert!(scene.leases.iter().all(|lease| lease.side == side), "{role}");
            run.stop_quietly().await;
        }
    });
}

impl Run {
    async fn stop_quietly(mut self) {
        self.shutdown.trigger();
        while self.told.recv().await.is_some() {}
        self.task.await.expect("no panic").expect("it ends in order");
    }

    async fn fault(&mut self, wanted: &str) {
        self.until(wanted, |told| match told {
            Told::Event(Event::Fault { what, .. }) if what == wanted => Some(()),
            _ => None,
        })
        .await;
    }
}

#[test]
fn a_lying_venue_is_refused_with_the_rule_that_it_broke() {
    in_a_runtime(async {
        let folder = tempfile::tempdir().expect("a folder");
        let mut run = Run::start(folder.path(), Role::Both, Faults { hostile_venue: true, ..Faults::default() });
        let mut lies = Vec::new();
        while lies.len() < 3 {
            let (lie, refusal) = run
                .until("a lie", |told| match told {
                    Told::Event(Event::Lied { lie, refusal }) => Some((lie.clone(), refusal.clone())),
                    _ => None,
                })
                .await;
            let refusal = refusal.unwrap_or_else(|| panic!("not noticed: {lie}"));
            lies.push((lie, refusal));
        }
        let rules = ["ends with", "clears at", "ppm, the batch charges"];
        for ((lie, refusal), rule) in lies.iter().zip(rules) {
            assert!(refusal.contains(rule), "{lie}: {refusal}");
        }
        // What it was told truthfully it accepted.
        run.lease().await;
        run.stop_quietly().await;
    });
}

#[test]
fn a_dead_node_and_dear_blocks_pass() {
    in_a_runtime(async {
        let folder = tempfile::tempdir().expect("a folder");
        let faults = Faults { kill_node: true, fee_spike: true, hostile_venue: false };
        let mut run = Run::start(folder.path(), Role::Both, faults);
        run.fault("our node dies").await;
        run.scene("trouble is shown", |scene| scene.trouble.iter().any(|what| what.contains("node is dead"))).await;
        run.fault("our node is back").await;
        run.fault("chain fees are twenty times what they were").await;
        let dear = |scene: &Scene| scene.clearings.iter().any(|line| line.fee_rate_sat_per_kw >= 20 * 253);
        run.scene("a dear batch", dear).await;
        run.fault("chain fees are as they were").await;
        // It trades again after all that.
        let count = run.scene("a scene", |_| true).await.leases.len();
        run.scene("a new lease", |scene| scene.leases.len() > count).await;
        run.stop_quietly().await;
    });
}

#[test]
fn clearings_are_some_blocks_and_some_seconds_apart() {
    let every = |speed| Rhythm::of(speed).every;
    let seconds = |speed| Rhythm::of(speed).interval.as_secs_f64();
    assert_eq!((every(0.5), seconds(0.5)), (6, 12.0));
    assert_eq!((every(3.0), seconds(3.0)), (6, 2.0));
    assert_eq!((every(100.0), seconds(100.0)), (200, 2.0));
    assert_eq!(every(1e9), 400);
    assert_eq!(Rhythm::of(f64::MIN_POSITIVE), Rhythm::of(0.01));
}

#[test]
fn three_ports_in_a_row_on_loopback() {
    let of = |text: &str| Ports::of(Some(text.parse().expect("an address")));
    let ports = of("127.0.0.1:9000").expect("loopback");
    assert_eq!((ports.status.port(), ports.rpc.port(), ports.venue.port()), (9000, 9001, 9002));
    let ports = Ports::of(None).expect("the system's choice");
    assert_eq!((ports.status.port(), ports.venue.port()), (0, 0));
    assert!(of("0.0.0.0:9000").is_err() && of("192.0.2.1:0").is_err());
    assert!(of("127.0.0.1:65534").is_err());
}
