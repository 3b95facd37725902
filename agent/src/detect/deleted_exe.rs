//! Executables whose file is gone, or is another file now.

use procwarden_common::indicator::IndicatorId;
use procwarden_common::policy::Settings;
use procwarden_common::process::{ExeState, Process};
use procwarden_common::severity::Severity;

use super::evidence_text::quoted;
use super::scope::Standing;
use super::{Sighting, exe_state, volatile_exe};

pub(super) fn detect(
    process: &Process,
    standing: Standing,
    settings: &Settings,
) -> Option<Sighting> {
    let (exe, state) = exe_state(process)?;
    match state {
        ExeState::Deleted if settings.report_deleted => {
            let bad =
                standing == Standing::InScope || volatile_exe::is_volatile(exe.claimed_path());
            let severity = if bad {
                Severity::High
            } else {
                Severity::Medium
            };
            let evidence = format!("{} was deleted while it runs", quoted(exe.path()));
            Some(Sighting::new(IndicatorId::EXE_DELETED, severity, evidence))
        }
        // An upgrade looks like this: worth a line, not a mail.
        ExeState::Replaced => {
            let evidence = format!(
                "{} is another file now; it runs the former one",
                quoted(exe.path())
            );
            Some(Sighting::new(
                IndicatorId::EXE_REPLACED,
                Severity::Info,
                evidence,
            ))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::sample;

    #[test]
    fn deleted_weighs_more_for_accounts_and_volatile_directories() {
        type Row = (
            Standing,
            &'static [u8],
            ExeState,
            Option<(&'static str, Severity)>,
        );
        let table: [Row; 5] = [
            (
                Standing::InScope,
                b"/home/a/x (deleted)",
                ExeState::Deleted,
                Some(("exe-deleted", Severity::High)),
            ),
            (
                Standing::Root,
                b"/usr/bin/x (deleted)",
                ExeState::Deleted,
                Some(("exe-deleted", Severity::Medium)),
            ),
            (
                Standing::Root,
                b"/tmp/x (deleted)",
                ExeState::Deleted,
                Some(("exe-deleted", Severity::High)),
            ),
            (
                Standing::InScope,
                b"/usr/bin/x (deleted)",
                ExeState::Replaced,
                Some(("exe-replaced", Severity::Info)),
            ),
            (
                Standing::InScope,
                b"/home/a/x (deleted)",
                ExeState::Live,
                None,
            ),
        ];
        for (standing, link, state, expected) in table {
            let process = sample::with_exe(1000, link, state);
            let seen = detect(&process, standing, &Settings::default());
            let seen = seen
                .as_ref()
                .map(|s| (s.indicator.id.as_str(), s.indicator.severity));
            assert_eq!(seen, expected, "{standing:?} {link:?}");
        }
    }

    #[test]
    fn the_policy_can_leave_deleted_executables_alone() {
        let settings = Settings {
            report_deleted: false,
            ..Settings::default()
        };
        let process = sample::with_exe(1000, b"/home/a/x (deleted)", ExeState::Deleted);
        assert_eq!(detect(&process, Standing::InScope, &settings), None);
    }
}
