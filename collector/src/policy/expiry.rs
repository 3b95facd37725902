//! Rules of policies in use that come to their end. Pure: the time is a value.
//!
//! An expired rule stops matching by itself, on the agents; this is about
//! saying so before, to people who do not look at the policy every week.

use std::collections::HashSet;
use std::sync::Arc;

use procwarden_common::clock::UnixMillis;
use procwarden_common::policy::{EXPIRY_NOTICE_MILLIS, PolicyDocument, Rule, rules_of};

use crate::ledger::LedgerState;

/// How a fact that ends a rule begins.
const FACT: &[u8] = b"expires";

/// Rules with an end, remembered while the policies stay as they are: the
/// texts are long, and the question is asked often.
#[derive(Debug, Default)]
pub(crate) struct Expiries {
    /// The revisions that were looked at.
    revisions: Vec<(String, u64)>,
    /// By their end.
    rules: Vec<Arc<Rule>>,
}

impl Expiries {
    /// Looks at the policies again, if there are other ones.
    pub(crate) fn refresh(&mut self, state: &LedgerState) {
        let revisions: Vec<_> = in_use(state)
            .map(|d| (d.name.clone(), d.revision))
            .collect();
        if revisions == self.revisions {
            return;
        }
        let with_facts = in_use(state).filter(|document| names_a_fact(document));
        let mut rules: Vec<_> = with_facts.flat_map(rules_of).collect();
        // Two revisions of a policy may share a rule with its end.
        let mut seen = HashSet::new();
        rules.retain(|rule| {
            rule.facts.expires.is_some() && seen.insert((rule.id(), rule.facts.end()))
        });
        rules.sort_by_key(|rule| rule.facts.end());
        *self = Self { revisions, rules };
    }

    /// The rules that have ended by now.
    pub(crate) fn ended(&self, now: UnixMillis) -> &[Arc<Rule>] {
        let (ended, _) = self.rules.split_at(self.ended_count(now));
        ended
    }

    /// The rules that end within the notice of 7 days, those that end first
    /// before the others.
    pub(crate) fn ending(&self, now: UnixMillis) -> &[Arc<Rule>] {
        let (_, rest) = self.rules.split_at(self.ended_count(now));
        let until = now.plus_millis(EXPIRY_NOTICE_MILLIS);
        let count = rest.partition_point(|rule| rule.facts.end() <= until);
        rest.split_at(count).0
    }

    fn ended_count(&self, now: UnixMillis) -> usize {
        self.rules.partition_point(|rule| rule.facts.end() <= now)
    }
}

/// The revisions that any host may run: the one that all run, and the one that
/// a roll-out has brought to some. What is only staged runs nowhere.
fn in_use(state: &LedgerState) -> impl Iterator<Item = &PolicyDocument> {
    let policies = state
        .policies
        .values()
        .filter(|policy| !policy.groups.is_empty());
    policies.flat_map(|policy| {
        let settled = policy.settled().into_iter();
        settled.chain(policy.rolled_out()).map(|r| &r.document)
    })
}

fn names_a_fact(document: &PolicyDocument) -> bool {
    let mut files = document.files.iter();
    files.any(|file| {
        file.content
            .windows(FACT.len())
            .any(|window| window == FACT)
    })
}

#[cfg(test)]
mod tests {
    use procwarden_common::policy::PolicyFile;

    use super::*;
    use crate::ledger::state::PolicyRevision;

    const DAY: i64 = 86_400_000;

    fn publish(state: &mut LedgerState, name: &str, groups: &[&str], rules: &str) {
        let policy = state.policies.entry(name.into()).or_default();
        policy.groups = groups.iter().map(|group| (*group).to_owned()).collect();
        let document = PolicyDocument {
            name: name.into(),
            revision: policy.revisions.len() as u64 + 1,
            files: vec![PolicyFile {
                path: "a.pignore".into(),
                content: rules.into(),
            }],
            settings: String::new(),
        };
        policy.revisions.push(PolicyRevision {
            document,
            published_at: UnixMillis(0),
            author: String::new(),
            comment: String::new(),
            rules: 0,
        });
    }

    fn words(rules: &[Arc<Rule>]) -> Vec<String> {
        rules.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn rules_are_announced_from_seven_days_before_their_end() {
        let text = "exe:/never\n#@ expires=2026-12-01\nexe:/b\n#@ expires=2026-11-30\nexe:/a\n";
        let mut state = LedgerState::default();
        publish(&mut state, "web", &["all"], text);
        let mut expiries = Expiries::default();
        expiries.refresh(&state);
        // The last day of /a ends as December begins.
        let end = expiries.rules[0].facts.end();
        let at = |millis| end.plus_millis(millis);
        assert!(expiries.ending(at(-7 * DAY - 1)).is_empty());
        assert_eq!(words(expiries.ending(at(-7 * DAY))), ["exe:/a"]);
        assert_eq!(words(expiries.ending(at(-6 * DAY))), ["exe:/a", "exe:/b"]);
        assert_eq!(words(expiries.ending(at(0))), ["exe:/b"]);
        assert_eq!(words(expiries.ended(at(0))), ["exe:/a"]);
    }

    #[test]
    fn what_hosts_run_is_announced_and_what_is_only_staged_is_not() {
        let mut state = LedgerState::default();
        publish(
            &mut state,
            "web",
            &["web"],
            "#@ expires=2026-11-30\nexe:/a\n",
        );
        publish(
            &mut state,
            "web",
            &["web"],
            "#@ expires=2026-11-30\nexe:/b\n",
        );
        state.policies.get_mut("web").unwrap().staying = Some(1);
        let mut expiries = Expiries::default();
        expiries.refresh(&state);
        assert_eq!(words(&expiries.rules), ["exe:/a"]);
        state.policies.get_mut("web").unwrap().staying = None;
        expiries.refresh(&state);
        assert_eq!(words(&expiries.rules), ["exe:/b"]);
    }

    #[test]
    fn only_the_newest_revisions_of_policies_in_use_count() {
        let rule = "#@ expires=2026-11-30\nexe:/a\n";
        let mut state = LedgerState::default();
        publish(&mut state, "unused", &[], rule);
        publish(&mut state, "web", &["web"], rule);
        let mut expiries = Expiries::default();
        expiries.refresh(&state);
        assert_eq!(expiries.rules.len(), 1);
        publish(&mut state, "web", &["web"], "exe:/a\n");
        expiries.refresh(&state);
        assert!(expiries.rules.is_empty());
    }
}
