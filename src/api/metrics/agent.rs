//! What an agent reports.

use super::{CLOCK_JUMPS, Made, Maker, TimesCollector};
use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};
use tidegate_engine::gate::RiskRefusal;
use tidegate_engine::ledger::Name;
use tidegate_trader::BatchTally;

const ROLES: [&str; 2] = ["seller", "buyer"];

/// What an agent reports.
#[derive(Clone, Debug)]
pub struct AgentMetrics {
    /// All of the below, and the process.
    pub registry: Registry,
    /// Accounts by state.
    pub accounts: IntGaugeVec,
    /// Value of each account that holds coins, in satoshi, by account key and state.
    pub account_balance_sats: IntGaugeVec,
    /// Value reserved by open orders, in satoshi, by account key.
    pub account_reserved_sats: IntGaugeVec,
    /// Height at which an account that holds coins expires, by account key.
    pub account_expiry_height: IntGaugeVec,
    /// Transactions that are unconfirmed for too long.
    pub stuck_transactions: IntGauge,
    /// Orders by side and state.
    pub orders: IntGaugeVec,
    /// Open units by side.
    pub open_units: IntGaugeVec,
    /// Units filled, by side.
    pub filled_units_total: IntCounterVec,
    /// Orders whose state at the venue is not known.
    pub unsure_orders: IntGauge,
    /// Latest clearing rate by lease duration, in parts per billion per block.
    pub clearing_rate_ppb: IntGaugeVec,
    /// Leases booked, by role.
    pub leases_total: IntCounterVec,
    /// Leases that run, by role.
    pub leases_running: IntGaugeVec,
    /// Principal of booked leases, in satoshi, by role.
    pub leased_sats_total: IntCounterVec,
    /// Principal of running leases, in satoshi, by role.
    pub leased_running_sats: IntGaugeVec,
    /// Premium since the first lease, in satoshi, by direction (earned, paid).
    pub premium_sats_total: IntCounterVec,
    /// Execution fees paid, in satoshi.
    pub execution_fee_sats_total: IntCounter,
    /// Chain fees paid in batches, in satoshi.
    pub chain_fee_sats_total: IntCounter,
    /// Annualised yield of leases sold, as a ratio, by kind (gross, net) and leases (all, running, realised).
    pub yield_ratio: GaugeVec,
    /// Yearly cost of leases bought, as a ratio, by kind and leases.
    pub cost_ratio: GaugeVec,
    /// Decisions by outcome (placed, refused, failed, nothing).
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
    /// Commits of the stores, by store.
    pub store_commits_total: IntCounterVec,
    /// Batches.
    pub batches: BatchMetrics,
    /// The ledger.
    pub ledger: LedgerMetrics,
    /// Node and venue.
    pub links: LinkMetrics,
    /// The risk gate.
    pub risk: RiskMetrics,
}

impl AgentMetrics {
    /// Fresh metrics in a registry of their own.
    ///
    /// # Errors
    /// When a name is not valid or used twice: a defect.
    pub fn new() -> Made<AgentMetrics> {
        let m = Maker::new()?;
        let (sides, stores) = (["ask", "bid"], ["trader", "journal"]);
        let by_kind = ["kind", "leases"];
        let (outcomes, sources) = (["placed", "refused", "failed", "nothing"], ["node", "venue", "self"]);
        Ok(AgentMetrics {
            accounts: m.int_gauges("tidegate_accounts", "Accounts by state", &["state"])?,
            account_balance_sats: m.int_gauges(
                "tidegate_account_balance_sats",
                "Value of an account, in satoshi",
                &["account", "state"],
            )?,
            account_reserved_sats: m.int_gauges(
                "tidegate_account_reserved_sats",
                "Value of an account that open orders reserve, in satoshi",
                &["account"],
            )?,
            account_expiry_height: m.int_gauges(
                "tidegate_account_expiry_height_blocks",
                "Height at which an account expires",
                &["account"],
            )?,
            stuck_transactions: m.int_gauge(
                "tidegate_stuck_transactions",
                "Transactions of accounts that are unconfirmed for too long",
            )?,
            orders: m.int_gauges("tidegate_orders", "Orders by side and state", &["side", "state"])?,
            open_units: m.int_gauges_of(
                "tidegate_open_units",
                "Units of 100,000 sat not yet filled, by side",
                "side",
                &sides,
            )?,
            filled_units_total: m.counters_of(
                "tidegate_filled_units_total",
                "Units of 100,000 sat filled, by side",
                "side",
                &sides,
            )?,
            unsure_orders: m.int_gauge("tidegate_unsure_orders", "Orders whose state at the venue is not known")?,
            clearing_rate_ppb: m.int_gauges(
                "tidegate_clearing_rate_ppb",
                "Latest clearing rate, parts per billion per block",
                &["duration_blocks"],
            )?,
            leases_total: m.counters_of("tidegate_leases_total", "Leases booked, by role", "role", &ROLES)?,
            leases_running: m.int_gauges_of(
                "tidegate_leases_running",
                "Leases that have not matured, by role",
                "role",
                &ROLES,
            )?,
            leased_sats_total: m.counters_of(
                "tidegate_leased_sats_total",
                "Principal of booked leases, in satoshi",
                "role",
                &ROLES,
            )?,
            leased_running_sats: m.int_gauges_of(
                "tidegate_leased_running_sats",
                "Principal of leases that have not matured, in satoshi",
                "role",
                &ROLES,
            )?,
            premium_sats_total: m.counters_of(
                "tidegate_premium_sats_total",
                "Premium since the first lease, in satoshi",
                "direction",
                &["earned", "paid"],
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
                "Annualised yield of leases sold, over 52,560 blocks; 0 without one",
                &by_kind,
            )?,
            cost_ratio: m.gauges(
                "tidegate_lease_cost_ratio",
                "Yearly cost of leases bought, over 52,560 blocks; 0 without one",
                &by_kind,
            )?,
            decisions_total: m.counters_of(
                "tidegate_decisions_total",
                "Decisions of the strategy by outcome",
                "outcome",
                &outcomes,
            )?,
            failures_total: m.counters_of(
                "tidegate_failures_total",
                "Failed calls by counterpart",
                "counterpart",
                &sources,
            )?,
            trading_halted: m.int_gauge("tidegate_trading_halted", "1 after a broken promise, until a restart")?,
            venue_subscribed: m
                .int_gauge("tidegate_venue_subscribed", "1 while accounts are subscribed at the venue")?,
            best_height_blocks: m.int_gauge("tidegate_best_height_blocks", "Best height of the node")?,
            last_decision_seconds: m.gauge("tidegate_last_decision_seconds", "Unix time of the last decision")?,
            clock_jumps_total: m.counter("tidegate_clock_jumps_total", CLOCK_JUMPS)?,
            store_commits_total: m.counters_of(
                "tidegate_store_commits_total",
                "Commits of the stores since they were made, by store",
                "store",
                &stores,
            )?,
            batches: BatchMetrics::new(&m)?,
            ledger: LedgerMetrics::new(&m)?,
            links: LinkMetrics::new(&m)?,
            risk: RiskMetrics::new(&m)?,
            registry: m.0,
        })
    }
}

/// Batches, as a trader sees them.
#[derive(Clone, Debug)]
pub struct BatchMetrics {
    /// Proposals by step since the start (proposed, accepted, signed).
    pub steps_total: IntCounterVec,
    /// Final batches that we took part in, ever.
    pub final_total: IntCounter,
    /// Refused proposals since the start, by class.
    pub refusals_total: IntCounterVec,
    /// Signed batches that are not settled.
    pub pending: IntGauge,
    /// How long proposals take to be verified.
    pub verification_seconds: TimesCollector,
    /// Unix time of the venue's last batch that we know of.
    pub last_seconds: Gauge,
}

impl BatchMetrics {
    fn new(m: &Maker) -> Made<BatchMetrics> {
        let steps = ["proposed", "accepted", "signed"];
        Ok(BatchMetrics {
            steps_total: m.counters_of(
                "tidegate_batches_total",
                "Proposals since the start, by how far they came",
                "step",
                &steps,
            )?,
            final_total: m.counter("tidegate_final_batches_total", "Final batches that the agent took part in")?,
            refusals_total: m.counters_of(
                "tidegate_batch_refusals_total",
                "Refused proposals since the start, by class",
                "class",
                &BatchTally::CLASSES,
            )?,
            pending: m.int_gauge("tidegate_pending_batches", "Signed batches that are not settled")?,
            verification_seconds: m.register(TimesCollector::new(
                "tidegate_batch_verification_seconds",
                "Time that the verification of a proposal takes",
            ))?,
            last_seconds: m.gauge("tidegate_last_batch_seconds", "Unix time of the venue's latest batch")?,
        })
    }
}

/// The ledger.
#[derive(Clone, Debug)]
pub struct LedgerMetrics {
    /// Balances by kind of account, in satoshi; income is negative.
    pub balance_sats: IntGaugeVec,
    /// Satoshi by which accounts and ledger differ: 0 unless something is wrong.
    pub difference_sats: IntGauge,
    /// Entries.
    pub entries: IntGauge,
}

impl LedgerMetrics {
    fn new(m: &Maker) -> Made<LedgerMetrics> {
        Ok(LedgerMetrics {
            balance_sats: m.int_gauges_of(
                "tidegate_ledger_balance_sats",
                "Balance of the ledger by kind of account, in satoshi; income is negative",
                "kind",
                &Name::KINDS,
            )?,
            difference_sats: m.int_gauge(
                "tidegate_ledger_difference_sats",
                "Satoshi by which the accounts' outputs differ from the ledger",
            )?,
            entries: m.int_gauge("tidegate_ledger_entries", "Entries of the ledger")?,
        })
    }
}

/// Node and venue.
#[derive(Clone, Debug)]
pub struct LinkMetrics {
    /// 1 while the node answers.
    pub node_up: IntGauge,
    /// 1 while the venue answers.
    pub venue_up: IntGauge,
    /// 1 while the batch stream is open.
    pub venue_connected: IntGauge,
    /// Unix time of the last answer, by counterpart.
    pub seen_seconds: GaugeVec,
}

impl LinkMetrics {
    fn new(m: &Maker) -> Made<LinkMetrics> {
        let seen =
            m.gauges("tidegate_link_seen_seconds", "Unix time of the last answer, by counterpart", &["counterpart"])?;
        for counterpart in ["node", "venue"] {
            seen.with_label_values(&[counterpart]).set(0.0);
        }
        Ok(LinkMetrics {
            node_up: m.int_gauge("tidegate_node_up", "1 while the node answers")?,
            venue_up: m.int_gauge("tidegate_venue_up", "1 while the venue answers")?,
            venue_connected: m.int_gauge("tidegate_venue_connected", "1 while the batch stream is open")?,
            seen_seconds: seen,
        })
    }
}

/// The risk gate.
#[derive(Clone, Debug)]
pub struct RiskMetrics {
    /// Refusals since the start, by limit.
    pub refusals_total: IntCounterVec,
    /// What the last 24 hours cost, worst case of open orders included, in satoshi.
    pub daily_cost_sats: IntGauge,
    /// Limit of the above, in satoshi.
    pub daily_cost_limit_sats: IntGauge,
    /// 1 while nothing is placed because of `dry_run`.
    pub dry_run: IntGauge,
    /// 1 while an operator has stopped trading.
    pub stopped: IntGauge,
}

impl RiskMetrics {
    fn new(m: &Maker) -> Made<RiskMetrics> {
        Ok(RiskMetrics {
            refusals_total: m.counters_of(
                "tidegate_risk_refusals_total",
                "What the risk gate refused since the start, by limit",
                "limit",
                &RiskRefusal::NAMES,
            )?,
            daily_cost_sats: m.int_gauge(
                "tidegate_daily_cost_sats",
                "Cost of the last 24 hours with the worst case of open orders, in satoshi",
            )?,
            daily_cost_limit_sats: m.int_gauge(
                "tidegate_daily_cost_limit_sats",
                "Largest cost of 24 hours that the limits allow, in satoshi",
            )?,
            dry_run: m.int_gauge("tidegate_dry_run", "1 while nothing is placed because of dry_run")?,
            stopped: m.int_gauge("tidegate_trading_stopped", "1 while an operator has stopped trading")?,
        })
    }
}
