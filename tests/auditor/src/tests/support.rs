//! Stories made from the golden vectors: one trader, one venue, one batch, fed to an auditor.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bitcoin::hashes::Hash as _;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{OutPoint, ScriptBuf, Transaction, Txid, consensus};
use prost::Message as _;
use serde_json::Value;

use crate::wire::rpc::{self, client_auction_message as said, server_auction_message as told};
use crate::wire::{hexed, unhexed};
use crate::{Auditor, Baseline, Caller, Order, Quote, Rule};

/// A file of vectors.
pub(super) fn vectors(name: &str) -> Value {
    let folder = std::env::var_os("TIDEGATE_VECTORS_DIR")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors")), PathBuf::from);
    let text = std::fs::read_to_string(folder.join(name)).unwrap();
    serde_json::from_str(&text).unwrap()
}

pub(super) fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

pub(super) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} is text in {value}"))
}

pub(super) fn bytes(value: &Value, key: &str) -> Vec<u8> {
    unhexed(text(value, key)).unwrap()
}

pub(super) fn array<const N: usize>(value: &Value, key: &str) -> [u8; N] {
    bytes(value, key).try_into().unwrap()
}

pub(super) fn point(value: &Value, key: &str) -> PublicKey {
    PublicKey::from_slice(&bytes(value, key)).unwrap()
}

pub(super) fn number<T: TryFrom<u64>>(value: &Value, key: &str) -> T {
    let number = value[key].as_u64().unwrap_or_default();
    T::try_from(number).unwrap_or_else(|_| panic!("{key} fits in {value}"))
}

/// The one trader of the vectors.
pub(super) fn me() -> Caller {
    Caller("me".to_owned())
}

fn baseline(account: &Value, batch_version: u32) -> Baseline {
    let txid = Txid::from_byte_array(array(account, "outpoint_txid_bytes"));
    Baseline {
        key: point(account, "trader_key"),
        auctioneer: point(account, "auctioneer_key"),
        batch_key: point(account, "batch_key"),
        secret: Some(array(account, "shared_secret")),
        outpoint: OutPoint { txid, vout: number(account, "outpoint_index") },
        value_sat: number(account, "value"),
        script: ScriptBuf::from_bytes(bytes(account, "pk_script")),
        expiry: number(account, "expiry"),
        version: number(account, "version"),
        batch_version,
    }
}

/// Node and multisig key of a sidecar channel's recipient: two adjoining records of the ticket.
fn recipient(ticket: &str) -> Option<([u8; 33], [u8; 33])> {
    let bytes = bitcoin::base58::decode(ticket.strip_prefix("sidecar")?).ok()?;
    let both = bytes.windows(70).find(|part| part[..2] == [21, 33] && part[35..37] == [22, 33])?;
    Some((both[2..35].try_into().ok()?, both[37..70].try_into().ok()?))
}

fn order(value: &Value, node: [u8; 33]) -> Order {
    let nodes = |key| list(value, key).iter().map(|node| unhexed(node.as_str().unwrap()).unwrap()).collect();
    let flag = |key: &str| value[key].as_bool().unwrap_or_default();
    let sidecar = value["sidecar_ticket"].as_str().and_then(recipient);
    Order {
        nonce: array(value, "nonce"),
        account_key: array(value, "account_key"),
        is_ask: text(value, "type") == "ask",
        version: number(value, "version"),
        outbound: number::<u32>(value, "auction_type") == 1,
        rate_ppb: number(value, "rate"),
        amount_sat: number(value, "amount"),
        units_open: number(value, "units_unfulfilled"),
        min_units: number(value, "min_units_match"),
        blocks: number(value, "duration"),
        max_fee_rate_sat_per_kw: number(value, "max_batch_fee_rate"),
        channel_type: number(value, "channel_type"),
        announcement: number(value, "announcement_constraints"),
        confirmation: number(value, "confirmation_constraints"),
        node_tier: number(value, "min_node_tier"),
        self_balance_sat: number(value, "self_chan_balance"),
        sidecar: sidecar.is_some(),
        unannounced: flag("unannounced_channel"),
        zero_conf: flag("zero_conf_channel"),
        multisig_key: sidecar.map_or_else(|| array(value, "multisig_pubkey"), |keys| keys.1),
        node_key: sidecar.map_or(node, |keys| keys.0),
        allowed: nodes("allowed_node_ids"),
        denied: nodes("not_allowed_node_ids"),
    }
}

/// An auditor that knows the local state of a batch entry.
pub(super) fn auditor_of(state: &Value, secrets: bool) -> Auditor {
    let mut auditor = Auditor::new();
    if let Some(terms) = state.get("terms") {
        let quote = Quote {
            base_fee_sat: number(terms, "execution_fee_base"),
            fee_ppm: number(terms, "execution_fee_rate"),
            extension_blocks: number(terms, "auto_renew_extension_blocks"),
        };
        auditor.adopt_quote(&me(), quote);
    }
    for account in list(state, "accounts") {
        let mut baseline = baseline(account, number(state, "client_batch_version"));
        baseline.secret = baseline.secret.filter(|_| secrets);
        auditor.adopt_account(&me(), baseline);
    }
    for one in list(state, "orders") {
        auditor.adopt_order(&me(), order(one, array(state, "our_node_key")));
    }
    auditor
}

/// What is said in one batch, in this order. Absent parts are skipped.
#[derive(Clone, Debug, Default)]
pub(super) struct Story {
    pub(super) prepare: Option<rpc::OrderMatchPrepare>,
    pub(super) accepts: bool,
    pub(super) begin: Option<rpc::OrderMatchSignBegin>,
    pub(super) sign: Option<rpc::OrderMatchSign>,
    pub(super) finalize: Option<rpc::OrderMatchFinalize>,
    pub(super) chain: Option<Transaction>,
}

/// The honest answer to a request for signatures.
fn answer(entry: &Value, channels: &[Value], txid: Txid, id: &[u8]) -> rpc::OrderMatchSign {
    let inputs = list(entry, "account_inputs").iter();
    let part = |key: &'static str| -> BTreeMap<String, Vec<u8>> {
        let with = inputs.clone().filter(|input| input[key].is_string());
        with.map(|input| (text(input, "account_key").to_owned(), bytes(input, key))).collect()
    };
    let points = channels.iter().map(|channel| format!("{txid}:{}", number::<u32>(channel, "output_index")));
    rpc::OrderMatchSign {
        batch_id: id.to_vec(),
        account_sigs: part("trader_sig"),
        channel_infos: points.map(|point| (point, rpc::ChannelInfo::default())).collect(),
        trader_nonces: part("trader_nonces"),
    }
}

impl Story {
    /// A whole entry with one prepare, one sign and one finalize message.
    pub(super) fn of(entry: &Value) -> Story {
        let prepare = rpc::OrderMatchPrepare::decode(bytes(entry, "prepare_msg").as_slice()).unwrap();
        let begin = rpc::OrderMatchSignBegin::decode(bytes(entry, "sign_msg").as_slice()).unwrap();
        let chain: Transaction = consensus::deserialize(&bytes(entry, "final_tx")).unwrap();
        let txid = chain.compute_txid();
        let finalize =
            rpc::OrderMatchFinalize { batch_id: prepare.batch_id.clone(), batch_txid: txid.to_byte_array().to_vec() };
        let sign = answer(entry, list(entry, "channels"), txid, &prepare.batch_id);
        Story {
            prepare: Some(prepare),
            accepts: true,
            begin: Some(begin),
            sign: Some(sign),
            finalize: Some(finalize),
            chain: Some(chain),
        }
    }

    pub(super) fn prepare(&mut self) -> &mut rpc::OrderMatchPrepare {
        self.prepare.as_mut().unwrap()
    }

    pub(super) fn begin(&mut self) -> &mut rpc::OrderMatchSignBegin {
        self.begin.as_mut().unwrap()
    }

    pub(super) fn sign(&mut self) -> &mut rpc::OrderMatchSign {
        self.sign.as_mut().unwrap()
    }

    /// Changes the batch transaction that is proposed.
    pub(super) fn change_tx(&mut self, change: impl FnOnce(&mut Transaction)) {
        let prepare = self.prepare();
        let mut tx: Transaction = consensus::deserialize(&prepare.batch_transaction).unwrap();
        change(&mut tx);
        prepare.batch_transaction = consensus::serialize(&tx);
    }

    /// Feeds everything as bytes.
    pub(super) fn tell(&self, auditor: &mut Auditor) {
        let me = me();
        let server = |auditor: &mut Auditor, msg: told::Msg| {
            auditor.server_message(&me, &rpc::ServerAuctionMessage { msg: Some(msg) }.encode_to_vec());
        };
        let client = |auditor: &mut Auditor, msg: said::Msg| {
            auditor.client_message(&me, &rpc::ClientAuctionMessage { msg: Some(msg) }.encode_to_vec());
        };
        if let Some(prepare) = &self.prepare {
            server(auditor, told::Msg::Prepare(prepare.clone()));
            if self.accepts {
                let batch_id = prepare.batch_id.clone();
                client(auditor, said::Msg::Accept(rpc::OrderMatchAccept { batch_id }));
            }
        }
        if let Some(begin) = &self.begin {
            server(auditor, told::Msg::Sign(begin.clone()));
        }
        if let Some(sign) = &self.sign {
            client(auditor, said::Msg::Sign(sign.clone()));
        }
        if let Some(finalize) = &self.finalize {
            server(auditor, told::Msg::Finalize(finalize.clone()));
        }
        if let Some(chain) = &self.chain {
            auditor.transaction(chain);
        }
    }
}

/// Steps of an entry with `steps`; each prepare opens a story.
pub(super) fn stories(entry: &Value) -> Vec<Story> {
    let mut stories: Vec<Story> = Vec::new();
    for step in list(entry, "steps") {
        let message = bytes(step, "msg");
        let accepted = text(step, "expect") != "reject";
        match text(step, "type") {
            "prepare" => {
                let prepare = rpc::OrderMatchPrepare::decode(message.as_slice()).unwrap();
                stories.push(Story { prepare: Some(prepare), accepts: accepted, ..Story::default() });
            }
            "sign" => {
                let story = stories.last_mut().unwrap();
                let id = story.prepare().batch_id.clone();
                let tx: Transaction = consensus::deserialize(&story.prepare().batch_transaction).unwrap();
                story.begin = Some(rpc::OrderMatchSignBegin::decode(message.as_slice()).unwrap());
                let mut sign = answer(step, &[], tx.compute_txid(), &id);
                // Steps do not restate the channels; the test of their names is made with whole entries.
                sign.channel_infos = channel_points(&tx, story.prepare());
                story.sign = Some(sign);
            }
            "finalize" => {
                stories.last_mut().unwrap().finalize =
                    Some(rpc::OrderMatchFinalize::decode(message.as_slice()).unwrap());
            }
            other => panic!("step {other}"),
        }
    }
    stories
}

/// Outputs that are neither the trader's account nor the auctioneer's own, in a batch where there are no others.
fn channel_points(tx: &Transaction, prepare: &rpc::OrderMatchPrepare) -> BTreeMap<String, rpc::ChannelInfo> {
    let units = |matched: &rpc::MatchedOrder| -> Vec<u64> {
        let asks = matched.matched_asks.iter().map(|one| u64::from(one.units_filled));
        let bids = matched.matched_bids.iter().map(|one| u64::from(one.units_filled));
        asks.chain(bids).map(|units| units * 100_000).collect()
    };
    let values: Vec<u64> =
        prepare.matched_markets.values().flat_map(|market| market.matched_orders.values().flat_map(units)).collect();
    let outputs = tx.output.iter().enumerate();
    let channels = outputs.filter(|(_, output)| values.contains(&output.value.to_sat()));
    channels.map(|(at, _)| (format!("{}:{at}", tx.compute_txid()), rpc::ChannelInfo::default())).collect()
}

/// The rules that were broken.
pub(super) fn rules(auditor: &Auditor) -> Vec<Rule> {
    let mut rules: Vec<Rule> = auditor.findings().iter().map(|finding| finding.rule).collect();
    rules.dedup();
    rules
}

/// Findings as text, one a line.
pub(super) fn report(auditor: &Auditor) -> String {
    auditor.findings().iter().map(|finding| format!("{finding}\n")).collect()
}

/// The key of an account of a version, as in maps of messages.
pub(super) fn account_of_version(entry: &Value, version: u32) -> String {
    let accounts = list(entry, "account_inputs");
    let account = accounts.iter().find(|input| number::<u32>(input, "account_version") == version);
    hexed(&bytes(account.unwrap(), "account_key"))
}
