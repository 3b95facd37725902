//! Which findings are asked for. Pure.

use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::{FindingState, StoredFinding};
use procwarden_common::id::HostId;
use procwarden_common::indicator::IndicatorId;
use procwarden_common::severity::Severity;

/// Which findings are asked for. Every field narrows the answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FindingFilter {
    pub(crate) host: Option<HostId>,
    /// Raw bytes of the account's name.
    pub(crate) user: Option<Vec<u8>>,
    pub(crate) indicator: Option<IndicatorId>,
    pub(crate) min_severity: Option<Severity>,
    pub(crate) state: Option<FindingState>,
    /// First seen then or later.
    pub(crate) since: Option<UnixMillis>,
}

impl FindingFilter {
    /// Whether a finding is among those asked for.
    pub(crate) fn matches(&self, stored: &StoredFinding) -> bool {
        let finding = &stored.finding;
        let has = |id: &IndicatorId| finding.indicators.iter().any(|i| i.id == *id);
        self.host.is_none_or(|host| stored.host_id == host)
            && self.user.as_ref().is_none_or(|user| finding.user == *user)
            && self.indicator.as_ref().is_none_or(has)
            && self
                .min_severity
                .is_none_or(|least| finding.severity() >= least)
            && self.state.is_none_or(|state| stored.state == state)
            && self.since.is_none_or(|since| stored.first_seen >= since)
    }
}
