//! What became of proposals since the start, and how long judging them took: for whoever watches the trader.

use std::collections::BTreeMap;
use tidegate_protocol::batch::RejectReason;

/// Upper bounds of the times that are told apart, in milliseconds.
pub const VERIFICATION_BOUNDS_MS: [u64; 9] = [1, 2, 5, 10, 25, 50, 100, 250, 1_000];

/// How long something took, by the clock port: times below a millisecond count as 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// How often.
    pub count: u64,
    /// All together, in milliseconds.
    pub sum_ms: u64,
    /// How often it took at most the bound of the same place in [`VERIFICATION_BOUNDS_MS`].
    pub at_most: [u64; VERIFICATION_BOUNDS_MS.len()],
}

impl Times {
    pub(crate) fn add(&mut self, took_ms: u64) {
        self.count = self.count.saturating_add(1);
        self.sum_ms = self.sum_ms.saturating_add(took_ms);
        for (bound, count) in VERIFICATION_BOUNDS_MS.iter().zip(&mut self.at_most) {
            *count = count.saturating_add(u64::from(took_ms <= *bound));
        }
    }
}

/// Counts since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchTally {
    /// Proposals that arrived.
    pub proposed: u64,
    /// Proposals that were accepted.
    pub accepted: u64,
    /// Batches whose signatures left, or were about to when the stream broke.
    pub signed: u64,
    /// Refusals by their class: one of [`BatchTally::CLASSES`].
    pub refused: BTreeMap<&'static str, u64>,
    /// How long proposals took to be verified, whatever came of it.
    pub verification: Times,
}

impl BatchTally {
    /// The classes of refusals: a failure of our own or a claim that cannot be judged, a contradiction of the venue,
    /// another version, and some matches only.
    pub const CLASSES: [&'static str; 4] = ["failure", "misbehavior", "version", "matches"];

    pub(crate) fn refuse(&mut self, reason: &RejectReason) {
        let class = match reason {
            RejectReason::Unknown => "failure",
            RejectReason::ServerMisbehavior => "misbehavior",
            RejectReason::BatchVersionMismatch => "version",
            RejectReason::Partial(_) => "matches",
        };
        let count = self.refused.entry(class).or_default();
        *count = count.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_up_to_each_bound() {
        let mut times = Times::default();
        [0, 1, 3, 5_000].into_iter().for_each(|took| times.add(took));
        let expected = Times { count: 4, sum_ms: 5_004, at_most: [2, 2, 3, 3, 3, 3, 3, 3, 3] };
        assert_eq!(times, expected);
    }

    #[test]
    fn every_refusal_has_a_class_that_is_told() {
        let mut tally = BatchTally::default();
        let reasons = [
            RejectReason::Unknown,
            RejectReason::ServerMisbehavior,
            RejectReason::BatchVersionMismatch,
            RejectReason::Partial(BTreeMap::new()),
            RejectReason::Unknown,
        ];
        reasons.iter().for_each(|reason| tally.refuse(reason));
        let counts = BatchTally::CLASSES.map(|class| tally.refused.get(class).copied());
        assert_eq!(counts, [Some(2), Some(1), Some(1), Some(1)]);
    }
}
