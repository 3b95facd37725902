//! What one rule ignored on one host since some time. Pure.

use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::Finding;
use procwarden_common::id::HostId;
use procwarden_common::policy::RuleId;
use procwarden_common::severity::Severity;

use super::intake::{HostRule, Packed};

/// What is asked for.
pub(crate) struct Lately<'a> {
    pub(crate) rules: &'a [RuleId],
    pub(crate) since: UnixMillis,
    /// What is less severe does not count.
    pub(crate) least: Severity,
}

/// What a rule ignored on a host since then.
#[derive(Debug, Clone)]
pub(crate) struct HostHit {
    pub(crate) rule: RuleId,
    pub(crate) host: HostId,
    /// When the newest of it was ignored.
    pub(crate) newest: UnixMillis,
    /// When the newest of severity high or critical was first ignored, be it
    /// among the samples or not.
    pub(crate) last_severe: Option<UnixMillis>,
    samples: Vec<Packed>,
}

impl HostHit {
    /// Nothing when it ignored nothing that counts.
    pub(super) fn of(
        rule: RuleId,
        host: HostId,
        heard: &HostRule,
        asked: &Lately<'_>,
    ) -> Option<Self> {
        let is_asked_for = |s: &&Packed| s.at >= asked.since && s.severity >= asked.least;
        let samples: Vec<Packed> = heard.samples.iter().filter(is_asked_for).cloned().collect();
        let last_severe = heard.last_severe.filter(|last| *last >= asked.since);
        let last_severe = last_severe.filter(|_| Severity::High >= asked.least);
        let times = samples.iter().map(|sample| sample.at).chain(last_severe);
        Some(Self {
            rule,
            host,
            newest: times.max()?,
            last_severe,
            samples,
        })
    }

    /// Samples of it: the most severe and newest ones that the agent kept.
    pub(crate) fn samples(&self) -> impl Iterator<Item = Finding> {
        self.samples.iter().filter_map(Packed::unpack)
    }
}
