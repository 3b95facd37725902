//! Whether what a new host gets together compiles.
//!
//! A token is checked when it is made and with every change from then on, but
//! not every combination can be: roll-outs that meet, tokens from before the
//! check. Such a host is enrolled all the same, for outside it would not be seen
//! at all. The log says at once what its agent will say as well.
//!
//! Promises: nobody waits for it, and hosts that get the same are looked at
//! once.

use std::collections::HashMap;
use std::sync::Arc;

use procwarden_common::id::HostId;
use tokio::sync::Mutex;

use crate::ledger::Ledger;
use crate::policy::{Revisions, documents_for, revisions_of, union};

/// Combinations that are remembered; revisions never change.
const KNOWN_MAX: usize = 64;

/// Why policies do not fit together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) why: Arc<str>,
    /// Nobody was told of this combination before.
    pub(super) is_new: bool,
}

/// What was found; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Together {
    known: Arc<Mutex<HashMap<Revisions, Option<Arc<str>>>>>,
}

impl Together {
    /// Looks at what a host gets that has just been enrolled.
    pub(super) fn look(&self, ledger: &Ledger, host: HostId) {
        let (this, ledger) = (self.clone(), ledger.clone());
        tokio::spawn(async move {
            match this.wrong_with(&ledger, host).await {
                Some(Wrong { why, is_new: true }) => tracing::warn!(
                    %host, %why,
                    "A host was enrolled whose policies do not fit together; its agent refuses them."
                ),
                // A rack of hosts would fill the log with the same reason.
                Some(_) => tracing::warn!(
                    %host,
                    "A host was enrolled whose policies do not fit together, as was said of \
                     another one; its agent refuses them."
                ),
                None => {}
            }
        });
    }

    /// One at a time: a rack of hosts that enrol together compiles once.
    pub(super) async fn wrong_with(&self, ledger: &Ledger, host: HostId) -> Option<Wrong> {
        let revisions = ledger.read(|state| {
            let record = state.hosts.get(&host)?;
            Some(revisions_of(&documents_for(state, host, record)))
        })?;
        let mut known = self.known.lock().await;
        if let Some(found) = known.get(&revisions) {
            let why = found.clone()?;
            let is_new = false;
            return Some(Wrong { why, is_new });
        }
        let found: Option<Arc<str>> = match union::wrong_with(ledger, &revisions).await {
            Ok(found) => found.map(Arc::from),
            Err(error) => {
                tracing::warn!(%host, %error, "The policies of a new host were not checked.");
                return None;
            }
        };
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(revisions, found.clone());
        let (why, is_new) = (found?, true);
        Some(Wrong { why, is_new })
    }
}
