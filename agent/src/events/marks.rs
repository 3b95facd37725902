//! Which processes to look at, and when.
//!
//! Pure. Promises: one mark per PID, and the earliest moment asked for wins,
//! so that a process that executes program after program is looked at all the
//! same; never holds more than a fixed number, and counts what it had to pass
//! over. A mark is a hint: the PID may be anybody's by the time it is due.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

/// Marks that wait at once: about a third of a second of the wildest start of
/// programs, and 600 KiB.
pub(crate) const MARKS_MAX: usize = 4096;

/// Marked processes.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    due_of: HashMap<u32, Instant>,
    by_due: BTreeSet<(Instant, u32)>,
}

impl Marks {
    /// Marks a process; false when there is no room for it.
    #[must_use]
    pub(crate) fn mark(&mut self, pid: u32, due: Instant) -> bool {
        if let Some(known) = self.due_of.get_mut(&pid) {
            if due < *known {
                self.by_due.remove(&(*known, pid));
                self.by_due.insert((due, pid));
                *known = due;
            }
            return true;
        }
        if self.due_of.len() >= MARKS_MAX {
            return false;
        }
        self.due_of.insert(pid, due);
        self.by_due.insert((due, pid));
        true
    }

    /// When the next one is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.by_due.first().map(|(due, _)| *due)
    }

    /// Takes those that are due, the oldest first, `max` at most.
    pub(crate) fn take_due(&mut self, now: Instant, max: usize) -> Vec<u32> {
        let mut pids = Vec::new();
        while pids.len() < max
            && let Some(&(due, pid)) = self.by_due.first()
            && due <= now
        {
            self.by_due.pop_first();
            self.due_of.remove(&pid);
            pids.push(pid);
        }
        pids
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_earliest_moment_wins_and_each_process_is_taken_once() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let mut marks = Marks::default();
        assert!(marks.mark(7, at(50)) && marks.mark(7, at(90)) && marks.mark(8, at(60)));
        assert!(marks.mark(8, at(10)));
        assert_eq!(marks.next_due(), Some(at(10)));
        assert!(marks.take_due(at(9), 9).is_empty());
        assert_eq!(marks.take_due(at(100), 9), [8, 7]);
        assert_eq!(marks.next_due(), None);
    }

    #[test]
    fn what_has_no_room_is_refused_and_what_is_known_is_not() {
        let now = Instant::now();
        let mut marks = Marks::default();
        for pid in 0..MARKS_MAX as u32 {
            assert!(marks.mark(pid, now));
        }
        assert!(!marks.mark(u32::MAX, now));
        assert!(marks.mark(5, now));
        assert_eq!(marks.take_due(now, usize::MAX).len(), MARKS_MAX);
    }

    proptest! {
        #[test]
        fn behaves_like_a_map_from_processes_to_moments(
            steps in proptest::collection::vec((0u32..8, 0u64..100, any::<bool>()), 0..60)
        ) {
            let begin = Instant::now();
            let at = |ms| begin + Duration::from_millis(ms);
            let (mut marks, mut model) = (Marks::default(), BTreeMap::<u32, u64>::new());
            for (pid, ms, takes) in steps {
                if takes {
                    let mut expected: Vec<(u64, u32)> =
                        model.iter().filter(|(_, due)| **due <= ms).map(|(p, due)| (*due, *p)).collect();
                    expected.sort_unstable();
                    expected.truncate(3);
                    let expected: Vec<u32> = expected.into_iter().map(|(_, pid)| pid).collect();
                    expected.iter().for_each(|pid| { model.remove(pid); });
                    prop_assert_eq!(marks.take_due(at(ms), 3), expected);
                } else {
                    let due = model.entry(pid).or_insert(ms);
                    *due = ms.min(*due);
                    prop_assert!(marks.mark(pid, at(ms)));
                }
                prop_assert_eq!(marks.next_due(), model.values().min().map(|ms| at(*ms)));
                prop_assert_eq!(marks.due_of.len(), marks.by_due.len());
            }
        }
    }
}
