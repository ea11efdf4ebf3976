//! What goes wrong on request, and when: a plan over blocks, the same at every start.

use std::fmt;

/// Which faults a run shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// The agent's node dies for a while, again and again.
    pub kill_node: bool,
    /// The venue lies to the agent, each time differently.
    pub hostile_venue: bool,
    /// Chain fees rise twentyfold for a while.
    pub fee_spike: bool,
}

/// Clearings in one turn of the plan.
const TURN: u32 = 4;
/// How much dearer the chain is during a spike.
pub(super) const SPIKE: u64 = 20;

impl Faults {
    /// Whether the agent's node is down, `blocks` after the opening, with a clearing every `every` blocks: from shortly
    /// before the second clearing of each turn until shortly after it.
    pub(super) fn node_is_down(self, blocks: u32, every: u32) -> bool {
        self.kill_node && within(blocks, every, 2, 2)
    }

    /// Whether the chain is dear: around the third clearing of each turn.
    pub(super) fn fees_are_high(self, blocks: u32, every: u32) -> bool {
        self.fee_spike && within(blocks, every, 3, every / 2)
    }
}

/// Whether `blocks` lies around clearing number `clearing` of its turn: `before` blocks before it, half an interval after.
fn within(blocks: u32, every: u32, clearing: u32, before: u32) -> bool {
    let phase = blocks % every.saturating_mul(TURN).max(1);
    let at = every.saturating_mul(clearing);
    phase >= at.saturating_sub(before) && phase < at.saturating_add(every / 2)
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wanted =
            [(self.kill_node, "kill node"), (self.hostile_venue, "hostile venue"), (self.fee_spike, "fee spike")];
        let names: Vec<&str> = wanted.into_iter().filter(|(wanted, _)| *wanted).map(|(_, name)| name).collect();
        f.write_str(if names.is_empty() { "none" } else { "" })?;
        f.write_str(&names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_come_again_and_leave_clearings_between_them() {
        let all = Faults { kill_node: true, hostile_venue: true, fee_spike: true };
        for every in [6, 7, 200] {
            let clearings: Vec<(bool, bool)> = (1..=8)
                .map(|number| (all.node_is_down(number * every, every), all.fees_are_high(number * every, every)))
                .collect();
            let turn = [(false, false), (true, false), (false, true), (false, false)];
            assert_eq!(clearings, [turn, turn].concat(), "every {every}");
            assert!(!all.node_is_down(0, every) && !all.fees_are_high(0, every));
        }
        assert!(!Faults::default().node_is_down(12, 6));
        assert_eq!(
            (all.to_string().as_str(), Faults::default().to_string().as_str()),
            ("kill node, hostile venue, fee spike", "none")
        );
    }
}
