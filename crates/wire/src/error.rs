//! What can be wrong with a message, and the texts that the network treats as part of its protocol.

use thiserror::Error;
use tidegate_ports::LinkError;
use tidegate_protocol::keys::KeyError;

/// Contained in the error text of `OrderState` when the venue does not know the order.
///
/// # Source
/// Protocol notes, rpc §2.6.
pub const NO_ORDER_FOUND: &str = "no order found";

/// Contained in the error text of `BatchSnapshot` when the batch is not final.
///
/// # Source
/// Protocol notes, rpc §2.6.
pub const BATCH_SNAPSHOT_NOT_FOUND: &str = "batch snapshot not found";

/// Contained in the error text of a call that has to be paid for first.
///
/// # Source
/// Protocol notes, rpc §2.6.
pub const PAYMENT_REQUIRED: &str = "payment required";

/// A received message that does not mean anything. `field` is `Message.field` as in the interface files.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Something that must be there is not.
    #[error("{field} is missing")]
    Missing {
        /// Where.
        field: &'static str,
    },
    /// Bytes of another length than the one possible.
    #[error("{field}: expected {expected} bytes, found {found}")]
    Length {
        /// Where.
        field: &'static str,
        /// Bytes demanded.
        expected: usize,
        /// Bytes found.
        found: usize,
    },
    /// More bytes or entries than an honest message has.
    #[error("{field}: at most {most} allowed, found {found}")]
    TooMany {
        /// Where.
        field: &'static str,
        /// Limit.
        most: usize,
        /// Bytes or entries found.
        found: usize,
    },
    /// A number outside of its range.
    #[error("{field}: expected {lowest} to {highest}, found {found}")]
    OutOfRange {
        /// Where.
        field: &'static str,
        /// Lowest number allowed.
        lowest: u64,
        /// Highest number allowed.
        highest: u64,
        /// Number found.
        found: u64,
    },
    /// Not a compressed point of the curve (or not two of them, for nonces).
    #[error("{field}: not a valid compressed public key")]
    NotAPoint {
        /// Where.
        field: &'static str,
    },
    /// A map key that is not the one way to write this key.
    #[error("{field}: expected {expected}, found {found:?}")]
    MapKey {
        /// Where.
        field: &'static str,
        /// Form demanded.
        expected: &'static str,
        /// Key found, cut to 200 bytes.
        found: String,
    },
    /// A number that names nothing.
    #[error("{field}: the number {found} has no meaning")]
    UnknownNumber {
        /// Where.
        field: &'static str,
        /// Number found.
        found: i64,
    },
    /// An amount that is not a whole number of units of 100,000 sat.
    #[error("{field}: {found} sat is not a multiple of 100,000")]
    NotWholeUnits {
        /// Where.
        field: &'static str,
        /// Satoshis found.
        found: u64,
    },
    /// Two places of a message contradict each other.
    #[error("{field}: expected {expected}, found {found}")]
    Contradiction {
        /// Where.
        field: &'static str,
        /// What the other place says.
        expected: String,
        /// What this place says.
        found: String,
    },
    /// The same thing twice.
    #[error("{field}: {found} appears twice")]
    Duplicate {
        /// Where.
        field: &'static str,
        /// What.
        found: String,
    },
    /// An address that is not `host:port`.
    #[error("{field}: {found:?} is not host:port")]
    Address {
        /// Where.
        field: &'static str,
        /// Address found, cut to 200 bytes.
        found: String,
    },
    /// Bytes that are not a transaction.
    #[error("{field}: not a transaction ({reason})")]
    Transaction {
        /// Where.
        field: &'static str,
        /// What the parser says.
        reason: String,
    },
    /// A part of the interface that this program does not speak yet.
    #[error("{what} is not supported")]
    Unsupported {
        /// Which part.
        what: &'static str,
    },
}

impl DecodeError {
    /// The same as the failure of a call to a venue.
    pub fn in_answer_to(self, call: &'static str) -> LinkError {
        LinkError::BadAnswer { call, reason: self.to_string() }
    }

    /// Key errors, with the place where the key stood.
    pub(crate) fn key(field: &'static str, error: KeyError) -> DecodeError {
        match error {
            KeyError::Length { expected, found, .. } => DecodeError::Length { field, expected, found },
            KeyError::NotAPoint { .. } | KeyError::NotHex { .. } | KeyError::Degenerate { .. } => {
                DecodeError::NotAPoint { field }
            }
        }
    }
}

/// A message that the wire cannot carry.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// An output index beyond the wire's signed 32 bits.
    #[error("output index {0} does not fit the wire")]
    OutputIndex(u32),
    /// A message that only exists on the receiving side.
    #[error("a malformed message cannot be sent")]
    Malformed,
    /// Matches of one order that are not all of the same side.
    #[error("order {0} is matched with asks and bids")]
    MixedSides(String),
}
