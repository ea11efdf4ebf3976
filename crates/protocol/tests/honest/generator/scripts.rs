//! Scripts from secrets: what both sides of an output know together, so that no code of the package is needed to make one.

use super::draw::Draw;
use std::sync::LazyLock;
use tidegate_protocol::account::AccountVersion;
use tidegate_protocol::bitcoin::ScriptBuf;
use tidegate_protocol::bitcoin::hashes::{Hash, HashEngine, sha256};
use tidegate_protocol::bitcoin::secp256k1::{All, Parity, PublicKey, Scalar, Secp256k1, SecretKey};
use tidegate_protocol::channel::CommitmentType;

static SECP: LazyLock<Secp256k1<All>> = LazyLock::new(Secp256k1::new);

pub(crate) fn secret(draw: &mut Draw) -> SecretKey {
    SecretKey::from_slice(&draw.bytes()).expect("a random number is a key")
}

pub(crate) fn point(secret: &SecretKey) -> PublicKey {
    secret.public_key(&SECP)
}

/// The key one step further in the sequence.
pub(crate) fn next(secret: SecretKey) -> SecretKey {
    secret.add_tweak(&Scalar::ONE).expect("not the last key")
}

pub(crate) fn sha256_of(parts: &[&[u8]]) -> [u8; 32] {
    let mut engine = sha256::Hash::engine();
    parts.iter().for_each(|part| engine.input(part));
    sha256::Hash::from_engine(engine).to_byte_array()
}

fn tagged(tag: &str, parts: &[&[u8]]) -> [u8; 32] {
    let tag = sha256_of(&[tag.as_bytes()]);
    sha256_of(&[&[&tag[..], &tag[..]], parts].concat())
}

fn scalar(hash: [u8; 32]) -> Scalar {
    Scalar::from_be_bytes(hash).expect("a hash below the group's order")
}

fn even(secret: SecretKey) -> SecretKey {
    match point(&secret).x_only_public_key().1 {
        Parity::Even => secret,
        Parity::Odd => secret.negate(),
    }
}

fn x_of(secret: &SecretKey) -> [u8; 32] {
    point(secret).x_only_public_key().0.serialize()
}

/// The secret that the aggregate of two keys has, by either draft.
fn aggregate(secrets: [SecretKey; 2], x_only: bool) -> SecretKey {
    let mut keys = secrets.map(|secret| match x_only {
        true => (x_of(&secret).to_vec(), even(secret)),
        false => (point(&secret).serialize().to_vec(), secret),
    });
    keys.sort_by(|a, b| a.0.cmp(&b.0));
    let list = tagged("KeyAgg list", &[&keys[0].0, &keys[1].0]);
    let coefficient = scalar(tagged("KeyAgg coefficient", &[&list, &keys[0].0]));
    keys[0].1.mul_tweak(&coefficient).unwrap().add_tweak(&Scalar::from(keys[1].1)).unwrap()
}

fn taproot(internal: SecretKey, root: &[u8]) -> ScriptBuf {
    let tweak = scalar(tagged("TapTweak", &[&x_of(&internal), root]));
    let output = even(internal).add_tweak(&tweak).unwrap();
    ScriptBuf::from_bytes([&[0x51, 0x20][..], &x_of(&output)].concat())
}

fn p2wsh(script: &[u8]) -> ScriptBuf {
    ScriptBuf::from_bytes([&[0x00, 0x20][..], &sha256_of(&[script])].concat())
}

/// A minimal push of a height above 16.
fn push_height(height: u32) -> Vec<u8> {
    assert!(height > 16);
    let mut number = height.to_le_bytes().to_vec();
    while number.last() == Some(&0) {
        number.pop();
    }
    if number.last().is_some_and(|top| top & 0x80 != 0) {
        number.push(0);
    }
    [&[u8::try_from(number.len()).unwrap()][..], &number].concat()
}

/// All secrets behind an account's output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AccountSecrets {
    pub(crate) trader: SecretKey,
    pub(crate) auctioneer: SecretKey,
    pub(crate) batch: SecretKey,
}

impl AccountSecrets {
    /// What trader and auctioneer share: the hash of the point that both can compute.
    pub(crate) fn shared(&self) -> [u8; 32] {
        let common = point(&self.auctioneer).mul_tweak(&SECP, &Scalar::from(self.trader)).unwrap();
        sha256_of(&[&common.serialize()])
    }

    pub(crate) fn script(&self, version: AccountVersion, expiry: u32) -> ScriptBuf {
        let (trader, auctioneer) = (point(&self.trader).serialize(), point(&self.auctioneer).serialize());
        let tweak = sha256_of(&[&point(&self.batch).serialize(), &self.shared(), &trader]);
        let tweaked = self.trader.add_tweak(&scalar(tweak)).unwrap();
        let height = push_height(expiry);
        if version == AccountVersion::V0 {
            let ours = point(&tweaked).serialize();
            let theirs = self.auctioneer.add_tweak(&scalar(sha256_of(&[&ours, &auctioneer]))).unwrap();
            let theirs = point(&theirs).serialize();
            let parts: [&[u8]; 7] =
                [&[0x21], &ours, &[0xad, 0x21], &theirs, &[0xac, 0x73, 0x64], &height, &[0xb1, 0x68]];
            return p2wsh(&parts.concat());
        }
        let leaf = [&[0x20][..], &x_of(&tweaked), &[0xad], &height, &[0xb1]].concat();
        let length = u8::try_from(leaf.len()).unwrap();
        let root = tagged("TapLeaf", &[&[0xc0, length], &leaf]);
        taproot(aggregate([self.trader, self.auctioneer], version == AccountVersion::V1), &root)
    }
}

pub(crate) fn funding_script(ask: &SecretKey, bid: &SecretKey, commitment: CommitmentType) -> ScriptBuf {
    if commitment == CommitmentType::SimpleTaproot {
        return taproot(aggregate([*ask, *bid], false), &[]);
    }
    let mut keys = [point(ask).serialize(), point(bid).serialize()];
    keys.sort_unstable();
    p2wsh(&[&[0x52, 0x21][..], &keys[0], &[0x21], &keys[1], &[0x52, 0xae]].concat())
}
