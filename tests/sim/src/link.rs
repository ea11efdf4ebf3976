//! The two ends of the wire: a trader's link, and the venue's view of its traders.

use crate::hub::{Hub, caller, carried, unreachable};
use crate::plant::Plant;
use crate::process::Party;
use crate::record::Record;
use prost::Message;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use tidegate_auditor::CallId;
use tidegate_ports::{
    BatchSnapshot, ClientMessage, InitAccount, LinkError, MarketInterest, ModifyAccount, ModifySignature, Reservation,
    ReservedKeys, ServerMessage, StreamId, Submission, Terms, TraderEvent, TraderId, Traders, VenueLink,
};
use tidegate_protocol::keys::{BatchId, NodeId, OrderNonce, OrderPreimage};
use tidegate_protocol::order::{NodeTier, OrderState, SubmittedOrder};
use tidegate_protocol::units::{BlockCount, UnitCount};
use tidegate_sandbox::Gate;
use tidegate_venue::{Handle, ServeClass, ServeError};
use tidegate_wire::poolrpc::{ServerCancelOrderResponse, ServerInitAccountResponse, TermsRequest};
use tidegate_wire::{BATCH_SNAPSHOT_NOT_FOUND, DecodeError, NO_ORDER_FOUND, account, market, order};

const USER_AGENT: &str = "tidegate-sim";

/// A trader's link to the venue that runs at the moment.
pub(crate) struct SimLink {
    hub: Hub,
    gate: Gate,
    record: Record,
    trader: TraderId,
    plant: Option<Plant>,
    stream: Mutex<Option<StreamId>>,
}

impl Drop for SimLink {
    fn drop(&mut self) {
        self.hang_up();
    }
}

/// A call that the auditor saw; when it is over the auditor is told of the answer.
struct Asked<'h> {
    hub: &'h Hub,
    id: CallId,
    response: Option<Vec<u8>>,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.hub.audit(|auditor| auditor.answer(self.id, self.response.as_deref()));
    }
}

/// A refused call, as it arrives at the other end of a real connection.
fn refused(call: &'static str) -> impl Fn(ServeError) -> LinkError {
    move |error| {
        let reason = error.to_string();
        match error.class() {
            ServeClass::Unavailable => unreachable(&reason),
            _ if reason.contains(NO_ORDER_FOUND) => LinkError::NoOrder,
            _ if reason.contains(BATCH_SNAPSHOT_NOT_FOUND) => LinkError::NoSnapshot,
            _ => LinkError::Refused { call, reason },
        }
    }
}

/// The venue can not read the request.
fn malformed(call: &'static str) -> impl Fn(DecodeError) -> LinkError {
    move |error| LinkError::Refused { call, reason: error.to_string() }
}

fn bad_answer(call: &'static str) -> impl Fn(DecodeError) -> LinkError {
    move |error| error.in_answer_to(call)
}

fn lost<T>() -> Result<T, LinkError> {
    Err(unreachable("the connection broke"))
}

impl SimLink {
    /// The link of one process of a trader.
    pub(crate) fn new(hub: Hub, party: &Party) -> SimLink {
        let (gate, record) = (party.gate.clone(), party.record.clone());
        SimLink { hub, gate, record, trader: party.id, plant: party.plant, stream: Mutex::new(None) }
    }

    fn stream(&self) -> Option<StreamId> {
        *self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace(&self, stream: Option<StreamId>) -> Option<StreamId> {
        core::mem::replace(&mut *self.stream.lock().unwrap_or_else(PoisonError::into_inner), stream)
    }

    fn hang_up(&self) {
        if let Some(stream) = self.replace(None) {
            self.hub.leave(stream);
        }
    }

    /// Shows the auditor a request, then what the venue answers to it.
    async fn judged<A, B, F>(&self, name: &str, request: &A, answer: impl FnOnce(A) -> F) -> Result<B, LinkError>
    where
        A: Message + Default,
        B: Message + Default,
        F: Future<Output = Result<B, LinkError>>,
    {
        let bytes = request.encode_to_vec();
        let id = self.hub.audit(|auditor| auditor.call(&caller(self.trader), name, &bytes));
        // A call that is given up gets no answer.
        let mut asked = Asked { hub: &self.hub, id, response: None };
        let answer = answer(carried(request)).await;
        asked.response = answer.as_ref().ok().map(Message::encode_to_vec);
        drop(asked);
        answer.map(|answer| carried(&answer))
    }

    /// Makes a call, perhaps twice: the first answer is lost then.
    async fn call<T: Send, F: Future<Output = Result<T, LinkError>> + Send>(
        &self,
        name: &'static str,
        call: impl Fn(Handle) -> F + Send + Sync,
    ) -> Result<T, LinkError> {
        let effect = async {
            let venue = || self.hub.venue().ok_or_else(|| unreachable("no venue runs"));
            if self.hub.repeats() {
                drop(call(venue()?).await);
            }
            call(venue()?).await
        };
        self.gate.pass(name, effect, lost).await
    }
}

impl VenueLink for SimLink {
    async fn terms(&self) -> Result<Terms, LinkError> {
        let call = "Terms";
        self.call(call, |venue| async move {
            let ask = |_| async { Ok(market::to_terms(&venue.terms().await.map_err(refused(call))?, 6)) };
            let terms = self.judged(call, &TermsRequest::default(), ask).await?;
            market::from_terms(&terms).map_err(bad_answer(call))
        })
        .await
    }

    async fn reserve(&self, request: &Reservation) -> Result<ReservedKeys, LinkError> {
        let call = "ReserveAccount";
        self.call(call, |venue| async move {
            let ask = async |message| {
                let request = account::from_reserve_request(&message).map_err(malformed(call))?;
                let keys = venue.reserve(self.trader, request).await.map_err(refused(call))?;
                Ok(account::to_reserve_response(&keys))
            };
            let keys = self.judged(call, &account::to_reserve_request(request), ask).await?;
            account::from_reserve_response(&keys).map_err(bad_answer(call))
        })
        .await
    }

    async fn init(&self, request: &InitAccount) -> Result<(), LinkError> {
        let call = "InitAccount";
        self.call(call, |venue| async move {
            let ask = async |message| {
                let (request, agent) = account::from_init_request(message).map_err(malformed(call))?;
                venue.init(self.trader, request, agent).await.map_err(refused(call))?;
                Ok(ServerInitAccountResponse::default())
            };
            self.judged(call, &account::to_init_request(request, USER_AGENT), ask).await.map(drop)
        })
        .await
    }

    async fn modify(&self, request: &ModifyAccount) -> Result<ModifySignature, LinkError> {
        let call = "ModifyAccount";
        self.call(call, |venue| async move {
            let ask = async |message| {
                let request = account::from_modify_request(message).map_err(malformed(call))?;
                let signature = venue.modify(self.trader, request).await.map_err(refused(call))?;
                Ok(account::to_modify_response(&signature))
            };
            let signature = self.judged(call, &account::to_modify_request(request), ask).await?;
            account::from_modify_response(signature).map_err(bad_answer(call))
        })
        .await
    }

    async fn submit(&self, submitted: &SubmittedOrder) -> Result<Submission, LinkError> {
        let call = "SubmitOrder";
        self.call(call, |venue| async move {
            let ask = async |message| {
                let (received, _) = order::from_submit_request(message).map_err(malformed(call))?;
                let nonce = received.order.nonce;
                let submission = venue.submit(received).await.map_err(refused(call))?;
                Ok(order::to_submit_response(nonce, &submission))
            };
            let submission = self.judged(call, &order::to_submit_request(submitted, USER_AGENT), ask).await?;
            order::from_submit_response(submission).map_err(bad_answer(call))
        })
        .await
    }

    async fn cancel(&self, preimage: OrderPreimage) -> Result<(), LinkError> {
        let call = "CancelOrder";
        if self.plant == Some(Plant::UnsentCancel) {
            return Ok(());
        }
        let message = order::to_cancel_request(&preimage);
        let message = &message;
        self.call(call, |venue| async move {
            let ask = async |message| {
                let preimage = order::from_cancel_request(&message).map_err(malformed(call))?;
                venue.cancel(preimage).await.map_err(refused(call))?;
                Ok(ServerCancelOrderResponse::default())
            };
            self.judged(call, message, ask).await.map(drop)
        })
        .await
    }

    async fn order_state(&self, nonce: OrderNonce) -> Result<(OrderState, UnitCount), LinkError> {
        let call = "OrderState";
        self.call(call, |venue| async move {
            let nonce =
                order::from_state_request(&carried(&order::to_state_request(nonce))).map_err(malformed(call))?;
            let (state, open) = venue.order_state(nonce).await.map_err(refused(call))?;
            order::from_state_response(&carried(&order::to_state_response(state, open))).map_err(bad_answer(call))
        })
        .await
    }

    async fn snapshot(&self, batch: Option<BatchId>) -> Result<BatchSnapshot, LinkError> {
        let call = "BatchSnapshot";
        self.call(call, |venue| async move {
            let message = carried(&market::to_snapshot_request(batch));
            let batch = market::from_snapshot_request(&message).map_err(malformed(call))?;
            let snapshot = venue.snapshot(batch).await.map_err(refused(call))?;
            market::from_snapshot(&carried(&market::to_snapshot(&snapshot))).map_err(bad_answer(call))
        })
        .await
    }

    async fn snapshots(&self, count: u32) -> Result<Vec<BatchSnapshot>, LinkError> {
        let call = "BatchSnapshots";
        self.call(call, |venue| async move {
            let message = carried(&market::to_snapshots_request(None, count));
            let (start, count) = market::from_snapshots_request(&message).map_err(malformed(call))?;
            let snapshots = venue.snapshots(start, count).await.map_err(refused(call))?;
            market::from_snapshots(&carried(&market::to_snapshots(&snapshots))).map_err(bad_answer(call))
        })
        .await
    }

    async fn market_info(&self) -> Result<BTreeMap<BlockCount, MarketInterest>, LinkError> {
        let call = "MarketInfo";
        self.call(call, |venue| async move {
            let info = venue.market_info().await.map_err(refused(call))?;
            market::from_market_info(&carried(&market::to_market_info(&info))).map_err(bad_answer(call))
        })
        .await
    }

    async fn ratings(&self, nodes: &[NodeId]) -> Result<Vec<(NodeId, NodeTier)>, LinkError> {
        let call = "NodeRating";
        self.call(call, |venue| async move {
            let asked = market::from_ratings_request(&carried(&market::to_ratings_request(nodes)));
            let ratings = venue.ratings(&asked.map_err(malformed(call))?).await.map_err(refused(call))?;
            market::from_ratings(nodes, &carried(&market::to_ratings(&ratings))).map_err(bad_answer(call))
        })
        .await
    }

    async fn connect(&self) -> Result<(), LinkError> {
        let effect = async {
            self.hang_up();
            let stream = self.hub.open(self.trader).ok_or_else(|| unreachable("no venue runs"))?;
            self.replace(Some(stream));
            Ok(())
        };
        self.gate.pass("connect", effect, lost).await
    }

    async fn send(&self, message: ClientMessage) -> Result<(), LinkError> {
        let effect = async {
            let stream = self.stream().ok_or_else(|| unreachable("the stream is not open"))?;
            self.record.leaves(&message);
            if self.hub.say(stream, &message) { Ok(()) } else { Err(unreachable("the stream ended")) }
        };
        let sent = self.gate.pass("send", effect, lost).await;
        if sent.is_err() {
            self.hang_up();
        }
        sent
    }

    async fn receive(&self) -> Result<ServerMessage, LinkError> {
        let effect = async {
            let stream = self.stream().ok_or_else(|| unreachable("the stream is not open"))?;
            self.hub.hear(stream).await
        };
        let received = self.gate.pass_event("receive", effect, lost).await;
        match &received {
            Ok(message) => self.record.arrives(message),
            Err(_) => self.hang_up(),
        }
        received
    }
}

/// The venue's end of the wire.
pub(crate) struct SimTraders {
    hub: Hub,
    gate: Gate,
}

impl SimTraders {
    /// The streams of one process of a venue.
    pub(crate) fn new(hub: Hub, gate: Gate) -> SimTraders {
        SimTraders { hub, gate }
    }
}

impl Traders for SimTraders {
    async fn next_event(&self) -> TraderEvent {
        self.gate.pass_surely("next_event", self.hub.next_event()).await
    }

    async fn send(&self, stream: StreamId, message: ServerMessage) -> bool {
        let sent = self.gate.pass("send", async { self.hub.tell(stream, message) }, || false).await;
        if !sent {
            self.hub.end(stream);
        }
        sent
    }

    async fn close(&self, stream: StreamId, _reason: &str) {
        self.gate.pass_surely("close", async { self.hub.end(stream) }).await;
    }
}
