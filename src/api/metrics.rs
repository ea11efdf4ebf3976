//! Prometheus metrics: base units, `_total` on counters, ratios 0 to 1, no order nonce as label.

use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

type Made<T> = Result<T, prometheus::Error>;

const CLOCK_JUMPS: &str = "Times that the system's clock was found set by more than 5 seconds since the start";

/// Makes metrics and registers them.
struct Maker(Registry);

impl Maker {
    fn register<T: Collector + Clone + 'static>(&self, made: Made<T>) -> Made<T> {
        let metric = made?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn int_gauge(&self, name: &str, help: &str) -> Made<IntGauge> {
        self.register(IntGauge::new(name, help))
    }

    fn gauge(&self, name: &str, help: &str) -> Made<Gauge> {
        self.register(Gauge::new(name, help))
    }

    fn counter(&self, name: &str, help: &str) -> Made<IntCounter> {
        self.register(IntCounter::new(name, help))
    }

    fn int_gauges(&self, name: &str, help: &str, labels: &[&str]) -> Made<IntGaugeVec> {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Made<GaugeVec> {
        self.register(GaugeVec::new(Opts::new(name, help), labels))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Made<IntCounterVec> {
        self.register(IntCounterVec::new(Opts::new(name, help), labels))
    }
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
    /// 1 after a broken promise: orders are cancelled and nothing is placed until a person restarts the agent.
    pub trading_halted: IntGauge,
    /// 1 while the batch stream is up and accounts are subscribed.
    pub venue_subscribed: IntGauge,
    /// Best height of the node.
    pub best_height_blocks: IntGauge,
    /// Unix time of the last decision.
    pub last_decision_seconds: Gauge,
    /// How often the system's clock was found set by more than 5 seconds, either way, since the start.
    pub clock_jumps_total: IntCounter,
}

impl AgentMetrics {
    /// Fresh metrics in a registry of their own.
    ///
    /// # Errors
    /// When a name is not valid or used twice: a defect.
    pub fn new() -> Made<AgentMetrics> {
        let m = Maker(Registry::new());
        Ok(AgentMetrics {
            account_balance_sats: m.int_gauges(
                "tidegate_account_balance_sats",
                "Value of an account, in satoshi",
                &["account", "state"],
            )?,
            account_reserved_sats: m.int_gauges(
                "tidegate_account_reserved_sats",
                "Value reserved by open orders, in satoshi",
                &["account"],
            )?,
            orders: m.int_gauges("tidegate_orders", "Orders by side and state", &["side", "state"])?,
            open_units: m.int_gauges(
                "tidegate_open_units",
                "Units of 100,000 sat not yet filled, by side",
                &["side"],
            )?,
            clearing_rate_ppb: m.int_gauges(
                "tidegate_clearing_rate_ppb",
                "Latest clearing rate, parts per billion per block",
                &["duration_blocks"],
            )?,
            leases_total: m.counters("tidegate_leases_total", "Leases booked, by role", &["role"])?,
            leased_sats_total: m.counters(
                "tidegate_leased_sats_total",
                "Principal of booked leases, in satoshi",
                &["role"],
            )?,
            premium_sats_total: m.counters(
                "tidegate_premium_sats_total",
                "Premium since the first lease, in satoshi",
                &["direction"],
            )?,
            execution_fee_sats_total: m.counter(
                "tidegate_execution_fee_sats_total",
                "Execution fees paid since the first lease, in satoshi",
            )?,
            chain_fee_sats_total: m.counter(
                "tidegate_chain_fee_sats_total",
                "Chain fees paid in batches since the first lease, in satoshi",
            )?,
            yield_ratio: m.gauges(
                "tidegate_lease_yield_ratio",
                "Annualised yield of leases sold, over 52,560 blocks",
                &["kind"],
            )?,
            decisions_total: m.counters(
                "tidegate_decisions_total",
                "Decisions of the strategy by outcome",
                &["outcome"],
            )?,
            failures_total: m.counters("tidegate_failures_total", "Failed calls by counterpart", &["counterpart"])?,
            trading_halted: m.int_gauge("tidegate_trading_halted", "1 after a broken promise, until a restart")?,
            venue_subscribed: m
                .int_gauge("tidegate_venue_subscribed", "1 while accounts are subscribed at the venue")?,
            best_height_blocks: m.int_gauge("tidegate_best_height_blocks", "Best height of the node")?,
            last_decision_seconds: m.gauge("tidegate_last_decision_seconds", "Unix time of the last decision")?,
            clock_jumps_total: m.counter("tidegate_clock_jumps_total", CLOCK_JUMPS)?,
            registry: m.0,
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
    /// How often the system's clock was found set by more than 5 seconds, either way, since the start.
    pub clock_jumps_total: IntCounter,
}

impl VenueMetrics {
    /// Fresh metrics in a registry of their own.
    ///
    /// # Errors
    /// When a name is not valid or used twice: a defect.
    pub fn new() -> Made<VenueMetrics> {
        let m = Maker(Registry::new());
        Ok(VenueMetrics {
            traders: m.int_gauge("tidegate_venue_traders", "Traders with an open stream")?,
            accounts: m.int_gauges("tidegate_venue_accounts", "Accounts by state", &["state"])?,
            orders: m.int_gauges("tidegate_venue_orders", "Open orders by side", &["side"])?,
            batches_total: m.counter("tidegate_venue_batches_total", "Batches made final")?,
            clock_jumps_total: m.counter("tidegate_venue_clock_jumps_total", CLOCK_JUMPS)?,
            registry: m.0,
        })
    }
}
