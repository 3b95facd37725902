//! The agent's one look at the wall clock. Everything that decides takes the
//! time as a value; intervals are measured with `Instant`, so that a clock
//! that jumps never stops a scan.

use std::time::{SystemTime, UNIX_EPOCH};

use procwarden_common::clock::UnixMillis;

/// The time now.
pub(crate) fn now() -> UnixMillis {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
