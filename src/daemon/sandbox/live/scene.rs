//! What a user sees of the market: plain data, gathered from what the agent and the venue say.

use super::crowd::DURATION;
use super::unfilled::{Case, why};
use super::{Role, Served};
use crate::daemon::report::{account_state, order_state, sold_yields};
use serde::Serialize;
use std::collections::BTreeMap;
use tidegate_engine::yields::Yields;
use tidegate_ports::{BatchSnapshot, MarketInterest};
use tidegate_protocol::account::AccountState;
use tidegate_protocol::keys::NodeId;
use tidegate_protocol::order::OwnOrder;
use tidegate_protocol::units::BlockCount;
use tidegate_trader::{Lease, Status};

/// Clearings shown.
const CLEARINGS: usize = 60;
/// Finished orders shown.
const FINISHED: usize = 4;
/// Blocks of a year, for yields.
const BLOCKS_PER_YEAR: f64 = 52_560.0;

/// A past clearing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClearingLine {
    /// Batch.
    pub batch: String,
    /// Its transaction.
    pub txid: String,
    /// Height of its block; nothing while it is unconfirmed.
    pub height: Option<u32>,
    /// Price in ppb per block.
    pub rate_ppb: u32,
    /// Units traded.
    pub units: u32,
    /// Leases made.
    pub leases: usize,
    /// Chain fee rate.
    pub fee_rate_sat_per_kw: u64,
}

/// An account of the agent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AccountLine {
    /// Name: the trader's key.
    pub account: String,
    /// State.
    pub state: &'static str,
    /// Value.
    pub value_sats: u64,
    /// Part of it that open orders could cost.
    pub reserved_sats: u64,
    /// Height from which the agent can take it out alone.
    pub expiry_height: u32,
}

/// An order of the agent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OrderLine {
    /// Name.
    pub nonce: String,
    /// `ask` or `bid`.
    pub side: &'static str,
    /// State.
    pub state: &'static str,
    /// Limit in ppb per block.
    pub rate_ppb: u32,
    /// Units of the whole order.
    pub units: u32,
    /// Units filled.
    pub units_filled: u32,
    /// Why what is left is not filled; nothing for finished orders.
    pub why_not_filled: Option<String>,
}

/// A lease of the agent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LeaseLine {
    /// Funding output.
    pub channel_point: String,
    /// Batch.
    pub batch: String,
    /// `sold` or `bought`.
    pub side: &'static str,
    /// Name of the other node in this sandbox; a buyer's or seller's.
    pub counterparty: String,
    /// Principal.
    pub amount_sats: u64,
    /// Lease duration.
    pub duration_blocks: u32,
    /// Height at which it is over.
    pub maturity_height: u32,
    /// Blocks until then; 0 when it is over.
    pub blocks_left: u32,
    /// Premium received or paid.
    pub premium_sats: u64,
    /// Execution fee paid.
    pub execution_fee_sats: u64,
    /// Chain fee paid.
    pub chain_fee_sats: u64,
    /// Premium per block and principal, in parts per billion.
    pub gross_ppb: f64,
    /// As `gross_ppb`, after (sold) or with (bought) all fees.
    pub net_ppb: f64,
    /// `gross_ppb` over a year, as a ratio.
    pub gross_apr_ratio: f64,
    /// `net_ppb` over a year, as a ratio.
    pub net_apr_ratio: f64,
}

/// The agent's node.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct NodeLine {
    /// Confirmed coins in the wallet.
    pub wallet_sats: u64,
    /// Payments through leased channels of the agent.
    pub payments: u64,
    /// Their sum.
    pub paid_sats: u64,
    /// What forwarding them earned.
    pub forwarding_fees_msat: u64,
}

/// Everything at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct Scene {
    /// Seed of the market.
    pub seed: u64,
    /// How often it was started before on this data.
    pub start: u64,
    /// What the agent does.
    pub role: Role,
    /// Best block.
    pub height: u32,
    /// Blocks per second that are asked for.
    pub speed: f64,
    /// Blocks that should have been mined by now and were not.
    pub blocks_behind: u64,
    /// Blocks until the venue tries to clear.
    pub next_clearing_blocks: u32,
    /// Chain fee rate that nodes estimate.
    pub fee_rate_sat_per_kw: u64,
    /// How the last attempt to clear ended.
    pub last_attempt: String,
    /// Where things are served.
    pub served: Served,
    /// Faults that were asked for.
    pub faults: String,
    /// What is wrong at this moment.
    pub trouble: Vec<String>,
    /// Batches since the market was made.
    pub batches: usize,
    /// Open units on both sides: asks, bids.
    pub open_units: [u32; 2],
    /// Clearings, oldest first.
    pub clearings: Vec<ClearingLine>,
    /// The agent's accounts.
    pub accounts: Vec<AccountLine>,
    /// Its orders: open ones, then the last finished ones.
    pub orders: Vec<OrderLine>,
    /// Its leases, newest first.
    pub leases: Vec<LeaseLine>,
    /// Its node.
    pub node: NodeLine,
    /// Yearly yield of all leases sold, premium alone.
    pub gross_yield_ratio: Option<f64>,
    /// The same after fees.
    pub net_yield_ratio: Option<f64>,
}

/// What a scene is made of, besides the conductor's own numbers.
pub(super) struct Sources<'a> {
    pub(super) status: &'a Status,
    /// Newest first.
    pub(super) snapshots: &'a [BatchSnapshot],
    pub(super) interest: &'a BTreeMap<BlockCount, MarketInterest>,
    pub(super) names: &'a BTreeMap<NodeId, String>,
    pub(super) height: u32,
}

/// The clearings, oldest first; `height_of` finds the block of a batch.
pub(super) fn clearings(
    snapshots: &[BatchSnapshot],
    height_of: impl Fn(&BatchSnapshot) -> Option<u32>,
) -> Vec<ClearingLine> {
    let traded = snapshots.iter().take(CLEARINGS).rev();
    let line = |snapshot: &BatchSnapshot| {
        let (rate, pairs) = snapshot.markets.get(&DURATION)?;
        Some(ClearingLine {
            batch: snapshot.batch_id.to_string(),
            txid: snapshot.txid().to_string(),
            height: height_of(snapshot),
            rate_ppb: rate.get(),
            units: pairs.iter().fold(0, |sum: u32, pair| sum.saturating_add(pair.units.get())),
            leases: pairs.len(),
            fee_rate_sat_per_kw: snapshot.fee_rate.get(),
        })
    };
    traded.filter_map(line).collect()
}

pub(super) fn open_units(interest: &BTreeMap<BlockCount, MarketInterest>) -> [u32; 2] {
    let market = interest.get(&DURATION);
    let sum = |side: tidegate_ports::Interest| side.units_tier0.saturating_add(side.units_tier1);
    market.map_or([0, 0], |market| [sum(market.asks), sum(market.bids)])
}

pub(super) fn accounts(status: &Status) -> Vec<AccountLine> {
    let shown = status
        .accounts
        .iter()
        .filter(|account| !matches!(account.state, AccountState::Closed | AccountState::CanceledAfterRecovery));
    shown
        .map(|account| AccountLine {
            account: account.key().to_string(),
            state: account_state(account.state),
            value_sats: account.value.get(),
            reserved_sats: status.reserved.get(&account.key()).map_or(0, |sats| sats.get()),
            expiry_height: account.terms.expiry.get(),
        })
        .collect()
}

pub(super) fn orders(sources: &Sources<'_>) -> Vec<OrderLine> {
    let status = sources.status;
    let placed = |own: &&OwnOrder| status.placed_at.get(&own.order.nonce).copied().unwrap_or_default();
    let mut sorted: Vec<&OwnOrder> = status.orders.iter().collect();
    sorted.sort_by_key(|own| (core::cmp::Reverse(placed(own)), own.order.nonce));
    let (open, done): (Vec<&OwnOrder>, Vec<&OwnOrder>) = sorted.into_iter().partition(|own| !own.state.is_archived());
    let open = open.into_iter().map(|own| order_line(own, Some(why_of(own, sources))));
    open.chain(done.into_iter().take(FINISHED).map(|own| order_line(own, None))).collect()
}

fn why_of(own: &OwnOrder, sources: &Sources<'_>) -> String {
    let status = sources.status;
    let order = &own.order;
    let case = Case {
        order,
        placed_at: status.placed_at.get(&order.nonce).copied().unwrap_or_default(),
        takes_part: status.subscribed_accounts.contains(&order.account),
        last: sources.snapshots.first(),
        interest: sources.interest.get(&order.duration),
        next_fee_rate: status.terms.as_ref().map(|terms| terms.next_batch_fee_rate),
    };
    why(&case).to_string()
}

fn order_line(own: &OwnOrder, why_not_filled: Option<String>) -> OrderLine {
    let units = own.order.units().map_or(0, |units| units.get());
    OrderLine {
        nonce: own.order.nonce.to_string(),
        side: if own.order.is_ask() { "ask" } else { "bid" },
        state: order_state(own.state),
        rate_ppb: own.order.rate.get(),
        units,
        units_filled: units.saturating_sub(own.units_unfulfilled.get()),
        why_not_filled,
    }
}

pub(super) fn leases(sources: &Sources<'_>) -> Vec<LeaseLine> {
    let mut leases: Vec<&Lease> = sources.status.leases.iter().collect();
    leases.sort_by_key(|lease| (core::cmp::Reverse((lease.height, lease.booked_at)), lease.channel));
    leases.into_iter().map(|lease| lease_line(lease, sources)).collect()
}

fn lease_line(lease: &Lease, sources: &Sources<'_>) -> LeaseLine {
    let maturity = lease.height.checked_add(lease.duration).map_or(u32::MAX, |height| height.get());
    let (side, name) = (if lease.maker { "sold" } else { "bought" }, sources.names.get(&lease.node).cloned());
    let of_node = name.unwrap_or_else(|| lease.node.to_string());
    let yields = lease_yields(lease);
    LeaseLine {
        channel_point: lease.channel.to_string(),
        batch: lease.batch_id.to_string(),
        side,
        counterparty: of_node,
        amount_sats: lease.units.to_sats().get(),
        duration_blocks: lease.duration.get(),
        maturity_height: maturity,
        blocks_left: maturity.saturating_sub(sources.height),
        premium_sats: lease.premium.get(),
        execution_fee_sats: lease.execution_fee.get(),
        chain_fee_sats: lease.chain_fee.get(),
        gross_ppb: yields.gross / BLOCKS_PER_YEAR * 1e9,
        net_ppb: yields.net / BLOCKS_PER_YEAR * 1e9,
        gross_apr_ratio: yields.gross,
        net_apr_ratio: yields.net,
    }
}

/// Of one lease: what it earned, or what it cost.
fn lease_yields(lease: &Lease) -> Yields {
    use crate::daemon::observe::lease_view;
    use tidegate_engine::view::Side;
    use tidegate_engine::yields::LeaseSums;
    let view = lease_view(lease, lease.clearing_price);
    let sums = LeaseSums::of([&view], if lease.maker { Side::Ask } else { Side::Bid });
    let yields = if lease.maker { sums.sold() } else { sums.bought() };
    yields.unwrap_or_default()
}

/// Yield of all leases sold.
pub(super) fn yields(status: &Status) -> (Option<f64>, Option<f64>) {
    let sold = sold_yields(&status.leases);
    (sold.map(|yields| yields.gross), sold.map(|yields| yields.net))
}
