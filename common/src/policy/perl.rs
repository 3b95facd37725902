//! Reads a Perl pattern and writes it so that the engines of this program
//! understand the same by it.
//!
//! Rules see printable ASCII only, which makes that possible: classes are
//! written as the set of their ASCII members, characters by their number,
//! references to groups by theirs, and what only Perl knows (`\N`, `\h`,
//! `(?^i:`, `(?x)`) as what it stands for. What cannot be written is refused
//! here, at its place. It does not look for other errors: that is the
//! engines' part. Syntax: perlre(1), perlrebackslash(1) and
//! perlrecharclass(1) of Perl 5.36.

mod class;
mod cost;
mod escape;
mod group;
mod quantifier;
mod set;
#[cfg(test)]
mod tests;

use cost::{Cost, Group};
use group::Groups;

/// A pattern for the engines.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// The pattern.
    pub(super) text: String,
    /// For every byte of `text`, where it comes from.
    origin: Vec<usize>,
    /// It looks around, refers to what it matched, or gives up no ground it
    /// took: only the engine that backtracks knows such things.
    pub(super) backtracks: bool,
    /// A step of that engine may read the whole text, and there may be many.
    pub(super) is_costly: bool,
    /// Alternatives, besides the first of each group.
    pub(super) alternatives: usize,
    /// Every `|` outside of parentheses.
    pub(super) bars: Vec<usize>,
    /// What a person should know about it.
    pub(super) notes: Vec<Note>,
}

impl Reading {
    /// Where a byte of `text` stands in the original.
    pub(super) fn origin(&self, offset: usize) -> usize {
        let last = self.origin.last().map_or(0, |last| last + 1);
        self.origin.get(offset).copied().unwrap_or(last)
    }
}

/// What is worth saying about a pattern that works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Note {
    /// Byte of the pattern.
    pub(super) offset: usize,
    pub(super) message: String,
    pub(super) help: String,
}

/// Something that Perl refuses, or that the engines cannot be told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) offset: usize,
    pub(super) message: &'static str,
    pub(super) help: &'static str,
}

/// Reads a pattern.
pub(super) fn read(pattern: &str) -> Result<Reading, Refused> {
    // A reference may name a group that comes behind it: they are counted first.
    let counted = Reader::new(pattern, None).read()?.found;
    if let Some(refused) = counted.ambiguous() {
        return Err(refused);
    }
    Ok(Reader::new(pattern, Some(counted)).read()?.out)
}

/// What a quantifier would repeat.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    Atom,
    Quantifier,
}

/// The flags that are in force and that no engine is told of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Mode {
    /// `x`: white space is none, and `#` begins a comment.
    is_extended: bool,
    /// `xx`.
    spaces_in_classes_are_none: bool,
    /// `n`: `(` does not capture.
    groups_are_plain: bool,
}

impl Mode {
    /// What flags make of it, and those that engines have to be told.
    fn changed(mut self, letters: &str) -> (Self, String) {
        // `^` is what a pattern begins with.
        let is_reset = letters.starts_with('^');
        if is_reset {
            self = Self::default();
        }
        let (on, off) = letters.split_once('-').unwrap_or((letters, ""));
        self.is_extended = (self.is_extended || on.contains('x')) && !off.contains('x');
        let in_classes = self.spaces_in_classes_are_none;
        self.spaces_in_classes_are_none = match (on.contains("xx"), on.contains('x')) {
            _ if off.contains('x') => false,
            (true, _) => true,
            // A single one takes the second back.
            (false, true) => false,
            (false, false) => in_classes,
        };
        self.groups_are_plain = (self.groups_are_plain || on.contains('n')) && !off.contains('n');
        let told = ['i', 'm', 's'];
        let is_off = |flag: &char| off.contains(*flag) || is_reset && !on.contains(*flag);
        let turned_on = |flag: &char| on.contains(*flag) && !off.contains(*flag);
        let mut written: String = told.iter().filter(|flag| turned_on(flag)).collect();
        let turned_off: String = told.iter().filter(|flag| is_off(flag)).collect();
        if !turned_off.is_empty() {
            written.push('-');
            written.push_str(&turned_off);
        }
        (self, written)
    }
}

/// An open group.
#[derive(Debug, Clone, Copy, Default)]
struct Open {
    mode: Mode,
    /// Where its last alternative begins in what is written.
    branch: usize,
    has_empty: bool,
    group: Group,
}

struct Reader<'p> {
    pattern: &'p str,
    at: usize,
    out: Reading,
    /// One for each open group, and one for the whole.
    open: Vec<Open>,
    cost: Cost,
    /// Capturing groups that were opened so far.
    opened: usize,
    found: Groups,
    /// All groups of the pattern, once they were counted.
    groups: Option<Groups>,
}

impl<'p> Reader<'p> {
    fn new(pattern: &'p str, groups: Option<Groups>) -> Self {
        Self {
            pattern,
            at: 0,
            out: Reading::default(),
            open: vec![Open::default()],
            cost: Cost::default(),
            opened: 0,
            found: Groups::default(),
            groups,
        }
    }

    fn read(mut self) -> Result<Self, Refused> {
        let mut before = Before::Nothing;
        while let Some(byte) = self.peek(0) {
            if !matches!(byte, b'*' | b'+' | b'?' | b'{') {
                self.cost.last = Group::default();
            }
            before = match byte {
                b'\\' => self.escape()?,
                b'[' => self.class().map(|()| Before::Atom)?,
                b'(' => self.open(before)?,
                b')' => {
                    self.close();
                    Before::Atom
                }
                b'|' => self.bar(),
                b'*' | b'+' | b'?' => self.mark(before)?,
                b'{' => self.brace(before)?,
                b'\t'..=b'\r' | b' ' if self.mode().is_extended => {
                    self.skip(1);
                    before
                }
                b'#' if self.mode().is_extended => {
                    let message = "this comment reaches to the end of the pattern, and in lfd \
                                   takes the anchor there with it";
                    return Err(self.refused(message, "leave out the comment"));
                }
                _ => self.literal(byte),
            };
        }
        Ok(self)
    }

    fn bar(&mut self) -> Before {
        if self.open.len() == 1 {
            self.out.bars.push(self.at);
        }
        let length = self.out.text.len();
        let group = self.open.last_mut();
        let is_empty = group.as_ref().is_some_and(|group| group.branch == length);
        // Nothing is an alternative once: more of them change no answer.
        if is_empty && group.as_ref().is_some_and(|group| group.has_empty) {
            self.skip(1);
            return Before::Nothing;
        }
        if let Some(group) = group {
            group.has_empty |= is_empty;
            group.branch = length + 1;
        }
        self.out.alternatives += 1;
        self.copy(1);
        Before::Nothing
    }

    /// A group begins, whose opening is written already.
    fn enter(&mut self, mode: Mode, is_hard: bool) {
        self.open.push(Open {
            mode,
            branch: self.out.text.len(),
            has_empty: false,
            group: Group::beginning(is_hard, self.cost.repeats),
        });
    }

    /// A character that stands for itself, or one of Perl's `.`, `^` and `$`.
    fn literal(&mut self, byte: u8) -> Before {
        if byte.is_ascii() {
            self.copy(1);
        } else {
            // Each byte by itself, as Perl has it.
            self.write(&set::character(set::NEVER), 1);
        }
        Before::Atom
    }

    const fn refused(&self, message: &'static str, help: &'static str) -> Refused {
        Refused {
            offset: self.at,
            message,
            help,
        }
    }

    fn mode(&self) -> Mode {
        self.open
            .last()
            .map_or_else(Mode::default, |open| open.mode)
    }

    /// What is left. The place may be within a character that is not ASCII:
    /// nothing begins there that has a meaning.
    fn rest(&self) -> &'p str {
        self.pattern.get(self.at..).unwrap_or_default()
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.pattern.as_bytes().get(self.at + ahead).copied()
    }

    /// The digits at this distance, and not more than so many.
    fn digits(&self, from: usize, radix: u32, most: usize) -> &'p str {
        let text = self.rest().get(from..).unwrap_or_default();
        let is_digit = |c: &char| c.is_digit(radix);
        let length = text.chars().take(most).take_while(is_digit).count();
        text.get(..length).unwrap_or_default()
    }

    const fn skip(&mut self, bytes: usize) {
        self.at += bytes;
    }

    /// Copies ASCII characters.
    fn copy(&mut self, bytes: usize) {
        let end = self.at + bytes;
        let text = self.pattern.get(self.at..end).unwrap_or_default();
        self.out.text.push_str(text);
        self.out.origin.extend(self.at..end);
        self.at = end;
    }

    /// Writes something else for this many bytes.
    fn write(&mut self, text: &str, bytes: usize) {
        self.write_from(self.at, text);
        self.at += bytes;
    }

    /// Writes what stands for something that began there.
    fn write_from(&mut self, start: usize, text: &str) {
        self.out.text.push_str(text);
        self.out
            .origin
            .extend(std::iter::repeat_n(start, text.len()));
    }
}
