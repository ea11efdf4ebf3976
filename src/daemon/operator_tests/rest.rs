//! The same calls as JSON.

use super::bench::{Agent, Market, eventually, limits, until_open};
use hex::DisplayHex as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use std::sync::Arc;
use tidegate_wire::poolrpc as rpc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Sends one request, with the macaroon in this file of the agent's folder if any; status and body of the answer.
async fn ask(agent: &Agent, macaroon: Option<&str>, method: &str, path: &str, body: &str) -> (u16, Value) {
    let certificate = std::fs::read(agent.folder.join("tls.cert")).expect("made at the start");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&certificate).expect("a certificate")).expect("ours");
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let stream = TcpStream::connect(agent.rest).await.expect("it listens");
    let name = ServerName::try_from("localhost").expect("a name");
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("its certificate");
    let header = macaroon.map_or_else(String::new, |file| {
        let macaroon = std::fs::read(agent.folder.join(file)).expect("made at the start").to_lower_hex_string();
        format!("Grpc-Metadata-Macaroon: {macaroon}\r\n")
    });
    let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{header}");
    let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    // The other side may end without a farewell of TLS.
    let _ = stream.read_to_end(&mut answer).await;
    let text = String::from_utf8(answer).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{head}"));
    (status, serde_json::from_str(body).unwrap_or_else(|_| panic!("not JSON: {body:?}")))
}

const ALL: Option<&str> = Some("pool.macaroon");

fn base64(bytes: &[u8]) -> String {
    use bitcoin::base64::{Engine as _, engine::general_purpose::STANDARD};
    STANDARD.encode(bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_and_orders_are_told_and_changed_as_json() {
    let market = Market::open(31).await;
    let agent = market.agent("anna", limits()).await;
    let (code, info) = ask(&agent, ALL, "GET", "/v1/pool/info", "").await;
    assert_eq!((code, &info["accounts_total"], &info["market_info"]), (200, &json!(0), &json!({})), "{info}");
    let body = json!({
        "account_value": "2000000", "relative_height": 4320, "fee_rate_sat_per_kw": "253", "initiator": "a script"
    });
    let (code, opened) = ask(&agent, ALL, "POST", "/v1/pool/accounts", &body.to_string()).await;
    assert_eq!(
        (code, &opened["state"], &opened["value"]),
        (200, &json!("PENDING_OPEN"), &json!("2000000")),
        "{opened}"
    );
    let mut client = agent.client().await;
    let known = client.list_accounts(rpc::ListAccountsRequest::default()).await.expect("listed").into_inner().accounts;
    let key = until_open(&market, &mut client, &known[0].trader_key).await.trader_key;
    let (_, list) = ask(&agent, ALL, "GET", "/v1/pool/accounts?active_only=true", "").await;
    let keys: Vec<&Value> = list["accounts"].as_array().expect("a list").iter().map(|one| &one["trader_key"]).collect();
    assert_eq!((keys, &opened["trader_key"]), (vec![&json!(base64(&key))], &json!(base64(&key))), "{list}");

    let order = json!({ "initiator": "a script", "ask": {
        "lease_duration_blocks": 2016, "version": 5,
        "details": { "trader_key": base64(&key), "rate_fixed": 2000, "amt": 500000, "min_units_match": 1,
                     "max_batch_fee_rate_sat_per_kw": "2500" },
    }});
    let (code, placed) = ask(&agent, ALL, "POST", "/v1/pool/orders", &order.to_string()).await;
    let nonce = placed["accepted_order_nonce"].as_str().unwrap_or_else(|| panic!("{code} {placed}")).to_owned();
    let (_, orders) = ask(&agent, ALL, "GET", "/v1/pool/orders?verbose=true", "").await;
    let shown = &orders["asks"][0]["details"];
    assert_eq!(
        (&shown["order_nonce"], &shown["amt"], &shown["state"]),
        (&json!(nonce), &json!("500000"), &json!("ORDER_SUBMITTED"))
    );
    assert_eq!(shown["events"][0]["event_str"], json!("OrderCreated"));
    let path = format!("/v1/pool/orders/{}", nonce.replace('+', "-").replace('/', "_"));
    assert_eq!(ask(&agent, ALL, "DELETE", &path, "").await, (200, json!({})));
    let path = format!(
        "/v1/pool/accounts?trader_key={}&output_with_fee.fee_rate_sat_per_kw=253",
        base64(&key).replace('+', "%2B")
    );
    let (code, closed) = ask(&agent, ALL, "DELETE", &path, "").await;
    assert_eq!((code, closed["close_txid"].as_str().map(str::len)), (200, Some(44)), "{closed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_request_is_told_with_the_usual_code() {
    let market = Market::open(32).await;
    let agent = market.agent("anna", limits()).await;
    let read = Some("readonly.macaroon");
    let rows = [
        (None, "GET", "/v1/pool/info", "", 401, 16, "no macaroon"),
        (Some("tls.cert"), "GET", "/v1/pool/info", "", 401, 16, "does not parse"),
        (read, "POST", "/v1/pool/stop", "", 403, 7, "lacks write of account"),
        (read, "POST", "/v1/tidegate/stop", "", 403, 7, "lacks write of order"),
        (ALL, "GET", "/v1/pool/nothing", "", 404, 5, "nothing at this path"),
        (ALL, "PUT", "/v1/pool/info", "", 501, 12, "another method"),
        (ALL, "GET", "/v1/pool/accounts?active_only=maybe", "", 400, 3, "ListAccountsRequest.active_only"),
        (ALL, "GET", "/v1/pool/accounts?active=true", "", 400, 3, "no field \"active\""),
        (ALL, "POST", "/v1/pool/accounts?account_value=5", "{}", 400, 3, "from the body"),
        (ALL, "POST", "/v1/pool/accounts", "{", 400, 3, "the body is not JSON"),
        (ALL, "POST", "/v1/pool/accounts", "{\"amount\": 1}", 400, 3, "no field \"amount\""),
        (ALL, "POST", "/v1/pool/accounts", "{\"account_value\": \"1\"}", 400, 3, "relative_height is missing"),
        (ALL, "DELETE", "/v1/pool/orders/AQ", "", 400, 3, "order_nonce: expected 32 bytes, found 1"),
        (ALL, "POST", "/v1/pool/sidecar/offer", "", 501, 12, "not served in this version"),
        (ALL, "GET", "/v1/tidegate/decisions?count=1001", "", 400, 3, "at most 1000"),
    ];
    for (macaroon, method, path, body, code, grpc, words) in rows {
        let (found, told) = ask(&agent, macaroon, method, path, body).await;
        assert_eq!((found, &told["code"]), (code, &json!(grpc)), "{method} {path}: {told}");
        let message = told["message"].as_str().expect("a sentence");
        assert!(message.contains(words), "{method} {path}: `{words}` is missing in: {message}");
    }
    // Both fields of which one is allowed: the decoder's own rule holds here too.
    let both =
        "{\"account_value\": \"1000000\", \"relative_height\": 4320, \"absolute_height\": 5000, \"conf_target\": 6}";
    let (code, told) = ask(&agent, ALL, "POST", "/v1/pool/accounts", both).await;
    assert!(code >= 400, "{told}");
    let (code, status) = ask(&agent, read, "GET", "/v1/tidegate/status", "").await;
    assert_eq!((code, &status["network"], &status["waiting"]), (200, &json!("regtest"), &json!("")), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_finishes_its_handshake_keeps_nobody_waiting() {
    let market = Market::open(33).await;
    let agent = market.agent("anna", limits()).await;
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(TcpStream::connect(agent.rest).await.expect("it listens"));
    }
    let told = eventually("others are served", async || {
        let (code, told) = ask(&agent, ALL, "GET", "/v1/tidegate/limits", "").await;
        (code == 200).then_some(told)
    })
    .await;
    assert_eq!(told["dry_run"], json!(false));
    drop(silent);
}
