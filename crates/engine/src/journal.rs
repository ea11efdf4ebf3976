//! What is written down about each decision: enough to explain it, and to find its inputs again.

use crate::gate::RiskRefusal;
use crate::strategy::{Intent, Now, Reason};
use crate::view::MarketView;
use serde::{Deserialize, Serialize};
use tidegate_ports::Timestamp;
use tidegate_protocol::keys::BatchId;
use tidegate_protocol::units::BlockHeight;

/// Which data a decision saw: newest of each kind, by the time it became known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inputs {
    /// Number of the store's last commit that the view was built from.
    pub store_sequence: u64,
    /// Clearings in the view.
    pub clearings: u64,
    /// The newest batch.
    pub newest_batch: Option<BatchId>,
    /// When the newest clearing became known.
    pub clearing_seen_at: Option<Timestamp>,
    /// When the terms became known.
    pub terms_seen_at: Option<Timestamp>,
    /// When the open interest became known.
    pub interest_seen_at: Option<Timestamp>,
    /// Ratings in the view.
    pub ratings: u64,
    /// Best height.
    pub height: Option<BlockHeight>,
}

impl Inputs {
    /// The inputs that `view` holds, built from commit `store_sequence`.
    pub fn of(view: &MarketView, store_sequence: u64) -> Inputs {
        let newest = view.clearings.iter().max_by_key(|clearing| (clearing.event_at, clearing.seen_at));
        let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        Inputs {
            store_sequence,
            clearings: count(view.clearings.len()),
            newest_batch: newest.map(|clearing| clearing.batch_id),
            clearing_seen_at: view.clearings.iter().map(|clearing| clearing.seen_at).max(),
            terms_seen_at: view.terms().map(|terms| terms.seen_at),
            interest_seen_at: view.interest.iter().map(|interest| interest.seen_at).max(),
            ratings: count(view.ratings.len()),
            height: view.height(),
        }
    }
}

/// What the gate made of an intent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It passed.
    Approved,
    /// It did not.
    Refused(RiskRefusal),
}

/// An intent with what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// The wish.
    pub intent: Intent,
    /// The gate's answer.
    pub verdict: Verdict,
}

/// One decision, also one to do nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// Number of the entry in its journal.
    pub sequence: u64,
    /// When it was decided.
    pub now: Now,
    /// Name of the strategy.
    pub strategy: String,
    /// What it saw.
    pub inputs: Inputs,
    /// Its reasons, in the order of thought.
    pub reasons: Vec<Reason>,
    /// Its wishes, and what the gate said.
    pub intents: Vec<Judged>,
    /// The strategy's state after the decision.
    pub state: serde_json::Value,
}
