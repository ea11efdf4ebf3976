//! Messages that occupy as much memory per byte as their form allows: lists of empty entries cost two bytes each.

use prost::Message;
use std::collections::BTreeMap;
use tidegate_wire::poolrpc::{self, client_auction_message, server_auction_message};

/// Largest input that is judged; a trader may send no more.
pub(crate) const LARGEST_INPUT: usize = 1 << 20;

/// Entries of two bytes that fit, with room for the frame.
const EMPTY: usize = (LARGEST_INPUT - 1_000) / 2;

/// Target, kind, input.
pub(crate) fn inputs() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let mut all = vec![
        ("submit_order", "addresses", submit(|order| order.node_addr = empty())),
        ("submit_order", "allowed nodes", submit(|order| order.allowed_node_ids = empty())),
        ("terms", "durations", terms().encode_to_vec()),
        ("ratings", "ratings", poolrpc::ServerNodeRatingResponse { node_ratings: empty() }.encode_to_vec()),
        ("market_info", "tiers", tiers().encode_to_vec()),
        ("snapshots", "batches", poolrpc::BatchSnapshotsResponse { batches: empty() }.encode_to_vec()),
        ("snapshot", "flat matches", flat_matches().encode_to_vec()),
        ("snapshot", "matches", matches().encode_to_vec()),
        ("reject", "orders", reject().encode_to_vec()),
        ("signatures", "signatures", signatures().encode_to_vec()),
        ("modify_account", "inputs", modify(|request| request.new_inputs = empty())),
        ("modify_account", "outputs", modify(|request| request.new_outputs = empty())),
        ("modify_account", "previous outputs", modify(|request| request.prev_outputs = empty())),
        ("sign_begin", "previous outputs", previous_outputs().encode_to_vec()),
        ("sign_begin", "nonces", nonces().encode_to_vec()),
        ("strategy_text", "brackets", b"[".repeat(20_000)),
        ("strategy_text", "nested tables", nested_tables()),
        ("strategy_text", "long list", [&b"seller = ["[..], &b"1,".repeat(30_000), b"]"].concat()),
        ("witness", "empty elements", vec![0; LARGEST_INPUT]),
        ("channel_backup_plain", "zeros", vec![0; LARGEST_INPUT]),
        ("channel_backup", "zeros", vec![0; LARGEST_INPUT]),
        ("operator", "allowed nodes", operators_order()),
        ("operator", "batches", told(1, &poolrpc::LeasesRequest { batch_ids: empty(), accounts: Vec::new() })),
        ("operator", "nodes", told(2, &poolrpc::NodeRatingRequest { node_pubkeys: empty() })),
        ("deposit", "a transaction that is not there", psbt(&[1, 0, 0xfe, 0xff, 0xff, 0xff, 0x00])),
        ("deposit", "a key that is not there", psbt(&[0xfe, 0xff, 0xff, 0xff, 0x00])),
    ];
    for (kind, prepare) in prepares() {
        all.push(("prepare", kind, prepare.encode_to_vec()));
        let msg = Some(server_auction_message::Msg::Prepare(prepare));
        all.push(("server_message", kind, poolrpc::ServerAuctionMessage { msg }.encode_to_vec()));
    }
    let msg = Some(client_auction_message::Msg::Sign(signatures()));
    all.push(("client_message", "signatures", poolrpc::ClientAuctionMessage { msg }.encode_to_vec()));
    all
}

fn empty<T: Default + Clone>() -> Vec<T> {
    vec![T::default(); EMPTY - 200]
}

/// A map with as many short keys as fit; `entry` bytes each.
fn map<T: Default>(entry: usize) -> BTreeMap<String, T> {
    (0..LARGEST_INPUT / entry).map(|number| (format!("{number:x}"), T::default())).collect()
}

#[allow(deprecated)] // the flat fields are decoded, too
fn prepares() -> Vec<(&'static str, poolrpc::OrderMatchPrepare)> {
    let with = |order: poolrpc::MatchedOrder| {
        let matched_orders = BTreeMap::from([("a".to_owned(), order)]);
        let market = poolrpc::MatchedMarket { matched_orders, clearing_price_rate: 1 };
        poolrpc::OrderMatchPrepare { matched_markets: BTreeMap::from([(2_016, market)]), ..Default::default() }
    };
    let flat = |order: poolrpc::MatchedOrder| poolrpc::OrderMatchPrepare {
        matched_orders: BTreeMap::from([("a".to_owned(), order)]),
        ..Default::default()
    };
    let asks = poolrpc::MatchedOrder { matched_asks: empty(), ..Default::default() };
    let bids = poolrpc::MatchedOrder { matched_bids: empty(), ..Default::default() };
    let full = poolrpc::MatchedBid {
        bid: Some(poolrpc::ServerBid { details: Some(poolrpc::ServerOrder::default()), ..Default::default() }),
        ..Default::default()
    };
    let shells = poolrpc::MatchedOrder { matched_bids: vec![full; EMPTY / 4], ..Default::default() };
    let markets = 0..u32::try_from(LARGEST_INPUT / 9).expect("small");
    vec![
        ("asks", with(asks)),
        ("bids", with(bids.clone())),
        ("bids with order", with(shells)),
        ("flat bids", flat(bids)),
        ("diffs", poolrpc::OrderMatchPrepare { charged_accounts: empty(), ..Default::default() }),
        ("orders", poolrpc::OrderMatchPrepare { matched_orders: map(12), ..Default::default() }),
        (
            "markets",
            poolrpc::OrderMatchPrepare {
                matched_markets: markets.map(|number| (number, poolrpc::MatchedMarket::default())).collect(),
                ..Default::default()
            },
        ),
        (
            "transaction",
            poolrpc::OrderMatchPrepare {
                batch_id: hex("02c3815287b6a76c6fe9843dd34418a9d1c78a032cc3c946870a7fb6e6efb68dbc"),
                execution_fee: Some(poolrpc::ExecutionFee::default()),
                // A count of inputs that the bytes do not hold.
                batch_transaction: [&[2, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff, 0x00][..], &[0; 390_000]].concat(),
                ..Default::default()
            },
        ),
    ]
}

fn submit(fill: impl Fn(&mut poolrpc::ServerOrder)) -> Vec<u8> {
    let mut order = poolrpc::ServerOrder::default();
    fill(&mut order);
    let ask = poolrpc::ServerAsk { details: Some(order), ..Default::default() };
    let details = Some(poolrpc::server_submit_order_request::Details::Ask(ask));
    poolrpc::ServerSubmitOrderRequest { details, ..Default::default() }.encode_to_vec()
}

/// What an operator sends, after the number of its kind.
fn told(kind: u8, message: &impl Message) -> Vec<u8> {
    [&[kind], &message.encode_to_vec()[..]].concat()
}

fn operators_order() -> Vec<u8> {
    let details = Some(poolrpc::Order { allowed_node_ids: empty(), ..Default::default() });
    let ask = poolrpc::Ask { details, ..Default::default() };
    let details = Some(poolrpc::submit_order_request::Details::Ask(ask));
    told(0, &poolrpc::SubmitOrderRequest { details, ..Default::default() })
}

/// A wallet's answer to a deposit: a PSBT that begins so, and then zeros.
fn psbt(begin: &[u8]) -> Vec<u8> {
    // An open account, a fee rate, an amount and a limit; no change; the rest is the answer.
    const DEPOSIT: [u8; 15] = [0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    [&DEPOSIT, &b"psbt\xff"[..], begin, &[0; 390_000]].concat()
}

fn modify(fill: impl Fn(&mut poolrpc::ServerModifyAccountRequest)) -> Vec<u8> {
    let mut request = poolrpc::ServerModifyAccountRequest::default();
    fill(&mut request);
    request.encode_to_vec()
}

fn terms() -> poolrpc::TermsResponse {
    let numbers = 0..u32::try_from(LARGEST_INPUT / 9).expect("small");
    poolrpc::TermsResponse { lease_duration_buckets: numbers.map(|number| (number, 0)).collect(), ..Default::default() }
}

fn tiers() -> poolrpc::MarketInfoResponse {
    let market = poolrpc::MarketInfo { num_asks: empty(), ..Default::default() };
    poolrpc::MarketInfoResponse { markets: BTreeMap::from([(2_016, market)]) }
}

#[allow(deprecated)]
fn flat_matches() -> poolrpc::BatchSnapshotResponse {
    poolrpc::BatchSnapshotResponse { matched_orders: empty(), ..Default::default() }
}

fn matches() -> poolrpc::BatchSnapshotResponse {
    let market = poolrpc::MatchedMarketSnapshot { matched_orders: empty(), ..Default::default() };
    poolrpc::BatchSnapshotResponse { matched_markets: BTreeMap::from([(2_016, market)]), ..Default::default() }
}

fn reject() -> poolrpc::OrderMatchReject {
    poolrpc::OrderMatchReject { rejected_orders: map(14), ..Default::default() }
}

fn signatures() -> poolrpc::OrderMatchSign {
    poolrpc::OrderMatchSign { account_sigs: map(14), ..Default::default() }
}

fn previous_outputs() -> poolrpc::OrderMatchSignBegin {
    poolrpc::OrderMatchSignBegin { prev_outputs: empty(), ..Default::default() }
}

fn nonces() -> poolrpc::OrderMatchSignBegin {
    poolrpc::OrderMatchSignBegin { server_nonces: map(14), ..Default::default() }
}

fn nested_tables() -> Vec<u8> {
    format!("[{}]\nx = 1\n", vec!["a"; 20_000].join(".")).into_bytes()
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal")).collect()
}
