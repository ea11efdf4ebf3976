//! `poolrpc.Trader`, the interface that existing clients of the market speak, and `tidegate.v1.Agent`, over TLS and with
//! macaroons.
//!
//! Does: decode, ask the trader, encode; hand what moves money to the risk gate as a [`Wish`]. Never does: decide, or
//! let a call in whose macaroon does not allow it.
//!
//! # Source
//! Protocol notes, rpc §13 (behaviour of each call), cli §1 (what the deployed client sends and shows).

mod accounts;
mod agent;
mod auction;
mod certificate;
mod files;
mod guard;
mod history;
mod macaroon;
mod orders;
mod rest;
mod service;
mod switch;
mod wish;

pub use agent::About;
pub(crate) use agent::{NO_STRATEGY, intent_name};
pub use files::FilesError;
pub use service::{Operator, Stage};
pub use switch::{Position, Switch};
pub use wish::{Asked, Cancelled, Done, Wish, WishError, Wishes};

use agent::AgentService;

use certificate::Pair;
use guard::Guard;
use macaroon::Keyring;
use rest::TlsListener;
use service::TraderService;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;
use tidegate_ports::{Clock, Entropy, TraderEnv};
use tidegate_wire::poolrpc::trader_server::TraderServer;
use tidegate_wire::tidegate::v1::agent_server::AgentServer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codegen::Service;
use tonic::transport::{Identity, Server, ServerTlsConfig};

use crate::runtime::Shutdown;
use crate::venue::GrpcLink;

/// Largest message that a client may send.
const MAX_REQUEST_BYTES: usize = 1 << 20;

/// The listener cannot be had.
#[derive(Debug, Error)]
pub enum ApiError {
    /// Certificate, root key or macaroon.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The port.
    #[error(
        "can not listen on {address} (api.rpc_listen): {source}. Is another program using the port? Choose another in the configuration"
    )]
    Listen {
        /// Address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The port of the REST side.
    #[error(
        "can not listen on {address} (api.rest_listen): {source}. Is another program using the port? Choose another in the configuration"
    )]
    ListenRest {
        /// Address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Certificate and key do not fit each other, or are none, for the REST side.
    #[error("can not use the certificate in {}: {source}. Remove tls.cert and tls.key to have new ones made", folder.display())]
    RestTls {
        /// Where.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Certificate and key do not fit each other, or are none.
    #[error("can not use the certificate in {}: {source}. Remove tls.cert and tls.key to have new ones made", folder.display())]
    Tls {
        /// Where.
        folder: PathBuf,
        /// Why.
        source: tonic::transport::Error,
    },
}

/// A listener fails while it serves.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The gRPC side.
    #[error(transparent)]
    Grpc(#[from] tonic::transport::Error),
    /// The REST side.
    #[error("the REST listener failed: {0}")]
    Rest(#[from] std::io::Error),
}

/// A bound listener that does not serve yet.
pub struct BoundApi {
    listener: TcpListener,
    keyring: Keyring,
    server: Server,
    pair: Pair,
    folder: PathBuf,
    rest: Option<(TcpListener, TlsAcceptor)>,
}

impl std::fmt::Debug for BoundApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BoundApi").field("listener", &self.listener).finish_non_exhaustive()
    }
}

/// Binds, and makes what is missing in `folder`: `tls.cert`, `tls.key`, `root.key`, `pool.macaroon`, `readonly.macaroon`.
///
/// # Errors
/// [`ApiError`] by variant.
pub async fn bind(
    address: SocketAddr,
    folder: &Path,
    clock: &impl Clock,
    entropy: &impl Entropy,
) -> Result<BoundApi, ApiError> {
    files::create_folder(folder)?;
    let pair = certificate::ensure(folder, clock.now().seconds())?;
    let keyring = Keyring::ensure(folder, entropy)?;
    let tls = ServerTlsConfig::new().identity(Identity::from_pem(&pair.certificate, &pair.key));
    let server = Server::builder()
        .tls_config(tls)
        .map_err(|source| ApiError::Tls { folder: folder.to_owned(), source })?
        .max_concurrent_streams(64)
        .http2_keepalive_interval(Some(std::time::Duration::from_secs(30)));
    let listener = TcpListener::bind(address).await.map_err(|source| ApiError::Listen { address, source })?;
    Ok(BoundApi { listener, keyring, server, pair, folder: folder.to_owned(), rest: None })
}

impl BoundApi {
    /// The address that was bound (its port may have been chosen by the system).
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Binds the REST side too, with the same certificate and the same macaroons. Returns its address.
    ///
    /// # Errors
    /// [`ApiError::ListenRest`], [`ApiError::RestTls`].
    pub async fn bind_rest(&mut self, address: SocketAddr) -> Result<SocketAddr, ApiError> {
        let acceptor = rest::acceptor(&self.pair);
        let acceptor = acceptor.map_err(|source| ApiError::RestTls { folder: self.folder.clone(), source })?;
        let failed = |source| ApiError::ListenRest { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        self.rest = Some((listener, acceptor));
        Ok(bound)
    }

    /// Serves until shutdown. `clock` judges the macaroons' age.
    ///
    /// # Errors
    /// When a listener fails.
    pub async fn serve<E: TraderEnv<Link = GrpcLink> + 'static>(
        mut self,
        stage: Stage<E>,
        clock: impl Clock + Clone + 'static,
        shutdown: Shutdown,
    ) -> Result<(), ServeError> {
        let keyring = Arc::new(self.keyring);
        let trader = TraderServer::new(TraderService::new(stage.clone(), shutdown.clone()))
            .max_decoding_message_size(MAX_REQUEST_BYTES);
        let agent =
            AgentServer::new(AgentService::new(stage, clock.clone())).max_decoding_message_size(MAX_REQUEST_BYTES);
        let trader = Guard::new(trader, Arc::clone(&keyring), clock.clone());
        let agent = Guard::new(agent, keyring, clock);
        let rest = serve_rest(self.rest, trader.clone(), agent.clone(), shutdown.clone());
        let stop = async move { shutdown.wanted().await };
        let incoming = TcpListenerStream::new(self.listener);
        let server = self.server.add_service(trader).add_service(agent);
        let grpc = async { Ok::<(), ServeError>(server.serve_with_incoming_shutdown(incoming, stop).await?) };
        tokio::try_join!(grpc, rest).map(|((), ())| ())
    }
}

type Served = tonic::codegen::http::Request<tonic::body::Body>;
type Answered = tonic::codegen::http::Response<tonic::body::Body>;

/// Serves the REST side, if there is one.
async fn serve_rest<T, A>(
    rest: Option<(TcpListener, TlsAcceptor)>,
    trader: T,
    agent: A,
    shutdown: Shutdown,
) -> Result<(), ServeError>
where
    T: Service<Served, Response = Answered, Error = Infallible> + Clone + Send + Sync + 'static,
    T::Future: Send,
    A: Service<Served, Response = Answered, Error = Infallible> + Clone + Send + Sync + 'static,
    A::Future: Send,
{
    let Some((listener, acceptor)) = rest else { return Ok(()) };
    let listener = TlsListener::new(listener, acceptor, shutdown.clone())?;
    let service = rest::router(trader, agent).into_make_service_with_connect_info::<guard::Peer>();
    let stop = async move { shutdown.wanted().await };
    Ok(axum::serve(listener, service).with_graceful_shutdown(stop).await?)
}
