//! Turns a process of a snapshot into the facts of a finding, within bounds.

use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::{Finding, ProcessFacts, Subject};
use procwarden_common::indicator::Indicator;
use procwarden_common::limits::{PATH_BYTES_MAX, SOCKETS_MAX};
use procwarden_common::process::{Cmdline, ExeState, Process, Reading};

/// A finding about a process, without its facts and what evidence.rs adds.
pub(super) fn bare_finding(
    process: &Process,
    indicators: Vec<Indicator>,
    now: UnixMillis,
) -> Finding {
    Finding {
        subject: Subject::Process(process.key),
        indicators,
        observed_at: now,
        uid: process.uid,
        user: process.user.to_vec(),
        process: None,
        host: None,
        actions: Vec::new(),
        quiet: false,
    }
}

/// What the snapshot knows of a process.
pub(super) fn of(process: &Process) -> ProcessFacts {
    let exe = process.exe.value();
    let gone = |state| {
        matches!(
            state,
            ExeState::Deleted | ExeState::Replaced | ExeState::Memfd
        )
    };
    ProcessFacts {
        ppid: process.ppid,
        started_at: process.started_at,
        age_secs: process.age_secs,
        comm: process.comm.clone(),
        exe: exe.map(|exe| bounded(&exe.link, PATH_BYTES_MAX)),
        exe_deleted: exe.is_some_and(|exe| gone(exe.state)),
        cmdline: cmdline(&process.cmdline),
        session: u32::try_from(process.session).unwrap_or(0),
        tty: crate::procfs::parse::tty_name(process.tty_nr),
        vsz_bytes: process.vsz_bytes,
        rss_bytes: process.rss_bytes,
        sockets: process.sockets.iter().take(SOCKETS_MAX).cloned().collect(),
        ..ProcessFacts::default()
    }
}

/// What could not be read is no empty command line: it is marked as cut, so
/// that no rule about command lines covers it, here or in a preview.
fn cmdline(reading: &Reading<Cmdline>) -> Cmdline {
    reading.value().cloned().unwrap_or(Cmdline {
        raw: Vec::new(),
        truncated: true,
    })
}

fn bounded(bytes: &[u8], bytes_max: usize) -> Vec<u8> {
    bytes.get(..bytes_max).unwrap_or(bytes).to_vec()
}

#[cfg(test)]
mod tests {
    use procwarden_common::finding::Finding;
    use procwarden_common::indicator::{Indicator, KNOWN};
    use procwarden_common::limits;
    use procwarden_common::policy::RuleText;
    use procwarden_common::process::{Exe, Protocol};
    use procwarden_common::severity::Severity;
    use procwarden_proto::v1;
    use proptest::prelude::*;

    use super::*;
    use crate::detect::sample;

    fn finding(process: &Process, now: UnixMillis) -> Finding {
        let mut finding = bare_finding(process, indicators(), now);
        finding.process = Some(of(process));
        finding
    }

    fn indicators() -> Vec<Indicator> {
        let known = KNOWN.iter();
        known
            .map(|info| Indicator {
                id: info.id.parse().unwrap(),
                severity: Severity::High,
                evidence: "x".repeat(limits::EVIDENCE_BYTES_MAX),
            })
            .collect()
    }

    #[test]
    fn a_command_line_that_cannot_be_read_is_no_empty_one() {
        for unread in [Reading::Unreadable, Reading::Absent] {
            let mut process = sample::of_account(1000, b"alice");
            process.cmdline = unread;
            let there = finding(&process, UnixMillis(1));
            let back = Finding::try_from(v1::Finding::from(&there)).unwrap();
            assert_eq!(RuleText::of_finding(&back).cmd, None);
            assert_eq!(RuleText::of_process(&process).cmd, None);
        }
    }

    /// As long as it can be read (see `procfs/exe.rs`).
    fn exe() -> impl Strategy<Value = Reading<Exe>> {
        let link = prop_oneof![
            8 => any::<Vec<u8>>(),
            1 => (PATH_BYTES_MAX - 2..=PATH_BYTES_MAX).prop_map(|length| vec![b'/'; length]),
        ];
        let read = link.prop_map(|link| {
            let process = sample::with_exe(1000, &link, ExeState::Live);
            process.exe
        });
        prop_oneof![8 => read, 1 => Just(Reading::Unreadable), 1 => Just(Reading::Absent)]
    }

    proptest! {
        /// What a preview on the collector judges is what the agent judged.
        #[test]
        fn rules_see_the_same_texts_on_the_agent_and_in_a_report(
            user in proptest::collection::vec(any::<u8>(), 1..=limits::USER_BYTES_MAX),
            exe in exe(),
            raw in any::<Vec<u8>>(),
            truncated in any::<bool>(),
        ) {
            let mut process = sample::of_account(1000, b"alice");
            process.user = user.into();
            process.exe = exe;
            process.cmdline = Reading::Value(Cmdline { raw, truncated });
            let there = finding(&process, UnixMillis(1));
            let back = Finding::try_from(v1::Finding::from(&there)).unwrap();
            prop_assert_eq!(RuleText::of_finding(&back), RuleText::of_process(&process));
        }
    }

    #[test]
    fn the_biggest_process_fits_into_a_finding_that_the_collector_takes() {
        let mut process = sample::with_exe(u32::MAX, &[b'/'; 9000], ExeState::Deleted);
        process.user = vec![0xff; limits::USER_BYTES_MAX].into();
        process.comm = vec![b'\n'; limits::COMM_BYTES_MAX];
        process.cmdline = Reading::Value(Cmdline {
            raw: vec![0xff; limits::CMDLINE_BYTES_MAX],
            truncated: true,
        });
        (process.tty_nr, process.age_secs) = (i32::MIN, u64::MAX);
        (process.vsz_bytes, process.rss_bytes) = (u64::MAX, u64::MAX);
        let address = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535";
        process.sockets = vec![sample::connection(Protocol::Tcp6, address, address); 9000];
        let there = finding(&process, UnixMillis(i64::MAX));
        let back = Finding::try_from(v1::Finding::from(&there));
        assert_eq!(back.as_ref(), Ok(&there));
    }
}
