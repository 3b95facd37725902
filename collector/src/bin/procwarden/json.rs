//! Objects for programs: one per line, ASCII only, times in RFC 3339 UTC.

use data_encoding::HEXLOWER;
use procwarden_common::clock::UnixMillis;
use procwarden_common::diagnostic::Diagnostic;
use procwarden_common::printable::{printable, printable_text};
use serde::Serialize;
use uuid::Uuid;

/// The object on one line. Whatever is not ASCII is written as `\uXXXX`: no
/// text can move the cursor of a terminal, and every JSON reader knows it.
pub(crate) fn to_line(object: &impl Serialize) -> Result<String, serde_json::Error> {
    let text = serde_json::to_string(object)?;
    if text.bytes().all(|byte| matches!(byte, 0x20..=0x7e)) {
        return Ok(text);
    }
    let mut line = String::with_capacity(text.len() + 16);
    let mut units = [0; 2];
    for character in text.chars() {
        if matches!(character, ' '..='~') {
            line.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut units) {
            line.push_str(&format!("\\u{unit:04x}"));
        }
    }
    Ok(line)
}

/// A time of the protocol, in which 0 means "never".
pub(crate) fn when(millis: i64) -> Option<String> {
    (millis != 0).then(|| UnixMillis(millis).to_string())
}

/// Text from an agent or another operator, in printable form.
pub(crate) fn shown(text: &str) -> String {
    printable(text.as_bytes())
}

/// The same, absent when there is none.
pub(crate) fn shown_unless_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| shown(text))
}

/// The same, for each of a list.
pub(crate) fn shown_all(texts: &[String]) -> Vec<String> {
    texts.iter().map(|text| shown(text)).collect()
}

/// An id of 16 bytes as a UUID; of another length as plain digits, so that
/// what cannot be right is still shown.
pub(crate) fn uuid_text(bytes: &[u8]) -> String {
    Uuid::from_slice(bytes).map_or_else(|_| HEXLOWER.encode(bytes), |id| id.to_string())
}

/// A digest or id in hexadecimal digits, absent when it is empty.
pub(crate) fn hex_unless_empty(bytes: &[u8]) -> Option<String> {
    (!bytes.is_empty()).then(|| HEXLOWER.encode(bytes))
}

/// A remark about a file.
#[derive(Debug, Serialize)]
pub(crate) struct DiagnosticObject {
    level: String,
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<u32>,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
}

impl From<&Diagnostic> for DiagnosticObject {
    fn from(diagnostic: &Diagnostic) -> Self {
        let unless_zero = |number: u32| (number != 0).then_some(number);
        Self {
            level: diagnostic.level.to_string(),
            file: shown(&diagnostic.file),
            line: unless_zero(diagnostic.line),
            column: unless_zero(diagnostic.column),
            message: printable_text(&diagnostic.message).into_owned(),
            help: (!diagnostic.help.is_empty())
                .then(|| printable_text(&diagnostic.help).into_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_one_line_of_ascii_that_reads_back_unchanged() {
        let hostile = "a\nb\u{1b}\u{7f}\u{9b}\u{202e}\u{1f600}\"\\";
        let line = to_line(&hostile).expect("JSON");
        assert!(
            line.bytes().all(|byte| matches!(byte, 0x20..=0x7e)),
            "{line}"
        );
        assert_eq!(
            serde_json::from_str::<String>(&line).expect("JSON"),
            hostile
        );
    }

    #[test]
    fn a_time_that_never_was_is_absent() {
        assert_eq!(when(0), None);
        assert_eq!(
            when(1_795_424_400_000).as_deref(),
            Some("2026-11-23T09:00:00Z")
        );
    }
}
