//! The batch streams of connected traders, as the port that the auction's flows speak to.
//!
//! Queues are bounded. A trader that does not read loses its stream; nobody else waits for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use tidegate_ports::{ServerMessage, StreamId, TraderEvent, TraderId, Traders};
use tidegate_wire::poolrpc::ServerAuctionMessage;
use tokio::sync::{Notify, mpsc};
use tonic::Status;

/// Events of all traders that wait for the auction.
const EVENTS: usize = 1024;
/// Messages that wait for one trader.
const OUTGOING: usize = 64;
/// Traders at a time.
const STREAMS: usize = 1000;

/// What a trader gets: messages, then perhaps the status that ends its stream.
type Outgoing = Result<ServerAuctionMessage, Status>;

/// An open stream.
struct Open {
    sender: mpsc::Sender<Outgoing>,
    /// Tells the reader of the trader's side that the stream was ended here.
    ended: Arc<Notify>,
}

/// A stream that was just opened.
pub(super) struct Opened {
    pub(super) stream: StreamId,
    pub(super) outgoing: mpsc::Receiver<Outgoing>,
    pub(super) ended: Arc<Notify>,
}

/// The streams of one server.
#[derive(Clone)]
pub struct GrpcTraders {
    inner: Arc<Inner>,
}

struct Inner {
    events: mpsc::Sender<TraderEvent>,
    received: tokio::sync::Mutex<mpsc::Receiver<TraderEvent>>,
    streams: Mutex<HashMap<StreamId, Open>>,
    next: AtomicU64,
}

impl Default for GrpcTraders {
    fn default() -> GrpcTraders {
        let (events, received) = mpsc::channel(EVENTS);
        let received = tokio::sync::Mutex::new(received);
        let inner = Inner { events, received, streams: Mutex::default(), next: AtomicU64::new(1) };
        GrpcTraders { inner: Arc::new(inner) }
    }
}

impl GrpcTraders {
    fn streams(&self) -> MutexGuard<'_, HashMap<StreamId, Open>> {
        // A panic while the map was held leaves it whole: every change is one insertion or removal.
        self.inner.streams.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Takes in a new stream and tells the auction.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` when there are too many.
    pub(super) async fn open(&self, trader: TraderId) -> Result<Opened, Status> {
        let stream = StreamId(self.inner.next.fetch_add(1, Ordering::Relaxed));
        let (sender, outgoing) = mpsc::channel(OUTGOING);
        let ended = Arc::new(Notify::new());
        {
            let mut streams = self.streams();
            if streams.len() >= STREAMS {
                return Err(Status::resource_exhausted("too many traders are connected, try again later"));
            }
            streams.insert(stream, Open { sender, ended: Arc::clone(&ended) });
        }
        self.tell(TraderEvent::Opened { trader, stream }).await;
        Ok(Opened { stream, outgoing, ended })
    }

    /// Takes a stream out of the table and tells the reader of its other side.
    fn remove(&self, stream: StreamId) -> Option<mpsc::Sender<Outgoing>> {
        let open = self.streams().remove(&stream)?;
        open.ended.notify_one();
        Some(open.sender)
    }

    /// Hands an event to the auction; waits while its queue is full, which slows the trader that talks.
    pub(super) async fn tell(&self, event: TraderEvent) {
        // The receiver lives as long as `self`.
        let _ = self.inner.events.send(event).await;
    }

    /// Forgets a stream that ended and tells the auction.
    pub(super) async fn closed(&self, trader: TraderId, stream: StreamId) {
        self.remove(stream);
        self.tell(TraderEvent::Closed { trader, stream }).await;
    }

    /// Ends a stream with a status.
    pub(super) fn end(&self, stream: StreamId, status: Status) {
        if let Some(sender) = self.remove(stream) {
            // A full queue means that the trader does not read: it sees the end of the stream instead of the reason.
            let _ = sender.try_send(Err(status));
        }
    }
}

impl Traders for GrpcTraders {
    async fn next_event(&self) -> TraderEvent {
        let mut received = self.inner.received.lock().await;
        received.recv().await.expect("a sender lives beside the receiver")
    }

    async fn send(&self, stream: StreamId, message: ServerMessage) -> bool {
        let Some(sender) = self.streams().get(&stream).map(|open| open.sender.clone()) else { return false };
        let encoded = match tidegate_wire::stream::to_server_message(&message) {
            Ok(encoded) => encoded,
            Err(error) => {
                tracing::error!(?stream, %error, "a message of the venue can not be encoded");
                return false;
            }
        };
        let sent = sender.try_send(Ok(encoded));
        if let Err(error) = &sent {
            tracing::warn!(?stream, %error, "a trader does not read its stream: ended");
            self.remove(stream);
        }
        sent.is_ok()
    }

    async fn close(&self, stream: StreamId, reason: &str) {
        self.end(stream, Status::aborted(reason));
    }
}
