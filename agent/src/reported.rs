//! What was already reported, so that nothing is reported twice.
//!
//! Pure: takes what a scan found and returns what has to be said. The file is dealt with in `reported/file.rs`.
//!
//! Promises: a subject is reported when it is new, when it shows an indicator
//! it never showed, or when it became worse than it ever was; it is said once
//! that it ended. What the spool dropped is unsaid, and reported anew with
//! what the subject shows then. An ignored suspect is not remembered: when its
//! rule goes away, it is reported. An account has ended when two consecutive
//! scans do not show it: the first scan after a start confirms nothing yet. Holds no
//! more than there are live processes.

use std::collections::{BTreeMap, BTreeSet};

use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::{Ended, Finding, Subject};
use procwarden_common::id::BootId;
use procwarden_common::indicator::IndicatorId;
use procwarden_common::policy::Verdict;
use procwarden_common::severity::Severity;
use procwarden_common::wire::Change;

use crate::scan::{ScanOutcome, Suspect, is_alive};

pub(crate) mod file;
#[cfg(test)]
pub(crate) mod tests;

/// Every subject whose end was not reported yet.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Reported {
    subjects: BTreeMap<Subject, Said>,
    /// Accounts that the scan before did not show. Not kept on disk.
    missing: BTreeSet<Subject>,
}

/// What was said about one subject.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Said {
    indicators: BTreeSet<IndicatorId>,
    highest: Option<Severity>,
    /// Keys of agent.toml that were acted upon.
    actions: BTreeSet<String>,
}

impl Reported {
    /// What has to be said after a scan during `boot` about subjects that are
    /// gone; remembers it as said. What [`Reported::decide_looked`] says about
    /// the suspects of the scan comes behind it.
    #[must_use]
    pub(crate) fn decide_ended(&mut self, boot: BootId, outcome: &ScanOutcome) -> Vec<Change> {
        // Not even this process was listed: the scan saw nothing, which says
        // nothing about anyone.
        if outcome.alive.is_empty() {
            return Vec::new();
        }
        self.drop_ended(boot, outcome)
    }

    /// What has to be said about suspects of a scan or look, or about some of
    /// them; remembers it as said. Nobody is said to have ended. What was
    /// unsaid waits while there is no room for it, unless it became worse.
    #[must_use]
    pub(crate) fn decide_looked(&mut self, suspects: &[Suspect], has_room: bool) -> Vec<Change> {
        let mut changes = Vec::new();
        for suspect in suspects {
            if matches!(suspect.verdict, Verdict::Ignored(_)) {
                continue;
            }
            let subject = self.running_episode(suspect.bare.subject);
            let known = self.subjects.get(&subject);
            let waits = known.is_some_and(|said| said.waits_with(suspect.bare.severity()));
            if !has_room && waits {
                continue;
            }
            let said = self.subjects.entry(subject).or_default();
            if said.grows_by(&suspect.bare) {
                let mut finding = suspect.finding();
                finding.subject = subject;
                changes.push(Change::Reported(Box::new(finding)));
            }
        }
        changes
    }

    /// Whether an action was taken (done, refused or failed) about a subject.
    pub(crate) fn has_acted(&self, subject: &Subject, what: &str) -> bool {
        let said = self.subjects.get(subject);
        said.is_some_and(|said| said.actions.contains(what))
    }

    /// Remembers that an action was taken about a subject.
    pub(crate) fn note_action(&mut self, subject: Subject, what: &str) {
        if let Some(said) = self.subjects.get_mut(&subject) {
            said.actions.insert(what.to_owned());
        }
    }

    /// What was said about a subject was lost on its way: when it is seen and
    /// there is room, it is reported anew. What was done about it stays done.
    pub(crate) fn unsay(&mut self, subject: &Subject) {
        if let Some(said) = self.subjects.get_mut(subject) {
            said.unsay();
        }
    }

    /// As [`Reported::unsay`], for every subject.
    pub(crate) fn unsay_all(&mut self) {
        self.subjects.values_mut().for_each(Said::unsay);
    }

    /// How many subjects are remembered.
    pub(crate) fn len(&self) -> usize {
        self.subjects.len()
    }

    fn drop_ended(&mut self, boot: BootId, outcome: &ScanOutcome) -> Vec<Change> {
        let before = std::mem::take(&mut self.missing);
        let mut ended = Vec::new();
        for &subject in self.subjects.keys() {
            let is_account = matches!(subject, Subject::Account { .. });
            if subject.boot_id() == boot && is_alive(outcome, &subject) {
                continue;
            }
            if subject.boot_id() == boot && is_account && !before.contains(&subject) {
                self.missing.insert(subject);
            } else {
                ended.push(subject);
            }
        }
        let ended_at = outcome.at;
        let say = |subject| {
            self.subjects.remove(&subject);
            Change::Ended(Ended { subject, ended_at })
        };
        ended.into_iter().map(say).collect()
    }

    /// An account that is still over its limit keeps the beginning of its
    /// episode: it is the same finding.
    pub(crate) fn running_episode(&self, subject: Subject) -> Subject {
        let Subject::Account { boot_id, uid, .. } = subject else {
            return subject;
        };
        let from = Subject::Account {
            boot_id,
            uid,
            since: UnixMillis(i64::MIN),
        };
        let to = Subject::Account {
            boot_id,
            uid,
            since: UnixMillis(i64::MAX),
        };
        self.subjects
            .range(from..=to)
            .next()
            .map_or(subject, |(running, _)| *running)
    }
}

impl Said {
    fn unsay(&mut self) {
        self.indicators.clear();
    }

    /// Whether it was unsaid, for every finding has an indicator, and is no
    /// worse than it was: what became worse is not left for later.
    fn waits_with(&self, severity: Severity) -> bool {
        self.indicators.is_empty() && self.highest >= Some(severity)
    }

    /// Whether a finding says more than was said; remembers it.
    fn grows_by(&mut self, finding: &Finding) -> bool {
        let mut grows = false;
        for indicator in &finding.indicators {
            grows |= self.indicators.insert(indicator.id.clone());
        }
        if self.highest < Some(finding.severity()) {
            self.highest = Some(finding.severity());
            grows = true;
        }
        grows
    }
}
