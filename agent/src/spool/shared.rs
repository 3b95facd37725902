//! The spool between its two users: the scanner's thread appends, the uplink
//! reads and acknowledges. Disk work never runs on the async threads.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use procwarden_common::limits::BATCH_EVENTS_MAX;
use procwarden_common::wire::Change;
use procwarden_proto::v1;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;

use super::{DroppedReports, Figures, Spool};
use crate::files::FileError;
use crate::health::{Board, Part};

/// Bytes of one batch: the message with its frame stays below the limit.
const BATCH_BYTES_MAX: usize = 1024 * 1024 - 64 * 1024;

/// See the head of this file. Cloning shares the same spool.
#[derive(Debug, Clone)]
pub(crate) struct SharedSpool {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    spool: Mutex<Spool>,
    grown: Notify,
    board: Arc<Board>,
}

impl SharedSpool {
    pub(crate) fn new(spool: Spool, board: Arc<Board>) -> Self {
        let shared = Self {
            inner: Arc::new(Inner {
                spool: Mutex::new(spool),
                grown: Notify::new(),
                board,
            }),
        };
        let figures = shared.lock().figures();
        shared.inner.board.update(|health| health.spool = figures);
        shared
    }

    /// Appends, and tells the uplink. True when everything is on the disk, or
    /// was dropped and is remembered there as far as it has to be.
    /// Blocks: for the scanner's thread.
    pub(crate) fn append(&self, changes: &[Change]) -> bool {
        let (result, figures, is_durable) = {
            let mut spool = self.lock();
            let result = spool.append(changes);
            (result, spool.figures(), spool.is_durable())
        };
        self.inner.board.update(|health| health.spool = figures);
        self.inner
            .board
            .set_notes(Part::Spool, notes_of(&result, figures));
        self.inner.grown.notify_one();
        is_durable
    }

    /// See [`Spool::dropped_reports`]. Blocks.
    pub(crate) fn dropped_reports(&self) -> DroppedReports {
        self.lock().dropped_reports()
    }

    /// See [`Spool::dropped_host_reports`]. Blocks.
    pub(crate) fn dropped_host_reports(&self) -> DroppedReports {
        self.lock().dropped_host_reports()
    }

    /// See [`Spool::strike_out`]. Blocks.
    pub(crate) fn strike_out(&self, dropped: &DroppedReports) {
        self.lock().strike_out(dropped);
    }

    /// See [`Spool::has_room_for_reports`]. Blocks.
    pub(crate) fn has_room_for_reports(&self) -> bool {
        self.lock().has_room_for_reports()
    }

    /// Another limit. Blocks.
    pub(crate) fn set_max_bytes(&self, max_bytes: u64) {
        if let Err(error) = self.lock().set_max_bytes(max_bytes) {
            tracing::error!(%error, "The spool could not be brought below its new limit yet.");
        }
    }

    /// Returns when something was appended since the last call.
    pub(crate) async fn grown(&self) {
        self.inner.grown.notified().await;
    }

    /// The next batch behind sequence `after`; empty when there is none.
    pub(crate) async fn read_batch(&self, after: u64) -> Vec<v1::Event> {
        self.blocking(move |spool| spool.read_batch(after, BATCH_EVENTS_MAX, BATCH_BYTES_MAX))
            .await
            .unwrap_or_default()
    }

    /// Takes over the collector's receipt.
    pub(crate) async fn ack(&self, sequence: u64) {
        let work = move |spool: &mut Spool| (spool.ack(sequence), spool.tell_owed());
        let Some((kept, told)) = self.blocking(work).await else {
            return;
        };
        if let Err(error) = kept {
            tracing::error!(%error, "An ack could not be kept: after a restart the events are sent again.");
        }
        if let Err(error) = told {
            tracing::error!(%error, "Ends of findings that were dropped cannot be told again yet.");
        }
    }

    /// How many events wait.
    pub(crate) fn waiting(&self) -> u64 {
        self.inner.board.snapshot().spool.events
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Spool) -> T + Send + 'static,
    ) -> Option<T> {
        let shared = self.clone();
        let done = spawn_blocking(move || {
            let mut spool = shared.lock();
            let done = work(&mut spool);
            let figures = spool.figures();
            drop(spool);
            shared.inner.board.update(|health| health.spool = figures);
            done
        });
        // The only error is a panic in `work`, which was already printed.
        done.await.ok()
    }

    fn lock(&self) -> MutexGuard<'_, Spool> {
        // A panic half-way leaves at worst an event in the index that cannot
        // be read back, which reading deals with.
        self.inner
            .spool
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn notes_of(result: &Result<(), FileError>, figures: Figures) -> Vec<String> {
    let mut notes = Vec::new();
    match result {
        Err(error) if figures.in_memory > 0 => notes.push(format!(
            "the spool cannot be written, findings wait in memory and are lost with the agent: {error}"
        )),
        Err(error) => notes.push(format!("the spool cannot be kept in order: {error}")),
        Ok(()) => {}
    }
    if figures.damaged > 0 {
        notes.push(format!(
            "the spool's disk is damaged: {} events were lost since the start",
            figures.damaged
        ));
    }
    if figures.lost_ends > 0 {
        notes.push(format!(
            "the spool was full for so long, or its list of dropped ends is so damaged, that the ends \
             of at least {} findings were lost since the start: \
             the collector goes on to show them as open",
            figures.lost_ends
        ));
    }
    notes
}
