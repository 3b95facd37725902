//! The few findings that stand for all that a rule changes. Pure.

use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::{Finding, StoredFinding};
use procwarden_common::id::{FindingId, HostId};
use procwarden_common::policy::RuleText;
use procwarden_common::severity::Severity;

/// Findings named for one rule.
pub(super) const SAMPLES_MAX: usize = 5;

/// Characters of a text of a sample; a command line can have 32 KiB.
const TEXT_CHARS_MAX: usize = 256;

/// Indicators named in a sample.
const INDICATORS_MAX: usize = 8;

/// A finding in one line. Texts are in printable form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Nothing when it is not stored.
    pub(crate) id: Option<FindingId>,
    pub(crate) host_id: HostId,
    pub(crate) host_name: String,
    pub(crate) user: String,
    pub(crate) exe: String,
    pub(crate) cmdline: String,
    pub(crate) severity: Severity,
    pub(crate) indicators: Vec<String>,
    pub(crate) first_seen: UnixMillis,
}

/// The most severe findings so far, of those the newest.
#[derive(Debug, Default)]
pub(super) struct Worst {
    /// The worst first.
    samples: Vec<Sample>,
}

impl Worst {
    /// Keeps a finding when it belongs among them.
    pub(super) fn offer(&mut self, stored: &StoredFinding, text: &RuleText) {
        let rank = (stored.finding.severity(), stored.first_seen);
        let place = self
            .samples
            .partition_point(|sample| (sample.severity, sample.first_seen) >= rank);
        if place < SAMPLES_MAX {
            self.samples.truncate(SAMPLES_MAX - 1);
            self.samples.insert(place, Sample::stored(stored, text));
        }
    }

    /// The worst first.
    pub(super) fn into_samples(self) -> Vec<Sample> {
        self.samples
    }
}

impl Sample {
    /// A finding of a host in one line.
    pub(crate) fn new(host: (HostId, &str), finding: &Finding, text: &RuleText) -> Self {
        let (host_id, host_name) = (host.0, host.1.to_owned());
        let indicators = finding.indicators.iter().take(INDICATORS_MAX);
        Self {
            id: None,
            host_id,
            host_name,
            user: cut(&text.user),
            exe: text.exe.as_deref().map(cut).unwrap_or_default(),
            cmdline: text.cmd.as_deref().map(cut).unwrap_or_default(),
            severity: finding.severity(),
            indicators: indicators.map(|i| i.id.to_string()).collect(),
            first_seen: finding.observed_at,
        }
    }

    fn stored(stored: &StoredFinding, text: &RuleText) -> Self {
        let host = (stored.host_id, stored.host_name.as_str());
        Self {
            id: Some(stored.id),
            first_seen: stored.first_seen,
            ..Self::new(host, &stored.finding, text)
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}
