//! Reads the words of a `#@` line, and names every one that is wrong.

use super::{LastDay, RuleFacts};
use crate::toml_config::nearest;

/// Bytes of one value: nobody reads a longer one.
const VALUE_BYTES_MAX: usize = 512;

/// The facts there are.
const KEYS: [&str; 3] = ["expires", "owner", "reason"];

/// A word that is wrong.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::policy) struct Malformed {
    /// Byte of the text at which it is.
    pub(in crate::policy) offset: usize,
    pub(in crate::policy) message: String,
    pub(in crate::policy) help: String,
}

/// Reads what stands behind `#@` into `facts`; gives what is wrong with it.
pub(in crate::policy) fn read(text: &str, facts: &mut RuleFacts) -> Vec<Malformed> {
    let mut reader = Reader { text, at: 0 };
    let mut wrong = Vec::new();
    let mut words = 0;
    while let Some(word) = reader.word() {
        words += 1;
        if let Err(malformed) = word.and_then(|word| set(facts, word)) {
            wrong.push(malformed);
        }
    }
    if words == 0 {
        let help = "write expires=2027-01-31, owner=NAME or reason=\"...\" behind it";
        wrong.push(malformed(0, "no fact stands behind #@", help));
    }
    wrong
}

/// `key=value`, and where both begin.
struct Word<'a> {
    key: &'a str,
    key_at: usize,
    value: String,
    value_at: usize,
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn word(&mut self) -> Option<Result<Word<'a>, Malformed>> {
        let rest = self.rest();
        let trimmed = rest.trim_start_matches(is_space);
        self.at += rest.len() - trimmed.len();
        if trimmed.is_empty() {
            return None;
        }
        let key_at = self.at;
        let length = trimmed
            .find(|c| is_space(c) || c == '=')
            .unwrap_or(trimmed.len());
        let (key, behind) = trimmed.split_at(length);
        self.at += length;
        if !behind.starts_with('=') {
            let help = "write every fact as key=value, and put a value with spaces into quotes";
            let message = "this word is no fact";
            return Some(Err(malformed(key_at, message, help)));
        }
        self.at += 1;
        let value_at = self.at;
        let value = if self.rest().starts_with('"') {
            self.quoted()
        } else {
            self.bare()
        };
        Some(value.map(|value| Word {
            key,
            key_at,
            value,
            value_at,
        }))
    }

    fn bare(&mut self) -> Result<String, Malformed> {
        let rest = self.rest();
        let length = rest.find(is_space).unwrap_or(rest.len());
        let value = rest.get(..length).unwrap_or_default();
        let value_at = self.at;
        self.at += length;
        match value.find('"') {
            None => Ok(value.to_owned()),
            Some(offset) => {
                let help = "put the whole value into quotes";
                let message = "a quote stands within the value";
                Err(malformed(value_at + offset, message, help))
            }
        }
    }

    fn quoted(&mut self) -> Result<String, Malformed> {
        let begin = self.at;
        let mut value = String::new();
        let mut is_escaped = false;
        for (offset, character) in self.rest().char_indices().skip(1) {
            match character {
                _ if is_escaped => {
                    value.push(character);
                    is_escaped = false;
                }
                '\\' => is_escaped = true,
                '"' => {
                    self.at = begin + offset + 1;
                    return self.after_quote().map(|()| value);
                }
                _ => value.push(character),
            }
        }
        self.at = self.text.len();
        let help = "end the value with \" on the same line";
        Err(malformed(begin, "this quote is never closed", help))
    }

    fn after_quote(&mut self) -> Result<(), Malformed> {
        let rest = self.rest();
        if rest.chars().next().is_none_or(is_space) {
            return Ok(());
        }
        let at = self.at;
        self.at += rest.find(is_space).unwrap_or(rest.len());
        let help = "put a space between two facts, and \\\" for a quote within a value";
        Err(malformed(at, "text follows the closing quote", help))
    }
}

fn set(facts: &mut RuleFacts, word: Word<'_>) -> Result<(), Malformed> {
    check_value(&word)?;
    let is_again = match word.key {
        "expires" => {
            let Some(day) = LastDay::parse(&word.value) else {
                let help = "write the last day as in expires=2027-01-31";
                return Err(malformed(word.value_at, "this is no date", help));
            };
            facts.expires.replace(day).is_some()
        }
        "owner" => facts.owner.replace(word.value).is_some(),
        "reason" => facts.reason.replace(word.value).is_some(),
        key => {
            let help = nearest(key, KEYS).map_or_else(
                || format!("the facts are {}", KEYS.join(", ")),
                |near| format!("did you mean '{near}'?"),
            );
            return Err(malformed(word.key_at, "there is no such fact", &help));
        }
    };
    if is_again {
        let help = "leave one of them";
        let message = "the rule has this fact already";
        return Err(malformed(word.key_at, message, help));
    }
    Ok(())
}

fn check_value(word: &Word<'_>) -> Result<(), Malformed> {
    let wrong = |message, help| Err(malformed(word.value_at, message, help));
    if word.value.is_empty() {
        wrong("the value is empty", "write a value, or leave the fact out")
    } else if word.value.len() > VALUE_BYTES_MAX {
        wrong("the value is longer than 512 bytes", "shorten it")
    } else if word.value.chars().any(char::is_control) {
        wrong("the value holds a control character", "use spaces")
    } else {
        Ok(())
    }
}

fn malformed(offset: usize, message: &str, help: &str) -> Malformed {
    Malformed {
        offset,
        message: message.to_owned(),
        help: help.to_owned(),
    }
}

/// What separates words. Others, such as the no-break space, are text.
const fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\x0b' | '\x0c')
}
