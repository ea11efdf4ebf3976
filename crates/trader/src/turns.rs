//! The log of orders: what a commit makes of an order's state is found by comparing before and after, so that no flow can
//! forget to write it down.
//!
//! Does: add to the updates of a commit the entries that they mean. Everything here is synchronous and pure.

use crate::book::{Book, OrderEvent, Update};
use serde::{Deserialize, Serialize};
use tidegate_ports::Timestamp;
use tidegate_protocol::keys::OrderNonce;
use tidegate_protocol::order::{OrderState, OwnOrder};
use tidegate_protocol::units::UnitCount;

/// A change of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderTurn {
    /// When.
    pub at: Timestamp,
    /// Our order.
    pub order: OrderNonce,
    /// Its state before.
    pub from: OrderState,
    /// Its state since.
    pub to: OrderState,
    /// Units of it that are filled.
    pub filled: UnitCount,
}

/// An entry of the order log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OrderLogEntry {
    /// Something that happened to it in a batch.
    Matched(OrderEvent),
    /// Its state, or what is filled of it, changed.
    Turned(OrderTurn),
}

impl OrderLogEntry {
    /// The order.
    pub fn order(&self) -> OrderNonce {
        match self {
            OrderLogEntry::Matched(event) => event.order,
            OrderLogEntry::Turned(turn) => turn.order,
        }
    }
}

/// What these updates change about orders that the book knows.
pub(crate) fn of(book: &Book, updates: &[Update], at: Timestamp) -> Vec<Update> {
    let turn = |update: &Update| {
        let Update::Order(after) = update else { return None };
        let before = book.orders.get(&after.order.nonce)?;
        turned(before, after, at).map(|turn| Update::Turned(Box::new(turn)))
    };
    updates.iter().filter_map(turn).collect()
}

fn turned(before: &OwnOrder, after: &OwnOrder, at: Timestamp) -> Option<OrderTurn> {
    if (before.state, before.units_unfulfilled) == (after.state, after.units_unfulfilled) {
        return None;
    }
    let all = UnitCount::floor_from(after.order.amount).ok()?;
    let filled = all.checked_sub(after.units_unfulfilled).unwrap_or(UnitCount::new(0));
    Some(OrderTurn { at, order: after.order.nonce, from: before.state, to: after.state, filled })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn every_change_of_an_order_that_is_known_is_an_entry() {
        let own = fixtures::own_ask(1);
        let mut book = Book::default();
        let update = |own: &OwnOrder| Update::Order(Box::new(own.clone()));
        assert!(of(&book, &[update(&own)], Timestamp(7)).is_empty(), "a new order has no state before");
        book.apply(update(&own));
        assert!(of(&book, &[update(&own)], Timestamp(7)).is_empty(), "nothing changes");
        let left = own.units_unfulfilled.checked_sub(UnitCount::new(2)).expect("more than two");
        let partly = OwnOrder { state: OrderState::PartiallyFilled, units_unfulfilled: left, ..own.clone() };
        let found = of(&book, &[update(&partly)], Timestamp(7));
        let [Update::Turned(turn)] = found.as_slice() else { panic!("{found:?}") };
        let expected = OrderTurn {
            at: Timestamp(7),
            order: own.order.nonce,
            from: OrderState::Submitted,
            to: OrderState::PartiallyFilled,
            filled: UnitCount::new(2),
        };
        assert_eq!(**turn, expected);
    }

    #[test]
    fn both_kinds_of_entries_are_told_apart() {
        let turn = OrderTurn {
            at: Timestamp(7),
            order: fixtures::nonce(1),
            from: OrderState::Submitted,
            to: OrderState::Canceled,
            filled: UnitCount::new(0),
        };
        let entry = OrderLogEntry::Turned(turn);
        let text = serde_json::to_string(&entry).expect("plain data");
        assert_eq!(serde_json::from_str::<OrderLogEntry>(&text).expect("as written"), entry);
        let event = OrderEvent {
            at: Timestamp(7),
            order: fixtures::nonce(1),
            batch: fixtures::staged_batch().batch_id,
            theirs: fixtures::nonce(2),
            units: UnitCount::new(3),
            kind: crate::book::OrderEventKind::Signed,
        };
        let text = serde_json::to_string(&event).expect("plain data");
        let read: OrderLogEntry = serde_json::from_str(&text).expect("rows of earlier versions too");
        assert_eq!(read, OrderLogEntry::Matched(event));
    }
}
