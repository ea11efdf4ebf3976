//! The five security promises of the market, each kept by the real flows: venue, traders, nodes and chain as in a daemon.
//!
//! # Source
//! "Economics and security model", section D, number 21.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[allow(dead_code, reason = "shared with other tests, which look at more")]
mod rig;

#[path = "promises/changes.rs"]
mod changes;

use std::collections::BTreeMap;

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash as _;
use bitcoin::{OutPoint, ScriptBuf, Transaction, TxOut, WPubkeyHash};
use changes::unrefused;
use rig::{DURATION, Market, in_a_runtime};
use tidegate_ports::{
    LinkError, ScriptSpend, ServerMessage, SignInput, Signer as _, Submission, VenueLink as _, Wallet as _,
};
use tidegate_protocol::account::{Account, AccountState, AccountVersion};
use tidegate_protocol::batch::{EndingState, Finalize, Prepare, SignBegin};
use tidegate_protocol::channel::CommitmentType;
use tidegate_protocol::keys::{
    FAMILY_AUCTIONEER, KeyDescriptor, KeyLocator, MultisigKey, NodeId, OrderNonce, OrderPreimage,
};
use tidegate_protocol::order::{
    AnnouncementConstraint, AskTerms, BidTerms, ConfirmationConstraint, NodeTier, OrderChannelType, OrderSide,
};
use tidegate_protocol::spend::{ClosePath, close_to_script};
use tidegate_protocol::units::{BlockCount, BlockHeight, RatePerBillion, SatPerKw, Sats, UnitCount};
use tidegate_protocol::verify::{LocalView, NodeRating, verify_finalize, verify_prepare, verify_sign};
use tidegate_sandbox::{SandboxNode, TxRefusal};
use tidegate_trader::{CloseError, NewOrder, Status};
use tidegate_wire::poolrpc::client_auction_message::Msg;
use tidegate_wire::poolrpc::{
    OrderChannelType as WireChannelType, ServerSubmitOrderRequest, server_submit_order_request,
};

const VERSIONS: [AccountVersion; 3] = [AccountVersion::V0, AccountVersion::V1, AccountVersion::V2];
const ACCOUNT_SATS: u64 = 5_000_000;

/// Where a thief would like to have the money.
fn thief() -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([7; 20]))
}

fn point(account: &Account) -> OutPoint {
    account.outpoint.expect("it is funded")
}

// 1. "Funds stay under the user's control."

/// A spend of the account to the thief, signed by the venue's node alone, in each way that its script knows.
async fn stolen(venue: &SandboxNode, account: &Account, lock: BlockHeight) -> Vec<Transaction> {
    let best = account.terms.expiry;
    let mut transaction = close_to_script(account, thief(), SatPerKw::new(500), ClosePath::Expiry(best)).unwrap();
    transaction.lock_time = LockTime::from_height(lock.get()).unwrap();
    let terms = &account.terms;
    let script = terms.inner_script().unwrap();
    let spend = match terms.version {
        AccountVersion::V0 => ScriptSpend::SegwitV0 { script },
        AccountVersion::V1 | AccountVersion::V2 => ScriptSpend::Tapscript { leaf: script },
    };
    let locator = KeyLocator { family: FAMILY_AUCTIONEER, index: 0 };
    let request = SignInput {
        transaction: transaction.clone(),
        input: 0,
        prev_outputs: vec![terms.output(account.value).unwrap()],
        key: KeyDescriptor { point: *terms.auctioneer.point(), locator },
        tweak: terms.auctioneer_tweak().unwrap(),
        spend,
    };
    let signature = venue.sign_input(&request).await.expect("the venue has this key");
    let mut witnesses = vec![terms.expiry_witness(&signature).unwrap()];
    match terms.version {
        AccountVersion::V0 => witnesses.push(terms.cooperative_witness_v0(&signature, &signature).unwrap()),
        AccountVersion::V1 | AccountVersion::V2 => witnesses.push(bitcoin::Witness::from_slice(&[&signature])),
    }
    let with = |witness| {
        let mut transaction = transaction.clone();
        transaction.input[0].witness = witness;
        transaction
    };
    witnesses.into_iter().map(with).collect()
}

/// The chain refuses what the venue signs alone, whatever the height.
async fn the_venue_alone_gets_nothing(market: &Market, account: &Account) {
    for lock in [BlockHeight::new(0), market.world.height(), account.terms.expiry] {
        for transaction in stolen(&market.venue_node, account, lock).await {
            let refused = market.world.publish(&transaction).expect_err("the trader did not sign");
            assert!(matches!(refused, TxRefusal::Script(_) | TxRefusal::NotFinal { .. }), "{refused}");
        }
    }
    assert!(market.world.utxo(point(account)).is_some(), "it is where it was");
}

/// Without the venue the owner waits for the expiry, and then leaves alone.
async fn the_owner_leaves_alone(market: &Market, name: &str) {
    let account = market.account(name).await;
    let early = market.handle(name).close_account(rig::close(account.key())).await;
    assert!(matches!(early, Err(CloseError::Venue(LinkError::Unreachable { .. }))), "{early:?}");
    assert_eq!(market.account(name).await, account, "nothing changed");
    the_venue_alone_gets_nothing(market, &account).await;

    market.mine(account.terms.expiry.get() - market.world.height().get()).await;
    the_venue_alone_gets_nothing(market, &account).await;
    let expired = async || market.account(name).await.state == AccountState::Expired;
    market.until("the account is expired", expired).await;
    let before = market.node(name).confirmed_balance().await.unwrap();
    let txid = market.handle(name).close_account(rig::close(account.key())).await.expect("nobody else is needed");
    market.mine(6).await;
    let closed = async || market.account(name).await.state == AccountState::Closed;
    market.until("the account is closed", closed).await;
    let (spender, height) = market.world.spender(point(&account)).expect("it is spent");
    assert_eq!((spender.compute_txid(), height.is_some()), (txid, true));
    let gained = market.node(name).confirmed_balance().await.unwrap().checked_sub(before).expect("it grew");
    let fee = account.value.checked_sub(gained).expect("not more than there was");
    assert!(fee < Sats::constant(1_000), "all but the chain fee came back: {fee}");
}

#[test]
fn promise_1_funds_stay_under_the_users_control() {
    in_a_runtime(async {
        for version in VERSIONS {
            let mut market = Market::open(1).await;
            market.join(&["anna"], ACCOUNT_SATS, version).await;
            market.close_the_venue().await;
            let gone = async || !market.status("anna").await.connected;
            market.until("the venue is gone", gone).await;
            the_owner_leaves_alone(&market, "anna").await;
        }
    });
}

// 2. "A match yields a channel that fits the order."

/// Both sides hold the same channel, as both orders said it.
async fn assert_channel_fits(market: &Market, ask: OrderNonce, bid: OrderNonce, self_balance: Sats) {
    let (seller, buyer) = (market.status("anna").await, market.status("carla").await);
    let sold = seller.leases.iter().find(|lease| (lease.ours, lease.theirs) == (ask, bid)).expect("anna sold");
    let bought = buyer.leases.iter().find(|lease| (lease.ours, lease.theirs) == (bid, ask)).expect("carla bought");
    assert_eq!((sold.maker, bought.maker, sold.channel), (true, false, bought.channel));
    let order = |status: &Status, nonce| status.orders.iter().find(|own| own.order.nonce == nonce).unwrap().clone();
    let (ask, bid) = (order(&seller, ask), order(&buyer, bid));
    // Nobody pays more or gets less than the limit, both pay the same price.
    assert_eq!(sold.clearing_price, bought.clearing_price);
    assert!((ask.order.rate..=bid.order.rate).contains(&sold.clearing_price));
    assert_eq!((sold.units.to_sats(), sold.duration), (bid.order.amount, bid.order.duration));

    let capacity = sold.units.to_sats().checked_add(self_balance).unwrap();
    let output = market.world.utxo(sold.channel).expect("the funding output is on the chain");
    assert_eq!(output.value, capacity.into());
    let of = |name: &str| {
        let records = market.node(name).channel_records();
        records.into_iter().find(|record| record.channel_point == sold.channel).expect("the node has the channel")
    };
    let (ours, theirs) = (of("anna"), of("carla"));
    for record in [&ours, &theirs] {
        assert_eq!((record.capacity, record.push, &record.script), (capacity, self_balance, &output.script_pubkey));
        assert!(!record.abandoned && !record.zero_conf);
        assert_eq!(record.private, bid.order.bid().unwrap().unannounced);
        let expected = CommitmentType::of_pair(ask.order.channel_type, bid.order.channel_type);
        assert_eq!(record.commitment, expected);
        let thaw = expected.thaw_height(DURATION, sold.height).unwrap();
        assert!(record.thaw_height.abs_diff(thaw) <= 3, "leased for the duration: {} and {thaw}", record.thaw_height);
    }
    assert_eq!((ours.initiator, theirs.initiator), (true, false), "the seller opens");
    assert_eq!((ours.peer, theirs.peer), (market.node("carla").id(), market.node("anna").id()));
}

/// Makes `anna` hear this at the next batch, once.
fn propose_to_anna(market: &Market, edit: impl Fn(&mut Prepare) + Send + 'static) {
    market.meddler.lie(move |trader, mut message| {
        if let ("anna", ServerMessage::Prepare(prepare)) = (trader, &mut message) {
            edit(prepare);
        }
        vec![message]
    });
}

/// A batch is tried; anna says no for this reason and signs nothing, and all that is hers is as it was.
///
/// The reason tells which check refused: without that check another layer might refuse as well, later and by chance.
async fn assert_anna_refuses(market: &Market, what: &str, why: &str) {
    let (before, mark) = (market.status("anna").await, market.meddler.mark());
    let channels = market.node("anna").channel_records();
    let outcome = market.tick().await;
    market.meddler.be_honest();
    assert_eq!(outcome.cleared, None, "{what}");
    let said = market.meddler.said("anna", mark);
    let reasons: Vec<&str> = said.iter().filter_map(reason).collect();
    assert!(!reasons.is_empty() && reasons.iter().all(|reason| fits(reason, why)), "{what}: {reasons:?} for {why:?}");
    assert!(!said.iter().any(|message| matches!(message, Msg::Sign(_))), "{what}: {said:?}");
    let after = market.status("anna").await;
    assert_eq!((&after.accounts, &after.orders), (&before.accounts, &before.orders), "{what}");
    assert_eq!((after.leases.len(), after.pending_batches.len()), (before.leases.len(), 0), "{what}");
    assert_eq!(market.node("anna").channel_records(), channels, "{what}");
    for account in &after.accounts {
        assert!(market.world.utxo(point(account)).is_some(), "{what}: the account is unspent");
    }
    // The venue keeps nodes apart for a while whose channel failed.
    market.clock.advance(2 * 3_600_000);
}

/// What a trader says to refuse a proposal.
fn reason(message: &Msg) -> Option<&str> {
    match message {
        Msg::Reject(reject) => Some(&reject.reason),
        _ => None,
    }
}

/// Whether a sentence has these parts, in order; `…` stands between them for names and numbers.
fn fits(sentence: &str, pattern: &str) -> bool {
    let after = |rest: &str, part: &str| rest.find(part).map(|at| rest[at + part.len()..].to_owned());
    pattern.split('…').try_fold(sentence.to_owned(), |rest, part| after(&rest, part)).is_some()
}

#[test]
fn a_pattern_tells_reasons_apart() {
    assert!(fits("order ab wants SimpleTaproot, but the pair gives Legacy", "order … wants … but the pair gives"));
    for pattern in ["but … wants", "order … excludes node", "wants SimpleTaproot, but the … order"] {
        assert!(!fits("order ab wants SimpleTaproot, but the pair gives Legacy", pattern), "{pattern}");
    }
}

/// What the venue says that is not so, for which reason it is refused, and how the proposal says it.
type Lie = (&'static str, &'static str, fn(&mut Prepare));

/// The one match of the proposal.
fn matched(prepare: &mut Prepare) -> &mut tidegate_protocol::batch::Match {
    let market = prepare.markets.values_mut().next().expect("one duration");
    market.orders.values_mut().next().expect("one order").first_mut().expect("one match")
}

fn bid_terms(prepare: &mut Prepare) -> &mut BidTerms {
    match &mut matched(prepare).order.order.side {
        OrderSide::Bid(terms) => terms,
        OrderSide::Ask(_) => panic!("anna's counterpart bids"),
    }
}

/// The output that is no account's: the channel's.
fn channel_output(prepare: &mut Prepare, sats: u64) -> &mut TxOut {
    let outputs = prepare.transaction.output.iter_mut();
    outputs.min_by_key(|output| output.value.to_sat().abs_diff(sats)).expect("there are outputs")
}

const CHANNEL_LIES: &[Lie] = &[
    ("less than the smallest match", "are matched for no unit", |prepare| matched(prepare).units = UnitCount::new(0)),
    ("more than the channel holds", "funds the channel with … expected", |prepare| {
        matched(prepare).units = UnitCount::new(11)
    }),
    ("more than was offered", "has 10 units left, but 11 are filled", |prepare| {
        // All else says the same, so that only our own order speaks against it.
        let matched = matched(prepare);
        matched.units = UnitCount::new(11);
        matched.order.order.amount = Sats::constant(1_100_000);
        channel_output(prepare, 400_000).value = bitcoin::Amount::from_sat(1_100_000);
    }),
    ("a unit less than the channel holds", "funds the channel with … expected", |prepare| {
        matched(prepare).units = UnitCount::new(3)
    }),
    ("a channel that is a satoshi short", "funds the channel with … expected", |prepare| {
        let output = channel_output(prepare, 400_000);
        output.value = bitcoin::Amount::from_sat(output.value.to_sat() - 1);
    }),
    ("a channel of somebody else", "no output funds the channel", |prepare| {
        channel_output(prepare, 400_000).script_pubkey = thief()
    }),
    ("another funding key", "is matched with our own funding key", |prepare| {
        let account = prepare.accounts.first().expect("one").account;
        matched(prepare).order.multisig = MultisigKey::new(*account.point());
    }),
    ("a stranger's funding key", "no output funds the channel", |prepare| {
        let matched = matched(prepare);
        matched.order.multisig = MultisigKey::new(*matched.order.node.point());
    }),
    ("another lease duration", "lease_duration_blocks: expected 2160 blocks, found 2016 blocks", |prepare| {
        let market = prepare.markets.pop_first().expect("one").1;
        prepare.markets.insert(BlockCount::new(DURATION.get() + 144), market);
    }),
    ("an order of another duration", "lease_duration_blocks: expected 2016 blocks, found 4032 blocks", |prepare| {
        matched(prepare).order.order.duration = BlockCount::new(4032);
    }),
    ("another duration of lease and order", "for 2016 blocks is matched for 2160 blocks", |prepare| {
        let other = BlockCount::new(DURATION.get() + 144);
        matched(prepare).order.order.duration = other;
        let market = prepare.markets.pop_first().expect("one").1;
        prepare.markets.insert(other, market);
    }),
    ("a self balance that nobody asked for", "funds the channel with … expected", |prepare| {
        bid_terms(prepare).self_balance = Sats::constant(50_000);
    }),
    ("an order of the same side", "of the same side", |prepare| {
        matched(prepare).order.order.side = OrderSide::Ask(AskTerms::default());
    }),
    ("no channel at all", "no output funds the channel", |prepare| {
        let index = prepare.transaction.output.iter().position(|output| output.value.to_sat() == 400_000);
        prepare.transaction.output.remove(index.expect("the channel"));
        for change in &mut prepare.accounts {
            change.output_index = change.output_index.map(|at| at.saturating_sub(1));
        }
    }),
];

/// What an order that insists on type, size, announcement and confirmation is not to be told.
const WISH_LIES: &[Lie] = &[
    ("another channel type", "wants SimpleTaproot, but the pair gives", |prepare| {
        matched(prepare).order.order.channel_type = OrderChannelType::PeerDependent;
    }),
    ("a smaller match than we take", "gets a match of 2 units, at least 3 expected", |prepare| {
        let matched = matched(prepare);
        matched.units = UnitCount::new(2);
        matched.order.order.min_units = UnitCount::new(1);
        channel_output(prepare, 300_000).value = bitcoin::Amount::from_sat(200_000);
    }),
    ("an announced channel", "disagree on announcing", |prepare| bid_terms(prepare).unannounced = false),
    ("a channel used unconfirmed", "disagree on confirmation", |prepare| bid_terms(prepare).zero_conf = true),
];

#[test]
fn promise_2_a_match_yields_a_channel_that_fits_the_order() {
    in_a_runtime(async {
        let mut market = Market::open(2).await;
        market.join(&["anna", "carla"], ACCOUNT_SATS, AccountVersion::V2).await;
        let ask = market.ask("anna", 700, 10).await;
        let bid = market.bid("carla", 900, 4).await;
        for (what, why, lie) in CHANNEL_LIES {
            propose_to_anna(&market, *lie);
            assert_anna_refuses(&market, what, why).await;
        }
        market.clear().await;
        assert_channel_fits(&market, ask, bid, Sats::ZERO).await;
        // With money of the buyer's own on its side, and unannounced.
        let terms = BidTerms { self_balance: Sats::constant(50_000), unannounced: true, ..BidTerms::default() };
        let whole = |order: &mut NewOrder| order.min_units = UnitCount::new(2);
        let bid = market.order_with("carla", 800, 2, OrderSide::Bid(terms), whole).await.unwrap();
        market.clear().await;
        assert_channel_fits(&market, ask, bid, Sats::constant(50_000)).await;
        a_type_and_a_peer_that_were_asked_for(&market, ask).await;
    });
}

/// Orders that insist on a channel type, and on who is not to have it, get that or nothing.
async fn a_type_and_a_peer_that_were_asked_for(market: &Market, old: OrderNonce) {
    market.handle("anna").cancel_order(old).await.unwrap();
    let refused = market.world.add_node("refused").id();
    let sell = |order: &mut NewOrder| {
        order.channel_type = OrderChannelType::SimpleTaproot;
        order.denied_nodes = vec![refused];
        order.min_units = UnitCount::new(3);
    };
    let buy = |order: &mut NewOrder| order.channel_type = OrderChannelType::SimpleTaproot;
    let unannounced = OrderSide::Bid(BidTerms { unannounced: true, ..BidTerms::default() });
    let terms = AskTerms {
        announcement: AnnouncementConstraint::OnlyUnannounced,
        confirmation: ConfirmationConstraint::OnlyConfirmed,
    };
    let ask = market.order_with("anna", 700, 3, OrderSide::Ask(terms), sell).await.unwrap();
    let bid = market.order_with("carla", 900, 3, unannounced, buy).await.unwrap();
    for (what, why, lie) in WISH_LIES {
        propose_to_anna(market, *lie);
        assert_anna_refuses(market, what, why).await;
    }
    propose_to_anna(market, move |prepare| matched(prepare).order.node = refused);
    assert_anna_refuses(market, "a node that anna does not deal with", "excludes node").await;
    market.clear().await;
    assert_channel_fits(market, ask, bid, Sats::ZERO).await;
}

// 3. "A hacked auctioneer can not steal."

/// The output of anna's account.
fn account_output(prepare: &mut Prepare) -> &mut TxOut {
    let index = prepare.accounts.first().and_then(|change| change.output_index).expect("it goes on");
    &mut prepare.transaction.output[usize::try_from(index).unwrap()]
}

fn balance(prepare: &mut Prepare, change: i64) {
    let sats = account_output(prepare).value.to_sat().checked_add_signed(change).unwrap();
    account_output(prepare).value = bitcoin::Amount::from_sat(sats);
    prepare.accounts[0].ending_balance = Sats::new(sats).unwrap();
}

const THEFTS: &[Lie] = &[
    ("a satoshi of the account", "ends with … expected", |prepare| balance(prepare, -1)),
    ("a satoshi, not reported", "gets an output of … expected", |prepare| {
        let output = account_output(prepare);
        output.value = bitcoin::Amount::from_sat(output.value.to_sat() - 1);
    }),
    ("the whole account, to a stranger", "gets an output with script", |prepare| {
        account_output(prepare).script_pubkey = thief()
    }),
    ("the account's output, with a stranger's beside it", "ends with … expected", |prepare| {
        let half = account_output(prepare).value.to_sat() / 2;
        balance(prepare, -i64::try_from(half).unwrap());
        prepare.transaction.output.push(TxOut { value: bitcoin::Amount::from_sat(half), script_pubkey: thief() });
    }),
    ("the account, as fully spent", "ends with … expected", |prepare| {
        let index = prepare.accounts[0].output_index.take().expect("it goes on");
        prepare.transaction.output.remove(usize::try_from(index).unwrap());
        prepare.accounts[0].ending_state = EndingState::FullySpent;
        prepare.accounts[0].ending_balance = Sats::ZERO;
    }),
    ("the account, as dust", "ends with … expected", |prepare| {
        prepare.accounts[0].ending_state = EndingState::DustAddedToFees;
        prepare.accounts[0].output_index = None;
        prepare.accounts[0].ending_balance = Sats::ZERO;
    }),
    ("the account, as dust of full value", "must be recreated, not", |prepare| {
        prepare.accounts[0].ending_state = EndingState::DustAddedToFees;
        prepare.accounts[0].output_index = None;
    }),
    ("the account, locked for years", "would expire at … at most", |prepare| {
        prepare.accounts[0].new_expiry = Some(BlockHeight::new(500_000));
    }),
    ("the account, not mentioned", "has a match, but no change", |prepare| prepare.accounts.clear()),
    ("a price below the ask", "with limit … clears at", |prepare| {
        prepare.markets.values_mut().for_each(|market| market.clearing_price = RatePerBillion::new(699));
    }),
    ("a price that was not paid", "ends with … expected", |prepare| {
        prepare.markets.values_mut().for_each(|market| market.clearing_price = RatePerBillion::new(800));
    }),
    ("a higher execution fee", "agreed to a base fee of", |prepare| {
        prepare.execution_fee.base = Sats::constant(1_001);
        balance(prepare, -1_000);
    }),
    ("a chain fee above the order's ceiling", "allows … the batch charges", |prepare| {
        prepare.fee_rate = SatPerKw::new(5_001)
    }),
    ("a chain fee that the transaction does not pay", "ends with … expected", |prepare| {
        prepare.fee_rate = SatPerKw::new(4_000)
    }),
    ("another coin in place of the account", "is changed, but its output … is not spent", |prepare| {
        for input in &mut prepare.transaction.input {
            input.previous_output.vout ^= 1;
        }
    }),
];

type Misuse = (&'static str, &'static str, fn(&mut SignBegin));

const SIGNING_THEFTS: &[Misuse] = &[
    ("the value that is spent", "the output of account … has 5000000 sat, not", |sign| {
        for output in &mut sign.prev_outputs {
            output.value = bitcoin::Amount::from_sat(output.value.to_sat() + 1);
        }
    }),
    ("the script that is spent", "the output of account … has script", |sign| {
        sign.prev_outputs.iter_mut().for_each(|output| output.script_pubkey = thief())
    }),
    ("no nonces", "no nonce for taproot account", |sign| sign.server_nonces.clear()),
];

#[test]
fn promise_3_a_hacked_auctioneer_cannot_steal() {
    in_a_runtime(async {
        let mut market = Market::open(3).await;
        market.join(&["anna", "carla"], ACCOUNT_SATS, AccountVersion::V2).await;
        market.ask("anna", 700, 10).await;
        market.bid("carla", 900, 4).await;
        for (what, why, theft) in THEFTS {
            propose_to_anna(&market, *theft);
            assert_anna_refuses(&market, what, why).await;
        }
        for (what, why, theft) in SIGNING_THEFTS {
            let theft = *theft;
            market.meddler.lie(move |trader, mut message| {
                if let ("anna", ServerMessage::Sign(sign)) = (trader, &mut message) {
                    theft(sign);
                }
                vec![message]
            });
            assert_anna_refuses(&market, what, why).await;
        }
        the_venue_alone_gets_nothing(&market, &market.account("anna").await).await;
        the_same_batch_is_never_signed_twice(&market).await;
        a_forged_close_is_not_published().await;
    });
}

/// The venue asks twice to sign one batch: the second answer is a refusal, so that no nonce signs two messages.
async fn the_same_batch_is_never_signed_twice(market: &Market) {
    let mark = market.meddler.mark();
    market.meddler.lie(|_, message| match message {
        ServerMessage::Sign(sign) => vec![ServerMessage::Sign(sign.clone()), ServerMessage::Sign(sign)],
        other => vec![other],
    });
    // Whether the venue takes the answer after the second question is its affair.
    market.tick().await;
    market.meddler.be_honest();
    for name in ["anna", "carla"] {
        let said = market.meddler.said(name, mark);
        let signed = said.iter().filter(|message| matches!(message, Msg::Sign(_))).count();
        assert!(signed <= 1, "{name} signed {signed} times");
    }
}

/// The venue's half of a close is forged: the owner sees it, publishes nothing and keeps the account.
async fn a_forged_close_is_not_published() {
    let mut market = Market::open(33).await;
    for (name, version) in ["vera", "ulla"].into_iter().zip([AccountVersion::V0, AccountVersion::V2]) {
        market.join(&[name], ACCOUNT_SATS, version).await;
        let account = market.account(name).await;
        market.meddler.forge(|answer| {
            if let Some(byte) = answer.account_sig.get_mut(20) {
                *byte ^= 1;
            }
        });
        let closing = market.handle(name).close_account(rig::close(account.key())).await;
        market.meddler.be_honest();
        assert!(closing.is_err(), "{closing:?}");
        assert!(market.world.utxo(point(&account)).is_some(), "{name}: unspent");
        assert_eq!(market.account(name).await, account, "{name}");
        let closing = market.handle(name).close_account(rig::close(account.key())).await;
        closing.expect("an honest venue signs");
    }
}

// 4. "One trader's order can not be used to cheat another."

type Change = (&'static str, fn(&mut ServerSubmitOrderRequest));

fn bid_of(request: &mut ServerSubmitOrderRequest) -> &mut tidegate_wire::poolrpc::ServerBid {
    match request.details.as_mut().expect("an order") {
        server_submit_order_request::Details::Bid(bid) => bid,
        server_submit_order_request::Details::Ask(_) => panic!("carla bids"),
    }
}

fn details(request: &mut ServerSubmitOrderRequest) -> &mut tidegate_wire::poolrpc::ServerOrder {
    bid_of(request).details.as_mut().expect("details")
}

/// What a stranger may try with an order that it has seen. The name is changed too where the venue would answer that it
/// knows the order.
const FALSE_ORDERS: &[Change] = &[
    ("a higher price", |order| details(order).rate_fixed += 1),
    ("a larger amount", |order| details(order).amt += 100_000),
    ("another smallest match", |order| details(order).min_chan_amt += 100_000),
    ("a higher chain fee", |order| details(order).max_batch_fee_rate_sat_per_kw += 1),
    ("another duration", |order| bid_of(order).lease_duration_blocks += 144),
    ("a self balance", |order| bid_of(order).self_chan_balance = 100_000),
    ("a worse node", |order| bid_of(order).min_node_tier = 1),
    ("another channel type", |order| details(order).channel_type = WireChannelType::ScriptEnforced.into()),
    ("an older version", |order| bid_of(order).version = 0),
    ("the stranger's node", |order| details(order).node_pub = details(order).trader_key.clone()),
    ("the stranger's funding key", |order| details(order).multi_sig_key = details(order).trader_key.clone()),
    ("another name", |order| details(order).order_nonce[0] ^= 1),
    ("another name and another funding key", |order| {
        details(order).order_nonce[0] ^= 1;
        details(order).multi_sig_key = details(order).trader_key.clone();
    }),
    ("no signature", |order| details(order).order_sig.clear()),
];

/// Submits what a stranger made of somebody's order.
async fn submit_raw(market: &Market, request: &ServerSubmitOrderRequest) -> Result<Submission, String> {
    let (order, _) = tidegate_wire::order::from_submit_request(request.clone()).map_err(|error| error.to_string())?;
    market.link("mallory").submit(&order).await.map_err(|error| error.to_string())
}

#[test]
fn promise_4_one_traders_order_cannot_be_used_to_cheat_another() {
    in_a_runtime(async {
        let mut market = Market::open(4).await;
        market.join(&["anna", "carla", "mallory"], ACCOUNT_SATS, AccountVersion::V2).await;
        let ask = market.ask("anna", 700, 4).await;
        let bid = market.bid("carla", 900, 4).await;
        let seen = market.meddler.submitted("carla").pop().expect("carla's order passed by");
        for (what, change) in FALSE_ORDERS {
            let mut forged = seen.clone();
            change(&mut forged);
            let answer = submit_raw(&market, &forged).await;
            assert!(!matches!(answer, Ok(Submission::Accepted)), "{what}: {answer:?}");
        }
        // Its own words again are the same order, not another one.
        assert_eq!(submit_raw(&market, &seen).await, Ok(Submission::Accepted));
        let stranger = market.link("mallory");
        let wrong = stranger.cancel(OrderPreimage::new([9; 32])).await;
        assert_eq!(wrong, Err(LinkError::NoOrder), "only who knows the preimage cancels");
        let status = market.venue.status().await.unwrap();
        assert_eq!((status.asks, status.bids), (1, 1));
        // A venue that uses an order beyond what it says, or a counterpart's against what that one says.
        for (what, why, lie) in ORDER_MISUSES {
            propose_to_anna(&market, *lie);
            assert_anna_refuses(&market, what, why).await;
        }
        market.clear().await;
        assert_channel_fits(&market, ask, bid, Sats::ZERO).await;
        assert!(market.status("mallory").await.leases.is_empty());
        the_orders_are_used_up(&market, &seen).await;
    });
}

/// Filled orders are never matched again, also not when somebody submits them again.
async fn the_orders_are_used_up(market: &Market, seen: &ServerSubmitOrderRequest) {
    let again = submit_raw(market, seen).await;
    assert!(again.is_err(), "{again:?}");
    market.ask("anna", 700, 4).await;
    assert_eq!(market.tick().await.cleared, None);
    assert_eq!(market.status("carla").await.leases.len(), 1);
}

const ORDER_MISUSES: &[Lie] = &[
    ("one order twice", "are matched twice", |prepare| {
        let orders = &mut prepare.markets.values_mut().next().expect("one").orders;
        let matches = orders.values_mut().next().expect("one");
        matches.push(matches[0].clone());
    }),
    ("a bid below the ask", "is matched with a bid of", |prepare| {
        matched(prepare).order.order.rate = RatePerBillion::new(699)
    }),
    ("our own order against us", "is matched with our own order", |prepare| {
        let own = *prepare.markets.values().next().expect("one").orders.keys().next().expect("one");
        matched(prepare).order.order.nonce = own;
    }),
    ("our own account against us", "is matched with our own account", |prepare| {
        let own = prepare.accounts[0].account;
        matched(prepare).order.order.account = own;
    }),
    ("more than the other order holds", "units are taken of", |prepare| {
        matched(prepare).order.order.amount = Sats::constant(300_000);
    }),
    ("less than the other order takes", "which gives at least", |prepare| {
        matched(prepare).order.order.min_units = UnitCount::new(5);
    }),
    ("an order that we never made", "is unknown", |prepare| {
        let orders = &mut prepare.markets.values_mut().next().expect("one").orders;
        let matches = orders.pop_first().expect("one").1;
        orders.insert(OrderNonce::new([3; 32]), matches);
    }),
];

// 5. "Each action of the server in the making of a batch can be checked."

/// What cannot be judged by one trader, and why that is no harm to it.
///
/// A client checks its own pairs, balances and outputs; these say something about others.
const UNJUDGED: &[(&str, &str)] = &[
    ("order.signature", "the other's own affair: the venue checked it, and the batch needs the other's signature too"),
    ("order.node", "a wrong one is not reached, or funds no channel: then the match is refused"),
    ("order.addresses", "as the node"),
    ("order.order.nonce", "names the pending channel: with another name the nodes do not find each other"),
    ("order.order.account", "says whose money the other's is"),
    ("order.order.version", "how the other's order was digested"),
    ("order.order.rate", "the other's limit, as long as the price is within it"),
    ("order.order.amount", "the other's order, as long as the match is within it"),
    ("order.order.min_units", "the other's order, as long as the match is within it"),
    ("order.order.max_batch_fee_rate", "the other's ceiling, as long as the batch is below it"),
    ("order.order.public", "the other's wish"),
    ("order.order.allowed_nodes", "the other's wish, which the venue may leave out"),
    ("order.order.denied_nodes", "as allowed_nodes"),
    ("order.order.side.Ask", "the other's wish, as long as ours fits it"),
    ("order.order.channel_type", "the other's wish, as long as it gives the type that we asked for"),
    ("order.order.side.Bid.sidecar", "whose channel the other's will be"),
    ("order.order.side.Bid.unannounced", "the other's wish, as long as ours fits; its node takes no other channel"),
    ("order.order.side.Bid.zero_conf", "as unannounced"),
    ("new_version", "never lowers: the output has our version, or a newer one that we speak"),
    ("fee_rate", "as long as our share stays the same to the satoshi, and it is within our ceiling"),
    ("order.order.side.Bid.min_node_tier", "the other's wish about our rating"),
    ("height_hint", "may differ by three blocks from our height"),
    ("transaction.lock_time", "a lock that is reached already changes nothing"),
    ("transaction.input", "the inputs of others are theirs to judge; ours is judged"),
    ("transaction.output", "the outputs of others are theirs to judge; ours are judged"),
    ("prev_outputs", "what others spend is theirs to judge, and covered by our signature"),
];

/// What one trader was told of one batch.
struct Round {
    prepare: Prepare,
    sign: SignBegin,
    finalize: Finalize,
}

fn round_of(market: &Market, name: &str) -> Round {
    let (mut prepare, mut sign, mut finalize) = (None, None, None);
    for message in market.meddler.heard(name) {
        match tidegate_wire::stream::from_server_message(message).expect("it was understood") {
            ServerMessage::Prepare(told) => prepare = Some(*told),
            ServerMessage::Sign(told) => sign = Some(*told),
            ServerMessage::Finalize(told) => finalize = Some(told),
            ServerMessage::Challenge { .. } | ServerMessage::Success { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    Round { prepare: prepare.unwrap(), sign: sign.unwrap(), finalize: finalize.unwrap() }
}

/// The parts of a request to sign, as JSON.
#[derive(serde::Serialize, serde::Deserialize, PartialEq)]
struct SignJson {
    batch_id: Vec<u8>,
    prev_outputs: Vec<TxOut>,
}

#[test]
fn promise_5_each_action_of_the_server_in_a_batch_can_be_checked() {
    in_a_runtime(async {
        for (name, version) in [("anna", AccountVersion::V0), ("carla", AccountVersion::V2)] {
            let mut market = Market::open(5).await;
            market.join(&["anna", "carla"], ACCOUNT_SATS, version).await;
            market.ask("anna", 700, 10).await;
            market.bid("carla", 900, 4).await;
            let before = market.status(name).await;
            market.clear().await;
            let round = round_of(&market, name);
            each_claim_is_judged(name, &before, &round);
        }
    });
}

fn each_claim_is_judged(name: &str, before: &Status, round: &Round) {
    let accounts = before.accounts.iter().map(|account| (account.key(), account.clone())).collect();
    let orders = before.orders.iter().map(|own| (own.order.nonce, own.clone())).collect();
    let nodes = round.prepare.markets.values().flat_map(|market| market.orders.values().flatten());
    let rating = NodeRating { tier: NodeTier::Tier1, age_seconds: 0 };
    let ratings: BTreeMap<NodeId, NodeRating> = nodes.map(|matched| (matched.order.node, rating)).collect();
    let view = LocalView {
        node: before.node.unwrap(),
        best_height: before.best_height.unwrap(),
        batch_version: round.prepare.batch_version,
        accounts: &accounts,
        orders: &orders,
        extension_now: before.terms.as_ref().unwrap().auto_renew_blocks,
        ratings: &ratings,
        reject_unrated: true,
    };
    let verified = verify_prepare(&view, &round.prepare).expect("the honest proposal is accepted");
    verify_sign(&view, &verified, &round.sign).expect("the honest request is accepted");
    verify_finalize(&verified, &round.finalize).expect("the honest end is accepted");

    let (proposals, mut accepted) = unrefused(&round.prepare, |prepare| verify_prepare(&view, prepare).is_err());
    let sign = SignJson { batch_id: round.sign.batch_id.clone(), prev_outputs: round.sign.prev_outputs.clone() };
    let (requests, more) = unrefused(&sign, |sign| {
        let (batch_id, prev_outputs) = (sign.batch_id.clone(), sign.prev_outputs.clone());
        let request = SignBegin { batch_id, prev_outputs, server_nonces: round.sign.server_nonces.clone() };
        verify_sign(&view, &verified, &request).is_err()
    });
    accepted.extend(more);
    for account in round.sign.server_nonces.keys() {
        let mut request = round.sign.clone();
        request.server_nonces.remove(account);
        verify_sign(&view, &verified, &request).expect_err("without nonces nothing is signed");
    }
    let mut other = round.finalize.clone();
    other.batch_id[3] ^= 1;
    verify_finalize(&verified, &other).expect_err("the end of another batch");
    let unexplained: Vec<&String> =
        accepted.iter().filter(|place| !UNJUDGED.iter().any(|(known, _)| place.contains(known))).collect();
    assert!(unexplained.is_empty(), "{name}: changes that nobody notices: {unexplained:#?}");
    let counts =
        format!("{proposals} changed proposals, {requests} changed requests; unjudged: {:?}", summary(&accepted));
    assert!(proposals > 100 && requests > 20, "{name}: {counts}");
    ours_is_judged(name, before, &round.prepare, &accepted);
}

/// What is ours is judged to the last digit.
fn ours_is_judged(name: &str, before: &Status, prepare: &Prepare, accepted: &[String]) {
    let account = &before.accounts[0];
    let input = prepare.transaction.input.iter().position(|input| Some(input.previous_output) == account.outpoint);
    let change = prepare.accounts.iter().find(|change| change.account == account.key()).unwrap();
    let (input, output) = (input.unwrap(), change.output_index.unwrap());
    let ours = [
        format!(".transaction.input.{input}."),
        format!(".prev_outputs.{input}."),
        format!(".transaction.output.{output}."),
        ".ending_balance".to_owned(),
        ".ending_state".to_owned(),
        ".output_index".to_owned(),
        ".new_expiry".to_owned(),
        ".execution_fee".to_owned(),
        ".clearing_price".to_owned(),
        ".units".to_owned(),
        ".multisig".to_owned(),
        ".duration".to_owned(),
        ".self_balance".to_owned(),
        ".batch_version".to_owned(),
    ];
    for ours in ours {
        assert!(!accepted.iter().any(|place| place.contains(&ours)), "{name}: {ours} in {accepted:?}");
    }
}

/// The places without positions and names, each once.
fn summary(places: &[String]) -> std::collections::BTreeSet<String> {
    let is_word = |part: &&str| part.len() < 60 && !part.bytes().all(|byte| byte.is_ascii_digit());
    places.iter().map(|place| place.split('.').filter(is_word).collect::<Vec<_>>().join(".")).collect()
}
