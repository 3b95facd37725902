//! The way back: the content of an older revision as the next one. A revision
//! never changes and is never taken away, so the log tells what happened.

use procwarden_common::clock::UnixMillis;
use procwarden_common::policy::PolicyDocument;

use super::limits::check_comment;
use super::{Next, Outcome, PolicyError, check_name, publish_after};
use crate::ledger::{Ledger, LedgerState};

/// Publishes the files and settings of `revision` anew. Nothing happens when
/// the newest revision has them already.
pub(crate) async fn rollback(
    ledger: &Ledger,
    actor: &str,
    now: UnixMillis,
    name: &str,
    revision: u64,
    comment: &str,
) -> Result<Outcome, PolicyError> {
    check_name("policy name", name)?;
    let comment = comment_of(revision, comment);
    check_comment(&comment)?;
    let (newest, wanted) = ledger.read(|state| look_up(state, name, revision))?;
    let document = PolicyDocument {
        revision: newest.revision + 1,
        ..wanted
    };
    let next = Next {
        document,
        comment,
        staged: false,
        groups: Vec::new(),
    };
    publish_after(ledger, actor, now, Some(newest), next).await
}

/// The newest revision and the wanted one.
fn look_up(
    state: &LedgerState,
    name: &str,
    wanted: u64,
) -> Result<(PolicyDocument, PolicyDocument), PolicyError> {
    let policy = state
        .policies
        .get(name)
        .ok_or_else(|| PolicyError::Unknown(name.to_owned()))?;
    let found = policy.revision(wanted).zip(policy.newest());
    let (wanted, newest) = found.ok_or_else(|| PolicyError::UnknownRevision {
        name: name.to_owned(),
        wanted,
    })?;
    Ok((newest.document.clone(), wanted.document.clone()))
}

fn comment_of(revision: u64, comment: &str) -> String {
    match comment.trim() {
        "" => format!("rollback to revision {revision}"),
        why => format!("rollback to revision {revision}: {why}"),
    }
}
