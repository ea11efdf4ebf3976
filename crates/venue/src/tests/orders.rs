//! Orders by number, for tests of pure rules.

use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use tidegate_protocol::keys::{AccountKey, MultisigKey, NodeId, OrderNonce};
use tidegate_protocol::order::{
    AskTerms, AuctionType, BidTerms, Order, OrderChannelType, OrderSide, OrderVersion, SubmittedOrder,
};
use tidegate_protocol::units::{BlockCount, RatePerBillion, SatPerKw, UnitCount};

fn point(kind: u8, number: u8) -> PublicKey {
    let mut secret = [kind; 32];
    secret[31] = number;
    PublicKey::from_secret_key(&Secp256k1::new(), &SecretKey::from_slice(&secret).unwrap())
}

/// Order `number`, with an account, a node and a funding key of its own.
pub(crate) fn submitted(number: u8, ask: bool) -> SubmittedOrder {
    let side = if ask { OrderSide::Ask(AskTerms::default()) } else { OrderSide::Bid(BidTerms::default()) };
    SubmittedOrder {
        order: Order {
            nonce: OrderNonce::new([number; 32]),
            version: OrderVersion::V5,
            account: AccountKey::new(point(1, number)),
            auction: AuctionType::Inbound,
            rate: RatePerBillion::new(100),
            amount: UnitCount::new(2).to_sats(),
            min_units: UnitCount::new(1),
            duration: BlockCount::new(2016),
            max_batch_fee_rate: SatPerKw::FLOOR,
            channel_type: OrderChannelType::PeerDependent,
            allowed_nodes: Vec::new(),
            denied_nodes: Vec::new(),
            public: true,
            side,
        },
        signature: Vec::new(),
        multisig: MultisigKey::new(point(3, number)),
        node: NodeId::new(point(2, number)),
        addresses: Vec::new(),
    }
}
