//! The collector's one look at the wall clock. Everything that decides takes
//! the time as a value.

use std::time::{SystemTime, UNIX_EPOCH};

use procwarden_common::clock::UnixMillis;

/// The time now.
pub(crate) fn now() -> UnixMillis {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
