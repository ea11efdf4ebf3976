use super::*;
use crate::curve::SECP;
use crate::order::{BidTerms, NodeTier, OrderChannelType, OrderSide};
use crate::units::{RatePerBillion, SatPerKw, UnitCount};
use bitcoin::secp256k1::{Message, SecretKey};

fn secret(seed: u8) -> SecretKey {
    SecretKey::from_slice(&[seed; 32]).unwrap()
}

fn sign(seed: u8, digest: [u8; 32]) -> CompactSignature {
    let message = Message::from_digest(sha256_of(&[&digest]));
    CompactSignature::from_der(&SECP.sign_ecdsa(&message, &secret(seed)).serialize_der()).unwrap()
}

fn provider() -> AccountKey {
    AccountKey::new(secret(1).public_key(&SECP))
}

fn offer() -> Offer {
    Offer {
        capacity_sats: 500_000,
        push_sats: 100_000,
        lease_duration: BlockCount::new(2016),
        signing_key: Some(provider()),
        ..Offer::default()
    }
}

fn offered() -> Ticket {
    let ticket = Ticket::offer(TicketId([7; 8]), offer()).unwrap();
    let signature = sign(1, ticket.offer_to_sign().unwrap());
    ticket.with_offer_signature(signature).unwrap()
}

fn registered() -> Ticket {
    let point = secret(2).public_key(&SECP);
    offered().registered(NodeId::new(point), MultisigKey::new(point), 3).unwrap()
}

fn ordered() -> Ticket {
    let ticket = registered().ordered(OrderNonce::new([4; 32])).unwrap();
    let signature = sign(1, ticket.order_digest().unwrap());
    ticket.with_order_signature(signature).unwrap()
}

fn bid() -> Order {
    Order {
        nonce: OrderNonce::new([4; 32]),
        version: OrderVersion::V5,
        account: provider(),
        auction: AuctionType::Inbound,
        rate: RatePerBillion::new(100),
        amount: Sats::constant(500_000),
        min_units: UnitCount::new(5),
        duration: BlockCount::new(2016),
        max_batch_fee_rate: SatPerKw::FLOOR,
        channel_type: OrderChannelType::PeerDependent,
        allowed_nodes: Vec::new(),
        denied_nodes: Vec::new(),
        public: false,
        side: OrderSide::Bid(BidTerms {
            min_node_tier: NodeTier::Tier1,
            self_balance: Sats::constant(100_000),
            sidecar: true,
            ..BidTerms::default()
        }),
    }
}

fn bid_terms(order: &mut Order) -> &mut BidTerms {
    match &mut order.side {
        OrderSide::Bid(bid) => bid,
        OrderSide::Ask(_) => panic!("an ask"),
    }
}

#[test]
fn a_ticket_passes_through_its_steps_and_survives_each_as_text() {
    for ticket in [offered(), registered(), ordered()] {
        assert_eq!(ticket.to_string().parse(), Ok(ticket));
    }
    assert_eq!(registered().check_bid(&bid()), Ok(()));
    assert_eq!(ordered().check_expected(), Ok(OrderNonce::new([4; 32])));
}

#[test]
fn offers_have_whole_units_and_the_lowest_version() {
    let with = |change: fn(&mut Offer)| {
        let mut offer = offer();
        change(&mut offer);
        Ticket::offer(TicketId([7; 8]), offer).map(|ticket| ticket.version)
    };
    assert_eq!(with(|_| {}), Ok(0));
    assert_eq!(with(|offer| offer.auto = true), Ok(0));
    assert_eq!(with(|offer| offer.unannounced = true), Ok(1));
    assert_eq!(with(|offer| offer.zero_conf = true), Ok(1));
    assert_eq!(with(|offer| offer.push_sats = 500_000), Ok(0));
    assert_eq!(with(|offer| offer.push_sats = 500_001), Err(TicketError::Push { push: 500_001, capacity: 500_000 }));
    assert_eq!(with(|offer| offer.capacity_sats = 0), Err(TicketError::Capacity(0)));
    assert_eq!(with(|offer| offer.capacity_sats = 500_001), Err(TicketError::Capacity(500_001)));
    let most = u64::MAX - u64::MAX % SATS_PER_UNIT;
    let with_most = Ticket { offer: Offer { capacity_sats: most, ..offer() }, ..offered() };
    assert_eq!(with_most.check_offer(), Err(TicketError::Amount(UnitError::TooManySats(most))));
}

#[test]
fn steps_out_of_turn_are_refused() {
    let state = |expected, found| Err(TicketError::State { expected, found });
    let (key, index) = (secret(2).public_key(&SECP), 3);
    let register = |ticket: Ticket| ticket.registered(NodeId::new(key), MultisigKey::new(key), index).map(drop);
    assert_eq!(register(registered()), state(TicketState::Offered, TicketState::Registered));
    assert_eq!(register(Ticket::default()), state(TicketState::Offered, TicketState::Created));
    let unsigned = Ticket { offer: offer(), state: TicketState::Offered, ..Ticket::default() };
    assert_eq!(register(unsigned.clone()), Err(TicketError::Missing(OFFER_SIGNATURE)));
    assert_eq!(offered().offer_to_sign(), Err(TicketError::Present(OFFER_SIGNATURE)));
    let nobody = Ticket { state: TicketState::Offered, ..Ticket::default() };
    assert_eq!(nobody.offer_to_sign(), Err(TicketError::Missing(SIGNING_KEY)));
    let order = |ticket: Ticket| ticket.ordered(OrderNonce::new([4; 32])).map(drop);
    assert_eq!(order(offered()), state(TicketState::Registered, TicketState::Offered));
    assert_eq!(
        order(Ticket { state: TicketState::Registered, ..unsigned }),
        Err(TicketError::Missing(OFFER_SIGNATURE))
    );
    assert_eq!(registered().order_digest().map(drop), state(TicketState::Ordered, TicketState::Registered));
    assert_eq!(registered().check_expected().map(drop), state(TicketState::Ordered, TicketState::Registered));
    let waiting = Ticket { state: TicketState::ExpectingChannel, ..ordered() };
    assert_eq!(waiting.check_expected().map(drop), state(TicketState::Ordered, TicketState::ExpectingChannel));
    assert_eq!(waiting.verify_order(), Ok(()));
}

#[test]
fn signatures_are_of_the_offers_key_and_of_these_terms() {
    let mut ticket = ordered();
    ticket.offer.capacity_sats += SATS_PER_UNIT;
    assert_eq!(ticket.verify_offer(), Err(TicketError::Signature(OFFER_SIGNATURE)));
    assert_eq!(ticket.verify_order(), Err(TicketError::Signature(ORDER_SIGNATURE)));
    let mut ticket = ordered();
    ticket.order = ticket.order.map(|order| TicketOrder { bid: Some(OrderNonce::new([5; 32])), ..order });
    assert_eq!(ticket.verify_offer(), Ok(()));
    assert_eq!(ticket.verify_order(), Err(TicketError::Signature(ORDER_SIGNATURE)));
    ticket.order = ticket.order.map(|order| TicketOrder { bid: None, ..order });
    assert_eq!(ticket.verify_order(), Err(TicketError::Missing("bid nonce")));
    ticket.order = None;
    assert_eq!(ticket.verify_order(), Err(TicketError::Missing("order")));
    let fresh = Ticket::offer(TicketId([7; 8]), offer()).unwrap();
    let foreign = sign(2, fresh.offer_digest().unwrap());
    assert_eq!(fresh.with_offer_signature(foreign).map(drop), Err(TicketError::Signature(OFFER_SIGNATURE)));
    let unknown = Ticket { version: 2, ..ordered() };
    assert_eq!(unknown.verify_offer(), Err(TicketError::Version(2)));
    assert_eq!(unknown.verify_order(), Err(TicketError::Version(2)));
    // Halves at or above the group's order are no signature, and no reason to panic.
    assert_eq!(CompactSignature([0xff; 64]).to_der(), None);
}

#[test]
fn bids_carry_what_the_offer_says() {
    let refused = |change: fn(&mut Order)| {
        let mut order = bid();
        change(&mut order);
        registered().check_bid(&order).unwrap_err()
    };
    let terms = |what, expected, found| TicketError::Terms { what, expected, found };
    let stranger = AccountKey::new(secret(9).public_key(&SECP));
    let mut other = bid();
    other.account = stranger;
    let expected = TicketError::Account { expected: Box::new(provider()), found: Box::new(stranger) };
    assert_eq!(registered().check_bid(&other), Err(expected));
    assert_eq!(refused(|order| order.auction = AuctionType::Outbound), TicketError::Market);
    assert_eq!(refused(|order| order.side = OrderSide::Ask(Default::default())), TicketError::Market);
    assert_eq!(refused(|order| order.version = OrderVersion::V3), TicketError::OrderVersion(3));
    assert_eq!(refused(|order| order.amount = Sats::constant(600_000)), terms("amount", 500_000, 600_000));
    assert_eq!(refused(|order| order.min_units = UnitCount::new(4)), terms("smallest match", 500_000, 400_000));
    assert_eq!(refused(|order| bid_terms(order).self_balance = Sats::ZERO), terms("self balance", 100_000, 0));
    assert_eq!(refused(|order| order.duration = BlockCount::new(4032)), terms("duration", 2016, 4032));
    assert_eq!(refused(|order| bid_terms(order).unannounced = true), terms("unannounced flag", 0, 1));
    assert_eq!(refused(|order| bid_terms(order).zero_conf = true), terms("zero-conf flag", 0, 1));
    let keyless = Ticket { recipient: Some(Recipient { node: None, ..Recipient::default() }), ..registered() };
    assert_eq!(keyless.check_bid(&bid()), Err(TicketError::Missing("recipient's node key")));
    let ordered = TicketError::State { expected: TicketState::Registered, found: TicketState::Ordered };
    assert_eq!(self::ordered().check_bid(&bid()), Err(ordered));
}

#[test]
fn no_ticket_is_longer_than_the_limits() {
    let longest = Ticket { execution: Some(PendingChannelId::new([1; 32])), ..ordered() };
    assert!(longest.encode().len() < 500);
    assert!(matches!(Ticket::decode(&[0; MAX_TLV + 1]), Err(TicketError::TooLong { .. })));
    assert!(matches!("s".repeat(MAX_TEXT + 1).parse::<Ticket>(), Err(TicketError::TooLong { .. })));
    // What is just within the limit as bytes is within it as text.
    let mut bytes = vec![0xff; MAX_TLV + 5];
    bytes[0] = 0;
    assert!("sidecar".len() + bitcoin::base58::encode(&bytes).len() <= MAX_TEXT);
}

#[test]
fn states_keep_their_numbers() {
    for number in 0..=u8::MAX {
        let state = TicketState::from_number(number);
        assert_eq!(state.number(), number);
        assert_eq!(state.is_terminal(), number == 5 || number == 6);
    }
}
