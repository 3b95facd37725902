//! The pignore lines that would ignore the process of a finding, safest
//! first, for the alert mail and for the operator's `ignore` command.
//!
//! Promises that every line, put into a pignore file, makes
//! [`judge`](super::judge) ignore that process. Offers nothing for a text
//! that was not read in full.

use super::{RuleKey, RuleText};
use crate::finding::{Finding, Subject};
use crate::process::DELETED_SUFFIX;

mod propose;

pub use propose::{
    InvalidFacts, NoRule, Objection, Proposal, is_writable_by, propose, rule_facts, with_rule,
};

/// Longest text that is offered: nobody reviews a longer line.
const TEXT_BYTES_MAX: usize = 8 * 1024;

/// One line, and what to think of before using it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suggestion {
    /// A line of a pignore file.
    pub line: String,
    /// What it covers besides this process.
    pub note: &'static str,
}

/// The lines that would ignore what a finding is about, safest first.
#[must_use]
pub fn suggest(finding: &Finding) -> Vec<Suggestion> {
    if is_about_a_host(finding) {
        return Vec::new();
    }
    let text = RuleText::of_finding(finding);
    let exe = text.exe.as_deref().filter(|exe| !is_interpreter(exe));
    [
        exe.and_then(|exe| offer(RuleKey::Exe, RuleKey::Pexe, exe, exe_note(exe))),
        text.cmd
            .as_deref()
            .and_then(|cmd| offer(RuleKey::Cmd, RuleKey::Pcmd, cmd, CMD_NOTE)),
        offer(RuleKey::User, RuleKey::Puser, &text.user, USER_NOTE),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The line of one kind that would ignore what a finding is about, also where
/// [`suggest`] would rather not offer it. Nothing when the text it looks at
/// was not read in full.
#[must_use]
pub fn suggest_by(finding: &Finding, key: RuleKey) -> Option<Suggestion> {
    if is_about_a_host(finding) {
        return None;
    }
    let text = RuleText::of_finding(finding);
    let (seen, exact, pattern) = match key {
        RuleKey::Exe | RuleKey::Pexe => (text.exe?, RuleKey::Exe, RuleKey::Pexe),
        RuleKey::Cmd | RuleKey::Pcmd => (text.cmd?, RuleKey::Cmd, RuleKey::Pcmd),
        RuleKey::User | RuleKey::Puser => (text.user, RuleKey::User, RuleKey::Puser),
    };
    let note = match exact {
        RuleKey::Exe => exe_note(&seen),
        RuleKey::Cmd => CMD_NOTE,
        _ => USER_NOTE,
    };
    let offered = offer(exact, pattern, &seen, note)?;
    if !key.is_pattern() {
        return Some(offered);
    }
    let line = format!("{}:{}", pattern.as_str(), escaped(&seen));
    Some(Suggestion { line, note })
}

const EXE_NOTE: &str = "covers this program, whoever runs it";
const WRITABLE_NOTE: &str = "ordinary accounts may be able to put another program in this place";
const DELETED_NOTE: &str =
    "covers the program only while it is deleted; a restart is the better cure";
const MEMFD_NOTE: &str = "the program gave itself this name, and any other can take it";
const CMD_NOTE: &str = "every process writes its own command line, so any other can take this one";
const USER_NOTE: &str = "hides everything that this account runs";

/// No rule covers a host: a limit that is too low is set higher.
const fn is_about_a_host(finding: &Finding) -> bool {
    matches!(finding.subject, Subject::Host { .. })
}

/// An exact rule where one can hold the text, else a pattern of the same.
fn offer(exact: RuleKey, pattern: RuleKey, text: &str, note: &'static str) -> Option<Suggestion> {
    if text.is_empty() || text.len() > TEXT_BYTES_MAX {
        return None;
    }
    let line = if text.trim() == text {
        format!("{}:{text}", exact.as_str())
    } else {
        format!("{}:{}", pattern.as_str(), escaped(text))
    };
    Some(Suggestion { line, note })
}

/// A pattern of exactly this text. White space at the ends of a value may be
/// lost on its way through a file, so spaces are written as numbers.
fn escaped(text: &str) -> String {
    regex_syntax::escape(text).replace(' ', r"\x20")
}

/// Whether ordinary accounts can put programs where this one is.
#[must_use]
pub fn is_in_writable_place(exe: &str) -> bool {
    exe.starts_with("/memfd:") || writable_place(exe).is_some()
}

/// The place below which ordinary accounts can put programs, and this one is.
pub(super) fn writable_place(exe: &str) -> Option<&'static str> {
    let is_below = |place: &&str| exe.starts_with(*place);
    let place = WRITABLE.iter().copied().find(is_below);
    place.or_else(|| is_below_numbered_home(exe).then_some(HOME))
}

/// Whether it is on a further disk of homes: `/home2/bob/x`.
fn is_below_numbered_home(exe: &str) -> bool {
    let number = exe.strip_prefix(HOME.trim_end_matches('/'));
    number.is_some_and(|number| {
        let rest = number.trim_start_matches(|c: char| c.is_ascii_digit());
        rest.starts_with('/')
    })
}

fn exe_note(exe: &str) -> &'static str {
    if exe.starts_with("/memfd:") {
        MEMFD_NOTE
    } else if writable_place(exe).is_some() {
        WRITABLE_NOTE
    } else if exe != alive(exe) {
        DELETED_NOTE
    } else {
        EXE_NOTE
    }
}

/// Where accounts have their homes, on the first disk of them.
pub(super) const HOME: &str = "/home/";

/// Places where programs are put that no administrator put there.
pub(super) const WRITABLE: &[&str] = &[
    "/tmp/",
    "/var/tmp/",
    "/dev/shm/",
    "/run/user/",
    "/run/lock/",
    "/var/lock/",
    HOME,
];

/// Names of interpreters, to which a version may be added.
const INTERPRETERS: &[&str] = &[
    "sh", "ash", "bash", "dash", "ksh", "zsh", "csh", "tcsh", "fish", "busybox", "awk", "gawk",
    "mawk", "ruby", "node", "nodejs", "deno", "bun", "java", "lua", "luajit", "tclsh", "expect",
];

/// Beginnings of names of interpreters, to which a version and one of the
/// [`KINDS`] may be added.
const INTERPRETER_FAMILIES: &[&str] =
    &["perl", "python", "platform-python", "pypy", "php", "lsphp"];

/// What stands beside the version in the name of an interpreter: how it is
/// run (`php-fpm`), how it was built (`python3.9d`), and what panels call the
/// program behind a wrapper (`lsphp.real`).
const KINDS: &[&str] = &[
    "bin", "c", "cagefs", "cgi", "cli", "d", "dbg", "debug", "dm", "fpm", "m", "real", "t", "u",
];

/// The dynamic loader, which runs any program that it is given; the name of the
/// machine's architecture follows.
const LOADERS: &[&str] = &["ld-linux", "ld-musl", "ld.so"];

/// Whether a program runs what others wrote: a rule for it hides every script.
#[must_use]
pub fn is_interpreter(exe: &str) -> bool {
    let name = alive(exe).rsplit('/').next().unwrap_or_default();
    let is_version = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_digit() || b == b'.' || b == b'-')
    };
    let rest_of = |known: &&str| name.strip_prefix(*known);
    INTERPRETERS.iter().filter_map(rest_of).any(is_version)
        || INTERPRETER_FAMILIES
            .iter()
            .filter_map(rest_of)
            .any(is_build)
        || LOADERS.iter().any(|known| name.starts_with(known))
}

/// Whether this follows the name of a family in the name of an interpreter:
/// `-config` and `bug` make a name of a script of its own.
fn is_build(rest: &str) -> bool {
    let mut words = rest.split(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-'));
    // Debian's perl5.36-x86_64-linux-gnu is Perl.
    rest.contains("-linux") || words.all(|word| word.is_empty() || KINDS.contains(&word))
}

/// The link text without the kernel's suffix.
fn alive(exe: &str) -> &str {
    let suffix = std::str::from_utf8(DELETED_SUFFIX).unwrap_or_default();
    exe.strip_suffix(suffix).unwrap_or(exe)
}

#[cfg(test)]
mod tests;
