//! `procwarden status`: the collector at a glance.

use procwarden_proto::v1;

use super::AdminContext;
use crate::alert::expiry::expiring;
use crate::metrics;
use crate::policy::Expiries;

/// Rules of one answer.
const RULES_ENDING_MAX: usize = 20;

impl AdminContext {
    /// The figures of this moment.
    pub(super) fn status(&self) -> v1::StatusResponse {
        let hosts = self
            .ledger
            .read(|state| state.hosts.values().filter(|h| !h.revoked).count());
        let figures = self.findings.figures();
        let outbox = self.outbox.status();
        let (now, mut expiries) = (crate::clock::now(), Expiries::default());
        self.ledger.read(|state| expiries.refresh(state));
        let ending = expiries.ending(now);
        v1::StatusResponse {
            version: env!("CARGO_PKG_VERSION").into(),
            fleet_id: self.authority.fleet_id().to_string(),
            started_at_ms: self.started_at.0,
            hosts: hosts as u64,
            hosts_connected: self.sessions.connected_count() as u64,
            findings_open: figures.findings_open,
            findings: figures.findings,
            journal_bytes: figures.journal_bytes,
            index_lag_bytes: figures.index_lag_bytes,
            findings_held_back: figures.held_back.unwrap_or_default(),
            outbox_alerts: outbox.waiting,
            outbox_last_error: outbox.last_error.unwrap_or_default(),
            fleet_address: self.fleet_address.to_string(),
            enroll_address: self.enroll_address.to_string(),
            ca_not_after_ms: self.authority.not_after().0,
            rss_bytes: metrics::resident_bytes(),
            rules_ending: ending
                .iter()
                .take(RULES_ENDING_MAX)
                .map(|rule| expiring(rule))
                .collect(),
            rules_ending_count: ending.len() as u64,
            rules_expired: expiries.ended(now).len() as u64,
        }
    }
}
