//! Orders from bytes, and the arithmetic of money over them.

use crate::bytes::Bytes;
use crate::material::{node, point, sats};
use tidegate_protocol::account::AccountVersion;
use tidegate_protocol::fees::{ExecutionFee, MatchTerms, chain_fee, confirmations_needed, quote, reserved_value};
use tidegate_protocol::keys::{AccountKey, MultisigKey, OrderNonce};
use tidegate_protocol::order::{
    AnnouncementConstraint, AskTerms, AuctionType, BidTerms, ConfirmationConstraint, NodeAddress, NodeTier, Order,
    OrderChannelType, OrderSide, OrderState, OrderVersion, SubmittedOrder,
};
use tidegate_protocol::units::{BlockCount, RatePerBillion, SatPerKw, Sats, UnitCount};

const VERSIONS: [AccountVersion; 3] = [AccountVersion::V0, AccountVersion::V1, AccountVersion::V2];

/// An order that may be nonsense, from about 30 bytes.
pub(crate) fn order(bytes: &mut Bytes<'_>) -> Order {
    let number = bytes.u8();
    let account = AccountKey::new(point(usize::from(number % 8)));
    let units = if bytes.flag() { u32::from(bytes.u8()) } else { bytes.near32(10) };
    let amount = match bytes.u8() % 8 {
        0 => sats(bytes.near(1_000_000)),
        _ => UnitCount::new(units).to_sats(),
    };
    let min_units = if bytes.flag() { 1 } else { bytes.near32(units) };
    let auctions = [AuctionType::Inbound, AuctionType::Inbound, AuctionType::Inbound, AuctionType::Outbound];
    let durations = [2_016, 2_016, 4_032, 144, 52_560, 0, u32::MAX];
    let channel_types =
        [OrderChannelType::PeerDependent, OrderChannelType::ScriptEnforced, OrderChannelType::SimpleTaproot];
    let auction = bytes.pick(&auctions);
    let rate = RatePerBillion::new(if bytes.flag() { u32::from(bytes.u16()) } else { bytes.near32(1_000) });
    let nodes = |bytes: &mut Bytes<'_>| (0..bytes.u8() % 4).map(|_| node(usize::from(bytes.u8() % 10))).collect();
    let (allowed_nodes, denied_nodes) = match bytes.u8() % 8 {
        0 => (nodes(bytes), Vec::new()),
        1 => (Vec::new(), nodes(bytes)),
        2 => (nodes(bytes), nodes(bytes)),
        _ => (Vec::new(), Vec::new()),
    };
    Order {
        nonce: OrderNonce::new([number; 32]),
        version: OrderVersion::from_number(5 - u32::from(bytes.u8()) / 43).unwrap_or(OrderVersion::V5),
        account,
        auction,
        rate,
        amount,
        min_units: UnitCount::new(min_units),
        duration: BlockCount::new(bytes.pick(&durations)),
        max_batch_fee_rate: SatPerKw::new(if bytes.flag() { 12_500 } else { bytes.near(253) }),
        channel_type: if bytes.flag() { OrderChannelType::PeerDependent } else { bytes.pick(&channel_types) },
        allowed_nodes,
        denied_nodes,
        public: bytes.flag(),
        side: side(bytes, units),
    }
}

fn side(bytes: &mut Bytes<'_>, units: u32) -> OrderSide {
    let announcements = [
        AnnouncementConstraint::None,
        AnnouncementConstraint::None,
        AnnouncementConstraint::OnlyAnnounced,
        AnnouncementConstraint::OnlyUnannounced,
    ];
    let confirmations = [
        ConfirmationConstraint::None,
        ConfirmationConstraint::None,
        ConfirmationConstraint::OnlyConfirmed,
        ConfirmationConstraint::OnlyZeroConf,
    ];
    if bytes.flag() {
        return OrderSide::Ask(AskTerms {
            announcement: bytes.pick(&announcements),
            confirmation: bytes.pick(&confirmations),
        });
    }
    let self_balance = match bytes.u8() % 4 {
        0 => sats(bytes.near(u64::from(units) * 100_000)),
        1 => sats(u64::from(bytes.u8()) * 100_000),
        _ => Sats::ZERO,
    };
    OrderSide::Bid(BidTerms {
        min_node_tier: if bytes.flag() { NodeTier::Tier1 } else { NodeTier::Tier0 },
        self_balance,
        sidecar: bytes.u8() > 220,
        unannounced: bytes.u8() > 170,
        zero_conf: bytes.u8() > 200,
    })
}

/// The order as its trader would submit it, without a valid signature.
pub(crate) fn submitted(bytes: &mut Bytes<'_>) -> SubmittedOrder {
    let trader = usize::from(bytes.u8() % 8);
    let mut order = order(bytes);
    order.account = AccountKey::new(point(trader));
    SubmittedOrder {
        order,
        signature: bytes.take(8).to_vec(),
        multisig: MultisigKey::new(point(16 + usize::from(bytes.u8() % 32))),
        node: node(trader),
        addresses: vec![NodeAddress("127.0.0.1:9735".to_owned())],
    }
}

/// What a receiver asks about an order that it did not make.
pub(crate) fn judge(submitted: &SubmittedOrder) {
    let order = &submitted.order;
    let digest = order.digest();
    assert_eq!(digest, order.digest());
    let signed = submitted.signature_is_valid();
    assert!(!signed || !submitted.signature.is_empty());
    if submitted.validate().is_ok() {
        assert!(order.validate().is_ok());
        let units = UnitCount::exactly_from(order.amount).expect("valid orders are whole units");
        assert!(units > UnitCount::ZERO && order.min_units > UnitCount::ZERO);
        assert!(order.auction == AuctionType::Outbound || order.min_units <= units);
        assert!(!order.is_ask() || !submitted.addresses.is_empty());
        assert!(order.allowed_nodes.is_empty() || order.denied_nodes.is_empty());
    }
    let accepted = order.accepts_node(submitted.node);
    assert_eq!(accepted, order.accepts_node(submitted.node));
}

/// Fees, premiums, reserves and quotes over any order: they refuse or are in range, and more never costs less.
pub fn order_rules(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let submitted = submitted(&mut bytes);
    judge(&submitted);
    let order = &submitted.order;
    let base = sats(if bytes.flag() { 1 } else { bytes.near(1) });
    let fee = ExecutionFee { base, rate_ppm: if bytes.flag() { 1_000 } else { bytes.near(1_000) } };
    let version = bytes.pick(&VERSIONS);
    let open = UnitCount::new(bytes.near32(u32::try_from(order.amount.get() / 100_000).unwrap_or(u32::MAX)));
    let reserved = reserved_value(order, open, OrderState::Submitted, &fee, version);
    // A bid pays more than it gets, whatever happens; its reserve is the sum of what it pays. Of fewer units than the smallest
    // match the network's formula makes one match of more and one less, whose chain fees cancel.
    if let (Ok(reserved), true) = (&reserved, !order.is_ask() && open >= order.min_units) {
        let one = chain_fee(1, order.max_batch_fee_rate, version).expect("part of the reserve");
        assert!(*reserved >= one, "a bid reserves {reserved}, less than one chain fee of {one}");
    }
    assert_eq!(reserved_value(order, open, OrderState::Executed, &fee, version), Ok(Sats::ZERO));
    check_match(order, open, &fee);
    let cheap = chain_fee(1, order.max_batch_fee_rate, version);
    if let Ok(dear) = chain_fee(2, order.max_batch_fee_rate, version) {
        assert!(cheap.is_ok_and(|cheap| cheap <= dear));
    }
    let min_match = order.min_units.to_sats();
    if let Ok(quote) = quote(order.amount, min_match, order.rate, order.duration, order.max_batch_fee_rate, &fee) {
        assert!(quote.execution_fee >= fee.base);
    }
    assert!((3..=6).contains(&confirmations_needed(order.amount, sats(bytes.u64()))));
}

/// Maker and taker of a match pay together exactly what leaves both accounts.
fn check_match(order: &Order, units: UnitCount, fee: &ExecutionFee) {
    let terms = MatchTerms {
        auction: order.auction,
        filled: units.to_sats(),
        self_balance: order.self_balance(),
        price: order.rate,
        duration: order.duration,
    };
    let (Ok(maker), Ok(taker)) = (terms.maker_delta(fee), terms.taker_delta(fee)) else { return };
    let fees = [terms.maker_execution_fee(fee), terms.taker_execution_fee(fee)]
        .map(|fee| i128::from(fee.expect("part of the change").get()));
    let channel = i128::from(terms.filled.get()) + i128::from(terms.self_balance.get());
    assert_eq!(-i128::from(maker.get()) - i128::from(taker.get()), channel + fees[0] + fees[1]);
}
