//! The counts, shared between the scanner, which counts, and the uplink, which
//! sends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use procwarden_proto::v1;

use super::Hits;

/// Bytes of counts and samples in one heartbeat.
const HEARTBEAT_BYTES_MAX: usize = 64 * 1024;

/// Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedHits(Arc<Mutex<Hits>>);

/// How much of the counts one stream has carried.
#[derive(Debug, Default)]
pub(crate) struct Told {
    version: u64,
    began: bool,
}

/// What the next heartbeat says, and what that makes of [`Told`] once it is
/// on its way.
pub(crate) struct News {
    pub(crate) rule_hits: Vec<v1::RuleHits>,
    /// It is the first of its stream.
    pub(crate) anew: bool,
    told: Told,
}

impl SharedHits {
    pub(crate) fn new(hits: Hits) -> Self {
        Self(Arc::new(Mutex::new(hits)))
    }

    /// The counts; hold them for a moment only.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Hits> {
        // A count that a panic broke off is one too few at worst.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a stream has not carried yet, within a heartbeat's bounds.
    pub(crate) fn news(&self, told: &Told) -> News {
        let (rule_hits, version) = self.lock().changed_after(told.version, HEARTBEAT_BYTES_MAX);
        News {
            rule_hits,
            anew: !told.began,
            told: Told {
                version,
                began: true,
            },
        }
    }
}

impl News {
    /// To be called when the heartbeat is on its way.
    pub(crate) fn sent(self) -> Told {
        self.told
    }
}
