//! A batch that may be accepted, until it is signed or refused.

use crate::book::{OrderEvent, OrderEventKind, Update};
use crate::staging::Basis;
use std::collections::BTreeSet;
use std::sync::Arc;
use tidegate_ports::Timestamp;
use tidegate_protocol::verify::{VerifiedBatch, VerifiedMatch};

/// A batch that passed every check, with what it was checked against.
#[derive(Clone, Debug)]
pub(crate) struct Verified {
    pub(crate) batch: Arc<VerifiedBatch>,
    pub(crate) basis: Basis,
    /// What happened to its matches so far, for the order log: written with the next commit.
    pub(crate) log: Vec<(Timestamp, OrderEventKind)>,
}

impl Verified {
    /// Adds to the order log of its matches.
    pub(crate) fn happened(&mut self, at: Timestamp, kind: OrderEventKind) {
        self.log.push((at, kind));
    }

    /// The entries of the order log.
    pub(crate) fn events(&self) -> Vec<Update> {
        let batch = self.batch.prepare().batch_id;
        let event = |(at, kind): &(Timestamp, OrderEventKind), matched: &VerifiedMatch| OrderEvent {
            at: *at,
            order: matched.ours,
            batch,
            theirs: matched.theirs,
            units: matched.units,
            kind: kind.clone(),
        };
        let unverified: BTreeSet<_> =
            self.batch.unverified_tiers().iter().map(|tier| (tier.order, tier.node)).collect();
        let mut entries = Vec::new();
        for entry in &self.log {
            for matched in self.batch.matches() {
                entries.push(event(entry, matched));
                if entry.1 == OrderEventKind::Prepared && unverified.contains(&(matched.ours, matched.node)) {
                    entries.push(event(&(entry.0, OrderEventKind::TierUnverified), matched));
                }
            }
        }
        entries.into_iter().map(|entry| Update::Event(Box::new(entry))).collect()
    }
}
