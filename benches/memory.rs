//! Resident memory: of an idle `tidegate run`, of a view of the market with five years of batches, and of a venue with 1,000
//! connected traders and 100,000 orders. `cargo bench --bench memory`, with other numbers `… -- TRADERS ORDERS_EACH`; Linux only.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "it reports, and a measurement that cannot go on fails")]

#[path = "../tests/bad_input/lnd.rs"]
#[allow(dead_code, reason = "shared with tests, which look at more")]
mod lnd;
#[path = "../tests/cli/program.rs"]
#[allow(dead_code, reason = "shared with tests, which look at more")]
mod program;
#[path = "../tests/rig/mod.rs"]
#[allow(dead_code, reason = "shared with tests, which look at more")]
mod rig;

use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::time::Duration;

use futures_util::future::join_all;
use lnd::FakeLnd;
use program::{Bench, Daemon, NOBODY};
use rig::meddler::identity;
use rig::{DURATION, LIFETIME, Market, in_a_runtime};
use tidegate::venue::{GrpcLink, Token};
use tidegate_engine::view::{ClearedPair, Clearing, MarketView};
use tidegate_ports::{
    Change, ClientMessage, InitAccount, Reservation, Row, Sequence, ServerMessage, Signer as _, Store, StoreError,
    Submission, Timestamp, VenueLink as _,
};
use tidegate_protocol::account::AccountVersion;
use tidegate_protocol::auth::CommitHash;
use tidegate_protocol::batch::BatchVersion;
use tidegate_protocol::keys::{
    AccountKey, BatchId, FAMILY_ACCOUNT, FAMILY_MULTISIG, KeyDescriptor, MultisigKey, OrderPreimage,
};
use tidegate_protocol::order::{
    AskTerms, AuctionType, Order, OrderChannelType, OrderSide, OrderVersion, SubmittedOrder,
};
use tidegate_protocol::units::{RatePerBillion, SatPerKw, Sats, UnitCount};
use tidegate_sandbox::SandboxNode;

/// Connected traders, and orders of each, unless the command line says otherwise.
const BUSY: [u32; 2] = [1_000, 100];
/// A batch every ten minutes for five years.
const FIVE_YEARS: u64 = 5 * 365 * 144;
const ACCOUNT_SATS: u64 = 20_000_000;

/// Resident memory of a process, in MiB.
fn resident(pid: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs, on Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux tells");
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib / 1024.0
}

fn own() -> f64 {
    resident("self")
}

/// `tidegate run` on a node that answers, with a decision each second and no venue.
fn idle_agent() {
    let lnd = FakeLnd::start(|_| ());
    let bench = Bench::new(Daemon::Agent);
    bench.write("tls.cert", &lnd.certificate);
    bench.set(&format!("[node]\naddress = \"{NOBODY}\""), &format!("[node]\naddress = \"{}\"", lnd.address));
    bench.set("decide_every_seconds = 60", "decide_every_seconds = 1");
    let log = bench.path("log");
    let config = bench.path("tidegate.toml").display().to_string();
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["run", "--config", &config])
        .stdin(Stdio::null())
        .stderr(File::create(&log).unwrap())
        .spawn()
        .expect("the binary starts");
    // Memory grows with the first decisions, and then no more.
    let figures: Vec<String> = [5, 10, 10]
        .map(|seconds| {
            std::thread::sleep(Duration::from_secs(seconds));
            format!("{:.1}", resident(&child.id().to_string()))
        })
        .to_vec();
    drop(child.kill());
    drop(child.wait());
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.contains("the agent runs"), "{text}");
    println!("tidegate run, idle, after 5, 15 and 25 decisions: {} MiB (aim: at most 14)", figures.join(", "));
}

/// What the view of five years of batches occupies, and its copy for one decision.
fn five_years() {
    let before = own();
    let secp = bitcoin::secp256k1::Secp256k1::new();
    let point = bitcoin::secp256k1::SecretKey::from_slice(&[7; 32]).unwrap().public_key(&secp);
    let pair = ClearedPair {
        ask_rate: RatePerBillion::new(700),
        bid_rate: RatePerBillion::new(900),
        units: UnitCount::new(10),
    };
    let clearing = |number: u64| Clearing {
        batch_id: BatchId::new(point),
        event_at: Timestamp(number * 600_000),
        seen_at: Timestamp(number * 600_000),
        duration: DURATION,
        price: RatePerBillion::new(800),
        pairs: vec![pair; 3],
        batch_fee_rate: SatPerKw::new(1_000),
    };
    let view = MarketView { clearings: (0..FIVE_YEARS).map(clearing).collect(), ..MarketView::default() };
    let one = own();
    let copy = view.clone();
    println!(
        "a view of {FIVE_YEARS} clearings of 3 pairs: {:.1} MiB, its copy for a decision {:.1} MiB more",
        one - before,
        own() - one
    );
    assert_eq!(copy, view);
}

/// Keeps nothing: what the venue holds in memory is measured, not a database.
#[derive(Clone)]
struct Nowhere;

impl Store for Nowhere {
    async fn load(&self, _: &[&'static str]) -> Result<(Sequence, Vec<Row>), StoreError> {
        Ok((Sequence(0), Vec::new()))
    }

    async fn apply(&self, expected: Sequence, _: &[Change]) -> Result<Sequence, StoreError> {
        Ok(Sequence(expected.0 + 1))
    }
}

/// A trader that only has a node and a link.
struct Client {
    node: SandboxNode,
    link: GrpcLink,
    key: KeyDescriptor,
}

impl Client {
    async fn open_account(market: &Market, number: u32) -> Client {
        let name = format!("t{number}");
        let node = market.world.add_node(&name);
        let link = GrpcLink::new(&market.address.to_string(), Token::new(identity(&name))).unwrap();
        let key = node.derive_next_key(FAMILY_ACCOUNT).await.unwrap();
        let (trader, version, value) =
            (AccountKey::new(key.point), AccountVersion::V2, Sats::new(ACCOUNT_SATS).unwrap());
        let expiry = market.world.height().checked_add(LIFETIME).unwrap();
        let reservation = Reservation { value, expiry, trader, version };
        let keys = link.reserve(&reservation).await.unwrap();
        let secret = node.shared_secret(keys.auctioneer.point(), key.locator).await.unwrap();
        let terms = tidegate_protocol::account::AccountTerms {
            version,
            trader,
            auctioneer: keys.auctioneer,
            batch: keys.batch,
            secret,
            expiry,
        };
        let script = terms.output_script().unwrap();
        let outpoint = market.world.pay(script.clone(), value).unwrap();
        link.init(&InitAccount { reservation, outpoint, script }).await.unwrap();
        Client { node, link, key }
    }

    async fn subscribe(&self) {
        let (account, nonce) = (AccountKey::new(self.key.point), [3; 32]);
        let commit = CommitHash::of(account, &nonce);
        self.link.connect().await.unwrap();
        self.link.send(ClientMessage::Commit { commit, version: BatchVersion(58) }).await.unwrap();
        let ServerMessage::Challenge { challenge, commit } = self.link.receive().await.unwrap() else {
            panic!("a challenge is due")
        };
        let signature = self.node.sign_message(&challenge.auth_hash(commit), self.key.locator).await.unwrap();
        self.link.send(ClientMessage::Subscribe { account, nonce, signature }).await.unwrap();
        assert_eq!(self.link.receive().await, Ok(ServerMessage::Success { account }));
    }

    async fn ask(&self, trader: u32, number: u32) {
        let mut preimage = [0; 32];
        preimage[..4].copy_from_slice(&trader.to_be_bytes());
        preimage[4..8].copy_from_slice(&number.to_be_bytes());
        let multisig = self.node.derive_next_key(FAMILY_MULTISIG).await.unwrap();
        let order = Order {
            nonce: OrderPreimage::new(preimage).nonce(),
            version: OrderVersion::V5,
            account: AccountKey::new(self.key.point),
            auction: AuctionType::Inbound,
            rate: RatePerBillion::new(700 + number),
            amount: UnitCount::new(1).to_sats(),
            min_units: UnitCount::new(1),
            duration: DURATION,
            max_batch_fee_rate: SatPerKw::new(1_000),
            channel_type: OrderChannelType::PeerDependent,
            allowed_nodes: Vec::new(),
            denied_nodes: Vec::new(),
            public: false,
            side: OrderSide::Ask(AskTerms::default()),
        };
        let signature = self.node.sign_message(&order.digest(), self.key.locator).await.unwrap();
        let addresses = vec![self.node.address()];
        let multisig = MultisigKey::new(multisig.point);
        let submitted = SubmittedOrder { order, signature, multisig, node: self.node.id(), addresses };
        assert_eq!(self.link.submit(&submitted).await, Ok(Submission::Accepted));
    }
}

/// A venue and its clients in this process: both ends of each connection count.
async fn busy_venue([traders, orders_each]: [u32; 2]) {
    let start = own();
    let market = Market::open_on(99, Nowhere).await;
    let mut clients = Vec::new();
    for number in 0..traders {
        clients.push(Client::open_account(&market, number).await);
        if number % 20 == 19 {
            market.world.mine(1);
        }
    }
    let height = market.world.mine(6);
    market.until("the venue follows", async || market.venue.status().await.unwrap().best_height == height).await;
    let accounts = own();
    for client in &clients {
        client.subscribe().await;
    }
    assert_eq!(market.venue.status().await.unwrap().subscribed, clients.len());
    let connected = own();
    let numbered: Vec<(u32, &Client)> = (0_u32..).zip(&clients).collect();
    for number in 0..orders_each {
        // Many at a time, within the venue's queue: one after the other, most of the time would go by in waiting.
        for some in numbered.chunks(200) {
            join_all(some.iter().map(|(trader, client)| client.ask(*trader, number))).await;
        }
        if number % 20 == 19 {
            println!("  {} orders of each: {:.1} MiB", number + 1, own());
        }
    }
    let status = market.venue.status().await.unwrap();
    assert_eq!(status.asks, clients.len() * usize::try_from(orders_each).unwrap());
    let orders = own();
    println!(
        "a venue, its chain and its clients: {start:.1} MiB at first, {accounts:.1} with {traders} accounts, \
         {connected:.1} with their connections (both ends), {orders:.1} with {} orders",
        status.asks
    );
    println!(
        "of that the venue's: {:.1} KiB per order; per connection at most {:.1} KiB",
        (orders - connected) * 1024.0 / f64::from(traders * orders_each),
        (connected - accounts) * 1024.0 / f64::from(traders)
    );
}

fn main() {
    let words: Vec<u32> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    idle_agent();
    five_years();
    in_a_runtime(busy_venue(words.try_into().unwrap_or(BUSY)));
}
