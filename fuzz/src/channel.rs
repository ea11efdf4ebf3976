//! Decoders of what the node hands over: backups, witnesses, incoming channels, halves of signatures.

use crate::bytes::Bytes;
use crate::material::{point, sats, secret};
use bitcoin::Witness;
use bitcoin::hashes::{Hash, sha256};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use tidegate_protocol::backup::{BackupError, decrypt_and_parse};
use tidegate_protocol::channel::{AcceptorDecision, AcceptorRule, CommitmentType, IncomingChannel};
use tidegate_protocol::musig2::{Musig2Version, PartialSignature, PublicNonce, SigningContext, nonce_from};
use tidegate_protocol::order::OrderChannelType;
use tidegate_protocol::script::{SpendKind, classify_spend};

/// An encrypted backup: 33 bytes of key, then the file.
pub fn channel_backup(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let key = bitcoin::secp256k1::PublicKey::from_slice(bytes.take(33)).unwrap_or_else(|_| point(0));
    if let Err(error) = decrypt_and_parse(&key, bytes.rest()) {
        assert!(!error.to_string().is_empty());
    }
}

/// What a backup holds once decrypted: the target encrypts it first, so that the parser is reached.
pub fn channel_backup_plain(data: &[u8]) {
    let backup_key = point(0);
    let key = sha256::Hash::hash(&backup_key.serialize()).to_byte_array();
    let nonce = [7; 24];
    let sealed = XChaCha20Poly1305::new(&key.into())
        .encrypt(XNonce::from_slice(&nonce), Payload { msg: data, aad: &nonce })
        .expect("shorter than the cipher's limit");
    match decrypt_and_parse(&backup_key, &[&nonce[..], &sealed].concat()) {
        Err(BackupError::Decrypt) => panic!("our own encryption does not open"),
        Err(error) => assert!(!error.to_string().is_empty()),
        // Smallest form: outer three bytes, and everything of fixed length in the body.
        Ok(_) => assert!(data.len() >= 3 + 1 + 32 + 34 + 8 + 33 + 2 + 8 + 42 + 167 + 41),
    }
}

/// A witness: elements of up to 255 bytes, each after its length.
pub fn witness(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let mut elements: Vec<&[u8]> = Vec::new();
    while !bytes.is_empty() {
        let length = usize::from(bytes.u8());
        elements.push(bytes.take(length));
    }
    let kind = classify_spend(&Witness::from_slice(&elements));
    let possible = match kind {
        SpendKind::Cooperative => matches!(elements.len(), 1 | 3),
        SpendKind::Expiry => matches!(elements.len(), 3 | 4),
        SpendKind::Unknown => true,
    };
    assert!(possible, "{kind:?} of {} elements", elements.len());
}

/// A rule of ours and a channel that somebody wants to open.
pub fn acceptor(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let channel_types =
        [OrderChannelType::PeerDependent, OrderChannelType::ScriptEnforced, OrderChannelType::SimpleTaproot];
    let rule = AcceptorRule {
        self_balance: sats(u64::from(bytes.u32())),
        channel_type: bytes.pick(&channel_types),
        unannounced: bytes.flag(),
        zero_conf: bytes.flag(),
    };
    let push_sat = if bytes.flag() { bytes.u64() } else { rule.self_balance.get() };
    let incoming = IncomingChannel {
        push_msat: push_sat.saturating_mul(1_000).saturating_add(bytes.u16().into()),
        commitment: bytes.flag().then(|| u32::from(bytes.u8() % 8)),
        channel_flags: bytes.u32(),
        wants_zero_conf: bytes.flag(),
    };
    match rule.decide(&incoming) {
        AcceptorDecision::Refuse(why) => assert!(!why.is_empty()),
        AcceptorDecision::Accept { zero_conf } => {
            assert_eq!(zero_conf, rule.zero_conf);
            assert!(!zero_conf || incoming.wants_zero_conf);
            assert_eq!(incoming.push_msat / 1_000, rule.self_balance.get());
            assert_eq!(incoming.channel_flags & 1 == 0, rule.unannounced);
            let wanted = match rule.channel_type {
                OrderChannelType::PeerDependent => None,
                OrderChannelType::ScriptEnforced => Some(CommitmentType::ScriptEnforcedLease.number()),
                OrderChannelType::SimpleTaproot => Some(CommitmentType::SimpleTaproot.number()),
            };
            assert!(wanted.is_none() || wanted == incoming.commitment);
        }
    }
}

/// The venue's nonces and half of a signature, received for a session of ours.
pub fn musig2(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let version = if bytes.flag() { Musig2Version::V040 } else { Musig2Version::V100Rc2 };
    let (mine, theirs) = (bytes.below(64), bytes.below(64));
    let Ok((nonce, public)) = nonce_from(version, bytes.bytes32(), &point(mine)) else { return };
    let message = bytes.bytes32();
    let merkle_root = bytes.bytes32();
    let foreign = match bytes.u8() % 3 {
        0 => public,
        // Points that cancel ours, or any.
        1 => {
            let mut opposite = public;
            opposite.0[0] ^= 1;
            opposite.0[33] ^= bytes.u8() & 1;
            opposite
        }
        _ => match PublicNonce::from_slice(bytes.take(66)) {
            Ok(nonce) => nonce,
            Err(_) => return,
        },
    };
    let keys = [point(mine), point(theirs)];
    let context = SigningContext { version, keys, merkle_root, nonces: [public, foreign], message };
    let half = PartialSignature(bytes.bytes32());
    let valid = context.verify_partial(&keys[1], &foreign, &half);
    let Ok(own) = context.partial_sign(&secret(mine), nonce) else { return };
    assert!(context.verify_partial(&keys[0], &public, &own), "our own half is not valid");
    // With one key or one nonce pair used twice a random half might still pass; otherwise both valid means signed.
    let combined = context.combine([own, half]);
    assert!(!valid || combined.is_ok(), "two valid halves make no signature");
}
