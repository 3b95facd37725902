//! The lines of a `csf.conf`: `KEY = "value"`, comments, and the rest of a
//! firewall's configuration, which is passed over.

use std::collections::HashMap;

use crate::diagnostic::{Diagnostic, Level};
use crate::printable::printable_line;

/// The one key outside of PT_ that has to do with processes.
const FLUSH: &str = "LF_FLUSH";

/// One key of interest.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// From 1.
    pub(super) line: u32,
    pub(super) key: String,
    /// Between the quotes, in printable form, without white space around it.
    pub(super) value: String,
}

/// Every key of interest, and every line that should hold one and does not.
pub(super) fn entries(file: &str, content: &[u8]) -> (Vec<Entry>, Vec<Diagnostic>) {
    let mut entries = Vec::new();
    let mut errors = Vec::new();
    let mut seen: HashMap<String, u32> = HashMap::new();
    for (number, line) in (1..).zip(split(content)) {
        match read_line(line) {
            Ok(None) => {}
            Ok(Some((key, value))) => match seen.insert(key.clone(), number) {
                Some(before) => errors.push(error(
                    file,
                    number,
                    format!("{key} is set in line {before} already"),
                    "leave one of the two, lfd refuses both",
                )),
                None => entries.push(Entry {
                    line: number,
                    key,
                    value,
                }),
            },
            Err((message, help)) => errors.push(error(file, number, message, help)),
        }
    }
    (entries, errors)
}

/// Lines end in LF or CRLF; in CR alone where there is no LF at all.
fn split(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let end = if content.contains(&b'\n') {
        b'\n'
    } else {
        b'\r'
    };
    content.split(move |&byte| byte == end)
}

type Pair = (String, String);

fn read_line(line: &[u8]) -> Result<Option<Pair>, (String, &'static str)> {
    let line = line.trim_ascii();
    if line.first().is_none_or(|&first| first == b'#') {
        return Ok(None);
    }
    let key_end = line
        .iter()
        .position(|&b| b == b'=' || b.is_ascii_whitespace())
        .unwrap_or(line.len());
    let (key, rest) = line.split_at(key_end);
    let key = printable_line(key);
    if !(key.starts_with("PT_") || key == FLUSH) {
        return Ok(None);
    }
    let Some(value) = rest.trim_ascii_start().strip_prefix(b"=") else {
        return Err((
            format!("there is no '=' behind {key}"),
            "write KEY = \"value\"",
        ));
    };
    match quoted(value) {
        Some(value) => Ok(Some((key, printable_line(value.trim_ascii())))),
        None => Err((
            format!("the value of {key} is not in quotes"),
            "write KEY = \"value\"",
        )),
    }
}

/// What is between the first quote and the last one, as lfd takes it.
fn quoted(value: &[u8]) -> Option<&[u8]> {
    let first = value.iter().position(|&b| b == b'"')?;
    let last = value.iter().rposition(|&b| b == b'"')?;
    value.get(first + 1..last)
}

/// An error in a line, or about the whole file when it is 0.
pub(super) fn error(file: &str, line: u32, message: String, help: &str) -> Diagnostic {
    Diagnostic {
        level: Level::Error,
        file: file.to_owned(),
        line,
        column: 0,
        message,
        help: help.to_owned(),
    }
}
