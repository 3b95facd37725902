//! How far apart scans are, and how gently they go, by how busy the machine
//! is and by what the last scan cost.
//!
//! Pure. Promises: the interval of the policy is never shortened, and never
//! stretched to more than five times its length; with pauses, the longest
//! scan stays within the agent's share of a processor.

use std::time::Duration;

/// Most that an interval is stretched.
const STRETCH_MAX: u64 = 5;

/// From this load per processor on, the machine has more to do than it can:
/// in thousandths.
const LOAD_HIGH_MILLIS: u64 = 2_000;

/// What the pace depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Circumstances {
    /// Between two scans, as the policy says.
    pub(super) interval: Duration,
    /// Load average of the last minute per processor, in thousandths.
    pub(super) load_millis: u64,
    /// Processor time of the last scan.
    pub(super) last_scan: Duration,
    /// The agent's share of one processor, in percent.
    pub(super) cpu_percent: u64,
}

/// How to scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pace {
    /// Between two scans of their own accord.
    pub(super) interval: Duration,
    /// Between two scans that somebody or something asks for: no more of the
    /// processor than the share of scans.
    pub(super) wanted_min: Duration,
    /// Scan with pauses.
    pub(super) is_gentle: bool,
    /// Why the interval is stretched.
    pub(super) note: Option<String>,
}

/// Decides. Half of the agent's share is for scans, half for events.
#[must_use]
pub(super) fn pace(now: &Circumstances) -> Pace {
    let by_load = now.load_millis.div_ceil(LOAD_HIGH_MILLIS).max(1);
    let needed = interval_that_pays(now.last_scan, now.cpu_percent);
    let by_cost = times(needed, now.interval).max(1);
    let stretch = by_load.max(by_cost).min(STRETCH_MAX);
    let why = if by_cost >= by_load {
        "scans cost more than their share of a processor"
    } else {
        "the machine is loaded"
    };
    let is_stretched = stretch > 1;
    Pace {
        interval: now.interval * u32::try_from(stretch).unwrap_or(1),
        wanted_min: needed.min(now.interval),
        is_gentle: by_load > 1 || needed > now.interval,
        note: is_stretched.then(|| {
            format!("{why}: they come every {stretch} intervals, with pauses within each")
        }),
    }
}

/// The interval at which scans use half of the share.
fn interval_that_pays(scan: Duration, cpu_percent: u64) -> Duration {
    let percent = u32::try_from(cpu_percent.clamp(1, 100)).unwrap_or(100);
    scan * 200 / percent
}

/// How many times the interval fits into what is needed, rounded up.
fn times(needed: Duration, interval: Duration) -> u64 {
    let times = needed.as_millis().div_ceil(interval.as_millis().max(1));
    u64::try_from(times).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn of(load_millis: u64, scan_ms: u64) -> Pace {
        pace(&Circumstances {
            interval: 60 * SECOND,
            load_millis,
            last_scan: Duration::from_millis(scan_ms),
            cpu_percent: 10,
        })
    }

    #[test]
    fn a_quiet_machine_is_scanned_as_the_policy_says() {
        for (load, scan_ms) in [(0, 0), (1_999, 3_000), (2_000, 50)] {
            let pace = of(load, scan_ms);
            assert_eq!(pace.interval, 60 * SECOND, "{load} {scan_ms}");
            assert!(!pace.is_gentle && pace.note.is_none());
        }
    }

    #[test]
    fn load_and_cost_stretch_the_interval_within_bounds() {
        for (load, scan_ms, secs, why) in [
            (2_001, 50, 120, "the machine is loaded"),
            (7_000, 50, 240, "the machine is loaded"),
            (90_000, 50, 300, "the machine is loaded"),
            (0, 4_000, 120, "scans cost more"),
            (0, 90_000, 300, "scans cost more"),
        ] {
            let pace = of(load, scan_ms);
            assert_eq!(pace.interval, secs * SECOND, "{load} {scan_ms}");
            assert!(pace.is_gentle);
            assert!(pace.note.unwrap().starts_with(why), "{load} {scan_ms}");
        }
    }

    #[test]
    fn scans_on_demand_stay_within_half_of_the_share() {
        assert_eq!(of(0, 50).wanted_min, SECOND);
        assert_eq!(of(0, 90_000).wanted_min, 60 * SECOND);
    }

    proptest! {
        #[test]
        fn the_interval_is_never_shortened_nor_stretched_beyond_five_times(
            interval_secs in 1u64..86_400, load_millis in any::<u64>(),
            scan_us in 0u64..1 << 40, cpu_percent in 0u64..200,
        ) {
            let interval = Duration::from_secs(interval_secs);
            let last_scan = Duration::from_micros(scan_us);
            let pace = pace(&Circumstances { interval, load_millis, last_scan, cpu_percent });
            prop_assert!(pace.interval >= interval && pace.interval <= interval * 5);
            prop_assert!(pace.wanted_min <= interval);
            prop_assert_eq!(pace.note.is_some(), pace.interval > interval);
            // Either the share holds at this pace, or the scan makes pauses.
            let pays = interval_that_pays(last_scan, cpu_percent) <= pace.interval;
            prop_assert!(pays || pace.is_gentle);
        }
    }
}
