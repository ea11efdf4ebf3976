//! The traders that are connected to a venue.

use crate::{ClientMessage, ServerMessage};
use core::future::Future;

/// Identity of a trader: its token. One stream each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraderId(pub [u8; 32]);

/// Number of a stream; a reconnect gets a new one, so that late messages of an old stream are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// What happens on the streams of a venue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraderEvent {
    /// A trader opened its stream.
    Opened {
        /// Who.
        trader: TraderId,
        /// Which stream.
        stream: StreamId,
    },
    /// A trader said something.
    Said {
        /// Who.
        trader: TraderId,
        /// On which stream.
        stream: StreamId,
        /// What.
        message: ClientMessage,
    },
    /// The stream is gone.
    Closed {
        /// Who.
        trader: TraderId,
        /// Which stream.
        stream: StreamId,
    },
}

/// The streams of connected traders.
pub trait Traders: Send + Sync {
    /// The next event. One consumer.
    fn next_event(&self) -> impl Future<Output = TraderEvent> + Send;
    /// Sends; returns false when the stream is gone or its bounded queue is full (then the stream is ended).
    fn send(&self, stream: StreamId, message: ServerMessage) -> impl Future<Output = bool> + Send;
    /// Ends a stream with an error text.
    fn close(&self, stream: StreamId, reason: &str) -> impl Future<Output = ()> + Send;
}
