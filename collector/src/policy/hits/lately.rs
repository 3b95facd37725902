//! What one rule ignored on one host, and what is new of it. Pure.
//!
//! Told apart by counts and by the host's own times, so that its clock does not
//! matter; only of a host that nothing was known of, the time has to say.

use std::collections::BTreeMap;

use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::Finding;
use procwarden_common::id::HostId;
use procwarden_common::policy::RuleId;
use procwarden_common::severity::Severity;

use super::intake::{HostRule, Packed};

/// How far a host's counts for a rule have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Fresh ones.
    pub(crate) fresh: u64,
    /// Those that no sample stands for.
    pub(crate) unseen: u64,
    /// By the host's clock: when the newest was ignored that is known.
    pub(crate) newest: UnixMillis,
}

/// By rule and host.
pub(crate) type Marks = BTreeMap<(RuleId, HostId), Mark>;

impl Mark {
    /// Nothing was known, and what was ignored before this time is old.
    pub(crate) const fn before(time: UnixMillis) -> Self {
        Self {
            fresh: 0,
            unseen: 0,
            newest: time,
        }
    }

    pub(super) fn of(heard: &HostRule) -> Self {
        let seen: u64 = heard.samples.iter().map(|sample| sample.fresh).sum();
        let times = heard.samples.iter().map(|sample| sample.at);
        Self {
            fresh: heard.fresh,
            unseen: heard.fresh.saturating_sub(seen),
            newest: times
                .chain(heard.last_severe)
                .max()
                .unwrap_or(UnixMillis(0)),
        }
    }
}

/// What a rule ignores on a host.
#[derive(Debug, Clone)]
pub(crate) struct HostHit {
    pub(crate) rule: RuleId,
    pub(crate) host: HostId,
    pub(crate) mark: Mark,
    last_severe: Option<UnixMillis>,
    worst_fresh: Option<Severity>,
    samples: Vec<Packed>,
}

impl HostHit {
    pub(super) fn new(rule: RuleId, host: HostId, heard: &HostRule, mark: Mark) -> Self {
        Self {
            rule,
            host,
            mark,
            last_severe: heard.last_severe,
            worst_fresh: heard.worst_fresh,
            samples: heard.samples.clone(),
        }
    }

    /// Samples of what is new since a mark: fresh ones where their count has
    /// changed, because a host whose clock is ahead tells the same ones with
    /// other times each time; and what is less than severe, of which nothing but
    /// the time is known.
    pub(crate) fn samples_since(&self, before: Mark) -> impl Iterator<Item = Finding> {
        let has_fresh = self.mark.fresh != before.fresh;
        let is_new = move |sample: &&Packed| {
            let is_fresh = has_fresh && sample.fresh > 0;
            sample.at > before.newest && (is_fresh || sample.severity < Severity::High)
        };
        self.samples
            .iter()
            .filter(is_new)
            .filter_map(Packed::unpack)
    }

    /// The worst that fresh ones may be which no sample stands for, where there
    /// are such since a mark.
    pub(crate) fn unseen_since(&self, before: Mark) -> Option<Severity> {
        let is_new = self.mark.fresh > before.fresh
            && self.mark.unseen > before.unseen
            && self.last_severe.is_some_and(|last| last > before.newest);
        let worst = self.worst_fresh.unwrap_or(Severity::High);
        is_new.then_some(worst)
    }
}
