//! What happens every hour: findings that are too old go, and the log gets the
//! figures that say whether the history is in good order.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::clock;
use crate::config::Config;
use crate::findings::{Findings, FindingsError, FindingsFigures};

/// The first time is right after the start.
const EVERY: Duration = Duration::from_secs(3600);

const DAY_MILLIS: i64 = 86_400_000;

/// Says when it is time.
pub(super) struct Clockwork(Interval);

impl Clockwork {
    pub(super) fn new() -> Self {
        let mut interval = interval(EVERY);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self(interval)
    }

    pub(super) async fn due(&mut self) {
        self.0.tick().await;
    }
}

/// Drops what is too old or too much, if anything ever is, and logs the figures.
pub(super) async fn look_after(findings: Findings, config: Arc<Config>) {
    if let Some(days) = config.retention_days {
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
