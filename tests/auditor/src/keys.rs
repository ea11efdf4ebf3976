//! Points of the curve: batch keys, per-batch tweaks, and the two ways to aggregate a trader's with the auctioneer's
//! key.
//!
//! # Source
//! Protocol notes, scripts §1 and §3; MuSig2 drafts v0.4.0 and v1.0.0-rc2 (BIP-327).

use std::sync::OnceLock;

use bitcoin::hashes::{Hash as _, HashEngine as _, sha256};
use bitcoin::secp256k1::{All, Parity, PublicKey, Scalar, Secp256k1, XOnlyPublicKey};
use musig2::KeyAggContext;
use musig2::secp::Point;

/// Order of the curve, big endian.
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0xba, 0xae, 0xdc,
    0xe6, 0xaf, 0x48, 0xa0, 0x3b, 0xbf, 0xd2, 0x5e, 0x8c, 0xd0, 0x36, 0x41, 0x41,
];

/// The shared context of the curve.
pub(crate) fn curve() -> &'static Secp256k1<All> {
    static CONTEXT: OnceLock<Secp256k1<All>> = OnceLock::new();
    CONTEXT.get_or_init(Secp256k1::new)
}

/// SHA-256 over the concatenation.
pub(crate) fn sha(parts: &[&[u8]]) -> [u8; 32] {
    let mut engine = sha256::Hash::engine();
    parts.iter().for_each(|part| engine.input(part));
    sha256::Hash::from_engine(engine).to_byte_array()
}

/// BIP-340 tagged hash over the concatenation.
pub(crate) fn tagged(tag: &str, parts: &[&[u8]]) -> [u8; 32] {
    let tag = sha(&[tag.as_bytes()]);
    let mut all: Vec<&[u8]> = vec![&tag, &tag];
    all.extend(parts);
    sha(&all)
}

/// A hash as number modulo the order of the curve.
pub(crate) fn scalar(mut hash: [u8; 32]) -> Scalar {
    if hash >= ORDER {
        let mut borrow = false;
        for (byte, order) in hash.iter_mut().zip(ORDER).rev() {
            let (first, under) = byte.overflowing_sub(order);
            let (second, again) = first.overflowing_sub(u8::from(borrow));
            (*byte, borrow) = (second, under || again);
        }
    }
    Scalar::from_be_bytes(hash).expect("below the order: any 32 bytes are below twice the order")
}

/// `next(B) = B + G`.
pub(crate) fn next_batch_key(key: &PublicKey) -> Option<PublicKey> {
    key.add_exp_tweak(curve(), &Scalar::ONE).ok()
}

/// The trader's key of one output: `T' = T + SHA256(B || s || T)·G`.
pub(crate) fn tweaked_trader(trader: &PublicKey, batch: &PublicKey, secret: &[u8; 32]) -> Option<PublicKey> {
    let tweak = scalar(sha(&[&batch.serialize(), secret, &trader.serialize()]));
    trader.add_exp_tweak(curve(), &tweak).ok()
}

/// The auctioneer's key of one output: `A' = A + SHA256(T' || A)·G`.
pub(crate) fn tweaked_auctioneer(auctioneer: &PublicKey, tweaked_trader: &PublicKey) -> Option<PublicKey> {
    let tweak = scalar(sha(&[&tweaked_trader.serialize(), &auctioneer.serialize()]));
    auctioneer.add_exp_tweak(curve(), &tweak).ok()
}

/// How two keys become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Draft {
    /// v0.4.0: x-only keys (account version 1).
    V040,
    /// v1.0.0-rc2: plain keys (account version 2, taproot channels).
    V100,
}

/// Two keys in the order and form of a draft, with their coefficients.
#[derive(Clone, Debug)]
pub(crate) struct Aggregate {
    /// Each key as the draft uses it, with its coefficient; nothing for a coefficient of one.
    pub(crate) terms: [(PublicKey, Option<Scalar>); 2],
    /// The aggregate before any tweak.
    pub(crate) point: PublicKey,
}

/// A key in the form in which a draft adds it up.
pub(crate) fn summand(draft: Draft, key: &PublicKey) -> PublicKey {
    match draft {
        Draft::V040 => even(key),
        Draft::V100 => *key,
    }
}

fn even(key: &PublicKey) -> PublicKey {
    PublicKey::from_x_only_public_key(key.x_only_public_key().0, Parity::Even)
}

/// Aggregates two keys; nothing when they are equal in the draft's eyes or cancel out.
pub(crate) fn aggregate(draft: Draft, one: &PublicKey, other: &PublicKey) -> Option<Aggregate> {
    let (mut first, mut second) = (summand(draft, one), summand(draft, other));
    if second.serialize() < first.serialize() {
        std::mem::swap(&mut first, &mut second);
    }
    if first == second {
        return None;
    }
    let (first_bytes, second_bytes) = (first.serialize(), second.serialize());
    // A lifted key starts with 02, so that both drafts sort alike and only the hashed form differs.
    let skip = match draft {
        Draft::V040 => 1,
        Draft::V100 => 0,
    };
    let (first_form, second_form) = (first_bytes.get(skip..)?, second_bytes.get(skip..)?);
    let list = tagged("KeyAgg list", &[first_form, second_form]);
    let coefficient = scalar(tagged("KeyAgg coefficient", &[&list, first_form]));
    let point = first.mul_tweak(curve(), &coefficient).ok()?.combine(&second).ok()?;
    Some(Aggregate { terms: [(first, Some(coefficient)), (second, None)], point })
}

/// The same aggregation of plain keys by the second library.
pub(crate) fn library_context(one: &PublicKey, other: &PublicKey) -> Option<KeyAggContext> {
    let mut keys = [one.serialize(), other.serialize()];
    keys.sort_unstable();
    let points: Vec<Point> = keys.iter().map(|key| Point::from_slice(key)).collect::<Result<_, _>>().ok()?;
    KeyAggContext::new(points).ok()
}

/// The x coordinate.
pub(crate) fn x_only(key: &PublicKey) -> XOnlyPublicKey {
    key.x_only_public_key().0
}
