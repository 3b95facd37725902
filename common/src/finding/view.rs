//! The JSON object of a finding that `scan --json`, `findings list --json`
//! and `findings show --json` share. Text is in printable form; a field that
//! does not apply is absent.
//!
//! Promises: names and order of the fields are those of the shared design.
//! Never holds a byte that is not printable ASCII.

use serde::Serialize;

use super::{Finding, ProcessFacts, StoredFinding, Subject};
use crate::policy::Verdict;
use crate::printable::{printable, printable_cmdline, printable_text};
use crate::process;

mod evidence;
mod host;

pub use evidence::{ContainerView, EnvironmentView, ExeFileView};
pub use host::{ActionView, BusyProcessView, HostView, MemoryFigureView, SocketCountView};

/// The object. Field names are fixed by the shared design.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FindingView {
    /// Hexadecimal id.
    pub id: String,
    /// "process", "account" or "host".
    pub kind: &'static str,
    /// Name of the host.
    pub host: String,
    /// Its id; a one-shot scan has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_id: Option<String>,
    /// The boot during which it was seen.
    pub boot_id: String,
    /// Facts of the process; nothing of an account.
    #[serde(flatten)]
    pub process: Option<ProcessView>,
    /// Whose it is; nothing of a host.
    #[serde(flatten)]
    pub account: Option<AccountView>,
    /// What it runs and where; nothing of an account.
    #[serde(flatten)]
    pub program: Option<ProgramView>,
    /// The highest severity among the indicators.
    pub severity: &'static str,
    /// Why it is listed.
    pub indicators: Vec<IndicatorView>,
    /// Sockets of the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sockets: Option<Vec<SocketView>>,
    /// Open files; listings of the collector leave them out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// Parents, nearest first; listings of the collector leave them out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ancestry: Vec<AncestorView>,
    /// Telling variables of the environment; listings of the collector leave
    /// them out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub environment: Vec<EnvironmentView>,
    /// How the host stood, in a finding about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<HostView>,
    /// What the host did about it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<ActionView>,
    /// "report" or "ignored".
    pub verdict: &'static str,
    /// The rule that covers it, as a pignore line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Where that rule was written: `policy r3 file:line`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule_origin: Option<String>,
    /// "open", "ended" or "resolved"; of the collector's findings only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<&'static str>,
    /// When the collector first received it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_seen: Option<String>,
    /// When the collector last received something about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<String>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
}

/// Which process it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProcessView {
    /// Its process id.
    pub pid: u32,
    /// Clock ticks since boot.
    pub start_time: u64,
    /// When it started.
    pub started_at: String,
    /// Its age when the agent looked.
    pub age_secs: u64,
    /// Its parent.
    pub ppid: u32,
}

/// Whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AccountView {
    /// Number of the account.
    pub uid: u32,
    /// Its name, or its number where it has none.
    pub user: String,
}

/// What a process runs, and what it says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProgramView {
    /// Its comm.
    pub comm: String,
    /// Link text of its executable, ` (deleted)` included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
    /// The path does not name the file that runs any more.
    pub exe_deleted: bool,
    /// Hexadecimal digest of the file that runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exe_sha256: Option<String>,
    /// The file that runs, deleted or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exe_file: Option<ExeFileView>,
    /// Its command line, as rules see it.
    pub cmdline: String,
    /// Its working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Its control group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// The container it lives in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerView>,
    /// Its session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<u32>,
    /// Its terminal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tty: Option<String>,
    /// Its login uid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loginuid: Option<u32>,
}

/// One indicator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IndicatorView {
    /// Its stable name.
    pub id: String,
    /// How bad it is here.
    pub severity: &'static str,
    /// What was seen.
    pub evidence: String,
}

/// One socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SocketView {
    /// Its kind.
    pub proto: &'static str,
    /// Its state.
    pub state: &'static str,
    /// Its own address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<String>,
    /// Its peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
    /// Instructions of a packet socket's filter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter_length: Option<u32>,
}

/// One parent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AncestorView {
    /// Its process id.
    pub pid: u32,
    /// Its executable; absent when it could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
    /// Its command line.
    pub cmdline: String,
}

impl FindingView {
    /// The view of a finding of the collector.
    #[must_use]
    pub fn of_stored(stored: &StoredFinding) -> Self {
        let mut view = Self::new(stored.id.to_string(), &stored.host_name, &stored.finding);
        view.host_id = Some(stored.host_id.to_string());
        view.state = Some(stored.state.as_str());
        view.first_seen = Some(stored.first_seen.to_string());
        view.last_seen = Some(stored.last_seen.to_string());
        view.ended_at = stored.ended_at.map(|at| at.to_string());
        view
    }

    /// The view of a finding of a one-shot scan, which has no host id.
    #[must_use]
    pub fn of_scan(host: &str, finding: &Finding, verdict: &Verdict) -> Self {
        let mut view = Self::new(finding.subject.finding_id(None).to_string(), host, finding);
        if let Verdict::Ignored(rule) = verdict {
            let origin = &rule.origin;
            view.verdict = "ignored";
            view.rule = Some(printable_text(&rule.to_string()).into_owned());
            view.rule_origin = Some(format!(
                "{} r{} {}:{}",
                printable_text(&origin.policy),
                origin.revision,
                printable_text(&origin.file),
                origin.line
            ));
        }
        view
    }

    fn new(id: String, host: &str, finding: &Finding) -> Self {
        let facts = finding.process.as_ref();
        Self {
            id,
            kind: match finding.subject {
                Subject::Process(_) => "process",
                Subject::Account { .. } => "account",
                Subject::Host { .. } => "host",
            },
            host: printable(host.as_bytes()),
            host_id: None,
            boot_id: finding.subject.boot_id().to_string(),
            process: facts.and_then(|facts| ProcessView::new(&finding.subject, facts)),
            account: (!matches!(finding.subject, Subject::Host { .. })).then(|| AccountView {
                uid: finding.uid,
                user: printable(&finding.user),
            }),
            program: facts.map(ProgramView::new),
            severity: finding.severity().as_str(),
            indicators: finding.indicators.iter().map(IndicatorView::new).collect(),
            sockets: facts.map(|facts| facts.sockets.iter().map(SocketView::new).collect()),
            files: facts.map_or_else(Vec::new, |f| f.files.iter().map(|f| printable(f)).collect()),
            ancestry: facts.map_or_else(Vec::new, |f| {
                f.ancestry.iter().map(AncestorView::new).collect()
            }),
            environment: facts.map_or_else(Vec::new, |f| {
                f.environment.iter().map(EnvironmentView::new).collect()
            }),
            load: finding.host.as_ref().map(HostView::new),
            actions: finding.actions.iter().map(ActionView::new).collect(),
            verdict: "report",
            rule: None,
            rule_origin: None,
            state: None,
            first_seen: None,
            last_seen: None,
            ended_at: None,
        }
    }
}

impl ProcessView {
    fn new(subject: &Subject, facts: &ProcessFacts) -> Option<Self> {
        let Subject::Process(key) = subject else {
            return None;
        };
        Some(Self {
            pid: key.pid,
            start_time: key.start_time,
            started_at: facts.started_at.to_string(),
            age_secs: facts.age_secs,
            ppid: facts.ppid,
        })
    }
}

impl ProgramView {
    fn new(facts: &ProcessFacts) -> Self {
        let unless_empty = |text: String| (!text.is_empty()).then_some(text);
        Self {
            comm: printable(&facts.comm),
            exe: facts.exe.as_deref().map(printable),
            exe_deleted: facts.exe_deleted,
            exe_sha256: facts.exe_sha256.map(|d| data_encoding::HEXLOWER.encode(&d)),
            exe_file: facts.exe_file.as_ref().map(ExeFileView::new),
            cmdline: printable_cmdline(&facts.cmdline.raw),
            cwd: facts.cwd.as_deref().map(printable),
            cgroup: unless_empty(printable(&facts.cgroup)),
            container: facts.container.as_ref().map(ContainerView::new),
            session: (facts.session != 0).then_some(facts.session),
            tty: unless_empty(printable(facts.tty.as_bytes())),
            loginuid: facts.loginuid,
        }
    }
}

impl IndicatorView {
    fn new(indicator: &crate::indicator::Indicator) -> Self {
        Self {
            id: indicator.id.to_string(),
            severity: indicator.severity.as_str(),
            evidence: printable_text(&indicator.evidence).into_owned(),
        }
    }
}

impl SocketView {
    fn new(socket: &process::Socket) -> Self {
        Self {
            proto: socket.protocol.as_str(),
            state: socket.state.as_str(),
            local: socket.local.map(|address| address.to_string()),
            remote: socket.remote.map(|address| address.to_string()),
            filter_length: socket.filter_len,
        }
    }
}

impl AncestorView {
    fn new(ancestor: &super::Ancestor) -> Self {
        Self {
            pid: ancestor.pid,
            exe: (!ancestor.exe.is_empty()).then(|| printable(&ancestor.exe)),
            cmdline: printable_cmdline(&ancestor.cmdline),
        }
    }
}

#[cfg(test)]
mod tests;
