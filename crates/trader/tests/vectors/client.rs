//! A whole trader that hears the messages of an entry as its link hands them on: bytes in, messages and rows out.

use crate::local::{Local, execution_fee, known};
use crate::ports::{Env, Ports, Scene, Used};
use crate::sim::Sim;
use crate::support::Entry;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use bitcoin::{OutPoint, Txid};
use prost::Message;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use tidegate_ports::*;
use tidegate_protocol::account::{Account, AccountState, AccountTerms, AccountVersion};
use tidegate_protocol::batch::Prepare;
use tidegate_protocol::keys::{
    AccountKey, AuctioneerKey, BatchKey, FAMILY_ACCOUNT, KeyLocator, OrderNonce, SharedSecret,
};
use tidegate_protocol::order::{NodeAddress, OwnOrder};
use tidegate_protocol::units::{BlockCount, BlockHeight, SatPerKw, Sats};
use tidegate_sandbox::{ManualClock, MemoryStore, SandboxEntropy, World};
use tidegate_trader::{BatchRecord, Handle, Lease, StagedBatch, TABLES, TraderConfig, trader};
use tidegate_wire::poolrpc::server_auction_message::Msg;
use tidegate_wire::{bounded, poolrpc, stream};

const ACCOUNT: &str = TABLES[0];
const ORDER: &str = TABLES[1];
const STAGED: &str = TABLES[2];
const BATCH: &str = TABLES[4];

/// Longest pause before the trader opens its stream again, with some to spare, in milliseconds.
const RECONNECTED: u64 = 130_000;

/// What a trader has, as far as a refused message must leave it alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holdings {
    pub(crate) accounts: Vec<Account>,
    pub(crate) orders: Vec<OwnOrder>,
    pub(crate) leases: Vec<Lease>,
}

/// A trader and all that it can see.
pub(crate) struct Client {
    sim: Sim,
    handle: Handle,
    store: MemoryStore,
    pub(crate) ports: Ports,
    pub(crate) local: Local,
}

/// What a message led to.
pub(crate) struct Heard {
    /// The proposal, when the message was one that parses.
    pub(crate) prepare: Option<Box<Prepare>>,
    /// What the client said.
    pub(crate) said: Vec<ClientMessage>,
    /// Secrets that it used.
    pub(crate) used: Vec<Used>,
    pub(crate) before: Holdings,
    pub(crate) after: Holdings,
}

impl Client {
    /// A trader with the accounts and orders of `local`, whose keys and terms are in `entry`; connected and subscribed.
    pub(crate) fn start(entry: &Value, mut local: Local) -> Client {
        let secrets = number_accounts(entry, &mut local);
        let ports = Ports::new(scene(entry, &local, secrets));
        let mut sim = Sim::new(ManualClock::new(Timestamp(1_000_000)));
        let store = MemoryStore::new();
        sim.wait(store.apply(Sequence(0), &rows(&local))).unwrap();
        let config = TraderConfig { batch_version: local.batch_version, ..TraderConfig::default() };
        let (handle, trader) = trader(config);
        let env = Env {
            ports: ports.clone(),
            wallet: World::new(1).add_node("wallet"),
            store: store.clone(),
            clock: sim.clock.clone(),
            entropy: SandboxEntropy::new(1, 1),
        };
        sim.spawn("trader", Box::pin(async move { format!("{:?}", trader.run(&env).await) }));
        sim.settle();
        let mut client = Client { sim, handle, store, ports, local };
        client.assert_subscribed();
        client
    }

    fn assert_subscribed(&mut self) {
        assert!(self.sim.ended.is_empty(), "the trader ended: {:?}", self.sim.ended);
        assert!(self.status().subscribed, "no account is subscribed");
    }

    fn status(&mut self) -> tidegate_trader::Status {
        let handle = self.handle.clone();
        self.sim.wait(async move { handle.status().await }).unwrap()
    }

    /// A conversation may last for some blocks.
    pub(crate) fn note_height(&mut self, step: &Value) {
        if step.get("best_height").is_some() {
            self.ports.lock().info.best_height = BlockHeight::new(step.u32("best_height"));
        }
    }

    pub(crate) fn holdings(&mut self) -> Holdings {
        let status = self.status();
        Holdings { accounts: status.accounts, orders: status.orders, leases: status.leases }
    }

    /// Hears a message, as a link decodes it. One that is no message at all ends the stream; then it is opened again.
    pub(crate) fn hear(&mut self, kind: &str, bytes: &[u8]) -> Heard {
        let before = self.holdings();
        let used = {
            let mut scene = self.ports.lock();
            scene.said.clear();
            scene.used.len()
        };
        let message = decode(kind, bytes);
        let prepare = match &message {
            Ok(ServerMessage::Prepare(prepare)) => Some(prepare.clone()),
            Ok(_) | Err(_) => None,
        };
        self.learn_peers(prepare.as_deref());
        self.ports.say(message);
        self.sim.settle();
        if !self.status().connected {
            self.sim.advance(RECONNECTED);
        }
        self.assert_subscribed();
        let after = self.holdings();
        let scene = self.ports.lock();
        Heard { prepare, said: scene.said.clone(), used: scene.used[used..].to_vec(), before, after }
    }

    fn learn_peers(&self, prepare: Option<&Prepare>) {
        let markets = prepare.into_iter().flat_map(|prepare| prepare.markets.values());
        let orders = markets.flat_map(|market| market.orders.values().flatten()).map(|matched| &matched.order);
        self.ports.lock().peers.extend(orders.map(|order| (order.multisig.serialize(), order.node)));
    }

    fn rows(&mut self, table: &str) -> Vec<Row> {
        let store = self.store.clone();
        let (_, rows) = self.sim.wait(async move { store.load(&TABLES).await }).unwrap();
        rows.into_iter().filter(|row| row.table == table).collect()
    }

    /// The signed batch with this transaction, as stored.
    pub(crate) fn staged(&mut self, txid: Txid) -> StagedBatch {
        let rows = self.rows(STAGED);
        let row = rows.iter().find(|row| row.key == txid.to_string()).expect("the signed batch is stored");
        serde_json::from_str(&row.value).unwrap()
    }

    /// The records of final batches.
    pub(crate) fn records(&mut self) -> Vec<BatchRecord> {
        self.rows(BATCH).iter().map(|row| serde_json::from_str(&row.value).unwrap()).collect()
    }
}

/// Gives every account a place of its own in the wallet, whatever the file says, and adds one that only listens: a trader
/// none of whose accounts takes part in batches, before or after one, would not hear the venue at all.
fn number_accounts(entry: &Value, local: &mut Local) -> BTreeMap<(u32, u32), SecretKey> {
    let mut secrets = BTreeMap::new();
    for (index, written) in (0u32..).zip(entry.list("accounts")) {
        let key: AccountKey = written.parse("trader_key");
        let Some(account) = local.accounts.get_mut(&key) else { continue };
        account.locator = KeyLocator { family: FAMILY_ACCOUNT, index };
        secrets.insert((FAMILY_ACCOUNT, index), written.secret("trader_privkey"));
    }
    let (account, secret) = listener(local.best_height);
    secrets.insert((account.locator.family, account.locator.index), secret);
    local.accounts.insert(account.key(), account);
    secrets
}

/// The account that only listens.
fn listener(best: BlockHeight) -> (Account, SecretKey) {
    let secp = Secp256k1::new();
    let secret = SecretKey::from_slice(&[0x5a; 32]).unwrap();
    let point = secret.public_key(&secp);
    let shared = point.mul_tweak(&secp, &secret.into()).unwrap();
    let terms = AccountTerms {
        version: AccountVersion::V0,
        trader: AccountKey::new(point),
        auctioneer: AuctioneerKey::new(point),
        batch: BatchKey::new(point),
        secret: SharedSecret::new(bitcoin::hashes::sha256::Hash::hash(&shared.serialize()).to_byte_array()),
        expiry: best.checked_add(BlockCount::new(50_000)).unwrap(),
    };
    let locator = KeyLocator { family: FAMILY_ACCOUNT, index: 1 << 20 };
    let outpoint = Some(OutPoint { txid: Txid::from_byte_array([0x5a; 32]), vout: 0 });
    let account = Account { outpoint, ..Account::initiated(terms, locator, Sats::constant(100_000), best) };
    (Account { state: AccountState::Open, ..account }, secret)
}

fn scene(entry: &Value, local: &Local, secrets: BTreeMap<(u32, u32), SecretKey>) -> Scene {
    let info = NodeInfo {
        id: local.node,
        addresses: vec![NodeAddress("127.0.0.1:9735".to_owned())],
        network: "regtest".to_owned(),
        best_height: local.best_height,
        synced: true,
        zero_conf: true,
        taproot_channels: true,
        large_channels: true,
        version: "vectors".to_owned(),
    };
    let max = known(entry, "terms").and_then(|terms| known(terms, "max_account_value")?.as_u64());
    let terms = Terms {
        max_account_value: Sats::new(max.unwrap_or(1_000_000_000)).unwrap(),
        execution_fee: execution_fee(entry),
        durations: BTreeMap::new(),
        next_batch_fee_rate: SatPerKw::FLOOR,
        next_clear_time: 0,
        auto_renew_blocks: local.extension,
    };
    let mut scene = Scene::new(info, local.batch_version, terms);
    // A rating that the venue told long ago is told anew by nobody.
    let rated = local.ratings.iter().filter_map(|(node, rating)| Some((*node, rating.known()?)));
    scene.ratings = rated.collect();
    let state = |own: &OwnOrder| (own.order.nonce, (own.state, own.units_unfulfilled));
    scene.orders = local.orders.values().map(state).collect();
    scene.secrets = secrets;
    scene
}

/// The store of a trader with these accounts and orders.
fn rows(local: &Local) -> Vec<Change> {
    fn put(table: &'static str, key: String, row: &impl Serialize) -> Change {
        Change::Put { table, key, value: serde_json::to_string(row).unwrap() }
    }
    let accounts = local.accounts.iter().map(|(key, account)| put(ACCOUNT, key.to_string(), account));
    let orders = local.orders.iter().map(|(nonce, own): (&OrderNonce, _)| put(ORDER, nonce.to_string(), own));
    accounts.chain(orders).collect()
}

/// The message on the stream, decoded within the limits of a link.
fn decode(kind: &str, bytes: &[u8]) -> Result<ServerMessage, LinkError> {
    let empty = match kind {
        "prepare" => Msg::Prepare(Default::default()),
        "sign" => Msg::Sign(Default::default()),
        "finalize" => Msg::Finalize(Default::default()),
        other => panic!("a message of type {other}"),
    };
    // The field's tag, without the length 0 of the empty message.
    let mut whole = poolrpc::ServerAuctionMessage { msg: Some(empty) }.encode_to_vec();
    assert_eq!(whole.pop(), Some(0));
    prost::encoding::encode_varint(u64::try_from(bytes.len()).unwrap(), &mut whole);
    whole.extend_from_slice(bytes);
    let bad = |reason: String| LinkError::BadAnswer { call: "SubscribeBatchAuction", reason };
    let message: poolrpc::ServerAuctionMessage = bounded::decode(&whole).map_err(|error| bad(error.to_string()))?;
    stream::from_server_message(message).map_err(|error| bad(error.to_string()))
}
