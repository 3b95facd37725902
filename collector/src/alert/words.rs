//! Text that is safe to show: printable ASCII on one line. Pure.

use procwarden_common::printable::printable;

/// Longest line for headers and logs: a server's answer is as long as the
/// server likes.
const LINE_BYTES_MAX: usize = 500;

/// The text as it is when it is printable ASCII, else its printable form. What
/// an agent escaped already is not escaped again.
pub(super) fn harmless(text: &str) -> String {
    let is_harmless = |byte: u8| (0x20..=0x7e).contains(&byte);
    if text.bytes().all(is_harmless) {
        text.to_owned()
    } else {
        printable(text.as_bytes())
    }
}

/// The same, for headers, logs and messages: cut when it is long.
pub(super) fn one_line(text: &str) -> String {
    let line = harmless(text);
    if line.len() <= LINE_BYTES_MAX {
        return line;
    }
    clip(&line, LINE_BYTES_MAX, "...")
}

/// The first `bytes_max` bytes of an ASCII text and a mark, when it is longer.
pub(super) fn clip(text: &str, bytes_max: usize, mark: &str) -> String {
    match text.split_at_checked(bytes_max) {
        Some((head, tail)) if !tail.is_empty() => format!("{head}{mark}"),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_text_stays_as_it_is() {
        assert_eq!(one_line(r#"say "a\b""#), r#"say "a\b""#);
    }

    #[test]
    fn hostile_bytes_are_escaped_and_long_text_is_cut() {
        assert_eq!(one_line("a\r\nBcc: x\u{1b}[0m"), r"a\r\nBcc: x\1b[0m");
        assert_eq!(one_line("\u{202e}"), r"\e2\80\ae");
        assert_eq!(one_line(&"x".repeat(2000)).len(), LINE_BYTES_MAX + 3);
        assert_eq!(clip("abc", 3, "..."), "abc");
        assert_eq!(clip("abcd", 3, "..."), "abc...");
    }
}
