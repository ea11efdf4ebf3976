//! What a sandbox run shows at its end.

use super::participant::Participant;
use crate::daemon::report::sold_yields;
use serde::Serialize;
use std::collections::BTreeMap;
use tidegate_ports::BatchSnapshot;
use tidegate_protocol::keys::NodeId;
use tidegate_sandbox::World;
use tidegate_trader::{Lease, Status};

/// A batch of the run.
#[derive(Clone, Debug, Serialize)]
pub struct BatchLine {
    /// Name.
    pub batch: String,
    /// Transaction.
    pub txid: String,
    /// Height of its block.
    pub height: Option<u32>,
    /// Chain fee rate.
    pub fee_rate_sat_per_kw: u64,
    /// Duration → clearing price in ppb.
    pub prices_ppb: BTreeMap<u32, u32>,
}

/// A lease of the run, as its seller booked it.
#[derive(Clone, Debug, Serialize)]
pub struct LeaseLine {
    /// Batch.
    pub batch: String,
    /// Funding output.
    pub channel_point: String,
    /// Seller.
    pub seller: String,
    /// Buyer.
    pub buyer: String,
    /// Principal.
    pub amount_sats: u64,
    /// Lease duration.
    pub duration_blocks: u32,
    /// Price.
    pub clearing_rate_ppb: u32,
    /// Premium.
    pub premium_sats: u64,
    /// Seller's execution fee.
    pub execution_fee_sats: u64,
    /// Seller's share of the chain fee.
    pub chain_fee_sats: u64,
}

/// A trader of the run.
#[derive(Clone, Debug, Serialize)]
pub struct ParticipantLine {
    /// Name.
    pub name: String,
    /// `seller` or `buyer`.
    pub role: &'static str,
    /// Value of its accounts.
    pub account_sats: u64,
    /// Leases.
    pub leases: usize,
    /// Premium received.
    pub premium_earned_sats: u64,
    /// Premium paid.
    pub premium_paid_sats: u64,
    /// Execution fees paid.
    pub execution_fee_sats: u64,
    /// Chain fees paid.
    pub chain_fee_sats: u64,
    /// Annualised yield of its sales, premium alone, as a ratio.
    pub gross_yield_ratio: Option<f64>,
    /// Annualised yield of its sales after execution and chain fees, as a ratio.
    pub net_yield_ratio: Option<f64>,
}

/// The whole run.
#[derive(Clone, Debug, Serialize)]
pub struct SandboxReport {
    /// Best height at the end.
    pub height: u32,
    /// Batches, oldest first.
    pub batches: Vec<BatchLine>,
    /// Leases, oldest first.
    pub leases: Vec<LeaseLine>,
    /// Traders.
    pub participants: Vec<ParticipantLine>,
}

pub(super) fn gather(
    world: &World,
    statuses: &[(&Participant, Status)],
    names: &BTreeMap<NodeId, String>,
    snapshots: &[BatchSnapshot],
) -> SandboxReport {
    let mut leases: Vec<(u64, LeaseLine)> = Vec::new();
    for (trader, status) in statuses {
        for lease in status.leases.iter().filter(|lease| lease.maker) {
            leases.push((lease.booked_at.0, lease_line(lease, &trader.name, names)));
        }
    }
    leases.sort_by(|a, b| (a.0, &a.1.channel_point).cmp(&(b.0, &b.1.channel_point)));
    SandboxReport {
        height: world.height().get(),
        batches: snapshots.iter().rev().map(|snapshot| batch_line(world, snapshot)).collect(),
        leases: leases.into_iter().map(|(_, line)| line).collect(),
        participants: statuses.iter().map(|(trader, status)| participant_line(trader, status)).collect(),
    }
}

fn batch_line(world: &World, snapshot: &BatchSnapshot) -> BatchLine {
    let txid = snapshot.txid();
    BatchLine {
        batch: snapshot.batch_id.to_string(),
        txid: txid.to_string(),
        height: world.transaction(txid).and_then(|(_, height)| height).map(|height| height.get()),
        fee_rate_sat_per_kw: snapshot.fee_rate.get(),
        prices_ppb: snapshot.markets.iter().map(|(duration, (price, _))| (duration.get(), price.get())).collect(),
    }
}

fn lease_line(lease: &Lease, seller: &str, names: &BTreeMap<NodeId, String>) -> LeaseLine {
    LeaseLine {
        batch: lease.batch_id.to_string(),
        channel_point: lease.channel.to_string(),
        seller: seller.to_owned(),
        buyer: names.get(&lease.node).cloned().unwrap_or_else(|| lease.node.to_string()),
        amount_sats: lease.units.to_sats().get(),
        duration_blocks: lease.duration.get(),
        clearing_rate_ppb: lease.clearing_price.get(),
        premium_sats: lease.premium.get(),
        execution_fee_sats: lease.execution_fee.get(),
        chain_fee_sats: lease.chain_fee.get(),
    }
}

fn participant_line(trader: &Participant, status: &Status) -> ParticipantLine {
    let sum = |of: &dyn Fn(&Lease) -> u64| status.leases.iter().map(of).fold(0, u64::saturating_add);
    let yields = sold_yields(&status.leases);
    ParticipantLine {
        name: trader.name.clone(),
        role: trader.role,
        account_sats: status.accounts.iter().map(|account| account.value.get()).fold(0, u64::saturating_add),
        leases: status.leases.len(),
        premium_earned_sats: sum(&|lease| if lease.maker { lease.premium.get() } else { 0 }),
        premium_paid_sats: sum(&|lease| if lease.maker { 0 } else { lease.premium.get() }),
        execution_fee_sats: sum(&|lease| lease.execution_fee.get()),
        chain_fee_sats: sum(&|lease| lease.chain_fee.get()),
        gross_yield_ratio: yields.map(|yields| yields.gross),
        net_yield_ratio: yields.map(|yields| yields.net),
    }
}
