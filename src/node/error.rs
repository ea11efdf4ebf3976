//! What lnd's refusals mean.
//!
//! lnd answers most errors with code `Unknown` and a text, so that the text decides. Texts as seen with lnd 0.20.1.

use std::error::Error;
use tidegate_ports::NodeError;
use tonic::{Code, Status};

/// Texts of a node that does not serve: locked, without wallet, starting, or ending.
const NOT_READY: &[&str] = &[
    "wallet locked",
    "wallet not created",
    "waiting to start",
    "in the process of starting",
    "shutting down",
    "not yet ready to accept calls",
    "server is still starting",
    "chain backend is still syncing",
];

/// Texts about too few coins; lnd also keeps a reserve for closing channels with anchors.
const FUNDS: &[&str] = &["insufficient funds", "insufficient reserves", "insufficient balance"];

/// Texts about the macaroon.
const PERMISSION: &[&str] = &["permission denied", "verification failed", "cannot get macaroon", "macaroon"];

/// The error of `call` at the node in `address`.
pub(super) fn of_status(call: &'static str, address: &str, status: &Status) -> NodeError {
    let text = status.message();
    let lower = text.to_lowercase();
    let says = |texts: &[&str]| texts.iter().any(|part| lower.contains(part));
    let reason = text.to_owned();
    // A status that the node sent has no source; one made on our side of the connection has.
    if status.source().is_some() {
        return NodeError::Unreachable { address: address.to_owned(), reason: with_sources(status) };
    }
    match status.code() {
        Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded => {
            NodeError::Unreachable { address: address.to_owned(), reason }
        }
        Code::PermissionDenied | Code::Unauthenticated => NodeError::Permission { call, reason },
        Code::Unimplemented => NodeError::NotReady { reason: format!("it does not offer {call} now: {text}") },
        _ if says(NOT_READY) => NodeError::NotReady { reason },
        _ if says(FUNDS) => NodeError::InsufficientFunds { reason },
        _ if says(PERMISSION) => NodeError::Permission { call, reason },
        _ => NodeError::Refused { call, reason },
    }
}

/// The node's answer does not fit its interface.
pub(super) fn bad_answer(call: &'static str, reason: impl std::fmt::Display) -> NodeError {
    NodeError::BadAnswer { call, reason: reason.to_string() }
}

/// Whether the node refused with a text that contains `part`.
pub(super) fn refused_with(error: &NodeError, part: &str) -> bool {
    matches!(error, NodeError::Refused { reason, .. } if reason.to_lowercase().contains(part))
}

/// Whether waiting may help: the connection or the node is away.
pub(super) fn is_temporary(error: &NodeError) -> bool {
    matches!(error, NodeError::Unreachable { .. } | NodeError::NotReady { .. })
}

/// The status' text and the texts of what caused it, outermost first, each once.
fn with_sources(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = status.source();
    while let Some(error) = source {
        let next = error.to_string();
        if next != "transport error" && !text.contains(&next) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&next);
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_lnd_decide_over_code_unknown() {
        let class = |text: &str| match of_status("/x", "host:1", &Status::unknown(text)) {
            NodeError::Unreachable { .. } => "unreachable",
            NodeError::NotReady { .. } => "not ready",
            NodeError::Permission { .. } => "permission",
            NodeError::InsufficientFunds { .. } => "funds",
            NodeError::Refused { .. } => "refused",
            NodeError::BadAnswer { .. } => "bad answer",
        };
        let table = [
            ("wallet locked, unlock it to enable full RPC access", "not ready"),
            ("wallet not created, create one to enable full RPC access", "not ready"),
            ("the RPC server is in the process of starting up, but not yet ready to accept calls", "not ready"),
            ("waiting to start, RPC services not available", "not ready"),
            ("chain notifier RPC is still in the process of starting", "not ready"),
            ("chain notifier shutting down", "not ready"),
            ("permission denied", "permission"),
            ("verification failed: signature mismatch after caveat verification", "permission"),
            ("cannot get macaroon: root key with id 9 doesn't exist", "permission"),
            ("expected 1 macaroon, got 0", "permission"),
            ("insufficient funds available to construct transaction", "funds"),
            ("the outputs to be sent would leave insufficient reserves for anchor channels in the wallet", "funds"),
            ("peer is not online", "refused"),
        ];
        for (text, expected) in table {
            assert_eq!(class(text), expected, "{text}");
        }
    }

    #[test]
    fn codes_decide_where_lnd_sets_them() {
        let of = |status: Status| of_status("/x", "host:1", &status);
        assert!(matches!(of(Status::unavailable("gone")), NodeError::Unreachable { .. }));
        assert!(matches!(of(Status::deadline_exceeded("")), NodeError::Unreachable { .. }));
        assert!(matches!(of(Status::permission_denied("x")), NodeError::Permission { call: "/x", .. }));
        assert!(matches!(of(Status::unimplemented("unknown service")), NodeError::NotReady { .. }));
        assert!(matches!(of(Status::invalid_argument("no")), NodeError::Refused { call: "/x", .. }));
        let broken = Status::from_error(Box::new(std::io::Error::other("reset by peer")));
        assert!(matches!(of(broken), NodeError::Unreachable { reason, .. } if reason.contains("reset by peer")));
    }
}
