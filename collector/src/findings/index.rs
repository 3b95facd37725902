//! The index as the threads of this module share it: the store while there is
//! a sound one, and how far it has come.
//!
//! Promises: nobody gets an answer from a store that is being opened or made
//! again; whoever asks waits for it a moment, and then is told how far it is.
//! Ingest never waits for the index.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::FindingsError;
use super::history::Past;
use super::progress::Progress;
use super::replay::Replay;
use crate::journal::Position;
use crate::store::{Keeper, Opened, Store, StoreError};

/// Bytes after which a store that is behind is flushed.
const FLUSH_BYTES: u64 = 256 * 1024 * 1024;

/// The index, shared by committer, indexer and askers.
pub(super) struct Index {
    past: Past,
    /// Percent of a repair that are done.
    repaired_percent: AtomicU64,
    keeper: Mutex<Keeper>,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    store: Current,
    /// Everything before it is in the journal.
    durable: Position,
    /// Everything before it is in the index.
    indexed: Position,
    /// The journal does not go back further than this any more.
    drop_before: Option<Position>,
    /// Whoever waits for a repair should give up.
    closing: bool,
    /// No more changes will come.
    stopping: bool,
}

enum Current {
    Sound(Arc<dyn Store>),
    /// It is being opened, or failed and is looked after.
    Repairing {
        reason: String,
        damaged: bool,
        released: Option<Weak<dyn Store>>,
    },
    Closed,
}

impl Current {
    fn repairing(store: &Arc<dyn Store>, error: &StoreError) -> Self {
        Self::Repairing {
            reason: error.to_string(),
            damaged: matches!(error, StoreError::Damaged(_)),
            released: Some(Arc::downgrade(store)),
        }
    }
}

/// What the indexer should do next.
pub(super) enum Work {
    /// Records before a position wait.
    Follow(Arc<dyn Store>, Position),
    /// What lies before a position is not kept any more.
    Drop(Arc<dyn Store>, Position),
    /// The store failed.
    Repair,
    /// Nothing came for a while.
    Idle(Arc<dyn Store>),
    /// Everything is done and nothing more will come.
    Stop,
}

impl Index {
    /// The index of a data directory, not opened yet: [`Self::repair`] does.
    pub(super) fn new(data_dir: &Path, past: Past) -> Self {
        let durable = past.journal.end();
        Self {
            past,
            repaired_percent: AtomicU64::new(0),
            keeper: Mutex::new(Keeper::new(data_dir)),
            state: Mutex::new(State {
                store: Current::Repairing {
                    reason: "the index is being opened".into(),
                    damaged: false,
                    released: None,
                },
                durable,
                indexed: Position(0),
                drop_before: None,
                closing: false,
                stopping: false,
            }),
            changed: Condvar::new(),
        }
    }

    /// Asks the store, and waits a moment for a sound one.
    pub(super) fn ask<R>(
        &self,
        at_most: Duration,
        question: impl Fn(&dyn Store) -> Result<R, StoreError>,
    ) -> Result<R, FindingsError> {
        let until = Instant::now() + at_most;
        loop {
            let store = self.await_sound(until)?;
            let error = match question(&*store) {
                Ok(answer) => return Ok(answer),
                Err(StoreError::InvalidCursor) => return Err(FindingsError::InvalidCursor),
                Err(error) => error,
            };
            self.failed(&store, &error);
            if Instant::now() >= until {
                return Err(FindingsError::Read(error.to_string()));
            }
        }
    }

    fn await_sound(&self, until: Instant) -> Result<Arc<dyn Store>, FindingsError> {
        let mut state = self.state();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match &state.store {
                Current::Sound(store) => return Ok(Arc::clone(store)),
                Current::Closed => {
                    return Err(FindingsError::Read("the collector is stopping".into()));
                }
                Current::Repairing { reason, .. }
                    if left.is_zero() || state.closing || state.stopping =>
                {
                    return Err(self.being_repaired(reason));
                }
                Current::Repairing { .. } => {
                    let waited = self.changed.wait_timeout(state, left);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    /// A store failed: the indexer will look after it.
    pub(super) fn failed(&self, store: &Arc<dyn Store>, error: &StoreError) {
        if matches!(error, StoreError::InvalidCursor) {
            return;
        }
        let mut state = self.state();
        let is_current = matches!(&state.store, Current::Sound(s) if Arc::ptr_eq(s, store));
        if is_current {
            tracing::error!(error = %error, "The index failed.");
            state.store = Current::repairing(store, error);
            self.changed.notify_all();
        }
    }

    /// Opens or makes the index again and brings it up to date; gives the store
    /// if it has to be verified. Called by the indexer only.
    pub(super) fn repair(&self) -> Result<Option<Arc<dyn Store>>, StoreError> {
        let mut keeper = self.keeper();
        let aside = match &mut self.state().store {
            Current::Repairing {
                reason,
                damaged,
                released,
            } => {
                if let Some(released) = released.take() {
                    keeper.released(released);
                }
                damaged.then(|| reason.clone())
            }
            Current::Sound(_) | Current::Closed => return Ok(None),
        };
        if let Some(reason) = aside {
            keeper.set_aside(&reason)?;
            self.was_set_aside();
        }
        let Opened { store, is_trusted } = keeper.open(&self.past.journal)?;
        drop(keeper);
        match self.catch_up(&*store) {
            Ok(true) => {}
            Ok(false) => {
                self.state().store = Current::Closed;
                self.changed.notify_all();
                return self.keeper().close(store).map(|()| None);
            }
            Err(error) => {
                self.give_up(&store, &error);
                return Err(error);
            }
        }
        let mut state = self.state();
        state.indexed = store.position();
        state.store = Current::Sound(Arc::clone(&store));
        self.changed.notify_all();
        Ok((!is_trusted).then_some(store))
    }

    /// What comes in the place of a damaged store has nothing of it.
    fn was_set_aside(&self) {
        if let Current::Repairing { damaged, .. } = &mut self.state().store {
            *damaged = false;
        }
    }

    /// A store failed before it was in use. If it is damaged it would fail
    /// again: the next attempt begins with an empty one.
    fn give_up(&self, store: &Arc<dyn Store>, error: &StoreError) {
        self.state().store = Current::repairing(store, error);
    }

    /// Applies everything that is durable by now, and says whether it came to
    /// the end: a stop waits for nothing but the batch at hand.
    fn catch_up(&self, store: &dyn Store) -> Result<bool, StoreError> {
        let journal = &self.past.journal;
        let mut at = store.position().max(journal.begin());
        // What dedup knows by now; the journal may be ahead of that.
        let end = self.state().durable;
        let begin = at;
        let mut replay = Replay::new(journal, &self.past.recent, at);
        let mut progress = Progress::new(
            "Bringing the index up to date with the journal",
            end.0.saturating_sub(at.0),
        );
        let mut flush_at = at.0 + FLUSH_BYTES;
        while at < end {
            if self.is_stopping() {
                return Ok(false);
            }
            let batch = replay
                .next_batch(end)
                .map_err(|e| StoreError::Unavailable(e.to_string()))?;
            store.apply(&batch.records, batch.upto, &self.past)?;
            progress.advance(batch.upto.0 - at.0);
            self.repaired_percent
                .store(progress.percent(), Ordering::Relaxed);
            at = batch.upto;
            self.reached(at);
            if at.0 >= flush_at {
                flush_at = at.0 + FLUSH_BYTES;
                store.flush()?;
            }
        }
        drop(progress);
        store.drop_before(journal.begin())?;
        if begin < end {
            let (bytes, reports) = (end.0 - begin.0, store.reports());
            tracing::info!(
                bytes,
                reports,
                "Brought the index up to date with the journal."
            );
        }
        Ok(true)
    }

    /// What to do next; waits at most `idle_after` when that is given.
    pub(super) fn next_work(&self, idle_after: Option<Duration>) -> Work {
        let mut state = self.state();
        loop {
            if let Current::Sound(store) = &state.store
                && let Some(begin) = state.drop_before
            {
                let store = Arc::clone(store);
                state.drop_before = None;
                return Work::Drop(store, begin);
            }
            let sound = match &state.store {
                Current::Sound(store) if state.indexed < state.durable => {
                    return Work::Follow(Arc::clone(store), state.durable);
                }
                Current::Repairing { .. } if !state.stopping => return Work::Repair,
                Current::Sound(store) => Some(Arc::clone(store)),
                Current::Repairing { .. } | Current::Closed => None,
            };
            if state.stopping {
                return Work::Stop;
            }
            let (Some(idle_after), Some(store)) = (idle_after, sound) else {
                state = self.wait(state);
                continue;
            };
            let waited = self.changed.wait_timeout(state, idle_after);
            let (now, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            if timeout.timed_out() {
                return Work::Idle(store);
            }
            state = now;
        }
    }

    /// Whether this store is the one in use.
    pub(super) fn is_current(&self, store: &Arc<dyn Store>) -> bool {
        matches!(&self.state().store, Current::Sound(s) if Arc::ptr_eq(s, store))
    }

    /// The journal has grown, and dedup knows of it: what ended is looked up
    /// there.
    pub(super) fn grew(&self, durable: Position) {
        self.state().durable = durable;
        self.changed.notify_all();
    }

    /// The index has come this far.
    pub(super) fn reached(&self, indexed: Position) {
        self.state().indexed = indexed;
        self.changed.notify_all();
    }

    /// Where the index is.
    pub(super) fn indexed(&self) -> Position {
        self.state().indexed
    }

    /// The journal begins there by now: the indexer gives up what lies before.
    pub(super) fn drop_before(&self, begin: Position) {
        self.state().drop_before = Some(begin);
        self.changed.notify_all();
    }

    /// Gives the index a moment to reflect what is in the journal, so that
    /// whoever saw a record can ask for its finding.
    pub(super) fn settle(&self, at_most: Duration) {
        let state = self.state();
        let target = state.durable;
        let behind = |s: &mut State| match s.store {
            Current::Sound(_) => s.indexed < target,
            Current::Repairing { .. } => !s.closing,
            Current::Closed => false,
        };
        drop(self.changed.wait_timeout_while(state, at_most, behind));
    }

    /// From now on nobody waits for a repair.
    pub(super) fn begin_closing(&self) {
        self.state().closing = true;
        self.changed.notify_all();
    }

    pub(super) fn is_closing(&self) -> bool {
        self.state().closing
    }

    /// No more changes will come, or none can be taken.
    pub(super) fn stop(&self) {
        self.state().stopping = true;
        self.changed.notify_all();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.state().stopping
    }

    /// Waits before a failed repair is tried again; ends early at a stop.
    pub(super) fn pause(&self, time: Duration) {
        let state = self.state();
        drop(
            self.changed
                .wait_timeout_while(state, time, |s| !s.stopping),
        );
    }

    /// Closes the store so that the next start can trust it.
    pub(super) fn close(&self) -> Result<(), StoreError> {
        let current = std::mem::replace(&mut self.state().store, Current::Closed);
        self.changed.notify_all();
        match current {
            Current::Sound(store) => self.keeper().close(store),
            Current::Repairing { .. } | Current::Closed => Ok(()),
        }
    }

    fn being_repaired(&self, reason: &str) -> FindingsError {
        let percent = self.repaired_percent.load(Ordering::Relaxed);
        FindingsError::Read(format!(
            "{reason}; {percent} % of that are done, try again in a moment"
        ))
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keeper(&self) -> MutexGuard<'_, Keeper> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
