//! The market of the sandbox: a world, a venue behind its gRPC interface, and traders, moved day by day.

use super::participant::{Participant, Plan};
use super::report::{SandboxReport, gather};
use super::{Route, Settings};
use crate::daemon::data_dir;
use crate::daemon::parts::VenueParts;
use crate::runtime::{Shutdown, SteppedClock};
use crate::store::SqliteStore;
use crate::venue::{self, GrpcTraders};
use anyhow::{Context as _, bail};
use std::collections::BTreeMap;
use std::time::Duration;
use tidegate_ports::{Entropy, Timestamp};
use tidegate_protocol::account::AccountState;
use tidegate_protocol::keys::BatchId;
use tidegate_protocol::order::NodeTier;
use tidegate_protocol::units::Sats;
use tidegate_sandbox::World;
use tidegate_strategies::{AnyStrategy, buyer, seller};
use tidegate_trader::Status;
use tidegate_venue::{Handle, Ratings, VenueAccountState, VenueConfig};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// When the sandbox's calendar starts: 1 January 2026.
const START: Timestamp = Timestamp(1_767_225_600_000);
const BLOCK_MS: u64 = 600_000;
/// Blocks between two clearings: a day.
const DAY_BLOCKS: u32 = 144;
/// Coins that everybody starts with.
const ENDOWMENT: Sats = Sats::constant(5_000_000_000);
/// Confirmation target shown in the terms.
const CONF_TARGET: u32 = 6;
/// Longest real wait until everybody has digested a day.
const SETTLE: Duration = Duration::from_secs(60);
/// Pause between two looks while waiting.
const LOOK: Duration = Duration::from_millis(5);

const TRADERS: [(&str, &str, &str); 4] = [
    ("anna", "seller", seller::SANDBOX_PRESET),
    ("boris", "seller", seller::SANDBOX_PRESET),
    ("carla", "buyer", buyer::SANDBOX_PRESET),
    ("dmitri", "buyer", buyer::SANDBOX_PRESET),
];

/// Everything that runs.
pub(super) struct Market {
    world: World,
    clock: SteppedClock,
    venue: Handle,
    traders: Vec<Participant>,
    tasks: Vec<JoinHandle<anyhow::Result<()>>>,
}

impl Market {
    /// Makes the world, opens the venue, starts the traders.
    pub(super) async fn open(settings: &Settings, shutdown: &Shutdown, route: impl Route) -> anyhow::Result<Market> {
        data_dir::create(&settings.data_dir)?;
        let world = World::new(settings.seed);
        let clock = SteppedClock::new(START);
        let node = world.add_node("venue");
        let server = venue::bind("127.0.0.1:0".parse().context("loopback")?).await?;
        let address = server.address()?;
        let streams = GrpcTraders::default();
        let (handle, flows) = tidegate_venue::venue(rules());
        let store = SqliteStore::open(&settings.data_dir.join("venue.sqlite"), "venue").await?;
        let parts =
            VenueParts { node, traders: streams.clone(), store, clock: clock.clone(), entropy: world.entropy("venue") };
        let auction = tokio::spawn(async move { flows.run(&parts).await.context("the venue stopped") });
        let (serving, stop) = (handle.clone(), shutdown.clone());
        let served = tokio::spawn(async move {
            server.serve(serving, CONF_TARGET, streams, stop).await.context("the venue's listener failed")
        });
        let address = route(world.clone(), address).await.context("no way to the venue")?.to_string();
        let mut market = Market { world, clock, venue: handle, traders: Vec::new(), tasks: vec![auction, served] };
        for (name, role, preset) in TRADERS {
            let node = market.world.add_node(name);
            market.world.fund(&node, ENDOWMENT)?;
            let appetite = market.world.entropy(&format!("appetite of {name}"));
            let strategy = AnyStrategy::from_toml(&with_appetite(preset, role, &appetite)?)?;
            let clock = market.clock.clone();
            let plan = Plan { name, role, strategy, node, venue: &address, clock, folder: &settings.data_dir };
            market.traders.push(Participant::start(plan).await?);
        }
        market.world.mine(1);
        market.settle().await?;
        Ok(market)
    }

    /// One day: everybody decides, the venue clears, a day's blocks are mined.
    pub(super) async fn day(&mut self) -> anyhow::Result<Option<BatchId>> {
        for trader in &mut self.traders {
            trader.round().await?;
        }
        let outcome = self.venue.tick().await?;
        tracing::debug!(reason = %outcome.reason, "the venue tried to clear");
        // Else a lease would be booked at this block or at one of the next day's, as the sockets have it, and decisions
        // that look at its age would not repeat.
        if let Some(batch) = outcome.cleared {
            self.wait(async || self.unbooked(batch).await).await?;
        }
        self.world.mine(DAY_BLOCKS);
        self.clock.advance(BLOCK_MS * u64::from(DAY_BLOCKS));
        self.settle().await?;
        Ok(outcome.cleared)
    }

    /// Waits until traders and venue have seen the best block and nothing that can settle is unsettled.
    async fn settle(&self) -> anyhow::Result<()> {
        self.wait(async || self.unsettled().await).await
    }

    /// Looks again and again until nothing is missing.
    async fn wait(&self, missing: impl AsyncFn() -> anyhow::Result<Option<String>>) -> anyhow::Result<()> {
        let deadline = Instant::now() + SETTLE;
        loop {
            let Some(what) = missing().await? else { return Ok(()) };
            if Instant::now() >= deadline {
                bail!("the sandbox did not come to rest within {} s: {what}", SETTLE.as_secs());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A trader that signed the batch and has not heard yet that it is final.
    async fn unbooked(&self, batch: BatchId) -> anyhow::Result<Option<String>> {
        for trader in &self.traders {
            if trader.status().await?.pending_batches.contains(&batch) {
                return Ok(Some(format!("{} has not booked batch {batch}", trader.name)));
            }
        }
        Ok(None)
    }

    async fn unsettled(&self) -> anyhow::Result<Option<String>> {
        let height = self.world.height();
        let venue = self.venue.status().await?;
        let mut open = 0;
        for trader in &self.traders {
            let status = trader.status().await?;
            if status.best_height != Some(height) {
                return Ok(Some(format!("{} has not seen block {height}", trader.name)));
            }
            if let Some(what) = pending(&status) {
                return Ok(Some(format!("{}: {what}", trader.name)));
            }
            open += status.accounts.iter().filter(|account| account.state == AccountState::Open).count();
        }
        if venue.best_height != height {
            return Ok(Some(format!("the venue has not seen block {height}")));
        }
        let at_rest = |state: &VenueAccountState| {
            matches!(state, VenueAccountState::Open | VenueAccountState::Expired | VenueAccountState::Closed)
        };
        if let Some((state, _)) = venue.accounts.iter().find(|(state, count)| **count > 0 && !at_rest(state)) {
            return Ok(Some(format!("the venue has an account in state {state:?}")));
        }
        if venue.subscribed != open || venue.unconfirmed > 0 {
            return Ok(Some(format!(
                "{} of {open} accounts subscribed, {} batches unconfirmed",
                venue.subscribed, venue.unconfirmed
            )));
        }
        Ok(None)
    }

    /// The result so far; balances are compared with the chain.
    pub(super) async fn report(&self) -> anyhow::Result<SandboxReport> {
        let mut statuses = Vec::new();
        for trader in &self.traders {
            let status = trader.status().await?;
            self.check_balances(&trader.name, &status)?;
            statuses.push((trader, status));
        }
        let names: BTreeMap<_, _> = self.traders.iter().map(|trader| (trader.node.id(), trader.name.clone())).collect();
        let batches = self.venue.snapshots(None, 100).await?;
        Ok(gather(&self.world, &statuses, &names, &batches))
    }

    fn check_balances(&self, name: &str, status: &Status) -> anyhow::Result<()> {
        for account in status.accounts.iter().filter(|account| account.state == AccountState::Open) {
            let outpoint = account.outpoint.with_context(|| format!("an open account of {name} has no output"))?;
            let output = self.world.utxo(outpoint).with_context(|| format!("{name}'s account {outpoint} is spent"))?;
            let (chain, own) = (output.value.to_sat(), account.value.get());
            anyhow::ensure!(
                chain == own,
                "{name}'s account holds {own} sat by its own count and {chain} sat on the chain"
            );
        }
        Ok(())
    }

    /// Stops everybody.
    pub(super) async fn close(self) -> anyhow::Result<()> {
        for trader in self.traders {
            trader.stop().await?;
        }
        self.venue.shutdown().await;
        for task in self.tasks {
            task.await.context("a task of the sandbox failed")??;
        }
        Ok(())
    }
}

/// What of a trader will still change by itself.
fn pending(status: &Status) -> Option<String> {
    let unsettled = status.accounts.iter().find(|account| match account.state {
        AccountState::Initiated
        | AccountState::PendingOpen
        | AccountState::PendingUpdate
        | AccountState::PendingClosed
        | AccountState::PendingBatch
        | AccountState::ExpiredPendingUpdate => true,
        AccountState::Open => !status.subscribed_accounts.contains(&account.key()),
        AccountState::Expired | AccountState::Closed | AccountState::CanceledAfterRecovery => false,
    });
    match unsettled {
        Some(account) => Some(format!("account {} is {:?} and not at rest", account.key(), account.state)),
        None if !status.pending_batches.is_empty() => Some("a signed batch is not settled".to_owned()),
        None => None,
    }
}

/// What the seed decides about a trader: the figures of its preset that say what it wants to earn, or what a lease is
/// worth to it. Each is drawn between 80 and 120 percent, so that every seed is another market, and one that trades.
fn with_appetite(preset: &str, role: &str, entropy: &impl Entropy) -> anyhow::Result<String> {
    let keys: &[&str] = match role {
        "seller" => &["required_return_ppm_per_year"],
        _ => &["receipts_sats_per_block", "substitute_cost_ppm"],
    };
    let mut file: toml::Table = preset.parse().context("the preset is no TOML")?;
    let own = file.get_mut(role).and_then(toml::Value::as_table_mut);
    let own = own.with_context(|| format!("the preset has no table [{role}]"))?;
    for key in keys {
        let [byte, ..] = entropy.draw();
        let percent = 80 + i64::from(byte) % 41;
        let usual = own.get(*key).and_then(toml::Value::as_integer);
        let usual = usual.with_context(|| format!("the preset has no whole number {key}"))?;
        own.insert((*key).to_owned(), toml::Value::Integer(usual * percent / 100));
    }
    toml::to_string(&file).context("a table is TOML")
}

fn rules() -> VenueConfig {
    // Nobody is listed; everybody counts as well rated, so that default bids reach every seller.
    let ratings = Ratings { default: NodeTier::Tier1, ..Ratings::default() };
    VenueConfig { tick_ms: None, fee_conf_target: CONF_TARGET, ratings, ..VenueConfig::usual("regtest") }
}
