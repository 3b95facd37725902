//! How long each side kept whoever asks waiting, and who is not asked for that.
//!
//! Whoever answers just in time would stop the scanner as well as whoever
//! hangs. Each side has a bound of its own, and because accounts are many there
//! are two for all of them together: behind the first those that took part are
//! not asked, behind the second nobody but root is.
//!
//! Pure but for who asks when. Promises: root is always asked; and where root's
//! own processes are slow too, the machine is, and nobody is held to what all
//! took together.

use std::time::{Duration, Instant};

use super::{HANG_KEPT, Side, What};

/// Slow answers of one side may take so long together.
const SLOW_MAX: Duration = Duration::from_secs(30);
/// Slow answers and hangs of all sides together, before those that took part
/// are not asked.
const TOGETHER_MAX: Duration = Duration::from_secs(60);
/// Whoever took less than this has no part in it: innocents are slow at times.
const PART_MIN: Duration = Duration::from_secs(1);
/// The same, before nobody is asked: many could take less than a part each. As
/// long as the threads that may hang would take for arguments.
const ALL_MAX: Duration = Duration::from_secs(120);
/// When root's processes take this part of what all others take, the machine is
/// slow (it swaps, its disks or servers do not answer), and not the accounts.
const ROOT_PART: u32 = 10;

const ROOT: Side = Side::Account(0);

/// Times of waiting, each kept for as long as a hang.
#[derive(Debug, Default)]
pub(super) struct Waited(Vec<Wait>);

/// How long one side was waited for with one kind of question.
#[derive(Debug)]
struct Wait {
    side: Side,
    what: What,
    since: Instant,
    /// Until slow answers came.
    slow: Duration,
    /// For answers that never came.
    hung: Duration,
}

impl Waited {
    pub(super) fn forget(&mut self, now: Instant) {
        self.0
            .retain(|wait| now.duration_since(wait.since) < HANG_KEPT);
    }

    /// An answer was slow.
    pub(super) fn add_slow(&mut self, side: Side, what: What, took: Duration, now: Instant) {
        let slow = &mut self.place(side, what, now).slow;
        *slow = slow.saturating_add(took);
    }

    /// An answer was waited for in vain.
    pub(super) fn add_hang(&mut self, side: Side, what: What, took: Duration, now: Instant) {
        let hung = &mut self.place(side, what, now).hung;
        *hung = hung.saturating_add(took);
    }

    /// Whether there is anybody who is not asked.
    pub(super) fn shuns_anybody(&self) -> bool {
        let is_too_slow = |wait: &Wait| wait.side != ROOT && wait.is_too_slow();
        self.0.iter().any(is_too_slow)
            || (What::ALL.iter()).any(|what| self.together(*what) >= TOGETHER_MAX)
    }

    /// Whether a side is not asked.
    pub(super) fn shuns(&self, side: Side, what: What) -> bool {
        if side == ROOT {
            return false;
        }
        let mut own = self.0.iter();
        let own = own.find(|wait| wait.side == side && wait.what == what);
        self.together(what) >= ALL_MAX || own.is_some_and(|own| self.shuns_for(own))
    }

    /// Who is not asked, in words.
    pub(super) fn words(&self) -> Vec<String> {
        if What::ALL.iter().any(|what| self.together(*what) >= ALL_MAX) {
            return vec!["all but root's, which are slow together".to_owned()];
        }
        let shunned = self.0.iter().filter(|wait| wait.side != ROOT);
        let mut words: Vec<String> = shunned
            .filter(|wait| self.shuns_for(wait))
            .map(|wait| match wait.side {
                Side::Account(uid) => format!("all of uid {uid}, which are slow"),
                Side::Namespaces => "all in user namespaces, which are slow".to_owned(),
            })
            .collect();
        words.sort_unstable();
        words.dedup();
        words
    }

    /// Whether a side that is not root's is not asked for its own part.
    fn shuns_for(&self, own: &Wait) -> bool {
        let has_part = own.took() >= PART_MIN;
        own.is_too_slow() || (has_part && self.together(own.what) >= TOGETHER_MAX)
    }

    /// What all accounts but root took; nothing where the machine is slow. What
    /// is in user namespaces counts for its account as well.
    fn together(&self, what: What) -> Duration {
        let alike = self.0.iter().filter(|wait| wait.what == what);
        let alike = alike.filter(|wait| wait.side != Side::Namespaces);
        let (root, others): (Vec<&Wait>, Vec<&Wait>) = alike.partition(|wait| wait.side == ROOT);
        let sum = |waits: Vec<&Wait>| waits.into_iter().map(Wait::took).sum::<Duration>();
        let (root, others) = (sum(root), sum(others));
        if root.saturating_mul(ROOT_PART) >= others {
            return Duration::ZERO;
        }
        others
    }

    fn place(&mut self, side: Side, what: What, now: Instant) -> &mut Wait {
        let mut known = self.0.iter();
        let known = known.position(|wait| wait.side == side && wait.what == what);
        let place = known.unwrap_or(self.0.len());
        if known.is_none() {
            self.0.push(Wait {
                side,
                what,
                since: now,
                slow: Duration::ZERO,
                hung: Duration::ZERO,
            });
        }
        &mut self.0[place]
    }
}

impl Wait {
    const fn took(&self) -> Duration {
        self.slow.saturating_add(self.hung)
    }

    /// Hangs of one side have a bound of their own (hangs.rs).
    fn is_too_slow(&self) -> bool {
        self.slow >= SLOW_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INNOCENT: Side = Side::Account(4711);

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    /// So many accounts, each with as much.
    fn slow(accounts: u32, took: Duration) -> Waited {
        let (mut waited, now) = (Waited::default(), Instant::now());
        for uid in 1..=accounts {
            waited.add_slow(Side::Account(uid), What::Memory, took, now);
        }
        waited
    }

    #[test]
    fn one_side_that_is_slow_in_sum_is_not_asked_and_root_always_is() {
        let mut waited = slow(1, secs(29));
        assert!(!waited.shuns(Side::Account(1), What::Memory) && !waited.shuns_anybody());
        let now = Instant::now();
        waited.add_slow(Side::Account(1), What::Memory, secs(1), now);
        assert!(waited.shuns(Side::Account(1), What::Memory) && waited.shuns_anybody());
        assert!(!waited.shuns(Side::Account(1), What::File));
        assert_eq!(waited.words(), ["all of uid 1, which are slow"]);
        let mut waited = Waited::default();
        waited.add_slow(ROOT, What::Memory, secs(500), now);
        assert!(!waited.shuns(ROOT, What::Memory) && !waited.shuns_anybody());
        assert!(waited.words().is_empty());
    }

    #[test]
    fn ten_accounts_that_keep_below_their_bound_do_not_keep_below_that_of_all() {
        let mut waited = slow(9, secs(6));
        assert!(!waited.shuns_anybody());
        let now = Instant::now();
        waited.add_slow(Side::Account(10), What::Memory, secs(6), now);
        waited.add_slow(INNOCENT, What::Memory, Duration::from_millis(900), now);
        for uid in 1..=10 {
            assert!(waited.shuns(Side::Account(uid), What::Memory), "{uid}");
        }
        for side in [INNOCENT, Side::Namespaces, ROOT] {
            assert!(!waited.shuns(side, What::Memory), "{side:?}");
        }
        assert!(!waited.shuns(Side::Account(1), What::Content));
        assert_eq!(waited.words().len(), 10);
    }

    #[test]
    fn hangs_count_for_all_together_by_the_time_they_were_waited_for() {
        let (mut waited, now) = (Waited::default(), Instant::now());
        for uid in 1..=11 {
            waited.add_hang(Side::Account(uid), What::Memory, secs(5), now);
        }
        // One account alone has a bound on how many may hang, and what is in
        // user namespaces counts once.
        waited.add_hang(Side::Namespaces, What::Memory, secs(50), now);
        assert!(!waited.shuns_anybody());
        waited.add_hang(Side::Account(12), What::Memory, secs(5), now);
        assert!(waited.shuns(Side::Namespaces, What::Memory));
        assert!(waited.shuns(Side::Account(1), What::Memory));
        assert!(!waited.shuns(INNOCENT, What::Memory));
    }

    #[test]
    fn accounts_too_many_for_a_part_each_are_bounded_as_well() {
        let waited = slow(130, Duration::from_millis(900));
        assert!(!waited.shuns(Side::Account(1), What::Memory));
        let waited = slow(140, Duration::from_millis(900));
        assert!(waited.shuns(Side::Account(1), What::Memory));
        assert!(waited.shuns(INNOCENT, What::Memory));
        assert!(!waited.shuns(ROOT, What::Memory) && !waited.shuns(INNOCENT, What::File));
        assert_eq!(waited.words(), ["all but root's, which are slow together"]);
    }

    #[test]
    fn on_a_slow_machine_nobody_is_held_to_what_all_took() {
        let now = Instant::now();
        let mut waited = slow(140, secs(2));
        waited.add_slow(ROOT, What::Memory, secs(27), now);
        assert!(waited.shuns(INNOCENT, What::Memory));
        waited.add_slow(ROOT, What::Memory, secs(1), now);
        assert!(!waited.shuns_anybody() && waited.words().is_empty());
        waited.add_slow(Side::Account(1), What::Memory, secs(28), now);
        assert!(waited.shuns(Side::Account(1), What::Memory));
    }

    #[test]
    fn what_was_waited_is_forgotten_with_hangs() {
        let mut waited = slow(10, secs(30));
        waited.forget(Instant::now());
        assert!(waited.shuns_anybody());
        waited.forget(Instant::now() + HANG_KEPT);
        assert!(!waited.shuns_anybody() && waited.0.is_empty());
    }
}
