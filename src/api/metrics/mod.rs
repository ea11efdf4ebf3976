//! Prometheus metrics: base units, `_total` on counters, ratios 0 to 1, no order nonce as label.
//!
//! Every label has a fixed list of values, but for accounts that hold coins and lease durations, of which there are few.
//! Series of fixed lists are there from the start with 0, so that a rate is known from the first change on.

mod agent;
mod times;
mod venue;

pub use agent::{AgentMetrics, BatchMetrics, LedgerMetrics, LinkMetrics, RiskMetrics};
pub use times::TimesCollector;
pub use venue::VenueMetrics;

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Encoder, Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

type Made<T> = Result<T, prometheus::Error>;

const CLOCK_JUMPS: &str = "Times that the system's clock was found set by more than 5 seconds since the start";

/// Makes metrics and registers them.
struct Maker(Registry);

impl Maker {
    /// A maker whose registry tells memory, processor time, open files and start of this process.
    fn new() -> Made<Maker> {
        let registry = Registry::new();
        registry.register(Box::new(ProcessCollector::for_self()))?;
        Ok(Maker(registry))
    }

    fn register<T: Collector + Clone + 'static>(&self, made: Made<T>) -> Made<T> {
        let metric = made?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn int_gauge(&self, name: &str, help: &str) -> Made<IntGauge> {
        self.register(IntGauge::new(name, help))
    }

    fn gauge(&self, name: &str, help: &str) -> Made<Gauge> {
        self.register(Gauge::new(name, help))
    }

    fn counter(&self, name: &str, help: &str) -> Made<IntCounter> {
        self.register(IntCounter::new(name, help))
    }

    fn int_gauges(&self, name: &str, help: &str, labels: &[&str]) -> Made<IntGaugeVec> {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Made<GaugeVec> {
        self.register(GaugeVec::new(Opts::new(name, help), labels))
    }

    /// Gauges with one label of these values, from the start with 0.
    fn int_gauges_of(&self, name: &str, help: &str, label: &str, values: &[&str]) -> Made<IntGaugeVec> {
        let gauges = self.int_gauges(name, help, &[label])?;
        for value in values {
            gauges.with_label_values(&[*value]).set(0);
        }
        Ok(gauges)
    }

    /// Counters with one label of these values, from the start with 0.
    fn counters_of(&self, name: &str, help: &str, label: &str, values: &[&str]) -> Made<IntCounterVec> {
        let counters = self.register(IntCounterVec::new(Opts::new(name, help), &[label]))?;
        for value in values {
            counters.with_label_values(&[*value]).reset();
        }
        Ok(counters)
    }
}

/// Raises a counter to the total of something that only grows; a smaller total leaves it alone, for counters only rise.
pub fn raise_to(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

/// The registry as Prometheus text.
///
/// # Errors
/// When a metric cannot be encoded, as a sentence.
pub fn render(registry: &Registry) -> Result<String, String> {
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text).map_err(|error| error.to_string())?;
    String::from_utf8(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_that_shrinks_does_not_lower_its_counter() {
        let counter = IntCounter::new("x_total", "x").expect("a name");
        for (total, expected) in [(5, 5), (3, 5), (9, 9)] {
            raise_to(&counter, total);
            assert_eq!(counter.get(), expected);
        }
    }
}
