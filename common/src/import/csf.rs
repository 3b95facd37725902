//! Settings of a `csf.conf`: the text of a server's file becomes the settings
//! of a policy, and one remark for each key that has to do with processes. And
//! what of a `csf.pignore` a policy would read otherwise than csf.
//!
//! Promises: all errors at once, with their lines; settings only when there
//! is no error, and then such as [`Settings::overlay`](crate::policy::Settings)
//! takes. Whatever the bytes are, it does not panic.

use std::fmt::Write as _;

use crate::diagnostic::Diagnostic;
use crate::printable::printable_text;

mod comments;
mod keys;
mod lines;

pub use comments::plain_comments;

/// What became of one key of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fate {
    /// It is a setting of the policy now.
    Taken,
    /// It means something else here; the remark says what.
    Differs,
    /// Only the host's own agent.toml can switch this on.
    AgentLocal,
    /// There is nothing to set.
    NotNeeded,
    /// procwarden has nothing like it.
    NoCounterpart,
}

impl Fate {
    /// The words used in tables and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Differs => "differs",
            Self::AgentLocal => "agent-local",
            Self::NotNeeded => "not-needed",
            Self::NoCounterpart => "no-counterpart",
        }
    }
}

/// What is said about one key of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// Line of the file, from 1.
    pub line: u32,
    /// The key, such as `PT_LIMIT`.
    pub key: String,
    /// Its value, in printable form.
    pub value: String,
    /// What became of it.
    pub fate: Fate,
    /// The setting with its new value, such as `scan.min_age_secs = 60`.
    pub setting: Option<String>,
    /// The line of `[actions]` in the host's own agent.toml that does the same.
    pub agent_toml: Option<String>,
    /// What differs, or why there is nothing; empty when there is nothing to say.
    pub message: String,
}

/// A file that was read without an error.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Imported {
    /// TOML, ready to be published.
    pub settings: String,
    /// One remark for each key, in the order of the file.
    pub remarks: Vec<Remark>,
    /// What every csf.conf has and this one has not: nothing was set for it.
    pub missing: Vec<&'static str>,
}

impl Imported {
    /// The section of agent.toml for hosts that shall act as lfd did; nothing
    /// when lfd did not act.
    #[must_use]
    pub fn agent_toml(&self) -> Option<String> {
        let lines = self.remarks.iter();
        let lines = lines.filter_map(|r| Some(format!("{} # {}", r.agent_toml.as_ref()?, r.key)));
        let lines: Vec<String> = lines.collect();
        (!lines.is_empty()).then(|| format!("[actions]\n{}\n", lines.join("\n")))
    }
}

/// Reads a `csf.conf`; `file` is its name in diagnostics.
///
/// # Errors
/// Every wrong line of a key that has to do with processes, and a file that
/// has no such key at all.
pub fn read_conf(file: &str, content: &[u8]) -> Result<Imported, Vec<Diagnostic>> {
    let (entries, mut errors) = lines::entries(file, content);
    let mut remarks = Vec::new();
    let off = keys::what_is_off(&entries);
    for entry in &entries {
        match keys::translate(file, entry, off) {
            Ok(remark) => remarks.push(remark),
            Err(error) => errors.push(error),
        }
    }
    if entries.is_empty() && errors.is_empty() {
        errors.push(lines::error(
            file,
            0,
            "there is no PT_ setting in this file".to_owned(),
            "give the csf.conf of a server that runs lfd",
        ));
    }
    if !errors.is_empty() {
        errors.sort_by_key(|error| error.line);
        return Err(errors);
    }
    let is_missing = |key: &&str| !entries.iter().any(|entry| entry.key == *key);
    Ok(Imported {
        settings: settings_of(&remarks),
        missing: keys::KEYS.into_iter().filter(is_missing).collect(),
        remarks,
    })
}

/// The settings as a file for people. What has no setting stays as a comment,
/// so that nothing is lost.
fn settings_of(remarks: &[Remark]) -> String {
    let mut text = "# Imported from csf.conf.\n".to_owned();
    for section in ["scan", "limits", "load"] {
        let prefix = format!("{section}.");
        let mut in_section = remarks
            .iter()
            .filter_map(|remark| Some((remark, remark.setting.as_ref()?.strip_prefix(&prefix)?)))
            .peekable();
        if in_section.peek().is_some() {
            push(&mut text, format_args!("\n[{section}]"));
        }
        for (remark, setting) in in_section {
            push(&mut text, format_args!("{setting} # {}", remark.key));
        }
    }
    let mut rest = remarks.iter().filter(|r| r.setting.is_none()).peekable();
    if rest.peek().is_some() {
        push(&mut text, format_args!("\n# Not settings of a policy:"));
    }
    for remark in rest {
        let comment = format!("# {} = '{}': {}", remark.key, remark.value, remark.message);
        push(&mut text, format_args!("{}", printable_text(&comment)));
    }
    text
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    writeln!(text, "{line}").ok();
}

#[cfg(test)]
mod tests;
