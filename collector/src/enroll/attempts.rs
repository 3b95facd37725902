//! How often someone may try something that costs the collector work.
//!
//! Promises: bounded memory whoever comes; a stranger's attempts never use up
//! those of another.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Keys that are remembered at the same time.
const KEYS_MAX: usize = 16_384;

/// Counts attempts per key and window.
pub(crate) struct Attempts<K> {
    attempts_max: u32,
    window: Duration,
    counts: Mutex<HashMap<K, Count>>,
}

struct Count {
    began: Instant,
    attempts: u32,
}

impl<K: Eq + Hash> Attempts<K> {
    pub(crate) fn new(attempts_max: u32, window: Duration) -> Self {
        Self {
            attempts_max,
            window,
            counts: Mutex::default(),
        }
    }

    /// False when the key has used its attempts up.
    pub(crate) fn may_try(&self, key: &K, now: Instant) -> bool {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts
            .get(key)
            .is_none_or(|count| self.is_old(count, now) || count.attempts < self.attempts_max)
    }

    /// Counts one attempt.
    pub(crate) fn note(&self, key: K, now: Instant) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= KEYS_MAX && !counts.contains_key(&key) {
            counts.retain(|_, count| !self.is_old(count, now));
            if counts.len() >= KEYS_MAX {
                // Whoever has so many addresses is not held up by a count.
                return;
            }
        }
        let count = counts.entry(key).or_insert(Count {
            began: now,
            attempts: 0,
        });
        if self.is_old(count, now) {
            *count = Count {
                began: now,
                attempts: 0,
            };
        }
        count.attempts = count.attempts.saturating_add(1);
    }

    fn is_old(&self, count: &Count, now: Instant) -> bool {
        now.duration_since(count.began) >= self.window
    }
}

/// The part of an address that one customer is given: all of IPv4, the first
/// 64 bits of IPv6.
pub(crate) fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_run_out_per_key_and_come_back_after_the_window() {
        let attempts = Attempts::new(2, Duration::from_secs(60));
        let start = Instant::now();
        attempts.note("a", start);
        assert!(attempts.may_try(&"a", start));
        attempts.note("a", start);
        assert!(!attempts.may_try(&"a", start));
        assert!(attempts.may_try(&"b", start));
        let later = start + Duration::from_secs(60);
        assert!(attempts.may_try(&"a", later));
        attempts.note("a", later);
        assert!(attempts.may_try(&"a", later));
    }

    #[test]
    fn memory_stays_bounded_when_every_attempt_has_another_key() {
        let attempts = Attempts::new(1, Duration::from_secs(60));
        let start = Instant::now();
        for key in 0..KEYS_MAX + 100 {
            attempts.note(key, start);
        }
        assert_eq!(attempts.counts.lock().unwrap().len(), KEYS_MAX);
        attempts.note(KEYS_MAX + 200, start + Duration::from_secs(61));
        assert_eq!(attempts.counts.lock().unwrap().len(), 1);
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_together() {
        let of = |text: &str| network_of(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3::4"), of("2001:db8:1:2:ffff::1"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }
}
