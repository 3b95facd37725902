//! The findings as a whole: real journal, real index, real threads.

use procwarden_common::finding::{Ended, Finding, FindingState, ProcessFacts, Subject};
use procwarden_common::id::BootId;
use procwarden_common::indicator::Indicator;
use procwarden_common::process::{Cmdline, ProcessKey};
use procwarden_common::severity::Severity;
use procwarden_common::wire::Change;
use uuid::Uuid;

use super::*;

mod damage;
mod figures;
mod full_disk;
mod model;
mod road;

fn host(number: u128) -> HostId {
    HostId::from_uuid(Uuid::from_u128(number))
}

fn subject(pid: u32) -> Subject {
    let boot_id = BootId::from_uuid(Uuid::from_u128(77));
    // No process has the PID 0.
    Subject::Process(ProcessKey {
        boot_id,
        pid: pid + 1,
        start_time: 1000 + u64::from(pid),
    })
}

fn id(host_number: u128, pid: u32) -> FindingId {
    subject(pid).finding_id(Some(host(host_number)))
}

fn report(pid: u32, indicators: &[(&str, Severity)]) -> Change {
    let indicator = |(id, severity): &(&str, Severity)| Indicator {
        id: id.parse().unwrap(),
        severity: *severity,
        evidence: "seen".into(),
    };
    Change::Reported(Box::new(Finding {
        subject: subject(pid),
        indicators: indicators.iter().map(indicator).collect(),
        observed_at: UnixMillis(5),
        uid: pid % 3,
        user: format!("user{}", pid % 3).into_bytes(),
        process: Some(ProcessFacts {
            comm: b"x\n)".to_vec(),
            exe: Some(format!("/dev/shm/.x{pid}").into_bytes()),
            exe_sha256: Some([u8::try_from(pid % 256).unwrap(); 32]),
            cmdline: Cmdline {
                raw: format!("sh\0-c\0job {pid}\0").into_bytes(),
                truncated: false,
            },
            files: vec![b"/dev/null".to_vec()],
            maps: vec![vec![b'm'; 100]],
            ..ProcessFacts::default()
        }),
        host: None,
        actions: Vec::new(),
        quiet: false,
    }))
}

fn simple(pid: u32) -> Change {
    report(pid, &[("exe-memfd", Severity::High)])
}

fn end(pid: u32) -> Change {
    Change::Ended(Ended {
        subject: subject(pid),
        ended_at: UnixMillis(900),
    })
}

async fn record(findings: &Findings, host_number: u128, at: i64, changes: Vec<Change>) {
    findings
        .record_changes(host(host_number), "web1", UnixMillis(at), changes)
        .await
        .unwrap();
}

/// Everything there is to list, page by page.
fn list_all(findings: &Findings, filter: &FindingFilter) -> Vec<StoredFinding> {
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let page = findings.list(filter, cursor.as_deref(), 7).unwrap();
        all.extend(page.findings);
        cursor = page.next_cursor;
        if cursor.is_none() {
            return all;
        }
    }
}

/// Ids of the records of the journal, in order.
fn journal_ids(findings: &Findings) -> Vec<FindingId> {
    let entry = |record: std::io::Result<crate::journal::JournalEntry>| {
        FindingEntry::decode(record.unwrap().payload).unwrap().id()
    };
    findings
        .inner
        .past
        .journal
        .read_from(Position(0))
        .map(entry)
        .collect()
}

fn open_small(data_dir: &Path, segment_bytes: u64) -> Findings {
    let (journal, _) = Journal::open_with(&data_dir.join("findings"), segment_bytes).unwrap();
    Findings::start(data_dir, journal).unwrap()
}
