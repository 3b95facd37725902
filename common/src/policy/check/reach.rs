//! What a pattern can cover, told from the pattern itself and not from
//! examples: the places below which it covers something, the names that it
//! ends with, and whether it covers all that another one does.
//!
//! Promises never to say that something is covered which is not. Patterns with
//! look-around are not read, and long lists are cut off: nothing is said then.

use regex_automata::hybrid::LazyStateID;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson::{Compiler, Config, WhichCaptures};
use regex_automata::{Anchored, Input};
use regex_syntax::hir::literal::{ExtractKind, Extractor, Seq};
use regex_syntax::hir::{Hir, HirKind, Look};

use crate::policy::matcher::patterns;
use crate::policy::pattern;

/// Texts that are written out of one pattern.
const LITERALS_MAX: usize = 64;

/// Bytes that one pattern may take for this.
const BYTES_MAX: usize = 1 << 20;

/// One pattern.
pub(super) struct Reach {
    hir: Hir,
    automaton: Option<(DFA, Cache)>,
}

/// A text that a pattern covers, or the beginning of some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Begin {
    pub(super) text: String,
    /// It is the whole text.
    pub(super) is_whole: bool,
}

impl Reach {
    /// Nothing for a pattern with look-around.
    pub(super) fn of(pattern: &str) -> Option<Self> {
        let hir = pattern::plain_syntax(pattern)?;
        Some(Self {
            hir,
            automaton: None,
        })
    }

    /// What every text of the pattern ends with: one of these.
    pub(super) fn ends(&self) -> Vec<String> {
        texts(&self.extract(ExtractKind::Suffix))
            .into_iter()
            .map(|begin| begin.text)
            .collect()
    }

    /// What every text of the pattern begins with: one of these. None when
    /// there are too many.
    pub(super) fn begins(&self) -> Vec<Begin> {
        texts(&self.extract(ExtractKind::Prefix))
    }

    /// Whether anything may follow at its end: it ends with `.*`.
    pub(super) fn is_open(&self) -> bool {
        let last = match self.hir.kind() {
            HirKind::Concat(parts) => parts.last().unwrap_or(&self.hir),
            _ => &self.hir,
        };
        let HirKind::Repetition(repetition) = last.kind() else {
            return false;
        };
        repetition.min == 0 && repetition.max.is_none()
    }

    /// Whether it covers any text that begins so.
    pub(super) fn covers_below(&mut self, begin: &str) -> bool {
        self.walk(begin, |_, _, _| Some(true)).unwrap_or(false)
    }

    /// Whether it covers every text that begins so.
    pub(super) fn covers_all_below(&mut self, begin: &str) -> bool {
        self.walk(begin, |automaton, cache, state| {
            // From here every character has to lead to one state, which it
            // never leaves and in which a text may end.
            let first = same_for_all(automaton, cache, state)?;
            let then = same_for_all(automaton, cache, first)?;
            let ends = [state, first].map(|state| automaton.next_eoi_state(cache, state));
            let is_end =
                |end: &Result<LazyStateID, _>| end.as_ref().is_ok_and(|end| end.is_match());
            Some(then == first && ends.iter().all(is_end))
        })
        .unwrap_or(false)
    }

    /// Reads a beginning, and asks about the state behind it; nothing when no
    /// text begins so.
    fn walk(
        &mut self,
        begin: &str,
        ask: impl FnOnce(&DFA, &mut Cache, LazyStateID) -> Option<bool>,
    ) -> Option<bool> {
        if self.automaton.is_none() {
            self.automaton = Some(automaton(&self.hir)?);
        }
        let (automaton, cache) = self.automaton.as_mut()?;
        let input = Input::new("").anchored(Anchored::Yes);
        let mut state = automaton.start_state_forward(cache, &input).ok()?;
        for byte in begin.bytes() {
            state = automaton.next_state(cache, state, byte).ok()?;
            if state.is_dead() || state.is_quit() {
                return None;
            }
        }
        ask(automaton, cache, state)
    }

    fn extract(&self, kind: ExtractKind) -> Seq {
        Extractor::new()
            .kind(kind)
            .limit_class(LITERALS_MAX)
            .limit_total(LITERALS_MAX)
            .extract(&self.hir)
    }
}

fn same_for_all(automaton: &DFA, cache: &mut Cache, state: LazyStateID) -> Option<LazyStateID> {
    let first = automaton.next_state(cache, state, b' ').ok()?;
    for byte in b' '..=b'~' {
        if automaton.next_state(cache, state, byte).ok()? != first {
            return None;
        }
    }
    Some(first)
}

fn automaton(hir: &Hir) -> Option<(DFA, Cache)> {
    let config = Config::new()
        .utf8(false)
        .which_captures(WhichCaptures::None)
        .nfa_size_limit(Some(BYTES_MAX));
    let whole = Hir::concat(vec![hir.clone(), Hir::look(Look::End)]);
    let nfa = Compiler::new()
        .configure(config)
        .build_from_hir(&whole)
        .ok()?;
    let automaton = patterns::lazy(&nfa, BYTES_MAX)?;
    let cache = automaton.create_cache();
    Some((automaton, cache))
}

fn texts(found: &Seq) -> Vec<Begin> {
    let literals = found.literals().unwrap_or_default();
    let begin = |literal: &regex_syntax::hir::literal::Literal| {
        Some(Begin {
            text: String::from_utf8(literal.as_bytes().to_vec()).ok()?,
            is_whole: literal.is_exact(),
        })
    };
    // One that is left out would make a lie of "one of these".
    literals
        .iter()
        .map(begin)
        .collect::<Option<_>>()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(pattern: &str) -> Reach {
        Reach::of(pattern).unwrap()
    }

    #[test]
    fn a_pattern_reaches_below_the_places_that_its_texts_can_be_in() {
        for (pattern, place, reaches) in [
            (".*/exporter", "/tmp/", true),
            ("/(opt|tmp)/x", "/tmp/", true),
            ("/[a-z]+/x", "/tmp/", true),
            ("/t.*", "/tmp/", true),
            ("/opt/tmp/.*", "/tmp/", false),
            ("/tmp", "/tmp/", false),
            ("/usr/.*", "/tmp/", false),
            ("/home[0-9]*/bob/x", "/home", true),
        ] {
            assert_eq!(reach(pattern).covers_below(place), reaches, "{pattern}");
        }
    }

    #[test]
    fn ends_and_begins_are_told_where_they_are_fixed() {
        assert_eq!(
            reach("/opt/x/(perl|php)5").ends(),
            ["/opt/x/perl5", "/opt/x/php5"]
        );
        assert_eq!(reach(".*/node_exporter").ends(), ["/node_exporter"]);
        assert_eq!(reach("/usr/.*").ends(), [""; 0]);
        let begin = |text: &str, is_whole| Begin {
            text: text.into(),
            is_whole,
        };
        assert_eq!(
            reach("/a[bc]").begins(),
            [begin("/ab", true), begin("/ac", true)]
        );
        assert_eq!(reach("/a/.+").begins(), [begin("/a/", false)]);
        assert_eq!(reach(".*").begins(), []);
        assert!(Reach::of("(?!a)b").is_none());
    }

    #[test]
    fn all_that_begins_so_is_covered_only_by_what_is_open_at_its_end() {
        for (pattern, begin, covers) in [
            ("/a/.*", "/a/", true),
            ("/a/.*", "/a/b/", true),
            ("/.*", "/a/", true),
            ("/a/.*", "/a", false),
            ("/a/.+", "/a/", false),
            ("/a/.+", "/a/b", true),
            ("/a/[^/]*", "/a/", false),
            ("/a/.*x", "/a/", false),
            ("(?s:.*)", "", true),
        ] {
            assert_eq!(
                reach(pattern).covers_all_below(begin),
                covers,
                "{pattern} {begin}"
            );
        }
        let open = ["/a.*", "/a/[^/]*", "a*"].map(|pattern| reach(pattern).is_open());
        assert_eq!(open, [true; 3]);
        let closed = ["/a", "/a.+", "a.*b"].map(|pattern| reach(pattern).is_open());
        assert_eq!(closed, [false; 3]);
    }
}
