//! Remarks about a file that a person wrote: where, what, and what to do.

use std::fmt;

use crate::printable::printable_text;

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
