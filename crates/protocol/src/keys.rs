//! Identities of the market as types: no bare array crosses a function's border.

use bitcoin::secp256k1::PublicKey;
use core::fmt;
use core::str::FromStr;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Bytes that are not what their place demands.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Not a compressed point of the curve.
    #[error("{what}: not a valid 33-byte compressed public key")]
    NotAPoint {
        /// Which key was read.
        what: &'static str,
    },
    /// A byte string of another length.
    #[error("{what}: expected {expected} bytes, found {found}")]
    Length {
        /// What was read.
        what: &'static str,
        /// Bytes demanded.
        expected: usize,
        /// Bytes found.
        found: usize,
    },
    /// A text that is not lower- or upper-case hexadecimal.
    #[error("{what}: not hexadecimal")]
    NotHex {
        /// What was read.
        what: &'static str,
    },
    /// Adding two points gave the point at infinity, or a scalar was out of range.
    #[error("{what}: the result is not a valid key")]
    Degenerate {
        /// What was computed.
        what: &'static str,
    },
}

macro_rules! point_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(PublicKey);

        impl $name {
            /// The key that is this point.
            pub const fn new(point: PublicKey) -> $name {
                $name(point)
            }
            /// Reads a 33-byte compressed point.
            ///
            /// # Errors
            /// [`KeyError::Length`] or [`KeyError::NotAPoint`].
            pub fn from_slice(bytes: &[u8]) -> Result<$name, KeyError> {
                let what = stringify!($name);
                if bytes.len() != 33 {
                    return Err(KeyError::Length { what, expected: 33, found: bytes.len() });
                }
                PublicKey::from_slice(bytes).map($name).map_err(|_| KeyError::NotAPoint { what })
            }
            /// The 33-byte compressed form.
            pub fn serialize(&self) -> [u8; 33] {
                self.0.serialize()
            }
            /// The point.
            pub const fn point(&self) -> &PublicKey {
                &self.0
            }
        }

        impl From<PublicKey> for $name {
            fn from(point: PublicKey) -> $name {
                $name(point)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = KeyError;
            fn from_str(text: &str) -> Result<$name, KeyError> {
                let bytes: Vec<u8> = hex::FromHex::from_hex(text).map_err(|_| KeyError::NotHex { what: stringify!($name) })?;
                $name::from_slice(&bytes)
            }
        }
    };
}

point_type!(
    /// The trader's untweaked account key `T`; names the account everywhere.
    AccountKey
);
point_type!(
    /// The auctioneer's untweaked base key `A`, one per venue.
    AuctioneerKey
);
point_type!(
    /// A point of a batch key sequence `B`, `B + G`, ...: an account's own, or the venue's.
    BatchKey
);
point_type!(
    /// Identity key of a Lightning node.
    NodeId
);
point_type!(
    /// One side's key of a channel's 2-of-2 funding output.
    MultisigKey
);

/// Name of a batch: the venue's batch key under which it was made.
pub type BatchId = BatchKey;

macro_rules! bytes32_type {
    ($(#[$doc:meta])* $name:ident, $debug:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// These 32 bytes.
            pub const fn new(bytes: [u8; 32]) -> $name {
                $name(bytes)
            }
            /// Reads exactly 32 bytes.
            ///
            /// # Errors
            /// [`KeyError::Length`].
            pub fn from_slice(bytes: &[u8]) -> Result<$name, KeyError> {
                <[u8; 32]>::try_from(bytes).map($name).map_err(|_| KeyError::Length {
                    what: stringify!($name),
                    expected: 32,
                    found: bytes.len(),
                })
            }
            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
            /// Lower-case hexadecimal.
            pub fn to_hex(&self) -> String {
                hex::DisplayHex::to_lower_hex_string(&self.0[..])
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                $debug(stringify!($name), &self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = KeyError;
            fn from_str(text: &str) -> Result<$name, KeyError> {
                let bytes: Vec<u8> = hex::FromHex::from_hex(text).map_err(|_| KeyError::NotHex { what: stringify!($name) })?;
                $name::from_slice(&bytes)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.to_hex())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

fn shown(name: &str, bytes: &[u8; 32], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{name}({})", hex::DisplayHex::to_lower_hex_string(&bytes[..]))
}

fn masked(name: &str, _bytes: &[u8; 32], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{name}(secret)")
}

bytes32_type!(
    /// Name of an order: SHA-256 of its preimage.
    OrderNonce, shown
);
bytes32_type!(
    /// Secret whose hash is an order's nonce; revealed only to cancel the order. Masked when printed.
    OrderPreimage, masked
);
bytes32_type!(
    /// `SHA256(ser33(t*A))`: the secret that trader and auctioneer share. Masked when printed.
    SharedSecret, masked
);
bytes32_type!(
    /// Name of a channel while it is being funded: `SHA256(ask nonce || bid nonce)`.
    PendingChannelId, shown
);

impl fmt::Display for OrderNonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl fmt::Display for PendingChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

/// Key family of account keys in the node's wallet.
pub const FAMILY_ACCOUNT: u32 = 220;
/// Key family of the auctioneer's base key in its node's wallet.
pub const FAMILY_AUCTIONEER: u32 = 221;
/// Key family of channel funding keys in the node's wallet.
pub const FAMILY_MULTISIG: u32 = 0;
/// Key family of the channel backup encryption key in the node's wallet.
pub const FAMILY_BACKUP: u32 = 7;

/// Where a key lives in the node's wallet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyLocator {
    /// Key family.
    pub family: u32,
    /// Index within the family.
    pub index: u32,
}

/// A public key with its place in the node's wallet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyDescriptor {
    /// The untweaked key.
    pub point: PublicKey,
    /// Its place.
    pub locator: KeyLocator,
}
