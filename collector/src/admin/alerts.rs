//! Alerts: the way out tried, and what went or waits.

use procwarden_proto::v1;
use tonic::Status;

use super::AdminContext;
use super::refusal::{invalid, not_now};

/// Alerts of one answer, newest first.
const ALERTS_LISTED_MAX: usize = 1_000;

impl AdminContext {
    /// Sends a test mail and says what the transport answered.
    pub(super) async fn test_alert(
        &self,
        request: v1::TestAlertRequest,
    ) -> Result<v1::TestAlertResponse, Status> {
        if request.to.trim().is_empty() {
            return Err(invalid("name who should get the test mail"));
        }
        let config = self.config.load_full();
        let answer = crate::alert::send_test(&config, &request.to)
            .await
            .map_err(not_now)?;
        Ok(v1::TestAlertResponse { answer })
    }

    /// What was queued lately, sent or not.
    pub(super) fn list_alerts(&self) -> v1::ListAlertsResponse {
        let status = self.outbox.status();
        let newest = |state: &crate::ledger::LedgerState| {
            state
                .alerts
                .alerts
                .values()
                .rev()
                .take(ALERTS_LISTED_MAX)
                .cloned()
                .collect::<Vec<_>>()
        };
        let info = |alert: crate::ledger::state::AlertRecord| v1::AlertInfo {
            id: alert.id.to_vec().into(),
            queued_at_ms: alert.queued_at.0,
            sent_at_ms: alert.sent_at.map_or(0, |time| time.0),
            to: alert.to,
            findings: u32::try_from(alert.finding_ids.len()).unwrap_or(u32::MAX),
            attempts: status.attempts(&alert.id),
            last_error: status.error_of(&alert.id).unwrap_or_default().to_owned(),
        };
        let alerts = self.ledger.read(newest).into_iter().map(info).collect();
        v1::ListAlertsResponse { alerts }
    }
}
