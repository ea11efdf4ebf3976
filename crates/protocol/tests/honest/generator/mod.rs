//! Honest batches from first principles: traders, their accounts and orders, an auctioneer who matches, settles, and
//! applies the result before the next batch.
//!
//! Does: compute every number, script and index a second time, from secrets and plain integers. Never does: call the
//! package's fees, scripts or verification. What it uses of the package are types.

pub(crate) mod book;
pub(crate) mod draw;
pub(crate) mod money;
pub(crate) mod proposal;
pub(crate) mod scripts;
pub(crate) mod settlement;

use book::{BookOrder, Owner, Wish};
use draw::Draw;
use scripts::{AccountSecrets, point, secret};
use std::collections::BTreeMap;
use tidegate_protocol::account::{Account, AccountState, AccountTerms, AccountVersion};
use tidegate_protocol::batch::BatchVersion;
use tidegate_protocol::bitcoin::hashes::Hash;
use tidegate_protocol::bitcoin::secp256k1::SecretKey;
use tidegate_protocol::bitcoin::{OutPoint, Txid};
use tidegate_protocol::fees::ExecutionFee;
use tidegate_protocol::keys::{AccountKey, AuctioneerKey, BatchKey, KeyLocator, NodeId, OrderNonce, SharedSecret};
use tidegate_protocol::units::{BlockCount, BlockHeight, Sats};

pub(crate) const VERSIONS: [AccountVersion; 3] = [AccountVersion::V0, AccountVersion::V1, AccountVersion::V2];

/// What the auctioneer knows of a trader.
#[derive(Clone, Debug)]
pub(crate) struct Trader {
    pub(crate) node: NodeId,
    pub(crate) batch_version: BatchVersion,
    pub(crate) fee: ExecutionFee,
    pub(crate) reject_unrated: bool,
}

/// An account with its secrets.
#[derive(Clone, Debug)]
pub(crate) struct WorldAccount {
    pub(crate) trader: usize,
    pub(crate) secrets: AccountSecrets,
    pub(crate) account: Account,
}

/// A market, and what has happened so far.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) draw: Draw,
    auctioneer: SecretKey,
    /// Name of the next batch.
    pub(crate) batch: SecretKey,
    pub(crate) height: u32,
    pub(crate) extension: u32,
    pub(crate) traders: Vec<Trader>,
    pub(crate) accounts: BTreeMap<AccountKey, WorldAccount>,
    pub(crate) orders: BTreeMap<OrderNonce, BookOrder>,
}

/// A confirmed output somewhere.
pub(crate) fn outpoint(draw: &mut Draw) -> OutPoint {
    OutPoint { txid: Txid::from_byte_array(draw.bytes()), vout: draw.u32(0, 20) }
}

impl World {
    pub(crate) fn new(seed: u64) -> World {
        let mut draw = Draw::new(seed);
        let traders = draw.between(2, 6);
        let traders = (0..traders).map(|_| Trader {
            node: NodeId::new(point(&secret(&mut draw))),
            batch_version: BatchVersion(draw.pick(&[0, 1, 2, 10, 11, 26, 42, 58, 58, 58])),
            fee: ExecutionFee { base: Sats::new(draw.between(0, 100)).unwrap(), rate_ppm: draw.between(0, 5_000) },
            reject_unrated: draw.chance(20),
        });
        let traders = traders.collect();
        let (auctioneer, batch) = (secret(&mut draw), secret(&mut draw));
        let height = draw.u32(1_000, 900_000);
        // Some venues promise more than the longest life of an account.
        let extension = if draw.chance(20) { draw.u32(52_550, 60_000) } else { draw.u32(1, 12_960) };
        let (accounts, orders) = (BTreeMap::new(), BTreeMap::new());
        World { draw, auctioneer, batch, height, extension, traders, accounts, orders }
    }

    fn open(&mut self, trader: usize) {
        let draw = &mut self.draw;
        let secrets = AccountSecrets { trader: secret(draw), auctioneer: self.auctioneer, batch: secret(draw) };
        let account = Account {
            terms: AccountTerms {
                version: draw.pick(&VERSIONS),
                trader: AccountKey::new(point(&secrets.trader)),
                auctioneer: AuctioneerKey::new(point(&secrets.auctioneer)),
                batch: BatchKey::new(point(&secrets.batch)),
                secret: SharedSecret::new(secrets.shared()),
                expiry: BlockHeight::new(self.height + draw.u32(2_016, 50_000)),
            },
            locator: KeyLocator { family: 220, index: draw.u32(0, 99) },
            value: Sats::new(draw.between(100_000, 100_000_000)).unwrap(),
            state: AccountState::Open,
            height_hint: BlockHeight::new(self.height),
            outpoint: Some(outpoint(draw)),
            latest_tx: None,
        };
        self.accounts.insert(account.key(), WorldAccount { trader, secrets, account });
    }

    /// The owner moves the account to a new output of this value, as a deposit or withdrawal does.
    pub(crate) fn modify(&mut self, key: AccountKey, value: u64) {
        let found = self.accounts.get_mut(&key).unwrap();
        found.secrets.batch = scripts::next(found.secrets.batch);
        found.account.terms.batch = BatchKey::new(point(&found.secrets.batch));
        found.account.value = Sats::new(value).unwrap();
        found.account.outpoint = Some(outpoint(&mut self.draw));
        found.account.state = AccountState::Open;
    }

    fn owner(&mut self, trader: usize) -> Owner {
        let own = |world: &World| -> Vec<AccountKey> {
            let own = world.accounts.iter().filter(|(_, found)| found.trader == trader);
            own.map(|(key, _)| *key).collect()
        };
        if own(self).is_empty() || self.draw.chance(10) {
            self.open(trader);
        }
        let account = self.draw.pick(&own(self));
        let found = &self.traders[trader];
        let (node, batch_version, fee) = (found.node, found.batch_version, found.fee);
        Owner { trader, account, node, batch_version, fee, extension: BlockCount::new(self.extension) }
    }

    /// Traders submit pairs of orders that fit each other, or orders that fit what is in the book.
    pub(crate) fn submit(&mut self, fee_rate: u64) {
        for _ in 0..self.draw.between(1, 5) {
            let first = match self.draw.chance(50) && !self.orders.is_empty() {
                true => {
                    let all: Vec<OrderNonce> = self.orders.keys().copied().collect();
                    self.orders[&self.draw.pick(&all)].clone()
                }
                false => self.first_order(fee_rate),
            };
            self.second_order(&first, fee_rate);
        }
    }

    fn first_order(&mut self, fee_rate: u64) -> BookOrder {
        let trader = self.draw.index(self.traders.len());
        let owner = self.owner(trader);
        let wish = Wish::random(&mut self.draw);
        let ask = self.draw.chance(50);
        let order = book::order(&mut self.draw, owner, ask, &wish, fee_rate);
        self.orders.insert(order.own.order.nonce, order.clone());
        order
    }

    fn second_order(&mut self, first: &BookOrder, fee_rate: u64) {
        let others: Vec<usize> = (0..self.traders.len()).filter(|trader| *trader != first.owner.trader).collect();
        let trader = self.draw.pick(&others);
        let owner = self.owner(trader);
        let wish = Wish::to_meet(&mut self.draw, &first.own);
        let mut second = book::order(&mut self.draw, owner, !first.own.order.is_ask(), &wish, fee_rate);
        if self.draw.chance(15) {
            let stranger = NodeId::new(point(&secret(&mut self.draw)));
            second.own.order.denied_nodes.clear();
            second.own.order.allowed_nodes = vec![stranger, first.shown.node];
            second.shown.order = second.own.order.clone();
        }
        self.orders.insert(second.own.order.nonce, second);
    }
}
