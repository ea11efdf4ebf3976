//! What an agent tells about itself: status as JSON, and its metrics.

use super::observe::lease_view;
use crate::api::{AgentMetrics, raise_to};
use serde::Serialize;
use std::collections::BTreeMap;
use tidegate_engine::view::{LeaseView, Side};
use tidegate_engine::yields::{LeaseSums, Yields};
use tidegate_protocol::account::{Account, AccountState, AccountVersion};
use tidegate_protocol::order::{OrderState, OwnOrder};
use tidegate_protocol::units::{BlockCount, BlockHeight, RatePerBillion, Sats, SatsDelta};
use tidegate_trader::{Lease, Status, Stuck};

/// An account, as the status page tells it.
#[derive(Debug, Serialize)]
pub(crate) struct AccountReport {
    trader_key: String,
    /// `txid:index`; empty before the funding transaction exists.
    outpoint: String,
    value_sats: u64,
    reserved_sats: u64,
    state: &'static str,
    version: u8,
    expiry_height: u32,
}

/// An order.
#[derive(Debug, Serialize)]
pub(crate) struct OrderReport {
    nonce: String,
    side: &'static str,
    state: &'static str,
    rate_ppb: u32,
    duration_blocks: u32,
    amount_sats: u64,
    units_unfulfilled: u32,
}

/// A lease.
#[derive(Debug, Serialize)]
pub(crate) struct LeaseReport {
    batch: String,
    channel_point: String,
    node: String,
    purchased: bool,
    amount_sats: u64,
    self_balance_sats: u64,
    duration_blocks: u32,
    clearing_rate_ppb: u32,
    premium_sats: u64,
    execution_fee_sats: u64,
    chain_fee_sats: u64,
}

/// A transaction that does not confirm.
#[derive(Debug, Serialize)]
pub(crate) struct StuckReport {
    txid: String,
    trader_key: String,
    blocks: u32,
    /// What is known, and what can be done.
    explanation: String,
}

/// The whole status.
#[derive(Debug, Serialize)]
pub(crate) struct StatusReport {
    best_height: Option<u32>,
    subscribed: bool,
    accounts: Vec<AccountReport>,
    orders: Vec<OrderReport>,
    leases: Vec<LeaseReport>,
    stuck_transactions: Vec<StuckReport>,
    gross_yield_ratio: Option<f64>,
    net_yield_ratio: Option<f64>,
}

impl From<&Status> for StatusReport {
    fn from(status: &Status) -> StatusReport {
        let earned = sold_yields(&status.leases);
        StatusReport {
            best_height: status.best_height.map(BlockHeight::get),
            subscribed: status.subscribed,
            accounts: status.accounts.iter().map(|account| account_report(status, account)).collect(),
            orders: status.orders.iter().map(order_report).collect(),
            leases: status.leases.iter().map(lease_report).collect(),
            stuck_transactions: status.stuck.iter().map(stuck_report).collect(),
            gross_yield_ratio: earned.as_ref().map(|yields| yields.gross),
            net_yield_ratio: earned.as_ref().map(|yields| yields.net),
        }
    }
}

fn stuck_report(stuck: &Stuck) -> StuckReport {
    StuckReport {
        txid: stuck.txid.to_string(),
        trader_key: stuck.account.to_string(),
        blocks: stuck.blocks.get(),
        explanation: stuck.to_string(),
    }
}

fn account_report(status: &Status, account: &Account) -> AccountReport {
    AccountReport {
        trader_key: account.key().to_string(),
        outpoint: account.outpoint.map_or_else(String::new, |outpoint| outpoint.to_string()),
        value_sats: account.value.get(),
        reserved_sats: status.reserved.get(&account.key()).map_or(0, |sats| sats.get()),
        state: account_state(account.state),
        version: version_number(account.terms.version),
        expiry_height: account.terms.expiry.get(),
    }
}

fn order_report(own: &OwnOrder) -> OrderReport {
    OrderReport {
        nonce: own.order.nonce.to_string(),
        side: side(own),
        state: order_state(own.state),
        rate_ppb: own.order.rate.get(),
        duration_blocks: own.order.duration.get(),
        amount_sats: own.order.amount.get(),
        units_unfulfilled: own.units_unfulfilled.get(),
    }
}

fn lease_report(lease: &Lease) -> LeaseReport {
    LeaseReport {
        batch: lease.batch_id.to_string(),
        channel_point: lease.channel.to_string(),
        node: lease.node.to_string(),
        purchased: !lease.maker,
        amount_sats: lease.units.to_sats().get(),
        self_balance_sats: lease.self_balance.get(),
        duration_blocks: lease.duration.get(),
        clearing_rate_ppb: lease.clearing_price.get(),
        premium_sats: lease.premium.get(),
        execution_fee_sats: lease.execution_fee.get(),
        chain_fee_sats: lease.chain_fee.get(),
    }
}

fn version_number(version: AccountVersion) -> u8 {
    match version {
        AccountVersion::V0 => 0,
        AccountVersion::V1 => 1,
        AccountVersion::V2 => 2,
    }
}

fn side(own: &OwnOrder) -> &'static str {
    if own.order.is_ask() { "ask" } else { "bid" }
}

/// An account state in the words of status and metrics.
pub(crate) fn account_state(state: AccountState) -> &'static str {
    match state {
        AccountState::Initiated => "initiated",
        AccountState::PendingOpen => "pending_open",
        AccountState::PendingUpdate => "pending_update",
        AccountState::Open => "open",
        AccountState::Expired => "expired",
        AccountState::PendingClosed => "pending_closed",
        AccountState::Closed => "closed",
        AccountState::CanceledAfterRecovery => "canceled_after_recovery",
        AccountState::PendingBatch => "pending_batch",
        AccountState::ExpiredPendingUpdate => "expired_pending_update",
    }
}

/// An order state in the words of the status.
pub(crate) fn order_state(state: OrderState) -> &'static str {
    match state {
        OrderState::Submitted => "submitted",
        OrderState::Cleared => "cleared",
        OrderState::PartiallyFilled => "partially_filled",
        OrderState::Executed => "executed",
        OrderState::Canceled => "canceled",
        OrderState::Expired => "expired",
        OrderState::Failed => "failed",
    }
}

/// Yields of the leases sold; nothing without one.
pub(crate) fn sold_yields(leases: &[Lease]) -> Option<Yields> {
    let views: Vec<LeaseView> = leases.iter().map(|lease| lease_view(lease, lease.clearing_price)).collect();
    LeaseSums::of(&views, Side::Ask).sold()
}

/// Sets every metric that follows from the trader's state.
pub(crate) fn update_metrics(metrics: &AgentMetrics, status: &Status) {
    if let Some(height) = status.best_height {
        metrics.best_height_blocks.set(i64::from(height.get()));
    }
    metrics.venue_subscribed.set(i64::from(status.subscribed));
    metrics.links.venue_connected.set(i64::from(status.connected));
    metrics.stuck_transactions.set(count(status.stuck.len()));
    metrics.unsure_orders.set(count(status.unsure_orders));
    raise_to(&metrics.store_commits_total.with_label_values(&["trader"]), status.sequence.0);
    update_account_metrics(metrics, status);
    update_order_metrics(metrics, &status.orders);
    update_batch_metrics(metrics, status);
    update_lease_metrics(metrics, &status.leases);
    update_running_metrics(metrics, status);
}

fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

fn update_account_metrics(metrics: &AgentMetrics, status: &Status) {
    metrics.account_balance_sats.reset();
    metrics.account_reserved_sats.reset();
    metrics.account_expiry_height.reset();
    for state in ACCOUNT_STATES {
        metrics.accounts.with_label_values(&[account_state(state)]).set(0);
    }
    for account in &status.accounts {
        metrics.accounts.with_label_values(&[account_state(account.state)]).inc();
        // Closed accounts are many in the end, and there is nothing in them.
        if matches!(account.state, AccountState::Closed | AccountState::CanceledAfterRecovery) {
            continue;
        }
        let key = account.key().to_string();
        let value = account.value.to_delta().get();
        metrics.account_balance_sats.with_label_values(&[key.as_str(), account_state(account.state)]).set(value);
        let reserved = status.reserved.get(&account.key()).map_or(0, |sats| sats.to_delta().get());
        metrics.account_reserved_sats.with_label_values(&[key.as_str()]).set(reserved);
        let expiry = i64::from(account.terms.expiry.get());
        metrics.account_expiry_height.with_label_values(&[key.as_str()]).set(expiry);
    }
}

/// Every state of an account, so that each is told, also when no account is in it.
const ACCOUNT_STATES: [AccountState; 10] = [
    AccountState::Initiated,
    AccountState::PendingOpen,
    AccountState::PendingUpdate,
    AccountState::Open,
    AccountState::Expired,
    AccountState::PendingClosed,
    AccountState::Closed,
    AccountState::CanceledAfterRecovery,
    AccountState::PendingBatch,
    AccountState::ExpiredPendingUpdate,
];

/// Every state of an order.
const ORDER_STATES: [OrderState; 7] = [
    OrderState::Submitted,
    OrderState::Cleared,
    OrderState::PartiallyFilled,
    OrderState::Executed,
    OrderState::Canceled,
    OrderState::Expired,
    OrderState::Failed,
];

fn update_order_metrics(metrics: &AgentMetrics, orders: &[OwnOrder]) {
    for name in ["ask", "bid"] {
        for state in ORDER_STATES {
            metrics.orders.with_label_values(&[name, order_state(state)]).set(0);
        }
        metrics.open_units.with_label_values(&[name]).set(0);
        let filled = orders.iter().filter(|own| side(own) == name).map(|own| {
            let units = own.order.units().map_or(0, |units| units.get());
            u64::from(units.saturating_sub(own.units_unfulfilled.get()))
        });
        raise_to(&metrics.filled_units_total.with_label_values(&[name]), filled.sum());
    }
    for own in orders {
        metrics.orders.with_label_values(&[side(own), order_state(own.state)]).inc();
        if !own.state.is_archived() {
            metrics.open_units.with_label_values(&[side(own)]).add(i64::from(own.units_unfulfilled.get()));
        }
    }
}

fn update_batch_metrics(metrics: &AgentMetrics, status: &Status) {
    let (batches, tally) = (&metrics.batches, &status.batches);
    for (step, total) in [("proposed", tally.proposed), ("accepted", tally.accepted), ("signed", tally.signed)] {
        raise_to(&batches.steps_total.with_label_values(&[step]), total);
    }
    for (class, total) in &tally.refused {
        raise_to(&batches.refusals_total.with_label_values(&[*class]), *total);
    }
    batches.verification_seconds.set(tally.verification);
    batches.pending.set(count(status.pending_batches.len()));
    raise_to(&batches.final_total, u64::try_from(status.final_batches).unwrap_or(u64::MAX));
}

fn update_lease_metrics(metrics: &AgentMetrics, leases: &[Lease]) {
    for (maker, role, direction) in [(true, "seller", "earned"), (false, "buyer", "paid")] {
        let mine = || leases.iter().filter(move |lease| lease.maker == maker);
        let count = u64::try_from(mine().count()).unwrap_or(u64::MAX);
        raise_to(&metrics.leases_total.with_label_values(&[role]), count);
        let principal = mine().map(|lease| lease.units.to_sats().get()).fold(0, u64::saturating_add);
        raise_to(&metrics.leased_sats_total.with_label_values(&[role]), principal);
        let premium = mine().map(|lease| lease.premium.get()).fold(0, u64::saturating_add);
        raise_to(&metrics.premium_sats_total.with_label_values(&[direction]), premium);
    }
    let execution = leases.iter().map(|lease| lease.execution_fee.get()).fold(0, u64::saturating_add);
    raise_to(&metrics.execution_fee_sats_total, execution);
    let chain = leases.iter().map(|lease| lease.chain_fee.get()).fold(0, u64::saturating_add);
    raise_to(&metrics.chain_fee_sats_total, chain);
}

/// What depends on which leases have matured: at the node's height, and none of them while it is not known.
fn update_running_metrics(metrics: &AgentMetrics, status: &Status) {
    let height = status.best_height.unwrap_or_default();
    let views: Vec<LeaseView> = status.leases.iter().map(|lease| lease_view(lease, lease.clearing_price)).collect();
    let (running, matured): (Vec<&LeaseView>, Vec<&LeaseView>) =
        views.iter().partition(|lease| lease.maturity() > height);
    for (role, of) in [("seller", Side::Ask), ("buyer", Side::Bid)] {
        let sums = LeaseSums::of(running.iter().copied(), of);
        metrics.leases_running.with_label_values(&[role]).set(i64::try_from(sums.count).unwrap_or(i64::MAX));
        let principal = i64::try_from(sums.principal_sats).unwrap_or(i64::MAX);
        metrics.leased_running_sats.with_label_values(&[role]).set(principal);
    }
    let all: Vec<&LeaseView> = views.iter().collect();
    for (name, leases) in [("all", all), ("running", running), ("realised", matured)] {
        let earned = LeaseSums::of(leases.iter().copied(), Side::Ask).sold().unwrap_or_default();
        let paid = LeaseSums::of(leases.iter().copied(), Side::Bid).bought().unwrap_or_default();
        for (gauges, yields) in [(&metrics.yield_ratio, earned), (&metrics.cost_ratio, paid)] {
            gauges.with_label_values(&["gross", name]).set(yields.gross);
            gauges.with_label_values(&["net", name]).set(yields.net);
        }
    }
}

/// What the task that decides knows, beside the trader's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Latest clearing rate of each duration.
    pub(crate) clearing_rates: BTreeMap<BlockCount, RatePerBillion>,
    /// When the venue made its latest batch, Unix seconds.
    pub(crate) last_batch_s: Option<u64>,
    /// What the gate refused since the start, by limit.
    pub(crate) refusals: BTreeMap<&'static str, u64>,
    /// What the last 24 hours cost, while the venue's terms are known.
    pub(crate) daily_cost: Option<Sats>,
    /// At most.
    pub(crate) daily_cost_limit: Sats,
    /// Nothing is placed because of the configuration.
    pub(crate) dry_run: bool,
    /// Nothing is placed because an operator said so.
    pub(crate) stopped: bool,
    /// Nothing is placed because of a broken promise.
    pub(crate) halted: bool,
    /// Commits of the journal.
    pub(crate) journal_commits: u64,
    /// When node and venue answered last, Unix seconds.
    pub(crate) node_seen_s: Option<u64>,
    pub(crate) venue_seen_s: Option<u64>,
    /// Balances of the ledger by kind, in satoshi.
    pub(crate) ledger: BTreeMap<&'static str, SatsDelta>,
    /// Satoshi by which it differs from the accounts.
    pub(crate) ledger_difference: u64,
    /// Its entries.
    pub(crate) ledger_entries: usize,
}

/// Sets every metric that follows from the figures.
pub(crate) fn update_figures(metrics: &AgentMetrics, figures: &Figures) {
    for (duration, rate) in &figures.clearing_rates {
        let duration = duration.get().to_string();
        metrics.clearing_rate_ppb.with_label_values(&[duration.as_str()]).set(i64::from(rate.get()));
    }
    if let Some(at) = figures.last_batch_s {
        metrics.batches.last_seconds.set(seconds(at));
    }
    let risk = &metrics.risk;
    for (limit, total) in &figures.refusals {
        raise_to(&risk.refusals_total.with_label_values(&[*limit]), *total);
    }
    if let Some(cost) = figures.daily_cost {
        risk.daily_cost_sats.set(cost.to_delta().get());
    }
    risk.daily_cost_limit_sats.set(figures.daily_cost_limit.to_delta().get());
    risk.dry_run.set(i64::from(figures.dry_run));
    risk.stopped.set(i64::from(figures.stopped));
    metrics.trading_halted.set(i64::from(figures.halted));
    raise_to(&metrics.store_commits_total.with_label_values(&["journal"]), figures.journal_commits);
    for (name, at) in [("node", figures.node_seen_s), ("venue", figures.venue_seen_s)] {
        if let Some(at) = at {
            metrics.links.seen_seconds.with_label_values(&[name]).set(seconds(at));
        }
    }
    for (kind, balance) in &figures.ledger {
        metrics.ledger.balance_sats.with_label_values(&[*kind]).set(balance.get());
    }
    metrics.ledger.difference_sats.set(i64::try_from(figures.ledger_difference).unwrap_or(i64::MAX));
    metrics.ledger.entries.set(count(figures.ledger_entries));
}

/// Unix seconds as Prometheus wants them.
pub(crate) fn seconds(unix: u64) -> f64 {
    // Exact until the year 2106, as close as a double gets thereafter.
    u32::try_from(unix).map_or(f64::from(u32::MAX), f64::from)
}
