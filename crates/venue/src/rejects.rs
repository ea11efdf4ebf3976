//! What follows from a trader's refusal: orders leave the round, or two nodes are kept apart.

use std::collections::{BTreeMap, BTreeSet};
use tidegate_market::{Conflicts, Pair};
use tidegate_ports::Timestamp;
use tidegate_protocol::batch::{MatchRejectCode, RejectReason};
use tidegate_protocol::keys::{AccountKey, OrderNonce};

/// Accounts that are kept apart for a while, in memory only: reporter and subject.
///
/// A channel fails most often because a node or a client was started again. So the first failed channel of a pair counts
/// only until one of the two comes back on a new stream; the second one within that time counts in full, so that nobody
/// is matched with a hopeless partner again and again.
///
/// # Source
/// Protocol notes, auctioneer §14; how long is the venue's choice.
#[derive(Debug, Default)]
pub(crate) struct ConflictList(BTreeMap<(AccountKey, AccountKey), Conflict>);

/// Why and how long two accounts are kept apart.
#[derive(Clone, Copy, Debug)]
struct Conflict {
    code: MatchRejectCode,
    until: Timestamp,
    /// It does not count any more, but is remembered.
    lifted: bool,
    /// It was lifted before.
    repeated: bool,
}

impl ConflictList {
    /// Keeps the accounts apart until `until` at least.
    pub(crate) fn insert(
        &mut self,
        (reporter, subject): (AccountKey, AccountKey),
        code: MatchRejectCode,
        until: Timestamp,
    ) {
        let new = Conflict { code, until, lifted: false, repeated: false };
        let known = self.0.entry((reporter, subject)).or_insert(new);
        let until = known.until.max(until);
        *known = Conflict { code, until, lifted: false, repeated: known.repeated || known.lifted };
    }

    /// An account came back on a new stream: what hindered its channels may be over.
    pub(crate) fn lift(&mut self, account: AccountKey) {
        for ((reporter, subject), conflict) in &mut self.0 {
            let concerned = *reporter == account || *subject == account;
            if concerned && conflict.code == MatchRejectCode::ChannelFundingFailed && !conflict.repeated {
                conflict.lifted = true;
            }
        }
    }

    /// Those in force; those whose time is over are forgotten.
    pub(crate) fn in_force(&mut self, now: Timestamp) -> Conflicts {
        self.0.retain(|_, conflict| conflict.until > now);
        self.0.iter().filter(|(_, conflict)| !conflict.lifted).map(|(pair, _)| *pair).collect()
    }
}

/// Consequences of a failed attempt. Never empty for a failure, so that attempts come to an end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Consequences {
    /// Orders that leave the round.
    pub(crate) remove: BTreeSet<OrderNonce>,
    /// Accounts that are kept apart: reporter, subject, why. Not their nodes: an order may name any node.
    pub(crate) conflicts: Vec<(AccountKey, AccountKey, MatchRejectCode)>,
    /// Accounts whose reports of one channel contradict each other.
    pub(crate) liars: BTreeSet<AccountKey>,
}

impl Consequences {
    pub(crate) fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.conflicts.is_empty() && self.liars.is_empty()
    }

    /// A channel with somebody who leaves the round anyway failed for that reason: nobody is kept apart for it.
    pub(crate) fn forget_channels_with(&mut self, out: &BTreeSet<AccountKey>) {
        self.conflicts
            .retain(|(_, subject, code)| *code != MatchRejectCode::ChannelFundingFailed || !out.contains(subject));
    }

    pub(crate) fn extend(&mut self, other: Consequences) {
        self.remove.extend(other.remove);
        self.conflicts.extend(other.conflicts);
        self.liars.extend(other.liars);
    }
}

/// The orders of these accounts in the batch leave the round.
pub(crate) fn remove_all<'a>(pairs: impl Iterator<Item = &'a Pair>, accounts: &BTreeSet<AccountKey>) -> Consequences {
    let sides = pairs.flat_map(|pair| [&pair.ask, &pair.bid]);
    let remove = sides.filter(|side| accounts.contains(&side.order.account)).map(|side| side.order.nonce).collect();
    Consequences { remove, ..Consequences::default() }
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
    let in_batch: BTreeSet<OrderNonce> =
        pairs.clone().flat_map(|pair| [pair.ask.order.nonce, pair.bid.order.nonce]).collect();
    if refused.keys().any(|nonce| !in_batch.contains(nonce)) {
        return remove_all(pairs, reporter);
    }
    let mut conflicts = Vec::new();
    for pair in pairs.clone() {
        for (own, other) in [(&pair.ask, &pair.bid), (&pair.bid, &pair.ask)] {
            if let (true, Some((code, _))) = (reporter.contains(&own.order.account), refused.get(&other.order.nonce)) {
                conflicts.push((own.order.account, other.order.account, *code));
            }
        }
    }
    if conflicts.is_empty() {
        remove_all(pairs, reporter)
    } else {
        Consequences { conflicts, ..Consequences::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::orders;
    use tidegate_protocol::units::UnitCount;

    /// One ask that faces two bids, and a pair of strangers.
    fn batch() -> Vec<Pair> {
        let pair = |ask, bid| Pair {
            ask: orders::submitted(ask, true),
            bid: orders::submitted(bid, false),
            units: UnitCount::new(1),
        };
        vec![pair(1, 2), pair(1, 3), pair(4, 5)]
    }

    fn accounts(numbers: &[u8]) -> BTreeSet<AccountKey> {
        numbers.iter().map(|number| orders::submitted(*number, true).order.account).collect()
    }

    fn nonce(number: u8) -> OrderNonce {
        orders::submitted(number, true).order.nonce
    }

    fn account(number: u8) -> AccountKey {
        orders::submitted(number, true).order.account
    }

    fn partial(numbers: &[u8]) -> RejectReason {
        let refused =
            numbers.iter().map(|number| (nonce(*number), (MatchRejectCode::ChannelFundingFailed, String::new())));
        RejectReason::Partial(refused.collect())
    }

    #[test]
    fn a_partial_reject_keeps_exactly_the_named_accounts_apart() {
        let apart = |reporter, subject| (account(reporter), account(subject), MatchRejectCode::ChannelFundingFailed);
        // Reporter's account, refused nonces, accounts kept apart, orders removed.
        let rows: [(&str, u8, RejectReason, Vec<_>, Vec<u8>); 9] = [
            ("first counterpart", 1, partial(&[2]), vec![apart(1, 2)], vec![]),
            ("second counterpart", 1, partial(&[3]), vec![apart(1, 3)], vec![]),
            ("both counterparts", 1, partial(&[2, 3]), vec![apart(1, 2), apart(1, 3)], vec![]),
            ("by the taker", 3, partial(&[1]), vec![apart(3, 1)], vec![]),
            ("one facing, one a stranger's", 1, partial(&[2, 5]), vec![apart(1, 2)], vec![]),
            ("only a stranger's", 1, partial(&[5]), vec![], vec![1]),
            ("not in the batch", 1, partial(&[2, 77]), vec![], vec![1]),
            ("nothing named", 1, partial(&[]), vec![], vec![1]),
            ("own order", 2, partial(&[2]), vec![], vec![2]),
        ];
        for (name, reporter, reason, conflicts, removed) in rows {
            let remove = removed.into_iter().map(nonce).collect();
            let found = of_reject(batch().iter(), &accounts(&[reporter]), &reason);
            assert_eq!(found, Consequences { remove, conflicts, liars: BTreeSet::new() }, "{name}");
        }
    }

    #[test]
    fn every_full_reject_removes_the_reporters_orders_only() {
        for reason in [RejectReason::Unknown, RejectReason::ServerMisbehavior, RejectReason::BatchVersionMismatch] {
            let found = of_reject(batch().iter(), &accounts(&[1, 5]), &reason);
            assert_eq!(found, Consequences { remove: [nonce(1), nonce(5)].into(), ..Consequences::default() });
        }
    }

    #[test]
    fn conflicts_end_with_their_time() {
        let mut list = ConflictList::default();
        let code = MatchRejectCode::ChannelFundingFailed;
        list.insert((account(1), account(2)), code, Timestamp(100));
        list.insert((account(1), account(2)), code, Timestamp(50));
        assert!(list.in_force(Timestamp(99)).contains(account(2), account(1)));
        assert!(!list.in_force(Timestamp(100)).contains(account(1), account(2)));
    }

    #[test]
    fn a_first_failed_channel_counts_until_one_of_the_two_comes_back() {
        let apart = |list: &mut ConflictList| list.in_force(Timestamp(1)).contains(account(1), account(2));
        let pair = (account(1), account(2));
        for back in [account(1), account(2)] {
            let mut list = ConflictList::default();
            list.insert(pair, MatchRejectCode::ChannelFundingFailed, Timestamp(100));
            list.lift(account(3));
            assert!(apart(&mut list), "a stranger's stream says nothing");
            list.lift(back);
            assert!(!apart(&mut list));
            list.insert(pair, MatchRejectCode::ChannelFundingFailed, Timestamp(100));
            list.lift(back);
            assert!(apart(&mut list), "the second time it counts in full");
            assert!(!list.in_force(Timestamp(100)).contains(account(1), account(2)), "and ends all the same");
        }
        let mut list = ConflictList::default();
        list.insert(pair, MatchRejectCode::DuplicatePeer, Timestamp(100));
        list.lift(account(1));
        assert!(apart(&mut list), "a wish for new peers does not end with a stream");
    }
}
