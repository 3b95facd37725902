//! Reads a TOML file written by a person, and names everything that is wrong
//! with it at once: syntax errors, unknown keys with the nearest known one,
//! wrong types, values out of range, each with line and column.
//!
//! Agent, collector and policy settings share this reader. It takes text and
//! returns values; it never opens a file. A key is known once it was asked
//! for, so ask for every key whatever the others say, then call
//! [`TomlFile::finish`] once.
//!
//! ```
//! use procwarden_common::toml_config::TomlFile;
//!
//! let text = "interval = '90s'\n[mail]\ntransprot = 'smtp'\n";
//! let file = TomlFile::parse("agent.toml", text).unwrap();
//! let root = file.root();
//! let interval = root.take_secs("interval", 1..=3600).unwrap_or(60);
//! let mail = root.section("mail");
//! let transport = mail.take_choice("transport", &[("smtp", 1), ("file", 2)]).unwrap_or(1);
//! let wrong = file.finish();
//! assert_eq!((interval, transport), (90, 1));
//! assert_eq!((wrong[0].line, wrong[0].column), (3, 1));
//! assert_eq!(wrong[0].message, "unknown key 'transprot' in [mail]");
//! assert_eq!(wrong[0].help, "did you mean 'transport'?");
//! ```

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnostic::{Diagnostic, Level};

mod duration;
mod nearest;
mod take;
#[cfg(test)]
mod tests;

pub use duration::{InvalidDuration, parse_duration};
pub use nearest::nearest;

/// Syntax errors reported of one file: after a first slip, most of them are
/// its echo.
const SYNTAX_ERRORS_MAX: usize = 20;

/// A TOML file whose syntax is right.
#[derive(Debug)]
pub struct TomlFile<'t> {
    file: String,
    text: &'t str,
    root: DeTable<'t>,
    notes: RefCell<Notes>,
}

/// What was learnt while values were taken.
#[derive(Debug, Default)]
struct Notes {
    diagnostics: Vec<Diagnostic>,
    /// Keys that were asked for, by the path of their section.
    known: BTreeMap<Path, BTreeSet<String>>,
}

/// Names and array positions from the root to a section.
type Path = Vec<String>;

/// One table of a file, present or not: taking from an absent one gives
/// nothing, and still makes the key known.
#[derive(Debug, Clone)]
pub struct Section<'f> {
    file: &'f TomlFile<'f>,
    path: Path,
    table: Option<&'f DeTable<'f>>,
    /// Where the section is written; 0 when it is absent.
    offset: usize,
}

impl<'t> TomlFile<'t> {
    /// Parses `text`; `file` is its name in diagnostics.
    ///
    /// # Errors
    /// Every syntax error.
    pub fn parse(file: &str, text: &'t str) -> Result<Self, Vec<Diagnostic>> {
        let (root, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            let say = |error: &toml::de::Error| {
                let offset = error.span().map_or(text.len(), |span| span.start);
                let help = "correct the TOML syntax here".to_owned();
                diagnostic(
                    file,
                    text,
                    offset,
                    Level::Error,
                    lower_first(error.message()),
                    help,
                )
            };
            return Err(errors.iter().take(SYNTAX_ERRORS_MAX).map(say).collect());
        }
        let (root, notes) = (root.into_inner(), RefCell::default());
        Ok(Self {
            file: file.to_owned(),
            text,
            root,
            notes,
        })
    }

    /// The top of the file.
    #[must_use]
    pub fn root(&self) -> Section<'_> {
        self.open(Vec::new(), Some(&self.root), 0)
    }

    /// Everything that is wrong, unknown keys included, in the order of the file.
    #[must_use]
    pub fn finish(self) -> Vec<Diagnostic> {
        self.refuse_unknown_keys(&mut Vec::new(), &self.root);
        let mut diagnostics = self.notes.into_inner().diagnostics;
        diagnostics.sort_by_key(|d| (d.line, d.column));
        diagnostics
    }

    fn open<'f>(
        &'f self,
        path: Path,
        table: Option<&'f DeTable<'f>>,
        offset: usize,
    ) -> Section<'f> {
        self.notes
            .borrow_mut()
            .known
            .entry(path.clone())
            .or_default();
        Section {
            file: self,
            path,
            table,
            offset,
        }
    }

    /// A table that nobody opened was itself refused, or its whole content is
    /// somebody else's: its keys are not looked at.
    fn refuse_unknown_keys(&self, path: &mut Path, table: &DeTable<'_>) {
        let Some(known) = self.notes.borrow().known.get(path.as_slice()).cloned() else {
            return;
        };
        for (key, value) in table {
            let name: &str = key.get_ref();
            if known.contains(name) {
                path.push(name.to_owned());
                self.descend(path, value.get_ref());
                path.pop();
                continue;
            }
            let place = section_name(path);
            let message = format!("unknown key '{name}'{place}");
            let help = nearest(name, known.iter().map(String::as_str)).map_or_else(
                || {
                    format!(
                        "known keys: {}",
                        known.iter().cloned().collect::<Vec<_>>().join(", ")
                    )
                },
                |near| format!("did you mean '{near}'?"),
            );
            self.note(key.span().start, Level::Error, message, help);
        }
    }

    fn descend(&self, path: &mut Path, value: &DeValue<'_>) {
        match value {
            DeValue::Table(table) => self.refuse_unknown_keys(path, table),
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    path.push(index.to_string());
                    self.descend(path, item.get_ref());
                    path.pop();
                }
            }
            _ => {}
        }
    }

    fn note(&self, offset: usize, level: Level, message: String, help: String) {
        let note = diagnostic(&self.file, self.text, offset, level, message, help);
        self.notes.borrow_mut().diagnostics.push(note);
    }
}

impl<'f> Section<'f> {
    /// Whether the file has this section.
    #[must_use]
    pub fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// Whether the file has this key; makes it known.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.find(key).is_some()
    }

    /// Says that something is wrong with a key's value, or with the section
    /// when the key is absent.
    pub fn error(&self, key: &str, message: impl Into<String>, help: impl Into<String>) {
        self.remark(key, Level::Error, message.into(), help.into());
    }

    /// Says that a key's value works, but perhaps not as meant.
    pub fn warning(&self, key: &str, message: impl Into<String>, help: impl Into<String>) {
        self.remark(key, Level::Warning, message.into(), help.into());
    }

    /// Says that a key has to be set.
    pub fn missing(&self, key: &str, help: impl Into<String>) {
        let message = format!("key '{key}'{} is missing", section_name(&self.path));
        self.file
            .note(self.offset, Level::Error, message, help.into());
    }

    fn remark(&self, key: &str, level: Level, message: String, help: String) {
        let offset = self
            .find(key)
            .map_or(self.offset, |value| value.span().start);
        self.file.note(offset, level, message, help);
    }

    /// Looks a key up and makes it known.
    fn find(&self, key: &str) -> Option<&'f Spanned<DeValue<'f>>> {
        if let Some(known) = self.file.notes.borrow_mut().known.get_mut(&self.path) {
            known.insert(key.to_owned());
        }
        self.table?
            .iter()
            .find(|(name, _)| name.get_ref() == key)
            .map(|(_, value)| value)
    }
}

/// ` in [mail.smtp]`, or nothing for the top of the file.
fn section_name(path: &[String]) -> String {
    let is_position = |name: &&String| name.bytes().all(|b| b.is_ascii_digit());
    let names: Vec<_> = path
        .iter()
        .filter(|name| !is_position(name))
        .map(String::as_str)
        .collect();
    if names.is_empty() {
        String::new()
    } else {
        format!(" in [{}]", names.join("."))
    }
}

fn diagnostic(
    file: &str,
    text: &str,
    offset: usize,
    level: Level,
    message: String,
    help: String,
) -> Diagnostic {
    let (line, column) = line_and_column(text, offset);
    Diagnostic {
        level,
        file: file.to_owned(),
        line,
        column,
        message,
        help,
    }
}

/// Line and column (in characters), both from 1, of a byte of a text.
fn line_and_column(text: &str, offset: usize) -> (u32, u32) {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    let line_start = before
        .iter()
        .rposition(|&b| b == b'\n')
        .map_or(0, |at| at + 1);
    let line = before.iter().filter(|&&b| b == b'\n').count() + 1;
    // Continuation bytes of UTF-8 do not begin a character.
    let column = before
        .iter()
        .skip(line_start)
        .filter(|&&b| b & 0xc0 != 0x80)
        .count()
        + 1;
    (saturating(line), saturating(column))
}

fn saturating(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// toml's messages begin with either case; ours with the lower one.
fn lower_first(message: &str) -> String {
    let mut letters = message.chars();
    letters.next().map_or_else(String::new, |first| {
        first
            .to_lowercase()
            .chain(letters)
            .collect::<String>()
            .replace('\n', "; ")
    })
}

/// Where a value is written.
fn start<T>(value: &Spanned<T>) -> usize {
    let Range { start, .. } = value.span();
    start
}
