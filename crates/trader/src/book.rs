//! What a trader knows durably: accounts, orders, batches that were signed, leases; and how that becomes rows.
//!
//! Does: read rows, turn updates into rows, apply updates. Never does: write by itself; [`crate::receipt`] is the only
//! writer. Invariant: after a commit the book equals what [`Book::from_rows`] reads from the store.

use crate::machine::{AccountEvent, OrderFate, Transition, next, next_order};
use crate::ratings::ToldRating;
use crate::turns::{OrderLogEntry, OrderTurn};
use bitcoin::{OutPoint, ScriptBuf, Transaction, Txid};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use tidegate_ports::{Change, Movement, Row, StoreError, Timestamp};
use tidegate_protocol::account::{Account, AccountTerms, AccountVersion};
use tidegate_protocol::fees::{ExecutionFee, reserved_for};
use tidegate_protocol::keys::{AccountKey, BatchId, KeyDescriptor, NodeId, OrderNonce, PendingChannelId};
use tidegate_protocol::label::Action;
use tidegate_protocol::order::{OrderState, OwnOrder};
use tidegate_protocol::units::{BlockCount, BlockHeight, RatePerBillion, SatPerKw, Sats, UnitCount, UnitError};
use tidegate_protocol::verify::VerifiedBatch;

/// A booked match: one channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Batch that made it.
    pub batch_id: BatchId,
    /// Its transaction.
    pub txid: Txid,
    /// Funding output of the channel.
    pub channel: OutPoint,
    /// Our account.
    pub account: AccountKey,
    /// Our order.
    pub ours: OrderNonce,
    /// Their order.
    pub theirs: OrderNonce,
    /// Their node.
    pub node: NodeId,
    /// We are the maker: our capital, their premium.
    pub maker: bool,
    /// Units leased.
    pub units: UnitCount,
    /// Lease duration.
    pub duration: BlockCount,
    /// Price.
    pub clearing_price: RatePerBillion,
    /// Premium: received by a maker, paid by a taker.
    pub premium: Sats,
    /// Execution fee that we paid.
    pub execution_fee: Sats,
    /// Our chain fee for this channel: the account's chain fee split evenly over its matches, remainder to the first.
    pub chain_fee: Sats,
    /// The taker's own satoshis in the channel.
    pub self_balance: Sats,
    /// When it was booked.
    pub booked_at: Timestamp,
    /// Best height when it was booked.
    pub height: BlockHeight,
}

/// A match of a signed batch: the lease that it will be, and what cleaning up needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedMatch {
    /// The lease; time and height are replaced when it is booked.
    pub lease: Lease,
    /// Name of the channel while it is pending.
    pub pending_id: PendingChannelId,
}

/// What a signed batch makes of an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedAccount {
    /// Output that the batch spends.
    pub spent: OutPoint,
    /// What the script of that output depends on.
    pub before: AccountTerms,
    /// The account afterwards.
    pub after: Account,
    /// Whether a new output exists.
    pub recreated: bool,
}

/// What a signed batch makes of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedOrder {
    /// Order.
    pub nonce: OrderNonce,
    /// State afterwards.
    pub state: OrderState,
    /// Units left afterwards.
    pub units_unfulfilled: UnitCount,
}

/// Where a signed batch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// The venue may make it final.
    Active,
    /// Another proposal took its place. Our signature left, so it may still confirm: only a confirmed spend of the
    /// same output ends that.
    Superseded,
    /// It is final, and its effects are booked; kept until it confirms, because an earlier one may confirm instead.
    Booked,
}

/// A batch that we signed: everything that becomes true when it is final.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedBatch {
    /// Name.
    pub batch_id: BatchId,
    /// The transaction, without witnesses.
    pub transaction: Transaction,
    /// Where it stands.
    pub standing: Standing,
    /// The venue's height.
    pub height_hint: BlockHeight,
    /// Chain fee rate.
    pub fee_rate: SatPerKw,
    /// Execution fee.
    pub execution_fee: ExecutionFee,
    /// Price by duration.
    pub prices: BTreeMap<BlockCount, RatePerBillion>,
    /// Our accounts.
    pub accounts: Vec<StagedAccount>,
    /// Our orders.
    pub orders: Vec<StagedOrder>,
    /// Our matches.
    pub matches: Vec<StagedMatch>,
    /// When it was signed.
    pub signed_at: Timestamp,
}

impl StagedBatch {
    /// The transaction's name.
    pub fn txid(&self) -> Txid {
        self.transaction.compute_txid()
    }

    /// Whether this batch spends an account of ours through one of these outputs.
    pub fn spends_any(&self, outputs: &BTreeSet<OutPoint>) -> bool {
        self.accounts.iter().any(|staged| outputs.contains(&staged.spent))
    }

    /// Whether this batch and another one spend an output in common, so that one at most confirms.
    pub fn conflicts_with(&self, other: &StagedBatch) -> bool {
        self.accounts.iter().any(|mine| other.accounts.iter().any(|theirs| mine.spent == theirs.spent))
    }
}

/// What the owner did to an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangeKind {
    /// Added to it.
    Deposit,
    /// Paid from it.
    Withdraw,
    /// Moved its expiry.
    Renew,
    /// Ended it.
    Close,
}

impl ChangeKind {
    /// As the label of the transaction says it.
    pub(crate) fn action(self) -> Action {
        match self {
            ChangeKind::Deposit => Action::Deposit,
            ChangeKind::Withdraw => Action::Withdraw,
            ChangeKind::Renew => Action::Renew,
            ChangeKind::Close => Action::Close,
        }
    }
}

/// A change of an account by its owner: signed, stored, and not decided by the chain yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnChange {
    /// What.
    pub kind: ChangeKind,
    /// The account as it was, and will be again should the change become impossible.
    pub before: Account,
    /// The account that the change makes; its latest transaction is the change, with all witnesses.
    pub after: Account,
    /// What the wallet notes beside the transaction.
    pub label: String,
    /// Chain fee.
    pub fee: Sats,
    /// Coins of the wallet that it spends besides the account, with their scripts.
    pub coins: Vec<(OutPoint, ScriptBuf)>,
    /// A coin of it was spent elsewhere: it is not published any more. It is kept, because a reorganisation of the
    /// chain could make it possible again.
    pub void: bool,
    /// When it was signed.
    pub signed_at: Timestamp,
    /// Best height then.
    pub height: BlockHeight,
}

impl OwnChange {
    /// The signed transaction.
    pub fn transaction(&self) -> &Transaction {
        self.after.latest_tx.as_ref().expect("a change is made with its transaction, and read only with one")
    }

    /// Its name.
    pub fn txid(&self) -> Txid {
        self.transaction().compute_txid()
    }

    /// The account's output afterwards, when there is one.
    pub fn next(&self) -> Option<OutPoint> {
        match self.kind {
            ChangeKind::Deposit | ChangeKind::Withdraw | ChangeKind::Renew => self.after.outpoint,
            ChangeKind::Close => None,
        }
    }
}

/// What a proposal may have left at the node, and is to be cleaned up unless its batch comes true.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remains {
    /// The proposed transaction.
    pub txid: Txid,
    /// Shims and acceptor rules of our bids.
    pub pending: Vec<PendingChannelId>,
    /// Channels that may be pending.
    pub channels: Vec<OutPoint>,
}

impl Remains {
    /// What a verified proposal may leave, also when it is never signed.
    pub fn of(batch: &VerifiedBatch) -> Remains {
        let bids = batch.matches().iter().filter(|matched| !matched.maker);
        Remains {
            txid: batch.prepare().transaction.compute_txid(),
            pending: bids.map(|matched| matched.shim.pending_id).collect(),
            channels: batch.matches().iter().map(|matched| matched.shim.channel_point).collect(),
        }
    }

    /// What a signed batch leaves when it does not come true.
    pub fn of_staged(batch: &StagedBatch) -> Remains {
        let bids = batch.matches.iter().filter(|staged| !staged.lease.maker);
        Remains {
            txid: batch.txid(),
            pending: bids.map(|staged| staged.pending_id).collect(),
            channels: batch.matches.iter().map(|staged| staged.lease.channel).collect(),
        }
    }

    /// Without the channels that are alive: those are never given up.
    pub(crate) fn without(mut self, alive: impl Fn(&OutPoint) -> bool) -> Remains {
        self.channels.retain(|channel| !alive(channel));
        self
    }
}

/// Whose word made a batch final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Settlement {
    /// The venue's finalize message.
    Finalized,
    /// The venue's snapshot of the batch, after a lost connection.
    Snapshot,
    /// A block that spends an account of ours.
    Chain,
}

/// A final batch that we took part in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchRecord {
    /// Name.
    pub batch_id: BatchId,
    /// Its transaction.
    pub txid: Txid,
    /// Chain fee rate.
    pub fee_rate: SatPerKw,
    /// Execution fee.
    pub execution_fee: ExecutionFee,
    /// The venue's height.
    pub height_hint: BlockHeight,
    /// Price by duration.
    pub prices: BTreeMap<BlockCount, RatePerBillion>,
    /// Whose word made it final.
    pub settlement: Settlement,
    /// When we learned it.
    pub settled_at: Timestamp,
}

/// What happened to an order in a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OrderEventKind {
    /// A proposal with this match arrived.
    Prepared,
    /// We accepted it.
    Accepted,
    /// We refused it.
    Rejected {
        /// Sentence.
        reason: String,
    },
    /// The bid asks for a rated node, and the other node's rating was not known.
    TierUnverified,
    /// We signed it.
    Signed,
    /// It is final.
    Finalized,
}

/// An entry of the order log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderEvent {
    /// When.
    pub at: Timestamp,
    /// Our order.
    pub order: OrderNonce,
    /// Batch.
    pub batch: BatchId,
    /// Their order.
    pub theirs: OrderNonce,
    /// Units of the match.
    pub units: UnitCount,
    /// What.
    pub kind: OrderEventKind,
}

/// One change of the book.
#[derive(Clone, Debug)]
pub(crate) enum Update {
    Account(Box<Account>),
    Order(Box<OwnOrder>),
    Stage(Box<StagedBatch>),
    Unstage(Txid),
    Lease(Box<Lease>),
    Batch(Box<BatchRecord>),
    Event(Box<OrderEvent>),
    /// An order changed. The writer adds it.
    Turned(Box<OrderTurn>),
    Node(NodeId),
    /// Removes a lease whose batch lost against another one on the chain.
    DropLease(OutPoint),
    /// The owner's change is signed, or it is void.
    Change(Box<OwnChange>),
    /// The chain decided about the owner's change.
    Unchange(Txid),
    /// Remembers, or forgets, an account that is being reserved.
    Reserving(Box<Option<Reserving>>),
    /// When an order was made.
    Placed(OrderNonce, Timestamp),
    /// Something of a proposal may be at the node.
    Remains(Box<Remains>),
    /// Nothing of this proposal is at the node any more, or its batch says what is.
    Forget(Txid),
    /// What the venue said about a node.
    Rate(ToldRating),
    /// Forgets it.
    Unrate(NodeId),
    /// Money of an account moved; never changed again. The writer adds it.
    Movement(Box<Movement>),
}

/// An account for which a reservation was asked, but of which nothing else is known yet.
///
/// The venue keeps one reservation at a time and forgets none, so an interrupted one must be completed with the same
/// numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reserving {
    /// Trader key.
    pub key: KeyDescriptor,
    /// Value.
    pub value: Sats,
    /// Expiry.
    pub expiry: BlockHeight,
    /// Script version.
    pub version: AccountVersion,
}

const ACCOUNT: &str = "account";
const ORDER: &str = "order";
const STAGED: &str = "staged";
const LEASE: &str = "lease";
const BATCH: &str = "batch";
const EVENT: &str = "event";
const REMAINS: &str = "remains";
const PLACED: &str = "placed";
const RATING: &str = "rating";
const CHANGE: &str = "change";
const MOVEMENT: &str = "movement";
const META: &str = "meta";
const NODE_KEY: &str = "node";
const RESERVING_KEY: &str = "reserving";

/// Tables of a trader's store.
pub const TABLES: [&str; 12] =
    [ACCOUNT, ORDER, STAGED, LEASE, BATCH, EVENT, REMAINS, CHANGE, META, PLACED, RATING, MOVEMENT];

/// The durable state in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Book {
    /// Accounts, closed ones too.
    pub accounts: BTreeMap<AccountKey, Account>,
    /// Orders, archived ones too.
    pub orders: BTreeMap<OrderNonce, OwnOrder>,
    /// When each order was made, as far as it is known.
    pub placed: BTreeMap<OrderNonce, Timestamp>,
    /// Signed batches that are not settled by the chain, by transaction.
    pub staged: BTreeMap<Txid, StagedBatch>,
    /// Changes by the owner that the chain has not decided, by transaction.
    pub changes: BTreeMap<Txid, OwnChange>,
    /// What proposals may have left at the node, by transaction.
    pub remains: BTreeMap<Txid, Remains>,
    /// Leases by channel.
    pub leases: BTreeMap<OutPoint, Lease>,
    /// Final batches by name.
    pub batches: BTreeMap<BatchId, BatchRecord>,
    /// What the venue said about nodes, as far as it is remembered.
    pub ratings: BTreeMap<NodeId, ToldRating>,
    /// What moved money of accounts, by account and transaction.
    pub movements: BTreeMap<(AccountKey, Txid), Movement>,
    /// Identity of the node that the store belongs to.
    pub node: Option<NodeId>,
    /// Account whose reservation was interrupted.
    pub reserving: Option<Reserving>,
    /// Entries of the order log; they are not kept in memory.
    pub events: u64,
}

impl Book {
    /// Reads all rows.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for a row that does not parse, or whose name is not its content's.
    pub fn from_rows(rows: &[Row]) -> Result<Book, StoreError> {
        let mut book = Book::default();
        for row in rows {
            book.read_row(row)?;
        }
        Ok(book)
    }

    fn read_row(&mut self, row: &Row) -> Result<(), StoreError> {
        let update = match row.table.as_str() {
            ACCOUNT => Update::Account(parse(row)?),
            ORDER => Update::Order(parse(row)?),
            STAGED => Update::Stage(parse(row)?),
            LEASE => Update::Lease(parse(row)?),
            BATCH => Update::Batch(parse(row)?),
            EVENT => match parse(row)? {
                OrderLogEntry::Matched(event) => Update::Event(Box::new(event)),
                OrderLogEntry::Turned(turn) => Update::Turned(Box::new(turn)),
            },
            REMAINS => Update::Remains(parse(row)?),
            PLACED => {
                let (order, at) = parse(row)?;
                Update::Placed(order, at)
            }
            CHANGE => Update::Change(Box::new(change(row)?)),
            RATING => Update::Rate(parse(row)?),
            MOVEMENT => Update::Movement(parse(row)?),
            META if row.key == NODE_KEY => Update::Node(parse(row)?),
            META => Update::Reserving(parse(row)?),
            _ => return Err(corrupt(row, "unknown table".into())),
        };
        let number = row.key.parse().unwrap_or(0);
        if update.key(number) != row.key {
            return Err(corrupt(row, format!("the row holds {}", update.key(number))));
        }
        self.apply(update);
        Ok(())
    }

    /// Makes one change true in memory.
    pub(crate) fn apply(&mut self, update: Update) {
        match update {
            Update::Account(account) => self.accounts.extend([(account.key(), *account)]),
            Update::Order(order) => self.orders.extend([(order.order.nonce, *order)]),
            Update::Stage(batch) => self.staged.extend([(batch.txid(), *batch)]),
            Update::Unstage(txid) => {
                self.staged.remove(&txid);
            }
            Update::Lease(lease) => self.leases.extend([(lease.channel, *lease)]),
            Update::Batch(record) => self.batches.extend([(record.batch_id, *record)]),
            Update::Event(_) | Update::Turned(_) => self.events = self.events.saturating_add(1),
            Update::Node(node) => self.node = Some(node),
            Update::DropLease(channel) => {
                self.leases.remove(&channel);
            }
            Update::Change(change) => self.changes.extend([(change.txid(), *change)]),
            Update::Unchange(txid) => {
                self.changes.remove(&txid);
            }
            Update::Reserving(reserving) => self.reserving = *reserving,
            Update::Placed(order, at) => self.placed.extend([(order, at)]),
            Update::Remains(remains) => self.remains.extend([(remains.txid, *remains)]),
            Update::Forget(txid) => {
                self.remains.remove(&txid);
            }
            Update::Rate(told) => self.ratings.extend([(told.node, told)]),
            Update::Unrate(node) => {
                self.ratings.remove(&node);
            }
            Update::Movement(moved) => self.movements.extend([((moved.account, moved.txid), *moved)]),
        }
    }

    /// The rows that the updates are, in order.
    pub(crate) fn rows(&self, updates: &[Update]) -> Vec<Change> {
        let mut number = self.events;
        let mut changes = Vec::with_capacity(updates.len());
        for update in updates {
            changes.push(update.change(number));
            if matches!(update, Update::Event(_) | Update::Turned(_)) {
                number = number.saturating_add(1);
            }
        }
        changes
    }

    /// The owner's changes of an account that the chain has not decided.
    pub fn changes_of(&self, account: AccountKey) -> impl Iterator<Item = &OwnChange> {
        self.changes.values().filter(move |change| change.after.key() == account)
    }

    /// Orders of an account that are still in the book of the venue.
    pub fn active_orders(&self, account: AccountKey) -> impl Iterator<Item = &OwnOrder> {
        self.orders.values().filter(move |own| own.order.account == account && !own.state.is_archived())
    }

    /// Value that the active orders of an account could cost at worst, by the fee ceilings stored with them.
    ///
    /// # Errors
    /// [`UnitError`] when the sum does not fit.
    pub fn reserved(&self, account: &Account) -> Result<Sats, UnitError> {
        self.reserved_without(account, None)
    }

    /// As [`Book::reserved`], as if this order was not there.
    pub(crate) fn reserved_without(&self, account: &Account, without: Option<OrderNonce>) -> Result<Sats, UnitError> {
        let mut sum = Sats::ZERO;
        for own in self.active_orders(account.key()).filter(|own| Some(own.order.nonce) != without) {
            let needed = reserved_for(own, &own.fee_ceiling, account.terms.version)?;
            sum = sum.checked_add(needed).ok_or(UnitError::Overflow("reserved value"))?;
        }
        Ok(sum)
    }

    /// The account after an event, when the event is legal.
    pub(crate) fn after(&self, key: AccountKey, event: AccountEvent) -> Option<Account> {
        let account = self.accounts.get(&key)?;
        let state = next(account.state, event).state(account.state)?;
        tracing::debug!(account = %key, from = ?account.state, to = ?state, ?event, "account event");
        Some(Account { state, ..account.clone() })
    }

    /// The order after something happened to it, when that changes it.
    pub(crate) fn order_after(&self, nonce: OrderNonce, fate: OrderFate) -> Option<OwnOrder> {
        let own = self.orders.get(&nonce)?;
        match next_order(own.state, fate) {
            Transition::To(state) => Some(OwnOrder { state, ..own.clone() }),
            Transition::Stay(_) | Transition::Illegal => None,
        }
    }

    /// The signed batch that the venue may still make final for these accounts.
    pub fn active_stage(&self, account: AccountKey) -> Option<&StagedBatch> {
        self.staged.values().find(|batch| {
            batch.standing == Standing::Active && batch.accounts.iter().any(|staged| staged.after.key() == account)
        })
    }
}

impl Update {
    fn key(&self, number: u64) -> String {
        match self {
            Update::Account(account) => account.key().to_string(),
            Update::Order(order) => order.order.nonce.to_string(),
            Update::Stage(batch) => batch.txid().to_string(),
            Update::Unstage(txid) => txid.to_string(),
            Update::Lease(lease) => lease.channel.to_string(),
            Update::Batch(record) => record.batch_id.to_string(),
            // Padded, so that rows sort in the order in which they were written.
            Update::Event(_) | Update::Turned(_) => format!("{number:020}"),
            Update::Node(_) => NODE_KEY.into(),
            Update::DropLease(channel) => channel.to_string(),
            Update::Change(change) => change.txid().to_string(),
            Update::Unchange(txid) => txid.to_string(),
            Update::Reserving(_) => RESERVING_KEY.into(),
            Update::Placed(order, _) => order.to_string(),
            Update::Remains(remains) => remains.txid.to_string(),
            Update::Forget(txid) => txid.to_string(),
            Update::Rate(told) => told.node.to_string(),
            Update::Unrate(node) => node.to_string(),
            Update::Movement(moved) => format!("{}:{}", moved.account, moved.txid),
        }
    }

    fn change(&self, number: u64) -> Change {
        let key = self.key(number);
        match self {
            Update::Account(row) => put(ACCOUNT, key, row),
            Update::Order(row) => put(ORDER, key, row),
            Update::Stage(row) => put(STAGED, key, row),
            Update::Unstage(_) => Change::Delete { table: STAGED, key },
            Update::Lease(row) => put(LEASE, key, row),
            Update::Batch(row) => put(BATCH, key, row),
            Update::Event(row) => put(EVENT, key, row),
            Update::Turned(row) => put(EVENT, key, row),
            Update::Node(row) => put(META, key, row),
            Update::DropLease(_) => Change::Delete { table: LEASE, key },
            Update::Change(row) => put(CHANGE, key, row),
            Update::Unchange(_) => Change::Delete { table: CHANGE, key },
            Update::Reserving(row) => put(META, key, row),
            Update::Placed(order, at) => put(PLACED, key, &(order, at)),
            Update::Remains(row) => put(REMAINS, key, row),
            Update::Forget(_) => Change::Delete { table: REMAINS, key },
            Update::Rate(row) => put(RATING, key, row),
            Update::Unrate(_) => Change::Delete { table: RATING, key },
            Update::Movement(row) => put(MOVEMENT, key, row),
        }
    }
}

fn put<T: Serialize>(table: &'static str, key: String, row: &T) -> Change {
    let value = serde_json::to_string(row).expect("rows are plain data whose map keys are strings or numbers");
    Change::Put { table, key, value }
}

fn parse<T: DeserializeOwned>(row: &Row) -> Result<T, StoreError> {
    serde_json::from_str(&row.value).map_err(|error| corrupt(row, error.to_string()))
}

/// A change without its transaction would have nothing to publish.
fn change(row: &Row) -> Result<OwnChange, StoreError> {
    let change: OwnChange = parse(row)?;
    if change.after.latest_tx.is_none() {
        return Err(corrupt(row, "the change has no transaction".into()));
    }
    Ok(change)
}

fn corrupt(row: &Row, reason: String) -> StoreError {
    StoreError::Corrupt { table: row.table.clone(), key: row.key.clone(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;
    use tidegate_protocol::order::NodeTier;

    fn rows(book: &Book, updates: &[Update]) -> Vec<Row> {
        let rows = book.rows(updates).into_iter().map(|change| match change {
            Change::Put { table, key, value } => Row { table: table.into(), key, value },
            Change::Delete { .. } => panic!("only puts here"),
        });
        rows.collect()
    }

    fn everything() -> Vec<Update> {
        let staged = fixtures::staged_batch();
        let event = OrderEvent {
            at: Timestamp(7),
            order: fixtures::nonce(1),
            batch: staged.batch_id,
            theirs: fixtures::nonce(2),
            units: UnitCount::new(3),
            kind: OrderEventKind::Rejected { reason: "no peer".into() },
        };
        vec![
            Update::Account(Box::new(fixtures::account(1))),
            Update::Order(Box::new(fixtures::own_ask(1))),
            Update::Lease(Box::new(staged.matches[0].lease.clone())),
            Update::Batch(Box::new(BatchRecord {
                batch_id: staged.batch_id,
                txid: staged.txid(),
                fee_rate: staged.fee_rate,
                execution_fee: staged.execution_fee,
                height_hint: staged.height_hint,
                prices: staged.prices.clone(),
                settlement: Settlement::Chain,
                settled_at: Timestamp(9),
            })),
            Update::Placed(fixtures::nonce(1), Timestamp(5)),
            Update::Remains(Box::new(Remains::of_staged(&staged))),
            Update::Change(Box::new(fixtures::own_change(2, ChangeKind::Withdraw))),
            Update::Stage(Box::new(staged)),
            Update::Event(Box::new(event.clone())),
            Update::Event(Box::new(event)),
            Update::Node(fixtures::node(4)),
            Update::Movement(Box::new(Movement {
                account: fixtures::account_key(1),
                txid: fixtures::outpoint(9).txid,
                kind: tidegate_ports::MovementKind::Funding,
                spent: None,
                next: Some(fixtures::outpoint(9)),
                before: Sats::ZERO,
                after: Sats::constant(500_000),
                fee: Sats::ZERO,
                matches: Vec::new(),
                at: None,
                height: BlockHeight::new(700),
            })),
            Update::Rate(ToldRating { node: fixtures::node(5), tier: NodeTier::Tier0, at: Timestamp(3) }),
            Update::Reserving(Box::new(Some(Reserving {
                key: fixtures::own_ask(1).multisig,
                value: Sats::constant(500_000),
                expiry: BlockHeight::new(900),
                version: AccountVersion::V2,
            }))),
        ]
    }

    #[test]
    fn rows_read_back_to_the_same_book() {
        let mut book = Book::default();
        let rows = rows(&book, &everything());
        for update in everything() {
            book.apply(update);
        }
        assert_eq!(Book::from_rows(&rows), Ok(book.clone()));
        assert_eq!(book.events, 2);
        assert_eq!(rows.iter().filter(|row| row.table == EVENT).map(|row| row.key.len()).max(), Some(20));
    }

    #[test]
    fn refuses_a_row_that_does_not_parse_or_has_another_name() {
        let good = rows(&Book::default(), &everything());
        let broken = |index: usize, edit: fn(&mut Row)| {
            let mut rows = good.clone();
            edit(&mut rows[index]);
            Book::from_rows(&rows)
        };
        for (index, row) in good.iter().enumerate() {
            let unparsable = broken(index, |row| row.value.truncate(1));
            assert!(matches!(unparsable, Err(StoreError::Corrupt { .. })), "{}", row.table);
            let renamed = broken(index, |row| row.key.push('0'));
            assert!(matches!(renamed, Err(StoreError::Corrupt { .. })), "{}", row.table);
        }
        assert!(matches!(broken(0, |row| row.table = "other".into()), Err(StoreError::Corrupt { .. })));
    }

    #[test]
    fn numbers_events_after_those_already_written() {
        let book = Book { events: 41, ..Book::default() };
        let keys: Vec<String> =
            rows(&book, &everything()).into_iter().filter(|r| r.table == EVENT).map(|r| r.key).collect();
        assert_eq!(keys, ["00000000000000000041", "00000000000000000042"]);
    }
}
