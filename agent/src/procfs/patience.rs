//! Reads that another account can make last forever, asked for with patience
//! that ends.
//!
//! The arguments, the environment and the map of a process are read under a
//! lock of its memory, and a process can have a thread of its own hold that
//! for good: it waits for a page of a file system that never answers (FUSE).
//! The file that it runs can lie on such a one, too. So these reads happen on
//! a thread of their own, and whoever asks waits for it briefly. A thread
//! that hangs is left alone, and another takes its place.
//!
//! The way to that thread and back costs more than most questions, so many
//! processes can be asked about at once (stretch.rs). The limit is for each of
//! them: whoever waits sees how far the thread has got.
//!
//! Promises: an answer comes within the limit, or none; a process that hangs
//! takes nobody else's answer away, and those behind it are asked about on
//! another thread; a process that hung
//! is not asked again while its thread hangs nor for a while after that, and
//! neither is an account, or everybody in user namespaces together (one
//! account has many uids there), of which several hung (hangs.rs); the account
//! answers that had the process before it was asked. Threads that
//! hang are limited. An account whose answers are slow, in sum, is not asked
//! either, and all accounts together have a bound (waited.rs).
//! What is not asked is said as a note. Never decides what an answer
//! that is missing means.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use procwarden_common::process::ProcessKey;

pub(crate) use hangs::Hung;
use hangs::{HANGS_MAX, Hangs};
use stretch::{Stretch, Worked};
use waited::Waited;

mod hangs;
mod stretch;
mod waited;

/// Far longer than the kernel takes on a busy machine.
const WAIT: Duration = Duration::from_secs(5);
/// A file is read from a slow disk.
const CONTENT_WAIT: Duration = Duration::from_secs(30);
/// So long a hang is held against its process and account.
const HANG_KEPT: Duration = Duration::from_secs(600);
/// Processes that the note names.
const NAMED_MAX: usize = 3;

/// What is asked for: what hangs for one need not hang for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// Something under the lock of its memory.
    Memory,
    /// What file it runs.
    File,
    /// What is in that file.
    Content,
}

impl What {
    const ALL: [Self; 3] = [Self::Memory, Self::File, Self::Content];
}

/// Whose process it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// An account of this host.
    Account(u32),
    /// Anybody in another user namespace than the agent's.
    Namespaces,
}

/// Whom a question is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) key: ProcessKey,
    /// As it was before the question. While it is waited for, a process can run
    /// a program of root's, enter a namespace or end, and have another side
    /// answer for what it did: the account that it had then answers in any case.
    pub(super) uid: u32,
}

/// Asks, and remembers who gave no answer.
#[derive(Debug)]
pub(super) struct Patience {
    inner: Mutex<Inner>,
    wait: Duration,
    content_wait: Duration,
}

#[derive(Debug, Default)]
struct Inner {
    /// The thread that is free.
    thread: Option<Thread>,
    hangs: Hangs,
    waited: Waited,
}

/// What became of one of several questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer<T> {
    Given(T),
    /// It took too long, or is not asked.
    Withheld,
    /// Those before it took too long, or one of them did. What was known of the
    /// process is old by now, so whoever asks begins with it anew.
    Late,
}

type Job = Box<dyn FnOnce() + Send>;

/// A thread that works until nobody has jobs for it any more.
#[derive(Debug)]
struct Thread {
    jobs: SyncSender<Job>,
    life: Weak<()>,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            wait: WAIT,
            content_wait: CONTENT_WAIT,
        }
    }
}

impl Patience {
    /// Has another limit from now on.
    #[cfg(test)]
    pub(super) const fn set_wait(&mut self, wait: Duration) {
        self.wait = wait;
    }

    /// What `job` gives, within the limit; nothing when it takes longer, or
    /// when the process or its side is not asked. `side` is called for what is
    /// suspicious only.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        owner: Owner,
        what: What,
        side: impl Fn() -> Side,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let answers = self.ask_each(vec![(owner, job)], what, |_| side(), |job| job());
        match answers.into_iter().next()? {
            Answer::Given(given) => Some(given),
            Answer::Withheld | Answer::Late => None,
        }
    }

    /// What `job` gives for each of several processes, in their order, each
    /// within the limit. One that takes longer ends it, and so do many that are
    /// slow: those behind it are late.
    pub(super) fn ask_each<Q: Send + 'static, T: Send + 'static>(
        &self,
        questions: Vec<(Owner, Q)>,
        what: What,
        side: impl Fn(ProcessKey) -> Side,
        job: impl FnMut(Q) -> T + Send + 'static,
    ) -> Vec<Answer<T>> {
        let mut answers = Vec::with_capacity(questions.len());
        let (mut owners, mut asked) = (Vec::new(), Vec::new());
        for (owner, question) in questions {
            if self.is_shunned(owner, what, || side(owner.key)) {
                answers.push(Answer::Withheld);
            } else {
                answers.push(Answer::Late);
                owners.push(owner);
                asked.push(question);
            }
        }
        let given = self.work_through(&owners, asked, what, side, job);
        let places = answers
            .iter_mut()
            .filter(|answer| matches!(answer, Answer::Late));
        places.zip(given).for_each(|(place, given)| *place = given);
        answers
    }

    /// The answers of those that are asked; none for those that are late.
    fn work_through<Q: Send + 'static, T: Send + 'static>(
        &self,
        owners: &[Owner],
        questions: Vec<Q>,
        what: What,
        side: impl Fn(ProcessKey) -> Side,
        mut job: impl FnMut(Q) -> T + Send + 'static,
    ) -> Vec<Answer<T>> {
        if questions.is_empty() {
            return Vec::new();
        }
        let free = self.lock().thread.take();
        let Ok(thread) = free.map_or_else(Thread::start, Ok) else {
            // No room for a thread: better without a limit than without eyes.
            return questions.into_iter().map(job).map(Answer::Given).collect();
        };
        let stretch = Arc::new(Stretch::new(questions));
        let (end, ended) = sync_channel(1);
        let work = Arc::clone(&stretch);
        let job = Box::new(move || {
            let began_us = thread_cpu_micros();
            work.go(&mut job);
            let used_us = thread_cpu_micros().saturating_sub(began_us);
            // Nobody waits any more when one took too long.
            let _unheard = end.send(used_us);
        });
        if thread.jobs.send(job).is_err() {
            return owners.iter().map(|_| Answer::Withheld).collect();
        }
        let wait = match what {
            What::Memory | What::File => self.wait,
            What::Content => self.content_wait,
        };
        let (Worked { given, slow }, end) = stretch.wait(&ended, wait);
        for (number, took) in slow {
            if let Some(owner) = owners.get(number) {
                let side = side(owner.key);
                for side in owner.answerable(side) {
                    (self.lock().waited).add_slow(side, what, took, Instant::now());
                }
            }
        }
        let mut answers: Vec<_> = given.into_iter().map(Answer::Given).collect();
        match end {
            Ok(used_us) => {
                LENT_MICROS.set(LENT_MICROS.get().saturating_add(used_us));
                self.lock().thread = Some(thread);
            }
            Err(failed) => {
                let hung = owners.get(answers.len());
                if let (RecvTimeoutError::Timeout, Some(owner)) = (failed, hung) {
                    self.note_hang(*owner, side(owner.key), what, thread.life, wait);
                }
                answers.push(Answer::Withheld);
            }
        }
        answers
    }

    /// Who is not asked, in words.
    pub(super) fn note(&self) -> Option<String> {
        let mut inner = self.lock();
        inner.forget(Instant::now());
        let mut all: Vec<String> = inner.hangs.words().collect();
        all.extend(inner.waited.words());
        if all.is_empty() {
            return None;
        }
        let named = all.get(..NAMED_MAX).unwrap_or(&all);
        let more = match all.len().saturating_sub(named.len()) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Some(format!(
            "reading processes hung ({}{more}): these, and their accounts after {HANGS_MAX}, are judged without arguments, environment, memory map and digest for a while, and rules about arguments do not match; look for a file system that does not answer",
            named.join(", ")
        ))
    }

    /// Of which processes to tell that reading them hangs.
    pub(super) fn hung(&self) -> HashMap<ProcessKey, Hung> {
        let (mut inner, now) = (self.lock(), Instant::now());
        inner.forget(now);
        inner.hangs.told(now)
    }

    fn is_shunned(&self, owner: Owner, what: What, side: impl Fn() -> Side) -> bool {
        let mut inner = self.lock();
        inner.forget(Instant::now());
        if inner.hangs.is_empty() && !inner.waited.shuns_anybody() {
            return false;
        }
        if inner.hangs.holds(owner.key, what) {
            return true;
        }
        let mut sides = owner.answerable(side());
        sides.any(|side| inner.waited.shuns(side, what) || inner.hangs.shuns(side, what))
    }

    fn note_hang(&self, owner: Owner, side: Side, what: What, thread: Weak<()>, waited: Duration) {
        tracing::warn!(
            pid = owner.key.pid,
            ?side,
            ?what,
            "A process does not let itself be read: it is judged by what it cannot hold back."
        );
        let (mut inner, now) = (self.lock(), Instant::now());
        inner.hangs.note(owner, side, what, thread, now);
        for side in owner.answerable(side) {
            inner.waited.add_hang(side, what, waited, now);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Owner {
    /// The sides that answer for it, given whose it is now: its account, and
    /// those in user namespaces.
    fn answerable(self, now: Side) -> impl Iterator<Item = Side> {
        let apart = (now == Side::Namespaces).then_some(now);
        std::iter::once(Side::Account(self.uid)).chain(apart)
    }
}

impl Inner {
    fn forget(&mut self, now: Instant) {
        self.hangs.forget(now);
        self.waited.forget(now);
    }
}

impl Thread {
    fn start() -> std::io::Result<Self> {
        let (jobs, todo) = sync_channel::<Job>(1);
        let alive = Arc::new(());
        let life = Arc::downgrade(&alive);
        std::thread::Builder::new()
            .name("reader".to_owned())
            .spawn(move || {
                for job in todo {
                    job();
                }
                drop(alive);
            })?;
        Ok(Self { jobs, life })
    }
}

thread_local! {
    /// What others worked for this thread while it waited.
    static LENT_MICROS: Cell<u64> = const { Cell::new(0) };
}

/// Processor time that this thread has used, in microseconds, with what was
/// read for it.
pub(crate) fn thread_cpu_micros() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let micros = time
        .tv_sec
        .saturating_mul(1_000_000)
        .saturating_add(time.tv_nsec / 1000);
    u64::try_from(micros)
        .unwrap_or(0)
        .saturating_add(LENT_MICROS.get())
}

#[cfg(test)]
mod tests;
