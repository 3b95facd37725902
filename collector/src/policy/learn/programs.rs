//! The programs that are told apart while the history is read, in classes
//! with bounds of their own: what any account can make thousands of does not
//! take the room of what can be proposed.
//!
//! Promises: memory is bounded; a program that was doubted once is never
//! proposed, also when there was no room for it then; whatever has no room is
//! counted.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashSet};
use std::hash::BuildHasher;

use procwarden_common::finding::StoredFinding;
use procwarden_common::policy::suggest::is_writable_by;
use procwarden_common::process::{DELETED_SUFFIX, UNREACHABLE_PREFIX};

use super::Program;

/// Programs of each class that are told apart.
pub(super) const PROPOSABLE_MAX: usize = 5_000;
pub(super) const DOUBTED_MAX: usize = 2_500;
pub(super) const ANYWHERE_MAX: usize = 2_500;

/// Programs of each class beyond that, of which a few bytes are kept.
const TURNED_AWAY_MAX: usize = 100_000;

/// Every program that was found.
#[derive(Debug)]
pub(super) struct Programs {
    /// Everything that was found about them allows a rule.
    proposable: Class,
    /// Something that was found speaks against a rule, such as its severity.
    doubted: Class,
    /// In places where any account can make names: nothing that is found can
    /// bring them a rule.
    anywhere: Class,
    hasher: RandomState,
}

/// What there was no room for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct TurnedAway {
    pub(super) findings: u64,
    pub(super) programs: u64,
    /// There are more programs than that.
    pub(super) too_many: bool,
}

#[derive(Debug)]
struct Class {
    programs: BTreeMap<String, Program>,
    programs_max: usize,
    /// Hashes of the names that had no room.
    turned_away: HashSet<u64>,
    findings_turned_away: u64,
    too_many: bool,
}

impl Default for Programs {
    fn default() -> Self {
        Self {
            proposable: Class::new(PROPOSABLE_MAX),
            doubted: Class::new(DOUBTED_MAX),
            anywhere: Class::new(ANYWHERE_MAX),
            hasher: RandomState::new(),
        }
    }
}

impl Programs {
    /// Counts a finding under a name; `rule` is the line for it, or why there
    /// is none.
    pub(super) fn add(
        &mut self,
        stored: &StoredFinding,
        name: String,
        rule: Result<String, String>,
    ) {
        if let Some(known) = self.find(&name) {
            // One doubtful process of a program is enough to leave it out.
            if known.rule.is_ok() {
                known.rule = rule;
            }
            known.add(stored);
            return;
        }
        let hash = self.hasher.hash_one(&name);
        let class = if is_anywhere(&name) {
            &mut self.anywhere
        } else if rule.is_err() {
            &mut self.doubted
        } else if self.doubted.may_have_turned_away(hash) {
            return self.doubted.turn_away(hash);
        } else {
            &mut self.proposable
        };
        class.take(hash, name, Program::new(rule), stored);
    }

    fn find(&mut self, name: &str) -> Option<&mut Program> {
        [&mut self.proposable, &mut self.doubted, &mut self.anywhere]
            .into_iter()
            .find_map(|class| class.programs.get_mut(name))
    }

    /// What there was no room for.
    pub(super) fn turned_away(&self) -> TurnedAway {
        let classes = [&self.proposable, &self.doubted, &self.anywhere];
        classes
            .into_iter()
            .fold(TurnedAway::default(), |sum, class| TurnedAway {
                findings: sum.findings + class.findings_turned_away,
                programs: sum.programs + class.turned_away.len() as u64,
                too_many: sum.too_many | class.too_many,
            })
    }

    /// Every program that was told apart, by name.
    pub(super) fn into_programs(self) -> impl Iterator<Item = (String, Program)> {
        let classes = [self.proposable, self.doubted, self.anywhere];
        classes.into_iter().flat_map(|class| class.programs)
    }
}

impl Class {
    fn new(programs_max: usize) -> Self {
        Self {
            programs: BTreeMap::new(),
            programs_max,
            turned_away: HashSet::new(),
            findings_turned_away: 0,
            too_many: false,
        }
    }

    fn take(&mut self, hash: u64, name: String, mut program: Program, stored: &StoredFinding) {
        if self.programs.len() >= self.programs_max {
            return self.turn_away(hash);
        }
        program.add(stored);
        self.programs.insert(name, program);
    }

    fn turn_away(&mut self, hash: u64) {
        self.findings_turned_away += 1;
        if self.turned_away.len() < TURNED_AWAY_MAX {
            self.turned_away.insert(hash);
        } else if !self.turned_away.contains(&hash) {
            self.too_many = true;
        }
    }

    /// Errs on the side of yes.
    fn may_have_turned_away(&self, hash: u64) -> bool {
        self.too_many || self.turned_away.contains(&hash)
    }
}

/// Whether any account can have made this name, whoever ran it here.
fn is_anywhere(name: &str) -> bool {
    let suffix = std::str::from_utf8(DELETED_SUFFIX).unwrap_or_default();
    let prefix = std::str::from_utf8(UNREACHABLE_PREFIX).unwrap_or_default();
    let is_path = name.starts_with('/');
    name.starts_with(prefix) || is_path && (name.ends_with(suffix) || is_writable_by(name, 0, ""))
}

#[cfg(test)]
mod tests {
    use super::super::tests::finding;
    use super::*;
    use procwarden_common::severity::Severity;

    fn add(programs: &mut Programs, name: &str, rule: Result<&str, &str>) {
        let stored = finding(1, 1, Some(name.as_bytes()), Severity::Low);
        let rule = rule.map(str::to_owned).map_err(str::to_owned);
        programs.add(&stored, name.to_owned(), rule);
    }

    fn proposed(programs: Programs) -> Vec<String> {
        let all = programs.into_programs();
        let good = all.filter(|(_, program)| program.rule.is_ok());
        good.map(|(name, _)| name).collect()
    }

    #[test]
    fn names_that_any_account_can_make_are_told_by_themselves() {
        for (name, expected) in [
            ("/tmp/x", true),
            ("/dev/shm/x", true),
            ("/home/bob/x", true),
            ("/memfd:x (deleted)", true),
            ("/usr/sbin/x (deleted)", true),
            ("(unreachable)/usr/sbin/x", true),
            ("/usr/sbin/x", false),
            ("/usr/bin/perl", false),
            ("/srv/bob/x", true),
            ("/var/lib/bob/x", false),
            ("(the host itself)", false),
        ] {
            assert_eq!(is_anywhere(name), expected, "{name}");
        }
    }

    #[test]
    fn doubtful_programs_take_no_room_of_proposable_ones() {
        let mut programs = Programs::default();
        for n in 0..PROPOSABLE_MAX + DOUBTED_MAX {
            add(&mut programs, &format!("/tmp/{n}"), Err("writable"));
            add(&mut programs, &format!("/var/lib/bob/{n}"), Err("writable"));
        }
        for n in 0..PROPOSABLE_MAX {
            add(&mut programs, &format!("/usr/sbin/{n}"), Ok("exe:"));
        }
        let away = programs.turned_away();
        assert_eq!((away.findings, away.programs), (10_000, 10_000));
        assert!(!away.too_many);
        add(&mut programs, "/usr/sbin/one-more", Ok("exe:"));
        add(&mut programs, "/usr/sbin/one-more", Ok("exe:"));
        let away = programs.turned_away();
        assert_eq!((away.findings, away.programs), (10_002, 10_001));
        assert_eq!(proposed(programs).len(), PROPOSABLE_MAX);
    }

    #[test]
    fn a_doubt_without_room_is_remembered() {
        let mut programs = Programs::default();
        for n in 0..DOUBTED_MAX {
            add(&mut programs, &format!("/usr/sbin/{n}"), Err("critical"));
        }
        add(&mut programs, "/usr/sbin/x", Err("critical"));
        add(&mut programs, "/usr/sbin/x", Ok("exe:/usr/sbin/x"));
        add(&mut programs, "/usr/sbin/y", Ok("exe:/usr/sbin/y"));
        add(&mut programs, "/usr/sbin/1", Ok("exe:/usr/sbin/1"));
        assert_eq!(programs.turned_away().programs, 1);
        assert_eq!(proposed(programs), ["/usr/sbin/y"]);
    }

    #[test]
    fn when_not_even_names_have_room_nothing_new_is_proposed() {
        let mut programs = Programs::default();
        for n in 0..=DOUBTED_MAX + TURNED_AWAY_MAX {
            let name = format!("/var/lib/bob/{n}");
            let hash = programs.hasher.hash_one(&name);
            programs.doubted.turn_away(hash);
        }
        assert!(programs.turned_away().too_many);
        add(&mut programs, "/usr/sbin/y", Ok("exe:/usr/sbin/y"));
        assert_eq!(proposed(programs), Vec::<String>::new());
    }
}
