//! What speaks against a roll-out: a rule that is new with it hides what would
//! be reported without it.
//!
//! A rule that takes over what another one hid already hides nothing anew. So
//! what agents show of it is judged by what their host would run without the
//! roll-out. Where that cannot be told (the sample was left out, its command
//! line was cut), it counts as newly hidden: a roll-out rather stops once too
//! often.
//!
//! Promises: a host's policy is compiled once per roll-out and combination of
//! policies (bounded), and what was judged is not judged again.

use std::collections::HashMap;
use std::sync::Arc;

use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::Finding;
use procwarden_common::id::HostId;
use procwarden_common::policy::{
    EffectivePolicy, Policy, PolicyDocument, RuleId, RuleText, Verdict, judge,
};
use procwarden_common::severity::Severity;

use crate::ledger::Ledger;
use crate::policy::hits::HostHit;
use crate::policy::policies_without_rollout;

/// Compiled policies that are kept; beyond, they are compiled anew.
const COMPILED_MAX: usize = 8;

/// What is known of one roll-out.
#[derive(Default)]
pub(super) struct Evidence {
    /// What was judged holds for what was seen since then.
    since: UnixMillis,
    judged: HashMap<(RuleId, HostId), Judged>,
    /// By the revisions; nothing for what no longer compiles.
    compiled: HashMap<Vec<(String, u64)>, Option<Arc<Policy>>>,
}

/// The newest that was looked at, and how severe the worst is that is hidden
/// anew.
struct Judged {
    newest: UnixMillis,
    worst: Option<Severity>,
}

impl Evidence {
    /// Forgets what was judged for another beginning.
    pub(super) fn begin(&mut self, since: UnixMillis) {
        if self.since != since {
            self.since = since;
            self.judged.clear();
        }
    }

    /// Whether nothing newer than this was seen of a rule on a host.
    pub(super) fn is_known(&self, rule: RuleId, host: HostId, newest: UnixMillis) -> bool {
        let judged = self.judged.get(&(rule, host));
        judged.is_some_and(|judged| judged.newest == newest)
    }

    /// Judges what is new of a policy's rules.
    pub(super) fn add(&mut self, ledger: &Ledger, policy: &str, hits: Vec<HostHit>) {
        for hit in hits {
            let former = self.former(ledger, policy, hit.host);
            let judged = Judged {
                newest: hit.newest,
                worst: newly_hidden(&hit, former.as_deref()),
            };
            self.judged.insert((hit.rule, hit.host), judged);
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
        let documents: Option<Vec<PolicyDocument>>;
        let revisions = {
            let compiled = &self.compiled;
            let (key, missing) = ledger.read(|state| {
                let host = state.hosts.get(&id)?;
                let found = policies_without_rollout(state, id, host, policy);
                let revision =
                    |document: &&PolicyDocument| (document.name.clone(), document.revision);
                let key: Vec<(String, u64)> = found.iter().map(revision).collect();
                let is_missing = !compiled.contains_key(&key);
                let copy = || found.into_iter().cloned().collect();
                Some((key, is_missing.then(copy)))
            })?;
            documents = missing;
            key
        };
        if let Some(documents) = documents {
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
fn newly_hidden(hit: &HostHit, former: Option<&Policy>) -> Option<Severity> {
    let samples: Vec<Finding> = hit.samples().collect();
    let is_covered = |finding: &&Finding| former.is_some_and(|policy| covers(policy, finding));
    let uncovered = samples.iter().filter(|finding| !is_covered(finding));
    let worst = uncovered.map(Finding::severity).max();
    // The newest severe one is among the samples, unless there was no room.
    let is_shown = |last: UnixMillis| {
        let mut severe = samples.iter().filter(|f| f.severity() >= Severity::High);
        severe.any(|finding| finding.observed_at >= last)
    };
    let unseen = hit.last_severe.filter(|last| !is_shown(*last));
    worst.max(unseen.map(|_| Severity::High))
}

/// A rule that has ended by now was in force when it hid the process.
fn covers(policy: &Policy, finding: &Finding) -> bool {
    let text = RuleText::of_finding(finding);
    judge(policy, &text, finding.observed_at) != Verdict::Report
}
