//! What follows from a trader's refusal: orders leave the round, or two nodes are kept apart.

use std::collections::{BTreeMap, BTreeSet};
use tidegate_market::{Conflicts, Pair};
use tidegate_ports::Timestamp;
use tidegate_protocol::batch::{MatchRejectCode, RejectReason};
use tidegate_protocol::keys::{AccountKey, NodeId, OrderNonce};

/// Nodes that are kept apart for a while, in memory only.
#[derive(Debug, Default)]
pub(crate) struct ConflictList(BTreeMap<(NodeId, NodeId), Timestamp>);

impl ConflictList {
    /// Keeps the nodes apart until `until` at least.
    pub(crate) fn insert(&mut self, reporter: NodeId, subject: NodeId, until: Timestamp) {
        let entry = self.0.entry((reporter, subject)).or_default();
        *entry = (*entry).max(until);
    }

    /// Those in force; the others are forgotten.
    pub(crate) fn in_force(&mut self, now: Timestamp) -> Conflicts {
        self.0.retain(|_, until| *until > now);
        self.0.keys().copied().collect()
    }
}

/// Consequences of a failed attempt. Never empty for a failure, so that attempts come to an end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Consequences {
    /// Orders that leave the round.
    pub(crate) remove: BTreeSet<OrderNonce>,
    /// Nodes that are kept apart: reporter, subject, why.
    pub(crate) conflicts: Vec<(NodeId, NodeId, MatchRejectCode)>,
}

impl Consequences {
    pub(crate) fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.conflicts.is_empty()
    }

    pub(crate) fn extend(&mut self, other: Consequences) {
        self.remove.extend(other.remove);
        self.conflicts.extend(other.conflicts);
    }
}

/// The orders of these accounts in the batch leave the round.
pub(crate) fn remove_all<'a>(pairs: impl Iterator<Item = &'a Pair>, accounts: &BTreeSet<AccountKey>) -> Consequences {
    let sides = pairs.flat_map(|pair| [&pair.ask, &pair.bid]);
    let remove = sides.filter(|side| accounts.contains(&side.order.account)).map(|side| side.order.nonce).collect();
    Consequences { remove, conflicts: Vec::new() }
}

/// What a reject means. A partial one names orders of the *other* side; a pair is looked up by the reporter's account and that nonce,
/// so that an order with several counterparts is found for each of them.
///
/// # Source
/// Protocol notes, auctioneer §14.
pub(crate) fn of_reject<'a>(
    pairs: impl Iterator<Item = &'a Pair> + Clone,
    reporter: &BTreeSet<AccountKey>,
    reason: &RejectReason,
) -> Consequences {
    let RejectReason::Partial(refused) = reason else { return remove_all(pairs, reporter) };
    let in_batch: BTreeSet<OrderNonce> = pairs.clone().flat_map(|pair| [pair.ask.order.nonce, pair.bid.order.nonce]).collect();
    if refused.keys().any(|nonce| !in_batch.contains(nonce)) {
        return remove_all(pairs, reporter);
    }
    let mut conflicts = Vec::new();
    for pair in pairs.clone() {
        for (own, other) in [(&pair.ask, &pair.bid), (&pair.bid, &pair.ask)] {
            if let (true, Some((code, _))) = (reporter.contains(&own.order.account), refused.get(&other.order.nonce)) {
                conflicts.push((own.node, other.node, *code));
            }
        }
    }
    if conflicts.is_empty() { remove_all(pairs, reporter) } else { Consequences { remove: BTreeSet::new(), conflicts } }
}
