//! `tidegate.v1.Agent`: what `poolrpc.Trader` has no call for. Status and the switch are served also while the agent
//! waits for its node.

use super::orders::{invalid, new_order};
use super::service::{Operator, Stage, gone, malformed, mixed_up, store_failed};
use super::switch::Switch;
use super::wish::{Cancelled, Done, Wish, WishError, harmless};
use crate::daemon::books;
use crate::venue::GrpcLink;
use std::cmp::Reverse;
use std::fmt;
use tidegate_engine::gate::Limits;
use tidegate_engine::journal::{JournalEntry, Judged, Verdict};
use tidegate_engine::ledger::{Entry, Name};
use tidegate_engine::strategy::Intent;
use tidegate_ports::{Row, Store, StoreError, TraderEnv};
use tidegate_protocol::account::AccountState;
use tidegate_protocol::units::{Sats, SatsDelta};
use tidegate_trader::{ReplaceError, Stuck, SubmitError};
use tidegate_wire::operator as wire;
use tidegate_wire::tidegate::v1::{self as rpc, agent_server::Agent};
use tonic::{Request, Response, Status};

/// Name and version, as deployed daemons write it.
pub(super) const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " commit=tidegate");
/// Table of the journal.
const JOURNAL: &str = "journal";
/// Decisions that are told when nobody says how many, and at most.
const FEW_DECISIONS: u32 = 20;
const MOST_DECISIONS: u32 = 1_000;
/// Entries of the ledger that are told at once.
const MOST_ENTRIES: u32 = 10_000;
/// Longest reason or name that is kept.
const MAX_WORDS: usize = 200;

/// What is known of an agent before its node answers.
pub struct About<S> {
    /// Network, as its configuration names it.
    pub network: String,
    /// Address of the venue.
    pub venue: String,
    /// Name of its strategy; empty without one.
    pub strategy: String,
    /// Its limits.
    pub limits: Limits,
    /// Its switch.
    pub switch: Switch<S>,
    /// Its journal, to be read.
    pub journal: S,
}

impl<S> fmt::Debug for About<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("About").field("network", &self.network).field("venue", &self.venue).finish_non_exhaustive()
    }
}

impl<S: Store> About<S> {
    fn trading(&self) -> rpc::Trading {
        let position = self.switch.position();
        rpc::Trading {
            stopped: position.stopped,
            by: position.by,
            reason: position.why,
            since_ms: position.at.0,
            halted: self.switch.is_halted(),
            dry_run: self.limits.dry_run,
        }
    }
}

/// The service.
pub(super) struct AgentService<E: TraderEnv, C> {
    stage: Stage<E>,
    clock: C,
}

impl<E: TraderEnv, C> AgentService<E, C> {
    pub(super) fn new(stage: Stage<E>, clock: C) -> AgentService<E, C> {
        AgentService { stage, clock }
    }
}

/// Words that are kept and shown again.
fn kept(words: &str, otherwise: &str) -> String {
    let words: String = harmless(words.trim()).chars().take(MAX_WORDS).collect();
    if words.is_empty() { otherwise.to_owned() } else { words }
}

impl<E, C> AgentService<E, C>
where
    E: TraderEnv<Link = GrpcLink>,
    C: tidegate_ports::Clock,
{
    /// Turns the switch, then has the task that decides obey it, if it is there already.
    async fn turn(&self, stopped: bool, by: &str, why: &str) -> Result<(rpc::Trading, Cancelled), Status> {
        let about = self.stage.about()?;
        about.switch.turn(stopped, by, why, self.clock.now()).await.map_err(|error| not_kept(stopped, &error))?;
        let outcome = match self.stage.operator() {
            Ok(operator) => operator.ask(Wish::Obey, by).await?,
            // Nothing is placed before the node answers, and then it is looked at first.
            Err(_) => Done::Obeyed(Cancelled::default()),
        };
        match outcome {
            Done::Obeyed(cancelled) => Ok((about.trading(), cancelled)),
            _ => Err(mixed_up()),
        }
    }
}

fn not_kept(stopped: bool, error: &StoreError) -> Status {
    let what =
        if stopped { "trading is stopped until the agent ends, but not beyond" } else { "trading is not resumed" };
    Status::unavailable(harmless(&format!("{what}: the switch can not be kept: {error}")))
}

#[tonic::async_trait]
impl<E, C> Agent for AgentService<E, C>
where
    E: TraderEnv<Link = GrpcLink> + 'static,
    C: tidegate_ports::Clock + 'static,
{
    async fn status(&self, _: Request<rpc::StatusRequest>) -> Result<Response<rpc::StatusResponse>, Status> {
        let about = self.stage.about()?;
        let mut told = rpc::StatusResponse {
            version: VERSION.to_owned(),
            network: about.network.clone(),
            trading: Some(about.trading()),
            strategy: about.strategy.clone(),
            venue_address: about.venue.clone(),
            journal_entries: next_entry(&about.journal).await?,
            ..rpc::StatusResponse::default()
        };
        match self.stage.operator() {
            Ok(operator) => operator.tell(&mut told).await?,
            Err(waiting) => told.waiting = waiting.message().to_owned(),
        }
        Ok(Response::new(told))
    }

    async fn stop(&self, request: Request<rpc::StopRequest>) -> Result<Response<rpc::StopResponse>, Status> {
        let rpc::StopRequest { reason, initiator } = request.into_inner();
        let (trading, Cancelled { cancelled, left }) =
            self.turn(true, &kept(&initiator, "a client"), &kept(&reason, "")).await?;
        let open = |(nonce, reason): (tidegate_protocol::keys::OrderNonce, String)| rpc::OpenOrder {
            order_nonce: nonce.as_bytes().to_vec(),
            reason: harmless(&reason),
        };
        Ok(Response::new(rpc::StopResponse {
            trading: Some(trading),
            cancelled: cancelled.iter().map(|nonce| nonce.as_bytes().to_vec()).collect(),
            still_open: left.into_iter().map(open).collect(),
        }))
    }

    async fn resume(&self, request: Request<rpc::ResumeRequest>) -> Result<Response<rpc::ResumeResponse>, Status> {
        let (trading, _) = self.turn(false, &kept(&request.into_inner().initiator, "a client"), "").await?;
        Ok(Response::new(rpc::ResumeResponse { trading: Some(trading) }))
    }

    async fn replace_order(
        &self,
        request: Request<rpc::ReplaceOrderRequest>,
    ) -> Result<Response<rpc::ReplaceOrderResponse>, Status> {
        self.stage.operator()?.replace_order(request.into_inner()).await.map(Response::new)
    }

    async fn decisions(
        &self,
        request: Request<rpc::DecisionsRequest>,
    ) -> Result<Response<rpc::DecisionsResponse>, Status> {
        let rpc::DecisionsRequest { count, before } = request.into_inner();
        let count = if count == 0 { FEW_DECISIONS } else { count };
        if count > MOST_DECISIONS {
            return Err(Status::invalid_argument(format!(
                "DecisionsRequest.count: at most {MOST_DECISIONS} are told at once; ask again with before"
            )));
        }
        let before = (before > 0).then(|| format!("{before:020}"));
        let journal = &self.stage.about()?.journal;
        let rows = journal.last(JOURNAL, before, usize::try_from(count).unwrap_or(usize::MAX)).await;
        let decisions: Result<Vec<rpc::Decision>, Status> =
            rows.map_err(store_failed)?.iter().rev().map(decision).collect();
        Ok(Response::new(rpc::DecisionsResponse { decisions: decisions? }))
    }

    async fn ledger(&self, request: Request<rpc::LedgerRequest>) -> Result<Response<rpc::LedgerResponse>, Status> {
        let rpc::LedgerRequest { entries } = request.into_inner();
        if entries > MOST_ENTRIES {
            return Err(Status::invalid_argument(format!(
                "LedgerRequest.entries: at most {MOST_ENTRIES} are told at once"
            )));
        }
        self.stage.operator()?.ledger(usize::try_from(entries).unwrap_or(usize::MAX)).await.map(Response::new)
    }

    async fn limits(&self, _: Request<rpc::LimitsRequest>) -> Result<Response<rpc::LimitsResponse>, Status> {
        let mut told = to_limits(&self.stage.about()?.limits);
        if let Ok(operator) = self.stage.operator() {
            operator.tell_use(&mut told).await?;
        }
        Ok(Response::new(told))
    }
}

async fn next_entry<S: Store>(journal: &S) -> Result<u64, Status> {
    let rows = journal.last(JOURNAL, None, 1).await.map_err(store_failed)?;
    let last = rows.last().and_then(|row| row.key.parse::<u64>().ok());
    Ok(last.map_or(0, |last| last.saturating_add(1)))
}

fn decision(row: &Row) -> Result<rpc::Decision, Status> {
    let entry: JournalEntry = serde_json::from_str(&row.value).map_err(|error| {
        store_failed(StoreError::Corrupt { table: row.table.clone(), key: row.key.clone(), reason: error.to_string() })
    })?;
    Ok(rpc::Decision {
        sequence: entry.sequence,
        time_ms: entry.now.time.0,
        block_height: entry.now.height.get(),
        strategy: if entry.strategy == NO_STRATEGY { String::new() } else { entry.strategy },
        reasons: entry.reasons.iter().map(|reason| harmless(&reason.to_string())).collect(),
        intents: entry.intents.iter().map(judged).collect(),
        json: row.value.clone(),
    })
}

/// Name in the journal of an agent without a strategy.
pub(crate) const NO_STRATEGY: &str = "none";

fn judged(judged: &Judged) -> rpc::Judged {
    let refusal = match &judged.verdict {
        Verdict::Approved => String::new(),
        Verdict::Refused(refusal) => harmless(&refusal.to_string()),
    };
    rpc::Judged {
        intent: intent_name(&judged.intent).to_owned(),
        text: harmless(&intent_text(&judged.intent)),
        approved: judged.verdict == Verdict::Approved,
        refusal,
    }
}

/// An intent in one or two words.
pub(crate) fn intent_name(intent: &Intent) -> &'static str {
    match intent {
        Intent::PlaceAsk { .. } => "ask",
        Intent::PlaceBid { .. } => "bid",
        Intent::Cancel { .. } => "cancel",
        Intent::OpenAccount { .. } => "open account",
        Intent::CloseAccount { .. } => "close account",
        Intent::Deposit { .. } => "deposit",
        Intent::Withdraw { .. } => "withdraw",
        Intent::Renew { .. } => "renew",
        Intent::BumpFee { .. } => "bump fee",
    }
}

/// An intent as a sentence.
fn intent_text(intent: &Intent) -> String {
    match intent {
        Intent::PlaceAsk { order, .. } | Intent::PlaceBid { order, .. } => {
            let verb = if matches!(intent, Intent::PlaceAsk { .. }) { "offer" } else { "buy" };
            let (units, least) = (order.units.get(), order.min_units.get());
            format!("{verb} {units} units (at least {least}) for {} at {}", order.duration, order.rate)
        }
        Intent::Cancel { nonce } => format!("cancel order {nonce}"),
        Intent::OpenAccount { value, expiry_blocks, .. } => {
            format!("open an account of {value} that expires in {expiry_blocks}")
        }
        Intent::CloseAccount { account } => format!("close account {account}"),
        Intent::Deposit { account, amount } => format!("pay {amount} into account {account}"),
        Intent::Withdraw { account, amount } => format!("pay {amount} out of account {account}"),
        Intent::Renew { account, expiry } => format!("let account {account} expire at {expiry}"),
        Intent::BumpFee { account, fee_rate } => {
            format!("raise the fee of account {account}'s transaction to {fee_rate}")
        }
    }
}

/// An entry of the ledger. Its key is the account and the transaction, or what else it comes from.
fn to_entry(entry: &Entry) -> rpc::LedgerEntry {
    let cause = entry.cause.text();
    let origin = entry.txid.map_or_else(|| cause.to_owned(), |txid| txid.to_string());
    rpc::LedgerEntry {
        key: format!("{}:{origin}", entry.account),
        time_ms: entry.at.map_or(0, |at| at.0),
        text: format!("{cause} of account {}", entry.account),
        postings: entry
            .lines
            .iter()
            .map(|line| rpc::Posting { account: line.name.to_string(), amount_sat: line.amount.get() })
            .collect(),
    }
}

fn to_limits(limits: &Limits) -> rpc::LimitsResponse {
    rpc::LimitsResponse {
        dry_run: limits.dry_run,
        max_order_sats: limits.max_order_sats.get(),
        max_leased_sats: limits.max_leased_sats.get(),
        max_daily_cost_sats: limits.max_daily_cost_sats.get(),
        ask_rate_min_ppb: limits.ask_rate_min_ppb.get(),
        bid_rate_max_ppb: limits.bid_rate_max_ppb.get(),
        rate_max_ppb: limits.rate_max_ppb.get(),
        max_account_sats: limits.max_account_sats.get(),
        max_accounts_total_sats: limits.max_accounts_total_sats.get(),
        wallet_reserve_sats: limits.wallet_reserve_sats.get(),
        max_batch_fee_rate_sat_per_kw: limits.max_batch_fee_rate_sat_per_kw.get(),
        max_open_orders: limits.max_open_orders,
        max_terms_age_s: limits.max_terms_age_s,
        accounts_total_sats: 0,
        open_orders: 0,
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl<E: TraderEnv<Link = GrpcLink>> Operator<E> {
    /// Adds what is known once the node answers.
    async fn tell(&self, told: &mut rpc::StatusResponse) -> Result<(), Status> {
        let state = self.trader.status().await.map_err(gone)?;
        told.block_height = state.best_height.map_or(0, |height| height.get());
        told.node_key = state.node.map_or_else(Vec::new, |node| node.serialize().to_vec());
        told.venue_connected = state.connected;
        told.subscribed_accounts = state.subscribed_accounts.iter().map(|key| key.serialize().to_vec()).collect();
        told.pending_batches = state.pending_batches.iter().map(|batch| batch.serialize().to_vec()).collect();
        told.unsure_orders = count(state.unsure_orders);
        let stuck = |stuck: &Stuck| rpc::StuckTransaction {
            txid: stuck.txid.to_string(),
            trader_key: stuck.account.serialize().to_vec(),
            blocks: stuck.blocks.get(),
            explanation: harmless(&stuck.to_string()),
        };
        told.stuck = state.stuck.iter().map(stuck).collect();
        Ok(())
    }

    /// The books, with the newest entries.
    async fn ledger(&self, entries: usize) -> Result<rpc::LedgerResponse, Status> {
        let state = self.trader.status().await.map_err(gone)?;
        let books = books::read(&*self.env, &state).await;
        let books = books.map_err(|error| Status::unavailable(harmless(&error.to_string())))?;
        let (ledger, difference) = (books.ledger(), books.difference_sats());
        // By account they come, the oldest first; what has no time is from before the records.
        let mut newest_first: Vec<&Entry> = ledger.entries().iter().rev().collect();
        newest_first.sort_by_key(|entry| Reverse(entry.at));
        let account = |(name, balance): (&Name, &SatsDelta)| rpc::LedgerAccount {
            name: name.to_string(),
            balance_sat: balance.get(),
        };
        let differs = || format!("accounts and their transactions differ by {difference} sat: see the log");
        Ok(rpc::LedgerResponse {
            accounts: ledger.balances().iter().map(account).collect(),
            entries: newest_first.into_iter().take(entries).map(to_entry).collect(),
            agrees: difference == 0,
            difference: if difference == 0 { String::new() } else { differs() },
        })
    }

    async fn tell_use(&self, told: &mut rpc::LimitsResponse) -> Result<(), Status> {
        let state = self.trader.status().await.map_err(gone)?;
        let live = |state| !matches!(state, AccountState::Closed | AccountState::CanceledAfterRecovery);
        let values = state.accounts.iter().filter(|account| live(account.state)).map(|account| account.value);
        told.accounts_total_sats = Sats::checked_sum(values).unwrap_or(Sats::MAX).get();
        told.open_orders = count(state.orders.iter().filter(|own| !own.state.is_archived()).count());
        Ok(())
    }

    async fn replace_order(&self, request: rpc::ReplaceOrderRequest) -> Result<rpc::ReplaceOrderResponse, Status> {
        use rpc::replace_order_response::Details;
        let nonce = wire::from_nonce("ReplaceOrderRequest.order_nonce", &request.order_nonce).map_err(malformed)?;
        let order = request.order.ok_or_else(|| Status::invalid_argument("ReplaceOrderRequest.order is missing"))?;
        let by = order.initiator.clone();
        let order = new_order(wire::from_submit(order).map_err(malformed)?)?;
        let details = match self.wishes.ask(Wish::Replace(nonce, Box::new(order)), &by).await {
            Ok(Done::Placed(nonce)) => Details::AcceptedOrderNonce(nonce.as_bytes().to_vec()),
            Ok(_) => return Err(mixed_up()),
            Err(WishError::Replace(ReplaceError::Submit(SubmitError::Invalid { nonce, reason }))) => {
                Details::InvalidOrder(invalid(nonce, &reason))
            }
            Err(error) => return Err(error.into()),
        };
        Ok(rpc::ReplaceOrderResponse { details: Some(details) })
    }
}
