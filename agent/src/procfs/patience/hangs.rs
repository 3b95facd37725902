//! Reads that hung: whose, and who is not asked for that.
//!
//! Pure but for whether a thread lives. Promises: everything is bounded by the
//! threads that may hang and by what is forgotten.

use std::sync::Weak;
use std::time::Instant;

use procwarden_common::process::ProcessKey;

use super::{HANG_KEPT, Side, What};

/// Hangs of different processes after which their account is not asked.
pub(super) const HANGS_MAX: usize = 3;
/// Threads that may hang before nobody's processes but root's are asked; more
/// than one account can make hang. The unit's limit of tasks is the bound.
pub(super) const THREADS_MAX: usize = 24;
/// Everything that hung lately.
#[derive(Debug, Default)]
pub(super) struct Hangs {
    hangs: Vec<Hang>,
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

impl Hangs {
    pub(super) fn forget(&mut self, now: Instant) {
        self.hangs
            .retain(|hang| hang.is_on() || now.duration_since(hang.at) < HANG_KEPT);
    }

    pub(super) fn note(
        &mut self,
        key: ProcessKey,
        side: Side,
        what: What,
        thread: Weak<()>,
        at: Instant,
    ) {
        self.hangs.push(Hang {
            key,
            side,
            what,
            at,
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
        let of_side = |hang: &&Hang| hang.what == what && hang.side == side;
        (side != Side::Account(0) && self.threads() >= THREADS_MAX)
            || self.hangs.iter().filter(of_side).count() >= HANGS_MAX
    }

    /// Threads that hang.
    pub(super) fn threads(&self) -> usize {
        self.hangs.iter().filter(|hang| hang.is_on()).count()
    }

    /// Who hung, in words.
    pub(super) fn words(&self) -> impl Iterator<Item = String> {
        self.hangs.iter().map(Hang::words)
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
        match self.side {
            Side::Account(uid) => format!("{} of uid {uid}", self.key.pid),
            Side::Namespaces => format!("{} in a user namespace", self.key.pid),
        }
    }

    fn is_on(&self) -> bool {
        self.thread.strong_count() > 0
    }
}
