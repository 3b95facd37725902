//! Evidence as text: short, printable ASCII, bounded.

use procwarden_common::limits::EVIDENCE_BYTES_MAX;
use procwarden_common::printable::printable;

/// Raw bytes of a hostile text that evidence shows.
const QUOTED_BYTES_MAX: usize = 160;

/// A hostile text in double quotes, printable and shortened.
pub(super) fn quoted(raw: &[u8]) -> String {
    match raw.get(..QUOTED_BYTES_MAX) {
        Some(head) if raw.len() > QUOTED_BYTES_MAX => format!("\"{}...\"", printable(head)),
        _ => format!("\"{}\"", printable(raw)),
    }
}

/// Cuts a text at the limit of the wire. It is ASCII, so any cut is clean.
pub(super) fn bounded(mut text: String) -> String {
    if text.len() > EVIDENCE_BYTES_MAX {
        let end = (0..=EVIDENCE_BYTES_MAX)
            .rev()
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or(0);
        text.truncate(end);
    }
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
    }
}
