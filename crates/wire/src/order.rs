//! Orders: submission, cancelling, state, and how they look to the matched side.

use crate::error::DecodeError;
use crate::poolrpc::{self, server_submit_order_request, server_submit_order_response};
use crate::read::{self, MAX_LIST, Points};
use tidegate_ports::Submission;
use tidegate_protocol::keys::{MultisigKey, NodeId, OrderNonce, OrderPreimage};
use tidegate_protocol::order::{
    AnnouncementConstraint, AskTerms, AuctionType, BidTerms, ConfirmationConstraint, NodeAddress, NodeTier, Order,
    OrderChannelType, OrderSide, OrderState, OrderVersion, SubmittedOrder,
};
use tidegate_protocol::units::{BlockCount, RatePerBillion, SATS_PER_UNIT, SatPerKw, UnitCount};

/// Addresses of one node.
const MAX_ADDRESSES: usize = 64;
/// Bytes of one address.
const MAX_ADDRESS_BYTES: usize = 255;

/// The request that submits an order.
///
/// # Source
/// Protocol notes, rpc §8.4.
pub fn to_submit_request(order: &SubmittedOrder, user_agent: &str) -> poolrpc::ServerSubmitOrderRequest {
    use server_submit_order_request::Details;
    let details = match &order.order.side {
        OrderSide::Ask(terms) => Details::Ask(to_ask(order, terms)),
        OrderSide::Bid(terms) => Details::Bid(to_bid(order, terms)),
    };
    poolrpc::ServerSubmitOrderRequest { details: Some(details), user_agent: user_agent.to_owned() }
}

/// A submitted order, and the user agent of its sender.
///
/// # Errors
/// [`DecodeError`] for a field that has no meaning. Whether the order is allowed is not judged here.
pub fn from_submit_request(
    request: poolrpc::ServerSubmitOrderRequest,
) -> Result<(SubmittedOrder, String), DecodeError> {
    use server_submit_order_request::Details;
    let user_agent = read::user_agent("ServerSubmitOrderRequest.user_agent", request.user_agent)?;
    let order = match read::required("ServerSubmitOrderRequest.details", request.details)? {
        Details::Ask(ask) => from_ask(ask, Purpose::Submission, &mut Points::default())?,
        Details::Bid(bid) => from_bid(bid, Purpose::Submission, &mut Points::default())?,
    };
    Ok((order, user_agent))
}

/// The answer to the submission of order `nonce`.
pub fn to_submit_response(nonce: OrderNonce, submission: &Submission) -> poolrpc::ServerSubmitOrderResponse {
    use server_submit_order_response::Details;
    let details = match submission {
        Submission::Accepted => Details::Accepted(true),
        Submission::Invalid { reason } => Details::InvalidOrder(poolrpc::InvalidOrder {
            order_nonce: nonce.as_bytes().to_vec(),
            fail_reason: poolrpc::invalid_order::FailReason::InvalidAmt.into(),
            fail_string: read::sentence(reason),
        }),
    };
    poolrpc::ServerSubmitOrderResponse { details: Some(details) }
}

/// The venue's answer to a submission.
///
/// # Errors
/// [`DecodeError`] when it is neither a yes nor a known kind of no.
pub fn from_submit_response(response: poolrpc::ServerSubmitOrderResponse) -> Result<Submission, DecodeError> {
    use server_submit_order_response::Details;
    match read::required("ServerSubmitOrderResponse.details", response.details)? {
        Details::Accepted(true) => Ok(Submission::Accepted),
        Details::Accepted(false) => Err(DecodeError::Contradiction {
            field: "ServerSubmitOrderResponse.accepted",
            expected: "true".to_owned(),
            found: "false".to_owned(),
        }),
        Details::InvalidOrder(invalid) => {
            read::number::<poolrpc::invalid_order::FailReason>("InvalidOrder.fail_reason", invalid.fail_reason)?;
            Ok(Submission::Invalid { reason: read::sentence(&invalid.fail_string) })
        }
    }
}

/// The request that cancels the order whose nonce is the hash of `preimage`.
pub fn to_cancel_request(preimage: &OrderPreimage) -> poolrpc::ServerCancelOrderRequest {
    poolrpc::ServerCancelOrderRequest { order_nonce_preimage: preimage.as_bytes().to_vec() }
}

/// The secret that cancels an order.
///
/// # Errors
/// [`DecodeError::Length`].
pub fn from_cancel_request(request: &poolrpc::ServerCancelOrderRequest) -> Result<OrderPreimage, DecodeError> {
    let field = "ServerCancelOrderRequest.order_nonce_preimage";
    read::fixed(field, &request.order_nonce_preimage).map(OrderPreimage::new)
}

/// The request for the state of an order.
pub fn to_state_request(nonce: OrderNonce) -> poolrpc::ServerOrderStateRequest {
    poolrpc::ServerOrderStateRequest { order_nonce: nonce.as_bytes().to_vec() }
}

/// The order whose state is wanted.
///
/// # Errors
/// [`DecodeError::Length`].
pub fn from_state_request(request: &poolrpc::ServerOrderStateRequest) -> Result<OrderNonce, DecodeError> {
    read::fixed("ServerOrderStateRequest.order_nonce", &request.order_nonce).map(OrderNonce::new)
}

/// The state of an order.
///
/// # Source
/// Protocol notes, rpc §6.2.
pub fn to_order_state(state: OrderState) -> poolrpc::OrderState {
    use poolrpc::OrderState as Wire;
    match state {
        OrderState::Submitted => Wire::OrderSubmitted,
        OrderState::Cleared => Wire::OrderCleared,
        OrderState::PartiallyFilled => Wire::OrderPartiallyFilled,
        OrderState::Executed => Wire::OrderExecuted,
        OrderState::Canceled => Wire::OrderCanceled,
        OrderState::Expired => Wire::OrderExpired,
        OrderState::Failed => Wire::OrderFailed,
    }
}

/// State of an order, and the units that are still open.
pub fn to_state_response(state: OrderState, open: UnitCount) -> poolrpc::ServerOrderStateResponse {
    let state = to_order_state(state);
    poolrpc::ServerOrderStateResponse { state: state.into(), units_unfulfilled: open.get() }
}

/// State of an order, and the units that are still open.
///
/// # Errors
/// [`DecodeError::UnknownNumber`].
pub fn from_state_response(
    response: &poolrpc::ServerOrderStateResponse,
) -> Result<(OrderState, UnitCount), DecodeError> {
    use poolrpc::OrderState as Wire;
    let state = match read::number("ServerOrderStateResponse.state", response.state)? {
        Wire::OrderSubmitted => OrderState::Submitted,
        Wire::OrderCleared => OrderState::Cleared,
        Wire::OrderPartiallyFilled => OrderState::PartiallyFilled,
        Wire::OrderExecuted => OrderState::Executed,
        Wire::OrderCanceled => OrderState::Canceled,
        Wire::OrderExpired => OrderState::Expired,
        Wire::OrderFailed => OrderState::Failed,
    };
    Ok((state, UnitCount::new(response.units_unfulfilled)))
}

pub(crate) fn to_announcement(constraint: AnnouncementConstraint) -> poolrpc::ChannelAnnouncementConstraints {
    use poolrpc::ChannelAnnouncementConstraints as Wire;
    match constraint {
        AnnouncementConstraint::None => Wire::AnnouncementNoPreference,
        AnnouncementConstraint::OnlyAnnounced => Wire::OnlyAnnounced,
        AnnouncementConstraint::OnlyUnannounced => Wire::OnlyUnannounced,
    }
}

pub(crate) fn from_announcement(field: &'static str, found: i32) -> Result<AnnouncementConstraint, DecodeError> {
    use poolrpc::ChannelAnnouncementConstraints as Wire;
    Ok(match read::number(field, found)? {
        Wire::AnnouncementNoPreference => AnnouncementConstraint::None,
        Wire::OnlyAnnounced => AnnouncementConstraint::OnlyAnnounced,
        Wire::OnlyUnannounced => AnnouncementConstraint::OnlyUnannounced,
    })
}

pub(crate) fn to_confirmation(constraint: ConfirmationConstraint) -> poolrpc::ChannelConfirmationConstraints {
    use poolrpc::ChannelConfirmationConstraints as Wire;
    match constraint {
        ConfirmationConstraint::None => Wire::ConfirmationNoPreference,
        ConfirmationConstraint::OnlyConfirmed => Wire::OnlyConfirmed,
        ConfirmationConstraint::OnlyZeroConf => Wire::OnlyZeroconf,
    }
}

pub(crate) fn from_confirmation(field: &'static str, found: i32) -> Result<ConfirmationConstraint, DecodeError> {
    use poolrpc::ChannelConfirmationConstraints as Wire;
    Ok(match read::number(field, found)? {
        Wire::ConfirmationNoPreference => ConfirmationConstraint::None,
        Wire::OnlyConfirmed => ConfirmationConstraint::OnlyConfirmed,
        Wire::OnlyZeroconf => ConfirmationConstraint::OnlyZeroConf,
    })
}

/// What a bid demands. The receiver chooses the default tier, and chooses tier 1 (auctioneer §5.2).
pub(crate) fn from_min_tier(field: &'static str, found: i32) -> Result<NodeTier, DecodeError> {
    Ok(match read::number(field, found)? {
        poolrpc::NodeTier::Tier0 => NodeTier::Tier0,
        poolrpc::NodeTier::TierDefault | poolrpc::NodeTier::Tier1 => NodeTier::Tier1,
    })
}

pub(crate) fn to_auction(auction: AuctionType) -> poolrpc::AuctionType {
    match auction {
        AuctionType::Inbound => poolrpc::AuctionType::BtcInboundLiquidity,
        AuctionType::Outbound => poolrpc::AuctionType::BtcOutboundLiquidity,
    }
}

pub(crate) fn from_auction(field: &'static str, found: i32) -> Result<AuctionType, DecodeError> {
    Ok(match read::number(field, found)? {
        poolrpc::AuctionType::BtcInboundLiquidity => AuctionType::Inbound,
        poolrpc::AuctionType::BtcOutboundLiquidity => AuctionType::Outbound,
    })
}

pub(crate) fn to_ask(order: &SubmittedOrder, terms: &AskTerms) -> poolrpc::ServerAsk {
    poolrpc::ServerAsk {
        details: Some(to_details(order)),
        lease_duration_blocks: order.order.duration.get(),
        version: version_number(order.order.version),
        announcement_constraints: to_announcement(terms.announcement).into(),
        confirmation_constraints: to_confirmation(terms.confirmation).into(),
    }
}

/// What an order is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To take it into a book: its digest will be computed, so version and smallest match must be what they say.
    Submission,
    /// To judge its match with an order of ours, whose contract depends on neither. A version above those that we know
    /// counts as the latest, and of the smallest match the whole units, as for the rest of the network.
    ///
    /// # Source
    /// Protocol notes, batch §1 "Unit" and §6: neither is a failure to parse.
    Match,
}

pub(crate) fn from_ask(
    ask: poolrpc::ServerAsk,
    purpose: Purpose,
    points: &mut Points,
) -> Result<SubmittedOrder, DecodeError> {
    let announcement = from_announcement("ServerAsk.announcement_constraints", ask.announcement_constraints)?;
    let confirmation = from_confirmation("ServerAsk.confirmation_constraints", ask.confirmation_constraints)?;
    from_details(
        read::required("ServerAsk.details", ask.details)?,
        version("ServerAsk.version", ask.version, purpose)?,
        BlockCount::new(ask.lease_duration_blocks),
        OrderSide::Ask(AskTerms { announcement, confirmation }),
        purpose,
        points,
    )
}

pub(crate) fn to_bid(order: &SubmittedOrder, terms: &BidTerms) -> poolrpc::ServerBid {
    poolrpc::ServerBid {
        details: Some(to_details(order)),
        lease_duration_blocks: order.order.duration.get(),
        version: version_number(order.order.version),
        min_node_tier: to_tier(terms.min_node_tier).into(),
        self_chan_balance: terms.self_balance.get(),
        is_sidecar_channel: terms.sidecar,
        unannounced_channel: terms.unannounced,
        zero_conf_channel: terms.zero_conf,
    }
}

pub(crate) fn from_bid(
    bid: poolrpc::ServerBid,
    purpose: Purpose,
    points: &mut Points,
) -> Result<SubmittedOrder, DecodeError> {
    let terms = BidTerms {
        min_node_tier: from_min_tier("ServerBid.min_node_tier", bid.min_node_tier)?,
        self_balance: read::sats("ServerBid.self_chan_balance", bid.self_chan_balance)?,
        sidecar: bid.is_sidecar_channel,
        unannounced: bid.unannounced_channel,
        zero_conf: bid.zero_conf_channel,
    };
    from_details(
        read::required("ServerBid.details", bid.details)?,
        version("ServerBid.version", bid.version, purpose)?,
        BlockCount::new(bid.lease_duration_blocks),
        OrderSide::Bid(terms),
        purpose,
        points,
    )
}

fn to_details(submitted: &SubmittedOrder) -> poolrpc::ServerOrder {
    let order = &submitted.order;
    let keys = |nodes: &[NodeId]| nodes.iter().map(|node| node.serialize().to_vec()).collect();
    poolrpc::ServerOrder {
        trader_key: order.account.serialize().to_vec(),
        rate_fixed: order.rate.get(),
        amt: order.amount.get(),
        min_chan_amt: order.min_units.to_sats().get(),
        order_nonce: order.nonce.as_bytes().to_vec(),
        order_sig: submitted.signature.clone(),
        multi_sig_key: submitted.multisig.serialize().to_vec(),
        node_pub: submitted.node.serialize().to_vec(),
        node_addr: submitted.addresses.iter().map(to_address).collect(),
        channel_type: to_channel_type(order.channel_type).into(),
        max_batch_fee_rate_sat_per_kw: order.max_batch_fee_rate.get(),
        allowed_node_ids: keys(&order.allowed_nodes),
        not_allowed_node_ids: keys(&order.denied_nodes),
        auction_type: to_auction(order.auction).into(),
        is_public: order.public,
    }
}

fn from_details(
    details: poolrpc::ServerOrder,
    version: OrderVersion,
    duration: BlockCount,
    side: OrderSide,
    purpose: Purpose,
    points: &mut Points,
) -> Result<SubmittedOrder, DecodeError> {
    let order = Order {
        nonce: read::fixed("ServerOrder.order_nonce", &details.order_nonce).map(OrderNonce::new)?,
        version,
        account: points.read("ServerOrder.trader_key", &details.trader_key)?,
        auction: from_auction("ServerOrder.auction_type", details.auction_type)?,
        rate: RatePerBillion::new(details.rate_fixed),
        amount: read::sats("ServerOrder.amt", details.amt)?,
        min_units: min_units(details.min_chan_amt, purpose)?,
        duration,
        max_batch_fee_rate: SatPerKw::new(details.max_batch_fee_rate_sat_per_kw),
        channel_type: from_channel_type("ServerOrder.channel_type", details.channel_type)?,
        allowed_nodes: node_list("ServerOrder.allowed_node_ids", &details.allowed_node_ids)?,
        denied_nodes: node_list("ServerOrder.not_allowed_node_ids", &details.not_allowed_node_ids)?,
        public: details.is_public,
        side,
    };
    read::at_most("ServerOrder.node_addr", details.node_addr.len(), MAX_ADDRESSES)?;
    Ok(SubmittedOrder {
        order,
        signature: read::signature("ServerOrder.order_sig", details.order_sig)?,
        multisig: read::key("ServerOrder.multi_sig_key", &details.multi_sig_key, MultisigKey::from_slice)?,
        node: points.read("ServerOrder.node_pub", &details.node_pub)?,
        addresses: details.node_addr.into_iter().map(from_address).collect::<Result<_, _>>()?,
    })
}

pub(crate) fn node_list(field: &'static str, keys: &[Vec<u8>]) -> Result<Vec<NodeId>, DecodeError> {
    read::at_most(field, keys.len(), MAX_LIST)?;
    keys.iter().map(|key| read::key(field, key, NodeId::from_slice)).collect()
}

fn to_address(address: &NodeAddress) -> poolrpc::NodeAddress {
    poolrpc::NodeAddress { network: "tcp".to_owned(), addr: address.0.clone() }
}

/// `host:port`; an onion host without port gets the usual one. Names are not resolved. The network is always TCP
/// and therefore not looked at.
///
/// Source: protocol notes, rpc §3.2.
fn from_address(wire: poolrpc::NodeAddress) -> Result<NodeAddress, DecodeError> {
    let field = "NodeAddress.addr";
    read::at_most(field, wire.addr.len(), MAX_ADDRESS_BYTES)?;
    let bad = || DecodeError::Address { field, found: read::shown(&wire.addr) };
    if !wire.addr.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(bad());
    }
    let (host, port) = match wire.addr.rsplit_once(':') {
        Some((host, port)) => (host, port.parse::<u16>().map_err(|_| bad())?),
        None if wire.addr.len() > ".onion".len() && wire.addr.ends_with(".onion") => (wire.addr.as_str(), 9735),
        None => return Err(bad()),
    };
    let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let host_is_plain = match literal {
        Some(v6) => v6.contains(':') && !v6.contains(['[', ']']),
        None => !host.is_empty() && !host.contains([':', '[', ']']),
    };
    if port == 0 || !host_is_plain {
        return Err(bad());
    }
    let address = format!("{host}:{port}");
    // With the usual port added it must still be an address that others take from us.
    read::at_most(field, address.len(), MAX_ADDRESS_BYTES)?;
    Ok(NodeAddress(address))
}

pub(crate) fn to_tier(tier: NodeTier) -> poolrpc::NodeTier {
    match tier {
        NodeTier::Tier0 => poolrpc::NodeTier::Tier0,
        NodeTier::Tier1 => poolrpc::NodeTier::Tier1,
    }
}

/// A tier that somebody states; "default" states nothing.
pub(crate) fn from_tier(field: &'static str, found: i32) -> Result<NodeTier, DecodeError> {
    match read::number(field, found)? {
        poolrpc::NodeTier::Tier0 => Ok(NodeTier::Tier0),
        poolrpc::NodeTier::Tier1 => Ok(NodeTier::Tier1),
        poolrpc::NodeTier::TierDefault => Err(DecodeError::UnknownNumber { field, found: found.into() }),
    }
}

pub(crate) fn to_channel_type(channel_type: OrderChannelType) -> poolrpc::OrderChannelType {
    match channel_type {
        OrderChannelType::PeerDependent => poolrpc::OrderChannelType::PeerDependent,
        OrderChannelType::ScriptEnforced => poolrpc::OrderChannelType::ScriptEnforced,
        OrderChannelType::SimpleTaproot => poolrpc::OrderChannelType::SimpleTaproot,
    }
}

/// Not stated means peer dependent.
pub(crate) fn from_channel_type(field: &'static str, found: i32) -> Result<OrderChannelType, DecodeError> {
    match read::number(field, found)? {
        poolrpc::OrderChannelType::Unknown | poolrpc::OrderChannelType::PeerDependent => {
            Ok(OrderChannelType::PeerDependent)
        }
        poolrpc::OrderChannelType::ScriptEnforced => Ok(OrderChannelType::ScriptEnforced),
        poolrpc::OrderChannelType::SimpleTaproot => Ok(OrderChannelType::SimpleTaproot),
    }
}

pub(crate) fn version_number(version: OrderVersion) -> u32 {
    match version {
        OrderVersion::V0 => 0,
        OrderVersion::V1 => 1,
        OrderVersion::V2 => 2,
        OrderVersion::V3 => 3,
        OrderVersion::V4 => 4,
        OrderVersion::V5 => 5,
    }
}

fn version(field: &'static str, found: u32, purpose: Purpose) -> Result<OrderVersion, DecodeError> {
    match (OrderVersion::from_number(found), purpose) {
        (Some(version), _) => Ok(version),
        (None, Purpose::Match) => Ok(OrderVersion::V5),
        (None, Purpose::Submission) => Err(DecodeError::UnknownNumber { field, found: found.into() }),
    }
}

/// The smallest match. More units than a message can say are more than any match has.
fn min_units(found: u64, purpose: Purpose) -> Result<UnitCount, DecodeError> {
    match purpose {
        Purpose::Submission => read::whole_units("ServerOrder.min_chan_amt", found),
        Purpose::Match => Ok(UnitCount::new(u32::try_from(found / SATS_PER_UNIT).unwrap_or(u32::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_submitted_order_is_exact_and_a_matched_one_is_read_as_the_network_reads_it() {
        let units = |sat, purpose| min_units(sat, purpose).ok().map(UnitCount::get);
        for (sat, submitted, matched) in [
            (0, Some(0), 0),
            (99_999, None, 0),
            (300_000, Some(3), 3),
            (399_999, None, 3),
            (SATS_PER_UNIT * u64::from(u32::MAX), Some(u32::MAX), u32::MAX),
            (SATS_PER_UNIT << 32, None, u32::MAX),
            (u64::MAX, None, u32::MAX),
        ] {
            assert_eq!(units(sat, Purpose::Submission), submitted, "{sat}");
            assert_eq!(units(sat, Purpose::Match), Some(matched), "{sat}");
        }
        for number in 0..=5 {
            for purpose in [Purpose::Submission, Purpose::Match] {
                assert_eq!(version("f", number, purpose).map(version_number), Ok(number));
            }
        }
        for number in [6, u32::MAX] {
            assert_eq!(version("f", number, Purpose::Match), Ok(OrderVersion::V5));
            let refused = DecodeError::UnknownNumber { field: "f", found: number.into() };
            assert_eq!(version("f", number, Purpose::Submission), Err(refused));
        }
    }

    #[test]
    fn addresses_are_host_and_port() {
        let read = |addr: &str| {
            let addr = addr.to_owned();
            from_address(poolrpc::NodeAddress { network: "tcp".to_owned(), addr }).map(|address| address.0)
        };
        for good in ["203.0.113.9:9735", "[2001:db8::1]:1", "node.example:65535", "abc.onion:9735"] {
            assert_eq!(read(good), Ok(good.to_owned()));
        }
        assert_eq!(read("abc.onion"), Ok("abc.onion:9735".to_owned()));
        let onion = |length: usize| format!("{}.onion", "x".repeat(length - ".onion".len()));
        assert_eq!(read(&onion(250)), Ok(format!("{}:9735", onion(250))));
        assert!(read(&onion(251)).is_err(), "too long once it has a port");
        let long = format!("{}:9735", "x".repeat(256));
        for bad in [
            "",
            ":",
            "host",
            "host:",
            ":9735",
            "host:0",
            "host:65536",
            "host:x",
            "2001:db8::1:9735",
            "[::1]",
            "[]:1",
            "[[::1]]:1",
            ".onion",
            "a b:1",
            "a\n:1",
            "é:1",
            &long,
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
