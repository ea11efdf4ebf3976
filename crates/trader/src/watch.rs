//! Following the chain: which watches the book demands, and what their events do to it.
//!
//! The watches are a function of the book. After each change of the book, and after the node was away, the difference
//! between what is registered and what is demanded is registered; a restart is no special case.

use crate::book::{Book, OwnChange, Standing, Update};
use crate::desk::{Backoff, Desk};
use crate::error::Halt;
use crate::staging;
use bitcoin::{OutPoint, ScriptBuf, Txid};
use core::convert::Infallible;
use futures_util::{FutureExt, StreamExt, select_biased};
use std::collections::BTreeMap;
use tidegate_ports::{Chain, ChainEvent, Clock, NodeError, TraderEnv, Watch};
use tidegate_protocol::account::{Account, AccountState, AccountTerms};
use tidegate_protocol::fees::confirmations_needed;
use tidegate_protocol::keys::{AccountKey, OrderNonce};
use tidegate_protocol::units::{BlockCount, BlockHeight, Sats};

const CONFIRM: &str = "confirm:";
const SPEND: &str = "spend:";
// Not the name of an open account's watch: the spend that begins a close may be the one that ends it, and must be told
// again.
const CLOSING: &str = "closing:";
const SIGNED: &str = "signed:";
const BEFORE: &str = "before:";
const COIN: &str = "coin:";

/// Confirmations to wait for while the venue's terms are unknown: the most that any terms demand.
const MOST_CONFIRMATIONS: u32 = 6;

/// Blocks by which we look further back than a height that we noted: after a reorganisation of the chain, what happened
/// at that height may be found in a lower block.
const REORGANISATION: BlockCount = BlockCount::new(12);

/// What the book demands to be watched. The script is made when the watch is registered: it costs curve arithmetic, and
/// the book changes far more often than its watches.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Demand {
    what: What,
    lock: Lock,
    height_hint: BlockHeight,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Confirmation { txid: Txid, confirmations: u32 },
    Spend(OutPoint),
}

/// Whose script.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Lock {
    Account(Box<AccountTerms>),
    Coin(ScriptBuf),
}

impl Demand {
    fn of_account(what: What, terms: &AccountTerms, noted: BlockHeight) -> Self {
        Self { what, lock: Lock::Account(Box::new(*terms)), height_hint: noted.saturating_sub(REORGANISATION) }
    }

    fn watch(&self) -> Result<Watch, Halt> {
        let height_hint = self.height_hint;
        let script = match &self.lock {
            Lock::Account(terms) => {
                terms.output_script().map_err(|source| Halt::Script { account: terms.trader, source })?
            }
            Lock::Coin(script) => script.clone(),
        };
        Ok(match self.what {
            What::Confirmation { txid, confirmations } => {
                Watch::Confirmation { txid, script, confirmations, height_hint }
            }
            What::Spend(outpoint) => Watch::Spend { outpoint, script, height_hint },
        })
    }
}

/// The watches that the book demands, by name.
///
/// # Source
/// Protocol notes, accounts §4.
fn demanded(book: &Book, max_value: Option<Sats>) -> BTreeMap<String, Demand> {
    let mut demands = BTreeMap::new();
    for account in book.accounts.values() {
        let Some(outpoint) = account.outpoint else { continue };
        let key = account.key();
        let demand = |what| Demand::of_account(what, &account.terms, account.height_hint);
        match account.state {
            AccountState::PendingOpen
            | AccountState::PendingUpdate
            | AccountState::PendingBatch
            | AccountState::ExpiredPendingUpdate => {
                let confirmations =
                    max_value.map_or(MOST_CONFIRMATIONS, |max| confirmations_needed(account.value, max));
                let what = What::Confirmation { txid: outpoint.txid, confirmations };
                demands.insert(format!("{CONFIRM}{key}"), demand(what));
                demands.extend(replaceable(book, account).map(|demand| (format!("{SIGNED}{key}"), demand)));
            }
            AccountState::Open | AccountState::Expired => {
                demands.insert(format!("{SPEND}{key}"), demand(What::Spend(outpoint)));
            }
            AccountState::PendingClosed => {
                demands.insert(format!("{CLOSING}{key}"), demand(What::Spend(outpoint)));
                demands.extend(replaceable(book, account).map(|demand| (format!("{SIGNED}{key}"), demand)));
            }
            AccountState::Initiated | AccountState::Closed | AccountState::CanceledAfterRecovery => {}
        }
    }
    for change in book.changes.values() {
        demands.extend(rivals_of(book, change));
    }
    demands
}

/// What decides about a change of the owner's besides itself: the output that it spends may be spent by a batch that we
/// signed before, and coins of the wallet may be spent elsewhere.
fn rivals_of(book: &Book, change: &OwnChange) -> Vec<(String, Demand)> {
    let (before, key) = (&change.before, change.after.key());
    let current = book.accounts.get(&key).and_then(|account| account.outpoint);
    let spent = before.outpoint.filter(|outpoint| Some(*outpoint) != current);
    let before = spent.map(|outpoint| {
        let demand = Demand::of_account(What::Spend(outpoint), &before.terms, before.height_hint);
        (format!("{BEFORE}{key}:{outpoint}"), demand)
    });
    let coins = change.coins.iter().map(|(outpoint, script)| {
        let height_hint = change.height.saturating_sub(REORGANISATION);
        let demand = Demand { what: What::Spend(*outpoint), lock: Lock::Coin(script.clone()), height_hint };
        (format!("{COIN}{key}:{outpoint}"), demand)
    });
    before.into_iter().chain(coins).collect()
}

/// The output spent by the booked, unconfirmed batch of an account, when we signed another spend of it as well.
fn replaceable(book: &Book, account: &Account) -> Option<Demand> {
    let booked = book.staged.get(&account.outpoint?.txid)?;
    let rival =
        |other: &&crate::book::StagedBatch| other.standing == Standing::Superseded && other.conflicts_with(booked);
    book.staged.values().find(rival)?;
    let staged = booked.accounts.iter().find(|staged| staged.after.key() == account.key())?;
    Some(Demand::of_account(What::Spend(staged.spent), &staged.before, booked.height_hint))
}

/// Follows the chain for ever.
///
/// # Errors
/// [`Halt::Script`].
pub(crate) async fn follow<E: TraderEnv>(env: &E, desk: &Desk) -> Result<Infallible, Halt> {
    let mut bell = desk.listen();
    let mut backoff = Backoff::new(&desk.config);
    let mut registered = BTreeMap::new();
    loop {
        if let Err(error) = register(env, desk, &mut registered).await? {
            tracing::warn!(%error, "the chain cannot be watched now");
            registered.clear();
            backoff.pause(env.clock()).await;
            continue;
        }
        let event = select_biased! {
            event = env.chain().next_event().fuse() => event,
            _ = bell.select_next_some() => continue,
        };
        match event {
            Ok(event) => {
                backoff.reset();
                handle(env, desk, event).await;
            }
            Err(error) => {
                tracing::warn!(%error, "the node's chain events broke off");
                registered.clear();
                backoff.pause(env.clock()).await;
            }
        }
    }
}

/// Registers what is missing and ends what is not demanded any more.
///
/// # Errors
/// [`Halt::Script`] when a stored account makes no script.
async fn register<E: TraderEnv>(
    env: &E,
    desk: &Desk,
    registered: &mut BTreeMap<String, Demand>,
) -> Result<Result<(), NodeError>, Halt> {
    let demanded = desk.look(|book, moment| demanded(book, moment.terms.as_ref().map(|terms| terms.max_account_value)));
    let stale: Vec<String> = registered.keys().filter(|name| !demanded.contains_key(*name)).cloned().collect();
    for name in stale {
        if let Err(error) = env.chain().unwatch(&name).await {
            return Ok(Err(error));
        }
        registered.remove(&name);
    }
    for (name, demand) in demanded {
        if registered.get(&name) == Some(&demand) {
            continue;
        }
        match env.chain().watch(&name, demand.watch()?).await {
            Ok(()) => {}
            // The node does not take this one, whatever the reason: that must not keep all others away. It is tried
            // again with the next change.
            Err(error @ (NodeError::Refused { .. } | NodeError::BadAnswer { .. })) => {
                tracing::error!(name, %error, "the node refuses a watch");
                continue;
            }
            Err(error) => return Ok(Err(error)),
        }
        registered.insert(name, demand);
    }
    Ok(Ok(()))
}

/// What the name of a watch is about.
fn subject(name: &str) -> Option<AccountKey> {
    name.split(':').nth(1)?.parse().ok()
}

/// The open orders of an account that is pending for its owner's change. Before the change confirmed, the venue may have
/// seen the old output expire and have cancelled them: they are asked for.
fn orders_before_change(book: &Book, key: AccountKey) -> Vec<OrderNonce> {
    let pending =
        |account: &Account| matches!(account.state, AccountState::PendingUpdate | AccountState::ExpiredPendingUpdate);
    if !book.accounts.get(&key).is_some_and(pending) {
        return Vec::new();
    }
    book.active_orders(key).map(|own| own.order.nonce).collect()
}

async fn handle<E: TraderEnv>(env: &E, desk: &Desk, event: ChainEvent) {
    match event {
        ChainEvent::Block { height } => reached(desk, height).await,
        ChainEvent::Confirmed { name, height, transaction } => {
            let Some(key) = subject(&name) else { return };
            desk.note(|moment| moment.confirmed.insert(key, env.clock().now()));
            let orders = desk.read(|book| orders_before_change(book, key));
            commit(desk, move |book| staging::confirmed(book, key, &transaction, height)).await;
            if !orders.is_empty() {
                desk.note(|moment| orders.into_iter().for_each(|nonce| moment.doubt(nonce)));
                desk.ring();
            }
            // The expiry may have been reached while the output was unconfirmed.
            if let Some(best) = desk.note(|moment| moment.best_height) {
                reached(desk, best).await;
            }
        }
        ChainEvent::Spent { name, height, transaction } => {
            let Some(key) = subject(&name) else { return };
            let at = env.clock().now();
            tracing::info!(account = %key, txid = %transaction.compute_txid(), %height, "account output spent");
            let coin = name.starts_with(COIN);
            commit(desk, move |book| match coin {
                true => staging::coin_spent(book, key, &transaction),
                false => staging::spent(book, key, &transaction, at, height),
            })
            .await;
            // An account that is as it was before may have expired meanwhile.
            if let Some(best) = desk.note(|moment| moment.best_height).filter(|_| coin) {
                reached(desk, best).await;
            }
        }
    }
}

/// The chain is this high: accounts may expire.
pub(crate) async fn reached(desk: &Desk, height: BlockHeight) {
    let risen = desk.note(|moment| moment.best_height.replace(height) != Some(height));
    if risen {
        // What is unconfirmed may be due to be published again.
        desk.ring();
    }
    commit(desk, move |book| staging::expired(book, height)).await;
}

/// Commits what an event changes, if anything.
async fn commit(desk: &Desk, edit: impl FnOnce(&Book) -> Vec<Update> + Send + 'static) {
    // Nothing to write is the common case of a block: then no commit is made.
    let commit = desk.commit(move |book| {
        let updates = edit(book);
        if updates.is_empty() { Err(()) } else { Ok((updates, ())) }
    });
    match commit.await {
        Ok(_) | Err(()) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::book::ChangeKind;
    use crate::fixtures;

    fn watches(book: &Book, max_value: Option<Sats>) -> BTreeMap<String, Watch> {
        let demands = demanded(book, max_value).into_iter();
        demands.map(|(name, demand)| (name, demand.watch().unwrap())).collect()
    }

    #[test]
    fn each_state_demands_its_watch() {
        let cases = [
            (AccountState::Initiated, None),
            (AccountState::PendingOpen, Some(CONFIRM)),
            (AccountState::PendingUpdate, Some(CONFIRM)),
            (AccountState::Open, Some(SPEND)),
            (AccountState::Expired, Some(SPEND)),
            (AccountState::PendingClosed, Some(CLOSING)),
            (AccountState::Closed, None),
            (AccountState::CanceledAfterRecovery, None),
            (AccountState::PendingBatch, Some(CONFIRM)),
            (AccountState::ExpiredPendingUpdate, Some(CONFIRM)),
        ];
        for (state, prefix) in cases {
            let mut book = Book::default();
            let account = Account { state, ..fixtures::account(1) };
            book.apply(Update::Account(Box::new(account.clone())));
            let found: Vec<String> = demanded(&book, Some(Sats::constant(10_000_000))).into_keys().collect();
            let expected: Vec<String> = prefix.map(|prefix| format!("{prefix}{}", account.key())).into_iter().collect();
            assert_eq!(found, expected, "{state:?}");
        }
    }

    #[test]
    fn waits_for_the_most_confirmations_while_terms_are_unknown() {
        let mut book = Book::default();
        book.apply(Update::Account(Box::new(Account { state: AccountState::PendingOpen, ..fixtures::account(1) })));
        let depth = |max| match watches(&book, max).into_values().next() {
            Some(Watch::Confirmation { confirmations, .. }) => confirmations,
            other => panic!("{other:?}"),
        };
        assert_eq!(depth(None), 6);
        assert_eq!(depth(Some(Sats::constant(1_000_000_000))), 3);
    }

    #[test]
    fn looks_below_the_noted_height_for_what_a_reorganisation_moved() {
        for state in [AccountState::PendingOpen, AccountState::Open, AccountState::PendingClosed] {
            let mut book = Book::default();
            let account = Account { state, height_hint: BlockHeight::new(700), ..fixtures::account(1) };
            book.apply(Update::Account(Box::new(account)));
            let hint = match watches(&book, None).into_values().next() {
                Some(Watch::Confirmation { height_hint, .. } | Watch::Spend { height_hint, .. }) => height_hint,
                None => panic!("{state:?} is watched"),
            };
            assert_eq!(hint, BlockHeight::new(688), "{state:?}");
        }
    }

    #[test]
    fn a_change_keeps_the_output_before_and_its_coins_watched() {
        let change = fixtures::own_change(1, ChangeKind::Deposit);
        let mut book = Book::default();
        book.apply(Update::Account(Box::new(change.after.clone())));
        book.apply(Update::Change(Box::new(change.clone())));
        let key = change.after.key();
        let watches = watches(&book, None);
        let names: Vec<&str> = watches.keys().map(|name| name.split_once(':').unwrap().0).collect();
        assert_eq!(names, ["before", "coin", "confirm"]);
        assert!(watches.keys().all(|name| subject(name) == Some(key)));
        let spends = watches.values().filter_map(|watch| match watch {
            Watch::Spend { outpoint, .. } => Some(*outpoint),
            Watch::Confirmation { .. } => None,
        });
        assert_eq!(spends.collect::<Vec<_>>(), [fixtures::outpoint(1), fixtures::outpoint(200)]);
        // Void: the account is as before, and its output is watched once.
        book.apply(Update::Account(Box::new(change.before.clone())));
        book.apply(Update::Change(Box::new(OwnChange { void: true, ..change })));
        let names: Vec<String> = demanded(&book, None).into_keys().collect();
        assert_eq!(names.iter().map(|name| name.split_once(':').unwrap().0).collect::<Vec<_>>(), ["coin", "spend"]);
    }

    #[test]
    fn the_output_before_a_booked_batch_is_watched_by_its_own_script_while_a_rival_exists() {
        let mut booked = fixtures::staged_batch();
        booked.standing = Standing::Booked;
        // The batch moved the expiry: the script before is another one.
        booked.accounts[0].after.terms.expiry = BlockHeight::new(9_000);
        let mut rival = fixtures::staged_batch();
        rival.transaction.output[0].value += bitcoin::Amount::ONE_SAT;
        rival.standing = Standing::Superseded;
        let mut book = Book::default();
        book.apply(Update::Account(Box::new(booked.accounts[0].after.clone())));
        book.apply(Update::Stage(Box::new(booked)));
        assert_eq!(demanded(&book, None).len(), 1, "no rival");
        book.apply(Update::Stage(Box::new(rival)));
        let watches = watches(&book, None);
        let signed = watches.iter().find(|(name, _)| name.starts_with(SIGNED)).unwrap().1;
        let expected = fixtures::account(1).terms.output_script().unwrap();
        assert!(matches!(signed, Watch::Spend { outpoint, script, .. }
            if *outpoint == fixtures::outpoint(1) && *script == expected));
    }
}
