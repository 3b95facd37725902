//! A record of the ledger in words. Pure.
//!
//! Promises: every kind of record is told; no secret is, not even its digest.

use data_encoding::HEXLOWER;
use procwarden_common::clock::UnixMillis;
use procwarden_common::id::HostId;
use procwarden_common::policy::PolicyDocument;
use procwarden_proto::v1;
use procwarden_proto::v1::ledger_record::Entry;

use crate::ledger::LedgerState;
use crate::policy::{revision_hash, rule_lines};

/// Recipients that are named.
const RECIPIENTS_MAX: usize = 10;

/// What was done, to what, and how.
type Told = (&'static str, String, String);

/// The record as the audit trail shows it. The state gives hosts their names.
pub(crate) fn entry(state: &LedgerState, record: v1::LedgerRecord) -> v1::AuditEntry {
    let (what, object, details) = record
        .entry
        .map_or_else(unknown, |entry| told(state, entry));
    v1::AuditEntry {
        at_ms: record.at_ms,
        actor: record.actor,
        what: what.into(),
        object,
        details,
    }
}

fn told(state: &LedgerState, entry: Entry) -> Told {
    match entry {
        Entry::TokenCreated(entry) => token_created(&entry),
        Entry::TokenRevoked(entry) => ("revoked", token(&entry.id), String::new()),
        Entry::HostEnrolled(entry) => host_enrolled(&entry),
        Entry::HostRenewed(entry) => {
            let until = format!("certificate until {}", UnixMillis(entry.not_after_ms));
            ("renewed", host(state, &entry.host_id), until)
        }
        Entry::HostGroupsSet(entry) => {
            let groups = groups(&entry.groups);
            ("grouped", host(state, &entry.host_id), groups)
        }
        Entry::HostRevoked(entry) => ("revoked", host(state, &entry.host_id), String::new()),
        Entry::PolicyPublished(entry) => policy_published(entry),
        Entry::PolicyAssigned(entry) => {
            let object = format!("policy {}", entry.name);
            ("assigned", object, groups(&entry.groups))
        }
        Entry::AlertsQueued(entry) => alerts_queued(&entry),
        Entry::AlertSent(entry) => ("sent", alert(&entry.id), String::new()),
        Entry::RolloutStarted(entry) => rollout_started(entry),
        Entry::RolloutMoved(entry) => rollout_moved(&entry),
        Entry::RolloutTold(entry) => {
            let object = format!("policy {} r{}", entry.policy, entry.revision);
            ("sent", object, "mail about the stopped roll-out".into())
        }
        Entry::RolloutBaseline(entry) => {
            let object = format!("roll-out of {} r{}", entry.policy, entry.revision);
            let counts = entry.marks.len();
            let details = format!("what its new rules ignored before: {counts} count(s) of hosts");
            ("noted", object, details)
        }
        Entry::LearningStarted(entry) => {
            let until = format!("learning until {}", UnixMillis(entry.until_ms));
            ("started", format!("group {}", entry.group), until)
        }
        Entry::LearningEnded(entry) => {
            let object = format!("group {}", entry.group);
            ("ended", object, "learning".into())
        }
    }
}

fn unknown() -> Told {
    let details = "written by a newer version".to_owned();
    ("unknown", String::new(), details)
}

fn token_created(entry: &v1::TokenCreated) -> Told {
    let details = format!(
        "{} use(s) until {}, {}",
        entry.uses,
        UnixMillis(entry.expires_at_ms),
        groups(&entry.groups)
    );
    ("created", token(&entry.id), details)
}

fn host_enrolled(entry: &v1::HostEnrolled) -> Told {
    let details = format!(
        "with {}, {}, certificate until {}",
        token(&entry.token_id),
        groups(&entry.groups),
        UnixMillis(entry.not_after_ms)
    );
    (
        "enrolled",
        named_host(&entry.host_name, &entry.host_id),
        details,
    )
}

fn policy_published(entry: v1::PolicyPublished) -> Told {
    let comment = entry.comment;
    let document = entry.document.unwrap_or_default();
    let object = format!("policy {} r{}", document.name, document.revision);
    let what = if entry.staged { "staged" } else { "published" };
    let details = match PolicyDocument::try_from(document) {
        Ok(document) => {
            let hash = revision_hash(&document);
            let damaged = !entry.hash.is_empty() && entry.hash != hash.as_slice();
            let mark = if damaged {
                "damaged on the disk, left out; "
            } else {
                ""
            };
            let short = HEXLOWER.encode(hash.get(..6).unwrap_or_default());
            format!(
                "{mark}{} rules, hash {short}: {comment}",
                rule_lines(&document)
            )
        }
        Err(error) => format!("left out, {error}: {comment}"),
    };
    let details = match entry.groups.as_slice() {
        [] => details,
        given => format!("to {}; {details}", groups(given)),
    };
    (what, object, details)
}

fn rollout_started(entry: v1::RolloutStarted) -> Told {
    let plan = entry.plan.unwrap_or_default();
    let steps: Vec<String> = plan.steps.iter().map(|step| format!("{step}%")).collect();
    let every = plan.every_ms / 1000;
    let details = format!("roll-out by {} every {every} s", steps.join(" "));
    let object = format!("policy {} r{}", entry.policy, entry.revision);
    ("started", object, details)
}

fn rollout_moved(entry: &v1::RolloutMoved) -> Told {
    let what = match entry.r#move() {
        v1::RolloutMove::Advance => "advanced",
        v1::RolloutMove::Finish => "finished",
        v1::RolloutMove::Pause => "paused",
        v1::RolloutMove::Resume => "resumed",
        v1::RolloutMove::Abort => "aborted",
        v1::RolloutMove::Stop => "stopped",
        v1::RolloutMove::Unspecified => "unknown",
    };
    let object = format!("policy {} r{}", entry.policy, entry.revision);
    let details = match entry.reason.as_str() {
        "" => "roll-out".into(),
        reason => format!("roll-out: {reason}"),
    };
    (what, object, details)
}

fn alerts_queued(entry: &v1::AlertsQueued) -> Told {
    let ids: Vec<String> = entry.alerts.iter().map(|one| alert(&one.id)).collect();
    let object = match ids.as_slice() {
        [only] => only.clone(),
        several => format!("{} alerts", several.len()),
    };
    let findings: usize = entry.alerts.iter().map(|one| one.finding_ids.len()).sum();
    let mut to: Vec<&str> = entry
        .alerts
        .iter()
        .flat_map(|one| &one.to)
        .map(String::as_str)
        .collect();
    to.sort_unstable();
    to.dedup();
    let more = if to.len() > RECIPIENTS_MAX {
        " and others"
    } else {
        ""
    };
    to.truncate(RECIPIENTS_MAX);
    let mut details = match to.as_slice() {
        [] => format!("{findings} finding(s)"),
        to => format!("{findings} finding(s) to {}{more}", to.join(" ")),
    };
    let ending: usize = entry.alerts.iter().map(|one| one.expiring.len()).sum();
    if ending > 0 {
        details.push_str(&format!(", {ending} rule(s) that end soon"));
    }
    ("queued", object, details)
}

fn token(id: &str) -> String {
    format!("token {id}")
}

fn alert(id: &[u8]) -> String {
    format!("alert {}", HEXLOWER.encode(id))
}

fn host(state: &LedgerState, id: &[u8]) -> String {
    let name = HostId::from_slice(id)
        .ok()
        .and_then(|id| state.hosts.get(&id))
        .map(|host| host.name.as_str());
    named_host(name.unwrap_or_default(), id)
}

fn named_host(name: &str, id: &[u8]) -> String {
    let id = HostId::from_slice(id).map_or_else(|_| HEXLOWER.encode(id), |id| id.to_string());
    match name {
        "" => format!("host {id}"),
        name => format!("host {name} {id}"),
    }
}

fn groups(groups: &[String]) -> String {
    match groups {
        [] => "no group".into(),
        groups => format!("groups {}", groups.join(" ")),
    }
}

#[cfg(test)]
mod tests;
