//! The messages, decoded by this package's own generated code.

use prost::Message;

use crate::state::{Key, Nonce, Order};

/// The auctioneer's interface.
#[allow(deprecated, dead_code, missing_docs, unreachable_pub, clippy::all, clippy::as_conversions, clippy::unwrap_used)]
pub(crate) mod rpc {
    tonic::include_proto!("poolrpc");
}

/// Decodes, or tells why not.
pub(crate) fn decode<T: Message + Default>(bytes: &[u8]) -> Result<T, String> {
    T::decode(bytes).map_err(|error| error.to_string())
}

/// A 33-byte field.
pub(crate) fn key(bytes: &[u8]) -> Option<Key> {
    bytes.try_into().ok()
}

/// A 32-byte field.
pub(crate) fn hash(bytes: &[u8]) -> Option<Nonce> {
    bytes.try_into().ok()
}

/// Hexadecimal of some bytes, for messages.
pub(crate) fn hexed(bytes: &[u8]) -> String {
    use hex::DisplayHex as _;
    bytes.to_lower_hex_string()
}

/// Bytes of lower or upper case hexadecimal.
pub(crate) fn unhexed(text: &str) -> Option<Vec<u8>> {
    hex::FromHex::from_hex(text).ok()
}

fn units(sat: u64) -> Option<u32> {
    u32::try_from(sat / crate::money::UNIT_SAT).ok()
}

/// The number in digests of a channel type's number on the wire.
fn channel_type(number: i32) -> Option<u8> {
    match number {
        0 | 1 => Some(0),
        2 => Some(1),
        3 => Some(2),
        _ => None,
    }
}

fn common(details: &rpc::ServerOrder) -> Option<Order> {
    Some(Order {
        nonce: hash(&details.order_nonce)?,
        account_key: key(&details.trader_key)?,
        is_ask: false,
        version: 0,
        outbound: details.auction_type == 1,
        rate_ppb: details.rate_fixed,
        amount_sat: details.amt,
        units_open: units(details.amt)?,
        min_units: units(details.min_chan_amt)?,
        blocks: 0,
        max_fee_rate_sat_per_kw: details.max_batch_fee_rate_sat_per_kw,
        channel_type: channel_type(details.channel_type)?,
        announcement: 0,
        confirmation: 0,
        node_tier: 0,
        self_balance_sat: 0,
        sidecar: false,
        unannounced: false,
        zero_conf: false,
        multisig_key: key(&details.multi_sig_key)?,
        node_key: key(&details.node_pub)?,
        allowed: details.allowed_node_ids.clone(),
        denied: details.not_allowed_node_ids.clone(),
    })
}

/// An ask; nothing when a field is malformed.
pub(crate) fn ask(message: &rpc::ServerAsk) -> Option<Order> {
    Some(Order {
        is_ask: true,
        version: message.version,
        blocks: message.lease_duration_blocks,
        announcement: message.announcement_constraints,
        confirmation: message.confirmation_constraints,
        ..common(message.details.as_ref()?)?
    })
}

/// A bid; nothing when a field is malformed.
pub(crate) fn bid(message: &rpc::ServerBid) -> Option<Order> {
    Some(Order {
        version: message.version,
        blocks: message.lease_duration_blocks,
        node_tier: u32::try_from(message.min_node_tier).ok()?,
        self_balance_sat: message.self_chan_balance,
        sidecar: message.is_sidecar_channel,
        unannounced: message.unannounced_channel,
        zero_conf: message.zero_conf_channel,
        ..common(message.details.as_ref()?)?
    })
}

/// The message that an order's account signs: SHA-256 of the fields that its version covers.
///
/// # Source
/// Protocol notes, batch §1.
pub(crate) fn order_digest(order: &Order) -> Option<[u8; 32]> {
    if order.version > 5 {
        return None;
    }
    let mut bytes = Vec::with_capacity(96);
    bytes.extend(order.nonce);
    bytes.extend(order.version.to_be_bytes());
    bytes.extend(order.rate_ppb.to_be_bytes());
    bytes.extend(order.amount_sat.to_be_bytes());
    bytes.extend(order.blocks.to_be_bytes());
    bytes.extend(order.max_fee_rate_sat_per_kw.to_be_bytes());
    if order.version >= 1 {
        if !order.is_ask {
            bytes.extend(order.node_tier.to_be_bytes());
        }
        bytes.extend(order.min_units.to_be_bytes());
    }
    if order.version >= 3 && !order.is_ask {
        bytes.extend(order.self_balance_sat.to_be_bytes());
    }
    if order.version >= 4 && !order.is_ask {
        bytes.push(u8::from(order.sidecar));
    }
    if order.version >= 5 {
        bytes.push(order.channel_type);
    }
    Some(crate::keys::sha(&[&bytes]))
}
