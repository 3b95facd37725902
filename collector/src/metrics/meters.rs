//! What is counted while it happens. Cheap to clone; nothing here waits.

use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;

/// Upper bounds in seconds: from a fast disk's fdatasync to what an agent
/// should never wait for.
const LATENCY_BUCKETS: [f64; 15] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    10.0,
];

/// A histogram for times in seconds.
pub(crate) fn latency_seconds() -> Histogram {
    Histogram::new(LATENCY_BUCKETS)
}

/// Counters of the sessions.
#[derive(Debug, Clone)]
pub(crate) struct Meters {
    pub(super) events: Counter,
    pub(super) batches: Histogram,
    pub(super) waits: Histogram,
}

impl Meters {
    pub(crate) fn new() -> Self {
        Self {
            events: Counter::default(),
            batches: latency_seconds(),
            waits: latency_seconds(),
        }
    }

    /// Events of agents are on their way to the journal.
    pub(crate) fn received(&self, events: usize) {
        self.events.inc_by(events as u64);
    }

    /// A batch waited for its turn, because others or its own host send much.
    pub(crate) fn held_back(&self, waited: Duration) {
        self.waits.observe(waited.as_secs_f64());
    }

    /// A batch that was read at `received_at` has been acknowledged.
    pub(crate) fn acked(&self, received_at: Instant) {
        self.batches.observe(received_at.elapsed().as_secs_f64());
    }
}
