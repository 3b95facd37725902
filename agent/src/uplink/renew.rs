//! A new certificate before the old one ends.
//!
//! Promises: each renewal has a new key; the new pair is checked, then on the
//! disk, then shown at the next handshake. A renewal that fails changes
//! nothing and is tried again in good time. It never changes the fleet's CA.

use std::time::Duration;

use procwarden_common::clock::UnixMillis;
use procwarden_proto::v1;
use procwarden_proto::v1::fleet_service_client::FleetServiceClient;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::time::timeout;
use tonic::transport::Channel;

use super::Uplink;
use crate::identity::{self, KeyRequest, Validity};
use crate::{clock, errors};

const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The wall clock may be set while the agent waits: it is asked again.
const CHECK_MS_MAX: u64 = 3_600_000;
const RETRY_MS_MIN: u64 = 60_000;

/// How long to wait before looking again whether to renew; nothing when it is
/// time.
pub(super) fn wait(validity: &Validity, now: UnixMillis) -> Option<Duration> {
    let left = validity.renew_at().millis_since(now);
    (left > 0).then(|| Duration::from_millis(left.min(CHECK_MS_MAX)))
}

/// How long to wait after a renewal failed.
pub(super) fn retry(validity: &Validity, now: UnixMillis) -> Duration {
    let left = validity.not_after.millis_since(now);
    Duration::from_millis((left / 10).clamp(RETRY_MS_MIN, CHECK_MS_MAX))
}

/// Renews over the channel of the running stream.
pub(super) async fn renew(uplink: &Uplink, channel: Channel) -> Result<UnixMillis, String> {
    let request = KeyRequest::generate().map_err(|e| e.to_string())?;
    let message = v1::RenewRequest {
        csr: request.csr_pem(),
    };
    let answer = timeout(
        CALL_TIMEOUT,
        FleetServiceClient::new(channel).renew(message),
    )
    .await
    .map_err(|_| "no answer within 30 s".to_owned())?
    .map_err(|status| errors::chain(&status))?
    .into_inner();
    let leaf = CertificateDer::from_pem_slice(answer.certificate.as_bytes())
        .map_err(|e| format!("the answer is no certificate: {e}"))?;
    let facts = &uplink.facts;
    identity::check(
        &leaf,
        &uplink.ca,
        facts.host_id,
        facts.fleet_id,
        clock::now(),
    )
    .map_err(|e| e.to_string())?;
    let host_pem = request.host_pem(&answer.certificate);
    let (certified, validity) =
        identity::read_host_pem(host_pem.as_bytes()).map_err(|e| e.to_string())?;
    identity::replace_host_pem(&uplink.state_dir, &host_pem).map_err(|e| e.to_string())?;
    uplink.certificate.replace(certified);
    *uplink
        .validity
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner) = validity;
    Ok(validity.not_after)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 86_400_000;

    #[test]
    fn renewal_is_due_at_two_thirds_of_the_life() {
        let validity = Validity {
            not_before: UnixMillis(0),
            not_after: UnixMillis(30 * DAY_MS),
        };
        let hour = Some(Duration::from_secs(3600));
        assert_eq!(wait(&validity, UnixMillis(0)), hour);
        assert_eq!(
            wait(&validity, UnixMillis(20 * DAY_MS - 5)),
            Some(Duration::from_millis(5))
        );
        assert_eq!(wait(&validity, UnixMillis(20 * DAY_MS)), None);
        assert_eq!(wait(&validity, UnixMillis(40 * DAY_MS)), None);
    }

    #[test]
    fn a_failed_renewal_is_tried_often_enough() {
        let validity = Validity {
            not_before: UnixMillis(0),
            not_after: UnixMillis(30 * DAY_MS),
        };
        assert_eq!(
            retry(&validity, UnixMillis(20 * DAY_MS)),
            Duration::from_secs(3600)
        );
        assert_eq!(
            retry(&validity, UnixMillis(30 * DAY_MS)),
            Duration::from_secs(60)
        );
    }
}
