//! `tidegate sandbox`: a whole market in one process.
//!
//! Real: scripts (checked by Bitcoin Core's code), keys and signatures, the venue's gRPC interface, SQLite, the flows
//! and strategies of a live agent. Simulated: blocks, time, and the messages between the nodes of a channel.

pub mod live;
mod market;
mod participant;
mod report;

pub use report::{BatchLine, LeaseLine, ParticipantLine, SandboxReport};

use crate::runtime::Shutdown;
use market::Market;
use std::net::SocketAddr;
use std::path::PathBuf;
use tidegate_sandbox::World;

/// What a sandbox run is asked for.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Trade until this many batches cleared.
    pub batches: u32,
    /// Fixes keys, orders and prices.
    pub seed: u64,
    /// Where the databases go; an existing run there is not continued.
    pub data_dir: PathBuf,
}

/// Rounds without any batch after which the market counts as dead.
const SILENT_ROUNDS: u32 = 60;

/// Says where traders find the venue, given the world and the address at which it listens.
pub trait Route: AsyncFnOnce(World, SocketAddr) -> anyhow::Result<SocketAddr> {}

impl<F: AsyncFnOnce(World, SocketAddr) -> anyhow::Result<SocketAddr>> Route for F {}

/// Trades until enough batches cleared, telling each on `progress`.
///
/// # Errors
/// When a part fails, when balances do not agree with the chain, or when nobody trades any more.
pub async fn run(settings: &Settings, progress: impl FnMut(&str)) -> anyhow::Result<SandboxReport> {
    run_through(settings, async |_, venue| Ok(venue), progress).await
}

/// As [`run`], with something between the traders and the venue: an observer, say. `route` is asked once, before the
/// first trader starts.
///
/// # Errors
/// As of [`run`], and those of `route`.
pub async fn run_through(
    settings: &Settings,
    route: impl Route,
    mut progress: impl FnMut(&str),
) -> anyhow::Result<SandboxReport> {
    let shutdown = Shutdown::default();
    let mut market = Market::open(settings, &shutdown, route).await?;
    let mut cleared = 0;
    let mut silent = 0;
    while cleared < settings.batches {
        anyhow::ensure!(
            silent < SILENT_ROUNDS,
            "nobody traded for {SILENT_ROUNDS} days after {cleared} batches (seed {}): asks and bids do not meet",
            settings.seed
        );
        match market.day().await? {
            Some(batch) => {
                cleared += 1;
                silent = 0;
                progress(&format!("batch {cleared} of {}: {batch}", settings.batches));
            }
            None => silent += 1,
        }
    }
    let report = market.report().await?;
    shutdown.trigger();
    market.close().await?;
    Ok(report)
}
