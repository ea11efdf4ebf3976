//! What is known about the market and about ourselves, each datum with the time it happened and the time it became
//! known.
//!
//! The shell fills a [`MarketView`] with plain data; strategies and the gate only read it. `as_of` is the one place
//! that hides the future: it filters on `seen_at`, never on `event_at`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use tidegate_ports::BatchSnapshot;
pub use tidegate_ports::{DurationState, Interest, MarketInterest, Terms, Timestamp};
use tidegate_protocol::account::{Account, AccountState, AccountVersion};
use tidegate_protocol::fees::ExecutionFee;
use tidegate_protocol::keys::{AccountKey, BatchId, NodeId, OrderNonce};
use tidegate_protocol::order::{NodeTier, OrderState, OwnOrder};
use tidegate_protocol::units::{BlockCount, BlockHeight, RatePerBillion, SatPerKw, Sats, UnitCount};

/// Side of the market.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Sells liquidity: the maker.
    Ask,
    /// Buys liquidity: the taker.
    Bid,
}

/// A datum with its two times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen<T> {
    /// When it happened, by the clock of its source.
    pub event_at: Timestamp,
    /// When it became known here. Decisions filter on this alone.
    pub seen_at: Timestamp,
    /// The datum.
    pub value: T,
}

impl<T> Seen<T> {
    /// A datum that became known when it happened.
    pub fn now(at: Timestamp, value: T) -> Seen<T> {
        Seen { event_at: at, seen_at: at, value }
    }
}

/// One pair of a clearing, without names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClearedPair {
    /// Limit of the ask.
    pub ask_rate: RatePerBillion,
    /// Limit of the bid.
    pub bid_rate: RatePerBillion,
    /// Units.
    pub units: UnitCount,
}

/// One duration of one past batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clearing {
    /// Batch.
    pub batch_id: BatchId,
    /// When the venue made the batch.
    pub event_at: Timestamp,
    /// When its snapshot became known here.
    pub seen_at: Timestamp,
    /// Lease duration.
    pub duration: BlockCount,
    /// Clearing price.
    pub price: RatePerBillion,
    /// Pairs.
    pub pairs: Vec<ClearedPair>,
    /// Chain fee rate of the batch.
    pub batch_fee_rate: SatPerKw,
}

/// Past clearings, oldest first. Copies share them until one is changed: years of batches are tens of megabytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History(Arc<Vec<Clearing>>);

impl History {
    /// The part that was known at `at`; all of it is shared.
    fn as_of(&self, at: Timestamp) -> History {
        let known = |clearing: &&Clearing| clearing.seen_at <= at;
        if self.0.iter().all(|clearing| known(&clearing)) {
            self.clone()
        } else {
            self.0.iter().filter(known).cloned().collect()
        }
    }
}

impl Deref for History {
    type Target = Vec<Clearing>;

    fn deref(&self) -> &Vec<Clearing> {
        &self.0
    }
}

/// Whoever changes shared clearings gets a copy of its own.
impl DerefMut for History {
    fn deref_mut(&mut self) -> &mut Vec<Clearing> {
        Arc::make_mut(&mut self.0)
    }
}

impl From<Vec<Clearing>> for History {
    fn from(clearings: Vec<Clearing>) -> History {
        History(Arc::new(clearings))
    }
}

impl FromIterator<Clearing> for History {
    fn from_iter<I: IntoIterator<Item = Clearing>>(clearings: I) -> History {
        History::from(Vec::from_iter(clearings))
    }
}

impl IntoIterator for History {
    type Item = Clearing;
    type IntoIter = std::vec::IntoIter<Clearing>;

    fn into_iter(self) -> Self::IntoIter {
        Arc::unwrap_or_clone(self.0).into_iter()
    }
}

impl Serialize for History {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_slice().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for History {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<History, D::Error> {
        Vec::deserialize(deserializer).map(History::from)
    }
}

/// An account of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountView {
    /// Name.
    pub key: AccountKey,
    /// Script version.
    pub version: AccountVersion,
    /// Value in satoshi.
    pub value: Sats,
    /// Part of it that open orders reserve.
    pub reserved: Sats,
    /// Height from which only we can spend.
    pub expiry: BlockHeight,
    /// State.
    pub state: AccountState,
}

impl AccountView {
    /// The view of a stored account of whose value `reserved` is taken by orders.
    pub fn new(account: &Account, reserved: Sats) -> AccountView {
        AccountView {
            key: account.key(),
            version: account.terms.version,
            value: account.value,
            reserved,
            expiry: account.terms.expiry,
            state: account.state,
        }
    }

    /// Value that no order reserves, in satoshi; 0 when more is reserved than there is.
    pub fn free(&self) -> Sats {
        self.value.checked_sub(self.reserved).unwrap_or(Sats::ZERO)
    }

    /// Whether orders can be placed on it.
    ///
    /// # Source
    /// Protocol notes, batch §1, "validation before submission".
    pub fn takes_orders(&self) -> bool {
        matches!(self.state, AccountState::Open | AccountState::PendingUpdate | AccountState::PendingBatch)
    }

    /// Whether coins of ours are in it, or about to be.
    pub fn holds_coins(&self) -> bool {
        !matches!(self.state, AccountState::PendingClosed | AccountState::Closed | AccountState::CanceledAfterRecovery)
    }

    /// Whether it is being opened.
    pub fn is_opening(&self) -> bool {
        matches!(self.state, AccountState::Initiated | AccountState::PendingOpen)
    }
}

/// An order of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderView {
    /// Name.
    pub nonce: OrderNonce,
    /// Account.
    pub account: AccountKey,
    /// Side.
    pub side: Side,
    /// Limit.
    pub rate: RatePerBillion,
    /// Units of the whole order.
    pub units: UnitCount,
    /// Units not yet filled.
    pub units_unfulfilled: UnitCount,
    /// Smallest match.
    pub min_units: UnitCount,
    /// Lease duration.
    pub duration: BlockCount,
    /// Highest chain fee rate.
    pub max_batch_fee_rate: SatPerKw,
    /// Own coins that a bid puts into the channel, in satoshi.
    pub self_balance: Sats,
    /// Lowest tier that a bid accepts.
    pub min_node_tier: NodeTier,
    /// State.
    pub state: OrderState,
    /// Value that it reserves, in satoshi.
    pub reserved: Sats,
    /// When it was placed.
    pub placed_at: Timestamp,
}

impl OrderView {
    /// The view of a stored order that reserves `reserved` and was placed at `placed_at`.
    pub fn new(own: &OwnOrder, reserved: Sats, placed_at: Timestamp) -> OrderView {
        let order = &own.order;
        OrderView {
            nonce: order.nonce,
            account: order.account,
            side: if order.is_ask() { Side::Ask } else { Side::Bid },
            rate: order.rate,
            units: order.units().unwrap_or(own.units_unfulfilled),
            units_unfulfilled: own.units_unfulfilled,
            min_units: order.min_units,
            duration: order.duration,
            max_batch_fee_rate: order.max_batch_fee_rate,
            self_balance: order.self_balance(),
            min_node_tier: order.bid().map_or(NodeTier::default(), |terms| terms.min_node_tier),
            state: own.state,
            reserved,
            placed_at,
        }
    }

    /// Whether it can still be matched.
    pub fn is_live(&self) -> bool {
        !self.state.is_archived()
    }
}

/// A lease of ours, sold or bought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseView {
    /// Batch that made it.
    pub batch_id: BatchId,
    /// Account.
    pub account: AccountKey,
    /// Our order.
    pub nonce: OrderNonce,
    /// Our side: ask when sold, bid when bought.
    pub side: Side,
    /// Limit of our order.
    pub limit_rate: RatePerBillion,
    /// Units.
    pub units: UnitCount,
    /// Coins of the buyer in the channel, in satoshi.
    pub self_balance: Sats,
    /// Lease duration.
    pub duration: BlockCount,
    /// Clearing price.
    pub clearing_rate: RatePerBillion,
    /// Premium received (sold) or paid (bought), in satoshi.
    pub premium: Sats,
    /// Execution fee paid, in satoshi.
    pub execution_fee: Sats,
    /// Our share of the chain fee, in satoshi.
    pub chain_fee: Sats,
    /// Height of the batch.
    pub start: BlockHeight,
    /// When it was booked.
    pub booked_at: Timestamp,
}

impl LeaseView {
    /// Height at which the lease is over; the largest height when that does not fit.
    pub fn maturity(&self) -> BlockHeight {
        self.start.checked_add(self.duration).unwrap_or(BlockHeight::new(u32::MAX))
    }
}

/// The node that we work for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    /// Identity.
    pub id: NodeId,
    /// Confirmed on-chain coins outside of accounts, in satoshi.
    pub wallet_confirmed: Sats,
    /// It follows the chain.
    pub synced: bool,
}

/// A node's rating by the venue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rating {
    /// Node.
    pub node: NodeId,
    /// Tier; tier 0 is unrated.
    pub tier: NodeTier,
}

/// Everything that a decision may use. Lists may hold the whole history; accessors give the newest of each name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarketView {
    /// The time that the view stands for: nothing in it was seen later.
    pub at: Timestamp,
    /// Since when clearings are known without gap: before it, silence means nothing.
    pub observed_since: Timestamp,
    /// Past clearings, oldest first.
    pub clearings: History,
    /// Open interest, own orders included, as the venue says it.
    pub interest: Vec<Seen<BTreeMap<BlockCount, MarketInterest>>>,
    /// Terms of the venue.
    pub terms: Vec<Seen<Terms>>,
    /// Ratings of our node and of others.
    pub ratings: Vec<Seen<Rating>>,
    /// Own accounts.
    pub accounts: Vec<Seen<AccountView>>,
    /// Own orders.
    pub orders: Vec<Seen<OrderView>>,
    /// Own leases, each exactly once: they have no name by which a repeated one could be told.
    pub leases: Vec<Seen<LeaseView>>,
    /// Our node.
    pub node: Vec<Seen<NodeView>>,
    /// Estimates of the chain fee rate.
    pub fee_rates: Vec<Seen<SatPerKw>>,
    /// Best height.
    pub heights: Vec<Seen<BlockHeight>>,
}

fn known<T: Clone>(data: &[Seen<T>], at: Timestamp) -> Vec<Seen<T>> {
    data.iter().filter(|datum| datum.seen_at <= at).cloned().collect()
}

/// The datum seen last; of several seen at once, the one recorded last.
fn latest<T>(data: &[Seen<T>]) -> Option<&Seen<T>> {
    data.iter().max_by_key(|datum| datum.seen_at)
}

fn latest_by<K: Ord, T>(data: &[Seen<T>], key: impl Fn(&T) -> K) -> BTreeMap<K, &Seen<T>> {
    let mut found: BTreeMap<K, &Seen<T>> = BTreeMap::new();
    for datum in data {
        let name = key(&datum.value);
        if found.get(&name).is_none_or(|old| old.seen_at <= datum.seen_at) {
            found.insert(name, datum);
        }
    }
    found
}

impl MarketView {
    /// The same view without anything that became known after `at`.
    #[must_use]
    pub fn as_of(&self, at: Timestamp) -> MarketView {
        MarketView {
            at,
            observed_since: self.observed_since,
            clearings: self.clearings.as_of(at),
            interest: known(&self.interest, at),
            terms: known(&self.terms, at),
            ratings: known(&self.ratings, at),
            accounts: known(&self.accounts, at),
            orders: known(&self.orders, at),
            leases: known(&self.leases, at),
            node: known(&self.node, at),
            fee_rates: known(&self.fee_rates, at),
            heights: known(&self.heights, at),
        }
    }

    /// Adds a past batch; one that is already known, by its name and the time that the venue made it, changes nothing.
    ///
    /// Batches that are told in the order of their times are appended at no cost that grows with the history; another
    /// finds its place by binary search.
    pub fn add_snapshot(&mut self, snapshot: &BatchSnapshot, seen_at: Timestamp) {
        let event_at = Timestamp(snapshot.created_ns / 1_000_000);
        for (duration, (price, matches)) in &snapshot.markets {
            let Some(place) = self.place_of(snapshot.batch_id, event_at, *duration) else { continue };
            let pairs = matches.iter().map(|pair| ClearedPair {
                ask_rate: pair.ask_rate,
                bid_rate: pair.bid_rate,
                units: pair.units,
            });
            let clearing = Clearing {
                batch_id: snapshot.batch_id,
                event_at,
                seen_at,
                duration: *duration,
                price: *price,
                pairs: pairs.collect(),
                batch_fee_rate: snapshot.fee_rate,
            };
            self.clearings.insert(place, clearing);
        }
    }

    /// Where a clearing belongs: behind all that are not later. Nothing when it is known.
    fn place_of(&self, batch_id: BatchId, event_at: Timestamp, duration: BlockCount) -> Option<usize> {
        let key = (event_at, duration);
        let key_of = |known: &Clearing| (known.event_at, known.duration);
        if self.clearings.last().is_none_or(|last| key_of(last) < key) {
            return Some(self.clearings.len());
        }
        let end = self.clearings.partition_point(|known| key_of(known) <= key);
        let (upto, _) = self.clearings.split_at(end);
        let known = upto.iter().rev().take_while(|known| key_of(known) == key).any(|known| known.batch_id == batch_id);
        (!known).then_some(end)
    }

    /// The newest terms with their times.
    pub fn terms(&self) -> Option<&Seen<Terms>> {
        latest(&self.terms)
    }

    /// The venue's fee, when terms are known.
    pub fn execution_fee(&self) -> Option<ExecutionFee> {
        self.terms().map(|terms| terms.value.execution_fee)
    }

    /// Whether the venue takes orders of this duration now.
    pub fn takes_orders(&self, duration: BlockCount) -> bool {
        let state = self.terms().and_then(|terms| terms.value.durations.get(&duration));
        matches!(state, Some(DurationState::AcceptingOrders | DurationState::Open))
    }

    /// The newest best height.
    pub fn height(&self) -> Option<BlockHeight> {
        latest(&self.heights).map(|height| height.value)
    }

    /// Our node as seen last.
    pub fn node(&self) -> Option<&NodeView> {
        latest(&self.node).map(|node| &node.value)
    }

    /// The rating of a node; nothing when the venue was never asked.
    pub fn tier(&self, node: NodeId) -> Option<NodeTier> {
        let of_node = self.ratings.iter().filter(|rating| rating.value.node == node);
        of_node.max_by_key(|rating| rating.seen_at).map(|rating| rating.value.tier)
    }

    /// Our own rating; tier 0 (unrated) when unknown.
    pub fn own_tier(&self) -> NodeTier {
        self.node().and_then(|node| self.tier(node.id)).unwrap_or(NodeTier::Tier0)
    }

    /// Own accounts as seen last.
    pub fn accounts(&self) -> impl Iterator<Item = &AccountView> {
        latest_by(&self.accounts, |account| account.key).into_values().map(|seen| &seen.value)
    }

    /// One own account as seen last.
    pub fn account(&self, key: AccountKey) -> Option<&AccountView> {
        self.accounts().find(|account| account.key == key)
    }

    /// Own orders as seen last, also archived ones.
    pub fn orders(&self) -> impl Iterator<Item = &OrderView> {
        latest_by(&self.orders, |order| order.nonce).into_values().map(|seen| &seen.value)
    }

    /// Own orders that can still be matched.
    pub fn live_orders(&self) -> impl Iterator<Item = &OrderView> {
        self.orders().filter(|order| order.is_live())
    }

    /// Own leases.
    pub fn leases(&self) -> impl Iterator<Item = &LeaseView> {
        self.leases.iter().map(|seen| &seen.value)
    }

    /// Own leases that are not over; all of them while the height is unknown.
    pub fn running_leases(&self) -> impl Iterator<Item = &LeaseView> {
        let height = self.height();
        self.leases().filter(move |lease| height.is_none_or(|height| lease.maturity() > height))
    }

    /// Clearings of one duration, oldest first.
    pub fn clearings_of(&self, duration: BlockCount) -> impl Iterator<Item = &Clearing> {
        self.clearings.iter().filter(move |clearing| clearing.duration == duration)
    }

    /// The quantile (0 to 1) of the chain fee rates seen, by nearest rank; nothing without history.
    pub fn fee_rate_quantile(&self, quantile_ppm: u32) -> Option<SatPerKw> {
        let mut rates: Vec<SatPerKw> = self.fee_rates.iter().map(|rate| rate.value).collect();
        rates.sort_unstable();
        let rank = u64::try_from(rates.len()).ok()?.checked_mul(u64::from(quantile_ppm.min(1_000_000)))?;
        let index = usize::try_from(rank.div_ceil(1_000_000).saturating_sub(1)).ok()?;
        rates.get(index).copied()
    }

    /// Opposite interest that can reach an ask of ours in this duration, in units, and all of it, both net of own
    /// bids. Bids that demand tier 1 do not reach an unrated seller. Nothing when the venue was never asked.
    ///
    /// # Source
    /// Strategy notes §1.
    pub fn bid_interest(&self, duration: BlockCount) -> Option<(u32, u32)> {
        let bids = latest(&self.interest)?.value.get(&duration).copied().unwrap_or_default().bids;
        let own = |tier: NodeTier| -> u32 {
            let bids = self.live_orders().filter(|order| order.side == Side::Bid && order.duration == duration);
            bids.filter(|bid| bid.min_node_tier == tier)
                .fold(0, |sum, bid| sum.saturating_add(bid.units_unfulfilled.get()))
        };
        let any = bids.units_tier0.saturating_sub(own(NodeTier::Tier0));
        let rated = bids.units_tier1.saturating_sub(own(NodeTier::Tier1));
        let reachable = match self.own_tier() {
            NodeTier::Tier0 => any,
            NodeTier::Tier1 => any.saturating_add(rated),
        };
        Some((reachable, any.saturating_add(rated)))
    }

    /// Ask interest that a bid with `min_tier` can reach in this duration, in units, net of own asks. Nothing when
    /// the venue was never asked.
    ///
    /// # Source
    /// Strategy notes §1.
    pub fn ask_interest(&self, duration: BlockCount, min_tier: NodeTier) -> Option<u32> {
        let asks = latest(&self.interest)?.value.get(&duration).copied().unwrap_or_default().asks;
        let own_asks = self.live_orders().filter(|order| order.side == Side::Ask && order.duration == duration);
        let own = own_asks.fold(0_u32, |sum, ask| sum.saturating_add(ask.units_unfulfilled.get()));
        let own_of = |tier: NodeTier| if self.own_tier() == tier { own } else { 0 };
        let rated = asks.units_tier1.saturating_sub(own_of(NodeTier::Tier1));
        Some(match min_tier {
            NodeTier::Tier0 => rated.saturating_add(asks.units_tier0.saturating_sub(own_of(NodeTier::Tier0))),
            NodeTier::Tier1 => rated,
        })
    }
}

#[cfg(test)]
#[path = "fixtures.rs"]
pub(crate) mod fixtures;

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
