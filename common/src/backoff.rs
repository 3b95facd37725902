//! Waiting between attempts: doubling, bounded, with jitter given as a value.
//!
//! Pure: the caller brings the randomness and does the waiting.

use std::time::Duration;

/// How long to wait before each next attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    /// The longest wait before the second attempt, in milliseconds.
    pub min_ms: u64,
    /// The longest wait before any attempt, in milliseconds.
    pub max_ms: u64,
    /// Attempts that failed since the last success.
    pub attempt: u32,
}

impl Backoff {
    /// A backoff before its first failure.
    #[must_use]
    pub const fn new(min_ms: u64, max_ms: u64) -> Self {
        Self {
            min_ms,
            max_ms,
            attempt: 0,
        }
    }

    /// The wait after one more failure: between half and the whole of a time
    /// that doubles with every failure. `jitter` is a random value in 0..1;
    /// it keeps a fleet from coming back in step.
    pub fn next(&mut self, jitter: f64) -> Duration {
        let doubled = 1_u64.checked_shl(self.attempt).unwrap_or(u64::MAX);
        let whole_ms = self.min_ms.saturating_mul(doubled).min(self.max_ms);
        self.attempt = self.attempt.saturating_add(1);
        Duration::from_millis(whole_ms).mul_f64(0.5 + share(jitter) / 2.0)
    }

    /// An attempt succeeded: the next failure waits the shortest time again.
    pub const fn reset(&mut self) {
        self.attempt = 0;
    }
}

/// The shortest and the longest wait that a collector can ask for, in
/// milliseconds: whatever it says, an agent neither hammers nor stays away.
const ASKED_MIN_MS: u64 = 100;
const ASKED_MAX_MS: u64 = 300_000;

/// The wait when the other side said when to come back: not before `after_ms`,
/// and by chance up to `spread_ms` more. `jitter` is a random value in 0..1.
#[must_use]
pub fn asked(after_ms: u64, spread_ms: u64, jitter: f64) -> Duration {
    let after_ms = after_ms.clamp(ASKED_MIN_MS, ASKED_MAX_MS);
    let spread_ms = spread_ms.min(ASKED_MAX_MS - after_ms);
    Duration::from_millis(after_ms) + Duration::from_millis(spread_ms).mul_f64(share(jitter))
}

/// A jitter that is no number counts as the middle.
fn share(jitter: f64) -> f64 {
    if jitter.is_finite() {
        jitter.clamp(0.0, 1.0)
    } else {
        0.5
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_wait_doubles_up_to_its_bound_and_starts_over_after_a_success() {
        let mut backoff = Backoff::new(1_000, 5_000);
        let waits: Vec<u128> = (0..4).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(waits, [1_000, 2_000, 4_000, 5_000]);
        backoff.reset();
        assert_eq!(backoff.next(0.0), Duration::from_millis(500));
    }

    #[test]
    fn a_jitter_that_is_no_number_does_no_harm() {
        let mut backoff = Backoff::new(1_000, 1_000);
        for jitter in [f64::NAN, f64::INFINITY, -3.0, 7.0] {
            let wait = backoff.next(jitter).as_millis();
            assert!((500..=1_000).contains(&wait), "{jitter}: {wait}");
        }
    }

    proptest! {
        #[test]
        fn a_wait_that_was_asked_for_is_kept_within_what_an_agent_bears(
            after in any::<u64>(), spread in any::<u64>(), jitter in any::<f64>(),
        ) {
            let wait = asked(after, spread, jitter);
            prop_assert!(wait >= Duration::from_millis(after.clamp(ASKED_MIN_MS, ASKED_MAX_MS)));
            prop_assert!(wait <= Duration::from_millis(after.saturating_add(spread).max(ASKED_MIN_MS)));
            prop_assert!(wait <= Duration::from_millis(ASKED_MAX_MS));
        }

        #[test]
        fn a_fleet_that_was_asked_to_spread_does(
            after in ASKED_MIN_MS..10_000, spread in 1_000_u64..60_000,
        ) {
            let waits: Vec<Duration> = (0..10).map(|n| asked(after, spread, f64::from(n) / 10.0)).collect();
            let step = Duration::from_millis(spread / 11);
            prop_assert!(waits.windows(2).all(|pair| pair[1] - pair[0] >= step));
        }

        #[test]
        fn every_wait_lies_between_half_and_whole(
            attempt in any::<u32>(), jitter in 0.0..1.0_f64, min in 2_u64..10_000, more in 0_u64..1_000_000,
        ) {
            let max = min + more;
            let wait = Backoff { min_ms: min, max_ms: max, attempt }.next(jitter);
            prop_assert!(wait <= Duration::from_millis(max));
            prop_assert!(wait >= Duration::from_millis(min / 2));
        }
    }
}
