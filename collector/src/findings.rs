//! The findings of the fleet: ingest (decode -> dedup -> journal -> ack), the
//! index that follows the journal, and the questions asked of both.
//!
//! ```text
//! record -> committer (dedup by facts, group commit) -> journal -> indexer -> index -> list
//!                                                           \-> follow: alerts, watch
//! ```
//!
//! Promises: `record` returns after the fdatasync of everything it was given,
//! and every change is in the journal once, whatever is sent twice, over
//! restarts too. Dedup knows every finding from memory (`facts`), filled at the
//! start from the journal, and never asks the index: that one may lag, be
//! damaged or be made again while findings are taken in. Two threads,
//! `committer` and `indexer`, own the writing ends.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::StoredFinding;
use procwarden_common::id::{FindingId, HostId};
use tokio::sync::{mpsc, oneshot, watch};

use crate::journal::{Journal, JournalReader, Position};

mod commands;
mod committer;
mod compact;
mod entry;
mod facts;
mod facts_files;
mod filter;
mod follow;
mod history;
mod incoming;
mod index;
mod indexer;
mod lookup;
mod maintain;
mod progress;
mod recent;
mod replay;
mod retention;
mod segment_facts;
mod sets;
#[cfg(test)]
mod tests;

use commands::{Command, Commands, Request};
use committer::{Committer, Skipped};
pub(crate) use compact::{CompactRecord, Indexed};
#[cfg(test)]
pub(crate) use entry::FindingEntry;
pub(crate) use entry::finding_id;
pub(crate) use filter::{ExeFilter, FindingFilter};
use history::Past;
pub(crate) use incoming::Incoming;
use index::Index;
use indexer::Indexer;
pub(crate) use maintain::{CheckReport, IndexReport, check, rebuild};
pub(crate) use recent::{Record, Recorded};
use retention::Bound;

/// Requests that wait for the committer; more wait at their senders.
const REQUESTS_MAX: usize = 256;
/// Ids that a prefix may name before it is useless.
const PREFIX_IDS_MAX: usize = 16;
/// A question waits this long for the index to reflect what is recorded.
const SETTLE_TIME: Duration = Duration::from_millis(500);
/// A listing waits this long for an index that is being opened.
const LISTING_PATIENCE: Duration = Duration::from_secs(2);

/// Handle on the findings; cheap to clone.
#[derive(Clone)]
pub(crate) struct Findings {
    inner: Arc<Inner>,
}

struct Inner {
    index: Arc<Index>,
    past: Past,
    commands: mpsc::Sender<Command>,
    ends: watch::Receiver<Position>,
    failed: watch::Receiver<Option<String>>,
    skipped: Arc<Skipped>,
    held_back: Arc<Mutex<Option<String>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What makes it impossible to go on, or to answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FindingsError {
    /// The journal can not be written: the process is about to end.
    #[error("the findings journal failed: {0}")]
    Stopped(String),
    /// The index or journal could not be read.
    #[error("cannot read findings: {0}")]
    Read(String),
    /// A cursor that no answer gave.
    #[error("not a cursor of this collector")]
    InvalidCursor,
}

/// One page of a listing, newest report first. It may hold fewer findings than
/// were asked for, or none, and still have more behind its cursor.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FindingPage {
    pub(crate) findings: Vec<StoredFinding>,
    pub(crate) next_cursor: Option<Vec<u8>>,
    /// So much was read in vain that the page ended: the search goes on behind
    /// the cursor.
    pub(crate) is_cut: bool,
}

/// Figures for `status`.
#[derive(Debug, Clone, Default)]
pub(crate) struct FindingsFigures {
    pub(crate) findings: u64,
    pub(crate) findings_open: u64,
    pub(crate) journal_bytes: u64,
    pub(crate) index_lag_bytes: u64,
    /// Damaged places of the journal that were met since the start.
    pub(crate) journal_damaged: u64,
    /// Changes since the start that were known already.
    pub(crate) duplicates: u64,
    /// Ends since the start of findings that nobody reported.
    pub(crate) unknown_ends: u64,
    /// Why nothing is taken in for now: no room on the disk.
    pub(crate) held_back: Option<String>,
}

impl Findings {
    /// Opens the journal below `data_dir`, learns from it what dedup has to
    /// know, and starts committer and indexer. The index is opened, brought up
    /// to date or made again while findings are taken in.
    pub(crate) fn open(data_dir: &Path) -> anyhow::Result<Self> {
        Self::start(data_dir, Journal::open(&data_dir.join("findings"))?.0)
    }

    fn start(data_dir: &Path, journal: Journal) -> anyhow::Result<Self> {
        let past =
            Past::load(data_dir, journal.reader()).context("cannot read the findings journal")?;
        let index = Arc::new(Index::new(data_dir, past.clone()));
        let (commands, requests) = mpsc::channel(REQUESTS_MAX);
        let (ends_sender, ends) = watch::channel(journal.end());
        let (failed_sender, failed) = watch::channel(None);
        let skipped = Arc::new(Skipped::default());
        let held_back = Arc::default();
        let committer = Committer {
            journal,
            index: Arc::clone(&index),
            past: past.clone(),
            skipped: Arc::clone(&skipped),
            commands: Commands::new(requests),
            held_back: Arc::clone(&held_back),
            ends: ends_sender,
            failed: failed_sender,
        };
        let indexer = Indexer::new(Arc::clone(&index), past.clone());
        let threads = Mutex::new(vec![
            spawn("committer", move || committer.run())?,
            spawn("indexer", move || indexer.run())?,
        ]);
        let inner = Inner {
            index,
            past,
            commands,
            ends,
            failed,
            skipped,
            held_back,
            threads,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Records what a host reported. Returns after the fdatasync: only then
    /// may the batch be acked. Known findings are not recorded again.
    pub(crate) async fn record(
        &self,
        host_id: HostId,
        host_name: &str,
        received_at: UnixMillis,
        changes: Vec<Incoming>,
    ) -> Result<(), FindingsError> {
        let host_name = entry::bounded_host_name(host_name);
        self.ask_committer(|reply| {
            Command::Record(Request {
                host_id,
                host_name,
                received_at,
                changes,
                reply,
            })
        })
        .await
    }

    async fn ask_committer<R>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<R, FindingsError>>) -> Command,
    ) -> Result<R, FindingsError> {
        let (reply, answer) = oneshot::channel();
        if self.inner.commands.send(command(reply)).await.is_err() {
            return Err(self.stopped());
        }
        answer.await.unwrap_or_else(|_| Err(self.stopped()))
    }

    fn stopped(&self) -> FindingsError {
        let reason = self.inner.failed.borrow().clone();
        FindingsError::Stopped(reason.unwrap_or_else(|| "the collector is stopping".into()))
    }

    /// One page of findings, newest first, without files, maps and ancestry.
    pub(crate) fn list(
        &self,
        filter: &FindingFilter,
        cursor: Option<&[u8]>,
        limit: usize,
    ) -> Result<FindingPage, FindingsError> {
        // Behind a cursor lie older findings, which the index has already: who
        // reads the whole history does not wait for each page of it.
        let Inner { index, past, .. } = &*self.inner;
        if cursor.is_none() {
            index.settle(SETTLE_TIME);
        }
        index.ask(LISTING_PATIENCE, |store| {
            store.list(filter, cursor, limit, past)
        })
    }

    /// With files, maps and ancestry. Needs no index: the journal says it all,
    /// and where it is damaged the index holds the rest.
    pub(crate) fn get(&self, id: FindingId) -> Result<Option<StoredFinding>, FindingsError> {
        let Inner { index, past, .. } = &*self.inner;
        let Some(fact) = past.facts.get(id) else {
            return Ok(None);
        };
        if fact.ended {
            index.settle(SETTLE_TIME);
        }
        let found = lookup::finding(index, past, id, fact, LISTING_PATIENCE);
        found.map(Some).map_err(FindingsError::Read)
    }

    /// Ids that begin with these hexadecimal digits (bounded).
    pub(crate) fn find_prefix(&self, hex: &str) -> Result<Vec<FindingId>, FindingsError> {
        let digits = hex.to_ascii_lowercase();
        let past = &self.inner.past;
        let places = past.facts.find_prefix(&digits, PREFIX_IDS_MAX);
        let id = |place| {
            past.entry(place)
                .map(|entry| entry.id())
                .map_err(FindingsError::Read)
        };
        let ids: Vec<FindingId> = places.into_iter().map(id).collect::<Result<_, _>>()?;
        let begins = |id: &FindingId| id.to_string().starts_with(&digits);
        Ok(ids.into_iter().filter(begins).collect())
    }

    /// Follows the journal from a position: what was recorded since, then what
    /// comes, without a gap. Ends when the findings are closed. Call it within
    /// a tokio runtime.
    pub(crate) fn follow(&self, from: Position) -> mpsc::Receiver<Vec<Recorded>> {
        let (sender, receiver) = mpsc::channel(follow::CHANNEL_BATCHES);
        let (past, ends) = (self.inner.past.clone(), self.inner.ends.clone());
        let at = follow::beginning(&past.journal, from);
        tokio::spawn(follow::run(past, at, ends, sender));
        receiver
    }

    /// The findings journal, for figures and copies.
    pub(crate) fn journal(&self) -> &JournalReader {
        &self.inner.past.journal
    }

    /// End of the durable journal.
    pub(crate) fn end(&self) -> Position {
        self.inner.past.journal.end()
    }

    /// Whether the index reflects every record before a position.
    pub(crate) fn has_indexed(&self, position: Position) -> bool {
        self.inner.index.indexed() >= position
    }

    /// Open findings of a host.
    pub(crate) fn open_count(&self, host: HostId) -> u64 {
        self.inner.past.facts.open_of(host)
    }

    /// Figures for `status`.
    pub(crate) fn figures(&self) -> FindingsFigures {
        let Past { facts, journal, .. } = &self.inner.past;
        let lag = self.end().0.saturating_sub(self.inner.index.indexed().0);
        let held_back = self.inner.held_back.lock();
        FindingsFigures {
            findings: facts.findings(),
            findings_open: facts.open(),
            journal_bytes: journal.bytes(),
            index_lag_bytes: lag,
            journal_damaged: journal.damaged_records(),
            duplicates: self.inner.skipped.duplicates.load(Ordering::Relaxed),
            unknown_ends: self.inner.skipped.unknown_ends.load(Ordering::Relaxed),
            held_back: held_back.unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Drops the closed segments of the journal whose newest record is older
    /// than `cutoff`, and with them the findings that have their newest full
    /// report there, open ones too. Returns how many findings went.
    pub(crate) async fn drop_older_than(&self, cutoff: UnixMillis) -> Result<u64, FindingsError> {
        self.drop_beyond(Bound::Age(cutoff)).await
    }

    /// Drops the oldest closed segments until the journal has no more than so
    /// many bytes, as [`Self::drop_older_than`] does.
    pub(crate) async fn drop_down_to(&self, bytes: u64) -> Result<u64, FindingsError> {
        self.drop_beyond(Bound::Bytes(bytes)).await
    }

    async fn drop_beyond(&self, bound: Bound) -> Result<u64, FindingsError> {
        let mut dropped = 0;
        let mut any = false;
        loop {
            let past = self.inner.past.clone();
            let examine = move || retention::examine(&past, bound);
            let examined = tokio::task::spawn_blocking(examine).await;
            let examined = examined.map_err(|e| FindingsError::Read(e.to_string()))?;
            let Some((span, segment)) = examined.map_err(|e| FindingsError::Read(e.to_string()))?
            else {
                break;
            };
            any = true;
            let end = span.end;
            dropped += self
                .ask_committer(|reply| Command::DropOldest {
                    segment,
                    end,
                    reply,
                })
                .await?;
        }
        if any {
            let findings = self.clone();
            let drop_blocks = move || {
                let begin = findings.inner.past.journal.begin();
                findings.inner.index.drop_before(begin);
            };
            let done = tokio::task::spawn_blocking(drop_blocks).await;
            done.map_err(|e| FindingsError::Read(e.to_string()))?;
        }
        Ok(dropped)
    }

    /// Resolves when the journal failed and the process must end, with why.
    pub(crate) async fn failed(&self) -> String {
        let mut failed = self.inner.failed.clone();
        let reason = failed
            .wait_for(Option::is_some)
            .await
            .map(|reason| reason.clone());
        match reason {
            Ok(reason) => reason.unwrap_or_default(),
            Err(_) if self.inner.index.is_closing() => std::future::pending().await,
            Err(_) => "the committer ended unexpectedly".to_owned(),
        }
    }

    /// Finishes what is in flight, flushes the index, stops the threads.
    pub(crate) async fn close(&self) {
        self.inner.index.begin_closing();
        // An error means that the committer has ended already.
        drop(self.inner.commands.send(Command::Close).await);
        let threads = std::mem::take(
            &mut *self
                .inner
                .threads
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        let joined = tokio::task::spawn_blocking(move || {
            threads
                .into_iter()
                .filter_map(|thread| thread.join().err())
                .count()
        });
        if joined.await.unwrap_or(1) > 0 {
            tracing::error!("A thread of the findings ended unexpectedly.");
        }
    }

    /// [`Self::record`] of changes as they are.
    #[cfg(test)]
    pub(crate) async fn record_changes(
        &self,
        host_id: HostId,
        host_name: &str,
        received_at: UnixMillis,
        changes: Vec<procwarden_common::wire::Change>,
    ) -> Result<(), FindingsError> {
        let incoming = |change| Incoming::new(host_id, change);
        let changes = changes.into_iter().map(incoming).collect();
        self.record(host_id, host_name, received_at, changes).await
    }

    #[cfg(test)]
    fn damage_index_for_test(&self) {
        drop(self.inner.index.ask(Duration::ZERO, |_| {
            Err::<(), _>(crate::store::StoreError::Damaged("test".into()))
        }));
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> anyhow::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .with_context(|| format!("cannot start the thread {name}"))
}
