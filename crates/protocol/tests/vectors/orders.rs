//! Orders: names, digests, validation, pairing predicates, batch versions.

use crate::local::{announcement, channel_type, confirmation, nodes, tier};
use crate::support::{Entry, judge, load};
use tidegate_protocol::batch::BatchVersion;
use tidegate_protocol::bitcoin::hashes::{Hash, sha256};
use tidegate_protocol::channel::{announcement_matches, confirmation_matches, pending_channel_id};
use tidegate_protocol::keys::{OrderNonce, OrderPreimage};
use tidegate_protocol::order::{AskTerms, AuctionType, BidTerms, Order, OrderChannelType, OrderSide, OrderVersion};
use tidegate_protocol::units::{BlockCount, RatePerBillion, SatPerKw, UnitCount};

const FILE: &str = "orders.json";
const KEY: &str = "028e87bdd134238f8347f845d9ecc827b843d0d1e27cdcb46da704d916613f4fce";

fn order(version: OrderVersion, side: OrderSide) -> Order {
    Order {
        nonce: OrderNonce::new([0; 32]),
        version,
        account: KEY.parse().unwrap(),
        auction: AuctionType::Inbound,
        rate: RatePerBillion::new(1),
        amount: UnitCount::new(1).to_sats(),
        min_units: UnitCount::new(1),
        duration: BlockCount::new(2016),
        max_batch_fee_rate: SatPerKw::FLOOR,
        channel_type: OrderChannelType::PeerDependent,
        allowed_nodes: Vec::new(),
        denied_nodes: Vec::new(),
        public: false,
        side,
    }
}

#[test]
fn nonces_and_digests_are_the_networks() {
    let Some(file) = load(FILE) else { return };
    judge(FILE, &file, "nonces", |entry| {
        let nonce: OrderNonce = entry.parse("nonce");
        assert_eq!(entry.parse::<OrderPreimage>("preimage").nonce(), nonce);
    });
    judge(FILE, &file, "digests", |entry| {
        let Some(version) = OrderVersion::from_number(entry.u32("version")) else {
            assert!(entry.at("digest").is_null(), "{entry}");
            return;
        };
        let side = match entry.text("type") {
            "ask" => OrderSide::Ask(AskTerms::default()),
            _ => OrderSide::Bid(BidTerms {
                min_node_tier: tier(entry.u64("min_node_tier")),
                self_balance: entry.sats("self_chan_balance"),
                sidecar: entry.flag("is_sidecar"),
                ..BidTerms::default()
            }),
        };
        let order = Order {
            nonce: entry.parse::<OrderPreimage>("preimage").nonce(),
            rate: RatePerBillion::new(entry.u32("rate")),
            amount: entry.sats("amount"),
            min_units: UnitCount::new(entry.u32("min_units_match")),
            duration: BlockCount::new(entry.u32("duration")),
            max_batch_fee_rate: SatPerKw::new(entry.u64("max_batch_fee_rate")),
            channel_type: channel_type(entry.u64("channel_type")),
            ..order(version, side)
        };
        assert_eq!(order.nonce, entry.parse("nonce"));
        assert_eq!(order.digest(), entry.b32("digest"), "{entry}");
        assert_eq!(sha256::Hash::hash(&order.digest()).to_byte_array(), entry.b32("signed_hash"));
    });
    judge(FILE, &file, "pending_chan_ids", |entry| {
        let id = pending_channel_id(entry.parse("ask_nonce"), entry.parse("bid_nonce"));
        assert_eq!(id, entry.parse("pending_chan_id"));
    });
}

#[test]
fn pairing_predicates_are_the_networks() {
    let Some(file) = load(FILE) else { return };
    judge(FILE, &file, "announcement_match", |entry| {
        let ask = AskTerms { announcement: announcement(entry.u64("ask_constraint")), ..AskTerms::default() };
        let bid = BidTerms { unannounced: entry.flag("bid_unannounced"), ..BidTerms::default() };
        assert_eq!(announcement_matches(&ask, &bid), entry.flag("match"), "{entry}");
    });
    judge(FILE, &file, "zero_conf_match", |entry| {
        let ask = AskTerms { confirmation: confirmation(entry.u64("ask_constraint")), ..AskTerms::default() };
        let bid = BidTerms { zero_conf: entry.flag("bid_zero_conf"), ..BidTerms::default() };
        assert_eq!(confirmation_matches(&ask, &bid), entry.flag("match"), "{entry}");
    });
    judge(FILE, &file, "node_id_match", |entry| {
        let mut order = order(OrderVersion::V5, OrderSide::Ask(AskTerms::default()));
        order.allowed_nodes = nodes(entry, "allowed");
        order.denied_nodes = nodes(entry, "not_allowed");
        assert_eq!(order.accepts_node(entry.parse("node")), entry.flag("match"), "{entry}");
    });
}

#[test]
fn self_balances_are_judged_as_by_the_network() {
    let Some(file) = load(FILE) else { return };
    judge(FILE, &file, "self_chan_balance_validation", |entry| {
        let bid = BidTerms { self_balance: entry.sats("self_chan_balance"), ..BidTerms::default() };
        let version = OrderVersion::from_number(entry.u32("order_version")).unwrap();
        let order = Order {
            auction: if entry.u64("auction_type") == 1 { AuctionType::Outbound } else { AuctionType::Inbound },
            amount: entry.sats("amount"),
            min_units: UnitCount::new(entry.u32("min_units_match")),
            ..order(version, OrderSide::Bid(bid.clone()))
        };
        assert_eq!(order.check_self_balance(&bid).is_ok(), entry.flag("valid"), "{entry}");
    });
}

#[test]
fn batch_versions_mean_what_the_network_means() {
    let Some(file) = load("batch_versions.json") else { return };
    judge("batch_versions.json", &file, "vectors", |entry| {
        let version = BatchVersion(entry.u32("version"));
        assert_eq!(version.extends_accounts(), entry.flag("account_extension"), "{entry}");
        assert_eq!(version.unannounced_channels(), entry.flag("unannounced_channels"), "{entry}");
        assert_eq!(version.upgrades_taproot(), entry.flag("taproot_upgrade"), "{entry}");
        assert_eq!(version.upgrades_taproot_v2(), entry.flag("taproot_v2_upgrade"), "{entry}");
        assert_eq!(version.zero_conf(), entry.flag("zero_conf_channels"), "{entry}");
    });
}
