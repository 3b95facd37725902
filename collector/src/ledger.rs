//! The ledger: every decision about the fleet, in a journal of its own
//! (`ledger/`), folded into one state in memory. It is the audit trail.
//!
//! Promises: a commit that returned is on the disk and in the state; commits
//! happen one after the other, each deciding on the state that the one before
//! it left. After a failed write nothing is committed any more: what is on the
//! disk is unknown, so the process has to end and read it again.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Context;
use bytes::Bytes;
use procwarden_common::clock::UnixMillis;
use procwarden_proto::v1;
use procwarden_proto::v1::ledger_record::Entry;
use prost::Message;
use tokio::sync::{OwnedMutexGuard, watch};

use crate::journal::{Journal, JournalReader, Position, append_patiently};

mod apply;
mod audit;
pub(crate) mod state;
pub(crate) use state::LedgerState;

/// Directory below the data directory.
const DIRECTORY: &str = "ledger";

/// Handle on the ledger; cheap to clone.
#[derive(Clone)]
pub(crate) struct Ledger {
    shared: Arc<Shared>,
    writer: Arc<tokio::sync::Mutex<Writer>>,
}

struct Shared {
    state: RwLock<LedgerState>,
    reader: JournalReader,
    changes: watch::Sender<u64>,
    failed: watch::Sender<Option<String>>,
}

struct Writer {
    journal: Journal,
}

/// Why a commit did not happen. `E` is the caller's own refusal.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitError<E> {
    #[error(transparent)]
    Refused(E),
    #[error("the ledger failed: {0}")]
    Stopped(String),
}

impl Ledger {
    /// Opens `<data_dir>/ledger/` and folds every record into the state.
    pub(crate) fn open(data_dir: &Path) -> anyhow::Result<Self> {
        let dir = data_dir.join(DIRECTORY);
        let (journal, report) = Journal::open(&dir)
            .with_context(|| format!("cannot open the ledger in {}", dir.display()))?;
        if report.cut_bytes > 0 || report.damaged_records > 0 {
            tracing::warn!(
                cut_bytes = report.cut_bytes,
                damaged_records = report.damaged_records,
                "The ledger was not closed cleanly; what was damaged is left out.",
            );
        }
        let state = replay(&journal).context("cannot read the ledger")?;
        Ok(Self {
            shared: Arc::new(Shared {
                state: RwLock::new(state),
                reader: journal.reader(),
                changes: watch::Sender::new(0),
                failed: watch::Sender::new(None),
            }),
            writer: Arc::new(tokio::sync::Mutex::new(Writer { journal })),
        })
    }

    /// Looks at the current state.
    pub(crate) fn read<R>(&self, look: impl FnOnce(&LedgerState) -> R) -> R {
        // A panic inside `look` leaves the state whole: readers change nothing.
        look(
            &self
                .shared
                .state
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Decides on the current state, writes durably, then applies: one commit
    /// at a time, so a decision never races another.
    pub(crate) async fn commit<E>(
        &self,
        at: UnixMillis,
        actor: &str,
        decide: impl FnOnce(&LedgerState) -> Result<Entry, E>,
    ) -> Result<(), CommitError<E>> {
        let writer = self.writer.clone().lock_owned().await;
        if let Some(why) = self.shared.failed.borrow().clone() {
            return Err(CommitError::Stopped(why));
        }
        let entry = self.read(decide).map_err(CommitError::Refused)?;
        let record = v1::LedgerRecord {
            at_ms: at.0,
            actor: actor.into(),
            entry: Some(entry),
        };
        let shared = self.shared.clone();
        // The blocking task owns the lock and finishes even when the caller
        // gives up: a record on the disk is never missing from the state.
        tokio::task::spawn_blocking(move || write(&shared, writer, record))
            .await
            .unwrap_or_else(|error| Err(format!("a commit was cut short: {error}")))
            .map_err(CommitError::Stopped)
    }

    /// The ledger's journal, for figures and copies.
    pub(crate) fn journal(&self) -> &JournalReader {
        &self.shared.reader
    }

    /// Rises with every commit.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Resolves when the ledger can not be written any more, with why.
    pub(crate) async fn failed(&self) -> String {
        let mut failed = self.shared.failed.subscribe();
        match failed.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(why)) => why.clone(),
            // `self` holds the sender: waiting does not end without a value.
            Ok(None) | Err(_) => "the ledger is gone".into(),
        }
    }
}

/// Makes a record durable, then part of the state.
fn write(
    shared: &Shared,
    mut writer: OwnedMutexGuard<Writer>,
    record: v1::LedgerRecord,
) -> Result<(), String> {
    let payload = Bytes::from(record.encode_to_vec());
    let read = shared.state.read().unwrap_or_else(PoisonError::into_inner);
    let step = read
        .step_of(record)
        .map_err(|why| format!("not written: {why}"))?;
    drop(read);
    let mut is_held = false;
    let appended = append_patiently(&mut writer.journal, &[payload], |_, error| {
        if !std::mem::replace(&mut is_held, true) {
            tracing::error!(%error, "The ledger waits for room: decisions are held back until there is some.");
        }
        true
    });
    if is_held && appended.is_ok() {
        tracing::info!("The ledger is written again.");
    }
    if let Err(error) = appended {
        let why = format!("cannot write the ledger: {error}");
        shared.failed.send_replace(Some(why.clone()));
        return Err(why);
    }
    step(&mut shared.state.write().unwrap_or_else(PoisonError::into_inner));
    shared.changes.send_modify(|commits| *commits += 1);
    Ok(())
}

fn replay(journal: &Journal) -> anyhow::Result<LedgerState> {
    let mut state = LedgerState::default();
    for entry in journal.reader().read_from(Position::default()) {
        let entry = entry?;
        let applied = v1::LedgerRecord::decode(entry.payload)
            .map_err(|error| error.to_string())
            .and_then(|record| state.apply(record));
        if let Err(reason) = applied {
            tracing::warn!(
                position = entry.position.0,
                reason = %procwarden_common::printable::printable(reason.as_bytes()),
                "A record of the ledger makes no sense and is left out.",
            );
        }
    }
    Ok(state)
}

#[cfg(test)]
mod tests;
