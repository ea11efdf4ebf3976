//! What a venue reports.

use super::{CLOCK_JUMPS, Made, Maker};
use prometheus::{IntCounter, IntGauge, IntGaugeVec, Registry};

/// What a venue reports.
#[derive(Clone, Debug)]
pub struct VenueMetrics {
    /// All of the below, and the process.
    pub registry: Registry,
    /// Connected traders.
    pub traders: IntGauge,
    /// Accounts by state.
    pub accounts: IntGaugeVec,
    /// Open orders by side.
    pub orders: IntGaugeVec,
    /// Batches made final.
    pub batches_total: IntCounter,
    /// How often the system's clock was found set by more than 5 seconds, either way, since the start.
    pub clock_jumps_total: IntCounter,
}

impl VenueMetrics {
    /// Fresh metrics in a registry of their own.
    ///
    /// # Errors
    /// When a name is not valid or used twice: a defect.
    pub fn new() -> Made<VenueMetrics> {
        let m = Maker::new()?;
        Ok(VenueMetrics {
            traders: m.int_gauge("tidegate_venue_traders", "Traders with an open stream")?,
            accounts: m.int_gauges("tidegate_venue_accounts", "Accounts by state", &["state"])?,
            orders: m.int_gauges_of("tidegate_venue_orders", "Open orders by side", "side", &["ask", "bid"])?,
            batches_total: m.counter("tidegate_venue_batches_total", "Batches made final")?,
            clock_jumps_total: m.counter("tidegate_venue_clock_jumps_total", CLOCK_JUMPS)?,
            registry: m.0,
        })
    }
}
