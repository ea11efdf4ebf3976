//! Public data of the market: terms, past batches, open interest, ratings.

use crate::batch::{LEGACY_DURATION, from_execution_fee, to_execution_fee};
use crate::error::DecodeError;
use crate::order::{from_channel_type, from_tier, to_channel_type, to_tier};
use crate::poolrpc;
use crate::read::{self, MAX_LIST, MAX_MATCHES};
use std::collections::BTreeMap;
use tidegate_ports::{BatchSnapshot, DurationState, Interest, MarketInterest, SnapshotMatch, Terms};
use tidegate_protocol::keys::{BatchId, NodeId};
use tidegate_protocol::order::NodeTier;
use tidegate_protocol::units::{BlockCount, RatePerBillion, SatPerKw};

/// Batches that one request may ask for.
///
/// # Source
/// Protocol notes, rpc §8.8.
pub const MAX_SNAPSHOTS: u32 = 100;

/// What the deprecated field for the longest lease says, always.
const MAX_ORDER_DURATION_BLOCKS: u32 = 52_560;

/// The terms. `conf_target` is the number of blocks within which the next batch is to confirm.
///
/// # Source
/// Protocol notes, rpc §8.7.
#[allow(deprecated)] // old clients read the flat fields
pub fn to_terms(terms: &Terms, conf_target: u32) -> poolrpc::TermsResponse {
    use poolrpc::DurationBucketState as Wire;
    let mut response = poolrpc::TermsResponse {
        max_account_value: terms.max_account_value.get(),
        max_order_duration_blocks: MAX_ORDER_DURATION_BLOCKS,
        execution_fee: Some(to_execution_fee(&terms.execution_fee)),
        next_batch_conf_target: conf_target,
        next_batch_fee_rate_sat_per_kw: terms.next_batch_fee_rate.get(),
        next_batch_clear_timestamp: terms.next_clear_time,
        auto_renew_extension_blocks: terms.auto_renew_blocks.get(),
        ..Default::default()
    };
    for (duration, state) in &terms.durations {
        let (bucket, takes_orders) = match state {
            DurationState::NoMarket => (Wire::NoMarket, false),
            DurationState::Closed => (Wire::MarketClosed, false),
            DurationState::AcceptingOrders => (Wire::AcceptingOrders, true),
            DurationState::Open => (Wire::MarketOpen, true),
        };
        response.lease_duration_buckets.insert(duration.get(), bucket.into());
        response.lease_durations.insert(duration.get(), takes_orders);
    }
    response
}

/// The terms. Deprecated fields are not looked at.
///
/// # Errors
/// [`DecodeError`], e.g. when the execution fee is missing.
pub fn from_terms(response: &poolrpc::TermsResponse) -> Result<Terms, DecodeError> {
    use poolrpc::DurationBucketState as Wire;
    let field = "TermsResponse.lease_duration_buckets";
    read::at_most(field, response.lease_duration_buckets.len(), MAX_LIST)?;
    let mut durations = BTreeMap::new();
    for (duration, bucket) in &response.lease_duration_buckets {
        let state = match read::number(field, *bucket)? {
            Wire::NoMarket => DurationState::NoMarket,
            Wire::MarketClosed => DurationState::Closed,
            Wire::AcceptingOrders => DurationState::AcceptingOrders,
            Wire::MarketOpen => DurationState::Open,
        };
        durations.insert(BlockCount::new(*duration), state);
    }
    let fee = read::required("TermsResponse.execution_fee", response.execution_fee.as_ref())?;
    Ok(Terms {
        max_account_value: read::sats("TermsResponse.max_account_value", response.max_account_value)?,
        execution_fee: from_execution_fee(fee)?,
        durations,
        next_batch_fee_rate: SatPerKw::new(response.next_batch_fee_rate_sat_per_kw),
        next_clear_time: response.next_batch_clear_timestamp,
        auto_renew_blocks: BlockCount::new(response.auto_renew_extension_blocks),
    })
}

/// The request for one past batch; nothing names the latest.
pub fn to_snapshot_request(batch: Option<BatchId>) -> poolrpc::BatchSnapshotRequest {
    poolrpc::BatchSnapshotRequest { batch_id: to_optional_id(batch) }
}

/// Which past batch is wanted; nothing names the latest.
///
/// # Errors
/// [`DecodeError`] when the id is neither empty, nor all zero, nor a point.
pub fn from_snapshot_request(request: &poolrpc::BatchSnapshotRequest) -> Result<Option<BatchId>, DecodeError> {
    optional_id("BatchSnapshotRequest.batch_id", &request.batch_id)
}

/// The request for `count` past batches, newest first, from `start` or the latest.
pub fn to_snapshots_request(start: Option<BatchId>, count: u32) -> poolrpc::BatchSnapshotsRequest {
    poolrpc::BatchSnapshotsRequest { start_batch_id: to_optional_id(start), num_batches_back: count }
}

/// From which batch on how many are wanted.
///
/// # Errors
/// [`DecodeError`] when the number is not 1 to [`MAX_SNAPSHOTS`], or the id is none.
pub fn from_snapshots_request(request: &poolrpc::BatchSnapshotsRequest) -> Result<(Option<BatchId>, u32), DecodeError> {
    let count = request.num_batches_back;
    if count == 0 || count > MAX_SNAPSHOTS {
        return Err(DecodeError::OutOfRange {
            field: "BatchSnapshotsRequest.num_batches_back",
            lowest: 1,
            highest: MAX_SNAPSHOTS.into(),
            found: count.into(),
        });
    }
    Ok((optional_id("BatchSnapshotsRequest.start_batch_id", &request.start_batch_id)?, count))
}

fn to_optional_id(batch: Option<BatchId>) -> Vec<u8> {
    batch.map_or_else(Vec::new, |batch| batch.serialize().to_vec())
}

/// Empty and 33 zero bytes both mean none.
fn optional_id(field: &'static str, bytes: &[u8]) -> Result<Option<BatchId>, DecodeError> {
    if bytes.is_empty() || bytes == [0; 33] {
        return Ok(None);
    }
    read::key(field, bytes, BatchId::from_slice).map(Some)
}

/// A past batch. The deprecated fields repeat the matches of all durations and the price of 2,016 blocks.
///
/// Versions of the orders and the bids' channel types are not part of our records; they stay 0 (not stated).
///
/// # Source
/// Protocol notes, rpc §8.8.
#[allow(deprecated)] // old clients read the flat fields
pub fn to_snapshot(snapshot: &BatchSnapshot) -> poolrpc::BatchSnapshotResponse {
    let mut response = poolrpc::BatchSnapshotResponse {
        batch_id: snapshot.batch_id.serialize().to_vec(),
        prev_batch_id: snapshot.previous.map_or([0; 33], |previous| previous.serialize()).to_vec(),
        batch_tx_id: snapshot.txid().to_string(),
        batch_tx: bitcoin::consensus::serialize(&snapshot.transaction),
        batch_tx_fee_rate_sat_per_kw: snapshot.fee_rate.get(),
        creation_timestamp_ns: snapshot.created_ns,
        ..Default::default()
    };
    for (duration, (price, matches)) in &snapshot.markets {
        let matched_orders: Vec<_> =
            matches.iter().map(|matched| to_snapshot_match(*duration, *price, matched)).collect();
        if duration.get() == LEGACY_DURATION {
            response.clearing_price_rate = price.get();
        }
        response.matched_orders.extend(matched_orders.iter().copied());
        let market = poolrpc::MatchedMarketSnapshot { matched_orders, clearing_price_rate: price.get() };
        response.matched_markets.insert(duration.get(), market);
    }
    response
}

fn to_snapshot_match(
    duration: BlockCount,
    price: RatePerBillion,
    matched: &SnapshotMatch,
) -> poolrpc::MatchedOrderSnapshot {
    let ask = poolrpc::AskSnapshot {
        lease_duration_blocks: duration.get(),
        rate_fixed: matched.ask_rate.get(),
        chan_type: to_channel_type(matched.channel_type).into(),
        ..Default::default()
    };
    let bid = poolrpc::BidSnapshot {
        lease_duration_blocks: duration.get(),
        rate_fixed: matched.bid_rate.get(),
        ..Default::default()
    };
    poolrpc::MatchedOrderSnapshot {
        ask: Some(ask),
        bid: Some(bid),
        matching_rate: price.get(),
        total_sats_cleared: matched.units.to_sats().get(),
        units_matched: matched.units.get(),
    }
}

/// A past batch. Deprecated fields are not looked at.
///
/// # Errors
/// [`DecodeError`], e.g. when the transaction has another name than the one stated.
pub fn from_snapshot(response: &poolrpc::BatchSnapshotResponse) -> Result<BatchSnapshot, DecodeError> {
    let transaction = read::transaction("BatchSnapshotResponse.batch_tx", &response.batch_tx)?;
    let txid = transaction.compute_txid().to_string();
    if !response.batch_tx_id.is_empty() && response.batch_tx_id != txid {
        return Err(DecodeError::Contradiction {
            field: "BatchSnapshotResponse.batch_tx_id",
            expected: txid,
            found: read::shown(&response.batch_tx_id),
        });
    }
    let field = "BatchSnapshotResponse.matched_markets";
    let matches = response.matched_markets.values().map(|market| market.matched_orders.len()).sum();
    read::at_most(field, response.matched_markets.len(), MAX_LIST)?;
    read::at_most(field, matches, MAX_MATCHES)?;
    let mut markets = BTreeMap::new();
    for (duration, market) in &response.matched_markets {
        let duration = BlockCount::new(*duration);
        let matches = market.matched_orders.iter().map(|matched| from_snapshot_match(duration, matched));
        let price = RatePerBillion::new(market.clearing_price_rate);
        markets.insert(duration, (price, matches.collect::<Result<Vec<_>, _>>()?));
    }
    Ok(BatchSnapshot {
        batch_id: read::key("BatchSnapshotResponse.batch_id", &response.batch_id, BatchId::from_slice)?,
        previous: optional_id("BatchSnapshotResponse.prev_batch_id", &response.prev_batch_id)?,
        transaction,
        fee_rate: SatPerKw::new(response.batch_tx_fee_rate_sat_per_kw),
        created_ns: response.creation_timestamp_ns,
        markets,
    })
}

fn from_snapshot_match(
    duration: BlockCount,
    matched: &poolrpc::MatchedOrderSnapshot,
) -> Result<SnapshotMatch, DecodeError> {
    let ask = read::required("MatchedOrderSnapshot.ask", matched.ask.as_ref())?;
    let bid = read::required("MatchedOrderSnapshot.bid", matched.bid.as_ref())?;
    for stated in [ask.lease_duration_blocks, bid.lease_duration_blocks] {
        if stated != duration.get() {
            return Err(DecodeError::Contradiction {
                field: "MatchedOrderSnapshot.lease_duration_blocks",
                expected: duration.to_string(),
                found: stated.to_string(),
            });
        }
    }
    Ok(SnapshotMatch {
        ask_rate: RatePerBillion::new(ask.rate_fixed),
        bid_rate: RatePerBillion::new(bid.rate_fixed),
        units: read::matched_units("MatchedOrderSnapshot.units_matched", matched.units_matched)?,
        channel_type: from_channel_type("AskSnapshot.chan_type", ask.chan_type)?,
    })
}

/// Past batches, newest first.
pub fn to_snapshots(snapshots: &[BatchSnapshot]) -> poolrpc::BatchSnapshotsResponse {
    poolrpc::BatchSnapshotsResponse { batches: snapshots.iter().map(to_snapshot).collect() }
}

/// Past batches, newest first.
///
/// # Errors
/// [`DecodeError`] when one of them does not parse, or there are more than [`MAX_SNAPSHOTS`].
pub fn from_snapshots(response: &poolrpc::BatchSnapshotsResponse) -> Result<Vec<BatchSnapshot>, DecodeError> {
    let most = usize::try_from(MAX_SNAPSHOTS).expect("100 fits");
    read::at_most("BatchSnapshotsResponse.batches", response.batches.len(), most)?;
    response.batches.iter().map(from_snapshot).collect()
}

/// Open interest by duration.
///
/// # Source
/// Protocol notes, rpc §8.11.
pub fn to_market_info(info: &BTreeMap<BlockCount, MarketInterest>) -> poolrpc::MarketInfoResponse {
    let market = |interest: &MarketInterest| poolrpc::MarketInfo {
        num_asks: to_tiers(interest.asks.orders_tier0, interest.asks.orders_tier1),
        num_bids: to_tiers(interest.bids.orders_tier0, interest.bids.orders_tier1),
        ask_open_interest_units: to_tiers(interest.asks.units_tier0, interest.asks.units_tier1),
        bid_open_interest_units: to_tiers(interest.bids.units_tier0, interest.bids.units_tier1),
    };
    let markets = info.iter().map(|(duration, interest)| (duration.get(), market(interest))).collect();
    poolrpc::MarketInfoResponse { markets }
}

/// Open interest by duration.
///
/// # Errors
/// [`DecodeError`] for an unknown tier, or one that is stated twice.
pub fn from_market_info(
    response: &poolrpc::MarketInfoResponse,
) -> Result<BTreeMap<BlockCount, MarketInterest>, DecodeError> {
    read::at_most("MarketInfoResponse.markets", response.markets.len(), MAX_LIST)?;
    let mut info = BTreeMap::new();
    for (duration, market) in &response.markets {
        let (asks, ask_units) = ("MarketInfo.num_asks", "MarketInfo.ask_open_interest_units");
        let (bids, bid_units) = ("MarketInfo.num_bids", "MarketInfo.bid_open_interest_units");
        let market = MarketInterest {
            asks: from_interest(asks, &market.num_asks, ask_units, &market.ask_open_interest_units)?,
            bids: from_interest(bids, &market.num_bids, bid_units, &market.bid_open_interest_units)?,
        };
        info.insert(BlockCount::new(*duration), market);
    }
    Ok(info)
}

fn from_interest(
    field: &'static str,
    orders: &[poolrpc::market_info::TierValue],
    field_units: &'static str,
    units: &[poolrpc::market_info::TierValue],
) -> Result<Interest, DecodeError> {
    let (orders_tier0, orders_tier1) = from_tiers(field, orders)?;
    let (units_tier0, units_tier1) = from_tiers(field_units, units)?;
    Ok(Interest { orders_tier0, orders_tier1, units_tier0, units_tier1 })
}

fn to_tiers(tier0: u32, tier1: u32) -> Vec<poolrpc::market_info::TierValue> {
    let wire = |tier: NodeTier, value| poolrpc::market_info::TierValue { tier: to_tier(tier).into(), value };
    vec![wire(NodeTier::Tier0, tier0), wire(NodeTier::Tier1, tier1)]
}

/// The values of tier 0 and tier 1; one that is not stated is 0.
fn from_tiers(field: &'static str, values: &[poolrpc::market_info::TierValue]) -> Result<(u32, u32), DecodeError> {
    let (mut tier0, mut tier1) = (None, None);
    for stated in values {
        let tier = from_tier(field, stated.tier)?;
        let slot = match tier {
            NodeTier::Tier0 => &mut tier0,
            NodeTier::Tier1 => &mut tier1,
        };
        if slot.replace(stated.value).is_some() {
            return Err(DecodeError::Duplicate { field, found: format!("{tier:?}") });
        }
    }
    Ok((tier0.unwrap_or(0), tier1.unwrap_or(0)))
}

/// The request for the ratings of nodes.
pub fn to_ratings_request(nodes: &[NodeId]) -> poolrpc::ServerNodeRatingRequest {
    poolrpc::ServerNodeRatingRequest { node_pubkeys: nodes.iter().map(|node| node.serialize().to_vec()).collect() }
}

/// The nodes whose ratings are wanted.
///
/// # Errors
/// [`DecodeError`] when one is no point, or there are more than 1,000.
pub fn from_ratings_request(request: &poolrpc::ServerNodeRatingRequest) -> Result<Vec<NodeId>, DecodeError> {
    let field = "ServerNodeRatingRequest.node_pubkeys";
    read::at_most(field, request.node_pubkeys.len(), MAX_LIST)?;
    request.node_pubkeys.iter().map(|key| read::key(field, key, NodeId::from_slice)).collect()
}

/// Ratings, in the order in which they were asked for.
pub fn to_ratings(ratings: &[(NodeId, NodeTier)]) -> poolrpc::ServerNodeRatingResponse {
    let wire = |(node, tier): &(NodeId, NodeTier)| poolrpc::NodeRating {
        node_pubkey: node.serialize().to_vec(),
        node_tier: to_tier(*tier).into(),
    };
    poolrpc::ServerNodeRatingResponse { node_ratings: ratings.iter().map(wire).collect() }
}

/// The ratings of the nodes that were asked for.
///
/// # Errors
/// [`DecodeError`] when the answer is not about exactly these nodes in this order, or a tier is not stated.
pub fn from_ratings(
    asked: &[NodeId],
    response: &poolrpc::ServerNodeRatingResponse,
) -> Result<Vec<(NodeId, NodeTier)>, DecodeError> {
    let (list, pubkey) = ("ServerNodeRatingResponse.node_ratings", "NodeRating.node_pubkey");
    if response.node_ratings.len() != asked.len() {
        return Err(DecodeError::Contradiction {
            field: list,
            expected: format!("{} ratings", asked.len()),
            found: response.node_ratings.len().to_string(),
        });
    }
    let mut ratings = Vec::new();
    for (asked, rating) in asked.iter().zip(&response.node_ratings) {
        let node = read::key(pubkey, &rating.node_pubkey, NodeId::from_slice)?;
        if node != *asked {
            let (expected, found) = (asked.to_string(), node.to_string());
            return Err(DecodeError::Contradiction { field: pubkey, expected, found });
        }
        ratings.push((node, from_tier("NodeRating.node_tier", rating.node_tier)?));
    }
    Ok(ratings)
}
