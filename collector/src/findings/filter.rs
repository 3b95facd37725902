//! Which findings are asked for. Pure.

use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::{FindingState, ProcessFacts, StoredFinding};
use procwarden_common::id::HostId;
use procwarden_common::indicator::IndicatorId;
use procwarden_common::severity::Severity;

/// Which findings are asked for. Every field narrows the answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FindingFilter {
    pub(crate) host: Option<HostId>,
    /// Raw bytes of the account's name.
    pub(crate) user: Option<Vec<u8>>,
    pub(crate) indicator: Option<IndicatorId>,
    pub(crate) min_severity: Option<Severity>,
    pub(crate) state: Option<FindingState>,
    /// First seen then or later.
    pub(crate) since: Option<UnixMillis>,
    /// First seen before.
    pub(crate) until: Option<UnixMillis>,
    pub(crate) exe: Option<ExeFilter>,
    /// Part of the executable's path or of the command line, as raw bytes with
    /// a space between two arguments. Never empty.
    pub(crate) text: Option<Vec<u8>>,
}

/// Which executable is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ExeFilter {
    /// Target of `/proc/PID/exe`, ` (deleted)` included.
    Path(Vec<u8>),
    /// Digest of the file that ran.
    Sha256([u8; 32]),
}

impl FindingFilter {
    /// Whether a finding is among those asked for.
    pub(crate) fn matches(&self, stored: &StoredFinding) -> bool {
        let finding = &stored.finding;
        let process = finding.process.as_ref();
        let has = |id: &IndicatorId| finding.indicators.iter().any(|i| i.id == *id);
        self.host.is_none_or(|host| stored.host_id == host)
            && self.user.as_ref().is_none_or(|user| finding.user == *user)
            && self.indicator.as_ref().is_none_or(has)
            && self
                .min_severity
                .is_none_or(|least| finding.severity() >= least)
            && self.state.is_none_or(|state| stored.state == state)
            && self.since.is_none_or(|since| stored.first_seen >= since)
            && self.until.is_none_or(|until| stored.first_seen < until)
            && self
                .exe
                .as_ref()
                .is_none_or(|exe| process.is_some_and(|p| exe.matches(p)))
            && self
                .text
                .as_ref()
                .is_none_or(|text| process.is_some_and(|p| mentions(p, text)))
    }
}

impl ExeFilter {
    fn matches(&self, process: &ProcessFacts) -> bool {
        match self {
            Self::Path(path) => process.exe.as_ref() == Some(path),
            Self::Sha256(sum) => process.exe_sha256.as_ref() == Some(sum),
        }
    }
}

fn mentions(process: &ProcessFacts, text: &[u8]) -> bool {
    let with_spaces = |byte: &u8| if *byte == 0 { b' ' } else { *byte };
    let arguments: Vec<u8> = process.cmdline.raw.iter().map(with_spaces).collect();
    let exe = process.exe.as_deref().unwrap_or_default();
    [exe, &arguments]
        .into_iter()
        .any(|place| memchr::memmem::find(place, text).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_looked_for_in_path_and_arguments() {
        let mut process = ProcessFacts {
            exe: Some(b"/dev/shm/.x".to_vec()),
            ..ProcessFacts::default()
        };
        process.cmdline.raw = b"sh\0-c\0id".to_vec();
        for (text, expected) in [
            ("shm/.x", true),
            ("sh -c id", true),
            ("-c id", true),
            ("xsh", false),
            ("SHM", false),
        ] {
            assert_eq!(mentions(&process, text.as_bytes()), expected, "{text}");
        }
    }
}
