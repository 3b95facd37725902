//! The findings of the fleet: ingest (decode -> dedup -> journal -> ack), the
//! index that follows the journal, and the questions asked of both.
//!
//! ```text
//! record -> committer (dedup, group commit) -> journal -> indexer -> index -> list, get
//!                                                 \-> follow: alerts, watch
//! ```
//!
//! Promises: `record` returns after the fdatasync of everything it was given,
//! and every change is in the journal once, whatever is sent twice, over
//! restarts too. The index can be lost at any time: answers come back from the
//! journal. Two threads, `committer` and `indexer`, own the writing ends.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::StoredFinding;
use procwarden_common::id::{FindingId, HostId};
use procwarden_common::wire::Change;
use tokio::sync::{mpsc, oneshot, watch};

use crate::journal::{Journal, JournalReader, Position};

mod committer;
mod entry;
mod filter;
mod follow;
mod index;
mod indexer;
mod maintain;
mod pending;
mod replay;
mod retention;
#[cfg(test)]
mod tests;

use committer::{Command, Committer, Request, Skipped};
pub(crate) use entry::{FindingEntry, finding_id, fold};
pub(crate) use filter::FindingFilter;
use index::Index;
use indexer::Indexer;
pub(crate) use maintain::{CheckReport, IndexReport, check, rebuild};

/// Requests that wait for the committer; more wait at their senders.
const REQUESTS_MAX: usize = 256;
/// Ids that a prefix may name before it is useless.
const PREFIX_IDS_MAX: usize = 16;
/// A question waits this long for the index to reflect what is recorded.
const SETTLE_TIME: Duration = Duration::from_millis(500);

/// Handle on the findings; cheap to clone.
#[derive(Clone)]
pub(crate) struct Findings {
    inner: Arc<Inner>,
}

struct Inner {
    index: Arc<Index>,
    journal: JournalReader,
    commands: mpsc::Sender<Command>,
    ends: watch::Receiver<Position>,
    failed: watch::Receiver<Option<String>>,
    skipped: Arc<Skipped>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    oldest: Mutex<retention::Oldest>,
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

/// One page of a listing, newest first.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FindingPage {
    pub(crate) findings: Vec<StoredFinding>,
    pub(crate) next_cursor: Option<Vec<u8>>,
}

/// Something that was recorded, for those who follow along (alerts, watch).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recorded {
    /// Position of the record in the findings journal, and the one behind it.
    pub(crate) position: Position,
    pub(crate) next: Position,
    pub(crate) host_id: HostId,
    pub(crate) host_name: String,
    pub(crate) received_at: UnixMillis,
    /// A report with every indicator of its finding so far, or an end.
    pub(crate) change: Change,
    /// A new finding, or one whose severity rose: worth an alert.
    pub(crate) alertable: bool,
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
}

impl Findings {
    /// Opens journal and index below `data_dir` (`findings/`, `index/`),
    /// catches the index up or rebuilds it, starts committer and indexer.
    pub(crate) fn open(data_dir: &Path) -> anyhow::Result<Self> {
        Self::start(data_dir, Journal::open(&data_dir.join("findings"))?.0)
    }

    fn start(data_dir: &Path, journal: Journal) -> anyhow::Result<Self> {
        let reader = journal.reader();
        let index = Index::open(data_dir, reader.clone())
            .with_context(|| format!("cannot open the index in {}", data_dir.display()))?;
        let index = Arc::new(index);
        let (commands, requests) = mpsc::channel(REQUESTS_MAX);
        let (ends_sender, ends) = watch::channel(reader.end());
        let (failed_sender, failed) = watch::channel(None);
        let skipped = Arc::new(Skipped::default());
        let committer = Committer {
            journal,
            index: Arc::clone(&index),
            pending: pending::Pending::default(),
            skipped: Arc::clone(&skipped),
            commands: requests,
            ends: ends_sender,
            failed: failed_sender,
        };
        let indexer = Indexer::new(Arc::clone(&index), reader.clone());
        let threads = Mutex::new(vec![
            spawn("committer", move || committer.run())?,
            spawn("indexer", move || indexer.run())?,
        ]);
        let oldest = Mutex::default();
        let journal = reader;
        let inner = Inner {
            index,
            journal,
            commands,
            ends,
            failed,
            skipped,
            threads,
            oldest,
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
        changes: Vec<Change>,
    ) -> Result<(), FindingsError> {
        let with_id = |change| (finding_id(host_id, &change), change);
        let changes = changes.into_iter().map(with_id).collect();
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
        if cursor.is_none() {
            self.inner.index.settle(SETTLE_TIME);
        }
        self.inner
            .index
            .ask(|store| store.list(filter, cursor, limit))
    }

    /// With files, maps and ancestry, read from the journal.
    pub(crate) fn get(&self, id: FindingId) -> Result<Option<StoredFinding>, FindingsError> {
        self.inner.index.settle(SETTLE_TIME);
        let stored = self.inner.index.ask(|store| store.finding(id))?;
        Ok(stored.map(|stored| self.with_evidence(stored)))
    }

    fn with_evidence(&self, mut stored: StoredFinding) -> StoredFinding {
        let position = Position(stored.evidence_position);
        let payload = self
            .inner
            .journal
            .read_at(position)
            .map_err(|e| e.to_string());
        match payload.and_then(FindingEntry::decode) {
            Ok(FindingEntry {
                host_id,
                change: Change::Reported(finding),
                ..
            }) if host_id == stored.host_id && finding.subject == stored.finding.subject => {
                stored.finding = *finding;
            }
            Ok(_) => tracing::error!(finding = %stored.id, "The journal holds other evidence."),
            Err(error) => tracing::warn!(
                finding = %stored.id,
                %error,
                "The evidence of a finding cannot be read: showing what the index holds.",
            ),
        }
        stored
    }

    /// Ids that begin with these hexadecimal digits (bounded).
    pub(crate) fn find_prefix(&self, hex: &str) -> Result<Vec<FindingId>, FindingsError> {
        self.inner.index.settle(SETTLE_TIME);
        self.inner
            .index
            .ask(|store| store.find_prefix(hex, PREFIX_IDS_MAX))
    }

    /// Follows the journal from a position: what was recorded since, then what
    /// comes, without a gap. Ends when the findings are closed. Call it within
    /// a tokio runtime.
    pub(crate) fn follow(&self, from: Position) -> mpsc::Receiver<Recorded> {
        let (sender, receiver) = mpsc::channel(follow::CHANNEL_RECORDS);
        let (journal, ends) = (self.inner.journal.clone(), self.inner.ends.clone());
        let at = follow::beginning(&journal, from);
        tokio::spawn(follow::run(journal, at, ends, sender));
        receiver
    }

    /// End of the durable journal.
    pub(crate) fn end(&self) -> Position {
        self.inner.journal.end()
    }

    /// Whether the index reflects every record before a position.
    pub(crate) fn has_indexed(&self, position: Position) -> bool {
        self.inner.index.indexed() >= position
    }

    /// Open findings of a host; 0 while the index cannot say.
    pub(crate) fn open_count(&self, host: HostId) -> u64 {
        self.inner
            .index
            .ask(|store| store.open_count(host))
            .unwrap_or(0)
    }

    /// Figures for `status`.
    pub(crate) fn figures(&self) -> FindingsFigures {
        let counts = self
            .inner
            .index
            .ask(|store| Ok(store.counts()))
            .unwrap_or_default();
        let lag = self.end().0.saturating_sub(self.inner.index.indexed().0);
        FindingsFigures {
            findings: counts.findings,
            findings_open: counts.open,
            journal_bytes: self.inner.journal.bytes(),
            index_lag_bytes: lag,
            journal_damaged: self.inner.journal.damaged_records(),
            duplicates: self.inner.skipped.duplicates.load(Ordering::Relaxed),
            unknown_ends: self.inner.skipped.unknown_ends.load(Ordering::Relaxed),
        }
    }

    /// Drops the closed segments of the journal whose newest record is older
    /// than `cutoff`, and with them the findings that have their newest full
    /// report there, open ones too. Returns how many findings went.
    pub(crate) async fn drop_older_than(&self, cutoff: UnixMillis) -> Result<u64, FindingsError> {
        let mut dropped = 0;
        loop {
            let findings = self.clone();
            let forget = tokio::task::spawn_blocking(move || findings.forget_oldest(cutoff));
            let forgotten = forget
                .await
                .map_err(|e| FindingsError::Read(e.to_string()))??;
            let Some((count, before)) = forgotten else {
                return Ok(dropped);
            };
            self.ask_committer(|reply| Command::DropSegments { before, reply })
                .await?;
            dropped += count;
        }
    }

    /// Takes the findings of the oldest segment out of the index, if all of it
    /// is too old: how many, and up to where the journal may go.
    fn forget_oldest(&self, cutoff: UnixMillis) -> Result<Option<(u64, Position)>, FindingsError> {
        let mut oldest = self
            .inner
            .oldest
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let examined = retention::examine(&self.inner.journal, cutoff, &mut oldest);
        let Some(old) = examined.map_err(|e| FindingsError::Read(e.to_string()))? else {
            return Ok(None);
        };
        // Newer reports of the same findings must be reflected first: they keep
        // their finding.
        let last = Position(self.end().0.saturating_sub(1));
        self.inner.index.await_indexed_beyond(last)?;
        let forget = |ids: &[FindingId]| self.inner.index.ask(|store| store.forget(ids, old.end));
        let mut count = 0;
        for ids in old.ids.chunks(retention::FORGET_AT_ONCE) {
            count += forget(ids)?;
        }
        self.inner.index.ask(|store| store.flush())?;
        Ok(Some((count, old.end)))
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

    #[cfg(test)]
    fn damage_index_for_test(&self) {
        drop(
            self.inner
                .index
                .ask(|_| Err::<(), _>(crate::store::StoreError::Damaged("test".into()))),
        );
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> anyhow::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .with_context(|| format!("cannot start the thread {name}"))
}
