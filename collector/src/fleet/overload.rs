//! When a host is asked to come back later, and when that is. Pure.
//!
//! A fleet that comes back in step would only meet the same trouble again, so
//! every wish names a span over which hosts spread by chance.

use procwarden_proto::v1;

/// Reconnects per second that two cores take beside their other work.
const RECONNECTS_PER_SEC: u64 = 4_000;

/// A restart takes about this long.
const RESTART_MS: u64 = 500;
const SPREAD_MS_MAX: u64 = 60_000;

/// With no place left, someone has to leave first.
const FULL_AFTER_MS: u64 = 10_000;
const FULL_SPREAD_MS: u64 = 20_000;

/// Streams that are being set up: those who come later are served sooner when
/// they wait a moment.
const BUSY_AFTER_MS: u64 = 1_000;

/// For every host when the collector stops.
pub(crate) fn stopping(hosts: usize) -> v1::RetryAfter {
    v1::RetryAfter {
        after_ms: RESTART_MS,
        spread_ms: spread(hosts),
    }
}

/// For a host that found no place among the streams.
pub(crate) fn full() -> v1::RetryAfter {
    v1::RetryAfter {
        after_ms: FULL_AFTER_MS,
        spread_ms: FULL_SPREAD_MS,
    }
}

/// For a host that came while too many others are being greeted.
pub(crate) fn busy(greeting: usize) -> v1::RetryAfter {
    v1::RetryAfter {
        after_ms: BUSY_AFTER_MS,
        spread_ms: spread(greeting),
    }
}

fn spread(hosts: usize) -> u64 {
    let hosts = u64::try_from(hosts).unwrap_or(u64::MAX);
    (hosts.saturating_mul(1000) / RECONNECTS_PER_SEC).min(SPREAD_MS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_the_fleet_the_wider_it_spreads_up_to_a_minute() {
        let spread = |hosts| stopping(hosts).spread_ms;
        assert_eq!(spread(1), 0);
        assert_eq!(spread(10_000), 2_500);
        assert_eq!(spread(usize::MAX), SPREAD_MS_MAX);
    }
}
