//! The sandbox's market under audit: every message between traders and venue passes through a recording proxy, every
//! transaction of the chain is told, and a second implementation judges them all.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bitcoin::secp256k1::PublicKey;
use futures_util::FutureExt as _;
use tidegate::daemon::sandbox::{SandboxReport, Settings, run_through};
use tidegate_auditor::proxy::{Proxy, SharedAuditor, lock};
use tidegate_auditor::{Auditor, Counts, SecretOracle};
use tidegate_ports::Signer as _;
use tidegate_protocol::keys::KeyLocator;
use tidegate_protocol::units::BlockHeight;
use tidegate_sandbox::World;

/// Key family of account keys.
const ACCOUNTS: u32 = 220;
/// Accounts that one node may have in these runs.
const ACCOUNTS_PER_NODE: u32 = 32;

/// Looks for the node that owns an account key, and has it compute the secret. The simulated node answers at once.
fn oracle(world: World) -> SecretOracle {
    Box::new(move |trader: &PublicKey, auctioneer: &PublicKey| {
        world.nodes().into_iter().find_map(|node| {
            let mut places = (0..ACCOUNTS_PER_NODE).map(|index| KeyLocator { family: ACCOUNTS, index });
            let owned = |locator: &KeyLocator| {
                let key = node.derive_key(*locator).now_or_never();
                key.and_then(Result::ok).is_some_and(|key| key.point == *trader)
            };
            let secret = node.shared_secret(auctioneer, places.find(owned)?).now_or_never()?.ok()?;
            Some(*secret.as_bytes())
        })
    })
}

/// What stands between the traders and the venue.
struct Watch {
    world: World,
    /// Height of the next block to be told.
    next: u32,
    auditor: SharedAuditor,
    proxy: Proxy,
}

impl Watch {
    async fn start(world: World, venue: SocketAddr, secrets: bool) -> anyhow::Result<Watch> {
        let auditor = if secrets { Auditor::with_secrets(oracle(world.clone())) } else { Auditor::new() };
        let auditor: SharedAuditor = Arc::new(Mutex::new(auditor));
        let proxy = Proxy::start(&venue.to_string(), Arc::clone(&auditor)).await?;
        Ok(Watch { world, next: 0, auditor, proxy })
    }

    /// Tells the auditor of the blocks that it has not heard of.
    fn tell_chain(&mut self) {
        let mut auditor = lock(&self.auditor);
        while let Some(block) = self.world.block(BlockHeight::new(self.next)) {
            block.iter().for_each(|transaction| auditor.transaction(transaction));
            self.next += 1;
        }
    }
}

/// A run under audit: what the sandbox reports and what the auditor counted. Panics with the findings, if any.
async fn audited(batches: u32, seed: u64, secrets: bool) -> (SandboxReport, Counts) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let settings = Settings { batches, seed, data_dir: folder.path().join("data") };
    let watch: Mutex<Option<Watch>> = Mutex::new(None);
    let route = async |world: World, venue: SocketAddr| {
        let started = Watch::start(world, venue, secrets).await?;
        let address = started.proxy.address;
        *watch.lock().expect("nobody panicked") = Some(started);
        Ok(address)
    };
    let tell = || watch.lock().expect("nobody panicked").iter_mut().for_each(Watch::tell_chain);
    let report = run_through(&settings, route, |_| tell()).await;
    tell();
    let watch = watch.into_inner().expect("nobody panicked").expect("the run asked for its route");
    let auditor = lock(&watch.auditor);
    let findings: String = auditor.findings().iter().map(|finding| format!("{finding}\n")).collect();
    assert_eq!(findings, "", "seed {seed}, {:?}", auditor.counts());
    let report = report.unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
    (report, *auditor.counts())
}

fn in_a_runtime<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build();
    runtime.expect("threads can be had").block_on(future)
}

/// What holds of every honest run, whatever the seed: nothing escaped the auditor.
fn everything_was_seen(report: &SandboxReport, counts: &Counts, batches: u64) {
    let told = serde_json::to_value(report).expect("a report is JSON");
    let leases = told["leases"].as_array().map_or(0, Vec::len);
    assert_eq!(counts.accounts, 4, "{counts:?}");
    assert!(counts.orders > 0 && counts.stream_messages > 0 && counts.unary_calls > 0, "{counts:?}");
    // Each order and each subscription of an account is signed.
    assert!(counts.message_signatures >= counts.orders + counts.accounts, "{counts:?}");
    // Who was told of a batch accepted, signed and heard of its end, but for rounds that were repeated.
    assert_eq!(counts.acceptances + counts.rejections, counts.proposals, "{counts:?}");
    assert!(counts.finalized >= 2 * batches, "{counts:?}");
    assert_eq!(counts.batches_conserved, batches, "{counts:?}");
    // One account each: a signature per trader and batch, and each of them ends in a witness on the chain.
    assert_eq!(counts.account_signatures, counts.finalized + counts.repeated_rounds, "{counts:?}");
    assert_eq!(counts.witnesses_verified, counts.finalized + counts.modifications, "{counts:?}");
    assert_eq!(counts.witnesses_unjudged, 0, "{counts:?}");
    assert_eq!(counts.channels, u64::try_from(leases).expect("fits"), "{counts:?}");
}

#[test]
fn five_batches_of_the_sandbox_are_without_findings() {
    let (report, counts) = in_a_runtime(audited(5, 31, true));
    everything_was_seen(&report, &counts, 5);
    assert_eq!(counts.secrets, counts.accounts);
    assert_eq!(counts.account_signatures_verified, counts.account_signatures, "each was judged when it left");
}

/// The auditor knows no secret here: halves of signatures are still judged, scripts by what is spent on the chain.
#[test]
fn the_sandbox_is_without_findings_for_an_auditor_without_secrets() {
    let (report, counts) = in_a_runtime(audited(2, 32, false));
    everything_was_seen(&report, &counts, 2);
    assert_eq!(counts.secrets, 0);
    assert_eq!(counts.account_signatures_verified, counts.account_signatures, "each was judged when it left");
}
