//! Accounts, orders and handshakes at the border.

use super::bench::{Bench, ready};
use super::changes::{Wish, change, pay_out};
use super::trader::TestTrader;
use crate::{ServeClass, ServeError, VenueAccountState};
use bitcoin::TxOut;
use tidegate_ports::{
    ClientMessage, InitAccount, ModifyAccount, Reservation, ServerMessage, Signer, Submission, SubscribeErrorCode,
    TraderId,
};
use tidegate_protocol::account::{AccountVersion, MIN_ACCOUNT_VALUE};
use tidegate_protocol::auth::CommitHash;
use tidegate_protocol::batch::BatchVersion;
use tidegate_protocol::keys::{AccountKey, OrderPreimage};
use tidegate_protocol::order::{AskTerms, OrderError, OrderSide};
use tidegate_protocol::units::{BlockCount, BlockHeight, Sats};

fn account_state(bench: &mut Bench) -> VenueAccountState {
    let status = bench.call(bench.handle.clone().status()).unwrap();
    assert_eq!(status.accounts.len(), 1);
    *status.accounts.keys().next().unwrap()
}

/// Closes the account to one output, and publishes.
fn close(bench: &mut Bench, trader: &TestTrader) -> Result<(), ServeError> {
    let outputs = vec![pay_out(trader, trader.account.value.get() - 1000)];
    let changed = change(bench, trader, &Wish { outputs, ..Wish::default() })?;
    bench.world.publish(&changed.transaction).expect("the chain accepts the close");
    Ok(())
}

#[test]
fn accounts_of_every_version_open_and_close() {
    for version in [AccountVersion::V0, AccountVersion::V1, AccountVersion::V2] {
        let mut bench = Bench::new();
        let trader = TestTrader::open_account(&mut bench, "trader", version, 500_000);
        assert_eq!(account_state(&mut bench), VenueAccountState::PendingOpen);
        bench.mine(2);
        assert_eq!(account_state(&mut bench), VenueAccountState::PendingOpen);
        bench.mine(1);
        assert_eq!(account_state(&mut bench), VenueAccountState::Open, "{version:?} after 3 confirmations");
        close(&mut bench, &trader).unwrap();
        assert_eq!(account_state(&mut bench), VenueAccountState::Open);
        bench.mine(1);
        assert_eq!(account_state(&mut bench), VenueAccountState::Closed, "{version:?}");
    }
}

#[test]
fn an_account_with_open_orders_is_not_closed_and_a_closing_one_takes_none() {
    let mut bench = Bench::new();
    let mut trader = bench.trader("trader", AccountVersion::V2, 500_000);
    let ask = trader.ask(&mut bench, 500, 2);
    let account = trader.account.key();
    assert_eq!(close(&mut bench, &trader), Err(ServeError::OrdersOpen(account)));
    bench.call(bench.handle.clone().cancel(trader.preimages[&ask])).unwrap();
    close(&mut bench, &trader).unwrap();
    let (order, _) = trader.order(500, 2, OrderSide::Ask(AskTerms::default()));
    assert_eq!(bench.call(bench.handle.clone().submit(order)), Err(ServeError::AccountClosing(account)));
}

#[test]
fn an_account_expires_and_its_orders_end() {
    let mut bench = Bench::new();
    let mut trader = bench.trader("trader", AccountVersion::V2, 500_000);
    trader.ask(&mut bench, 500, 2);
    bench.world.mine(2000);
    bench.mine(1);
    for _ in 0..100 {
        bench.pump();
    }
    assert_eq!(account_state(&mut bench), VenueAccountState::Expired);
    assert_eq!(bench.call(bench.handle.clone().status()).unwrap().asks, 0);
}

fn reservation(bench: &Bench, name: &str, value: Sats, ahead: u32) -> Reservation {
    let node = bench.world.add_node(name);
    let trader = AccountKey::new(ready(node.derive_next_key(220)).unwrap().point);
    let expiry = bench.world.height().checked_add(BlockCount::new(ahead)).unwrap();
    Reservation { value, expiry, trader, version: AccountVersion::V2 }
}

#[test]
fn reservations_keep_their_limits_and_are_repeatable() {
    let mut bench = Bench::new();
    let handle = bench.handle.clone();
    let trader = TraderId([1; 32]);
    let good = reservation(&bench, "a", MIN_ACCOUNT_VALUE, 144);
    for (value, ahead) in [(99_999, 2000), (1_000_000_001, 2000), (500_000, 143), (500_000, 52_561)] {
        let bad = Reservation { ..reservation(&bench, "b", Sats::new(value).unwrap(), ahead) };
        let refused = bench.call(handle.reserve(trader, bad)).unwrap_err();
        assert_eq!(refused.class(), ServeClass::InvalidArgument, "{value} {ahead}");
    }
    let keys = bench.call(handle.reserve(trader, good.clone())).unwrap();
    assert_eq!(bench.call(handle.reserve(trader, good.clone())), Ok(keys));
    let other = reservation(&bench, "c", MIN_ACCOUNT_VALUE, 2000);
    assert_eq!(bench.call(handle.reserve(trader, other.clone())), Err(ServeError::ReservationOpen(good.trader)));
    assert_eq!(bench.call(handle.reserve(TraderId([2; 32]), other)), Ok(keys));
    // The last wish counts: the announcement is compared with it.
    let larger = Reservation { value: Sats::constant(300_000), ..good.clone() };
    assert_eq!(bench.call(handle.reserve(trader, larger.clone())), Ok(keys));
    let outpoint = bitcoin::OutPoint { txid: bitcoin::hashes::Hash::from_byte_array([5; 32]), vout: 0 };
    let announced = |reservation| InitAccount { reservation, outpoint, script: bitcoin::ScriptBuf::new() };
    let value = ServeError::ReservationMismatch { what: "account value" };
    assert_eq!(bench.call(handle.init(trader, announced(good), String::new())), Err(value));
    let script = ServeError::ReservationMismatch { what: "account script" };
    assert_eq!(bench.call(handle.init(trader, announced(larger), String::new())), Err(script));
}

#[test]
fn reservations_end_with_their_expiry_and_the_shared_identity_can_not_fill_the_table() {
    let mut bench = Bench::new();
    let handle = bench.handle.clone();
    let shared = TraderId([0; 32]);
    for number in 0..100 {
        let wanted = reservation(&bench, &format!("shared {number}"), MIN_ACCOUNT_VALUE, 200);
        bench.call(handle.reserve(shared, wanted)).unwrap();
    }
    let more = reservation(&bench, "one more", MIN_ACCOUNT_VALUE, 200);
    assert!(matches!(bench.call(handle.reserve(shared, more.clone())), Err(ServeError::TooMany { .. })));
    bench.call(handle.reserve(TraderId([9; 32]), more)).expect("others are not kept out");
    bench.mine(200);
    assert_eq!(bench.call(handle.status()).unwrap().reservations, 0);
}

#[test]
fn only_the_owner_can_have_a_close_signed() {
    let mut bench = Bench::new();
    let trader = bench.trader("trader", AccountVersion::V0, 500_000);
    let script = bitcoin::ScriptBuf::from_bytes([vec![0x51, 0x20], vec![7; 32]].concat());
    let request = ModifyAccount {
        account: trader.account.key(),
        new_inputs: Vec::new(),
        new_outputs: vec![TxOut { value: bitcoin::Amount::from_sat(490_000), script_pubkey: script }],
        new_params: None,
        trader_nonce: None,
        prev_outputs: Vec::new(),
    };
    let handle = bench.handle.clone();
    for stranger in [TraderId([77; 32]), TraderId([0; 32])] {
        let refused = bench.call(handle.modify(stranger, request.clone()));
        assert_eq!(refused, Err(ServeError::NotTheOwner(trader.account.key())));
    }
    let (order, _) = trader.order(500, 2, OrderSide::Ask(AskTerms::default()));
    assert_eq!(bench.call(handle.submit(order)), Ok(tidegate_ports::Submission::Accepted));
}

#[test]
fn an_announcement_must_be_what_was_reserved() {
    let mut bench = Bench::new();
    let handle = bench.handle.clone();
    let trader = TraderId([1; 32]);
    let reserved = reservation(&bench, "a", Sats::constant(200_000), 2000);
    let outpoint = bitcoin::OutPoint { txid: bitcoin::hashes::Hash::from_byte_array([5; 32]), vout: 0 };
    let request = InitAccount { reservation: reserved.clone(), outpoint, script: bitcoin::ScriptBuf::new() };
    let init = |bench: &mut Bench, request: &InitAccount, agent: &str| {
        bench.call(handle.init(trader, request.clone(), agent.to_owned())).unwrap_err()
    };
    assert_eq!(init(&mut bench, &request, ""), ServeError::NoReservation(reserved.trader));
    bench.call(handle.reserve(trader, reserved.clone())).unwrap();
    assert_eq!(init(&mut bench, &request, &"x".repeat(256)), ServeError::UserAgent(256));
    assert_eq!(init(&mut bench, &request, ""), ServeError::ReservationMismatch { what: "account script" });
    let mut other = request.clone();
    other.reservation.value = Sats::constant(200_001);
    assert_eq!(init(&mut bench, &other, ""), ServeError::ReservationMismatch { what: "account value" });
    other = request.clone();
    other.reservation.expiry = BlockHeight::new(9);
    assert_eq!(init(&mut bench, &other, ""), ServeError::ReservationMismatch { what: "account expiry" });
    other = request.clone();
    other.outpoint = bitcoin::OutPoint { txid: bitcoin::hashes::Hash::all_zeros(), vout: 0 };
    assert_eq!(init(&mut bench, &other, ""), ServeError::EmptyOutpoint);
}

#[test]
fn an_order_beyond_the_account_is_answered_as_data() {
    let mut bench = Bench::new();
    let mut trader = bench.trader("trader", AccountVersion::V2, 500_000);
    trader.ask(&mut bench, 500, 3);
    let (second, _) = trader.order(500, 3, OrderSide::Ask(AskTerms::default()));
    let answer = bench.call(bench.handle.clone().submit(second)).unwrap();
    assert!(matches!(answer, Submission::Invalid { .. }), "{answer:?}");
}

#[test]
fn orders_that_break_a_rule_are_refused() {
    let mut bench = Bench::new();
    let mut trader = bench.trader("trader", AccountVersion::V2, 500_000);
    let handle = bench.handle.clone();
    let order = |trader: &TestTrader| trader.order(500, 1, OrderSide::Ask(AskTerms::default())).0;
    let good = order(&trader);

    let mut unsigned = good.clone();
    unsigned.order.rate = tidegate_protocol::units::RatePerBillion::new(501);
    assert_eq!(bench.call(handle.submit(unsigned)), Err(ServeError::OrderSignature));
    let mut nowhere = good.clone();
    nowhere.addresses.clear();
    assert_eq!(bench.call(handle.submit(nowhere)), Err(ServeError::Order(OrderError::NoAddress)));
    let mut long = good.clone();
    long.order.duration = BlockCount::new(4032);
    let long = trader.sign_order(long);
    assert_eq!(bench.call(handle.submit(long)), Err(ServeError::NoMarket(BlockCount::new(4032))));

    assert_eq!(bench.call(handle.submit(good.clone())), Ok(Submission::Accepted));
    assert_eq!(bench.call(handle.submit(good.clone())), Ok(Submission::Accepted), "the same again is the same order");
    let mut changed = good.clone();
    changed.order.public = false;
    assert_eq!(bench.call(handle.submit(changed)), Err(ServeError::NonceUsed));
    let mut shared = order(&trader);
    shared.multisig = good.multisig;
    assert_eq!(bench.call(handle.submit(shared)), Err(ServeError::FundingKeyUsed));

    let nothing = OrderPreimage::new([8; 32]);
    assert_eq!(bench.call(handle.cancel(nothing)), Err(ServeError::NoOrder));
    assert_eq!(ServeError::NoOrder.to_string(), "no order found");
    assert_eq!(bench.call(handle.snapshot(None)), Err(ServeError::NoSnapshot));
    assert_eq!(ServeError::NoSnapshot.to_string(), "batch snapshot not found");
    let bid = trader.bid(&mut bench, 700, 1);
    bench.call(handle.cancel(trader.preimages[&bid])).unwrap();
    assert!(matches!(bench.call(handle.cancel(trader.preimages[&bid])), Err(ServeError::OrderArchived(_))));
}

#[test]
fn handshakes_interleave_on_one_stream() {
    let mut bench = Bench::new();
    let traders = [
        TestTrader::open_account(&mut bench, "one", AccountVersion::V2, 500_000),
        TestTrader::open_account(&mut bench, "two", AccountVersion::V2, 500_000),
    ];
    let stream = bench.open_stream(traders[0].id);
    let say = |bench: &mut Bench, message| {
        bench.push(tidegate_ports::TraderEvent::Said { trader: traders[0].id, stream, message })
    };
    let nonce = [6; 32];
    for trader in &traders {
        let commit = CommitHash::of(trader.account.key(), &nonce);
        say(&mut bench, ClientMessage::Commit { commit, version: BatchVersion(58) });
    }
    bench.pump();
    for trader in &traders {
        let Some(ServerMessage::Challenge { challenge, commit }) = bench.read(stream) else { panic!("no challenge") };
        let signature = ready(trader.node.sign_message(&challenge.auth_hash(commit), trader.key.locator)).unwrap();
        say(&mut bench, ClientMessage::Subscribe { account: trader.account.key(), nonce, signature });
    }
    bench.pump();
    for trader in &traders {
        assert_eq!(bench.read(stream), Some(ServerMessage::Success { account: trader.account.key() }));
    }
    assert_eq!(bench.call(bench.handle.clone().status()).unwrap().subscribed, 2);
}

/// Commits and subscribes with a key of this node; what the venue answers.
fn knock(
    bench: &mut Bench,
    name: &str,
    index: u32,
    forge: bool,
) -> (tidegate_ports::StreamId, Option<ServerMessage>, AccountKey) {
    let node = bench.world.add_node(name);
    let locator = tidegate_protocol::keys::KeyLocator { family: 220, index };
    let key = ready(node.derive_key(locator)).unwrap();
    let account = AccountKey::new(key.point);
    let trader = TraderId([u8::try_from(index).unwrap() + 10; 32]);
    let stream = bench.open_stream(trader);
    let say = |bench: &mut Bench, message| bench.push(tidegate_ports::TraderEvent::Said { trader, stream, message });
    let commit = CommitHash::of(account, &[4; 32]);
    say(bench, ClientMessage::Commit { commit, version: BatchVersion(58) });
    bench.pump();
    let Some(ServerMessage::Challenge { challenge, .. }) = bench.read(stream) else { panic!("no challenge") };
    let message = if forge { [0; 32] } else { challenge.auth_hash(commit) };
    let signature = ready(node.sign_message(&message, locator)).unwrap();
    say(bench, ClientMessage::Subscribe { account, nonce: [4; 32], signature });
    bench.pump();
    (stream, bench.read(stream), account)
}

#[test]
fn a_handshake_fails_for_strangers_and_forgers() {
    let mut bench = Bench::new();
    let (_, answer, account) = knock(&mut bench, "stranger", 0, false);
    let Some(ServerMessage::Error { account: about, code, .. }) = answer else { panic!("no error") };
    assert_eq!((about, code), (Some(account), SubscribeErrorCode::AccountDoesNotExist));

    let reserved = reservation(&bench, "reserved", MIN_ACCOUNT_VALUE, 2000);
    let keys = bench.call(bench.handle.clone().reserve(TraderId([1; 32]), reserved.clone())).unwrap();
    let (_, answer, _) = knock(&mut bench, "reserved", 0, false);
    let Some(ServerMessage::Reserved { reservation: told, .. }) = answer else { panic!("no reservation") };
    assert_eq!((told.reservation, told.keys), (reserved, keys));

    let (stream, answer, _) = knock(&mut bench, "forger", 1, true);
    assert_eq!(answer, None);
    assert_eq!(bench.closed(stream).as_deref(), Some("the signature is not the account's"));
}

#[test]
fn a_stream_without_subscription_ends_after_ten_seconds() {
    let mut bench = Bench::new();
    let stream = bench.open_stream(TraderId([1; 32]));
    bench.pump();
    bench.env.clock.advance(9_999);
    bench.pump();
    assert_eq!(bench.closed(stream), None);
    bench.env.clock.advance(1);
    bench.pump();
    assert!(bench.closed(stream).is_some());
}

#[test]
fn a_later_batch_version_is_refused_at_the_first_step() {
    let mut bench = Bench::new();
    let trader = TraderId([1; 32]);
    let stream = bench.open_stream(trader);
    let message = ClientMessage::Commit { commit: CommitHash([1; 32]), version: BatchVersion(59) };
    bench.push(tidegate_ports::TraderEvent::Said { trader, stream, message });
    bench.pump();
    assert!(bench.closed(stream).is_some());
}

#[test]
fn a_newer_stream_of_a_trader_takes_its_accounts() {
    let mut bench = Bench::new();
    let mut trader = bench.trader("trader", AccountVersion::V2, 500_000);
    let old = trader.stream;
    trader.subscribe(&mut bench);
    assert!(bench.closed(old).is_some());
    let status = bench.call(bench.handle.clone().status()).unwrap();
    assert_eq!((status.streams, status.subscribed), (1, 1));
}

#[test]
fn a_wallet_with_another_seed_is_not_served() {
    use crate::Halt;
    let world = tidegate_sandbox::World::new(1);
    let bench = Bench::new();
    let store = bench.env.store.clone();
    let env: &'static super::bench::Env = Box::leak(Box::new(super::bench::Env {
        chain: super::bench::TestChain {
            node: world.add_node("another"),
            extra: std::sync::Mutex::default(),
            hangs: core::sync::atomic::AtomicBool::new(false),
        },
        node: world.add_node("another"),
        store,
        clock: bench.env.clock.clone(),
        entropy: bench.env.entropy.clone(),
        traders: super::bench::FakeTraders::default(),
    }));
    let (_handle, venue) = crate::venue(super::bench::config());
    assert!(matches!(ready(venue.run(env)), Err(Halt::WrongWallet(_))));
}

#[test]
fn a_store_written_by_another_stops_the_venue() {
    use tidegate_ports::{Sequence, Store, StoreError};
    let mut bench = Bench::new();
    let handle = bench.handle.clone();
    ready(bench.env.store.apply(Sequence(1), &[])).unwrap();
    let request = reservation(&bench, "a", MIN_ACCOUNT_VALUE, 2000);
    let mut call = Box::pin(handle.reserve(TraderId([1; 32]), request));
    assert!(futures_util::FutureExt::now_or_never(&mut call).is_none());
    assert!(matches!(bench.end(), Err(crate::Halt::Store(StoreError::Moved { .. }))));
    let refused = futures_util::FutureExt::now_or_never(&mut call).unwrap().unwrap_err();
    assert_eq!(refused.class(), ServeClass::Unavailable);
}

#[test]
fn a_shutdown_says_goodbye_and_later_calls_are_refused() {
    let mut bench = Bench::new();
    let trader = bench.trader("trader", AccountVersion::V2, 500_000);
    let handle = bench.handle.clone();
    ready(handle.shutdown());
    assert_eq!(bench.end(), Ok(()));
    assert!(bench.closed(trader.stream).is_some());
    assert_eq!(ready(handle.terms()).unwrap_err().class(), ServeClass::Unavailable);
}
