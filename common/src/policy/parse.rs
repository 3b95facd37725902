//! Reads the pignore files of a document into rules, and says everything that
//! is wrong with them at once.
//!
//! Rules of an included file stand where the Include line is. Never opens a
//! file: an Include names one of the document's files.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::include::{circles, too_many_bytes, too_many_files};
use super::lines::{self, Content, Line, OddEnd};
use super::{PolicyDocument, PolicyFile, Rule, RuleFacts, RuleKey, RuleOrigin};
use crate::diagnostic::{Diagnostic, Level};
use crate::limits::{POLICY_BYTES_MAX, POLICY_FILES_MAX};
use crate::toml_config::nearest;

/// Remarks kept of one document: what is beyond is counted. A file that is
/// no pignore file at all would fill the memory with them.
const REMARKS_MAX: usize = 1000;

/// A rule, and where its value stands in its line.
#[derive(Debug, Clone)]
pub(super) struct Parsed {
    pub(super) rule: Arc<Rule>,
    /// Column of the value's first character, from 1.
    pub(super) column: u32,
}

/// What a document's files say.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) rules: Vec<Parsed>,
    pub(super) remarks: Remarks,
}

/// A bounded list of remarks.
#[derive(Debug, Default)]
pub(super) struct Remarks {
    kept: Vec<Diagnostic>,
    dropped: usize,
    dropped_error: bool,
}

impl Remarks {
    pub(super) fn push(&mut self, remark: Diagnostic) {
        if self.kept.len() < REMARKS_MAX {
            self.kept.push(remark);
        } else {
            self.dropped += 1;
            self.dropped_error |= remark.level == Level::Error;
        }
    }

    /// The remarks, and how many were not kept.
    pub(super) fn into_vec(mut self, file: &str) -> Vec<Diagnostic> {
        if self.dropped > 0 {
            self.kept.push(Diagnostic {
                level: if self.dropped_error {
                    Level::Error
                } else {
                    Level::Warning
                },
                file: file.to_owned(),
                line: 0,
                column: 0,
                message: format!("{} more remarks are not shown", self.dropped),
                help: "correct the first ones, then check again".to_owned(),
            });
        }
        self.kept
    }
}

/// The rules of a document in the order of its text. Patterns are not looked
/// at, so this is quick; what is no rule is left out.
#[must_use]
pub fn rules_of(document: &PolicyDocument) -> Vec<Arc<Rule>> {
    let rules = parse(document).rules.into_iter();
    rules.map(|parsed| parsed.rule).collect()
}

/// Reads the files of a document.
pub(super) fn parse(document: &PolicyDocument) -> Outcome {
    let mut outcome = Outcome::default();
    let Some(first) = document.files.first() else {
        return outcome;
    };
    let bytes = document.files.iter().map(|file| file.content.len()).sum();
    if bytes > POLICY_BYTES_MAX {
        outcome.remarks.push(too_many_bytes(&first.path, 0, bytes));
        return outcome;
    }
    if document.files.len() > POLICY_FILES_MAX {
        outcome.remarks.push(too_many_files(&first.path, 0));
        return outcome;
    }
    for circle in circles(&document.files) {
        outcome.remarks.push(circle);
    }
    let files = document
        .files
        .iter()
        .rev()
        .map(|file| (file.path.as_str(), file))
        .collect();
    let mut reader = Reader {
        document,
        files,
        read: HashSet::new(),
        outcome,
    };
    reader.read_file(first);
    reader.outcome
}

struct Reader<'a> {
    document: &'a PolicyDocument,
    files: HashMap<&'a str, &'a PolicyFile>,
    /// A file that is included twice gives its rules once.
    read: HashSet<&'a str>,
    outcome: Outcome,
}

impl<'a> Reader<'a> {
    fn read_file(&mut self, file: &'a PolicyFile) {
        self.read.insert(&file.path);
        let lines = lines::split(&file.content);
        if let Some((number, end)) = lines.odd_end {
            self.warn_of_line_ends(file, number, end);
        }
        let mut pending = None;
        for line in lines.lines {
            match lines::classify(line.bytes) {
                Content::Nothing => {}
                Content::Facts { text, text_at } => {
                    self.facts(file, line, text, text_at, &mut pending);
                }
                Content::Include(path) => {
                    self.refuse_orphans(file, pending.take());
                    self.include(file, line, path);
                }
                Content::Rule {
                    key,
                    value,
                    value_at,
                } => {
                    let facts = pending.take().map(|pending| pending.facts);
                    let facts = facts.unwrap_or_default();
                    self.rule(file, line, (key, value, value_at), facts);
                }
                Content::Unknown => {
                    self.refuse_orphans(file, pending.take());
                    self.warn_of_unknown_line(file, line);
                }
            }
        }
        self.refuse_orphans(file, pending);
    }

    fn include(&mut self, file: &'a PolicyFile, line: Line<'a>, path: &[u8]) {
        let path = match std::str::from_utf8(path) {
            Ok("") => {
                let message = "Include names no file".to_owned();
                return self.error(file, line, 1, message, "write Include /path/to/file");
            }
            Ok(path) => path,
            Err(_) => {
                let message = "the path of this Include is not UTF-8".to_owned();
                return self.error(file, line, 1, message, "rename the file, or leave it out");
            }
        };
        match self.files.get(path).copied() {
            Some(next) if !self.read.contains(path) => self.read_file(next),
            Some(_) => {}
            None => {
                let message = format!("the included file '{path}' is missing from the policy");
                self.error(
                    file,
                    line,
                    1,
                    message,
                    "add the file to the policy, or remove this line",
                );
            }
        }
    }

    fn rule(
        &mut self,
        file: &PolicyFile,
        line: Line<'_>,
        (key, value, at): (RuleKey, &[u8], usize),
        facts: RuleFacts,
    ) {
        let Ok(value) = std::str::from_utf8(value) else {
            return self.refuse_bytes(file, line, key);
        };
        self.warn_of_unprintable(file, line, key, value, at);
        let origin = RuleOrigin {
            policy: self.document.name.clone(),
            revision: self.document.revision,
            file: file.path.clone(),
            line: line.number,
        };
        let rule = Arc::new(Rule {
            key,
            value: value.to_owned(),
            origin,
            facts,
        });
        self.outcome.rules.push(Parsed {
            rule,
            column: column(line.bytes, at),
        });
    }

    /// A rule is text; one with broken text could not even be shown.
    fn refuse_bytes(&mut self, file: &PolicyFile, line: Line<'_>, key: RuleKey) {
        let valid = line
            .bytes
            .utf8_chunks()
            .next()
            .map_or(0, |chunk| chunk.valid().len());
        let byte = line.bytes.get(valid).copied().unwrap_or_default();
        let message = format!("byte 0x{byte:02x} is not UTF-8 text");
        let help = how_to_write(byte, key);
        self.error(file, line, column(line.bytes, valid), message, &help);
    }

    /// Processes are shown to rules in printable ASCII, so anything else in a
    /// rule waits for a text that never comes. lfd takes such a rule, too.
    fn warn_of_unprintable(
        &mut self,
        file: &PolicyFile,
        line: Line<'_>,
        key: RuleKey,
        value: &str,
        at: usize,
    ) {
        let Some(offset) = value.bytes().position(|b| !matches!(b, b' '..=b'~')) else {
            return;
        };
        let byte = value.as_bytes().get(offset).copied().unwrap_or_default();
        let message = format!(
            "byte 0x{byte:02x} can never match: rules see the printable form of a text [not-ascii]"
        );
        let help = how_to_write(byte, key);
        self.push(
            Level::Warning,
            file,
            line,
            column(line.bytes, at + offset),
            message,
            &help,
        );
    }

    fn warn_of_line_ends(&mut self, file: &PolicyFile, number: u32, end: OddEnd) {
        let end = match end {
            OddEnd::CrLf => "CRLF",
            OddEnd::Cr => "CR",
        };
        let message = format!("the file has {end} line ends, which lfd misreads [line-ends]");
        let help = "they are understood here; save the file with LF line ends for lfd";
        let line = Line { number, bytes: b"" };
        self.push(Level::Warning, file, line, 0, message, help);
    }

    fn warn_of_unknown_line(&mut self, file: &PolicyFile, line: Line<'_>) {
        let word = String::from_utf8_lossy(lines::first_word(line.bytes)).into_owned();
        let keys = RuleKey::ALL.iter().map(|(_, word)| *word);
        let help = if word.eq_ignore_ascii_case("include") {
            "begin the line with 'Include ', with a capital I".to_owned()
        } else if let Some(near) = nearest(&word, keys) {
            format!("did you mean '{near}:'?")
        } else {
            "begin the line with exe:, pexe:, user:, puser:, cmd: or pcmd:, or with # for a comment"
                .to_owned()
        };
        let message = "this line is no rule and is passed over [unknown-line]".to_owned();
        self.push(Level::Warning, file, line, 1, message, &help);
    }

    fn error(
        &mut self,
        file: &PolicyFile,
        line: Line<'_>,
        column: u32,
        message: String,
        help: &str,
    ) {
        self.push(Level::Error, file, line, column, message, help);
    }

    fn push(
        &mut self,
        level: Level,
        file: &PolicyFile,
        line: Line<'_>,
        column: u32,
        message: String,
        help: &str,
    ) {
        self.outcome.remarks.push(Diagnostic {
            level,
            file: file.path.clone(),
            line: line.number,
            column,
            message,
            help: help.to_owned(),
        });
    }
}

/// How a byte that is no printable ASCII is written in a rule.
fn how_to_write(byte: u8, key: RuleKey) -> String {
    let escaped = match byte {
        b'\t' => "\\t".to_owned(),
        _ => format!("\\{byte:02x}"),
    };
    // In a pattern the backslash itself has to be escaped.
    let escaped = if key.is_pattern() {
        format!("\\{escaped}")
    } else {
        escaped
    };
    format!("write {escaped} for this byte, as findings and mails show it")
}

/// Column, in characters from 1, of a byte of a line.
pub(super) fn column(line: &[u8], offset: usize) -> u32 {
    let before = line.get(..offset).unwrap_or(line);
    let characters = before.iter().filter(|&&b| b & 0xc0 != 0x80).count();
    u32::try_from(characters).map_or(u32::MAX, |count| count.saturating_add(1))
}

mod facts;
#[cfg(test)]
mod tests;
