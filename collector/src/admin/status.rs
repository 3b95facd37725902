//! `procwarden status`: the collector at a glance.

use procwarden_proto::v1;

use super::AdminContext;
use crate::alert::expiry::expiring;
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
            outbox_alerts: outbox.waiting,
            outbox_last_error: outbox.last_error.unwrap_or_default(),
            fleet_address: self.fleet_address.to_string(),
            enroll_address: self.enroll_address.to_string(),
            ca_not_after_ms: self.authority.not_after().0,
            rss_bytes: std::fs::read_to_string("/proc/self/status")
                .ok()
                .and_then(|text| resident_bytes(&text))
                .unwrap_or(0),
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

/// The line `VmRSS:  1234 kB` of `/proc/self/status`.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(
            resident_bytes("Name:\tx\nVmRSS:\t    2048 kB\n"),
            Some(2048 * 1024)
        );
        assert_eq!(resident_bytes("Name:\tx\n"), None);
    }
}
