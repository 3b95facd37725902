//! Reads that hung: whose, and who is told about them.
//!
//! A hang alone is no proof of anything: a machine that swaps or was paused is
//! slow for seconds. So one is told of a process when its thread still hangs
//! after half a minute, or when the process, asked again later, hung again.
//!
//! Pure but for whether a thread lives. Promises: everything is bounded by the
//! threads that may hang and by what is forgotten.

use std::collections::HashMap;
use std::sync::Weak;
use std::time::{Duration, Instant};

use procwarden_common::process::ProcessKey;

use super::{HANG_KEPT, Owner, Side, What};

/// Hangs of different processes after which their account is not asked.
pub(super) const HANGS_MAX: usize = 3;
/// Threads that may hang before nobody's processes but root's are asked; more
/// than one account can make hang. The unit's limit of tasks is the bound.
pub(super) const THREADS_MAX: usize = 24;
/// A thread that hangs for so long is no accident.
const TOLD_AFTER: Duration = Duration::from_secs(30);
/// So long it is known that a process hung before, and of so many processes.
const BEFORE_KEPT: Duration = Duration::from_secs(3600);
const BEFORE_MAX: usize = 1024;

/// Reads of a process that hang, or did twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hung {
    /// What was asked for, in the order of the hangs.
    pub(crate) reads: Vec<What>,
    /// Whose process it is.
    pub(crate) side: Side,
}

/// Everything that hung lately.
#[derive(Debug, Default)]
pub(super) struct Hangs {
    hangs: Vec<Hang>,
    /// Processes whose hang was forgotten, and when.
    before: Vec<(ProcessKey, Instant)>,
}

#[derive(Debug)]
struct Hang {
    key: ProcessKey,
    /// The account that answers for it.
    uid: u32,
    is_apart: bool,
    what: What,
    at: Instant,
    /// The process hung before.
    again: bool,
    /// Its thread, while that lives.
    thread: Weak<()>,
}

impl Hangs {
    pub(super) fn forget(&mut self, now: Instant) {
        self.before
            .retain(|(_, at)| now.duration_since(*at) < BEFORE_KEPT);
        let is_kept = |hang: &mut Hang| hang.is_on() || now.duration_since(hang.at) < HANG_KEPT;
        let forgotten = self.hangs.extract_if(.., |hang| !is_kept(hang));
        for hang in forgotten {
            if self.before.len() < BEFORE_MAX {
                self.before.push((hang.key, now));
            }
        }
    }

    pub(super) fn note(
        &mut self,
        Owner { key, uid }: Owner,
        side: Side,
        what: What,
        thread: Weak<()>,
        at: Instant,
    ) {
        self.hangs.push(Hang {
            key,
            uid,
            is_apart: side == Side::Namespaces,
            what,
            at,
            again: self.before.iter().any(|(before, _)| *before == key),
            thread,
        });
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.hangs.is_empty()
    }

    /// Whether this very question hung.
    pub(super) fn holds(&self, key: ProcessKey, what: What) -> bool {
        let mut hangs = self.hangs.iter();
        hangs.any(|hang| hang.key == key && hang.what == what)
    }

    /// Whether a side is not asked.
    pub(super) fn shuns(&self, side: Side, what: What) -> bool {
        let of_side = |hang: &&Hang| hang.what == what && hang.is_of(side);
        (side != Side::Account(0) && self.threads() >= THREADS_MAX)
            || self.hangs.iter().filter(of_side).count() >= HANGS_MAX
    }

    /// Threads that hang.
    pub(super) fn threads(&self) -> usize {
        self.hangs.iter().filter(|hang| hang.is_on()).count()
    }

    /// Of which processes to tell that they hang: their own reads did.
    pub(super) fn told(&self, now: Instant) -> HashMap<ProcessKey, Hung> {
        let mut told = HashMap::new();
        for hang in self.hangs.iter().filter(|hang| hang.is_told(now)) {
            told.entry(hang.key).or_insert_with(|| self.of(hang));
        }
        told
    }

    /// Who hung, in words.
    pub(super) fn words(&self) -> impl Iterator<Item = String> {
        self.hangs.iter().map(Hang::words)
    }

    /// All that hung of the process of one hang.
    fn of(&self, hang: &Hang) -> Hung {
        let alike = self.hangs.iter().filter(|other| other.key == hang.key);
        Hung {
            reads: alike.map(|hang| hang.what).collect(),
            side: hang.side(),
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.hangs.len()
    }

    #[cfg(test)]
    pub(super) fn drop_last(&mut self) {
        self.hangs.pop();
    }
}

impl Hang {
    fn words(&self) -> String {
        match self.side() {
            Side::Account(uid) => format!("{} of uid {uid}", self.key.pid),
            Side::Namespaces => format!("{} in a user namespace", self.key.pid),
        }
    }

    fn is_of(&self, side: Side) -> bool {
        match side {
            Side::Account(uid) => uid == self.uid,
            Side::Namespaces => self.is_apart,
        }
    }

    /// Whose it is, in one word.
    const fn side(&self) -> Side {
        if self.is_apart {
            Side::Namespaces
        } else {
            Side::Account(self.uid)
        }
    }

    fn is_on(&self) -> bool {
        self.thread.strong_count() > 0
    }

    fn is_told(&self, now: Instant) -> bool {
        self.again || (self.is_on() && now.duration_since(self.at) >= TOLD_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use procwarden_common::id::BootId;

    use super::*;

    const ALICE: Side = Side::Account(1000);

    fn alice(pid: u32) -> Owner {
        Owner {
            key: key(pid),
            uid: 1000,
        }
    }

    fn key(pid: u32) -> ProcessKey {
        ProcessKey {
            boot_id: BootId::from_slice(&[7; 16]).unwrap(),
            pid,
            start_time: 1,
        }
    }

    #[test]
    fn a_process_is_told_of_when_its_thread_hangs_on() {
        let (mut hangs, now, life) = (Hangs::default(), Instant::now(), Arc::new(()));
        hangs.note(alice(1), ALICE, What::Memory, Arc::downgrade(&life), now);
        hangs.note(alice(1), ALICE, What::File, Weak::new(), now);
        hangs.note(alice(2), ALICE, What::Memory, Weak::new(), now);
        let soon = now + TOLD_AFTER - Duration::from_millis(1);
        assert!(hangs.told(soon).is_empty());
        let hung = Hung {
            reads: vec![What::Memory, What::File],
            side: ALICE,
        };
        // Nor is it the one that came back, nor another of the same account.
        assert_eq!(
            hangs.told(now + TOLD_AFTER),
            HashMap::from([(key(1), hung)])
        );
        drop(life);
        assert!(hangs.told(now + TOLD_AFTER).is_empty());
    }

    #[test]
    fn a_process_that_hangs_briefly_each_time_it_is_asked_is_told_of_too() {
        let (mut hangs, now) = (Hangs::default(), Instant::now());
        hangs.note(alice(1), ALICE, What::Memory, Weak::new(), now);
        let later = now + HANG_KEPT;
        hangs.forget(later);
        assert!(hangs.is_empty() && hangs.told(later).is_empty());
        hangs.note(alice(1), ALICE, What::Memory, Weak::new(), later);
        hangs.note(alice(2), ALICE, What::Memory, Weak::new(), later);
        let told: Vec<_> = hangs.told(later).into_keys().collect();
        assert_eq!(told, [key(1)]);
    }

    #[test]
    fn that_a_process_hung_before_is_forgotten_in_the_end_and_bounded() {
        let (mut hangs, now) = (Hangs::default(), Instant::now());
        for pid in 0..2000 {
            hangs.note(alice(pid), ALICE, What::Memory, Weak::new(), now);
        }
        hangs.forget(now + HANG_KEPT);
        assert_eq!(hangs.before.len(), BEFORE_MAX);
        hangs.forget(now + HANG_KEPT + BEFORE_KEPT);
        assert!(hangs.before.is_empty());
    }
}
