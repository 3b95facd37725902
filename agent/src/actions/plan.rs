//! What is to be done about a suspect, by the host's own configuration.
//!
//! Pure. Promises: nothing is wanted that the configuration does not name, and
//! nothing about a suspect that a rule covers (the caller asks for reported
//! ones only). Arguments of scripts are those of lfd.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;

use procwarden_common::finding::{Finding, Subject};
use procwarden_common::indicator::IndicatorId;
use procwarden_common::process::ProcessKey;

use super::config::ActionsConfig;
use super::kill::Reason;

/// Bytes of one argument or variable: the kernel takes 128 KiB of each.
const VALUE_BYTES_MAX: usize = 32 * 1024;
/// PIDs that one script is told.
const PIDS_MAX: usize = 4096;

/// One thing that is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted<'a> {
    Kill {
        what: &'static str,
        reason: Reason,
    },
    Script {
        what: &'static str,
        path: &'a Path,
        arguments: Vec<OsString>,
    },
}

impl Wanted<'_> {
    /// The key of agent.toml that wants it.
    pub(crate) const fn what(&self) -> &'static str {
        match self {
            Self::Kill { what, .. } | Self::Script { what, .. } => what,
        }
    }
}

/// What the configuration wants for a finding about these processes.
pub(crate) fn wanted<'a>(
    config: &'a ActionsConfig,
    finding: &Finding,
    members: &[ProcessKey],
) -> Vec<Wanted<'a>> {
    let shows = |ids: &[IndicatorId]| finding.indicators.iter().any(|i| ids.contains(&i.id));
    let over_limit = shows(&[
        IndicatorId::USER_PROCESS_COUNT,
        IndicatorId::PROCESS_VIRTUAL_MEMORY,
        IndicatorId::PROCESS_RESIDENT_MEMORY,
        IndicatorId::PROCESS_RUN_TIME,
    ]);
    let fork_bomb = shows(&[IndicatorId::FORK_BOMB]);
    let deleted = shows(&[IndicatorId::EXE_DELETED]);
    let load = shows(&[IndicatorId::HIGH_LOAD]);
    let kills = [
        (
            config.kill_over_limit && over_limit,
            "kill_over_limit",
            Reason::OverLimit,
        ),
        (
            config.kill_fork_bomb && fork_bomb,
            "kill_fork_bomb",
            Reason::ForkBomb,
        ),
        (
            config.kill_hung_sshd && shows(&[IndicatorId::HUNG_SSHD]),
            "kill_hung_sshd",
            Reason::HungSshd,
        ),
    ];
    let kills = kills
        .into_iter()
        .filter_map(|(is_wanted, what, reason)| is_wanted.then_some(Wanted::Kill { what, reason }));
    let scripts = [
        (
            deleted,
            "on_deleted",
            &config.on_deleted,
            deleted_arguments(finding),
        ),
        (
            over_limit || fork_bomb,
            "on_over_limit",
            &config.on_over_limit,
            vec![pids(members)],
        ),
        (load, "on_load", &config.on_load, Vec::new()),
    ];
    let scripts = scripts
        .into_iter()
        .filter_map(|(applies, what, path, arguments)| {
            let path = path.as_deref().filter(|_| applies)?;
            Some(Wanted::Script {
                what,
                path,
                arguments,
            })
        });
    kills.chain(scripts).collect()
}

/// Executable, PID, account, parent's PID: the order of PT_DELETED_ACTION.
fn deleted_arguments(finding: &Finding) -> Vec<OsString> {
    let (Subject::Process(key), Some(facts)) = (&finding.subject, &finding.process) else {
        return Vec::new();
    };
    vec![
        value(facts.exe.as_deref().unwrap_or_default()),
        key.pid.to_string().into(),
        value(&finding.user),
        facts.ppid.to_string().into(),
    ]
}

/// PIDs with commas between them: the argument of PT_USER_ACTION.
fn pids(members: &[ProcessKey]) -> OsString {
    let pids: Vec<String> = members
        .iter()
        .take(PIDS_MAX)
        .map(|key| key.pid.to_string())
        .collect();
    pids.join(",").into()
}

/// The variables that every script gets.
pub(crate) fn variables(
    what: &'static str,
    finding: &Finding,
    members: &[ProcessKey],
) -> Vec<(&'static str, OsString)> {
    let ids: Vec<&str> = finding.indicators.iter().map(|i| i.id.as_str()).collect();
    let mut variables: Vec<(&'static str, OsString)> = vec![
        ("PROCWARDEN_ACTION", what.into()),
        ("PROCWARDEN_INDICATORS", ids.join(" ").into()),
        ("PROCWARDEN_SEVERITY", finding.severity().as_str().into()),
    ];
    if !matches!(finding.subject, Subject::Host { .. }) {
        variables.extend([
            ("PROCWARDEN_UID", finding.uid.to_string().into()),
            ("PROCWARDEN_USER", value(&finding.user)),
            ("PROCWARDEN_PIDS", pids(members)),
        ]);
    }
    if let (Subject::Process(key), Some(facts)) = (&finding.subject, &finding.process) {
        variables.extend([
            ("PROCWARDEN_PID", key.pid.to_string().into()),
            ("PROCWARDEN_PPID", facts.ppid.to_string().into()),
            ("PROCWARDEN_START_TIME", key.start_time.to_string().into()),
            (
                "PROCWARDEN_EXE",
                value(facts.exe.as_deref().unwrap_or_default()),
            ),
            ("PROCWARDEN_COMM", value(&facts.comm)),
            ("PROCWARDEN_CMDLINE", spaced(&facts.cmdline.raw)),
        ]);
    }
    if let Some(host) = &finding.host {
        let names = [
            "PROCWARDEN_LOAD_1",
            "PROCWARDEN_LOAD_5",
            "PROCWARDEN_LOAD_15",
        ];
        let text = |load: u32| format!("{}.{:02}", load / 100, load % 100).into();
        variables.extend(names.into_iter().zip(host.load_hundredths.map(text)));
    }
    variables
}

/// Bytes of a process as they are. The kernel puts no NUL into a path or name,
/// and an argument that held one could not be passed at all.
fn value(raw: &[u8]) -> OsString {
    let raw = raw.get(..VALUE_BYTES_MAX).unwrap_or(raw);
    OsString::from_vec(raw.iter().copied().filter(|b| *b != 0).collect())
}

/// The arguments with blanks between them, as lfd shows a command line.
fn spaced(cmdline: &[u8]) -> OsString {
    let cmdline = cmdline.strip_suffix(b"\0").unwrap_or(cmdline);
    let blanks = cmdline.iter().map(|&b| if b == 0 { b' ' } else { b });
    value(&blanks.collect::<Vec<u8>>())
}

#[cfg(test)]
mod tests {
    use procwarden_common::clock::UnixMillis;
    use procwarden_common::finding::ProcessFacts;
    use procwarden_common::id::BootId;
    use procwarden_common::indicator::{Indicator, KNOWN};
    use procwarden_common::process::Cmdline;
    use procwarden_common::severity::Severity;
    use proptest::prelude::*;

    use super::*;

    const KEY: u32 = 42;

    fn key(pid: u32) -> ProcessKey {
        ProcessKey {
            boot_id: BootId::from_slice(&[1; 16]).unwrap(),
            pid,
            start_time: 7,
        }
    }

    fn finding(ids: &[&str]) -> Finding {
        let indicator = |id: &&str| Indicator {
            id: id.parse().unwrap(),
            severity: Severity::High,
            evidence: String::new(),
        };
        Finding {
            subject: Subject::Process(key(KEY)),
            indicators: ids.iter().map(indicator).collect(),
            observed_at: UnixMillis(0),
            uid: 1000,
            user: b"alice".to_vec(),
            process: Some(ProcessFacts {
                ppid: 9,
                exe: Some(b"/tmp/a b;\n$(x) (deleted)".to_vec()),
                comm: b"x".to_vec(),
                cmdline: Cmdline {
                    raw: b"a\0b\0".to_vec(),
                    truncated: false,
                },
                ..ProcessFacts::default()
            }),
            host: None,
            actions: Vec::new(),
            quiet: false,
        }
    }

    fn everything() -> ActionsConfig {
        ActionsConfig {
            on_deleted: Some("/d".into()),
            on_over_limit: Some("/o".into()),
            on_load: Some("/l".into()),
            kill_over_limit: true,
            kill_fork_bomb: true,
            kill_hung_sshd: true,
            ..ActionsConfig::default()
        }
    }

    fn names(config: &ActionsConfig, ids: &[&str]) -> Vec<&'static str> {
        let wanted = wanted(config, &finding(ids), &[key(KEY)]);
        wanted.iter().map(Wanted::what).collect()
    }

    #[test]
    fn each_indicator_wants_its_own_actions_and_by_default_none_does() {
        let all: Vec<&str> = KNOWN.iter().map(|info| info.id).collect();
        assert!(names(&ActionsConfig::default(), &all).is_empty());
        let config = everything();
        for (id, expected) in [
            ("exe-deleted", &["on_deleted"][..]),
            ("exe-replaced", &[]),
            ("exe-memfd", &[]),
            ("process-run-time", &["kill_over_limit", "on_over_limit"]),
            ("user-process-count", &["kill_over_limit", "on_over_limit"]),
            ("fork-bomb", &["kill_fork_bomb", "on_over_limit"]),
            ("hung-sshd", &["kill_hung_sshd"]),
            ("high-load", &["on_load"]),
            ("network-connection", &[]),
        ] {
            assert_eq!(names(&config, &[id]), expected, "{id}");
        }
    }

    #[test]
    fn scripts_get_the_arguments_of_lfd() {
        let config = everything();
        let arguments = |id: &str, members: &[ProcessKey]| {
            let finding = finding(&[id]);
            let wanted = wanted(&config, &finding, members);
            wanted.into_iter().find_map(|wanted| match wanted {
                Wanted::Script { arguments, .. } => Some(arguments),
                Wanted::Kill { .. } => None,
            })
        };
        let exe = "/tmp/a b;\n$(x) (deleted)";
        let expected = [exe, "42", "alice", "9"].map(OsString::from).to_vec();
        assert_eq!(arguments("exe-deleted", &[key(KEY)]), Some(expected));
        let two = [key(5), key(6)];
        assert_eq!(arguments("fork-bomb", &two), Some(vec!["5,6".into()]));
        let variables = variables("on_deleted", &finding(&["exe-deleted"]), &[key(KEY)]);
        let of = |name: &str| {
            variables
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| v.clone())
        };
        assert_eq!(of("PROCWARDEN_EXE"), Some(exe.into()));
        assert_eq!(of("PROCWARDEN_CMDLINE"), Some("a b".into()));
    }

    proptest! {
        #[test]
        fn no_bytes_of_a_process_make_an_argument_that_cannot_be_passed(
            exe in proptest::collection::vec(any::<u8>(), 0..200),
            cmdline in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut finding = finding(&["exe-deleted"]);
            let facts = finding.process.as_mut().unwrap();
            facts.exe = Some(exe);
            facts.cmdline.raw = cmdline;
            for (_, value) in variables("on_deleted", &finding, &[]) {
                prop_assert!(!value.as_encoded_bytes().contains(&0));
            }
            for argument in deleted_arguments(&finding) {
                prop_assert!(!argument.as_encoded_bytes().contains(&0));
            }
        }
    }
}
