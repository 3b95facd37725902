//! Findings and their ends, as agents send them.

use std::net::SocketAddr;

use bytes::Bytes;
use procwarden_proto::v1;
use v1::subject::Kind;

use super::{
    InvalidMessage, bounded_bytes, bounded_count, bounded_list, bounded_size, evidence, to_bytes,
};
use crate::clock::UnixMillis;
use crate::finding::{ActionRecord, Ancestor, Ended, Finding, ProcessFacts, Subject};
use crate::id::BootId;
use crate::indicator::Indicator;
use crate::limits;
use crate::process::{Cmdline, ProcessKey, Protocol, Socket, SocketState};
use crate::severity::Severity;

/// Longest name of a terminal, such as `pts/12`.
const TTY_BYTES_MAX: usize = 64;

impl TryFrom<v1::Finding> for Finding {
    type Error = InvalidMessage;

    fn try_from(message: v1::Finding) -> Result<Self, InvalidMessage> {
        let subject = subject_from_wire(message.subject)?;
        bounded_count(
            "indicators",
            message.indicators.len(),
            limits::INDICATORS_MAX,
        )?;
        if message.indicators.is_empty() {
            return Err(InvalidMessage::new("indicators", "is empty"));
        }
        let (is_process, is_host) = (
            matches!(subject, Subject::Process(_)),
            matches!(subject, Subject::Host { .. }),
        );
        if message.user.is_empty() && !is_host {
            return Err(InvalidMessage::new("user", "is empty"));
        }
        if is_process != message.process.is_some() {
            return Err(InvalidMessage::new("process", "does not fit the subject"));
        }
        if is_host != message.host.is_some() {
            return Err(InvalidMessage::new("host", "does not fit the subject"));
        }
        bounded_count("actions", message.actions.len(), limits::ACTIONS_MAX)?;
        Ok(Self {
            subject,
            indicators: message
                .indicators
                .into_iter()
                .map(indicator_from_wire)
                .collect::<Result<_, _>>()?,
            observed_at: UnixMillis(message.observed_at_ms),
            uid: message.uid,
            user: bounded_bytes("user", message.user, limits::USER_BYTES_MAX)?,
            process: message.process.map(ProcessFacts::try_from).transpose()?,
            host: message.host.map(TryInto::try_into).transpose()?,
            actions: message
                .actions
                .into_iter()
                .map(action_from_wire)
                .collect::<Result<_, _>>()?,
            quiet: message.quiet,
        })
    }
}

impl From<&Finding> for v1::Finding {
    fn from(finding: &Finding) -> Self {
        Self {
            subject: Some(subject_to_wire(&finding.subject)),
            indicators: finding.indicators.iter().map(indicator_to_wire).collect(),
            observed_at_ms: finding.observed_at.0,
            uid: finding.uid,
            user: to_bytes(&finding.user),
            process: finding.process.as_ref().map(Into::into),
            host: finding.host.as_ref().map(Into::into),
            actions: finding.actions.iter().map(action_to_wire).collect(),
            quiet: finding.quiet,
        }
    }
}

impl TryFrom<v1::FindingEnded> for Ended {
    type Error = InvalidMessage;

    fn try_from(message: v1::FindingEnded) -> Result<Self, InvalidMessage> {
        Ok(Self {
            subject: subject_from_wire(message.subject)?,
            ended_at: UnixMillis(message.ended_at_ms),
        })
    }
}

impl From<&Ended> for v1::FindingEnded {
    fn from(ended: &Ended) -> Self {
        Self {
            subject: Some(subject_to_wire(&ended.subject)),
            ended_at_ms: ended.ended_at.0,
        }
    }
}

/// What a finding is about.
///
/// # Errors
/// When it is missing or is nothing that there can be.
pub fn subject_from_wire(message: Option<v1::Subject>) -> Result<Subject, InvalidMessage> {
    let message = message.ok_or(InvalidMessage::missing("subject"))?;
    let boot_id = BootId::from_slice(&message.boot_id)
        .map_err(|error| InvalidMessage::new("subject.boot_id", error))?;
    match message.kind {
        Some(Kind::Process(process)) if process.pid == 0 => Err(InvalidMessage::new(
            "subject.pid",
            "is 0, which no process has",
        )),
        Some(Kind::Process(process)) => Ok(Subject::Process(ProcessKey {
            boot_id,
            pid: process.pid,
            start_time: process.start_time,
        })),
        Some(Kind::Account(account)) => Ok(Subject::Account {
            boot_id,
            uid: account.uid,
            since: UnixMillis(account.since_ms),
        }),
        Some(Kind::Host(host)) => Ok(Subject::Host {
            boot_id,
            since: UnixMillis(host.since_ms),
        }),
        None => Err(InvalidMessage::missing("subject.kind")),
    }
}

/// The message of a subject.
#[must_use]
pub fn subject_to_wire(subject: &Subject) -> v1::Subject {
    let kind = match *subject {
        Subject::Process(key) => Kind::Process(v1::ProcessSubject {
            pid: key.pid,
            start_time: key.start_time,
        }),
        Subject::Account { uid, since, .. } => Kind::Account(v1::AccountSubject {
            uid,
            since_ms: since.0,
        }),
        Subject::Host { since, .. } => Kind::Host(v1::HostSubject { since_ms: since.0 }),
    };
    v1::Subject {
        boot_id: to_bytes(subject.boot_id().as_bytes()),
        kind: Some(kind),
    }
}

fn indicator_from_wire(message: v1::Indicator) -> Result<Indicator, InvalidMessage> {
    bounded_size(
        "indicator.evidence",
        message.evidence.len(),
        limits::EVIDENCE_BYTES_MAX,
    )?;
    printable_only("indicator.evidence", &message.evidence)?;
    Ok(Indicator {
        id: message
            .id
            .parse()
            .map_err(|error| InvalidMessage::new("indicator.id", error))?,
        severity: severity_from_wire(message.severity)?,
        evidence: message.evidence,
    })
}

fn printable_only(field: &'static str, text: &str) -> Result<(), InvalidMessage> {
    if text.bytes().all(|byte| matches!(byte, 0x20..=0x7e)) {
        return Ok(());
    }
    Err(InvalidMessage::new(field, "is not printable ASCII"))
}

fn action_from_wire(message: v1::ActionRecord) -> Result<ActionRecord, InvalidMessage> {
    for (field, text, bytes_max) in [
        ("action.what", &message.what, limits::ACTION_BYTES_MAX),
        (
            "action.result",
            &message.result,
            limits::ACTION_RESULT_BYTES_MAX,
        ),
    ] {
        bounded_size(field, text.len(), bytes_max)?;
        printable_only(field, text)?;
    }
    Ok(ActionRecord {
        at: UnixMillis(message.at_ms),
        what: message.what,
        result: message.result,
    })
}

fn action_to_wire(record: &ActionRecord) -> v1::ActionRecord {
    v1::ActionRecord {
        at_ms: record.at.0,
        what: record.what.clone(),
        result: record.result.clone(),
    }
}

fn indicator_to_wire(indicator: &Indicator) -> v1::Indicator {
    v1::Indicator {
        id: indicator.id.as_str().to_owned(),
        severity: severity_to_wire(indicator.severity).into(),
        evidence: indicator.evidence.clone(),
    }
}

/// The severity that a number of the protocol stands for.
///
/// # Errors
/// When it stands for none.
pub fn severity_from_wire(number: i32) -> Result<Severity, InvalidMessage> {
    match v1::Severity::try_from(number) {
        Ok(v1::Severity::Info) => Ok(Severity::Info),
        Ok(v1::Severity::Low) => Ok(Severity::Low),
        Ok(v1::Severity::Medium) => Ok(Severity::Medium),
        Ok(v1::Severity::High) => Ok(Severity::High),
        Ok(v1::Severity::Critical) => Ok(Severity::Critical),
        Ok(v1::Severity::Unspecified) | Err(_) => Err(InvalidMessage::new(
            "severity",
            format!("is {number}, which is unknown"),
        )),
    }
}

/// The severity in the protocol.
#[must_use]
pub const fn severity_to_wire(severity: Severity) -> v1::Severity {
    match severity {
        Severity::Info => v1::Severity::Info,
        Severity::Low => v1::Severity::Low,
        Severity::Medium => v1::Severity::Medium,
        Severity::High => v1::Severity::High,
        Severity::Critical => v1::Severity::Critical,
    }
}

impl TryFrom<v1::ProcessFacts> for ProcessFacts {
    type Error = InvalidMessage;

    fn try_from(message: v1::ProcessFacts) -> Result<Self, InvalidMessage> {
        let path = |field, bytes: Bytes| bounded_bytes(field, bytes, limits::PATH_BYTES_MAX);
        bounded_count("sockets", message.sockets.len(), limits::SOCKETS_MAX)?;
        bounded_count("ancestry", message.ancestry.len(), limits::ANCESTRY_MAX)?;
        bounded_size("tty", message.tty.len(), TTY_BYTES_MAX)?;
        Ok(Self {
            ppid: message.ppid,
            parent_start_time: message.parent_start_time,
            started_at: UnixMillis(message.started_at_ms),
            age_secs: message.age_secs,
            comm: bounded_bytes("comm", message.comm, limits::COMM_BYTES_MAX)?,
            exe: message.exe.map(|exe| path("exe", exe)).transpose()?,
            exe_deleted: message.exe_deleted,
            exe_sha256: digest_from_wire(&message.exe_sha256)?,
            exe_file: message.exe_file.as_ref().map(evidence::exe_file_from_wire),
            cmdline: Cmdline {
                raw: bounded_bytes("cmdline", message.cmdline, limits::CMDLINE_BYTES_MAX)?,
                truncated: message.cmdline_truncated,
            },
            cwd: message.cwd.map(|cwd| path("cwd", cwd)).transpose()?,
            cgroup: path("cgroup", message.cgroup)?,
            container: message
                .container
                .as_ref()
                .map(evidence::container_from_wire)
                .transpose()?,
            session: message.session,
            tty: message.tty,
            loginuid: message.loginuid,
            vsz_bytes: message.vsz_bytes,
            rss_bytes: message.rss_bytes,
            sockets: message
                .sockets
                .iter()
                .map(socket_from_wire)
                .collect::<Result<_, _>>()?,
            files: bounded_list(
                "files",
                message.files,
                limits::FILES_MAX,
                limits::PATH_BYTES_MAX,
            )?,
            ancestry: message
                .ancestry
                .into_iter()
                .map(ancestor_from_wire)
                .collect::<Result<_, _>>()?,
            maps: bounded_list(
                "maps",
                message.maps,
                limits::MAPS_MAX,
                limits::MAP_LINE_BYTES_MAX,
            )?,
            environment: evidence::environment_from_wire(message.environment)?,
        })
    }
}

impl From<&ProcessFacts> for v1::ProcessFacts {
    fn from(facts: &ProcessFacts) -> Self {
        Self {
            ppid: facts.ppid,
            parent_start_time: facts.parent_start_time,
            started_at_ms: facts.started_at.0,
            age_secs: facts.age_secs,
            comm: to_bytes(&facts.comm),
            exe: facts.exe.as_deref().map(to_bytes),
            exe_deleted: facts.exe_deleted,
            exe_sha256: facts
                .exe_sha256
                .map_or_else(Bytes::new, |digest| to_bytes(&digest)),
            cmdline: to_bytes(&facts.cmdline.raw),
            cmdline_truncated: facts.cmdline.truncated,
            cwd: facts.cwd.as_deref().map(to_bytes),
            cgroup: to_bytes(&facts.cgroup),
            tty: facts.tty.clone(),
            loginuid: facts.loginuid,
            vsz_bytes: facts.vsz_bytes,
            rss_bytes: facts.rss_bytes,
            sockets: facts.sockets.iter().map(socket_to_wire).collect(),
            files: facts.files.iter().map(|file| to_bytes(file)).collect(),
            ancestry: facts.ancestry.iter().map(ancestor_to_wire).collect(),
            maps: facts.maps.iter().map(|line| to_bytes(line)).collect(),
            exe_file: facts.exe_file.as_ref().map(evidence::exe_file_to_wire),
            container: facts.container.as_ref().map(evidence::container_to_wire),
            session: facts.session,
            environment: evidence::environment_to_wire(&facts.environment),
        }
    }
}

fn digest_from_wire(bytes: &[u8]) -> Result<Option<[u8; 32]>, InvalidMessage> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let digest = bytes.try_into().map_err(|_| {
        InvalidMessage::new("exe_sha256", format!("has {} bytes, not 32", bytes.len()))
    })?;
    Ok(Some(digest))
}

fn socket_from_wire(message: &v1::Socket) -> Result<Socket, InvalidMessage> {
    Ok(Socket {
        protocol: protocol_from_wire("socket.proto", &message.proto)?,
        state: socket_state_from_wire("socket.state", &message.state)?,
        local: address_from_wire("socket.local", &message.local)?,
        remote: address_from_wire("socket.remote", &message.remote)?,
        filter_len: message.filter_length,
    })
}

pub(super) fn protocol_from_wire(
    field: &'static str,
    word: &str,
) -> Result<Protocol, InvalidMessage> {
    let known = Protocol::ALL.iter().find(|(_, known)| *known == word);
    Ok(known.ok_or(InvalidMessage::new(field, "is unknown"))?.0)
}

pub(super) fn socket_state_from_wire(
    field: &'static str,
    word: &str,
) -> Result<SocketState, InvalidMessage> {
    let known = SocketState::ALL.iter().find(|(_, known)| *known == word);
    Ok(known.ok_or(InvalidMessage::new(field, "is unknown"))?.0)
}

fn address_from_wire(
    field: &'static str,
    text: &str,
) -> Result<Option<SocketAddr>, InvalidMessage> {
    if text.is_empty() {
        return Ok(None);
    }
    let address = text
        .parse()
        .map_err(|_| InvalidMessage::new(field, "is not an address"))?;
    Ok(Some(address))
}

fn socket_to_wire(socket: &Socket) -> v1::Socket {
    let address = |address: Option<SocketAddr>| address.map_or_else(String::new, |a| a.to_string());
    v1::Socket {
        proto: socket.protocol.as_str().to_owned(),
        state: socket.state.as_str().to_owned(),
        local: address(socket.local),
        remote: address(socket.remote),
        filter_length: socket.filter_len,
    }
}

fn ancestor_from_wire(message: v1::Ancestor) -> Result<Ancestor, InvalidMessage> {
    Ok(Ancestor {
        pid: message.pid,
        exe: bounded_bytes("ancestor.exe", message.exe, limits::PATH_BYTES_MAX)?,
        cmdline: bounded_bytes(
            "ancestor.cmdline",
            message.cmdline,
            limits::ANCESTOR_CMDLINE_BYTES_MAX,
        )?,
    })
}

fn ancestor_to_wire(ancestor: &Ancestor) -> v1::Ancestor {
    v1::Ancestor {
        pid: ancestor.pid,
        exe: to_bytes(&ancestor.exe),
        cmdline: to_bytes(&ancestor.cmdline),
    }
}
