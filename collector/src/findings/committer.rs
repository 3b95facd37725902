//! The committer: the one thread that writes the findings journal.
//!
//! Group commit: while an fdatasync is in flight requests gather; the next
//! write takes them all. No timer: the fdatasync is the window.
//!
//! Promises: a request is answered after everything it reported is durable,
//! be it in its own record or in the one that made it a duplicate. When the
//! journal fails nothing more is answered with success, and `failed` says why.
//! While the disk is full, requests wait here, in the queue and at their
//! senders; nothing is dropped, and they go on by themselves.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use procwarden_common::clock::UnixMillis;
use procwarden_common::id::{FindingId, HostId};
use tokio::sync::{oneshot, watch};

mod plan;

use plan::Plan;

use super::FindingsError;
use super::commands::{Command, Commands, Request};
use super::compact::RecordFacts;
use super::entry::Head;
use super::facts::Fact;
use super::history::Past;
use super::incoming::{Incoming, Said};
use super::index::Index;
use super::recent::Record;
use super::segment_facts::SegmentFacts;
use super::sets::{Set, SetId};
use crate::journal::{Journal, Position, SegmentSpan, append_patiently};

/// Changes after which a group takes no more requests.
const GROUP_CHANGES_MAX: usize = 8192;
/// Bytes of records after which a group is written.
const GROUP_BYTES_MAX: usize = 8 * 1024 * 1024;
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
    pub(super) past: Past,
    pub(super) skipped: Arc<Skipped>,
    pub(super) commands: Commands,
    pub(super) held_back: Arc<Mutex<Option<String>>>,
    pub(super) ends: watch::Sender<Position>,
    pub(super) failed: watch::Sender<Option<String>>,
}

/// Records to write together, and who waits for them.
#[derive(Default)]
struct Group {
    records: Vec<RecordFacts>,
    payloads: Vec<Bytes>,
    bytes: usize,
    /// What the records will say once they are written.
    held: HashMap<FindingId, Held>,
    replies: Vec<oneshot::Sender<Result<(), FindingsError>>>,
}

/// What of a group is told to everyone once it is durable.
struct Written {
    records: Vec<RecordFacts>,
    payloads: Vec<Bytes>,
    held: HashMap<FindingId, Held>,
}

/// What is known of a finding with a record in a group.
#[derive(Clone, Copy)]
struct Held {
    set: SetId,
    ended: bool,
}

impl Committer {
    /// The thread: ends when it is told to, when nobody can ask any more, or
    /// when the journal fails.
    pub(super) fn run(mut self) {
        while let Some(command) = self.commands.next() {
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
                true => self.commands.next_waiting(),
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
            // Who gets no answer is told by `failed`.
            self.plan(host_id, &host_name, received_at, changes, &mut group)?;
            group.replies.push(reply);
            if group.bytes >= GROUP_BYTES_MAX {
                self.write(std::mem::take(&mut group))?;
            }
        }
        self.write(group)
    }

    /// Makes the records of a group durable, then answers who waits for them.
    fn write(&mut self, group: Group) -> Result<(), String> {
        let Group {
            records,
            payloads,
            held,
            replies,
            ..
        } = group;
        let written = match payloads.is_empty() {
            true => Ok(Vec::new()),
            false => self.append(&payloads),
        };
        match written {
            Ok(positions) => {
                let group = Written {
                    records,
                    payloads,
                    held,
                };
                self.wrote(group, &positions);
                replies.into_iter().for_each(|reply| answer(reply, Ok(())));
                Ok(())
            }
            Err(error) => {
                let reason = error.to_string();
                let stopped = || Err(FindingsError::Stopped(reason.clone()));
                replies
                    .into_iter()
                    .for_each(|reply| answer(reply, stopped()));
                Err(reason)
            }
        }
    }

    /// Appends once there is room. What else is asked for meanwhile waits, but
    /// for what makes room.
    fn append(&mut self, payloads: &[Bytes]) -> std::io::Result<Vec<Position>> {
        let Self {
            journal,
            commands,
            past,
            index,
            held_back,
            ..
        } = self;
        let appended = append_patiently(journal, payloads, |journal, error| {
            hold_back(held_back, Some(error.to_string()));
            while let Some((segment, end, reply)) = commands.next_drop() {
                answer(reply, drop_oldest(journal, past, &segment, end));
            }
            !index.is_closing()
        });
        hold_back(held_back, None);
        appended
    }

    /// Decides about the changes of one request and encodes what is recorded.
    fn plan(
        &mut self,
        host_id: HostId,
        host_name: &Bytes,
        received_at: UnixMillis,
        changes: Vec<Incoming>,
        group: &mut Group,
    ) -> Result<(), String> {
        for incoming in changes {
            if self.outgrows(&incoming, group) {
                // What it grows from has to have a position.
                self.write(std::mem::take(group))?;
            }
            match self.decide(incoming, received_at, group) {
                Plan::Duplicate => count(&self.skipped.duplicates),
                Plan::UnknownEnd => count(&self.skipped.unknown_ends),
                Plan::Record {
                    incoming,
                    fact,
                    alertable,
                    first_seen,
                    ended_at,
                } => {
                    let head = Head {
                        host_id,
                        host_name: host_name.clone(),
                        received_at,
                        first_seen,
                        ended_at,
                        alertable,
                        previous: fact.map(|fact| fact.position),
                    };
                    self.hold(group, head, &incoming, fact);
                }
            }
        }
        Ok(())
    }

    fn hold(&self, group: &mut Group, head: Head, incoming: &Incoming, fact: Option<Fact>) {
        let id = incoming.id;
        let (shown, set) = match &incoming.said {
            Said::Reported { set, .. } => (Some(Set::clone(set)), self.past.facts.intern(set)),
            Said::Ended { .. } => {
                let held = group.held.get(&id).map(|held| held.set);
                let set = held.or(fact.map(|fact| fact.set));
                (None, set.unwrap_or(SetId::UNKNOWN))
            }
        };
        let ended_at = head.ended_at;
        group.records.push(RecordFacts {
            id,
            host_id: head.host_id,
            received_at: head.received_at,
            alertable: head.alertable,
            set: shown,
            ended_at,
        });
        let payload = head.encode(incoming);
        group.bytes += payload.len();
        group.payloads.push(payload);
        let ended = ended_at.is_some();
        group.held.insert(id, Held { set, ended });
    }

    /// Tells everyone what is durable now.
    fn wrote(&mut self, group: Written, positions: &[Position]) {
        let end = self.journal.end();
        let nexts = positions.iter().skip(1).copied().chain([end]);
        let mut recorded = Vec::with_capacity(group.payloads.len());
        let mut closed = self.closed_meanwhile();
        let mut active = self.past.active();
        let written = group.records.into_iter().zip(group.payloads);
        for (((record, payload), position), next) in written.zip(positions).zip(nexts) {
            let position = *position;
            self.close_segments(&mut active, &mut closed, position);
            active.add(position, &record);
            self.learn(&record, position, &group.held);
            recorded.push(Record {
                position,
                next,
                payload,
                facts: Some(record),
            });
        }
        drop(active);
        self.past.recent.push(recorded);
        self.index.grew(end);
        self.ends.send_replace(end);
    }

    fn learn(&self, record: &RecordFacts, position: Position, held: &HashMap<FindingId, Held>) {
        let facts = &self.past.facts;
        if record.set.is_none() {
            return facts.ended(record.id, record.host_id);
        }
        let fact = Fact {
            position,
            set: held.get(&record.id).map_or(SetId::UNKNOWN, |held| held.set),
            ended: record.ended_at.is_some(),
        };
        facts.reported(record.id, record.host_id, fact);
    }

    /// Segments that were closed since the facts of the active one began.
    fn closed_meanwhile(&self) -> VecDeque<SegmentSpan> {
        let first = self.past.active().first;
        if self.past.journal.active_first() == first {
            return VecDeque::new();
        }
        let closed = self.past.journal.closed_segments();
        closed
            .into_iter()
            .filter(|span| span.first >= first)
            .collect()
    }

    /// Keeps the facts of the segments that end before a record.
    fn close_segments(
        &self,
        active: &mut SegmentFacts,
        closed: &mut VecDeque<SegmentSpan>,
        position: Position,
    ) {
        while let Some(span) = closed.front().copied().filter(|span| span.end <= position) {
            closed.pop_front();
            self.past.files.write(active, span);
            let next = closed.front().map(|next| next.first);
            *active = SegmentFacts::new(next.unwrap_or_else(|| self.past.journal.active_first()));
        }
    }

    fn obey(&mut self, command: Option<Command>) -> Result<(), String> {
        match command {
            Some(Command::DropOldest {
                segment,
                end,
                reply,
            }) => {
                answer(
                    reply,
                    drop_oldest(&mut self.journal, &self.past, &segment, end),
                );
            }
            Some(Command::Close) => self.commands.close(),
            Some(Command::Record(_)) | None => {}
        }
        Ok(())
    }
}

/// A segment that stays costs room, nothing else: no reason to end.
fn drop_oldest(
    journal: &mut Journal,
    past: &Past,
    segment: &SegmentFacts,
    end: Position,
) -> Result<u64, FindingsError> {
    let dropped = journal.drop_segments_before(end);
    dropped.map_err(|e| FindingsError::Read(e.to_string()))?;
    past.files.remove_before(end);
    let forgets = |(id, host): &(FindingId, HostId)| past.facts.forget(*id, *host, end);
    Ok(segment.reported().filter(forgets).count() as u64)
}

/// Notes why findings wait, or that they wait no more.
fn hold_back(held_back: &Mutex<Option<String>>, reason: Option<String>) {
    let mut held_back = held_back.lock().unwrap_or_else(PoisonError::into_inner);
    match (&*held_back, &reason) {
        (None, Some(reason)) => tracing::error!(
            %reason,
            "Findings are held back: nothing is acked until there is room. Agents keep what they have.",
        ),
        (Some(_), None) => tracing::info!("There is room again: findings are taken in."),
        (None, None) | (Some(_), Some(_)) => {}
    }
    *held_back = reason;
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
