//! The traders that are connected to a venue.

use crate::{ClientMessage, ServerMessage};
use core::future::Future;
use tidegate_protocol::keys::AccountKey;
use tidegate_protocol::ticket::Ticket;

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

/// Name of a mailbox of the venue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BoxId(pub [u8; 64]);

/// Why somebody may open or close a mailbox.
///
/// # Source
/// Protocol notes, rpc §11.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BoxClaim {
    /// The account's key signed the name of the mailbox.
    Account {
        /// Account.
        account: AccountKey,
        /// DER.
        signature: Vec<u8>,
    },
    /// The mailbox belongs to this ticket, whose offer an account signed.
    Ticket(Box<Ticket>),
}

/// Whose mailbox it is, as it was claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoxOwner {
    /// Claimed by the account itself.
    Account(AccountKey),
    /// Claimed by a ticket that this account offered.
    Ticket(AccountKey),
}

impl BoxOwner {
    /// The account behind it.
    pub fn account(self) -> AccountKey {
        match self {
            BoxOwner::Account(account) | BoxOwner::Ticket(account) => account,
        }
    }
}
