//! Policies on the collector: who runs what, and the road of a new revision.
//!
//! The road: check the name, fill in what was not given from the newest
//! revision, compile as an agent would, and commit to the ledger. The sessions
//! watch the ledger and push from there.
//!
//! Promises: what is published compiles; a revision never changes and its
//! number follows the one before. Never pushes anything itself.

use procwarden_common::clock::UnixMillis;
use procwarden_common::diagnostic::{self, Diagnostic};
use procwarden_common::id::HostId;
use procwarden_common::policy::{self, EffectivePolicy, PolicyDocument, PolicyFile};
use procwarden_proto::v1;
use procwarden_proto::v1::ledger_record::Entry;

use crate::ledger::state::{GROUP_ALL, HostRecord, PolicyHistory, PolicyRevision, group_of_host};
use crate::ledger::{CommitError, Ledger, LedgerState};

mod assigned;
mod document;
mod expiry;
pub(crate) mod hits;
pub(crate) mod learn;
mod limits;
mod name;
pub(crate) mod preview;
mod rollback;
pub(crate) mod rollout;
pub(crate) mod union;
use assigned::groups_without_hosts;
pub(crate) use document::{revision_hash, rule_lines};
pub(crate) use expiry::Expiries;
pub(crate) use hits::RuleHits;
use limits::{check_draft, check_fleet};
use name::check_assigned;
pub(crate) use name::{InvalidName, check_groups, check_name};
pub(crate) use rollback::rollback;

/// What the operator wants to publish.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) name: String,
    /// Empty keeps the files of the newest revision.
    pub(crate) files: Vec<PolicyFile>,
    /// Nothing keeps the settings of the newest revision.
    pub(crate) settings: Option<String>,
    pub(crate) comment: String,
    /// The revision that it was made from; nothing follows whatever is newest.
    pub(crate) base: Option<u64>,
    /// Hosts stay on what they run until a roll-out.
    pub(crate) staged: bool,
    /// Given to these groups instead of those it has; none keeps them.
    pub(crate) groups: Vec<String>,
}

/// What became of a draft.
#[derive(Debug)]
#[must_use]
pub(crate) struct Outcome {
    /// False when the draft has errors, or the text of the newest revision.
    pub(crate) published: bool,
    /// Remarks of the check; errors among them when it was refused.
    pub(crate) diagnostics: Vec<Diagnostic>,
}

/// Why nothing was published or assigned.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PolicyError {
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error("{0}")]
    Limit(String),
    /// What hosts would get together does not compile.
    #[error("{0}")]
    Union(String),
    #[error("there is no policy {0}; `procwarden policy list` shows what there is")]
    Unknown(String),
    #[error(
        "policy {name} has no revision {wanted}; `procwarden policy log {name}` shows what there is"
    )]
    UnknownRevision { name: String, wanted: u64 },
    #[error("policy {0} has no revision yet, so a pignore file must be given")]
    NothingToKeep(String),
    #[error("somebody else published policy {0} at the same time; look at it and publish again")]
    Raced(String),
    #[error(
        "policy {name} has revision {newest} by now, and the text was made from revision {base}: \
         `procwarden policy diff {name} {base} {newest}` shows what would be lost"
    )]
    Overtaken {
        name: String,
        base: u64,
        newest: u64,
    },
    #[error(
        "revision {revision} of policy {name} is being rolled out, so nothing else is published \
         or rolled out; end that first with `procwarden policy rollout abort {name}`"
    )]
    RollingOut { name: String, revision: u64 },
    #[error("{0}")]
    NotNow(String),
    #[error("{0}")]
    Stopped(String),
}

impl From<CommitError<Self>> for PolicyError {
    fn from(error: CommitError<Self>) -> Self {
        match error {
            CommitError::Refused(refused) => refused,
            CommitError::Stopped(why) => Self::Stopped(why),
        }
    }
}

/// Everything a host runs: the policies that are assigned to `all`, then those
/// of its own groups, then those of the host itself, each by name; later
/// settings overlay earlier ones. Nothing when the host is not known.
pub(crate) fn effective_for(state: &LedgerState, id: HostId) -> Option<EffectivePolicy> {
    let host = state.hosts.get(&id)?;
    let documents = documents_for(state, id, host)
        .into_iter()
        .cloned()
        .collect();
    Some(EffectivePolicy { documents })
}

/// The same without copying any text.
pub(crate) fn documents_for<'a>(
    state: &'a LedgerState,
    id: HostId,
    host: &HostRecord,
) -> Vec<&'a PolicyDocument> {
    let newest = policies_for(state, id, host).into_iter();
    newest.map(|(_, revision)| &revision.document).collect()
}

/// The policies of a host in the order in which they overlay each other, with
/// the revision that it should run. Those without any are left out.
pub(crate) fn policies_for<'a>(
    state: &'a LedgerState,
    id: HostId,
    host: &HostRecord,
) -> Vec<(&'a PolicyHistory, &'a PolicyRevision)> {
    let own = group_of_host(id);
    let mut policies: Vec<_> = state
        .policies
        .iter()
        .filter(|(_, policy)| policy.covers(id, host))
        .filter_map(|(name, policy)| Some((policy, rollout::revision_for(name, policy, id)?)))
        .collect();
    // Stable: within a rank they stay in the order of their names.
    policies.sort_by_key(|(policy, _)| rank(&policy.groups, &own));
    policies
}

/// What a host would run if the policy `name` were not being rolled out.
pub(crate) fn documents_without_rollout<'a>(
    state: &'a LedgerState,
    id: HostId,
    host: &HostRecord,
    name: &str,
) -> Vec<&'a PolicyDocument> {
    let settled = state.policies.get(name).and_then(|p| p.settled());
    let mut documents = documents_for(state, id, host);
    match settled {
        Some(settled) => {
            let rolled_out = documents.iter_mut().filter(|d| d.name == name);
            rolled_out.for_each(|document| *document = &settled.document);
        }
        None => documents.retain(|document| document.name != name),
    }
    documents
}

/// Policies that hosts run together, by name and revision, in their order.
pub(crate) type Revisions = Vec<(String, u64)>;

/// Names what hosts run together; revisions never change.
pub(crate) fn revisions_of(documents: &[&PolicyDocument]) -> Revisions {
    let named = documents.iter().map(|d| (d.name.clone(), d.revision));
    named.collect()
}

/// What is said of fewer hosts comes later. The host's own assignment counts
/// most; else one to `all` makes a policy a general one.
fn rank(groups: &[String], own: &str) -> u8 {
    if groups.iter().any(|group| group == own) {
        2
    } else if groups.iter().any(|group| group == GROUP_ALL) {
        0
    } else {
        1
    }
}

/// Publishes a draft as the next revision of its policy.
pub(crate) async fn publish(
    ledger: &Ledger,
    actor: &str,
    now: UnixMillis,
    draft: Draft,
) -> Result<Outcome, PolicyError> {
    check_name("policy name", &draft.name)?;
    check_draft(&draft)?;
    let (newest, kept) = ledger.read(|state| newest_and_kept(state, &draft));
    check_base(&draft, newest.as_ref())?;
    let (comment, staged) = (draft.comment.clone(), draft.staged);
    let groups = check_assigned(draft.groups.clone())?;
    let next = Next {
        document: fill_in(draft, kept.as_ref(), newest.as_ref())?,
        comment,
        staged,
        groups,
    };
    publish_after(ledger, actor, now, newest, next).await
}

/// A document that was made to follow another.
struct Next {
    document: PolicyDocument,
    comment: String,
    /// Hosts stay on what they run until a roll-out.
    staged: bool,
    /// None keeps those that the policy has.
    groups: Vec<String>,
}

/// While a roll-out is open, what hosts run is its matter.
fn refuse_rollout(state: &LedgerState, name: &str) -> Result<(), PolicyError> {
    match state.policies.get(name).and_then(|p| p.open_rollout()) {
        None => Ok(()),
        Some(open) => Err(PolicyError::RollingOut {
            name: name.to_owned(),
            revision: open.revision,
        }),
    }
}

/// Publishes a document that was made to follow `newest`, and gives it to its
/// groups: both or nothing.
async fn publish_after(
    ledger: &Ledger,
    actor: &str,
    now: UnixMillis,
    newest: Option<PolicyDocument>,
    next: Next,
) -> Result<Outcome, PolicyError> {
    ledger.read(|state| refuse_rollout(state, &next.document.name))?;
    let base = newest.as_ref().map_or(0, |document| document.revision);
    let (document, checked) = check(next.document, now).await?;
    let mut outcome = Outcome {
        published: false,
        diagnostics: Vec::new(),
    };
    match checked {
        Ok(warnings) => outcome.diagnostics = warnings,
        Err(diagnostics) => {
            outcome.diagnostics = diagnostics;
            return Ok(outcome);
        }
    }
    let next = Next { document, ..next };
    if ledger.read(|state| is_published(state, newest.as_ref(), &next)) {
        if !next.groups.is_empty() {
            let name = next.document.name;
            let warnings = assign(ledger, actor, now, name, next.groups).await?;
            outcome.diagnostics.extend(warnings);
        }
        return Ok(outcome);
    }
    let warnings = commit_next(ledger, actor, now, base, next).await?;
    outcome.diagnostics.extend(warnings);
    outcome.published = true;
    Ok(outcome)
}

/// Whether the newest revision has this text. What is staged already is
/// published anew when it shall run everywhere.
fn is_published(state: &LedgerState, newest: Option<&PolicyDocument>, next: &Next) -> bool {
    let document = &next.document;
    let is_same = |n: &PolicyDocument| n.files == document.files && n.settings == document.settings;
    let policy = state.policies.get(&document.name);
    let runs_everywhere = policy.is_none_or(|policy| policy.staying.is_none());
    newest.is_some_and(is_same) && (next.staged || runs_everywhere)
}

/// Writes a document that compiles, if what hosts would get together does too.
/// Text and groups are one record: a crash cannot come between them.
async fn commit_next(
    ledger: &Ledger,
    actor: &str,
    now: UnixMillis,
    base: u64,
    next: Next,
) -> Result<Vec<Diagnostic>, PolicyError> {
    let change = union::Change::Document {
        document: next.document.clone(),
        groups: (!next.groups.is_empty()).then(|| next.groups.clone()),
    };
    let together = union::check(ledger, &change, now).await?;
    let mut warnings = ledger.read(|state| groups_without_hosts(state, &next.groups));
    let decide = |state: &LedgerState| {
        let document = &next.document;
        if newest_revision(state, &document.name) != base {
            return Err(PolicyError::Raced(document.name.clone()));
        }
        refuse_rollout(state, &document.name)?;
        check_fleet(state, document)?;
        union::still_holds(state, &change, &together)?;
        Ok(Entry::PolicyPublished(v1::PolicyPublished {
            document: Some(v1::PolicyDocument::from(document)),
            hash: revision_hash(document).to_vec().into(),
            comment: next.comment,
            staged: next.staged,
            groups: next.groups,
        }))
    };
    ledger.commit(now, actor, decide).await?;
    warnings.extend(together.warnings);
    Ok(warnings)
}

/// Refuses a draft that does not know the newest revision.
fn check_base(draft: &Draft, newest: Option<&PolicyDocument>) -> Result<(), PolicyError> {
    let newest = newest.map_or(0, |document| document.revision);
    match draft.base {
        Some(base) if base != newest => Err(PolicyError::Overtaken {
            name: draft.name.clone(),
            base,
            newest,
        }),
        _ => Ok(()),
    }
}

/// What the hosts of a draft's policy run, and what publishing the draft would
/// make of it. Nothing is published.
pub(crate) fn candidate(
    ledger: &Ledger,
    draft: Draft,
) -> Result<(Option<PolicyDocument>, PolicyDocument), PolicyError> {
    check_name("policy name", &draft.name)?;
    check_draft(&draft)?;
    let (newest, kept) = ledger.read(|state| newest_and_kept(state, &draft));
    let next = fill_in(draft, kept.as_ref(), newest.as_ref())?;
    Ok((kept, next))
}

/// Replaces the groups that run a policy; a host's own group is one of them.
/// Gives what is doubtful about it.
pub(crate) async fn assign(
    ledger: &Ledger,
    actor: &str,
    now: UnixMillis,
    name: String,
    groups: Vec<String>,
) -> Result<Vec<Diagnostic>, PolicyError> {
    check_name("policy name", &name)?;
    let groups = check_assigned(groups)?;
    let change = union::Change::Assigned {
        policy: name.clone(),
        groups: groups.clone(),
    };
    let together = union::check(ledger, &change, now).await?;
    let mut warnings = ledger.read(|state| groups_without_hosts(state, &groups));
    let decide = |state: &LedgerState| {
        if !state.policies.contains_key(&name) {
            return Err(PolicyError::Unknown(name.clone()));
        }
        union::still_holds(state, &change, &together)?;
        Ok(Entry::PolicyAssigned(v1::PolicyAssigned {
            name: name.clone(),
            groups,
        }))
    };
    ledger.commit(now, actor, decide).await?;
    warnings.extend(together.warnings);
    Ok(warnings)
}

fn newest_document(state: &LedgerState, name: &str) -> Option<PolicyDocument> {
    Some(state.policies.get(name)?.newest()?.document.clone())
}

/// The newest revision, and the one whose text is kept where a draft gives
/// none: what hosts run, so that nothing staged reaches them by accident.
fn newest_and_kept(
    state: &LedgerState,
    draft: &Draft,
) -> (Option<PolicyDocument>, Option<PolicyDocument>) {
    let newest = newest_document(state, &draft.name);
    if draft.staged {
        return (newest.clone(), newest);
    }
    let settled = state.policies.get(&draft.name).and_then(|p| p.settled());
    (newest, settled.map(|revision| revision.document.clone()))
}

fn newest_revision(state: &LedgerState, name: &str) -> u64 {
    let newest = state.policies.get(name).and_then(|policy| policy.newest());
    newest.map_or(0, |revision| revision.document.revision)
}

/// The next revision's text: what was given, and the rest as it is.
fn fill_in(
    draft: Draft,
    kept: Option<&PolicyDocument>,
    newest: Option<&PolicyDocument>,
) -> Result<PolicyDocument, PolicyError> {
    if draft.files.is_empty() && draft.settings.is_none() && kept.is_none() {
        return Err(PolicyError::NothingToKeep(draft.name));
    }
    let files = if draft.files.is_empty() {
        kept.map(|document| document.files.clone())
            .unwrap_or_default()
    } else {
        draft.files
    };
    let kept_settings = || {
        kept.map(|document| document.settings.clone())
            .unwrap_or_default()
    };
    Ok(PolicyDocument {
        name: draft.name,
        revision: newest.map_or(0, |document| document.revision) + 1,
        files,
        settings: draft.settings.unwrap_or_else(kept_settings),
    })
}

/// Warnings, or every remark when one of them is an error.
type Checked = Result<Vec<Diagnostic>, Vec<Diagnostic>>;

/// Compiles the document as an agent would, and looks for doubtful rules. That
/// takes long for many rules, so it happens off the threads that serve.
async fn check(
    document: PolicyDocument,
    now: UnixMillis,
) -> Result<(PolicyDocument, Checked), PolicyError> {
    let compile = move || {
        let effective = EffectivePolicy {
            documents: vec![document.clone()],
        };
        let checked = policy::check(&effective, now).map(|(_, warnings)| warnings);
        debug_assert!(
            checked
                .as_ref()
                .err()
                .is_none_or(|d| diagnostic::has_errors(d))
        );
        (document, checked)
    };
    tokio::task::spawn_blocking(compile)
        .await
        .map_err(|error| PolicyError::Stopped(format!("the check was cut short: {error}")))
}

#[cfg(test)]
mod tests;
