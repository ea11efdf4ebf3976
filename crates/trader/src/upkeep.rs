//! What must be repeated until it succeeds, each with its own growing pauses.

use crate::accounts;
use crate::batch;
use crate::book::Book;
use crate::desk::{Backoff, Desk, Moment};
use crate::orders;
use crate::receipt::{self, Released};
use bitcoin::Txid;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_ports::{Clock, Timestamp, TraderEnv, VenueLink, Wallet};
use tidegate_protocol::account::AccountState;
use tidegate_protocol::keys::{AccountKey, OrderNonce};
use tidegate_protocol::label::Note;
use tidegate_protocol::order::OwnOrder;
use tidegate_protocol::units::BlockHeight;

/// Something that is owed to node or venue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Chore {
    /// Find or make the funding transaction.
    Fund(AccountKey),
    /// Hand a transaction of ours to the network again: once per run, and every some blocks until it is confirmed.
    Publish(AccountKey, Txid),
    /// Tell the venue of the funded account, once per run.
    Announce(AccountKey),
    /// Ask the venue what became of an order.
    Reconcile(OrderNonce),
    /// Place again what is left of an order that the venue dropped.
    Resubmit(OrderNonce),
    /// End, or sign anew, an order whose fee ceiling the venue's terms have outgrown.
    Outgrown(OrderNonce),
}

/// The chores of one run.
#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    done: BTreeSet<Chore>,
    /// Height at which a transaction was published last.
    published: BTreeMap<Chore, BlockHeight>,
    failed: BTreeMap<Chore, (Timestamp, Backoff)>,
    /// When the venue's terms are looked at next; nothing while there is no stream, whose opening looks at them.
    terms_at: Option<Timestamp>,
}

/// The chores that book and moment demand, whether done already or not.
fn demanded(book: &Book, moment: &Moment) -> BTreeSet<Chore> {
    let mut chores = BTreeSet::new();
    let changes = book.changes.values().filter(|change| !change.void);
    chores.extend(changes.map(|change| Chore::Publish(change.after.key(), change.txid())));
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
    chores.extend(moment.unsure.keys().copied().map(Chore::Reconcile));
    chores.extend(moment.dropped.iter().copied().map(Chore::Resubmit));
    chores.extend(outgrown(book, moment).map(Chore::Outgrown));
    chores
}

/// Orders that will not be matched for the venue's present fee. One in a batch under way waits for its outcome.
fn outgrown<'a>(book: &'a Book, moment: &'a Moment) -> impl Iterator<Item = OrderNonce> + 'a {
    let fee = moment.terms.as_ref().map(|terms| terms.execution_fee);
    let in_batch = |own: &OwnOrder| {
        let verified = moment.verified.as_ref().map(|verified| &verified.batch);
        let mut proposed = verified.into_iter().flat_map(|batch| batch.orders());
        proposed.any(|ending| ending.nonce == own.order.nonce) || book.active_stage(own.order.account).is_some()
    };
    let orders = book.orders.values();
    let outgrown = orders.filter(move |own| fee.as_ref().is_some_and(|fee| orders::is_outgrown(own, fee)));
    outgrown.filter(move |own| !in_batch(own)).map(|own| own.order.nonce)
}

/// A transaction of an account that is ours to publish, with what the wallet notes beside it.
fn publishable(book: &Book, key: AccountKey, txid: Txid) -> Option<(Released, String)> {
    if let Some(change) = book.changes.get(&txid) {
        return Some((receipt::stored_change(change)?, change.label.clone()));
    }
    let account = book.accounts.get(&key)?;
    let released = receipt::stored_latest(account).filter(|released| released.transaction().compute_txid() == txid)?;
    Some((released, Note::create(account).label("")))
}

impl Upkeep {
    /// Does what is due. Returns when the next attempt is due, if any is.
    pub(crate) async fn run<E: TraderEnv>(&mut self, env: &E, desk: &Desk) -> Option<Timestamp> {
        self.look_at_terms(env, desk).await;
        self.forget_announced(desk);
        let demanded = desk.look(demanded);
        self.failed.retain(|chore, _| demanded.contains(chore));
        self.published.retain(|chore, _| demanded.contains(chore));
        for chore in demanded {
            if matches!(chore, Chore::Reconcile(_)) && !self.failed.contains_key(&chore) {
                // What was sent just now may still be on its way: asked at once, the venue could deny it too early.
                self.failed(chore, desk, env.clock().now());
            }
            if self.is_due(chore, desk, env.clock().now()) {
                match self.attempt(env, desk, chore).await {
                    Ok(()) => self.succeeded(chore, desk),
                    Err(reason) => {
                        tracing::warn!(?chore, reason, "not yet; trying again later");
                        self.failed(chore, desk, env.clock().now());
                    }
                }
            }
        }
        self.failed.values().map(|(at, _)| *at).chain(self.terms_at).min()
    }

    /// Polls the venue's terms while a stream is open.
    async fn look_at_terms<E: TraderEnv>(&mut self, env: &E, desk: &Desk) {
        let now = env.clock().now();
        let due = self.terms_at.is_some_and(|at| now >= at);
        if desk.note(|moment| moment.connected) {
            let next = now.plus_ms(desk.config.terms_poll_ms.max(1));
            self.terms_at = Some(if due { next } else { self.terms_at.unwrap_or(next) });
        } else {
            self.terms_at = None;
            return;
        }
        if due {
            match batch::in_time(env, env.link().terms()).await {
                Ok(terms) => desk.note(|moment| moment.terms = Some(terms)),
                Err(late) => tracing::debug!(reason = late.message, "the venue's terms are not known anew"),
            }
        }
    }

    fn is_due(&self, chore: Chore, desk: &Desk, now: Timestamp) -> bool {
        let again = |at: &BlockHeight| {
            let next = at.checked_add(desk.config.rebroadcast_blocks);
            desk.note(|moment| moment.best_height).zip(next).is_some_and(|(best, next)| best >= next)
        };
        !self.done.contains(&chore)
            && self.published.get(&chore).is_none_or(again)
            && self.failed.get(&chore).is_none_or(|(at, _)| *at <= now)
    }

    /// The chore is done, for this run or until its time comes again.
    pub(crate) fn succeeded(&mut self, chore: Chore, desk: &Desk) {
        self.failed.remove(&chore);
        match chore {
            Chore::Publish(..) => {
                let height = desk.note(|moment| moment.best_height).unwrap_or_default();
                self.published.insert(chore, height);
            }
            Chore::Announce(_) => self.done.extend([chore]),
            // What demanded these is gone from book or moment once they succeeded.
            Chore::Fund(_) | Chore::Reconcile(_) | Chore::Resubmit(_) | Chore::Outgrown(_) => {}
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
            Chore::Publish(key, txid) => {
                let Some((released, label)) = desk.read(|book| publishable(book, key, txid)) else { return Ok(()) };
                let published = env.wallet().publish(released.transaction(), &label).await;
                desk.published(txid, published.as_ref().err());
                published.map_err(|error| error.to_string())
            }
            Chore::Announce(key) => {
                let Some(account) = desk.account(key) else { return Ok(()) };
                accounts::announce(env, &account).await.map_err(|error| error.to_string())?;
                tracing::info!(account = %key, "account announced to the venue");
                desk.note(|moment| moment.unannounced.remove(&key));
                Ok(())
            }
            Chore::Reconcile(nonce) => orders::reconcile(env, desk, nonce).await.map_err(|error| error.to_string()),
            Chore::Resubmit(nonce) => orders::resubmit(env, desk, nonce).await.map_err(|error| error.to_string()),
            Chore::Outgrown(nonce) => orders::outgrown(env, desk, nonce).await.map_err(|error| error.to_string()),
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
    use crate::book::{ChangeKind, OwnChange, Update};
    use crate::config::TraderConfig;
    use crate::fixtures;
    use tidegate_ports::Terms;
    use tidegate_protocol::account::Account;
    use tidegate_protocol::fees::ExecutionFee;
    use tidegate_protocol::units::{BlockCount, SatPerKw, Sats};

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
        assert!(upkeep.is_due(chore, &desk, Timestamp(0)));
        upkeep.failed(chore, &desk, Timestamp(0));
        assert!(!upkeep.is_due(chore, &desk, Timestamp(9)));
        assert!(upkeep.is_due(chore, &desk, Timestamp(10)));
        upkeep.failed(chore, &desk, Timestamp(10));
        assert!(!upkeep.is_due(chore, &desk, Timestamp(29)));
        upkeep.succeeded(chore, &desk);
        assert!(upkeep.is_due(chore, &desk, Timestamp(10)), "funding is owed as long as the state demands it");
    }

    #[test]
    fn a_transaction_is_published_again_every_some_blocks() {
        let config = TraderConfig { rebroadcast_blocks: BlockCount::new(6), ..TraderConfig::default() };
        let (desk, _writes) = Desk::new(config);
        let txid = fixtures::spend_of(fixtures::outpoint(1)).compute_txid();
        let chore = Chore::Publish(fixtures::account_key(1), txid);
        let mut upkeep = Upkeep::default();
        let at = |height| desk.note(|moment| moment.best_height = Some(BlockHeight::new(height)));
        at(700);
        assert!(upkeep.is_due(chore, &desk, Timestamp(0)));
        upkeep.succeeded(chore, &desk);
        at(705);
        assert!(!upkeep.is_due(chore, &desk, Timestamp(0)));
        at(706);
        assert!(upkeep.is_due(chore, &desk, Timestamp(0)));
    }

    #[test]
    fn changes_are_published_while_they_may_confirm() {
        let change = fixtures::own_change(1, ChangeKind::Deposit);
        let mut book = Book::default();
        book.apply(Update::Change(Box::new(change.clone())));
        let publish = Chore::Publish(change.after.key(), change.txid());
        assert_eq!(demanded(&book, &Moment::default()).into_iter().collect::<Vec<_>>(), [publish]);
        assert!(publishable(&book, change.after.key(), change.txid()).is_some());
        book.apply(Update::Change(Box::new(OwnChange { void: true, ..change })));
        assert!(demanded(&book, &Moment::default()).is_empty());
    }

    #[test]
    fn an_order_that_the_fee_outgrew_waits_only_for_a_batch_under_way() {
        let own = fixtures::own_ask(1);
        let mut book = Book::default();
        book.apply(Update::Account(Box::new(fixtures::account(1))));
        book.apply(Update::Order(Box::new(own.clone())));
        let mut moment = Moment { terms: Some(terms(own.fee_ceiling)), ..Moment::default() };
        assert!(demanded(&book, &moment).is_empty());
        let rate_ppm = own.fee_ceiling.rate_ppm + 1;
        moment.terms = Some(terms(ExecutionFee { rate_ppm, ..own.fee_ceiling }));
        let nonce = own.order.nonce;
        assert_eq!(demanded(&book, &moment).into_iter().collect::<Vec<_>>(), [Chore::Outgrown(nonce)]);
        book.apply(Update::Stage(Box::new(fixtures::staged_batch())));
        assert!(demanded(&book, &moment).is_empty());
    }

    fn terms(execution_fee: ExecutionFee) -> Terms {
        Terms {
            max_account_value: Sats::constant(10_000_000),
            execution_fee,
            durations: BTreeMap::new(),
            next_batch_fee_rate: SatPerKw::FLOOR,
            next_clear_time: 0,
            auto_renew_blocks: BlockCount::new(3024),
        }
    }
}
