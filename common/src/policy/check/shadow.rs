//! Rules that another rule makes useless.
//!
//! An exact rule is looked up in the patterns. A pattern is compared with
//! others by the texts, or beginnings of texts, that it can be written out as;
//! what cannot be written out is not called covered.

use std::collections::HashMap;

use super::reach::{Begin, Reach};
use crate::policy::RuleKey;
use crate::policy::matcher::Matchers;
use crate::policy::parse::Parsed;

/// Patterns that one is compared with: ten thousand rules would take minutes
/// otherwise.
const TRIED_MAX: usize = 16;

/// Patterns that are open at their end (`/opt/x/.*`), which alone can cover
/// other patterns that are.
pub(super) struct Shadows {
    /// By what all of their texts begin with.
    open: HashMap<(RuleKey, String), Vec<Open>>,
}

struct Open {
    index: usize,
    reach: Reach,
}

impl Shadows {
    /// Looks for the open ones.
    pub(super) fn of(rules: &[Parsed]) -> Self {
        let mut open: HashMap<_, Vec<Open>> = HashMap::new();
        for (index, parsed) in rules.iter().enumerate() {
            let Some(reach) = pattern_reach(parsed).filter(Reach::is_open) else {
                continue;
            };
            let begin = common_begin(&reach.begins());
            let place = open.entry((parsed.rule.key, begin)).or_default();
            place.push(Open { index, reach });
        }
        Self { open }
    }

    /// A pattern that covers all that a rule does and lives as long. Patterns
    /// with look-around are asked about nothing: they would take minutes.
    pub(super) fn find(
        &mut self,
        matchers: &Matchers,
        rules: &[Parsed],
        index: usize,
    ) -> Option<usize> {
        let rule = &rules.get(index)?.rule;
        let outlives = |other: &usize| {
            // The same rule once more is a duplicate.
            let is_same = |o: &Parsed| o.rule.key == rule.key && o.rule.value == rule.value;
            let others = rules.get(*other).filter(|o| !is_same(o));
            others.is_some_and(|o| o.rule.facts.end() >= rule.facts.end())
        };
        if !rule.key.is_pattern() {
            let covering = matchers.set_on(rule.key, &rule.value);
            return covering.into_iter().find(outlives);
        }
        let begins = pattern_reach(rules.get(index)?)?.begins();
        if begins.iter().all(|begin| begin.is_whole) {
            return covering_all(matchers, rule.key, &begins, outlives);
        }
        self.open_over(matchers, rule.key, &begins, outlives)
    }

    /// An open pattern that covers all that begins so.
    fn open_over(
        &mut self,
        matchers: &Matchers,
        key: RuleKey,
        begins: &[Begin],
        outlives: impl Fn(&usize) -> bool,
    ) -> Option<usize> {
        let common = common_begin(begins);
        let mut tried = 0;
        for begin in (0..=common.len()).filter_map(|end| common.get(..end)) {
            let candidates = self.open.get_mut(&(key, begin.to_owned()));
            let candidates = candidates.into_iter().flatten();
            for open in candidates.filter(|open| outlives(&open.index)) {
                tried += 1;
                if tried > TRIED_MAX {
                    return None;
                }
                if begins.iter().all(|begin| open.covers(matchers, key, begin)) {
                    return Some(open.index);
                }
            }
        }
        None
    }
}

impl Open {
    fn covers(&mut self, matchers: &Matchers, key: RuleKey, begin: &Begin) -> bool {
        if begin.is_whole {
            return matchers.set_on(key, &begin.text).contains(&self.index);
        }
        self.reach.covers_all_below(&begin.text)
    }
}

/// A pattern that covers each of these texts.
fn covering_all(
    matchers: &Matchers,
    key: RuleKey,
    texts: &[Begin],
    outlives: impl Fn(&usize) -> bool,
) -> Option<usize> {
    let mut texts = texts.iter().map(|text| matchers.set_on(key, &text.text));
    let mut covering = texts.next()?;
    covering.retain(outlives);
    for others in texts {
        covering.retain(|index| others.contains(index));
    }
    covering.first().copied()
}

/// What all of them begin with.
fn common_begin(begins: &[Begin]) -> String {
    let mut texts = begins.iter().map(|begin| begin.text.as_str());
    let first = texts.next().unwrap_or_default();
    let common = |length: usize, text: &str| {
        let pairs = first.bytes().zip(text.bytes()).take(length);
        pairs.take_while(|(one, other)| one == other).count()
    };
    let length = texts.fold(first.len(), common);
    first.get(..length).unwrap_or_default().to_owned()
}

fn pattern_reach(parsed: &Parsed) -> Option<Reach> {
    let is_pattern = parsed.rule.key.is_pattern();
    is_pattern.then(|| Reach::of(&parsed.rule.value)).flatten()
}
