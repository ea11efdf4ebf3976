//! Verification of what signs: messages, partial signatures, and witnesses on the chain.
//!
//! # Source
//! Protocol notes, scripts §2–§4, batch §1 and §5; BIP-143, BIP-340, BIP-341, MuSig2 drafts.

use bitcoin::hashes::Hash as _;
use bitcoin::secp256k1::{Message, Parity, PublicKey, SecretKey, XOnlyPublicKey, ecdsa, schnorr};
use bitcoin::sighash::{Prevouts, SighashCache};
use bitcoin::{Amount, EcdsaSighashType, Script, TapLeafHash, TapSighashType, Transaction, TxOut};
use musig2::{AggNonce, PartialSignature, PubNonce};

use crate::keys::{Draft, aggregate, curve, library_context, scalar, sha, summand, tagged};

/// A judgement about one signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Valid,
    /// Why not.
    Invalid(&'static str),
    /// Something that is not on the wire would be needed.
    Unjudged,
}

impl Verdict {
    pub(crate) fn of(valid: bool, reason: &'static str) -> Verdict {
        if valid { Verdict::Valid } else { Verdict::Invalid(reason) }
    }
}

/// The node's message signature: ECDSA over one SHA-256 of the message.
pub(crate) fn message(key: &PublicKey, message: &[u8], der: &[u8]) -> Verdict {
    let Ok(signature) = ecdsa::Signature::from_der(der) else { return Verdict::Invalid("not DER") };
    let digest = Message::from_digest(sha(&[message]));
    Verdict::of(curve().verify_ecdsa(&digest, &signature, key).is_ok(), "wrong signature")
}

/// Sighash of a P2WSH input, all inputs and outputs signed.
pub(crate) fn legacy_sighash(tx: &Transaction, input: usize, script: &Script, value_sat: u64) -> Option<[u8; 32]> {
    let mut cache = SighashCache::new(tx);
    let value = Amount::from_sat(value_sat);
    let hash = cache.p2wsh_signature_hash(input, script, value, EcdsaSighashType::All).ok()?;
    Some(hash.to_byte_array())
}

/// Sighash of a taproot key spend, default type.
pub(crate) fn key_sighash(tx: &Transaction, input: usize, spent: &[TxOut]) -> Option<[u8; 32]> {
    let mut cache = SighashCache::new(tx);
    let hash = cache.taproot_key_spend_signature_hash(input, &Prevouts::All(spent), TapSighashType::Default).ok()?;
    Some(hash.to_byte_array())
}

/// Sighash of a taproot script spend, default type.
pub(crate) fn leaf_sighash(tx: &Transaction, input: usize, spent: &[TxOut], leaf: &Script) -> Option<[u8; 32]> {
    let mut cache = SighashCache::new(tx);
    let leaf = TapLeafHash::from_script(leaf, bitcoin::taproot::LeafVersion::TapScript);
    let spent = Prevouts::All(spent);
    let hash = cache.taproot_script_spend_signature_hash(input, &spent, leaf, TapSighashType::Default).ok()?;
    Some(hash.to_byte_array())
}

/// A DER signature without sighash byte.
pub(crate) fn der(key: &PublicKey, sighash: [u8; 32], signature: &[u8]) -> Verdict {
    match ecdsa::Signature::from_der(signature) {
        Ok(signature) => {
            let valid = curve().verify_ecdsa(&Message::from_digest(sighash), &signature, key).is_ok();
            Verdict::of(valid, "wrong ECDSA signature")
        }
        Err(_) => Verdict::Invalid("not DER"),
    }
}

/// A DER signature that ends with SIGHASH_ALL.
pub(crate) fn der_all(key: &PublicKey, sighash: [u8; 32], signature: &[u8]) -> Verdict {
    match signature.split_last() {
        Some((1, signature)) => der(key, sighash, signature),
        _ => Verdict::Invalid("sighash type is not ALL"),
    }
}

/// A final Schnorr signature.
pub(crate) fn schnorr(key: &XOnlyPublicKey, sighash: [u8; 32], signature: &[u8]) -> Verdict {
    match schnorr::Signature::from_slice(signature) {
        Ok(signature) => {
            let valid = curve().verify_schnorr(&signature, &Message::from_digest(sighash), key).is_ok();
            Verdict::of(valid, "wrong Schnorr signature")
        }
        Err(_) => Verdict::Invalid("not 64 bytes"),
    }
}

/// One signer's half of a MuSig2 signature.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Partial<'a> {
    pub(crate) draft: Draft,
    pub(crate) signer: &'a PublicKey,
    pub(crate) other: &'a PublicKey,
    /// The tweaked output key.
    pub(crate) output: &'a XOnlyPublicKey,
    /// Leaf hash and parity of the output key, where the account's secret is known.
    pub(crate) taproot: Option<([u8; 32], Parity)>,
    pub(crate) own_nonce: &'a [u8],
    pub(crate) other_nonce: &'a [u8],
    pub(crate) sighash: [u8; 32],
    pub(crate) signature: &'a [u8],
}

impl Partial<'_> {
    /// Judges with the own arithmetic, and, for v1.0.0-rc2 with a known leaf, with the second library as well.
    pub(crate) fn judge(&self) -> Verdict {
        let parities = match self.taproot {
            Some((_, parity)) => vec![parity],
            // The tweak does not enter a half; only the sign of the output key does, which the chain does not tell.
            None => vec![Parity::Even, Parity::Odd],
        };
        if !parities.into_iter().any(|parity| self.equation_holds(parity) == Some(true)) {
            return Verdict::Invalid("wrong partial signature");
        }
        match (self.draft, &self.taproot) {
            (Draft::V100, Some((leaf, _))) => {
                Verdict::of(self.library_agrees(leaf).is_some(), "the second library refuses the partial signature")
            }
            _ => Verdict::Valid,
        }
    }

    /// `s·G = ±(R1 + b·R2) + e·a·±X`, all from scratch. Nothing when something is not a point or number.
    fn equation_holds(&self, parity: Parity) -> Option<bool> {
        let (own, other) = (points(self.own_nonce)?, points(self.other_nonce)?);
        let sums = [own[0].combine(&other[0]).ok(), own[1].combine(&other[1]).ok()];
        let encoded = sums.map(|sum| sum.map_or([0; 33], |sum| sum.serialize()));
        let output = self.output.serialize();
        let b = scalar(tagged("MuSig/noncecoef", &[&encoded[0], &encoded[1], &output, &self.sighash]));
        let second = sums[1].and_then(|sum| sum.mul_tweak(curve(), &b).ok());
        let nonce = match (sums[0], second) {
            (Some(first), Some(second)) => first.combine(&second).ok(),
            (one, two) => one.or(two),
        };
        // An aggregate at infinity is replaced by the generator.
        let nonce = nonce.unwrap_or_else(generator);
        let (nonce_x, nonce_parity) = nonce.x_only_public_key();
        let e = scalar(tagged("BIP0340/challenge", &[&nonce_x.serialize(), &output, &self.sighash]));

        let mut half = own[0].combine(&own[1].mul_tweak(curve(), &b).ok()?).ok()?;
        if nonce_parity == Parity::Odd {
            half = half.negate(curve());
        }
        let whole = aggregate(self.draft, self.signer, self.other)?;
        let wanted = summand(self.draft, self.signer);
        let (key, coefficient) = whole.terms.iter().find(|(key, _)| *key == wanted)?;
        let mut term = key.mul_tweak(curve(), &e).ok()?;
        if let Some(coefficient) = coefficient {
            term = term.mul_tweak(curve(), coefficient).ok()?;
        }
        // The x-only tweak flips the aggregate once, the final key once more.
        if (whole.point.x_only_public_key().1 == Parity::Odd) != (parity == Parity::Odd) {
            term = term.negate(curve());
        }
        let right = half.combine(&term).ok()?;
        let left = SecretKey::from_slice(self.signature).ok()?.public_key(curve());
        Some(left == right)
    }

    fn library_agrees(&self, leaf: &[u8; 32]) -> Option<()> {
        let context = library_context(self.signer, self.other)?.with_taproot_tweak(leaf).ok()?;
        let own = PubNonce::from_bytes(self.own_nonce).ok()?;
        let other = PubNonce::from_bytes(self.other_nonce).ok()?;
        let sum = AggNonce::sum([&own, &other]);
        let signature = PartialSignature::from_slice(self.signature).ok()?;
        let signer = musig2::secp::Point::from_slice(&self.signer.serialize()).ok()?;
        musig2::verify_partial(&context, signature, &sum, signer, &own, self.sighash).ok()
    }
}

/// The two points of a public nonce.
pub(crate) fn points(nonce: &[u8]) -> Option<[PublicKey; 2]> {
    if nonce.len() != 66 {
        return None;
    }
    let (first, second) = nonce.split_at(33);
    Some([PublicKey::from_slice(first).ok()?, PublicKey::from_slice(second).ok()?])
}

fn generator() -> PublicKey {
    let mut one = [0; 32];
    one[31] = 1;
    SecretKey::from_slice(&one).expect("one is a valid key").public_key(curve())
}
