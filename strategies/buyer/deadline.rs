//! The bid of a buyer with a deadline: backward induction over the windows that are left.
//!
//! # Source
//! Strategy notes §4.2.

use tidegate_protocol::units::RatePerBillion;

/// A bid and what it is worth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeadlineBid {
    /// The bid.
    pub rate: RatePerBillion,
    /// Expected gain `V`, in ppb.
    pub value: f64,
}

/// The best bid with `windows_left` windows (at least 1) to go, when `table` gives the probability that a bid fills in a
/// window, and missing the deadline costs `penalty`. A filled bid pays its own rate, which is the worst case. Rates above
/// `willingness` are not considered; ties go to the lower rate. Nothing for an empty table.
pub fn deadline_bid(
    willingness: RatePerBillion,
    table: &[(RatePerBillion, f64)],
    penalty: RatePerBillion,
    windows_left: u32,
) -> Option<DeadlineBid> {
    let worth = f64::from(willingness.get());
    let mut later = -f64::from(penalty.get());
    let mut best = None;
    for _ in 0..windows_left.max(1) {
        let mut now: Option<DeadlineBid> = None;
        for (rate, p) in table.iter().filter(|(rate, _)| *rate <= willingness) {
            let value = p * (worth - f64::from(rate.get())) + (1.0 - p) * later;
            if now.is_none_or(|yet| value > yet.value) {
                now = Some(DeadlineBid { rate: *rate, value });
            }
        }
        let bid = now?;
        // Skipping a window is allowed and worth what comes after it; the bid then stands at its best rate anyway.
        later = bid.value.max(later);
        best = Some(bid);
    }
    best
}
