//! Standard output and standard error of the command.
//!
//! Promises: with `--json`, standard output holds one object per line and
//! nothing else. Nothing reaches a terminal that could move its cursor: lines
//! pass through `printable_text`, tables and objects are made of printable
//! text. Colour only on a terminal, and not when NO_COLOR is set.

use std::cell::RefCell;
use std::io::Write;

use clap::builder::styling::{AnsiColor, Style};
use procwarden_common::printable::printable_text;
use procwarden_common::severity::Severity;
use serde::Serialize;

use crate::failure::Failure;
use crate::json;
use crate::table::Table;

/// What a line of a comparison is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LineKind {
    /// The name of a file.
    Heading,
    /// Where the lines below lie.
    Place,
    /// In both.
    Plain,
    /// In the older text only.
    Removed,
    /// In the newer text only.
    Added,
}

impl LineKind {
    const fn style(self) -> Style {
        match self {
            Self::Heading => Style::new().bold(),
            Self::Place => AnsiColor::Cyan.on_default(),
            Self::Plain => Style::new(),
            Self::Removed => AnsiColor::Red.on_default(),
            Self::Added => AnsiColor::Green.on_default(),
        }
    }
}

/// Where the command writes.
pub(crate) struct Output {
    stdout: Box<dyn Write>,
    /// Remarks are made where an answer is only read.
    stderr: RefCell<Box<dyn Write>>,
    json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self {
            stdout: Box::new(anstream::stdout()),
            stderr: RefCell::new(Box::new(anstream::stderr())),
            json,
        }
    }

    /// For unit tests, which look at what is decided, not at what is said.
    #[cfg(test)]
    pub(crate) fn to_nobody(json: bool) -> Self {
        Self {
            stdout: Box::new(std::io::sink()),
            stderr: RefCell::new(Box::new(std::io::sink())),
            json,
        }
    }

    /// Whether objects are asked for instead of tables.
    pub(crate) const fn json(&self) -> bool {
        self.json
    }

    /// Writes one object on one line.
    pub(crate) fn object(&mut self, object: &impl Serialize) -> Result<(), Failure> {
        let line = json::to_line(object)
            .map_err(|error| Failure::Run(format!("cannot write an answer as JSON: {error}")))?;
        Ok(writeln!(self.stdout, "{line}")?)
    }

    /// Writes one line of text.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), Failure> {
        Ok(writeln!(self.stdout, "{}", printable_text(text))?)
    }

    /// Writes one line that begins with a severity.
    pub(crate) fn severity_line(&mut self, severity: Severity, rest: &str) -> Result<(), Failure> {
        let style = style_of(severity);
        Ok(writeln!(
            self.stdout,
            "{style}{severity:<8}{style:#} {}",
            printable_text(rest)
        )?)
    }

    /// Writes one line of a comparison.
    pub(crate) fn marked_line(&mut self, kind: LineKind, text: &str) -> Result<(), Failure> {
        let style = kind.style();
        Ok(writeln!(
            self.stdout,
            "{style}{}{style:#}",
            printable_text(text)
        )?)
    }

    /// Writes a table.
    pub(crate) fn table(&mut self, table: &Table) -> Result<(), Failure> {
        Ok(writeln!(self.stdout, "{}", table.render())?)
    }

    /// Shows what was written so far.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.stdout.flush()?)
    }

    /// Says something beside the answer, on standard error. When nobody can
    /// read it there is nobody to tell.
    pub(crate) fn remark(&self, text: &str) {
        writeln!(self.stderr.borrow_mut(), "{}", printable_text(text)).ok();
    }
}

const fn style_of(severity: Severity) -> Style {
    match severity {
        Severity::Critical => AnsiColor::Red.on_default().bold(),
        Severity::High => AnsiColor::Red.on_default(),
        Severity::Medium => AnsiColor::Yellow.on_default(),
        Severity::Low | Severity::Info => Style::new(),
    }
}
