//! Pauses within a scan, so that it stays within a share of a processor.
//!
//! Promises: the pauses of one scan together have an end, so that a scan of
//! a machine that runs very many processes gets done too.

use std::time::Duration;

use super::thread_cpu_micros;

/// Behind this long, a scan goes on without pauses.
const PAUSES_MAX: Duration = Duration::from_secs(15);

/// Measures what a scan works, and pauses.
pub(super) struct Breath {
    /// Share of one processor in percent; none for a scan without pauses.
    percent: Option<u64>,
    worked_from_us: u64,
    paused: Duration,
}

impl Breath {
    pub(super) fn new(percent: Option<u64>) -> Self {
        Self {
            percent,
            worked_from_us: percent.map_or(0, |_| thread_cpu_micros()),
            paused: Duration::ZERO,
        }
    }

    /// Some processes were read, and others are about to be: the moment for a
    /// pause.
    pub(super) fn take(&mut self) {
        let Some(percent) = self.percent else { return };
        let worked_us = thread_cpu_micros().saturating_sub(self.worked_from_us);
        let pause = pause_after(worked_us, percent, self.paused);
        self.paused += pause;
        std::thread::sleep(pause);
        self.worked_from_us = thread_cpu_micros();
    }
}

/// How long to pause after some work, when `paused` is what was paused so far.
fn pause_after(worked_us: u64, percent: u64, paused: Duration) -> Duration {
    let percent = percent.clamp(1, 100);
    let pause_us = worked_us.saturating_mul(100 - percent) / percent;
    Duration::from_micros(pause_us).min(PAUSES_MAX.saturating_sub(paused))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_and_pause_are_in_the_proportion_of_the_share() {
        let ms = Duration::from_millis;
        for (worked_us, percent, paused, pause) in [
            (1_000, 10, ms(0), ms(9)),
            (1_000, 50, ms(0), ms(1)),
            (1_000, 100, ms(0), ms(0)),
            (1_000, 0, ms(0), ms(99)),
            (1_000, 10, ms(14_995), ms(5)),
            (u64::MAX, 1, ms(0), PAUSES_MAX),
            (1_000, 10, ms(99_000), ms(0)),
        ] {
            assert_eq!(pause_after(worked_us, percent, paused), pause);
        }
    }

    #[test]
    fn a_scan_without_a_share_never_pauses() {
        let mut breath = Breath::new(None);
        (0..1000).for_each(|_| breath.take());
        assert_eq!(breath.paused, Duration::ZERO);
        let mut breath = Breath::new(Some(10));
        (0..1000).for_each(|_| breath.take());
        assert!(breath.paused > Duration::ZERO);
    }
}
