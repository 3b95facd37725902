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

/// What was found; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Together {
    known: Arc<Mutex<HashMap<Revisions, Option<String>>>>,
}

impl Together {
    /// Looks at what a host gets that has just been enrolled.
    pub(super) fn look(&self, ledger: &Ledger, host: HostId) {
        let (this, ledger) = (self.clone(), ledger.clone());
        tokio::spawn(async move {
            if let Some(why) = this.wrong_with(&ledger, host).await {
                tracing::warn!(
                    %host, %why,
                    "A host was enrolled whose policies do not fit together; its agent refuses them."
                );
            }
        });
    }

    /// One at a time: a rack of hosts that enrol together compiles once.
    pub(super) async fn wrong_with(&self, ledger: &Ledger, host: HostId) -> Option<String> {
        let revisions = ledger.read(|state| {
            let record = state.hosts.get(&host)?;
            Some(revisions_of(&documents_for(state, host, record)))
        })?;
        let mut known = self.known.lock().await;
        if let Some(found) = known.get(&revisions) {
            return found.clone();
        }
        let found = match union::wrong_with(ledger, &revisions).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%host, %error, "The policies of a new host were not checked.");
                return None;
            }
        };
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(revisions, found.clone());
        found
    }
}
