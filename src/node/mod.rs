//! A real lnd behind the node ports: wallet, signer, chain, channels, data.
//!
//! Does: one TLS connection with the node's certificate pinned, one macaroon, reconnecting by itself; calls only what
//! [`permissions`] lists for its role, whatever the macaroon would allow. Watches, the channel acceptor and the event
//! streams live in background tasks that register again after lnd restarts; they end with the last clone of
//! [`LndNode`]. Never does: hold a private key, or decide about money.

mod background;
mod chain;
mod channels;
mod connect;
mod convert;
mod data;
mod error;
mod events;
mod link;
pub mod permissions;
mod signer;
mod tls;
mod wallet;

pub use connect::{ConnectError, LndConfig, Look};
pub use permissions::Role;
pub(crate) use tls::{PIN_MISMATCH, PinnedCertificate};

use background::Background;
use chain::ChainHub;
use events::ChannelEvents;
use link::Link;
use signer::Sessions;
use std::sync::Arc;

/// A connection to lnd that implements every node port. Clones share it.
///
/// # Source
/// Protocol notes, accounts §13 (calls), channels §3–8 (channels), scripts §3 (MuSig2).
#[derive(Clone)]
pub struct LndNode {
    inner: Arc<Inner>,
}

struct Inner {
    link: Link,
    network: bitcoin::Network,
    sessions: Sessions,
    chain: ChainHub,
    channels: ChannelEvents,
    _background: Background,
}

impl std::fmt::Debug for LndNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LndNode")
            .field("address", &self.inner.link.address())
            .field("network", &self.inner.network)
            .finish_non_exhaustive()
    }
}
