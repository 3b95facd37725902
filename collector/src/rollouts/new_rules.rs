//! Which rules a roll-out brings, read once per roll-out, and what is known of
//! what they hide.
//!
//! Promises: documents are parsed outside the ledger's lock, and not again while
//! the same roll-out is looked at every second. Revisions never change, so their
//! numbers say whether what is kept still holds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use procwarden_common::clock::UnixMillis;
use procwarden_common::policy::{PolicyDocument, Rule, RuleId, rules_of};

use super::evidence::Evidence;
use crate::ledger::Ledger;
use crate::ledger::state::PolicyRevision;
use crate::policy::hits::Marks;

/// Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct NewRules {
    by_policy: Arc<Mutex<HashMap<String, Kept>>>,
}

#[derive(Default)]
struct Kept {
    former: Option<u64>,
    revision: u64,
    rules: Arc<[Arc<Rule>]>,
    evidence: Evidence,
}

impl NewRules {
    /// Works with the rules of this revision that what hosts ran before has
    /// not, and with what is known of them; nobody else does meanwhile.
    pub(super) fn with<T>(
        &self,
        ledger: &Ledger,
        policy: &str,
        revision: u64,
        work: impl FnOnce(&[Arc<Rule>], &mut Evidence) -> T,
    ) -> T {
        let mut all = self
            .by_policy
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let kept = Kept::renew(&mut all, ledger, policy, revision);
        work(&kept.rules, &mut kept.evidence)
    }

    /// What was noted of a roll-out as there before this time.
    pub(super) fn before(
        &self,
        policy: &str,
        revision: u64,
        since: UnixMillis,
    ) -> Option<Arc<Marks>> {
        let all = self
            .by_policy
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let kept = all.get(policy).filter(|kept| kept.revision == revision)?;
        kept.evidence.before(since)
    }

    /// Forgets every policy but these.
    pub(super) fn retain(&self, policies: &[String]) {
        let mut kept = self
            .by_policy
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        kept.retain(|name, _| policies.contains(name));
    }
}

impl Kept {
    /// What is kept of a policy, read anew where it is another roll-out; no
    /// rules when there is no such policy.
    fn renew<'a>(
        all: &'a mut HashMap<String, Self>,
        ledger: &Ledger,
        policy: &str,
        revision: u64,
    ) -> &'a mut Self {
        let number = |found: Option<&PolicyRevision>| found.map(|r| r.document.revision);
        let former = ledger.read(|state| number(state.policies.get(policy)?.settled()));
        let holds = |kept: &Self| (kept.former, kept.revision) == (former, revision);
        if !all.get(policy).is_some_and(holds) {
            let document = |number: u64| {
                ledger.read(|state| {
                    let found = state.policies.get(policy)?.revision(number)?;
                    Some(found.document.clone())
                })
            };
            let rules = difference(
                former.and_then(document).as_ref(),
                document(revision).as_ref(),
            );
            let news = Self {
                former,
                revision,
                rules,
                evidence: Evidence::default(),
            };
            all.insert(policy.to_owned(), news);
        }
        all.entry(policy.to_owned()).or_default()
    }
}

/// A rule that lasts longer than before is new as well: it may hide again what
/// its end has shown.
fn difference(
    former: Option<&PolicyDocument>,
    wanted: Option<&PolicyDocument>,
) -> Arc<[Arc<Rule>]> {
    let rules = |document: Option<&PolicyDocument>| document.map(rules_of).unwrap_or_default();
    let mut ends: HashMap<RuleId, UnixMillis> = HashMap::new();
    for rule in rules(former) {
        let end = ends.entry(rule.id()).or_insert(UnixMillis(i64::MIN));
        *end = (*end).max(rule.facts.end());
    }
    let mut new = rules(wanted);
    new.retain(|rule| {
        ends.get(&rule.id())
            .is_none_or(|end| *end < rule.facts.end())
    });
    new.into()
}

#[cfg(test)]
mod tests {
    use procwarden_common::policy::PolicyFile;

    use super::*;

    fn document(rules: &str) -> PolicyDocument {
        PolicyDocument {
            name: "p".into(),
            revision: 1,
            files: vec![PolicyFile {
                path: "p.pignore".into(),
                content: rules.into(),
            }],
            settings: String::new(),
        }
    }

    #[test]
    fn a_rule_is_new_when_it_was_not_there_or_ended_earlier() {
        let short = "#@ expires=2026-01-31\nexe:/a\n";
        let long = "#@ expires=2027-01-31\nexe:/a\n";
        let table = [
            ("", "exe:/a\n", 1),
            ("exe:/a\n", "exe:/a\n", 0),
            (short, long, 1),
            (short, "exe:/a\n", 1),
            (long, short, 0),
            ("exe:/a\n", long, 0),
        ];
        for (former, wanted, new) in table {
            let found = difference(Some(&document(former)), Some(&document(wanted)));
            assert_eq!(found.len(), new, "{former} {wanted}");
        }
    }
}
