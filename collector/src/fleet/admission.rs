//! Whether a host may talk to the collector. Pure.

use procwarden_common::id::HostId;

use crate::ledger::LedgerState;

/// Why a host with a genuine certificate gets nothing. The words go to the
/// agent and to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AdmissionRefusal {
    #[error("this collector's ledger does not know the host: enrol it anew")]
    Unknown,
    #[error("the host was revoked: enrol it anew if it shall come back")]
    Revoked,
}

/// The name of a host that may.
///
/// # Errors
/// The reason, when it may not.
pub(crate) fn name_of(state: &LedgerState, host: HostId) -> Result<String, AdmissionRefusal> {
    let record = state.hosts.get(&host).ok_or(AdmissionRefusal::Unknown)?;
    if record.revoked {
        return Err(AdmissionRefusal::Revoked);
    }
    Ok(record.name.clone())
}
