//! Policies: pignore rules and settings, and `judge`, the one function that
//! decides whether a process is reported or ignored.
//!
//! Promises: the same policy and the same process give the same verdict on
//! every agent and in the collector. Never reads a file, a clock or a socket.

use std::fmt;
use std::sync::Arc;

use crate::clock::UnixMillis;

mod check;
mod compile;
mod expiry;
mod facts;
mod include;
mod lines;
mod matcher;
mod parse;
mod pattern;
mod perl;
mod rule_id;
pub mod settings;
pub mod suggest;
#[cfg(test)]
mod tests;
mod text;

pub use check::{check, source_lines};
pub use compile::Policy;
pub use expiry::{EXPIRY_NOTICE_MILLIS, Expiring, expiring};
pub use facts::{LastDay, RuleFacts};
pub use include::gather_files;
pub use lines::is_facts_line;
pub use parse::rules_of;
pub use rule_id::RuleId;
pub use settings::{LoadSettings, Settings};
pub use text::RuleText;

/// One file of a policy, as published or as read from disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFile {
    /// As the Include line wrote it; for the first file, the name it had.
    pub path: String,
    /// Its bytes.
    pub content: Vec<u8>,
}

/// One revision of a named policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyDocument {
    /// Name, 1 to 64 of `a-z 0-9 - _ .`.
    pub name: String,
    /// Revision, from 1; 0 for files that were never published.
    pub revision: u64,
    /// The pignore file, then what its Include lines name.
    pub files: Vec<PolicyFile>,
    /// TOML; empty means defaults.
    pub settings: String,
}

/// Everything one host runs: the policies of its groups.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EffectivePolicy {
    /// Settings of later documents overlay those of earlier ones.
    pub documents: Vec<PolicyDocument>,
}

impl EffectivePolicy {
    /// The policy that a file belongs to, where only one has a file of this
    /// name.
    #[must_use]
    pub fn policy_with(&self, path: &str) -> Option<&str> {
        let has_it = |document: &&PolicyDocument| document.files.iter().any(|f| f.path == path);
        let mut found = self.documents.iter().filter(has_it);
        let first = found.next()?;
        found.next().is_none().then_some(first.name.as_str())
    }
}

/// Where a rule was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleOrigin {
    /// Name of the policy.
    pub policy: String,
    /// Its revision.
    pub revision: u64,
    /// File and line.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
}

/// The six keys of csf.pignore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RuleKey {
    /// `exe:` the executable, exactly.
    Exe,
    /// `pexe:` the executable, as an anchored Perl pattern.
    Pexe,
    /// `user:` the account, exactly.
    User,
    /// `puser:` the account, as an anchored Perl pattern.
    Puser,
    /// `cmd:` the command line, exactly.
    Cmd,
    /// `pcmd:` the command line, as an anchored Perl pattern.
    Pcmd,
}

impl RuleKey {
    /// Every key with the word before the colon, in the order in which
    /// [`judge`] tries them.
    pub const ALL: [(Self, &'static str); 6] = [
        (Self::User, "user"),
        (Self::Puser, "puser"),
        (Self::Exe, "exe"),
        (Self::Pexe, "pexe"),
        (Self::Cmd, "cmd"),
        (Self::Pcmd, "pcmd"),
    ];

    /// The word before the colon.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(key, _)| *key == self)
            .map_or("", |(_, word)| word)
    }

    /// Whether the value is a pattern.
    #[must_use]
    pub const fn is_pattern(self) -> bool {
        matches!(self, Self::Pexe | Self::Puser | Self::Pcmd)
    }
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What it looks at.
    pub key: RuleKey,
    /// The value behind the colon.
    pub value: String,
    /// Where it was written.
    pub origin: RuleOrigin,
    /// What the `#@` lines above it say.
    pub facts: RuleFacts,
}

/// `exe:/usr/sbin/x`, as a pignore line.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.key.as_str(), self.value)
    }
}

/// The rules as a pignore file that reads back as the same rules, facts
/// included, in the same order.
#[must_use]
pub fn print(rules: &[Arc<Rule>]) -> String {
    let mut text = String::new();
    for rule in rules {
        if !rule.facts.is_empty() {
            text.push_str(&format!("{}\n", rule.facts));
        }
        text.push_str(&format!("{rule}\n"));
    }
    text
}

/// `judge`'s answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// No rule covers the process.
    Report,
    /// This rule covers it.
    Ignored(Arc<Rule>),
}

/// Decides whether a process is reported, in lfd's order: `user`, `puser`,
/// `exe`, `pexe`, `cmd`, `pcmd`; the first rule that covers it is named.
///
/// The link text of a deleted executable ends in ` (deleted)`, so an `exe:`
/// rule for the plain path does not cover it: it is reported although listed.
///
/// A rule that has expired at `now` covers nothing.
pub fn judge(policy: &Policy, text: &RuleText, now: UnixMillis) -> Verdict {
    policy
        .first_rule(text, now)
        .map_or(Verdict::Report, Verdict::Ignored)
}
