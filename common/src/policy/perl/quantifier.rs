//! `*`, `+?`, `{2,4}`: what repeats the atom before it.

use super::{Before, Note, Reader, Refused};

/// `{2}`, `{2,}`, `{2,4}` or `{,4}`; any other `{` is a character.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Counted<'p> {
    least: &'p str,
    /// Nothing where there is no comma.
    most: Option<&'p str>,
    length: usize,
    /// Written in a way that Perl understands since 5.34.
    is_new: bool,
}

impl Counted<'_> {
    fn is_backwards(&self) -> bool {
        let number = |digits: &str| digits.parse::<u64>().unwrap_or(u64::MAX);
        let most = self.most.filter(|most| !most.is_empty());
        !self.least.is_empty() && most.is_some_and(|most| number(most) < number(self.least))
    }
}

/// Characters between the braces: more than any number that Perl takes.
const COUNTED_MAX: usize = 32;

/// Reads one at the beginning of a text.
pub(super) fn counted(text: &str) -> Option<Counted<'_>> {
    let text = text.strip_prefix('{')?;
    // Whoever looked for the end anywhere would read many braces for hours.
    let near = text.bytes().take(COUNTED_MAX);
    let length = near.take_while(|byte| *byte != b'}').count();
    let inside = text.get(..length)?;
    text.get(length..)?.strip_prefix('}')?;
    let blank = [' ', '\t'];
    let (least, most) = match inside.split_once(',') {
        Some((least, most)) => (least, Some(most.trim_matches(blank))),
        None => (inside, None),
    };
    let least = least.trim_matches(blank);
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let has_digits = !least.is_empty() || most.is_some_and(|most| !most.is_empty());
    (has_digits && digits(least) && most.is_none_or(digits)).then(|| Counted {
        least,
        most,
        length: inside.len() + 2,
        is_new: least.is_empty() || inside.contains(blank),
    })
}

impl Reader<'_> {
    /// `*`, `+` or `?`.
    pub(super) fn mark(&mut self, before: Before) -> Result<Before, Refused> {
        self.refuse_twice(before)?;
        if self.peek(0) != Some(b'?') {
            self.repeat(true);
        }
        self.copy(1);
        Ok(self.greed())
    }

    /// A `{`.
    pub(super) fn brace(&mut self, before: Before) -> Result<Before, Refused> {
        let Some(counted) = counted(self.rest()) else {
            self.write("\\{", 1);
            return Ok(Before::Atom);
        };
        if before == Before::Nothing {
            return Err(self.refused(
                "there is nothing before this that it could repeat",
                "put a backslash before it, if it stands for itself",
            ));
        }
        self.refuse_twice(before)?;
        let least = if counted.least.is_empty() {
            "0"
        } else {
            counted.least
        };
        let written = match counted.most {
            Some(most) => format!("{{{least},{most}}}"),
            None => format!("{{{least}}}"),
        };
        let (length, is_new) = (counted.length, counted.is_new);
        if counted.is_backwards() {
            return Err(self.refused("this ends before it begins", "turn it around"));
        }
        if counted.most != Some("1") {
            self.repeat(true);
        }
        if is_new {
            self.note_of_new_braces(&written, length);
        }
        self.write(&written, length);
        Ok(self.greed())
    }

    fn note_of_new_braces(&mut self, written: &str, length: usize) {
        let braces = self.rest().get(..length).unwrap_or_default();
        let message = format!(
            "'{braces}': Perl 5.34 and newer, and procwarden, read '{written}'; lfd on an older \
             Perl reads the characters themselves [braces]"
        );
        self.out.notes.push(Note {
            offset: self.at,
            message,
            help: format!("write {written}, which all read alike"),
        });
    }

    fn refuse_twice(&self, before: Before) -> Result<(), Refused> {
        if before != Before::Quantifier {
            return Ok(());
        }
        Err(self.refused(
            "this repeats a repetition, which Perl refuses",
            "remove it, or put parentheses around what it repeats",
        ))
    }

    /// What may follow a repetition: `?` and `+`.
    fn greed(&mut self) -> Before {
        match self.peek(0) {
            Some(b'?') => self.copy(1),
            Some(b'+') => {
                self.out.backtracks = true;
                self.possess();
                self.copy(1);
            }
            _ => {}
        }
        Before::Quantifier
    }
}
