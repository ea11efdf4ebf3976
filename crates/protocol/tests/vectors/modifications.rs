//! Life-cycle traces of accounts: the transaction that owner and venue both build.

use crate::batch::account;
use crate::support::{Entry, load, report, unhex};
use serde_json::Value;
use tidegate_protocol::account::{Account, AccountTerms};
use tidegate_protocol::bitcoin::hashes::Hash;
use tidegate_protocol::bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, TxOut, Txid, Witness, consensus};
use tidegate_protocol::script::{SpendKind, classify_spend};
use tidegate_protocol::spend::{ClosePath, WalletInput, close_to_script, remaining_value, spend_to_outputs};
use tidegate_protocol::units::{BlockHeight, SatPerKw, Sats};

fn published(entry: &Value) -> Transaction {
    consensus::deserialize(&entry.bytes("published_tx")).unwrap()
}

fn without_witnesses(mut transaction: Transaction) -> Transaction {
    transaction.input.iter_mut().for_each(|input| input.witness = Witness::new());
    transaction
}

fn list<'a>(entry: &'a Value, key: &str) -> &'a [Value] {
    entry.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn output(entry: &Value, script: &str) -> TxOut {
    TxOut {
        value: Amount::from_sat(entry.u64("value")),
        script_pubkey: ScriptBuf::from_bytes(unhex(entry.text(script))),
    }
}

/// The coins of the wallet that a request names; their previous outputs stand in the order of the final inputs.
fn wallet_inputs(request: &Value, transaction: &Transaction) -> Vec<WalletInput> {
    let prev_outputs = list(request, "prev_outputs");
    let input = |input: &Value| {
        let outpoint = OutPoint { txid: Txid::from_byte_array(input.b32("txid_bytes")), vout: input.u32("index") };
        let place = transaction.input.iter().position(|other| other.previous_output == outpoint).unwrap();
        let script_sig = ScriptBuf::from_bytes(input.bytes("sig_script"));
        WalletInput { outpoint, prev_output: output(&prev_outputs[place], "pk_script"), script_sig }
    };
    list(request, "new_inputs").iter().map(input).collect()
}

/// The terms after the change: next batch key, and what the request changes.
fn new_terms(before: &Account, after: &Account) -> AccountTerms {
    AccountTerms { version: after.terms.version, expiry: after.terms.expiry, ..before.terms.next().unwrap() }
}

/// What the venue does with a request: rebuilds the transaction from the account, the request and nothing else.
fn rebuild(entry: &Value, before: &Account, after: &Account) -> Transaction {
    let request = entry.at("modify_request");
    let mut outputs: Vec<TxOut> = list(request, "new_outputs").iter().map(|new| output(new, "script")).collect();
    if entry.text("action") != "close" {
        outputs.push(new_terms(before, after).output(after.value).unwrap());
    }
    let others = wallet_inputs(request, &published(entry));
    spend_to_outputs(before, &others, outputs, ClosePath::Cooperative).unwrap()
}

fn check_value(entry: &Value, before: &Account, after: &Account) {
    let arguments = entry.at("arguments");
    let rate = || SatPerKw::new(arguments.u64("fee_rate"));
    match entry.text("action") {
        "renew" | "withdraw" => {
            let withdrawn: Vec<TxOut> = list(arguments, "outputs").iter().map(|new| output(new, "pk_script")).collect();
            assert_eq!(remaining_value(before, &withdrawn, rate()), Ok(after.value));
        }
        "close" if arguments.get("fee_rate").is_some() => {
            let transaction = published(entry);
            let expired = transaction.lock_time.to_consensus_u32() != 0;
            let path = if expired {
                ClosePath::Expiry(BlockHeight::new(entry.u32("best_height")))
            } else {
                ClosePath::Cooperative
            };
            let to = transaction.output[0].script_pubkey.clone();
            assert_eq!(close_to_script(before, to, rate(), path), Ok(without_witnesses(transaction)));
        }
        "close" | "deposit" => {}
        other => panic!("action {other}"),
    }
}

#[test]
fn modifications_are_built_as_by_the_network() {
    let Some(file) = load("account_modifications.json") else { return };
    let mut count = 0;
    for entry in file.list("vectors").iter().filter(|entry| entry.text("action") != "init") {
        let (before, after) = (account(entry.at("account_before")), account(entry.at("account_after")));
        check_value(entry, &before, &after);
        let transaction = published(entry);
        assert_eq!(transaction.compute_txid().to_string(), entry.text("published_txid"));
        let input = transaction.input.iter().find(|input| Some(input.previous_output) == before.outpoint).unwrap();
        let expired = transaction.lock_time.to_consensus_u32() != 0;
        let kind = if expired { SpendKind::Expiry } else { SpendKind::Cooperative };
        assert_eq!(classify_spend(&input.witness), kind);
        if !expired {
            assert_eq!(rebuild(entry, &before, &after), without_witnesses(transaction.clone()));
        }
        assert_eq!(transaction.lock_time.to_consensus_u32(), entry.u32("lock_time"));
        count += 1;
    }
    report("account_modifications.json", "vectors", count);
}

#[test]
fn what_remains_must_be_an_account() {
    let Some(file) = load("account_modifications.json") else { return };
    let entry = file.list("vectors").iter().find(|entry| entry.text("action") == "renew").unwrap();
    let mut before = account(entry.at("account_before"));
    before.value = Sats::constant(100_500);
    assert!(remaining_value(&before, &[], SatPerKw::new(252)).is_err());
    assert!(remaining_value(&before, &[], SatPerKw::new(10_000)).is_err());
    assert!(remaining_value(&before, &[], SatPerKw::FLOOR).is_ok());
}
