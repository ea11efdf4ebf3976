//! Asks filed under a node: those that it owns, those that allow it, those that deny it.

use super::book::{NumberMap, index, number};

/// Ranks of asks by node, each node's in rising order, with pointers over those that are used up.
#[derive(Clone, Debug, Default)]
pub(super) struct Streams {
    spans: NumberMap<Span>,
    ranks: Vec<u32>,
    /// Where to look on from a place: itself while its ask is not known to be used up.
    forward: Vec<u32>,
}

/// A part of one node's asks, from a place on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Streams {
    /// Files (node, rank) in any order.
    pub(super) fn new(mut entries: Vec<(u32, u32)>) -> Streams {
        entries.sort_unstable();
        let mut spans: NumberMap<Span> = NumberMap::default();
        for (place, (node, _)) in (0..).zip(&entries) {
            spans.entry(*node).or_insert(Span { start: place, end: place }).end = place + 1;
        }
        let forward = (0..=number(entries.len())).collect();
        Streams { spans, ranks: entries.into_iter().map(|(_, rank)| rank).collect(), forward }
    }

    /// The asks of a node.
    pub(super) fn of(&self, node: u32) -> Span {
        self.spans.get(&node).copied().unwrap_or_default()
    }

    /// Whether the rank is in the span. The ranks asked for rise: what is below them leaves the span.
    pub(super) fn contains(&self, span: &mut Span, rank: u32) -> bool {
        let rest = &self.ranks[index(span.start)..index(span.end)];
        span.start += number(rest.partition_point(|other| *other < rank));
        span.start < span.end && self.ranks[index(span.start)] == rank
    }

    /// The rank at the first place of the span whose ask is not used up, and the rest after it.
    pub(super) fn next(&mut self, span: Span, used_up: impl Fn(u32) -> bool) -> Option<(u32, Span)> {
        let mut place = span.start;
        loop {
            place = self.skip(place);
            if place >= span.end {
                return None;
            }
            let rank = self.ranks[index(place)];
            if !used_up(rank) {
                return Some((rank, Span { start: place + 1, end: span.end }));
            }
            self.forward[index(place)] = place + 1;
        }
    }

    /// Follows the pointers and shortens them by half.
    fn skip(&mut self, mut place: u32) -> u32 {
        loop {
            let next = self.forward[index(place)];
            if next == place {
                return place;
            }
            let after = self.forward[index(next)];
            self.forward[index(place)] = after;
            place = after;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn walk(streams: &mut Streams, node: u32, dead: &BTreeSet<u32>) -> Vec<u32> {
        let mut found = Vec::new();
        let mut rest = streams.of(node);
        while let Some((rank, after)) = streams.next(rest, |rank| dead.contains(&rank)) {
            found.push(rank);
            rest = after;
        }
        found
    }

    #[test]
    fn used_up_asks_are_skipped_for_good_and_other_nodes_are_not_touched() {
        let mut streams = Streams::new(vec![(7, 3), (5, 9), (7, 1), (7, 2), (7, 8)]);
        let mut dead = BTreeSet::new();
        assert_eq!(walk(&mut streams, 7, &dead), [1, 2, 3, 8]);
        for (rank, rest) in [(2, vec![1, 3, 8]), (1, vec![3, 8]), (8, vec![3]), (3, vec![])] {
            dead.insert(rank);
            assert_eq!(walk(&mut streams, 7, &dead), rest);
            assert_eq!(walk(&mut streams, 7, &dead), rest, "again");
        }
        assert_eq!(walk(&mut streams, 5, &dead), [9]);
        assert_eq!(walk(&mut streams, 6, &dead), Vec::<u32>::new());
    }

    #[test]
    fn rising_ranks_are_found_in_a_span() {
        let streams = Streams::new(vec![(7, 3), (5, 4), (7, 1), (7, 8)]);
        let mut span = streams.of(7);
        let found: Vec<u32> = (0..10).filter(|rank| streams.contains(&mut span, *rank)).collect();
        assert_eq!(found, [1, 3, 8]);
        assert!(!streams.contains(&mut streams.of(6), 1));
    }
}
