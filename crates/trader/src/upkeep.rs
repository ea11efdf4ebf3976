//! What must be repeated until it succeeds, each with its own growing pauses.

use crate::accounts::{self, Note};
use crate::book::Book;
use crate::desk::{Backoff, Desk, Moment};
use crate::orders;
use bitcoin::Txid;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_ports::{Clock, Timestamp, TraderEnv};
use tidegate_protocol::account::AccountState;
use tidegate_protocol::keys::{AccountKey, OrderNonce};

/// Something that is owed to node or venue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Chore {
    /// Find or make the funding transaction.
    Fund(AccountKey),
    /// Hand a transaction of ours to the network again, once per run.
    Publish(AccountKey, Txid),
    /// Tell the venue of the funded account, once per run.
    Announce(AccountKey),
    /// Ask the venue what became of an order.
    Reconcile(OrderNonce),
}

/// The chores of one run.
#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    done: BTreeSet<Chore>,
    failed: BTreeMap<Chore, (Timestamp, Backoff)>,
}

/// The chores that book and moment demand, whether done already or not.
fn demanded(book: &Book, moment: &Moment) -> BTreeSet<Chore> {
    let mut chores = BTreeSet::new();
    for account in book.accounts.values() {
        let key = account.key();
        let publish = account.latest_tx.as_ref().map(|tx| Chore::Publish(key, tx.compute_txid()));
        match account.state {
            AccountState::Initiated => chores.extend([Chore::Fund(key)]),
            AccountState::PendingOpen => chores.extend(publish.into_iter().chain([Chore::Announce(key)])),
            AccountState::PendingClosed => chores.extend(publish),
            AccountState::Open if moment.unannounced.contains(&key) => chores.extend([Chore::Announce(key)]),
            AccountState::Open | AccountState::PendingUpdate | AccountState::Expired | AccountState::Closed => {}
            AccountState::CanceledAfterRecovery | AccountState::PendingBatch => {}
            AccountState::ExpiredPendingUpdate => {}
        }
    }
    chores.extend(moment.unsure.iter().copied().map(Chore::Reconcile));
    chores
}

impl Upkeep {
    /// Does what is due. Returns when the next attempt is due, if any is.
    pub(crate) async fn run<E: TraderEnv>(&mut self, env: &E, desk: &Desk) -> Option<Timestamp> {
        self.forget_announced(desk);
        let demanded = desk.look(demanded);
        self.failed.retain(|chore, _| demanded.contains(chore));
        for chore in demanded {
            if matches!(chore, Chore::Reconcile(_)) && !self.failed.contains_key(&chore) {
                // What was sent just now may still be on its way: asked at once, the venue could deny it too early.
                self.failed(chore, desk, env.clock().now());
            }
            if self.is_due(chore, env.clock().now()) {
                match self.attempt(env, desk, chore).await {
                    Ok(()) => self.succeeded(chore),
                    Err(reason) => {
                        tracing::warn!(?chore, reason, "not yet; trying again later");
                        self.failed(chore, desk, env.clock().now());
                    }
                }
            }
        }
        self.failed.values().map(|(at, _)| *at).min()
    }

    fn is_due(&self, chore: Chore, now: Timestamp) -> bool {
        !self.done.contains(&chore) && self.failed.get(&chore).is_none_or(|(at, _)| *at <= now)
    }

    /// The chore is done for this run.
    pub(crate) fn succeeded(&mut self, chore: Chore) {
        self.failed.remove(&chore);
        match chore {
            Chore::Publish(..) | Chore::Announce(_) => self.done.extend([chore]),
            // What demanded these is gone from book or moment once they succeeded.
            Chore::Fund(_) | Chore::Reconcile(_) => {}
        }
    }

    /// The chore is tried again after a pause.
    pub(crate) fn failed(&mut self, chore: Chore, desk: &Desk, now: Timestamp) {
        let (_, mut backoff) = self.failed.remove(&chore).unwrap_or_else(|| (now, Backoff::new(&desk.config)));
        let at = backoff.next(now);
        self.failed.insert(chore, (at, backoff));
    }

    async fn attempt<E: TraderEnv>(&self, env: &E, desk: &Desk, chore: Chore) -> Result<(), String> {
        match chore {
            Chore::Fund(key) => {
                let Some(account) = desk.account(key) else { return Ok(()) };
                accounts::fund(env, desk, &account, None).await.map(drop).map_err(|error| error.to_string())
            }
            Chore::Publish(key, _) => {
                let Some(account) = desk.account(key) else { return Ok(()) };
                let note = match account.state {
                    AccountState::PendingClosed => Note::close(&account, false, None),
                    _ => Note::create(&account),
                };
                let label = accounts::label(&note);
                accounts::publish_again(env, &account, &label).await.map_err(|error| error.to_string())
            }
            Chore::Announce(key) => {
                let Some(account) = desk.account(key) else { return Ok(()) };
                accounts::announce(env, &account).await.map_err(|error| error.to_string())?;
                tracing::info!(account = %key, "account announced to the venue");
                desk.note(|moment| moment.unannounced.remove(&key));
                Ok(())
            }
            Chore::Reconcile(nonce) => orders::reconcile(env, desk, nonce).await.map_err(|error| error.to_string()),
        }
    }

    /// An account that the venue did not know must be announced anew.
    fn forget_announced(&mut self, desk: &Desk) {
        for key in desk.note(|moment| moment.unannounced.clone()) {
            self.done.remove(&Chore::Announce(key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::book::Update;
    use crate::config::TraderConfig;
    use crate::fixtures;
    use tidegate_protocol::account::Account;

    fn chores(state: AccountState) -> Vec<Chore> {
        let mut book = Book::default();
        let latest_tx = Some(fixtures::spend_of(fixtures::outpoint(1)));
        book.apply(Update::Account(Box::new(Account { state, latest_tx, ..fixtures::account(1) })));
        demanded(&book, &Moment::default()).into_iter().collect()
    }

    #[test]
    fn each_state_owes_its_chores() {
        let key = fixtures::account_key(1);
        let publish = Chore::Publish(key, fixtures::spend_of(fixtures::outpoint(1)).compute_txid());
        assert_eq!(chores(AccountState::Initiated), [Chore::Fund(key)]);
        assert_eq!(chores(AccountState::PendingOpen), [publish, Chore::Announce(key)]);
        assert_eq!(chores(AccountState::PendingClosed), [publish]);
        assert_eq!(chores(AccountState::Open), []);
        assert_eq!(chores(AccountState::Closed), []);
    }

    #[test]
    fn a_failed_chore_waits_longer_each_time() {
        let (desk, _writes) =
            Desk::new(TraderConfig { reconnect_min_ms: 10, reconnect_max_ms: 100, ..TraderConfig::default() });
        let chore = Chore::Fund(fixtures::account_key(1));
        let mut upkeep = Upkeep::default();
        assert!(upkeep.is_due(chore, Timestamp(0)));
        upkeep.failed(chore, &desk, Timestamp(0));
        assert!(!upkeep.is_due(chore, Timestamp(9)));
        assert!(upkeep.is_due(chore, Timestamp(10)));
        upkeep.failed(chore, &desk, Timestamp(10));
        assert!(!upkeep.is_due(chore, Timestamp(29)));
        upkeep.succeeded(chore);
        assert!(upkeep.is_due(chore, Timestamp(10)), "funding is owed as long as the state demands it");
    }
}
