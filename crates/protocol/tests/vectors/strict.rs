//! One row per reason of refusal: the complete batch, with one thing wrong. A test proves that no reason lacks a row.

use crate::batch::{decode_prepare, decode_sign};
use crate::local::Local;
use crate::support::{Entry, load_own};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_protocol::account::{Account, AccountState};
use tidegate_protocol::batch::{
    AccountDiff, BatchVersion, EndingState, Finalize, Match, Prepare, RejectReason, SignBegin,
};
use tidegate_protocol::bitcoin::absolute::LockTime;
use tidegate_protocol::bitcoin::hashes::Hash;
use tidegate_protocol::bitcoin::secp256k1::{Secp256k1, SecretKey};
use tidegate_protocol::bitcoin::transaction::Version;
use tidegate_protocol::bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, TxOut, Txid, Witness};
use tidegate_protocol::keys::{AccountKey, BatchKey, MultisigKey, OrderNonce};
use tidegate_protocol::musig2::PublicNonce;
use tidegate_protocol::order::{
    AnnouncementConstraint, AskTerms, AuctionType, BidTerms, ConfirmationConstraint, NodeTier, OrderChannelType,
    OrderSide, OrderState, OrderVersion, OwnOrder,
};
use tidegate_protocol::units::{BlockCount, BlockHeight, RatePerBillion, SatPerKw, Sats, UnitCount};
use tidegate_protocol::verify::{
    LocalView, MAX_RATING_AGE_SECONDS, NodeRating, UnverifiedTier, VerifyError, verify_finalize, verify_prepare,
    verify_sign,
};

/// The complete batch, to be broken in one place.
struct Scene {
    local: Local,
    prepare: Prepare,
    sign: SignBegin,
    names: BTreeMap<String, OrderNonce>,
}

impl Scene {
    fn read(file: &Value) -> Scene {
        let name = |order: &Value| (order.text("name").to_owned(), order.parse("nonce"));
        Scene {
            local: Local::read(file),
            prepare: decode_prepare(&file.bytes("prepare_msg")).unwrap(),
            sign: decode_sign(&file.bytes("sign_msg")).unwrap(),
            names: file.list("orders").iter().map(name).collect(),
        }
    }

    fn own(&mut self, name: &str) -> &mut OwnOrder {
        self.local.orders.get_mut(&self.names[name]).unwrap()
    }

    /// The matches of `ask1`: two bids, of 3 and 2 units; the first is script enforced and has a self balance.
    fn matches(&mut self) -> &mut Vec<Match> {
        self.matches_of("ask1")
    }

    fn matches_of(&mut self, name: &str) -> &mut Vec<Match> {
        let nonce = self.names[name];
        self.prepare.markets.values_mut().find_map(|market| market.orders.get_mut(&nonce)).unwrap()
    }

    fn bid(&mut self) -> &mut BidTerms {
        match &mut self.matches()[0].order.order.side {
            OrderSide::Bid(bid) => bid,
            OrderSide::Ask(_) => panic!("an ask"),
        }
    }

    fn ask_terms(&mut self) -> &mut AskTerms {
        match &mut self.own("ask1").order.side {
            OrderSide::Ask(ask) => ask,
            OrderSide::Bid(_) => panic!("a bid"),
        }
    }

    /// The change of the account behind `ask1`.
    fn diff(&mut self) -> &mut AccountDiff {
        let key = self.own("ask1").order.account;
        self.prepare.accounts.iter_mut().find(|diff| diff.account == key).unwrap()
    }

    /// The change of the account that ends.
    fn dust_diff(&mut self) -> &mut AccountDiff {
        self.prepare.accounts.iter_mut().find(|diff| diff.ending_state != EndingState::Recreated).unwrap()
    }

    fn account(&mut self) -> &mut Account {
        let key = self.own("ask1").order.account;
        self.local.accounts.get_mut(&key).unwrap()
    }

    fn input(&mut self) -> usize {
        let outpoint = self.account().outpoint;
        self.prepare.transaction.input.iter().position(|input| Some(input.previous_output) == outpoint).unwrap()
    }

    /// An input that is not ours, and its place.
    fn foreign_input(&self) -> usize {
        let ours: BTreeSet<_> = self.local.accounts.values().filter_map(|account| account.outpoint).collect();
        self.prepare.transaction.input.iter().position(|input| !ours.contains(&input.previous_output)).unwrap()
    }

    /// The previous output of our input.
    fn own_prev(&mut self) -> &mut TxOut {
        let input = self.input();
        &mut self.sign.prev_outputs[input]
    }

    /// The previous output of an input that is not ours.
    fn foreign_prev(&mut self) -> &mut TxOut {
        let input = self.foreign_input();
        &mut self.sign.prev_outputs[input]
    }

    fn taproot_account(&self) -> AccountKey {
        *self.sign.server_nonces.keys().next().unwrap()
    }
}

fn stranger() -> MultisigKey {
    MultisigKey::new(SecretKey::from_slice(&[0x77; 32]).unwrap().public_key(&Secp256k1::new()))
}

type Row = (&'static str, fn(&mut Scene));

/// Reason → what is broken.
const PREPARE: &[Row] = &[
    ("BatchVersion", |s| s.prepare.batch_version = BatchVersion(0)),
    ("Height", |s| s.local.best_height = BlockHeight::new(0)),
    ("UnknownOrder", |s| drop(s.local.orders.remove(&s.names["ask1"]))),
    ("UnknownAccount", |s| s.local.accounts.clear()),
    ("AccountState", |s| s.account().state = AccountState::Expired),
    ("AccountExpired", |s| s.account().terms.expiry = s.local.best_height),
    ("AccountExpired", |s| {
        s.account().state = AccountState::PendingBatch;
        s.account().terms.expiry = BlockHeight::new(1);
    }),
    ("AccountWithoutOutput", |s| s.account().outpoint = None),
    ("OrderArchived", |s| s.own("ask1").state = OrderState::Canceled),
    ("NothingOfOurs", |s| s.prepare.markets.clear()),
    ("NoMatch", |s| s.matches().clear()),
    ("SameSide", |s| s.matches()[0].order.order.side = OrderSide::Ask(AskTerms::default())),
    ("AuctionType", |s| s.matches()[0].order.order.auction = AuctionType::Outbound),
    ("OwnNode", |s| s.matches()[0].order.node = s.local.node),
    ("OwnAccount", |s| s.matches()[0].order.order.account = s.own("ask2").order.account),
    ("OwnOrder", |s| s.matches()[0].order.order.nonce = s.names["bid1"]),
    ("OwnKey", |s| s.matches()[0].order.multisig = MultisigKey::new(s.own("ask1").multisig.point)),
    ("OwnKey", |s| s.matches()[0].order.multisig = MultisigKey::new(s.own("bid2").multisig.point)),
    ("Duration", |s| s.matches()[0].order.order.duration = BlockCount::new(4032)),
    ("Duration", |s| s.own("ask1").order.duration = BlockCount::new(4032)),
    ("Price", |s| s.matches()[0].order.order.rate = RatePerBillion::new(1)),
    ("ChannelType", |s| s.own("ask1").order.channel_type = OrderChannelType::SimpleTaproot),
    ("Announcement", |s| s.ask_terms().announcement = AnnouncementConstraint::OnlyUnannounced),
    ("Confirmation", |s| s.ask_terms().confirmation = ConfirmationConstraint::OnlyZeroConf),
    ("SelfBalanceOnOldAsk", |s| s.own("ask1").order.version = OrderVersion::V3),
    ("SelfBalanceOnOldAsk", |s| {
        bid_terms(s.own("bid1")).self_balance = Sats::constant(1);
        s.matches_of("bid1")[0].order.order.version = OrderVersion::V2;
    }),
    ("OwnKey", |s| s.matches()[0].order.multisig = MultisigKey::new(*s.account().key().point())),
    ("OwnKey", |s| s.matches()[0].order.multisig = MultisigKey::new(*s.local.node.point())),
    ("TheirLimit", |s| s.matches()[0].order.order.rate = RatePerBillion::new(4_500)),
    ("EmptyMatch", |s| s.matches()[0].units = UnitCount::ZERO),
    ("MatchBelowMinimum", |s| s.own("ask1").order.min_units = UnitCount::new(4)),
    ("OutboundMinimum", |s| {
        let own = &mut s.own("ask2").order;
        (own.auction, own.min_units) = (AuctionType::Outbound, UnitCount::new(2));
        s.matches_of("ask2")[0].order.order.auction = AuctionType::Outbound;
    }),
    ("TheirMinimum", |s| s.matches()[1].order.order.min_units = UnitCount::new(3)),
    ("TheirAmount", |s| s.matches()[0].order.order.amount = Sats::constant(299_999)),
    ("SamePairTwice", |s| {
        let again = s.matches()[0].clone();
        s.matches().push(again);
    }),
    ("ChannelOutputMissing", |s| s.matches()[0].order.multisig = stranger()),
    ("ChannelOutputValue", |s| s.matches()[0].units = UnitCount::new(2)),
    ("ChannelOutputShared", |s| {
        let mut again = s.matches()[0].clone();
        again.order.order.nonce = OrderNonce::new([1; 32]);
        s.matches().push(again);
    }),
    ("ClearingPrice", |s| {
        s.prepare.markets.values_mut().for_each(|market| market.clearing_price = RatePerBillion::new(1))
    }),
    ("OutputTwice", |s| {
        let index = s.prepare.transaction.output.iter().position(|output| output.value.to_sat() == 350_000).unwrap();
        let again = s.prepare.transaction.output[index].clone();
        s.prepare.transaction.output.push(again);
    }),
    ("OutputTwice", |s| {
        let index = usize::try_from(s.diff().output_index.unwrap()).unwrap();
        let again = s.prepare.transaction.output[index].clone();
        s.prepare.transaction.output.push(again);
    }),
    ("Overfilled", |s| s.own("ask1").units_unfulfilled = UnitCount::new(4)),
    ("FeeRate", |s| s.own("ask1").order.max_batch_fee_rate = SatPerKw::new(s.prepare.fee_rate.get() - 1)),
    ("ExecutionFeeBase", |s| s.own("ask1").fee_ceiling.base = Sats::ZERO),
    ("ExecutionFeeRate", |s| s.own("ask1").fee_ceiling.rate_ppm = 999),
    ("DiffForUninvolved", |s| s.diff().account = AccountKey::new(*stranger().point())),
    ("DiffTwice", |s| {
        let again = *s.diff();
        s.prepare.accounts.push(again);
    }),
    ("DiffMissing", |s| s.prepare.accounts.truncate(s.prepare.accounts.len() - 1)),
    ("EndingBalance", |s| s.diff().ending_balance = Sats::constant(1_000_000)),
    ("ExpiryNotLater", |s| s.diff().new_expiry = Some(s.account().terms.expiry)),
    ("ExpiryTooFar", |s| s.diff().new_expiry = s.local.best_height.checked_add(BlockCount::new(52_561))),
    ("ExtensionTooLong", |s| {
        s.local.extension = BlockCount::new(0);
        s.local.orders.values_mut().for_each(|own| own.extension_quoted = BlockCount::new(0));
    }),
    ("AccountVersion", |s| s.diff().new_version = 3),
    ("DustState", |s| s.dust_diff().ending_state = EndingState::Recreated),
    ("DustIndex", |s| s.dust_diff().output_index = Some(0)),
    ("NotRecreated", |s| s.diff().ending_state = EndingState::FullySpent),
    ("OutputIndexMissing", |s| s.diff().output_index = None),
    ("OutputIndexRange", |s| s.diff().output_index = Some(u32::MAX)),
    ("OutputValue", |s| s.diff().output_index = Some(0)),
    ("OutputScript", |s| s.diff().new_expiry = s.local.best_height.checked_add(BlockCount::new(52_560))),
    ("OutputScript", |s| s.diff().new_version = 1),
    ("TransactionVersion", |s| s.prepare.transaction.version = Version::ONE),
    ("LockTime", |s| s.prepare.transaction.lock_time = LockTime::from_consensus(1)),
    ("Sequence", |s| s.prepare.transaction.input[0].sequence = Sequence::MAX),
    ("NotUnsigned", |s| s.prepare.transaction.input[0].witness = Witness::from_slice(&[[1]])),
    ("NotUnsigned", |s| s.prepare.transaction.input[0].script_sig = ScriptBuf::from_bytes(vec![0x51])),
    ("TransactionWeight", |s| {
        let script_pubkey = ScriptBuf::from_bytes(vec![0x51; 1_000_000]);
        s.prepare.transaction.output.push(TxOut { value: Amount::ONE_BTC, script_pubkey });
    }),
    ("InputOrder", |s| s.prepare.transaction.input.swap(0, 1)),
    ("OutputOrder", |s| {
        s.prepare.transaction.output.push(TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::new_p2a() })
    }),
    ("InputTwice", |s| {
        let input = s.input();
        let again = s.prepare.transaction.input[input].clone();
        s.prepare.transaction.input.push(again);
    }),
    ("OutputSum", |s| {
        let all = TxOut { value: Amount::MAX_MONEY, script_pubkey: ScriptBuf::new() };
        s.prepare.transaction.output.push(all);
    }),
    ("OwnInputMissing", |s| {
        let input = s.input();
        s.prepare.transaction.input.remove(input);
    }),
    ("OwnInputSpent", |s| {
        let mut account = s.account().clone();
        account.terms.trader = AccountKey::new(*stranger().point());
        account.outpoint = Some(s.prepare.transaction.input[s.foreign_input()].previous_output);
        s.local.accounts.insert(account.key(), account);
    }),
    ("NodeRefused", |s| {
        let node = s.matches()[1].order.node;
        s.own("ask1").order.denied_nodes.push(node);
    }),
    ("Arithmetic", |s| s.bid().self_balance = Sats::MAX),
    ("Arithmetic", |s| s.prepare.fee_rate = SatPerKw::new(u64::MAX)),
];

const SIGN: &[Row] = &[
    ("BatchId", |s| s.sign.batch_id.truncate(32)),
    ("UnknownAccount", |s| s.local.accounts.clear()),
    ("AccountChanged", |s| s.account().outpoint = Some(OutPoint::null())),
    ("OrderArchived", |s| s.own("ask1").state = OrderState::Canceled),
    ("UnknownOrder", |s| drop(s.local.orders.remove(&s.names["ask1"]))),
    ("AccountState", |s| s.account().state = AccountState::PendingClosed),
    ("AccountExpired", |s| s.local.best_height = BlockHeight::new(u32::MAX)),
    ("PrevOutputCount", |s| drop(s.sign.prev_outputs.pop())),
    ("PrevOutputValue", |s| s.own_prev().value += Amount::ONE_SAT),
    ("PrevOutputScript", |s| s.own_prev().script_pubkey = ScriptBuf::new_p2a()),
    ("PrevOutputNotWitness", |s| s.foreign_prev().script_pubkey = ScriptBuf::from_bytes(vec![0x51])),
    ("InputSum", |s| s.foreign_prev().value = Amount::ZERO),
    ("InputSum", |s| s.foreign_prev().value = Amount::MAX),
    ("NonceMissing", |s| assert!(s.sign.server_nonces.remove(&s.taproot_account()).is_some())),
    ("NonceInvalid", |s| assert!(s.sign.server_nonces.insert(s.taproot_account(), PublicNonce([0; 66])).is_some())),
];

/// The name of a reason.
fn variant(error: &VerifyError) -> String {
    let text = format!("{error:?}");
    text.split(|letter: char| !letter.is_alphanumeric()).next().unwrap().to_owned()
}

/// Applies a change that reads other parts of the scene first.
fn broken(file: &Value, row: &Row) -> Scene {
    let mut scene = Scene::read(file);
    row.1(&mut scene);
    scene
}

#[test]
fn each_broken_proposal_is_refused_for_its_reason() {
    let file = load_own("batch_accept.json");
    for row in PREPARE {
        let mut scene = broken(&file, row);
        // An order's limit on the fee rate comes before the sum that overflows.
        if scene.prepare.fee_rate == SatPerKw::new(u64::MAX) {
            scene.local.orders.values_mut().for_each(|own| own.order.max_batch_fee_rate = scene.prepare.fee_rate);
        }
        let refused = verify_prepare(&scene.local.view(), &scene.prepare).expect_err(row.0);
        assert_eq!(variant(&refused), row.0, "{refused}");
        assert!(!refused.to_string().is_empty());
    }
}

/// A reason whose numbers are mixed up would send whoever reads it the wrong way.
#[test]
fn reasons_say_what_was_expected_and_found() {
    let file = load_own("batch_accept.json");
    let mut honest = Scene::read(&file);
    let refused = |change: fn(&mut Scene)| {
        let mut scene = Scene::read(&file);
        change(&mut scene);
        verify_prepare(&scene.local.view(), &scene.prepare).unwrap_err()
    };
    let order = honest.names["ask1"];
    let (rate, old) = (honest.own("ask1").order.rate, honest.account().terms.expiry);
    let (diff, others) = (*honest.diff(), honest.matches().clone());
    let (theirs, account) = (others[0].order.order.nonce, diff.account);
    let Prepare { fee_rate, execution_fee, height_hint, batch_version, .. } = honest.prepare;
    let (first, best) = (honest.prepare.transaction.output[0].value, honest.local.best_height);
    let ahead = |blocks| best.checked_add(BlockCount::new(blocks)).unwrap();

    let found = refused(|s| s.prepare.batch_version = BatchVersion(0));
    assert_eq!(found, VerifyError::BatchVersion { expected: batch_version, found: BatchVersion(0) });
    let found = refused(|s| s.local.best_height = BlockHeight::new(0));
    assert_eq!(found, VerifyError::Height { best: BlockHeight::new(0), found: height_hint });
    let found = refused(|s| s.own("ask1").order.max_batch_fee_rate = SatPerKw::FLOOR);
    assert_eq!(found, VerifyError::FeeRate { order, expected: SatPerKw::FLOOR, found: fee_rate });
    let found = refused(|s| s.own("ask1").fee_ceiling.base = Sats::ZERO);
    assert_eq!(found, VerifyError::ExecutionFeeBase { order, expected: Sats::ZERO, found: execution_fee.base });
    let found = refused(|s| s.own("ask1").fee_ceiling.rate_ppm = 999);
    assert_eq!(found, VerifyError::ExecutionFeeRate { order, expected: 999, found: execution_fee.rate_ppm });
    let found = refused(|s| s.diff().ending_balance = Sats::constant(1_000_000));
    let expected = diff.ending_balance.to_delta();
    assert_eq!(found, VerifyError::EndingBalance { account, expected, found: Sats::constant(1_000_000) });
    let found = refused(|s| s.diff().output_index = Some(0));
    assert_eq!(found, VerifyError::OutputValue { account, expected: diff.ending_balance, found: first });
    let found = refused(|s| {
        s.prepare.markets.values_mut().for_each(|market| market.clearing_price = RatePerBillion::new(1));
        s.matches().iter_mut().for_each(|matched| matched.order.order.rate = RatePerBillion::new(1_000_000));
    });
    assert!(matches!(found, VerifyError::ClearingPrice { found, .. } if found == RatePerBillion::new(1)), "{found}");
    let found = refused(|s| s.matches()[0].order.order.rate = RatePerBillion::new(1));
    assert_eq!(found, VerifyError::Price { ask: rate, bid: RatePerBillion::new(1) });
    let found = refused(|s| s.own("ask1").units_unfulfilled = UnitCount::new(4));
    assert_eq!(found, VerifyError::Overfilled { order, expected: 4, found: 5 });
    let found = refused(|s| s.own("ask1").order.min_units = UnitCount::new(4));
    assert_eq!(found, VerifyError::MatchBelowMinimum { order, expected: 4, found: 3 });
    let found = refused(|s| s.matches()[0].order.order.amount = Sats::constant(299_999));
    assert_eq!(found, VerifyError::TheirAmount { ours: order, theirs, expected: 2, found: 3 });
    let found = refused(|s| s.diff().new_expiry = Some(s.account().terms.expiry));
    assert_eq!(found, VerifyError::ExpiryNotLater { account, expected: old, found: old });
    let found = refused(|s| s.diff().new_expiry = s.local.best_height.checked_add(BlockCount::new(52_561)));
    assert_eq!(found, VerifyError::ExpiryTooFar { account, expected: ahead(52_560), found: ahead(52_561) });
    let found = refused(|s| s.ask_terms().announcement = AnnouncementConstraint::OnlyUnannounced);
    let expected = AnnouncementConstraint::OnlyUnannounced;
    assert_eq!(found, VerifyError::Announcement { ours: order, theirs, expected, found: false });
    let found = refused(|s| s.ask_terms().confirmation = ConfirmationConstraint::OnlyZeroConf);
    let expected = ConfirmationConstraint::OnlyZeroConf;
    assert_eq!(found, VerifyError::Confirmation { ours: order, theirs, expected, found: false });
}

#[test]
fn each_broken_request_to_sign_is_refused_for_its_reason() {
    let file = load_own("batch_accept.json");
    let honest = Scene::read(&file);
    let batch = verify_prepare(&honest.local.view(), &honest.prepare).unwrap();
    assert_eq!(verify_sign(&honest.local.view(), &batch, &honest.sign), Ok(()));
    for row in SIGN {
        let scene = broken(&file, row);
        let refused = verify_sign(&scene.local.view(), &batch, &scene.sign).expect_err(row.0);
        assert_eq!(variant(&refused), row.0, "{refused}");
    }
}

/// An account trades in the last block before its expiry, with the output that the batch then makes of it.
#[test]
fn an_account_trades_until_its_expiry() {
    let file = load_own("batch_accept.json");
    let mut scene = Scene::read(&file);
    let key = scene.account().key();
    let best = scene.local.best_height;
    // The venue counts its extension from the height, so the output that it proposes stays the same.
    assert!(scene.diff().new_expiry.is_some(), "the batch extends the account");
    scene.account().terms.expiry = best.checked_add(BlockCount::new(1)).unwrap();
    let batch = verify_prepare(&scene.local.view(), &scene.prepare).unwrap();
    assert!(batch.accounts()[&key].after.terms.expiry > best);
    scene.account().terms.expiry = best;
    let refused = verify_prepare(&scene.local.view(), &scene.prepare).unwrap_err();
    assert_eq!(refused, VerifyError::AccountExpired { account: key, expiry: best, best });
    assert_eq!(refused.reject_reason(), RejectReason::Unknown);
}

#[test]
fn only_the_verified_transaction_is_final() {
    let file = load_own("batch_accept.json");
    let scene = Scene::read(&file);
    let batch = verify_prepare(&scene.local.view(), &scene.prepare).unwrap();
    let batch_id = scene.prepare.batch_id.serialize().to_vec();
    let txid = scene.prepare.transaction.compute_txid();
    let mut reversed = txid.to_byte_array();
    reversed.reverse();
    for txid in [txid, Txid::from_byte_array(reversed)] {
        assert_eq!(verify_finalize(&batch, &Finalize { batch_id: batch_id.clone(), txid }), Ok(()));
    }
    let other = Finalize { batch_id: batch_id.clone(), txid: Txid::all_zeros() };
    assert_eq!(
        verify_finalize(&batch, &other).map_err(|error| variant(&error)),
        Err("FinalizedTransaction".to_owned())
    );
    let next = BatchKey::from_slice(&batch_id).unwrap().next().unwrap().serialize().to_vec();
    let other = Finalize { batch_id: next, txid };
    assert_eq!(verify_finalize(&batch, &other).map_err(|error| variant(&error)), Err("BatchId".to_owned()));
}

#[test]
fn a_badly_rated_node_is_refused_for_our_bid_only() {
    let file = load_own("batch_accept.json");
    let mut scene = Scene::read(&file);
    let maker = scene.matches_of("bid3")[0].order.node;
    let taker = scene.matches_of("ask2")[0].order.node;
    bid_terms(scene.own("bid3")).min_node_tier = NodeTier::Tier1;
    let bid3 = scene.names["bid3"];
    let fresh = MAX_RATING_AGE_SECONDS - 1;
    // Node, tier, age, whether unrated nodes are refused → reason, or whether the maker's tier stays unverified.
    let rows = [
        (maker, NodeTier::Tier1, fresh, true, Ok(false)),
        (maker, NodeTier::Tier0, fresh, false, Err("NodeTier")),
        (maker, NodeTier::Tier0, fresh + 1, false, Ok(true)),
        (maker, NodeTier::Tier1, fresh + 1, false, Ok(true)),
        (maker, NodeTier::Tier1, fresh + 1, true, Err("NodeUnrated")),
        (taker, NodeTier::Tier0, 0, false, Ok(true)),
        (taker, NodeTier::Tier0, 0, true, Err("NodeUnrated")),
    ];
    for own in scene.local.orders.values_mut().filter(|own| own.order.nonce != bid3 && !own.order.is_ask()) {
        bid_terms(own).min_node_tier = NodeTier::Tier0;
    }
    for (node, tier, age_seconds, reject_unrated, expected) in rows {
        scene.local.ratings = BTreeMap::from([(node, NodeRating { tier, age_seconds })]);
        let view = LocalView { reject_unrated, ..scene.local.view() };
        let found = verify_prepare(&view, &scene.prepare).map(|batch| batch.unverified_tiers().to_vec());
        let expected = expected
            .map(|unverified| if unverified { vec![UnverifiedTier { order: bid3, node: maker }] } else { Vec::new() });
        assert_eq!(found.map_err(|error| variant(&error)), expected.map_err(str::to_owned), "{tier:?} {age_seconds}");
    }
}

fn bid_terms(own: &mut OwnOrder) -> &mut BidTerms {
    match &mut own.order.side {
        OrderSide::Bid(bid) => bid,
        OrderSide::Ask(_) => panic!("an ask"),
    }
}

/// One bit of every byte of the proposal: nothing panics, and what is still accepted costs and yields the same.
#[test]
fn a_flipped_bit_never_changes_money() {
    let file = load_own("batch_accept.json");
    let scene = Scene::read(&file);
    let honest = verify_prepare(&scene.local.view(), &scene.prepare).unwrap();
    let message = file.bytes("prepare_msg");
    let mut accepted = 0;
    for place in 0..message.len() {
        let mut flipped = message.clone();
        flipped[place] ^= 1 << (place % 8);
        let Ok(prepare) = decode_prepare(&flipped) else { continue };
        let Ok(batch) = verify_prepare(&scene.local.view(), &prepare) else { continue };
        accepted += 1;
        assert_eq!(batch.orders(), honest.orders(), "byte {place}");
        for (key, ending) in batch.accounts() {
            let expected = &honest.accounts()[key].after;
            assert_eq!((ending.after.value, ending.after.terms), (expected.value, expected.terms), "byte {place}");
        }
        for (found, expected) in batch.matches().iter().zip(honest.matches()) {
            assert_eq!(found.shim.capacity, expected.shim.capacity, "byte {place}");
            assert_eq!(found.shim.remote_key, expected.shim.remote_key, "byte {place}");
            assert_eq!(
                (found.premium, found.execution_fee),
                (expected.premium, expected.execution_fee),
                "byte {place}"
            );
        }
    }
    println!("batch_accept.json: {} flipped bits, {accepted} of them without consequence", message.len());
    assert!(accepted < message.len() / 2);
}

/// No two of the curve's keys that anybody can find cancel each other out.
const WITHOUT_ROW: [&str; 1] = ["Key"];
const IN_TESTS_OF_THEIR_OWN: [&str; 3] = ["NodeTier", "NodeUnrated", "FinalizedTransaction"];

#[test]
fn no_reason_lacks_a_row() {
    let source = include_str!("../../src/verify/error.rs");
    let body = source.split_once("pub enum VerifyError {").unwrap().1.split_once("\n}").unwrap().0;
    let named = |line: &str| {
        let name = line.strip_prefix("    ")?.split(['(', ' ', ',', '{']).next()?;
        name.starts_with(char::is_uppercase).then(|| name.to_owned())
    };
    let reasons: BTreeSet<String> = body.lines().filter_map(named).collect();
    let rows = PREPARE.iter().chain(SIGN).map(|row| row.0).chain(WITHOUT_ROW).chain(IN_TESTS_OF_THEIR_OWN);
    let covered: BTreeSet<String> = rows.map(str::to_owned).collect();
    assert_eq!(reasons, covered);
}
