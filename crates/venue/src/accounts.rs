//! Accounts: reservation, opening, and what the chain says about them.

use crate::actor::{Actor, Answered, answer};
use crate::book::{AccountRecord, ChangedAccount, Origin, ReservationRecord, SignedChange, Write};
use crate::changes::{Seen, seen};
use crate::error::{Halt, ServeError};
use crate::handle::Reply;
use crate::leases::{LEASE, lease_watch};
use crate::machine::{AccountEvent, Transition, VenueAccountState, next};
use crate::node::{Node, Watched, set};
use crate::settle::batch_watch;
use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, Transaction, Txid};
use tidegate_ports::{
    ChainEvent, InitAccount, NodeError, Reservation, ReservedKeys, Signer, TraderId, VenueEnv, Watch,
};
use tidegate_protocol::account::{
    Account, AccountState, AccountTerms, AccountVersion, MAX_EXPIRY_AHEAD, MIN_ACCOUNT_VALUE, MIN_EXPIRY_AHEAD,
};
use tidegate_protocol::fees::confirmations_needed;
use tidegate_protocol::keys::{AccountKey, AuctioneerKey, KeyLocator, SharedSecret};
use tidegate_protocol::order::OrderState;
use tidegate_protocol::script::SpendKind;
use tidegate_protocol::units::{BlockCount, BlockHeight, Sats};
use tracing::{info, warn};

/// Blocks by which we look further back than our best height.
const HINT_PADDING: BlockCount = BlockCount::new(3);
/// Blocks by which a watch looks further back than the height that we noted: after a reorganisation of the chain, what
/// happened at that height may be found in a lower block.
pub(crate) const REORGANISATION: BlockCount = BlockCount::new(12);
/// Blocks from one publication of what is unconfirmed to the next.
const REPUBLISH_BLOCKS: u32 = 6;
/// A reservation older than this no longer keeps its trader from making another.
const RESERVATION_BLOCKS: BlockCount = BlockCount::new(144);
/// Reservations that one trader may leave uncompleted.
const MAX_RESERVATIONS: usize = 10;
/// Uncompleted reservations of all traders without a token together.
const MAX_SHARED_RESERVATIONS: usize = 100;
/// Uncompleted reservations of all traders.
const MAX_ALL_RESERVATIONS: usize = 10_000;
/// Characters of a user agent, at most.
const MAX_USER_AGENT: usize = 255;

/// Prefixes of the names of watches; the account key follows.
const CONFIRMATION: &str = "conf/";
pub(crate) const SPEND: &str = "spend/";
const ORIGIN: &str = "origin/";
/// As the others; the number of the coin follows.
const COIN: &str = "coin/";

fn watched_account(name: &str, kind: &str) -> Option<AccountKey> {
    name.strip_prefix(kind)?.split('/').next()?.parse().ok()
}

impl<'e, E: VenueEnv> Actor<'e, E> {
    /// Reserves an account.
    ///
    /// # Source
    /// Protocol notes, auctioneer §4.3.
    pub(crate) async fn reserve(
        &mut self,
        trader: TraderId,
        request: &Reservation,
    ) -> Result<ReservedKeys, ServeError> {
        if self.book.accounts.contains_key(&request.trader) {
            return Err(ServeError::AccountExists(request.trader));
        }
        self.check_limits(request)?;
        if let Some(known) = self.book.reservations.get(&request.trader) {
            // The keys stay; what is wanted may have changed, and the announcement will be compared with the last wish.
            let keys = known.keys();
            let wanted = ReservationRecord::new(trader, request, keys, known.height_hint);
            if wanted != *known {
                self.commit(vec![Write::Reservation(wanted)]).await?;
            }
            return Ok(keys);
        }
        let found = self.book.reservations.len();
        if found >= MAX_ALL_RESERVATIONS {
            return Err(ServeError::TooMany {
                what: "uncompleted reservations at this venue",
                found,
                max: MAX_ALL_RESERVATIONS,
            });
        }
        let of_trader = || self.book.reservations.values().filter(|record| record.trader == trader.0);
        let recent = of_trader().find(|record| self.height.blocks_since(record.height_hint) < RESERVATION_BLOCKS);
        // The identity of traders without a token is shared by all of them.
        let shared = trader.0 == [0; 32];
        if let (false, Some(recent)) = (shared, recent) {
            return Err(ServeError::ReservationOpen(recent.account));
        }
        let found = of_trader().count();
        let max = if shared { MAX_SHARED_RESERVATIONS } else { MAX_RESERVATIONS };
        if found >= max {
            return Err(ServeError::TooMany { what: "uncompleted reservations", found: found + 1, max });
        }
        let keys = ReservedKeys { auctioneer: AuctioneerKey::new(self.key.point), batch: self.book.batch_key };
        let hint = self.height.saturating_sub(HINT_PADDING);
        info!(account = %request.trader, value = request.value.get(), "account reserved");
        self.commit(vec![Write::Reservation(ReservationRecord::new(trader, request, keys, hint))]).await?;
        Ok(keys)
    }

    fn check_limits(&self, request: &Reservation) -> Result<(), ServeError> {
        let (min, max) = (MIN_ACCOUNT_VALUE, self.config.max_account_value);
        if !(min..=max).contains(&request.value) {
            return Err(ServeError::AccountValue { found: request.value, min, max });
        }
        let ahead = |blocks| self.height.checked_add(blocks).unwrap_or(BlockHeight::new(u32::MAX));
        let (min, max) = (ahead(MIN_EXPIRY_AHEAD), ahead(MAX_EXPIRY_AHEAD));
        if !(min..=max).contains(&request.expiry) {
            return Err(ServeError::AccountExpiry { found: request.expiry, min, max });
        }
        Ok(())
    }

    /// Turns a reservation into an account that waits for confirmations. An account that exists is left alone.
    ///
    /// # Source
    /// Protocol notes, auctioneer §4.4.
    pub(crate) fn init(&mut self, call: Announcement) -> Result<(), Halt> {
        let account = call.request.reservation.trader;
        match self.reserved_for(&call) {
            Ok(Some(_)) => {
                let (node, locator) = (self.node.clone(), self.key.locator);
                self.ask_beside(async move {
                    let secret = node.shared_secret(account.point(), locator).await;
                    Answered::Secret(Box::new(call), secret)
                });
                Ok(())
            }
            Ok(None) => answer(call.reply, Ok(())),
            Err(error) => answer(call.reply, Err(error)),
        }
    }

    /// The reservation that an announcement completes; nothing when the account exists already.
    fn reserved_for(&self, call: &Announcement) -> Result<Option<&ReservationRecord>, ServeError> {
        let length = call.agent.trim().chars().count();
        if length > MAX_USER_AGENT {
            return Err(ServeError::UserAgent(length));
        }
        let account = call.request.reservation.trader;
        if self.book.accounts.contains_key(&account) {
            return Ok(None);
        }
        let reserved = self.book.reservations.get(&account).ok_or(ServeError::NoReservation(account))?;
        check_announcement(reserved, &call.request)?;
        Ok(Some(reserved))
    }

    /// The node has computed the secret of an announced account. What was checked before may have changed since.
    pub(crate) async fn announced(
        &mut self,
        call: Announcement,
        secret: Result<SharedSecret, NodeError>,
    ) -> Result<(), Halt> {
        let outcome = match (self.reserved_for(&call).map(Option::<&_>::cloned), secret) {
            (Ok(Some(reserved)), Ok(secret)) => self.open_account(&call, &reserved, secret).await,
            (Ok(Some(_)), Err(error)) => Err(error.into()),
            (Ok(None), _) => Ok(()),
            (Err(error), _) => Err(error),
        };
        answer(call.reply, outcome)
    }

    async fn open_account(
        &mut self,
        Announcement { trader, request, agent, .. }: &Announcement,
        reserved: &ReservationRecord,
        secret: SharedSecret,
    ) -> Result<(), ServeError> {
        let account = reserved.account;
        if reserved.trader != trader.0 {
            // A client that restarts may come with another token; the key is what counts.
            info!(%account, "announced under another token than it was reserved with");
        }
        let terms = AccountTerms {
            version: reserved.version,
            trader: account,
            auctioneer: reserved.auctioneer,
            batch: reserved.batch,
            secret,
            expiry: reserved.expiry,
        };
        if terms.output_script()? != request.script {
            return Err(ServeError::ReservationMismatch { what: "account script" });
        }
        let record = AccountRecord {
            terms,
            value: reserved.value,
            state: VenueAccountState::PendingOpen,
            outpoint: request.outpoint,
            height_hint: reserved.height_hint,
            user_agent: agent.trim().to_owned(),
            trader: trader.0,
            changes: Vec::new(),
            origin: None,
            latest: None,
        };
        info!(%account, outpoint = %record.outpoint, value = record.value.get(), "account announced");
        self.commit(vec![Write::Account(record), Write::DropReservation(account)]).await?;
        self.watch_account_or_later(account).await;
        Ok(())
    }

    /// Whether the caller speaks for the account: it is subscribed on its stream, which proved the key; or, while it is
    /// subscribed nowhere, it was announced under the same identity. Every matched counterpart knows the account's key,
    /// so the key alone says nothing. Clients do not subscribe expired accounts, and may come with a new token after a
    /// start: since a change of an expired account needs its owner's half and keeps nobody from anything, it is signed
    /// for anybody.
    pub(crate) fn speaks_for(&self, trader: TraderId, record: &AccountRecord) -> bool {
        match self.streams.of_account(record.key()) {
            Some((_, stream)) => stream.trader == trader,
            None => record.trader == trader.0 || record.state == VenueAccountState::Expired,
        }
    }

    pub(crate) async fn on_chain(&mut self, event: ChainEvent) -> Result<(), Halt> {
        match event {
            ChainEvent::Block { height } => self.on_block(height).await,
            ChainEvent::Confirmed { name, height, transaction } => self.on_confirmed(&name, height, &transaction).await,
            ChainEvent::Spent { name, height, transaction } => self.on_spent(&name, height, &transaction).await,
        }
    }

    /// A new best height: accounts expire, and the fee estimate is renewed.
    pub(crate) async fn on_block(&mut self, height: BlockHeight) -> Result<(), Halt> {
        self.height = height;
        self.estimate_due = true;
        let waiting = self.book.batches.iter().any(|batch| !batch.confirmed);
        if waiting && height.get().is_multiple_of(REPUBLISH_BLOCKS) {
            // The network may have lost what no block took: it is offered again.
            self.repair_at = Some(self.now());
        }
        let due: Vec<AccountKey> = self
            .book
            .accounts
            .values()
            .filter(|record| record.terms.expiry <= height)
            .map(AccountRecord::key)
            .collect();
        let mut writes = Vec::new();
        for account in due {
            writes.extend(self.account_writes(account, AccountEvent::ExpiryReached));
        }
        // An output that was funded all the same is its owner's alone from this height on.
        let lapsed = self.book.reservations.values().filter(|reserved| reserved.expiry <= height);
        writes.extend(lapsed.map(|reserved| Write::DropReservation(reserved.account)));
        if !writes.is_empty() {
            self.commit(writes).await?;
        }
        self.end_matured_leases().await
    }

    /// The rows that an event changes: the account, and its orders once they can never be matched again.
    fn account_writes(&self, account: AccountKey, event: AccountEvent) -> Vec<Write> {
        let Some(mut record) = self.book.accounts.get(&account).cloned() else { return Vec::new() };
        let from = record.state;
        let to = match next(from, event) {
            Transition::To(to) => to,
            Transition::Stay(_) => return Vec::new(),
            Transition::Illegal => {
                warn!(%account, ?from, ?event, "an event that must not happen is ignored");
                return Vec::new();
            }
        };
        info!(%account, ?from, ?to, "account");
        record.state = to;
        let ended = matches!(to, VenueAccountState::Closed | VenueAccountState::Expired);
        if to == VenueAccountState::Closed {
            record.value = Sats::ZERO;
        }
        let orders = self.book.active_orders(account).filter(|_| ended).map(|order| {
            let mut order = order.clone();
            order.state = OrderState::Canceled;
            Write::Order(order)
        });
        orders.chain([Write::Account(record)]).collect()
    }

    async fn on_confirmed(&mut self, name: &str, height: BlockHeight, transaction: &Transaction) -> Result<(), Halt> {
        if self.on_deposit(name, transaction).await? {
            return Ok(());
        }
        let Some(account) = watched_account(name, CONFIRMATION) else {
            return self.on_batch_confirmed(transaction, height).await;
        };
        let Some(record) = self.book.accounts.get(&account) else { return Ok(()) };
        if transaction.compute_txid() != record.outpoint.txid {
            return Ok(());
        }
        if !output_is_as_announced(record, transaction) {
            warn!(%account, outpoint = %record.outpoint, "the confirmed output is not the announced one: never opened");
            return Ok(());
        }
        let writes = self.confirmed_writes(account, transaction);
        if !writes.is_empty() {
            self.commit(writes).await?;
            unwatch(&self.node, ORIGIN, account).await;
        }
        let expired = self.book.accounts.get(&account).is_some_and(|record| record.terms.expiry <= self.height);
        if expired {
            let writes = self.account_writes(account, AccountEvent::ExpiryReached);
            self.commit(writes).await?;
        }
        self.watch_account_or_later(account).await;
        Ok(())
    }

    /// An output of an account was spent in a block: the current one, or the one before it when a reorganisation puts
    /// another of the owner's changes in the place of the first. Batches are stored before they are published, so such
    /// a spend is never one of ours.
    async fn on_spent(&mut self, name: &str, height: BlockHeight, transaction: &Transaction) -> Result<(), Halt> {
        if self.on_deposit(name, transaction).await? {
            return Ok(());
        }
        if let Some(channel) = name.strip_prefix(LEASE).and_then(|channel| channel.parse().ok()) {
            return self.on_lease_spent(channel, height, transaction).await;
        }
        if let Some(account) = watched_account(name, COIN) {
            let writes = self.undone_writes(account, transaction);
            if !writes.is_empty() {
                self.commit(writes).await?;
                unwatch(&self.node, ORIGIN, account).await;
                self.watch_account_or_later(account).await;
            }
            return Ok(());
        }
        let account = watched_account(name, SPEND).or_else(|| watched_account(name, ORIGIN));
        let Some(record) = account.and_then(|account| self.book.accounts.get(&account)) else { return Ok(()) };
        let (account, txid) = (record.key(), transaction.compute_txid());
        let writes = match seen(record, transaction) {
            None => return Ok(()),
            Some(Seen::Changed(after)) => self.update_writes(account, &after, height, transaction),
            Some(Seen::Ended(kind)) => {
                match kind {
                    SpendKind::Expiry => info!(%account, %txid, "account spent by its owner after expiry"),
                    SpendKind::Cooperative => info!(%account, %txid, "account closed"),
                    SpendKind::Unknown => warn!(%account, %txid, "account spent in a way that is not known"),
                }
                self.closed_writes(account, height, transaction)
            }
        };
        if !writes.is_empty() {
            self.commit(writes).await?;
            unwatch(&self.node, SPEND, account).await;
            self.watch_account_or_later(account).await;
        }
        Ok(())
    }

    /// A change by the owner came true.
    fn update_writes(
        &self,
        account: AccountKey,
        after: &ChangedAccount,
        height: BlockHeight,
        transaction: &Transaction,
    ) -> Vec<Write> {
        let Some(mut record) = self.book.accounts.get(&account).cloned() else { return Vec::new() };
        let from = record.state;
        let Transition::To(to) = next(from, AccountEvent::UpdateSeen) else {
            warn!(%account, ?from, "a change is seen that must not happen: ignored");
            return Vec::new();
        };
        if record.origin.is_none() {
            let Ok(script) = record.terms.output_script() else { return Vec::new() };
            let AccountRecord { outpoint, height_hint, terms, value, .. } = record;
            record.origin = Some(Origin { outpoint, script, height_hint, terms, value, latest: record.latest.take() });
        }
        record.state = self.perhaps_expired(to, &after.terms);
        record.terms = after.terms;
        record.value = after.value;
        record.outpoint = OutPoint { txid: transaction.compute_txid(), vout: after.vout };
        record.height_hint = height;
        record.latest = Some(transaction.clone());
        info!(%account, ?from, to = ?record.state, outpoint = %record.outpoint, value = record.value.get(), "account changed by its owner");
        vec![Write::Account(record)]
    }

    fn perhaps_expired(&self, state: VenueAccountState, terms: &AccountTerms) -> VenueAccountState {
        match next(state, AccountEvent::ExpiryReached) {
            Transition::To(expired) if terms.expiry <= self.height => expired,
            Transition::To(_) | Transition::Stay(_) | Transition::Illegal => state,
        }
    }

    /// A reorganisation took a change back, and a coin of it went elsewhere: the account is what it was before, and waits
    /// until that output is seen to be as deep as it must. The change is kept, for another reorganisation could bring it
    /// back: the account stays out of batches until its owner makes another one.
    fn undone_writes(&self, account: AccountKey, transaction: &Transaction) -> Vec<Write> {
        let Some(mut record) = self.book.accounts.get(&account).cloned() else { return Vec::new() };
        let spends = |coin: &OutPoint| transaction.input.iter().any(|input| input.previous_output == *coin);
        let lost = latest_change(&record).is_some_and(|change| {
            change.txid() != transaction.compute_txid() && change.coins.iter().any(|(coin, _)| spends(coin))
        });
        let (true, Some(origin)) = (lost && record.state.awaits_confirmation(), record.origin.take()) else {
            return Vec::new();
        };
        warn!(%account, change = %record.outpoint.txid, by = %transaction.compute_txid(), "a coin of the change went elsewhere: it is void");
        record.state = self.perhaps_expired(VenueAccountState::PendingUpdate, &origin.terms);
        record.outpoint = origin.outpoint;
        record.height_hint = origin.height_hint;
        record.terms = origin.terms;
        record.value = origin.value;
        record.latest = origin.latest;
        vec![Write::Account(record)]
    }

    fn closed_writes(&self, account: AccountKey, height: BlockHeight, transaction: &Transaction) -> Vec<Write> {
        let mut writes = self.account_writes(account, AccountEvent::SpentForGood);
        for write in &mut writes {
            if let Write::Account(record) = write {
                record.changes.clear();
                record.origin = None;
                record.height_hint = height;
                record.latest = Some(transaction.clone());
            }
        }
        writes
    }

    /// The current output has its confirmations: what spent the one before can not change any more.
    fn confirmed_writes(&self, account: AccountKey, transaction: &Transaction) -> Vec<Write> {
        let mut writes = self.account_writes(account, AccountEvent::Confirmed);
        let of_batch =
            self.book.batches.iter().any(|batch| batch.transaction.compute_txid() == transaction.compute_txid());
        for write in &mut writes {
            if let Write::Account(record) = write {
                record.origin = None;
                record.changes.retain(|change| change.spends == record.outpoint);
                record.latest = (!of_batch).then(|| transaction.clone());
            }
        }
        writes
    }

    /// Everything that is to be watched.
    pub(crate) fn all_watches(&self) -> Vec<Watched> {
        let accounts = self.book.accounts.values().flat_map(|record| self.account_watches(record));
        let batches = self.book.batches.iter().filter(|batch| !batch.confirmed).filter_map(batch_watch);
        let leases = self.book.leases.values().map(lease_watch);
        accounts.chain(batches).chain(leases).chain(self.deposit_watches()).collect()
    }

    pub(crate) async fn watch_account_or_later(&mut self, account: AccountKey) {
        let Some(record) = self.book.accounts.get(&account) else { return };
        if let Err(error) = set(&self.node, &self.account_watches(record)).await {
            warn!(%account, %error, "the account can not be watched yet");
            self.chain_lost = true;
            self.repair_later();
        }
    }

    /// Watches the confirmation of an unconfirmed output, the spend of a confirmed one.
    pub(crate) fn account_watches(&self, record: &AccountRecord) -> Vec<Watched> {
        let account = record.key();
        if record.state == VenueAccountState::Closed {
            return Vec::new();
        }
        let Ok(script) = record.terms.output_script() else {
            warn!(%account, "the stored account has no valid script and is not watched");
            return Vec::new();
        };
        let mut watches = Vec::new();
        let (outpoint, height_hint) = (record.outpoint, record.height_hint.saturating_sub(REORGANISATION));
        if let Some(Origin { outpoint, script, height_hint, .. }) = record.origin.clone() {
            let height_hint = height_hint.saturating_sub(REORGANISATION);
            watches.push((format!("{ORIGIN}{account}"), Watch::Spend { outpoint, script, height_hint }));
            let coins = latest_change(record).map(|change| change.coins.clone()).unwrap_or_default();
            for (number, (outpoint, script)) in coins.into_iter().enumerate() {
                watches.push((format!("{COIN}{account}/{number}"), Watch::Spend { outpoint, script, height_hint }));
            }
        }
        if record.state.awaits_confirmation() {
            let confirmations = confirmations_needed(record.value, self.config.max_account_value);
            let watch = Watch::Confirmation { txid: outpoint.txid, script, confirmations, height_hint };
            watches.push((format!("{CONFIRMATION}{account}"), watch));
        } else {
            watches.push((format!("{SPEND}{account}"), Watch::Spend { outpoint, script, height_hint }));
        }
        watches
    }

    /// Whether an account's orders may be matched, as far as the account decides it.
    pub(crate) fn may_match(&self, record: &AccountRecord) -> bool {
        let cutoff = self.height.checked_add(self.config.expiry_cutoff);
        record.state.may_match()
            && record.changes.is_empty()
            && cutoff.is_some_and(|cutoff| record.terms.expiry > cutoff)
    }
}

/// The change by the owner that made the current output.
fn latest_change(record: &AccountRecord) -> Option<&SignedChange> {
    record.changes.iter().find(|change| change.txid() == record.outpoint.txid)
}

/// An output that was spent is no longer watched: its successor is.
pub(crate) async fn unwatch<E: VenueEnv>(node: &Node<'_, E>, kind: &str, account: AccountKey) {
    if let Err(error) = node.unwatch(&format!("{kind}{account}")).await {
        // A late event of the old output is recognised by its outpoint and ignored.
        warn!(%account, %error, "an old watch could not be ended");
    }
}

/// The call that announces a funded account.
pub(crate) struct Announcement {
    pub(crate) trader: TraderId,
    pub(crate) request: InitAccount,
    pub(crate) agent: String,
    pub(crate) reply: Reply<()>,
}

fn check_announcement(reserved: &ReservationRecord, request: &InitAccount) -> Result<(), ServeError> {
    let mismatch = |what| Err(ServeError::ReservationMismatch { what });
    if request.outpoint.txid == Txid::all_zeros() {
        return Err(ServeError::EmptyOutpoint);
    }
    if request.reservation.value != reserved.value {
        return mismatch("account value");
    }
    if request.reservation.expiry != reserved.expiry {
        return mismatch("account expiry");
    }
    if request.reservation.version != reserved.version {
        return mismatch("account version");
    }
    Ok(())
}

fn output_is_as_announced(record: &AccountRecord, transaction: &Transaction) -> bool {
    let index = usize::try_from(record.outpoint.vout).ok();
    let found = index.and_then(|index| transaction.output.get(index));
    match (found, record.terms.output(record.value)) {
        (Some(found), Ok(expected)) => *found == expected,
        (None, _) | (_, Err(_)) => false,
    }
}

/// An account's output in the words of the shared rules. The place of the trader's key is the trader's secret and not
/// used.
pub(crate) fn as_protocol_account(terms: &AccountTerms, value: Sats, outpoint: OutPoint) -> Account {
    Account {
        terms: *terms,
        locator: KeyLocator { family: 0, index: 0 },
        value,
        state: AccountState::Open,
        height_hint: BlockHeight::new(0),
        outpoint: Some(outpoint),
        latest_tx: None,
    }
}

/// Whether a version needs nonces.
pub(crate) fn is_taproot(version: AccountVersion) -> bool {
    version.musig2().is_some()
}
