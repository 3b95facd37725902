//! Findings of realistic size (about 1.5 KB), each about another process.

use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::{Ancestor, Ended, Finding, ProcessFacts, Subject};
use procwarden_common::id::BootId;
use procwarden_common::indicator::{Indicator, IndicatorId};
use procwarden_common::process::{Cmdline, ProcessKey, Protocol, Socket, SocketState};
use procwarden_common::severity::Severity;
use procwarden_proto::v1;
use v1::connect_request::Message;

/// 2026-11-23, in Unix milliseconds: a load generator needs no clock.
pub(super) const STARTED_AT: UnixMillis = UnixMillis(1_795_392_000_000);

/// Start time of process 0, in clock ticks.
const START_TIME: u64 = 1_000;

pub(crate) fn hello(number: usize) -> v1::ConnectRequest {
    v1::ConnectRequest {
        message: Some(Message::Hello(v1::Hello {
            host_name: format!("load-{number}"),
            boot_id: boot_id(number).as_bytes().to_vec().into(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: "load".to_owned(),
            policy: None,
        })),
    }
}

/// A batch of these events.
pub(crate) fn of_events(events: Vec<v1::Event>) -> v1::ConnectRequest {
    v1::ConnectRequest {
        message: Some(Message::Batch(v1::Batch { events })),
    }
}

/// The report of a finding.
pub(crate) fn reported(sequence: u64, finding: &Finding) -> v1::Event {
    v1::Event {
        sequence,
        event: Some(v1::event::Event::Finding(Box::new(finding.into()))),
    }
}

/// The end of a process that was reported.
pub(crate) fn ended(sequence: u64, number: usize, process: u64) -> v1::Event {
    let ended = Ended {
        subject: Subject::Process(key(number, process)),
        ended_at: STARTED_AT.plus_millis(120_000),
    };
    v1::Event {
        sequence,
        event: Some(v1::event::Event::Ended(Box::new((&ended).into()))),
    }
}

/// A finding with one more indicator, of a higher severity.
pub(crate) fn grown(mut finding: Finding) -> Finding {
    finding.indicators.push(Indicator {
        id: IndicatorId::UNEXPECTED_LISTENER,
        severity: Severity::High,
        evidence: "listens on 0.0.0.0:31337".to_owned(),
    });
    finding
}

fn boot_id(number: usize) -> BootId {
    BootId::from_uuid(uuid::Uuid::from_u128(number as u128 + 1))
}

/// The number of the simulated host that has this boot id.
pub(crate) fn number_of(boot_id: &[u8]) -> Option<usize> {
    let raw = u128::from_be_bytes(boot_id.try_into().ok()?);
    usize::try_from(raw.checked_sub(1)?).ok()
}

pub(super) fn key(number: usize, process: u64) -> ProcessKey {
    ProcessKey {
        boot_id: boot_id(number),
        pid: u32::try_from(process % 4_000_000).unwrap_or(1) + 2,
        start_time: START_TIME + process,
    }
}

/// The process that has this start time.
pub(crate) fn process_of(start_time: u64) -> Option<u64> {
    start_time.checked_sub(START_TIME)
}

/// What a host reports about a process.
pub(crate) fn finding(number: usize, process: u64) -> Finding {
    Finding {
        subject: Subject::Process(key(number, process)),
        indicators: vec![Indicator {
            id: IndicatorId::EXE_IN_VOLATILE_DIR,
            severity: Severity::Low,
            evidence: "the executable lies below /dev/shm".to_owned(),
        }],
        observed_at: STARTED_AT.plus_millis(60_000),
        uid: 1_000 + u32::try_from(process % 500).unwrap_or(0),
        user: format!("customer{}", process % 500).into_bytes(),
        process: Some(facts(process)),
        host: None,
        actions: Vec::new(),
        quiet: false,
    }
}

fn facts(process: u64) -> ProcessFacts {
    ProcessFacts {
        ppid: 1,
        parent_start_time: 1,
        started_at: STARTED_AT,
        age_secs: 60,
        comm: b"dbus".to_vec(),
        exe: Some(format!("/dev/shm/.cache-{process}/dbus").into_bytes()),
        exe_sha256: Some([7; 32]),
        cmdline: Cmdline {
            raw: b"/usr/sbin/httpd\0-k\0start\0".to_vec(),
            truncated: false,
        },
        cwd: Some(b"/dev/shm".to_vec()),
        cgroup: b"/user.slice/user-1000.slice/session-1.scope".to_vec(),
        vsz_bytes: 100 << 20,
        rss_bytes: 10 << 20,
        sockets: vec![Socket {
            protocol: Protocol::Tcp,
            state: SocketState::Listen,
            local: Some(([0, 0, 0, 0], 31337).into()),
            remote: None,
            filter_len: None,
        }],
        files: (0..16)
            .map(|n| format!("/home/customer/public_html/file-{n}").into_bytes())
            .collect(),
        ancestry: vec![Ancestor {
            pid: 1,
            exe: b"/usr/lib/systemd/systemd".to_vec(),
            cmdline: b"/sbin/init\0".to_vec(),
        }],
        maps: (0..9)
            .map(|n| {
                format!("7f00000{n}0000-7f00000{n}1000 r-xp 00000000 08:01 1234 /usr/lib/x.so")
                    .into()
            })
            .collect(),
        ..ProcessFacts::default()
    }
}
