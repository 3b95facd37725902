//! Remarks of a check on standard error, each with its line and a caret below
//! the place, where the text is at hand.

use std::collections::HashMap;

use procwarden_common::diagnostic::{Diagnostic, Level, excerpt};
use procwarden_common::policy::source_lines;
use procwarden_proto::v1;

use crate::failure::Failure;
use crate::output::Output;

/// The lines of the files that remarks are about.
#[derive(Debug, Default)]
pub(crate) struct Sources<'a> {
    files: HashMap<&'a str, Vec<&'a [u8]>>,
}

impl<'a> Sources<'a> {
    pub(crate) fn add(&mut self, name: &'a str, content: &'a [u8]) {
        self.files.insert(name, source_lines(content));
    }

    /// The line of a remark that names a column, and the caret below it.
    fn excerpt(&self, remark: &Diagnostic) -> Option<[String; 2]> {
        if remark.column == 0 {
            return None;
        }
        let index = usize::try_from(remark.line).ok()?.checked_sub(1)?;
        let line = self.files.get(remark.file.as_str())?.get(index)?;
        Some(excerpt(line, remark.column))
    }
}

/// Writes the remarks to standard error.
pub(crate) fn say(remarks: &[Diagnostic], sources: &Sources<'_>, out: &Output) {
    for remark in remarks {
        out.remark(&remark.to_string());
        for line in sources.excerpt(remark).into_iter().flatten() {
            out.remark(&format!("    {line}"));
        }
    }
}

/// Writes what the collector remarked about something that it did.
pub(crate) fn say_of_collector(remarks: Vec<v1::Diagnostic>, out: &Output) {
    let remarks: Vec<Diagnostic> = remarks.into_iter().map(Into::into).collect();
    say(&remarks, &Sources::default(), out);
}

/// Fails when any remark is an error, or with `strict` when there is any.
pub(crate) fn judge(
    remarks: &[Diagnostic],
    strict: bool,
    consequence: &str,
) -> Result<(), Failure> {
    let errors = remarks.iter().filter(|r| r.level == Level::Error).count();
    if errors > 0 {
        return Err(Failure::Negative(format!(
            "{errors} error(s); {consequence}"
        )));
    }
    if strict && !remarks.is_empty() {
        return Err(Failure::Negative(format!(
            "{} warning(s) and --strict; {consequence}",
            remarks.len()
        )));
    }
    Ok(())
}
