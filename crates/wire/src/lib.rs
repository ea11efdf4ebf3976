//! Generated gRPC types, and the only conversions between them and protocol types.
//!
//! The interface files in `proto/` restate the public interfaces of the market ([`poolrpc`]) and of
//! the node ([`lnd`]); the build script turns them into Rust. Nothing here decides anything: this
//! package knows how things are written, not whether they are right.
//!
//! Maps are `BTreeMap`, so that equal messages encode to equal bytes. Servers come with default
//! methods that answer `UNIMPLEMENTED`, and their streams are boxed. Clients take a connection that
//! the caller made (`SomeClient::new(channel)`).
//!
//! Conversions are named after the wire: `to_x` writes message `x`, `from_x` reads it. Reading is strict, total and
//! bounded: it refuses what has no single meaning ([`DecodeError`]), never panics, and leaves it to the receiver to
//! judge whether what was said is allowed. Absent numbers, texts and bytes are zero and empty, as the format defines.

pub mod account;
pub mod batch;
pub mod bounded;
mod error;
pub mod hashmail;
pub mod json;
pub mod market;
pub mod operator;
pub mod order;
mod read;
mod recovery;
pub mod stream;

pub use error::{BATCH_SNAPSHOT_NOT_FOUND, DecodeError, EncodeError, NO_ORDER_FOUND, PAYMENT_REQUIRED};
pub use read::{
    MAX_ACCOUNTS, MAX_INPUTS, MAX_MATCHES, MAX_SCRIPT_BYTES, MAX_SENTENCE_BYTES, MAX_TRANSACTION_BYTES,
    MAX_USER_AGENT_BYTES,
};

/// The market: services `ChannelAuctioneer` and `Trader`, client and server, with all of their messages.
///
/// # Source
/// Protocol notes, `wire.json` (files `auctioneer.proto` and `trader.proto`); meanings in rpc §3, §8–10 and §13.
#[allow(deprecated, missing_docs, unreachable_pub, clippy::all, clippy::as_conversions, clippy::unwrap_used)]
#[allow(rustdoc::invalid_html_tags)] // a comment of the interface shows the form of a version so
pub mod poolrpc {
    tonic::include_proto!("poolrpc");
}

/// What this program's own agents serve beside `poolrpc.Trader`.
pub mod tidegate {
    /// Service `Agent`, client and server, with its messages.
    #[allow(missing_docs, unreachable_pub, clippy::all, clippy::as_conversions, clippy::unwrap_used)]
    #[allow(rustdoc::invalid_html_tags)] // as in `poolrpc`
    pub mod v1 {
        tonic::include_proto!("tidegate.v1");
    }
}

/// The node: the calls of lnd that this program makes. Clients only.
///
/// Fields that nobody here reads are left out; decoding skips them.
///
/// # Source
/// Protocol notes, `lnd-wire.json` (lnd 0.20.1).
#[allow(deprecated, missing_docs, unreachable_pub, clippy::all, clippy::as_conversions, clippy::unwrap_used)]
pub mod lnd {
    /// Confirmations, spends and blocks.
    pub mod chainrpc {
        tonic::include_proto!("chainrpc");
    }

    /// Node state, on-chain balances, peers, channels and forwards.
    pub mod lnrpc {
        tonic::include_proto!("lnrpc");
    }

    /// Signatures and shared secrets made with keys of the wallet.
    pub mod signrpc {
        tonic::include_proto!("signrpc");
    }

    /// Version of the running daemon.
    pub mod verrpc {
        tonic::include_proto!("verrpc");
    }

    /// Keys, coins, transactions and PSBTs of the wallet.
    pub mod walletrpc {
        tonic::include_proto!("walletrpc");
    }
}

/// Every interface file of this package as an encoded `google.protobuf.FileDescriptorSet`, without
/// comments: for server reflection, and for the test that compares it with the protocol notes.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
