//! Executables that exist in memory only.

use procwarden_common::indicator::IndicatorId;
use procwarden_common::process::{ExeState, Process};
use procwarden_common::severity::Severity;

use super::evidence_text::quoted;
use super::{Sighting, exe_state};

/// Container runtimes copy themselves to memory for the moment in which they
/// start a container (CVE-2019-5736): by name, as root, for milliseconds.
const RUNTIME_COPIES: &[&[u8]] = &[
    b"/memfd:runc_cloned:",
    b"/memfd:crun_cloned:",
    b"/memfd:crun",
];
/// A runtime that runs from memory for longer is none.
const RUNTIME_AGE_SECS_MAX: u64 = 5;

pub(super) fn detect(process: &Process) -> Option<Sighting> {
    let (exe, state) = exe_state(process)?;
    if state != ExeState::Memfd || is_starting_container(process, &exe.link) {
        return None;
    }
    let evidence = format!(
        "it runs {}, a memory file that never was on disk",
        quoted(&exe.link)
    );
    let sighting = |severity| Sighting::new(IndicatorId::EXE_MEMFD, severity, evidence);
    Some(if process.uid == 0 {
        // Vendors' own agents run from memory files too.
        sighting(Severity::High)
    } else {
        sighting(Severity::Critical).believed_at_once()
    })
}

fn is_starting_container(process: &Process, link: &[u8]) -> bool {
    process.uid == 0
        && process.age_secs < RUNTIME_AGE_SECS_MAX
        && RUNTIME_COPIES.iter().any(|prefix| link.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use procwarden_common::indicator::Confirmation;

    use super::*;
    use crate::detect::sample;

    #[test]
    fn only_roots_container_runtimes_are_left_alone_and_only_for_moments() {
        let runc = b"/memfd:runc_cloned:/proc/self/exe (deleted)";
        type Row<'a> = (u32, u64, &'a [u8], Option<(Severity, Confirmation)>);
        let table: [Row<'_>; 5] = [
            (
                1000,
                90,
                b"/memfd:x (deleted)",
                Some((Severity::Critical, Confirmation::OneScan)),
            ),
            (
                1000,
                1,
                runc,
                Some((Severity::Critical, Confirmation::OneScan)),
            ),
            (
                0,
                90,
                b"/memfd:agent (deleted)",
                Some((Severity::High, Confirmation::TwoScans)),
            ),
            (0, 1, runc, None),
            (0, 5, runc, Some((Severity::High, Confirmation::TwoScans))),
        ];
        for (uid, age_secs, link, expected) in table {
            let mut process = sample::with_exe(uid, link, ExeState::Memfd);
            process.age_secs = age_secs;
            let seen = detect(&process).map(|s| (s.indicator.severity, s.confirmation));
            assert_eq!(seen, expected, "{uid} {age_secs}");
        }
    }
}
