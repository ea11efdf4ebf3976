//! What is shown of a running agent: its page passes Prometheus's own check, a real Prometheus that scrapes it answers
//! every query of the dashboard, and its ledger is the chain's.

use super::bench::{Agent, Client, Market, ask, bid, details, eventually, limits, open_account};
use super::prometheus::{self, Prometheus};
use crate::api::operator::Wish;
use crate::api::{self, AgentMetrics, VenueMetrics, render};
use crate::daemon::agent::AgentPage;
use crate::daemon::books;
use crate::daemon::brain::Brain;
use crate::daemon::connect::Waiting;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tidegate_engine::gate::{Limits, RiskGate};
use tidegate_engine::ledger::Name;
use tidegate_ports::Wallet as _;
use tidegate_protocol::keys::AccountKey;
use tidegate_protocol::order::{AuctionType, BidTerms, OrderChannelType, OrderSide};
use tidegate_protocol::units::{BlockCount, RatePerBillion, SatPerKw, Sats, UnitCount};
use tidegate_sandbox::MemoryStore;
use tidegate_strategies::AnyStrategy;
use tidegate_trader::NewOrder;
use tidegate_wire::poolrpc as rpc;

const CLEARED: u64 = 300_000;

/// A seller and a buyer who have traded one lease, each with a client of their API.
async fn traded(market: &Market) -> [(Agent, Client); 2] {
    let (seller, buyer) = (market.agent("anna", limits()).await, market.agent("boris", limits()).await);
    let (mut sells, mut buys) = (seller.client().await, buyer.client().await);
    let first = open_account(market, &mut sells, 2_000_000).await.trader_key;
    let second = open_account(market, &mut buys, 1_000_000).await.trader_key;
    sells.submit_order(ask(details(&first, 1_000, 500_000))).await.expect("placed");
    buys.submit_order(bid(details(&second, 3_000, CLEARED))).await.expect("placed");
    market.venue.tick().await.expect("it runs").cleared.expect("they meet");
    for client in [&mut sells, &mut buys] {
        eventually("the lease is booked", async || {
            let leases = client.leases(rpc::LeasesRequest::default()).await.expect("listed").into_inner().leases;
            (!leases.is_empty()).then_some(())
        })
        .await;
    }
    for (client, key) in [(&mut sells, &first), (&mut buys, &second)] {
        super::bench::until_open(market, client, key).await;
        // Nothing that a person asks for is done without a look at everything, also when it is refused.
        client.submit_order(ask(details(key, 2_000, 20_000_000))).await.expect_err("larger than the limit");
    }
    [(seller, sells), (buyer, buys)]
}

/// The page of an agent, as its daemon serves it.
async fn serve(market: &Market, agent: &Agent) -> SocketAddr {
    let waiting = Waiting::for_node("nowhere");
    waiting.set(None);
    let page = AgentPage { trader: agent.trader.clone(), metrics: agent.metrics.clone(), waiting };
    let http = api::bind("127.0.0.1:0".parse().expect("loopback"), "status_listen").await.expect("a port is free");
    let address = http.address().expect("bound");
    tokio::spawn(http.serve(Arc::new(page), market.shutdown.clone()));
    address
}

fn metrics_in(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("tidegate_") || *word == "up").map(str::to_owned).collect()
}

/// What stands in a file of `dashboards/`.
fn shipped(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards").join(name);
    std::fs::read_to_string(path).expect("it is shipped")
}

/// Every query of the dashboard, with what Grafana would put in.
fn dashboard_queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&shipped("tidegate.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let queries = targets.map(|target| target["expr"].as_str().expect("a query"));
    queries
        .map(|text| text.replace("$job", ".*").replace("$instance", ".*").replace("$__rate_interval", "1m"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_prometheus_answers_every_query_of_dashboard_and_alerts() {
    let market = Market::open(41).await;
    let [(seller, _sells), (buyer, _buys)] = traded(&market).await;
    let pages = [serve(&market, &seller).await, serve(&market, &buyer).await];
    prometheus::check_metrics(&prometheus::get(pages[0], "/metrics").await);
    prometheus::check_metrics(&render(&VenueMetrics::new().expect("names").registry).expect("text"));
    let Some(prometheus) = Prometheus::start(&pages).await else { return };
    // From here on a change over time is known.
    prometheus.until("min(count_over_time(up[1h])) >= 3").await;

    let queries = dashboard_queries();
    assert!(queries.len() > 40, "{} queries are too few", queries.len());
    for query in &queries {
        let found = prometheus.query(query).await;
        assert!(!found.is_empty(), "`{query}` gives nothing");
    }
    for rule in prometheus.rules().await {
        let (name, query) = (rule["name"].as_str().expect("named"), rule["query"].as_str().expect("a query"));
        assert_eq!((&rule["health"], &rule["state"]), (&"ok".into(), &"inactive".into()), "{name}: {rule}");
        for metric in metrics_in(query) {
            assert!(!prometheus.query(&metric).await.is_empty(), "{name}: `{metric}` gives nothing");
        }
    }
    let one = async |query: &str| {
        let found = prometheus.query(query).await;
        assert_eq!(found.len(), 1, "`{query}`: {found:?}");
        found[0]["value"][1].as_str().expect("a number").to_owned()
    };
    let of_seller = format!("instance=\"{}\"", pages[0]);
    assert_eq!(one(&format!("tidegate_leased_running_sats{{{of_seller},role=\"seller\"}}")).await, "300000");
    assert_eq!(one(&format!("tidegate_ledger_balance_sats{{{of_seller},kind=\"principal\"}}")).await, "300000");
    assert_eq!(one(&format!("tidegate_risk_refusals_total{{{of_seller},limit=\"order_size\"}}")).await, "1");
    assert_eq!(one(&format!("tidegate_batches_total{{{of_seller},step=\"signed\"}}")).await, "1");
    assert_eq!(one("sum(tidegate_ledger_difference_sats)").await, "0");
    let paid = one("sum(tidegate_ledger_balance_sats{kind=\"premium_expense\"})").await;
    assert_eq!(
        one("sum(-tidegate_ledger_balance_sats{kind=\"premium_income\"})").await,
        paid,
        "one pays what the other gets"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_is_the_chains_and_the_wallets() {
    let market = Market::open(42).await;
    let sides = traded(&market).await;
    for (agent, _) in &sides {
        let status = agent.trader.status().await.expect("it runs");
        let books = books::read(&*agent.env, &status).await.expect("the wallet tells");
        let (ledger, account) = (books.ledger(), status.accounts.first().expect("one"));
        assert_eq!(books.difference_sats(), 0);
        let output = market.world.utxo(account.outpoint.expect("open")).expect("unspent");
        let held = ledger.balance(Name::Account(account.key())).to_sats().map(Sats::get);
        assert_eq!(held, Some(output.value.to_sat()), "the chain");
        assert_eq!((ledger.balance(Name::WriteOffs).get(), ledger.balance(Name::Opening).get()), (0, 0));
        // Its node was given 10 BTC, and the account was funded with a fee.
        let wallet = agent.env.node.confirmed_balance().await.expect("told");
        let paid = i64::try_from(wallet.get()).expect("an amount") - 1_000_000_000;
        assert_eq!(ledger.balance(Name::Wallet).get(), paid, "the wallet");
    }
}

/// A bid for one unit.
fn small_bid(account: AccountKey) -> NewOrder {
    NewOrder {
        account,
        rate: RatePerBillion::new(100),
        units: UnitCount::new(1),
        min_units: UnitCount::new(1),
        duration: BlockCount::new(2_016),
        max_batch_fee_rate: SatPerKw::new(253),
        channel_type: OrderChannelType::PeerDependent,
        auction: AuctionType::Inbound,
        allowed_nodes: Vec::new(),
        denied_nodes: Vec::new(),
        public: false,
        side: OrderSide::Bid(BidTerms::default()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_day_cost_is_known_after_a_restart() {
    let market = Market::open(43).await;
    let [_, (buyer, _)] = traded(&market).await;
    let status = buyer.trader.status().await.expect("it runs");
    let lease = status.leases.first().expect("one");
    let spent = Sats::checked_sum([lease.premium, lease.execution_fee, lease.chain_fee]).expect("an amount");
    // A gate that knows nothing of before: what was spent is in what the trader stored.
    for (limit, allowed) in [(spent, false), (Sats::constant(10_000_000), true)] {
        let gate = RiskGate::new(Limits { max_daily_cost_sats: limit, ..limits() });
        let store = MemoryStore::default();
        let mut brain = Brain::<AnyStrategy, _>::load(None, gate, store).await.expect("empty");
        let wish = Wish::Submit(Box::new(small_bid(lease.account)));
        match brain.asked(&*buyer.env, &buyer.trader, wish, "a test").await {
            Ok(_) => assert!(allowed, "{limit} were spent before the restart"),
            Err(error) => assert!(!allowed && error.to_string().contains("within 24 hours"), "{error}"),
        }
    }
}

#[test]
fn fresh_metrics_pass_the_check() {
    let agent = AgentMetrics::new().expect("distinct names");
    prometheus::check_metrics(&render(&agent.registry).expect("text"));
}
