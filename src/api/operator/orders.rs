//! Orders.

use super::service::{Operator, gone, malformed, mixed_up, store_failed};
use super::wish::harmless;
use super::{Done, Wish, WishError};
use crate::venue::GrpcLink;
use std::collections::BTreeMap;
use tidegate_ports::{Store as _, StoreError, Timestamp, TraderEnv, VenueLink as _};
use tidegate_protocol::account::Account;
use tidegate_protocol::fees::{quote, reserved_for};
use tidegate_protocol::keys::{AccountKey, OrderNonce};
use tidegate_protocol::order::{Order, OrderState, OwnOrder};
use tidegate_protocol::units::{BlockCount, RatePerBillion, SatPerKw, Sats, UnitCount};
use tidegate_trader::{NewOrder, OrderEvent, OrderEventKind, OrderLogEntry, OrderTurn, Status as State, SubmitError};
use tidegate_wire::operator::{self as wire, OrderFacts, ShownOrder};
use tidegate_wire::order::to_order_state;
use tidegate_wire::poolrpc as rpc;
use tonic::Status;

/// Table of the trader's order log.
const EVENTS: &str = "event";
const NS_PER_MS: u64 = 1_000_000;

impl<E: TraderEnv<Link = GrpcLink>> Operator<E> {
    pub(super) async fn submit_order(
        &self,
        request: rpc::SubmitOrderRequest,
    ) -> Result<rpc::SubmitOrderResponse, Status> {
        use rpc::submit_order_response::Details;
        let by = request.initiator.clone();
        let order = wire::from_submit(request).map_err(malformed)?;
        let details = match self.wishes.ask(Wish::Submit(Box::new(new_order(order)?)), &by).await {
            Ok(Done::Placed(nonce)) => Details::AcceptedOrderNonce(nonce.as_bytes().to_vec()),
            Ok(_) => return Err(mixed_up()),
            // Not a failure of the call: clients show it as data.
            Err(WishError::Submit(SubmitError::Invalid { nonce, reason })) => {
                Details::InvalidOrder(invalid(nonce, &reason))
            }
            Err(error) => return Err(error.into()),
        };
        Ok(rpc::SubmitOrderResponse { details: Some(details), updated_sidecar_ticket: String::new() })
    }

    pub(super) async fn list_orders(&self, request: rpc::ListOrdersRequest) -> Result<rpc::ListOrdersResponse, Status> {
        let state = self.trader.status().await.map_err(gone)?;
        let log = if request.verbose { self.order_log().await? } else { BTreeMap::new() };
        let accounts: BTreeMap<AccountKey, &Account> =
            state.accounts.iter().map(|account| (account.key(), account)).collect();
        let mut orders: Vec<(u64, &OwnOrder)> = state
            .orders
            .iter()
            .filter(|own| !(request.active_only && own.state.is_archived()))
            .map(|own| (created_ns(&state, own.order.nonce), own))
            .collect();
        orders.sort_by_key(|(created, own)| (*created, own.order.nonce));
        let mut response = rpc::ListOrdersResponse::default();
        for (created_ns, own) in orders {
            let log = log.get(&own.order.nonce).map(Vec::as_slice).unwrap_or_default();
            let events = if request.verbose { events(created_ns, log) } else { Vec::new() };
            let facts = OrderFacts { reserved: reserved(own, &accounts), created_ns, events };
            match wire::to_order(own, facts) {
                ShownOrder::Ask(ask) => response.asks.push(ask),
                ShownOrder::Bid(bid) => response.bids.push(bid),
            }
        }
        Ok(response)
    }

    /// What happened to each order, oldest first.
    async fn order_log(&self) -> Result<BTreeMap<OrderNonce, Vec<OrderLogEntry>>, Status> {
        let (_, rows) = self.env.store().load(&[EVENTS]).await.map_err(store_failed)?;
        let mut log: BTreeMap<OrderNonce, Vec<OrderLogEntry>> = BTreeMap::new();
        for row in rows {
            let entry: OrderLogEntry = serde_json::from_str(&row.value).map_err(|error| {
                store_failed(StoreError::Corrupt { table: row.table, key: row.key, reason: error.to_string() })
            })?;
            log.entry(entry.order()).or_default().push(entry);
        }
        Ok(log)
    }

    pub(super) async fn cancel_order(
        &self,
        request: rpc::CancelOrderRequest,
    ) -> Result<rpc::CancelOrderResponse, Status> {
        let nonce = wire::from_nonce("CancelOrderRequest.order_nonce", &request.order_nonce).map_err(malformed)?;
        let state = self.trader.status().await.map_err(gone)?;
        let known = state.orders.iter().find(|own| own.order.nonce == nonce);
        let known = known.ok_or_else(|| Status::not_found(format!("order {nonce} is unknown")))?;
        if known.state == OrderState::Canceled {
            return Ok(rpc::CancelOrderResponse {});
        }
        match self.ask(Wish::Cancel(nonce), "a client").await? {
            Done::Nothing => Ok(rpc::CancelOrderResponse {}),
            _ => Err(mixed_up()),
        }
    }

    pub(super) async fn quote_order(&self, request: rpc::QuoteOrderRequest) -> Result<rpc::QuoteOrderResponse, Status> {
        let amount = wire::from_sats("QuoteOrderRequest.amt", request.amt).map_err(malformed)?;
        let min = wire::from_units("QuoteOrderRequest.min_units_match", request.min_units_match).map_err(malformed)?;
        let terms = self.env.link().terms().await.map_err(super::service::link_failed)?;
        let quote = quote(
            amount,
            min.to_sats(),
            RatePerBillion::new(request.rate_fixed),
            BlockCount::new(request.lease_duration_blocks),
            SatPerKw::new(request.max_batch_fee_rate_sat_per_kw),
            &terms.execution_fee,
        );
        let quote =
            quote.map_err(|error| Status::invalid_argument(format!("the order can not be computed: {error}")))?;
        let rate_per_block = f64::from(request.rate_fixed) / 1e9;
        Ok(rpc::QuoteOrderResponse {
            total_premium_sat: quote.premium.get(),
            rate_per_block,
            rate_percent: rate_per_block * 100.0,
            total_execution_fee_sat: quote.execution_fee.get(),
            worst_case_chain_fee_sat: quote.worst_chain_fee.get(),
        })
    }
}

/// An order that the venue called invalid.
pub(super) fn invalid(nonce: OrderNonce, reason: &str) -> rpc::InvalidOrder {
    rpc::InvalidOrder {
        order_nonce: nonce.as_bytes().to_vec(),
        // The interface knows one class only.
        fail_reason: rpc::invalid_order::FailReason::InvalidAmt.into(),
        fail_string: harmless(reason),
    }
}

pub(super) fn new_order(order: Order) -> Result<NewOrder, Status> {
    let units = order.units().map_err(|error| Status::invalid_argument(format!("Order.amt: {error}")))?;
    Ok(NewOrder {
        account: order.account,
        rate: order.rate,
        units,
        min_units: order.min_units,
        duration: order.duration,
        max_batch_fee_rate: order.max_batch_fee_rate,
        channel_type: order.channel_type,
        auction: order.auction,
        allowed_nodes: order.allowed_nodes,
        denied_nodes: order.denied_nodes,
        public: order.public,
        side: order.side,
    })
}

/// What an order reserves of its account; nothing once it is archived.
fn reserved(own: &OwnOrder, accounts: &BTreeMap<AccountKey, &Account>) -> Sats {
    if own.state.is_archived() {
        return Sats::ZERO;
    }
    let Some(account) = accounts.get(&own.order.account) else { return Sats::ZERO };
    reserved_for(own, &own.fee_ceiling, account.terms.version).unwrap_or(account.value)
}

/// When an order was made; 0 when that is not known.
fn created_ns(state: &State, nonce: OrderNonce) -> u64 {
    state.placed_at.get(&nonce).map_or(0, |at| at.0.saturating_mul(NS_PER_MS))
}

/// What happened to an order, its making first.
fn events(created_ns: u64, log: &[OrderLogEntry]) -> Vec<rpc::OrderEvent> {
    let created = rpc::OrderEvent {
        timestamp_ns: i64::try_from(created_ns).unwrap_or(i64::MAX),
        event_str: "OrderCreated".to_owned(),
        event: None,
    };
    let told = log.iter().filter_map(|entry| match entry {
        OrderLogEntry::Matched(event) => to_event(event),
        OrderLogEntry::Turned(turn) => Some(to_update(turn)),
    });
    [created].into_iter().chain(told).collect()
}

fn timestamp_ns(at: Timestamp) -> i64 {
    i64::try_from(at.0.saturating_mul(NS_PER_MS)).unwrap_or(i64::MAX)
}

/// A change of an order.
///
/// # Source
/// Protocol notes, rpc §13.4 (texts).
fn to_update(turn: &OrderTurn) -> rpc::OrderEvent {
    let name = match turn.to {
        OrderState::Submitted => "submitted",
        OrderState::Cleared => "cleared",
        OrderState::PartiallyFilled => "partially_filled",
        OrderState::Executed => "executed",
        OrderState::Canceled => "canceled",
        OrderState::Expired => "expired",
        OrderState::Failed => "failed",
    };
    let changed = rpc::UpdatedEvent {
        previous_state: to_order_state(turn.from).into(),
        new_state: to_order_state(turn.to).into(),
        units_filled: turn.filled.get(),
    };
    rpc::OrderEvent {
        timestamp_ns: timestamp_ns(turn.at),
        event_str: format!("OrderUpdate({name})"),
        event: Some(rpc::order_event::Event::StateChange(changed)),
    }
}

/// An entry of the log, when the interface has a name for it.
///
/// # Source
/// Protocol notes, rpc §13.4 (texts) and §6.5 (match states).
fn to_event(event: &OrderEvent) -> Option<rpc::OrderEvent> {
    use rpc::order_event::Event;
    let (state, name) = match &event.kind {
        OrderEventKind::Prepared => (rpc::MatchState::Prepare, "prepare"),
        OrderEventKind::Accepted => (rpc::MatchState::Accepted, "accepted"),
        OrderEventKind::Rejected { .. } => (rpc::MatchState::Rejected, "rejected"),
        OrderEventKind::Signed => (rpc::MatchState::Signed, "signed"),
        OrderEventKind::Finalized => (rpc::MatchState::Finalized, "finalized"),
        OrderEventKind::TierUnverified => return None,
    };
    let matched = rpc::MatchEvent {
        match_state: state.into(),
        units_filled: UnitCount::get(event.units),
        matched_order: event.theirs.as_bytes().to_vec(),
        // The log keeps the reason as a sentence, not as one of the interface's classes.
        reject_reason: rpc::MatchRejectReason::None.into(),
    };
    Some(rpc::OrderEvent {
        timestamp_ns: timestamp_ns(event.at),
        event_str: format!("OrderMatch({name})"),
        event: Some(Event::Matched(matched)),
    })
}
