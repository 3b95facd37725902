//! Patterns on one text, asked together: the text is read once for all of them.
//!
//! Every pattern is anchored at both ends, so one automaton that reads forward
//! from the beginning is enough. `regex::RegexSet` builds a second one that
//! reads backward and keeps more beside it: several times the memory, of which
//! an agent has little, and no way to say how much it took.

use std::sync::{Mutex, PoisonError};

use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson::{Compiler, Config, NFA, State, WhichCaptures};
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input, MatchKind, PatternSet};

/// Bytes of the tables that a set builds while it matches: some for every set,
/// more for each pattern, and never more than these. Full tables are built
/// anew, which is slow but right.
const TABLES_BYTES_MIN: usize = 256 * 1024;
const TABLES_BYTES_EACH: usize = 384;
const TABLES_BYTES_MAX: usize = 1024 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Patterns {
    automaton: DFA,
    /// What matching has learnt. Nobody waits for it for long: an agent judges
    /// on one thread, and so does each preview.
    tables: Mutex<Cache>,
}

/// The patterns together take more than they may.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooBig;

impl Patterns {
    /// Compiles patterns whose syntax was checked before: what is left to go
    /// wrong is the size.
    pub(super) fn build(texts: &[String], bytes_max: usize) -> Result<Self, TooBig> {
        let config = Config::new()
            .utf8(false)
            .which_captures(WhichCaptures::None)
            .nfa_size_limit(Some(bytes_max));
        let nfa = Compiler::new()
            .syntax(syntax::Config::new().unicode(false).utf8(false))
            .configure(config)
            .build_many(texts)
            .map_err(|_| TooBig)?;
        let tables = TABLES_BYTES_MIN + texts.len().saturating_mul(TABLES_BYTES_EACH);
        let automaton = lazy(&nfa, tables.min(TABLES_BYTES_MAX)).ok_or(TooBig)?;
        let tables = Mutex::new(automaton.create_cache());
        Ok(Self { automaton, tables })
    }

    /// Bytes that it takes, without its tables.
    pub(super) fn bytes(&self) -> usize {
        self.automaton.get_nfa().memory_usage()
    }

    /// The numbers of the patterns that cover a text, in rising order.
    pub(super) fn matches(&self, text: &str) -> Vec<usize> {
        let mut found = PatternSet::new(self.automaton.pattern_len());
        let input = Input::new(text).anchored(Anchored::Yes);
        let searched = {
            let mut tables = self.tables.lock().unwrap_or_else(|poisoned| {
                // A panic may have left them half written.
                self.tables.clear_poison();
                let mut tables = PoisonError::into_inner(poisoned);
                tables.reset(&self.automaton);
                tables
            });
            self.automaton
                .try_which_overlapping_matches(&mut tables, &input, &mut found)
        };
        // It gives up only where it was told to, which it was not; if it did,
        // the text would be covered by nothing.
        match searched {
            Ok(()) => found.iter().map(|pattern| pattern.as_usize()).collect(),
            Err(_) => Vec::new(),
        }
    }
}

/// An automaton whose tables may take so many bytes, or what it needs at least.
pub(in crate::policy) fn lazy(nfa: &NFA, tables: usize) -> Option<DFA> {
    let capacity = tables.max(least_bytes(nfa));
    let config = DFA::config()
        .match_kind(MatchKind::All)
        .cache_capacity(capacity.saturating_add(stack_bytes(nfa)))
        .skip_cache_capacity_check(true);
    let mut builder = DFA::builder();
    builder.configure(config).build_from_nfa(nfa.clone()).ok()
}

/// No less than what the automaton believes to need at least: a few of its own
/// states, each of which may hold all states of the NFA, and sets of those.
fn least_bytes(nfa: &NFA) -> usize {
    let states = nfa.states().len().saturating_mul(32);
    let patterns = nfa.pattern_len().saturating_mul(16);
    (16 * 1024_usize)
        .saturating_add(states)
        .saturating_add(patterns)
}

/// Bytes of the list of alternatives that are still to be followed, which grows
/// by doubling. What the automaton believes to need at least counts states
/// only, and many alternatives may lead to one: where the list did not fit, it
/// would clear its tables, to clear them again, until the stack is used up.
fn stack_bytes(nfa: &NFA) -> usize {
    let alternatives = nfa.states().iter().map(|state| match state {
        State::Union { alternates } => alternates.len(),
        _ => 2,
    });
    alternatives.sum::<usize>().saturating_mul(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(texts: &[&str]) -> Patterns {
        let texts: Vec<String> = texts.iter().map(|t| format!(r"\A(?:{t})\z")).collect();
        Patterns::build(&texts, 1 << 20).unwrap()
    }

    #[test]
    fn every_pattern_that_covers_the_whole_text_is_named_in_order() {
        let set = patterns(&["a.*", "b", "ab", "(?i)AB", r"a\b.*", "", r"\w+"]);
        assert_eq!(set.matches("ab"), [0, 2, 3, 6]);
        assert_eq!(set.matches("b"), [1, 6]);
        assert_eq!(set.matches("a-"), [0, 4]);
        assert_eq!(set.matches(""), [5]);
        assert_eq!(set.matches("xab"), [6]);
        assert_eq!(patterns(&[]).matches("x"), [0; 0]);
    }

    #[test]
    fn full_tables_are_built_anew() {
        // Far more states than the tables hold.
        let texts: Vec<String> = (0..40).map(|n| format!(".*[ab]{n}x.{{40}}")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let set = patterns(&texts);
        let tail = "y".repeat(40);
        let noise: String = (0..3_000_u32)
            .map(|n| char::from(b'a' + (n.wrapping_mul(2_654_435_761) >> 28) as u8))
            .collect();
        assert_eq!(set.matches(&format!("{noise}a7x{tail}")), [7]);
        assert_eq!(set.matches(&format!("{noise}a7x{tail}y")), [0; 0]);
    }

    #[test]
    fn any_number_of_alternatives_to_nothing_fits_into_the_tables() {
        let text = format!("/x/[a-z]+(?:(?:){})", "|(?:)".repeat(70_000));
        let text = format!(r"\A(?:{text})\z");
        let set = Patterns::build(&[text], 1 << 26).unwrap();
        assert_eq!(set.matches("/x/abc"), [0]);
        assert_eq!(set.matches("/x/"), [0; 0]);
    }

    #[test]
    fn what_takes_too_much_is_refused() {
        let big = vec![r"\A(?:(x{100}){100})\z".to_owned()];
        assert_eq!(Patterns::build(&big, 1 << 16).err(), Some(TooBig));
        assert!(patterns(&["abc"]).bytes() > 0);
    }
}
