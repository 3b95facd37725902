//! What an opening parenthesis begins, and what refers to groups.
//!
//! Groups lose their names: a reference is written with the number, because
//! the engines differ in how names are spelt, and Perl allows one twice.

use super::{Before, Mode, Reader, Refused};

/// The capturing groups of a pattern, and what else concerns their numbers.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// The name of each, where it has one; the first is number 1.
    names: Vec<Option<String>>,
    /// Where something refers to a group first.
    referred: Option<usize>,
    /// Where `(?|` makes groups share numbers first.
    sharing: Option<usize>,
}

const RECURSION: &str = "write out what it stands for as often as it may repeat";
const GROUP: &str = "write the pattern without it";

impl Reader<'_> {
    pub(super) fn open(&mut self, before: Before) -> Result<Before, Refused> {
        let rest = self.rest();
        if rest.starts_with("(?#") {
            return self.skip_comment().map(|()| before);
        }
        if rest.starts_with("(*") {
            let message = "verbs of Perl's backtracking are not known here";
            return Err(self.refused(message, GROUP));
        }
        let Some(mark) = rest.strip_prefix("(?") else {
            self.open_plain();
            return Ok(Before::Nothing);
        };
        for around in ["=", "!", "<=", "<!", ">"] {
            if mark.starts_with(around) {
                self.out.backtracks = true;
                self.copy(2 + around.len());
                self.enter(self.mode(), true);
                return Ok(Before::Nothing);
            }
        }
        match mark.as_bytes().first() {
            Some(b'<' | b'\'') => self.open_named(2),
            Some(b'P') => self.python(mark),
            Some(b'|') => {
                self.found.sharing.get_or_insert(self.at);
                self.open_uncounted(3);
                Ok(Before::Nothing)
            }
            Some(b'(') => self.condition(),
            Some(b'R' | b'&' | b'0'..=b'9' | b'+') => {
                Err(self.refused("recursion is not known here", RECURSION))
            }
            Some(b'-') if mark.as_bytes().get(1).is_some_and(u8::is_ascii_digit) => {
                Err(self.refused("recursion is not known here", RECURSION))
            }
            Some(b'{' | b'?') => Err(self.refused(
                "a pattern that runs Perl code is refused by lfd's Perl too",
                GROUP,
            )),
            _ => self.flags(),
        }
    }

    pub(super) fn close(&mut self) {
        self.close_group();
        self.copy(1);
    }

    fn open_plain(&mut self) {
        if self.mode().groups_are_plain {
            return self.open_uncounted(1);
        }
        self.open_counted(None, 1);
    }

    fn open_counted(&mut self, name: Option<String>, length: usize) {
        self.found.names.push(name);
        self.opened += 1;
        // Where nothing refers to groups, none has to be remembered, and Perl
        // and the engine agree on more of what gives up no ground.
        let is_referred = self.groups.as_ref().is_some_and(|g| g.referred.is_some());
        self.write(if is_referred { "(" } else { "(?:" }, length);
        self.enter(self.mode(), false);
    }

    fn open_uncounted(&mut self, length: usize) {
        self.write("(?:", length);
        self.enter(self.mode(), false);
    }

    /// `(?<name>` or `(?'name'`, with the quote at this distance.
    fn open_named(&mut self, quote: usize) -> Result<Before, Refused> {
        let (name, length) = self.quoted(quote)?;
        self.open_counted(Some(name), length);
        Ok(Before::Nothing)
    }

    /// Python's spellings, which Perl knows.
    fn python(&mut self, mark: &str) -> Result<Before, Refused> {
        if mark.starts_with("P<") {
            return self.open_named(3);
        }
        if let Some((name, _)) = mark.strip_prefix("P=").and_then(|m| m.split_once(')')) {
            let (name, length) = (name.to_owned(), name.len() + 5);
            return self.refer_by_name(&name, length);
        }
        Err(self.refused("recursion is not known here", RECURSION))
    }

    /// `(?i)`, `(?^s-x:` and their like.
    fn flags(&mut self) -> Result<Before, Refused> {
        let text = self.rest().get(2..).unwrap_or_default();
        let length = text.find([':', ')']).unwrap_or(text.len());
        let letters = text.get(..length).unwrap_or_default();
        let end = text.as_bytes().get(length).copied();
        let opens = end == Some(b':');
        if end.is_none() {
            return Err(self.refused("this group is not closed", "close it with )"));
        }
        let is_known = |letter: char| "msixnpadlu^-".contains(letter);
        if let Some(bad) = letters.find(|letter| !is_known(letter)) {
            self.at += 2 + bad;
            return Err(self.refused("this group means nothing in Perl, or something else", GROUP));
        }
        let (mode, written) = Mode::changed(self.mode(), letters);
        let end = if opens { ":" } else { ")" };
        let total = 2 + length + 1;
        match (written.is_empty(), opens) {
            (true, false) => self.skip(total),
            _ => self.write(&format!("(?{written}{end}"), total),
        }
        if opens {
            self.enter(mode, false);
        } else if let Some(last) = self.open.last_mut() {
            last.mode = mode;
            // Flags are nothing that could match.
            if last.branch + written.len() + 3 == self.out.text.len() {
                last.branch = self.out.text.len();
            }
        }
        Ok(Before::Nothing)
    }

    /// `(?(1)yes|no)`.
    fn condition(&mut self) -> Result<Before, Refused> {
        let help = "write it with look-ahead: (?:(?=a)yes|(?!a)no)";
        let digits = self.digits(3, 10, usize::MAX).to_owned();
        let (number, length) = if digits.is_empty() {
            let is_name = matches!(self.peek(3), Some(b'<' | b'\''));
            if !is_name {
                return Err(self.refused("this condition is not known here", help));
            }
            let (name, end) = self.quoted(3)?;
            let number = self.number_of(&name)?;
            (self.checked(Some(number))?, end)
        } else {
            (self.checked(digits.parse().ok())?, 3 + digits.len())
        };
        if self.peek(length) != Some(b')') {
            return Err(self.refused("this condition is not known here", help));
        }
        self.write(&format!("(?({number})"), length + 1);
        self.enter(self.mode(), true);
        Ok(Before::Nothing)
    }

    /// `\g1`, `\g{-1}`, `\g{name}`, `\k<name>` and their like.
    pub(super) fn reference(&mut self) -> Result<Before, Refused> {
        let help = "write it as in \\1 or \\k<name>";
        let is_quoted = matches!(self.peek(2), Some(b'<' | b'\'')) && self.peek(1) == Some(b'k');
        if is_quoted {
            let (name, length) = self.quoted(2)?;
            return self.refer_by_name(&name, length);
        }
        let (inside, length) = if self.peek(2) == Some(b'{') {
            let (inside, length) = self.braces(2, help)?;
            (inside.trim_matches([' ', '\t']).to_owned(), length)
        } else {
            let sign = usize::from(self.peek(2) == Some(b'-'));
            let length = 2 + sign + self.digits(2 + sign, 10, usize::MAX).len();
            (
                self.rest().get(2..length).unwrap_or_default().to_owned(),
                length,
            )
        };
        if let Some(back) = inside.strip_prefix('-') {
            let back: Option<usize> = back.parse().ok().filter(|back| *back > 0);
            let number = back.and_then(|back| (self.opened + 1).checked_sub(back));
            return self.refer_to(number.unwrap_or(0), length);
        }
        match inside.parse() {
            Ok(number) => self.refer_to(number, length),
            Err(_) => self.refer_by_name(&inside, length),
        }
    }

    fn refer_by_name(&mut self, name: &str, length: usize) -> Result<Before, Refused> {
        let number = self.number_of(name)?;
        self.refer_to(number, length)
    }

    /// Writes a reference so that no digit behind it belongs to it.
    pub(super) fn refer_to(&mut self, number: usize, length: usize) -> Result<Before, Refused> {
        let number = self.checked(Some(number))?;
        self.write(&format!("(?:\\{number})"), length);
        Ok(Before::Atom)
    }

    /// The number of a group that is there. While groups are still being
    /// counted, every one is.
    fn checked(&mut self, number: Option<usize>) -> Result<usize, Refused> {
        self.found.referred.get_or_insert(self.at);
        self.out.backtracks = true;
        let Some(groups) = &self.groups else {
            return Ok(1);
        };
        let is_there = |number: &usize| (1..=groups.names.len()).contains(number);
        number.filter(is_there).ok_or_else(|| {
            self.refused(
                "this refers to a group that is not there",
                "count the opening parentheses that capture",
            )
        })
    }

    fn number_of(&self, name: &str) -> Result<usize, Refused> {
        let Some(groups) = &self.groups else {
            return Ok(1);
        };
        let has_name = |(_, other): &(usize, &Option<String>)| other.as_deref() == Some(name);
        let mut named = groups.names.iter().enumerate().filter(has_name);
        match (named.next(), named.next()) {
            (Some((index, _)), None) => Ok(index + 1),
            (Some(_), Some(_)) => Err(self.refused(
                "more than one group has this name",
                "give each a name of its own",
            )),
            (None, _) => Err(self.refused(
                "no group has this name",
                "name it with (?<name>...), or use its number",
            )),
        }
    }

    /// A name between `<>` or `''` that open at this distance, and the length
    /// up to the end of them.
    fn quoted(&self, open: usize) -> Result<(String, usize), Refused> {
        let end = if self.peek(open) == Some(b'<') {
            '>'
        } else {
            '\''
        };
        let inside = self.rest().get(open + 1..).unwrap_or_default();
        let is_letter = |b: u8| b == b'_' || b.is_ascii_alphanumeric();
        let name = inside.split_once(end).map(|(name, _)| name);
        let name = name.filter(|name| {
            !name.is_empty()
                && name.bytes().all(is_letter)
                && !name.starts_with(|c: char| c.is_ascii_digit())
        });
        match name {
            Some(name) => Ok((name.to_owned(), open + name.len() + 2)),
            None => Err(self.refused(
                "a name of letters, digits and _ is expected here",
                "write it as in (?<name>...)",
            )),
        }
    }

    fn skip_comment(&mut self) -> Result<(), Refused> {
        let end = self.rest().find(')');
        let end =
            end.ok_or_else(|| self.refused("this comment is not closed", "close it with )"))?;
        self.skip(end + 1);
        Ok(())
    }
}

impl Groups {
    /// Where numbers that are shared are referred to: which group is meant
    /// depends on the way taken.
    pub(super) fn ambiguous(&self) -> Option<Refused> {
        let offset = self.sharing?;
        self.referred?;
        Some(Refused {
            offset,
            message: "groups that share a number are not known here together with references",
            help: GROUP,
        })
    }
}
