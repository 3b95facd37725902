//! The committer: the one thread that writes the findings journal.
//!
//! Group commit: while an fdatasync is in flight requests gather; the next
//! write takes them all. No timer: the fdatasync is the window.
//!
//! Promises: a request is answered after everything it reported is durable,
//! be it in its own record or in the one that made it a duplicate. When the
//! journal fails nothing more is answered with success, and `failed` says why.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use procwarden_common::clock::UnixMillis;
use procwarden_common::id::{FindingId, HostId};
use procwarden_common::wire::Change;
use tokio::sync::{mpsc, oneshot, watch};

use super::FindingsError;
use super::entry::FindingEntry;
use super::index::Index;
use super::pending::Pending;
use crate::dedup::{self, Decision};
use crate::journal::{Journal, Position};

/// Changes after which a group takes no more requests.
const GROUP_CHANGES_MAX: usize = 8192;
/// Bytes of records after which a group is written.
const GROUP_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Records that the index may lag behind before new ones wait.
const LAG_RECORDS_MAX: usize = 50_000;
/// Bytes that it may lag behind: what is known of so many findings, with all
/// their evidence, is in memory until it reflects them.
const LAG_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What the committer is asked to do.
pub(super) enum Command {
    /// Record what a host reported.
    Record(Request),
    /// Drop the closed segments before a position.
    DropSegments {
        before: Position,
        reply: oneshot::Sender<Result<usize, FindingsError>>,
    },
    /// Do what was asked so far, then end.
    Close,
}

/// What a host reported.
pub(super) struct Request {
    pub(super) host_id: HostId,
    pub(super) host_name: String,
    pub(super) received_at: UnixMillis,
    pub(super) changes: Vec<(FindingId, Change)>,
    pub(super) reply: oneshot::Sender<Result<(), FindingsError>>,
}

/// What was not recorded, since the start.
#[derive(Default)]
pub(super) struct Skipped {
    pub(super) duplicates: AtomicU64,
    pub(super) unknown_ends: AtomicU64,
}

/// The writing end of the findings.
pub(super) struct Committer {
    pub(super) journal: Journal,
    pub(super) index: Arc<Index>,
    pub(super) pending: Pending,
    pub(super) skipped: Arc<Skipped>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) ends: watch::Sender<Position>,
    pub(super) failed: watch::Sender<Option<String>>,
}

/// Records to write together, and who waits for them.
#[derive(Default)]
struct Group {
    ids: Vec<FindingId>,
    payloads: Vec<Bytes>,
    bytes: usize,
    replies: Vec<oneshot::Sender<Result<(), FindingsError>>>,
}

impl Committer {
    /// The thread: ends when it is told to, when nobody can ask any more, or
    /// when the journal fails.
    pub(super) fn run(mut self) {
        while let Some(command) = self.commands.blocking_recv() {
            let (requests, other) = self.gather(command);
            if let Err(reason) = self.commit(requests).and_then(|()| self.obey(other)) {
                tracing::error!(error = %reason, "The findings journal failed: nothing is acked any more.");
                self.failed.send_replace(Some(reason));
                return;
            }
        }
    }

    /// Takes every request that waits, up to a bound, and the command that
    /// came behind them.
    fn gather(&mut self, first: Command) -> (Vec<Request>, Option<Command>) {
        let (mut requests, mut changes) = (Vec::new(), 0);
        let mut next = Some(first);
        while let Some(command) = next {
            let Command::Record(request) = command else {
                return (requests, Some(command));
            };
            changes += request.changes.len();
            requests.push(request);
            next = match changes < GROUP_CHANGES_MAX {
                true => self.commands.try_recv().ok(),
                false => None,
            };
        }
        (requests, None)
    }

    fn commit(&mut self, requests: Vec<Request>) -> Result<(), String> {
        let mut group = Group::default();
        for Request {
            host_id,
            host_name,
            received_at,
            changes,
            reply,
        } in requests
        {
            match self.plan(host_id, &host_name, received_at, changes, &mut group) {
                Ok(()) => group.replies.push(reply),
                Err(FindingsError::Stopped(reason)) => {
                    answer(reply, Err(FindingsError::Stopped(reason.clone())));
                    return Err(reason);
                }
                // Not acked: the agent sends it again.
                Err(error) => answer(reply, Err(error)),
            }
            if group.bytes >= GROUP_BYTES_MAX {
                self.write(std::mem::take(&mut group))?;
            }
        }
        self.write(group)
    }

    /// Makes the records of a group durable, then answers who waits for them.
    fn write(&mut self, group: Group) -> Result<(), String> {
        let written = match group.payloads.is_empty() {
            true => Ok(Vec::new()),
            false => self.journal.append_durably(&group.payloads),
        };
        match written {
            Ok(positions) => {
                self.wrote(&group.ids, &positions);
                group
                    .replies
                    .into_iter()
                    .for_each(|reply| answer(reply, Ok(())));
                Ok(())
            }
            Err(error) => {
                let reason = error.to_string();
                let stopped = || Err(FindingsError::Stopped(reason.clone()));
                group
                    .replies
                    .into_iter()
                    .for_each(|reply| answer(reply, stopped()));
                Err(reason)
            }
        }
    }

    /// Decides about the changes of one request and encodes what is recorded.
    fn plan(
        &mut self,
        host_id: HostId,
        host_name: &str,
        received_at: UnixMillis,
        changes: Vec<(FindingId, Change)>,
        group: &mut Group,
    ) -> Result<(), FindingsError> {
        self.make_room()?;
        for (id, change) in changes {
            let decision = match self.pending.get(id) {
                Some(known) => dedup::decide(Some(known), change, received_at),
                None => {
                    let known = self.index.ask_patiently(|store| store.known(id))?;
                    dedup::decide(known.as_ref(), change, received_at)
                }
            };
            match decision {
                Decision::Duplicate => count(&self.skipped.duplicates),
                Decision::UnknownEnd => count(&self.skipped.unknown_ends),
                Decision::Record {
                    change,
                    alertable,
                    known,
                } => {
                    let entry = FindingEntry {
                        host_id,
                        host_name: host_name.to_owned(),
                        received_at,
                        first_seen: known.first_seen,
                        ended_at: known.ended_at,
                        alertable,
                        change,
                    };
                    let payload = entry.encode();
                    group.bytes += payload.len();
                    group.payloads.push(payload);
                    group.ids.push(id);
                    self.pending.hold(id, known);
                }
            }
        }
        Ok(())
    }

    /// Back-pressure: waits while the index lags too far behind.
    fn make_room(&mut self) -> Result<(), FindingsError> {
        self.pending.trim(self.index.indexed());
        while self.lags_too_far() {
            let indexed = self.index.await_indexed_beyond(self.index.indexed())?;
            self.pending.trim(indexed);
        }
        Ok(())
    }

    fn lags_too_far(&self) -> bool {
        let bytes = self.journal.end().0.saturating_sub(self.index.indexed().0);
        self.pending.len() > LAG_RECORDS_MAX || bytes > LAG_BYTES_MAX
    }

    fn wrote(&mut self, ids: &[FindingId], positions: &[Position]) {
        for (id, position) in ids.iter().zip(positions) {
            self.pending.placed(*id, *position);
        }
        let end = self.journal.end();
        self.index.grew(end);
        self.ends.send_replace(end);
    }

    fn obey(&mut self, command: Option<Command>) -> Result<(), String> {
        match command {
            Some(Command::DropSegments { before, reply }) => {
                let dropped = self.journal.drop_segments_before(before);
                // Segments that stay cost room, nothing else: no reason to end.
                answer(
                    reply,
                    dropped.map_err(|e| FindingsError::Read(e.to_string())),
                );
            }
            Some(Command::Close) => self.commands.close(),
            Some(Command::Record(_)) | None => {}
        }
        Ok(())
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.index.stop();
    }
}

fn answer<R>(reply: oneshot::Sender<R>, with: R) {
    // Whoever asked may be gone: a stream that was cut.
    drop(reply.send(with));
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
