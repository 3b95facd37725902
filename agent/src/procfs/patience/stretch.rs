//! Questions that a thread works through one after the other, and that
//! somebody watches.
//!
//! Promises: a question that took longer than the limit is the one behind
//! those that were answered; whoever left a stretch can go on with the rest,
//! for the thread, should it ever come back, begins with none of it.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Some questions, of which one is worked on.
pub(super) struct Stretch<Q, T>(Mutex<Inner<Q, T>>);

struct Inner<Q, T> {
    left: std::vec::IntoIter<Q>,
    given: Vec<T>,
    /// When the question that is worked on was begun.
    since: Instant,
}

impl<Q, T> Stretch<Q, T> {
    pub(super) fn new(questions: Vec<Q>) -> Self {
        Self(Mutex::new(Inner {
            given: Vec::with_capacity(questions.len()),
            left: questions.into_iter(),
            since: Instant::now(),
        }))
    }

    /// Works until no question is left.
    pub(super) fn go(&self, job: &mut impl FnMut(Q) -> T) {
        let mut next = self.next(None);
        while let Some(question) = next {
            // Nothing is locked here: this is what may last forever.
            let given = job(question);
            next = self.next(Some(given));
        }
    }

    /// Waits for the end, which comes through `ended`, as long as every single
    /// question takes no longer than `limit`. What was answered comes back,
    /// with that end or with why there is none: one took longer, or the thread
    /// ended. It gets no further question then.
    pub(super) fn wait<E: PartialEq>(
        &self,
        ended: &Receiver<E>,
        limit: Duration,
    ) -> (Vec<T>, Result<E, RecvTimeoutError>) {
        loop {
            let rest = limit.saturating_sub(self.lock().since.elapsed());
            let end = ended.recv_timeout(rest);
            let mut inner = self.lock();
            // It may have got on just now.
            if end != Err(RecvTimeoutError::Timeout) || inner.since.elapsed() >= limit {
                inner.left = Vec::new().into_iter();
                return (std::mem::take(&mut inner.given), end);
            }
        }
    }

    fn next(&self, given: Option<T>) -> Option<Q> {
        let mut inner = self.lock();
        inner.given.extend(given);
        inner.since = Instant::now();
        inner.left.next()
    }

    fn lock(&self) -> MutexGuard<'_, Inner<Q, T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
