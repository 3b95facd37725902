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
//! account has many uids there), of which several hung. Threads that hang are
//! limited. An account whose answers are slow, in sum, is not asked either.
//! What is not asked is said as a note. Never decides what an answer
//! that is missing means.

use std::cell::Cell;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use procwarden_common::process::ProcessKey;

use stretch::{Stretch, Worked};

mod stretch;

/// Far longer than the kernel takes on a busy machine.
const WAIT: Duration = Duration::from_secs(5);
/// A file is read from a slow disk.
const CONTENT_WAIT: Duration = Duration::from_secs(30);
/// So long a hang is held against its process and account.
const HANG_KEPT: Duration = Duration::from_secs(600);
/// Hangs of different processes after which their account is not asked.
const HANGS_MAX: usize = 3;
/// Threads that may hang before nobody's processes but root's are asked; more
/// than one account can make hang. The unit's limit of tasks is the bound.
const THREADS_MAX: usize = 24;
/// Slow answers of one account may take so long together, within the time that
/// a hang is held against it: the scanner waits for each of them, and whoever
/// answers just in time would stop it as well as whoever hangs.
const SLOW_MAX: Duration = Duration::from_secs(30);
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

/// Whose process it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// An account of this host.
    Account(u32),
    /// Anybody in another user namespace than the agent's.
    Namespaces,
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
    hangs: Vec<Hang>,
    slow: Vec<Slow>,
}

#[derive(Debug)]
struct Hang {
    key: ProcessKey,
    side: Side,
    what: What,
    at: Instant,
    /// Its thread, while that lives.
    thread: Weak<()>,
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

/// How long the slow answers of one side took together.
#[derive(Debug)]
struct Slow {
    side: Side,
    what: What,
    since: Instant,
    took: Duration,
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
        key: ProcessKey,
        what: What,
        side: impl Fn() -> Side,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let answers = self.ask_each(vec![(key, job)], what, |_| side(), |job| job());
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
        questions: Vec<(ProcessKey, Q)>,
        what: What,
        side: impl Fn(ProcessKey) -> Side,
        job: impl FnMut(Q) -> T + Send + 'static,
    ) -> Vec<Answer<T>> {
        let mut answers = Vec::with_capacity(questions.len());
        let (mut keys, mut asked) = (Vec::new(), Vec::new());
        for (key, question) in questions {
            if self.is_shunned(key, what, || side(key)) {
                answers.push(Answer::Withheld);
            } else {
                answers.push(Answer::Late);
                keys.push(key);
                asked.push(question);
            }
        }
        let given = self.work_through(&keys, asked, what, side, job);
        let places = answers
            .iter_mut()
            .filter(|answer| matches!(answer, Answer::Late));
        places.zip(given).for_each(|(place, given)| *place = given);
        answers
    }

    /// The answers of those that are asked; none for those that are late.
    fn work_through<Q: Send + 'static, T: Send + 'static>(
        &self,
        keys: &[ProcessKey],
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
            return keys.iter().map(|_| Answer::Withheld).collect();
        }
        let wait = match what {
            What::Memory | What::File => self.wait,
            What::Content => self.content_wait,
        };
        let (Worked { given, slow }, end) = stretch.wait(&ended, wait);
        for (number, took) in slow {
            if let Some(key) = keys.get(number) {
                self.lock().charge(side(*key), what, took);
            }
        }
        let mut answers: Vec<_> = given.into_iter().map(Answer::Given).collect();
        match end {
            Ok(used_us) => {
                LENT_MICROS.set(LENT_MICROS.get().saturating_add(used_us));
                self.lock().thread = Some(thread);
            }
            Err(failed) => {
                let hung = keys.get(answers.len());
                if let (RecvTimeoutError::Timeout, Some(key)) = (failed, hung) {
                    self.note_hang(*key, side(*key), what, thread.life);
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
        let hung = inner.hangs.iter().map(Hang::words);
        let slow = inner.slow.iter().filter(|slow| slow.is_too_much());
        let all: Vec<String> = hung.chain(slow.map(Slow::words)).collect();
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

    fn is_shunned(&self, key: ProcessKey, what: What, side: impl Fn() -> Side) -> bool {
        let mut inner = self.lock();
        inner.forget(Instant::now());
        if inner.hangs.is_empty() && !inner.slow.iter().any(Slow::is_too_much) {
            return false;
        }
        let alike = inner.hangs.iter().filter(|hang| hang.what == what);
        if alike.clone().any(|hang| hang.key == key) {
            return true;
        }
        let side = side();
        let mut slow = inner.slow.iter().filter(|slow| slow.is_too_much());
        if slow.any(|slow| slow.side == side && slow.what == what) {
            return true;
        }
        let hanging = inner.hangs.iter().filter(|hang| hang.is_on());
        (side != Side::Account(0) && hanging.count() >= THREADS_MAX)
            || alike.filter(|hang| hang.side == side).count() >= HANGS_MAX
    }

    fn note_hang(&self, key: ProcessKey, side: Side, what: What, thread: Weak<()>) {
        tracing::warn!(
            pid = key.pid,
            ?side,
            ?what,
            "A process does not let itself be read: it is judged by what it cannot hold back."
        );
        self.lock().hangs.push(Hang {
            key,
            side,
            what,
            at: Instant::now(),
            thread,
        });
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn forget(&mut self, now: Instant) {
        self.hangs
            .retain(|hang| hang.is_on() || now.duration_since(hang.at) < HANG_KEPT);
        self.slow
            .retain(|slow| now.duration_since(slow.since) < HANG_KEPT);
    }

    /// Notes a slow answer. Root's processes hang nobody on purpose, and what
    /// else is slow is slow for all.
    fn charge(&mut self, side: Side, what: What, took: Duration) {
        if side == Side::Account(0) {
            return;
        }
        let mut slow = self.slow.iter_mut();
        if let Some(slow) = slow.find(|slow| slow.side == side && slow.what == what) {
            slow.took = slow.took.saturating_add(took);
        } else {
            let since = Instant::now();
            self.slow.push(Slow {
                side,
                what,
                since,
                took,
            });
        }
    }
}

impl Slow {
    fn words(&self) -> String {
        match self.side {
            Side::Account(uid) => format!("all of uid {uid}, which are slow"),
            Side::Namespaces => "all in user namespaces, which are slow".to_owned(),
        }
    }

    fn is_too_much(&self) -> bool {
        self.took >= SLOW_MAX
    }
}

impl Hang {
    fn words(&self) -> String {
        match self.side {
            Side::Account(uid) => format!("{} of uid {uid}", self.key.pid),
            Side::Namespaces => format!("{} in a user namespace", self.key.pid),
        }
    }

    fn is_on(&self) -> bool {
        self.thread.strong_count() > 0
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
