//! What the brain tells whoever watches the agent.

use super::Brain;
use crate::daemon::report::Figures;
use tidegate_engine::strategy::Strategy;
use tidegate_ports::{Store, Timestamp};

impl<S: Strategy, J: Store> Brain<S, J> {
    /// Its figures as of the last look.
    pub(crate) fn figures(&self) -> Figures {
        let (view, limits, ledger) = (self.observer.view(), self.gate.limits(), self.books.ledger());
        Figures {
            clearing_rates: self.clearing_rates(),
            last_batch_s: view.clearings.iter().map(|clearing| clearing.event_at).max().map(Timestamp::seconds),
            refusals: self.refusals.clone(),
            daily_cost: self.gate.daily_cost(view),
            daily_cost_limit: limits.max_daily_cost_sats,
            dry_run: limits.dry_run,
            stopped: self.is_stopped(),
            halted: self.halted,
            journal_commits: self.sequence.0,
            node_seen_s: view.node().map(|_| view.at.seconds()),
            venue_seen_s: view.terms().map(|terms| terms.seen_at.seconds()),
            // Beyond all range is told by the difference.
            ledger: ledger.totals().unwrap_or_default(),
            ledger_difference: self.books.difference_sats(),
            ledger_entries: ledger.entries().len(),
        }
    }
}
