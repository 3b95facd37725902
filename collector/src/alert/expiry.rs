//! Rules that soon end, told by mail. Pure: state, recipients and time come in.
//!
//! From 7 days before its end on, a rule stands in the next alert mail of every
//! destination. Where none leaves for a day, one mail of its own names all that
//! are due, at most once a day. The mail's record in the ledger names the rules,
//! so whatever is killed, a destination is told once of each end of a rule.

use std::sync::Arc;

use procwarden_common::clock::UnixMillis;
use procwarden_common::policy::{EXPIRY_NOTICE_MILLIS, Rule};
use procwarden_proto::v1;
use sha2::{Digest, Sha256};

use super::route::{Destination, Recipients};
use crate::ledger::LedgerState;
use crate::ledger::state::{AlertRecord, AlertState};
use crate::policy::Expiries;

/// Rules of one mail; the others stand in the next.
const RULES_MAX: usize = 50;

/// How long an alert mail is waited for, and the time between two mails that
/// are about nothing else.
const DAY_MILLIS: i64 = 86_400_000;

impl Expiries {
    /// Adds to alerts that are about to be queued what their recipients were
    /// not told yet.
    pub(super) fn join(&self, state: &AlertState, alerts: &mut [v1::Alert], now: UnixMillis) {
        for alert in alerts {
            alert.expiring = self.untold(state, &alert.to, now);
        }
    }

    /// The mails of their own that are due.
    pub(super) fn own_mails(
        &self,
        state: &LedgerState,
        destinations: &[Destination],
        now: UnixMillis,
    ) -> Vec<v1::Alert> {
        if self.ending(now).is_empty() {
            return Vec::new();
        }
        let recipients = destinations.iter().map(|destination| &destination.to);
        recipients
            .filter_map(|to| self.own_mail(&state.alerts, to, now))
            .collect()
    }

    fn own_mail(&self, state: &AlertState, to: &Recipients, now: UnixMillis) -> Option<v1::Alert> {
        let expiring = self.untold(state, to, now);
        let latest = now.plus_millis(EXPIRY_NOTICE_MILLIS - DAY_MILLIS);
        let is_due = expiring.iter().any(|rule| rule.end_ms <= latest.0);
        let is_recent = |alert: &AlertRecord| {
            let is_own = alert.finding_ids.is_empty() && alert.to == *to;
            is_own && alert.queued_at.plus_millis(DAY_MILLIS) > now
        };
        if !is_due || state.alerts.values().rev().any(is_recent) {
            return None;
        }
        Some(v1::Alert {
            id: id(to, &expiring).to_vec().into(),
            to: to.clone(),
            finding_ids: Vec::new(),
            expiring,
        })
    }

    fn untold(
        &self,
        state: &AlertState,
        to: &Recipients,
        now: UnixMillis,
    ) -> Vec<v1::ExpiringRule> {
        let is_untold = |rule: &&Arc<Rule>| !state.has_told(to, rule.id(), rule.facts.end());
        let rules = self.ending(now).iter().filter(is_untold).take(RULES_MAX);
        rules.map(|rule| expiring(rule)).collect()
    }
}

/// A rule as the ledger keeps it.
pub(crate) fn expiring(rule: &Rule) -> v1::ExpiringRule {
    v1::ExpiringRule {
        rule_id: rule.id().as_bytes().to_vec().into(),
        policy: rule.origin.policy.clone(),
        rule: rule.to_string(),
        file: rule.origin.file.clone(),
        line: rule.origin.line,
        owner: rule.facts.owner.clone().unwrap_or_default(),
        end_ms: rule.facts.end().0,
    }
}

/// Begins with the position 0 of the findings journal: it is about none.
fn id(to: &Recipients, rules: &[v1::ExpiringRule]) -> [u8; 16] {
    let mut hash = Sha256::new();
    hash.update(b"procwarden expiry v1\0");
    for address in to {
        hash.update(address.as_bytes());
        hash.update(b"\0");
    }
    for rule in rules {
        hash.update(&rule.rule_id);
        hash.update(rule.end_ms.to_be_bytes());
    }
    let mut id = [0; 16];
    for (to, from) in id.iter_mut().skip(8).zip(hash.finalize()) {
        *to = from;
    }
    id
}
