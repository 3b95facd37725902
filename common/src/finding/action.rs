//! What a host did about a finding: by its own configuration, or to complete
//! what it had reported.

use crate::clock::UnixMillis;
use crate::limits::{ACTION_BYTES_MAX, ACTION_RESULT_BYTES_MAX};
use crate::printable::printable_text;

/// One action: done, refused or failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionRecord {
    /// When it was over, by the host's clock.
    pub at: UnixMillis,
    /// The key of agent.toml that asked for it, such as `kill_over_limit`; or
    /// `evidence`, which an agent gathers later where it had no time for it.
    pub what: String,
    /// What came of it, in words.
    pub result: String,
}

impl ActionRecord {
    /// A record within the bounds of the protocol: printable ASCII, cut when
    /// it is long. A script may have said anything.
    #[must_use]
    pub fn new(at: UnixMillis, what: &str, result: &str) -> Self {
        let bounded = |text: &str, bytes_max: usize| {
            let mut text = printable_text(text).into_owned();
            // ASCII by now, so any cut is clean.
            text.truncate(bytes_max);
            text
        };
        Self {
            at,
            what: bounded(what, ACTION_BYTES_MAX),
            result: bounded(result, ACTION_RESULT_BYTES_MAX),
        }
    }
}
