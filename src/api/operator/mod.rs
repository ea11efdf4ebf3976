//! `poolrpc.Trader`: the interface that existing clients of the market speak, over TLS and with macaroons.
//!
//! Does: decode, ask the trader, encode; hand what moves money to the risk gate as a [`Wish`]. Never does: decide, or
//! let a call in whose macaroon does not allow it.
//!
//! # Source
//! Protocol notes, rpc §13 (behaviour of each call), cli §1 (what the deployed client sends and shows).

mod accounts;
mod auction;
mod certificate;
mod files;
mod guard;
mod history;
mod macaroon;
mod orders;
mod service;
mod wish;

pub use files::FilesError;
pub use service::{Operator, Stage};
pub use wish::{Asked, Done, Wish, WishError, Wishes};

use certificate::Pair;
use guard::Guard;
use macaroon::Keyring;
use service::TraderService;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use thiserror::Error;
use tidegate_ports::{Clock, Entropy, TraderEnv};
use tidegate_wire::poolrpc::trader_server::TraderServer;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
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
    /// Certificate and key do not fit each other, or are none.
    #[error("can not use the certificate in {}: {source}. Remove tls.cert and tls.key to have new ones made", folder.display())]
    Tls {
        /// Where.
        folder: PathBuf,
        /// Why.
        source: tonic::transport::Error,
    },
}

/// A bound listener that does not serve yet.
#[derive(Debug)]
pub struct BoundApi {
    listener: TcpListener,
    keyring: Keyring,
    server: Server,
}

/// Binds, and makes what is missing in `folder`: `tls.cert`, `tls.key`, `root.key`, `pool.macaroon`.
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
    let Pair { certificate, key } = certificate::ensure(folder, clock.now().seconds())?;
    let keyring = Keyring::ensure(folder, entropy)?;
    let tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
    let server = Server::builder()
        .tls_config(tls)
        .map_err(|source| ApiError::Tls { folder: folder.to_owned(), source })?
        .max_concurrent_streams(64)
        .http2_keepalive_interval(Some(std::time::Duration::from_secs(30)));
    let listener = TcpListener::bind(address).await.map_err(|source| ApiError::Listen { address, source })?;
    Ok(BoundApi { listener, keyring, server })
}

impl BoundApi {
    /// The address that was bound (its port may have been chosen by the system).
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until shutdown. `clock` judges the macaroons' age.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve<E: TraderEnv<Link = GrpcLink> + 'static>(
        mut self,
        stage: Stage<E>,
        clock: impl Clock + Clone + 'static,
        shutdown: Shutdown,
    ) -> Result<(), tonic::transport::Error> {
        let service =
            TraderServer::new(TraderService::new(stage, shutdown.clone())).max_decoding_message_size(MAX_REQUEST_BYTES);
        let guarded = Guard::new(service, self.keyring, clock);
        let stop = async move { shutdown.wanted().await };
        let incoming = TcpListenerStream::new(self.listener);
        self.server.add_service(guarded).serve_with_incoming_shutdown(incoming, stop).await
    }
}
