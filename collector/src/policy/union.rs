//! Whether what hosts get together still compiles, before a change that gives
//! it to them: the limits of an agent hold for all policies of a host at once.
//!
//! The road: [`combinations_after`] says which policies hosts would run
//! together; [`check`] compiles each combination as an agent would. The change
//! is written only while the combinations are the ones that were checked.
//!
//! A host that enrols, and a step of another roll-out, can still bring a
//! combination that nobody checked: an agent refuses it, keeps what it has and
//! says so.

use std::collections::BTreeMap;

use procwarden_common::diagnostic::{Diagnostic, Level};
use procwarden_common::id::HostId;
use procwarden_common::policy::{EffectivePolicy, Policy, PolicyDocument};
use procwarden_common::printable::printable;

use super::rollout::revision_for;
use super::{PolicyError, rank};
use crate::ledger::state::{GROUP_ALL, HostRecord, group_of_host};
use crate::ledger::{Ledger, LedgerState};

/// Combinations that are compiled for one change; a fleet has a handful.
const CHECKED_MAX: usize = 64;

/// Errors that are told of one combination.
const ERRORS_TOLD_MAX: usize = 3;

/// What is about to change.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// The hosts of its policy run this document.
    Document(PolicyDocument),
    /// These groups run a policy.
    Assigned { policy: String, groups: Vec<String> },
    /// A host is in these groups.
    Groups { host: HostId, groups: Vec<String> },
}

/// Policies that hosts run together, by name and revision, in their order.
type Revisions = Vec<(String, u64)>;

/// The combinations that a change would bring, each with one of its hosts.
/// A policy alone is left out: it was compiled when it was published.
pub(crate) fn combinations_after(
    state: &LedgerState,
    change: &Change,
) -> BTreeMap<Revisions, HostId> {
    let mut found = BTreeMap::new();
    for (id, host) in state.hosts.iter().filter(|(_, host)| !host.revoked) {
        let documents = documents_after(state, *id, host, change);
        if documents.len() > 1 && change.concerns(*id, &documents) {
            let revisions = documents.iter().map(|d| (d.name.clone(), d.revision));
            found.entry(revisions.collect()).or_insert(*id);
        }
    }
    found
}

/// Compiles what a change would bring together. Gives the combinations, to be
/// compared when the change is written.
pub(crate) async fn check(
    ledger: &Ledger,
    change: &Change,
) -> Result<BTreeMap<Revisions, HostId>, PolicyError> {
    let found = ledger.read(|state| combinations_after(state, change));
    for id in found.values().take(CHECKED_MAX) {
        let host = ledger.read(|state| {
            let host = state.hosts.get(id)?;
            let documents = documents_after(state, *id, host, change).into_iter();
            Some((host.name.clone(), documents.cloned().collect::<Vec<_>>()))
        });
        let Some((host_name, documents)) = host else {
            continue;
        };
        let names: Vec<String> = documents.iter().map(|d| d.name.clone()).collect();
        let compile = move || Policy::compile(&EffectivePolicy { documents }).map(drop);
        let compiled = tokio::task::spawn_blocking(compile).await;
        let compiled = compiled.map_err(|error| PolicyError::Stopped(error.to_string()))?;
        if let Err(remarks) = compiled {
            return Err(PolicyError::Union(sentence(&host_name, &names, &remarks)));
        }
    }
    Ok(found)
}

/// Refuses a change that would bring other combinations than those that were
/// checked.
pub(crate) fn still_holds(
    state: &LedgerState,
    change: &Change,
    checked: &BTreeMap<Revisions, HostId>,
) -> Result<(), PolicyError> {
    let now = combinations_after(state, change);
    if now.keys().all(|revisions| checked.contains_key(revisions)) {
        return Ok(());
    }
    Err(PolicyError::NotNow(
        "what hosts run has changed at the same time; try again".to_owned(),
    ))
}

fn sentence(host_name: &str, names: &[String], remarks: &[Diagnostic]) -> String {
    let errors = remarks.iter().filter(|remark| remark.level == Level::Error);
    let errors: Vec<String> = errors.map(ToString::to_string).collect();
    let told = errors.iter().take(ERRORS_TOLD_MAX).cloned();
    let mut told = told.collect::<Vec<_>>().join("; ");
    if errors.len() > ERRORS_TOLD_MAX {
        let more = errors.len() - ERRORS_TOLD_MAX;
        told.push_str(&format!("; and {more} more"));
    }
    let host_name = printable(host_name.as_bytes());
    let names = names.join(", ");
    format!(
        "hosts such as {host_name} would get the policies {names} together, and agents refuse \
         that: {told}"
    )
}

fn documents_after<'a>(
    state: &'a LedgerState,
    id: HostId,
    host: &'a HostRecord,
    change: &'a Change,
) -> Vec<&'a PolicyDocument> {
    let host_groups = match change {
        Change::Groups { groups, .. } => groups,
        Change::Document(_) | Change::Assigned { .. } => &host.groups,
    };
    let own = group_of_host(id);
    let mut found = Vec::new();
    for (name, policy) in &state.policies {
        let groups = match change {
            Change::Assigned { policy, groups } if policy == name => groups,
            _ => &policy.groups,
        };
        let document = match change {
            Change::Document(new) if new.name == *name => Some(new),
            _ => revision_for(name, policy, id).map(|revision| &revision.document),
        };
        let is_its = |group: &String| {
            *group == own || group == GROUP_ALL || host_groups.iter().any(|has| has == group)
        };
        if groups.iter().any(is_its) {
            found.extend(document.map(|document| (rank(groups, &own), document)));
        }
    }
    found.sort_by_key(|(rank, _)| *rank);
    found.into_iter().map(|(_, document)| document).collect()
}

impl Change {
    /// Whether it changes what this host runs.
    fn concerns(&self, id: HostId, documents: &[&PolicyDocument]) -> bool {
        let runs = |name: &str| documents.iter().any(|document| document.name == name);
        match self {
            Self::Document(new) => runs(&new.name),
            Self::Assigned { policy, .. } => runs(policy),
            Self::Groups { host, .. } => *host == id,
        }
    }
}

#[cfg(test)]
mod tests;
