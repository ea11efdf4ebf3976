//! A venue and agents without a strategy, each behind its API, on a simulated chain; and clients of the API.

use crate::api::AgentMetrics;
use crate::api::operator::{self, About, Operator, Stage, Switch, Wishes};
use crate::daemon::agent::{Desk, decide};
use crate::daemon::brain::Brain;
use crate::daemon::parts::{TraderParts, VenueParts};
use crate::runtime::{OsEntropy, Shutdown, SteppedClock, SystemClock};
use crate::store::SqliteStore;
use crate::venue::{self, GrpcLink, GrpcTraders, Token};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tidegate_engine::gate::{Limits, RiskGate};
use tidegate_ports::{Entropy as _, Timestamp};
use tidegate_protocol::order::NodeTier;
use tidegate_protocol::units::{RatePerBillion, SatPerKw, Sats};
use tidegate_sandbox::{SandboxEntropy, SandboxNode, World};
use tidegate_strategies::AnyStrategy;
use tidegate_trader::TraderConfig;
use tidegate_venue::{Ratings, VenueConfig};
use tidegate_wire::poolrpc as rpc;
use tidegate_wire::poolrpc::trader_client::TraderClient;
use tidegate_wire::tidegate::v1::agent_client::AgentClient;
use tokio::task::JoinHandle;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

type Env = TraderParts<SandboxNode, SqliteStore, SteppedClock, SandboxEntropy>;
/// A client of the API.
pub(super) type Client = TraderClient<InterceptedService<Channel, Sent>>;

/// Longest real wait for something that must happen.
const PATIENCE: Duration = Duration::from_secs(60);
const START: Timestamp = Timestamp(1_767_225_600_000);

/// Sends these macaroons with each call.
#[derive(Clone, Debug)]
pub(super) struct Sent(Vec<MetadataValue<Ascii>>);

impl Interceptor for Sent {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        for macaroon in &self.0 {
            request.metadata_mut().append("macaroon", macaroon.clone());
        }
        Ok(request)
    }
}

/// A world with a venue.
pub(super) struct Market {
    pub(super) world: World,
    pub(super) venue: tidegate_venue::Handle,
    pub(super) shutdown: Shutdown,
    address: String,
    clock: SteppedClock,
    folder: TempDir,
}

impl Market {
    pub(super) async fn open(seed: u64) -> Market {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (world, clock, shutdown) = (World::new(seed), SteppedClock::new(START), Shutdown::default());
        let node = world.add_node("venue");
        let server = venue::bind("127.0.0.1:0".parse().expect("loopback")).await.expect("a port is free");
        let address = server.address().expect("bound").to_string();
        let ratings = Ratings { default: NodeTier::Tier1, ..Ratings::default() };
        let (handle, flows) =
            tidegate_venue::venue(VenueConfig { tick_ms: None, ratings, ..VenueConfig::usual("regtest") });
        let store = SqliteStore::open(&folder.path().join("venue.sqlite"), "venue").await.expect("a new database");
        let traders = GrpcTraders::default();
        let parts =
            VenueParts { node, traders: traders.clone(), store, clock: clock.clone(), entropy: world.entropy("venue") };
        tokio::spawn(async move { flows.run(&parts).await });
        tokio::spawn(server.serve(handle.clone(), 6, traders, shutdown.clone()));
        world.mine(1);
        Market { world, venue: handle, shutdown, address, clock, folder }
    }

    /// Where an agent keeps everything.
    pub(super) fn database(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.sqlite"))
    }

    /// An agent without strategy whose node owns 10 BTC.
    pub(super) async fn agent(&self, name: &str, limits: Limits) -> Agent {
        let (agent, enter) = self.waiting_agent(name, limits).await;
        let mut client = agent.client().await;
        let refused = client.get_info(rpc::GetInfoRequest {}).await.expect_err("the node is away");
        assert_eq!(refused.message(), "waiting for the node: it is away");
        enter();
        agent
    }

    /// An agent whose node never answers.
    pub(super) async fn agent_without_node(&self, name: &str, limits: Limits) -> Agent {
        self.waiting_agent(name, limits).await.0
    }

    /// An agent that waits for its node, and what lets the node answer.
    async fn waiting_agent(&self, name: &str, limits: Limits) -> (Agent, impl FnOnce()) {
        let node = self.world.add_node(name);
        self.world.fund(&node, Sats::constant(1_000_000_000)).expect("coins for everybody");
        self.world.mine(1);
        let file = self.database(name);
        let store = SqliteStore::open(&file, "trader").await.expect("a new database");
        let journal = SqliteStore::open(&file, "journal").await.expect("a new database");
        let switch = SqliteStore::open(&file, "switch").await.expect("a new database");
        let switch = Switch::load(switch).await.expect("empty");
        let entropy = self.world.entropy(name);
        let link = GrpcLink::new(&self.address, Token::new(entropy.draw())).expect("an address");
        let (trader, flows) = tidegate_trader::trader(TraderConfig::default());
        let env: Arc<Env> = Arc::new(TraderParts { node, link, store, clock: self.clock.clone(), entropy });
        let gate = RiskGate::new(limits.clone());
        let brain = Brain::<AnyStrategy, _>::load(None, gate, journal.clone()).await.expect("empty");
        let (wishes, asked) = Wishes::new();
        let metrics = AgentMetrics::new().expect("distinct names");
        let desk = Desk { trader: trader.clone(), metrics: metrics.clone(), asked };
        let pause = Duration::from_secs(3_600);
        let brain = brain.with_switch(switch.clone());
        let deciding = tokio::spawn(decide(brain, Arc::clone(&env), desk, pause, self.shutdown.clone()));
        let api = self.folder.path().join(name).join("regtest");
        let anywhere = "127.0.0.1:0".parse().expect("loopback");
        let mut bound = operator::bind(anywhere, &api, &SystemClock, &OsEntropy).await.expect("a port is free");
        let address = bound.address().expect("bound");
        let rest = bound.bind_rest(anywhere).await.expect("a port is free");
        let (network, venue, strategy) = ("regtest".to_owned(), self.address.clone(), String::new());
        let about = About { network, venue, strategy, limits, switch, journal: journal.clone() };
        let stage = Stage::<Env>::new(|| Some("waiting for the node: it is away".to_owned())).with(about);
        tokio::spawn(bound.serve(stage.clone(), SystemClock, self.shutdown.clone()));
        let network = bitcoin::Network::Regtest;
        let agent = Agent {
            address,
            rest,
            folder: api,
            journal,
            env: Arc::clone(&env),
            trader: trader.clone(),
            metrics,
            deciding,
        };
        let operator = Operator { env: Arc::clone(&env), trader, wishes, network, new_nodes_only: false };
        let enter = move || {
            tokio::spawn(async move { flows.run(&*env).await });
            stage.enter(operator);
        };
        (agent, enter)
    }
}

/// A running agent, seen from outside.
pub(super) struct Agent {
    pub(super) address: SocketAddr,
    /// Where the same calls are served as JSON.
    pub(super) rest: SocketAddr,
    pub(super) folder: PathBuf,
    pub(super) journal: SqliteStore,
    pub(super) env: Arc<Env>,
    pub(super) trader: tidegate_trader::Handle,
    pub(super) metrics: AgentMetrics,
    /// The task that decides and judges what is asked.
    pub(super) deciding: JoinHandle<anyhow::Result<()>>,
}

impl Agent {
    /// A client with the macaroon of the agent's folder.
    pub(super) async fn client(&self) -> Client {
        let macaroon = std::fs::read(self.folder.join("pool.macaroon")).expect("made at the start");
        self.client_with(&[&hex::DisplayHex::to_lower_hex_string(&macaroon[..])]).await
    }

    /// A client of our own interface, with the macaroon in this file.
    pub(super) async fn own_client(&self, macaroon: &str) -> AgentClient<InterceptedService<Channel, Sent>> {
        let macaroon = std::fs::read(self.folder.join(macaroon)).expect("made at the start");
        let macaroon = hex::DisplayHex::to_lower_hex_string(&macaroon[..]);
        let macaroon = MetadataValue::try_from(macaroon).expect("ASCII");
        AgentClient::with_interceptor(self.channel().await, Sent(vec![macaroon]))
    }

    /// A client that sends these as macaroons.
    pub(super) async fn client_with(&self, macaroons: &[&str]) -> Client {
        let sent = macaroons.iter().map(|macaroon| MetadataValue::try_from(*macaroon).expect("ASCII")).collect();
        TraderClient::with_interceptor(self.channel().await, Sent(sent))
    }

    async fn channel(&self) -> Channel {
        let certificate = std::fs::read(self.folder.join("tls.cert")).expect("made at the start");
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(certificate)).domain_name("localhost");
        let endpoint = Endpoint::from_shared(format!("https://{}", self.address)).expect("an address");
        endpoint.tls_config(tls).expect("our certificate").connect().await.expect("it listens")
    }
}

/// Asks again and again until the answer is there.
pub(super) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(found) = ask().await {
                return found;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("it never happened: {what}"))
}

/// Opens an account and mines until it is open.
pub(super) async fn open_account(market: &Market, client: &mut Client, value: u64) -> rpc::Account {
    let opened = client.init_account(new_account(value)).await.expect("within the limits").into_inner();
    until_open(market, client, &opened.trader_key).await
}

/// Mines until an account is open at both sides.
pub(super) async fn until_open(market: &Market, client: &mut Client, key: &[u8]) -> rpc::Account {
    market.world.mine(6);
    eventually("the account opens", async || {
        let account = account(client, key).await;
        let open = account.state == i32::from(rpc::AccountState::Open);
        let venue = market.venue.status().await.expect("it runs");
        let all: usize = venue.accounts.values().sum();
        let at_venue = venue.accounts.get(&tidegate_venue::VenueAccountState::Open).copied().unwrap_or(0);
        (open && at_venue == all && venue.subscribed == all).then_some(account)
    })
    .await
}

/// The account with this key.
pub(super) async fn account(client: &mut Client, key: &[u8]) -> rpc::Account {
    let list =
        client.list_accounts(rpc::ListAccountsRequest { active_only: false }).await.expect("listed").into_inner();
    list.accounts.into_iter().find(|account| account.trader_key == key).expect("it is in the list")
}

/// As the deployed client asks for an account: 4,320 blocks, 1 sat/vB.
pub(super) fn new_account(value: u64) -> rpc::InitAccountRequest {
    use rpc::init_account_request::{AccountExpiry, Fees};
    rpc::InitAccountRequest {
        account_value: value,
        initiator: "pool-cli".to_owned(),
        version: 0,
        account_expiry: Some(AccountExpiry::RelativeHeight(4_320)),
        fees: Some(Fees::FeeRateSatPerKw(253)),
    }
}

/// As the deployed client sends the common part of an order.
pub(super) fn details(account: &[u8], rate: u32, amount: u64) -> rpc::Order {
    rpc::Order {
        trader_key: account.to_vec(),
        rate_fixed: rate,
        amt: amount,
        max_batch_fee_rate_sat_per_kw: 25_000,
        min_units_match: 1,
        is_public: true,
        ..rpc::Order::default()
    }
}

/// An ask.
pub(super) fn ask(details: rpc::Order) -> rpc::SubmitOrderRequest {
    let ask = rpc::Ask {
        details: Some(details),
        lease_duration_blocks: 2_016,
        version: 5,
        confirmation_constraints: 1,
        ..rpc::Ask::default()
    };
    submit(rpc::submit_order_request::Details::Ask(ask))
}

/// A bid.
pub(super) fn bid(details: rpc::Order) -> rpc::SubmitOrderRequest {
    let bid = rpc::Bid { details: Some(details), lease_duration_blocks: 2_016, version: 5, ..rpc::Bid::default() };
    submit(rpc::submit_order_request::Details::Bid(bid))
}

pub(super) fn submit(details: rpc::submit_order_request::Details) -> rpc::SubmitOrderRequest {
    rpc::SubmitOrderRequest { initiator: "pool-cli".to_owned(), details: Some(details) }
}

/// Wide limits.
pub(super) fn limits() -> Limits {
    Limits {
        dry_run: false,
        max_order_sats: Sats::constant(10_000_000),
        max_leased_sats: Sats::constant(100_000_000),
        max_daily_cost_sats: Sats::constant(10_000_000),
        ask_rate_min_ppb: RatePerBillion::new(1),
        bid_rate_max_ppb: RatePerBillion::new(20_000),
        rate_max_ppb: RatePerBillion::new(100_000),
        max_account_sats: Sats::constant(1_000_000_000),
        max_accounts_total_sats: Sats::constant(5_000_000_000),
        wallet_reserve_sats: Sats::constant(100_000),
        max_batch_fee_rate_sat_per_kw: SatPerKw::new(25_000),
        max_open_orders: 20,
        max_terms_age_s: 3_600,
    }
}
