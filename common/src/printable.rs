//! The printable form of hostile bytes, and the way back (shared design,
//! "csf.pignore": the text that rules match).
//!
//! CR, LF, TAB, `"` and `\` become `\r \n \t \" \\`; every other byte in
//! 0x00-0x1f and 0x7f-0xff becomes a backslash and two lower-case hexadecimal
//! digits. The form is one-to-one and printable ASCII only, so nothing in it
//! can move a cursor, end a line or open a tag's attribute.

use std::borrow::Cow;

/// Turns raw bytes into their printable form.
#[must_use]
pub fn printable(raw: &[u8]) -> String {
    let mut text = String::with_capacity(raw.len());
    for &byte in raw {
        match byte {
            b'"' => text.push_str("\\\""),
            b'\\' => text.push_str("\\\\"),
            _ => push_shown(&mut text, byte),
        }
    }
    text
}

/// Makes text that the program wrote itself, perhaps around hostile parts,
/// safe to show: what is not printable ASCII is escaped as in [`printable`],
/// quotes and backslashes stay. Text in printable form passes unchanged, so
/// nothing is escaped twice; there is no way back.
#[must_use]
pub fn printable_text(text: &str) -> Cow<'_, str> {
    if text.bytes().all(is_shown_as_is) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(printable_line(text.as_bytes()))
}

/// A line of a file that a person wrote, safe to show: like
/// [`printable_text`], for bytes that need not be UTF-8.
#[must_use]
pub fn printable_line(line: &[u8]) -> String {
    let mut shown = String::with_capacity(line.len());
    for &byte in line {
        push_shown(&mut shown, byte);
    }
    shown
}

/// A text that is not the printable form of anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a printable form: wrong escape or character at byte {offset}")]
pub struct InvalidPrintable {
    /// Where it goes wrong.
    pub offset: usize,
}

/// Turns a printable form back into the raw bytes.
///
/// # Errors
/// When `text` is not what [`printable`] prints.
pub fn unprintable(text: &str) -> Result<Vec<u8>, InvalidPrintable> {
    let mut raw = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let offset = text.len() - rest.len();
        let step = match first {
            b'\\' => unescape(tail),
            b'"' => None,
            byte if is_shown_as_is(byte) => Some((byte, tail)),
            _ => None,
        };
        let (byte, tail) = step.ok_or(InvalidPrintable { offset })?;
        raw.push(byte);
        rest = tail;
    }
    Ok(raw)
}

/// The printable form of a raw `/proc/PID/cmdline`, as lfd makes it: the last
/// NUL removed, every other NUL a space, trailing white space removed.
#[must_use]
pub fn printable_cmdline(raw: &[u8]) -> String {
    let raw = raw.strip_suffix(b"\0").unwrap_or(raw);
    let mut spaced: Vec<u8> = raw.iter().map(|&b| if b == 0 { b' ' } else { b }).collect();
    let length = spaced
        .iter()
        .rposition(|&b| !is_perl_space(b))
        .map_or(0, |last| last + 1);
    spaced.truncate(length);
    printable(&spaced)
}

/// What `\s` of Perl matches among bytes: also vertical tab and form feed.
const fn is_perl_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

const fn is_shown_as_is(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7e)
}

fn push_shown(text: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'\r' => text.push_str("\\r"),
        b'\n' => text.push_str("\\n"),
        b'\t' => text.push_str("\\t"),
        _ if is_shown_as_is(byte) => text.push(char::from(byte)),
        _ => {
            text.push('\\');
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 0xf)]));
        }
    }
}

/// Reads what follows a backslash. Only what [`printable`] prints is taken:
/// a second spelling of a byte would let two rules look different and be one.
fn unescape(tail: &[u8]) -> Option<(u8, &[u8])> {
    let (&first, rest) = tail.split_first()?;
    let byte = match first {
        b'r' => b'\r',
        b'n' => b'\n',
        b't' => b'\t',
        b'"' | b'\\' => first,
        _ => {
            let (&second, rest) = rest.split_first()?;
            let byte = (hex_digit(first)? << 4) | hex_digit(second)?;
            let has_shorter = is_shown_as_is(byte) || matches!(byte, b'\r' | b'\n' | b'\t');
            return (!has_shorter).then_some((byte, rest));
        }
    };
    Some((byte, rest))
}

const fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_are_escaped_as_lfd_escapes_them() {
        let table: [(&[u8], &str); 7] = [
            (b"/usr/sbin/nginx", "/usr/sbin/nginx"),
            (b"a\r\n\tb", "a\\r\\n\\tb"),
            (b"say \"hi\"", "say \\\"hi\\\""),
            (b"c:\\x", "c:\\\\x"),
            (b"\x00\x1b[2J\x7f", "\\00\\1b[2J\\7f"),
            (b"\xc3\xa9\xff", "\\c3\\a9\\ff"),
            (b"", ""),
        ];
        for (raw, text) in table {
            assert_eq!(printable(raw), text);
            assert_eq!(unprintable(text).as_deref(), Ok(raw));
        }
    }

    #[test]
    fn what_printable_never_prints_is_refused_with_its_place() {
        for (text, offset) in [
            ("a\"b", 1),
            ("a\\", 1),
            ("ab\\x", 2),
            ("\\0", 0),
            ("\\0A", 0),
            ("\\41", 0),
            ("\\0a", 0),
            ("x\ny", 1),
            ("\u{e9}", 0),
        ] {
            assert_eq!(
                unprintable(text),
                Err(InvalidPrintable { offset }),
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_command_line_loses_its_last_nul_and_trailing_space_only() {
        let table: [(&[u8], &str); 8] = [
            (b"/bin/sh\0-c\0ls\0", "/bin/sh -c ls"),
            (b"a\0\0b\0", "a  b"),
            (b"a\0\0\0", "a"),
            (b"sshd: root [priv]   \n\0", "sshd: root [priv]"),
            (b"  a", "  a"),
            (b"a\nb\0", "a\\nb"),
            (b"\0", ""),
            (b"", ""),
        ];
        for (raw, text) in table {
            assert_eq!(printable_cmdline(raw), text);
        }
    }

    #[test]
    fn own_text_keeps_its_quotes_and_loses_its_control_characters() {
        assert_eq!(
            printable_text("unknown key \"a\\1b\""),
            "unknown key \"a\\1b\""
        );
        assert_eq!(
            printable_text("a\u{1b}[2J\n\u{202e}"),
            "a\\1b[2J\\n\\e2\\80\\ae"
        );
    }

    proptest! {
        #[test]
        fn the_printable_form_is_ascii_and_goes_back(raw in proptest::collection::vec(any::<u8>(), 0..64)) {
            let text = printable(&raw);
            prop_assert!(text.bytes().all(is_shown_as_is));
            prop_assert_eq!(printable_text(&text), text.as_str());
            prop_assert_eq!(unprintable(&text), Ok(raw));
        }

        #[test]
        fn a_text_that_goes_back_is_the_one_that_was_printed(text in "[\\\\\"0-9a-frntx ]{0,12}") {
            if let Ok(raw) = unprintable(&text) {
                prop_assert_eq!(printable(&raw), text);
            }
        }
    }
}
