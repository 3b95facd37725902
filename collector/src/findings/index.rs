//! The index as the threads of this module share it: the store while there is
//! a sound one, and how far it has come.
//!
//! Promises: nobody gets an answer from a store that is being made again.
//! Whoever needs an answer from a sound one can wait for it.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::FindingsError;
use super::replay::{self, Replay};
use crate::journal::{JournalReader, Position};
use crate::store::{Keeper, Store, StoreError};

/// The index, shared by committer, indexer and askers.
pub(super) struct Index {
    journal: JournalReader,
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
    /// Whoever waits for a repair should give up.
    closing: bool,
    /// No more changes will come.
    stopping: bool,
}

enum Current {
    Sound(Arc<dyn Store>),
    /// It failed and is looked after.
    Repairing {
        reason: String,
        damaged: bool,
        released: Weak<dyn Store>,
    },
    Closed,
}

/// What the indexer should do next.
pub(super) enum Work {
    /// Records wait.
    Follow(Arc<dyn Store>),
    /// The store failed.
    Repair,
    /// Nothing came for a while.
    Idle,
    /// Everything is done and nothing more will come.
    Stop,
}

impl Index {
    /// Opens the index and brings it up to date with the journal.
    pub(super) fn open(data_dir: &Path, journal: JournalReader) -> Result<Self, StoreError> {
        let mut keeper = Keeper::new(data_dir);
        let store = open_up_to_date(&mut keeper, &journal)?;
        let (durable, indexed) = (journal.end(), store.position());
        let store = Current::Sound(store);
        Ok(Self {
            journal,
            keeper: Mutex::new(keeper),
            state: Mutex::new(State {
                store,
                durable,
                indexed,
                closing: false,
                stopping: false,
            }),
            changed: Condvar::new(),
        })
    }

    /// Asks the store. When there is no sound one, says so at once.
    pub(super) fn ask<R>(
        &self,
        question: impl FnOnce(&dyn Store) -> Result<R, StoreError>,
    ) -> Result<R, FindingsError> {
        let store = match &self.state().store {
            Current::Sound(store) => Arc::clone(store),
            Current::Repairing { reason, .. } => return Err(being_repaired(reason)),
            Current::Closed => return Err(FindingsError::Read("the collector is stopping".into())),
        };
        question(&*store).map_err(|error| {
            self.failed(&store, &error);
            match error {
                StoreError::InvalidCursor => FindingsError::InvalidCursor,
                error @ StoreError::Damaged(_) => being_repaired(&error.to_string()),
                error @ StoreError::Unavailable(_) => FindingsError::Read(error.to_string()),
            }
        })
    }

    /// Asks the store, and waits for a sound one as long as it takes.
    ///
    /// # Errors
    /// When there will be none.
    pub(super) fn ask_patiently<R>(
        &self,
        question: impl Fn(&dyn Store) -> Result<R, StoreError>,
    ) -> Result<R, FindingsError> {
        loop {
            let store = self.await_sound()?;
            match question(&*store) {
                Ok(answer) => return Ok(answer),
                Err(error) => self.failed(&store, &error),
            }
        }
    }

    fn await_sound(&self) -> Result<Arc<dyn Store>, FindingsError> {
        let mut state = self.state();
        loop {
            match &state.store {
                Current::Sound(store) => return Ok(Arc::clone(store)),
                Current::Repairing { reason, .. } if state.closing || state.stopping => {
                    return Err(being_repaired(reason));
                }
                Current::Closed => return Err(FindingsError::Stopped("the indexer ended".into())),
                Current::Repairing { .. } => state = self.wait(state),
            }
        }
    }

    /// A store failed: the indexer will look after it.
    pub(super) fn failed(&self, store: &Arc<dyn Store>, error: &StoreError) {
        let damaged = match error {
            StoreError::InvalidCursor => return,
            StoreError::Damaged(_) => true,
            StoreError::Unavailable(_) => false,
        };
        let mut state = self.state();
        let is_current = matches!(&state.store, Current::Sound(s) if Arc::ptr_eq(s, store));
        if is_current {
            tracing::error!(error = %error, "The index failed.");
            let released = Arc::downgrade(store);
            state.store = Current::Repairing {
                reason: error.to_string(),
                damaged,
                released,
            };
            self.changed.notify_all();
        }
    }

    /// Opens or makes the index again and brings it up to date. Called by the
    /// indexer only.
    pub(super) fn repair(&self) -> Result<(), StoreError> {
        let mut keeper = self.keeper();
        let aside = match &self.state().store {
            Current::Repairing {
                reason,
                damaged,
                released,
            } => {
                keeper.released(released.clone());
                damaged.then(|| reason.clone())
            }
            Current::Sound(_) | Current::Closed => return Ok(()),
        };
        if let Some(reason) = aside {
            keeper.set_aside(&reason)?;
        }
        let store = open_up_to_date(&mut keeper, &self.journal)?;
        let mut state = self.state();
        state.indexed = store.position();
        state.store = Current::Sound(store);
        self.changed.notify_all();
        Ok(())
    }

    /// What to do next; waits at most `idle_after` when that is given.
    pub(super) fn next_work(&self, idle_after: Option<Duration>) -> Work {
        let mut state = self.state();
        loop {
            match &state.store {
                Current::Sound(store) if state.indexed < state.durable => {
                    return Work::Follow(Arc::clone(store));
                }
                Current::Repairing { .. } if !state.stopping => return Work::Repair,
                Current::Sound(_) | Current::Repairing { .. } | Current::Closed => {}
            }
            if state.stopping {
                return Work::Stop;
            }
            let Some(idle_after) = idle_after else {
                state = self.wait(state);
                continue;
            };
            let waited = self.changed.wait_timeout(state, idle_after);
            let (now, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            if timeout.timed_out() {
                return Work::Idle;
            }
            state = now;
        }
    }

    /// The journal has grown.
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

    /// Waits until the index is behind a position.
    ///
    /// # Errors
    /// When it will not get there.
    pub(super) fn await_indexed_beyond(
        &self,
        position: Position,
    ) -> Result<Position, FindingsError> {
        let mut state = self.state();
        loop {
            match &state.store {
                Current::Sound(_) if state.indexed > position => return Ok(state.indexed),
                Current::Repairing { reason, .. } if state.closing || state.stopping => {
                    return Err(being_repaired(reason));
                }
                Current::Closed => return Err(FindingsError::Stopped("the indexer ended".into())),
                Current::Sound(_) | Current::Repairing { .. } => state = self.wait(state),
            }
        }
    }

    /// Gives the index a moment to reflect what is in the journal, so that
    /// whoever saw a record can ask for its finding.
    pub(super) fn settle(&self, at_most: Duration) {
        let state = self.state();
        let target = state.durable;
        let behind = |s: &mut State| matches!(s.store, Current::Sound(_)) && s.indexed < target;
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

fn open_up_to_date(
    keeper: &mut Keeper,
    journal: &JournalReader,
) -> Result<Arc<dyn Store>, StoreError> {
    let store = keeper.open(journal)?;
    let mut replay = Replay::new(journal, store.position());
    replay::catch_up(&*store, &mut replay, journal)?;
    Ok(store)
}

fn being_repaired(reason: &str) -> FindingsError {
    FindingsError::Read(format!(
        "{reason}; it is being repaired, try again in a moment"
    ))
}
