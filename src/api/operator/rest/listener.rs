//! TLS for the REST side. Handshakes run beside each other: a client that never finishes its own keeps nobody waiting.

use super::super::certificate::Pair;
use super::super::guard::Peer;
use crate::runtime::Shutdown;
use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Handshakes at once.
const HANDSHAKES: usize = 32;
/// Longest handshake.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause after the system had no connection to give, for example because too many files are open.
const PAUSE: Duration = Duration::from_millis(200);

/// Certificate and key as TLS wants them; HTTP/1.1 only.
pub(in super::super) fn acceptor(pair: &Pair) -> io::Result<TlsAcceptor> {
    let bad = |error: String| io::Error::new(io::ErrorKind::InvalidData, error);
    let chain: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(&pair.certificate).collect();
    let chain = chain.map_err(|error| bad(error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(&pair.key).map_err(|error| bad(error.to_string()))?;
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
    let mut config = config.map_err(|error| bad(error.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// A listener whose connections are encrypted.
pub(in super::super) struct TlsListener {
    address: SocketAddr,
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
}

impl TlsListener {
    /// Shakes hands with whoever comes, until shutdown.
    pub(in super::super) fn new(
        listener: TcpListener,
        acceptor: TlsAcceptor,
        shutdown: Shutdown,
    ) -> io::Result<TlsListener> {
        let (sender, ready) = mpsc::channel(HANDSHAKES);
        let address = listener.local_addr()?;
        tokio::spawn(async move {
            tokio::select! {
                () = accept(listener, acceptor, sender) => {}
                () = shutdown.wanted() => {}
            }
        });
        Ok(TlsListener { address, ready })
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, ready: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>) {
    let places = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "no connection can be taken");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (acceptor, ready) = (acceptor.clone(), ready.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
                // Closed means that the server ends.
                Ok(Ok(stream)) => drop(ready.send((stream, peer)).await),
                Ok(Err(error)) => tracing::debug!(%error, %peer, "no TLS"),
                Err(_) => tracing::debug!(%peer, "the TLS handshake took too long"),
            }
            drop(place);
        });
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TlsStream<TcpStream>, SocketAddr) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            // Nobody comes any more; the server ends by its own signal.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

impl Connected<IncomingStream<'_, TlsListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Peer {
        Peer(stream.remote_addr().ip())
    }
}
