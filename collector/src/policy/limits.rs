//! What policies may take up: one of them, and all of a fleet together. Pure.

use procwarden_common::limits::{
    MESSAGE_BYTES_MAX, POLICIES_MAX, POLICY_BYTES_MAX, POLICY_FILES_MAX,
};
use procwarden_common::policy::PolicyDocument;

use super::document::text_bytes;
use super::{Draft, PolicyError};
use crate::ledger::LedgerState;
use crate::ledger::state::PolicyHistory;

/// Bytes of the comment of a revision.
pub(super) const COMMENT_BYTES_MAX: usize = 4096;

/// Bytes of the newest revisions of all policies. A host may get every one of
/// them in one message, which has names and lengths besides.
const FLEET_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 256 * 1024;

/// Checks the sizes of what is about to be published.
pub(super) fn check_draft(draft: &Draft) -> Result<(), PolicyError> {
    if draft.files.len() > POLICY_FILES_MAX {
        return limit(format!("a policy has at most {POLICY_FILES_MAX} files"));
    }
    let file_bytes: usize = draft
        .files
        .iter()
        .map(|f| f.content.len() + f.path.len())
        .sum();
    if file_bytes + draft.settings.as_ref().map_or(0, String::len) > POLICY_BYTES_MAX {
        return limit(format!(
            "the files of a policy have at most {POLICY_BYTES_MAX} bytes"
        ));
    }
    check_comment(&draft.comment)
}

/// Checks the size of a comment.
pub(super) fn check_comment(comment: &str) -> Result<(), PolicyError> {
    if comment.len() > COMMENT_BYTES_MAX {
        return limit(format!("a comment has at most {COMMENT_BYTES_MAX} bytes"));
    }
    Ok(())
}

/// Checks that a host that runs every policy, this one besides or instead of
/// its older revision, still gets them all.
pub(super) fn check_fleet(state: &LedgerState, next: &PolicyDocument) -> Result<(), PolicyError> {
    let others = state.policies.values().filter_map(longest);
    let others = others.filter(|document| next.name != document.name);
    let (count, bytes) = others
        .chain([next])
        .fold((0, 0), |(count, bytes), document| {
            (count + 1, bytes + text_bytes(document))
        });
    if count > POLICIES_MAX {
        return limit(format!("a fleet has at most {POLICIES_MAX} policies"));
    }
    if bytes > FLEET_BYTES_MAX {
        return limit(format!(
            "all policies together have at most {FLEET_BYTES_MAX} bytes"
        ));
    }
    Ok(())
}

/// The longest of what hosts may run of a policy: its newest revision, what
/// they stay on, and what is rolled out.
fn longest(policy: &PolicyHistory) -> Option<&PolicyDocument> {
    [policy.newest(), policy.settled(), policy.rolled_out()]
        .into_iter()
        .flatten()
        .map(|revision| &revision.document)
        .max_by_key(|document| text_bytes(document))
}

fn limit(text: String) -> Result<(), PolicyError> {
    Err(PolicyError::Limit(text))
}

#[cfg(test)]
mod tests {
    use procwarden_common::clock::UnixMillis;
    use procwarden_common::policy::PolicyFile;

    use super::*;
    use crate::ledger::state::PolicyRevision;

    fn document(name: &str, bytes: usize) -> PolicyDocument {
        let file = PolicyFile {
            path: String::new(),
            content: vec![b'#'; bytes],
        };
        PolicyDocument {
            name: name.into(),
            revision: 1,
            files: vec![file],
            settings: String::new(),
        }
    }

    fn insert(state: &mut LedgerState, document: PolicyDocument) {
        let name = document.name.clone();
        let revision = PolicyRevision {
            document,
            published_at: UnixMillis(0),
            author: String::new(),
            comment: String::new(),
            rules: 0,
        };
        let history = PolicyHistory {
            revisions: vec![revision],
            ..PolicyHistory::default()
        };
        state.policies.insert(name, history);
    }

    #[test]
    fn all_policies_together_fit_one_message() {
        let mut state = LedgerState::default();
        insert(&mut state, document("a", FLEET_BYTES_MAX));
        assert!(check_fleet(&state, &document("a", 100)).is_ok());
        assert!(check_fleet(&state, &document("b", 100)).is_err());
    }

    #[test]
    fn a_fleet_has_a_bounded_number_of_policies() {
        let mut state = LedgerState::default();
        for number in 0..POLICIES_MAX {
            insert(&mut state, document(&format!("p{number}"), 0));
        }
        assert!(check_fleet(&state, &document("p0", 0)).is_ok());
        assert!(check_fleet(&state, &document("one-more", 0)).is_err());
    }
}
