//! What a venue's operator may ask wrongly, and what `tidegate venue-ctl` says to it.

use std::net::SocketAddr;

use bitcoin::Network;
use tidegate::runtime::Shutdown;
use tidegate::venue::admin::{
    Admin, AdminClient, AdminError, Bans, Cleared, DepositRequest, DepositTold, Done, VenueTold, bind_admin, paths,
};
use tidegate_protocol::units::Sats;

use crate::program::{Bench, Daemon, Ended, Running};
use crate::rig::{Market, in_a_runtime};

const TOKEN: [u8; 32] = [0x5a; 32];

/// A market with an operator's door, whose venue has coins in its node's wallet.
async fn market() -> (Market, SocketAddr, AdminClient) {
    let market = Market::open(5).await;
    let door = bind_admin("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = door.address().unwrap();
    let admin = Admin::new(market.venue.clone(), Network::Regtest, TOKEN);
    tokio::spawn(door.serve(admin, Shutdown::default()));
    market.world.fund(&market.venue_node, Sats::new(1_000_000).unwrap()).unwrap();
    (market, address, AdminClient::new(address, TOKEN))
}

/// The refusal's status and sentence.
fn refusal<T: std::fmt::Debug>(outcome: Result<T, AdminError>) -> (u16, String) {
    match outcome {
        Err(AdminError::Refused { status, reason }) => (status, reason),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_wrong_request_of_an_operator_gets_a_sentence() {
    in_a_runtime(async {
        let (_market, address, client) = market().await;
        let key = "02".repeat(33);
        let node = tidegate_protocol::keys::NodeId::new(point()).to_string();
        let rows = [
            (paths::DEPOSIT, "{".to_owned(), 400, "not understood"),
            (paths::DEPOSIT, r#"{"value_sats": 20000, "value_sat": 1}"#.to_owned(), 400, "unknown field `value_sat`"),
            (paths::DEPOSIT, r#"{"value_sats": -1}"#.to_owned(), 400, "not understood"),
            (paths::DEPOSIT, r#"{"value_sats": 9999}"#.to_owned(), 400, "too small"),
            (paths::DEPOSIT, r#"{"value_sats": 2100000000000001}"#.to_owned(), 400, "21"),
            (paths::DEPOSIT, r#"{"value_sats": 5000000}"#.to_owned(), 409, "not enough confirmed coins"),
            (paths::DEPOSIT, r#"{"value_sats": 20000, "sat_per_kw": 1}"#.to_owned(), 400, "no sensible fee rate"),
            (paths::BUMP, r#"{"sat_per_kw": 600000}"#.to_owned(), 400, "no sensible fee rate"),
            (
                paths::WITHDRAW,
                r#"{"outputs": [{"address": "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "value_sats": 1000}]}"#
                    .to_owned(),
                400,
                "not an address of this network",
            ),
            (
                paths::WITHDRAW,
                r#"{"outputs": [{"address": "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080", "value_sats": 1000}]}"#
                    .to_owned(),
                400,
                "more than the venue's coins hold",
            ),
            (
                paths::BAN,
                format!(r#"{{"account": "{key}", "node": "{key}", "blocks": 1}}"#),
                400,
                "either an account or a node",
            ),
            (paths::BAN, r#"{"blocks": 1}"#.to_owned(), 400, "either an account or a node"),
            (paths::BAN, r#"{"node": "02ab", "blocks": 1}"#.to_owned(), 400, "is not a key"),
            (paths::BAN, format!(r#"{{"node": "{node}", "blocks": 0}}"#), 400, "write 1 to"),
            (paths::BAN, format!(r#"{{"account": "{node}", "blocks": 1}}"#), 404, "there is no account"),
            ("/v1/admin/steal", "{}".to_owned(), 404, "no such call"),
        ];
        for (path, body, status, words) in rows {
            let body: serde_json::Value = serde_json::from_str(&body).unwrap_or(serde_json::Value::String(body));
            let (found, sentence) = refusal(client.post::<_, serde_json::Value>(path, &body).await);
            assert!(found == status && sentence.contains(words), "{path} {body}: {found} {sentence}");
        }
        let stranger = AdminClient::new(address, [0; 32]);
        for path in [paths::STATUS, paths::BANS, "/v1/admin/steal"] {
            let (status, sentence) = refusal(stranger.get::<serde_json::Value>(path).await);
            assert!(status == 401 && sentence.contains("admin.token"), "{path}: {status} {sentence}");
        }
        let told: VenueTold = client.get(paths::STATUS).await.unwrap();
        assert_eq!((told.deposits.len(), told.withdrawals.len(), told.bans), (0, 0, 0), "nothing was done");
    });
}

/// The point of some key.
fn point() -> bitcoin::secp256k1::PublicKey {
    let secret = bitcoin::secp256k1::SecretKey::from_slice(&[7; 32]).unwrap();
    secret.public_key(&bitcoin::secp256k1::Secp256k1::new())
}

#[test]
fn an_operator_deposits_withdraws_bans_and_clears() {
    in_a_runtime(async {
        let (market, _, client) = market().await;
        let request = DepositRequest { value_sats: 200_000, sat_per_kw: Some(500) };
        let made: DepositTold = client.post(paths::DEPOSIT, &request).await.unwrap();
        assert_eq!((made.value_sats, made.state.as_str()), (200_000, "waiting"));
        market.world.mine(3);
        let status = async || client.get::<VenueTold>(paths::STATUS).await.unwrap();
        market.until("the deposit is confirmed", async || status().await.deposits[0].state == "confirmed").await;
        let output =
            serde_json::json!({"address": "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080", "value_sats": 50_000});
        let _: Done = client.post(paths::WITHDRAW, &serde_json::json!({ "outputs": [output] })).await.unwrap();
        let _: Done = client.post(paths::BUMP, &serde_json::json!({ "sat_per_kw": 1_000 })).await.unwrap();
        let told = status().await;
        assert_eq!((told.withdrawals[0].value_sats, told.wished_sat_per_kw), (50_000, Some(1_000)));
        assert_eq!(told.withdrawals[0].address, "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080");
        let cleared: Cleared = client.post(paths::CLEAR, &serde_json::json!({})).await.unwrap();
        assert!(cleared.batch.is_some(), "{}", cleared.reason);
        market.world.mine(1);
        market.until("the deposit is part of the coin", async || status().await.deposits.is_empty()).await;
        let told = status().await;
        assert!((149_000..150_000).contains(&told.coin_sats) && told.withdrawals.is_empty(), "{told:?}");
        let node = tidegate_protocol::keys::NodeId::new(point()).to_string();
        let _: Done = client.post(paths::BAN, &serde_json::json!({ "node": node, "blocks": 144 })).await.unwrap();
        let Bans { bans } = client.get(paths::BANS).await.unwrap();
        assert_eq!((bans.len(), bans[0].node.as_deref(), bans[0].times), (1, Some(node.as_str()), 1));
        let _: Done = client.post(paths::UNBAN, &serde_json::json!({ "node": node })).await.unwrap();
        assert_eq!(client.get::<Bans>(paths::BANS).await.unwrap().bans, []);
    });
}

#[test]
fn venue_ctl_asks_before_it_acts_and_says_why_not() {
    in_a_runtime(async {
        let (market, address, _) = market().await;
        let bench = Bench::new(Daemon::Venue);
        let config = bench.path("tidegate.toml").display().to_string();
        let run = async |words: &[&str]| -> Ended {
            let words: Vec<String> =
                ["venue-ctl", "--config", &config].iter().chain(words).map(ToString::to_string).collect();
            let folder = bench.folder.path().to_owned();
            let program = move || Running::start(&words.iter().map(String::as_str).collect::<Vec<_>>(), &folder).end();
            tokio::task::spawn_blocking(program).await.unwrap()
        };
        let ended = run(&["status"]).await;
        assert!(ended.code == Some(2) && ended.stderr.contains("no section [api]"), "{ended:?}");
        bench.set("# [api]\n# admin_listen = \"127.0.0.1:12083\"", &format!("[api]\nadmin_listen = \"{address}\""));
        let ended = run(&["status"]).await;
        assert!(ended.code == Some(1) && ended.stderr.contains("can not read the token"), "{ended:?}");
        bench.write("data/admin.token", &"5a".repeat(32));
        let ended = run(&["status"]).await;
        assert!(ended.code == Some(0) && ended.stdout.contains("own coin"), "{ended:?}");
        let ended = run(&["deposit", "200k"]).await;
        assert!(ended.code == Some(2) && ended.stderr.contains("Add --yes"), "{ended:?}");
        let ended = run(&["deposit", "200k", "--yes"]).await;
        assert!(ended.code == Some(0) && ended.stdout.contains("on its way"), "{ended:?}");
        let ended = run(&["--json", "status"]).await;
        let told: VenueTold = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!(told.deposits[0].value_sats, 200_000);
        let ended = run(&["withdraw", "--yes", "nowhere", "1k"]).await;
        assert!(ended.code == Some(1) && ended.stderr.contains("not an address of this network"), "{ended:?}");
        let ended = run(&["clear"]).await;
        assert!(ended.code == Some(0) && ended.stdout.contains("no two orders meet"), "{ended:?}");
        let ended = run(&["ban", "--blocks", "1", "--yes"]).await;
        assert_eq!(ended.code, Some(2), "{ended:?}");
        bench.write("data/admin.token", &"00".repeat(32));
        let ended = run(&["bans"]).await;
        assert!(ended.code == Some(1) && ended.stderr.contains("admin.token"), "{ended:?}");
        drop(market);
    });
}
