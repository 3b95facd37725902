//! The indexer: a thread that opens the index, brings it behind the journal,
//! flushes it now and then, and makes it again when it fails.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::history::Past;
use super::index::{Index, Work};
use super::replay::Replay;
use crate::journal::Position;
use crate::store::{Store, StoreError};

/// Records after which the index is flushed even if more are waiting. So many
/// are read again by a start after kill -9.
const FLUSH_RECORDS: usize = 50_000;
/// Quiet time after which it is flushed.
const FLUSH_AFTER: Duration = Duration::from_millis(500);
/// It is flushed about so often while it is never quiet.
const FLUSH_EVERY: Duration = Duration::from_secs(30);
/// Where processors are short, acks come before listings: the index catches up
/// when there is time (nice(2) of this thread and of those that it starts).
const NICE: i32 = 10;
const REPAIR_PAUSE_MIN: Duration = Duration::from_secs(1);
const REPAIR_PAUSE_MAX: Duration = Duration::from_secs(30);

/// Follows the journal until the index is told to stop.
pub(super) struct Indexer {
    index: Arc<Index>,
    past: Past,
    /// Nothing until the first batch, and after a repair.
    replay: Option<Replay>,
    unflushed: usize,
    flushed_at: Instant,
    verifier: Option<JoinHandle<()>>,
}

impl Indexer {
    pub(super) fn new(index: Arc<Index>, past: Past) -> Self {
        Self {
            index,
            past,
            replay: None,
            unflushed: 0,
            flushed_at: Instant::now(),
            verifier: None,
        }
    }

    /// The thread. Whatever ends it, nobody waits for the index afterwards.
    pub(super) fn run(mut self) {
        give_way();
        loop {
            let idle_after = (self.unflushed > 0).then_some(FLUSH_AFTER);
            match self.index.next_work(idle_after) {
                Work::Follow(store, end) => {
                    self.look_after(&store, |this, store| this.follow(store, end));
                }
                Work::Drop(store, begin) => {
                    self.look_after(&store, |_, store| store.drop_before(begin));
                }
                Work::Idle(store) => self.look_after(&store, Self::flush),
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

    fn follow(&mut self, store: &dyn Store, end: Position) -> Result<(), StoreError> {
        let Past {
            journal, recent, ..
        } = &self.past;
        let replay = self
            .replay
            .get_or_insert_with(|| Replay::new(journal, recent, store.position()));
        let batch = replay
            .next_batch(end)
            .map_err(|e| StoreError::Unavailable(e.to_string()))?;
        if self.unflushed == 0 {
            self.flushed_at = Instant::now();
        }
        self.unflushed += batch.records.len().max(1);
        store.apply(&batch.records, batch.upto, &self.past)?;
        self.index.reached(batch.upto);
        if self.unflushed >= FLUSH_RECORDS || self.flushed_at.elapsed() >= FLUSH_EVERY {
            self.flush(store)?;
        }
        Ok(())
    }

    fn flush(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        self.unflushed = 0;
        store.flush()
    }

    fn repair(&mut self) {
        (self.replay, self.unflushed) = (None, 0);
        let mut pause = REPAIR_PAUSE_MIN;
        loop {
            match self.index.repair() {
                Ok(Some(unverified)) => return self.verify(unverified),
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(error = %error, "The index could not be opened or made again: trying again.");
                }
            }
            self.index.pause(pause);
            if self.index.is_stopping() {
                return;
            }
            pause = (pause * 2).min(REPAIR_PAUSE_MAX);
        }
    }

    /// Reads a whole index that was not closed, while it is used.
    fn verify(&mut self, store: Arc<dyn Store>) {
        self.join_verifier();
        let index = Arc::clone(&self.index);
        let verify = move || {
            let stop = || index.is_stopping() || !index.is_current(&store);
            match store.verify(&stop) {
                Ok(()) => tracing::debug!("The index was verified."),
                Err(error) => index.failed(&store, &error),
            }
        };
        let spawned = std::thread::Builder::new()
            .name("verifier".into())
            .spawn(verify);
        match spawned {
            Ok(thread) => self.verifier = Some(thread),
            Err(error) => tracing::warn!(%error, "The index could not be verified."),
        }
    }

    fn join_verifier(&mut self) {
        if let Some(thread) = self.verifier.take()
            && thread.join().is_err()
        {
            tracing::error!("Verifying the index ended unexpectedly.");
        }
    }
}

impl Drop for Indexer {
    fn drop(&mut self) {
        self.replay = None;
        // Nothing to wait for when the thread ended by a panic.
        self.index.stop();
        self.join_verifier();
        if let Err(error) = self.index.close() {
            tracing::warn!(error = %error, "The index could not be closed: the next start checks it.");
        }
    }
}

/// Only the calling thread gives way: Linux keeps the nice value per thread
/// (setpriority(2), "C library/kernel differences").
fn give_way() {
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "The indexer runs as urgently as everything else.");
    }
}
