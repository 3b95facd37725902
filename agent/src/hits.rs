//! What each rule ignored: how many processes, when last, and which ones.
//!
//! Counted is what a rule hides: a process (or an account over its limit) with
//! confirmed indicators that is not reported because of the rule. A process
//! that shows nothing would not be reported anyway, so it is no hit of any
//! rule that covers it.
//!
//! Pure; the file is dealt with in `hits/file.rs`, what is shared in
//! `hits/shared.rs`. Promises: a process counts once per rule while it lives;
//! a rule keeps its counts over revisions that keep the rule. However much is
//! ignored, memory and messages stay bounded: by rules, by live processes and
//! by bytes of samples. What is over a bound is not counted: counts are never
//! too high, except that a crash may count the processes of its last minute
//! twice.

use std::collections::{BTreeMap, HashMap, HashSet};

use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::Subject;
use procwarden_common::policy::{RuleId, Verdict};
use procwarden_common::severity::Severity;
use procwarden_common::wire::severity_to_wire;
use procwarden_proto::v1;

use crate::confirm::Whom;
use crate::scan::{ScanOutcome, Suspect};

pub(crate) mod file;
mod samples;
mod shared;
#[cfg(test)]
mod tests;

use samples::Samples;
pub(crate) use shared::{SharedHits, Told};

/// Rules with counts. A full table forgets the rule that hid nothing for the
/// longest time.
const RULES_MAX: usize = 2_048;

/// Live processes that are remembered, each with the rule that ignored it.
/// What is beyond does not count.
const LIVE_MAX: usize = 16_384;

/// Bytes of all samples. Beyond, the rule that hid nothing for the longest
/// time loses its own.
const SAMPLE_BYTES_MAX: usize = 128 * 1024;

/// While the same processes go on, how far the last time moves before it is
/// worth a message.
const LAST_STEP_MILLIS: u64 = 60 * 60 * 1000;

/// Bytes of the counts of one rule in a message, without samples.
const COUNTS_BYTES: usize = 80;

/// See the module.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Hits {
    rules: BTreeMap<RuleId, RuleCount>,
    /// Who counts already, and how severe it was.
    live: BTreeMap<(Whom, RuleId), Severity>,
    /// Those of them that were reported, or ignored by another rule, since the
    /// rule last ignored them: it hides them anew when it does so again.
    lapsed: HashSet<(Whom, RuleId)>,
    /// Rises with every change that is worth a message.
    version: u64,
    sample_bytes: usize,
}

/// What one rule ignored.
#[derive(Debug, Default, Clone, PartialEq)]
struct RuleCount {
    /// Of [`Hits::version`], when this last changed.
    version: u64,
    processes: u64,
    severe: u64,
    first: UnixMillis,
    last: UnixMillis,
    /// `last`, as the newest message has it.
    told: UnixMillis,
    last_severe: Option<UnixMillis>,
    /// How many times something severe was hidden that no rule hid until then.
    fresh: u64,
    /// The highest severity of that.
    worst_fresh: Option<Severity>,
    samples: Samples,
}

impl Hits {
    /// Counts what the rules ignored in one scan.
    pub(crate) fn note(&mut self, outcome: &ScanOutcome) {
        // Not even this process was listed: the scan saw nothing.
        if outcome.alive.is_empty() {
            return;
        }
        let ignored = ignored_by_rule(outcome);
        self.forget_ended(outcome, &ignored);
        self.note_looked(&outcome.suspects, outcome.at);
        // Only now: a rule that takes over what another one hid finds it there.
        self.note_lapsed(&ignored);
    }

    /// Counts what the rules ignored in a look at some processes. Nobody has
    /// ended: the others were not looked at.
    pub(crate) fn note_looked(&mut self, suspects: &[Suspect], at: UnixMillis) {
        for suspect in suspects {
            if let Verdict::Ignored(rule) = &suspect.verdict {
                self.count(suspect, rule.id(), at);
            }
        }
    }

    /// An account that is over its limit again is another episode.
    fn forget_ended(&mut self, outcome: &ScanOutcome, seen: &HashMap<Whom, Option<RuleId>>) {
        self.live.retain(|(whom, _), _| match whom {
            Whom::Process(key) => outcome.has(key),
            Whom::Account(_) => seen.contains_key(whom),
        });
        let live = &self.live;
        self.lapsed.retain(|entry| live.contains_key(entry));
    }

    fn note_lapsed(&mut self, seen: &HashMap<Whom, Option<RuleId>>) {
        let lapsed = self.live.keys().filter(|(whom, rule)| {
            let now = seen.get(whom);
            now.is_some_and(|now| *now != Some(*rule))
        });
        self.lapsed.extend(lapsed.copied());
    }

    fn count(&mut self, suspect: &Suspect, rule: RuleId, at: UnixMillis) {
        let whom = whom(&suspect.bare.subject);
        let severity = suspect.bare.severity();
        // What was known of a forgotten rule is forgotten with it.
        let known = self.live.get(&(whom, rule)).copied();
        let known = known.filter(|_| self.rules.contains_key(&rule));
        let has_lapsed = self.lapsed.remove(&(whom, rule));
        if known.is_none() && self.live.len() >= LIVE_MAX {
            return;
        }
        let takes_over = self.is_hidden_by_another(whom, rule);
        self.make_room_for(rule);
        let next_version = self.version + 1;
        let count = self.rules.entry(rule).or_insert_with(|| RuleCount {
            first: at,
            ..RuleCount::default()
        });
        count.last = count.last.max(at);
        let is_news = has_lapsed || known.is_none_or(|known| known < severity);
        if is_news || count.last.millis_since(count.told) >= LAST_STEP_MILLIS {
            count.told = count.last;
            count.version = next_version;
            self.version = next_version;
        }
        if !is_news {
            return;
        }
        count.processes += u64::from(known.is_none());
        let was_severe = known.is_some_and(is_severe);
        let is_newly_severe = is_severe(severity) && (has_lapsed || !was_severe);
        count.severe += u64::from(is_newly_severe && !was_severe);
        let is_fresh = is_newly_severe && !takes_over;
        if is_fresh {
            count.last_severe = Some(at);
            count.fresh += 1;
            count.worst_fresh = count.worst_fresh.max(Some(severity));
        }
        self.sample_bytes -= count.samples.bytes();
        let finding = suspect.finding();
        (count.samples).offer(&finding, severity, u64::from(is_fresh));
        self.sample_bytes += count.samples.bytes();
        self.live.insert((whom, rule), severity);
        self.bound_samples(rule);
    }

    /// Whether another rule hid it until now: then nothing is hidden that was
    /// seen before.
    fn is_hidden_by_another(&self, whom: Whom, rule: RuleId) -> bool {
        let from_it = self.live.range((whom, RuleId::MIN)..);
        let mut entries = from_it
            .map(|(entry, _)| entry)
            .take_while(|entry| entry.0 == whom);
        entries.any(|entry| entry.1 != rule && !self.lapsed.contains(entry))
    }

    /// A full table forgets the rule that hid nothing for the longest time.
    fn make_room_for(&mut self, rule: RuleId) {
        if self.rules.len() < RULES_MAX || self.rules.contains_key(&rule) {
            return;
        }
        if let Some(stale) = self.stalest(|_, _| true)
            && let Some(count) = self.rules.remove(&stale)
        {
            self.sample_bytes -= count.samples.bytes();
        }
    }

    fn bound_samples(&mut self, newest: RuleId) {
        while self.sample_bytes > SAMPLE_BYTES_MAX {
            let has_some = |rule, count: &RuleCount| rule != newest && count.samples.bytes() > 0;
            let stale = self.stalest(has_some).unwrap_or(newest);
            let Some(count) = self.rules.get_mut(&stale) else {
                return;
            };
            self.sample_bytes -= count.samples.bytes();
            count.samples = Samples::default();
        }
    }

    fn stalest(&self, among: impl Fn(RuleId, &RuleCount) -> bool) -> Option<RuleId> {
        self.rules
            .iter()
            .filter(|(rule, count)| among(**rule, count))
            .min_by_key(|(_, count)| count.last)
            .map(|(rule, _)| *rule)
    }

    /// What changed after `version`, oldest change first, in about
    /// `bytes_max`; and the version that the reader then has.
    pub(crate) fn changed_after(&self, version: u64, bytes_max: usize) -> (Vec<v1::RuleHits>, u64) {
        let mut changed: Vec<_> = self
            .rules
            .iter()
            .filter(|(_, count)| count.version > version)
            .collect();
        changed.sort_by_key(|(_, count)| count.version);
        let (mut messages, mut bytes, mut upto) = (Vec::new(), 0, version);
        for (rule, count) in changed {
            bytes += COUNTS_BYTES + count.samples.bytes();
            if bytes > bytes_max && !messages.is_empty() {
                return (messages, upto);
            }
            upto = count.version;
            messages.push(count.message(*rule));
        }
        (messages, self.version)
    }
}

impl RuleCount {
    fn message(&self, rule: RuleId) -> v1::RuleHits {
        v1::RuleHits {
            rule_id: rule.as_bytes().to_vec().into(),
            processes: self.processes,
            severe: self.severe,
            first_ms: self.first.0,
            last_ms: self.last.0,
            last_severe_ms: self.last_severe.map_or(0, |at| at.0),
            samples: self.samples.messages(),
            fresh: self.fresh,
            worst_fresh: self
                .worst_fresh
                .map_or(v1::Severity::Unspecified, severity_to_wire)
                .into(),
            fresh_of_samples: self.samples.fresh(),
        }
    }
}

/// Who is suspected in a scan, and the rule that hides it.
fn ignored_by_rule(outcome: &ScanOutcome) -> HashMap<Whom, Option<RuleId>> {
    let entry = |suspect: &Suspect| {
        let rule = match &suspect.verdict {
            Verdict::Ignored(rule) => Some(rule.id()),
            Verdict::Report => None,
        };
        (whom(&suspect.bare.subject), rule)
    };
    outcome.suspects.iter().map(entry).collect()
}

/// Severe enough to stop a roll-out.
const fn is_severe(severity: Severity) -> bool {
    matches!(severity, Severity::High | Severity::Critical)
}

fn whom(subject: &Subject) -> Whom {
    match subject {
        Subject::Process(key) => Whom::Process(*key),
        Subject::Account { uid, .. } => Whom::Account(*uid),
        // No rule covers a host, so none is counted.
        Subject::Host { .. } => Whom::Account(u32::MAX),
    }
}
