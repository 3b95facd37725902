//! Evidence as text: short, printable ASCII, bounded.

use procwarden_common::limits::EVIDENCE_BYTES_MAX;
use procwarden_common::printable::{printable, printable_text};

/// Raw bytes of a hostile text that evidence shows.
const QUOTED_BYTES_MAX: usize = 160;

/// A hostile text in double quotes, printable and shortened.
pub(super) fn quoted(raw: &[u8]) -> String {
    match raw.get(..QUOTED_BYTES_MAX) {
        Some(head) if raw.len() > QUOTED_BYTES_MAX => format!("\"{}...\"", printable(head)),
        _ => format!("\"{}\"", printable(raw)),
    }
}

/// Makes a text what the wire takes: printable ASCII, cut at its limit. The
/// collector refuses a batch with any other, so it is not left to each detector.
pub(super) fn bounded(text: String) -> String {
    let mut text = printable_text(&text).into_owned();
    // ASCII by now, so any cut is clean.
    text.truncate(EVIDENCE_BYTES_MAX);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_escaped_and_shortened() {
        assert_eq!(quoted(b"a\nb\x1b"), r#""a\nb\1b""#);
        assert!(quoted(&[b'x'; 5000]).ends_with("x...\""));
        assert!(bounded(quoted(&[0xff; 5000]).repeat(9)).len() <= EVIDENCE_BYTES_MAX);
        let long = bounded("\u{e9}\n".repeat(5000));
        assert_eq!(long.len(), EVIDENCE_BYTES_MAX);
        assert!(long.bytes().all(|byte| (0x20..=0x7e).contains(&byte)));
    }
}
