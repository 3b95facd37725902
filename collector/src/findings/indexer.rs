//! The indexer: a thread that brings the index behind the journal, flushes it
//! now and then, and makes it again when it fails.

use std::sync::Arc;
use std::time::Duration;

use super::index::{Index, Work};
use super::replay::Replay;
use crate::journal::JournalReader;
use crate::store::{Store, StoreError};

/// Records after which the index is flushed even if more are waiting.
const FLUSH_RECORDS: usize = 50_000;
/// Quiet time after which it is flushed.
const FLUSH_AFTER: Duration = Duration::from_millis(500);
const REPAIR_PAUSE_MIN: Duration = Duration::from_secs(1);
const REPAIR_PAUSE_MAX: Duration = Duration::from_secs(30);

/// Follows the journal until the index is told to stop.
pub(super) struct Indexer {
    index: Arc<Index>,
    journal: JournalReader,
    /// Nothing until the first batch, and after a repair.
    replay: Option<Replay>,
    unflushed: usize,
}

impl Indexer {
    pub(super) fn new(index: Arc<Index>, journal: JournalReader) -> Self {
        Self {
            index,
            journal,
            replay: None,
            unflushed: 0,
        }
    }

    /// The thread. Whatever ends it, nobody waits for the index afterwards.
    pub(super) fn run(mut self) {
        loop {
            let idle_after = (self.unflushed > 0).then_some(FLUSH_AFTER);
            match self.index.next_work(idle_after) {
                Work::Follow(store) => self.look_after(&store, Self::follow),
                Work::Idle => self.flush(),
                Work::Repair => self.repair(),
                Work::Stop => return,
            }
        }
    }

    fn look_after(
        &mut self,
        store: &Arc<dyn Store>,
        act: impl FnOnce(&mut Self, &dyn Store) -> Result<(), StoreError>,
    ) {
        if let Err(error) = act(self, &**store) {
            self.replay = None;
            self.index.failed(store, &error);
        }
    }

    fn follow(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        let replay = self
            .replay
            .get_or_insert_with(|| Replay::new(&self.journal, store.position()));
        let batch = replay
            .next_batch()
            .map_err(|e| StoreError::Unavailable(e.to_string()))?;
        self.unflushed += batch.entries.len().max(1);
        store.apply(batch.entries, batch.upto)?;
        if self.unflushed >= FLUSH_RECORDS {
            store.flush()?;
            self.unflushed = 0;
        }
        self.index.reached(batch.upto);
        Ok(())
    }

    fn flush(&mut self) {
        self.unflushed = 0;
        // A failure is told to everyone and repaired in the next round.
        drop(self.index.ask(|store| store.flush()));
    }

    fn repair(&mut self) {
        (self.replay, self.unflushed) = (None, 0);
        let mut pause = REPAIR_PAUSE_MIN;
        while let Err(error) = self.index.repair() {
            tracing::error!(error = %error, "The index could not be repaired: trying again.");
            self.index.pause(pause);
            if self.index.is_stopping() {
                return;
            }
            pause = (pause * 2).min(REPAIR_PAUSE_MAX);
        }
    }
}

impl Drop for Indexer {
    fn drop(&mut self) {
        self.replay = None;
        if let Err(error) = self.index.close() {
            tracing::warn!(error = %error, "The index could not be closed: the next start checks it.");
        }
    }
}
