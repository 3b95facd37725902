//! Rules that have expired or soon will. The time is a value.

use std::sync::Arc;

use super::{Policy, Rule};
use crate::clock::UnixMillis;
use crate::diagnostic::{Diagnostic, Level};

/// How long before its end a rule is announced: 7 days.
pub const EXPIRY_NOTICE_MILLIS: i64 = 7 * 24 * 60 * 60 * 1000;

/// A rule that is worth a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiring {
    /// The rule.
    pub rule: Arc<Rule>,
    /// When it stops matching, or stopped.
    pub end: UnixMillis,
    /// Whether that is over.
    pub expired: bool,
}

impl Expiring {
    /// The rule, when it is expired or near its end.
    pub(super) fn of(rule: &Arc<Rule>, now: UnixMillis) -> Option<Self> {
        let end = rule.facts.expires?.end();
        (end <= now.plus_millis(EXPIRY_NOTICE_MILLIS)).then(|| Self {
            rule: Arc::clone(rule),
            end,
            expired: end <= now,
        })
    }

    /// A warning about the line of the rule.
    #[must_use]
    pub fn remark(&self) -> Diagnostic {
        let Rule { origin, facts, .. } = &*self.rule;
        let owner = facts.owner.as_deref();
        let whom = owner.map_or_else(String::new, |owner| format!(" (owner {owner})"));
        let (what, id, help) = if self.expired {
            let help = "remove it, or give it a later date if it is still needed";
            ("expired", "expired", help)
        } else {
            let help = "give it a later date if it is still needed";
            ("expires", "expires-soon", help)
        };
        Diagnostic {
            level: Level::Warning,
            file: origin.file.clone(),
            line: origin.line,
            column: 0,
            message: format!("this rule {what} at {}{whom} [{id}]", self.end),
            help: help.to_owned(),
        }
    }
}

/// The rules that have expired at `now` or will within 7 days, those that end
/// first before the others.
#[must_use]
pub fn expiring(policy: &Policy, now: UnixMillis) -> Vec<Expiring> {
    let rules = policy.rules().iter();
    let mut found: Vec<Expiring> = rules.filter_map(|rule| Expiring::of(rule, now)).collect();
    found.sort_by_key(|expiring| expiring.end);
    found
}
