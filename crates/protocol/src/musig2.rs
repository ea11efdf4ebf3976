//! Two-party MuSig2 in both drafts that account outputs use.
//!
//! One implementation serves both drafts, because they differ in three places only: the form of the signers' keys (and so
//! their sort order and the hashed list), whether a key is lifted to its even point, and whether a signer negates its
//! secret for an odd key. Draft v0.4.0 has no library; for v1.0.0-rc2 the tests compare with libsecp256k1's module.
//! Scalars and points are computed by libsecp256k1.
//!
//! # Source
//! Protocol notes, scripts §3; BIP-327 (v1.0.0-rc2) and its predecessor v0.4.0; BIP-341 for the tweak.

use crate::curve::{SECP, add_generator, nonzero, scalar_mod_order, tagged_hash};
use crate::keys::KeyError;
use bitcoin::secp256k1::schnorr::Signature;
use bitcoin::secp256k1::{Message, Parity, PublicKey, Scalar, SecretKey, XOnlyPublicKey};
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

impl Musig2Version {
    /// The point that stands for a signer.
    fn lift(self, key: &PublicKey) -> PublicKey {
        match self {
            Musig2Version::V040 => PublicKey::from_x_only_public_key(key.x_only_public_key().0, Parity::Even),
            Musig2Version::V100Rc2 => *key,
        }
    }

    /// The bytes by which a lifted key is sorted and hashed.
    fn name(self, lifted: &PublicKey) -> Vec<u8> {
        match self {
            Musig2Version::V040 => lifted.x_only_public_key().0.serialize().to_vec(),
            Musig2Version::V100Rc2 => lifted.serialize().to_vec(),
        }
    }
}

/// Two sorted keys and their coefficients.
struct KeyList {
    /// Lifted keys in sorted order, with their coefficients.
    keys: [(PublicKey, Scalar); 2],
    /// Their weighted sum, before any tweak.
    sum: PublicKey,
}

impl KeyList {
    fn new(keys: [PublicKey; 2], version: Musig2Version) -> Result<KeyList, KeyError> {
        let what = "aggregate key";
        let mut keys = keys.map(|key| version.lift(&key));
        keys.sort_by_key(|key| version.name(key));
        let names = keys.map(|key| version.name(&key));
        let list = tagged_hash("KeyAgg list", &[&names[0], &names[1]]);
        // The second *distinct* key has coefficient 1; of two equal keys, neither.
        let second_is_distinct = names[0] != names[1];
        let coefficient = |index: usize| match index {
            1 if second_is_distinct => Scalar::ONE,
            _ => scalar_mod_order(tagged_hash("KeyAgg coefficient", &[&list, &names[index]])),
        };
        let keys = [(keys[0], coefficient(0)), (keys[1], coefficient(1))];
        let sum = multiply(&keys[0].0, &keys[0].1, what)?;
        let sum = sum.combine(&multiply(&keys[1].0, &keys[1].1, what)?).map_err(|_| KeyError::Degenerate { what })?;
        Ok(KeyList { keys, sum })
    }

    /// The coefficient of a signer, when it is one of the two.
    fn coefficient(&self, lifted: &PublicKey) -> Option<Scalar> {
        self.keys.iter().find(|(key, _)| key == lifted).map(|(_, coefficient)| *coefficient)
    }
}

fn multiply(point: &PublicKey, scalar: &Scalar, what: &'static str) -> Result<PublicKey, KeyError> {
    point.mul_tweak(&SECP, scalar).map_err(|_| KeyError::Degenerate { what })
}

fn negate_if(condition: bool, secret: SecretKey) -> SecretKey {
    if condition { secret.negate() } else { secret }
}

fn negate_point_if(condition: bool, point: PublicKey) -> PublicKey {
    if condition { point.negate(&SECP) } else { point }
}

fn is_odd(point: &PublicKey) -> bool {
    point.x_only_public_key().1 == Parity::Odd
}

/// The sum of two points, or nothing for the point at infinity.
fn add(left: Option<PublicKey>, right: Option<PublicKey>) -> Option<PublicKey> {
    match (left, right) {
        (Some(left), Some(right)) => left.combine(&right).ok(),
        (one, None) | (None, one) => one,
    }
}

/// The aggregate of two keys (sorted by this function) before any taproot tweak.
///
/// # Errors
/// [`KeyError::Degenerate`].
pub fn aggregate(keys: [PublicKey; 2], version: Musig2Version) -> Result<XOnlyPublicKey, KeyError> {
    Ok(KeyList::new(keys, version)?.sum.x_only_public_key().0)
}

/// Secret nonces of one session: consumed by signing, masked when printed, wiped when dropped.
///
/// Neither `Clone` nor `Copy`, and no way to read the bytes: a second signature under the same nonces does not compile.
pub struct SecretNonce([SecretKey; 2]);

impl fmt::Debug for SecretNonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretNonce(secret)")
    }
}

impl Drop for SecretNonce {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(SecretKey::non_secure_erase);
    }
}

/// A nonce pair from 32 fresh random bytes. The same bytes must never be used twice.
///
/// # Errors
/// [`KeyError::Degenerate`].
///
/// # Source
/// BIP-327 "Nonce Generation" without its optional arguments; which nonces a signer draws is its own affair.
pub fn nonce_from(random: [u8; 32], signer: &PublicKey) -> Result<(SecretNonce, PublicNonce), KeyError> {
    let key = signer.serialize();
    // Length of the key, key, no aggregate key, no message, no extra input, index.
    let half = |index: u8| {
        let hash = tagged_hash("MuSig/nonce", &[&random, &[33], &key, &[0], &[0], &[0; 4], &[index]]);
        nonzero(scalar_mod_order(hash), "nonce")
    };
    let secret = SecretNonce([half(0)?, half(1)?]);
    let public = PublicNonce::of(&secret);
    Ok((secret, public))
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

/// What follows from a [`SigningContext`].
struct Session {
    list: KeyList,
    /// Tweaked output key.
    output_key: XOnlyPublicKey,
    /// Signers negate their secret: parities of the aggregate before and after the tweak differ.
    negate_secrets: bool,
    /// What the tweak adds to the sum of the halves, before the challenge.
    tweak: SecretKey,
    /// Coefficient of the second nonces.
    nonce_coefficient: Scalar,
    /// Final nonce point.
    nonce_point: PublicKey,
    /// BIP-340 challenge.
    challenge: Scalar,
}

impl SigningContext {
    fn session(&self) -> Result<Session, KeyError> {
        let list = KeyList::new(self.keys, self.version)?;
        let (internal, internal_parity) = list.sum.x_only_public_key();
        let tweak = scalar_mod_order(tagged_hash("TapTweak", &[&internal.serialize(), &self.merkle_root]));
        let lifted = PublicKey::from_x_only_public_key(internal, Parity::Even);
        let output = add_generator(&lifted, &tweak, "output key")?;
        let (output_key, output_parity) = output.x_only_public_key();
        let (aggregate, encoded) = self.aggregate_nonces()?;
        let message = &self.message;
        let nonce_hash = tagged_hash("MuSig/noncecoef", &[&encoded, &output_key.serialize(), message]);
        let nonce_coefficient = scalar_mod_order(nonce_hash);
        let second = aggregate[1].map(|point| multiply(&point, &nonce_coefficient, "nonce")).transpose()?;
        // A sum at infinity is replaced by the generator, so that the dishonest signer can be found later.
        let nonce_point = add(aggregate[0], second).unwrap_or_else(generator);
        let nonce_x = nonce_point.x_only_public_key().0.serialize();
        let challenge = tagged_hash("BIP0340/challenge", &[&nonce_x, &output_key.serialize(), message]);
        Ok(Session {
            list,
            output_key,
            negate_secrets: internal_parity != output_parity,
            tweak: negate_if(output_parity == Parity::Odd, nonzero(tweak, "taproot tweak")?),
            nonce_coefficient,
            nonce_point,
            challenge: scalar_mod_order(challenge),
        })
    }

    /// The sums of both halves of the nonces, as points and as 66 bytes (33 zero bytes for infinity).
    fn aggregate_nonces(&self) -> Result<([Option<PublicKey>; 2], [u8; 66]), KeyError> {
        let [mine, theirs] = [self.nonces[0].points()?, self.nonces[1].points()?];
        let sums = [add(Some(mine[0]), Some(theirs[0])), add(Some(mine[1]), Some(theirs[1]))];
        let mut encoded = [0; 66];
        for (half, sum) in encoded.chunks_exact_mut(POINT).zip(sums) {
            half.copy_from_slice(&sum.map_or([0; POINT], |point| point.serialize()));
        }
        Ok((sums, encoded))
    }

    /// One signer's half.
    ///
    /// # Errors
    /// [`KeyError::Degenerate`] for invalid nonces or keys, when `secret` is of neither key, or when `nonce` is of
    /// neither public nonce.
    pub fn partial_sign(&self, secret: &SecretKey, nonce: SecretNonce) -> Result<PartialSignature, KeyError> {
        let degenerate = |_| KeyError::Degenerate { what: "partial signature" };
        let session = self.session()?;
        let own_key = secret.public_key(&SECP);
        let lifted = self.version.lift(&own_key);
        let own_public = PublicNonce::of(&nonce);
        let coefficient = session.list.coefficient(&lifted).ok_or(KeyError::Degenerate { what: "signer's key" })?;
        if !self.nonces.contains(&own_public) {
            return Err(KeyError::Degenerate { what: "signer's nonce" });
        }
        // In v0.4.0 the lifted point differs from the own one when the own one is odd.
        let signing = negate_if(session.negate_secrets != (lifted != own_key), *secret);
        let key_part = signing.mul_tweak(&coefficient).map_err(degenerate)?;
        let key_part = key_part.mul_tweak(&session.challenge).map_err(degenerate)?;
        let second = nonce.0[1].mul_tweak(&session.nonce_coefficient).map_err(degenerate)?;
        let nonce_part = nonce.0[0].add_tweak(&Scalar::from(second)).map_err(degenerate)?;
        let nonce_part = negate_if(is_odd(&session.nonce_point), nonce_part);
        let half = nonce_part.add_tweak(&Scalar::from(key_part)).map_err(degenerate)?;
        Ok(PartialSignature(half.secret_bytes()))
    }

    /// Whether `partial` is the half of the signer with this key and nonce.
    pub fn verify_partial(&self, signer: &PublicKey, nonce: &PublicNonce, partial: &PartialSignature) -> bool {
        self.check_partial(signer, nonce, partial).is_ok_and(|valid| valid)
    }

    fn check_partial(
        &self,
        signer: &PublicKey,
        nonce: &PublicNonce,
        partial: &PartialSignature,
    ) -> Result<bool, KeyError> {
        let what = "partial signature";
        let session = self.session()?;
        let lifted = self.version.lift(signer);
        let coefficient = session.list.coefficient(&lifted).ok_or(KeyError::Degenerate { what })?;
        if !self.nonces.contains(nonce) {
            return Ok(false);
        }
        let half = SecretKey::from_slice(&partial.0).map_err(|_| KeyError::Degenerate { what })?;
        let [first, second] = nonce.points()?;
        let second = multiply(&second, &session.nonce_coefficient, what)?;
        let nonce_part = add(Some(first), Some(second)).map(|sum| negate_point_if(is_odd(&session.nonce_point), sum));
        let weighted = multiply(&multiply(&lifted, &coefficient, what)?, &session.challenge, what)?;
        let key_part = negate_point_if(session.negate_secrets, weighted);
        Ok(add(nonce_part, Some(key_part)) == Some(half.public_key(&SECP)))
    }

    /// The final signature of the tweaked aggregate.
    ///
    /// # Errors
    /// [`KeyError::Degenerate`] for invalid scalars, or when the sum is not a valid signature.
    pub fn combine(&self, partials: [PartialSignature; 2]) -> Result<[u8; 64], KeyError> {
        let what = "combined signature";
        let degenerate = |_| KeyError::Degenerate { what };
        let session = self.session()?;
        let [first, second] = partials.map(|partial| SecretKey::from_slice(&partial.0));
        let sum =
            first.map_err(degenerate)?.add_tweak(&Scalar::from(second.map_err(degenerate)?)).map_err(degenerate)?;
        let tweak = session.tweak.mul_tweak(&session.challenge).map_err(degenerate)?;
        let sum = sum.add_tweak(&Scalar::from(tweak)).map_err(degenerate)?;
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&session.nonce_point.x_only_public_key().0.serialize());
        bytes[32..].copy_from_slice(&sum.secret_bytes());
        let signature = Signature::from_slice(&bytes).map_err(degenerate)?;
        let message = Message::from_digest(self.message);
        SECP.verify_schnorr(&signature, &message, &session.output_key).map_err(degenerate)?;
        Ok(bytes)
    }
}

fn generator() -> PublicKey {
    nonzero(Scalar::ONE, "generator").expect("one is a valid scalar").public_key(&SECP)
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

    /// The public half of a secret nonce.
    fn of(secret: &SecretNonce) -> PublicNonce {
        let mut bytes = [0; 66];
        for (half, key) in bytes.chunks_exact_mut(POINT).zip(&secret.0) {
            half.copy_from_slice(&key.public_key(&SECP).serialize());
        }
        PublicNonce(bytes)
    }

    /// Both points.
    fn points(&self) -> Result<[PublicKey; 2], KeyError> {
        let read =
            |bytes: &[u8]| PublicKey::from_slice(bytes).map_err(|_| KeyError::NotAPoint { what: "public nonce" });
        Ok([read(&self.0[..POINT])?, read(&self.0[POINT..])?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn bytes(entry: &Value, key: &str) -> Vec<u8> {
        hex::FromHex::from_hex(entry[key].as_str().unwrap()).unwrap()
    }

    fn b32(entry: &Value, key: &str) -> [u8; 32] {
        bytes(entry, key).try_into().unwrap()
    }

    /// Draft v1.0.0-rc2 is recorded with its secret nonces: both scalars, then the signer's key.
    #[test]
    fn halves_equal_the_recorded_ones() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/musig2_signing.json");
        let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let mut count = 0;
        for entry in file["vectors"].as_array().unwrap().iter().filter(|entry| entry.get("trader_sec_nonce").is_some())
        {
            let key = |name| PublicKey::from_slice(&bytes(entry, name)).unwrap();
            let nonce = |name| PublicNonce::from_slice(&bytes(entry, name)).unwrap();
            let context = SigningContext {
                version: Musig2Version::V100Rc2,
                keys: [key("trader_key"), key("auctioneer_key")],
                merkle_root: b32(entry, "merkle_root"),
                nonces: [nonce("trader_pub_nonce"), nonce("auctioneer_pub_nonce")],
                message: b32(entry, "message"),
            };
            let (_, sum) = context.aggregate_nonces().unwrap();
            assert_eq!(sum.to_vec(), bytes(entry, "aggregated_nonce"));
            for side in ["trader", "auctioneer"] {
                let secrets = bytes(entry, &format!("{side}_sec_nonce"));
                let half = |range| SecretKey::from_slice(&secrets[range]).unwrap();
                let nonce = SecretNonce([half(0..32), half(32..64)]);
                let secret = SecretKey::from_slice(&bytes(entry, &format!("{side}_privkey"))).unwrap();
                let partial = context.partial_sign(&secret, nonce).unwrap();
                assert_eq!(partial.0, b32(entry, &format!("{side}_partial_sig")));
            }
            count += 1;
        }
        assert!(count > 0);
    }

    #[test]
    fn secret_nonces_do_not_print() {
        let key = SecretKey::from_slice(&[1; 32]).unwrap().public_key(&SECP);
        let (nonce, _) = nonce_from([2; 32], &key).unwrap();
        assert_eq!(format!("{nonce:?}"), "SecretNonce(secret)");
    }
}
