//! Percentiles of what took how long.

use std::time::Duration;

use serde_json::{Value, json};

use crate::usage::rounded;

/// Milliseconds at the usual percentiles; null without a measurement.
pub(super) fn percentiles(mut latencies: Vec<Duration>) -> Value {
    latencies.sort_unstable();
    let at = |share: f64| {
        let last = latencies.len().saturating_sub(1);
        let place = (latencies.len() as f64 * share) as usize;
        let latency = latencies.get(place.min(last));
        latency.map(|latency| rounded(latency.as_secs_f64() * 1000.0))
    };
    json!({ "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": at(1.0), "samples": latencies.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_sorted_values() {
        let values = (1..=200).rev().map(Duration::from_millis).collect();
        let found = percentiles(values);
        assert_eq!(found["p50"], 101.0);
        assert_eq!(found["p99"], 199.0);
        assert_eq!(found["max"], 200.0);
        assert_eq!(percentiles(Vec::new())["p99"], Value::Null);
    }
}
