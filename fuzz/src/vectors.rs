//! Honest batches out of the shared vectors, with what their trader knew before.

use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, Txid};
use hex::FromHex;
use prost::Message;
use serde_json::Value;
use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::LazyLock;
use tidegate_protocol::account::{Account, AccountState, AccountTerms, AccountVersion, MAX_EXPIRY_AHEAD};
use tidegate_protocol::batch::{BatchVersion, Prepare, SignBegin};
use tidegate_protocol::fees::ExecutionFee;
use tidegate_protocol::keys::{AccountKey, KeyDescriptor, KeyLocator, NodeId, OrderNonce};
use tidegate_protocol::order::{
    AskTerms, AuctionType, BidTerms, NodeTier, Order, OrderChannelType, OrderSide, OrderState, OrderVersion, OwnOrder,
};
use tidegate_protocol::ticket::Ticket;
use tidegate_protocol::units::{BlockCount, BlockHeight, RatePerBillion, SatPerKw, Sats, UnitCount};
use tidegate_wire::{batch, poolrpc};

const ACCEPT: &str = include_str!("../../tests/vectors/batch_accept.json");
const HONEST: &str = include_str!("../../tests/vectors/batch_honest.json");

/// An honest batch and the view of the trader who receives it.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Name of the vector.
    pub name: String,
    /// Our node.
    pub node: NodeId,
    /// Best height.
    pub best_height: BlockHeight,
    /// Batch version that we speak.
    pub batch_version: BatchVersion,
    /// Our accounts.
    pub accounts: BTreeMap<AccountKey, Account>,
    /// Our orders.
    pub orders: BTreeMap<OrderNonce, OwnOrder>,
    /// Blocks by which the venue says that it extends matched accounts.
    pub extension: BlockCount,
    /// The proposal, as sent.
    pub prepare_bytes: Vec<u8>,
    /// The proposal.
    pub prepare: Prepare,
    /// The request to sign, as sent.
    pub sign_bytes: Vec<u8>,
    /// The request to sign.
    pub sign: SignBegin,
}

static RECORDED: LazyLock<Vec<Recorded>> = LazyLock::new(|| {
    let accept: Value = serde_json::from_str(ACCEPT).expect("the vectors are JSON");
    let honest: Value = serde_json::from_str(HONEST).expect("the vectors are JSON");
    let mut all = vec![read("the complete batch", &accept, &accept)];
    let whole = list(&honest, "vectors").iter().filter(|entry| entry.get("steps").is_none());
    all.extend(whole.map(|entry| read(text(entry, "name"), &entry["local_state"], entry)));
    all
});

/// The honest batches of the vectors that come as single messages. The first has five accounts and seven channels.
pub fn recorded() -> &'static [Recorded] {
    &RECORDED
}

fn read(name: &str, local: &Value, messages: &Value) -> Recorded {
    let fee = match local.get("terms") {
        Some(terms) => {
            ExecutionFee { base: amount(terms, "execution_fee_base"), rate_ppm: number(terms, "execution_fee_rate") }
        }
        None => ExecutionFee { base: Sats::constant(1), rate_ppm: 1_000 },
    };
    // A file without terms does not limit the extension.
    let extension = local
        .get("terms")
        .map_or(MAX_EXPIRY_AHEAD, |terms| BlockCount::new(small(terms, "auto_renew_extension_blocks")));
    let (prepare_bytes, sign_bytes) = (bytes(messages, "prepare_msg"), bytes(messages, "sign_msg"));
    let prepare = poolrpc::OrderMatchPrepare::decode(prepare_bytes.as_slice()).expect("recorded");
    let sign = poolrpc::OrderMatchSignBegin::decode(sign_bytes.as_slice()).expect("recorded");
    let accounts = list(local, "accounts").iter().map(account).map(|account| (account.key(), account));
    let orders =
        list(local, "orders").iter().map(|entry| own_order(entry, fee, extension)).map(|own| (own.order.nonce, own));
    Recorded {
        name: name.to_owned(),
        node: parse(local, "our_node_key"),
        best_height: BlockHeight::new(small(local, "best_height")),
        batch_version: BatchVersion(small(local, "client_batch_version")),
        accounts: accounts.collect(),
        orders: orders.collect(),
        extension,
        prepare: batch::from_prepare(prepare).expect("honest"),
        prepare_bytes,
        sign: batch::from_sign_begin(sign).expect("honest"),
        sign_bytes,
    }
}

fn account(entry: &Value) -> Account {
    let txid: [u8; 32] = bytes(entry, "outpoint_txid_bytes").try_into().expect("32 bytes");
    let version = match number(entry, "version") {
        0 => AccountVersion::V0,
        1 => AccountVersion::V1,
        _ => AccountVersion::V2,
    };
    Account {
        terms: AccountTerms {
            version,
            trader: parse(entry, "trader_key"),
            auctioneer: parse(entry, "auctioneer_key"),
            batch: parse(entry, "batch_key"),
            secret: parse(entry, "shared_secret"),
            expiry: BlockHeight::new(small(entry, "expiry")),
        },
        locator: KeyLocator { family: small(entry, "trader_key_family"), index: small(entry, "trader_key_index") },
        value: amount(entry, "value"),
        state: if number(entry, "state_number") == 8 { AccountState::PendingBatch } else { AccountState::Open },
        height_hint: BlockHeight::new(small(entry, "height_hint")),
        outpoint: Some(OutPoint { txid: Txid::from_byte_array(txid), vout: small(entry, "outpoint_index") }),
        latest_tx: None,
    }
}

fn own_order(entry: &Value, fee_ceiling: ExecutionFee, extension_quoted: BlockCount) -> OwnOrder {
    let flag = |key: &str| entry[key].as_bool().unwrap_or(false);
    let side = match text(entry, "type") {
        "ask" => OrderSide::Ask(AskTerms::default()),
        _ => OrderSide::Bid(BidTerms {
            min_node_tier: if number(entry, "min_node_tier") == 1 { NodeTier::Tier0 } else { NodeTier::Tier1 },
            self_balance: amount(entry, "self_chan_balance"),
            sidecar: ticket(entry).is_some(),
            unannounced: flag("unannounced_channel"),
            zero_conf: flag("zero_conf_channel"),
        }),
    };
    let order = Order {
        nonce: parse(entry, "nonce"),
        version: OrderVersion::from_number(small(entry, "version")).expect("a known version"),
        account: parse(entry, "account_key"),
        auction: if number(entry, "auction_type") == 1 { AuctionType::Outbound } else { AuctionType::Inbound },
        rate: RatePerBillion::new(small(entry, "rate")),
        amount: amount(entry, "amount"),
        min_units: UnitCount::new(small(entry, "min_units_match")),
        duration: BlockCount::new(small(entry, "duration")),
        max_batch_fee_rate: SatPerKw::new(number(entry, "max_batch_fee_rate")),
        channel_type: match number(entry, "channel_type") {
            0 => OrderChannelType::PeerDependent,
            1 => OrderChannelType::ScriptEnforced,
            _ => OrderChannelType::SimpleTaproot,
        },
        allowed_nodes: Vec::new(),
        denied_nodes: Vec::new(),
        public: false,
        side,
    };
    let locator = KeyLocator { family: small(entry, "multisig_key_family"), index: small(entry, "multisig_key_index") };
    // The channel of a sidecar bid goes to the key in the ticket.
    let point = match ticket(entry) {
        Some(ticket) => *ticket.recipient_keys().expect("registered").1.point(),
        None => text(entry, "multisig_pubkey").parse().expect("a point"),
    };
    OwnOrder {
        order,
        preimage: None,
        state: OrderState::Submitted,
        units_unfulfilled: UnitCount::new(small(entry, "units_unfulfilled")),
        multisig: KeyDescriptor { point, locator },
        fee_ceiling,
        extension_quoted,
    }
}

fn ticket(order: &Value) -> Option<Ticket> {
    let text = order.get("sidecar_ticket").and_then(Value::as_str).filter(|ticket| !ticket.is_empty())?;
    Some(text.parse().expect("a ticket"))
}

fn list<'a>(entry: &'a Value, key: &str) -> &'a [Value] {
    entry[key].as_array().unwrap_or_else(|| panic!("{key} is a list"))
}

fn text<'a>(entry: &'a Value, key: &str) -> &'a str {
    entry[key].as_str().unwrap_or_else(|| panic!("{key} is text"))
}

fn number(entry: &Value, key: &str) -> u64 {
    entry[key].as_u64().unwrap_or_else(|| panic!("{key} is a number"))
}

fn small(entry: &Value, key: &str) -> u32 {
    u32::try_from(number(entry, key)).unwrap_or_else(|_| panic!("{key} has 32 bits"))
}

fn amount(entry: &Value, key: &str) -> Sats {
    Sats::new(number(entry, key)).unwrap_or_else(|error| panic!("{key}: {error}"))
}

fn bytes(entry: &Value, key: &str) -> Vec<u8> {
    Vec::from_hex(text(entry, key)).unwrap_or_else(|error| panic!("{key}: {error}"))
}

fn parse<T: FromStr>(entry: &Value, key: &str) -> T {
    text(entry, key).parse().unwrap_or_else(|_| panic!("{key} parses"))
}
