//! Rules ready to be asked: which is the first one that covers a text?
//!
//! Exact rules are in hash maps. Patterns on the same text are one set,
//! because a text is read once for all of them. Promises to refuse what is
//! over the memory limit, and to name the pattern that is.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use regex::bytes::RegexBuilder;

use super::compile::remark;
use super::parse::Parsed;
use super::pattern::{Fancy, Pattern};
use super::{RuleKey, RuleText};
use crate::diagnostic::{Diagnostic, Level};
use crate::limits::PATTERN_BYTES_MAX;

pub(super) mod patterns;

use patterns::{Patterns, TooBig};

/// Bytes above which a compiled pattern alone is called too big, once a set
/// turned out to be.
const PATTERN_ALONE_BYTES: usize = 1024 * 1024;

/// Whether the rule of this number matches at the time in question.
pub(super) type InForce<'a> = &'a dyn Fn(usize) -> bool;

/// The rules of a policy, by the text they look at.
#[derive(Debug, Default)]
pub(super) struct Matchers {
    user: Matcher,
    exe: Matcher,
    cmd: Matcher,
}

/// Rules on one text; numbers are positions in the policy's rules.
#[derive(Debug, Default)]
struct Matcher {
    exact: HashMap<Box<str>, Exact>,
    set: Option<Patterns>,
    /// The rule of each pattern of the set.
    set_rules: Vec<usize>,
    fancy: Vec<Backtracking>,
}

/// A pattern that is asked for itself, within a limit of steps.
#[derive(Debug)]
struct Backtracking {
    /// The number of its rule.
    index: usize,
    pattern: Fancy,
    /// Whether a text was ever too long for it, or took too many steps.
    gave_up: AtomicBool,
}

/// Patterns that may run out of steps on one text. Then the text is made to be
/// slow, and those behind them are not asked.
const SLOW_MAX: usize = 8;

impl Backtracking {
    /// Whether it covers the text; nothing where it ran out of steps. A pattern
    /// that gives up does not cover: a slow one hides nothing. That it did is
    /// remembered, because nobody sees a rule that does not match.
    fn covers(&self, text: &str) -> Option<bool> {
        if text.len() > self.pattern.text_bytes_max {
            self.give_up();
            return Some(false);
        }
        let answer = self.pattern.regex.is_match(text.as_bytes()).ok();
        if answer.is_none() {
            self.give_up();
        }
        answer
    }

    fn give_up(&self) {
        self.gave_up.store(true, Ordering::Relaxed);
    }
}

/// Those of the patterns that cover a text, asked one by one.
fn covering<'a>(
    patterns: impl Iterator<Item = &'a Backtracking>,
    text: &str,
) -> impl Iterator<Item = usize> {
    let mut slow = 0;
    patterns.filter_map(move |pattern| {
        if slow == SLOW_MAX {
            pattern.give_up();
            return None;
        }
        let covers = pattern.covers(text);
        slow += usize::from(covers.is_none());
        covers?.then_some(pattern.index)
    })
}

/// The exact rules on one text.
#[derive(Debug)]
struct Exact {
    first: usize,
    /// Those that outlive every one before: what takes over when it expires.
    later: Vec<usize>,
}

impl Matchers {
    /// Compiles rules; `patterns` holds, rule by rule, the checked patterns.
    pub(super) fn build(
        rules: &[Parsed],
        patterns: Vec<Option<Pattern>>,
    ) -> Result<Self, Vec<Diagnostic>> {
        let mut matchers = [Matcher::default(), Matcher::default(), Matcher::default()];
        let mut texts: [Vec<String>; 3] = Default::default();
        for ((index, parsed), pattern) in rules.iter().enumerate().zip(patterns) {
            let place = place(parsed.rule.key);
            let (Some(matcher), Some(texts)) = (matchers.get_mut(place), texts.get_mut(place))
            else {
                continue;
            };
            match pattern {
                Some(Pattern::Plain(text)) => {
                    matcher.set_rules.push(index);
                    texts.push(text);
                }
                Some(Pattern::Fancy(pattern)) => matcher.fancy.push(Backtracking {
                    index,
                    pattern: *pattern,
                    gave_up: AtomicBool::new(false),
                }),
                None => {
                    matcher.add_exact(rules, index, &parsed.rule.value);
                }
            }
        }
        let mut errors = Vec::new();
        let mut room = PATTERN_BYTES_MAX;
        for (matcher, texts) in matchers.iter_mut().zip(&texts) {
            if texts.is_empty() {
                continue;
            }
            match Patterns::build(texts, room) {
                Ok(set) => {
                    room = room.saturating_sub(set.bytes());
                    matcher.set = Some(set);
                }
                Err(TooBig) => {
                    errors.extend(name_what_is_too_big(rules, &matcher.set_rules, texts));
                }
            }
        }
        let [user, exe, cmd] = matchers;
        if errors.is_empty() {
            Ok(Self { user, exe, cmd })
        } else {
            Err(errors)
        }
    }

    /// The number of the first rule in force that covers a process.
    pub(super) fn first(&self, text: &RuleText, in_force: InForce<'_>) -> Option<usize> {
        let exe = || self.exe.first(text.exe.as_deref()?, in_force);
        let cmd = || self.cmd.first(text.cmd.as_deref()?, in_force);
        self.user
            .first(&text.user, in_force)
            .or_else(exe)
            .or_else(cmd)
    }

    /// The numbers of the rules whose patterns gave up on a text since this was
    /// built, in rising order.
    pub(super) fn gave_up(&self) -> impl Iterator<Item = usize> {
        let fancy = [&self.user, &self.exe, &self.cmd].map(|matcher| &matcher.fancy);
        let fancy = fancy.into_iter().flatten();
        fancy
            .filter(|pattern| pattern.gave_up.load(Ordering::Relaxed))
            .map(|pattern| pattern.index)
    }
}

/// What the check of a policy asks.
impl Matchers {
    fn of(&self, key: RuleKey) -> &Matcher {
        match key {
            RuleKey::User | RuleKey::Puser => &self.user,
            RuleKey::Exe | RuleKey::Pexe => &self.exe,
            RuleKey::Cmd | RuleKey::Pcmd => &self.cmd,
        }
    }

    /// The numbers of the patterns that cover a text of the kind that this key
    /// looks at, without those that need backtracking.
    pub(super) fn set_on(&self, key: RuleKey, text: &str) -> Vec<usize> {
        self.of(key).set_on(text).collect()
    }

    /// The same with all patterns.
    pub(super) fn patterns_on(&self, key: RuleKey, text: &str) -> Vec<usize> {
        let mut found = self.set_on(key, text);
        found.extend(covering(self.of(key).fancy.iter(), text));
        found
    }
}

/// The patterns that are far too big by themselves; if there is none, the
/// first one whose text is the longest.
fn name_what_is_too_big(rules: &[Parsed], numbers: &[usize], texts: &[String]) -> Vec<Diagnostic> {
    let of = |number: &usize| rules.get(*number);
    let is_big = |text: &str| {
        RegexBuilder::new(text)
            .unicode(false)
            .size_limit(PATTERN_ALONE_BYTES)
            .build()
            .is_err()
    };
    let big: Vec<Diagnostic> = numbers
        .iter()
        .zip(texts)
        .filter(|(_, text)| is_big(text))
        .filter_map(|(number, _)| of(number))
        .map(|parsed| {
            let message = format!(
                "the compiled pattern takes more than {PATTERN_ALONE_BYTES} bytes of memory"
            );
            let help = "repeat smaller groups less often".to_owned();
            remark(Level::Error, parsed, parsed.column, message, help)
        })
        .collect();
    if !big.is_empty() {
        return big;
    }
    let longest = numbers
        .iter()
        .filter_map(of)
        .max_by_key(|parsed| parsed.rule.value.len());
    longest
        .map(|parsed| {
            let message = format!(
                "the compiled patterns of the policies of a host take more than \
                 {PATTERN_BYTES_MAX} bytes of memory; this is the longest one on its text"
            );
            let help = "remove patterns, or use exact rules".to_owned();
            remark(Level::Error, parsed, parsed.column, message, help)
        })
        .into_iter()
        .collect()
}

impl Matcher {
    fn add_exact(&mut self, rules: &[Parsed], index: usize, value: &str) {
        let end = |index: usize| rules.get(index).map(|parsed| parsed.rule.facts.end());
        let Some(exact) = self.exact.get_mut(value) else {
            let (first, later) = (index, Vec::new());
            self.exact.insert(value.into(), Exact { first, later });
            return;
        };
        let last = exact.later.last().copied().unwrap_or(exact.first);
        if end(index) > end(last) {
            exact.later.push(index);
        }
    }

    /// The number of the first rule in force that covers a text: exact ones
    /// first.
    fn first(&self, text: &str, in_force: InForce<'_>) -> Option<usize> {
        if let Some(exact) = self.exact.get(text) {
            let mut rules = std::iter::once(&exact.first).chain(&exact.later);
            if let Some(index) = rules.find(|index| in_force(**index)) {
                return Some(*index);
            }
        }
        let from_set = self.first_of_set(text, in_force);
        let comes_first = |index: usize| from_set.is_none_or(|other| index < other);
        let fancy = self.fancy.iter();
        let fancy = fancy.take_while(|pattern| comes_first(pattern.index));
        let fancy = fancy.filter(|pattern| in_force(pattern.index));
        covering(fancy, text).next().or(from_set)
    }

    fn first_of_set(&self, text: &str, in_force: InForce<'_>) -> Option<usize> {
        self.set_on(text).find(|index| in_force(*index))
    }

    /// The numbers of the rules of the set that cover a text, in rising order.
    fn set_on(&self, text: &str) -> impl Iterator<Item = usize> {
        let matches = self.set.as_ref().map(|set| set.matches(text));
        let matches = matches.unwrap_or_default().into_iter();
        matches.filter_map(|matched| self.set_rules.get(matched).copied())
    }
}

/// Where the rules of a key stand among the matchers.
const fn place(key: RuleKey) -> usize {
    match key {
        RuleKey::User | RuleKey::Puser => 0,
        RuleKey::Exe | RuleKey::Pexe => 1,
        RuleKey::Cmd | RuleKey::Pcmd => 2,
    }
}
