//! Rules that compile and match nothing, because of a habit of another syntax.

use super::{Words, words};
use crate::policy::{Rule, RuleKey};

/// Why a rule never matches; nothing for one that may.
pub(super) fn matches(rule: &Rule) -> Option<Words> {
    let value = rule.value.as_str();
    let is_account = matches!(rule.key, RuleKey::User | RuleKey::Puser);
    if value.is_empty() {
        return empty(rule.key);
    }
    if !is_account && value.starts_with([' ', '\t']) {
        return Some(words(
            "the white space behind the colon is part of the rule, so it never matches [never]",
            r"remove it, or write \x20 in a pattern if it is meant",
        ));
    }
    if rule.key != RuleKey::Exe {
        return None;
    }
    if !value.starts_with(['/', '(']) && !value.starts_with("memfd") {
        return Some(words(
            "an executable is a whole path, so this never matches [never]",
            "write the path from its first /, or a pattern with pexe:",
        ));
    }
    value.contains(['*', '?']).then(|| {
        words(
            "exe: is compared letter by letter, so * and ? stand for themselves and this never \
             matches [never]",
            "write a pattern: pexe: with .* for any text",
        )
    })
}

/// A pattern of nothing is told of by what it covers.
fn empty(key: RuleKey) -> Option<Words> {
    match key {
        RuleKey::Exe | RuleKey::User => Some(words(
            "there is nothing behind the colon, so this never matches [never]",
            "remove the line, or write what it shall match",
        )),
        RuleKey::Cmd => Some(words(
            "this covers every process without a command line [empty]",
            "remove the line, or write what it shall match",
        )),
        RuleKey::Pexe | RuleKey::Puser | RuleKey::Pcmd => None,
    }
}
