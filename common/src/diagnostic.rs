//! Remarks about a file that a person wrote: where, what, and what to do.

use std::fmt;

use crate::printable::{printable_line, printable_text};

/// How much a remark matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The file works, but perhaps not as meant.
    Warning,
    /// The file is refused.
    Error,
}

/// One remark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How much it matters.
    pub level: Level,
    /// File, as the person named it.
    pub file: String,
    /// Line, from 1; 0 when it is about the whole file.
    pub line: u32,
    /// Column in characters, from 1; 0 when it is about the whole line.
    pub column: u32,
    /// What is wrong: lower case, no final period.
    pub message: String,
    /// What to do about it; may be empty.
    pub help: String,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// `file:line:column: error: message (help)`; escapes hostile bytes, so it
/// can go to a terminal as it is.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable_text(&self.file))?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
            if self.column > 0 {
                write!(f, ":{}", self.column)?;
            }
        }
        write!(f, ": {}: {}", self.level, printable_text(&self.message))?;
        if !self.help.is_empty() {
            write!(f, " ({})", printable_text(&self.help))?;
        }
        Ok(())
    }
}

/// Characters of a line that are shown; of a longer one, those about the place.
const EXCERPT_MAX: usize = 120;

/// A line of a file and, below it, a caret under a column (from 1): two lines
/// that can go to a terminal as they are.
#[must_use]
pub fn excerpt(line: &[u8], column: u32) -> [String; 2] {
    let wanted = usize::try_from(column.saturating_sub(1)).unwrap_or(usize::MAX);
    let mut begins = line
        .iter()
        .enumerate()
        .filter(|(_, b)| **b & 0xc0 != 0x80)
        .map(|(at, _)| at);
    let offset = begins.nth(wanted).unwrap_or(line.len());
    let (before, behind) = line.split_at(offset);
    let before = printable_line(before);
    let from = before.len().saturating_sub(EXCERPT_MAX / 2);
    let before = before.get(from..).unwrap_or_default();
    let behind = printable_line(behind);
    let behind = behind
        .get(..EXCERPT_MAX - before.len())
        .unwrap_or(behind.as_str());
    let caret = format!("{}^", " ".repeat(before.len()));
    [format!("{before}{behind}"), caret]
}

/// Whether any remark is an error.
#[must_use]
pub fn has_errors(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().any(|d| d.level == Level::Error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnostic(line: u32, column: u32, help: &str) -> Diagnostic {
        Diagnostic {
            level: Level::Error,
            file: "web.pignore".into(),
            line,
            column,
            message: "unknown key \"ex\"".into(),
            help: help.into(),
        }
    }

    #[test]
    fn a_remark_names_only_the_place_it_knows() {
        for (line, column, help, text) in [
            (
                3,
                5,
                "use exe:",
                "web.pignore:3:5: error: unknown key \"ex\" (use exe:)",
            ),
            (3, 0, "", "web.pignore:3: error: unknown key \"ex\""),
            (0, 5, "", "web.pignore: error: unknown key \"ex\""),
        ] {
            assert_eq!(diagnostic(line, column, help).to_string(), text);
        }
    }

    #[test]
    fn the_caret_stands_under_the_place_as_it_is_shown() {
        let cases: [(&[u8], u32, &str, &str); 6] = [
            (b"pexe:/a(b", 8, "pexe:/a(b", "       ^"),
            (b"\tpcmd:x[", 8, "\\tpcmd:x[", "        ^"),
            (
                "pcmd:\u{e9}(".as_bytes(),
                7,
                "pcmd:\\c3\\a9(",
                "           ^",
            ),
            (b"exe:/a", 7, "exe:/a", "      ^"),
            (b"exe:/a", 99, "exe:/a", "      ^"),
            (b"", 1, "", "^"),
        ];
        for (line, column, shown, caret) in cases {
            assert_eq!(excerpt(line, column), [shown, caret]);
        }
        let long = "a".repeat(500);
        let [shown, caret] = excerpt(long.as_bytes(), 300);
        assert_eq!((shown.len(), caret.len()), (120, 61));
    }

    #[test]
    fn hostile_text_in_a_remark_cannot_reach_the_terminal() {
        let hostile = Diagnostic {
            level: Level::Warning,
            file: "a\u{1b}]0;x\u{7}".into(),
            message: "b\r\nc".into(),
            ..diagnostic(1, 1, "\u{9b}2J")
        };
        assert_eq!(
            hostile.to_string(),
            "a\\1b]0;x\\07:1:1: warning: b\\r\\nc (\\c2\\9b2J)"
        );
    }
}
