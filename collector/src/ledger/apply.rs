//! How one record changes the state: first everything is checked, then
//! everything is changed, so a record that makes no sense changes nothing.
//!
//! Promises: never panics, whatever the record says. Never decides anything:
//! that was done before the record was written.

use procwarden_common::clock::UnixMillis;
use procwarden_common::id::{FindingId, HostId};
use procwarden_common::policy::{PolicyDocument, RuleId};
use procwarden_proto::v1;
use procwarden_proto::v1::ledger_record::Entry;

use super::state::{
    ALERTS_KEPT_MAX, AlertRecord, AlertState, ExpiringRule, HostRecord, LedgerState, PolicyHistory,
    PolicyRevision, TokenRecord,
};
use crate::journal::Position;
use crate::policy::{revision_hash, rule_lines};

mod learning;
mod rollout;

/// What a checked record does to the state.
pub(super) type Step = Box<dyn FnOnce(&mut LedgerState) + Send>;

impl LedgerState {
    /// Folds one record in. A record that makes no sense is skipped with a
    /// reason: an old ledger must stay readable.
    pub(crate) fn apply(&mut self, record: v1::LedgerRecord) -> Result<(), String> {
        let step = self.step_of(record)?;
        step(self);
        Ok(())
    }

    /// Checks a record against the state and returns what it would do.
    pub(super) fn step_of(&self, record: v1::LedgerRecord) -> Result<Step, String> {
        let at = UnixMillis(record.at_ms);
        match record
            .entry
            .ok_or("the record has no entry that this version knows")?
        {
            Entry::TokenCreated(entry) => self.token_created(at, entry),
            Entry::TokenRevoked(entry) => self.token_revoked(entry),
            Entry::HostEnrolled(entry) => self.host_enrolled(at, entry),
            Entry::HostRenewed(entry) => self.host_renewed(&entry),
            Entry::HostGroupsSet(entry) => self.host_groups_set(entry),
            Entry::HostRevoked(entry) => self.host_revoked(&entry),
            Entry::PolicyPublished(entry) => self.policy_published(at, record.actor, entry),
            Entry::PolicyAssigned(entry) => self.policy_assigned(entry),
            Entry::AlertsQueued(entry) => alerts_queued(at, entry),
            Entry::AlertSent(entry) => self.alert_sent(at, &entry),
            Entry::RolloutStarted(entry) => self.rollout_started(at, record.actor, entry),
            Entry::RolloutMoved(entry) => self.rollout_moved(at, record.actor, entry),
            Entry::RolloutTold(entry) => self.rollout_told(entry),
            Entry::RolloutBaseline(entry) => self.rollout_baseline(entry),
            Entry::LearningStarted(entry) => Ok(Self::learning_started(at, record.actor, entry)),
            Entry::LearningEnded(entry) => self.learning_ended(at, record.actor, entry),
        }
    }

    fn token_created(&self, at: UnixMillis, entry: v1::TokenCreated) -> Result<Step, String> {
        if self.tokens.contains_key(&entry.id) {
            return Err(format!("token {} exists already", entry.id));
        }
        let secret_sha256 = entry
            .secret_sha256
            .as_ref()
            .try_into()
            .map_err(|_| "the digest of a token has not 32 bytes".to_owned())?;
        let token = TokenRecord {
            secret_sha256,
            groups: entry.groups,
            created_at: at,
            expires_at: UnixMillis(entry.expires_at_ms),
            uses: entry.uses,
            used: 0,
            revoked: false,
        };
        Ok(Box::new(move |state| {
            state.tokens.insert(entry.id, token);
        }))
    }

    fn token_revoked(&self, entry: v1::TokenRevoked) -> Result<Step, String> {
        if !self.tokens.contains_key(&entry.id) {
            return Err(format!("token {} is not known", entry.id));
        }
        Ok(Box::new(move |state| {
            if let Some(token) = state.tokens.get_mut(&entry.id) {
                token.revoked = true;
            }
        }))
    }

    fn host_enrolled(&self, at: UnixMillis, entry: v1::HostEnrolled) -> Result<Step, String> {
        let id = host_id(&entry.host_id)?;
        if self.hosts.contains_key(&id) {
            return Err(format!("host {id} is enrolled already"));
        }
        let host = HostRecord {
            name: entry.host_name,
            groups: entry.groups,
            enrolled_at: at,
            certificate_not_after: UnixMillis(entry.not_after_ms),
            revoked: false,
        };
        Ok(Box::new(move |state| {
            // The certificate was issued: the host counts even when its token
            // is not in this ledger.
            if let Some(token) = state.tokens.get_mut(&entry.token_id) {
                token.used = token.used.saturating_add(1);
            }
            state.hosts.insert(id, host);
        }))
    }

    fn host_renewed(&self, entry: &v1::HostRenewed) -> Result<Step, String> {
        let not_after = UnixMillis(entry.not_after_ms);
        self.change_host(&entry.host_id, move |host| {
            host.certificate_not_after = not_after
        })
    }

    fn host_groups_set(&self, entry: v1::HostGroupsSet) -> Result<Step, String> {
        self.change_host(&entry.host_id, move |host| host.groups = entry.groups)
    }

    fn host_revoked(&self, entry: &v1::HostRevoked) -> Result<Step, String> {
        self.change_host(&entry.host_id, |host| host.revoked = true)
    }

    fn change_host(
        &self,
        id: &[u8],
        change: impl FnOnce(&mut HostRecord) + Send + 'static,
    ) -> Result<Step, String> {
        let id = host_id(id)?;
        if !self.hosts.contains_key(&id) {
            return Err(format!("host {id} is not known"));
        }
        Ok(Box::new(move |state| {
            if let Some(host) = state.hosts.get_mut(&id) {
                change(host);
            }
        }))
    }

    fn policy_published(
        &self,
        at: UnixMillis,
        author: String,
        entry: v1::PolicyPublished,
    ) -> Result<Step, String> {
        let document = document(entry.document)?;
        check_hash(&document, &entry.hash)?;
        let newest = self
            .policies
            .get(&document.name)
            .and_then(PolicyHistory::newest)
            .map_or(0, |revision| revision.document.revision);
        // A gap is a revision that was damaged on the disk: what was published
        // after it still counts.
        if document.revision <= newest {
            return Err(format!(
                "revision {} of policy {} does not follow revision {newest}",
                document.revision, document.name
            ));
        }
        let name = document.name.clone();
        let revision = PolicyRevision {
            rules: rule_lines(&document),
            document,
            published_at: at,
            author,
            comment: entry.comment,
        };
        let (staged, groups) = (entry.staged, entry.groups);
        Ok(Box::new(move |state| {
            let policy = state.policies.entry(name).or_default();
            let settled = policy
                .settled()
                .map_or(0, |settled| settled.document.revision);
            policy.staying = staged.then_some(settled);
            policy.revisions.push(revision);
            if !groups.is_empty() {
                policy.groups = groups;
            }
        }))
    }

    fn policy_assigned(&self, entry: v1::PolicyAssigned) -> Result<Step, String> {
        if !self.policies.contains_key(&entry.name) {
            return Err(format!("policy {} is not known", entry.name));
        }
        Ok(Box::new(move |state| {
            if let Some(policy) = state.policies.get_mut(&entry.name) {
                policy.groups = entry.groups;
            }
        }))
    }

    fn alert_sent(&self, at: UnixMillis, entry: &v1::AlertSent) -> Result<Step, String> {
        let key = self
            .alerts
            .key_of(&entry.id)
            .ok_or("the alert that was sent is not known")?;
        Ok(Box::new(move |state| {
            if let Some(alert) = state.alerts.alerts.get_mut(&key) {
                alert.sent_at.get_or_insert(at);
            }
            state.alerts.forget_oldest_sent();
        }))
    }
}

impl AlertState {
    /// Newest first: what is sent was queued lately.
    fn key_of(&self, id: &[u8]) -> Option<u64> {
        self.alerts
            .iter()
            .rev()
            .find(|(_, alert)| alert.id == id)
            .map(|(key, _)| *key)
    }

    fn remember_told(&mut self, at: UnixMillis, alert: &AlertRecord) {
        for told in self.told.values_mut() {
            // What is over is announced no more.
            *told = told.split_off(&(at, RuleId::MIN));
        }
        self.told.retain(|_, told| !told.is_empty());
        if !alert.expiring.is_empty() {
            let told = self.told.entry(alert.to.clone()).or_default();
            told.extend(alert.expiring.iter().map(|rule| (rule.end, rule.id)));
        }
    }

    /// Keeps the state small over years; what waits is never forgotten.
    fn forget_oldest_sent(&mut self) {
        while self.alerts.len() > ALERTS_KEPT_MAX {
            let oldest = self
                .alerts
                .iter()
                .find(|(_, a)| a.sent_at.is_some())
                .map(|(key, _)| *key);
            let Some(key) = oldest else { return };
            self.alerts.remove(&key);
        }
    }
}

fn alerts_queued(at: UnixMillis, entry: v1::AlertsQueued) -> Result<Step, String> {
    let alerts = entry
        .alerts
        .into_iter()
        .map(|a| alert(at, a))
        .collect::<Result<Vec<_>, String>>()?;
    let upto = Position(entry.upto_position);
    Ok(Box::new(move |state| {
        let queue = &mut state.alerts;
        // It falls when the findings journal was lost.
        queue.upto = upto;
        for alert in alerts {
            queue.remember_told(at, &alert);
            let key = queue
                .alerts
                .last_key_value()
                .map_or(0, |(key, _)| key.saturating_add(1));
            queue.alerts.insert(key, alert);
        }
    }))
}

fn alert(queued_at: UnixMillis, message: v1::Alert) -> Result<AlertRecord, String> {
    let id = message
        .id
        .as_ref()
        .try_into()
        .map_err(|_| "the id of an alert has not 16 bytes".to_owned())?;
    let finding_ids = message
        .finding_ids
        .iter()
        .map(|id| FindingId::from_slice(id).map_err(|error| error.to_string()))
        .collect::<Result<_, _>>()?;
    let expiring = message.expiring.into_iter().map(expiring_rule);
    Ok(AlertRecord {
        id,
        to: message.to,
        finding_ids,
        queued_at,
        sent_at: None,
        expiring: expiring.collect::<Result<_, _>>()?,
    })
}

fn expiring_rule(message: v1::ExpiringRule) -> Result<ExpiringRule, String> {
    Ok(ExpiringRule {
        id: RuleId::from_slice(&message.rule_id).ok_or("the id of a rule has not 16 bytes")?,
        policy: message.policy,
        rule: message.rule,
        file: message.file,
        line: message.line,
        owner: message.owner,
        end: UnixMillis(message.end_ms),
    })
}

fn host_id(bytes: &[u8]) -> Result<HostId, String> {
    HostId::from_slice(bytes).map_err(|error| error.to_string())
}

/// A document by the rules of the wire, which checks names and limits.
fn document(message: Option<v1::PolicyDocument>) -> Result<PolicyDocument, String> {
    let document = message.ok_or("the record has no policy document")?;
    PolicyDocument::try_from(document).map_err(|error| error.to_string())
}

/// Compares a revision with the hash that was written with it.
fn check_hash(document: &PolicyDocument, written: &[u8]) -> Result<(), String> {
    if written.is_empty() || written == revision_hash(document) {
        return Ok(());
    }
    Err(format!(
        "revision {} of policy {} does not match its hash: it was damaged",
        document.revision, document.name
    ))
}

#[cfg(test)]
mod tests;
