//! A trader's link to a venue over gRPC.

use core::fmt;
use hex::DisplayHex as _;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tidegate_ports::{
    BatchSnapshot, ClientMessage, InitAccount, LinkError, MarketInterest, ModifyAccount, ModifySignature, Reservation,
    ReservedKeys, ServerMessage, Submission, Terms, VenueLink,
};
use tidegate_protocol::keys::{BatchId, NodeId, OrderNonce, OrderPreimage};
use tidegate_protocol::order::{NodeTier, OrderState, SubmittedOrder};
use tidegate_protocol::units::{BlockCount, UnitCount};
use tidegate_wire::poolrpc::channel_auctioneer_client::ChannelAuctioneerClient;
use tidegate_wire::poolrpc::{self, ClientAuctionMessage, MarketInfoRequest, ServerAuctionMessage, TermsRequest};
use tidegate_wire::{BATCH_SNAPSHOT_NOT_FOUND, DecodeError, NO_ORDER_FOUND, account, market, order, stream};
use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};

/// Largest message that a venue may send: a prepare holds the batch transaction and all counterparts.
const MAX_ANSWER_BYTES: usize = 8 << 20;
/// Longest wait for an answer to one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A silent connection is probed this often, and given up when a probe stays unanswered as long.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Messages that wait to be sent.
const OUTGOING: usize = 64;
/// How we name ourselves.
const USER_AGENT: &str = concat!("tidegate/v", env!("CARGO_PKG_VERSION"));

/// Our identity at the venue: one per data folder. Masked when printed.
#[derive(Clone)]
pub struct Token(MetadataValue<Ascii>);

impl Token {
    /// The identity that is these bytes.
    pub fn new(id: [u8; 32]) -> Token {
        let text = format!("LSATID {}", id.to_lower_hex_string());
        let mut value = MetadataValue::try_from(text).expect("hexadecimal is ASCII");
        value.set_sensitive(true);
        Token(value)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(secret)")
    }
}

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

type Client = ChannelAuctioneerClient<InterceptedService<Channel, Token>>;

/// The link. Clones share the connection and the stream.
#[derive(Clone)]
pub struct GrpcLink {
    address: String,
    client: Client,
    sender: Arc<Mutex<Option<mpsc::Sender<ClientAuctionMessage>>>>,
    receiver: Arc<Mutex<Option<Streaming<ServerAuctionMessage>>>>,
}

impl GrpcLink {
    /// A link to `address` (`host:port`, plaintext). Connects when first used, and again whenever the connection broke.
    ///
    /// # Errors
    /// [`LinkError::Unreachable`] when the address is not one.
    pub fn new(address: &str, token: Token) -> Result<GrpcLink, LinkError> {
        let unreachable = |error: tonic::transport::Error| LinkError::Unreachable {
            address: address.to_owned(),
            reason: error.to_string(),
        };
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(unreachable)?;
        let channel = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .connect_lazy();
        let client =
            ChannelAuctioneerClient::with_interceptor(channel, token).max_decoding_message_size(MAX_ANSWER_BYTES);
        Ok(GrpcLink { address: address.to_owned(), client, sender: Arc::default(), receiver: Arc::default() })
    }

    fn request<T>(message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(CALL_TIMEOUT);
        request
    }

    fn failed(&self, call: &'static str, status: &Status) -> LinkError {
        let reason = status.message().to_owned();
        // A status with a source was made here: the connection broke, and what the call did is unknown. Neither does an
        // internal failure of the venue say whether it acted.
        let broke = std::error::Error::source(status).is_some();
        match status.code() {
            _ if broke => LinkError::Unreachable { address: self.address.clone(), reason },
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Internal => {
                LinkError::Unreachable { address: self.address.clone(), reason }
            }
            _ if reason.contains(NO_ORDER_FOUND) => LinkError::NoOrder,
            _ if reason.contains(BATCH_SNAPSHOT_NOT_FOUND) => LinkError::NoSnapshot,
            _ => LinkError::Refused { call, reason },
        }
    }

    fn stream_gone(&self, reason: &str) -> LinkError {
        LinkError::Unreachable { address: self.address.clone(), reason: reason.to_owned() }
    }
}

/// Public answers of the venue, handed on as they are: an operator sees also what this program has no use for.
impl GrpcLink {
    /// The terms.
    ///
    /// # Errors
    /// [`LinkError`], as of [`VenueLink::terms`].
    pub async fn raw_terms(&self) -> Result<poolrpc::TermsResponse, LinkError> {
        let answer = self.client.clone().terms(Self::request(TermsRequest::default())).await;
        answer.map(Response::into_inner).map_err(|status| self.failed("Terms", &status))
    }

    /// One past batch.
    ///
    /// # Errors
    /// [`LinkError`], as of [`VenueLink::snapshot`].
    pub async fn raw_snapshot(
        &self,
        request: poolrpc::BatchSnapshotRequest,
    ) -> Result<poolrpc::BatchSnapshotResponse, LinkError> {
        let answer = self.client.clone().batch_snapshot(Self::request(request)).await;
        answer.map(Response::into_inner).map_err(|status| self.failed("BatchSnapshot", &status))
    }

    /// Past batches, newest first.
    ///
    /// # Errors
    /// [`LinkError`], as of [`VenueLink::snapshots`].
    pub async fn raw_snapshots(
        &self,
        request: poolrpc::BatchSnapshotsRequest,
    ) -> Result<poolrpc::BatchSnapshotsResponse, LinkError> {
        let answer = self.client.clone().batch_snapshots(Self::request(request)).await;
        answer.map(Response::into_inner).map_err(|status| self.failed("BatchSnapshots", &status))
    }

    /// Open interest by duration.
    ///
    /// # Errors
    /// [`LinkError`], as of [`VenueLink::market_info`].
    pub async fn raw_market_info(&self) -> Result<poolrpc::MarketInfoResponse, LinkError> {
        let answer = self.client.clone().market_info(Self::request(MarketInfoRequest::default())).await;
        answer.map(Response::into_inner).map_err(|status| self.failed("MarketInfo", &status))
    }

    /// Ratings of nodes.
    ///
    /// # Errors
    /// [`LinkError`], as of [`VenueLink::ratings`].
    pub async fn raw_ratings(
        &self,
        request: poolrpc::ServerNodeRatingRequest,
    ) -> Result<poolrpc::ServerNodeRatingResponse, LinkError> {
        let answer = self.client.clone().node_rating(Self::request(request)).await;
        answer.map(Response::into_inner).map_err(|status| self.failed("NodeRating", &status))
    }
}

fn bad_answer(call: &'static str) -> impl Fn(DecodeError) -> LinkError {
    move |error| error.in_answer_to(call)
}

impl VenueLink for GrpcLink {
    async fn terms(&self) -> Result<Terms, LinkError> {
        let answer = self.client.clone().terms(Self::request(TermsRequest::default())).await;
        let answer = answer.map_err(|status| self.failed("Terms", &status))?;
        market::from_terms(answer.get_ref()).map_err(bad_answer("Terms"))
    }

    async fn reserve(&self, request: &Reservation) -> Result<ReservedKeys, LinkError> {
        let message = account::to_reserve_request(request);
        let answer = self.client.clone().reserve_account(Self::request(message)).await;
        let answer = answer.map_err(|status| self.failed("ReserveAccount", &status))?;
        account::from_reserve_response(answer.get_ref()).map_err(bad_answer("ReserveAccount"))
    }

    async fn init(&self, request: &InitAccount) -> Result<(), LinkError> {
        let message = account::to_init_request(request, USER_AGENT);
        let answer = self.client.clone().init_account(Self::request(message)).await;
        answer.map(|_| ()).map_err(|status| self.failed("InitAccount", &status))
    }

    async fn modify(&self, request: &ModifyAccount) -> Result<ModifySignature, LinkError> {
        let message = account::to_modify_request(request);
        let answer = self.client.clone().modify_account(Self::request(message)).await;
        let answer = answer.map_err(|status| self.failed("ModifyAccount", &status))?;
        account::from_modify_response(answer.into_inner()).map_err(bad_answer("ModifyAccount"))
    }

    async fn submit(&self, submitted: &SubmittedOrder) -> Result<Submission, LinkError> {
        let message = order::to_submit_request(submitted, USER_AGENT);
        let answer = self.client.clone().submit_order(Self::request(message)).await;
        let answer = answer.map_err(|status| self.failed("SubmitOrder", &status))?;
        order::from_submit_response(answer.into_inner()).map_err(bad_answer("SubmitOrder"))
    }

    async fn cancel(&self, preimage: OrderPreimage) -> Result<(), LinkError> {
        let message = order::to_cancel_request(&preimage);
        let answer = self.client.clone().cancel_order(Self::request(message)).await;
        answer.map(|_| ()).map_err(|status| self.failed("CancelOrder", &status))
    }

    async fn order_state(&self, nonce: OrderNonce) -> Result<(OrderState, UnitCount), LinkError> {
        let message = order::to_state_request(nonce);
        let answer = self.client.clone().order_state(Self::request(message)).await;
        let answer = answer.map_err(|status| self.failed("OrderState", &status))?;
        order::from_state_response(answer.get_ref()).map_err(bad_answer("OrderState"))
    }

    async fn snapshot(&self, batch: Option<BatchId>) -> Result<BatchSnapshot, LinkError> {
        let message = market::to_snapshot_request(batch);
        let answer = self.client.clone().batch_snapshot(Self::request(message)).await;
        let answer = answer.map_err(|status| self.failed("BatchSnapshot", &status))?;
        market::from_snapshot(answer.get_ref()).map_err(bad_answer("BatchSnapshot"))
    }

    async fn snapshots(&self, count: u32) -> Result<Vec<BatchSnapshot>, LinkError> {
        let message = market::to_snapshots_request(None, count);
        let answer = self.client.clone().batch_snapshots(Self::request(message)).await;
        let answer = answer.map_err(|status| self.failed("BatchSnapshots", &status))?;
        market::from_snapshots(answer.get_ref()).map_err(bad_answer("BatchSnapshots"))
    }

    async fn market_info(&self) -> Result<BTreeMap<BlockCount, MarketInterest>, LinkError> {
        let answer = self.client.clone().market_info(Self::request(MarketInfoRequest::default())).await;
        let answer = answer.map_err(|status| self.failed("MarketInfo", &status))?;
        market::from_market_info(answer.get_ref()).map_err(bad_answer("MarketInfo"))
    }

    async fn ratings(&self, nodes: &[NodeId]) -> Result<Vec<(NodeId, NodeTier)>, LinkError> {
        let message = market::to_ratings_request(nodes);
        let answer = self.client.clone().node_rating(Self::request(message)).await;
        let answer = answer.map_err(|status| self.failed("NodeRating", &status))?;
        market::from_ratings(nodes, answer.get_ref()).map_err(bad_answer("NodeRating"))
    }

    async fn connect(&self) -> Result<(), LinkError> {
        let (sender, outgoing) = mpsc::channel(OUTGOING);
        let mut client = self.client.clone();
        let opening = client.subscribe_batch_auction(Request::new(ReceiverStream::new(outgoing)));
        let answer = tokio::time::timeout(CALL_TIMEOUT, opening).await;
        let answer = answer.map_err(|_| self.stream_gone("no answer to the opening of the batch stream"))?;
        let answer = answer.map_err(|status| self.failed("SubscribeBatchAuction", &status))?;
        *self.sender.lock().await = Some(sender);
        *self.receiver.lock().await = Some(answer.into_inner());
        Ok(())
    }

    async fn send(&self, message: ClientMessage) -> Result<(), LinkError> {
        let sender = self.sender.lock().await.clone();
        let sender = sender.ok_or_else(|| self.stream_gone("the batch stream is not open"))?;
        let message = stream::to_client_message(&message);
        sender.send(message).await.map_err(|_| self.stream_gone("the batch stream ended"))
    }

    async fn receive(&self) -> Result<ServerMessage, LinkError> {
        let mut receiver = self.receiver.lock().await;
        let incoming = receiver.as_mut().ok_or_else(|| self.stream_gone("the batch stream is not open"))?;
        let failure = match incoming.message().await {
            Ok(Some(message)) => {
                return stream::from_server_message(message).map_err(bad_answer("SubscribeBatchAuction"));
            }
            Ok(None) => self.stream_gone("the venue ended the batch stream"),
            Err(status) => self.failed("SubscribeBatchAuction", &status),
        };
        *receiver = None;
        Err(failure)
    }
}
