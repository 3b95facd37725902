//! Bracketed classes: `[^a-z[:digit:]_]`.
//!
//! In Perl a `[` in a class is a character unless it opens `[:name:]`, there
//! are no operations on classes, and a `-` is a character wherever it cannot
//! stand between two of them.

use super::escape::{Piece, ascii};
use super::set::{self, Set};
use super::{Reader, Refused};

/// Letters of `[:name:]`: no name is as long.
const NAME_MAX: usize = 32;

impl Reader<'_> {
    /// A class, which is written as the set of its members.
    pub(super) fn class(&mut self) -> Result<(), Refused> {
        let start = self.at;
        self.skip(1);
        let negated = self.peek(0) == Some(b'^');
        self.skip(usize::from(negated));
        let mut members = Set::default();
        if self.peek(0) == Some(b']') {
            self.first_bracket(&mut members)?;
        }
        loop {
            match self.peek(0) {
                Some(b']') => break self.skip(1),
                Some(_) => self.member(&mut members)?,
                None => {
                    self.at = start;
                    let help = "close it with ], or put a backslash before it";
                    return Err(self.refused("this class is not closed", help));
                }
            }
        }
        self.write_from(start, &members.class(negated));
        Ok(())
    }

    /// A bracket that comes first is a member, and may begin a range.
    fn first_bracket(&mut self, members: &mut Set) -> Result<(), Refused> {
        self.skip(1);
        self.range(Piece::Character(b']'), self.at - 1, members)
    }

    fn member(&mut self, members: &mut Set) -> Result<(), Refused> {
        let at = self.at;
        if self.mode().spaces_in_classes_are_none && matches!(self.peek(0), Some(b' ' | b'\t')) {
            self.skip(1);
            return Ok(());
        }
        let piece = self.take_piece()?;
        self.range(piece, at, members)
    }

    /// Adds a member, or the range that it begins.
    fn range(&mut self, from: Piece, at: usize, members: &mut Set) -> Result<(), Refused> {
        let is_range = self.peek(0) == Some(b'-') && !matches!(self.peek(1), None | Some(b']'));
        if !is_range {
            members.add(set_of(from));
            return Ok(());
        }
        self.skip(1);
        let to = self.take_piece()?;
        match (from, to) {
            (Piece::Character(from), Piece::Character(to)) if from <= to => {
                members.add(Set::range(from, to));
            }
            (Piece::Character(_), Piece::Character(_)) => {
                self.at = at;
                return Err(self.refused("this range ends before it begins", "turn it around"));
            }
            // Beside a set there is no range: the `-` is a character.
            _ => [from, Piece::Character(b'-'), to]
                .into_iter()
                .for_each(|piece| members.add(set_of(piece))),
        }
        Ok(())
    }

    fn take_piece(&mut self) -> Result<Piece, Refused> {
        let (piece, length) = match self.peek(0) {
            Some(b'\\') => self.piece(true)?,
            Some(b'[') => self.posix_class()?,
            byte => (Piece::Character(ascii(byte.unwrap_or_default().into())), 1),
        };
        self.skip(length);
        Ok(piece)
    }

    /// `[:alpha:]`, or the character.
    fn posix_class(&self) -> Result<(Piece, usize), Refused> {
        let character = (Piece::Character(b'['), 1);
        let Some(mark @ (b':' | b'.' | b'=')) = self.peek(1) else {
            return Ok(character);
        };
        let end = format!("{}]", char::from(mark));
        let inside = self.rest().get(2..).unwrap_or_default();
        let letters = inside.bytes();
        let length = letters
            .take(NAME_MAX)
            .take_while(|b| b.is_ascii_lowercase() || *b == b'^')
            .count();
        let (name, behind) = inside.split_at(length);
        if !behind.starts_with(&end) {
            return Ok(character);
        }
        let letters = name.trim_start_matches('^');
        let known = set::posix(letters).filter(|_| mark == b':' && name.len() <= letters.len() + 1);
        let help = "use one of Perl's, such as [:alpha:], or put a backslash before the bracket";
        let set = known.ok_or_else(|| self.refused("Perl knows no such class", help))?;
        let set = set.inverted_if(name.starts_with('^'));
        Ok((Piece::Set(set), name.len() + 4))
    }
}

fn set_of(piece: Piece) -> Set {
    match piece {
        Piece::Character(byte) => Set::range(byte, byte),
        Piece::Set(set) => set,
    }
}
