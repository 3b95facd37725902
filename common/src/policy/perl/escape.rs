//! What a backslash begins.

use super::set::{self, NEVER, Set};
use super::{Before, Reader, Refused};

/// A character, or one of several: what an escape stands for in a class as
/// well as outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    Character(u8),
    Set(Set),
}

const UNICODE: &str = "use ASCII classes such as [A-Za-z], and write other bytes as \\\\c3";
const BRACES: &str = "write it as in \\x{41}: hexadecimal digits in braces, octal ones for \\o";

impl Reader<'_> {
    /// An escape outside of classes.
    pub(super) fn escape(&mut self) -> Result<Before, Refused> {
        match self.peek(1) {
            None => return Err(self.refused("a backslash with nothing behind it", "remove it")),
            Some(b'b' | b'B') if self.peek(2) == Some(b'{') => {
                let message = "this boundary can only be told for Unicode text";
                return Err(self.refused(message, "write \\b or \\B without braces"));
            }
            Some(b'A' | b'z' | b'b' | b'B') => self.copy(2),
            Some(b'Z') => self.write("\\z", 2),
            // Nothing was looked for before, and the whole text has to match.
            Some(b'G') => self.write("\\A", 2),
            Some(b'K') => self.write("(?:)", 2),
            Some(b'R') => self.write("(?:\\r\\n|[\\n-\\r])", 2),
            Some(b'X') => self.write(&Set::ALL.class(false), 2),
            Some(b'N') if !self.is_named_character() => self.write("[^\\n]", 2),
            Some(b'1'..=b'9') => return self.numbered(),
            Some(b'g' | b'k') => return self.reference(),
            Some(b'd' | b'D' | b'w' | b'W' | b's' | b'S') => self.copy(2),
            Some(_) => {
                let (piece, length) = self.piece(false)?;
                self.write_piece(piece, length);
            }
        }
        Ok(Before::Atom)
    }

    pub(super) fn write_piece(&mut self, piece: Piece, length: usize) {
        match piece {
            Piece::Character(byte) => self.write(&set::character(byte), length),
            Piece::Set(set) => self.write(&set.class(false), length),
        }
    }

    /// `\1` to `\9`, and what is a reference or octal by the number of groups.
    fn numbered(&mut self) -> Result<Before, Refused> {
        let digits = self.digits(1, 10, usize::MAX);
        let number: usize = digits.parse().unwrap_or(usize::MAX);
        // perlre(1): of two digits or more only where so many groups are open.
        let is_octal = number > 9 && number > self.opened && !digits.starts_with(['8', '9']);
        if is_octal {
            let (piece, length) = self.octal(1);
            self.write_piece(piece, length);
            return Ok(Before::Atom);
        }
        let length = 1 + digits.len();
        self.refer_to(number, length)
    }

    /// A piece and its length, for the backslash that comes next.
    pub(super) fn piece(&self, in_class: bool) -> Result<(Piece, usize), Refused> {
        let Some(letter) = self.peek(1) else {
            return Err(self.refused("a backslash with nothing behind it", "remove it"));
        };
        let simple = |byte| Ok((Piece::Character(byte), 2));
        match letter {
            b'a' => simple(0x07),
            b'b' if in_class => simple(0x08),
            b'e' => simple(0x1b),
            b'f' => simple(0x0c),
            b'n' => simple(b'\n'),
            b'r' => simple(b'\r'),
            b't' => simple(b'\t'),
            b'c' => self.control(),
            b'x' => self.hexadecimal(),
            b'o' => self.in_braces(2, 8),
            b'N' => self.named_character(),
            b'0'..=b'7' => Ok(self.octal(1)),
            b'p' | b'P' => self.property(),
            b'C' => Err(self.refused("Perl no longer knows this", "write a dot")),
            _ => Ok(match set::escape(letter) {
                Some(set) => (Piece::Set(set), 2),
                // Any other character stands for itself.
                None => (Piece::Character(ascii(letter.into())), 2),
            }),
        }
    }

    fn control(&self) -> Result<(Piece, usize), Refused> {
        match self.peek(2).map(|byte| byte.to_ascii_uppercase()) {
            Some(byte @ b' '..=b'~') if byte != b'{' => Ok((Piece::Character(byte ^ 0x40), 3)),
            _ => Err(self.refused(
                "\\c is followed by one character",
                "write \\x1b, for example",
            )),
        }
    }

    fn hexadecimal(&self) -> Result<(Piece, usize), Refused> {
        if self.peek(2) == Some(b'{') {
            return self.in_braces(2, 16);
        }
        let digits = self.digits(2, 16, 2);
        let value = u32::from_str_radix(digits, 16).unwrap_or(0);
        Ok((Piece::Character(ascii(value)), 2 + digits.len()))
    }

    fn octal(&self, from: usize) -> (Piece, usize) {
        let digits = self.digits(from, 8, 3);
        let value = u32::from_str_radix(digits, 8).unwrap_or(0);
        (Piece::Character(ascii(value)), from + digits.len())
    }

    /// A number in braces that open at this distance.
    fn in_braces(&self, open: usize, radix: u32) -> Result<(Piece, usize), Refused> {
        let (inside, length) = self.braces(open, BRACES)?;
        let digits = inside.trim_matches([' ', '\t']).replace('_', "");
        // Nothing in the braces is NUL.
        let value = u32::from_str_radix(&format!("0{digits}"), radix);
        let value = value.map_err(|_| self.refused("this is no number of a character", BRACES))?;
        Ok((Piece::Character(ascii(value)), length))
    }

    /// What stands in braces that open at this distance, and the length up to
    /// their end.
    pub(super) fn braces(&self, open: usize, help: &'static str) -> Result<(&str, usize), Refused> {
        let inside = self.rest().get(open..).and_then(|t| t.strip_prefix('{'));
        let inside = inside.and_then(|t| t.split_once('}'));
        let (inside, _) = inside.ok_or_else(|| self.refused("braces are missing here", help))?;
        Ok((inside, open + inside.len() + 2))
    }

    /// Whether `\N` begins a character by its name, and not any character.
    fn is_named_character(&self) -> bool {
        let behind = self.rest().get(2..).unwrap_or_default();
        behind.starts_with('{') && super::quantifier::counted(behind).is_none()
    }

    fn named_character(&self) -> Result<(Piece, usize), Refused> {
        let help = "write its number, as in \\x{41}";
        let (inside, length) = self.braces(2, help)?;
        let number = inside.trim_matches([' ', '\t']).strip_prefix("U+");
        let number = number.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let number = number
            .ok_or_else(|| self.refused("characters are not known by their names here", help))?;
        Ok((Piece::Character(ascii(number)), length))
    }

    fn property(&self) -> Result<(Piece, usize), Refused> {
        let (name, length) = match self.peek(2) {
            Some(b'{') => self.braces(2, UNICODE)?,
            _ => (self.rest().get(2..3).unwrap_or_default(), 3),
        };
        let name = name.trim_matches([' ', '\t']);
        let (name, inverted) = match name.strip_prefix('^') {
            Some(name) => (name, true),
            None => (name, false),
        };
        let message = "this class of Unicode is not known here, and rules see printable ASCII";
        let set = set::property(name).ok_or_else(|| self.refused(message, UNICODE))?;
        let inverted = inverted != (self.peek(1) == Some(b'P'));
        Ok((Piece::Set(set.inverted_if(inverted)), length))
    }
}

/// A character that texts may have, or the one that none has.
pub(super) fn ascii(code: u32) -> u8 {
    u8::try_from(code).map_or(NEVER, |byte| byte.min(NEVER))
}
