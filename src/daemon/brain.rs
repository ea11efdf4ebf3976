//! The agent's loop: look, decide, pass the gate, journal, place. What a person asks for goes the same way.

mod figures;

use super::books::Books;
use super::observe::{Look, ObserveError, Observer};
use crate::api::operator::{Cancelled, Done, NO_STRATEGY, Position, Switch, Wish, WishError, intent_name};
use std::collections::BTreeMap;
use thiserror::Error;
use tidegate_engine::driver::{Place, step};
use tidegate_engine::gate::{Approved, RiskGate, RiskRefusal};
use tidegate_engine::journal::{Inputs, JournalEntry, Judged, Verdict};
use tidegate_engine::strategy::{Intent, Now, OrderIntent, Reason, Strategy};
use tidegate_ports::{Change, Clock as _, Sequence, Store, StoreError, TraderEnv};
use tidegate_protocol::keys::OrderNonce;
use tidegate_protocol::order::{AuctionType, OrderSide};
use tidegate_protocol::units::{BlockCount, BlockHeight, RatePerBillion, Sats, UnitCount};
use tidegate_trader::{CloseAccount, Handle, NewOrder, OpenAccount, Reaction, Status};

/// Table of journal entries, keyed by their number with leading zeros. Only ever added to.
const JOURNAL: &str = "journal";
/// Table with one row: the newest entry again, so that a start need not read the whole journal.
const LATEST: &str = "latest";

/// A round that could not be completed.
#[derive(Debug, Error)]
pub(crate) enum RoundError {
    /// A source did not answer: nothing was decided.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// The journal could not be written: what was decided was not placed.
    #[error("the journal can not be written: {0}")]
    Journal(#[from] StoreError),
}

/// How a round ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Round {
    /// Intents carried out.
    pub(crate) placed: u32,
    /// Intents that the gate refused.
    pub(crate) refused: u32,
    /// Intents that passed the gate and failed at trader, node or venue.
    pub(crate) failed: u32,
    /// The venue did not answer: it was decided on what it said before.
    pub(crate) venue_silent: bool,
    /// Trading is stopped until a person restarts the agent.
    pub(crate) halted: bool,
}

/// A strategy, or none, with its gate, its state and its journal.
pub(crate) struct Brain<S: Strategy, J: Store> {
    strategy: Option<S>,
    state: S::State,
    gate: RiskGate,
    observer: Observer,
    journal: J,
    sequence: Sequence,
    next_entry: u64,
    /// A broken promise was seen: open orders are cancelled and nothing is placed until a person restarts the agent.
    halted: bool,
    /// By which an operator stops trading, if there is one.
    switch: Option<Switch<J>>,
    /// Turns of the switch that are journaled.
    turns: u64,
    books: Books,
    /// What the gate refused since the start, by limit.
    refusals: BTreeMap<&'static str, u64>,
}

impl<S: Strategy, J: Store> Brain<S, J> {
    /// A brain that goes on where its journal ended. Without a strategy it decides nothing and does what it is asked.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub(crate) async fn load(strategy: Option<S>, gate: RiskGate, journal: J) -> Result<Brain<S, J>, StoreError> {
        let (sequence, rows) = journal.load(&[LATEST]).await?;
        let last = match rows.last() {
            None => None,
            Some(row) => Some(serde_json::from_str::<JournalEntry>(&row.value).map_err(|error| {
                StoreError::Corrupt { table: row.table.clone(), key: row.key.clone(), reason: error.to_string() }
            })?),
        };
        // Another strategy's state, or an older shape of it, is not ours: start afresh and say so.
        let name = strategy.as_ref().map_or(NO_STRATEGY, Strategy::name);
        let stored = last.as_ref().filter(|entry| entry.strategy == name);
        let state = stored.and_then(|entry| serde_json::from_value(entry.state.clone()).ok());
        if last.is_some() && state.is_none() {
            tracing::warn!(strategy = name, "the journal holds no state of this strategy: it starts afresh");
        }
        let next_entry = last.map_or(0, |entry| entry.sequence.saturating_add(1));
        let state = state.unwrap_or_default();
        let observer = Observer::default();
        let (halted, switch, turns) = (false, None, 0);
        let (books, refusals) = (Books::default(), BTreeMap::new());
        Ok(Brain {
            strategy,
            state,
            gate,
            observer,
            journal,
            sequence,
            next_entry,
            halted,
            switch,
            turns,
            books,
            refusals,
        })
    }

    /// From now on it obeys this switch.
    pub(crate) fn with_switch(self, switch: Switch<J>) -> Brain<S, J> {
        let turns = switch.position().turns;
        Brain { switch: Some(switch), turns, ..self }
    }

    fn is_stopped(&self) -> bool {
        self.switch.as_ref().is_some_and(Switch::is_stopped)
    }

    fn halt(&mut self) {
        self.halted = true;
        if let Some(switch) = &self.switch {
            switch.halt();
        }
    }

    /// A ledger that does not agree with the accounts is a broken promise.
    async fn check_books<E: TraderEnv>(&mut self, env: &E, status: &Status) {
        if let Err(error) = self.books.refresh(env, status).await {
            tracing::warn!(%error, "the ledger is not up to date");
        }
        if let Some(error) = self.books.disagreement().filter(|_| !self.halted) {
            tracing::error!(%error, "trading stops: the ledger does not agree. Find the cause, then restart");
            self.halt();
        }
    }

    /// One round: everything is looked at, decided once, journaled, and what passed the gate is carried out.
    ///
    /// # Errors
    /// [`RoundError`]; then nothing was placed.
    pub(crate) async fn round<E: TraderEnv>(&mut self, env: &E, trader: &Handle) -> Result<Round, RoundError> {
        let Look { status, venue_silent } = self.observer.look(env, trader).await?;
        self.check_books(env, &status).await;
        self.journal_turn(env, &status).await?;
        if self.halted || self.is_stopped() {
            let Cancelled { cancelled, left } = cancel_all(trader, &status).await;
            let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
            let (placed, failed) = (count(cancelled.len()), count(left.len()));
            return Ok(Round { placed, failed, halted: self.halted, ..Round::default() });
        }
        if let Some(error) = &venue_silent {
            tracing::warn!(%error, "decided on what the venue said before");
        }
        let Some(strategy) = &self.strategy else {
            return Ok(Round { venue_silent: venue_silent.is_some(), ..Round::default() });
        };
        let view = self.observer.view();
        let height = view.height().unwrap_or(BlockHeight::new(0));
        let now = Now { time: env.clock().now(), height };
        let place = Place { journal_sequence: self.next_entry, store_sequence: status.sequence.0 };
        let decided = step(strategy, &mut self.state, &self.gate, view, now, place);
        for reason in &decided.entry.reasons {
            tracing::debug!(strategy = strategy.name(), "{reason}");
        }
        let total = u32::try_from(decided.entry.intents.len()).unwrap_or(u32::MAX);
        let approved = u32::try_from(decided.approved.len()).unwrap_or(u32::MAX);
        let refused = total.saturating_sub(approved);
        let mut round = Round { refused, venue_silent: venue_silent.is_some(), ..Round::default() };
        self.write(&decided.entry).await?;
        for intent in decided.approved {
            // It may have been turned while the intents before this one were carried out.
            if self.is_stopped() {
                break;
            }
            let cancels = matches!(intent.get(), Intent::Cancel { .. });
            let Err(reaction) = carry_out(trader, intent).await else {
                round.placed += 1;
                continue;
            };
            round.failed += 1;
            if reaction == Reaction::HaltTrading {
                tracing::error!(
                    "trading stops: a promise was broken (see above). Cancelling orders; find the cause, then restart"
                );
                self.halt();
                round.halted = true;
                break;
            }
            // What follows a cancel was meant to replace the order: with that one alive it would come on top.
            if cancels {
                break;
            }
        }
        Ok(round)
    }

    /// What a person asks for, `by` their own name: the same look, the same gate, the same journal.
    ///
    /// # Errors
    /// [`WishError`] by variant.
    pub(crate) async fn asked<E: TraderEnv>(
        &mut self,
        env: &E,
        trader: &Handle,
        wish: Wish,
        by: &str,
    ) -> Result<Done, WishError> {
        if matches!(wish, Wish::Obey) {
            return self.obey(env, trader).await;
        }
        if self.halted && !works_when_halted(&wish) {
            return Err(WishError::Halted);
        }
        if matches!(wish, Wish::Submit(_) | Wish::Replace(..))
            && let Some(Position { stopped: true, by, why, .. }) = self.switch.as_ref().map(Switch::position)
        {
            return Err(WishError::Stopped { by, why });
        }
        let look = self.observer.look(env, trader).await.map_err(|error| match error {
            ObserveError::Node(error) => WishError::Node(error),
            ObserveError::Trader(gone) => WishError::Gone(gone),
        })?;
        self.check_books(env, &look.status).await;
        if self.halted && !works_when_halted(&wish) {
            return Err(WishError::Halted);
        }
        let view = self.observer.view();
        let height = view.height().unwrap_or(BlockHeight::new(0));
        let now = Now { time: env.clock().now(), height };
        let wanted = judged_as(&wish);
        let mut answers = self.gate.approve_all(wanted.clone(), view);
        let judged = wanted.into_iter().zip(&answers).map(judged).collect();
        let reasons = vec![Reason::Asked { by: by.to_owned() }];
        let entry = self.entry_of(reasons, judged, now, look.status.sequence);
        self.write(&entry).await?;
        if let Some(place) = answers.iter().position(Result::is_err) {
            answers.swap_remove(place)?;
        }
        let approved: Vec<Approved<Intent>> = answers.into_iter().flatten().collect();
        let name = approved.last().map_or("nothing", |approved| intent_name(approved.get()));
        tracing::info!(intent = name, by, "asked for");
        let outcome = fulfil(trader, &approved, wish).await;
        if let Err(error) = &outcome {
            tracing::warn!(intent = name, by, %error, "not carried out");
            if error.reaction() == Reaction::HaltTrading {
                tracing::error!("trading stops: a promise was broken (see above). Find the cause, then restart");
                self.halt();
            }
        }
        outcome
    }

    /// Does what the switch says now. Neither the node nor the strategy is asked: this must work when little else does.
    async fn obey<E: TraderEnv>(&mut self, env: &E, trader: &Handle) -> Result<Done, WishError> {
        let status = trader.status().await?;
        self.journal_turn(env, &status).await?;
        if !self.is_stopped() {
            return Ok(Done::Obeyed(Cancelled::default()));
        }
        Ok(Done::Obeyed(cancel_all(trader, &status).await))
    }

    /// Writes down how the switch was turned, with the orders that are cancelled for it.
    async fn journal_turn<E: TraderEnv>(&mut self, env: &E, status: &Status) -> Result<(), StoreError> {
        let Some(position) = self.switch.as_ref().map(Switch::position) else { return Ok(()) };
        if position.turns == self.turns {
            return Ok(());
        }
        let Position { stopped, by, why, turns, .. } = position;
        tracing::warn!(stopped, by, why, "an operator turned the switch");
        let (reason, intents) = if stopped {
            let cancel = |nonce| Judged { intent: Intent::Cancel { nonce }, verdict: Verdict::Approved };
            (Reason::Stopped { by, why }, open_orders(status).map(cancel).collect())
        } else {
            (Reason::Resumed { by }, Vec::new())
        };
        let now = Now { time: env.clock().now(), height: status.best_height.unwrap_or(BlockHeight::new(0)) };
        let entry = self.entry_of(vec![reason], intents, now, status.sequence);
        self.write(&entry).await?;
        self.turns = turns;
        Ok(())
    }

    fn entry_of(&self, reasons: Vec<Reason>, intents: Vec<Judged>, now: Now, store: Sequence) -> JournalEntry {
        JournalEntry {
            sequence: self.next_entry,
            now,
            // The newest entry keeps the strategy's state, also when a person made it.
            strategy: self.strategy.as_ref().map_or(NO_STRATEGY, Strategy::name).to_owned(),
            inputs: Inputs::of(self.observer.view(), store.0),
            reasons,
            intents,
            state: serde_json::to_value(&self.state).unwrap_or_default(),
        }
    }

    /// The latest clearing rate of each duration that is known.
    pub(crate) fn clearing_rates(&self) -> BTreeMap<BlockCount, RatePerBillion> {
        self.observer.clearing_rates()
    }

    async fn write(&mut self, entry: &JournalEntry) -> Result<(), StoreError> {
        for judged in &entry.intents {
            if let Verdict::Refused(refusal) = &judged.verdict {
                *self.refusals.entry(refusal.name()).or_default() += 1;
            }
        }
        let key = format!("{:020}", entry.sequence);
        let value = serde_json::to_string(entry).map_err(|error| StoreError::Corrupt {
            table: JOURNAL.to_owned(),
            key: key.clone(),
            reason: error.to_string(),
        })?;
        let latest = Change::Put { table: LATEST, key: LATEST.to_owned(), value: value.clone() };
        let changes = [Change::Put { table: JOURNAL, key, value }, latest];
        self.sequence = self.journal.apply(self.sequence, &changes).await?;
        self.next_entry = self.next_entry.saturating_add(1);
        Ok(())
    }
}

/// What is written down about a wish.
fn judged((intent, answer): (Intent, &Result<Approved<Intent>, RiskRefusal>)) -> Judged {
    let verdict = match answer {
        Ok(_) => Verdict::Approved,
        Err(refusal) => Verdict::Refused(refusal.clone()),
    };
    Judged { intent, verdict }
}

/// What ends commitments goes on after a broken promise; nothing that makes new ones does.
fn works_when_halted(wish: &Wish) -> bool {
    matches!(wish, Wish::Cancel(_) | Wish::Close(_) | Wish::Bump(_))
}

/// What the gate judges a wish as, in this order.
///
/// The gate's orders are those of the inbound market. An outbound bid's own coins bear premium and fees there, so that
/// it is judged as one order of all its coins, filled at once.
fn judged_as(wish: &Wish) -> Vec<Intent> {
    let intent = match wish {
        Wish::Open(open) => {
            Intent::OpenAccount { value: open.value, expiry_blocks: open.expiry_blocks, version: open.version }
        }
        Wish::Close(close) => Intent::CloseAccount { account: close.account },
        Wish::Deposit(deposit) => Intent::Deposit { account: deposit.account, amount: deposit.amount },
        Wish::Withdraw(withdraw) => {
            let paid = withdraw.outputs.iter().map(|output| Sats::try_from(output.value).unwrap_or(Sats::MAX));
            Intent::Withdraw { account: withdraw.account, amount: Sats::checked_sum(paid).unwrap_or(Sats::MAX) }
        }
        Wish::Renew(renew) => Intent::Renew { account: renew.account, expiry: renew.expiry },
        Wish::Bump(bump) => Intent::BumpFee { account: bump.account, fee_rate: bump.fee_rate },
        Wish::Cancel(nonce) => Intent::Cancel { nonce: *nonce },
        Wish::Submit(new) => order_judged_as(new),
        Wish::Replace(nonce, new) => return vec![Intent::Cancel { nonce: *nonce }, order_judged_as(new)],
        // The switch is no intent: nothing is judged.
        Wish::Obey => return Vec::new(),
    };
    vec![intent]
}

fn order_judged_as(new: &NewOrder) -> Intent {
    let outbound_coins = match (&new.side, new.auction) {
        (OrderSide::Bid(terms), AuctionType::Outbound) => {
            Some(UnitCount::ceil_from(terms.self_balance).unwrap_or(UnitCount::new(u32::MAX)))
        }
        _ => None,
    };
    let units =
        outbound_coins.map_or(new.units, |coins| new.units.checked_add(coins).unwrap_or(UnitCount::new(u32::MAX)));
    let order = OrderIntent {
        account: new.account,
        rate: new.rate,
        units,
        // In the outbound market an ask's smallest channel is about the bidder's coins; the order itself is one unit.
        min_units: match new.auction {
            AuctionType::Inbound => new.min_units,
            AuctionType::Outbound => units,
        },
        duration: new.duration,
        max_batch_fee_rate: new.max_batch_fee_rate,
        channel_type: new.channel_type,
    };
    match &new.side {
        OrderSide::Ask(terms) => Intent::PlaceAsk { order, terms: terms.clone() },
        OrderSide::Bid(terms) => Intent::PlaceBid { order, terms: terms.clone() },
    }
}

/// Carries out a wish that the gate let through: `_approved` is what it was judged as.
async fn fulfil(trader: &Handle, _approved: &[Approved<Intent>], wish: Wish) -> Result<Done, WishError> {
    Ok(match wish {
        Wish::Open(request) => Done::Account(Box::new(trader.open_account(request).await?)),
        Wish::Close(request) => Done::Closed(trader.close_account(request).await?),
        Wish::Deposit(request) => Done::Modified(Box::new(trader.deposit(request).await?)),
        Wish::Withdraw(request) => Done::Modified(Box::new(trader.withdraw(request).await?)),
        Wish::Renew(request) => Done::Modified(Box::new(trader.renew(request).await?)),
        Wish::Bump(request) => {
            trader.bump(request).await?;
            Done::Nothing
        }
        Wish::Submit(request) => Done::Placed(trader.submit_order(*request).await?),
        Wish::Cancel(nonce) => {
            trader.cancel_order(nonce).await?;
            Done::Nothing
        }
        Wish::Replace(nonce, request) => Done::Placed(trader.replace_order(nonce, *request).await?),
        Wish::Obey => Done::Nothing,
    })
}

fn open_orders(status: &Status) -> impl Iterator<Item = OrderNonce> {
    status.orders.iter().filter(|own| !own.state.is_archived()).map(|own| own.order.nonce)
}

/// Cancels what is open; told again at each round until nothing is.
async fn cancel_all(trader: &Handle, status: &Status) -> Cancelled {
    let mut all = Cancelled::default();
    for nonce in open_orders(status) {
        match trader.cancel_order(nonce).await {
            Ok(()) => all.cancelled.push(nonce),
            Err(error) => {
                tracing::warn!(%nonce, %error, "not cancelled yet; tried again at the next round");
                all.left.push((nonce, error.to_string()));
            }
        }
    }
    all
}

/// Carries out one approved intent; a failure is told, and left to the next round, which sees the state that it left.
async fn carry_out(trader: &Handle, approved: Approved<Intent>) -> Result<(), Reaction> {
    let intent = approved.into_inner();
    let name = intent_name(&intent);
    let told = |reason: String, reaction: Reaction| {
        tracing::warn!(intent = name, %reason, ?reaction, "not carried out");
        reaction
    };
    match intent {
        Intent::PlaceAsk { order, terms } => submit(trader, order, OrderSide::Ask(terms)).await,
        Intent::PlaceBid { order, terms } => submit(trader, order, OrderSide::Bid(terms)).await,
        Intent::Cancel { nonce } => {
            let outcome = trader.cancel_order(nonce).await;
            outcome.map_err(|error| (error.to_string(), error.reaction()))
        }
        Intent::OpenAccount { value, expiry_blocks, version } => {
            let request = OpenAccount { value, expiry_blocks, version, fee_rate: None };
            let outcome = trader.open_account(request).await;
            outcome.map(drop).map_err(|error| (error.to_string(), error.reaction()))
        }
        Intent::CloseAccount { account } => {
            let request = CloseAccount::to_wallet(account);
            let outcome = trader.close_account(request).await;
            outcome.map(drop).map_err(|error| (error.to_string(), error.reaction()))
        }
        Intent::Deposit { .. } | Intent::Withdraw { .. } | Intent::Renew { .. } | Intent::BumpFee { .. } => {
            Err(("strategies do not change accounts in this version".to_owned(), Reaction::DropIntent))
        }
    }
    .map_err(|(reason, reaction)| told(reason, reaction))?;
    tracing::info!(intent = name, "carried out");
    Ok(())
}

async fn submit(trader: &Handle, order: OrderIntent, side: OrderSide) -> Result<(), (String, Reaction)> {
    let request = NewOrder {
        account: order.account,
        rate: order.rate,
        units: order.units,
        min_units: order.min_units,
        duration: order.duration,
        max_batch_fee_rate: order.max_batch_fee_rate,
        channel_type: order.channel_type,
        auction: AuctionType::Inbound,
        allowed_nodes: Vec::new(),
        denied_nodes: Vec::new(),
        public: false,
        side,
    };
    let outcome = trader.submit_order(request).await;
    outcome.map(drop).map_err(|error| (error.to_string(), error.reaction()))
}
