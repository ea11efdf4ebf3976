//! A recording gRPC proxy in front of a venue.
//!
//! Every call of `poolrpc.ChannelAuctioneer` passes through unchanged, metadata and unknown fields included: messages
//! are bytes here. The auditor is told of each message before it is passed on, so that it knows causes before effects.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::metadata::MetadataMap;
use tonic::server::{NamedService, StreamingService};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use crate::keys::sha;
use crate::wire::hexed;
use crate::{Auditor, CallId, Caller};

/// Largest message that is passed on.
const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// Messages under way in one direction of a call.
const WINDOW: usize = 16;
/// Last part of the path of the stream.
const STREAM: &str = "SubscribeBatchAuction";

/// The auditor, shared with whoever feeds the chain and reads the findings.
pub type SharedAuditor = Arc<Mutex<Auditor>>;

/// Locks the auditor, also after a panic elsewhere: its findings are what one wants to see then.
pub fn lock(auditor: &SharedAuditor) -> MutexGuard<'_, Auditor> {
    auditor.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whom a message of the batch stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Towards {
    /// From a trader.
    Venue,
    /// From the venue.
    Trader,
}

/// Looks at each message of the batch stream, after the auditor and before it is passed on. `false` loses the message
/// and ends the stream there, as a broken connection would.
pub type Watcher = Arc<dyn Fn(Towards, &[u8]) -> bool + Send + Sync>;

/// A listening proxy. It stops when dropped.
#[derive(Debug)]
pub struct Proxy {
    /// Where traders connect to.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port of loopback and passes everything on to `upstream` (`host:port`, plaintext).
    ///
    /// # Errors
    /// When the upstream address is not one, or no port can be had.
    pub async fn start(upstream: &str, auditor: SharedAuditor) -> std::io::Result<Proxy> {
        Self::start_watched(upstream, auditor, Arc::new(|_, _| true)).await
    }

    /// As [`Proxy::start`], with somebody who may break the stream at any message.
    ///
    /// # Errors
    /// When the upstream address is not one, or no port can be had.
    pub async fn start_watched(upstream: &str, auditor: SharedAuditor, watcher: Watcher) -> std::io::Result<Proxy> {
        let endpoint = Endpoint::from_shared(format!("http://{upstream}")).map_err(std::io::Error::other)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let relay = Relay { upstream: endpoint.connect_lazy(), auditor, watcher };
        let serving = Server::builder().add_service(relay).serve_with_incoming(TcpListenerStream::new(listener));
        let task = tokio::spawn(async move {
            // It ends with the task; a connection that breaks is its caller's to report.
            let _ = serving.await;
        });
        Ok(Proxy { address, task })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Messages as the bytes that they are.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        dst.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(src.copy_to_bytes(src.remaining())))
    }
}

#[derive(Clone)]
struct Relay {
    upstream: Channel,
    auditor: SharedAuditor,
    watcher: Watcher,
}

impl NamedService for Relay {
    const NAME: &'static str = "poolrpc.ChannelAuctioneer";
}

impl Service<http::Request<Body>> for Relay {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let relayed = Relayed { relay: self.clone(), path };
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Raw)
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES);
            // Unary calls look the same on the wire as streams of one message.
            Ok(grpc.streaming(relayed, request).await)
        })
    }
}

/// One call.
#[derive(Clone)]
struct Relayed {
    relay: Relay,
    path: String,
}

type Messages = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

impl StreamingService<Bytes> for Relayed {
    type Response = Bytes;
    type ResponseStream = Messages;
    type Future = BoxFuture<Response<Messages>, Status>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        Box::pin(self.clone().pass_on(request))
    }
}

impl Relayed {
    async fn pass_on(self, request: Request<Streaming<Bytes>>) -> Result<Response<Messages>, Status> {
        let caller = caller(request.metadata());
        let method = self.path.rsplit('/').next().unwrap_or_default().to_owned();
        let tap = Arc::new(Tap {
            auditor: Arc::clone(&self.relay.auditor),
            watcher: Arc::clone(&self.relay.watcher),
            caller,
            streams: method == STREAM,
            method,
            open: Mutex::default(),
        });
        let (metadata, extensions, incoming) = request.into_parts();
        let (sender, outgoing) = mpsc::channel(WINDOW);
        let forward = tokio::spawn(forward(incoming, sender, Arc::clone(&tap)));
        let path = PathAndQuery::try_from(self.path).map_err(|error| Status::internal(error.to_string()))?;
        let request = Request::from_parts(metadata, extensions, ReceiverStream::new(outgoing));
        let mut upstream = tonic::client::Grpc::new(self.relay.upstream)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let ready = upstream.ready().await.map_err(|error| Status::unavailable(error.to_string()));
        let answer = match ready {
            Ok(()) => upstream.streaming(request, path, Raw).await,
            Err(status) => Err(status),
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(status) => {
                forward.abort();
                tap.ended();
                return Err(status);
            }
        };
        let (metadata, incoming, extensions) = answer.into_parts();
        let backward = Backward { incoming, tap, forward };
        Ok(Response::from_parts(metadata, Box::pin(backward), extensions))
    }
}

/// Passes a caller's messages on until either side ends.
async fn forward(mut incoming: Streaming<Bytes>, sender: mpsc::Sender<Bytes>, tap: Arc<Tap>) {
    // The venue is not told why a caller broke off: its stream just ends.
    while let Some(Ok(message)) = incoming.next().await {
        tap.request(&message);
        if !tap.passes(Towards::Venue, &message) {
            return;
        }
        if sender.send(message).await.is_err() {
            return;
        }
    }
}

/// The venue's messages on their way back.
struct Backward {
    incoming: Streaming<Bytes>,
    tap: Arc<Tap>,
    forward: JoinHandle<()>,
}

impl Stream for Backward {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = Pin::new(&mut self.incoming).poll_next(cx);
        if let Poll::Ready(Some(Ok(message))) = &next {
            self.tap.response(message);
            if !self.tap.passes(Towards::Trader, message) {
                return Poll::Ready(None);
            }
        }
        next
    }
}

impl Drop for Backward {
    fn drop(&mut self) {
        self.forward.abort();
        self.tap.ended();
    }
}

/// Tells the auditor of one call.
struct Tap {
    auditor: SharedAuditor,
    watcher: Watcher,
    caller: Caller,
    method: String,
    streams: bool,
    /// The unary call that waits for its answer.
    open: Mutex<BTreeSet<CallId>>,
}

impl Tap {
    fn open(&self) -> MutexGuard<'_, BTreeSet<CallId>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn request(&self, message: &[u8]) {
        if self.streams {
            return lock(&self.auditor).client_message(&self.caller, message);
        }
        let id = lock(&self.auditor).call(&self.caller, &self.method, message);
        self.open().insert(id);
    }

    fn passes(&self, towards: Towards, message: &[u8]) -> bool {
        !self.streams || (self.watcher)(towards, message)
    }

    fn response(&self, message: &[u8]) {
        if self.streams {
            return lock(&self.auditor).server_message(&self.caller, message);
        }
        let id = self.open().pop_first();
        if let Some(id) = id {
            lock(&self.auditor).answer(id, Some(message));
        }
    }

    /// What is unanswered by now failed.
    fn ended(&self) {
        let unanswered = std::mem::take(&mut *self.open());
        for id in unanswered {
            lock(&self.auditor).answer(id, None);
        }
    }
}

/// Tells callers apart by a digest of their authorization: the token itself stays out of reports.
fn caller(metadata: &MetadataMap) -> Caller {
    let token = ["authorization", "macaroon"].into_iter().find_map(|name| metadata.get(name));
    let digest = sha(&[token.map_or(&[][..], |token| token.as_encoded_bytes())]);
    Caller(hexed(digest.get(..6).unwrap_or_default()))
}
