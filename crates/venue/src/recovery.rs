//! The state of an account, told to an owner who lost it.
//!
//! # Source
//! Protocol notes, rpc §9.3, auctioneer §3.2.

use crate::actor::Actor;
use crate::book::{AccountRecord, SignedChange, Write};
use crate::error::Halt;
use crate::machine::VenueAccountState;
use crate::streams::Step;
use bitcoin::{OutPoint, Transaction};
use tidegate_ports::{RecoveredAccount, RecoveredState, Reservation, ReservedKeys, ServerMessage, StreamId, VenueEnv};
use tidegate_protocol::account::AccountTerms;
use tidegate_protocol::keys::AccountKey;
use tidegate_protocol::order::OrderState;
use tidegate_protocol::units::Sats;
use tracing::info;

impl<E: VenueEnv> Actor<'_, E> {
    /// Ends the account's orders, whose secrets are lost with the rest, and tells its state.
    pub(crate) async fn recover(&mut self, stream: StreamId, account: AccountKey) -> Result<Step, Halt> {
        let subscribed_here = self.streams.of_account(account).is_some_and(|(id, _)| id == stream);
        let (true, Some(record)) = (subscribed_here, self.book.accounts.get(&account)) else {
            return Ok(Step::Close("an account can be recovered only on the stream on which it is subscribed"));
        };
        let told = self.told(record);
        let cancelled: Vec<Write> = self
            .book
            .active_orders(account)
            .map(|order| {
                let mut order = order.clone();
                order.state = OrderState::Canceled;
                Write::Order(order)
            })
            .collect();
        info!(%account, orders = cancelled.len(), "account recovered by its owner");
        if !cancelled.is_empty() {
            self.commit(cancelled).await?;
        }
        Ok(Step::Send(ServerMessage::Account(Box::new(told))))
    }

    fn told(&self, record: &AccountRecord) -> RecoveredAccount {
        // The latest change that was signed is what its owner most likely published; if it did not, the account is told
        // as it would be, and another change or the expiry gets the owner out.
        let pending = record.changes.iter().rev().find(|change| change.spends == record.outpoint);
        match pending.and_then(|change| Some((change, change.after?))) {
            Some((SignedChange { transaction, .. }, after)) => {
                let outpoint = OutPoint { txid: transaction.compute_txid(), vout: after.vout };
                let output = (outpoint, Some(transaction.clone()));
                told(record, RecoveredState::PendingUpdate, &after.terms, after.value, output)
            }
            None => {
                let output = (record.outpoint, self.latest_transaction(record));
                told(record, recovered_state(record.state), &record.terms, record.value, output)
            }
        }
    }

    fn latest_transaction(&self, record: &AccountRecord) -> Option<Transaction> {
        record.latest.clone().or_else(|| {
            let made = |transaction: &&Transaction| transaction.compute_txid() == record.outpoint.txid;
            self.book.batches.iter().rev().map(|batch| &batch.transaction).find(made).cloned()
        })
    }
}

fn told(
    record: &AccountRecord,
    state: RecoveredState,
    terms: &AccountTerms,
    value: Sats,
    (outpoint, latest_tx): (OutPoint, Option<Transaction>),
) -> RecoveredAccount {
    RecoveredAccount {
        reservation: Reservation { value, expiry: terms.expiry, trader: terms.trader, version: terms.version },
        keys: ReservedKeys { auctioneer: terms.auctioneer, batch: terms.batch },
        state,
        height_hint: record.height_hint,
        outpoint,
        latest_tx,
    }
}

fn recovered_state(state: VenueAccountState) -> RecoveredState {
    match state {
        VenueAccountState::PendingOpen => RecoveredState::PendingOpen,
        VenueAccountState::PendingUpdate => RecoveredState::PendingUpdate,
        VenueAccountState::Open => RecoveredState::Open,
        VenueAccountState::Expired => RecoveredState::Expired,
        VenueAccountState::Closed => RecoveredState::Closed,
        VenueAccountState::PendingBatch => RecoveredState::PendingBatch,
        VenueAccountState::ExpiredPendingUpdate => RecoveredState::ExpiredPendingUpdate,
    }
}
