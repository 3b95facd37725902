//! Whether what hosts get together still compiles, before a change that gives
//! it to them: the limits of an agent hold for all policies of a host at once.
//!
//! The road: [`combinations`] says which policies hosts would run together, and
//! which they run now; [`check`] compiles each new combination as an agent
//! would. The change is written only while the combinations are the ones that
//! were checked.
//!
//! Hosts that enrol bring the groups of their token, so a token that can still
//! be used counts as a host: what it would bring is checked when it is made, and
//! with every change from then on.
//!
//! Promises: only what makes a good combination bad is refused. A host whose
//! policies do not fit together already holds up no change, which may be what
//! mends the others; it is named in a warning. A new token mends nothing, so it
//! is refused in any case.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use procwarden_common::clock::UnixMillis;
use procwarden_common::diagnostic::Diagnostic;
use procwarden_common::id::HostId;
use procwarden_common::policy::{EffectivePolicy, Policy, PolicyDocument};

use super::document::text_bytes;
use super::{PolicyError, Revisions, rank, revisions_of};
use crate::ledger::state::{GROUP_ALL, PolicyHistory, PolicyRevision, group_of_host};
use crate::ledger::{Ledger, LedgerState};

mod members;
mod words;

use members::{Member, Who, members};

/// Combinations that are compiled for one change, those of hosts before those
/// that tokens may bring, and the longest first; a fleet has a handful.
const CHECKED_MAX: usize = 256;
/// No further combination is compiled after this: whoever asked waits for two
/// minutes.
const CHECK_TIME: Duration = Duration::from_secs(60);

/// What is about to change.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// The hosts of its policy run this document, and these groups the policy
    /// if they are given.
    Document {
        document: PolicyDocument,
        groups: Option<Vec<String>>,
    },
    /// These groups run a policy.
    Assigned { policy: String, groups: Vec<String> },
    /// A host is in these groups.
    Groups { host: HostId, groups: Vec<String> },
    /// Hosts can enrol that are in these groups.
    Token { groups: Vec<String> },
}

/// What a change makes of what some hosts run together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    before: Revisions,
    after: Revisions,
}

/// Who gets a combination.
#[derive(Debug)]
struct Hosts {
    all: BTreeSet<Who>,
    /// Of the texts that they get together.
    bytes: usize,
}

/// How roll-outs that are open stand.
#[derive(Debug, Clone, Copy)]
enum Rollouts {
    AsTheyAre,
    /// All aborted or reverted.
    TakenBack,
    Finished,
}

/// What was found good enough: to be compared when the change is written.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    turns: BTreeSet<Turn>,
    /// When: tokens end by themselves.
    at: UnixMillis,
    /// What is bad already and stays so, and what was not looked at.
    pub(crate) warnings: Vec<Diagnostic>,
}

/// Compiles what a change would bring together.
pub(crate) async fn check(
    ledger: &Ledger,
    change: &Change,
    at: UnixMillis,
) -> Result<Checked, PolicyError> {
    let found = ledger.read(|state| combinations(state, change, at));
    let mut in_order: Vec<_> = found.iter().collect();
    // What hosts run comes before what tokens may bring, then the longest.
    let has_hosts = |all: &BTreeSet<Who>| all.iter().any(|who| matches!(who, Who::Host(_)));
    in_order.sort_by_key(|(_, hosts)| Reverse((has_hosts(&hosts.all), hosts.bytes)));
    let (mut warnings, mut checked, begin) = (Vec::new(), 0, Instant::now());
    for (turn, hosts) in in_order.iter().take(CHECKED_MAX) {
        if checked > 0 && begin.elapsed() >= CHECK_TIME {
            break;
        }
        checked += 1;
        let Some(why) = what_is_wrong(ledger, Some(change), &turn.after).await? else {
            continue;
        };
        let who = ledger.read(|state| words::who(state, &hosts.all));
        if what_is_wrong(ledger, None, &turn.before).await?.is_none() {
            return Err(PolicyError::Union(words::refused(&who, &turn.after, &why)));
        }
        warnings.push(words::bad_already(&who, &turn.after, &why));
    }
    words::bound(&mut warnings);
    let unchecked = in_order.len().saturating_sub(checked);
    if unchecked > 0 {
        warnings.push(words::unchecked(unchecked));
    }
    for warning in &warnings {
        tracing::warn!(%warning, "Policies of hosts may not fit together.");
    }
    Ok(Checked {
        turns: found.into_keys().collect(),
        at,
        warnings,
    })
}

/// Refuses a change that would bring other combinations than those that were
/// checked.
pub(crate) fn still_holds(
    state: &LedgerState,
    change: &Change,
    checked: &Checked,
) -> Result<(), PolicyError> {
    let now = combinations(state, change, checked.at);
    if now.keys().all(|turn| checked.turns.contains(turn)) {
        return Ok(());
    }
    Err(PolicyError::NotNow(
        "what hosts run has changed at the same time; try again".to_owned(),
    ))
}

/// Why agents would refuse published revisions together; nothing when they take
/// them.
pub(crate) async fn wrong_with(
    ledger: &Ledger,
    revisions: &Revisions,
) -> Result<Option<String>, PolicyError> {
    what_is_wrong(ledger, None, revisions).await
}

/// The combinations that a change would bring, now and when the roll-outs that
/// are open have come to their end, each with its hosts. A policy alone is left
/// out: it was compiled when it was published.
fn combinations(state: &LedgerState, change: &Change, at: UnixMillis) -> BTreeMap<Turn, Hosts> {
    let mut found: BTreeMap<Turn, Hosts> = BTreeMap::new();
    let stands = Rollouts::stands(state);
    for member in members(state, change, at) {
        for stand in stands {
            let documents = documents_of(state, &member, Some(change), *stand);
            if documents.len() < 2 || !change.concerns(&member.who, &documents) {
                continue;
            }
            let turn = Turn {
                before: before(state, change, &member, *stand),
                after: revisions_of(&documents),
            };
            if turn.before == turn.after {
                continue;
            }
            let hosts = found.entry(turn).or_insert_with(|| Hosts {
                all: BTreeSet::new(),
                bytes: documents.iter().map(|d| text_bytes(d)).sum(),
            });
            hosts.all.insert(member.who.clone());
        }
    }
    found
}

/// What somebody runs without a change. Who comes with it runs nothing, and
/// nothing is always good.
fn before(state: &LedgerState, change: &Change, member: &Member<'_>, stand: Rollouts) -> Revisions {
    match change {
        Change::Token { .. } => Revisions::new(),
        _ => revisions_of(&documents_of(state, member, None, stand)),
    }
}

/// Why agents would refuse these revisions together; nothing when they take
/// them. Compiling takes long, so it happens off the threads that serve.
async fn what_is_wrong(
    ledger: &Ledger,
    change: Option<&Change>,
    revisions: &Revisions,
) -> Result<Option<String>, PolicyError> {
    let documents = ledger.read(|state| {
        let documents = revisions.iter().filter_map(|(name, revision)| {
            let new = change.and_then(|change| change.document_of(name));
            let kept = || Some(&state.policies.get(name)?.revision(*revision)?.document);
            new.or_else(kept).cloned()
        });
        documents.collect()
    });
    let compile = move || {
        let effective = EffectivePolicy { documents };
        let compiled = Policy::compile(&effective);
        compiled.err().map(|all| words::reasons(&effective, &all))
    };
    let compiled = tokio::task::spawn_blocking(compile).await;
    compiled.map_err(|error| PolicyError::Stopped(format!("the check was cut short: {error}")))
}

/// What a host runs, or would run after a change.
fn documents_of<'a>(
    state: &'a LedgerState,
    member: &Member<'a>,
    change: Option<&'a Change>,
    stand: Rollouts,
) -> Vec<&'a PolicyDocument> {
    let id = member.id();
    let host_groups = match change {
        Some(Change::Groups { host, groups }) if member.who == Who::Host(*host) => groups,
        _ => member.groups,
    };
    let own = id.map(group_of_host).unwrap_or_default();
    let mut found = Vec::new();
    let names = change
        .and_then(|change| change.new_policy(state))
        .into_iter();
    let names: BTreeSet<_> = names.chain(state.policies.keys()).collect();
    for name in names {
        let policy = state.policies.get(name);
        let new_groups = change.and_then(|change| change.groups_of(name));
        let groups = new_groups.or_else(|| Some(&policy?.groups));
        let groups = groups.map(Vec::as_slice).unwrap_or_default();
        let new = change.and_then(|change| change.document_of(name));
        let kept = || Some(&stand.revision(name, policy?, id)?.document);
        let is_its = |group: &String| {
            *group == own || group == GROUP_ALL || host_groups.iter().any(|has| has == group)
        };
        if groups.iter().any(is_its) {
            let document = new.or_else(kept);
            found.extend(document.map(|document| (rank(groups, &own), document)));
        }
    }
    found.sort_by_key(|(rank, _)| *rank);
    found.into_iter().map(|(_, document)| document).collect()
}

impl Rollouts {
    /// How roll-outs may stand when somebody gets policies.
    fn stands(state: &LedgerState) -> &'static [Self] {
        let is_open = |policy: &PolicyHistory| policy.open_rollout().is_some();
        if state.policies.values().any(is_open) {
            &[Self::AsTheyAre, Self::TakenBack, Self::Finished]
        } else {
            &[Self::AsTheyAre]
        }
    }

    /// What a host runs of a policy.
    fn revision<'a>(
        self,
        name: &str,
        policy: &'a PolicyHistory,
        host: Option<HostId>,
    ) -> Option<&'a PolicyRevision> {
        match (self, host) {
            (Self::AsTheyAre, Some(host)) => super::rollout::revision_for(name, policy, host),
            // Whoever is not here yet may be reached or not.
            (Self::AsTheyAre, None) | (Self::TakenBack, _) => policy.settled(),
            (Self::Finished, _) => policy.rolled_out().or_else(|| policy.settled()),
        }
    }
}

impl Change {
    /// Whether it changes what this one runs.
    fn concerns(&self, who: &Who, documents: &[&PolicyDocument]) -> bool {
        let runs = |name: &str| documents.iter().any(|document| document.name == name);
        match self {
            Self::Document { document, .. } => runs(&document.name),
            Self::Assigned { policy, .. } => runs(policy),
            Self::Groups { host, .. } => *who == Who::Host(*host),
            Self::Token { .. } => *who == Who::NewToken,
        }
    }

    /// The policy that there would be besides those that there are.
    fn new_policy(&self, state: &LedgerState) -> Option<&String> {
        match self {
            Self::Document { document, .. } => {
                let name = &document.name;
                (!state.policies.contains_key(name)).then_some(name)
            }
            Self::Assigned { .. } | Self::Groups { .. } | Self::Token { .. } => None,
        }
    }

    /// The new text of a policy.
    fn document_of(&self, name: &str) -> Option<&PolicyDocument> {
        match self {
            Self::Document { document, .. } if document.name == name => Some(document),
            _ => None,
        }
    }

    /// The new groups of a policy.
    fn groups_of(&self, name: &str) -> Option<&Vec<String>> {
        match self {
            Self::Assigned { policy, groups } if policy == name => Some(groups),
            Self::Document { document, groups } if document.name == name => groups.as_ref(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
