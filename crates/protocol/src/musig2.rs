//! Two-party MuSig2 in both drafts that account outputs use.
//!
//! Draft v1.0.0-rc2 is libsecp256k1's own module. Draft v0.4.0 has no library and is done here, on points and scalars of
//! libsecp256k1. The drafts differ in three places only: the form of the signers' keys (and so their sort order and the
//! hashed list), whether a key is lifted to its even point, and whether a signer negates its secret for an odd key. The
//! own code therefore knows both; for v1.0.0-rc2 it is the second opinion of the tests.
//!
//! # Source
//! Protocol notes, scripts §3; BIP-327 (v1.0.0-rc2) and its predecessor v0.4.0; BIP-341 for the tweak.

mod library;
mod own;

use crate::curve::{SECP, scalar_mod_order, tagged_hash};
use crate::keys::KeyError;
use bitcoin::secp256k1::schnorr::Signature;
use bitcoin::secp256k1::{Message, PublicKey, Scalar, SecretKey, XOnlyPublicKey};
use core::fmt;
use serde::{Deserialize, Serialize};

/// Bytes of a compressed point.
const POINT: usize = 33;

/// Public nonces of one signer: two compressed points, 66 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicNonce(pub [u8; 66]);

/// A partial signature: a scalar, 32 bytes big endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialSignature(pub [u8; 32]);

/// Draft of MuSig2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Musig2Version {
    /// Draft v0.4.0: x-only signer keys. Account version 1.
    V040,
    /// Draft v1.0.0-rc2: compressed signer keys. Account version 2.
    V100Rc2,
}

/// The aggregate of two keys (sorted by this function) before any taproot tweak.
///
/// # Errors
/// [`KeyError::Degenerate`].
pub fn aggregate(keys: [PublicKey; 2], version: Musig2Version) -> Result<XOnlyPublicKey, KeyError> {
    match version {
        Musig2Version::V040 => own::aggregate(keys, version),
        Musig2Version::V100Rc2 => library::aggregate(keys),
    }
}

/// Secret nonces of one session: consumed by signing, masked when printed, wiped when dropped.
///
/// Neither `Clone` nor `Copy`, and no way to read the bytes: a second signature under the same nonces does not compile.
pub struct SecretNonce(Secret);

enum Secret {
    Own(own::Nonce),
    Library(library::Nonce),
}

impl fmt::Debug for SecretNonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretNonce(secret)")
    }
}

/// A nonce pair for this draft from 32 fresh random bytes. The same bytes must never be used twice.
///
/// # Errors
/// [`KeyError::Degenerate`], also for 32 zero bytes.
///
/// # Source
/// BIP-327 "Nonce Generation" without its optional arguments; which nonces a signer draws is its own affair.
pub fn nonce_from(
    version: Musig2Version,
    random: [u8; 32],
    signer: &PublicKey,
) -> Result<(SecretNonce, PublicNonce), KeyError> {
    if random == [0; 32] {
        return Err(KeyError::Degenerate { what: "nonce" });
    }
    let (secret, public) = match version {
        Musig2Version::V040 => own::nonce_from(random, signer).map(|(nonce, public)| (Secret::Own(nonce), public))?,
        Musig2Version::V100Rc2 => {
            library::nonce_from(random, signer).map(|(nonce, public)| (Secret::Library(nonce), public))?
        }
    };
    Ok((SecretNonce(secret), public))
}

/// Everything that both signers of one message agree on.
#[derive(Clone, Debug)]
pub struct SigningContext {
    /// Draft.
    pub version: Musig2Version,
    /// Both untweaked keys, any order.
    pub keys: [PublicKey; 2],
    /// Merkle root of the taproot tweak.
    pub merkle_root: [u8; 32],
    /// Both public nonces, any order.
    pub nonces: [PublicNonce; 2],
    /// The sighash.
    pub message: [u8; 32],
}

impl SigningContext {
    /// One signer's half.
    ///
    /// # Errors
    /// [`KeyError::Degenerate`] for invalid nonces or keys, when `secret` is of neither key, or when `nonce` is of another
    /// draft, of another signer or of neither public nonce.
    pub fn partial_sign(&self, secret: &SecretKey, nonce: SecretNonce) -> Result<PartialSignature, KeyError> {
        match (self.version, nonce.0) {
            (Musig2Version::V040, Secret::Own(nonce)) => own::partial_sign(self, secret, &nonce),
            (Musig2Version::V100Rc2, Secret::Library(nonce)) => library::partial_sign(self, secret, nonce),
            (Musig2Version::V040, Secret::Library(_)) | (Musig2Version::V100Rc2, Secret::Own(_)) => {
                Err(KeyError::Degenerate { what: "draft of the nonce" })
            }
        }
    }

    /// Whether `partial` is the half of the signer with this key and nonce.
    pub fn verify_partial(&self, signer: &PublicKey, nonce: &PublicNonce, partial: &PartialSignature) -> bool {
        let valid = match self.version {
            Musig2Version::V040 => own::verify_partial(self, signer, nonce, partial),
            Musig2Version::V100Rc2 => library::verify_partial(self, signer, nonce, partial),
        };
        valid.is_ok_and(|valid| valid)
    }

    /// The final signature of the tweaked aggregate.
    ///
    /// # Errors
    /// [`KeyError::Degenerate`] for invalid scalars, or when the sum is not a valid signature.
    pub fn combine(&self, partials: [PartialSignature; 2]) -> Result<[u8; 64], KeyError> {
        let (signature, output_key) = match self.version {
            Musig2Version::V040 => own::combine(self, partials)?,
            Musig2Version::V100Rc2 => library::combine(self, partials)?,
        };
        let degenerate = |_| KeyError::Degenerate { what: "combined signature" };
        let message = Message::from_digest(self.message);
        let parsed = Signature::from_slice(&signature).map_err(degenerate)?;
        SECP.verify_schnorr(&parsed, &message, &output_key).map_err(degenerate)?;
        Ok(signature)
    }

    /// The scalar that the taproot tweak adds to the aggregate.
    fn tweak(&self, internal: &XOnlyPublicKey) -> Scalar {
        scalar_mod_order(tagged_hash("TapTweak", &[&internal.serialize(), &self.merkle_root]))
    }
}

impl PublicNonce {
    /// Reads two compressed points.
    ///
    /// # Errors
    /// [`KeyError`] for a wrong length or an invalid point.
    pub fn from_slice(bytes: &[u8]) -> Result<PublicNonce, KeyError> {
        let what = "public nonce";
        let array =
            <[u8; 66]>::try_from(bytes).map_err(|_| KeyError::Length { what, expected: 66, found: bytes.len() })?;
        let nonce = PublicNonce(array);
        nonce.points().map(|_| nonce)
    }

    /// Both points.
    fn points(&self) -> Result<[PublicKey; 2], KeyError> {
        let read =
            |bytes: &[u8]| PublicKey::from_slice(bytes).map_err(|_| KeyError::NotAPoint { what: "public nonce" });
        Ok([read(&self.0[..POINT])?, read(&self.0[POINT..])?])
    }
}

#[cfg(test)]
mod tests;
