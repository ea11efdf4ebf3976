//! `tidegate venue`: the auction's flows on a real node, behind gRPC.

use super::connect::{Waiting, connect};
use super::crew::Crew;
use super::data_dir;
use super::parts::VenueParts;
use crate::api::{self, Answer, Page, VenueMetrics, raise_to, render};
use crate::config::VenueConfigFile;
use crate::node::Role;
use crate::runtime::{OsEntropy, Shutdown, SystemClock};
use crate::store::SqliteStore;
use crate::venue::admin::Admin;
use crate::venue::{self, GrpcTraders};
use anyhow::Context as _;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tidegate_ports::DurationState;
use tidegate_protocol::fees::ExecutionFee;
use tidegate_protocol::order::NodeTier;
use tidegate_protocol::units::{BlockCount, Sats};
use tidegate_venue::{Handle, Ratings, Status, Sweep, VenueAccountState, VenueConfig};

/// Runs a venue until a signal.
///
/// # Errors
/// When something it needs cannot be had at the start, or when its state cannot be trusted any more: a sentence that
/// says what, where and what to do. A node that is away, at the start or later, is waited for.
pub async fn run_venue(config: VenueConfigFile) -> anyhow::Result<()> {
    let shutdown = Shutdown::default();
    shutdown.on_signals()?;
    let (handle, flows) = tidegate_venue::venue(rules(&config)?);
    data_dir::create(&config.data_dir)?;
    // First: a second venue with the same configuration is told of the first one, not of its port.
    let store = SqliteStore::open(&config.data_dir.join("venue.sqlite"), "venue").await?;
    let server = venue::bind(config.listen).await?;
    let http = api::bind(config.status_listen, "status_listen").await?;
    let waiting = Waiting::for_node(&config.node.address);
    let admin = match &config.api {
        Some(api) => Some(venue::admin::bind_admin(api.admin_listen).await?),
        None => None,
    };
    let page = VenuePage { handle: handle.clone(), metrics: VenueMetrics::new()?, waiting: waiting.clone() };
    tracing::info!(status = %http.address()?, "serving /healthz, /metrics and /v1/status");
    let mut crew = Crew::new(shutdown.clone());
    crew.spawn("the status listener", http.serve(Arc::new(page), shutdown.clone()));
    let lnd = config.node.lnd(&config.network);
    let Some(node) = connect(&lnd, Role::Venue, &waiting, &shutdown).await? else { return crew.finish().await };
    let traders = GrpcTraders::default();
    tracing::info!(listen = %server.address()?, network = %config.network, "the venue is open");
    let conf_target = config.terms.batch_conf_target_blocks;
    crew.spawn("the traders' listener", server.serve(handle.clone(), conf_target, traders.clone(), shutdown.clone()));
    if let Some(admin) = admin {
        tracing::info!(admin = %admin.address()?, "serving the operator's calls");
        let token = data_dir::admin_token(&config.data_dir, &OsEntropy)?;
        let door = Admin::new(handle.clone(), config.bitcoin_network()?, token);
        crew.spawn("the operator's listener", admin.serve(door, shutdown.clone()));
    }
    crew.spawn("the shutdown", {
        let shutdown = shutdown.clone();
        async move {
            shutdown.wanted().await;
            handle.shutdown().await;
            anyhow::Ok(())
        }
    });
    let parts = VenueParts { node, traders, store, clock: SystemClock, entropy: OsEntropy };
    let outcome = flows.run(&parts).await;
    shutdown.trigger();
    let crew = crew.finish().await;
    outcome.context("the venue stopped: its state can not be trusted; nothing was lost that was stored")?;
    crew
}

fn rules(config: &VenueConfigFile) -> anyhow::Result<VenueConfig> {
    let terms = &config.terms;
    let mut listed = BTreeSet::new();
    for node in &config.ratings.tier1_nodes {
        listed.insert(node.parse().with_context(|| format!("ratings.tier1_nodes: {node:?} is not a node key"))?);
    }
    let default = if config.ratings.unlisted_tier == 1 { NodeTier::Tier1 } else { NodeTier::Tier0 };
    let base = Sats::new(terms.base_fee_sats).context("terms.base_fee_sats")?;
    let mut custom_fees = BTreeMap::new();
    for custom in &terms.custom {
        let token: [u8; 32] = hex::FromHex::from_hex(&custom.token).context("terms.custom.token")?;
        let base = Sats::new(custom.base_fee_sats).context("terms.custom.base_fee_sats")?;
        custom_fees.insert(token, ExecutionFee { base, rate_ppm: custom.fee_rate_ppm });
    }
    let sweep = match &config.income {
        Some(income) => Some(Sweep {
            above: Sats::new(income.sweep_above_sats).context("income.sweep_above_sats")?,
            keep: Sats::new(income.keep_sats).context("income.keep_sats")?,
        }),
        None => None,
    };
    let durations = terms.durations_blocks.iter().map(|blocks| (BlockCount::new(*blocks), DurationState::Open));
    Ok(VenueConfig {
        max_account_value: Sats::new(terms.max_account_sats).context("terms.max_account_sats")?,
        execution_fee: ExecutionFee { base, rate_ppm: terms.fee_rate_ppm },
        custom_fees,
        sweep,
        durations: durations.collect(),
        tick_ms: (config.tick_seconds > 0).then(|| config.tick_seconds.saturating_mul(1000)),
        fee_conf_target: terms.batch_conf_target_blocks,
        ratings: Ratings { enabled: true, listed, default },
        ..VenueConfig::usual(&config.network)
    })
}

/// The venue's HTTP pages.
struct VenuePage {
    handle: Handle,
    metrics: VenueMetrics,
    waiting: Waiting,
}

impl Page for VenuePage {
    fn metrics(&self) -> Answer {
        let (handle, metrics, waiting) = (self.handle.clone(), self.metrics.clone(), self.waiting.clone());
        Box::pin(async move {
            raise_to(&metrics.clock_jumps_total, SystemClock::jumps());
            if waiting.reason().is_some() {
                return render(&metrics.registry);
            }
            let status = handle.status().await.map_err(|gone| gone.to_string())?;
            metrics.traders.set(count(status.streams));
            metrics.accounts.reset();
            for (state, accounts) in &status.accounts {
                metrics.accounts.with_label_values(&[account_state(*state)]).set(count(*accounts));
            }
            metrics.orders.with_label_values(&["ask"]).set(count(status.asks));
            metrics.orders.with_label_values(&["bid"]).set(count(status.bids));
            raise_to(&metrics.batches_total, u64::try_from(status.batches).unwrap_or(u64::MAX));
            render(&metrics.registry)
        })
    }

    fn status(&self) -> Answer {
        let (handle, waiting) = (self.handle.clone(), self.waiting.clone());
        Box::pin(async move {
            if let Some(reason) = waiting.reason() {
                return Err(reason);
            }
            let status = handle.status().await.map_err(|gone| gone.to_string())?;
            Ok(status_json(&status))
        })
    }

    fn tick(&self) -> Answer {
        let (handle, waiting) = (self.handle.clone(), self.waiting.clone());
        Box::pin(async move {
            if let Some(reason) = waiting.reason() {
                return Err(reason);
            }
            let outcome = handle.tick().await.map_err(|gone| gone.to_string())?;
            let cleared = outcome.cleared.map(|batch| batch.to_string());
            Ok(serde_json::json!({ "cleared": cleared, "reason": outcome.reason.to_string() }).to_string())
        })
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn account_state(state: VenueAccountState) -> &'static str {
    match state {
        VenueAccountState::PendingOpen => "pending_open",
        VenueAccountState::PendingUpdate => "pending_update",
        VenueAccountState::Open => "open",
        VenueAccountState::Expired => "expired",
        VenueAccountState::Closed => "closed",
        VenueAccountState::PendingBatch => "pending_batch",
        VenueAccountState::ExpiredPendingUpdate => "expired_pending_update",
    }
}

fn status_json(status: &Status) -> String {
    let accounts: BTreeMap<&str, usize> =
        status.accounts.iter().map(|(state, accounts)| (account_state(*state), *accounts)).collect();
    let last_tick = status.last_tick.as_ref().map(|tick| tick.reason.to_string());
    let page = serde_json::json!({
        "network": status.network,
        "best_height": status.best_height.get(),
        "next_batch": status.next_batch.to_string(),
        "streams": status.streams,
        "subscribed_accounts": status.subscribed,
        "accounts": accounts,
        "open_asks": status.asks,
        "open_bids": status.bids,
        "batches": status.batches,
        "unconfirmed_batches": status.unconfirmed,
        "income_sats": status.master.get(),
        "banned": status.banned,
        "running_leases": status.leases,
        "executing": status.executing,
        "last_tick": last_tick,
        "last_tick_cut": status.last_tick.as_ref().is_some_and(|tick| tick.cut),
    });
    page.to_string()
}
