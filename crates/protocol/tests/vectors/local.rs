//! What a client knows before the messages of an entry, as the files write it. The trader's tests read it too.

use crate::support::{Entry, hex, unhex};
use serde_json::Value;
use std::collections::BTreeMap;
use tidegate_protocol::account::{self, Account, AccountState, AccountTerms, AccountVersion};
use tidegate_protocol::batch::BatchVersion;
use tidegate_protocol::bitcoin::hashes::{Hash, sha256};
use tidegate_protocol::bitcoin::secp256k1;
use tidegate_protocol::bitcoin::{OutPoint, Txid};
use tidegate_protocol::fees::ExecutionFee;
use tidegate_protocol::keys::{AccountKey, KeyDescriptor, KeyLocator, NodeId, OrderNonce, SharedSecret};
use tidegate_protocol::order::{
    AnnouncementConstraint, AskTerms, AuctionType, BidTerms, ConfirmationConstraint, NodeTier, Order, OrderChannelType,
    OrderSide, OrderState, OrderVersion, OwnOrder,
};
use tidegate_protocol::ticket::Ticket;
use tidegate_protocol::units::{BlockCount, BlockHeight, RatePerBillion, SatPerKw, Sats, UnitCount};
use tidegate_protocol::verify::NodeRating;

/// What the client knows.
#[derive(Clone)]
pub(crate) struct Local {
    pub(crate) node: NodeId,
    pub(crate) best_height: BlockHeight,
    pub(crate) batch_version: BatchVersion,
    pub(crate) accounts: BTreeMap<AccountKey, Account>,
    pub(crate) orders: BTreeMap<OrderNonce, OwnOrder>,
    pub(crate) extension: BlockCount,
    pub(crate) ratings: BTreeMap<NodeId, NodeRating>,
}

impl Local {
    pub(crate) fn read(entry: &Value) -> Local {
        let fee = execution_fee(entry);
        // A file without terms does not limit the extension.
        let extension = known(entry, "terms")
            .map_or(account::MAX_EXPIRY_AHEAD, |terms| BlockCount::new(terms.u32("auto_renew_extension_blocks")));
        let (accounts, orders) = (entry.at("accounts"), entry.at("orders"));
        assert!(accounts.is_array() || accounts.is_null(), "accounts");
        assert!(orders.is_array() || orders.is_null(), "orders");
        let accounts = entry.list("accounts").iter().map(account).map(|account| (account.key(), account)).collect();
        let orders = entry.list("orders").iter().map(|order| own_order(order, fee, extension));
        Local {
            node: entry.parse("our_node_key"),
            best_height: BlockHeight::new(entry.u32("best_height")),
            batch_version: BatchVersion(entry.u32("client_batch_version")),
            accounts,
            orders: orders.map(|own| (own.order.nonce, own)).collect(),
            extension,
            ratings: ratings(entry),
        }
    }
}

/// The fee that the terms say; files without terms were made with 1 sat and 1,000 ppm.
pub(crate) fn execution_fee(entry: &Value) -> ExecutionFee {
    known(entry, "terms").map_or(ExecutionFee { base: Sats::constant(1), rate_ppm: 1000 }, |terms| ExecutionFee {
        base: terms.sats("execution_fee_base"),
        rate_ppm: terms.u64("execution_fee_rate"),
    })
}

/// A field that is there and not null.
pub(crate) fn known<'a>(entry: &'a Value, key: &str) -> Option<&'a Value> {
    entry.get(key).filter(|value| !value.is_null())
}

pub(crate) fn version(number: u64) -> AccountVersion {
    match number {
        0 => AccountVersion::V0,
        1 => AccountVersion::V1,
        2 => AccountVersion::V2,
        other => panic!("account version {other}"),
    }
}

pub(crate) fn terms(entry: &Value, version_key: &str) -> AccountTerms {
    AccountTerms {
        version: version(entry.u64(version_key)),
        trader: entry.parse("trader_key"),
        auctioneer: entry.parse("auctioneer_key"),
        batch: entry.parse("batch_key"),
        secret: SharedSecret::new(entry.b32("shared_secret")),
        expiry: BlockHeight::new(entry.u32("expiry")),
    }
}

pub(crate) fn state(name: &str) -> OrderState {
    match name {
        "submitted" => OrderState::Submitted,
        "cleared" => OrderState::Cleared,
        "partially_filled" => OrderState::PartiallyFilled,
        "executed" => OrderState::Executed,
        "canceled" => OrderState::Canceled,
        "expired" => OrderState::Expired,
        "failed" => OrderState::Failed,
        other => panic!("state {other}"),
    }
}

/// The state of an order by name, else by number; a file that says neither means a fresh one.
pub(crate) fn order_state(entry: &Value) -> OrderState {
    let by_number = || known(entry, "state_number").map(|_| order_state_number(entry.u64("state_number")));
    let by_name = known(entry, "state").and_then(Value::as_str).map(state);
    by_name.or_else(by_number).unwrap_or(OrderState::Submitted)
}

fn order_state_number(number: u64) -> OrderState {
    match number {
        0 => OrderState::Submitted,
        1 => OrderState::Cleared,
        2 => OrderState::PartiallyFilled,
        3 => OrderState::Executed,
        4 => OrderState::Canceled,
        5 => OrderState::Expired,
        6 => OrderState::Failed,
        other => panic!("order state {other}"),
    }
}

pub(crate) fn channel_type(number: u64) -> OrderChannelType {
    match number {
        0 => OrderChannelType::PeerDependent,
        1 => OrderChannelType::ScriptEnforced,
        2 => OrderChannelType::SimpleTaproot,
        other => panic!("channel type {other}"),
    }
}

pub(crate) fn tier(number: u64) -> NodeTier {
    match number {
        1 => NodeTier::Tier0,
        0 | 2 => NodeTier::Tier1,
        other => panic!("tier {other}"),
    }
}

pub(crate) fn announcement(number: u64) -> AnnouncementConstraint {
    match number {
        0 => AnnouncementConstraint::None,
        1 => AnnouncementConstraint::OnlyAnnounced,
        2 => AnnouncementConstraint::OnlyUnannounced,
        other => panic!("constraint {other}"),
    }
}

pub(crate) fn confirmation(number: u64) -> ConfirmationConstraint {
    match number {
        0 => ConfirmationConstraint::None,
        1 => ConfirmationConstraint::OnlyConfirmed,
        2 => ConfirmationConstraint::OnlyZeroConf,
        other => panic!("constraint {other}"),
    }
}

pub(crate) fn nodes(entry: &Value, key: &str) -> Vec<NodeId> {
    entry.list(key).iter().map(|node| node.as_str().unwrap().parse().unwrap()).collect()
}

fn account_state(number: u64) -> AccountState {
    match number {
        0 => AccountState::Initiated,
        1 => AccountState::PendingOpen,
        2 => AccountState::PendingUpdate,
        3 => AccountState::Open,
        4 => AccountState::Expired,
        5 => AccountState::PendingClosed,
        6 => AccountState::Closed,
        7 => AccountState::CanceledAfterRecovery,
        8 => AccountState::PendingBatch,
        9 => AccountState::ExpiredPendingUpdate,
        other => panic!("account state {other}"),
    }
}

pub(crate) fn account(entry: &Value) -> Account {
    let txid = Txid::from_byte_array(entry.b32("outpoint_txid_bytes"));
    let account = Account {
        terms: terms(entry, "version"),
        locator: KeyLocator { family: entry.u32("trader_key_family"), index: entry.u32("trader_key_index") },
        value: entry.sats("value"),
        state: account_state(entry.u64("state_number")),
        height_hint: BlockHeight::new(entry.u32("height_hint")),
        outpoint: Some(OutPoint { txid, vout: entry.u32("outpoint_index") }),
        latest_tx: None,
    };
    if let Some(script) = known(entry, "pk_script") {
        assert_eq!(account.terms.output_script().unwrap().to_hex_string(), script.as_str().unwrap());
    }
    account
}

fn has_ticket(order: &Value) -> bool {
    known(order, "sidecar_ticket").and_then(Value::as_str).is_some_and(|ticket| !ticket.is_empty())
}

/// The recipient's multisig key in the ticket.
fn recipient_key(ticket: &str) -> secp256k1::PublicKey {
    *ticket.parse::<Ticket>().unwrap().recipient_keys().unwrap().1.point()
}

/// A yes or no that is left out means no.
fn flag_or_no(entry: &Value, key: &str) -> bool {
    known(entry, key).is_some_and(|_| entry.flag(key))
}

/// A number that is left out means the default.
fn number_or(entry: &Value, key: &str, default: u64) -> u64 {
    known(entry, key).map_or(default, |_| entry.u64(key))
}

fn own_order(entry: &Value, fee_ceiling: ExecutionFee, extension_quoted: BlockCount) -> OwnOrder {
    let side = match entry.text("type") {
        "ask" => OrderSide::Ask(AskTerms {
            announcement: announcement(number_or(entry, "announcement_constraints", 0)),
            confirmation: confirmation(number_or(entry, "confirmation_constraints", 0)),
        }),
        "bid" => OrderSide::Bid(BidTerms {
            min_node_tier: tier(number_or(entry, "min_node_tier", 0)),
            self_balance: Sats::new(number_or(entry, "self_chan_balance", 0)).unwrap(),
            sidecar: has_ticket(entry),
            unannounced: flag_or_no(entry, "unannounced_channel"),
            zero_conf: flag_or_no(entry, "zero_conf_channel"),
        }),
        other => panic!("type {other}"),
    };
    let order = Order {
        nonce: entry.parse("nonce"),
        version: OrderVersion::from_number(entry.u32("version")).unwrap(),
        account: entry.parse("account_key"),
        auction: match number_or(entry, "auction_type", 0) {
            0 => AuctionType::Inbound,
            1 => AuctionType::Outbound,
            other => panic!("auction type {other}"),
        },
        rate: RatePerBillion::new(entry.u32("rate")),
        amount: entry.sats("amount"),
        min_units: UnitCount::new(entry.u32("min_units_match")),
        duration: BlockCount::new(entry.u32("duration")),
        max_batch_fee_rate: SatPerKw::new(entry.u64("max_batch_fee_rate")),
        channel_type: channel_type(number_or(entry, "channel_type", 0)),
        allowed_nodes: nodes(entry, "allowed_node_ids"),
        denied_nodes: nodes(entry, "not_allowed_node_ids"),
        public: false,
        side,
    };
    let locator = KeyLocator { family: entry.u32("multisig_key_family"), index: entry.u32("multisig_key_index") };
    // The channel of a sidecar bid goes to the key in the ticket.
    let point =
        if has_ticket(entry) { recipient_key(entry.text("sidecar_ticket")) } else { entry.point("multisig_pubkey") };
    // An order may be known without the secret that cancels it.
    let preimage = known(entry, "preimage").and_then(Value::as_str).filter(|text| !text.is_empty());
    OwnOrder {
        order,
        preimage: preimage.map(|text| text.parse().unwrap()),
        state: order_state(entry),
        units_unfulfilled: UnitCount::new(entry.u32("units_unfulfilled")),
        multisig: KeyDescriptor { point, locator },
        fee_ceiling,
        extension_quoted,
    }
}

/// Node → tier, or a tier with the time since it was told; as a map, or as a list of such entries.
fn ratings(entry: &Value) -> BTreeMap<NodeId, NodeRating> {
    match known(entry, "node_ratings") {
        None => BTreeMap::new(),
        Some(Value::Object(map)) => map.iter().map(|(node, value)| (node.parse().unwrap(), rating(value))).collect(),
        Some(Value::Array(list)) => list.iter().map(|value| (rated_node(value), rating(value))).collect(),
        Some(other) => panic!("node_ratings {other}"),
    }
}

fn rated_node(entry: &Value) -> NodeId {
    let names = ["node", "node_key", "node_pubkey", "node_pub"];
    let node = names.iter().find_map(|name| entry.get(*name)?.as_str());
    node.unwrap_or_else(|| panic!("rating {entry}")).parse().unwrap()
}

fn rating(value: &Value) -> NodeRating {
    let known_tier = |value: &Value| match value {
        Value::Number(number) => tier(number.as_u64().unwrap()),
        // The names of the interface.
        Value::String(name) => match name.to_lowercase().replace([' ', '-'], "_").as_str() {
            "tier_0" | "tier0" => NodeTier::Tier0,
            "tier_1" | "tier1" | "tier_default" => NodeTier::Tier1,
            other => panic!("tier {other}"),
        },
        other => panic!("tier {other}"),
    };
    let Value::Object(fields) = value else { return NodeRating { tier: known_tier(value), age_seconds: 0 } };
    let named = ["tier", "node_tier", "rating"].iter().find_map(|name| fields.get(*name));
    let ages = [("age_seconds", 1), ("age_hours", 3_600)];
    let age = ages.iter().find_map(|(name, unit)| fields.get(*name)?.as_u64()?.checked_mul(*unit));
    NodeRating { tier: known_tier(named.unwrap_or_else(|| panic!("rating {value}"))), age_seconds: age.unwrap_or(0) }
}

/// A message of an entry: whole, or in parts that repeat.
pub(crate) fn message(entry: &Value, key: &str) -> Option<Vec<u8>> {
    if let Some(text) = known(entry, key).and_then(Value::as_str) {
        return Some(unhex(text));
    }
    let parts = known(entry, &format!("{key}_parts"))?;
    let parts = parts.as_array().unwrap_or_else(|| panic!("{key}_parts is no list"));
    let mut bytes = Vec::new();
    for part in parts {
        if let Some(text) = part.get("hex").and_then(Value::as_str) {
            let times = part.get("times").and_then(Value::as_u64).unwrap_or(1);
            bytes.extend(unhex(text).repeat(usize::try_from(times).unwrap()));
        }
        if let Some(length) = part.get("length").and_then(Value::as_u64) {
            assert_eq!(u64::try_from(bytes.len()).unwrap(), length, "length of {key}");
        }
        if let Some(expected) = part.get("sha256").and_then(Value::as_str) {
            assert_eq!(hex(sha256::Hash::hash(&bytes).as_byte_array()), expected, "hash of {key}");
        }
    }
    Some(bytes)
}

/// The bytes of one step of a conversation.
pub(crate) fn step_message(step: &Value) -> Vec<u8> {
    message(step, "msg").unwrap_or_else(|| panic!("a step without message"))
}

/// Names of the orders of `batch_accept.json`, by which its variations call them. A nonce is a name too.
pub(crate) fn order_names(accept: &Value) -> BTreeMap<String, OrderNonce> {
    let mut names = BTreeMap::new();
    for order in accept.list("orders") {
        let nonce: OrderNonce = order.parse("nonce");
        names.insert(order.text("nonce").to_owned(), nonce);
        if let Some(name) = order.get("name").and_then(Value::as_str) {
            names.insert(name.to_owned(), nonce);
        }
    }
    names
}

/// Applies the changes of one variation to the local state.
pub(crate) fn change(local: &mut Local, names: &BTreeMap<String, OrderNonce>, changes: &Value) {
    let order = changes.get("order").and_then(Value::as_str).map(|name| names[name]);
    let account: Option<AccountKey> = changes.get("account").and_then(Value::as_str).map(|key| key.parse().unwrap());
    for (name, value) in changes.as_object().unwrap() {
        match name.as_str() {
            "order" | "account" => continue,
            "best_height" => local.best_height = BlockHeight::new(changes.u32(name)),
            "client_batch_version" => local.batch_version = BatchVersion(changes.u32(name)),
            "our_node_key" => local.node = changes.parse(name),
            "remove_order" => drop(local.orders.remove(&names[value.as_str().unwrap()]).unwrap()),
            "remove_account" => drop(local.accounts.remove(&changes.parse::<AccountKey>(name)).unwrap()),
            _ => match (account, order) {
                (Some(account), _) => change_account(local.accounts.get_mut(&account).unwrap(), name, changes),
                (None, Some(order)) => change_order(local.orders.get_mut(&order).unwrap(), name, changes),
                (None, None) => panic!("change {name} of nothing"),
            },
        }
    }
}

fn change_account(account: &mut Account, name: &str, changes: &Value) {
    match name {
        "value" => account.value = changes.sats(name),
        "state" | "state_number" => account.state = account_state(changes.u64(name)),
        "expiry" => account.terms.expiry = BlockHeight::new(changes.u32(name)),
        "version" => account.terms.version = version(changes.u64(name)),
        "outpoint_index" => account.outpoint.as_mut().unwrap().vout = changes.u32(name),
        "batch_key" => account.terms.batch = changes.parse(name),
        other => panic!("change {other} of an account"),
    }
}

fn change_order(own: &mut OwnOrder, name: &str, changes: &Value) {
    match name {
        "units_unfulfilled" => own.units_unfulfilled = UnitCount::new(changes.u32(name)),
        "min_units_match" => own.order.min_units = UnitCount::new(changes.u32(name)),
        "max_batch_fee_rate" => own.order.max_batch_fee_rate = SatPerKw::new(changes.u64(name)),
        "rate" => own.order.rate = RatePerBillion::new(changes.u32(name)),
        "version" => own.order.version = OrderVersion::from_number(changes.u32(name)).unwrap(),
        "duration" => own.order.duration = BlockCount::new(changes.u32(name)),
        "amount" => own.order.amount = changes.sats(name),
        "channel_type" => own.order.channel_type = channel_type(changes.u64(name)),
        "state" => own.state = state(changes.text(name)),
        "state_number" => own.state = order_state_number(changes.u64(name)),
        "not_allowed_node_ids" => own.order.denied_nodes = nodes(changes, name),
        "allowed_node_ids" => own.order.allowed_nodes = nodes(changes, name),
        "announcement_constraints" | "confirmation_constraints" => {
            let OrderSide::Ask(ask) = &mut own.order.side else { panic!("{name} of a bid") };
            match name {
                "announcement_constraints" => ask.announcement = announcement(changes.u64(name)),
                _ => ask.confirmation = confirmation(changes.u64(name)),
            }
        }
        "self_chan_balance" | "unannounced_channel" | "zero_conf_channel" | "min_node_tier" => {
            let OrderSide::Bid(bid) = &mut own.order.side else { panic!("{name} of an ask") };
            match name {
                "self_chan_balance" => bid.self_balance = changes.sats(name),
                "unannounced_channel" => bid.unannounced = changes.flag(name),
                "zero_conf_channel" => bid.zero_conf = changes.flag(name),
                _ => bid.min_node_tier = tier(changes.u64(name)),
            }
        }
        other => panic!("change {other} of an order"),
    }
}
