//! Reads a Perl pattern and writes it so that the engines of this program
//! understand the same by it.
//!
//! What both sides spell alike is copied. What an engine would take for
//! something else without a word (`\<`, a `[` or `&&` within a class, a `{`
//! that repeats nothing, `*+`) is rewritten or refused. It does not look for
//! other errors: that is the engines' part.

mod class;
#[cfg(test)]
mod tests;

/// A pattern for the engines.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// The pattern.
    pub(super) text: String,
    /// For every byte of `text`, where it comes from.
    origin: Vec<usize>,
    /// It gives up no ground it took (`*+`, `(?>`): only the engine that
    /// backtracks knows such things.
    pub(super) possessive: bool,
    /// Every `|` outside of parentheses.
    pub(super) bars: Vec<usize>,
}

impl Reading {
    /// Where a byte of `text` stands in the original.
    pub(super) fn origin(&self, offset: usize) -> usize {
        let last = self.origin.last().map_or(0, |last| last + 1);
        self.origin.get(offset).copied().unwrap_or(last)
    }
}

/// Something that Perl refuses, and that an engine would take for something else.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) offset: usize,
    pub(super) message: &'static str,
    pub(super) help: &'static str,
}

/// Reads a pattern.
pub(super) fn read(pattern: &str) -> Result<Reading, Refused> {
    let mut reader = Reader {
        pattern,
        at: 0,
        out: Reading::default(),
    };
    reader.pattern()?;
    Ok(reader.out)
}

/// What a quantifier would repeat.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    Atom,
    Quantifier,
}

struct Reader<'p> {
    pattern: &'p str,
    at: usize,
    out: Reading,
}

impl Reader<'_> {
    fn pattern(&mut self) -> Result<(), Refused> {
        let mut depth = 0_usize;
        let mut before = Before::Nothing;
        while let Some(byte) = self.peek(0) {
            before = match byte {
                b'\\' => self.escape(),
                b'[' => {
                    self.class();
                    Before::Atom
                }
                b'(' if self.rest().starts_with("(?#") => {
                    self.skip_comment();
                    before
                }
                b'(' => {
                    depth += 1;
                    self.group_start()?;
                    Before::Nothing
                }
                b')' => {
                    depth = depth.saturating_sub(1);
                    self.copy(1);
                    Before::Atom
                }
                b'|' => {
                    if depth == 0 {
                        self.out.bars.push(self.at);
                    }
                    self.copy(1);
                    Before::Nothing
                }
                b'*' | b'+' | b'?' => self.quantifier(1, before)?,
                b'{' => match self.counted() {
                    Some(_) if before == Before::Nothing => {
                        return Err(self.refused(
                            "there is nothing before this that it could repeat",
                            "put a backslash before it, if it stands for itself",
                        ));
                    }
                    Some(length) => self.quantifier(length, before)?,
                    None => {
                        self.write("\\{", 1);
                        Before::Atom
                    }
                },
                _ => {
                    self.copy(1);
                    Before::Atom
                }
            };
        }
        Ok(())
    }

    fn quantifier(&mut self, length: usize, before: Before) -> Result<Before, Refused> {
        if before == Before::Quantifier {
            return Err(self.refused(
                "this repeats a repetition, which Perl refuses",
                "remove it, or put parentheses around what it repeats",
            ));
        }
        self.copy(length);
        match self.peek(0) {
            Some(b'?') => self.copy(1),
            Some(b'+') => {
                self.out.possessive = true;
                self.copy(1);
            }
            _ => {}
        }
        Ok(Before::Quantifier)
    }

    const fn refused(&self, message: &'static str, help: &'static str) -> Refused {
        Refused {
            offset: self.at,
            message,
            help,
        }
    }

    /// The length of `{2}`, `{2,}` or `{2,4}`; any other `{` is a character.
    fn counted(&self) -> Option<usize> {
        let (inside, _) = self.rest().strip_prefix('{')?.split_once('}')?;
        let (from, to) = inside.split_once(',').unwrap_or((inside, ""));
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        (!from.is_empty() && digits(from) && digits(to)).then_some(inside.len() + 2)
    }

    fn escape(&mut self) -> Before {
        match self.peek(1) {
            Some(b'Z') => self.write("\\z", 2),
            Some(b'h') => self.write("[ \\t]", 2),
            Some(b'H') => self.write("[^ \\t]", 2),
            Some(angle @ (b'<' | b'>')) => self.write(if angle == b'<' { "<" } else { ">" }, 2),
            _ => self.copy(self.escape_length()),
        }
        Before::Atom
    }

    /// The length of an escape, with its braces where it takes some.
    fn escape_length(&self) -> usize {
        let takes_braces = matches!(
            self.peek(1),
            Some(b'x' | b'p' | b'P' | b'g' | b'k' | b'b' | b'o' | b'N')
        );
        if takes_braces && self.peek(2) == Some(b'{') {
            return self.rest().find('}').map_or(2, |end| end + 1);
        }
        2
    }

    fn group_start(&mut self) -> Result<(), Refused> {
        let Some(flags) = self.rest().strip_prefix("(?") else {
            self.copy(1);
            return Ok(());
        };
        if flags.starts_with('>') {
            self.out.possessive = true;
            self.copy(3);
            return Ok(());
        }
        let length = flags
            .bytes()
            .take_while(|b| b.is_ascii_alphabetic() || *b == b'-')
            .count();
        let (letters, end) = flags.split_at(length);
        let is_flags = end.starts_with([':', ')']);
        if let Some(bad) = letters.find(['R', 'U']).filter(|_| is_flags) {
            return Err(Refused {
                offset: self.at + 2 + bad,
                message: "this group means something else in Perl",
                help: "write the pattern without it",
            });
        }
        // What follows `(?` is no quantifier.
        self.copy(2);
        let marks = self
            .rest()
            .bytes()
            .take_while(|b| b"<=!:P'|".contains(b))
            .count();
        self.copy(marks);
        Ok(())
    }

    fn skip_comment(&mut self) {
        self.at += self
            .rest()
            .find(')')
            .map_or(self.rest().len(), |end| end + 1);
    }

    fn rest(&self) -> &str {
        self.pattern.get(self.at..).unwrap_or_default()
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.pattern.as_bytes().get(self.at + ahead).copied()
    }

    /// Copies this many bytes, and the rest of a character that begins in them.
    fn copy(&mut self, bytes: usize) {
        let mut end = (self.at + bytes).min(self.pattern.len());
        while !self.pattern.is_char_boundary(end) {
            end += 1;
        }
        self.out
            .text
            .push_str(self.pattern.get(self.at..end).unwrap_or_default());
        self.out.origin.extend(self.at..end);
        self.at = end;
    }

    /// Writes something else for this many bytes.
    fn write(&mut self, text: &str, bytes: usize) {
        self.out.text.push_str(text);
        self.out
            .origin
            .extend(std::iter::repeat_n(self.at, text.len()));
        self.at += bytes;
    }
}
