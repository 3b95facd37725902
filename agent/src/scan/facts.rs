//! Turns a process of a snapshot into the facts of a finding, within bounds.

use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::{Finding, ProcessFacts, Subject};
use procwarden_common::indicator::Indicator;
use procwarden_common::limits::{PATH_BYTES_MAX, SOCKETS_MAX};
use procwarden_common::process::{ExeState, Process};

/// A finding about a process, without what evidence.rs adds.
pub(super) fn finding(process: &Process, indicators: Vec<Indicator>, now: UnixMillis) -> Finding {
    Finding {
        subject: Subject::Process(process.key),
        indicators,
        observed_at: now,
        uid: process.uid,
        user: process.user.to_vec(),
        process: Some(facts(process)),
    }
}

fn facts(process: &Process) -> ProcessFacts {
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
        cmdline: process.cmdline.value().cloned().unwrap_or_default(),
        tty: crate::procfs::parse::tty_name(process.tty_nr),
        vsz_bytes: process.vsz_bytes,
        rss_bytes: process.rss_bytes,
        sockets: process.sockets.iter().take(SOCKETS_MAX).cloned().collect(),
        ..ProcessFacts::default()
    }
}

fn bounded(bytes: &[u8], bytes_max: usize) -> Vec<u8> {
    bytes.get(..bytes_max).unwrap_or(bytes).to_vec()
}
