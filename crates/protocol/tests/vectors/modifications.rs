//! Life-cycle traces of accounts: every field of every entry, built anew from the arguments.

use crate::local::{account, version};
use crate::support::{Entry, hex, judge, load, unhex};
use serde_json::{Value, json};
use tidegate_protocol::account::{Account, AccountState, AccountVersion};
use tidegate_protocol::bitcoin::hashes::Hash;
use tidegate_protocol::bitcoin::psbt::Psbt;
use tidegate_protocol::bitcoin::secp256k1::{Message, Secp256k1, XOnlyPublicKey, ecdsa, schnorr};
use tidegate_protocol::bitcoin::{Amount, Network, OutPoint, ScriptBuf, Transaction, TxOut, Witness, consensus};
use tidegate_protocol::fees::confirmations_needed;
use tidegate_protocol::label::{Action, Note};
use tidegate_protocol::modification::{Deposit, Modification, TermsChange};
use tidegate_protocol::musig2::{PartialSignature, PublicNonce, SigningContext};
use tidegate_protocol::script::{SpendKind, classify_spend, key_spend_sighash, leaf_spend_sighash, segwit_v0_sighash};
use tidegate_protocol::spend::{ClosePath, spend_to_outputs};
use tidegate_protocol::units::{BlockHeight, SatPerKw, Sats};

fn transaction(entry: &Value, key: &str) -> Transaction {
    consensus::deserialize(&entry.bytes(key)).unwrap()
}

fn without_witnesses(mut transaction: Transaction) -> Transaction {
    transaction.input.iter_mut().for_each(|input| input.witness = Witness::new());
    transaction
}

fn script(entry: &Value, key: &str) -> ScriptBuf {
    ScriptBuf::from_bytes(unhex(entry.text(key)))
}

fn outputs(entry: &Value) -> Vec<TxOut> {
    let output = |output: &Value| TxOut {
        value: Amount::from_sat(output.u64("value")),
        script_pubkey: script(output, "pk_script"),
    };
    entry.list("outputs").iter().map(output).collect()
}

/// Zero keeps the expiry.
fn change(arguments: &Value) -> TermsChange {
    let expiry = Some(arguments.u32("new_expiry")).filter(|expiry| *expiry != 0).map(BlockHeight::new);
    TermsChange { expiry, version: Some(version(arguments.u64("new_version"))) }
}

fn deposit(entry: &Value, before: &Account) -> Modification {
    let (arguments, fund) = (entry.at("arguments"), entry.at("fund_psbt"));
    let (amount, rate) = (arguments.sats("amount"), SatPerKw::new(arguments.u64("fee_rate")));
    let best = BlockHeight::new(entry.u32("best_height"));
    let deposit = Deposit::new(before, amount, change(arguments), rate, Sats::MAX, best).unwrap();
    assert_eq!(hex(&deposit.template().serialize()), fund.text("template_psbt"));
    assert_eq!(deposit.sat_per_vbyte(), fund.u64("sat_per_vbyte"));
    assert_eq!(fund.u64("min_confs"), 1);
    let change = fund.at("change_output_index").as_i64().and_then(|index| usize::try_from(index).ok());
    let complete = deposit.complete(Psbt::deserialize(&fund.bytes("funded_psbt")).unwrap(), change).unwrap();
    for coin in entry.list("wallet_utxos") {
        let outpoint = OutPoint { txid: coin_txid(coin), vout: coin.u32("index") };
        let other = complete.others.iter().find(|other| other.outpoint == outpoint).unwrap();
        assert_eq!(other.prev_output.value.to_sat(), coin.u64("value"));
        assert_eq!(other.prev_output.script_pubkey, script(coin, "pk_script"));
    }
    assert_eq!(complete.others.len(), entry.list("wallet_utxos").len());
    complete
}

fn coin_txid(coin: &Value) -> tidegate_protocol::bitcoin::Txid {
    tidegate_protocol::bitcoin::Txid::from_byte_array(coin.b32("txid_bytes"))
}

/// The change that the arguments ask for, and its name.
fn build(entry: &Value, before: &Account, published: &Transaction) -> (Modification, Action) {
    let arguments = entry.at("arguments");
    let best = BlockHeight::new(entry.u32("best_height"));
    let rate = || SatPerKw::new(arguments.u64("fee_rate"));
    match entry.text("action") {
        "renew" => (Modification::renew(before, change(arguments), rate(), best).unwrap(), Action::Renew),
        "withdraw" => {
            let built = Modification::withdraw(before, &outputs(arguments), change(arguments), rate(), best);
            (built.unwrap(), Action::Withdraw)
        }
        "deposit" => (deposit(entry, before), Action::Deposit),
        "close" if arguments.get("outputs").is_some() => {
            (Modification::close_to_outputs(before, outputs(arguments), best).unwrap(), Action::Close)
        }
        "close" => {
            // Without address the wallet gives one, of the account's kind.
            let to = match arguments.get("pk_script") {
                Some(_) => script(arguments, "pk_script"),
                None => published.output[0].script_pubkey.clone(),
            };
            let taproot = before.terms.version != AccountVersion::V0;
            assert!(arguments.get("pk_script").is_some() || to.is_p2tr() == taproot && to.is_p2wpkh() != taproot);
            (Modification::close(before, to, rate(), best).unwrap(), Action::Close)
        }
        other => panic!("action {other}"),
    }
}

/// The request as the file writes it: absent lists are null.
fn check_request(request: &Value, built: &Modification) {
    let list = |list: Vec<Value>| if list.is_empty() { Value::Null } else { Value::Array(list) };
    let output = |output: &TxOut, name: &str| json!({name: output.script_pubkey.to_hex_string(), "value": output.value.to_sat()});
    let inputs = built.new_inputs().into_iter().map(|(outpoint, script_sig)| {
        let txid = hex(outpoint.txid.as_byte_array());
        json!({"index": outpoint.vout, "sig_script": script_sig.to_hex_string(), "txid_bytes": txid})
    });
    let params = built.new_params().map(|params| {
        let version = params.version.musig2().map_or(0, |draft| match draft {
            tidegate_protocol::musig2::Musig2Version::V040 => 1,
            tidegate_protocol::musig2::Musig2Version::V100Rc2 => 2,
        });
        json!({"expiry": params.expiry.get(), "value": params.value.get(), "version": version})
    });
    let mut expected = json!({
        "new_inputs": list(inputs.collect()),
        "new_outputs": list(built.new_outputs().iter().map(|other| output(other, "script")).collect()),
        "prev_outputs": list(built.prev_outputs().unwrap().iter().map(|prev| output(prev, "pk_script")).collect()),
        "trader_key": built.before.key().to_string(),
    });
    // A close has none.
    if let Some(params) = params {
        expected["new_params"] = params;
    }
    // What depends on nonces and keys is judged with the signatures.
    for name in ["trader_nonces", "response_account_sig", "response_server_nonces"] {
        if let Some(value) = request.get(name) {
            expected[name] = value.clone();
        }
    }
    assert_eq!(request, &expected);
}

/// Both halves of the signature, or the trader's own, and the witness that they make.
fn check_witness(entry: &Value, built: &Modification, published: &Transaction) {
    let (terms, input) = (&built.before.terms, built.own_input());
    let (witness, prev_outputs) = (&published.input[input].witness, built.prev_outputs().unwrap());
    let (secp, transaction) = (Secp256k1::new(), &built.transaction);
    let message = Message::from_digest;
    let expired = built.path != ClosePath::Cooperative;
    assert_eq!(classify_spend(witness), if expired { SpendKind::Expiry } else { SpendKind::Cooperative });
    let script = terms.inner_script().unwrap();
    match (terms.version, expired) {
        (AccountVersion::V0, _) => {
            let sighash = segwit_v0_sighash(transaction, input, built.before.value, &script).unwrap();
            let (flag, trader) = witness[1].split_last().unwrap();
            let signature = ecdsa::Signature::from_der(trader).unwrap();
            assert_eq!(*flag, 1);
            secp.verify_ecdsa(&message(sighash), &signature, &terms.tweaked_trader().unwrap()).unwrap();
            if expired {
                assert_eq!(*witness, terms.expiry_witness(trader).unwrap());
                return;
            }
            assert_eq!(hex(&witness[0]), entry.at("modify_request").text("response_account_sig"));
            let auctioneer = &witness[0][..witness[0].len() - 1];
            let signature = ecdsa::Signature::from_der(auctioneer).unwrap();
            secp.verify_ecdsa(&message(sighash), &signature, &terms.tweaked_auctioneer().unwrap()).unwrap();
            assert_eq!(*witness, terms.cooperative_witness_v0(auctioneer, trader).unwrap());
        }
        (AccountVersion::V1 | AccountVersion::V2, true) => {
            let sighash = leaf_spend_sighash(transaction, input, &prev_outputs, &script).unwrap();
            let signature = schnorr::Signature::from_slice(&witness[0]).unwrap();
            let key = terms.tweaked_trader().unwrap().x_only_public_key().0;
            secp.verify_schnorr(&signature, &message(sighash), &key).unwrap();
            assert_eq!(*witness, terms.expiry_witness(&witness[0]).unwrap());
        }
        (AccountVersion::V1 | AccountVersion::V2, false) => {
            let sighash = key_spend_sighash(transaction, input, &prev_outputs).unwrap();
            let signature = schnorr::Signature::from_slice(&witness[0]).unwrap();
            let key = XOnlyPublicKey::from_slice(&terms.output_script().unwrap().as_bytes()[2..]).unwrap();
            secp.verify_schnorr(&signature, &message(sighash), &key).unwrap();
            check_venues_half(entry.at("modify_request"), built, sighash);
        }
    }
}

fn check_venues_half(request: &Value, built: &Modification, sighash: [u8; 32]) {
    let nonces =
        ["trader_nonces", "response_server_nonces"].map(|name| PublicNonce::from_slice(&request.bytes(name)).unwrap());
    let terms = &built.before.terms;
    let context = SigningContext {
        version: terms.version.musig2().unwrap(),
        keys: [*terms.trader.point(), *terms.auctioneer.point()],
        merkle_root: terms.merkle_root().unwrap(),
        nonces,
        message: sighash,
    };
    let half = PartialSignature(request.b32("response_account_sig"));
    assert!(context.verify_partial(terms.auctioneer.point(), &nonces[1], &half));
}

/// What the venue does with a request: rebuilds the transaction from the account, the request and nothing else.
fn rebuild(built: &Modification) -> Transaction {
    let mut outputs = built.new_outputs();
    if let Some(params) = built.new_params() {
        let mut terms = built.before.terms.next().unwrap();
        (terms.expiry, terms.version) = (params.expiry, params.version);
        outputs.push(terms.output(params.value).unwrap());
    }
    spend_to_outputs(&built.before, &built.others, outputs, ClosePath::Cooperative).unwrap()
}

fn check_modification(entry: &Value) {
    let (before, published) = (account(entry.at("account_before")), transaction(entry, "published_tx"));
    let (built, action) = build(entry, &before, &published);
    assert_eq!(built.transaction, without_witnesses(published.clone()));
    assert_eq!(built.transaction.compute_txid().to_string(), entry.text("published_txid"));
    assert_eq!(built.transaction.lock_time.to_consensus_u32(), entry.u32("lock_time"));
    assert_eq!(built.fee, entry.sats("fee"));
    let expected = Account { latest_tx: Some(built.transaction.clone()), ..account(entry.at("account_after")) };
    assert_eq!(built.after, expected);
    assert_eq!(Note::of(action, &built).label(""), entry.text("label"));
    check_witness(entry, &built, &published);
    match entry.at("modify_request") {
        Value::Null => assert!(matches!(built.path, ClosePath::Expiry(_))),
        request => {
            check_request(request, &built);
            assert_eq!(rebuild(&built), built.transaction);
        }
    }
    let psbt = built.psbt(Network::Regtest).unwrap();
    match entry.get("sign_psbt_request") {
        Some(request) => assert_eq!(Some(hex(&psbt.serialize()).as_str()), request.as_str()),
        // The node's MuSig2 sessions sign what is not in a PSBT.
        None => assert!(before.terms.version != AccountVersion::V0 && built.path == ClosePath::Cooperative),
    }
}

/// Opening: what is reserved, paid, announced and awaited.
fn check_init(entry: &Value) {
    let arguments = entry.at("arguments");
    let best = BlockHeight::new(entry.u32("best_height"));
    let expected = account(entry.at("account_after"));
    let mut terms = expected.terms;
    (terms.version, terms.expiry) = (version(arguments.u64("version")), BlockHeight::new(arguments.u32("expiry")));
    let initiated = Account::initiated(terms, expected.locator, arguments.sats("value"), best);
    assert_eq!(initiated.state, AccountState::Initiated);
    let key = initiated.key().to_string();
    let (value, expiry, version) = (initiated.value.get(), terms.expiry.get(), arguments.u64("version"));
    let reserve = json!({"account_expiry": expiry, "account_value": value, "trader_key": key, "version": version});
    assert_eq!(entry.at("reserve_request"), &reserve);

    let send = entry.at("send_outputs");
    let output = terms.output(initiated.value).unwrap();
    assert_eq!((output.value.to_sat(), &output.script_pubkey), (send.u64("value"), &script(send, "pk_script")));
    assert_eq!(send.u64("sat_per_kw"), arguments.u64("fee_rate"));
    assert_eq!(Note::create(&initiated).label(""), send.text("label"));
    let returned = transaction(send, "returned_tx");
    let funded = initiated.funded_by(&returned).unwrap().unwrap();
    assert_eq!(funded, Account { latest_tx: Some(returned.clone()), ..expected });

    let (outpoint, script) = (funded.outpoint.unwrap(), output.script_pubkey.to_hex_string());
    let txid = hex(outpoint.txid.as_byte_array());
    let mut init = reserve;
    init["account_point_index"] = outpoint.vout.into();
    init["account_point_txid_bytes"] = txid.clone().into();
    init["account_script"] = script.clone().into();
    assert_eq!(entry.at("init_request"), &init);
    let depth = confirmations_needed(funded.value, entry.sats("max_account_value"));
    let confirmation =
        json!({"height_hint": funded.height_hint.get(), "num_confs": depth, "script": script, "txid_bytes": txid});
    assert_eq!(entry.at("confirmation_request"), &confirmation);
}

#[test]
fn life_cycles_are_built_as_by_the_network() {
    let Some(file) = load("account_modifications.json") else { return };
    judge("account_modifications.json", &file, "vectors", |entry| match entry.text("action") {
        "init" => check_init(entry),
        _ => check_modification(entry),
    });
}
