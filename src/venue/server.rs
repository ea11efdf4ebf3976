//! The gRPC service `ChannelAuctioneer` around the auction's flows. Decodes, calls, encodes; decides nothing.

use super::hashmail::Mailboxes;
use super::streams::{GrpcTraders, Opened};
use crate::runtime::Shutdown;
use std::net::SocketAddr;
use std::sync::Arc;
use thiserror::Error;
use tidegate_ports::{StreamId, TraderEvent, TraderId};
use tidegate_venue::{Handle, ServeError};
use tidegate_wire::poolrpc::channel_auctioneer_server::{ChannelAuctioneer, ChannelAuctioneerServer};
use tidegate_wire::poolrpc::hash_mail_server::HashMailServer;
use tidegate_wire::poolrpc::{self as rpc, ClientAuctionMessage, ServerAuctionMessage};
use tidegate_wire::{DecodeError, account, market, order, stream};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

/// Largest message that a trader may send.
const MAX_REQUEST_BYTES: usize = 1 << 20;
/// Scheme word of a self-asserted identity.
const TOKEN_SCHEME: &str = "LSATID ";

/// The listener cannot be had.
#[derive(Debug, Error)]
#[error(
    "can not listen on {address} (listen): {source}. Is another program using the port? Choose another in the configuration"
)]
pub struct ServerError {
    /// Address.
    pub address: SocketAddr,
    /// Why.
    pub source: std::io::Error,
}

/// A bound listener that does not serve yet.
pub struct BoundServer {
    listener: TcpListener,
}

/// Binds, so that a port in use is found before anything else starts.
///
/// # Errors
/// [`ServerError`].
pub async fn bind(address: SocketAddr) -> Result<BoundServer, ServerError> {
    let listener = TcpListener::bind(address).await.map_err(|source| ServerError { address, source })?;
    Ok(BoundServer { listener })
}

impl BoundServer {
    /// The address that was bound (its port may have been chosen by the system).
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until shutdown.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(
        self,
        handle: Handle,
        conf_target: u32,
        traders: GrpcTraders,
        shutdown: Shutdown,
    ) -> Result<(), tonic::transport::Error> {
        let mail = Mailboxes::new(handle.clone());
        let service =
            ChannelAuctioneerServer::new(Auctioneer { handle, conf_target, traders, shutdown: shutdown.clone() })
                .max_decoding_message_size(MAX_REQUEST_BYTES);
        let mail = HashMailServer::new(mail).max_decoding_message_size(MAX_REQUEST_BYTES);
        let incoming = TcpListenerStream::new(self.listener);
        tonic::transport::Server::builder()
            .max_concurrent_streams(64)
            .http2_keepalive_interval(Some(std::time::Duration::from_secs(30)))
            .add_service(service)
            .add_service(mail)
            .serve_with_incoming_shutdown(incoming, async move { shutdown.wanted().await })
            .await
    }
}

struct Auctioneer {
    handle: Handle,
    /// Shown in the terms: blocks within which the next batch shall confirm.
    conf_target: u32,
    traders: GrpcTraders,
    shutdown: Shutdown,
}

/// Identity of the caller: the token that it asserts; without one the all-zero identity.
fn trader_of(metadata: &MetadataMap) -> Result<TraderId, Status> {
    let Some(value) = metadata.get("authorization") else { return Ok(TraderId([0; 32])) };
    let bad = || Status::unauthenticated("authorization must read: LSATID <64 lower-case hex characters>");
    let text = value.to_str().map_err(|_| bad())?;
    let token = text.strip_prefix(TOKEN_SCHEME).ok_or_else(bad)?;
    let lower = token.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let bytes: Result<[u8; 32], _> = hex::FromHex::from_hex(token);
    match (lower, bytes) {
        (true, Ok(bytes)) => Ok(TraderId(bytes)),
        _ => Err(bad()),
    }
}

pub(super) fn refuse(error: ServeError) -> Status {
    use tidegate_venue::ServeClass;
    let text = error.to_string();
    match error.class() {
        ServeClass::InvalidArgument => Status::invalid_argument(text),
        ServeClass::NotFound => Status::not_found(text),
        ServeClass::FailedPrecondition => Status::failed_precondition(text),
        ServeClass::Unavailable => Status::unavailable(text),
        ServeClass::Internal => Status::internal(text),
    }
}

pub(super) fn malformed(error: DecodeError) -> Status {
    Status::invalid_argument(error.to_string())
}

type ServerStream = tonic::codegen::BoxStream<ServerAuctionMessage>;

/// Reads one trader's messages until it ends its stream, we end it, or the server stops.
async fn listen(
    traders: GrpcTraders,
    trader: TraderId,
    (id, ended): (StreamId, Arc<Notify>),
    mut incoming: Streaming<ClientAuctionMessage>,
    shutdown: Shutdown,
) {
    loop {
        let received = tokio::select! {
            received = incoming.next() => received,
            () = ended.notified() => None,
            () = shutdown.wanted() => None,
        };
        let Some(Ok(message)) = received else { break };
        match stream::from_client_message(message) {
            Ok(message) => traders.tell(TraderEvent::Said { trader, stream: id, message }).await,
            Err(error) => {
                traders.end(id, malformed(error));
                break;
            }
        }
    }
    traders.closed(trader, id).await;
}

#[tonic::async_trait]
impl ChannelAuctioneer for Auctioneer {
    async fn reserve_account(
        &self,
        request: Request<rpc::ReserveAccountRequest>,
    ) -> Result<Response<rpc::ReserveAccountResponse>, Status> {
        let trader = trader_of(request.metadata())?;
        let reservation = account::from_reserve_request(request.get_ref()).map_err(malformed)?;
        let keys = self.handle.reserve(trader, reservation).await.map_err(refuse)?;
        Ok(Response::new(account::to_reserve_response(&keys)))
    }

    async fn init_account(
        &self,
        request: Request<rpc::ServerInitAccountRequest>,
    ) -> Result<Response<rpc::ServerInitAccountResponse>, Status> {
        let trader = trader_of(request.metadata())?;
        let (init, user_agent) = account::from_init_request(request.into_inner()).map_err(malformed)?;
        self.handle.init(trader, init, user_agent).await.map_err(refuse)?;
        Ok(Response::new(rpc::ServerInitAccountResponse::default()))
    }

    async fn modify_account(
        &self,
        request: Request<rpc::ServerModifyAccountRequest>,
    ) -> Result<Response<rpc::ServerModifyAccountResponse>, Status> {
        let trader = trader_of(request.metadata())?;
        let modify = account::from_modify_request(request.into_inner()).map_err(malformed)?;
        let signature = self.handle.modify(trader, modify).await.map_err(refuse)?;
        Ok(Response::new(account::to_modify_response(&signature)))
    }

    async fn submit_order(
        &self,
        request: Request<rpc::ServerSubmitOrderRequest>,
    ) -> Result<Response<rpc::ServerSubmitOrderResponse>, Status> {
        let (submitted, _user_agent) = order::from_submit_request(request.into_inner()).map_err(malformed)?;
        let nonce = submitted.order.nonce;
        let submission = self.handle.submit(submitted).await.map_err(refuse)?;
        Ok(Response::new(order::to_submit_response(nonce, &submission)))
    }

    async fn cancel_order(
        &self,
        request: Request<rpc::ServerCancelOrderRequest>,
    ) -> Result<Response<rpc::ServerCancelOrderResponse>, Status> {
        let preimage = order::from_cancel_request(request.get_ref()).map_err(malformed)?;
        self.handle.cancel(preimage).await.map_err(refuse)?;
        Ok(Response::new(rpc::ServerCancelOrderResponse::default()))
    }

    async fn order_state(
        &self,
        request: Request<rpc::ServerOrderStateRequest>,
    ) -> Result<Response<rpc::ServerOrderStateResponse>, Status> {
        let nonce = order::from_state_request(request.get_ref()).map_err(malformed)?;
        let (state, open) = self.handle.order_state(nonce).await.map_err(refuse)?;
        Ok(Response::new(order::to_state_response(state, open)))
    }

    async fn subscribe_batch_auction(
        &self,
        request: Request<Streaming<ClientAuctionMessage>>,
    ) -> Result<Response<ServerStream>, Status> {
        let trader = trader_of(request.metadata())?;
        let Opened { stream, outgoing, ended } = self.traders.open(trader).await?;
        let (traders, shutdown) = (self.traders.clone(), self.shutdown.clone());
        tokio::spawn(listen(traders, trader, (stream, ended), request.into_inner(), shutdown));
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }

    async fn terms(&self, request: Request<rpc::TermsRequest>) -> Result<Response<rpc::TermsResponse>, Status> {
        let trader = trader_of(request.metadata())?;
        let terms = self.handle.terms_for(trader).await.map_err(refuse)?;
        Ok(Response::new(market::to_terms(&terms, self.conf_target)))
    }

    async fn batch_snapshot(
        &self,
        request: Request<rpc::BatchSnapshotRequest>,
    ) -> Result<Response<rpc::BatchSnapshotResponse>, Status> {
        let batch = market::from_snapshot_request(request.get_ref()).map_err(malformed)?;
        let snapshot = self.handle.snapshot(batch).await.map_err(refuse)?;
        Ok(Response::new(market::to_snapshot(&snapshot)))
    }

    async fn batch_snapshots(
        &self,
        request: Request<rpc::BatchSnapshotsRequest>,
    ) -> Result<Response<rpc::BatchSnapshotsResponse>, Status> {
        let (start, count) = market::from_snapshots_request(request.get_ref()).map_err(malformed)?;
        let snapshots = self.handle.snapshots(start, count).await.map_err(refuse)?;
        Ok(Response::new(market::to_snapshots(&snapshots)))
    }

    async fn node_rating(
        &self,
        request: Request<rpc::ServerNodeRatingRequest>,
    ) -> Result<Response<rpc::ServerNodeRatingResponse>, Status> {
        let nodes = market::from_ratings_request(request.get_ref()).map_err(malformed)?;
        let ratings = self.handle.ratings(&nodes).await.map_err(refuse)?;
        Ok(Response::new(market::to_ratings(&ratings)))
    }

    async fn market_info(
        &self,
        _: Request<rpc::MarketInfoRequest>,
    ) -> Result<Response<rpc::MarketInfoResponse>, Status> {
        let info = self.handle.market_info().await.map_err(refuse)?;
        Ok(Response::new(market::to_market_info(&info)))
    }
}
