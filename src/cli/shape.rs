//! The answers of commands as JSON: stable names, units in the names, amounts as numbers, keys and transactions in
//! hexadecimal. `docs/runbooks/cli.md` describes them.

use super::units::apr_micro;
use bitcoin::Txid;
use bitcoin::hashes::Hash as _;
use hex::DisplayHex as _;
use serde::Serialize;
use tidegate_protocol::units::RatePerBillion;
use tidegate_wire::poolrpc as rpc;

/// Sats of a unit, and blocks of a year.
const SATS_PER_UNIT: u64 = 100_000;
const BLOCKS_PER_YEAR: i128 = 52_560;
const NS_PER_MS: u64 = 1_000_000;

/// Bytes as hexadecimal digits.
pub(super) fn hex_of(bytes: &[u8]) -> String {
    bytes.to_lower_hex_string()
}

/// A transaction's name as usually shown; nothing when there is none.
pub(super) fn txid_of(bytes: &[u8]) -> Option<String> {
    let txid = Txid::from_slice(bytes).ok()?;
    (txid != Txid::all_zeros()).then(|| txid.to_string())
}

fn outpoint_of(outpoint: Option<&rpc::OutPoint>) -> Option<String> {
    let outpoint = outpoint?;
    Some(format!("{}:{}", txid_of(&outpoint.txid)?, outpoint.output_index))
}

/// An enum's name in lower case, without the prefix that its kind shares; a number that has no name is shown as such.
fn name_of(name: Option<&str>, prefix: &str, number: i32) -> String {
    name.map_or_else(|| format!("unknown_{number}"), |name| name.trim_start_matches(prefix).to_lowercase())
}

/// An account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Account {
    pub(super) account: String,
    pub(super) state: String,
    pub(super) value_sats: u64,
    /// Value less what open orders reserve.
    pub(super) available_sats: u64,
    pub(super) expiry_height: u32,
    /// Until the expiry; nothing when the height is not known.
    pub(super) blocks_left: Option<u32>,
    pub(super) version: String,
    pub(super) outpoint: Option<String>,
    pub(super) latest_txid: Option<String>,
}

impl Account {
    pub(super) fn of(account: &rpc::Account, height: u32) -> Account {
        let state = rpc::AccountState::try_from(account.state).ok();
        let version = match rpc::AccountVersion::try_from(account.version) {
            Ok(rpc::AccountVersion::Legacy) => "legacy",
            Ok(rpc::AccountVersion::Taproot) => "taproot",
            Ok(rpc::AccountVersion::TaprootV2) => "musig2",
            Ok(rpc::AccountVersion::LndDependent) | Err(_) => "unknown",
        };
        Account {
            account: hex_of(&account.trader_key),
            state: name_of(state.map(|state| state.as_str_name()), "", account.state),
            value_sats: account.value,
            available_sats: account.available_balance,
            expiry_height: account.expiration_height,
            blocks_left: (height > 0).then(|| account.expiration_height.saturating_sub(height)),
            version: version.to_owned(),
            outpoint: outpoint_of(account.outpoint.as_ref()),
            latest_txid: txid_of(&account.latest_txid),
        }
    }
}

/// An order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Order {
    pub(super) nonce: String,
    pub(super) side: &'static str,
    pub(super) state: String,
    pub(super) account: String,
    pub(super) amount_sats: u64,
    pub(super) filled_sats: u64,
    pub(super) min_match_sats: u64,
    pub(super) rate_ppb: u32,
    /// Simple percent per year of the rate alone, in millionths of a percent.
    pub(super) apr_micropercent: u64,
    pub(super) duration_blocks: u32,
    pub(super) max_fee_rate_sat_per_kw: u64,
    pub(super) reserved_sats: u64,
    pub(super) market: &'static str,
    pub(super) channel_type: String,
    pub(super) public: bool,
    pub(super) allowed_nodes: Vec<String>,
    pub(super) denied_nodes: Vec<String>,
    /// Bids: what of the channel is on the bidder's side at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) self_balance_sats: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) min_node_tier: Option<String>,
    pub(super) created_ms: u64,
    /// What happened, oldest first; only with --verbose.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) events: Vec<Event>,
}

/// Something that happened to an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Event {
    pub(super) time_ms: u64,
    pub(super) text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) matched_order: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) filled_sats: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reject_reason: Option<String>,
}

impl Order {
    pub(super) fn of_ask(ask: &rpc::Ask) -> Order {
        let details = ask.details.clone().unwrap_or_default();
        Order::of("ask", &details, ask.lease_duration_blocks)
    }

    pub(super) fn of_bid(bid: &rpc::Bid) -> Order {
        let details = bid.details.clone().unwrap_or_default();
        let tier = rpc::NodeTier::try_from(bid.min_node_tier).ok().map(|tier| tier.as_str_name());
        Order {
            self_balance_sats: Some(bid.self_chan_balance),
            min_node_tier: Some(name_of(tier, "", bid.min_node_tier)),
            ..Order::of("bid", &details, bid.lease_duration_blocks)
        }
    }

    fn of(side: &'static str, order: &rpc::Order, duration_blocks: u32) -> Order {
        let state = rpc::OrderState::try_from(order.state).ok();
        let kind = rpc::OrderChannelType::try_from(order.channel_type).ok();
        let outbound = i32::from(rpc::AuctionType::BtcOutboundLiquidity);
        let filled = order.units.saturating_sub(order.units_unfulfilled);
        let apr = apr_micro(RatePerBillion::new(order.rate_fixed));
        Order {
            nonce: hex_of(&order.order_nonce),
            side,
            state: name_of(state.map(|state| state.as_str_name()), "ORDER_", order.state),
            account: hex_of(&order.trader_key),
            amount_sats: order.amt,
            filled_sats: u64::from(filled) * SATS_PER_UNIT,
            min_match_sats: u64::from(order.min_units_match) * SATS_PER_UNIT,
            rate_ppb: order.rate_fixed,
            apr_micropercent: u64::try_from(apr).unwrap_or(u64::MAX),
            duration_blocks,
            max_fee_rate_sat_per_kw: order.max_batch_fee_rate_sat_per_kw,
            reserved_sats: order.reserved_value_sat,
            market: if order.auction_type == outbound { "outbound" } else { "inbound" },
            channel_type: name_of(kind.map(|kind| kind.as_str_name()), "ORDER_CHANNEL_TYPE_", order.channel_type),
            public: order.is_public,
            allowed_nodes: order.allowed_node_ids.iter().map(|node| hex_of(node)).collect(),
            denied_nodes: order.not_allowed_node_ids.iter().map(|node| hex_of(node)).collect(),
            self_balance_sats: None,
            min_node_tier: None,
            created_ms: order.creation_timestamp_ns / NS_PER_MS,
            events: order.events.iter().map(Event::of).collect(),
        }
    }
}

impl Event {
    fn of(event: &rpc::OrderEvent) -> Event {
        use rpc::order_event::Event as Kind;
        let matched = match &event.event {
            Some(Kind::Matched(matched)) => Some(matched),
            Some(Kind::StateChange(_)) | None => None,
        };
        let reason = matched.filter(|matched| matched.reject_reason != i32::from(rpc::MatchRejectReason::None));
        Event {
            time_ms: u64::try_from(event.timestamp_ns).unwrap_or(0) / NS_PER_MS,
            text: event.event_str.clone(),
            matched_order: matched.map(|matched| hex_of(&matched.matched_order)),
            filled_sats: matched.map(|matched| u64::from(matched.units_filled) * SATS_PER_UNIT),
            reject_reason: reason.map(|matched| {
                let known = rpc::MatchRejectReason::try_from(matched.reject_reason).ok();
                name_of(known.map(|reason| reason.as_str_name()), "", matched.reject_reason)
            }),
        }
    }
}

/// A lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Lease {
    pub(super) channel: Option<String>,
    /// `sold` or `bought`.
    pub(super) side: &'static str,
    pub(super) amount_sats: u64,
    pub(super) duration_blocks: u32,
    /// Height at which it ends; nothing while that is not known.
    pub(super) maturity_height: Option<u32>,
    pub(super) node: String,
    pub(super) node_tier: String,
    pub(super) clearing_rate_ppb: u64,
    pub(super) order_rate_ppb: u64,
    pub(super) premium_sats: u64,
    pub(super) execution_fee_sats: u64,
    pub(super) chain_fee_sats: u64,
    pub(super) self_balance_sats: u64,
    /// Premium alone, annualised over the lease's own blocks, in millionths of a percent.
    pub(super) apr_gross_micropercent: i64,
    /// Sold: premium less fees. Bought: premium and fees, the cost.
    pub(super) apr_net_micropercent: i64,
    pub(super) nonce: String,
    pub(super) matched_nonce: String,
}

impl Lease {
    pub(super) fn of(lease: &rpc::Lease) -> Lease {
        let tier = rpc::NodeTier::try_from(lease.channel_node_tier).ok().map(|tier| tier.as_str_name());
        let premium = i128::from(lease.premium_sat);
        let fees = i128::from(lease.execution_fee_sat) + i128::from(lease.chain_fee_sat);
        let net = if lease.purchased { premium + fees } else { premium - fees };
        let apr = |gain: i128| annual_micro(gain, lease.channel_amt_sat, lease.channel_duration_blocks);
        Lease {
            channel: outpoint_of(lease.channel_point.as_ref()),
            side: if lease.purchased { "bought" } else { "sold" },
            amount_sats: lease.channel_amt_sat,
            duration_blocks: lease.channel_duration_blocks,
            maturity_height: Some(lease.channel_lease_expiry).filter(|height| *height > 0),
            node: hex_of(&lease.channel_remote_node_key),
            node_tier: name_of(tier, "", lease.channel_node_tier),
            clearing_rate_ppb: lease.clearing_rate_price,
            order_rate_ppb: lease.order_fixed_rate,
            premium_sats: lease.premium_sat,
            execution_fee_sats: lease.execution_fee_sat,
            chain_fee_sats: lease.chain_fee_sat,
            self_balance_sats: lease.self_chan_balance,
            apr_gross_micropercent: apr(premium),
            apr_net_micropercent: apr(net),
            nonce: hex_of(&lease.order_nonce),
            matched_nonce: hex_of(&lease.matched_order_nonce),
        }
    }
}

/// A gain on a principal over some blocks, in millionths of a percent per year; 0 of nothing.
pub(super) fn annual_micro(gain_sats: i128, principal_sats: u64, blocks: u32) -> i64 {
    let divisor = i128::from(principal_sats) * i128::from(blocks);
    let scaled = gain_sats.checked_mul(100_000_000).and_then(|scaled| scaled.checked_mul(BLOCKS_PER_YEAR));
    let micro = scaled.and_then(|scaled| scaled.checked_div(divisor)).unwrap_or(0);
    i64::try_from(micro).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_year_has_52560_blocks() {
        // 10M for 2,016 blocks at 1,488 ppb: the bare rate reads 7.82 % (white paper notes H 37).
        assert_eq!(annual_micro(29_998, 10_000_000, 2_016), 7_820_907);
        assert_eq!(annual_micro(-29_998, 10_000_000, 2_016), -7_820_907);
        assert_eq!(annual_micro(5, 0, 2_016), 0);
    }

    #[test]
    fn names_are_short_and_numbers_without_a_name_are_told() {
        let order = rpc::Order { state: 2, units: 5, units_unfulfilled: 2, channel_type: 3, ..Default::default() };
        let shown = Order::of("ask", &order, 2_016);
        assert_eq!((shown.state.as_str(), shown.filled_sats), ("partially_filled", 300_000));
        assert_eq!(shown.channel_type, "simple_taproot");
        let shown = Order::of("ask", &rpc::Order { state: 77, ..order }, 2_016);
        assert_eq!(shown.state, "unknown_77");
        let account = rpc::Account { state: -5, version: 9, expiration_height: 5, ..Default::default() };
        let shown = Account::of(&account, 10);
        assert_eq!(
            (shown.state.as_str(), shown.version.as_str(), shown.blocks_left),
            ("unknown_-5", "unknown", Some(0))
        );
        assert_eq!((shown.outpoint, shown.latest_txid), (None, None));
    }
}
