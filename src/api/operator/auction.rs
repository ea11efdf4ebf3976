//! What the venue says, our leases, and the daemon itself.

use super::accounts::is_active;
use super::agent::VERSION;
use super::service::{Operator, gone, link_failed, malformed};
use crate::venue::GrpcLink;
use bitcoin::hashes::Hash as _;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_ports::{NodeData as _, TraderEnv, VenueLink as _};
use tidegate_protocol::account::AccountState;
use tidegate_protocol::keys::{NodeId, OrderNonce};
use tidegate_protocol::order::{NodeTier, OwnOrder};
use tidegate_trader::Lease;
use tidegate_wire::{market, operator as wire, poolrpc as rpc};
use tonic::Status;

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl<E: TraderEnv<Link = GrpcLink>> Operator<E> {
    pub(super) async fn info(&self) -> Result<rpc::GetInfoResponse, Status> {
        let state = self.trader.status().await.map_err(gone)?;
        let accounts = |wanted: fn(AccountState) -> bool| {
            count(state.accounts.iter().filter(|account| wanted(account.state)).count())
        };
        let archived = count(state.orders.iter().filter(|own| own.state.is_archived()).count());
        let total = count(state.orders.len());
        // Both are best effort: a silent venue must not hide what we know ourselves.
        let rating = match state.node {
            Some(node) => self.env.link().raw_ratings(market::to_ratings_request(&[node])).await.ok(),
            None => None,
        };
        let market_info = self.env.link().raw_market_info().await.map(|info| info.markets).unwrap_or_default();
        let batches: BTreeSet<_> = state.leases.iter().map(|lease| lease.batch_id).collect();
        Ok(rpc::GetInfoResponse {
            version: VERSION.to_owned(),
            accounts_total: count(state.accounts.len()),
            accounts_active: accounts(is_active),
            accounts_active_expired: accounts(|state| state == AccountState::Expired),
            accounts_archived: accounts(|state| !is_active(state)),
            orders_total: total,
            orders_active: total.saturating_sub(archived),
            orders_archived: archived,
            current_block_height: state.best_height.map_or(0, |height| height.get()),
            batches_involved: count(batches.len()),
            node_rating: rating.and_then(|rating| rating.node_ratings.into_iter().next()),
            lsat_tokens: 0,
            subscribed_to_auctioneer: state.connected,
            new_nodes_only: self.new_nodes_only,
            market_info,
        })
    }

    pub(super) async fn auction_fee(&self) -> Result<rpc::AuctionFeeResponse, Status> {
        let terms = self.env.link().raw_terms().await.map_err(link_failed)?;
        Ok(rpc::AuctionFeeResponse { execution_fee: terms.execution_fee })
    }

    #[allow(deprecated)] // old clients read the flat field
    pub(super) async fn lease_durations(&self) -> Result<rpc::LeaseDurationResponse, Status> {
        use rpc::DurationBucketState::{AcceptingOrders, MarketOpen};
        let terms = self.env.link().raw_terms().await.map_err(link_failed)?;
        let lease_duration_buckets = terms.lease_duration_buckets;
        let open = |state: &i32| [AcceptingOrders, MarketOpen].iter().any(|open| i32::from(*open) == *state);
        let lease_durations = lease_duration_buckets.iter().map(|(blocks, state)| (*blocks, open(state))).collect();
        Ok(rpc::LeaseDurationResponse { lease_durations, lease_duration_buckets })
    }

    pub(super) async fn next_batch_info(&self) -> Result<rpc::NextBatchInfoResponse, Status> {
        let terms = self.env.link().raw_terms().await.map_err(link_failed)?;
        Ok(rpc::NextBatchInfoResponse {
            conf_target: terms.next_batch_conf_target,
            fee_rate_sat_per_kw: terms.next_batch_fee_rate_sat_per_kw,
            clear_timestamp: terms.next_batch_clear_timestamp,
            auto_renew_extension_blocks: terms.auto_renew_extension_blocks,
        })
    }

    pub(super) async fn batch_snapshot(
        &self,
        request: rpc::BatchSnapshotRequest,
    ) -> Result<rpc::BatchSnapshotResponse, Status> {
        market::from_snapshot_request(&request).map_err(malformed)?;
        self.env.link().raw_snapshot(request).await.map_err(link_failed)
    }

    pub(super) async fn batch_snapshots(
        &self,
        mut request: rpc::BatchSnapshotsRequest,
    ) -> Result<rpc::BatchSnapshotsResponse, Status> {
        request.num_batches_back = request.num_batches_back.max(1);
        market::from_snapshots_request(&request).map_err(malformed)?;
        self.env.link().raw_snapshots(request).await.map_err(link_failed)
    }

    pub(super) async fn node_ratings(
        &self,
        request: rpc::NodeRatingRequest,
    ) -> Result<rpc::NodeRatingResponse, Status> {
        let nodes = wire::from_rating_request(&request).map_err(malformed)?;
        let answer = self.env.link().raw_ratings(market::to_ratings_request(&nodes)).await.map_err(link_failed)?;
        Ok(rpc::NodeRatingResponse { node_ratings: answer.node_ratings })
    }

    pub(super) async fn leases(&self, request: rpc::LeasesRequest) -> Result<rpc::LeasesResponse, Status> {
        let (batches, accounts) = wire::from_leases_request(&request).map_err(malformed)?;
        let state = self.trader.status().await.map_err(gone)?;
        let mut leases: Vec<&Lease> = state
            .leases
            .iter()
            .filter(|lease| batches.is_empty() || batches.contains(&lease.batch_id))
            .filter(|lease| accounts.is_empty() || accounts.contains(&lease.account))
            .collect();
        leases.sort_by_key(|lease| (lease.booked_at, lease.channel));
        let nodes: Vec<NodeId> = leases.iter().map(|lease| lease.node).collect::<BTreeSet<_>>().into_iter().collect();
        let tiers = self.tiers(&nodes).await;
        // Best effort too: the rest of a lease is known without the node.
        let thaws = self.env.node().thaw_heights().await.unwrap_or_default();
        let orders: BTreeMap<OrderNonce, &OwnOrder> = state.orders.iter().map(|own| (own.order.nonce, own)).collect();
        let mut response = rpc::LeasesResponse::default();
        for lease in leases {
            let (earned, paid) = if lease.maker { (lease.premium.get(), 0) } else { (0, lease.premium.get()) };
            let fees = lease.execution_fee.get().saturating_add(lease.chain_fee.get());
            response.total_amt_earned_sat = response.total_amt_earned_sat.saturating_add(earned);
            response.total_amt_paid_sat = response.total_amt_paid_sat.saturating_add(paid).saturating_add(fees);
            let mut told = to_lease(lease, orders.get(&lease.ours).copied(), tiers.get(&lease.node).copied());
            told.channel_lease_expiry = thaws.get(&lease.channel).copied().unwrap_or(0);
            response.leases.push(told);
        }
        Ok(response)
    }

    /// The nodes' current tiers; none while the venue is silent.
    async fn tiers(&self, nodes: &[NodeId]) -> BTreeMap<NodeId, NodeTier> {
        if nodes.is_empty() {
            return BTreeMap::new();
        }
        self.env.link().ratings(nodes).await.map(|ratings| ratings.into_iter().collect()).unwrap_or_default()
    }
}

/// A lease; `ours` is our order.
///
/// # Source
/// Protocol notes, rpc §13.5.
fn to_lease(lease: &Lease, ours: Option<&OwnOrder>, tier: Option<NodeTier>) -> rpc::Lease {
    let rate = ours.map_or(lease.clearing_price, |own| own.order.rate);
    let tier = match tier {
        None => rpc::NodeTier::TierDefault,
        Some(NodeTier::Tier0) => rpc::NodeTier::Tier0,
        Some(NodeTier::Tier1) => rpc::NodeTier::Tier1,
    };
    rpc::Lease {
        channel_point: Some(rpc::OutPoint {
            txid: lease.channel.txid.to_byte_array().to_vec(),
            output_index: lease.channel.vout,
        }),
        channel_amt_sat: lease.units.to_sats().get(),
        channel_duration_blocks: lease.duration.get(),
        // The node knows it once the channel is open.
        channel_lease_expiry: 0,
        premium_sat: lease.premium.get(),
        execution_fee_sat: lease.execution_fee.get(),
        chain_fee_sat: lease.chain_fee.get(),
        clearing_rate_price: lease.clearing_price.get().into(),
        order_fixed_rate: rate.get().into(),
        order_nonce: lease.ours.as_bytes().to_vec(),
        matched_order_nonce: lease.theirs.as_bytes().to_vec(),
        purchased: !lease.maker,
        channel_remote_node_key: lease.node.serialize().to_vec(),
        channel_node_tier: tier.into(),
        self_chan_balance: if lease.maker { 0 } else { lease.self_balance.get() },
        sidecar_channel: false,
    }
}
