//! What a message may say that makes no sense, and is judged when it is verified: it can be read, so it is not answered as
//! if it could not.

use crate::batch::{Refusal, decode_prepare};
use crate::local::Local;
use crate::support::{Entry, load_own};
use prost::Message;
use tidegate_protocol::batch::RejectReason;
use tidegate_protocol::verify::{VerifiedBatch, VerifyError, verify_prepare};
use tidegate_wire::poolrpc::{MatchedAsk, MatchedBid, OrderMatchPrepare};

/// The complete batch, with its message changed.
fn judged(change: impl FnOnce(&mut OrderMatchPrepare)) -> Result<VerifiedBatch, VerifyError> {
    let file = load_own("batch_accept.json");
    let mut message = OrderMatchPrepare::decode(file.bytes("prepare_msg").as_slice()).unwrap();
    change(&mut message);
    let prepare = match decode_prepare(&message.encode_to_vec()) {
        Ok(prepare) => prepare,
        Err(Refusal::Decode(error)) => panic!("not read: {error}"),
        Err(other) => panic!("{other:?}"),
    };
    verify_prepare(&Local::read(&file).view(), &prepare)
}

fn bids(message: &mut OrderMatchPrepare) -> impl Iterator<Item = &mut MatchedBid> {
    let orders = message.matched_markets.values_mut().flat_map(|market| market.matched_orders.values_mut());
    orders.flat_map(|order| order.matched_bids.iter_mut())
}

fn asks(message: &mut OrderMatchPrepare) -> impl Iterator<Item = &mut MatchedAsk> {
    let orders = message.matched_markets.values_mut().flat_map(|market| market.matched_orders.values_mut());
    orders.flat_map(|order| order.matched_asks.iter_mut())
}

/// Changes the smallest match of every order of the other side.
fn smallest(message: &mut OrderMatchPrepare, change: impl Fn(u64) -> u64) {
    let change = |sat: &mut u64| *sat = change(*sat);
    bids(message).for_each(|bid| change(&mut bid.bid.as_mut().unwrap().details.as_mut().unwrap().min_chan_amt));
    asks(message).for_each(|ask| change(&mut ask.ask.as_mut().unwrap().details.as_mut().unwrap().min_chan_amt));
}

fn misbehaviour(found: Result<VerifiedBatch, VerifyError>) -> VerifyError {
    let error = found.expect_err("it is refused");
    assert_eq!(error.reject_reason(), RejectReason::ServerMisbehavior, "{error}");
    error
}

#[test]
fn an_account_that_changes_twice_makes_the_tally_wrong() {
    let error = misbehaviour(judged(|message| message.charged_accounts.push(message.charged_accounts[0].clone())));
    assert!(matches!(error, VerifyError::DiffTwice(_)), "{error}");
    // Another balance is no better, in either order.
    for place in [0, 1] {
        let error = misbehaviour(judged(|message| {
            let mut again = message.charged_accounts[0].clone();
            again.ending_balance -= 1;
            message.charged_accounts.insert(place, again);
        }));
        assert!(matches!(error, VerifyError::EndingBalance { .. }), "{error}");
    }
}

#[test]
fn a_match_of_nothing_is_no_match() {
    for first in [true, false] {
        let error = misbehaviour(judged(|message| match first {
            true => bids(message).next().unwrap().units_filled = 0,
            false => asks(message).next().unwrap().units_filled = 0,
        }));
        assert!(matches!(error, VerifyError::EmptyMatch { .. }), "{error}");
    }
}

#[test]
fn of_their_smallest_match_the_whole_units_count() {
    let honest = judged(|_| ()).unwrap();
    for more in [1, 99_999] {
        let batch = judged(|message| smallest(message, |sat| sat + more)).unwrap();
        assert_eq!(batch, honest, "{more}");
    }
    let batch = judged(|message| smallest(message, |_| 99_999)).unwrap();
    assert_eq!(batch.accounts(), honest.accounts());
    for beyond in [100_000 * 0x1_0000_0000, 2_100_000_000_000_001, u64::MAX] {
        let error = misbehaviour(judged(|message| smallest(message, |_| beyond)));
        assert!(matches!(error, VerifyError::TheirMinimum { expected: u32::MAX, .. }), "{error}");
    }
}

#[test]
fn their_order_may_be_newer_than_what_we_know() {
    let honest = judged(|_| ()).unwrap();
    for version in [6, 7, u32::MAX] {
        let batch = judged(|message| {
            bids(message).for_each(|bid| bid.bid.as_mut().unwrap().version = version);
            asks(message).for_each(|ask| ask.ask.as_mut().unwrap().version = version);
        });
        let batch = batch.unwrap();
        assert_eq!((batch.accounts(), batch.orders()), (honest.accounts(), honest.orders()), "{version}");
        assert_eq!(batch.matches(), honest.matches(), "{version}");
    }
}
