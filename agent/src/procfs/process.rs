//! Reads one process: stat, owner, cmdline, exe, and no more; and glances at
//! one that is known already.
//!
//! Promises: a process that can be listed and has a start time is returned,
//! whatever else of it cannot be read; each such failure is counted. What a
//! process can make last forever is asked for with patience (patience.rs), of
//! many processes at once.
//! Kernel threads cost one file, everything else three.

use std::sync::Arc;

use procwarden_common::clock::UnixMillis;
use procwarden_common::limits::{CMDLINE_BYTES_MAX, COMM_BYTES_MAX};
use procwarden_common::process::{Cmdline, Exe, Process, ProcessKey, Reading};

use super::exe::{self, Lookups, OwnView};
use super::parse::{Layout, Stat};
use super::patience::{Answer, Owner};
use super::{Failed, Glance, Glancer, Place, ProcRoot, ProcessDir, What};

/// System calls that a kernel thread saves: `cmdline` and the link of `exe`.
const CALLS_SKIPPED_PER_KERNEL_THREAD: u64 = 4;
/// What a glance saves against reading the whole process: eleven calls (clock,
/// directory and its owner, two files, a link) become five.
const CALLS_SKIPPED_PER_GLANCE: u64 = 6;
/// What a process saves that did nothing: two calls are left.
const CALLS_SKIPPED_PER_STILL: u64 = 9;

/// Command lines and paths of this length are always kept whole.
const TEXT_SHORT_BYTES: usize = 512;
/// Bytes of all command lines and paths of one scan that are kept whole. An
/// account may run thousands of processes with the longest that there are.
const TEXTS_BYTES_MAX: i64 = 8 * 1024 * 1024;

/// Services give up root within seconds of their start.
const SETTLED_SECS: u64 = 60;

/// What went wrong and what was saved during one scan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ReadCounts {
    /// Reads that failed although the process was there.
    pub(crate) errors: u64,
    /// System calls that were not needed.
    pub(crate) skipped: u64,
    /// Command lines and paths that are cut because all together are too long.
    pub(crate) texts_cut: u64,
    /// Directories in /proc that something else was mounted over.
    pub(crate) covered: u64,
}

/// The moment of a scan, on both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// Milliseconds since boot.
    pub(crate) uptime_millis: u64,
    /// The wall clock's time of the boot.
    pub(crate) booted_at: UnixMillis,
}

/// Reads processes, and keeps what every read needs.
pub(crate) struct ProcessReader {
    own: Arc<OwnView>,
    glancer: Glancer,
    buffer: Vec<u8>,
    page_bytes: u64,
    /// Below zero where short texts alone are more: what is kept of them in any
    /// case is not free for the long ones.
    text_bytes_left: i64,
    /// Of this scan.
    pub(crate) counts: ReadCounts,
}

/// A process, the directory through which more of it can be read, and what
/// tells whether it has to be read again.
pub(crate) struct Opened<D = ProcessDir> {
    pub(crate) process: Process,
    pub(crate) dir: D,
    /// By this it is seen that it runs another program.
    pub(crate) layout: Layout,
    /// Its threads, the first included.
    pub(crate) threads: u64,
    /// Of its directory; nothing in a copy of /proc.
    pub(crate) inode: Option<u64>,
    /// It was not asked for its arguments, and is to be as soon as it may be.
    pub(crate) is_withheld: bool,
}

impl Opened {
    /// Whether there is more to read: what it runs.
    pub(crate) fn has_program(&self) -> bool {
        !self.process.kernel_thread && !is_ending(&self.process)
    }
}

impl<D> Opened<D> {
    /// The same with another handle, and the one that it had.
    fn swap<E>(self, dir: E) -> (Opened<E>, D) {
        let swapped = Opened {
            process: self.process,
            dir,
            layout: self.layout,
            threads: self.threads,
            inode: self.inode,
            is_withheld: self.is_withheld,
        };
        (swapped, self.dir)
    }
}

impl ProcessReader {
    pub(crate) fn new() -> Self {
        Self {
            own: Arc::new(OwnView::look()),
            glancer: Glancer::default(),
            buffer: Vec::new(),
            page_bytes: rustix::param::page_size() as u64,
            text_bytes_left: TEXTS_BYTES_MAX,
            counts: ReadCounts::default(),
        }
    }

    /// Counts and bounds begin anew; `text_bytes` are kept from before.
    pub(crate) fn begin_scan(&mut self, text_bytes: usize) {
        self.counts = ReadCounts::default();
        self.text_bytes_left = TEXTS_BYTES_MAX.saturating_sub(signed(text_bytes));
    }

    /// What was kept of a process is about to be read again.
    pub(crate) fn give_back(&mut self, process: &Process) {
        let kept = signed(kept_bytes(process));
        self.text_bytes_left = self.text_bytes_left.saturating_add(kept);
    }

    /// Glances at a process that is known.
    ///
    /// # Errors
    /// When it is gone or cannot be read: reading it whole tells which.
    pub(crate) fn glance(&mut self, root: &ProcRoot, known: &Process) -> Result<Glance, Failed> {
        self.glancer
            .glance(root, known.key.pid, expected_owner(known))
    }

    /// Takes over what a glance shows; the rest stays as it was read.
    pub(crate) fn update(
        &mut self,
        process: &mut Process,
        stat: &Stat,
        root: &ProcRoot,
        moment: Moment,
        user: &mut dyn FnMut(u32) -> Arc<[u8]>,
    ) {
        self.counts.skipped += CALLS_SKIPPED_PER_GLANCE;
        process.user = user(process.uid);
        take_stat(process, stat, self.page_bytes);
        take_times(process, root, moment);
    }

    /// Brings up to date what passes by itself of a process that did nothing.
    pub(crate) fn pass_over(
        &mut self,
        process: &mut Process,
        root: &ProcRoot,
        moment: Moment,
        user: &mut dyn FnMut(u32) -> Arc<[u8]>,
    ) {
        self.counts.skipped += CALLS_SKIPPED_PER_STILL;
        process.user = user(process.uid);
        take_times(process, root, moment);
    }

    /// Reads of one process what it cannot hold up. What it runs is read by
    /// [`ProcessReader::read_programs`], if it runs a program.
    ///
    /// # Errors
    /// When its stat, and with it its start time, cannot be read.
    pub(crate) fn open(
        &mut self,
        root: &ProcRoot,
        dir: ProcessDir,
        moment: Moment,
        user: &mut dyn FnMut(u32) -> Arc<[u8]>,
    ) -> Result<Opened, Failed> {
        let (place, stat) = self.read_stat(root, &dir)?;
        let (dir, stat, uid) = living(root, dir, stat, place.map(|place| place.uid));
        let mut process = self.blank(root, dir.pid(), &stat, moment);
        if process.kernel_thread {
            self.counts.skipped += CALLS_SKIPPED_PER_KERNEL_THREAD;
            process.user = user(0);
        } else {
            match uid {
                Some(uid) => process.uid = uid,
                None => self.read_status(&mut process, &dir),
            }
            process.user = user(process.uid);
        }
        Ok(Opened {
            process,
            dir,
            layout: stat.layout,
            threads: stat.threads,
            inode: place.map(|place| place.inode),
            is_withheld: false,
        })
    }

    /// What processes run, and what they say about that, in their order;
    /// nothing of one that has to be opened anew, because another one before it
    /// took so long. The first is never that.
    pub(crate) fn read_programs(
        &mut self,
        root: &ProcRoot,
        opened: Vec<Opened>,
    ) -> Vec<Option<Result<Opened, Failed>>> {
        let mut rest = Vec::with_capacity(opened.len());
        let mut questions = Vec::with_capacity(opened.len());
        for opened in opened {
            let (without_dir, dir) = opened.swap(());
            let owner = Owner {
                key: without_dir.process.key,
                uid: without_dir.process.uid,
            };
            questions.push((owner, dir));
            rest.push(without_dir);
        }
        let own = Arc::clone(&self.own);
        let (mut buffer, mut lookups) = (Vec::new(), Lookups::default());
        let answers = root.ask_each(questions, What::Memory, move |dir| {
            Program::read(dir, &own, &mut buffer, &mut lookups)
        });
        let both = rest.into_iter().zip(answers);
        both.map(|(opened, answer)| self.take_answer(root, opened, answer))
            .collect()
    }

    fn take_answer(
        &mut self,
        root: &ProcRoot,
        mut opened: Opened<()>,
        answer: Answer<Program>,
    ) -> Option<Result<Opened, Failed>> {
        let process = &mut opened.process;
        let program = match answer {
            Answer::Given(program) => program,
            Answer::Withheld => {
                opened.is_withheld = true;
                process.cmdline = self.missing(Failed::Refused);
                let dir = self.read_file(root, process);
                return Some(dir.map(|dir| opened.swap(dir).0));
            }
            Answer::Late => return None,
        };
        process.cmdline = match program.cmdline {
            Ok((raw, truncated)) => Reading::Value(self.bounded_cmdline(raw, truncated)),
            Err(failed) => self.missing(failed),
        };
        process.exe = self.reading_of_exe(program.exe);
        if process.exe == Reading::Absent {
            recheck(process, &program.dir);
        }
        Some(Ok(opened.swap(program.dir).0))
    }

    /// What it runs, where it does not let its arguments be read.
    fn read_file(&mut self, root: &ProcRoot, process: &mut Process) -> Result<ProcessDir, Failed> {
        let (dir, own) = (root.reopen(process.key)?, Arc::clone(&self.own));
        let read = root.ask(process.key, What::File, move || exe::read(&dir, &own));
        let dir = root.reopen(process.key)?;
        process.exe = self.reading_of_exe(read.unwrap_or_else(|| exe::read_link_only(&dir)));
        Ok(dir)
    }

    /// Whom the directory shows, where /proc tells it, and the stat of this very
    /// process. With another one's directory or a file system mounted over its
    /// own, a process hides from every other program.
    fn read_stat(
        &mut self,
        root: &ProcRoot,
        dir: &ProcessDir,
    ) -> Result<(Option<Place>, Stat), Failed> {
        // Asked before stat is read: what can be read then was alive here.
        let (is_own, place) = dir.owner(root)?;
        let stat = match dir.stat() {
            Ok(stat) if is_own && stat.pid == dir.pid() => return Ok((place, stat)),
            stat => stat,
        };
        if is_own && let Err(failed) = stat {
            return Err(failed);
        }
        self.counts.covered += 1;
        Err(Failed::Refused)
    }

    /// Uid and memory in a copy of /proc, whose files belong to somebody else.
    fn read_status(&mut self, process: &mut Process, dir: &ProcessDir) {
        match dir.status(&mut self.buffer) {
            Ok(status) => {
                process.uid = status.uid;
                process.vsz_bytes = status.vsz_bytes;
                process.rss_bytes = status.rss_bytes;
            }
            Err(failed) => {
                self.count(failed);
                process.uid = u32::MAX;
                if failed == Failed::Vanished {
                    process.state = b'X';
                }
            }
        }
    }

    fn blank(&self, root: &ProcRoot, pid: u32, stat: &Stat, moment: Moment) -> Process {
        let mut process = Process {
            key: ProcessKey {
                boot_id: root.boot_id(),
                pid,
                start_time: stat.start_time,
            },
            ppid: 0,
            pgrp: 0,
            session: 0,
            state: 0,
            kernel_thread: stat.is_kernel_thread(),
            uid: 0,
            user: Arc::from(&b""[..]),
            comm: Vec::new(),
            started_at: moment.booted_at,
            age_secs: 0,
            exe: Reading::Absent,
            cmdline: Reading::Absent,
            vsz_bytes: 0,
            rss_bytes: 0,
            tty_nr: 0,
            sockets: Vec::new(),
        };
        take_stat(&mut process, stat, self.page_bytes);
        take_times(&mut process, root, moment);
        process
    }

    /// A command line, or its beginning.
    fn bounded_cmdline(&mut self, mut raw: Vec<u8>, truncated: bool) -> Cmdline {
        let fits = self.has_room(raw.len());
        if !fits {
            raw.truncate(TEXT_SHORT_BYTES);
        }
        self.text_bytes_left = self.text_bytes_left.saturating_sub(signed(raw.len()));
        raw.shrink_to_fit();
        Cmdline {
            raw,
            truncated: truncated || !fits,
        }
    }

    /// An executable, with the beginning of its path where that is too long.
    fn bounded_exe(&mut self, exe: Exe) -> Exe {
        let exe = if self.has_room(exe.link.len()) {
            exe
        } else {
            exe::cut(exe, TEXT_SHORT_BYTES)
        };
        self.text_bytes_left = self.text_bytes_left.saturating_sub(signed(exe.link.len()));
        exe
    }

    /// Whether a text can be kept whole; counts those that cannot.
    fn has_room(&mut self, bytes: usize) -> bool {
        let fits = bytes <= TEXT_SHORT_BYTES || signed(bytes) <= self.text_bytes_left;
        self.counts.texts_cut += u64::from(!fits);
        fits
    }

    fn reading_of_exe(&mut self, read: Result<Exe, Failed>) -> Reading<Exe> {
        let bounded = read.map(|exe| self.bounded_exe(exe));
        self.reading(bounded)
    }

    fn reading<T>(&mut self, read: Result<T, Failed>) -> Reading<T> {
        match read {
            Ok(value) => Reading::Value(value),
            Err(failed) => self.missing(failed),
        }
    }

    fn missing<T>(&mut self, failed: Failed) -> Reading<T> {
        self.count(failed);
        match failed {
            Failed::Vanished => Reading::Absent,
            Failed::Refused => Reading::Unreadable,
        }
    }

    /// Counts a failure that is not the end of a process.
    pub(crate) fn count(&mut self, failed: Failed) {
        if failed == Failed::Refused {
            self.counts.errors += 1;
        }
    }
}

/// What a process runs and says about it, read in one go on another thread.
struct Program {
    dir: ProcessDir,
    /// And whether there was more.
    cmdline: Result<(Vec<u8>, bool), Failed>,
    exe: Result<Exe, Failed>,
}

impl Program {
    fn read(dir: ProcessDir, own: &OwnView, buffer: &mut Vec<u8>, lookups: &mut Lookups) -> Self {
        let mut cmdline = dir.read("cmdline", CMDLINE_BYTES_MAX, buffer);
        let exe = exe::read_next(&dir, own, lookups);
        if cmdline.is_ok() && buffer.is_empty() {
            // For a moment within execve(2) there are no arguments yet, and
            // rules about them would not match.
            cmdline = dir.read("cmdline", CMDLINE_BYTES_MAX, buffer);
        }
        Self {
            dir,
            cmdline: cmdline.map(|truncated| (buffer.clone(), truncated)),
            exe,
        }
    }
}

/// The owner of `stat` that shows that a process is still of the account it
/// was of. Root owns the files of those too that have just left it: a young
/// process of root is asked twice, an old one on its turn and after an event.
fn expected_owner(known: &Process) -> Option<u32> {
    let is_settled = known.kernel_thread || known.uid != 0 || known.age_secs >= SETTLED_SECS;
    is_settled.then_some(known.uid)
}

/// Its first thread has ended and others go on.
pub(crate) const fn is_seen_through_a_thread(stat: &Stat) -> bool {
    stat.is_ending() && stat.threads > 1
}

/// The process through its first thread, or through another one that outlives
/// it. Identity stays that of the process.
fn living(
    root: &ProcRoot,
    dir: ProcessDir,
    stat: Stat,
    uid: Option<u32>,
) -> (ProcessDir, Stat, Option<u32>) {
    if is_seen_through_a_thread(&stat)
        && let Some((thread, mut of_thread)) = dir.through_a_living_thread()
    {
        of_thread.start_time = stat.start_time;
        let owner = thread.owner(root);
        let uid = owner.map_or(uid, |(_, place)| place.map(|place| place.uid));
        return (thread, of_thread, uid);
    }
    (dir, stat, uid)
}

/// It has ended or is about to: nothing is left to look at.
pub(crate) const fn is_ending(process: &Process) -> bool {
    matches!(process.state, b'Z' | b'X' | b'x')
}

/// No executable: most likely the process ended between two reads. Judging it
/// without its executable would miss the rules that cover it.
fn recheck(process: &mut Process, dir: &ProcessDir) {
    match dir.stat() {
        Ok(stat) if stat.is_ending() => process.state = b'X',
        Err(Failed::Vanished) => process.state = b'X',
        Ok(_) | Err(Failed::Refused) => {}
    }
}

/// What of `stat` changes while a process lives.
fn take_stat(process: &mut Process, stat: &Stat, page_bytes: u64) {
    process.ppid = stat.ppid;
    process.pgrp = stat.pgrp;
    process.session = stat.session;
    process.tty_nr = stat.tty_nr;
    process.vsz_bytes = stat.vsz_bytes;
    process.rss_bytes = stat.rss_pages.saturating_mul(page_bytes);
    process.state = if stat.is_ending() && stat.state != b'Z' {
        b'X'
    } else {
        stat.state
    };
    let comm = stat.comm.get(..COMM_BYTES_MAX).unwrap_or(&stat.comm);
    if process.comm != comm {
        process.comm = comm.to_vec();
    }
}

fn take_times(process: &mut Process, root: &ProcRoot, moment: Moment) {
    let started_millis = root.ticks_to_millis(process.key.start_time);
    process.started_at = moment
        .booted_at
        .plus_millis(i64::try_from(started_millis).unwrap_or(i64::MAX));
    process.age_secs = moment.uptime_millis.saturating_sub(started_millis) / 1000;
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Bytes of its command line and path that count against those of all.
pub(crate) fn kept_bytes(process: &Process) -> usize {
    let cmdline = process.cmdline.value().map(|cmdline| cmdline.raw.len());
    let path = process.exe.value().map(|exe| exe.link.len());
    cmdline.unwrap_or(0) + path.unwrap_or(0)
}

#[cfg(test)]
mod tests;
