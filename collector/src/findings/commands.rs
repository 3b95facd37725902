//! What the committer is asked to do, and the queue in which it waits.

use std::collections::VecDeque;

use bytes::Bytes;
use procwarden_common::clock::UnixMillis;
use procwarden_common::id::HostId;
use tokio::sync::{mpsc, oneshot};

use super::incoming::Incoming;
use super::segment_facts::SegmentFacts;
use super::{FindingsError, REQUESTS_MAX};
use crate::journal::Position;

/// What the committer is asked to do.
pub(super) enum Command {
    /// Record what a host reported.
    Record(Request),
    /// Drop the oldest segment and the findings whose newest report it holds;
    /// says how many.
    DropOldest {
        segment: SegmentFacts,
        end: Position,
        reply: oneshot::Sender<Result<u64, FindingsError>>,
    },
    /// Do what was asked so far, then end.
    Close,
}

/// What a host reported.
pub(super) struct Request {
    pub(super) host_id: HostId,
    pub(super) host_name: Bytes,
    pub(super) received_at: UnixMillis,
    pub(super) changes: Vec<Incoming>,
    pub(super) reply: oneshot::Sender<Result<(), FindingsError>>,
}

/// The segment to drop, its end, and who waits for it.
type Drop = (
    SegmentFacts,
    Position,
    oneshot::Sender<Result<u64, FindingsError>>,
);

/// Commands in the order in which they came.
pub(super) struct Commands {
    receiver: mpsc::Receiver<Command>,
    /// Looked at already, while the committer waited for room; bounded.
    waiting: VecDeque<Command>,
}

impl Commands {
    pub(super) fn new(receiver: mpsc::Receiver<Command>) -> Self {
        Self {
            receiver,
            waiting: VecDeque::new(),
        }
    }

    /// The next command, when there is one; nothing when there will be none.
    pub(super) fn next(&mut self) -> Option<Command> {
        let waiting = self.waiting.pop_front();
        waiting.or_else(|| self.receiver.blocking_recv())
    }

    /// The next command, if there is one.
    pub(super) fn next_waiting(&mut self) -> Option<Command> {
        let waiting = self.waiting.pop_front();
        waiting.or_else(|| self.receiver.try_recv().ok())
    }

    /// The next command that drops a segment, ahead of what came before it.
    pub(super) fn next_drop(&mut self) -> Option<Drop> {
        while self.waiting.len() < REQUESTS_MAX {
            match self.receiver.try_recv().ok()? {
                Command::DropOldest {
                    segment,
                    end,
                    reply,
                } => return Some((segment, end, reply)),
                other @ (Command::Record(_) | Command::Close) => self.waiting.push_back(other),
            }
        }
        None
    }

    /// Takes no more.
    pub(super) fn close(&mut self) {
        self.receiver.close();
    }
}
