//! What a candidate would change: the stored history, judged again. Pure.
//!
//! Promises: the verdict is [`judge`]'s, on the texts that agents judge, so
//! what a preview says is what the fleet will do. A finding counts for a rule
//! when the newest revision reports it and the rule is the first of the
//! candidate that covers it; the other way round for a rule that is removed.
//! Memory is bounded, whatever the history holds.
//!
//! Of the settings, what they switch off is replayed: a finding of which no
//! indicator would be raised any more. So is what they leave out of scope, as far
//! as the finding says it (`preview/scope.rs`).
//!
//! Never judges by other policies: a finding that another policy of its host
//! ignores by now is counted all the same.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::{Finding, StoredFinding, Subject};
use procwarden_common::id::HostId;
use procwarden_common::indicator::IndicatorId;
use procwarden_common::policy::{Policy, Rule, RuleText, Verdict, judge};
use procwarden_common::severity::Severity;

mod ignored;
mod sample;
mod scope;
#[cfg(test)]
mod tests;

pub(crate) use ignored::Ignored;
pub(crate) use sample::Sample;
use sample::Worst;

/// Hosts, accounts and indicators that all rules together remember to tell them
/// apart: some 64 MiB. Beyond, what is new is not counted, and the report says
/// that its numbers are too low.
const DISTINCT_MAX: usize = 500_000;

/// Which side of the comparison has a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Side {
    /// Only the candidate: it would hide findings.
    Added,
    /// Only the newest revision: it would no longer hide findings.
    Removed,
}

/// What one rule changes.
#[derive(Debug)]
pub(crate) struct RuleReport {
    pub(crate) side: Side,
    pub(crate) rule: Arc<Rule>,
    pub(crate) findings: u64,
    pub(crate) hosts: u64,
    pub(crate) users: u64,
    /// The highest among the findings; nothing when there are none.
    pub(crate) severity: Option<Severity>,
    /// Findings that show it, the most frequent one first.
    pub(crate) indicators: Vec<(IndicatorId, u64)>,
    /// The most severe ones first, of those the newest (bounded).
    pub(crate) samples: Vec<Sample>,
    /// What it ignored as agents counted, if it is a rule that goes.
    pub(crate) ignored: Option<Ignored>,
}

impl RuleReport {
    /// The highest severity of what is stored and of what was ignored.
    fn worst(&self) -> Option<Severity> {
        let ignored = self.ignored.as_ref().and_then(|i| i.samples.first());
        self.severity.max(ignored.map(|sample| sample.severity))
    }
}

/// What the whole candidate changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Findings that were judged.
    pub(crate) findings: u64,
    pub(crate) hidden: u64,
    pub(crate) hidden_hosts: u64,
    pub(crate) shown: u64,
    pub(crate) shown_hosts: u64,
    /// Reported so far, and not any more because of the settings.
    pub(crate) switched_off: u64,
    pub(crate) switched_off_hosts: u64,
    pub(crate) rules_added: u64,
    pub(crate) rules_removed: u64,
    /// There was too much to tell apart: hosts and users are at least so many.
    pub(crate) too_low: bool,
}

/// The answer.
#[derive(Debug)]
pub(crate) struct Report {
    /// Those of the most severe findings first, then those of the most
    /// findings, then as they are tried.
    pub(crate) rules: Vec<RuleReport>,
    pub(crate) totals: Totals,
    /// What the findings show that the settings switch off, the most frequent
    /// one first.
    pub(crate) switched_off: Vec<(IndicatorId, u64)>,
}

/// Compares two policies over findings that are handed in one by one.
pub(crate) struct Preview {
    newest: Policy,
    candidate: Policy,
    /// When the rules are judged: those that have expired cover nothing.
    now: UnixMillis,
    tallies: Vec<Tally>,
    places: HashMap<(Side, String), usize>,
    hidden_hosts: HashSet<HostId>,
    shown_hosts: HashSet<HostId>,
    switched_off_hosts: HashSet<HostId>,
    switched_off: Indicators,
    totals: Totals,
    /// How many more things may be told apart.
    room: usize,
}

impl Preview {
    /// `newest` is what agents run, `candidate` what they would run from `now`.
    pub(crate) fn new(newest: Policy, candidate: Policy, now: UnixMillis) -> Self {
        let added = only_in(&candidate, &newest);
        let removed = only_in(&newest, &candidate);
        let mut preview = Self {
            newest,
            candidate,
            now,
            tallies: Vec::new(),
            places: HashMap::new(),
            hidden_hosts: HashSet::new(),
            shown_hosts: HashSet::new(),
            switched_off_hosts: HashSet::new(),
            switched_off: Indicators::default(),
            totals: Totals::default(),
            room: DISTINCT_MAX,
        };
        for (side, rules) in [(Side::Added, added), (Side::Removed, removed)] {
            for rule in rules {
                preview.place(side, &rule);
            }
        }
        preview
    }

    /// Judges one more finding.
    pub(crate) fn add(&mut self, stored: &StoredFinding) {
        self.totals.findings += 1;
        let is_off = self.is_switched_off(stored);
        if matches!(stored.finding.subject, Subject::Host { .. }) {
            // No rule covers a host.
            if is_off {
                self.count_switched_off(stored);
            }
            return;
        }
        let text = RuleText::of_finding(&stored.finding);
        let before = judge(&self.newest, &text, self.now);
        if is_off {
            if before == Verdict::Report {
                self.count_switched_off(stored);
            }
            return;
        }
        let after = judge(&self.candidate, &text, self.now);
        match (before, after) {
            (Verdict::Report, Verdict::Ignored(rule)) => {
                self.totals.hidden += 1;
                remember(&mut self.hidden_hosts, stored.host_id, &mut self.room);
                self.count(Side::Added, &rule, stored, &text);
            }
            (Verdict::Ignored(rule), Verdict::Report) => {
                self.totals.shown += 1;
                remember(&mut self.shown_hosts, stored.host_id, &mut self.room);
                self.count(Side::Removed, &rule, stored, &text);
            }
            (Verdict::Report, Verdict::Report) | (Verdict::Ignored(_), Verdict::Ignored(_)) => {}
        }
    }

    /// What all of them add up to.
    pub(crate) fn finish(self) -> Report {
        let count = |side| self.tallies.iter().filter(|t| t.side == side).count() as u64;
        let totals = Totals {
            hidden_hosts: self.hidden_hosts.len() as u64,
            shown_hosts: self.shown_hosts.len() as u64,
            switched_off_hosts: self.switched_off_hosts.len() as u64,
            rules_added: count(Side::Added),
            rules_removed: count(Side::Removed),
            too_low: self.room == 0,
            ..self.totals
        };
        let mut rules: Vec<_> = self.tallies.into_iter().map(Tally::report).collect();
        rules.sort_by_key(|report| (Reverse((report.worst(), report.findings)), report.side));
        Report {
            rules,
            totals,
            switched_off: self.switched_off.most_frequent_first(),
        }
    }

    /// Whether the newest settings raise an indicator of it and those of the
    /// candidate raise none.
    fn is_switched_off(&self, stored: &StoredFinding) -> bool {
        let (newest, candidate) = (self.newest.settings(), self.candidate.settings());
        if newest == candidate {
            return false;
        }
        scope::leaves_out(newest, candidate, stored)
    }

    fn count_switched_off(&mut self, stored: &StoredFinding) {
        self.totals.switched_off += 1;
        remember(&mut self.switched_off_hosts, stored.host_id, &mut self.room);
        self.switched_off.add(&stored.finding, &mut self.room);
    }

    fn count(&mut self, side: Side, rule: &Arc<Rule>, stored: &StoredFinding, text: &RuleText) {
        // A rule that both sides have can make a difference as well, when the
        // one that was in front of it is another: it gets its line then.
        let place = self.place(side, rule);
        if let Some(tally) = self.tallies.get_mut(place) {
            tally.add(stored, text, &mut self.room);
        }
    }

    fn place(&mut self, side: Side, rule: &Arc<Rule>) -> usize {
        let next = self.tallies.len();
        let place = *self.places.entry((side, rule.to_string())).or_insert(next);
        if place == next {
            self.tallies.push(Tally::new(side, Arc::clone(rule)));
        }
        place
    }
}

/// Rules that one policy has and the other has not, by their text.
fn only_in(policy: &Policy, other: &Policy) -> Vec<Arc<Rule>> {
    let others: HashSet<_> = other.rules().iter().map(|r| (r.key, &r.value)).collect();
    let missing = |rule: &&Arc<Rule>| !others.contains(&(rule.key, &rule.value));
    policy.rules().iter().filter(missing).cloned().collect()
}

/// What was counted for one rule.
struct Tally {
    side: Side,
    rule: Arc<Rule>,
    findings: u64,
    hosts: HashSet<HostId>,
    users: HashSet<String>,
    indicators: Indicators,
    worst: Worst,
    ignored: Option<Ignored>,
}

/// How many findings show an indicator.
#[derive(Default)]
struct Indicators(BTreeMap<IndicatorId, u64>);

impl Indicators {
    /// One finding may name an indicator for several sockets.
    fn add(&mut self, finding: &Finding, room: &mut usize) {
        let ids: HashSet<_> = finding.indicators.iter().map(|i| &i.id).collect();
        for id in ids {
            if let Some(findings) = self.0.get_mut(id) {
                *findings += 1;
            } else if *room > 0 {
                *room -= 1;
                self.0.insert(id.clone(), 1);
            }
        }
    }

    fn most_frequent_first(self) -> Vec<(IndicatorId, u64)> {
        let mut indicators: Vec<_> = self.0.into_iter().collect();
        indicators.sort_by_key(|(_, findings)| Reverse(*findings));
        indicators
    }
}

impl Tally {
    fn new(side: Side, rule: Arc<Rule>) -> Self {
        Self {
            side,
            rule,
            findings: 0,
            hosts: HashSet::new(),
            users: HashSet::new(),
            indicators: Indicators::default(),
            worst: Worst::default(),
            ignored: None,
        }
    }

    fn add(&mut self, stored: &StoredFinding, text: &RuleText, room: &mut usize) {
        self.findings += 1;
        remember(&mut self.hosts, stored.host_id, room);
        if !self.users.contains(&text.user) {
            remember(&mut self.users, text.user.clone(), room);
        }
        self.indicators.add(&stored.finding, room);
        self.worst.offer(stored, text);
    }

    fn report(self) -> RuleReport {
        let samples = self.worst.into_samples();
        RuleReport {
            side: self.side,
            rule: self.rule,
            findings: self.findings,
            hosts: self.hosts.len() as u64,
            users: self.users.len() as u64,
            severity: samples.first().map(|sample| sample.severity),
            indicators: self.indicators.most_frequent_first(),
            samples,
            ignored: self.ignored,
        }
    }
}

fn remember<T: Eq + Hash>(seen: &mut HashSet<T>, item: T, room: &mut usize) {
    if *room > 0 && seen.insert(item) {
        *room -= 1;
    }
}
