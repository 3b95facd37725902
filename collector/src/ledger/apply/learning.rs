//! Learn mode: how its records change the state.

use procwarden_common::clock::UnixMillis;
use procwarden_proto::v1;

use super::Step;
use crate::ledger::LedgerState;
use crate::policy::learn::Learning;

impl LedgerState {
    pub(super) fn learning_started(
        at: UnixMillis,
        actor: String,
        entry: v1::LearningStarted,
    ) -> Step {
        let learning = Learning {
            since: at,
            until: UnixMillis(entry.until_ms),
            started_by: actor,
            ended_by: None,
        };
        Box::new(move |state| {
            state.learning.insert(entry.group, learning);
        })
    }

    pub(super) fn learning_ended(
        &self,
        at: UnixMillis,
        actor: String,
        entry: v1::LearningEnded,
    ) -> Result<Step, String> {
        let group = entry.group;
        if !self.learning.contains_key(&group) {
            return Err(format!("group {group} was never learned from"));
        }
        Ok(Box::new(move |state| {
            if let Some(learning) = state.learning.get_mut(&group)
                && at < learning.until
            {
                learning.until = at;
                learning.ended_by = Some(actor);
            }
        }))
    }
}
