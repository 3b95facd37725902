//! Reads every process of the machine into a snapshot.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use procwarden_common::clock::UnixMillis;
use procwarden_common::policy::Settings;
use procwarden_common::process::{Process, ProcessKey, Reading};

use crate::detect::scope::Scope;
use crate::detect::wants_sockets;
use crate::procfs::process::{Moment, Opened, ProcessReader, ReadCounts, is_ending};
use crate::procfs::{Failed, ProcRoot, ProcessDir};
use crate::snapshot::Snapshot;
use crate::sockets::{Held, SocketTables};
use crate::users::{SystemNames, Users};

/// The boot's time on the wall clock moves with every correction of that
/// clock; below this many milliseconds it is kept as it was.
const BOOT_TIME_SLACK_MILLIS: u64 = 2000;

/// Everything that a pass needs from the pass before.
pub(super) struct Machine {
    root: ProcRoot,
    reader: ProcessReader,
    users: Users,
    booted_at: Option<UnixMillis>,
    last_keys: HashMap<u32, ProcessKey>,
}

/// What one pass gave.
pub(super) struct Pass {
    pub(super) snapshot: Snapshot,
    /// Processes that were listed.
    pub(super) listed: u64,
    pub(super) counts: ReadCounts,
    pub(super) notes: Vec<String>,
}

impl Machine {
    pub(super) fn new(root: ProcRoot) -> anyhow::Result<Self> {
        let users = Users::start(SystemNames)?;
        let (reader, last_keys) = (ProcessReader::new(), HashMap::new());
        Ok(Self {
            root,
            reader,
            users,
            booted_at: None,
            last_keys,
        })
    }

    pub(super) const fn root(&self) -> &ProcRoot {
        &self.root
    }

    /// One pass over every process.
    pub(super) fn read(&mut self, settings: &Settings, scope: &Scope, now: UnixMillis) -> Pass {
        let moment = self.moment(now);
        self.reader.begin_scan();
        let mut taker = Taker::new(
            &self.root,
            &mut self.reader,
            &mut self.users,
            &self.last_keys,
            settings,
            scope,
            moment,
        );
        let listed = self
            .root
            .list()
            .map(|items| items.for_each(|item| taker.take(item)));
        let mut notes = Vec::new();
        if let Err(failed) = listed {
            taker.nothing_listed(failed);
            notes.push("cannot list the processes: nothing was looked at".to_owned());
        }
        let pass = taker.finish();
        notes.extend(self.notes(&pass.snapshot));
        notes.extend(notes_of(&pass.counts));
        notes.extend(pass.notes.iter().cloned());
        self.last_keys = pass
            .snapshot
            .alive()
            .into_iter()
            .map(|key| (key.pid, key))
            .collect();
        Pass { notes, ..pass }
    }

    /// One pass over some processes. Those that are gone are passed over.
    pub(super) fn look(
        &mut self,
        pids: &[u32],
        settings: &Settings,
        scope: &Scope,
        now: UnixMillis,
    ) -> Pass {
        let moment = self.moment(now);
        self.reader.begin_scan();
        let mut taker = Taker::new(
            &self.root,
            &mut self.reader,
            &mut self.users,
            &self.last_keys,
            settings,
            scope,
            moment,
        );
        for &pid in pids {
            let opened = taker.root.process(pid);
            taker.take(opened.map_err(|failed| (Some(pid), failed)));
        }
        let pass = taker.finish();
        // Should the next scan not be able to read one, it has not ended.
        let seen = pass.snapshot.processes().iter().map(|process| process.key);
        self.last_keys.extend(seen.map(|key| (key.pid, key)));
        pass
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

    fn notes(&self, snapshot: &Snapshot) -> Vec<String> {
        let mut notes = Vec::new();
        if !reads_other_accounts(snapshot, rustix::process::geteuid().as_raw()) {
            notes.push(
                "cannot read the processes of other accounts: run as root to see the whole machine"
                    .to_owned(),
            );
        }
        if self.root.is_genuine()
            && !snapshot.processes().is_empty()
            && snapshot.of_pid(1).is_none()
        {
            notes.push("process 1 is not visible: /proc is mounted with hidepid, and other accounts are hidden".to_owned());
        }
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
    last_keys: &'a HashMap<u32, ProcessKey>,
    settings: &'a Settings,
    scope: &'a Scope,
    moment: Moment,
    tables: SocketTables,
    processes: Vec<Process>,
    /// What some of the processes hold, by their place in the list.
    held: Vec<(usize, Held)>,
    unread: HashSet<ProcessKey>,
    listed: u64,
}

impl<'a> Taker<'a> {
    fn new(
        root: &'a ProcRoot,
        reader: &'a mut ProcessReader,
        users: &'a mut Users,
        last_keys: &'a HashMap<u32, ProcessKey>,
        settings: &'a Settings,
        scope: &'a Scope,
        moment: Moment,
    ) -> Self {
        Self {
            root,
            reader,
            users,
            last_keys,
            settings,
            scope,
            moment,
            tables: SocketTables::default(),
            processes: Vec::new(),
            held: Vec::new(),
            unread: HashSet::new(),
            listed: 0,
        }
    }

    /// Takes one item of the list.
    fn take(&mut self, item: Result<ProcessDir, (Option<u32>, Failed)>) {
        let opened = item.and_then(|dir| {
            let pid = dir.pid();
            let mut name = |uid| self.users.name(uid, Instant::now());
            self.reader
                .read(self.root, dir, self.moment, &mut name)
                .map_err(|failed| (Some(pid), failed))
        });
        self.listed += u64::from(!matches!(opened, Err((_, Failed::Vanished))));
        match opened {
            Ok(opened) => self.keep(opened),
            Err((pid, failed)) => {
                self.reader.count(failed);
                if failed == Failed::Refused {
                    // It exists, so it has not ended.
                    self.unread
                        .extend(pid.and_then(|pid| self.last_keys.get(&pid)));
                }
            }
        }
    }

    fn keep(&mut self, opened: Opened) {
        let Opened { mut process, dir } = opened;
        if !wants_sockets(&process, self.settings, self.scope) {
            self.tables.skip();
        } else {
            match self.tables.held_by(&dir) {
                Ok(held) => self.held.push((self.processes.len(), held)),
                Err(failed) => {
                    self.reader.count(failed);
                    process.sockets_unreadable = failed == Failed::Refused;
                }
            }
        }
        self.processes.push(process);
    }

    /// Without a list nobody is known to have ended.
    fn nothing_listed(&mut self, failed: Failed) {
        self.reader.count(failed);
        self.unread.extend(self.last_keys.values());
    }

    fn finish(mut self) -> Pass {
        if !self.held.is_empty() {
            self.tables.add_own_namespace(self.root);
        }
        for (at, held) in &self.held {
            if let Some(process) = self.processes.get_mut(*at) {
                let complete;
                (process.sockets, complete) = self.tables.resolve(held);
                process.sockets_unreadable = !complete;
            }
        }
        let notes = self.tables.note().into_iter().collect();
        let mut counts = self.reader.counts;
        counts.errors += self.tables.errors;
        counts.skipped += self.tables.skipped;
        let snapshot = Snapshot::new(self.processes, self.unread);
        Pass {
            snapshot,
            listed: self.listed,
            counts,
            notes,
        }
    }
}

fn notes_of(counts: &ReadCounts) -> Vec<String> {
    let mut notes = Vec::new();
    if counts.covered > 0 {
        notes.push(format!(
            "something is mounted over {} directories of processes in /proc: whoever did it hides them (see /proc/self/mountinfo)",
            counts.covered
        ));
    }
    if counts.cmdlines_cut > 0 {
        notes.push(
            "the command lines of all processes together are too long: long ones are cut, and rules about them do not match"
                .to_owned(),
        );
    }
    notes
}

/// False when there are processes of other accounts and not one of them shows
/// its executable: then this is no view of the whole machine.
fn reads_other_accounts(snapshot: &Snapshot, own_uid: u32) -> bool {
    let mut others = snapshot
        .processes()
        .iter()
        .filter(|process| process.uid != own_uid && !process.kernel_thread && !is_ending(process))
        .peekable();
    others.peek().is_none() || others.any(|process| process.exe != Reading::Unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::sample;

    #[test]
    fn a_view_without_any_foreign_executable_is_not_the_whole_machine() {
        let of = |uid, readable: bool| {
            let mut process = sample::of_account(uid, b"x");
            if !readable {
                process.exe = Reading::Unreadable;
            }
            process
        };
        let whole =
            |processes| reads_other_accounts(&Snapshot::new(processes, HashSet::new()), 1000);
        assert!(whole(vec![of(1000, true)]));
        assert!(whole(vec![of(0, false), of(2000, true)]));
        assert!(!whole(vec![of(0, false), of(1000, true)]));
    }
}
