//! The one rule that the operator's `ignore` writes for a finding, and what
//! speaks against it.
//!
//! Promises: the safest kind of rule comes first; what nobody should write is
//! never proposed without its objection, and some rules not even by force. The
//! lines that are added to a file are the facts and the rule, whatever the
//! process or the operator calls itself.

use super::{Suggestion, alive, is_in_writable_place, is_interpreter, suggest_by};
use crate::finding::{Finding, Subject};
use crate::policy::facts::read;
use crate::policy::{LastDay, PolicyFile, RuleFacts, RuleKey, RuleText};
use crate::printable::printable;

/// Name of the first file of a policy that had none.
const FILE_NAME: &str = "ignored.pignore";

/// A rule for a finding, and why one should think twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// What the rule looks at.
    pub key: RuleKey,
    /// The line, and what it covers besides this process.
    pub rule: Suggestion,
    /// Why it should not be written; empty for a safe one.
    pub objections: Vec<Objection>,
}

/// One reason not to write a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objection {
    /// The reason.
    pub sentence: String,
    /// What `ignore` can do instead.
    pub advice: Option<&'static str>,
    /// Whether an operator may insist.
    pub can_be_forced: bool,
}

impl Objection {
    /// The reason, and what to do instead, for who uses `ignore`.
    #[must_use]
    pub fn with_advice(&self) -> String {
        match self.advice {
            Some(advice) => format!("{}; {advice}", self.sentence),
            None => self.sentence.clone(),
        }
    }
}

/// There is no rule of the kind that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRule {
    /// The text that it would look at is not whole.
    #[error(
        "the finding has no text that a rule by {0} could hold: it was not read in full, or is \
         empty or too long; try another --by"
    )]
    Unread(&'static str),
    /// An account has a name and nothing else.
    #[error(
        "the finding is about an account over a limit and not about a process, so no rule by {0} \
         covers it; use --by user, or set the limit higher in the settings of a policy"
    )]
    Account(&'static str),
    /// No rule covers a host.
    #[error(
        "the finding is about the host itself, which no rule covers; set the limit that it is \
         over higher in the settings of a policy, such as level in [load]"
    )]
    Host,
}

impl NoRule {
    fn of(finding: &Finding, key: RuleKey) -> Self {
        match finding.subject {
            Subject::Process(_) => Self::Unread(key.as_str()),
            Subject::Account { .. } => Self::Account(key.as_str()),
            Subject::Host { .. } => Self::Host,
        }
    }
}

/// The rule of the kind that was asked for; without a wish, the safest one.
///
/// # Errors
/// When there is no text that such a rule would hold.
pub fn propose(finding: &Finding, by: Option<RuleKey>) -> Result<Proposal, NoRule> {
    let key = by.unwrap_or_else(|| safest_key(finding));
    let rule = suggest_by(finding, key).ok_or_else(|| NoRule::of(finding, key))?;
    Ok(Proposal {
        key,
        rule,
        objections: objections(finding, key),
    })
}

/// By the executable where there is one; scripts of an interpreter are told
/// apart by their command line alone.
fn safest_key(finding: &Finding) -> RuleKey {
    let text = RuleText::of_finding(finding);
    match text.exe.as_deref() {
        Some(exe) if !is_interpreter(exe) && !exe.is_empty() => RuleKey::Exe,
        _ if text.cmd.is_some_and(|cmd| !cmd.is_empty()) => RuleKey::Cmd,
        _ => RuleKey::User,
    }
}

fn objections(finding: &Finding, key: RuleKey) -> Vec<Objection> {
    let mut found = match key {
        RuleKey::Exe | RuleKey::Pexe => return exe_objections(finding),
        RuleKey::User | RuleKey::Puser if finding.uid == 0 => vec![objection(
            "it would hide everything that root runs".into(),
            true,
        )],
        RuleKey::User | RuleKey::Puser | RuleKey::Cmd | RuleKey::Pcmd => Vec::new(),
    };
    let why = stranger(finding).or_else(|| {
        matches!(key, RuleKey::Cmd | RuleKey::Pcmd)
            .then(|| strange_script(finding))
            .flatten()
    });
    found.extend(why.map(|why| {
        let what = if matches!(key, RuleKey::Cmd | RuleKey::Pcmd) {
            "the rule would hide whatever takes this command line"
        } else {
            "the rule would hide whatever the account runs"
        };
        objection(format!("{why}, and {what}"), true)
    }));
    found
}

/// Why nobody knows what the program is, so that a rule which does not name it
/// hides an intruder's as well.
fn stranger(finding: &Finding) -> Option<String> {
    let process = finding.process.as_ref()?;
    let exe = printable(process.exe.as_deref()?);
    let user = printable(&finding.user);
    if exe.is_empty() {
        None
    } else if exe.starts_with("/memfd:") {
        Some("the program exists in memory only".into())
    } else if process.exe_deleted || alive(&exe) != exe {
        Some(format!("{exe} was deleted or replaced while it runs"))
    } else {
        let others = format!("{user} or other accounts may be able to replace {exe}");
        is_writable_by(&exe, finding.uid, &user).then_some(others)
    }
}

/// Why nobody knows what an interpreter runs: the command line names something
/// that others can replace.
fn strange_script(finding: &Finding) -> Option<String> {
    let process = finding.process.as_ref()?;
    let exe = printable(process.exe.as_deref()?);
    if !is_interpreter(&exe) {
        return None;
    }
    let user = printable(&finding.user);
    let cwd = process.cwd.as_deref().map(printable);
    let named = paths_named(&process.cmdline.raw, cwd.as_deref());
    let is_strange = |path: &String| is_writable_by(path, finding.uid, &user);
    let path = named.into_iter().find(is_strange)?;
    Some(format!(
        "{user} or other accounts may be able to replace {path}, which {exe} may run"
    ))
}

/// The paths in a command line; where the script has none, the directory that
/// it was started in.
fn paths_named(raw: &[u8], cwd: Option<&str>) -> Vec<String> {
    let raw = raw.strip_suffix(b"\0").unwrap_or(raw);
    // A process that writes a title of its own leaves one argument.
    let is_title = !raw.contains(&0);
    let is_end = |byte: &u8| *byte == 0 || (is_title && *byte == b' ');
    let arguments: Vec<String> = raw.split(is_end).map(printable).collect();
    let script = arguments.iter().skip(1).find(|a| !a.starts_with('-'));
    let is_relative = !is_title && script.is_some_and(|script| !script.starts_with('/'));
    let values = arguments.iter().map(|argument| {
        let option = argument.starts_with('-').then(|| argument.find('/'));
        option
            .flatten()
            .and_then(|at| argument.get(at..))
            .unwrap_or(argument)
    });
    let paths = values.filter(|value| value.starts_with('/') && *value != "/dev/null");
    let started_in = cwd.filter(|cwd| is_relative && *cwd != "/");
    let started_in = started_in.map(|cwd| format!("{cwd}/"));
    paths.map(str::to_owned).chain(started_in).collect()
}

fn exe_objections(finding: &Finding) -> Vec<Objection> {
    let mut found = Vec::new();
    let Some(process) = &finding.process else {
        return found;
    };
    let exe = printable(process.exe.as_deref().unwrap_or_default());
    let user = printable(&finding.user);
    if exe.starts_with("/memfd:") {
        let sentence = "the program exists in memory only and gave itself this name, \
                        which any other program can take";
        found.push(objection(sentence.into(), false));
    } else if process.exe_deleted || alive(&exe) != exe {
        let sentence = "the executable was deleted or replaced while it runs: restart the \
                        process, or find out who deleted it";
        found.push(objection(sentence.into(), false));
    }
    if is_interpreter(&exe) {
        let sentence = format!("{exe} runs what others wrote: the rule would hide every script");
        found.push(Objection {
            advice: Some("use --by cmd"),
            ..objection(sentence, false)
        });
    }
    if is_writable_by(&exe, finding.uid, &user) {
        let sentence = format!(
            "{exe} is in a place where {user} or other accounts may be able to put another program"
        );
        found.push(objection(sentence, true));
    }
    found
}

/// Whether accounts can probably write where this program is. The kernel says
/// who owns a file only on the host, so this goes by path and account: outside
/// the places of the system, what an ordinary account runs is taken for its own.
#[must_use]
pub fn is_writable_by(exe: &str, uid: u32, user: &str) -> bool {
    if !exe.starts_with('/') || is_in_writable_place(exe) || exe.starts_with("/dev/") {
        return true;
    }
    let is_in = |places: &[&str]| places.iter().any(|place| exe.starts_with(place));
    if is_in(DOUBTFUL) {
        return true;
    }
    let is_own = is_in(VENDORS) && exe.split('/').any(|part| part == user && !part.is_empty());
    uid != 0 && (is_own || !is_in(SYSTEM))
}

/// Places that only root writes on every distribution.
const SYSTEM: &[&str] = &[
    "/bin/", "/gnu/", "/lib/", "/lib32/", "/lib64/", "/nix/", "/opt/", "/sbin/", "/snap/", "/usr/",
];

/// Of them, those that no package manager keeps: what bears the name of an
/// account there may be its own. In the others it is a daemon's home.
const VENDORS: &[&str] = &["/opt/", "/usr/local/"];

/// Places that daemons and their guests write, so that root's process there is
/// no proof that the program is root's.
const DOUBTFUL: &[&str] = &["/srv/", "/var/cache/", "/var/spool/", "/var/www/"];

const fn objection(sentence: String, can_be_forced: bool) -> Objection {
    Objection {
        sentence,
        advice: None,
        can_be_forced,
    }
}

/// Facts that cannot be written so that they read back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFacts {
    /// It is no date.
    #[error("'{0}' is no date: write the last day on which the rule holds, as in 2027-01-31")]
    Date(String),
    /// A value cannot stand on the line.
    #[error("the reason or the owner cannot be written down: {0}")]
    Value(String),
}

/// The facts of a new rule. What is empty is left out.
///
/// # Errors
/// When the line that they make would not read back as the same facts.
pub fn rule_facts(expires: &str, owner: &str, reason: &str) -> Result<RuleFacts, InvalidFacts> {
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let expires = match expires {
        "" => None,
        day => Some(LastDay::parse(day).ok_or_else(|| InvalidFacts::Date(day.to_owned()))?),
    };
    let facts = RuleFacts {
        expires,
        owner: given(owner),
        reason: given(reason),
    };
    if facts.is_empty() {
        return Ok(facts);
    }
    let mut seen = RuleFacts::default();
    let line = facts.to_string();
    let wrong = read(line.strip_prefix("#@").unwrap_or(&line), &mut seen);
    if let Some(wrong) = wrong.first() {
        return Err(InvalidFacts::Value(wrong.message.clone()));
    }
    if seen != facts || line.contains(['\n', '\r']) {
        let why = "it does not read back as it was given";
        return Err(InvalidFacts::Value(why.to_owned()));
    }
    Ok(facts)
}

/// The files of a policy with one more rule at the end of the first one.
#[must_use]
pub fn with_rule(files: &[PolicyFile], facts: &RuleFacts, line: &str) -> Vec<PolicyFile> {
    let mut files = files.to_vec();
    if files.is_empty() {
        files.push(PolicyFile {
            path: FILE_NAME.to_owned(),
            content: Vec::new(),
        });
    }
    if let Some(first) = files.first_mut() {
        let text = &mut first.content;
        if text.last().is_some_and(|&byte| byte != b'\n') {
            text.push(b'\n');
        }
        if !facts.is_empty() {
            text.extend_from_slice(format!("{facts}\n").as_bytes());
        }
        text.extend_from_slice(format!("{line}\n").as_bytes());
    }
    files
}

#[cfg(test)]
mod tests;
