//! Everything durable of a venue, in memory and in the store, and the one function that writes it.

use crate::archive::Orders;
use crate::bans::Banned;
use crate::deposits::DepositRecord;
use crate::leases::{LeaseSide, Maturity};
use crate::machine::VenueAccountState;
use bitcoin::{OutPoint, ScriptBuf, Transaction, TxOut, Txid};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use tidegate_ports::{
    BatchSnapshot, Change, Reservation, ReservedAccount, ReservedKeys, Row, Sequence, SnapshotMatch, Store, StoreError,
    TraderId,
};
use tidegate_protocol::account::{AccountTerms, AccountVersion};
use tidegate_protocol::fees::{ExecutionFee, reserved_value};
use tidegate_protocol::keys::{AccountKey, AuctioneerKey, BatchId, BatchKey, OrderNonce};
use tidegate_protocol::order::{OrderChannelType, OrderState, SubmittedOrder};
use tidegate_protocol::units::{BlockCount, BlockHeight, RatePerBillion, SatPerKw, Sats, UnitCount, UnitError};

const ACCOUNTS: &str = "v_account";
const RESERVATIONS: &str = "v_reservation";
const ORDERS: &str = "v_order";
const BATCHES: &str = "v_batch";
const META: &str = "v_meta";
const BANS: &str = "v_ban";
const LEASES: &str = "v_lease";
const DEPOSITS: &str = "v_deposit";
/// Transactions remembered as shown for signing.
const MAX_SIGNED: usize = 1000;
const TABLES: [&str; 8] = [ACCOUNTS, RESERVATIONS, ORDERS, BATCHES, META, BANS, LEASES, DEPOSITS];

const META_BATCH_KEY: &str = "batch_key";
const META_AUCTIONEER: &str = "auctioneer_key";
const META_SIGNED: &str = "signed";
const META_MASTER: &str = "master";
const META_WISH: &str = "operator_wish";
const META_DEPOSITS: &str = "deposits";

/// An account as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AccountRecord {
    /// Terms of the current output.
    pub(crate) terms: AccountTerms,
    /// Value of the current output; 0 when closed.
    pub(crate) value: Sats,
    /// State.
    pub(crate) state: VenueAccountState,
    /// Current output.
    pub(crate) outpoint: OutPoint,
    /// Height from which to look for it.
    pub(crate) height_hint: BlockHeight,
    /// What announced it.
    pub(crate) user_agent: String,
    /// Identity under which it was announced. A client may come back under another; a subscription proves the key.
    pub(crate) trader: [u8; 32],
    /// What the owner had us sign, and may or may not publish. From then on the owner alone decides whether the output
    /// still exists; only the chain settles it.
    #[serde(default)]
    pub(crate) changes: Vec<SignedChange>,
    /// The output before the current one, while the change that replaced it is unconfirmed: after a reorganisation
    /// another of the signed changes may take its place.
    #[serde(default)]
    pub(crate) origin: Option<Origin>,
    /// The transaction that made the current output, or spent the last one. Nothing before it was seen, and for a batch,
    /// which has a record of its own.
    #[serde(default)]
    pub(crate) latest: Option<Transaction>,
}

/// A transaction of the owner that we signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SignedChange {
    /// The output of the account that it spends.
    pub(crate) spends: OutPoint,
    /// Without witnesses.
    pub(crate) transaction: Transaction,
    /// The account that it makes; nothing closes it.
    pub(crate) after: Option<ChangedAccount>,
    /// The owner's coins that it spends besides, with the scripts that the owner says they have.
    #[serde(default)]
    pub(crate) coins: Vec<(OutPoint, ScriptBuf)>,
}

/// An account as a change by its owner leaves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChangedAccount {
    pub(crate) terms: AccountTerms,
    pub(crate) value: Sats,
    /// Index of its output.
    pub(crate) vout: u32,
}

impl SignedChange {
    pub(crate) fn txid(&self) -> Txid {
        self.transaction.compute_txid()
    }
}

/// A spent output of an account, and the account as it was with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    pub(crate) outpoint: OutPoint,
    pub(crate) script: ScriptBuf,
    pub(crate) height_hint: BlockHeight,
    pub(crate) terms: AccountTerms,
    pub(crate) value: Sats,
    pub(crate) latest: Option<Transaction>,
}

impl AccountRecord {
    pub(crate) fn key(&self) -> AccountKey {
        self.terms.trader
    }

    /// A close was signed.
    pub(crate) fn is_closing(&self) -> bool {
        self.changes.iter().any(|change| change.after.is_none())
    }

    /// The least value that the account may turn out to have.
    pub(crate) fn least_value(&self) -> Sats {
        let changed = self.changes.iter().filter_map(|change| change.after).map(|after| after.value);
        changed.fold(self.value, Sats::min)
    }
}

/// A reservation as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReservationRecord {
    /// Whose.
    pub(crate) trader: [u8; 32],
    /// Account key.
    pub(crate) account: AccountKey,
    /// Value.
    pub(crate) value: Sats,
    /// Expiry.
    pub(crate) expiry: BlockHeight,
    /// Version.
    pub(crate) version: AccountVersion,
    /// Our base key.
    pub(crate) auctioneer: AuctioneerKey,
    /// First batch key.
    pub(crate) batch: BatchKey,
    /// Height from which to look for the funding.
    pub(crate) height_hint: BlockHeight,
}

impl ReservationRecord {
    pub(crate) fn new(trader: TraderId, request: &Reservation, keys: ReservedKeys, height_hint: BlockHeight) -> Self {
        ReservationRecord {
            trader: trader.0,
            account: request.trader,
            value: request.value,
            expiry: request.expiry,
            version: request.version,
            auctioneer: keys.auctioneer,
            batch: keys.batch,
            height_hint,
        }
    }

    pub(crate) fn keys(&self) -> ReservedKeys {
        ReservedKeys { auctioneer: self.auctioneer, batch: self.batch }
    }

    /// As its owner is told.
    pub(crate) fn told(&self) -> ReservedAccount {
        let ReservationRecord { account, value, expiry, version, height_hint, .. } = *self;
        let reservation = Reservation { value, expiry, trader: account, version };
        ReservedAccount { reservation, keys: self.keys(), height_hint }
    }
}

/// An order as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OrderRecord {
    /// The order as submitted.
    pub(crate) submitted: SubmittedOrder,
    /// State.
    pub(crate) state: OrderState,
    /// Units not filled.
    pub(crate) open: UnitCount,
    /// Number of arrival: breaks ties of the rate.
    pub(crate) arrival: u64,
}

impl OrderRecord {
    pub(crate) fn nonce(&self) -> OrderNonce {
        self.submitted.order.nonce
    }
}

/// One pair of a past batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PairRecord {
    pub(crate) ask: OrderNonce,
    pub(crate) bid: OrderNonce,
    pub(crate) ask_rate: RatePerBillion,
    pub(crate) bid_rate: RatePerBillion,
    pub(crate) units: UnitCount,
    pub(crate) channel_type: OrderChannelType,
}

/// One duration of a past batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MarketRecord {
    pub(crate) price: RatePerBillion,
    pub(crate) pairs: Vec<PairRecord>,
}

/// The venue's own coin: made by the last batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MasterRecord {
    pub(crate) outpoint: OutPoint,
    pub(crate) value: Sats,
    /// The batch key that its script was made with: that of the batch that spends it.
    pub(crate) batch: BatchKey,
}

/// What the operator wants of the next batch. It stands until a batch was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorWish {
    /// Outputs to pay from the master account.
    pub withdrawals: Vec<TxOut>,
    /// Chain fee rate instead of the estimated one. With it, a batch is made for the sake of unconfirmed ones even when
    /// no two orders meet.
    pub rate: Option<SatPerKw>,
}

/// A ban, running or over. One row per offender: the latest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BanRecord {
    pub(crate) who: Banned,
    pub(crate) start: BlockHeight,
    pub(crate) length: BlockCount,
    /// How many there were, this one included.
    pub(crate) count: u32,
}

/// A leased channel that has not matured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaseRecord {
    /// Its funding output.
    pub(crate) channel: OutPoint,
    pub(crate) script: ScriptBuf,
    /// Best height when the batch was made.
    pub(crate) height_hint: BlockHeight,
    pub(crate) maturity: Maturity,
    /// Height of the block with the batch.
    pub(crate) confirmed: Option<BlockHeight>,
    pub(crate) seller: LeaseSide,
    pub(crate) buyer: LeaseSide,
}

/// What a batch did to an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DiffRecord {
    pub(crate) starting: Sats,
    pub(crate) ending: Sats,
    pub(crate) chain_fee: Sats,
    pub(crate) execution_fee: Sats,
    pub(crate) output: Option<u32>,
}

/// A batch as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BatchRecord {
    /// Name.
    pub(crate) id: BatchId,
    /// Number, from 0.
    pub(crate) number: u64,
    /// Transaction with witnesses.
    pub(crate) transaction: Transaction,
    /// Chain fee rate charged.
    pub(crate) fee_rate: SatPerKw,
    /// Chain fee paid.
    pub(crate) fee: Sats,
    /// Execution fees taken.
    pub(crate) execution_fees: Sats,
    /// Operator's output.
    pub(crate) operator_value: Option<Sats>,
    /// Best height when made.
    pub(crate) height: BlockHeight,
    /// When made, Unix nanoseconds.
    pub(crate) created_ns: u64,
    /// Markets by duration.
    pub(crate) markets: BTreeMap<BlockCount, MarketRecord>,
    /// Accounts.
    pub(crate) accounts: BTreeMap<AccountKey, DiffRecord>,
    /// Seen in a block.
    pub(crate) confirmed: bool,
}

/// One row to write.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "a handful lives at a time, and only until it is stored")]
pub(crate) enum Write {
    Account(AccountRecord),
    Reservation(ReservationRecord),
    DropReservation(AccountKey),
    Order(OrderRecord),
    Batch(Box<BatchRecord>),
    BatchKey(BatchKey),
    Auctioneer(AuctioneerKey),
    Signed(Vec<Txid>),
    /// The venue's own coin; nothing while there is none.
    Master(Option<MasterRecord>),
    Wish(OperatorWish),
    Ban(BanRecord),
    Lease(LeaseRecord),
    DropLease(OutPoint),
    Deposit(DepositRecord),
    DropDeposit(u64),
    /// Deposits made so far.
    DepositCount(u64),
}

/// Proof that something is durable. Only [`Book::commit`] makes one.
#[derive(Debug, Default)]
pub(crate) struct Receipt {
    batches: BTreeMap<BatchId, Txid>,
    changes: BTreeSet<(AccountKey, Txid)>,
    attempts: BTreeSet<Txid>,
    deposits: BTreeSet<Txid>,
}

impl Receipt {
    /// The batch is stored: its finalize messages and its transaction may leave.
    pub(crate) fn names_batch(&self, batch: BatchId, txid: Txid) -> bool {
        self.batches.get(&batch) == Some(&txid)
    }

    /// The change by the owner is stored: our half of its signature may leave.
    pub(crate) fn names_change(&self, account: AccountKey, txid: Txid) -> bool {
        self.changes.contains(&(account, txid))
    }

    /// The deposit is stored: it may be published.
    pub(crate) fn names_deposit(&self, txid: Txid) -> bool {
        self.deposits.contains(&txid)
    }

    /// The attempt is stored: traders may be asked to sign it.
    pub(crate) fn names_attempt(&self, txid: Txid) -> bool {
        self.attempts.contains(&txid)
    }
}

/// The state of a venue.
#[derive(Clone, Debug)]
pub(crate) struct Book {
    sequence: Sequence,
    pub(crate) accounts: BTreeMap<AccountKey, AccountRecord>,
    pub(crate) reservations: BTreeMap<AccountKey, ReservationRecord>,
    pub(crate) orders: Orders,
    /// By number.
    pub(crate) batches: Vec<BatchRecord>,
    /// Name of the next batch.
    pub(crate) batch_key: BatchKey,
    /// Our base key, once known.
    pub(crate) auctioneer: Option<AuctioneerKey>,
    /// Transactions that traders were asked to sign under the present batch key.
    /// Oldest first, the latest [`MAX_SIGNED`].
    pub(crate) signed: Vec<Txid>,
    /// The venue's own coin.
    pub(crate) master: Option<MasterRecord>,
    /// What the operator wants of the next batch.
    pub(crate) wish: OperatorWish,
    /// The latest of each offender.
    pub(crate) bans: BTreeMap<Banned, BanRecord>,
    /// Leased channels that have not matured.
    pub(crate) leases: BTreeMap<OutPoint, LeaseRecord>,
    /// Deposits of the operator that are not part of the venue's own coin for good.
    pub(crate) deposits: BTreeMap<u64, DepositRecord>,
    /// Number of the next one.
    pub(crate) deposit_count: u64,
}

fn corrupt(row: &Row, reason: impl ToString) -> StoreError {
    StoreError::Corrupt { table: row.table.clone(), key: row.key.clone(), reason: reason.to_string() }
}

fn read<T: DeserializeOwned>(row: &Row) -> Result<T, StoreError> {
    serde_json::from_str(&row.value).map_err(|error| corrupt(row, error))
}

fn put<T: Serialize>(table: &'static str, key: String, value: &T) -> Result<Change, StoreError> {
    match serde_json::to_string(value) {
        Ok(value) => Ok(Change::Put { table, key, value }),
        Err(error) => Err(StoreError::Corrupt { table: table.to_owned(), key, reason: error.to_string() }),
    }
}

impl Book {
    /// Reads everything. `first` is the batch key of a new venue.
    pub(crate) async fn load<S: Store>(store: &S, first: BatchKey) -> Result<Book, StoreError> {
        let (sequence, rows) = store.load(&TABLES).await?;
        let mut book = Book {
            sequence,
            accounts: BTreeMap::new(),
            reservations: BTreeMap::new(),
            orders: Orders::default(),
            batches: Vec::new(),
            batch_key: first,
            auctioneer: None,
            signed: Vec::new(),
            master: None,
            wish: OperatorWish::default(),
            bans: BTreeMap::new(),
            leases: BTreeMap::new(),
            deposits: BTreeMap::new(),
            deposit_count: 0,
        };
        for row in &rows {
            match row.table.as_str() {
                ACCOUNTS => book.remember(Write::Account(read(row)?)),
                RESERVATIONS => book.remember(Write::Reservation(read(row)?)),
                ORDERS => book.remember(Write::Order(read(row)?)),
                BANS => book.remember(Write::Ban(read(row)?)),
                LEASES => book.remember(Write::Lease(read(row)?)),
                DEPOSITS => book.remember(Write::Deposit(read(row)?)),
                // Numbers do not follow the order of the keys: sorted below.
                BATCHES => book.batches.push(read(row)?),
                _ => match row.key.as_str() {
                    META_BATCH_KEY => book.batch_key = read(row)?,
                    META_AUCTIONEER => book.auctioneer = Some(read(row)?),
                    META_SIGNED => book.signed = read(row)?,
                    META_MASTER => book.master = read(row)?,
                    META_WISH => book.wish = read(row)?,
                    META_DEPOSITS => book.deposit_count = read(row)?,
                    _ => return Err(corrupt(row, "unknown row: written by a later version?")),
                },
            }
        }
        book.batches.sort_by_key(|batch| batch.number);
        Ok(book)
    }

    /// Writes all rows or none, then changes the memory alike.
    pub(crate) async fn commit<S: Store>(&mut self, store: &S, writes: Vec<Write>) -> Result<Receipt, StoreError> {
        let changes = writes.iter().map(Write::change).collect::<Result<Vec<_>, _>>()?;
        self.sequence = store.apply(self.sequence, &changes).await?;
        let mut receipt = Receipt::default();
        for write in writes {
            match &write {
                Write::Batch(batch) => {
                    receipt.batches.insert(batch.id, batch.transaction.compute_txid());
                }
                Write::Account(account) => {
                    receipt.changes.extend(account.changes.iter().map(|change| (account.key(), change.txid())));
                }
                Write::Signed(txids) => receipt.attempts.extend(txids),
                Write::Deposit(deposit) => {
                    receipt.deposits.insert(deposit.txid());
                }
                Write::Reservation(_)
                | Write::DropReservation(_)
                | Write::Order(_)
                | Write::Master(_)
                | Write::Wish(_)
                | Write::Ban(_)
                | Write::Lease(_)
                | Write::DropLease(_)
                | Write::DropDeposit(_)
                | Write::DepositCount(_)
                | Write::BatchKey(_)
                | Write::Auctioneer(_) => {}
            }
            self.remember(write);
        }
        Ok(receipt)
    }

    fn remember(&mut self, write: Write) {
        match write {
            Write::Account(record) => drop(self.accounts.insert(record.key(), record)),
            Write::Reservation(record) => drop(self.reservations.insert(record.account, record)),
            Write::DropReservation(account) => drop(self.reservations.remove(&account)),
            Write::Order(record) => self.orders.put(record),
            Write::Batch(record) => match self.batches.iter_mut().find(|batch| batch.id == record.id) {
                Some(known) => *known = *record,
                None => self.batches.push(*record),
            },
            Write::BatchKey(key) => self.batch_key = key,
            Write::Auctioneer(key) => self.auctioneer = Some(key),
            Write::Signed(txids) => self.signed = txids,
            Write::Master(record) => self.master = record,
            Write::Wish(wish) => self.wish = wish,
            Write::Ban(record) => drop(self.bans.insert(record.who, record)),
            Write::Lease(record) => drop(self.leases.insert(record.channel, record)),
            Write::DropLease(channel) => drop(self.leases.remove(&channel)),
            Write::Deposit(record) => drop(self.deposits.insert(record.number, record)),
            Write::DropDeposit(number) => drop(self.deposits.remove(&number)),
            Write::DepositCount(count) => self.deposit_count = count,
        }
    }

    /// Orders of an account that are not archived.
    pub(crate) fn active_orders(&self, account: AccountKey) -> impl Iterator<Item = &OrderRecord> {
        self.orders.of(account)
    }

    /// Value that the account must keep for its active orders.
    pub(crate) fn reserved(&self, account: &AccountRecord, fee: &ExecutionFee) -> Result<Sats, UnitError> {
        self.active_orders(account.key()).try_fold(Sats::ZERO, |sum, record| {
            let value = reserved_value(&record.submitted.order, record.open, record.state, fee, account.terms.version)?;
            sum.checked_add(value).ok_or(UnitError::Overflow("reserved value"))
        })
    }

    /// What traders were asked to sign, and this transaction.
    pub(crate) fn signed_with(&self, txid: Txid) -> Vec<Txid> {
        let surplus = (self.signed.len() + 1).saturating_sub(MAX_SIGNED);
        self.signed.iter().skip(surplus).copied().chain([txid]).collect()
    }

    /// Number of the next batch.
    pub(crate) fn next_number(&self) -> u64 {
        self.batches.last().map_or(0, |batch| batch.number.saturating_add(1))
    }

    /// Public view of the batch at `index`.
    pub(crate) fn snapshot(&self, index: usize) -> Option<BatchSnapshot> {
        let batch = self.batches.get(index)?;
        let previous = index.checked_sub(1).and_then(|before| self.batches.get(before)).map(|before| before.id);
        Some(BatchSnapshot {
            batch_id: batch.id,
            previous,
            transaction: batch.transaction.clone(),
            fee_rate: batch.fee_rate,
            created_ns: batch.created_ns,
            markets: batch.markets.iter().map(|(duration, market)| (*duration, market.public())).collect(),
        })
    }
}

impl MarketRecord {
    fn public(&self) -> (RatePerBillion, Vec<SnapshotMatch>) {
        let public = |pair: &PairRecord| SnapshotMatch {
            ask_rate: pair.ask_rate,
            bid_rate: pair.bid_rate,
            units: pair.units,
            channel_type: pair.channel_type,
        };
        (self.price, self.pairs.iter().map(public).collect())
    }
}

impl Write {
    fn change(&self) -> Result<Change, StoreError> {
        match self {
            Write::Account(record) => put(ACCOUNTS, record.key().to_string(), record),
            Write::Reservation(record) => put(RESERVATIONS, record.account.to_string(), record),
            Write::DropReservation(account) => Ok(Change::Delete { table: RESERVATIONS, key: account.to_string() }),
            Write::Order(record) => put(ORDERS, record.nonce().to_hex(), record),
            Write::Batch(record) => put(BATCHES, record.id.to_string(), record),
            Write::BatchKey(key) => put(META, META_BATCH_KEY.to_owned(), key),
            Write::Auctioneer(key) => put(META, META_AUCTIONEER.to_owned(), key),
            Write::Signed(txids) => put(META, META_SIGNED.to_owned(), txids),
            Write::Master(record) => put(META, META_MASTER.to_owned(), record),
            Write::Wish(wish) => put(META, META_WISH.to_owned(), wish),
            Write::Ban(record) => put(BANS, record.who.to_string(), record),
            Write::Lease(record) => put(LEASES, record.channel.to_string(), record),
            Write::DropLease(channel) => Ok(Change::Delete { table: LEASES, key: channel.to_string() }),
            Write::Deposit(record) => put(DEPOSITS, record.number.to_string(), record),
            Write::DropDeposit(number) => Ok(Change::Delete { table: DEPOSITS, key: number.to_string() }),
            Write::DepositCount(count) => put(META, META_DEPOSITS.to_owned(), count),
        }
    }
}
