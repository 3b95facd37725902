//! What happens every hour: findings that are too old go, and the log gets the
//! figures that say whether the history is in good order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use procwarden_common::clock::UnixMillis;

use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::clock;
use crate::config::Config;
use crate::findings::{Findings, FindingsError, FindingsFigures};

/// The first time is right after the start.
const EVERY: Duration = Duration::from_secs(3600);

const DAY_MILLIS: i64 = 86_400_000;

/// A clock that differs by more than this from what it should show has jumped.
const JUMP: Duration = Duration::from_secs(600);

/// Says when it is time.
pub(super) struct Clockwork {
    interval: Interval,
    /// Both clocks when it was time last.
    last: (Instant, UnixMillis),
}

impl Clockwork {
    pub(super) fn new() -> Self {
        let mut interval = interval(EVERY);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            interval,
            last: (Instant::now(), clock::now()),
        }
    }

    /// Whether the wall clock went on as it should since the last time: what it
    /// says decides what is too old.
    pub(super) async fn due(&mut self) -> bool {
        self.interval.tick().await;
        let (now, wall) = (Instant::now(), clock::now());
        let is_steady = is_steady(now.duration_since(self.last.0), self.last.1, wall);
        self.last = (now, wall);
        if !is_steady {
            tracing::warn!(%wall, "The clock of this machine has jumped: nothing is dropped by age this hour.");
        }
        is_steady
    }
}

fn is_steady(elapsed: Duration, before: UnixMillis, after: UnixMillis) -> bool {
    let elapsed = i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX);
    let difference = after.0.saturating_sub(before.0).saturating_sub(elapsed);
    u128::from(difference.unsigned_abs()) <= JUMP.as_millis()
}

/// Drops what is too old or too much, if anything ever is, and logs the figures.
pub(super) async fn look_after(findings: Findings, config: Arc<Config>, is_steady: bool) {
    if let Some(days) = config.retention_days
        && is_steady
    {
        let oldest_kept = clock::now().plus_millis(-i64::from(days) * DAY_MILLIS);
        let dropped = findings.drop_older_than(oldest_kept).await;
        say_dropped("older than the retention", dropped);
    }
    if let Some(bytes) = config.retention_max_bytes {
        let dropped = findings.drop_down_to(bytes).await;
        say_dropped("beyond the retention's bytes", dropped);
    }
    match tokio::task::spawn_blocking(move || findings.figures()).await {
        Ok(figures) => report(&figures),
        Err(error) => tracing::error!(%error, "The findings could not be counted."),
    }
}

fn say_dropped(why: &str, dropped: Result<u64, FindingsError>) {
    match dropped {
        Ok(0) => {}
        Ok(dropped) => tracing::info!(findings = dropped, why, "Old findings were dropped."),
        Err(error) => tracing::error!(%error, why, "Old findings could not be dropped."),
    }
}

fn report(figures: &FindingsFigures) {
    tracing::info!(
        findings = figures.findings,
        open = figures.findings_open,
        journal_bytes = figures.journal_bytes,
        duplicates = figures.duplicates,
        unknown_ends = figures.unknown_ends,
        "Findings so far.",
    );
    if figures.journal_damaged > 0 {
        tracing::warn!(
            places = figures.journal_damaged,
            "The findings journal has damaged places; check the disk, and `store check` says more.",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_jumps_is_not_believed_for_a_while() {
        let hour = Duration::from_secs(3600);
        for (after, expected) in [
            (3_600_000, true),
            (3_600_000 + 590_000, true),
            (3_600_000 + 610_000, false),
            (2_900_000, false),
            (i64::MAX, false),
            (i64::MIN, false),
        ] {
            assert_eq!(
                is_steady(hour, UnixMillis(0), UnixMillis(after)),
                expected,
                "{after}"
            );
        }
    }
}
