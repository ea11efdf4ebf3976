use super::*;
use bitcoin::secp256k1::constants::CURVE_ORDER;
use secp256k1_musig::musig;
use serde_json::Value;

fn bytes(entry: &Value, key: &str) -> Vec<u8> {
    hex::FromHex::from_hex(entry[key].as_str().unwrap()).unwrap()
}

fn b32(entry: &Value, key: &str) -> [u8; 32] {
    bytes(entry, key).try_into().unwrap()
}

/// The recorded sessions of draft v1.0.0-rc2, which come with their secret nonces.
fn recorded() -> Vec<(Value, SigningContext)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/musig2_signing.json");
    let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let entries = file["vectors"].as_array().unwrap().iter().filter(|entry| entry.get("trader_sec_nonce").is_some());
    let context = |entry: &Value| {
        let key = |name| PublicKey::from_slice(&bytes(entry, name)).unwrap();
        let nonce = |name| PublicNonce::from_slice(&bytes(entry, name)).unwrap();
        SigningContext {
            version: Musig2Version::V100Rc2,
            keys: [key("trader_key"), key("auctioneer_key")],
            merkle_root: b32(entry, "merkle_root"),
            nonces: [nonce("trader_pub_nonce"), nonce("auctioneer_pub_nonce")],
            message: b32(entry, "message"),
        }
    };
    let recorded: Vec<_> = entries.map(|entry| (entry.clone(), context(entry))).collect();
    assert!(!recorded.is_empty());
    recorded
}

const SIDES: [&str; 2] = ["trader", "auctioneer"];

fn secret(entry: &Value, side: &str) -> SecretKey {
    SecretKey::from_slice(&bytes(entry, &format!("{side}_privkey"))).unwrap()
}

#[test]
fn own_halves_equal_the_recorded_ones() {
    for (entry, context) in recorded() {
        let (_, sum) = own::aggregate_nonces(&context).unwrap();
        assert_eq!(sum.to_vec(), bytes(&entry, "aggregated_nonce"));
        for side in SIDES {
            let secrets = bytes(&entry, &format!("{side}_sec_nonce"));
            let half = |range| SecretKey::from_slice(&secrets[range]).unwrap();
            let nonce = own::Nonce([half(0..32), half(32..64)]);
            let partial = own::partial_sign(&context, &secret(&entry, side), &nonce).unwrap();
            assert_eq!(partial.0, b32(&entry, &format!("{side}_partial_sig")));
        }
    }
}

/// The library takes nonces that it drew itself, so the recorded scalars are put into one of its own.
#[test]
fn the_librarys_halves_equal_the_recorded_ones() {
    const SCALARS: core::ops::Range<usize> = 4..68;
    for (entry, context) in recorded() {
        for (index, side) in SIDES.into_iter().enumerate() {
            let (mut nonce, _) = library::nonce_from([1; 32], &context.keys[index]).unwrap();
            let mut form = nonce.secret.take().unwrap().dangerous_into_bytes();
            form[SCALARS].copy_from_slice(&bytes(&entry, &format!("{side}_sec_nonce"))[..64]);
            nonce.secret = Some(musig::SecretNonce::dangerous_from_bytes(form));
            nonce.public = context.nonces[index];
            let partial = context.partial_sign(&secret(&entry, side), SecretNonce(Secret::Library(nonce))).unwrap();
            assert_eq!(partial.0, b32(&entry, &format!("{side}_partial_sig")));
        }
    }
}

/// Keys, nonces, one half each, verification and combination: both implementations, either way round.
#[test]
fn the_library_and_the_own_code_agree_on_draft_v1() {
    for (entry, mut context) in recorded() {
        let keys = context.keys;
        assert_eq!(library::aggregate(keys), own::aggregate(keys, Musig2Version::V100Rc2));
        let (library_nonce, first) = library::nonce_from([3; 32], &keys[0]).unwrap();
        let (own_nonce, second) = own::nonce_from([4; 32], &keys[1]).unwrap();
        assert_eq!(own::nonce_from([3; 32], &keys[0]).unwrap().1, first);
        context.nonces = [first, second];
        let halves = [
            library::partial_sign(&context, &secret(&entry, "trader"), library_nonce).unwrap(),
            own::partial_sign(&context, &secret(&entry, "auctioneer"), &own_nonce).unwrap(),
        ];
        for index in [0, 1] {
            let (key, nonce) = (&keys[index], &context.nonces[index]);
            for half in halves {
                let expected = half == halves[index];
                assert_eq!(library::verify_partial(&context, key, nonce, &half), Ok(expected));
                assert_eq!(own::verify_partial(&context, key, nonce, &half), Ok(expected));
            }
        }
        let combined = library::combine(&context, halves);
        assert_eq!(combined, own::combine(&context, halves));
        assert_eq!(context.combine(halves), combined.map(|(signature, _)| signature));
        assert!(context.combine([halves[1], halves[1]]).is_err());
    }
}

/// A signer may choose its nonces so that the sums vanish; both implementations go on with the same point.
#[test]
fn nonces_that_cancel_out_do_not_stop_anyone() {
    let (entry, mut context) = recorded().remove(0);
    let (nonce, public) = library::nonce_from([5; 32], &context.keys[0]).unwrap();
    let mut opposite = public;
    for half in opposite.0.chunks_exact_mut(POINT) {
        half[0] ^= 1;
    }
    context.nonces = [public, opposite];
    let half = library::partial_sign(&context, &secret(&entry, "trader"), nonce).unwrap();
    assert_eq!(library::verify_partial(&context, &context.keys[0], &public, &half), Ok(true));
    assert_eq!(own::verify_partial(&context, &context.keys[0], &public, &half), Ok(true));
}

#[test]
fn what_the_library_would_panic_at_is_refused() {
    let (entry, mut context) = recorded().remove(0);
    let draft = Musig2Version::V100Rc2;
    let degenerate = |what| KeyError::Degenerate { what };
    assert_eq!(nonce_from(draft, [0; 32], &context.keys[0]).map(drop), Err(degenerate("nonce")));
    let (foreign, public) = nonce_from(draft, [6; 32], &context.keys[1]).unwrap();
    context.nonces[0] = public;
    let refused = context.partial_sign(&secret(&entry, "trader"), foreign);
    assert_eq!(refused, Err(degenerate("signer's nonce")), "of the other signer");
    let (other_draft, public) = nonce_from(Musig2Version::V040, [7; 32], &context.keys[0]).unwrap();
    context.nonces[0] = public;
    let refused = context.partial_sign(&secret(&entry, "trader"), other_draft);
    assert_eq!(refused, Err(degenerate("draft of the nonce")));
    let invalid = PartialSignature(CURVE_ORDER);
    assert!(!context.verify_partial(&context.keys[0], &context.nonces[0], &invalid));
    assert_eq!(context.combine([invalid, invalid]), Err(degenerate("partial signature")));
    context.nonces[1] = PublicNonce([2; 66]);
    assert!(context.combine([PartialSignature([1; 32]); 2]).is_err());
}

#[test]
fn secret_nonces_do_not_print() {
    let key = SecretKey::from_slice(&[1; 32]).unwrap().public_key(&SECP);
    for draft in [Musig2Version::V040, Musig2Version::V100Rc2] {
        let (nonce, _) = nonce_from(draft, [2; 32], &key).unwrap();
        assert_eq!(format!("{nonce:?}"), "SecretNonce(secret)");
    }
}
