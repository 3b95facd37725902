//! Staged roll-outs: which revision of a policy a host runs, and how a new one
//! goes from a few hosts to all of them.
//!
//! Pure. [`revision_for`] is the one place that says what a host runs; sessions,
//! status, host pages and previews ask it. [`decide()`] says what comes next,
//! from the roll-out, the time and what its hosts say.
//!
//! Promises: a host that was reached stays reached until the roll-out ends; the
//! first step reaches at least one host; the same state gives the same answer
//! after a restart. Never reads a clock.

use std::collections::BTreeSet;
use std::sync::Arc;

use procwarden_common::clock::UnixMillis;
use procwarden_common::id::HostId;
use sha2::{Digest, Sha256};

use crate::ledger::state::{PolicyHistory, PolicyRevision};
use crate::policy::hits::Marks;

mod decide;
mod moves;
mod plan;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use decide::{Decision, Facts, Ignored, decide};
pub(crate) use moves::{facts_of_hosts, hosts_of, hosts_of_step, move_by_operator, start};
pub(crate) use plan::{InvalidPlan, Plan, Threshold};

/// One roll-out, running or over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rollout {
    pub(crate) revision: u64,
    pub(crate) plan: Plan,
    pub(crate) started_at: UnixMillis,
    pub(crate) started_by: String,
    /// Position in the plan's steps.
    pub(crate) step: usize,
    pub(crate) step_since: UnixMillis,
    /// Hosts up to this place in the order are reached.
    pub(crate) limit: u64,
    /// Hosts whose silence or refusal is not the revision's doing: it began
    /// before they were reached, or an operator accepted it.
    pub(crate) excused: BTreeSet<HostId>,
    pub(crate) phase: Phase,
    /// The last move besides steps.
    pub(crate) moved: Option<Moved>,
    /// The mail about its stop was taken.
    pub(crate) told: bool,
    /// What speaks neither for nor against it.
    pub(crate) baseline: Option<Baseline>,
}

/// What the rules that are new with it had ignored at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Baseline {
    /// The start of the roll-out, or the last time that somebody resumed it.
    pub(crate) since: UnixMillis,
    pub(crate) marks: Arc<Marks>,
}

/// Who moved it, when and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) at: UnixMillis,
    pub(crate) by: String,
    pub(crate) reason: String,
}

/// Where a roll-out stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Running,
    Paused,
    /// Stopped by itself; the hosts that it reached keep the revision.
    Held,
    /// Stopped by itself; every host runs the former revision.
    Reverted,
    Aborted,
    Finished,
}

impl Rollout {
    /// Whether its hosts run its revision, and nothing else may be published.
    pub(crate) const fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Paused | Phase::Held)
    }

    /// Whether it has come to this host.
    pub(crate) fn reaches(&self, policy: &str, host: HostId) -> bool {
        place(policy, self, host) <= self.limit
    }
}

/// What a host that has this policy runs of it.
pub(crate) fn revision_for<'a>(
    name: &str,
    policy: &'a PolicyHistory,
    host: HostId,
) -> Option<&'a PolicyRevision> {
    let reached = policy
        .open_rollout()
        .filter(|rollout| rollout.reaches(name, host));
    reached
        .and_then(|rollout| policy.revision(rollout.revision))
        .or_else(|| policy.settled())
}

/// The place of a host in the order of a roll-out: a stable hash, so that no
/// host is always the first to try what is new.
fn place(policy: &str, rollout: &Rollout, host: HostId) -> u64 {
    place_of(policy, rollout.revision, rollout.started_at, host)
}

fn place_of(policy: &str, revision: u64, started_at: UnixMillis, host: HostId) -> u64 {
    let mut hash = Sha256::new();
    hash.update(b"procwarden roll-out v1\0");
    hash.update(policy.as_bytes());
    hash.update(b"\0");
    hash.update(revision.to_be_bytes());
    hash.update(started_at.0.to_be_bytes());
    hash.update(host.as_bytes());
    let bytes = hash.finalize();
    bytes
        .iter()
        .take(8)
        .fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}

/// The limit that reaches this many percent of the hosts with these places,
/// rounded up; never below an earlier limit.
fn limit_for(percent: u8, mut places: Vec<u64>, before: u64) -> u64 {
    if percent >= 100 {
        return u64::MAX;
    }
    places.sort_unstable();
    let count = (places.len() * usize::from(percent)).div_ceil(100);
    let last = count.checked_sub(1).and_then(|last| places.get(last));
    last.copied().unwrap_or(0).max(before)
}
