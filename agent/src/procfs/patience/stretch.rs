//! Questions that a thread works through one after the other, and that
//! somebody watches.
//!
//! A stretch ends early when its answers are slow, so that what is behind is
//! asked about while it is still true, and it says which ones were.
//!
//! Promises: a question that took longer than the limit is the one behind
//! those that were answered; whoever left a stretch can go on with the rest,
//! for the thread, should it ever come back, begins with none of it.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// When all answers together have taken so long, no further question is begun.
const STRETCH_MAX: Duration = Duration::from_secs(1);
/// An answer that takes longer than this is a slow one: the kernel takes a
/// thousandth of it.
const SLOW: Duration = Duration::from_millis(100);
/// So is one of this length in a stretch that ends early: many that are a
/// little slow hold up a scan as well as a few that are very slow.
const SLOW_AMONG_MANY: Duration = Duration::from_millis(10);

/// What came of a stretch.
pub(super) struct Worked<T> {
    /// The answers to the first questions; there may be fewer than questions.
    pub(super) given: Vec<T>,
    /// Which of them were slow, and how long each took.
    pub(super) slow: Vec<(usize, Duration)>,
}

/// Some questions, of which one is worked on.
pub(super) struct Stretch<Q, T>(Mutex<Inner<Q, T>>);

struct Inner<Q, T> {
    left: std::vec::IntoIter<Q>,
    given: Vec<T>,
    slow: Vec<(usize, Duration)>,
    /// When the first question was begun.
    begun: Option<Instant>,
    /// When the question that is worked on was begun.
    since: Instant,
}

impl<Q, T> Inner<Q, T> {
    /// All answers together took long.
    fn is_over_time(&self) -> bool {
        self.begun
            .is_some_and(|begun| self.since.duration_since(begun) >= STRETCH_MAX)
    }
}

impl<Q, T> Stretch<Q, T> {
    pub(super) fn new(questions: Vec<Q>) -> Self {
        Self(Mutex::new(Inner {
            given: Vec::with_capacity(questions.len()),
            slow: Vec::new(),
            begun: None,
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
    ) -> (Worked<T>, Result<E, RecvTimeoutError>) {
        loop {
            let rest = limit.saturating_sub(self.lock().since.elapsed());
            let end = ended.recv_timeout(rest);
            let mut inner = self.lock();
            // It may have got on just now.
            if end != Err(RecvTimeoutError::Timeout) || inner.since.elapsed() >= limit {
                inner.left = Vec::new().into_iter();
                let mut slow = std::mem::take(&mut inner.slow);
                if !inner.is_over_time() {
                    slow.retain(|(_, took)| *took >= SLOW);
                }
                let worked = Worked {
                    given: std::mem::take(&mut inner.given),
                    slow,
                };
                return (worked, end);
            }
        }
    }

    fn next(&self, given: Option<T>) -> Option<Q> {
        let mut inner = self.lock();
        let now = Instant::now();
        inner.begun.get_or_insert(now);
        if let Some(given) = given {
            let (number, took) = (inner.given.len(), now.duration_since(inner.since));
            if took >= SLOW_AMONG_MANY {
                inner.slow.push((number, took));
            }
            inner.given.push(given);
        }
        inner.since = now;
        if inner.is_over_time() {
            inner.left = Vec::new().into_iter();
        }
        inner.left.next()
    }

    fn lock(&self) -> MutexGuard<'_, Inner<Q, T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
