//! How much of a processor events may cost: a bucket of processor time.
//!
//! What was used is charged afterwards, as measured, so that the limit holds
//! on slow and on fast machines, for cheap and for dear looks alike. Who is in
//! debt waits until the time that passes has paid for it.
//!
//! Pure. Promises: over any span of time no more is granted than the rate
//! allows, one full bucket, and one piece of work that went over it.

use std::time::{Duration, Instant};

/// How long the rate fills an empty bucket to its rim: a few hundred looks
/// after a quiet moment are answered at once.
const BUCKET_SECS: i64 = 4;

/// A bucket.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    /// Microseconds of processor time per second.
    rate: i64,
    /// What can be used now; below zero it is debt.
    balance_us: i64,
    filled_at: Instant,
}

impl Budget {
    /// A full bucket. `rate_us` is processor time per second, in microseconds.
    pub(crate) fn new(rate_us: u64, now: Instant) -> Self {
        let rate = i64::try_from(rate_us)
            .unwrap_or(i64::MAX / BUCKET_SECS)
            .max(1);
        Self {
            rate,
            balance_us: rate.saturating_mul(BUCKET_SECS),
            filled_at: now,
        }
    }

    /// Another rate from now on. What is in the bucket stays, as far as it
    /// fits into one of the new size.
    pub(crate) fn set_rate(&mut self, rate_us: u64, now: Instant) {
        self.fill(now);
        let full = Self::new(rate_us, now);
        self.rate = full.rate;
        self.balance_us = self.balance_us.min(full.balance_us);
    }

    /// Takes the cost of what was done.
    pub(crate) fn charge(&mut self, used_us: u64, now: Instant) {
        self.fill(now);
        let used = i64::try_from(used_us).unwrap_or(i64::MAX);
        self.balance_us = self.balance_us.saturating_sub(used);
    }

    /// What is in the bucket; nothing for who is in debt.
    pub(crate) fn left(&mut self, now: Instant) -> Duration {
        self.fill(now);
        Duration::from_micros(u64::try_from(self.balance_us).unwrap_or(0))
    }

    /// How long to wait before anything more is done; zero without debt.
    pub(crate) fn wait(&mut self, now: Instant) -> Duration {
        self.fill(now);
        let debt_us = u64::try_from(self.balance_us.saturating_neg()).unwrap_or(0);
        let rate = u64::try_from(self.rate).unwrap_or(1);
        Duration::from_micros(debt_us.saturating_mul(1_000_000).div_ceil(rate))
    }

    fn fill(&mut self, now: Instant) {
        let passed_us = now.saturating_duration_since(self.filled_at).as_micros();
        let passed_us = i64::try_from(passed_us).unwrap_or(i64::MAX);
        let gained = passed_us.saturating_mul(self.rate) / 1_000_000;
        if gained == 0 {
            // Too little time for a whole microsecond: let it add up.
            return;
        }
        let full = self.rate.saturating_mul(BUCKET_SECS);
        self.balance_us = self.balance_us.saturating_add(gained).min(full);
        self.filled_at = now;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn debt_is_paid_by_time() {
        let begin = Instant::now();
        let mut budget = Budget::new(50_000, begin);
        assert_eq!(budget.wait(begin), Duration::ZERO);
        assert_eq!(budget.left(begin), Duration::from_millis(200));
        budget.charge(200_000, begin);
        assert_eq!(budget.wait(begin), Duration::ZERO);
        budget.charge(25_000, begin);
        assert_eq!(budget.wait(begin), Duration::from_millis(500));
        assert_eq!(budget.left(begin), Duration::ZERO);
        let later = begin + Duration::from_millis(400);
        assert_eq!(budget.wait(later), Duration::from_millis(100));
        assert_eq!(budget.wait(begin + Duration::from_secs(1)), Duration::ZERO);
    }

    #[test]
    fn another_rate_keeps_debts_and_gives_no_more_than_its_bucket() {
        let now = Instant::now();
        let mut budget = Budget::new(50_000, now);
        budget.set_rate(5_000, now);
        budget.charge(25_000, now);
        assert_eq!(budget.wait(now), Duration::from_secs(1));
        budget.set_rate(50_000, now);
        assert_eq!(budget.wait(now), Duration::from_millis(100));
    }

    proptest! {
        #[test]
        fn no_more_is_granted_than_rate_bucket_and_one_piece(
            rate in 1_000u64..200_000,
            work in proptest::collection::vec((0u64..50_000, 0u64..2_000_000), 1..200),
        ) {
            let begin = Instant::now();
            let mut budget = Budget::new(rate, begin);
            let (mut now, mut granted, mut largest) = (begin, 0, 0);
            for (cost_us, pause_us) in work {
                now += Duration::from_micros(pause_us);
                if budget.wait(now).is_zero() {
                    budget.charge(cost_us, now);
                    granted += cost_us;
                    largest = largest.max(cost_us);
                }
                let elapsed_us = u64::try_from((now - begin).as_micros()).unwrap();
                let allowed = (elapsed_us * rate).div_ceil(1_000_000) + rate * BUCKET_SECS.unsigned_abs();
                prop_assert!(granted <= allowed + largest, "{granted} > {allowed} + {largest}");
            }
        }

        #[test]
        fn whoever_waits_as_told_is_out_of_debt(rate in 1_000u64..200_000, debt_us in 0u64..10_000_000) {
            let begin = Instant::now();
            let mut budget = Budget::new(rate, begin);
            budget.charge(debt_us, begin);
            let wait = budget.wait(begin);
            // What is too little for a microsecond of work may be missing.
            let slack = Duration::from_micros(1_000_000u64.div_ceil(rate));
            prop_assert_eq!(budget.wait(begin + wait + slack), Duration::ZERO);
        }
    }
}
