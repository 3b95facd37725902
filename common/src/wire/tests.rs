//! Domain values go through their messages unchanged; hostile messages do not
//! get through at all.

use std::net::{IpAddr, SocketAddr};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::{option, sample};
use prost::Message;
use uuid::Uuid;

use super::*;
use crate::clock::UnixMillis;
use crate::finding::{
    ActionRecord, Ancestor, BusyProcess, Container, EnvironmentEntry, ExeFile, FindingState,
    HostFacts, MemoryFigure, ProcessFacts, SocketCount, StoredFinding, Subject,
};
use crate::id::{BootId, FindingId, HostId};
use crate::indicator::{Indicator, IndicatorId};
use crate::limits;
use crate::policy::{EffectivePolicy, PolicyDocument, PolicyFile};
use crate::process::{Cmdline, ProcessKey, Protocol, Socket, SocketState};
use crate::severity::Severity;

fn raw(max: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..max)
}

fn millis() -> impl Strategy<Value = UnixMillis> {
    any::<i64>().prop_map(UnixMillis)
}

fn boot_id() -> impl Strategy<Value = BootId> {
    any::<u128>().prop_map(|n| BootId::from_uuid(Uuid::from_u128(n)))
}

fn process_subject() -> impl Strategy<Value = Subject> {
    (boot_id(), 1..u32::MAX, any::<u64>()).prop_map(|(boot_id, pid, start_time)| {
        Subject::Process(ProcessKey {
            boot_id,
            pid,
            start_time,
        })
    })
}

fn account_subject() -> impl Strategy<Value = Subject> {
    (boot_id(), any::<u32>(), millis()).prop_map(|(boot_id, uid, since)| Subject::Account {
        boot_id,
        uid,
        since,
    })
}

fn indicator() -> impl Strategy<Value = Indicator> {
    (
        "[a-z0-9-]{1,64}",
        sample::select(Severity::ALL.to_vec()),
        "[ -~]{0,40}",
    )
        .prop_map(|(id, severity, evidence)| Indicator {
            id: id
                .parse::<IndicatorId>()
                .expect("the strategy makes good names"),
            severity,
            evidence,
        })
}

fn address() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

fn socket() -> impl Strategy<Value = Socket> {
    (
        sample::select(Protocol::ALL.map(|(protocol, _)| protocol).to_vec()),
        sample::select(SocketState::ALL.map(|(state, _)| state).to_vec()),
        option::of(address()),
        option::of(address()),
        option::of(any::<u32>()),
    )
        .prop_map(|(protocol, state, local, remote, filter_len)| Socket {
            protocol,
            state,
            local,
            remote,
            filter_len,
        })
}

fn ancestor() -> impl Strategy<Value = Ancestor> {
    (any::<u32>(), raw(20), raw(20)).prop_map(|(pid, exe, cmdline)| Ancestor { pid, exe, cmdline })
}

fn exe_file() -> impl Strategy<Value = ExeFile> {
    let numbers = (
        any::<(u32, u32)>(),
        any::<u64>(),
        any::<(u32, u32)>(),
        millis(),
        any::<u64>(),
    );
    numbers.prop_map(
        |(device, inode, (owner_uid, mode), modified_at, size_bytes)| ExeFile {
            device_major: device.0,
            device_minor: device.1,
            inode,
            owner_uid,
            mode,
            modified_at,
            size_bytes,
        },
    )
}

fn container() -> impl Strategy<Value = Container> {
    ("[a-z-]{1,32}", "[A-Za-z0-9._-]{1,128}")
        .prop_map(|(runtime, id)| Container::new(&runtime, &id).expect("good words"))
}

fn environment_entry() -> impl Strategy<Value = EnvironmentEntry> {
    ("[A-Z_]{1,9}", raw(20), any::<bool>()).prop_map(|(name, value, value_truncated)| {
        EnvironmentEntry {
            name,
            value,
            value_truncated,
        }
    })
}

fn facts() -> impl Strategy<Value = ProcessFacts> {
    let numbers = (
        any::<u32>(),
        any::<u64>(),
        millis(),
        any::<u64>(),
        any::<u64>(),
        any::<u64>(),
    );
    let exe = (
        option::of(raw(30)),
        any::<bool>(),
        option::of(any::<[u8; 32]>()),
    );
    let texts = (
        raw(20),
        raw(40),
        any::<bool>(),
        option::of(raw(20)),
        raw(20),
        "[a-z0-9/]{0,8}",
    );
    let lists = (
        vec(socket(), 0..3),
        vec(raw(9), 0..3),
        vec(ancestor(), 0..3),
        vec(raw(9), 0..3),
    );
    let more = (
        option::of(exe_file()),
        option::of(container()),
        any::<u32>(),
        vec(environment_entry(), 0..3),
        option::of(any::<u32>()),
    );
    (numbers, exe, texts, lists, more).prop_map(|(numbers, exe, texts, lists, more)| ProcessFacts {
        ppid: numbers.0,
        parent_start_time: numbers.1,
        started_at: numbers.2,
        age_secs: numbers.3,
        vsz_bytes: numbers.4,
        rss_bytes: numbers.5,
        exe: exe.0,
        exe_deleted: exe.1,
        exe_sha256: exe.2,
        comm: texts.0,
        cmdline: Cmdline {
            raw: texts.1,
            truncated: texts.2,
        },
        cwd: texts.3,
        cgroup: texts.4,
        tty: texts.5,
        sockets: lists.0,
        files: lists.1,
        ancestry: lists.2,
        maps: lists.3,
        exe_file: more.0,
        container: more.1,
        session: more.2,
        environment: more.3,
        loginuid: more.4,
    })
}

fn host_subject() -> impl Strategy<Value = Subject> {
    (boot_id(), millis()).prop_map(|(boot_id, since)| Subject::Host { boot_id, since })
}

fn busy() -> impl Strategy<Value = BusyProcess> {
    let numbers = (any::<u32>(), any::<u32>(), any::<u64>());
    (
        numbers,
        proptest::char::range('A', 'Z'),
        raw(9),
        raw(9),
        raw(20),
    )
        .prop_map(|(numbers, state, user, comm, cmdline)| BusyProcess {
            pid: numbers.0,
            user,
            cpu_permille: numbers.1,
            rss_bytes: numbers.2,
            state,
            comm,
            cmdline,
        })
}

fn host_facts() -> impl Strategy<Value = HostFacts> {
    let count = (socket(), any::<u64>()).prop_map(|(socket, count)| SocketCount {
        protocol: socket.protocol,
        state: socket.state,
        count,
    });
    let figure =
        ("[A-Za-z_()]{1,32}", any::<u64>()).prop_map(|(name, bytes)| MemoryFigure { name, bytes });
    let lists = (vec(busy(), 0..3), vec(count, 0..3), vec(figure, 0..3));
    (any::<[u32; 3]>(), any::<u32>(), any::<u32>(), lists).prop_map(
        |(load_hundredths, processors, processes, (busy, sockets, memory))| HostFacts {
            load_hundredths,
            processors,
            processes,
            busy,
            sockets,
            memory,
        },
    )
}

fn action() -> impl Strategy<Value = ActionRecord> {
    (millis(), ".{0,80}", ".{0,600}")
        .prop_map(|(at, what, result)| ActionRecord::new(at, &what, &result))
}

fn finding() -> impl Strategy<Value = Finding> {
    let about = prop_oneof![
        (process_subject(), facts().prop_map(Some), Just(None)),
        (account_subject(), Just(None), Just(None)),
        (host_subject(), Just(None), host_facts().prop_map(Some)),
    ];
    (
        about,
        vec(indicator(), 1..4),
        millis(),
        any::<u32>(),
        vec(any::<u8>(), 1..20),
        (vec(action(), 0..3), any::<bool>()),
    )
        .prop_map(
            |((subject, process, host), indicators, observed_at, uid, user, more)| Finding {
                subject,
                indicators,
                observed_at,
                uid,
                user,
                process,
                host,
                actions: more.0,
                quiet: more.1,
            },
        )
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        finding().prop_map(|finding| Change::Reported(Box::new(finding))),
        (process_subject(), millis())
            .prop_map(|(subject, ended_at)| Change::Ended(Ended { subject, ended_at })),
    ]
}

fn stored() -> impl Strategy<Value = StoredFinding> {
    let state = sample::select(FindingState::ALL.map(|(state, _)| state).to_vec());
    let ended_at = option::of((1..i64::MAX).prop_map(UnixMillis));
    (
        finding(),
        any::<u128>(),
        "[a-z.]{0,20}",
        state,
        (millis(), millis(), ended_at),
        any::<u64>(),
    )
        .prop_map(
            |(finding, host, host_name, state, times, evidence_position)| {
                let host_id = HostId::from_uuid(Uuid::from_u128(host));
                StoredFinding {
                    id: finding.subject.finding_id(Some(host_id)),
                    host_id,
                    host_name,
                    finding,
                    state,
                    first_seen: times.0,
                    last_seen: times.1,
                    ended_at: times.2,
                    evidence_position,
                }
            },
        )
}

fn policy() -> impl Strategy<Value = EffectivePolicy> {
    let file = ("[ -~]{0,12}", raw(30)).prop_map(|(path, content)| PolicyFile { path, content });
    let document = (
        "[a-z0-9._-]{1,64}",
        any::<u64>(),
        vec(file, 0..3),
        "[ -~\n]{0,30}",
    )
        .prop_map(|(name, revision, files, settings)| PolicyDocument {
            name,
            revision,
            files,
            settings,
        });
    vec(document, 0..3).prop_map(|documents| EffectivePolicy { documents })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_change_comes_back_from_its_event(sequence in any::<u64>(), change in change()) {
        let bytes = event_to_wire(sequence, &change).encode_to_vec();
        let message = v1::Event::decode(bytes.as_slice()).expect("own encoding");
        prop_assert_eq!(event_from_wire(message), Ok((sequence, change.clone())));
        let recorded = v1::findings_record::Change::from(&change);
        prop_assert_eq!(Change::try_from(recorded), Ok(change));
    }

    #[test]
    fn a_stored_finding_comes_back_from_its_message(stored in stored()) {
        prop_assert_eq!(StoredFinding::try_from(v1::StoredFinding::from(&stored)), Ok(stored));
    }

    #[test]
    fn a_policy_comes_back_from_its_message_and_keeps_its_hash(policy in policy()) {
        let back = EffectivePolicy::try_from(v1::EffectivePolicy::from(&policy));
        prop_assert_eq!(back.as_ref().map(policy_hash), Ok(policy_hash(&policy)));
        prop_assert_eq!(back, Ok(policy));
    }
}

fn good() -> v1::Finding {
    v1::Finding {
        subject: Some(v1::Subject {
            boot_id: vec![7; 16].into(),
            kind: Some(v1::subject::Kind::Process(v1::ProcessSubject {
                pid: 7,
                start_time: 9,
            })),
        }),
        indicators: vec![v1::Indicator {
            id: "exe-memfd".into(),
            severity: v1::Severity::High.into(),
            evidence: "it runs from memory".into(),
        }],
        observed_at_ms: 1,
        uid: 1000,
        user: "web1".into(),
        process: Some(v1::ProcessFacts {
            sockets: vec![v1::Socket {
                proto: "tcp".into(),
                state: "LISTEN".into(),
                local: "0.0.0.0:80".into(),
                remote: String::new(),
                filter_length: None,
            }],
            ancestry: vec![v1::Ancestor {
                pid: 1,
                ..Default::default()
            }],
            ..Default::default()
        }),
        host: None,
        actions: Vec::new(),
        quiet: false,
    }
}

type Spoil = fn(&mut v1::Finding);

/// Every bound of a finding, with a change that breaks it.
const BROKEN: &[(&str, Spoil)] = &[
    ("subject", |f| f.subject = None),
    ("subject.boot_id", |f| {
        f.subject.as_mut().unwrap().boot_id = vec![1; 15].into()
    }),
    ("subject.kind", |f| f.subject.as_mut().unwrap().kind = None),
    ("subject.pid", |f| {
        f.subject.as_mut().unwrap().kind = Some(v1::subject::Kind::Process(Default::default()));
    }),
    ("indicators", |f| f.indicators.clear()),
    ("indicators", |f| {
        f.indicators = vec![f.indicators[0].clone(); limits::INDICATORS_MAX + 1]
    }),
    ("indicator.id", |f| f.indicators[0].id = "Exe Memfd".into()),
    ("severity", |f| f.indicators[0].severity = 0),
    ("severity", |f| f.indicators[0].severity = 99),
    ("indicator.evidence", |f| {
        f.indicators[0].evidence = "a\u{1b}[2J".into()
    }),
    ("indicator.evidence", |f| {
        f.indicators[0].evidence = "\u{e9}".into()
    }),
    ("indicator.evidence", |f| {
        f.indicators[0].evidence = "a".repeat(limits::EVIDENCE_BYTES_MAX + 1);
    }),
    ("user", |f| f.user = Bytes::new()),
    ("user", |f| {
        f.user = vec![b'a'; limits::USER_BYTES_MAX + 1].into()
    }),
    ("process", |f| f.process = None),
    ("host", |f| f.host = Some(v1::HostFacts::default())),
    ("actions", |f| {
        f.actions = vec![v1::ActionRecord::default(); limits::ACTIONS_MAX + 1];
    }),
    ("action.result", |f| {
        let result = "a\nb".into();
        f.actions = vec![v1::ActionRecord {
            result,
            ..Default::default()
        }];
    }),
    ("process", |f| {
        f.subject.as_mut().unwrap().kind = Some(v1::subject::Kind::Account(Default::default()));
    }),
    ("comm", |f| {
        facts_of(f).comm = vec![0; limits::COMM_BYTES_MAX + 1].into()
    }),
    ("exe", |f| {
        facts_of(f).exe = Some(vec![0; limits::PATH_BYTES_MAX + 1].into())
    }),
    ("exe_sha256", |f| {
        facts_of(f).exe_sha256 = vec![0; 31].into()
    }),
    ("container", |f| {
        facts_of(f).container = Some(v1::Container {
            runtime: "docker".into(),
            id: "a\u{1b}[2J".into(),
        });
    }),
    ("environment", |f| {
        facts_of(f).environment = vec![variable(); limits::ENVIRONMENT_MAX + 1];
    }),
    ("environment.name", |f| {
        let name = "A\nB".into();
        facts_of(f).environment = vec![v1::EnvironmentEntry { name, ..variable() }];
    }),
    ("environment.value", |f| {
        let value = vec![0; limits::ENVIRONMENT_VALUE_BYTES_MAX + 1].into();
        facts_of(f).environment = vec![v1::EnvironmentEntry {
            value,
            ..variable()
        }];
    }),
    ("cmdline", |f| {
        facts_of(f).cmdline = vec![0; limits::CMDLINE_BYTES_MAX + 1].into()
    }),
    ("cwd", |f| {
        facts_of(f).cwd = Some(vec![0; limits::PATH_BYTES_MAX + 1].into())
    }),
    ("cgroup", |f| {
        facts_of(f).cgroup = vec![0; limits::PATH_BYTES_MAX + 1].into()
    }),
    ("tty", |f| facts_of(f).tty = "x".repeat(65)),
    ("sockets", |f| {
        facts_of(f).sockets = vec![Default::default(); limits::SOCKETS_MAX + 1]
    }),
    ("socket.proto", |f| {
        facts_of(f).sockets[0].proto = "dccp".into()
    }),
    ("socket.state", |f| {
        facts_of(f).sockets[0].state = "listen".into()
    }),
    ("socket.local", |f| {
        facts_of(f).sockets[0].local = "localhost:80".into()
    }),
    ("socket.remote", |f| {
        facts_of(f).sockets[0].remote = "1.2.3.4".into()
    }),
    ("files", |f| {
        facts_of(f).files = vec![Bytes::new(); limits::FILES_MAX + 1]
    }),
    ("files", |f| {
        facts_of(f).files = vec![vec![0; limits::PATH_BYTES_MAX + 1].into()]
    }),
    ("ancestry", |f| {
        facts_of(f).ancestry = vec![Default::default(); limits::ANCESTRY_MAX + 1]
    }),
    ("ancestor.exe", |f| {
        facts_of(f).ancestry[0].exe = vec![0; limits::PATH_BYTES_MAX + 1].into();
    }),
    ("ancestor.cmdline", |f| {
        facts_of(f).ancestry[0].cmdline = vec![0; limits::ANCESTOR_CMDLINE_BYTES_MAX + 1].into();
    }),
    ("maps", |f| {
        facts_of(f).maps = vec![Bytes::new(); limits::MAPS_MAX + 1]
    }),
    ("maps", |f| {
        facts_of(f).maps = vec![vec![0; limits::MAP_LINE_BYTES_MAX + 1].into()]
    }),
];

fn variable() -> v1::EnvironmentEntry {
    v1::EnvironmentEntry {
        name: "HOME".into(),
        ..Default::default()
    }
}

fn facts_of(finding: &mut v1::Finding) -> &mut v1::ProcessFacts {
    finding.process.as_mut().unwrap()
}

#[test]
fn a_finding_out_of_bounds_is_refused_with_the_name_of_the_field() {
    Finding::try_from(good()).expect("the unspoiled message is good");
    for (index, (field, spoil)) in BROKEN.iter().enumerate() {
        let mut message = good();
        spoil(&mut message);
        let error = Finding::try_from(message).expect_err(&format!("row {index}: {field}"));
        assert_eq!(error.field, *field, "row {index}: {error}");
    }
}

#[test]
fn a_stored_finding_out_of_bounds_is_refused() {
    let message = || v1::StoredFinding {
        id: FindingId::from_bytes([1; 16]).as_bytes().to_vec().into(),
        host_id: vec![2; 16].into(),
        host_name: "web".into(),
        finding: Some(good()),
        state: v1::FindingState::Open.into(),
        ..Default::default()
    };
    StoredFinding::try_from(message()).expect("the unspoiled message is good");
    for (field, message) in [
        (
            "id",
            v1::StoredFinding {
                id: Bytes::new(),
                ..message()
            },
        ),
        (
            "host_id",
            v1::StoredFinding {
                host_id: vec![2; 17].into(),
                ..message()
            },
        ),
        (
            "host_name",
            v1::StoredFinding {
                host_name: "a".repeat(254),
                ..message()
            },
        ),
        (
            "finding",
            v1::StoredFinding {
                finding: None,
                ..message()
            },
        ),
        (
            "state",
            v1::StoredFinding {
                state: 0,
                ..message()
            },
        ),
        (
            "state",
            v1::StoredFinding {
                state: 9,
                ..message()
            },
        ),
    ] {
        assert_eq!(
            StoredFinding::try_from(message).expect_err(field).field,
            field
        );
    }
}

#[test]
fn a_policy_out_of_bounds_is_refused() {
    let file = |bytes: usize| v1::PolicyFile {
        path: "a".into(),
        content: vec![0; bytes].into(),
    };
    let document = |files| v1::PolicyDocument {
        name: "web".into(),
        files,
        ..Default::default()
    };
    let half = limits::POLICY_BYTES_MAX / 2;
    for (field, document) in [
        (
            "policy.name",
            v1::PolicyDocument {
                name: "Web".into(),
                ..document(vec![])
            },
        ),
        (
            "policy.name",
            v1::PolicyDocument {
                name: "a".repeat(65),
                ..document(vec![])
            },
        ),
        (
            "policy.files",
            document(vec![file(0); limits::POLICY_FILES_MAX + 1]),
        ),
        ("policy", document(vec![file(half), file(half + 1)])),
        (
            "policy",
            v1::PolicyDocument {
                settings: " ".repeat(2 * half + 1),
                ..document(vec![])
            },
        ),
        (
            "policy.file.path",
            document(vec![v1::PolicyFile {
                path: "a".repeat(5_000),
                ..file(0)
            }]),
        ),
    ] {
        assert_eq!(
            PolicyDocument::try_from(document).expect_err(field).field,
            field
        );
    }
    let many = v1::EffectivePolicy {
        documents: vec![document(vec![]); limits::POLICIES_MAX + 1],
    };
    assert_eq!(
        EffectivePolicy::try_from(many).expect_err("too many").field,
        "documents"
    );
}

#[test]
fn an_empty_event_is_refused() {
    let error = event_from_wire(v1::Event {
        sequence: 1,
        event: None,
    })
    .expect_err("empty");
    assert_eq!(error.to_string(), "invalid message: event is missing");
}
