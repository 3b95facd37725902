//! A finding: a process (or an account, or a host) with indicators, not ignored.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::clock::UnixMillis;
use crate::id::{BootId, FindingId, HostId};
use crate::indicator::Indicator;
use crate::process::{Cmdline, ProcessKey, Socket};
use crate::severity::Severity;

mod action;
mod evidence;
mod host;
mod sample;
pub mod view;

pub use action::ActionRecord;
pub use evidence::{Container, EnvironmentEntry, ExeFile};
pub use host::{BusyProcess, HostFacts, MemoryFigure, SocketCount};

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// One process.
    Process(ProcessKey),
    /// An account over a limit.
    Account {
        /// Boot during which it happened.
        boot_id: BootId,
        /// The account.
        uid: u32,
        /// When this episode began.
        since: UnixMillis,
    },
    /// The host itself over a limit.
    Host {
        /// Boot during which it happened.
        boot_id: BootId,
        /// When this episode began.
        since: UnixMillis,
    },
}

impl Subject {
    /// The boot during which the subject was seen.
    #[must_use]
    pub const fn boot_id(&self) -> BootId {
        match self {
            Self::Process(key) => key.boot_id,
            Self::Account { boot_id, .. } | Self::Host { boot_id, .. } => *boot_id,
        }
    }

    /// The id of the finding about this subject on `host`; a scan without a
    /// collector has no host id.
    #[must_use]
    pub fn finding_id(&self, host: Option<HostId>) -> FindingId {
        let mut hash = Sha256::new();
        hash.update(b"procwarden finding v1\0");
        hash.update(host.map_or([0; 16], |id| *id.as_bytes()));
        hash.update(self.boot_id().as_bytes());
        match self {
            Self::Process(key) => {
                hash.update(b"process\0");
                hash.update(key.pid.to_be_bytes());
                hash.update(key.start_time.to_be_bytes());
            }
            Self::Account { uid, since, .. } => {
                hash.update(b"account\0");
                hash.update(uid.to_be_bytes());
                hash.update(since.0.to_be_bytes());
            }
            Self::Host { since, .. } => {
                hash.update(b"host\0");
                hash.update(since.0.to_be_bytes());
            }
        }
        let mut id = [0; 16];
        for (to, from) in id.iter_mut().zip(hash.finalize()) {
            *to = from;
        }
        FindingId::from_bytes(id)
    }
}

/// What one report says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is about.
    pub subject: Subject,
    /// Why it was reported; never empty.
    pub indicators: Vec<Indicator>,
    /// When the agent looked, by the host's clock.
    pub observed_at: UnixMillis,
    /// The account.
    pub uid: u32,
    /// Its name, or its number where it has none; empty for a host.
    pub user: Vec<u8>,
    /// The process; nothing in a finding about an account or a host.
    pub process: Option<ProcessFacts>,
    /// The host; nothing in every other finding.
    pub host: Option<HostFacts>,
    /// What the host did about it, oldest first. A report of an agent carries
    /// what is new, a stored finding everything.
    pub actions: Vec<ActionRecord>,
    /// The host's own configuration wants no alert about it.
    pub quiet: bool,
}

impl Finding {
    /// The highest severity among the indicators.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.indicators
            .iter()
            .map(|i| i.severity)
            .max()
            .unwrap_or(Severity::Info)
    }
}

/// A process in a report: the facts for whoever has to decide.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProcessFacts {
    /// Parent's PID.
    pub ppid: u32,
    /// Parent's start time in clock ticks since boot; 0 when it is gone.
    pub parent_start_time: u64,
    /// When it started.
    pub started_at: UnixMillis,
    /// Its age when the agent looked.
    pub age_secs: u64,
    /// `/proc/PID/comm`.
    pub comm: Vec<u8>,
    /// Target of `/proc/PID/exe`, ` (deleted)` included.
    pub exe: Option<Vec<u8>>,
    /// The path does not name the file that runs any more.
    pub exe_deleted: bool,
    /// Digest of the file that runs.
    pub exe_sha256: Option<[u8; 32]>,
    /// The file that runs.
    pub exe_file: Option<ExeFile>,
    /// Arguments.
    pub cmdline: Cmdline,
    /// Working directory.
    pub cwd: Option<Vec<u8>>,
    /// Path in the unified hierarchy, or the first one of the old kind.
    pub cgroup: Vec<u8>,
    /// The container that its control group names.
    pub container: Option<Container>,
    /// Session id of setsid(2); 0 when it has none.
    pub session: u32,
    /// Name of the controlling terminal; empty when there is none.
    pub tty: String,
    /// Login uid (audit); nothing when it never logged in through PAM.
    pub loginuid: Option<u32>,
    /// Virtual memory.
    pub vsz_bytes: u64,
    /// Resident memory.
    pub rss_bytes: u64,
    /// Sockets.
    pub sockets: Vec<Socket>,
    /// Targets of open descriptors (bounded).
    pub files: Vec<Vec<u8>>,
    /// Parents, nearest first (bounded).
    pub ancestry: Vec<Ancestor>,
    /// Lines of `/proc/PID/maps` (bounded); of severity high and up.
    pub maps: Vec<Vec<u8>>,
    /// Variables of its environment with telling names (bounded).
    pub environment: Vec<EnvironmentEntry>,
}

/// A parent, or a parent's parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ancestor {
    /// Its PID.
    pub pid: u32,
    /// Target of its `/proc/PID/exe`; empty when it could not be read.
    pub exe: Vec<u8>,
    /// Its raw command line.
    pub cmdline: Vec<u8>,
}

/// The subject of a finding is gone, or the account is back under its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// What ended.
    pub subject: Subject,
    /// When the agent noticed, by the host's clock.
    pub ended_at: UnixMillis,
}

/// Where a stored finding stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FindingState {
    /// The process runs, as far as is known.
    Open,
    /// The process is gone.
    Ended,
    /// An operator dealt with it.
    Resolved,
}

impl FindingState {
    /// Every state with its word.
    pub const ALL: [(Self, &'static str); 3] = [
        (Self::Open, "open"),
        (Self::Ended, "ended"),
        (Self::Resolved, "resolved"),
    ];

    /// The word used in JSON, tables and flags.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(s, _)| *s == self)
            .map_or("", |(_, word)| word)
    }
}

impl fmt::Display for FindingState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A finding as the collector keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFinding {
    /// Its id, derived from host and subject.
    pub id: FindingId,
    /// The host, from its certificate.
    pub host_id: HostId,
    /// The host's name when it was reported.
    pub host_name: String,
    /// The newest report. From the index it lacks files, maps and ancestry.
    pub finding: Finding,
    /// Where it stands.
    pub state: FindingState,
    /// When the collector first received it.
    pub first_seen: UnixMillis,
    /// When the collector last received something about it.
    pub last_seen: UnixMillis,
    /// When it ended.
    pub ended_at: Option<UnixMillis>,
    /// Where the journal holds the newest full report.
    pub evidence_position: u64,
}
