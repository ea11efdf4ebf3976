//! Accounts: reservation, opening, close, and what the chain says about them.

use crate::actor::Actor;
use crate::book::{AccountRecord, ReservationRecord, Write};
use crate::error::{Halt, ServeError};
use crate::machine::{AccountEvent, Transition, VenueAccountState, next};
use bitcoin::hashes::Hash;
use bitcoin::{Transaction, TxOut, Txid};
use tidegate_ports::{
    Chain, ChainEvent, InitAccount, ModifyAccount, ModifySignature, Musig2Request, NodeError, Reservation,
    ReservedKeys, ScriptSpend, SignInput, Signer, TraderId, VenueEnv, Wallet, Watch,
};
use tidegate_protocol::account::{
    Account, AccountState, AccountTerms, AccountVersion, MAX_EXPIRY_AHEAD, MIN_ACCOUNT_VALUE, MIN_EXPIRY_AHEAD,
};
use tidegate_protocol::fees::confirmations_needed;
use tidegate_protocol::keys::{AccountKey, AuctioneerKey, KeyLocator};
use tidegate_protocol::order::OrderState;
use tidegate_protocol::script::{SpendKind, classify_spend, key_spend_sighash};
use tidegate_protocol::spend::cooperative_transaction;
use tidegate_protocol::units::{BlockCount, BlockHeight, Sats};
use tracing::{info, warn};

/// Blocks by which we look further back than our best height.
const HINT_PADDING: BlockCount = BlockCount::new(3);
/// Blocks by which a watch looks further back than the height that we noted: after a reorganisation of the chain, what
/// happened at that height may be found in a lower block.
pub(crate) const REORGANISATION: BlockCount = BlockCount::new(12);
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
/// Outputs of a closing transaction, at most.
const MAX_CLOSE_OUTPUTS: usize = 100;
/// SIGHASH_ALL, appended to the signature of a version 0 account.
const SIGHASH_ALL: u8 = 1;

/// Prefixes of the names of watches; the account key follows.
const CONFIRMATION: &str = "conf/";
const SPEND: &str = "spend/";

fn watched_account(name: &str, kind: &str) -> Option<AccountKey> {
    name.strip_prefix(kind)?.parse().ok()
}

impl<E: VenueEnv> Actor<'_, E> {
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
    pub(crate) async fn init(
        &mut self,
        trader: TraderId,
        request: &InitAccount,
        user_agent: String,
    ) -> Result<(), ServeError> {
        let agent = user_agent.trim();
        let length = agent.chars().count();
        if length > MAX_USER_AGENT {
            return Err(ServeError::UserAgent(length));
        }
        let account = request.reservation.trader;
        if self.book.accounts.contains_key(&account) {
            return Ok(());
        }
        let reserved = self.book.reservations.get(&account).ok_or(ServeError::NoReservation(account))?.clone();
        if reserved.trader != trader.0 {
            // A client that restarts may come with another token; the key is what counts.
            info!(%account, "announced under another token than it was reserved with");
        }
        check_announcement(&reserved, request)?;
        let secret = self.env.signer().shared_secret(account.point(), self.key.locator).await?;
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
            user_agent: agent.to_owned(),
            trader: trader.0,
            closing: None,
        };
        info!(%account, outpoint = %record.outpoint, value = record.value.get(), "account announced");
        self.commit(vec![Write::Account(record), Write::DropReservation(account)]).await?;
        self.watch_account_or_later(account).await;
        Ok(())
    }

    /// Whether the caller speaks for the account: it is subscribed on its stream, which proved the key; or, while it is
    /// subscribed nowhere, it was announced under the same identity. Every matched counterpart knows the account's key,
    /// so the key alone says nothing.
    fn speaks_for(&self, trader: TraderId, record: &AccountRecord) -> bool {
        match self.streams.of_account(record.key()) {
            Some((_, stream)) => stream.trader == trader,
            None => record.trader == trader.0,
        }
    }

    /// Our half of a close. From then on the owner alone decides whether the output still exists, so the account is
    /// left out of batches for good: there is no time after which a signed close can not be published.
    ///
    /// # Source
    /// Protocol notes, auctioneer §4.5, rpc §8.3.
    pub(crate) async fn modify(
        &mut self,
        trader: TraderId,
        request: &ModifyAccount,
    ) -> Result<ModifySignature, ServeError> {
        let account = request.account;
        let mut record = self.book.accounts.get(&account).ok_or(ServeError::NoAccount(account))?.clone();
        if !self.speaks_for(trader, &record) {
            return Err(ServeError::NotTheOwner(account));
        }
        if request.new_params.is_some() || !request.new_inputs.is_empty() {
            return Err(ServeError::Unsupported("deposits, withdrawals, renewals and upgrades of accounts"));
        }
        if self.running.contains(&account) {
            return Err(ServeError::AccountBusy(account));
        }
        if matches!(record.state, VenueAccountState::PendingOpen | VenueAccountState::Closed) {
            return Err(ServeError::AccountState { account, state: record.state, what: "a close" });
        }
        if self.book.active_orders(account).next().is_some() {
            return Err(ServeError::OrdersOpen(account));
        }
        let found = request.new_outputs.len();
        if found > MAX_CLOSE_OUTPUTS {
            return Err(ServeError::TooMany { what: "outputs", found, max: MAX_CLOSE_OUTPUTS });
        }
        let transaction = cooperative_transaction(&as_protocol_account(&record), request.new_outputs.clone())?;
        let txid = transaction.compute_txid();
        let outpoint = record.outpoint;
        let spent = record.terms.output(record.value)?;
        let signature = self.sign_alone(&record.terms, transaction, spent, request).await?;
        // Only now, and durable before the signature leaves: from here on the output may vanish at any time.
        record.closing = Some(txid);
        info!(%account, %outpoint, %txid, "close signed");
        let receipt = self.commit(vec![Write::Account(record)]).await?;
        if receipt.names_closing(account, txid) {
            Ok(signature)
        } else {
            Err(ServeError::Internal("a close was not stored"))
        }
    }

    /// Signs the only input of a transaction that spends an account.
    async fn sign_alone(
        &self,
        terms: &AccountTerms,
        transaction: Transaction,
        spent: TxOut,
        request: &ModifyAccount,
    ) -> Result<ModifySignature, ServeError> {
        let signer = self.env.signer();
        let Some(version) = terms.version.musig2() else {
            let script = terms.inner_script()?;
            let tweak = terms.auctioneer_tweak()?;
            let spend = ScriptSpend::SegwitV0 { script };
            let input = SignInput { transaction, input: 0, prev_outputs: vec![spent], key: self.key, tweak, spend };
            let mut signature = signer.sign_input(&input).await?;
            signature.push(SIGHASH_ALL);
            return Ok(ModifySignature { signature, server_nonce: None });
        };
        let nonce = request.trader_nonce.ok_or(ServeError::NonceMissing)?;
        let message =
            key_spend_sighash(&transaction, 0, &[spent]).map_err(|_| ServeError::Internal("a close has no input"))?;
        let begin = Musig2Request {
            signer: self.key.locator,
            keys: [self.key.point, *terms.trader.point()],
            version,
            merkle_root: terms.merkle_root()?,
            other_nonce: Some(nonce),
        };
        let (session, server_nonce) = signer.musig2_begin(&begin).await?;
        let partial = match signer.musig2_sign(session, message, true).await {
            Ok(partial) => partial,
            Err(error) => {
                // The session is useless now; that it is forgotten is a courtesy to the node.
                drop(signer.musig2_cleanup(session).await);
                return Err(error.into());
            }
        };
        Ok(ModifySignature { signature: partial.0.to_vec(), server_nonce: Some(server_nonce) })
    }

    pub(crate) async fn on_chain(&mut self, event: ChainEvent) -> Result<(), Halt> {
        match event {
            ChainEvent::Block { height } => self.on_block(height).await,
            ChainEvent::Confirmed { name, transaction, .. } => self.on_confirmed(&name, &transaction).await,
            ChainEvent::Spent { name, transaction, .. } => self.on_spent(&name, &transaction).await,
        }
    }

    /// A new best height: accounts expire, and the fee estimate is renewed.
    pub(crate) async fn on_block(&mut self, height: BlockHeight) -> Result<(), Halt> {
        self.height = height;
        match self.env.wallet().estimate_fee(self.config.fee_conf_target).await {
            Ok(rate) => self.estimate = rate,
            Err(error) => warn!(%error, "no fee estimate"),
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
        Ok(())
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

    async fn on_confirmed(&mut self, name: &str, transaction: &Transaction) -> Result<(), Halt> {
        let Some(account) = watched_account(name, CONFIRMATION) else {
            return self.on_batch_confirmed(transaction).await;
        };
        let Some(record) = self.book.accounts.get(&account) else { return Ok(()) };
        if transaction.compute_txid() != record.outpoint.txid {
            return Ok(());
        }
        if !output_is_as_announced(record, transaction) {
            warn!(%account, outpoint = %record.outpoint, "the confirmed output is not the announced one: never opened");
            return Ok(());
        }
        let writes = self.account_writes(account, AccountEvent::Confirmed);
        if !writes.is_empty() {
            self.commit(writes).await?;
        }
        let expired = self.book.accounts.get(&account).is_some_and(|record| record.terms.expiry <= self.height);
        if expired {
            let writes = self.account_writes(account, AccountEvent::ExpiryReached);
            self.commit(writes).await?;
        }
        self.watch_account_or_later(account).await;
        Ok(())
    }

    /// The current output of an account was spent in a block. Batches are stored before they are published, so a spend
    /// of the *current* output is never one of ours.
    async fn on_spent(&mut self, name: &str, transaction: &Transaction) -> Result<(), Halt> {
        let Some(account) = watched_account(name, SPEND) else { return Ok(()) };
        let Some(record) = self.book.accounts.get(&account) else { return Ok(()) };
        let Some(input) = transaction.input.iter().find(|input| input.previous_output == record.outpoint) else {
            return Ok(());
        };
        let txid = transaction.compute_txid();
        match classify_spend(&input.witness) {
            SpendKind::Expiry => info!(%account, %txid, "account spent by its owner after expiry"),
            SpendKind::Cooperative => info!(%account, %txid, agreed = (record.closing == Some(txid)), "account closed"),
            SpendKind::Unknown => warn!(%account, %txid, "account spent in a way that is not known"),
        }
        let writes = self.account_writes(account, AccountEvent::SpentForGood);
        self.commit(writes).await?;
        Ok(())
    }

    /// Sets every watch again.
    pub(crate) async fn watch_all(&self) -> Result<(), NodeError> {
        for record in self.book.accounts.values() {
            self.watch_account(record).await?;
        }
        for batch in self.book.batches.iter().filter(|batch| !batch.confirmed) {
            self.watch_batch(batch).await?;
        }
        Ok(())
    }

    pub(crate) async fn watch_account_or_later(&mut self, account: AccountKey) {
        let Some(record) = self.book.accounts.get(&account) else { return };
        if let Err(error) = self.watch_account(record).await {
            warn!(%account, %error, "the account can not be watched yet");
            self.chain_lost = true;
            self.repair_later();
        }
    }

    /// Watches the confirmation of an unconfirmed output, the spend of a confirmed one.
    async fn watch_account(&self, record: &AccountRecord) -> Result<(), NodeError> {
        let account = record.key();
        if record.state == VenueAccountState::Closed {
            return Ok(());
        }
        let Ok(script) = record.terms.output_script() else {
            warn!(%account, "the stored account has no valid script and is not watched");
            return Ok(());
        };
        let (outpoint, height_hint) = (record.outpoint, record.height_hint.saturating_sub(REORGANISATION));
        if record.state.awaits_confirmation() {
            let confirmations = confirmations_needed(record.value, self.config.max_account_value);
            let watch = Watch::Confirmation { txid: outpoint.txid, script, confirmations, height_hint };
            self.env.chain().watch(&format!("{CONFIRMATION}{account}"), watch).await
        } else {
            let watch = Watch::Spend { outpoint, script, height_hint };
            self.env.chain().watch(&format!("{SPEND}{account}"), watch).await
        }
    }

    /// Whether an account's orders may be matched, as far as the account decides it.
    pub(crate) fn may_match(&self, record: &AccountRecord) -> bool {
        let cutoff = self.height.checked_add(self.config.expiry_cutoff);
        record.state.may_match()
            && record.closing.is_none()
            && cutoff.is_some_and(|cutoff| record.terms.expiry > cutoff)
    }

    /// An output that a batch spent is no longer watched: its successor is.
    pub(crate) async fn unwatch_spend(&self, account: AccountKey) {
        if let Err(error) = self.env.chain().unwatch(&format!("{SPEND}{account}")).await {
            // A late event of the old output is recognised by its outpoint and ignored.
            warn!(%account, %error, "an old watch could not be ended");
        }
    }
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

/// The account in the words of the shared rules. The place of the trader's key is the trader's secret and not used.
fn as_protocol_account(record: &AccountRecord) -> Account {
    Account {
        terms: record.terms,
        locator: KeyLocator { family: 0, index: 0 },
        value: record.value,
        state: AccountState::Open,
        height_hint: record.height_hint,
        outpoint: Some(record.outpoint),
        latest_tx: None,
    }
}

/// Whether a version needs nonces.
pub(crate) fn is_taproot(version: AccountVersion) -> bool {
    version.musig2().is_some()
}
