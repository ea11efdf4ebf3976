//! The orders of a venue in memory: active ones whole and indexed, archived ones as little as questions need.

use crate::book::OrderRecord;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_protocol::keys::{AccountKey, MultisigKey, OrderNonce};
use tidegate_protocol::order::OrderState;
use tidegate_protocol::units::UnitCount;

/// All orders.
#[derive(Clone, Debug, Default)]
pub(crate) struct Orders {
    active: BTreeMap<OrderNonce, OrderRecord>,
    /// Nonces of the active orders of an account.
    by_account: BTreeMap<AccountKey, BTreeSet<OrderNonce>>,
    /// Funding keys of active orders.
    funding_keys: BTreeMap<MultisigKey, OrderNonce>,
    archived: BTreeMap<OrderNonce, (OrderState, UnitCount)>,
    next_arrival: u64,
}

impl Orders {
    /// Takes in an order as it is stored now.
    pub(crate) fn put(&mut self, record: OrderRecord) {
        let nonce = record.nonce();
        self.next_arrival = self.next_arrival.max(record.arrival.saturating_add(1));
        if record.state.is_archived() {
            self.forget(nonce);
            self.archived.insert(nonce, (record.state, record.open));
            return;
        }
        self.by_account.entry(record.submitted.order.account).or_default().insert(nonce);
        self.funding_keys.insert(record.submitted.multisig, nonce);
        self.active.insert(nonce, record);
    }

    fn forget(&mut self, nonce: OrderNonce) {
        let Some(record) = self.active.remove(&nonce) else { return };
        let account = record.submitted.order.account;
        if let Some(nonces) = self.by_account.get_mut(&account) {
            nonces.remove(&nonce);
            if nonces.is_empty() {
                self.by_account.remove(&account);
            }
        }
        self.funding_keys.remove(&record.submitted.multisig);
    }

    /// An active order.
    pub(crate) fn active(&self, nonce: OrderNonce) -> Option<&OrderRecord> {
        self.active.get(&nonce)
    }

    /// All active orders, by nonce.
    pub(crate) fn all_active(&self) -> impl Iterator<Item = &OrderRecord> {
        self.active.values()
    }

    /// The active orders of an account, by nonce.
    pub(crate) fn of(&self, account: AccountKey) -> impl Iterator<Item = &OrderRecord> {
        self.by_account.get(&account).into_iter().flatten().filter_map(|nonce| self.active.get(nonce))
    }

    /// Whether an active order has this funding key.
    pub(crate) fn uses_funding_key(&self, key: MultisigKey) -> bool {
        self.funding_keys.contains_key(&key)
    }

    /// State and open units of any order.
    pub(crate) fn state(&self, nonce: OrderNonce) -> Option<(OrderState, UnitCount)> {
        let active = self.active.get(&nonce).map(|record| (record.state, record.open));
        active.or_else(|| self.archived.get(&nonce).copied())
    }

    /// Arrival number of the next order.
    pub(crate) fn next_arrival(&self) -> u64 {
        self.next_arrival
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::orders::submitted;

    fn record(number: u8, state: OrderState) -> OrderRecord {
        let (open, arrival) = (UnitCount::new(2), u64::from(number));
        OrderRecord { submitted: submitted(number, true), state, open, arrival }
    }

    #[test]
    fn an_archived_order_leaves_its_state_and_nothing_else() {
        let mut orders = Orders::default();
        for number in 1..=3 {
            orders.put(record(number, OrderState::Submitted));
        }
        let first = record(1, OrderState::Canceled);
        let (account, key, nonce) = (first.submitted.order.account, first.submitted.multisig, first.nonce());
        assert_eq!((orders.of(account).count(), orders.uses_funding_key(key)), (1, true));
        orders.put(first);
        assert_eq!((orders.of(account).count(), orders.uses_funding_key(key)), (0, false));
        assert_eq!((orders.active(nonce), orders.all_active().count()), (None, 2));
        assert_eq!(orders.state(nonce), Some((OrderState::Canceled, UnitCount::new(2))));
        assert_eq!(orders.next_arrival(), 4, "numbers of arrival never repeat");
        assert!(!orders.by_account.contains_key(&account));
        orders.put(record(9, OrderState::Executed));
        assert_eq!((orders.all_active().count(), orders.next_arrival()), (2, 10));
    }
}
