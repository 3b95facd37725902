//! The lines of a pignore file: where they end, and what each one is.
//! Looks at bytes: a comment may hold anything.

use super::RuleKey;

/// One line, without its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// From 1.
    pub(super) number: u32,
    pub(super) bytes: &'a [u8],
}

/// A line end that lfd stumbles over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OddEnd {
    CrLf,
    Cr,
}

/// The lines of a file, and the first line whose end is odd.
pub(super) struct Lines<'a> {
    pub(super) lines: Vec<Line<'a>>,
    pub(super) odd_end: Option<(u32, OddEnd)>,
}

/// What a line is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content<'a> {
    /// Empty, or a comment.
    Nothing,
    /// `#@ key=value ...`: facts of the next rule, at this byte of the line.
    Facts { text: &'a [u8], text_at: usize },
    /// `Include /path`.
    Include(&'a [u8]),
    /// One of the six keys, and the value at this byte of the line.
    Rule {
        key: RuleKey,
        value: &'a [u8],
        value_at: usize,
    },
    /// Anything else, which lfd passes over without a word.
    Unknown,
}

/// Splits at LF, CRLF and bare CR. A byte order mark is not part of line 1.
pub(super) fn split(content: &[u8]) -> Lines<'_> {
    let mut rest = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let mut lines = Vec::new();
    let mut odd_end = None;
    let mut number: u32 = 1;
    while !rest.is_empty() {
        let length = rest
            .iter()
            .position(|b| matches!(b, b'\n' | b'\r'))
            .unwrap_or(rest.len());
        let (bytes, end) = rest.split_at(length);
        let (end_length, odd) = match end {
            [b'\r', b'\n', ..] => (2, Some(OddEnd::CrLf)),
            [b'\r', ..] => (1, Some(OddEnd::Cr)),
            _ => (end.len().min(1), None),
        };
        if let (None, Some(odd)) = (odd_end, odd) {
            odd_end = Some((number, odd));
        }
        lines.push(Line { number, bytes });
        rest = end.get(end_length..).unwrap_or_default();
        number = number.saturating_add(1);
    }
    Lines { lines, odd_end }
}

/// Says what a line is, as lfd reads it: the key in any case, white space in
/// it dropped, white space behind the value dropped.
pub(super) fn classify(line: &[u8]) -> Content<'_> {
    if let Some(facts) = facts(line) {
        return facts;
    }
    if matches!(line.iter().find(|b| !is_space(**b)), None | Some(b'#')) {
        return Content::Nothing;
    }
    if let Some(path @ [first, ..]) = line.strip_prefix(b"Include")
        && (is_space(*first) || *first == b'/')
    {
        return Content::Include(trim(path));
    }
    let Some(colon) = line.iter().position(|&b| b == b':') else {
        return Content::Unknown;
    };
    let (word, value) = line.split_at(colon);
    let word: Vec<u8> = word
        .iter()
        .filter(|b| !is_space(**b))
        .map(u8::to_ascii_lowercase)
        .collect();
    let Some((key, _)) = RuleKey::ALL
        .iter()
        .find(|(_, known)| known.as_bytes() == word)
    else {
        return Content::Unknown;
    };
    let value = value.strip_prefix(b":").unwrap_or(value);
    Content::Rule {
        key: *key,
        value: trim_end(value),
        value_at: colon + 1,
    }
}

/// Whether a line of a pignore file says something about the next rule.
#[must_use]
pub fn is_facts_line(line: &[u8]) -> bool {
    facts(line).is_some()
}

/// A comment that begins with `#@` and a word; `#@@@` is decoration.
fn facts(line: &[u8]) -> Option<Content<'_>> {
    let start = line.iter().position(|b| !is_space(*b))?;
    let text = line.get(start..)?.strip_prefix(b"#@")?;
    let is_facts = text
        .first()
        .is_none_or(|b| is_space(*b) || b.is_ascii_alphabetic());
    let text_at = start + 2;
    is_facts.then_some(Content::Facts { text, text_at })
}

/// The word before the colon or the first space, as a person sees it.
pub(super) fn first_word(line: &[u8]) -> &[u8] {
    let line = trim(line);
    let end = line
        .iter()
        .position(|&b| b == b':' || is_space(b))
        .unwrap_or(line.len());
    line.get(..end).unwrap_or_default()
}

/// What `\s` of Perl matches among bytes.
const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

fn trim(bytes: &[u8]) -> &[u8] {
    let start = bytes
        .iter()
        .position(|b| !is_space(*b))
        .unwrap_or(bytes.len());
    trim_end(bytes.get(start..).unwrap_or_default())
}

fn trim_end(bytes: &[u8]) -> &[u8] {
    let end = bytes
        .iter()
        .rposition(|b| !is_space(*b))
        .map_or(0, |last| last + 1);
    bytes.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_at_lf_crlf_and_bare_cr() {
        type Case = (
            &'static [u8],
            &'static [&'static [u8]],
            Option<(u32, OddEnd)>,
        );
        let cases: [Case; 8] = [
            (b"", &[], None),
            (b"a\nb\n", &[b"a", b"b"], None),
            (b"a\n\nb", &[b"a", b"", b"b"], None),
            (b"a\r\nb\r\n", &[b"a", b"b"], Some((1, OddEnd::CrLf))),
            (b"a\rb\rc", &[b"a", b"b", b"c"], Some((1, OddEnd::Cr))),
            (
                b"a\nb\r\nc\rd\n",
                &[b"a", b"b", b"c", b"d"],
                Some((2, OddEnd::CrLf)),
            ),
            (b"a\r\r\nb", &[b"a", b"", b"b"], Some((1, OddEnd::Cr))),
            (b"\xef\xbb\xbfa\n", &[b"a"], None),
        ];
        for (content, expected, odd_end) in cases {
            let seen = split(content);
            assert_eq!(
                seen.lines.iter().map(|l| l.bytes).collect::<Vec<_>>(),
                expected
            );
            assert_eq!(seen.odd_end, odd_end);
            assert!(
                seen.lines
                    .iter()
                    .map(|l| l.number)
                    .zip(1..)
                    .all(|(number, n)| number == n)
            );
        }
    }

    #[test]
    fn a_line_is_read_as_lfd_reads_it() {
        let rule = |key, value: &'static [u8], value_at| Content::Rule {
            key,
            value,
            value_at,
        };
        let facts = |text: &'static [u8], text_at| Content::Facts { text, text_at };
        let cases: [(&'static [u8], Content<'static>); 25] = [
            (b"", Content::Nothing),
            (b" \t", Content::Nothing),
            (b"# exe:/x", Content::Nothing),
            (b"  #\xff", Content::Nothing),
            (b"#@@@ x", Content::Nothing),
            (b"# @ owner=x", Content::Nothing),
            (b" #@ owner=x", facts(b" owner=x", 3)),
            (b"#@owner=x", facts(b"owner=x", 2)),
            (b"#@", facts(b"", 2)),
            (b"exe:/x", rule(RuleKey::Exe, b"/x", 4)),
            (b"EXE:/x", rule(RuleKey::Exe, b"/x", 4)),
            (b" p e\txe :/x", rule(RuleKey::Pexe, b"/x", 9)),
            (b"exe: /x \t\x0b", rule(RuleKey::Exe, b" /x", 4)),
            (b"user:a:b", rule(RuleKey::User, b"a:b", 5)),
            (b"puser:", rule(RuleKey::Puser, b"", 6)),
            (b"cmd:#x", rule(RuleKey::Cmd, b"#x", 4)),
            (b"pcmd:.*", rule(RuleKey::Pcmd, b".*", 5)),
            (b"Include /etc/x ", Content::Include(b"/etc/x")),
            (b"Include/etc/x", Content::Include(b"/etc/x")),
            (b"Include ", Content::Include(b"")),
            (b"include /etc/x", Content::Unknown),
            (b" Include /etc/x", Content::Unknown),
            (b"Includes", Content::Unknown),
            (b"exec:/x", Content::Unknown),
            (b"/usr/sbin/x", Content::Unknown),
        ];
        for (line, expected) in cases {
            assert_eq!(classify(line), expected, "{}", line.escape_ascii());
        }
    }
}
