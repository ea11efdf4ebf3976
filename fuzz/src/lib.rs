//! Fuzz targets: each is a plain function of bytes that must return, whatever the bytes are.
//!
//! Does: decode foreign bytes with every decoder of the product, check that what decodes survives being encoded again,
//! bend honest batches, books and configurations, and assert what must hold whenever they are accepted.
//!
//! A target panics exactly when it found a defect. The replay test runs all of them over the kept corpus and over
//! seeded mutations of it; `libfuzzer/` (a workspace of its own) hands the same functions to a coverage-guided fuzzer.

mod auth;
mod bytes;
mod channel;
mod decode;
mod matcher;
mod material;
mod modification;
mod operator;
mod orders;
mod sheet;
mod spend;
mod strategy;
mod ticket;
mod vectors;
mod verify;

pub use auth::handshake;
pub use channel::{acceptor, channel_backup, channel_backup_plain, musig2, witness};
pub use decode::{
    client_message, finalize, market_info, modify_account, prepare, ratings, reject, server_message, sign_begin,
    signatures, small_messages, snapshot, snapshots, submit_order, terms,
};
pub use matcher::matcher;
pub use modification::{deposit, modification};
pub use operator::{mail, operator};
pub use orders::order_rules;
pub use spend::account_spend;
pub use strategy::{strategy_text, strategy_values};
pub use ticket::{ticket, ticket_text};
pub use vectors::{Recorded, recorded};
pub use verify::{verdict, verify};

/// A fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Name of the function, of its corpus folder and of its libFuzzer program.
    pub name: &'static str,
    /// Returns for every input, or has found a defect.
    pub run: fn(&[u8]),
}

/// All targets, by name.
pub const TARGETS: &[Target] = &[
    Target { name: "acceptor", run: acceptor },
    Target { name: "account_spend", run: account_spend },
    Target { name: "channel_backup", run: channel_backup },
    Target { name: "channel_backup_plain", run: channel_backup_plain },
    Target { name: "client_message", run: client_message },
    Target { name: "deposit", run: deposit },
    Target { name: "finalize", run: finalize },
    Target { name: "handshake", run: handshake },
    Target { name: "mail", run: mail },
    Target { name: "market_info", run: market_info },
    Target { name: "matcher", run: matcher },
    Target { name: "modification", run: modification },
    Target { name: "modify_account", run: modify_account },
    Target { name: "musig2", run: musig2 },
    Target { name: "operator", run: operator },
    Target { name: "order_rules", run: order_rules },
    Target { name: "prepare", run: prepare },
    Target { name: "ratings", run: ratings },
    Target { name: "reject", run: reject },
    Target { name: "server_message", run: server_message },
    Target { name: "sign_begin", run: sign_begin },
    Target { name: "signatures", run: signatures },
    Target { name: "small_messages", run: small_messages },
    Target { name: "snapshot", run: snapshot },
    Target { name: "snapshots", run: snapshots },
    Target { name: "strategy_text", run: strategy_text },
    Target { name: "strategy_values", run: strategy_values },
    Target { name: "submit_order", run: submit_order },
    Target { name: "terms", run: terms },
    Target { name: "ticket", run: ticket },
    Target { name: "ticket_text", run: ticket_text },
    Target { name: "verify", run: verify },
    Target { name: "witness", run: witness },
];
