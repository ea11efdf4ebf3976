//! Prometheus metrics: base units, `_total` on counters, ratios 0 to 1, no order nonce as label.

use prometheus::{
    Encoder, Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

type Made<T> = Result<T, prometheus::Error>;

fn int_gauge(registry: &Registry, name: &str, help: &str) -> Made<IntGauge> {
    let gauge = IntGauge::new(name, help)?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Made<Gauge> {
    let gauge = Gauge::new(name, help)?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

fn int_gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Made<IntGaugeVec> {
    let gauges = IntGaugeVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(gauges.clone()))?;
    Ok(gauges)
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Made<GaugeVec> {
    let gauges = GaugeVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(gauges.clone()))?;
    Ok(gauges)
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Made<IntCounterVec> {
    let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(counters.clone()))?;
    Ok(counters)
}

fn counter(registry: &Registry, name: &str, help: &str) -> Made<IntCounter> {
    let counter = IntCounter::new(name, help)?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}

/// Raises a counter to the total of an append-only ledger; a smaller total leaves it alone, for counters only rise.
pub fn raise_to(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

/// The registry as Prometheus text.
///
/// # Errors
/// When a metric cannot be encoded, as a sentence.
pub fn render(registry: &Registry) -> Result<String, String> {
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text).map_err(|error| error.to_string())?;
    String::from_utf8(text).map_err(|error| error.to_string())
}

/// What an agent reports.
#[derive(Clone, Debug)]
pub struct AgentMetrics {
    /// All of the below.
    pub registry: Registry,
    /// Value of each account, in satoshi, by account key and state.
    pub account_balance_sats: IntGaugeVec,
    /// Value reserved by open orders, in satoshi, by account key.
    pub account_reserved_sats: IntGaugeVec,
    /// Orders by side and state.
    pub orders: IntGaugeVec,
    /// Open units by side.
    pub open_units: IntGaugeVec,
    /// Latest clearing rate by lease duration, in parts per billion per block.
    pub clearing_rate_ppb: IntGaugeVec,
    /// Leases booked, by role.
    pub leases_total: IntCounterVec,
    /// Principal of booked leases, in satoshi, by role.
    pub leased_sats_total: IntCounterVec,
    /// Premium since the first lease, in satoshi, by direction (earned, paid).
    pub premium_sats_total: IntCounterVec,
    /// Execution fees paid, in satoshi.
    pub execution_fee_sats_total: IntCounter,
    /// Chain fees paid in batches, in satoshi.
    pub chain_fee_sats_total: IntCounter,
    /// Annualised yield of leases sold, as a ratio, by kind (gross, net).
    pub yield_ratio: GaugeVec,
    /// Decisions by outcome (placed, refused, nothing).
    pub decisions_total: IntCounterVec,
    /// Failed calls by counterpart (node, venue).
    pub failures_total: IntCounterVec,
    /// 1 while the batch stream is up and accounts are subscribed.
    pub venue_subscribed: IntGauge,
    /// Best height of the node.
    pub best_height_blocks: IntGauge,
    /// Unix time of the last decision.
    pub last_decision_seconds: Gauge,
}

impl AgentMetrics {
    /// Fresh metrics in a registry of their own.
    ///
    /// # Errors
    /// When a name is not valid or used twice: a defect.
    pub fn new() -> Made<AgentMetrics> {
        let r = Registry::new();
        Ok(AgentMetrics {
            account_balance_sats: int_gauges(
                &r,
                "tidegate_account_balance_sats",
                "Value of an account, in satoshi",
                &["account", "state"],
            )?,
            account_reserved_sats: int_gauges(
                &r,
                "tidegate_account_reserved_sats",
                "Value reserved by open orders, in satoshi",
                &["account"],
            )?,
            orders: int_gauges(&r, "tidegate_orders", "Orders by side and state", &["side", "state"])?,
            open_units: int_gauges(
                &r,
                "tidegate_open_units",
                "Units of 100,000 sat not yet filled, by side",
                &["side"],
            )?,
            clearing_rate_ppb: int_gauges(
                &r,
                "tidegate_clearing_rate_ppb",
                "Latest clearing rate, parts per billion per block",
                &["duration_blocks"],
            )?,
            leases_total: counters(&r, "tidegate_leases_total", "Leases booked, by role", &["role"])?,
            leased_sats_total: counters(
                &r,
                "tidegate_leased_sats_total",
                "Principal of booked leases, in satoshi",
                &["role"],
            )?,
            premium_sats_total: counters(
                &r,
                "tidegate_premium_sats_total",
                "Premium since the first lease, in satoshi",
                &["direction"],
            )?,
            execution_fee_sats_total: counter(
                &r,
                "tidegate_execution_fee_sats_total",
                "Execution fees paid since the first lease, in satoshi",
            )?,
            chain_fee_sats_total: counter(
                &r,
                "tidegate_chain_fee_sats_total",
                "Chain fees paid in batches since the first lease, in satoshi",
            )?,
            yield_ratio: gauges(
                &r,
                "tidegate_lease_yield_ratio",
                "Annualised yield of leases sold, over 52,560 blocks",
                &["kind"],
            )?,
            decisions_total: counters(
                &r,
                "tidegate_decisions_total",
                "Decisions of the strategy by outcome",
                &["outcome"],
            )?,
            failures_total: counters(&r, "tidegate_failures_total", "Failed calls by counterpart", &["counterpart"])?,
            venue_subscribed: int_gauge(
                &r,
                "tidegate_venue_subscribed",
                "1 while accounts are subscribed at the venue",
            )?,
            best_height_blocks: int_gauge(&r, "tidegate_best_height_blocks", "Best height of the node")?,
            last_decision_seconds: gauge(&r, "tidegate_last_decision_seconds", "Unix time of the last decision")?,
            registry: r,
        })
    }
}

/// What a venue reports.
#[derive(Clone, Debug)]
pub struct VenueMetrics {
    /// All of the below.
    pub registry: Registry,
    /// Connected traders.
    pub traders: IntGauge,
    /// Accounts by state.
    pub accounts: IntGaugeVec,
    /// Open orders by side.
    pub orders: IntGaugeVec,
    /// Batches made final.
    pub batches_total: IntCounter,
}

impl VenueMetrics {
    /// Fresh metrics in a registry of their own.
    ///
    /// # Errors
    /// When a name is not valid or used twice: a defect.
    pub fn new() -> Made<VenueMetrics> {
        let r = Registry::new();
        Ok(VenueMetrics {
            traders: int_gauge(&r, "tidegate_venue_traders", "Traders with an open stream")?,
            accounts: int_gauges(&r, "tidegate_venue_accounts", "Accounts by state", &["state"])?,
            orders: int_gauges(&r, "tidegate_venue_orders", "Open orders by side", &["side"])?,
            batches_total: counter(&r, "tidegate_venue_batches_total", "Batches made final")?,
            registry: r,
        })
    }
}
