//! Orders while time passes: replaced, asked for after a cut, placed again, outgrown by the venue's fee.

use crate::trade::{Stage, batch_id};
use crate::venue::FEE;
use tidegate_ports::*;
use tidegate_protocol::account::{AccountState, AccountVersion};
use tidegate_protocol::batch::RejectReason;
use tidegate_protocol::fees::ExecutionFee;
use tidegate_protocol::keys::OrderNonce;
use tidegate_protocol::order::{OrderState, OwnOrder};
use tidegate_protocol::units::{RatePerBillion, Sats, UnitCount};
use tidegate_trader::*;

impl Stage {
    fn replace(&mut self, old: OrderNonce, rate: u32, units: u32) -> Result<OrderNonce, ReplaceError> {
        let (order, handle) = (self.new_order("alice", rate, units, 1, 1_000), self.alice.handle.clone());
        self.sim.wait(async move { handle.replace_order(old, order).await })
    }

    fn own(&mut self, nonce: OrderNonce) -> OwnOrder {
        self.status("alice").orders.into_iter().find(|own| own.order.nonce == nonce).unwrap()
    }

    /// Blocks that take nothing from the mempool.
    fn mine_empty(&mut self, blocks: u32) {
        for _ in 0..blocks {
            self.world.reorganise(0, 1);
            self.sim.settle();
        }
    }

    /// The stream breaks and is opened again.
    fn cut_stream(&mut self) {
        self.venue.set_down(true);
        self.sim.settle();
        self.venue.set_down(false);
        self.sim.advance(30_000);
        assert!(self.status("alice").connected);
    }
}

#[test]
fn a_refusal_just_after_the_confirmation_is_asked_again() {
    let mut stage = Stage::with_accounts(AccountVersion::V2);
    stage.venue.refuse_submissions(3);
    let (order, handle) = (stage.new_order("alice", 700, 1, 1, 1_000), stage.alice.handle.clone());
    let mut placing = Box::pin(async move { handle.submit_order(order).await });
    assert_eq!(stage.sim.try_wait(&mut placing), None, "refused, and not believed");
    stage.sim.advance(15_000);
    let nonce = stage.sim.try_wait(&mut placing).expect("the venue has caught up").unwrap();
    assert_eq!(stage.venue.order(nonce).1, OrderState::Submitted);
    stage.sim.advance(20_000);
    stage.venue.refuse_submissions(1);
    assert!(matches!(stage.order("alice", 700, 1), Err(SubmitError::Refused { .. })), "now it is believed");
}

#[test]
fn an_order_that_the_venue_calls_invalid_failed_and_its_log_says_so() {
    let mut stage = Stage::with_accounts(AccountVersion::V2);
    stage.venue.call_invalid();
    let answer = stage.order("alice", 700, 1);
    let Err(SubmitError::Invalid { nonce, reason }) = answer else { panic!("{answer:?}") };
    assert_eq!(reason, "the account holds too little");
    assert_eq!(stage.own(nonce).state, OrderState::Failed);
    let store = stage.alice.store.clone();
    let rows = stage.sim.wait(async move { store.load(&TABLES).await }).unwrap().1;
    let log = rows.iter().filter(|row| row.table == "event");
    let log: Vec<OrderLogEntry> = log.map(|row| serde_json::from_str(&row.value).unwrap()).collect();
    let [OrderLogEntry::Turned(turn)] = log.as_slice() else { panic!("{log:?}") };
    assert_eq!((turn.order, turn.from, turn.to), (nonce, OrderState::Submitted, OrderState::Failed));
}

#[test]
fn a_replaced_order_makes_room_for_the_new_one() {
    let mut stage = Stage::with_accounts(AccountVersion::V2);
    let old = stage.order("alice", 700, 15).unwrap();
    assert!(matches!(stage.order("alice", 650, 15), Err(SubmitError::Funds { .. })), "both do not fit");
    let new = stage.replace(old, 650, 15).unwrap();
    assert_eq!(stage.own(old).state, OrderState::Canceled);
    assert_eq!(stage.venue.order(old).1, OrderState::Canceled);
    assert_eq!(stage.own(new).order.rate, RatePerBillion::new(650));
    assert_eq!(stage.venue.order(new).1, OrderState::Submitted);
    let again = stage.replace(old, 600, 1);
    assert_eq!(again, Err(ReplaceError::Cancel(CancelError::Archived(OrderState::Canceled))), "told twice");
}

#[test]
fn an_order_that_cannot_be_replaced_stays() {
    let mut stage = Stage::with_accounts(AccountVersion::V2);
    let old = stage.order("alice", 700, 15).unwrap();
    let found = stage.replace(old, 650, 30);
    assert!(matches!(found, Err(ReplaceError::Submit(SubmitError::Funds { .. }))), "{found:?}");
    assert_eq!(stage.venue.order(old).1, OrderState::Submitted);
    assert_eq!(stage.own(old).state, OrderState::Submitted);
    stage.venue.lose_next_cancel();
    let found = stage.replace(old, 650, 15);
    assert!(matches!(found, Err(ReplaceError::Cancel(CancelError::Venue(_)))), "{found:?}");
    assert_eq!(stage.status("alice").orders.len(), 1, "nothing is placed while it is unknown");
    stage.sim.advance(6_000);
    assert_eq!(stage.own(old).state, OrderState::Canceled, "asked for");
    let gone = OrderNonce::new([9; 32]);
    assert_eq!(stage.replace(gone, 650, 1), Err(ReplaceError::Cancel(CancelError::Unknown(gone))));
}

#[test]
fn orders_are_asked_for_before_accounts_are_subscribed_again() {
    let (mut stage, ask, _) = Stage::with_orders(AccountVersion::V2);
    let before = stage.venue.all_calls().len();
    stage.venue.forget_order(ask);
    stage.cut_stream();
    assert_eq!(stage.own(ask).state, OrderState::Failed);
    let calls = stage.venue.all_calls().split_off(before);
    let place = |name: &str| calls.iter().position(|call| call == name).unwrap();
    assert!(place("order_state") < place("connect") && place("connect") < place("send"), "{calls:?}");
}

/// Alice's ask of 10 units is filled by 4, and the batch is confirmed.
fn partly_filled() -> (Stage, OrderNonce) {
    let (mut stage, ask, bid) = Stage::with_orders(AccountVersion::V2);
    let mut made = stage.venue.make(batch_id(1), ask, bid, 4, 800, 500);
    let transaction = stage.signed(&mut made);
    stage.venue.finalize(&made);
    stage.venue.book(&made);
    stage.sim.settle();
    stage.world.publish(&transaction).unwrap();
    stage.mine(3);
    assert_eq!(stage.own(ask).state, OrderState::PartiallyFilled);
    (stage, ask)
}

#[test]
fn what_is_left_of_an_order_that_the_venue_dropped_is_placed_again() {
    let forget: fn(&Stage, OrderNonce) = |stage, ask| stage.venue.forget_order(ask);
    let fail: fn(&Stage, OrderNonce) = |stage, ask| stage.venue.set_order_state(ask, OrderState::Failed);
    for (drop_it, restart) in [(forget, false), (forget, true), (fail, false)] {
        let (mut stage, ask) = partly_filled();
        drop_it(&stage, ask);
        if restart {
            stage.restart("alice");
            stage.sim.settle();
        } else {
            stage.cut_stream();
        }
        assert_eq!(stage.own(ask).state, OrderState::Failed);
        let status = stage.status("alice");
        let active: Vec<_> = status.orders.iter().filter(|own| !own.state.is_archived()).collect();
        assert_eq!(active.len(), 1, "once");
        assert_eq!((active[0].units_unfulfilled, active[0].order.rate.get()), (UnitCount::new(6), 700));
        assert_eq!(stage.venue.order(active[0].order.nonce).1, OrderState::Submitted);
        let settled = status.orders.len();
        stage.cut_stream();
        assert_eq!(stage.status("alice").orders.len(), settled, "not again");
    }
}

#[test]
fn what_is_left_is_not_placed_again_when_nobody_wants_it() {
    let (mut stage, ask) = partly_filled();
    stage.venue.forget_order(ask);
    stage.restart_with("alice", TraderConfig { resubmit_remainders: false, ..TraderConfig::default() });
    stage.sim.settle();
    assert_eq!(stage.own(ask).state, OrderState::Failed);
    assert_eq!(stage.status("alice").orders.len(), 1);
    let (mut stage, ask) = partly_filled();
    stage.venue.forget_order(ask);
    stage.close("alice").unwrap();
    assert_eq!(stage.own(ask).state, OrderState::Failed, "the account ends");
    stage.mine(1);
    assert_eq!(stage.state("alice"), AccountState::Closed);
    assert_eq!(stage.status("alice").orders.len(), 1);
}

fn risen() -> ExecutionFee {
    ExecutionFee { base: FEE.base.checked_add(Sats::constant(1)).unwrap(), ..FEE }
}

#[test]
fn an_order_whose_fee_ceiling_is_too_low_by_now_is_cancelled() {
    let (mut stage, ask, bid) = Stage::with_orders(AccountVersion::V2);
    stage.venue.set_fee(risen());
    stage.sim.advance(30_000);
    assert_eq!(stage.own(ask).state, OrderState::Submitted, "the terms are looked at every minute");
    stage.sim.advance(35_000);
    assert_eq!(stage.own(ask).state, OrderState::Canceled);
    assert_eq!(stage.status("alice").outgrown_orders, 1);
    assert_eq!(stage.venue.order(bid).1, OrderState::Canceled);
}

#[test]
fn an_order_whose_fee_ceiling_is_too_low_at_a_new_connection_is_cancelled() {
    let (mut stage, ask, _) = Stage::with_orders(AccountVersion::V2);
    stage.venue.set_fee(risen());
    stage.cut_stream();
    assert_eq!(stage.own(ask).state, OrderState::Canceled);
}

#[test]
fn an_order_whose_fee_ceiling_is_too_low_is_signed_anew_when_told_so() {
    let (mut stage, ask) = partly_filled();
    stage.restart_with("alice", TraderConfig { on_fee_rise: FeeRise::Resign, ..TraderConfig::default() });
    stage.sim.settle();
    stage.venue.set_fee(risen());
    stage.sim.advance(65_000);
    assert_eq!(stage.own(ask).state, OrderState::Canceled);
    let active: Vec<_> = stage.status("alice").orders.into_iter().filter(|own| !own.state.is_archived()).collect();
    assert_eq!(active.len(), 1);
    assert_eq!((active[0].fee_ceiling, active[0].units_unfulfilled), (risen(), UnitCount::new(6)));
    stage.sim.advance(130_000);
    assert_eq!(stage.status("alice").outgrown_orders, 1, "once is enough");
}

#[test]
fn an_order_that_cannot_be_signed_anew_is_cancelled() {
    let mut stage = Stage::with_accounts(AccountVersion::V2);
    stage.restart_with("alice", TraderConfig { on_fee_rise: FeeRise::Resign, ..TraderConfig::default() });
    stage.sim.settle();
    let ask = stage.order("alice", 700, 19).unwrap();
    let base = Sats::constant(200_000);
    stage.venue.set_fee(ExecutionFee { base, ..FEE });
    stage.sim.advance(65_000);
    assert_eq!(stage.own(ask).state, OrderState::Canceled, "the account does not cover the new fee");
    assert_eq!(stage.venue.order(ask).1, OrderState::Canceled);
    assert_eq!(stage.status("alice").orders.len(), 1);
}

#[test]
fn a_fee_above_the_ceiling_is_the_venues_fault_only_when_its_terms_say_less() {
    for rose in [false, true] {
        let (mut stage, ask, bid) = Stage::with_orders(AccountVersion::V2);
        let mut made = stage.venue.make(batch_id(1), ask, bid, 4, 800, 500);
        made.prepares.get_mut("alice").unwrap().execution_fee = risen();
        if rose {
            stage.venue.set_fee(risen());
        }
        stage.venue.propose(&made);
        stage.sim.settle();
        let Some(ClientMessage::Reject(reject)) = stage.venue.heard("alice") else { panic!("refused") };
        let expected = if rose { RejectReason::Unknown } else { RejectReason::ServerMisbehavior };
        assert_eq!(reject.reason, expected, "{}", reject.message);
        let state = if rose { OrderState::Canceled } else { OrderState::Submitted };
        assert_eq!(stage.own(ask).state, state, "rose: {rose}");
    }
}

#[test]
fn a_transaction_that_does_not_confirm_is_told_with_what_can_be_done() {
    let mut stage = Stage::new();
    let account = stage.open(stage.alice.handle.clone(), Sats::constant(500_000), AccountVersion::V2).unwrap();
    stage.mine_empty(11);
    assert!(stage.status("alice").stuck.is_empty());
    stage.mine_empty(1);
    let stuck = stage.status("alice").stuck;
    assert_eq!(stuck.len(), 1);
    assert_eq!((stuck[0].txid, stuck[0].waiting), (account.outpoint.unwrap().txid, Waiting::Funding));
    assert!(stuck[0].to_string().contains("can be raised"), "{}", stuck[0]);
    let request = BumpAccount { account: account.key(), fee_rate: tidegate_protocol::units::SatPerKw::new(5_000) };
    let handle = stage.alice.handle.clone();
    stage.sim.wait(async move { handle.bump(request).await }).unwrap();
    stage.mine(3);
    assert!(stage.status("alice").stuck.is_empty());
    assert_eq!(stage.state("alice"), AccountState::Open);
}
