//! Keys and numbers that targets are built from. Computed once: points are what a target would spend its time on.

use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use std::sync::LazyLock;
use tidegate_protocol::keys::NodeId;
use tidegate_protocol::units::Sats;

static SECRETS: LazyLock<Vec<SecretKey>> = LazyLock::new(|| {
    (1..=64u8).map(|byte| SecretKey::from_slice(&[byte; 32]).expect("far below the order of the curve")).collect()
});

static POINTS: LazyLock<Vec<PublicKey>> = LazyLock::new(|| {
    let secp = Secp256k1::new();
    SECRETS.iter().map(|secret| secret.public_key(&secp)).collect()
});

/// One of 64 throw-away secret keys.
pub(crate) fn secret(number: usize) -> SecretKey {
    SECRETS[number % SECRETS.len()]
}

/// The public key of [`secret`].
pub(crate) fn point(number: usize) -> PublicKey {
    POINTS[number % POINTS.len()]
}

/// One of 64 nodes.
pub(crate) fn node(number: usize) -> NodeId {
    NodeId::new(point(number))
}

/// The amount, or all bitcoin.
pub(crate) fn sats(sat: u64) -> Sats {
    Sats::new(sat).unwrap_or(Sats::MAX)
}
