//! The lives of accounts and orders as tables: what each event does in each state.
//!
//! Does: name every transition. Never does: read or write anything.

use tidegate_protocol::account::AccountState;
use tidegate_protocol::order::OrderState;

/// Something that happens to an account.
///
/// # Source
/// Protocol notes, accounts §3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountEvent {
    /// The funding transaction was made or found.
    Funded,
    /// There is no funding transaction and there will be none: a recovered reservation without one, or one that would
    /// expire too soon by now.
    FundingMissing,
    /// The current output has enough confirmations.
    Confirmed,
    /// The expiry height was reached.
    ExpiryReached,
    /// The owner deposited or withdrew.
    Modified,
    /// The owner moved the expiry.
    Renewed,
    /// The owner closes the account.
    CloseRequested,
    /// A batch is final and recreates the output.
    BatchRecreated,
    /// A batch is final and leaves no output.
    BatchConsumed,
    /// A block spends the output by the owner alone.
    SpentByExpiry,
    /// A block spends the output cooperatively, and the spender holds the account's current output.
    SpentRecreated,
    /// A block spends the output cooperatively, and the account is gone.
    SpentForGood,
}

/// Something that happens to an order.
///
/// # Source
/// Protocol notes, batch §1 and §10.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderFate {
    /// A batch is final that fills a part of it.
    PartlyFilled,
    /// A batch is final that leaves nothing of it, or less than its smallest match.
    Filled,
    /// Its owner cancelled it.
    Cancelled,
    /// Its account ended.
    AccountEnded,
    /// The venue refused it, or does not know it.
    Dropped,
}

/// What an event does to an account, or to an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition<State = AccountState> {
    /// It gets this state.
    To(State),
    /// Nothing changes, for this reason.
    Stay(&'static str),
    /// The event cannot happen in this state.
    Illegal,
}

impl<State> Transition<State> {
    /// The new state, when the event is legal: the same one for [`Transition::Stay`].
    pub fn state(self, current: State) -> Option<State> {
        match self {
            Transition::To(state) => Some(state),
            Transition::Stay(_) => Some(current),
            Transition::Illegal => None,
        }
    }
}

use AccountState as S;
use Transition::{Illegal, Stay, To};

/// The transition table.
///
/// # Source
/// Protocol notes, accounts §3. A final batch may also overtake an expiry, a change or a close of ours: only the chain
/// decides which of two spends of one output comes true.
pub fn next(state: AccountState, event: AccountEvent) -> Transition {
    match event {
        AccountEvent::Funded => match state {
            S::Initiated => To(S::PendingOpen),
            S::PendingOpen => Stay("funding known"),
            S::PendingUpdate | S::Open | S::Expired | S::PendingClosed | S::Closed => Illegal,
            S::CanceledAfterRecovery | S::PendingBatch | S::ExpiredPendingUpdate => Illegal,
        },
        AccountEvent::FundingMissing => match state {
            S::Initiated => To(S::CanceledAfterRecovery),
            S::CanceledAfterRecovery => Stay("already canceled"),
            S::PendingOpen | S::PendingUpdate | S::Open | S::Expired | S::PendingClosed => Illegal,
            S::Closed | S::PendingBatch | S::ExpiredPendingUpdate => Illegal,
        },
        AccountEvent::Confirmed => confirmed(state),
        AccountEvent::ExpiryReached => match state {
            S::Open => To(S::Expired),
            S::PendingUpdate | S::PendingBatch => To(S::ExpiredPendingUpdate),
            S::Initiated | S::PendingOpen => Stay("expires once it is open"),
            S::Expired | S::ExpiredPendingUpdate => Stay("already expired"),
            S::PendingClosed | S::Closed | S::CanceledAfterRecovery => Stay("closing or closed"),
        },
        AccountEvent::Modified => match state {
            S::Open => To(S::PendingUpdate),
            S::Initiated | S::PendingOpen | S::PendingUpdate | S::Expired | S::PendingClosed => Illegal,
            S::Closed | S::CanceledAfterRecovery | S::PendingBatch | S::ExpiredPendingUpdate => Illegal,
        },
        AccountEvent::Renewed => match state {
            S::Open | S::Expired => To(S::PendingUpdate),
            S::Initiated | S::PendingOpen | S::PendingUpdate | S::PendingClosed => Illegal,
            S::Closed | S::CanceledAfterRecovery | S::PendingBatch | S::ExpiredPendingUpdate => Illegal,
        },
        AccountEvent::CloseRequested => match state {
            S::PendingOpen | S::PendingUpdate | S::Open | S::Expired => To(S::PendingClosed),
            S::PendingBatch | S::ExpiredPendingUpdate => To(S::PendingClosed),
            // Without an output there is nothing to close.
            S::Initiated | S::CanceledAfterRecovery | S::PendingClosed | S::Closed => Illegal,
        },
        AccountEvent::BatchRecreated => batch_final(state, S::PendingBatch),
        AccountEvent::BatchConsumed => batch_final(state, S::PendingClosed),
        AccountEvent::SpentByExpiry => spent(state, To(S::Closed)),
        AccountEvent::SpentRecreated => spent(state, Stay("the output lives on")),
        AccountEvent::SpentForGood => spent(state, To(S::Closed)),
    }
}

/// The transition table of orders.
///
/// # Source
/// Protocol notes, batch §10. What is left of an order that is at rest stays so when a batch that was signed before
/// becomes final: nothing is reserved for it any more.
pub fn next_order(state: OrderState, fate: OrderFate) -> Transition<OrderState> {
    use OrderState as O;
    match fate {
        OrderFate::PartlyFilled => match state {
            O::Submitted | O::Cleared | O::PartiallyFilled => To(O::PartiallyFilled),
            O::Executed | O::Canceled | O::Expired | O::Failed => Stay("at rest"),
        },
        OrderFate::Filled => match state {
            O::Submitted | O::Cleared | O::PartiallyFilled => To(O::Executed),
            O::Canceled | O::Expired | O::Failed => To(O::Executed),
            O::Executed => Stay("already filled"),
        },
        OrderFate::Cancelled => order_ends(state, O::Canceled),
        OrderFate::AccountEnded => order_ends(state, O::Expired),
        OrderFate::Dropped => order_ends(state, O::Failed),
    }
}

fn order_ends(state: OrderState, end: OrderState) -> Transition<OrderState> {
    match state {
        OrderState::Submitted | OrderState::Cleared | OrderState::PartiallyFilled => To(end),
        OrderState::Executed | OrderState::Canceled | OrderState::Expired | OrderState::Failed => Stay("at rest"),
    }
}

fn confirmed(state: AccountState) -> Transition {
    match state {
        S::PendingOpen | S::PendingUpdate | S::PendingBatch => To(S::Open),
        S::ExpiredPendingUpdate => To(S::Expired),
        S::Open | S::Expired => Stay("already confirmed"),
        S::PendingClosed | S::Closed => Stay("closing or closed"),
        S::Initiated | S::CanceledAfterRecovery => Illegal,
    }
}

fn batch_final(state: AccountState, to: AccountState) -> Transition {
    match state {
        S::Open | S::PendingBatch => To(to),
        // The batch confirmed although the account expired, or was being changed or closed, in the meantime.
        S::Expired | S::ExpiredPendingUpdate | S::PendingUpdate | S::PendingClosed => To(to),
        S::Initiated | S::PendingOpen | S::Closed | S::CanceledAfterRecovery => Illegal,
    }
}

fn spent(state: AccountState, outcome: Transition) -> Transition {
    match state {
        S::PendingOpen | S::PendingUpdate | S::Open | S::Expired => outcome,
        S::PendingClosed | S::PendingBatch | S::ExpiredPendingUpdate => outcome,
        S::Closed => Stay("already closed"),
        S::Initiated | S::CanceledAfterRecovery => Illegal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const STATES: [AccountState; 10] = [
        S::Initiated,
        S::PendingOpen,
        S::PendingUpdate,
        S::Open,
        S::Expired,
        S::PendingClosed,
        S::Closed,
        S::CanceledAfterRecovery,
        S::PendingBatch,
        S::ExpiredPendingUpdate,
    ];

    const EVENTS: [AccountEvent; 12] = [
        AccountEvent::Funded,
        AccountEvent::FundingMissing,
        AccountEvent::Confirmed,
        AccountEvent::ExpiryReached,
        AccountEvent::Modified,
        AccountEvent::Renewed,
        AccountEvent::CloseRequested,
        AccountEvent::BatchRecreated,
        AccountEvent::BatchConsumed,
        AccountEvent::SpentByExpiry,
        AccountEvent::SpentRecreated,
        AccountEvent::SpentForGood,
    ];

    /// One row per event, one column per state in the order of their persisted numbers 0..=9:
    /// the new state's number, `=` unchanged, `x` illegal.
    const TABLE: [(AccountEvent, &str); 12] = [
        //                              0 1 2 3 4 5 6 7 8 9
        (AccountEvent::Funded, /*    */ "1 = x x x x x x x x"),
        (AccountEvent::FundingMissing, "7 x x x x x x = x x"),
        (AccountEvent::Confirmed, /* */ "x 3 3 = = = = x 3 4"),
        (AccountEvent::ExpiryReached, "= = 9 4 = = = = 9 ="),
        (AccountEvent::Modified, /*  */ "x x x 2 x x x x x x"),
        (AccountEvent::Renewed, /*   */ "x x x 2 2 x x x x x"),
        (AccountEvent::CloseRequested, "x 5 5 5 5 x x x 5 5"),
        (AccountEvent::BatchRecreated, "x x 8 8 8 8 x x 8 8"),
        (AccountEvent::BatchConsumed, "x x 5 5 5 5 x x 5 5"),
        (AccountEvent::SpentByExpiry, "x 6 6 6 6 6 = x 6 6"),
        (AccountEvent::SpentRecreated, "x = = = = = = x = ="),
        (AccountEvent::SpentForGood, "x 6 6 6 6 6 = x 6 6"),
    ];

    fn shown(transition: Transition) -> String {
        match transition {
            To(state) => STATES.iter().position(|s| *s == state).unwrap().to_string(),
            Stay(_) => "=".into(),
            Illegal => "x".into(),
        }
    }

    #[test]
    fn every_pair_does_what_the_table_says() {
        assert_eq!(TABLE.map(|row| row.0), EVENTS, "one row per event");
        for (event, row) in TABLE {
            let found: Vec<String> = STATES.iter().map(|state| shown(next(*state, event))).collect();
            assert_eq!(found.join(" "), row, "{event:?}");
        }
    }

    #[test]
    #[allow(clippy::as_conversions, reason = "the persisted number is the discriminant")]
    fn persisted_numbers_follow_the_order_of_the_table() {
        for (number, state) in STATES.iter().enumerate() {
            assert_eq!(*state as usize, number);
        }
    }

    #[test]
    fn every_state_but_the_final_ones_has_a_way_out() {
        let stuck: BTreeSet<AccountState> = STATES
            .into_iter()
            .filter(|state| !EVENTS.iter().any(|event| matches!(next(*state, *event), To(s) if s != *state)))
            .collect();
        assert_eq!(stuck, BTreeSet::from([S::Closed, S::CanceledAfterRecovery]));
    }

    const ORDER_STATES: [OrderState; 7] = [
        OrderState::Submitted,
        OrderState::Cleared,
        OrderState::PartiallyFilled,
        OrderState::Executed,
        OrderState::Canceled,
        OrderState::Expired,
        OrderState::Failed,
    ];

    /// As [`TABLE`], for orders: one column per state in the order of their persisted numbers 0..=6.
    const ORDER_TABLE: [(OrderFate, &str); 5] = [
        //                        0 1 2 3 4 5 6
        (OrderFate::PartlyFilled, "2 2 2 = = = ="),
        (OrderFate::Filled, /* */ "3 3 3 = 3 3 3"),
        (OrderFate::Cancelled, /**/ "4 4 4 = = = ="),
        (OrderFate::AccountEnded, "5 5 5 = = = ="),
        (OrderFate::Dropped, /**/ "6 6 6 = = = ="),
    ];

    #[test]
    #[allow(clippy::as_conversions, reason = "the persisted number is the discriminant")]
    fn every_pair_of_orders_does_what_the_table_says() {
        for (fate, row) in ORDER_TABLE {
            let shown = |state: &OrderState| match next_order(*state, fate) {
                To(state) => (state as usize).to_string(),
                Stay(_) => "=".into(),
                Illegal => "x".into(),
            };
            assert_eq!(ORDER_STATES.iter().map(shown).collect::<Vec<String>>().join(" "), row, "{fate:?}");
        }
        for (number, state) in ORDER_STATES.iter().enumerate() {
            assert_eq!(*state as usize, number);
            let way_out = ORDER_TABLE.iter().any(|(fate, _)| matches!(next_order(*state, *fate), To(s) if s != *state));
            assert!(way_out || state.is_archived(), "{state:?}");
        }
    }
}
