//! The order book made small: numbers instead of keys, by duration and side, in order of priority.

use crate::pairing::{BookOrder, PairingRules};
use core::hash::{BuildHasherDefault, Hasher};
use std::collections::{BTreeMap, HashMap};
use tidegate_protocol::keys::{AccountKey, NodeId};
use tidegate_protocol::order::{AnnouncementConstraint, AuctionType, ConfirmationConstraint, NodeTier, OrderVersion};
use tidegate_protocol::units::{BlockCount, Sats, UnitCount};

/// Number of different [`ask_kind`]s.
pub(super) const ASK_KINDS: usize = 864;
/// Number of different [`bid_kind`]s.
pub(super) const BID_KINDS: usize = 192;

/// A number as an index.
pub(super) fn index(number: u32) -> usize {
    usize::try_from(number).expect("32 bits are an index")
}

/// An index as a number.
pub(super) fn number(index: usize) -> u32 {
    u32::try_from(index).expect("fewer than 2^32 orders and list entries fit into memory")
}

/// A map by numbers that were given out here, from 0 on: nobody else chooses them, so a simple hash will do.
pub(super) type NumberMap<V> = HashMap<u32, V, BuildHasherDefault<NumberHasher>>;

/// Multiplies by the golden ratio of 2^64.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

/// One order, made small.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    /// Index in the orders.
    pub(super) order: u32,
    pub(super) node: u32,
    pub(super) account: u32,
    pub(super) owner: u32,
    /// Number of its node list plus one; 0 without.
    pub(super) list: u32,
    /// Units not yet matched.
    pub(super) left: UnitCount,
    pub(super) min: UnitCount,
    pub(super) rate: u32,
    pub(super) kind: u16,
    pub(super) auction: AuctionType,
    pub(super) self_balance: Sats,
}

/// The lines of one duration, best first.
#[derive(Clone, Debug, Default)]
pub(super) struct Half {
    pub(super) asks: Vec<Line>,
    pub(super) bids: Vec<Line>,
}

/// Node lists and conflicts, in numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    /// Whether the nodes of a list are the allowed or the denied ones, and where it ends in `members`.
    lists: Vec<(bool, usize)>,
    members: Vec<u32>,
    conflicts: NumberMap<Vec<u32>>,
}

impl Names {
    /// The nodes of a list, when it is one of allowed nodes.
    pub(super) fn allowed(&self, list: u32) -> Option<&[u32]> {
        let (allowing, members) = self.list(list)?;
        allowing.then_some(members)
    }

    /// The nodes of a list, when it is one of denied nodes.
    pub(super) fn denied(&self, list: u32) -> Option<&[u32]> {
        let (allowing, members) = self.list(list)?;
        (!allowing).then_some(members)
    }

    /// The accounts that shall not meet this one, in rising order.
    pub(super) fn conflicts_of(&self, account: u32) -> &[u32] {
        self.conflicts.get(&account).map_or(&[], Vec::as_slice)
    }

    /// Entries of all lists.
    pub(super) fn entries(&self) -> usize {
        self.members.len()
    }

    fn list(&self, list: u32) -> Option<(bool, &[u32])> {
        let at = index(list).checked_sub(1)?;
        let start = at.checked_sub(1).map_or(0, |before| self.lists[before].1);
        let (allowing, end) = self.lists[at];
        Some((allowing, &self.members[start..end]))
    }

    fn add_list(&mut self, order: &BookOrder, nodes: &mut Register) -> u32 {
        let order = &order.submitted.order;
        let allowing = !order.allowed_nodes.is_empty();
        let listed = if allowing { &order.allowed_nodes } else { &order.denied_nodes };
        if listed.is_empty() {
            return 0;
        }
        let mut members: Vec<u32> = listed.iter().map(|node| nodes.number(node.serialize())).collect();
        members.sort_unstable();
        members.dedup();
        self.members.append(&mut members);
        self.lists.push((allowing, self.members.len()));
        number(self.lists.len())
    }

    fn add_conflicts(&mut self, rules: &PairingRules<'_>, accounts: &Register) {
        let known = |account: &AccountKey| accounts.0.get(&account.serialize()).copied();
        for (a, b) in rules.conflicts.iter() {
            if let (Some(a), Some(b)) = (known(a), known(b)) {
                self.conflicts.entry(a).or_default().push(b);
                self.conflicts.entry(b).or_default().push(a);
            }
        }
        for others in self.conflicts.values_mut() {
            others.sort_unstable();
        }
    }
}

/// Keys, numbered in order of first appearance.
#[derive(Debug, Default)]
struct Register(HashMap<[u8; 33], u32>);

impl Register {
    fn number(&mut self, key: [u8; 33]) -> u32 {
        let next = number(self.0.len());
        *self.0.entry(key).or_insert(next)
    }
}

/// An owner, and what its latest order named.
#[derive(Debug)]
struct Owner {
    number: u32,
    node: (NodeId, u32),
    account: (AccountKey, u32),
}

/// All identities. An owner mostly has one node and one account, so that the other registers are rarely asked.
#[derive(Debug, Default)]
struct People {
    nodes: Register,
    accounts: Register,
    owners: HashMap<[u8; 32], Owner>,
}

impl People {
    /// Numbers of owner, node and account.
    fn of(&mut self, entry: &BookOrder) -> (u32, u32, u32) {
        let (node, account) = (entry.submitted.node, entry.submitted.order.account);
        let next = number(self.owners.len());
        let owner = self.owners.entry(entry.owner).or_insert_with(|| Owner {
            number: next,
            node: (node, self.nodes.number(node.serialize())),
            account: (account, self.accounts.number(account.serialize())),
        });
        // This comparison may miss that two keys are equal; then the register tells.
        if !owner.node.0.point().eq_fast_unstable(node.point()) {
            owner.node = (node, self.nodes.number(node.serialize()));
        }
        if !owner.account.0.point().eq_fast_unstable(account.point()) {
            owner.account = (account, self.accounts.number(account.serialize()));
        }
        (owner.number, owner.node.1, owner.account.1)
    }
}

/// Reads a book: the lines by duration, each side in order of priority (ties in order of `orders`), and the names.
pub(super) fn read(orders: &[BookOrder], rules: &PairingRules<'_>) -> (BTreeMap<BlockCount, Half>, Names) {
    let mut people = People::default();
    let mut names = Names::default();
    let mut halves: BTreeMap<BlockCount, Half> = BTreeMap::new();
    for (place, entry) in (0..).zip(orders) {
        let order = &entry.submitted.order;
        let half = halves.entry(order.duration).or_default();
        let (side, kind) = if order.is_ask() {
            (&mut half.asks, ask_kind(entry, rules.ratings_enabled))
        } else {
            (&mut half.bids, bid_kind(entry, rules.ratings_enabled))
        };
        let (owner, node, account) = people.of(entry);
        side.push(Line {
            order: place,
            node,
            account,
            owner,
            list: names.add_list(entry, &mut people.nodes),
            left: entry.open,
            min: order.min_units,
            rate: order.rate.get(),
            kind,
            auction: order.auction,
            self_balance: order.self_balance(),
        });
    }
    names.add_conflicts(rules, &people.accounts);
    for half in halves.values_mut() {
        sort(&mut half.asks, |rate| rate);
        sort(&mut half.bids, |rate| u32::MAX - rate);
    }
    (halves, names)
}

/// Stable sort by the key of the rate: numbers are sorted, then each line moves once.
fn sort(lines: &mut Vec<Line>, key: impl Fn(u32) -> u32) {
    let mut keys: Vec<u64> =
        (0u32..).zip(&*lines).map(|(at, line)| u64::from(key(line.rate)) << 32 | u64::from(at)).collect();
    keys.sort_unstable();
    let place = |key: u64| usize::try_from(key & u64::from(u32::MAX)).expect("32 bits are an index");
    *lines = keys.into_iter().map(|key| lines[place(key)]).collect();
}

/// Everything but rate, sizes and identities that the predicates read of an ask, as one number.
fn ask_kind(entry: &BookOrder, ratings: bool) -> u16 {
    let order = &entry.submitted.order;
    let terms = order.ask().cloned().unwrap_or_default();
    let announcement = match terms.announcement {
        AnnouncementConstraint::None => 0,
        AnnouncementConstraint::OnlyAnnounced => 1,
        AnnouncementConstraint::OnlyUnannounced => 2,
    };
    let confirmation = match terms.confirmation {
        ConfirmationConstraint::None => 0,
        ConfirmationConstraint::OnlyConfirmed => 1,
        ConfirmationConstraint::OnlyZeroConf => 2,
    };
    pack(&[
        (2, auction(order.auction)),
        (2, u16::from(order.version >= OrderVersion::V4)),
        (3, u16::from(order.channel_type.number())),
        (2, u16::from(ratings && entry.tier == NodeTier::Tier1)),
        (3, announcement),
        (3, confirmation),
        (2, u16::from(entry.batch_version.unannounced_channels())),
        (2, u16::from(entry.batch_version.zero_conf())),
    ])
}

/// Everything but rate, sizes and identities that the predicates read of a bid, as one number.
fn bid_kind(entry: &BookOrder, ratings: bool) -> u16 {
    let order = &entry.submitted.order;
    let terms = order.bid().cloned().unwrap_or_default();
    pack(&[
        (2, auction(order.auction)),
        (2, u16::from(terms.self_balance != Sats::ZERO)),
        (3, u16::from(order.channel_type.number())),
        (2, u16::from(ratings && terms.min_node_tier == NodeTier::Tier1)),
        (2, u16::from(terms.unannounced)),
        (2, u16::from(terms.zero_conf)),
        (2, u16::from(entry.batch_version.zero_conf())),
    ])
}

fn auction(auction: AuctionType) -> u16 {
    match auction {
        AuctionType::Inbound => 0,
        AuctionType::Outbound => 1,
    }
}

/// Digits of different bases as one number.
fn pack(digits: &[(u16, u16)]) -> u16 {
    digits.iter().fold(0, |packed, (base, digit)| packed * base + digit)
}
