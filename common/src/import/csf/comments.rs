//! `#@` in a csf.pignore: in csf's own format it is a comment like any other.

use crate::diagnostic::{Diagnostic, Level};
use crate::policy::is_facts_line;

/// Lines that are named in warnings; those beyond are counted.
const NAMED_MAX: usize = 20;

/// The file with every `#@` that a policy would read as facts of a rule turned
/// into `# @`, which is a comment everywhere. `file` is its name in the
/// warnings; there is one for each such line, up to a bound, and one that
/// counts the rest. Lines keep their numbers and ends.
#[must_use]
pub fn plain_comments(file: &str, content: &[u8]) -> (Vec<u8>, Vec<Diagnostic>) {
    let mut plain = Vec::with_capacity(content.len());
    let mut found = Vec::new();
    let mut number: u32 = 1;
    let mut before = b'\n';
    for piece in content.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
        let is_rest_of_crlf = before == b'\r' && piece == b"\n";
        if !is_rest_of_crlf && !plain.is_empty() {
            number = number.saturating_add(1);
        }
        before = piece.last().copied().unwrap_or(before);
        match piece.iter().position(|&byte| byte == b'#') {
            Some(at) if is_facts_line(without_mark(piece, plain.is_empty())) => {
                let (front, rest) = piece.split_at(at + 1);
                plain.extend_from_slice(front);
                plain.push(b' ');
                plain.extend_from_slice(rest);
                found.push(number);
            }
            _ => plain.extend_from_slice(piece),
        }
    }
    (plain, warnings(file, &found))
}

/// The line without the byte order mark that the first one may have.
fn without_mark(line: &[u8], is_first: bool) -> &[u8] {
    let mark = if is_first { b"\xef\xbb\xbf" } else { &b""[..] };
    line.strip_prefix(mark).unwrap_or(line)
}

fn warnings(file: &str, lines: &[u32]) -> Vec<Diagnostic> {
    let warning = |line, message| Diagnostic {
        level: Level::Warning,
        file: file.to_owned(),
        line,
        column: 0,
        message,
        help: "add facts of rules to the policy after the import".to_owned(),
    };
    let message = "'#@' is a plain comment in csf's format, and is published as '# @' \
                   [plain-comment]";
    let named = lines.iter().take(NAMED_MAX);
    let mut warnings: Vec<_> = named
        .map(|line| warning(*line, message.to_owned()))
        .collect();
    if let Some(next) = lines.get(NAMED_MAX) {
        let more = lines.len() - NAMED_MAX;
        let message = format!("{more} more line(s) from here on begin with '#@' [plain-comment]");
        warnings.push(warning(*next, message));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{PolicyDocument, PolicyFile, rules_of};

    #[test]
    fn only_what_would_be_facts_is_changed_and_lines_keep_their_numbers() {
        let cases: [(&[u8], &[u8], &[u32]); 9] = [
            (b"", b"", &[]),
            (b"# a\nexe:/a#@ b\n", b"# a\nexe:/a#@ b\n", &[]),
            (b"#@@@ decoration\n# @ a", b"#@@@ decoration\n# @ a", &[]),
            (b"#@ old\nexe:/a\n", b"# @ old\nexe:/a\n", &[1]),
            (
                b"exe:/a\r\n\r\n \t#@owner=x\r\n",
                b"exe:/a\r\n\r\n \t# @owner=x\r\n",
                &[3],
            ),
            (b"a\r\r#@", b"a\r\r# @", &[3]),
            (b"\n\n#@ \xff", b"\n\n# @ \xff", &[3]),
            (b"\xef\xbb\xbf#@ x\n#@", b"\xef\xbb\xbf# @ x\n# @", &[1, 2]),
            (
                b"#@ a\r\n#@ b\n#@ c\r",
                b"# @ a\r\n# @ b\n# @ c\r",
                &[1, 2, 3],
            ),
        ];
        for (content, expected, lines) in cases {
            let (plain, warnings) = plain_comments("csf.pignore", content);
            let text = content.escape_ascii();
            assert_eq!(plain, expected, "{text}");
            let named: Vec<u32> = warnings.iter().map(|warning| warning.line).collect();
            assert_eq!(named, lines, "{text}");
            assert!(plain_comments("", &plain).1.is_empty(), "{text}");
        }
    }

    #[test]
    fn facts_of_another_program_are_no_facts_of_a_rule() {
        let (content, _) = plain_comments("a", b"#@ expires=2020-01-01\nexe:/a\n");
        let document = PolicyDocument {
            name: "a".into(),
            revision: 1,
            files: vec![PolicyFile {
                path: "a".into(),
                content,
            }],
            settings: String::new(),
        };
        assert!(rules_of(&document)[0].facts.is_empty());
    }

    #[test]
    fn a_file_full_of_them_is_told_in_few_words() {
        let (_, warnings) = plain_comments("a", "#@ x\n".repeat(50_000).as_bytes());
        assert_eq!(warnings.len(), NAMED_MAX + 1);
        let last = warnings.last().unwrap();
        assert_eq!(last.line, 21);
        assert!(last.message.starts_with("49980 more"), "{last}");
    }
}
