//! The small ports, keys, and what every implementation must be.

use super::now;
use crate::{ManualClock, MemoryStore, SandboxEntropy, SandboxNode, World};
use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{Message, Secp256k1, ecdsa};
use futures_util::FutureExt;
use std::collections::BTreeSet;
use tidegate_ports::{
    Chain, Change, Channels, Clock, Entropy, NodeData, NodeError, Sequence, Signer, Store, StoreError, Timestamp,
    Wallet,
};
use tidegate_protocol::keys::KeyLocator;

#[test]
fn implementations_may_be_shared_between_threads() {
    fn node<T: Wallet + Signer + Chain + Channels + NodeData + Clone + 'static>() {}
    fn shared<T: Send + Sync + 'static>() {}
    node::<SandboxNode>();
    shared::<World>();
    fn small<S: Store, E: Entropy, C: Clock>() {}
    small::<MemoryStore, SandboxEntropy, ManualClock>();
}

#[test]
fn store_is_compare_and_set_over_all_rows() {
    let store = MemoryStore::new();
    let put = |key: &str, value: &str| Change::Put { table: "order", key: key.into(), value: value.into() };
    let first = now(store.apply(Sequence(0), &[put("a", "1"), put("b", "2")]));
    assert_eq!(first, Ok(Sequence(1)));
    let stale = now(store.apply(Sequence(0), &[put("a", "9")]));
    assert_eq!(stale, Err(StoreError::Moved { expected: 0, found: 1 }));
    let removal = Change::Delete { table: "order", key: "a".into() };
    assert_eq!(now(store.clone().apply(Sequence(1), &[removal.clone(), removal])), Ok(Sequence(2)));
    let other = Change::Put { table: "account", key: "z".into(), value: "3".into() };
    now(store.apply(Sequence(2), &[other])).expect("committed");
    let rows = |tables: &[&'static str]| {
        let (sequence, rows) = now(store.load(tables)).expect("loaded");
        assert_eq!(sequence, Sequence(3));
        rows.into_iter().map(|row| format!("{}/{}={}", row.table, row.key, row.value)).collect::<Vec<_>>()
    };
    assert_eq!(rows(&["order"]), ["order/b=2"]);
    assert_eq!(rows(&["order", "account"]), ["account/z=3", "order/b=2"]);
    assert!(rows(&[]).is_empty());
}

#[test]
fn draws_repeat_for_equal_starts_only() {
    let draws = |seed, start| {
        let entropy = SandboxEntropy::new(seed, start);
        [entropy.draw(), entropy.clone().draw(), entropy.draw()]
    };
    assert_eq!(draws(1, 1), draws(1, 1));
    let all: BTreeSet<[u8; 32]> =
        [(1, 1), (1, 2), (2, 1)].into_iter().flat_map(|(seed, start)| draws(seed, start)).collect();
    assert_eq!(all.len(), 9, "no draw repeats, also not in a clone");
    let world = World::new(1);
    let named = [world.entropy("a").draw(), world.entropy("a").draw(), world.entropy("b").draw()];
    assert_eq!(BTreeSet::from(named).len(), 3, "a name goes on with its draws");
}

#[test]
fn clock_moves_when_told() {
    let clock = ManualClock::new(Timestamp(1_000));
    let sleeper = clock.clone();
    let mut sleep = Box::pin(sleeper.sleep_until(Timestamp(1_500)));
    assert!(sleep.as_mut().now_or_never().is_none());
    clock.advance(499);
    assert!(sleep.as_mut().now_or_never().is_none());
    clock.advance(1);
    assert_eq!(sleep.now_or_never(), Some(()));
    assert_eq!(clock.now(), Timestamp(1_500));
}

#[test]
fn keys_follow_from_seed_name_and_place() {
    let key = |seed: u64, name: &str| World::new(seed).add_node(name).id();
    assert_eq!(key(1, "alice"), key(1, "alice"));
    assert_eq!(BTreeSet::from([key(1, "alice"), key(1, "bob"), key(2, "alice")]).len(), 3);
    let node = World::new(1).add_node("alice");
    let first = now(node.derive_next_key(220)).expect("a key");
    let second = now(node.derive_next_key(220)).expect("a key");
    let other = now(node.derive_next_key(0)).expect("a key");
    let at = |family, index| KeyLocator { family, index };
    assert_eq!([first.locator, second.locator, other.locator], [at(220, 0), at(220, 1), at(0, 0)]);
    assert_eq!(now(node.derive_key(at(220, 1))), Ok(second));
    assert_eq!(now(node.derive_key(at(6, 0))).map(|key| key.point), Ok(*node.id().point()));
    let beyond = now(node.derive_key(at(220, 1 << 31)));
    assert!(matches!(beyond, Err(NodeError::Refused { .. })), "{beyond:?}");
}

#[test]
fn message_signature_is_der_over_one_sha256() {
    let node = World::new(1).add_node("alice");
    let key = now(node.derive_next_key(220)).expect("a key");
    let der = now(node.sign_message(b"hello", key.locator)).expect("a signature");
    let signature = ecdsa::Signature::from_der(&der).expect("DER");
    let digest = Message::from_digest(sha256::Hash::hash(b"hello").to_byte_array());
    assert_eq!(Secp256k1::verification_only().verify_ecdsa(&digest, &signature, &key.point), Ok(()));
}

#[test]
fn info_names_the_node() {
    let world = World::new(1);
    let (one, two) = (world.add_node("one"), world.add_node("two"));
    let info = now(one.info()).expect("info");
    assert_eq!((info.id, info.network.as_str(), info.synced), (one.id(), "regtest", true));
    assert_eq!(info.addresses, [one.address()]);
    assert_ne!(one.address(), two.address());
    assert_eq!(world.add_node("one").id(), one.id(), "a name is one node");
    assert_eq!(world.nodes().iter().map(SandboxNode::name).collect::<Vec<_>>(), ["one", "two"]);
    assert!(world.node("three").is_none());
}
