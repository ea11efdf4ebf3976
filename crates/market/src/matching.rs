//! Pairing that scales: the result of the plain walk (every bid over every ask) without walking.
//!
//! Asks of one kind (everything that the predicates read but rate, sizes and identities) stand on one shelf, cheapest
//! first. A bid merges the next useful asks of the shelves whose kind it may meet. Asks that allow certain nodes only
//! are filed under those nodes instead, and a bid that allows certain nodes only looks at the asks of these. What is
//! left to test one by one (own orders, denied nodes, conflicts, sizes) is tested on small numbers.
//!
//! The order of events is that of the plain walk, so stopping early (enough pairs, or no work left) leaves a prefix of
//! its pairs.

mod book;
mod shelf;
mod streams;

use crate::pairing::{BookOrder, PairingRules, fill_units, kinds_meet};
use book::{ASK_KINDS, BID_KINDS, Half, Line, Names, index, number};
use core::cmp::Reverse;
use shelf::{Need, Shelf};
use std::collections::{BTreeMap, BinaryHeap};
use streams::{Span, Streams};
use tidegate_protocol::order::AuctionType;
use tidegate_protocol::units::{BlockCount, Sats, UnitCount};

/// Work of testing one pair: it costs about as much as looking at so many nodes of a tree.
const TEST_WORK: u64 = 8;
/// Work of reading and sorting one order, or one entry of a node list.
const READ_WORK: u64 = 50;

/// Two orders that met, by their places in the orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meeting {
    /// Place of the maker's order.
    pub ask: usize,
    /// Place of the taker's order.
    pub bid: usize,
    /// Units matched.
    pub units: UnitCount,
}

/// The pairs of one duration before pricing, in the order in which they were found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) meetings: Vec<Meeting>,
    pub(crate) work: u64,
    pub(crate) cut: bool,
}

/// Pairs each duration: at most `rules.max_pairs` pairs each, with an equal share of the work each. Also the work of
/// reading the book, which is the first part of all work.
pub(crate) fn pair_up(orders: &[BookOrder], rules: &PairingRules<'_>, work: u64) -> (u64, BTreeMap<BlockCount, Found>) {
    let (halves, names) = book::read(orders, rules);
    let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
    let reading = count(orders.len()).saturating_add(count(names.entries())).saturating_mul(READ_WORK);
    let share = work.saturating_sub(reading) / count(halves.len()).max(1);
    let serve = |(duration, half)| (duration, Matcher::new(orders, rules, &names, half, share).run());
    (reading, halves.into_iter().map(serve).collect())
}

/// What a kind of bid may meet.
#[derive(Clone, Debug)]
struct Compatible {
    /// For each number of an ask's kind, whether a bid may meet it.
    kinds: Vec<bool>,
    /// The shelves of those.
    shelves: Vec<u32>,
}

/// Where the next candidate of a bid comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Shelf { shelf: u32, slot: u32 },
    Owned(Span),
    Allowing(Span),
}

/// A bid that is being served.
struct Serving<'a> {
    bid: Line,
    need: Need,
    /// Asks of this rank and above are too dear.
    limit: u32,
    compatible: &'a Compatible,
    conflicts: &'a [u32],
    /// Asks that allow, and that deny, the bid's node; from the current candidate on.
    allowing: Span,
    denying: Span,
}

struct Matcher<'a> {
    names: &'a Names,
    max_pairs: usize,
    share: u64,
    asks: Vec<Line>,
    bids: Vec<Line>,
    /// [`usable`] of each ask: read far more often than the rest of it.
    usable: Vec<u32>,
    /// Place of each ask on the shelf of its kind, unless it allows certain nodes only.
    slots: Vec<Option<u32>>,
    shelves: Vec<Shelf>,
    compatible: Vec<Option<Compatible>>,
    owned: Streams,
    allowing: Streams,
    denying: Streams,
    heads: BinaryHeap<Reverse<(u32, Source)>>,
    found: Found,
}

impl<'a> Matcher<'a> {
    fn new(orders: &[BookOrder], rules: &PairingRules<'_>, names: &'a Names, half: Half, share: u64) -> Matcher<'a> {
        let Half { mut asks, bids } = half;
        let examples = renumber_kinds(&mut asks);
        let compatible = compatible(orders, rules, &examples, &bids);
        let mut contents: Vec<Vec<(u32, u32, u32)>> = vec![Vec::new(); examples.len()];
        let mut slots = Vec::with_capacity(asks.len());
        let (mut allowing, mut denying) = (Vec::new(), Vec::new());
        for (rank, ask) in (0..).zip(&asks) {
            if let Some(nodes) = names.allowed(ask.list) {
                allowing.extend(nodes.iter().map(|node| (*node, rank)));
                slots.push(None);
            } else {
                denying.extend(names.denied(ask.list).unwrap_or_default().iter().map(|node| (*node, rank)));
                let shelf = &mut contents[usize::from(ask.kind)];
                slots.push(Some(number(shelf.len())));
                shelf.push((rank, usable(ask), ask.min.get()));
            }
        }
        Matcher {
            names,
            max_pairs: rules.max_pairs,
            share,
            shelves: contents.iter().map(|asks| Shelf::new(asks)).collect(),
            compatible,
            usable: asks.iter().map(usable).collect(),
            owned: owned(names, &asks, &bids),
            allowing: Streams::new(allowing),
            denying: Streams::new(denying),
            asks,
            bids,
            slots,
            heads: BinaryHeap::new(),
            found: Found::default(),
        }
    }

    /// Serves all bids, best first.
    fn run(mut self) -> Found {
        let bids = core::mem::take(&mut self.bids);
        let compatible = core::mem::take(&mut self.compatible);
        let mut limit = self.asks.len();
        for bid in bids {
            while limit > 0 && self.asks[limit - 1].rate > bid.rate {
                limit -= 1;
            }
            if limit == 0 || self.found.meetings.len() >= self.max_pairs {
                break;
            }
            if self.found.work >= self.share {
                self.found.cut = true;
                break;
            }
            self.found.work += 1;
            let (Some(need), Some(compatible)) = (need(&bid), &compatible[usize::from(bid.kind)]) else { continue };
            let conflicts = self.names.conflicts_of(bid.account);
            let (allowing, denying) = (self.allowing.of(bid.node), self.denying.of(bid.node));
            self.serve(Serving { bid, need, limit: number(limit), compatible, conflicts, allowing, denying });
        }
        self.found
    }

    fn serve(&mut self, mut serving: Serving<'_>) {
        self.open(&serving);
        while let Some(Reverse((rank, source))) = self.heads.pop() {
            self.found.work += TEST_WORK;
            if let Some(units) = self.units(&mut serving, rank) {
                self.meet(&mut serving.bid, rank, units);
                if self.found.meetings.len() >= self.max_pairs {
                    return;
                }
                match need(&serving.bid) {
                    Some(need) => serving.need = need,
                    None => return,
                }
            }
            if self.found.work >= self.share {
                self.found.cut = true;
                return;
            }
            self.advance(source, &serving);
        }
    }

    /// Puts the first candidate of every source in front of the bid.
    fn open(&mut self, serving: &Serving<'_>) {
        self.heads.clear();
        if let Some(nodes) = self.names.allowed(serving.bid.list) {
            for node in nodes {
                self.found.work += TEST_WORK;
                self.advance(Source::Owned(self.owned.of(*node)), serving);
            }
            return;
        }
        for shelf in &serving.compatible.shelves {
            self.shelves[index(*shelf)].limit(serving.limit);
            self.advance_on_shelf(*shelf, 0, serving.need);
        }
        self.advance(Source::Allowing(serving.allowing), serving);
    }

    /// Puts the next candidate of a source in front of the bid.
    fn advance(&mut self, source: Source, serving: &Serving<'_>) {
        match source {
            Source::Shelf { shelf, slot } => self.advance_on_shelf(shelf, index(slot) + 1, serving.need),
            Source::Owned(span) => {
                let next = next_in(&mut self.owned, &self.usable, span, serving, &mut self.found.work);
                self.heads.extend(next.map(|(rank, rest)| Reverse((rank, Source::Owned(rest)))));
            }
            Source::Allowing(span) => {
                let next = next_in(&mut self.allowing, &self.usable, span, serving, &mut self.found.work);
                self.heads.extend(next.map(|(rank, rest)| Reverse((rank, Source::Allowing(rest)))));
            }
        }
    }

    fn advance_on_shelf(&mut self, shelf: u32, from: usize, need: Need) {
        let asks = &self.shelves[index(shelf)];
        if let Some(slot) = asks.next(from, need, &mut self.found.work) {
            self.heads.push(Reverse((asks.rank(slot), Source::Shelf { shelf, slot: number(slot) })));
        }
    }

    /// The units that bid and ask exchange, when they may meet.
    fn units(&self, serving: &mut Serving<'_>, rank: u32) -> Option<UnitCount> {
        let (ask, bid) = (&self.asks[index(rank)], serving.bid);
        let may_meet = ask.owner != bid.owner
            && ask.account != bid.account
            && ask.node != bid.node
            && serving.compatible.kinds[usize::from(ask.kind)]
            && (ask.list == 0 || self.accepted(serving, rank))
            && self.names.denied(bid.list).is_none_or(|nodes| nodes.binary_search(&ask.node).is_err())
            && serving.conflicts.binary_search(&ask.account).is_err();
        if !may_meet {
            return None;
        }
        fill_units(bid.auction, (ask.left, ask.min), (bid.left, bid.min), bid.self_balance)
    }

    /// Whether the node list of the ask accepts the bid's node. (A bid's list of allowed nodes chooses its candidates.)
    fn accepted(&self, serving: &mut Serving<'_>, rank: u32) -> bool {
        match self.slots[index(rank)] {
            Some(_) => !self.denying.contains(&mut serving.denying, rank),
            None => self.allowing.contains(&mut serving.allowing, rank),
        }
    }

    /// Books a pair.
    fn meet(&mut self, bid: &mut Line, rank: u32, units: UnitCount) {
        let ask = &mut self.asks[index(rank)];
        bid.left = bid.left.checked_sub(units).expect("a fill is at most what is left of the bid");
        ask.left = ask.left.checked_sub(units).expect("a fill is at most what is left of the ask");
        self.found.meetings.push(Meeting { ask: index(ask.order), bid: index(bid.order), units });
        self.usable[index(rank)] = usable(ask);
        if let Some(slot) = self.slots[index(rank)] {
            self.shelves[usize::from(ask.kind)].set_left(index(slot), usable(ask));
        }
    }
}

/// The next ask of a stream with enough units left for the bid.
fn next_in(
    streams: &mut Streams,
    usable: &[u32],
    mut span: Span,
    serving: &Serving<'_>,
    work: &mut u64,
) -> Option<(u32, Span)> {
    loop {
        let (rank, rest) = streams.next(span, |rank| rank < serving.limit && usable[index(rank)] == 0)?;
        *work += 2;
        if rank >= serving.limit {
            return None;
        }
        if usable[index(rank)] >= serving.need.least_left {
            return Some((rank, rest));
        }
        span = rest;
    }
}

/// Units of an ask that can still be matched: nothing when less than its smallest match is left.
fn usable(ask: &Line) -> u32 {
    match ask.auction {
        AuctionType::Inbound if ask.left < ask.min => 0,
        AuctionType::Inbound | AuctionType::Outbound => ask.left.get(),
    }
}

/// What an ask must have so that [`fill_units`] can give something; nothing when no ask can serve what is left of the bid.
fn need(bid: &Line) -> Option<Need> {
    let (left, min) = (bid.left.get(), bid.min.get().max(1));
    match bid.auction {
        AuctionType::Inbound => {
            let least_left = if bid.self_balance == Sats::ZERO { min } else { left };
            (left >= min).then_some(Need { least_left, most_min: left })
        }
        AuctionType::Outbound => {
            let most_min = UnitCount::floor_from(bid.self_balance).map_or(u32::MAX, UnitCount::get);
            (left == 1).then_some(Need { least_left: 1, most_min })
        }
    }
}

/// Numbers the kinds of asks that occur; an ask of each.
fn renumber_kinds(asks: &mut [Line]) -> Vec<u32> {
    let mut numbers: Vec<Option<u16>> = vec![None; ASK_KINDS];
    let mut examples = Vec::new();
    for ask in asks {
        let kind = &mut numbers[usize::from(ask.kind)];
        ask.kind = *kind.get_or_insert_with(|| {
            examples.push(ask.order);
            u16::try_from(examples.len() - 1).expect("fewer kinds than 2^16")
        });
    }
    examples
}

/// What each kind of bid that occurs may meet.
fn compatible(
    orders: &[BookOrder],
    rules: &PairingRules<'_>,
    examples: &[u32],
    bids: &[Line],
) -> Vec<Option<Compatible>> {
    let mut compatible = vec![None; BID_KINDS];
    for bid in bids {
        compatible[usize::from(bid.kind)].get_or_insert_with(|| {
            let bid = &orders[index(bid.order)];
            let kinds: Vec<bool> = examples.iter().map(|ask| kinds_meet(&orders[index(*ask)], bid, rules)).collect();
            let shelves = (0..).zip(&kinds).filter_map(|(shelf, meets)| meets.then_some(shelf)).collect();
            Compatible { kinds, shelves }
        });
    }
    compatible
}

/// The asks of every node that some bid allows.
fn owned(names: &Names, asks: &[Line], bids: &[Line]) -> Streams {
    let mut wanted: Vec<u32> = bids.iter().filter_map(|bid| names.allowed(bid.list)).flatten().copied().collect();
    wanted.sort_unstable();
    wanted.dedup();
    let of_wanted = (0..).zip(asks).filter(|(_, ask)| wanted.binary_search(&ask.node).is_ok());
    Streams::new(of_wanted.map(|(rank, ask)| (ask.node, rank)).collect())
}
