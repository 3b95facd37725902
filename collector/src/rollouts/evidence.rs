//! What speaks against a roll-out: a rule that is new with it hides what would
//! be reported without it.
//!
//! A rule that takes over what another one hid already hides nothing anew. So
//! what agents show of it is judged by what their host would run without the
//! roll-out. Where that cannot be told (the sample was left out, its command
//! line was cut), it counts as newly hidden: a roll-out rather stops once too
//! often.
//!
//! Counts and a host's own times tell what is new, and the state at the start of
//! the roll-out, or when it was resumed, is where that begins. The ledger holds
//! that state, so that a restart neither forgives nor accuses.
//!
//! Promises: a host's policy is compiled once per roll-out and combination of
//! policies (bounded), and what was judged is not judged again.

use std::collections::HashMap;
use std::sync::Arc;

use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::Finding;
use procwarden_common::id::HostId;
use procwarden_common::policy::{EffectivePolicy, Policy, RuleId, RuleText, Verdict, judge};
use procwarden_common::severity::Severity;

use crate::ledger::Ledger;
use crate::ledger::state::PolicyHistory;
use crate::policy::hits::{HostHit, Mark, Marks};
use crate::policy::{Revisions, documents_without_rollout, revisions_of};

/// Compiled policies that are kept; beyond, they are compiled anew.
const COMPILED_MAX: usize = 8;

/// What is known of one roll-out.
#[derive(Default)]
pub(super) struct Evidence {
    /// When it began, or was resumed: what was known then is no evidence.
    since: Option<UnixMillis>,
    before: Arc<Marks>,
    judged: HashMap<(RuleId, HostId), Judged>,
    /// Which policies what was judged was judged by.
    policies: Vec<(String, u64, Vec<String>)>,
    /// By the revisions; nothing for what no longer compiles.
    compiled: HashMap<Revisions, Option<Arc<Policy>>>,
}

/// How far a host's counts had come, and how severe the worst is that is hidden
/// anew.
struct Judged {
    mark: Mark,
    worst: Option<Severity>,
}

impl Evidence {
    /// Whether what is known by now has to be noted as what was there before.
    pub(super) fn begins(&self, since: UnixMillis) -> bool {
        self.since != Some(since)
    }

    /// Notes what was there before.
    pub(super) fn begin(&mut self, since: UnixMillis, before: Arc<Marks>) {
        self.before = before;
        self.judged.clear();
        self.since = Some(since);
    }

    /// What was there before this time; nothing when it began at another.
    pub(super) fn before(&self, since: UnixMillis) -> Option<Arc<Marks>> {
        (self.since == Some(since)).then(|| Arc::clone(&self.before))
    }

    /// Forgets what was judged by other policies than those of now.
    pub(super) fn judge_by(&mut self, ledger: &Ledger) {
        let policies = ledger.read(|state| {
            let settled = |(name, policy): (&String, &PolicyHistory)| {
                let settled = policy.settled();
                let revision = settled.map_or(0, |revision| revision.document.revision);
                (name.clone(), revision, policy.groups.clone())
            };
            state.policies.iter().map(settled).collect::<Vec<_>>()
        });
        if policies != self.policies {
            self.policies = policies;
            self.judged.clear();
        }
    }

    /// Whether nothing newer than this was seen of a rule on a host.
    pub(super) fn is_known(&self, rule: RuleId, host: HostId, mark: Mark) -> bool {
        let judged = self.judged.get(&(rule, host));
        judged.is_some_and(|judged| judged.mark == mark)
    }

    /// Judges what is new of a policy's rules. What a host of which nothing was
    /// known ignored before `margin` is old.
    pub(super) fn add(
        &mut self,
        ledger: &Ledger,
        policy: &str,
        hits: Vec<HostHit>,
        margin: UnixMillis,
    ) {
        for hit in hits {
            let place = (hit.rule, hit.host);
            let before = self.before.get(&place).copied();
            let before = before.unwrap_or(Mark::before(margin));
            let former = self.former(ledger, policy, hit.host);
            let judged = Judged {
                mark: hit.mark,
                worst: newly_hidden(&hit, before, former.as_deref()),
            };
            self.judged.insert(place, judged);
        }
    }

    /// The most severe that is hidden anew, by which rule, and where.
    pub(super) fn worst(&self) -> Option<(Severity, RuleId, HostId)> {
        let hidden = self.judged.iter().filter_map(|((rule, host), judged)| {
            let severity = judged.worst?;
            Some((severity, *rule, *host))
        });
        hidden.max_by_key(|(severity, ..)| *severity)
    }

    /// What a host would run without the roll-out.
    fn former(&mut self, ledger: &Ledger, policy: &str, id: HostId) -> Option<Arc<Policy>> {
        let (revisions, missing) = ledger.read(|state| {
            let host = state.hosts.get(&id)?;
            let documents = documents_without_rollout(state, id, host, policy);
            let revisions = revisions_of(&documents);
            let is_missing = !self.compiled.contains_key(&revisions);
            let copies = || documents.into_iter().cloned().collect();
            Some((revisions, is_missing.then(copies)))
        })?;
        if let Some(documents) = missing {
            if self.compiled.len() >= COMPILED_MAX {
                self.compiled.clear();
            }
            let compiled = Policy::compile(&EffectivePolicy { documents }).ok();
            let compiled = compiled.map(|(policy, _)| Arc::new(policy));
            self.compiled.insert(revisions.clone(), compiled);
        }
        self.compiled.get(&revisions).cloned().flatten()
    }
}

/// How severe the worst is that a rule hides and the former policy does not.
fn newly_hidden(hit: &HostHit, before: Mark, former: Option<&Policy>) -> Option<Severity> {
    let is_covered = |finding: &Finding| former.is_some_and(|policy| covers(policy, finding));
    let samples = hit.samples_since(before);
    let uncovered = samples.filter(|finding| !is_covered(finding));
    let worst = uncovered.map(|finding| finding.severity()).max();
    worst.max(hit.unseen_since(before))
}

/// A rule that has ended by now was in force when it hid the process.
fn covers(policy: &Policy, finding: &Finding) -> bool {
    let text = RuleText::of_finding(finding);
    judge(policy, &text, finding.observed_at) != Verdict::Report
}
