//! Rules that hold for every input of a class.

// Helpers of tests may fail them.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use tidegate_protocol::account::{Account, AccountState, AccountTerms, AccountVersion};
use tidegate_protocol::backup::decrypt_and_parse;
use tidegate_protocol::bitcoin::hashes::{Hash, sha256};
use tidegate_protocol::bitcoin::secp256k1::{Message, Secp256k1, SecretKey};
use tidegate_protocol::bitcoin::{Amount, OutPoint, ScriptBuf, TxOut, Witness};
use tidegate_protocol::channel::{CommitmentType, funding_script};
use tidegate_protocol::fees::{ExecutionFee, MatchTerms, chain_fee, reserved_for, reserved_value};
use tidegate_protocol::keys::{BatchKey, KeyDescriptor, KeyLocator, MultisigKey, NodeId, OrderNonce, SharedSecret};
use tidegate_protocol::musig2::{Musig2Version, SigningContext, aggregate, nonce_from};
use tidegate_protocol::order::{
    AskTerms, AuctionType, BidTerms, Order, OrderChannelType, OrderSide, OrderState, OrderVersion, OwnOrder,
    SubmittedOrder,
};
use tidegate_protocol::script::{SpendKind, classify_spend, find_output};
use tidegate_protocol::spend::{ClosePath, close_to_script, cooperative_transaction};
use tidegate_protocol::units::{BlockCount, BlockHeight, RatePerBillion, SatPerKw, Sats, UnitCount};

fn secret() -> impl Strategy<Value = SecretKey> {
    any::<[u8; 32]>().prop_filter_map("a valid secret key", |bytes| SecretKey::from_slice(&bytes).ok())
}

fn commitment() -> impl Strategy<Value = CommitmentType> {
    prop_oneof![
        Just(CommitmentType::Negotiated),
        Just(CommitmentType::ScriptEnforcedLease),
        Just(CommitmentType::SimpleTaproot)
    ]
}

fn version() -> impl Strategy<Value = AccountVersion> {
    prop_oneof![Just(AccountVersion::V0), Just(AccountVersion::V1), Just(AccountVersion::V2)]
}

fn auction() -> impl Strategy<Value = AuctionType> {
    prop_oneof![Just(AuctionType::Inbound), Just(AuctionType::Outbound)]
}

fn draft() -> impl Strategy<Value = Musig2Version> {
    prop_oneof![Just(Musig2Version::V040), Just(Musig2Version::V100Rc2)]
}

fn order(ask: bool, self_balance: Sats) -> Order {
    let account = SecretKey::from_slice(&[1; 32]).unwrap().public_key(&Secp256k1::new());
    Order {
        nonce: OrderNonce::new([7; 32]),
        version: OrderVersion::V5,
        account: tidegate_protocol::keys::AccountKey::new(account),
        auction: AuctionType::Inbound,
        rate: RatePerBillion::new(1000),
        amount: UnitCount::new(10).to_sats(),
        min_units: UnitCount::new(10),
        duration: BlockCount::new(2016),
        max_batch_fee_rate: SatPerKw::FLOOR,
        channel_type: OrderChannelType::PeerDependent,
        allowed_nodes: Vec::new(),
        denied_nodes: Vec::new(),
        public: false,
        side: match ask {
            true => OrderSide::Ask(AskTerms::default()),
            false => OrderSide::Bid(BidTerms { self_balance, ..BidTerms::default() }),
        },
    }
}

/// The order as its owner stores it, with this much left.
fn owned(order: Order, units_unfulfilled: UnitCount, fee_ceiling: ExecutionFee) -> OwnOrder {
    let locator = KeyLocator { family: 0, index: 0 };
    OwnOrder {
        multisig: KeyDescriptor { point: *order.account.point(), locator },
        order,
        preimage: None,
        state: OrderState::Submitted,
        units_unfulfilled,
        fee_ceiling,
        extension_quoted: BlockCount::new(0),
    }
}

fn account(terms: AccountTerms, value: Sats) -> Account {
    Account {
        terms,
        locator: KeyLocator { family: 220, index: 0 },
        value,
        state: AccountState::Open,
        height_hint: BlockHeight::new(0),
        outpoint: Some(OutPoint::null()),
        latest_tx: None,
    }
}

fn terms(version: AccountVersion, trader: &SecretKey, auctioneer: &SecretKey, expiry: u32) -> AccountTerms {
    let secp = Secp256k1::new();
    AccountTerms {
        version,
        trader: tidegate_protocol::keys::AccountKey::new(trader.public_key(&secp)),
        auctioneer: tidegate_protocol::keys::AuctioneerKey::new(auctioneer.public_key(&secp)),
        batch: BatchKey::new(trader.public_key(&secp)),
        secret: SharedSecret::new([9; 32]),
        expiry: BlockHeight::new(expiry),
    }
}

/// Always the same cases: a failure repeats by itself.
fn config() -> ProptestConfig {
    ProptestConfig { rng_seed: RngSeed::Fixed(20_261_122), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn batch_keys_step_forward_and_back(secret in secret()) {
        let key = BatchKey::new(secret.public_key(&Secp256k1::new()));
        if let Ok(next) = key.next() {
            prop_assert_eq!(next.prev(), Ok(key));
        }
        if let Ok(prev) = key.prev() {
            prop_assert_eq!(prev.next(), Ok(key));
        }
    }

    #[test]
    fn funding_script_ignores_the_order_of_keys(a in secret(), b in secret(), commitment in commitment()) {
        let secp = Secp256k1::new();
        let (a, b) = (MultisigKey::new(a.public_key(&secp)), MultisigKey::new(b.public_key(&secp)));
        prop_assert_eq!(funding_script(a, b, commitment), funding_script(b, a, commitment));
    }

    #[test]
    fn a_match_only_moves_money_to_the_channel_and_the_venue(
        auction in auction(), units in 1u32..5000, self_units in 0u32..5000, price in 0u32..2_000_000,
        duration in 144u32..52_560, base in 0u64..10_000, ppm in 0u64..20_000,
    ) {
        let terms = MatchTerms {
            auction,
            filled: UnitCount::new(units).to_sats(),
            self_balance: UnitCount::new(self_units).to_sats(),
            price: RatePerBillion::new(price),
            duration: BlockCount::new(duration),
        };
        let fee = ExecutionFee { base: Sats::constant(base), rate_ppm: ppm };
        let moved = terms.maker_delta(&fee).unwrap().checked_add(terms.taker_delta(&fee).unwrap()).unwrap();
        let capacity = terms.filled.checked_add(terms.self_balance).unwrap();
        let fees = terms.maker_execution_fee(&fee).unwrap().checked_add(terms.taker_execution_fee(&fee).unwrap()).unwrap();
        let everything = capacity.checked_add(fees).unwrap();
        prop_assert_eq!(moved.checked_add(everything.to_delta()).unwrap().get(), 0);
    }

    #[test]
    fn reserves_never_panic_and_archived_orders_reserve_nothing(
        ask: bool, auction in auction(), units: u32, min: u32, rate: u32, duration: u32, max: u64, self_balance in 0u64..2_100_000_000_000_000,
        base in 0u64..1_000_000, ppm: u64, version in version(),
    ) {
        let mut order = order(ask, Sats::constant(self_balance));
        order.auction = auction;
        order.min_units = UnitCount::new(min);
        order.rate = RatePerBillion::new(rate);
        order.duration = BlockCount::new(duration);
        order.max_batch_fee_rate = SatPerKw::new(max);
        let fee = ExecutionFee { base: Sats::constant(base), rate_ppm: ppm };
        let units = UnitCount::new(units);
        // A result is an amount, so it is not negative; whatever does not fit is an error.
        let _ = reserved_value(&order, units, OrderState::Submitted, &fee, version);
        prop_assert_eq!(reserved_value(&order, units, OrderState::Failed, &fee, version), Ok(Sats::ZERO));
    }

    #[test]
    fn a_bid_reserves_what_filling_it_at_once_costs(units in 1u32..5000, rate in 1u32..100_000, self_units in 0u32..100, version in version()) {
        let mut bid = order(false, UnitCount::new(self_units).to_sats());
        bid.rate = RatePerBillion::new(rate);
        bid.min_units = UnitCount::new(units);
        let fee = ExecutionFee { base: Sats::constant(1), rate_ppm: 1000 };
        let terms = MatchTerms {
            auction: bid.auction,
            filled: UnitCount::new(units).to_sats(),
            self_balance: bid.self_balance(),
            price: bid.rate,
            duration: bid.duration,
        };
        let chain = chain_fee(1, bid.max_batch_fee_rate, version).unwrap();
        let cost = terms.taker_delta(&fee).unwrap().checked_sub(chain.to_delta()).unwrap().checked_neg().unwrap();
        let reserved = reserved_value(&bid, UnitCount::new(units), OrderState::Submitted, &fee, version);
        prop_assert_eq!(reserved.unwrap().to_delta(), cost);
        let own = owned(bid, UnitCount::new(units), fee);
        prop_assert_eq!(reserved_for(&own, &fee, version).unwrap().to_delta(), cost);
    }

    #[test]
    fn chain_fees_rise_with_channels(channels in 0u32..10_000, rate in 253u64..1_000_000, version in version()) {
        let rate = SatPerKw::new(rate);
        prop_assert!(chain_fee(channels, rate, version).unwrap() < chain_fee(channels + 1, rate, version).unwrap());
    }

    #[test]
    fn both_drafts_sign_for_any_keys(draft in draft(), a in secret(), b in secret(), root: [u8; 32], message: [u8; 32], random: [u8; 32]) {
        let secp = Secp256k1::new();
        let keys = [a.public_key(&secp), b.public_key(&secp)];
        prop_assume!(keys[0] != keys[1]);
        prop_assert_eq!(aggregate(keys, draft), aggregate([keys[1], keys[0]], draft));
        let (first_nonce, first_public) = nonce_from(draft, random, &keys[0]).unwrap();
        let (second_nonce, second_public) = nonce_from(draft, random, &keys[1]).unwrap();
        let context = SigningContext { version: draft, keys, merkle_root: root, nonces: [second_public, first_public], message };
        let first = context.partial_sign(&a, first_nonce).unwrap();
        let second = context.partial_sign(&b, second_nonce).unwrap();
        prop_assert!(context.verify_partial(&keys[0], &first_public, &first));
        prop_assert!(context.verify_partial(&keys[1], &second_public, &second));
        prop_assert!(!context.verify_partial(&keys[1], &second_public, &first));
        prop_assert!(context.combine([first, second]).is_ok());
    }

    #[test]
    fn next_output_of_an_account_has_another_script(version in version(), a in secret(), b in secret(), expiry: u32) {
        let terms = terms(version, &a, &b, expiry);
        let next = terms.next().unwrap();
        prop_assert_ne!(terms.output_script().unwrap(), next.output_script().unwrap());
        prop_assert_eq!(terms.internal_key(), next.internal_key());
        let witness = terms.expiry_witness(&[1; 64]).unwrap();
        // Expiries from height 2^23 make a leaf longer than the network's classification knows.
        if expiry < 1 << 23 || version == AccountVersion::V0 {
            prop_assert_eq!(classify_spend(&witness), SpendKind::Expiry);
        }
    }

    #[test]
    fn closing_pays_everything_but_the_fee(version in version(), value in 100_000u64..1_000_000_000, rate in 253u64..50_000, best in 0u32..1_000_000) {
        let key = SecretKey::from_slice(&[3; 32]).unwrap();
        let account = account(terms(version, &key, &key, 500_000), Sats::constant(value));
        let to = ScriptBuf::new_p2tr(&Secp256k1::new(), key.x_only_public_key(&Secp256k1::new()).0, None);
        let expired = close_to_script(&account, to.clone(), SatPerKw::new(rate), ClosePath::Expiry(BlockHeight::new(best)));
        prop_assert_eq!(expired.is_ok(), best >= 500_000);
        let closed = close_to_script(&account, to.clone(), SatPerKw::new(rate), ClosePath::Cooperative).unwrap();
        prop_assert!(closed.output[0].value < Amount::from_sat(value));
        prop_assert_eq!(find_output(&closed, &to), Some(0));
        // The venue, given the outputs, makes the same transaction.
        prop_assert_eq!(cooperative_transaction(&account, closed.output.clone()), Ok(closed));
    }

    #[test]
    fn explicit_outputs_must_be_affordable_and_not_dust(value in 0u64..2_000_000) {
        let key = SecretKey::from_slice(&[3; 32]).unwrap();
        let account = account(terms(AccountVersion::V2, &key, &key, 500_000), Sats::constant(1_000_000));
        let script = ScriptBuf::new_p2tr(&Secp256k1::new(), key.x_only_public_key(&Secp256k1::new()).0, None);
        let spent = cooperative_transaction(&account, vec![TxOut { value: Amount::from_sat(value), script_pubkey: script }]);
        // 4 · 94 bytes + 2 + 66 weight units at 253 sat/kW.
        let fee = 112;
        prop_assert_eq!(spent.is_ok(), (330..=1_000_000 - fee).contains(&value), "{:?}", spent);
    }

    #[test]
    fn witnesses_and_backups_of_any_bytes_do_not_panic(elements: Vec<Vec<u8>>, bytes: Vec<u8>) {
        let _ = classify_spend(&Witness::from_slice(&elements));
        let key = SecretKey::from_slice(&[3; 32]).unwrap().public_key(&Secp256k1::new());
        prop_assert!(decrypt_and_parse(&key, &bytes).is_err());
    }

    #[test]
    fn only_the_accounts_key_signs_its_orders(ask: bool, rate in 1u32..u32::MAX, stranger in secret()) {
        let (secp, owner) = (Secp256k1::new(), SecretKey::from_slice(&[1; 32]).unwrap());
        let mut order = order(ask, Sats::ZERO);
        order.rate = RatePerBillion::new(rate);
        let message = Message::from_digest(sha256::Hash::hash(&order.digest()).to_byte_array());
        let signed = |key: &SecretKey| secp.sign_ecdsa(&message, key).serialize_der().to_vec();
        let (multisig, node) = (MultisigKey::new(*order.account.point()), NodeId::new(*order.account.point()));
        let mut order = SubmittedOrder { order, signature: signed(&owner), multisig, node, addresses: Vec::new() };
        prop_assert!(order.signature_is_valid());
        order.order.rate = RatePerBillion::new(rate - 1);
        prop_assert!(!order.signature_is_valid(), "another rate");
        order.order.rate = RatePerBillion::new(rate);
        order.signature = signed(&stranger);
        prop_assert_eq!(order.signature_is_valid(), stranger == owner);
    }

    #[test]
    fn orders_of_any_numbers_do_not_panic(ask: bool, auction in auction(), amount in 0u64..2_100_000_000_000_000, min: u32, rate: u32, duration: u32, fee: u64, signature: Vec<u8>) {
        let mut order = order(ask, Sats::constant(amount));
        order.auction = auction;
        order.amount = Sats::constant(amount);
        order.min_units = UnitCount::new(min);
        order.rate = RatePerBillion::new(rate);
        order.duration = BlockCount::new(duration);
        order.max_batch_fee_rate = SatPerKw::new(fee);
        let key = *order.account.point();
        let node = NodeId::new(key);
        let order = SubmittedOrder { order, signature, multisig: MultisigKey::new(key), node, addresses: Vec::new() };
        prop_assert!(!order.signature_is_valid());
        if order.order.is_ask() {
            prop_assert!(order.validate().is_err(), "an ask without address");
        }
    }
}
