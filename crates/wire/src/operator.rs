//! The operator's interface (`Trader`): accounts and orders, as deployed clients send and show them.

use crate::error::DecodeError;
use crate::order::{
    from_announcement, from_auction, from_channel_type, from_confirmation, from_min_tier, node_list, to_announcement,
    to_auction, to_channel_type, to_confirmation, to_order_state, to_tier, version_number,
};
use crate::poolrpc::{self, submit_order_request};
use crate::read::{self, MAX_LIST};
use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, Txid};
use tidegate_protocol::account::{Account, AccountState, AccountVersion};
use tidegate_protocol::keys::{AccountKey, BatchId, NodeId, OrderNonce};
use tidegate_protocol::order::{AskTerms, BidTerms, Order, OrderSide, OrderVersion, OwnOrder};
use tidegate_protocol::units::{BlockCount, RatePerBillion, SatPerKw, Sats, UnitCount};

/// An account; `available` is its value less what open orders reserve. A transaction that is not known is all zero.
///
/// # Source
/// Protocol notes, rpc §6.1 and §13.2.
pub fn to_account(account: &Account, available: Sats) -> poolrpc::Account {
    let nowhere = OutPoint { txid: Txid::all_zeros(), vout: 0 };
    let latest = account.latest_tx.as_ref().map_or_else(Txid::all_zeros, bitcoin::Transaction::compute_txid);
    poolrpc::Account {
        trader_key: account.key().serialize().to_vec(),
        outpoint: Some(read::to_outpoint(&account.outpoint.unwrap_or(nowhere))),
        value: account.value.get(),
        available_balance: available.get(),
        expiration_height: account.terms.expiry.get(),
        state: to_account_state(account.state).into(),
        latest_txid: latest.to_byte_array().to_vec(),
        version: to_version(account.terms.version).into(),
    }
}

/// The state of an account, as operators see it: several of ours are one of theirs.
///
/// # Source
/// Protocol notes, rpc §6.1.
pub fn to_account_state(state: AccountState) -> poolrpc::AccountState {
    use poolrpc::AccountState as Wire;
    match state {
        AccountState::Initiated | AccountState::PendingOpen => Wire::PendingOpen,
        AccountState::PendingUpdate | AccountState::ExpiredPendingUpdate => Wire::PendingUpdate,
        AccountState::Open => Wire::Open,
        AccountState::Expired => Wire::Expired,
        AccountState::PendingClosed => Wire::PendingClosed,
        AccountState::Closed => Wire::Closed,
        AccountState::CanceledAfterRecovery => Wire::RecoveryFailed,
        AccountState::PendingBatch => Wire::PendingBatch,
    }
}

fn to_version(version: AccountVersion) -> poolrpc::AccountVersion {
    match version {
        AccountVersion::V0 => poolrpc::AccountVersion::Legacy,
        AccountVersion::V1 => poolrpc::AccountVersion::Taproot,
        AccountVersion::V2 => poolrpc::AccountVersion::TaprootV2,
    }
}

/// A script version that an operator names; nothing leaves the choice to us.
///
/// # Errors
/// [`DecodeError::UnknownNumber`].
pub fn from_version(field: &'static str, found: i32) -> Result<Option<AccountVersion>, DecodeError> {
    Ok(match read::number(field, found)? {
        poolrpc::AccountVersion::LndDependent => None,
        poolrpc::AccountVersion::Legacy => Some(AccountVersion::V0),
        poolrpc::AccountVersion::Taproot => Some(AccountVersion::V1),
        poolrpc::AccountVersion::TaprootV2 => Some(AccountVersion::V2),
    })
}

/// The name of an account.
///
/// # Errors
/// [`DecodeError`] when it is no compressed point.
pub fn from_account_key(field: &'static str, bytes: &[u8]) -> Result<AccountKey, DecodeError> {
    read::key(field, bytes, AccountKey::from_slice)
}

/// The name of an order.
///
/// # Errors
/// [`DecodeError::Length`].
pub fn from_nonce(field: &'static str, bytes: &[u8]) -> Result<OrderNonce, DecodeError> {
    read::fixed(field, bytes).map(OrderNonce::new)
}

/// An amount of satoshi.
///
/// # Errors
/// [`DecodeError::OutOfRange`] when there are not so many.
pub fn from_sats(field: &'static str, found: u64) -> Result<Sats, DecodeError> {
    read::sats(field, found)
}

/// Units of 100,000 sat, at least one.
///
/// # Errors
/// [`DecodeError::OutOfRange`].
pub fn from_units(field: &'static str, found: u32) -> Result<UnitCount, DecodeError> {
    read::matched_units(field, found)
}

/// The filter of a list of leases: batches and accounts, each empty for all.
///
/// # Errors
/// [`DecodeError`] when one is no compressed point, or there are more than 1,000.
pub fn from_leases_request(request: &poolrpc::LeasesRequest) -> Result<(Vec<BatchId>, Vec<AccountKey>), DecodeError> {
    let (batches, accounts) = ("LeasesRequest.batch_ids", "LeasesRequest.accounts");
    read::at_most(batches, request.batch_ids.len(), MAX_LIST)?;
    read::at_most(accounts, request.accounts.len(), MAX_LIST)?;
    let ids = request.batch_ids.iter().map(|id| read::key(batches, id, BatchId::from_slice));
    let keys = request.accounts.iter().map(|key| from_account_key(accounts, key));
    Ok((ids.collect::<Result<_, _>>()?, keys.collect::<Result<_, _>>()?))
}

/// The nodes whose ratings are wanted, at least one.
///
/// # Errors
/// [`DecodeError`] when one is no compressed point, or there are none or more than 1,000.
pub fn from_rating_request(request: &poolrpc::NodeRatingRequest) -> Result<Vec<NodeId>, DecodeError> {
    let field = "NodeRatingRequest.node_pubkeys";
    if request.node_pubkeys.is_empty() {
        return Err(DecodeError::Missing { field });
    }
    node_list(field, &request.node_pubkeys)
}

/// The order that an operator wants placed. Its nonce is all zero: the trader draws it.
///
/// # Errors
/// [`DecodeError`] for a field that has no meaning, or that this program does not serve. Whether the order is allowed is
/// not judged here.
///
/// # Source
/// Protocol notes, rpc §13.3.
pub fn from_submit(request: poolrpc::SubmitOrderRequest) -> Result<Order, DecodeError> {
    use submit_order_request::Details;
    match read::required("SubmitOrderRequest.ask or SubmitOrderRequest.bid", request.details)? {
        Details::Ask(ask) => from_ask(ask),
        Details::Bid(bid) => from_bid(bid),
    }
}

fn from_ask(ask: poolrpc::Ask) -> Result<Order, DecodeError> {
    let terms = AskTerms {
        announcement: from_announcement("Ask.announcement_constraints", ask.announcement_constraints)?,
        confirmation: from_confirmation("Ask.confirmation_constraints", ask.confirmation_constraints)?,
    };
    let details = read::required("Ask.details", ask.details)?;
    only_latest("Ask.version", ask.version)?;
    from_details(&details, BlockCount::new(ask.lease_duration_blocks), OrderSide::Ask(terms))
}

fn from_bid(bid: poolrpc::Bid) -> Result<Order, DecodeError> {
    if !bid.sidecar_ticket.is_empty() {
        return Err(DecodeError::Unsupported { what: "a sidecar ticket (Bid.sidecar_ticket)" });
    }
    let terms = BidTerms {
        min_node_tier: from_min_tier("Bid.min_node_tier", bid.min_node_tier)?,
        self_balance: read::sats("Bid.self_chan_balance", bid.self_chan_balance)?,
        sidecar: false,
        unannounced: bid.unannounced_channel,
        zero_conf: bid.zero_conf_channel,
    };
    let details = read::required("Bid.details", bid.details)?;
    only_latest("Bid.version", bid.version)?;
    from_details(&details, BlockCount::new(bid.lease_duration_blocks), OrderSide::Bid(terms))
}

/// All orders are made in the latest version: an older one would leave terms out of its signature.
fn only_latest(field: &'static str, found: u32) -> Result<(), DecodeError> {
    let latest = OrderVersion::V5.number();
    if found == latest {
        return Ok(());
    }
    let only = u64::from(latest);
    Err(DecodeError::OutOfRange { field, lowest: only, highest: only, found: found.into() })
}

fn from_details(details: &poolrpc::Order, duration: BlockCount, side: OrderSide) -> Result<Order, DecodeError> {
    if !details.order_nonce.is_empty() {
        return Err(DecodeError::Unsupported { what: "an order nonce of your own (Order.order_nonce)" });
    }
    Ok(Order {
        nonce: OrderNonce::new([0; 32]),
        version: OrderVersion::V5,
        account: from_account_key("Order.trader_key", &details.trader_key)?,
        auction: from_auction("Order.auction_type", details.auction_type)?,
        rate: RatePerBillion::new(details.rate_fixed),
        amount: read::whole_units("Order.amt", details.amt)?.to_sats(),
        min_units: from_units("Order.min_units_match", details.min_units_match)?,
        duration,
        max_batch_fee_rate: SatPerKw::new(details.max_batch_fee_rate_sat_per_kw),
        channel_type: from_channel_type("Order.channel_type", details.channel_type)?,
        allowed_nodes: node_list("Order.allowed_node_ids", &details.allowed_node_ids)?,
        denied_nodes: node_list("Order.not_allowed_node_ids", &details.not_allowed_node_ids)?,
        public: details.is_public,
        side,
    })
}

/// What is known of an order besides its terms.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OrderFacts {
    /// What it reserves of its account now.
    pub reserved: Sats,
    /// When it was made, Unix nanoseconds; 0 when that is not known.
    pub created_ns: u64,
    /// What happened to it.
    pub events: Vec<poolrpc::OrderEvent>,
}

/// An order as one of the two kinds.
#[derive(Clone, Debug, PartialEq)]
pub enum ShownOrder {
    /// An ask.
    Ask(poolrpc::Ask),
    /// A bid.
    Bid(poolrpc::Bid),
}

/// An order of ours.
///
/// # Source
/// Protocol notes, rpc §13.4.
pub fn to_order(own: &OwnOrder, facts: OrderFacts) -> ShownOrder {
    let order = &own.order;
    let details = Some(to_details(own, facts));
    let (lease_duration_blocks, version) = (order.duration.get(), version_number(order.version));
    match &order.side {
        OrderSide::Ask(terms) => ShownOrder::Ask(poolrpc::Ask {
            details,
            lease_duration_blocks,
            version,
            announcement_constraints: to_announcement(terms.announcement).into(),
            confirmation_constraints: to_confirmation(terms.confirmation).into(),
        }),
        OrderSide::Bid(terms) => ShownOrder::Bid(poolrpc::Bid {
            details,
            lease_duration_blocks,
            version,
            min_node_tier: to_tier(terms.min_node_tier).into(),
            self_chan_balance: terms.self_balance.get(),
            sidecar_ticket: String::new(),
            unannounced_channel: terms.unannounced,
            zero_conf_channel: terms.zero_conf,
        }),
    }
}

fn to_details(own: &OwnOrder, facts: OrderFacts) -> poolrpc::Order {
    let order = &own.order;
    let keys = |nodes: &[NodeId]| nodes.iter().map(|node| node.serialize().to_vec()).collect();
    poolrpc::Order {
        trader_key: order.account.serialize().to_vec(),
        rate_fixed: order.rate.get(),
        amt: order.amount.get(),
        max_batch_fee_rate_sat_per_kw: order.max_batch_fee_rate.get(),
        order_nonce: order.nonce.as_bytes().to_vec(),
        state: to_order_state(own.state).into(),
        units: UnitCount::floor_from(order.amount).map_or(u32::MAX, UnitCount::get),
        units_unfulfilled: own.units_unfulfilled.get(),
        reserved_value_sat: facts.reserved.get(),
        creation_timestamp_ns: facts.created_ns,
        events: facts.events,
        min_units_match: order.min_units.get(),
        channel_type: to_channel_type(order.channel_type).into(),
        allowed_node_ids: keys(&order.allowed_nodes),
        not_allowed_node_ids: keys(&order.denied_nodes),
        auction_type: to_auction(order.auction).into(),
        is_public: order.public,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_protocol::fees::ExecutionFee;
    use tidegate_protocol::keys::{FAMILY_MULTISIG, KeyDescriptor, KeyLocator};
    use tidegate_protocol::order::OrderState;

    const GENERATOR: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";

    fn key() -> Vec<u8> {
        GENERATOR.parse::<AccountKey>().unwrap().serialize().to_vec()
    }

    fn details() -> poolrpc::Order {
        poolrpc::Order {
            trader_key: key(),
            rate_fixed: 1_488,
            amt: 900_000,
            max_batch_fee_rate_sat_per_kw: 25_000,
            min_units_match: 3,
            channel_type: 2,
            allowed_node_ids: vec![key()],
            auction_type: 0,
            is_public: true,
            ..Default::default()
        }
    }

    fn bid() -> poolrpc::Bid {
        poolrpc::Bid {
            details: Some(details()),
            lease_duration_blocks: 4_032,
            version: 5,
            min_node_tier: 1,
            self_chan_balance: 300_000,
            unannounced_channel: true,
            zero_conf_channel: true,
            ..Default::default()
        }
    }

    fn read(bid: poolrpc::Bid) -> Result<Order, DecodeError> {
        from_submit(poolrpc::SubmitOrderRequest {
            initiator: String::new(),
            details: Some(submit_order_request::Details::Bid(bid)),
        })
    }

    #[test]
    fn an_order_is_shown_as_it_was_sent() {
        let order = read(bid()).unwrap();
        let locator = KeyLocator { family: FAMILY_MULTISIG, index: 0 };
        let own = OwnOrder {
            order,
            preimage: None,
            state: OrderState::PartiallyFilled,
            units_unfulfilled: UnitCount::new(4),
            multisig: KeyDescriptor { point: *GENERATOR.parse::<AccountKey>().unwrap().point(), locator },
            fee_ceiling: ExecutionFee::default(),
            extension_quoted: BlockCount::new(0),
        };
        let facts = OrderFacts { reserved: Sats::constant(7), created_ns: 8, events: Vec::new() };
        let ShownOrder::Bid(shown) = to_order(&own, facts) else { panic!("it is a bid") };
        let known = poolrpc::Order {
            order_nonce: vec![0; 32],
            state: i32::from(poolrpc::OrderState::OrderPartiallyFilled),
            units: 9,
            units_unfulfilled: 4,
            reserved_value_sat: 7,
            creation_timestamp_ns: 8,
            ..details()
        };
        assert_eq!(shown, poolrpc::Bid { details: Some(known), ..bid() });
    }

    #[test]
    fn an_unset_tier_is_tier_1_and_an_unset_channel_type_is_left_to_the_peers() {
        let order = read(poolrpc::Bid {
            min_node_tier: 0,
            details: Some(poolrpc::Order { channel_type: 0, ..details() }),
            ..bid()
        })
        .unwrap();
        assert_eq!(order.bid().unwrap().min_node_tier, tidegate_protocol::order::NodeTier::Tier1);
        assert_eq!(order.channel_type, tidegate_protocol::order::OrderChannelType::PeerDependent);
    }

    #[test]
    fn account_versions_are_one_more_than_the_venues() {
        let read = |number| from_version("f", number).unwrap();
        assert_eq!(
            [0, 1, 2, 3].map(read),
            [None, Some(AccountVersion::V0), Some(AccountVersion::V1), Some(AccountVersion::V2)]
        );
        assert_eq!(from_version("f", 4), Err(DecodeError::UnknownNumber { field: "f", found: 4 }));
        for version in [AccountVersion::V0, AccountVersion::V1, AccountVersion::V2] {
            assert_eq!(read(to_version(version).into()), Some(version));
        }
    }

    #[test]
    fn account_states_are_those_of_the_notes() {
        use AccountState as S;
        let numbers = [
            (S::Initiated, 0),
            (S::PendingOpen, 0),
            (S::PendingUpdate, 1),
            (S::Open, 2),
            (S::Expired, 3),
            (S::PendingClosed, 4),
            (S::Closed, 5),
            (S::CanceledAfterRecovery, 6),
            (S::PendingBatch, 7),
            (S::ExpiredPendingUpdate, 1),
        ];
        for (state, number) in numbers {
            assert_eq!(i32::from(to_account_state(state)), number, "{state:?}");
        }
    }
}
