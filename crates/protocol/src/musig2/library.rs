//! Draft v1.0.0-rc2 by libsecp256k1's module. Keys, nonces and scalars cross the border as bytes.
//!
//! The module panics where its caller breaks a rule: nonces of another signer, used twice, drawn from zeros. Each of these
//! is refused here before.

use super::{PartialSignature, PublicNonce, SigningContext};
use crate::curve::SECP;
use crate::keys::KeyError;
use bitcoin::secp256k1::{PublicKey, SecretKey, XOnlyPublicKey};
use secp256k1_musig::musig::{self, AggregatedNonce, KeyAggCache, Session, SessionSecretRand};
use secp256k1_musig::{Keypair, Scalar};

/// With both coordinates: to find the second one costs a root.
fn point(key: &PublicKey) -> Result<secp256k1_musig::PublicKey, KeyError> {
    secp256k1_musig::PublicKey::from_byte_array_uncompressed(key.serialize_uncompressed())
        .map_err(|_| KeyError::NotAPoint { what: "signer's key" })
}

/// The aggregate so far: tweaked, if `keys` are.
fn x_only(keys: &KeyAggCache) -> Result<XOnlyPublicKey, KeyError> {
    let point = PublicKey::from_slice(&keys.agg_pk_full().serialize_uncompressed());
    Ok(point.map_err(|_| KeyError::Degenerate { what: "aggregate key" })?.x_only_public_key().0)
}

/// The keys in the order that the draft demands, and what follows from them.
fn key_list(mut keys: [PublicKey; 2]) -> Result<KeyAggCache, KeyError> {
    keys.sort_by_key(PublicKey::serialize);
    let [first, second] = [point(&keys[0])?, point(&keys[1])?];
    Ok(KeyAggCache::new(&[&first, &second]))
}

/// The aggregate of two keys before any tweak.
pub(super) fn aggregate(keys: [PublicKey; 2]) -> Result<XOnlyPublicKey, KeyError> {
    x_only(&key_list(keys)?)
}

/// Secret nonces with the key that they are bound to.
pub(super) struct Nonce {
    /// Taken when it signs; wiped by the library then, and here when it never does.
    pub(super) secret: Option<musig::SecretNonce>,
    pub(super) public: PublicNonce,
    pub(super) signer: PublicKey,
}

impl Drop for Nonce {
    fn drop(&mut self) {
        if let Some(secret) = &mut self.secret {
            secret.non_secure_erase();
        }
    }
}

/// A nonce pair from fresh random bytes, which are not all zero.
pub(super) fn nonce_from(random: [u8; 32], signer: &PublicKey) -> Result<(Nonce, PublicNonce), KeyError> {
    let random = SessionSecretRand::assume_uniformly_random(random);
    let (secret, public) = musig::new_nonce_pair(random, None, None, point(signer)?, None, None);
    let public = PublicNonce(public.serialize());
    Ok((Nonce { secret: Some(secret), public, signer: *signer }, public))
}

fn nonce(nonce: &PublicNonce) -> Result<musig::PublicNonce, KeyError> {
    musig::PublicNonce::from_byte_array(&nonce.0).map_err(|_| KeyError::NotAPoint { what: "public nonce" })
}

fn half(partial: &PartialSignature) -> Result<musig::PartialSignature, KeyError> {
    let invalid = KeyError::Degenerate { what: "partial signature" };
    musig::PartialSignature::from_byte_array(&partial.0).map_err(|_| invalid)
}

/// Tweaked keys and the session of both nonces.
fn session(context: &SigningContext) -> Result<(KeyAggCache, Session), KeyError> {
    let degenerate = KeyError::Degenerate { what: "taproot tweak" };
    let mut keys = key_list(context.keys)?;
    let tweak = context.tweak(&x_only(&keys)?);
    let tweak = Scalar::from_be_bytes(tweak.to_be_bytes()).map_err(|_| degenerate.clone())?;
    keys.pubkey_xonly_tweak_add(&tweak).map_err(|_| degenerate)?;
    let [first, second] = [nonce(&context.nonces[0])?, nonce(&context.nonces[1])?];
    let session = Session::new(&keys, AggregatedNonce::new(&[&first, &second]), &context.message);
    Ok((keys, session))
}

/// One signer's half.
pub(super) fn partial_sign(
    context: &SigningContext,
    secret: &SecretKey,
    mut nonce: Nonce,
) -> Result<PartialSignature, KeyError> {
    let own_key = secret.public_key(&SECP);
    if !context.keys.contains(&own_key) {
        return Err(KeyError::Degenerate { what: "signer's key" });
    }
    if own_key != nonce.signer || !context.nonces.contains(&nonce.public) {
        return Err(KeyError::Degenerate { what: "signer's nonce" });
    }
    let (keys, session) = session(context)?;
    let invalid = KeyError::Degenerate { what: "signer's key" };
    let secret = secp256k1_musig::SecretKey::from_secret_bytes(secret.secret_bytes()).map_err(|_| invalid)?;
    let secret_nonce = nonce.secret.take().ok_or(KeyError::Degenerate { what: "signer's nonce" })?;
    let half = session.partial_sign(secret_nonce, &Keypair::from_secret_key(&secret), &keys);
    Ok(PartialSignature(half.serialize()))
}

/// Whether `partial` is the half of the signer with this key and nonce.
pub(super) fn verify_partial(
    context: &SigningContext,
    signer: &PublicKey,
    public: &PublicNonce,
    partial: &PartialSignature,
) -> Result<bool, KeyError> {
    if !context.keys.contains(signer) || !context.nonces.contains(public) {
        return Ok(false);
    }
    let (keys, session) = session(context)?;
    Ok(session.partial_verify(&keys, &half(partial)?, &nonce(public)?, point(signer)?))
}

/// The sum of both halves and the tweak, with the key that it should be valid for; not verified.
pub(super) fn combine(
    context: &SigningContext,
    partials: [PartialSignature; 2],
) -> Result<([u8; 64], XOnlyPublicKey), KeyError> {
    let (keys, session) = session(context)?;
    let [first, second] = [half(&partials[0])?, half(&partials[1])?];
    let sum = session.partial_sig_agg(&[&first, &second]).assume_valid();
    Ok((*sum.as_byte_array(), x_only(&keys)?))
}
