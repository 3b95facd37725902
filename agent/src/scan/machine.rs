//! Reads every process of the machine into a snapshot: whole, or with a glance
//! where it is known from the pass before. known.rs says which.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use procwarden_common::clock::UnixMillis;
use procwarden_common::policy::Settings;
use procwarden_common::process::{Process, ProcessKey, Reading};

use super::breath::Breath;
use super::known::Known;
use super::looked::Room;
use crate::detect::scope::Scope;
use crate::detect::wants_sockets;
use crate::procfs::process::{Moment, Opened, ProcessReader, ReadCounts, is_ending, kept_bytes};
use crate::procfs::{Failed, ProcRoot};
use crate::snapshot::Snapshot;
use crate::sockets::{Attribution, Candidate, Holding, SocketTables};
use crate::users::{SystemNames, Users};

/// The boot's time on the wall clock moves with every correction of that
/// clock; below this many milliseconds it is kept as it was.
const BOOT_TIME_SLACK_MILLIS: u64 = 2000;

/// Directories of processes that stay open within a pass until their
/// descriptors are walked. The others are opened a second time: a service may
/// have 1024 descriptors unless it is told otherwise.
const DIRS_KEPT_MAX: usize = 128;

/// Processes that are taken between two pauses, a few milliseconds of work;
/// those of them that are read whole are asked together what they run.
const PROCESSES_AT_ONCE: usize = 64;

/// Everything that a pass needs from the pass before.
pub(super) struct Machine {
    root: ProcRoot,
    reader: ProcessReader,
    users: Users,
    booted_at: Option<UnixMillis>,
    /// By PID.
    known: Vec<Known>,
    /// Bytes of their command lines and paths when the last scan ended. Looks
    /// add next to nothing.
    text_bytes: usize,
    /// For what looks add until the next scan.
    room: Room,
    attribution: Attribution,
    scans: u64,
    pids: Vec<u32>,
    /// Of one processor, in percent; none for scans without pauses.
    share: Option<u64>,
}

/// What one pass gave.
pub(super) struct Pass {
    pub(super) snapshot: Snapshot,
    /// Processes that were listed.
    pub(super) listed: u64,
    /// PIDs that were listed, of which nothing is known but that.
    pub(super) unknown: HashSet<u32>,
    pub(super) counts: ReadCounts,
    pub(super) notes: Vec<String>,
}

/// What a pass is about, besides the machine.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) settings: &'a Settings,
    pub(super) scope: &'a Scope,
    /// Processes about which something has to be confirmed.
    pub(super) waiting: &'a HashSet<ProcessKey>,
}

impl Machine {
    pub(super) fn new(root: ProcRoot) -> anyhow::Result<Self> {
        let users = Users::start(SystemNames)?;
        Ok(Self {
            root,
            reader: ProcessReader::new(),
            users,
            booted_at: None,
            known: Vec::new(),
            text_bytes: 0,
            room: Room::default(),
            attribution: Attribution::default(),
            scans: 0,
            pids: Vec::new(),
            share: None,
        })
    }

    pub(super) const fn root(&self) -> &ProcRoot {
        &self.root
    }

    /// What the last scan found in the network namespaces of others.
    pub(super) fn known_namespaces(&self) -> Arc<crate::sockets::Known> {
        self.attribution.known()
    }

    pub(super) const fn set_share(&mut self, percent: Option<u64>) {
        self.share = percent;
    }

    /// No other scan will follow.
    pub(super) const fn put_nothing_off(&mut self) {
        self.attribution.put_nothing_off();
    }

    /// One pass over every process.
    pub(super) fn read(&mut self, wanted: Wanted<'_>, now: UnixMillis) -> Pass {
        let mut pids = std::mem::take(&mut self.pids);
        let is_listed = self.root.list(&mut pids).is_ok();
        if !is_listed {
            // Without a list nobody is known to have ended.
            pids = Vec::new();
        }
        let known = std::mem::take(&mut self.known);
        self.scans += 1;
        self.reader.begin_scan(text_bytes(&known));
        let (mut known, mut pass) = self.take_all(&pids, known, wanted, now, is_listed);
        if !is_listed {
            pass.counts.errors += 1;
            pass.notes
                .push("cannot list the processes: nothing was looked at".to_owned());
        }
        self.attribute(&mut known, wanted, &mut pass);
        pass.notes.extend(self.notes(&known));
        pass.snapshot = snapshot_of(&known).with_hung(self.root.hung());
        self.text_bytes = text_bytes(&known);
        self.room = Room::default();
        (self.pids, self.known) = (pids, known);
        pass
    }

    /// One pass over some processes. Those that are gone are passed over.
    pub(super) fn look(&mut self, pids: &[u32], wanted: Wanted<'_>, now: UnixMillis) -> Pass {
        // What is known stays in memory meanwhile, so it counts.
        self.reader.begin_scan(self.text_bytes);
        // What is known of these themselves makes room for what is read now.
        for pid in pids {
            if let Ok(at) = self.known.binary_search_by_key(pid, Known::pid)
                && let Some(known) = self.known.get(at)
            {
                self.reader.give_back(&known.process);
            }
        }
        let (mut looked, mut pass) = self.take_all(pids, Vec::new(), wanted, now, true);
        let mut tables = SocketTables::for_look(self.attribution.known());
        for known in looked.iter_mut().filter(|known| known.wants_sockets) {
            let dir = known.dir.take();
            let dir = dir.map_or_else(|| self.root.reopen(known.key()), Ok);
            let sockets = dir.and_then(|dir| tables.sockets_of(&self.root, &dir));
            known.set_sockets(sockets.unwrap_or_default());
        }
        pass.counts.errors += tables.errors;
        pass.snapshot = snapshot_of(&looked).with_hung(self.root.hung());
        // The next scan goes on from there: should it not be able to read
        // one of them, that has not ended.
        for known in looked {
            self.room.keep(&mut self.known, known);
        }
        pass
    }

    /// Reads processes, or glances at those that are known. `known` is sorted
    /// by PID, as `pids` are in a scan. Call [`ProcessReader::begin_scan`] before.
    fn take_all(
        &mut self,
        pids: &[u32],
        known: Vec<Known>,
        wanted: Wanted<'_>,
        now: UnixMillis,
        is_listed: bool,
    ) -> (Vec<Known>, Pass) {
        let moment = self.moment(now);
        let mut taker = Taker {
            root: &self.root,
            reader: &mut self.reader,
            users: &mut self.users,
            wanted,
            moment,
            scan: self.scans,
            began: Instant::now(),
            taken: Vec::with_capacity(pids.len()),
            listed: 0,
            unknown: HashSet::new(),
            dirs_left: DIRS_KEPT_MAX,
            opened: Vec::new(),
        };
        let mut before = known.into_iter().peekable();
        let mut breath = Breath::new(self.share);
        for pids in pids.chunks(PROCESSES_AT_ONCE) {
            for &pid in pids {
                while before.next_if(|known| known.pid() < pid).is_some() {}
                let known = before.next_if(|known| known.pid() == pid);
                taker.take(pid, known);
            }
            taker.read_programs();
            breath.take();
        }
        if !is_listed {
            taker.taken.extend(before.map(Known::unread));
        }
        // Those that were read whole came after their neighbours.
        taker.taken.sort_unstable_by_key(Known::pid);
        let Taker {
            taken,
            listed,
            unknown,
            ..
        } = taker;
        let counts = self.reader.counts;
        let pass = Pass {
            snapshot: Snapshot::default(),
            listed,
            unknown,
            counts,
            notes: notes_of(&counts),
        };
        (taken, pass)
    }

    /// Finds out who holds which socket.
    fn attribute(&mut self, known: &mut [Known], wanted: Wanted<'_>, pass: &mut Pass) {
        let mut tables = SocketTables::for_scan(self.attribution.known(), self.scans);
        let mut candidates: Vec<Candidate<'_>> = Vec::new();
        for known in known.iter_mut().filter(|known| !known.is_unread) {
            if known.wants_sockets {
                candidates.push(Candidate {
                    key: known.key(),
                    uid: known.process.uid,
                    threads: known.threads,
                    is_waiting: wanted.waiting.contains(&known.process.key),
                    holding: &mut known.holding,
                    dir: known.dir.take(),
                });
            } else {
                tables.skip();
                known.holding = Holding::default();
                known.set_sockets(Vec::new());
            }
        }
        let attributed =
            self.attribution
                .attribute(&mut tables, &self.root, &mut candidates, self.scans);
        let askers = known
            .iter_mut()
            .filter(|known| known.wants_sockets && !known.is_unread);
        for (known, sockets) in askers.zip(attributed) {
            known.set_sockets(sockets);
        }
        pass.counts.errors += tables.errors;
        pass.counts.skipped += tables.skipped;
        pass.notes.extend(tables.notes());
    }

    fn moment(&mut self, now: UnixMillis) -> Moment {
        let uptime_millis = self.root.uptime_millis();
        let fresh = now.plus_millis(-i64::try_from(uptime_millis).unwrap_or(0));
        let kept = self.booted_at.filter(|known| {
            known.millis_since(fresh).max(fresh.millis_since(*known)) < BOOT_TIME_SLACK_MILLIS
        });
        let booted_at = *self.booted_at.insert(kept.unwrap_or(fresh));
        Moment {
            uptime_millis,
            booted_at,
        }
    }

    fn notes(&self, known: &[Known]) -> Vec<String> {
        let mut notes = Vec::new();
        let processes = || known.iter().map(|known| known.process.as_ref());
        if !reads_other_accounts(processes(), rustix::process::geteuid().as_raw()) {
            notes.push(
                "cannot read the processes of other accounts: run as root to see the whole machine"
                    .to_owned(),
            );
        }
        if self.root.is_genuine() && !known.is_empty() && processes().all(|p| p.key.pid != 1) {
            notes.push("process 1 is not visible: /proc is mounted with hidepid, and other accounts are hidden".to_owned());
        }
        notes.extend(self.root.note_on_hangs());
        if self.users.is_slow() {
            notes.push("the name service is slow: some accounts are shown by number".to_owned());
        }
        notes
    }
}

/// A pass that goes on.
struct Taker<'a> {
    root: &'a ProcRoot,
    reader: &'a mut ProcessReader,
    users: &'a mut Users,
    wanted: Wanted<'a>,
    moment: Moment,
    scan: u64,
    began: Instant,
    taken: Vec<Known>,
    listed: u64,
    unknown: HashSet<u32>,
    dirs_left: usize,
    /// Those that wait to be asked what they run.
    opened: Vec<(Opened, Asked)>,
}

/// What is known of a process whose directory is opened.
struct Asked {
    before: Option<Known>,
    /// Before anything was read.
    cpu_time: Option<Duration>,
}

impl Taker<'_> {
    /// Takes one process of the list, and what is known of it.
    fn take(&mut self, pid: u32, known: Option<Known>) {
        let mut before = known;
        // Before anything is read: what it does meanwhile shows the next time.
        let cpu_time = self.root.cpu_time(pid);
        if let Some(mut known) = before.take_if(|known| self.glance(known, cpu_time)) {
            known.wants_sockets = self.wants_sockets(&known.process);
            return self.keep(known);
        }
        self.open(pid, Asked { before, cpu_time });
    }

    /// Begins to read a process whole.
    fn open(&mut self, pid: u32, asked: Asked) {
        let opened = self.root.process(pid).and_then(|dir| {
            let mut name = |uid| self.users.name(uid, self.began);
            self.reader.open(self.root, dir, self.moment, &mut name)
        });
        match opened {
            Ok(opened) if opened.has_program() => self.opened.push((opened, asked)),
            opened => self.take_read(pid, opened, asked),
        }
    }

    /// Reads the rest of those that were opened. Behind one that hung they are
    /// opened anew, so that what is known of one process is of one moment.
    fn read_programs(&mut self) {
        while !self.opened.is_empty() {
            let (opened, asked): (Vec<_>, Vec<_>) = self.opened.drain(..).unzip();
            let pids: Vec<u32> = opened.iter().map(|o| o.process.key.pid).collect();
            let read = self.reader.read_programs(self.root, opened);
            for (pid, (read, asked)) in pids.into_iter().zip(read.into_iter().zip(asked)) {
                match read {
                    Some(read) => self.take_read(pid, read, asked),
                    None => self.open(pid, asked),
                }
            }
        }
    }

    fn take_read(&mut self, pid: u32, read: Result<Opened, Failed>, asked: Asked) {
        match read {
            Ok(opened) => {
                let wants_sockets = self.wants_sockets(&opened.process);
                let mut known = Known::new(opened, asked.before, wants_sockets, asked.cpu_time);
                if self.dirs_left > 0 && known.expects_walk(self.scan) {
                    self.dirs_left -= 1;
                } else {
                    known.dir = None;
                }
                self.keep(known);
            }
            Err(failed) => {
                self.reader.count(failed);
                if failed == Failed::Refused {
                    // It exists, so it has not ended.
                    self.listed += 1;
                    match asked.before {
                        Some(known) => self.taken.push(known.unread()),
                        None => drop(self.unknown.insert(pid)),
                    }
                }
            }
        }
    }

    /// Brings what is known up to date by a glance; false when it has to be
    /// read whole.
    fn glance(&mut self, known: &mut Known, cpu_time: Option<Duration>) -> bool {
        let seems_still = known.seems_still(cpu_time);
        let place = seems_still.then(|| self.root.place(known.pid())).flatten();
        let is_still = place.is_some_and(|place| known.is_at(place));
        if known.is_due(self.scan, self.wanted.waiting, is_still)
            || (is_still && self.lost_its_file(known))
        {
            self.reader.give_back(&known.process);
            return false;
        }
        let mut name = |uid| self.users.name(uid, self.began);
        if is_still {
            let process = Arc::make_mut(&mut known.process);
            self.reader
                .pass_over(process, self.root, self.moment, &mut name);
            return true;
        }
        let seen = match self.reader.glance(self.root, &known.process) {
            Ok(seen) if known.is_same(&seen) => seen,
            _ => return false,
        };
        if known.is_changed(&seen) {
            self.reader.give_back(&known.process);
            return false;
        }
        let process = Arc::make_mut(&mut known.process);
        self.reader
            .update(process, &seen.stat, self.root, self.moment, &mut name);
        known.glanced(seen.stat.threads, cpu_time, place);
        true
    }

    /// Whether a still process no longer runs the file that is known, should
    /// it be time to ask.
    fn lost_its_file(&self, known: &Known) -> bool {
        let is_asked = known.shows_its_file(self.scan);
        is_asked && !(self.root.exe(known.pid())).is_ok_and(|link| known.runs(&link))
    }

    fn keep(&mut self, known: Known) {
        self.listed += 1;
        self.taken.push(known);
    }

    fn wants_sockets(&self, process: &Process) -> bool {
        wants_sockets(process, self.wanted.settings, self.wanted.scope)
    }
}

fn text_bytes(known: &[Known]) -> usize {
    known.iter().map(|known| kept_bytes(&known.process)).sum()
}

fn snapshot_of(known: &[Known]) -> Snapshot {
    let (unread, read): (Vec<&Known>, Vec<&Known>) =
        known.iter().partition(|known| known.is_unread);
    Snapshot::new(
        read.into_iter()
            .map(|known| Arc::clone(&known.process))
            .collect(),
        unread.into_iter().map(Known::key).collect(),
    )
}

fn notes_of(counts: &ReadCounts) -> Vec<String> {
    let mut notes = Vec::new();
    if counts.covered > 0 {
        notes.push(format!(
            "something is mounted over {} directories of processes in /proc: whoever did it hides them (see /proc/self/mountinfo)",
            counts.covered
        ));
    }
    if counts.texts_cut > 0 {
        notes.push(
            "the command lines and paths of all processes together are too long: long ones are cut, and rules about them do not match"
                .to_owned(),
        );
    }
    notes
}

/// False when there are processes of other accounts and not one of them shows
/// its executable: then this is no view of the whole machine.
fn reads_other_accounts<'a>(processes: impl Iterator<Item = &'a Process>, own_uid: u32) -> bool {
    let mut others = processes
        .filter(|process| process.uid != own_uid && !process.kernel_thread && !is_ending(process))
        .peekable();
    others.peek().is_none() || others.any(|process| process.exe != Reading::Unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::sample;
    use crate::procfs::live::Running;

    #[test]
    fn no_directory_stays_open_between_two_passes() {
        let root = ProcRoot::open(std::path::Path::new("/proc")).unwrap();
        let mut machine = Machine::new(root).unwrap();
        let settings = Settings {
            min_age_secs: 0,
            ..Settings::default()
        };
        let (scope, waiting) = (Scope::Everyone, HashSet::new());
        let wanted = Wanted {
            settings: &settings,
            scope: &scope,
            waiting: &waiting,
        };
        let has_none = |machine: &Machine| machine.known.iter().all(|known| known.dir.is_none());
        machine.read(wanted, UnixMillis(0));
        assert!(!machine.known.is_empty() && has_none(&machine));
        machine.look(&[std::process::id()], wanted, UnixMillis(0));
        assert!(has_none(&machine));
    }

    #[test]
    fn looks_keep_no_arguments_and_count_what_scans_keep() {
        let root = ProcRoot::open(std::path::Path::new("/proc")).unwrap();
        let mut machine = Machine::new(root).unwrap();
        let (settings, scope, waiting) = (Settings::default(), Scope::Everyone, HashSet::new());
        let wanted = Wanted {
            settings: &settings,
            scope: &scope,
            waiting: &waiting,
        };
        let mut command = std::process::Command::new("/bin/sh");
        command.args(["-c", "read nothing", &"a".repeat(30_000)]);
        command.stdin(std::process::Stdio::piped());
        let child = Running::start(&mut command);
        let seen_bytes = |pass: &Pass| kept_bytes(&pass.snapshot.processes()[0]);
        let pass = machine.look(&[child.pid()], wanted, UnixMillis(0));
        assert!(seen_bytes(&pass) > 30_000);
        assert_eq!((machine.known.len(), text_bytes(&machine.known)), (1, 0));
        // Where a scan has left no room, a look takes none.
        machine.text_bytes = usize::MAX;
        let pass = machine.look(&[child.pid()], wanted, UnixMillis(0));
        assert!(seen_bytes(&pass) <= 2 * 512 && pass.counts.texts_cut == 1);
    }

    #[test]
    fn a_view_without_any_foreign_executable_is_not_the_whole_machine() {
        let of = |uid, readable: bool| {
            let mut process = sample::of_account(uid, b"x");
            if !readable {
                process.exe = Reading::Unreadable;
            }
            process
        };
        let whole = |processes: Vec<Process>| reads_other_accounts(processes.iter(), 1000);
        assert!(whole(vec![of(1000, true)]));
        assert!(whole(vec![of(0, false), of(2000, true)]));
        assert!(!whole(vec![of(0, false), of(1000, true)]));
    }
}
