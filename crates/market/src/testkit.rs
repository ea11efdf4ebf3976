//! Orders and accounts for tests.

use crate::pairing::BookOrder;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use proptest::test_runner::{Config as ProptestConfig, RngSeed};
use tidegate_protocol::batch::BatchVersion;
use tidegate_protocol::keys::{AccountKey, MultisigKey, NodeId, OrderNonce};
use tidegate_protocol::order::{
    AskTerms, AuctionType, BidTerms, NodeAddress, NodeTier, Order, OrderChannelType, OrderSide, OrderVersion,
    SubmittedOrder,
};
use tidegate_protocol::units::{BlockCount, RatePerBillion, SatPerKw, UnitCount};

pub(crate) fn point(kind: &str, number: u32) -> PublicKey {
    let hash = sha256::Hash::hash(format!("{kind}/{number}").as_bytes()).to_byte_array();
    PublicKey::from_secret_key(&Secp256k1::new(), &SecretKey::from_slice(&hash).unwrap())
}

pub(crate) fn nonce(number: u32) -> OrderNonce {
    OrderNonce::new(sha256::Hash::hash(&number.to_be_bytes()).to_byte_array())
}

fn order(number: u32, trader: u32, rate: u32, units: u32, side: OrderSide) -> BookOrder {
    let units = UnitCount::new(units);
    BookOrder {
        submitted: SubmittedOrder {
            order: Order {
                nonce: nonce(number),
                version: OrderVersion::V5,
                account: AccountKey::new(point("account", trader)),
                auction: AuctionType::Inbound,
                rate: RatePerBillion::new(rate),
                amount: units.to_sats(),
                min_units: UnitCount::new(1),
                duration: BlockCount::new(2016),
                max_batch_fee_rate: SatPerKw::new(25_000),
                channel_type: OrderChannelType::PeerDependent,
                allowed_nodes: Vec::new(),
                denied_nodes: Vec::new(),
                public: true,
                side,
            },
            signature: Vec::new(),
            multisig: MultisigKey::new(point("multisig", number)),
            node: NodeId::new(point("node", trader)),
            addresses: vec![NodeAddress("127.0.0.1:9735".to_owned())],
        },
        open: units,
        owner: sha256::Hash::hash(&trader.to_be_bytes()).to_byte_array(),
        tier: NodeTier::Tier1,
        batch_version: BatchVersion(58),
    }
}

pub(crate) fn ask(number: u32, trader: u32, rate: u32, units: u32) -> BookOrder {
    order(number, trader, rate, units, OrderSide::Ask(AskTerms::default()))
}

pub(crate) fn bid(number: u32, trader: u32, rate: u32, units: u32) -> BookOrder {
    order(number, trader, rate, units, OrderSide::Bid(BidTerms::default()))
}

pub(crate) fn bid_terms(order: &mut BookOrder) -> &mut BidTerms {
    match &mut order.submitted.order.side {
        OrderSide::Bid(terms) => terms,
        OrderSide::Ask(_) => panic!("not a bid"),
    }
}

pub(crate) fn ask_terms(order: &mut BookOrder) -> &mut AskTerms {
    match &mut order.submitted.order.side {
        OrderSide::Ask(terms) => terms,
        OrderSide::Bid(_) => panic!("not an ask"),
    }
}

/// So many cases, always the same: a failure repeats by itself.
pub(crate) fn always(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(20_261_122),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}
