//! The handshake of an account: a signature in an encoding that the other side chose.

use crate::bytes::Bytes;
use crate::material::{point, secret};
use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{Message, Secp256k1};
use tidegate_protocol::auth::{AuthChallenge, CommitHash, verify_message};
use tidegate_protocol::keys::AccountKey;

/// The venue's judgement of who a stream belongs to.
pub fn handshake(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let (owner, other) = (bytes.below(64), bytes.below(64));
    let commit = CommitHash::of(AccountKey::new(point(owner)), &bytes.bytes32());
    let hash = AuthChallenge::of(commit, &bytes.bytes32()).auth_hash(commit);
    let der = if bytes.flag() { bytes.rest().to_vec() } else { bent(owner, &hash, &mut bytes) };
    if verify_message(&point(owner), &hash, &der) {
        assert!(owner == other || !verify_message(&point(other), &hash, &der), "a signature of two accounts");
        let mut changed = hash;
        changed[31] ^= 1;
        assert!(!verify_message(&point(owner), &changed, &der), "a signature of two challenges");
    }
}

/// The owner's signature with one byte changed, or none.
fn bent(owner: usize, hash: &[u8; 32], bytes: &mut Bytes<'_>) -> Vec<u8> {
    let digest = Message::from_digest(sha256::Hash::hash(hash).to_byte_array());
    let mut der = Secp256k1::signing_only().sign_ecdsa(&digest, &secret(owner)).serialize_der().to_vec();
    let place = bytes.below(der.len());
    der[place] ^= bytes.u8();
    if bytes.flag() {
        der.extend_from_slice(bytes.rest());
    }
    der
}
