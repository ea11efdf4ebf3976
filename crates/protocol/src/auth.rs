//! Hash chain of the account handshake.
//!
//! # Source
//! Protocol notes, batch §5.

use crate::curve::{SECP, sha256_of};
use crate::keys::AccountKey;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{Message, PublicKey};

/// First step: `SHA256(ser33(T) || nonce)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitHash(pub [u8; 32]);

/// Second step: `SHA256(commit || server nonce)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AuthChallenge(pub [u8; 32]);

impl CommitHash {
    /// Commits to an account under a fresh nonce.
    pub fn of(account: AccountKey, nonce: &[u8; 32]) -> CommitHash {
        CommitHash(sha256_of(&[&account.serialize(), nonce]))
    }
}

impl AuthChallenge {
    /// The venue's challenge to a commitment under its own fresh nonce.
    pub fn of(commit: CommitHash, server_nonce: &[u8; 32]) -> AuthChallenge {
        AuthChallenge(sha256_of(&[&commit.0, server_nonce]))
    }

    /// What the account key signs (as a message, hashed once more): `SHA256(commit || challenge)`.
    pub fn auth_hash(self, commit: CommitHash) -> [u8; 32] {
        sha256_of(&[&commit.0, &self.0])
    }
}

/// Whether `der` is a signature by `key` over `SHA256(message)`. Malformed signatures are simply not valid.
pub fn verify_message(key: &PublicKey, message: &[u8], der: &[u8]) -> bool {
    let Ok(mut signature) = Signature::from_der(der) else { return false };
    // A high s names the same signer; nodes that verify with other libraries accept it too.
    signature.normalize_s();
    let digest = Message::from_digest(sha256_of(&[message]));
    SECP.verify_ecdsa(&digest, &signature, key).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::secp256k1::SecretKey;

    #[test]
    fn accepts_only_the_signers_signature_over_this_message() {
        let secret = SecretKey::from_slice(&[7; 32]).unwrap();
        let key = secret.public_key(&SECP);
        let digest = Message::from_digest(sha256_of(&[b"order"]));
        let der = SECP.sign_ecdsa(&digest, &secret).serialize_der().to_vec();
        assert!(verify_message(&key, b"order", &der));
        assert!(!verify_message(&key, b"other", &der));
        assert!(!verify_message(&SecretKey::from_slice(&[8; 32]).unwrap().public_key(&SECP), b"order", &der));
        assert!(!verify_message(&key, b"order", &der[..der.len() - 1]));
        assert!(!verify_message(&key, b"order", &[]));
    }
}
