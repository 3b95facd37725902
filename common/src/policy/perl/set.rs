//! Sets of ASCII characters, and Perl's names for some of them.
//!
//! Rules see printable ASCII, so a set of 128 answers all that a class of
//! Perl's can ask. What is no ASCII character never occurs in a text; DEL,
//! which does not either, stands for it.

/// Stands for a character that no text has.
pub(super) const NEVER: u8 = 0x7f;

/// A set of ASCII characters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Set(u128);

impl Set {
    pub(super) const ALL: Self = Self(u128::MAX);

    /// The characters that a check names.
    fn which(is_in: impl Fn(u8) -> bool) -> Self {
        let members = (0..=NEVER).filter(|byte| is_in(*byte));
        Self(members.fold(0, |bits, byte| bits | 1 << byte))
    }

    pub(super) fn of(bytes: &[u8]) -> Self {
        Self::which(|byte| bytes.contains(&byte))
    }

    pub(super) fn range(from: u8, to: u8) -> Self {
        Self::which(|byte| (from..=to).contains(&byte))
    }

    pub(super) const fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    pub(super) const fn inverted(self) -> Self {
        Self(!self.0)
    }

    /// The set, or what is not in it.
    pub(super) const fn inverted_if(self, inverted: bool) -> Self {
        if inverted { self.inverted() } else { self }
    }

    const fn has(self, byte: u8) -> bool {
        self.0 >> byte & 1 == 1
    }

    /// The set as a class that both engines read alike.
    pub(super) fn class(self, negated: bool) -> String {
        let mut text = String::from(if negated { "[^" } else { "[" });
        let mut from = 0;
        while from <= NEVER {
            let length = (from..=NEVER).take_while(|byte| self.has(*byte)).count();
            let length = u8::try_from(length).unwrap_or(NEVER);
            if let Some(last) = length.checked_sub(1) {
                push_member(&mut text, from);
                if last > 1 {
                    text.push('-');
                }
                if last > 0 {
                    push_member(&mut text, from + last);
                }
            }
            from += length + 1;
        }
        if self.0 == 0 {
            push_member(&mut text, NEVER);
        }
        text.push(']');
        text
    }
}

/// A character as it is written outside and inside of classes.
pub(super) fn character(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() {
        char::from(byte).to_string()
    } else {
        format!("\\x{byte:02x}")
    }
}

fn push_member(text: &mut String, byte: u8) {
    text.push_str(&character(byte));
}

/// What `\d`, `\W` and their like stand for.
pub(super) fn escape(letter: u8) -> Option<Set> {
    let set = match letter.to_ascii_lowercase() {
        b'd' => Set::which(|b| b.is_ascii_digit()),
        b'w' => Set::which(is_word),
        b's' => Set::which(is_space),
        b'h' => Set::of(b" \t"),
        b'v' => Set::of(b"\n\x0b\x0c\r"),
        _ => return None,
    };
    Some(set.inverted_if(letter.is_ascii_uppercase()))
}

/// What `[:name:]` stands for.
pub(super) fn posix(name: &str) -> Option<Set> {
    Some(match name {
        "alpha" => Set::which(|b| b.is_ascii_alphabetic()),
        "digit" => Set::which(|b| b.is_ascii_digit()),
        "alnum" => Set::which(|b| b.is_ascii_alphanumeric()),
        "upper" => Set::which(|b| b.is_ascii_uppercase()),
        "lower" => Set::which(|b| b.is_ascii_lowercase()),
        "punct" => Set::which(|b| b.is_ascii_punctuation()),
        "xdigit" => Set::which(|b| b.is_ascii_hexdigit()),
        "cntrl" => Set::which(|b| b.is_ascii_control()),
        "graph" => Set::which(|b| b.is_ascii_graphic()),
        "print" => Set::which(|b| b == b' ' || b.is_ascii_graphic()),
        "space" => Set::which(is_space),
        "blank" => Set::of(b" \t"),
        "word" => Set::which(is_word),
        "ascii" => Set::ALL,
        _ => return None,
    })
}

/// What `\p{name}` stands for among ASCII characters; nothing for a name that
/// is not known. Names: perluniprops(1).
pub(super) fn property(name: &str) -> Option<Set> {
    let name = name.to_ascii_lowercase().replace(['_', '-', ' '], "");
    let name = name.strip_prefix("is").unwrap_or(&name);
    if let Some(set) = name.strip_prefix("posix").and_then(posix) {
        return Some(set);
    }
    if name == "xposixpunct" {
        return posix("punct");
    }
    let name = name.strip_prefix("xposix").unwrap_or(name);
    Some(match name {
        "any" | "all" | "ascii" | "basiclatin" => Set::ALL,
        "l" | "letter" | "l&" | "lc" | "alpha" | "alphabetic" | "latin" | "script=latin" => {
            posix("alpha")?
        }
        "lu" | "upper" | "uppercase" | "uppercaseletter" => posix("upper")?,
        "ll" | "lower" | "lowercase" | "lowercaseletter" => posix("lower")?,
        "n" | "number" | "nd" | "digit" | "decimalnumber" => posix("digit")?,
        "alnum" => posix("alnum")?,
        "w" | "word" | "perlword" => posix("word")?,
        "space" | "whitespace" | "perlspace" | "spaceperl" => posix("space")?,
        "blank" | "horizspace" => posix("blank")?,
        "vertspace" => escape(b'v')?,
        "xdigit" | "hexdigit" | "hex" | "ahex" | "asciihexdigit" => posix("xdigit")?,
        "c" | "other" | "cc" | "cntrl" | "control" => posix("cntrl")?,
        "graph" => posix("graph")?,
        "print" => posix("print")?,
        "z" | "zs" | "separator" | "spaceseparator" => Set::of(b" "),
        "p" | "punct" | "punctuation" => Set::of(b"!\"#%&'()*,-./:;?@[\\]_{}"),
        "pc" | "connectorpunctuation" => Set::of(b"_"),
        "pd" | "dashpunctuation" => Set::of(b"-"),
        "ps" | "openpunctuation" => Set::of(b"([{"),
        "pe" | "closepunctuation" => Set::of(b")]}"),
        "po" | "otherpunctuation" => Set::of(b"!\"#%&'*,./:;?@\\"),
        "s" | "symbol" => Set::of(b"$+<=>^`|~"),
        "sc" | "currencysymbol" => Set::of(b"$"),
        "sm" | "mathsymbol" => Set::of(b"+<=>|~"),
        "sk" | "modifiersymbol" => Set::of(b"^`"),
        _ => return None,
    })
}

const fn is_word(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric()
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | b' ')
}
