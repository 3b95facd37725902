//! What the agent itself uses: memory, and its share of a processor.

use std::time::{Duration, Instant};

/// Shorter spans say little about a share.
const SPAN_MIN: Duration = Duration::from_secs(10);

/// Memory and processor time of this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) rss_bytes: u64,
    /// Since the process started.
    pub(crate) cpu_us: u64,
    /// Share of one processor since the agent runs, in millionths.
    pub(crate) cpu_share_ppm: u64,
    /// The same over the last ten seconds or more.
    pub(crate) cpu_recent_ppm: u64,
}

/// Turns readings of processor time into shares. Pure.
#[derive(Debug, Clone)]
pub(crate) struct CpuMeter {
    start: Reading,
    span_began: Reading,
    recent_ppm: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    at: Instant,
    cpu_us: u64,
}

impl CpuMeter {
    pub(crate) const fn new(at: Instant, cpu_us: u64) -> Self {
        let start = Reading { at, cpu_us };
        Self {
            start,
            span_began: start,
            recent_ppm: None,
        }
    }

    /// The share since the start, and that of the last span that was long
    /// enough; before the first one, both are the share since the start.
    pub(crate) fn shares(&mut self, now: Instant, cpu_us: u64) -> (u64, u64) {
        let reading = Reading { at: now, cpu_us };
        let total = share_ppm(self.start, reading);
        if now.saturating_duration_since(self.span_began.at) >= SPAN_MIN {
            self.recent_ppm = Some(share_ppm(self.span_began, reading));
            self.span_began = reading;
        }
        (total, self.recent_ppm.unwrap_or(total))
    }
}

fn share_ppm(from: Reading, to: Reading) -> u64 {
    let wall_us = to.at.saturating_duration_since(from.at).as_micros().max(1);
    let used_us = u128::from(to.cpu_us.saturating_sub(from.cpu_us));
    u64::try_from(used_us * 1_000_000 / wall_us).unwrap_or(u64::MAX)
}

/// Reads what this process uses; zero memory where /proc does not say.
pub(crate) fn own_usage(meter: &mut CpuMeter, now: Instant) -> Usage {
    let status = std::fs::read("/proc/self/status").unwrap_or_default();
    let cpu_us = own_cpu_us();
    let (cpu_share_ppm, cpu_recent_ppm) = meter.shares(now, cpu_us);
    Usage {
        rss_bytes: rss_kib(&status).unwrap_or(0) * 1024,
        cpu_us,
        cpu_share_ppm,
        cpu_recent_ppm,
    }
}

/// Processor time of this process, in microseconds.
pub(crate) fn own_cpu_us() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let micros = time
        .tv_sec
        .saturating_mul(1_000_000)
        .saturating_add(time.tv_nsec / 1000);
    u64::try_from(micros).unwrap_or(0)
}

fn rss_kib(status: &[u8]) -> Option<u64> {
    let line = status
        .split(|&b| b == b'\n')
        .find_map(|line| line.strip_prefix(b"VmRSS:"))?;
    std::str::from_utf8(line)
        .ok()?
        .trim()
        .strip_suffix(" kB")?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let status = b"Name:\tx\nVmHWM:\t    9999 kB\nVmRSS:\t    6144 kB\nThreads:\t1\n";
        assert_eq!(rss_kib(status), Some(6144));
        assert_eq!(rss_kib(b""), None);
    }

    #[test]
    fn this_process_uses_memory_and_time() {
        let now = Instant::now();
        let usage = own_usage(&mut CpuMeter::new(now, 0), now);
        assert!(usage.rss_bytes > 0 && usage.cpu_us > 0, "{usage:?}");
    }

    #[test]
    fn shares_are_of_the_whole_time_and_of_the_last_long_span() {
        let begin = Instant::now();
        let at = |secs| begin + Duration::from_secs(secs);
        let mut meter = CpuMeter::new(begin, 5_000_000);
        assert_eq!(meter.shares(at(5), 5_050_000), (10_000, 10_000));
        assert_eq!(meter.shares(at(10), 6_000_000), (100_000, 100_000));
        // The span is too short: the last one stays.
        assert_eq!(meter.shares(at(15), 6_000_000).1, 100_000);
        assert_eq!(meter.shares(at(20), 6_000_000), (50_000, 0));
    }
}
