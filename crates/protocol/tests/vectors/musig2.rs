//! MuSig2 traces of both drafts. What needs recorded secret nonces is in the module's own tests.

use crate::local::terms;
use crate::support::{Entry, hex, judge, load, load_own};
use serde_json::Value;
use tidegate_protocol::bitcoin::secp256k1::SecretKey;
use tidegate_protocol::musig2::{Musig2Version, PartialSignature, PublicNonce, SigningContext, aggregate, nonce_from};

fn draft(entry: &Value) -> Musig2Version {
    match entry.text("musig2_version") {
        "v0.4.0" => Musig2Version::V040,
        "v1.0.0-rc2" => Musig2Version::V100Rc2,
        other => panic!("draft {other}"),
    }
}

fn context(entry: &Value) -> SigningContext {
    SigningContext {
        version: draft(entry),
        keys: [entry.point("trader_key"), entry.point("auctioneer_key")],
        merkle_root: entry.b32("merkle_root"),
        nonces: ["trader_pub_nonce", "auctioneer_pub_nonce"]
            .map(|key| PublicNonce::from_slice(&entry.bytes(key)).unwrap()),
        message: entry.b32("message"),
    }
}

#[test]
fn recorded_signatures_verify_and_combine() {
    let Some(file) = load("musig2_signing.json") else { return };
    judge("musig2_signing.json", &file, "vectors", |entry| {
        let context = context(entry);
        let terms = terms(entry, "script_version");
        assert_eq!(terms.version.musig2(), Some(context.version));
        assert_eq!(terms.merkle_root().unwrap(), context.merkle_root);
        assert_eq!(hex(&aggregate(context.keys, context.version).unwrap().serialize()), entry.text("internal_key"));
        assert_eq!(hex(&terms.output_script().unwrap().as_bytes()[2..]), entry.text("output_key"));
        let partials = ["trader_partial_sig", "auctioneer_partial_sig"].map(|key| PartialSignature(entry.b32(key)));
        for (index, partial) in partials.iter().enumerate() {
            let (key, nonce) = (context.keys[index], context.nonces[index]);
            assert!(context.verify_partial(&key, &nonce, partial), "{entry}");
            assert!(!context.verify_partial(&key, &nonce, &partials[1 - index]));
            assert!(!context.verify_partial(&context.keys[1 - index], &nonce, partial));
            let mut altered = *partial;
            altered.0[31] ^= 1;
            assert!(!context.verify_partial(&key, &nonce, &altered));
        }
        assert_eq!(hex(&context.combine(partials).unwrap()), entry.text("final_sig"));
        assert!(context.combine([partials[0], partials[0]]).is_err());
    });
}

/// The library that recorded them draws nonces with more input, so the halves differ; that a half equals the recorded one
/// for the recorded nonces is a unit test of the module, which alone can take secret nonces.
#[test]
fn own_halves_complete_recorded_keys() {
    let Some(file) = load("musig2_signing.json") else { return };
    judge("musig2_signing.json", &file, "vectors", |entry| {
        let mut context = context(entry);
        let (trader, trader_public) = nonce_from(context.version, [1; 32], &context.keys[0]).unwrap();
        let (auctioneer, auctioneer_public) = nonce_from(context.version, [2; 32], &context.keys[1]).unwrap();
        context.nonces = [trader_public, auctioneer_public];
        let first = context.partial_sign(&entry.secret("trader_privkey"), trader).unwrap();
        let second = context.partial_sign(&entry.secret("auctioneer_privkey"), auctioneer).unwrap();
        assert!(context.verify_partial(&context.keys[0], &trader_public, &first));
        assert!(context.verify_partial(&context.keys[1], &auctioneer_public, &second));
        assert!(context.combine([second, first]).is_ok());
    });
}

#[test]
fn foreign_keys_and_nonces_are_refused() {
    let file = load_own("musig2_signing.json");
    let entry = &file.list("vectors")[0];
    let mut context = context(entry);
    let (nonce, public) = nonce_from(context.version, [5; 32], &context.keys[0]).unwrap();
    assert!(context.partial_sign(&entry.secret("trader_privkey"), nonce).is_err(), "nonce of neither side");
    context.nonces[0] = public;
    let (nonce, _) = nonce_from(context.version, [5; 32], &context.keys[0]).unwrap();
    assert!(context.partial_sign(&SecretKey::from_slice(&[9; 32]).unwrap(), nonce).is_err(), "key of neither side");
    assert!(PublicNonce::from_slice(&[2; 65]).is_err());
    assert!(PublicNonce::from_slice(&[0; 66]).is_err());
}
