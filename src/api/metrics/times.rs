//! A histogram that somebody else keeps, shown as Prometheus wants it.

use prometheus::Opts;
use prometheus::core::{Collector, Desc, Describer as _};
use prometheus::proto::{Bucket, Histogram, Metric, MetricFamily, MetricType};
use std::sync::{Arc, Mutex, PoisonError};
use tidegate_trader::{Times, VERIFICATION_BOUNDS_MS};

/// Shows [`Times`] as a histogram in seconds. Clones are the same one.
#[derive(Clone, Debug)]
pub struct TimesCollector {
    description: Desc,
    latest: Arc<Mutex<Times>>,
}

impl TimesCollector {
    /// A histogram without observations.
    ///
    /// # Errors
    /// When the name is not valid.
    pub fn new(name: &str, help: &str) -> Result<TimesCollector, prometheus::Error> {
        Ok(TimesCollector { description: Opts::new(name, help).describe()?, latest: Arc::default() })
    }

    /// What it shows from now on.
    pub fn set(&self, times: Times) {
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = times;
    }
}

impl Collector for TimesCollector {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.description]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let times = *self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let buckets = VERIFICATION_BOUNDS_MS.iter().zip(times.at_most).map(|(bound_ms, count)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(seconds(*bound_ms));
            bucket.set_cumulative_count(count);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(times.count);
        histogram.set_sample_sum(seconds(times.sum_ms));
        let mut metric = Metric::default();
        metric.set_histogram(histogram);
        let mut family = MetricFamily::default();
        family.set_name(self.description.fq_name.clone());
        family.set_help(self.description.help.clone());
        family.set_field_type(MetricType::HISTOGRAM);
        family.set_metric(vec![metric]);
        vec![family]
    }
}

/// Milliseconds as seconds; beyond 49 days of them the largest that is exact.
fn seconds(ms: u64) -> f64 {
    f64::from(u32::try_from(ms).unwrap_or(u32::MAX)) / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::super::render;
    use super::*;

    #[test]
    fn times_are_shown_as_a_histogram_in_seconds() {
        let registry = prometheus::Registry::new();
        let collector = TimesCollector::new("verification_seconds", "Time").expect("a name");
        registry.register(Box::new(collector.clone())).expect("new");
        collector.set(Times { count: 4, sum_ms: 2_500, at_most: [1, 2, 2, 3, 3, 3, 3, 3, 4] });
        let text = render(&registry).expect("text");
        for line in [
            "# TYPE verification_seconds histogram",
            "verification_seconds_bucket{le=\"0.001\"} 1",
            "verification_seconds_bucket{le=\"1\"} 4",
            "verification_seconds_bucket{le=\"+Inf\"} 4",
            "verification_seconds_sum 2.5",
            "verification_seconds_count 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in {text}");
        }
    }
}
