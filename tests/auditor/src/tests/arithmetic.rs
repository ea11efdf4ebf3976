//! Money, digests, scripts and partial signatures, entry by entry.

use bitcoin::ScriptBuf;
use serde_json::Value;

use super::support::{array, bytes, list, number, point, text, vectors};
use crate::keys::{next_batch_key, sha};
use crate::money::{MatchTerms, chain_fee_sat, execution_fee_sat, premium_sat};
use crate::script::{AccountKeys, account_scripts, draft, funding_script, taproot_key};
use crate::signature::{Partial, Verdict, schnorr};
use crate::state::Order;
use crate::wire::order_digest;

#[test]
fn money_is_that_of_the_network() {
    let fees = vectors("fees.json");
    for entry in list(&fees, "premiums") {
        let premium = premium_sat(number(entry, "amount"), number(entry, "rate"), number(entry, "duration"));
        assert_eq!(premium, number::<u64>(entry, "premium"), "{entry}");
    }
    for entry in list(&fees, "execution_fees") {
        let fee = execution_fee_sat(number(entry, "amount"), number(entry, "base_fee"), number(entry, "fee_rate_ppm"));
        assert_eq!(fee, number::<u64>(entry, "total_fee"), "{entry}");
    }
    for entry in list(&fees, "chain_fees") {
        let (channels, rate) = (number(entry, "num_channels"), number(entry, "fee_rate_sat_per_kw"));
        let fee = chain_fee_sat(channels, rate, number(entry, "account_version"));
        assert_eq!(fee, number::<u64>(entry, "fee"), "{entry}");
    }
    assert!(list(&fees, "premiums").len() > 100);
}

#[test]
fn a_match_changes_both_balances_as_in_the_network() {
    let fees = vectors("fees.json");
    for entry in list(&fees, "match_deltas") {
        let terms = |maker| MatchTerms {
            maker,
            outbound: entry["outbound_market"].as_bool().unwrap(),
            units: u32::try_from(number::<u64>(entry, "filled_sats") / 100_000).unwrap(),
            self_balance_sat: number(entry, "self_chan_balance"),
            rate_ppb: number(entry, "clearing_price"),
            blocks: number(entry, "duration"),
            base_fee_sat: number(entry, "base_fee"),
            fee_ppm: number(entry, "fee_rate_ppm"),
        };
        let start = i128::from(number::<u64>(entry, "starting_balance"));
        let after = |maker| u64::try_from(start + terms(maker).delta_sat()).unwrap();
        assert_eq!(after(true), number::<u64>(entry, "maker_balance_after"), "{entry}");
        assert_eq!(after(false), number::<u64>(entry, "taker_balance_after"), "{entry}");
    }
    assert!(!list(&fees, "match_deltas").is_empty());
}

#[test]
fn order_digests_are_those_of_the_network() {
    let orders = vectors("orders.json");
    for entry in list(&orders, "digests") {
        let order = Order {
            nonce: array(entry, "nonce"),
            account_key: [2; 33],
            is_ask: text(entry, "type") == "ask",
            version: number(entry, "version"),
            outbound: false,
            rate_ppb: number(entry, "rate"),
            amount_sat: number(entry, "amount"),
            units_open: 0,
            min_units: number(entry, "min_units_match"),
            blocks: number(entry, "duration"),
            max_fee_rate_sat_per_kw: number(entry, "max_batch_fee_rate"),
            channel_type: number(entry, "channel_type"),
            announcement: 0,
            confirmation: 0,
            node_tier: number(entry, "min_node_tier"),
            self_balance_sat: number(entry, "self_chan_balance"),
            sidecar: entry["is_sidecar"].as_bool().unwrap_or_default(),
            unannounced: false,
            zero_conf: false,
            multisig_key: [2; 33],
            node_key: [2; 33],
            allowed: Vec::new(),
            denied: Vec::new(),
        };
        let expected = entry["digest"].as_str().map(|_| array::<32>(entry, "digest"));
        assert_eq!(order_digest(&order), expected, "{entry}");
        if let Some(digest) = expected {
            assert_eq!(sha(&[&digest]), array::<32>(entry, "signed_hash"));
        }
    }
}

fn keys(entry: &Value) -> [bitcoin::secp256k1::PublicKey; 3] {
    [point(entry, "trader_key"), point(entry, "auctioneer_key"), point(entry, "batch_key")]
}

#[test]
fn account_scripts_are_those_of_the_network() {
    let file = vectors("account_scripts.json");
    for entry in list(&file, "vectors") {
        let [trader, auctioneer, batch] = keys(entry);
        let secret = array(entry, "shared_secret");
        let parts = AccountKeys { trader: &trader, auctioneer: &auctioneer, batch: &batch, secret: &secret };
        let scripts = account_scripts(number(entry, "version"), parts, number(entry, "expiry")).unwrap();
        assert_eq!(scripts.output, ScriptBuf::from_bytes(bytes(entry, "pk_script")), "{entry}");
    }
    assert!(list(&file, "vectors").len() > 100);
}

#[test]
fn batch_keys_advance_and_channels_are_funded_as_in_the_network() {
    let tweaks = vectors("key_tweaks.json");
    for entry in list(&tweaks, "batch_key_sequence") {
        assert_eq!(next_batch_key(&point(entry, "key")), Some(point(entry, "next")));
    }
    let funding = vectors("funding_outputs.json");
    for entry in list(&funding, "outputs") {
        let taproot = text(entry, "channel_type") == "simple_taproot";
        let script = funding_script(taproot, &point(entry, "our_key"), &point(entry, "their_key"));
        assert_eq!(script, Some(ScriptBuf::from_bytes(bytes(entry, "pk_script"))), "{entry}");
    }
    assert!(!list(&tweaks, "batch_key_sequence").is_empty() && !list(&funding, "outputs").is_empty());
}

/// Both halves of each trace verify, with and without the leaf; a changed half, message or nonce does not.
#[test]
fn partial_signatures_of_both_drafts_are_judged() {
    let file = vectors("musig2_signing.json");
    for entry in list(&file, "vectors") {
        let [trader, auctioneer, batch] = keys(entry);
        let (secret, version) = (array(entry, "shared_secret"), number(entry, "script_version"));
        let parts = AccountKeys { trader: &trader, auctioneer: &auctioneer, batch: &batch, secret: &secret };
        let scripts = account_scripts(version, parts, number(entry, "expiry")).unwrap();
        let output = taproot_key(&scripts.output).unwrap();
        assert_eq!(output.serialize(), array::<32>(entry, "output_key"));
        let sighash = array(entry, "message");
        let (own, other) = (bytes(entry, "trader_pub_nonce"), bytes(entry, "auctioneer_pub_nonce"));
        let halves = [bytes(entry, "trader_partial_sig"), bytes(entry, "auctioneer_partial_sig")];
        let mut wrong = halves[0].clone();
        wrong[31] ^= 1;
        let base = Partial {
            draft: draft(version).unwrap(),
            signer: &trader,
            other: &auctioneer,
            output: &output,
            taproot: scripts.taproot,
            own_nonce: &own,
            other_nonce: &other,
            sighash,
            signature: &halves[0],
        };
        let venue = Partial {
            signer: &auctioneer,
            other: &trader,
            own_nonce: &other,
            other_nonce: &own,
            signature: &halves[1],
            ..base
        };
        for good in [base, venue, Partial { taproot: None, ..base }, Partial { taproot: None, ..venue }] {
            assert_eq!(good.judge(), Verdict::Valid, "{entry}");
        }
        let bad = [
            Partial { signature: &wrong, ..base },
            Partial { sighash: [7; 32], ..base },
            Partial { own_nonce: &other, other_nonce: &own, ..base },
            Partial { signer: &auctioneer, other: &trader, ..base },
            Partial { signature: &wrong, taproot: None, ..base },
        ];
        for bad in bad {
            assert!(matches!(bad.judge(), Verdict::Invalid(_)), "{bad:?}");
        }
        assert_eq!(schnorr(&output, sighash, &bytes(entry, "final_sig")), Verdict::Valid);
    }
    assert!(!list(&file, "vectors").is_empty());
}
