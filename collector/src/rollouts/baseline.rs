//! What the new rules of a roll-out had ignored when it began: noted at the first
//! look, and kept in the ledger, because agents say their counts only as they
//! are.
//!
//! Promises: a restart of the collector changes nothing about what is new.
//! Bounded: of what has no room, the times decide after a restart.

use std::cmp::Reverse;
use std::sync::Arc;

use bytes::Bytes;
use procwarden_common::clock::UnixMillis;
use procwarden_common::id::HostId;
use procwarden_common::policy::RuleId;
use procwarden_proto::v1;
use procwarden_proto::v1::ledger_record::Entry;

use super::{ACTOR, Rollouts, evidence_since, since_of};
use crate::ledger::CommitError;
use crate::policy::PolicyError;
use crate::policy::hits::{HostHit, Mark, Marks};
use crate::policy::rollout::{Phase, Rollout};

/// Marks that the ledger keeps of one roll-out, the newest first: some 1.5 MB.
const MARKS_MAX: usize = 20_000;

impl Rollouts {
    /// What was there before a roll-out was begun or resumed. Where nobody noted
    /// it in time, because the collector has been started since, nothing is
    /// known: what hosts say by now may as well have happened after it. Of hosts
    /// that a resumption finds silent, what was noted last is known.
    pub(super) fn baseline(
        &self,
        name: &str,
        rollout: &Rollout,
        known: impl FnOnce() -> Vec<HostHit>,
    ) -> Arc<Marks> {
        let (since, _) = evidence_since(rollout);
        let kept = rollout.baseline.as_ref();
        if let Some(kept) = kept.filter(|kept| kept.since == since) {
            return Arc::clone(&kept.marks);
        }
        // Not by the clock, which may have been set since.
        if self.from_before.contains(&since_of(name, rollout)) {
            return Arc::default();
        }
        let mut marks = kept.map_or_else(Marks::new, |kept| Marks::clone(&kept.marks));
        let mark = |hit: HostHit| ((hit.rule, hit.host), hit.mark);
        marks.extend(known().into_iter().map(mark));
        Arc::new(marks)
    }

    /// Writes what was noted of a roll-out, once per start and resumption.
    /// Whether there was anything to write.
    pub(super) async fn keep_baseline(
        &self,
        name: &str,
        seen: &Rollout,
        now: UnixMillis,
    ) -> Result<bool, PolicyError> {
        let (since, _) = evidence_since(seen);
        let is_kept = seen.baseline.as_ref().is_some_and(|b| b.since == since);
        if is_kept || seen.phase != Phase::Running {
            return Ok(false);
        }
        // Nothing was noted where nobody asks what is hidden.
        let Some(marks) = self.new_rules.before(name, seen.revision, since) else {
            return Ok(false);
        };
        let entry = v1::RolloutBaseline {
            policy: name.to_owned(),
            revision: seen.revision,
            started_at_ms: seen.started_at.0,
            since_ms: since.0,
            marks: messages(&marks),
        };
        let commit = self.ledger.commit(now, ACTOR, |state| {
            let current = state.policies.get(name).and_then(|p| p.rollout.as_ref());
            if current != Some(seen) {
                return Err(PolicyError::Raced(name.to_owned()));
            }
            Ok(Entry::RolloutBaseline(entry))
        });
        match commit.await {
            // An operator was faster: there is another look in a second.
            Ok(()) | Err(CommitError::Refused(PolicyError::Raced(_))) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}

fn messages(marks: &Marks) -> Vec<v1::RolloutMark> {
    let mut newest_first: Vec<_> = marks.iter().collect();
    newest_first.sort_by_key(|(_, mark)| Reverse(mark.newest));
    newest_first.truncate(MARKS_MAX);
    let message = |((rule, host), mark): (&(RuleId, HostId), &Mark)| v1::RolloutMark {
        rule_id: Bytes::copy_from_slice(rule.as_bytes()),
        host_id: Bytes::copy_from_slice(host.as_bytes()),
        fresh: mark.fresh,
        unseen: mark.unseen,
        newest_ms: mark.newest.0,
    };
    newest_first.into_iter().map(message).collect()
}
