//! Both drafts, done here. Product code comes here for v0.4.0 only.

use super::{Musig2Version, POINT, PartialSignature, PublicNonce, SigningContext};
use crate::curve::{SECP, add_generator, nonzero, scalar_mod_order, tagged_hash};
use crate::keys::KeyError;
use bitcoin::secp256k1::{Parity, PublicKey, Scalar, SecretKey, XOnlyPublicKey};

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
    // Every aggregate has such a coefficient; none of them is secret.
    if *scalar == Scalar::ONE {
        return Ok(*point);
    }
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

/// The aggregate of two keys before any tweak.
pub(super) fn aggregate(keys: [PublicKey; 2], version: Musig2Version) -> Result<XOnlyPublicKey, KeyError> {
    Ok(KeyList::new(keys, version)?.sum.x_only_public_key().0)
}

/// Both scalars, wiped when dropped.
pub(super) struct Nonce(pub(super) [SecretKey; 2]);

impl Nonce {
    /// The points of both scalars.
    fn public(&self) -> PublicNonce {
        let mut bytes = [0; 66];
        for (half, key) in bytes.chunks_exact_mut(POINT).zip(&self.0) {
            half.copy_from_slice(&key.public_key(&SECP).serialize());
        }
        PublicNonce(bytes)
    }
}

impl Drop for Nonce {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(SecretKey::non_secure_erase);
    }
}

/// A nonce pair from fresh random bytes.
pub(super) fn nonce_from(random: [u8; 32], signer: &PublicKey) -> Result<(Nonce, PublicNonce), KeyError> {
    let key = signer.serialize();
    // Length of the key, key, no aggregate key, no message, no extra input, index.
    let half = |index: u8| {
        let hash = tagged_hash("MuSig/nonce", &[&random, &[33], &key, &[0], &[0], &[0; 4], &[index]]);
        nonzero(scalar_mod_order(hash), "nonce")
    };
    let secret = Nonce([half(0)?, half(1)?]);
    let public = secret.public();
    Ok((secret, public))
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

impl Session {
    fn new(context: &SigningContext) -> Result<Session, KeyError> {
        let list = KeyList::new(context.keys, context.version)?;
        let (internal, internal_parity) = list.sum.x_only_public_key();
        let tweak = context.tweak(&internal);
        let lifted = PublicKey::from_x_only_public_key(internal, Parity::Even);
        let output = add_generator(&lifted, &tweak, "output key")?;
        let (output_key, output_parity) = output.x_only_public_key();
        let (aggregate, encoded) = aggregate_nonces(context)?;
        let message = &context.message;
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
}

/// The sums of both halves of the nonces, as points and as 66 bytes (33 zero bytes for infinity).
pub(super) fn aggregate_nonces(context: &SigningContext) -> Result<([Option<PublicKey>; 2], [u8; 66]), KeyError> {
    let [mine, theirs] = [context.nonces[0].points()?, context.nonces[1].points()?];
    let sums = [add(Some(mine[0]), Some(theirs[0])), add(Some(mine[1]), Some(theirs[1]))];
    let mut encoded = [0; 66];
    for (half, sum) in encoded.chunks_exact_mut(POINT).zip(sums) {
        half.copy_from_slice(&sum.map_or([0; POINT], |point| point.serialize()));
    }
    Ok((sums, encoded))
}

/// One signer's half.
pub(super) fn partial_sign(
    context: &SigningContext,
    secret: &SecretKey,
    nonce: &Nonce,
) -> Result<PartialSignature, KeyError> {
    let degenerate = |_| KeyError::Degenerate { what: "partial signature" };
    let session = Session::new(context)?;
    let own_key = secret.public_key(&SECP);
    let lifted = context.version.lift(&own_key);
    let coefficient = session.list.coefficient(&lifted).ok_or(KeyError::Degenerate { what: "signer's key" })?;
    if !context.nonces.contains(&nonce.public()) {
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
pub(super) fn verify_partial(
    context: &SigningContext,
    signer: &PublicKey,
    nonce: &PublicNonce,
    partial: &PartialSignature,
) -> Result<bool, KeyError> {
    let what = "partial signature";
    let session = Session::new(context)?;
    let lifted = context.version.lift(signer);
    let coefficient = session.list.coefficient(&lifted).ok_or(KeyError::Degenerate { what })?;
    if !context.nonces.contains(nonce) {
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

/// The sum of both halves and the tweak, with the key that it should be valid for; not verified.
pub(super) fn combine(
    context: &SigningContext,
    partials: [PartialSignature; 2],
) -> Result<([u8; 64], XOnlyPublicKey), KeyError> {
    let degenerate = |_| KeyError::Degenerate { what: "combined signature" };
    let session = Session::new(context)?;
    let [first, second] = partials.map(|partial| SecretKey::from_slice(&partial.0));
    let sum = first.map_err(degenerate)?.add_tweak(&Scalar::from(second.map_err(degenerate)?)).map_err(degenerate)?;
    let tweak = session.tweak.mul_tweak(&session.challenge).map_err(degenerate)?;
    let sum = sum.add_tweak(&Scalar::from(tweak)).map_err(degenerate)?;
    let mut bytes = [0; 64];
    bytes[..32].copy_from_slice(&session.nonce_point.x_only_public_key().0.serialize());
    bytes[32..].copy_from_slice(&sum.secret_bytes());
    Ok((bytes, session.output_key))
}

fn generator() -> PublicKey {
    nonzero(Scalar::ONE, "generator").expect("one is a valid scalar").public_key(&SECP)
}
