//! Keys, tweaks, account scripts, spends.

use crate::local::terms;
use crate::support::{Entry, hex, judge, load, report, unhex};
use serde_json::Value;
use std::collections::BTreeMap;
use tidegate_protocol::account::{self, Account, AccountTerms, AccountVersion};
use tidegate_protocol::auth::{AuthChallenge, CommitHash};
use tidegate_protocol::bitcoin::hashes::{Hash, sha256};
use tidegate_protocol::bitcoin::secp256k1::{Scalar, Secp256k1, SecretKey};
use tidegate_protocol::bitcoin::taproot::LeafVersion;
use tidegate_protocol::bitcoin::{Address, Network, OutPoint, ScriptBuf, Txid, WPubkeyHash, Witness};
use tidegate_protocol::fees::reference_premium;
use tidegate_protocol::keys::{AccountKey, AuctioneerKey, BatchKey, FAMILY_ACCOUNT, KeyLocator, SharedSecret};
use tidegate_protocol::script::{INITIAL_BATCH_KEY, MAX_BATCH_HISTORY, SpendKind, classify_spend};
use tidegate_protocol::spend::{ClosePath, close_to_script};
use tidegate_protocol::units::{BlockCount, BlockHeight, RatePerBillion, SATS_PER_UNIT, SatPerKw, Sats};
use tidegate_protocol::{batch::BatchVersion, recovery, sizes};

/// Terms whose scripts have the sizes that everybody estimates with.
fn sample(version: AccountVersion) -> AccountTerms {
    let point = |seed: u8| SecretKey::from_slice(&[seed; 32]).unwrap().public_key(&Secp256k1::new());
    AccountTerms {
        version,
        trader: AccountKey::new(point(1)),
        auctioneer: AuctioneerKey::new(point(2)),
        batch: INITIAL_BATCH_KEY.parse().unwrap(),
        secret: SharedSecret::new([3; 32]),
        expiry: BlockHeight::new(850_000),
    }
}

/// Estimates of version 0 assume an expiry of four bytes, those of the taproot versions one of three.
fn script_bytes(version: AccountVersion) -> u64 {
    let expiry = BlockHeight::new(if version == AccountVersion::V0 { 1 << 23 } else { 850_000 });
    let terms = AccountTerms { expiry, ..sample(version) };
    u64::try_from(terms.inner_script().unwrap().len()).unwrap()
}

/// Numbers of which this package knows nothing: defaults of the programs, and a market that the wire no longer names.
const OF_OTHERS: [&str; 3] =
    ["default_batch_step_timeout_sec", "default_funding_conf_target", "legacy_lease_duration_bucket"];

#[test]
fn constants_are_the_networks() {
    let Some(file) = load("constants.json") else { return };
    let v0 = AccountVersion::V0;
    let v2 = AccountVersion::V2;
    // One part of the rate's unit earns one satoshi of that many, per block.
    let part = |amount| reference_premium(Sats::constant(amount), RatePerBillion::new(1), BlockCount::new(1));
    assert_eq!((part(999_999_999), part(1_000_000_000)), (Ok(Sats::ZERO), Ok(Sats::constant(1))));
    let numbers = [
        ("account_key_family", u64::from(FAMILY_ACCOUNT)),
        ("account_witness_script_size", script_bytes(v0)),
        ("base_supply_unit", SATS_PER_UNIT),
        ("default_account_key_window", u64::from(recovery::DEFAULT_KEYS)),
        ("expiry_witness_size", sizes::expiry_witness_size(v0)),
        ("fee_per_kw_floor", SatPerKw::FLOOR.get()),
        ("fee_rate_total_parts", 1_000_000_000),
        ("input_size", sizes::INPUT),
        ("latest_batch_version", 58),
        ("max_batch_id_history_lookup", u64::try_from(MAX_BATCH_HISTORY).unwrap()),
        // What the witness of version 0 is made of: count, lengths, two signatures, script.
        ("max_witness_sig_len", (sizes::cooperative_witness_size(v0) - 4 - script_bytes(v0)) / 2),
        ("min_account_value", account::MIN_ACCOUNT_VALUE.get()),
        ("min_no_dust_account_size", account::MIN_RECREATED_VALUE.get()),
        ("multisig_witness_size", sizes::cooperative_witness_size(v0)),
        ("p2sh_output_size", sizes::P2SH_OUTPUT),
        ("p2tr_output_size", sizes::P2TR_OUTPUT),
        ("p2wkh_output_size", sizes::P2WKH_OUTPUT),
        ("p2wkh_witness_size", sizes::P2WKH_WITNESS),
        ("p2wsh_output_size", sizes::P2WSH_OUTPUT),
        ("recovery_first_block_mainnet", u64::from(recovery::FIRST_BLOCK_MAINNET.get())),
        ("recovery_first_block_testnet", u64::from(recovery::FIRST_BLOCK_TESTNET.get())),
        ("taproot_expiry_script_size", script_bytes(v2)),
        ("taproot_expiry_witness_size", sizes::expiry_witness_size(v2)),
        ("taproot_multisig_witness_size", sizes::cooperative_witness_size(v2)),
    ];
    let texts = [
        ("initial_batch_key", INITIAL_BATCH_KEY),
        ("auctioneer_key_mainnet", recovery::AUCTIONEER_MAINNET),
        ("auctioneer_key_testnet", recovery::AUCTIONEER_TESTNET),
    ];
    let ours: BTreeMap<&str, Value> = numbers
        .into_iter()
        .map(|(name, number)| (name, Value::from(number)))
        .chain(texts.into_iter().map(|(name, text)| (name, Value::from(text))))
        .chain([("dust_limits_close", dust_limits())])
        .collect();
    let mut checked = 0;
    for (name, value) in file.as_object().unwrap().iter().filter(|(name, _)| *name != "description") {
        match ours.get(name.as_str()) {
            Some(expected) => assert_eq!(value, expected, "{name}"),
            None if OF_OTHERS.contains(&name.as_str()) => println!("constants.json: {name} is not of this package"),
            None => println!("constants.json: {name} is not known, nothing checked"),
        }
        checked += usize::from(ours.contains_key(name.as_str()));
    }
    let latest = BatchVersion(58);
    assert!(latest.zero_conf() && latest.upgrades_taproot_v2());
    report("constants.json", "numbers", checked);
}

/// The least value that a close pays to each kind of output, found by trying.
fn dust_limits() -> Value {
    let script = sample(AccountVersion::V2).output_script().unwrap();
    let hash = [7; 20];
    let kinds = [
        ("p2sh", script.to_p2sh()),
        ("p2tr", script.clone()),
        ("p2wpkh", ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array(hash))),
        ("p2wsh", script.to_p2wsh()),
    ];
    let limit = |to: &ScriptBuf| {
        let outpoint = Some(OutPoint { txid: Txid::from_byte_array([4; 32]), vout: 0 });
        let locator = KeyLocator { family: FAMILY_ACCOUNT, index: 0 };
        let pays = |value: &u64| {
            let value = Sats::new(*value).unwrap();
            let initiated = Account::initiated(sample(AccountVersion::V0), locator, value, BlockHeight::new(1));
            let account = Account { outpoint, ..initiated };
            let close = close_to_script(&account, to.clone(), SatPerKw::FLOOR, ClosePath::Cooperative);
            close.ok().map(|transaction| transaction.output[0].value.to_sat())
        };
        (1..2_000).find_map(|value| pays(&value)).unwrap()
    };
    kinds.iter().map(|(name, script)| ((*name).to_owned(), Value::from(limit(script)))).collect()
}

#[test]
fn batch_keys_follow_one_another() {
    let Some(file) = load("key_tweaks.json") else { return };
    judge("key_tweaks.json", &file, "batch_key_sequence", |entry| {
        let key: BatchKey = entry.parse("key");
        let next: BatchKey = entry.parse("next");
        assert_eq!(key.next(), Ok(next));
        assert_eq!(next.prev(), Ok(key));
    });
    judge("key_tweaks.json", &file, "batch_key_far", |entry| {
        let mut key: BatchKey = INITIAL_BATCH_KEY.parse().unwrap();
        for _ in 0..entry.u64("index") {
            key = key.next().unwrap();
        }
        assert_eq!(key.to_string(), entry.text("key"));
    });
    let Some(list) = file.get("decrementing_batch_ids") else {
        return println!("key_tweaks.json: decrementing_batch_ids absent, nothing checked");
    };
    let (start, end): (BatchKey, BatchKey) = (list.parse("start"), list.parse("end"));
    let history = start.back_to(&end).unwrap();
    assert_eq!(
        history.iter().map(ToString::to_string).collect::<Vec<_>>(),
        list.list("ids").iter().map(|id| id.as_str().unwrap()).collect::<Vec<_>>()
    );
    assert_eq!(end.prev().unwrap().back_to(&start), None, "the other way");
    report("key_tweaks.json", "decrementing_batch_ids", list.list("ids").len());
}

#[test]
fn tweaks_and_secrets_are_the_networks() {
    let Some(file) = load("key_tweaks.json") else { return };
    let secp = Secp256k1::new();
    judge("key_tweaks.json", &file, "tweaks", |entry| {
        let mut entry = entry.clone();
        entry["expiry"] = 1.into();
        entry["version"] = 0.into();
        let terms = terms(&entry, "version");
        assert_eq!(hex(&terms.trader_tweak()), entry.text("trader_key_tweak"));
        assert_eq!(hex(&terms.auctioneer_tweak().unwrap()), entry.text("auctioneer_key_tweak"));
        assert_eq!(terms.tweaked_trader().unwrap(), entry.point("tweaked_trader_key"));
        assert_eq!(terms.tweaked_auctioneer().unwrap(), entry.point("tweaked_auctioneer_key"));
        let tweak = Scalar::from_be_bytes(terms.trader_tweak()).unwrap();
        let tweaked = entry.secret("trader_privkey").add_tweak(&tweak).unwrap();
        assert_eq!(tweaked, entry.secret("tweaked_trader_privkey"));
        let shared = terms.auctioneer.point().mul_tweak(&secp, &Scalar::from(entry.secret("trader_privkey"))).unwrap();
        assert_eq!(sha256::Hash::hash(&shared.serialize()).to_byte_array(), entry.b32("shared_secret"));
    });
}

#[test]
fn account_scripts_and_addresses_are_the_networks() {
    let Some(file) = load("account_scripts.json") else { return };
    judge("account_scripts.json", &file, "vectors", |entry| {
        let terms = terms(entry, "version");
        let script = terms.output_script().unwrap();
        assert_eq!(script.to_hex_string(), entry.text("pk_script"), "{entry}");
        for (name, network) in
            [("mainnet", Network::Bitcoin), ("testnet3", Network::Testnet), ("regtest", Network::Regtest)]
        {
            assert_eq!(Address::from_script(&script, network).unwrap().to_string(), entry.at("addresses").text(name));
        }
        let inner = hex(terms.inner_script().unwrap().as_bytes());
        let expected = ["witness_script", "expiry_leaf_script"].iter().find_map(|key| entry.get(*key)?.as_str());
        assert_eq!(Some(inner.as_str()), expected, "{entry}");
        check_taproot(entry, &terms);
    });
}

/// What only taproot entries say; unknown fields are named, so that no claim is left out unseen.
fn check_taproot(entry: &Value, terms: &AccountTerms) {
    for (name, value) in entry.as_object().unwrap() {
        let text = value.as_str();
        match name.as_str() {
            "addresses" | "auctioneer_key" | "batch_key" | "expiry" | "pk_script" | "shared_secret" | "trader_key"
            | "version" | "witness_script" | "expiry_leaf_script" => {}
            "leaf_version" => assert_eq!(value.as_u64(), Some(u64::from(LeafVersion::TapScript.to_consensus()))),
            "leaf_hash" => assert_eq!(Some(hex(&terms.merkle_root().unwrap()).as_str()), text),
            "internal_key_xonly" => {
                assert_eq!(Some(hex(&terms.internal_key().unwrap().unwrap().serialize()).as_str()), text)
            }
            // With the parity that the aggregate had.
            "internal_key" => assert_eq!(text.map(|key| &key[2..]), entry.at("internal_key_xonly").as_str()),
            // With the parity of the control block.
            "output_key" => {
                let odd = terms.expiry_witness(&[1; 64]).unwrap()[2][0] & 1 == 1;
                let script = terms.output_script().unwrap();
                let key = format!("{}{}", if odd { "03" } else { "02" }, hex(&script.as_bytes()[2..]));
                assert_eq!(Some(key.as_str()), text);
            }
            "control_block" => {
                let witness = terms.expiry_witness(&[1; 64]).unwrap();
                assert_eq!(Some(hex(&witness[2]).as_str()), text);
                // Expiries from height 2^23 make a leaf longer than the network's classification knows.
                let known = terms.expiry.get() < 1 << 23;
                assert_eq!(classify_spend(&witness), if known { SpendKind::Expiry } else { SpendKind::Cooperative });
            }
            other => println!("account_scripts.json: field {other} is not known, not checked"),
        }
    }
}

#[test]
fn spends_are_classified_as_by_the_network() {
    let Some(file) = load("witness_classification.json") else { return };
    judge("witness_classification.json", &file, "vectors", |entry| {
        // An empty witness is written as nothing at all.
        let elements: Vec<Vec<u8>> = match entry.at("witness") {
            Value::Null => Vec::new(),
            _ => entry.list("witness").iter().map(|element| unhex(element.as_str().unwrap())).collect(),
        };
        let expected = match entry.text("result") {
            "expiry" => SpendKind::Expiry,
            "cooperative" => SpendKind::Cooperative,
            "unknown" => SpendKind::Unknown,
            other => panic!("kind {other}"),
        };
        assert_eq!(classify_spend(&Witness::from_slice(&elements)), expected, "{}", entry.text("name"));
    });
}

#[test]
fn handshake_hashes_are_the_networks() {
    let Some(file) = load("account_auth.json") else { return };
    judge("account_auth.json", &file, "vectors", |entry| {
        let account: AccountKey = entry.parse("account_key");
        let commit = CommitHash::of(account, &entry.b32("client_nonce"));
        assert_eq!(commit.0, entry.b32("commit_hash"));
        let challenge = AuthChallenge::of(commit, &entry.b32("server_nonce"));
        assert_eq!(challenge.0, entry.b32("challenge"));
        let hash = challenge.auth_hash(commit);
        assert_eq!(hash, entry.b32("auth_hash"));
        assert_eq!(sha256::Hash::hash(&hash).to_byte_array(), entry.b32("ecdsa_signed_hash"));
    });
}
