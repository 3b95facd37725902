//! Bracketed classes: `[^a-z[:digit:]_]`.
//!
//! In Perl a `[` in a class is a character unless it opens `[:name:]`, there
//! are no operations on classes, and a `-` is a character wherever it cannot
//! stand between two of them.

use super::Reader;

/// What a `-` in a class would begin a range with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Member {
    Nothing,
    Character,
    Set,
}

impl Reader<'_> {
    pub(super) fn class(&mut self) {
        self.copy(1);
        if self.peek(0) == Some(b'^') {
            self.copy(1);
        }
        let mut last = Member::Nothing;
        if self.peek(0) == Some(b']') {
            last = self.character("\\]");
        }
        while let Some(byte) = self.peek(0) {
            last = match byte {
                b']' => {
                    self.copy(1);
                    break;
                }
                b'-' => self.dash(last),
                _ => self.member(byte),
            };
        }
    }

    fn member(&mut self, byte: u8) -> Member {
        match byte {
            b'\\' => match self.peek(1) {
                Some(b'h') => {
                    self.write(" \\t", 2);
                    Member::Set
                }
                Some(angle @ (b'<' | b'>')) => {
                    self.write(if angle == b'<' { "<" } else { ">" }, 2);
                    Member::Character
                }
                letter => {
                    self.copy(self.escape_length());
                    if is_set(letter) {
                        Member::Set
                    } else {
                        Member::Character
                    }
                }
            },
            b'[' => match self.posix_class() {
                Some(length) => {
                    self.copy(length);
                    Member::Set
                }
                None => {
                    self.write("\\[", 1);
                    Member::Character
                }
            },
            // Doubled, these would be operations on classes.
            b'&' => self.character("\\&"),
            b'~' => self.character("\\~"),
            _ => {
                self.copy(1);
                Member::Character
            }
        }
    }

    fn character(&mut self, text: &str) -> Member {
        self.write(text, 1);
        Member::Character
    }

    /// A `-` between two characters is a range, anywhere else a character.
    fn dash(&mut self, last: Member) -> Member {
        let ends_range = match (self.peek(1), self.peek(2)) {
            (None | Some(b']'), _) => false,
            (Some(b'\\'), letter) => !is_set(letter),
            (Some(b'['), Some(b':')) => false,
            _ => true,
        };
        if last == Member::Nothing || !ends_range {
            return self.character("\\-");
        }
        // Behind a set there is no range: the `-` and what follows it are characters.
        self.write(if last == Member::Set { "\\-" } else { "-" }, 1);
        match self.peek(0) {
            Some(b'-') => self.write("\\-", 1),
            Some(byte) => _ = self.member(byte),
            None => {}
        }
        Member::Nothing
    }

    /// The length of `[:alpha:]`.
    fn posix_class(&self) -> Option<usize> {
        let name = self.rest().strip_prefix("[:")?;
        let end = name.find(":]")?;
        let letters = name.get(..end)?.trim_start_matches('^');
        letters
            .bytes()
            .all(|b| b.is_ascii_lowercase())
            .then_some(end + 4)
    }
}

/// Whether an escape stands for more than one character.
const fn is_set(letter: Option<u8>) -> bool {
    matches!(
        letter,
        Some(b'w' | b'W' | b'd' | b'D' | b's' | b'S' | b'h' | b'p' | b'P')
    )
}
