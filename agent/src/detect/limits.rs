//! lfd's limits on one process; each is off until a policy sets it.

use procwarden_common::indicator::IndicatorId;
use procwarden_common::policy::Settings;
use procwarden_common::process::Process;
use procwarden_common::severity::Severity;

use super::{Sighting, scope};

const MIB: u64 = 1024 * 1024;

pub(super) fn detect(process: &Process, settings: &Settings) -> Vec<Sighting> {
    // `nobody` runs programs for everybody: its limits would be theirs.
    if scope::is_nobody(process) {
        return Vec::new();
    }
    let rows = [
        (
            IndicatorId::PROCESS_VIRTUAL_MEMORY,
            "MiB of virtual memory",
            process.vsz_bytes / MIB,
            settings.process_vsz_mb,
        ),
        (
            IndicatorId::PROCESS_RESIDENT_MEMORY,
            "MiB of resident memory",
            process.rss_bytes / MIB,
            settings.process_rss_mb,
        ),
        (
            IndicatorId::PROCESS_RUN_TIME,
            "seconds of run time",
            process.age_secs,
            settings.process_age_secs,
        ),
    ];
    let over = rows.into_iter().filter_map(|(id, unit, value, limit)| {
        let limit = limit.filter(|limit| value > *limit)?;
        Some(Sighting::new(
            id,
            Severity::Medium,
            format!("{value} {unit}, the limit is {limit}"),
        ))
    });
    over.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::sample;

    fn ids(process: &Process, settings: &Settings) -> Vec<String> {
        detect(process, settings)
            .iter()
            .map(|s| s.indicator.id.to_string())
            .collect()
    }

    #[test]
    fn limits_are_off_until_they_are_set_and_then_must_be_exceeded() {
        let mut process = sample::of_account(1000, b"alice");
        process.vsz_bytes = 513 * MIB;
        process.rss_bytes = 256 * MIB;
        process.age_secs = 1801;
        assert!(ids(&process, &Settings::default()).is_empty());
        let settings = Settings {
            process_vsz_mb: Some(512),
            process_rss_mb: Some(256),
            process_age_secs: Some(1800),
            ..Settings::default()
        };
        assert_eq!(
            ids(&process, &settings),
            ["process-virtual-memory", "process-run-time"]
        );
        process.user = (*b"nobody").into();
        assert!(ids(&process, &settings).is_empty());
    }
}
