//! Builds plain text that is safe whatever is put into it. Pure.
//!
//! Promises: printable ASCII and `\n` only; no line is longer than
//! [`LINE_BYTES_MAX`] but those that must be copied whole.

use crate::alert::words::harmless;

/// Longest line. SMTP allows 998 bytes; the mail library encodes longer ones,
/// but people read the result.
const LINE_BYTES_MAX: usize = 900;

/// Width of the labels of fields.
const LABEL_WIDTH: usize = 18;

/// Starts what did not fit into a line, so that no text of a process can pass
/// as a line of the mail.
const CONTINUATION: &str = "      ... ";

/// Text that grows by lines.
#[derive(Debug, Default, Clone)]
pub(super) struct Text(String);

impl Text {
    /// A line, continued on further ones when it is long.
    pub(super) fn line(&mut self, text: &str) {
        let safe = harmless(text);
        let mut rest = safe.as_str();
        let mut room = LINE_BYTES_MAX;
        while let Some((head, tail)) = rest.split_at_checked(room).filter(|(_, t)| !t.is_empty()) {
            self.push(head);
            self.0.push_str(CONTINUATION);
            rest = tail;
            room = LINE_BYTES_MAX - CONTINUATION.len();
        }
        self.push(rest);
    }

    /// A line that is copied from the mail, so it stays in one piece.
    pub(super) fn whole_line(&mut self, text: &str) {
        self.push(&harmless(text));
    }

    /// `Label:  value`.
    pub(super) fn field(&mut self, label: &str, value: &str) {
        let label = format!("{label}:");
        self.line(&format!("{label:LABEL_WIDTH$}{value}"));
    }

    /// An empty line.
    pub(super) fn blank(&mut self) {
        self.0.push('\n');
    }

    /// Another text behind this one.
    pub(super) fn append(&mut self, other: &Self) {
        self.0.push_str(&other.0);
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The text.
    pub(super) fn into_string(self) -> String {
        self.0
    }

    fn push(&mut self, line: &str) {
        self.0.push_str(line.trim_end_matches(' '));
        self.0.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_continued_and_loses_nothing() {
        let mut text = Text::default();
        text.line(&"abcde".repeat(500));
        let text = text.into_string();
        assert!(text.lines().all(|line| line.len() <= LINE_BYTES_MAX));
        assert_eq!(
            text.replace(CONTINUATION, "").replace('\n', ""),
            "abcde".repeat(500)
        );
    }

    #[test]
    fn no_text_ends_its_line() {
        let mut text = Text::default();
        text.field("Host", "a\nExecutable: /bin/true\r\u{85}\u{2028}");
        assert_eq!(text.into_string().lines().count(), 1);
    }
}
