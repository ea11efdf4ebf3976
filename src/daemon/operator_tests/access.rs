//! Who is let in.

use super::bench::{Market, limits};
use crate::runtime::{OsEntropy, SystemClock};
use hex::{DisplayHex as _, FromHex as _};
use libmacaroon::Macaroon;
use tidegate_ports::{Clock as _, Entropy as _};
use tidegate_wire::poolrpc as rpc;
use tidegate_wire::poolrpc::trader_client::TraderClient;
use tonic::Code;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

/// The macaroon with one more condition, as its holder adds it.
fn with(macaroon: &str, condition: &str) -> String {
    use bitcoin::base64::{Engine as _, engine::general_purpose::URL_SAFE};
    let bytes = Vec::<u8>::from_hex(macaroon).expect("hexadecimal");
    let mut macaroon = Macaroon::deserialize_binary(&bytes).expect("ours");
    macaroon.add_first_party_caveat(condition).expect("short");
    let text = macaroon.serialize(libmacaroon::Format::V2).expect("it can be written");
    URL_SAFE.decode(text).expect("base64").to_lower_hex_string()
}

fn time_before(seconds_from_now: i64) -> String {
    let now = i64::try_from(SystemClock.now().seconds()).expect("before the year 292 billion");
    let time = chrono::DateTime::from_timestamp(now + seconds_from_now, 5).expect("a date");
    format!("time-before {}", time.to_rfc3339_opts(chrono::SecondsFormat::Nanos, true))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_needs_a_macaroon_that_allows_it() {
    let market = Market::open(3).await;
    let agent = market.agent("anna", limits()).await;
    let good = std::fs::read(agent.folder.join("pool.macaroon")).expect("made").to_lower_hex_string();
    let stranger = market.agent("boris", limits()).await;
    let foreign = std::fs::read(stranger.folder.join("pool.macaroon")).expect("made").to_lower_hex_string();
    let mut forged = good.clone();
    forged.replace_range(good.len() - 2.., if good.ends_with("00") { "01" } else { "00" });
    let expired = with(&good, &time_before(-1));
    let elsewhere = with(&good, "ipaddr 192.0.2.1");
    let odd = with(&good, "moon full");
    let rows: [(&str, Vec<&str>, Option<&str>); 10] = [
        ("the file", vec![&good], None),
        ("none", vec![], Some("no macaroon")),
        ("two", vec![&good, &good], Some("2 macaroons were sent")),
        ("not hexadecimal", vec!["macaroon"], Some("not hexadecimal")),
        ("cut", vec![&good[..40]], Some("does not parse")),
        ("another agent's", vec![&foreign], Some("not ours")),
        ("forged", vec![&forged], Some("not ours")),
        ("expired", vec![&expired], Some("expired")),
        ("for another address", vec![&elsewhere], Some("another address")),
        ("a condition that is not known", vec![&odd], Some("condition that is not known here: `moon full`")),
    ];
    for (name, macaroons, refusal) in rows {
        let mut client = agent.client_with(&macaroons).await;
        let answer = client.list_accounts(rpc::ListAccountsRequest::default()).await;
        match refusal {
            None => assert!(answer.is_ok(), "{name}: {answer:?}"),
            Some(words) => {
                let status = answer.expect_err(name);
                assert_eq!(status.code(), Code::Unauthenticated, "{name}: {status:?}");
                assert!(status.message().contains(words), "{name}: {status:?}");
            }
        }
    }
    // As the deployed client sends it: one more minute.
    let fresh = with(&good, &time_before(60));
    let here = with(&fresh, "ipaddr 127.0.0.1");
    for macaroon in [fresh, here] {
        let mut client = agent.client_with(&[&macaroon]).await;
        client.get_info(rpc::GetInfoRequest {}).await.expect("its conditions hold");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_tls_or_with_another_certificate_gets_nothing() {
    let market = Market::open(5).await;
    let (agent, other) = (market.agent("anna", limits()).await, market.agent("boris", limits()).await);
    let plain = Endpoint::from_shared(format!("http://{}", agent.address)).expect("an address");
    if let Ok(channel) = plain.connect().await {
        let answer = TraderClient::new(channel).get_info(rpc::GetInfoRequest {}).await;
        assert!(answer.is_err(), "{answer:?}");
    }
    let certificate = std::fs::read(other.folder.join("tls.cert")).expect("made");
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(certificate)).domain_name("localhost");
    let endpoint = Endpoint::from_shared(format!("https://{}", agent.address)).expect("an address");
    let refused = endpoint.tls_config(tls).expect("a certificate").connect().await;
    assert!(refused.is_err(), "the certificate is another agent's");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_the_api_are_private_and_kept() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let api = folder.path().join("api");
    let address = "127.0.0.1:0".parse().expect("loopback");
    let names = ["tls.cert", "tls.key", "root.key", "pool.macaroon"];
    let content = || names.map(|name| std::fs::read(api.join(name)).expect("made"));
    crate::api::operator::bind(address, &api, &SystemClock, &OsEntropy).await.expect("a port is free");
    let first = content();
    for name in names {
        let mode = std::fs::metadata(api.join(name)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    crate::api::operator::bind(address, &api, &SystemClock, &OsEntropy).await.expect("a port is free");
    assert!(first == content(), "a restart keeps what clients have");
    assert_ne!(OsEntropy.draw(), OsEntropy.draw());
}
