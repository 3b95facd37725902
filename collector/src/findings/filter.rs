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
    /// Two filters that let no finding through both: this one, and what began
    /// before its time and is open still, which an operator sees as well. One
    /// without a beginning leaves nothing out.
    pub(crate) fn and_open_from_before(self) -> Vec<Self> {
        let Some(since) = self.since else {
            return vec![self];
        };
        let from_before = Self {
            since: None,
            until: Some(since),
            state: Some(FindingState::Open),
            ..self.clone()
        };
        vec![self, from_before]
    }

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
    use procwarden_common::finding::{Finding, Subject};
    use procwarden_common::id::{BootId, FindingId};

    use super::*;

    fn stored(state: FindingState, first_seen: i64) -> StoredFinding {
        StoredFinding {
            id: FindingId::from_bytes([1; 16]),
            host_id: HostId::from_slice(&[1; 16]).unwrap(),
            host_name: "web1".into(),
            finding: Finding {
                subject: Subject::Account {
                    boot_id: BootId::from_slice(&[1; 16]).unwrap(),
                    uid: 1000,
                    since: UnixMillis(first_seen),
                },
                indicators: Vec::new(),
                observed_at: UnixMillis(first_seen),
                uid: 1000,
                user: b"bob".to_vec(),
                process: None,
                host: None,
                actions: Vec::new(),
                quiet: false,
            },
            state,
            first_seen: UnixMillis(first_seen),
            last_seen: UnixMillis(first_seen),
            ended_at: None,
            evidence_position: 0,
        }
    }

    #[test]
    fn what_is_open_still_counts_once_however_long_ago_it_began() {
        let since = |since| FindingFilter {
            since,
            until: Some(UnixMillis(20)),
            ..FindingFilter::default()
        };
        for (from, state, first_seen, expected) in [
            (Some(10), FindingState::Open, 10, 1),
            (Some(10), FindingState::Open, 9, 1),
            (Some(10), FindingState::Open, 20, 0),
            (Some(10), FindingState::Ended, 10, 1),
            (Some(10), FindingState::Ended, 9, 0),
            (Some(10), FindingState::Resolved, 9, 0),
            (None, FindingState::Ended, 9, 1),
            (None, FindingState::Open, 9, 1),
        ] {
            let filters = since(from.map(UnixMillis)).and_open_from_before();
            let stored = stored(state, first_seen);
            let through = filters.iter().filter(|filter| filter.matches(&stored));
            assert_eq!(through.count(), expected, "{state:?} at {first_seen}");
        }
    }

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
