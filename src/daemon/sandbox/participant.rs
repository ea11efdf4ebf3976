//! One trader of the sandbox: the flows and the brain of a live agent on a simulated node.

use crate::daemon::brain::Brain;
use crate::daemon::parts::TraderParts;
use crate::runtime::SteppedClock;
use crate::store::SqliteStore;
use crate::venue::{GrpcLink, Token};
use anyhow::Context as _;
use std::path::Path;
use std::sync::Arc;
use tidegate_engine::gate::{Limits, RiskGate};
use tidegate_ports::Entropy as _;
use tidegate_protocol::units::{RatePerBillion, SatPerKw, Sats};
use tidegate_sandbox::{SandboxEntropy, SandboxNode};
use tidegate_strategies::AnyStrategy;
use tidegate_trader::{Handle, Status, TraderConfig};
use tokio::task::JoinHandle;

pub(super) type Env = TraderParts<SandboxNode, SqliteStore, SteppedClock, SandboxEntropy>;

/// A running trader.
pub(super) struct Participant {
    pub(super) name: String,
    pub(super) role: &'static str,
    pub(super) node: SandboxNode,
    pub(super) trader: Handle,
    env: Arc<Env>,
    brain: Brain<AnyStrategy, SqliteStore>,
    flows: JoinHandle<Result<(), tidegate_trader::Halt>>,
}

/// What a participant is made of.
pub(super) struct Plan<'a> {
    pub(super) name: &'a str,
    pub(super) role: &'static str,
    pub(super) strategy: AnyStrategy,
    pub(super) node: SandboxNode,
    pub(super) venue: &'a str,
    pub(super) clock: SteppedClock,
    pub(super) folder: &'a Path,
}

impl Participant {
    pub(super) async fn start(plan: Plan<'_>) -> anyhow::Result<Participant> {
        let file = plan.folder.join(format!("{}.sqlite", plan.name));
        let store = SqliteStore::open(&file, "trader").await?;
        let journal = SqliteStore::open(&file, "journal").await?;
        let entropy = plan.node.world().entropy(plan.name);
        let link = GrpcLink::new(plan.venue, Token::new(entropy.draw()))?;
        let (trader, flows) = tidegate_trader::trader(TraderConfig::default());
        let env = Arc::new(TraderParts { node: plan.node.clone(), link, store, clock: plan.clock, entropy });
        let brain = Brain::load(Some(plan.strategy), RiskGate::new(limits()), journal).await?;
        let flows = tokio::spawn({
            let env = Arc::clone(&env);
            async move { flows.run(&*env).await }
        });
        let Plan { name, role, node, .. } = plan;
        Ok(Participant { name: name.to_owned(), role, node, trader, env, brain, flows })
    }

    /// Looks, decides, places.
    pub(super) async fn round(&mut self) -> anyhow::Result<()> {
        self.brain.round(&*self.env, &self.trader).await.with_context(|| format!("{} could not decide", self.name))?;
        Ok(())
    }

    pub(super) async fn status(&self) -> anyhow::Result<Status> {
        self.trader.status().await.with_context(|| format!("{} stopped", self.name))
    }

    pub(super) async fn stop(self) -> anyhow::Result<()> {
        self.trader.shutdown().await;
        let outcome = self.flows.await.with_context(|| format!("{} failed", self.name))?;
        outcome.with_context(|| format!("{} stopped", self.name))
    }
}

/// Limits of everybody: wide enough that strategies decide, and finite.
fn limits() -> Limits {
    Limits {
        dry_run: false,
        max_order_sats: Sats::constant(100_000_000),
        max_leased_sats: Sats::constant(5_000_000_000),
        max_daily_cost_sats: Sats::constant(10_000_000),
        ask_rate_min_ppb: RatePerBillion::new(1),
        bid_rate_max_ppb: RatePerBillion::new(20_000),
        rate_max_ppb: RatePerBillion::new(100_000),
        max_account_sats: Sats::constant(1_000_000_000),
        max_accounts_total_sats: Sats::constant(5_000_000_000),
        wallet_reserve_sats: Sats::constant(100_000),
        max_batch_fee_rate_sat_per_kw: SatPerKw::new(25_000),
        max_open_orders: 20,
        max_terms_age_s: 3_600,
    }
}
