//! What an agent tells about itself: status as JSON, and its metrics.

use super::observe::lease_view;
use crate::api::{AgentMetrics, raise_to};
use serde::Serialize;
use tidegate_engine::view::{LeaseView, Side};
use tidegate_engine::yields::{LeaseSums, Yields};
use tidegate_protocol::account::{Account, AccountState, AccountVersion};
use tidegate_protocol::order::{OrderState, OwnOrder};
use tidegate_protocol::units::BlockHeight;
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

fn order_state(state: OrderState) -> &'static str {
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
    metrics.account_balance_sats.reset();
    metrics.account_reserved_sats.reset();
    for account in &status.accounts {
        let key = account.key().to_string();
        let value = account.value.to_delta().get();
        metrics.account_balance_sats.with_label_values(&[key.as_str(), account_state(account.state)]).set(value);
        let reserved = status.reserved.get(&account.key()).map_or(0, |sats| sats.to_delta().get());
        metrics.account_reserved_sats.with_label_values(&[key.as_str()]).set(reserved);
    }
    metrics.orders.reset();
    metrics.open_units.reset();
    for own in &status.orders {
        metrics.orders.with_label_values(&[side(own), order_state(own.state)]).inc();
        if !own.state.is_archived() {
            metrics.open_units.with_label_values(&[side(own)]).add(i64::from(own.units_unfulfilled.get()));
        }
    }
    update_lease_metrics(metrics, &status.leases);
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
    if let Some(yields) = sold_yields(leases) {
        metrics.yield_ratio.with_label_values(&["gross"]).set(yields.gross);
        metrics.yield_ratio.with_label_values(&["net"]).set(yields.net);
    }
}
