//! Which rules a roll-out brings, read once per roll-out.
//!
//! Promises: documents are parsed outside the ledger's lock, and not again while
//! the same roll-out is looked at every second. Revisions never change, so their
//! numbers say whether what is kept still holds.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use procwarden_common::policy::{PolicyDocument, Rule, RuleId, rules_of};

use crate::ledger::Ledger;
use crate::ledger::state::PolicyRevision;

/// Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct NewRules {
    by_policy: Arc<Mutex<HashMap<String, Kept>>>,
}

struct Kept {
    former: Option<u64>,
    revision: u64,
    rules: Arc<[Arc<Rule>]>,
}

impl NewRules {
    /// The rules of this revision that what hosts ran before has not; none
    /// when there is no such policy.
    pub(super) fn of(&self, ledger: &Ledger, policy: &str, revision: u64) -> Arc<[Arc<Rule>]> {
        let number = |found: Option<&PolicyRevision>| found.map(|r| r.document.revision);
        let former = ledger.read(|state| number(state.policies.get(policy)?.settled()));
        let mut kept = self
            .by_policy
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = kept.get(policy)
            && (kept.former, kept.revision) == (former, revision)
        {
            return Arc::clone(&kept.rules);
        }
        let document = |number: u64| {
            ledger.read(|state| {
                let found = state.policies.get(policy)?.revision(number)?;
                Some(found.document.clone())
            })
        };
        let former_document = former.and_then(document);
        let rules = difference(former_document.as_ref(), document(revision).as_ref());
        let news = Kept {
            former,
            revision,
            rules: Arc::clone(&rules),
        };
        kept.insert(policy.to_owned(), news);
        rules
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

fn difference(
    former: Option<&PolicyDocument>,
    wanted: Option<&PolicyDocument>,
) -> Arc<[Arc<Rule>]> {
    let rules = |document: Option<&PolicyDocument>| document.map(rules_of).unwrap_or_default();
    let former: HashSet<RuleId> = rules(former).iter().map(|rule| rule.id()).collect();
    let mut new = rules(wanted);
    new.retain(|rule| !former.contains(&rule.id()));
    new.into()
}
