//! The agent's loop: look, decide, pass the gate, journal, place.

use super::observe::{Look, ObserveError, Observer};
use std::collections::BTreeMap;
use thiserror::Error;
use tidegate_engine::driver::{Place, step};
use tidegate_engine::gate::{Approved, RiskGate};
use tidegate_engine::journal::JournalEntry;
use tidegate_engine::strategy::{Intent, Now, OrderIntent, Strategy};
use tidegate_ports::{Change, Clock as _, Sequence, Store, StoreError, TraderEnv};
use tidegate_protocol::order::{AuctionType, OrderSide};
use tidegate_protocol::units::{BlockCount, BlockHeight, RatePerBillion};
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

/// A strategy with its gate, its state and its journal.
pub(crate) struct Brain<S: Strategy, J: Store> {
    strategy: S,
    state: S::State,
    gate: RiskGate,
    observer: Observer,
    journal: J,
    sequence: Sequence,
    next_entry: u64,
    /// A broken promise was seen: open orders are cancelled and nothing is placed until a person restarts the agent.
    halted: bool,
}

impl<S: Strategy, J: Store> Brain<S, J> {
    /// A brain that goes on where its journal ended.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub(crate) async fn load(strategy: S, gate: RiskGate, journal: J) -> Result<Brain<S, J>, StoreError> {
        let (sequence, rows) = journal.load(&[LATEST]).await?;
        let last = match rows.last() {
            None => None,
            Some(row) => Some(serde_json::from_str::<JournalEntry>(&row.value).map_err(|error| {
                StoreError::Corrupt { table: row.table.clone(), key: row.key.clone(), reason: error.to_string() }
            })?),
        };
        // Another strategy's state, or an older shape of it, is not ours: start afresh and say so.
        let stored = last.as_ref().filter(|entry| entry.strategy == strategy.name());
        let state = stored.and_then(|entry| serde_json::from_value(entry.state.clone()).ok());
        if last.is_some() && state.is_none() {
            tracing::warn!(strategy = strategy.name(), "the journal holds no state of this strategy: it starts afresh");
        }
        let next_entry = last.map_or(0, |entry| entry.sequence.saturating_add(1));
        let state = state.unwrap_or_default();
        Ok(Brain { strategy, state, gate, observer: Observer::default(), journal, sequence, next_entry, halted: false })
    }

    /// One round: everything is looked at, decided once, journaled, and what passed the gate is carried out.
    ///
    /// # Errors
    /// [`RoundError`]; then nothing was placed.
    pub(crate) async fn round<E: TraderEnv>(&mut self, env: &E, trader: &Handle) -> Result<Round, RoundError> {
        let Look { view, status, venue_silent } = self.observer.look(env, trader).await?;
        if self.halted {
            return Ok(cancel_all(trader, &status).await);
        }
        if let Some(error) = &venue_silent {
            tracing::warn!(%error, "decided on what the venue said before");
        }
        let height = view.height().unwrap_or(BlockHeight::new(0));
        let now = Now { time: env.clock().now(), height };
        let place = Place { journal_sequence: self.next_entry, store_sequence: status.sequence.0 };
        let decided = step(&self.strategy, &mut self.state, &self.gate, &view, now, place);
        for reason in &decided.entry.reasons {
            tracing::debug!(strategy = self.strategy.name(), "{reason}");
        }
        let total = u32::try_from(decided.entry.intents.len()).unwrap_or(u32::MAX);
        let approved = u32::try_from(decided.approved.len()).unwrap_or(u32::MAX);
        let refused = total.saturating_sub(approved);
        let mut round = Round { refused, venue_silent: venue_silent.is_some(), ..Round::default() };
        self.write(&decided.entry).await?;
        for intent in decided.approved {
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
                self.halted = true;
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

    /// The latest clearing rate of each duration that is known.
    pub(crate) fn clearing_rates(&self) -> BTreeMap<BlockCount, RatePerBillion> {
        self.observer.clearing_rates()
    }

    async fn write(&mut self, entry: &JournalEntry) -> Result<(), StoreError> {
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

/// Cancels what is open; told again at each round until nothing is.
async fn cancel_all(trader: &Handle, status: &Status) -> Round {
    let mut round = Round { halted: true, ..Round::default() };
    for own in status.orders.iter().filter(|own| !own.state.is_archived()) {
        match trader.cancel_order(own.order.nonce).await {
            Ok(()) => round.placed += 1,
            Err(error) => {
                tracing::warn!(nonce = %own.order.nonce, %error, "not cancelled yet; tried again at the next round");
                round.failed += 1;
            }
        }
    }
    round
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
            let request = CloseAccount { account, fee_rate: None, to: None };
            let outcome = trader.close_account(request).await;
            outcome.map(drop).map_err(|error| (error.to_string(), error.reaction()))
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
        side,
    };
    let outcome = trader.submit_order(request).await;
    outcome.map(drop).map_err(|error| (error.to_string(), error.reaction()))
}

fn intent_name(intent: &Intent) -> &'static str {
    match intent {
        Intent::PlaceAsk { .. } => "ask",
        Intent::PlaceBid { .. } => "bid",
        Intent::Cancel { .. } => "cancel",
        Intent::OpenAccount { .. } => "open account",
        Intent::CloseAccount { .. } => "close account",
    }
}
