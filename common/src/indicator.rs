//! Indicators: what a detector says about one process, account or host.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use crate::severity::Severity;

/// Stable name of an indicator, such as `exe-memfd`.
///
/// A newer agent may name indicators that this build does not know: any name
/// of the right form is kept and shown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IndicatorId(Cow<'static, str>);

/// How often the same process must show an indicator before it is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmation {
    /// A single reading is proof enough.
    OneScan,
    /// Two consecutive scans: whatever can race is looked at twice.
    TwoScans,
}

/// What this build knows of an indicator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndicatorInfo {
    /// The name of design, policies and findings.
    pub id: &'static str,
    /// How often it must be seen.
    pub confirmation: Confirmation,
    /// What it means, as a sentence for the mail.
    pub words: &'static str,
}

macro_rules! indicators {
    ($($name:ident $id:literal $confirmation:ident $words:literal;)*) => {
        impl IndicatorId {
            $(#[doc = concat!("`", $id, "`: ", $words)]
            pub const $name: Self = Self(Cow::Borrowed($id));)*
        }

        /// Every indicator that this build can raise.
        pub const KNOWN: &[IndicatorInfo] = &[
            $(IndicatorInfo { id: $id, confirmation: Confirmation::$confirmation, words: $words },)*
        ];
    };
}

indicators! {
    FAKE_KERNEL_THREAD "fake-kernel-thread" OneScan
        "It calls itself a kernel thread, but it is an ordinary program.";
    EXE_MEMFD "exe-memfd" TwoScans
        "Its executable exists in memory only and never was a file on disk.";
    EXE_DELETED "exe-deleted" TwoScans
        "Its executable was deleted while it runs.";
    EXE_REPLACED "exe-replaced" OneScan
        "Its executable was replaced by another file: it still runs the old one and needs a restart.";
    EXE_IN_VOLATILE_DIR "exe-in-volatile-dir" TwoScans
        "Its executable lies in a directory for temporary files.";
    UNREADABLE_PROCESS "unreadable-process" OneScan
        "Reading it hangs: a part of it cannot be seen, and rules about that part do not match.";
    UNEXPECTED_LISTENER "unexpected-listener" TwoScans
        "It waits for connections from the network.";
    NETWORK_CONNECTION "network-connection" OneScan
        "It is connected to the network.";
    USER_PROCESS_COUNT "user-process-count" TwoScans
        "The account runs more processes than its limit.";
    PROCESS_VIRTUAL_MEMORY "process-virtual-memory" OneScan
        "It uses more virtual memory than its limit.";
    PROCESS_RESIDENT_MEMORY "process-resident-memory" TwoScans
        "It uses more resident memory than its limit.";
    PROCESS_RUN_TIME "process-run-time" OneScan
        "It runs longer than its limit.";
    FORK_BOMB "fork-bomb" OneScan
        "A session of the account has so many processes that it looks like a fork bomb.";
    HUNG_SSHD "hung-sshd" OneScan
        "It is a login that hangs in sshd before anybody authenticated.";
    HIGH_LOAD "high-load" OneScan
        "The load average of the host is over its limit.";
}

/// Longest name of an indicator, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// A text that cannot be the name of an indicator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an indicator: use lower-case letters, digits and hyphens")]
pub struct InvalidIndicatorId;

impl IndicatorId {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What this build knows of it; nothing for the name of a newer agent.
    #[must_use]
    pub fn info(&self) -> Option<&'static IndicatorInfo> {
        KNOWN.iter().find(|info| info.id == self.0)
    }
}

impl fmt::Display for IndicatorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for IndicatorId {
    type Err = InvalidIndicatorId;

    fn from_str(text: &str) -> Result<Self, InvalidIndicatorId> {
        if let Some(info) = KNOWN.iter().find(|info| info.id == text) {
            return Ok(Self(Cow::Borrowed(info.id)));
        }
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if text.is_empty() || text.len() > NAME_BYTES_MAX || !text.bytes().all(good) {
            return Err(InvalidIndicatorId);
        }
        Ok(Self(Cow::Owned(text.to_owned())))
    }
}

/// One indicator of one finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Indicator {
    /// Which one.
    pub id: IndicatorId,
    /// How bad it is here.
    pub severity: Severity,
    /// What was seen, in words: printable ASCII, hostile parts escaped.
    pub evidence: String,
}
