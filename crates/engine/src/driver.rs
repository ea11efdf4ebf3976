//! One step of any driver, live or replayed: cut the view, decide, pass the gate, write the entry.

use crate::gate::{Approved, RiskGate};
use crate::journal::{Inputs, JournalEntry, Judged, Verdict};
use crate::strategy::{Intent, Now, Strategy};
use crate::view::MarketView;

/// Where a step stands in its journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the journal entry that the step writes.
    pub journal_sequence: u64,
    /// Number of the store's last commit that the view was built from.
    pub store_sequence: u64,
}

/// What a step gives.
#[derive(Debug, PartialEq)]
pub struct Step {
    /// What may be carried out, in order.
    pub approved: Vec<Approved<Intent>>,
    /// What is to be journaled, also when nothing is approved.
    pub entry: JournalEntry,
}

/// Decides once. Data seen after `now` is cut off before the strategy sees it.
pub fn step<S: Strategy>(
    strategy: &S,
    state: &mut S::State,
    gate: &RiskGate,
    view: &MarketView,
    now: Now,
    place: Place,
) -> Step {
    let view = view.as_of(now.time);
    let decision = strategy.decide(&view, state, now);
    let answers = gate.approve_all(decision.intents.clone(), &view);
    let mut approved = Vec::new();
    let mut intents = Vec::new();
    for (intent, answer) in decision.intents.into_iter().zip(answers) {
        let verdict = match answer {
            Ok(pass) => {
                approved.push(pass);
                Verdict::Approved
            }
            Err(refusal) => Verdict::Refused(refusal),
        };
        intents.push(Judged { intent, verdict });
    }
    let entry = JournalEntry {
        sequence: place.journal_sequence,
        now,
        strategy: strategy.name().to_owned(),
        inputs: Inputs::of(&view, place.store_sequence),
        reasons: decision.reasons,
        intents,
        // A state that JSON can not hold (a map with odd keys) would be a defect of the strategy; it shows as null.
        state: serde_json::to_value(&*state).unwrap_or_default(),
    };
    Step { approved, entry }
}
