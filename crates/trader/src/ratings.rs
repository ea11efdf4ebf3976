//! What the venue said about nodes, and when: a venue that is silent today is taken at its last word, for a day.
//!
//! Does: remember, forget, and tell how old a rating is. Never does: judge one; that is the verifier's.

use crate::book::{Book, Update};
use crate::desk::Moment;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use tidegate_ports::Timestamp;
use tidegate_protocol::keys::NodeId;
use tidegate_protocol::order::NodeTier;
use tidegate_protocol::verify::{MAX_RATING_AGE_SECONDS, NodeRating};

/// Nodes whose rating is remembered; beyond, those told first are forgotten.
pub(crate) const MAX_RATINGS: usize = 4_096;

/// A node's rating.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldRating {
    /// The node.
    pub node: NodeId,
    /// Tier.
    pub tier: NodeTier,
    /// When the venue told it.
    pub at: Timestamp,
}

impl ToldRating {
    fn age_seconds(&self, now: Timestamp) -> u64 {
        now.0.saturating_sub(self.at.0) / 1000
    }
}

/// Notes what the venue said just now.
pub(crate) fn hear(moment: &mut Moment, told: impl IntoIterator<Item = ToldRating>) {
    moment.ratings.extend(told.into_iter().map(|told| (told.node, told)));
    for node in oldest(&moment.ratings, MAX_RATINGS) {
        moment.ratings.remove(&node);
    }
}

/// What is known of these nodes, with its true age: what was heard since the start, else what was stored.
pub(crate) fn known(
    book: &Book,
    moment: &Moment,
    nodes: &BTreeSet<NodeId>,
    now: Timestamp,
) -> BTreeMap<NodeId, NodeRating> {
    let told = |node: &NodeId| moment.ratings.get(node).or_else(|| book.ratings.get(node));
    let rating = |told: &ToldRating| NodeRating { tier: told.tier, age_seconds: told.age_seconds(now) };
    nodes.iter().filter_map(|node| Some((*node, rating(told(node)?)))).collect()
}

/// What is to be written so that a restart forgets nothing of worth: news in, and out what is a day old or too much.
pub(crate) fn to_store(book: &Book, moment: &Moment, now: Timestamp) -> Vec<Update> {
    let mut kept = book.ratings.clone();
    kept.extend(&moment.ratings);
    kept.retain(|_, told| told.age_seconds(now) < MAX_RATING_AGE_SECONDS);
    for node in oldest(&kept, MAX_RATINGS) {
        kept.remove(&node);
    }
    let forgotten = book.ratings.keys().filter(|node| !kept.contains_key(*node)).map(|node| Update::Unrate(*node));
    let news = kept.values().filter(|told| book.ratings.get(&told.node) != Some(*told)).map(|told| Update::Rate(*told));
    forgotten.chain(news).collect()
}

/// The nodes to forget so that no more than `most` are left: those told first.
fn oldest(ratings: &BTreeMap<NodeId, ToldRating>, most: usize) -> Vec<NodeId> {
    let mut by_age: Vec<_> = ratings.values().map(|told| (told.at, told.node)).collect();
    by_age.sort_unstable();
    by_age.truncate(ratings.len().saturating_sub(most));
    by_age.into_iter().map(|(_, node)| node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    const DAY_MS: u64 = 24 * 60 * 60 * 1000;

    fn told(number: u8, tier: NodeTier, at: u64) -> ToldRating {
        ToldRating { node: fixtures::node(number), tier, at: Timestamp(at) }
    }

    /// Stores what was heard, as the next commit does.
    fn stored(mut book: Book, moment: &Moment, now: u64) -> Book {
        to_store(&book, moment, Timestamp(now)).into_iter().for_each(|update| book.apply(update));
        book
    }

    #[test]
    fn ratings_have_their_true_age_and_a_newer_word_wins() {
        let (mut book, mut moment) = (Book::default(), Moment::default());
        let nodes = BTreeSet::from([fixtures::node(1), fixtures::node(2), fixtures::node(3)]);
        book.apply(Update::Rate(told(1, NodeTier::Tier1, 5_000)));
        book.apply(Update::Rate(told(2, NodeTier::Tier1, 5_000)));
        hear(&mut moment, [told(2, NodeTier::Tier0, 6_000)]);
        let expected = BTreeMap::from([
            (fixtures::node(1), NodeRating { tier: NodeTier::Tier1, age_seconds: 4 }),
            (fixtures::node(2), NodeRating { tier: NodeTier::Tier0, age_seconds: 3 }),
        ]);
        assert_eq!(known(&book, &moment, &nodes, Timestamp(9_999)), expected);
        // A clock that was set back makes nothing older.
        let young = known(&book, &moment, &nodes, Timestamp(0));
        assert!(young.values().all(|rating| rating.age_seconds == 0) && young.len() == 2, "{young:?}");
    }

    #[test]
    fn a_day_old_rating_is_not_known_and_not_kept() {
        let mut moment = Moment::default();
        hear(&mut moment, [told(1, NodeTier::Tier0, 1)]);
        let book = stored(Book::default(), &moment, 1);
        let nodes = BTreeSet::from([fixtures::node(1)]);
        for (now, expected) in [(DAY_MS, Some(NodeTier::Tier0)), (DAY_MS + 1, None)] {
            let found = known(&book, &Moment::default(), &nodes, Timestamp(now));
            assert_eq!(found[&fixtures::node(1)].known(), expected);
            assert_eq!(stored(book.clone(), &moment, now).ratings.len(), usize::from(expected.is_some()));
        }
    }

    #[test]
    fn only_news_is_written() {
        let mut moment = Moment::default();
        hear(&mut moment, [told(1, NodeTier::Tier0, 1)]);
        let book = stored(Book::default(), &moment, 1);
        assert!(to_store(&book, &moment, Timestamp(2)).is_empty());
        hear(&mut moment, [told(1, NodeTier::Tier1, 2)]);
        let book = stored(book, &moment, 2);
        assert_eq!(book.ratings, moment.ratings);
        assert!(to_store(&book, &Moment::default(), Timestamp(3)).is_empty(), "a restart forgets nothing");
    }

    #[test]
    fn the_ratings_told_first_are_forgotten_first() {
        let ratings = [told(1, NodeTier::Tier0, 7), told(2, NodeTier::Tier0, 5), told(3, NodeTier::Tier0, 6)];
        let ratings: BTreeMap<_, _> = ratings.into_iter().map(|told| (told.node, told)).collect();
        assert_eq!(oldest(&ratings, 3), []);
        assert_eq!(oldest(&ratings, 1), [fixtures::node(2), fixtures::node(3)]);
        assert_eq!(oldest(&ratings, 0).len(), 3);
    }
}
