//! Points and scalars: the few curve operations that scripts and signatures share.
//!
//! Hashes become scalars modulo the group order; a hash that is the order or more wraps once, which suffices because
//! twice the order exceeds 2^256.

use crate::keys::KeyError;
use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::secp256k1::{All, PublicKey, Scalar, Secp256k1, SecretKey};
use std::sync::LazyLock;

/// The order of the group, big endian.
const ORDER: [u8; 32] = bitcoin::secp256k1::constants::CURVE_ORDER;

/// The context of every curve operation here; no state, no randomness.
pub(crate) static SECP: LazyLock<Secp256k1<All>> = LazyLock::new(Secp256k1::new);

/// `SHA256` of the parts, one after the other.
pub(crate) fn sha256_of(parts: &[&[u8]]) -> [u8; 32] {
    let mut engine = sha256::Hash::engine();
    for part in parts {
        engine.input(part);
    }
    sha256::Hash::from_engine(engine).to_byte_array()
}

/// BIP-340 tagged hash of the parts, one after the other.
pub(crate) fn tagged_hash(tag: &str, parts: &[&[u8]]) -> [u8; 32] {
    let tag = sha256_of(&[tag.as_bytes()]);
    let mut engine = sha256::Hash::engine();
    engine.input(&tag);
    engine.input(&tag);
    for part in parts {
        engine.input(part);
    }
    sha256::Hash::from_engine(engine).to_byte_array()
}

/// The number that these big-endian bytes are, modulo the group order.
pub(crate) fn scalar_mod_order(bytes: [u8; 32]) -> Scalar {
    Scalar::from_be_bytes(bytes).unwrap_or_else(|_| {
        let reduced = minus_order(bytes);
        Scalar::from_be_bytes(reduced).expect("2^256 is less than twice the order")
    })
}

/// `bytes - ORDER`, for `bytes >= ORDER`.
fn minus_order(bytes: [u8; 32]) -> [u8; 32] {
    let mut difference = [0u8; 32];
    let mut borrow = false;
    for index in (0..32).rev() {
        let (first, under_first) = bytes[index].overflowing_sub(ORDER[index]);
        let (second, under_second) = first.overflowing_sub(u8::from(borrow));
        difference[index] = second;
        borrow = under_first || under_second;
    }
    difference
}

/// The scalar as a key, which zero is not.
pub(crate) fn nonzero(scalar: Scalar, what: &'static str) -> Result<SecretKey, KeyError> {
    SecretKey::from_slice(&scalar.to_be_bytes()).map_err(|_| KeyError::Degenerate { what })
}

/// `point + scalar * G`.
pub(crate) fn add_generator(point: &PublicKey, scalar: &Scalar, what: &'static str) -> Result<PublicKey, KeyError> {
    point.add_exp_tweak(&SECP, scalar).map_err(|_| KeyError::Degenerate { what })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_at_and_above_the_order_wrap() {
        assert_eq!(scalar_mod_order(ORDER), Scalar::ZERO);
        let mut above = ORDER;
        above[31] += 1;
        assert_eq!(scalar_mod_order(above), Scalar::ONE);
        let mut below = ORDER;
        below[31] -= 1;
        assert_eq!(scalar_mod_order(below).to_be_bytes(), below);
        let wrapped = scalar_mod_order([0xff; 32]).to_be_bytes();
        assert_eq!(&wrapped[..17], &[[0; 15].as_slice(), &[1, 0x45]].concat()[..]);
    }
}
