//! One Perl pattern, checked and anchored at both ends.
//!
//! Nearly every pattern is for `regex`, whose matching takes time in
//! proportion to the text. What needs memory of what it matched
//! (look-around, back-references) is for `fancy-regex`, within a limit.

use fancy_regex::{BytesMode, ParseError};
use regex_syntax::ast::ErrorKind;

use super::perl::{self, Reading};

mod weight;

/// Steps that a pattern with look-around may take on one text. A text that
/// takes more is not matched: a slow pattern hides nothing.
const BACKTRACK_LIMIT: usize = 100_000;

/// Bytes of each compiled part of a pattern with look-around.
const FANCY_BYTES_MAX: usize = 1 << 20;

/// Characters of a pattern with look-around, with counted repetition written
/// out. A character takes some 100 bytes of memory.
const FANCY_WEIGHT_MAX: usize = 8 * 1024;

/// Bytes that one part may take to match faster. Such patterns have many
/// parts, and the limit is not shared among them.
const FANCY_DFA_BYTES_MAX: usize = 16 * 1024;

/// A checked pattern.
#[derive(Debug)]
pub(super) enum Pattern {
    /// Anchored text, to be compiled together with the others.
    Plain(String),
    /// Compiled for itself, with its weight: characters, counted repetition
    /// written out.
    Fancy(Box<fancy_regex::Regex>, usize),
}

/// Why a pattern was refused.
#[derive(Debug)]
pub(super) struct InvalidPattern {
    /// Byte of the pattern, where it is known.
    pub(super) offset: Option<usize>,
    pub(super) message: String,
    pub(super) help: String,
}

/// What is worth saying about a pattern that works.
#[derive(Debug)]
pub(super) struct Alternation {
    /// The first `|` outside of parentheses.
    pub(super) offset: usize,
    /// What lfd understands by it.
    pub(super) lfd_reading: String,
}

/// Checks a pattern; says also where lfd reads it otherwise.
pub(super) fn check(pattern: &str) -> Result<(Pattern, Option<Alternation>), InvalidPattern> {
    let reading = perl::read(pattern).map_err(|refused| InvalidPattern {
        offset: Some(refused.offset),
        message: refused.message.to_owned(),
        help: refused.help.to_owned(),
    })?;
    let checked = if reading.possessive || needs_backtracking(&reading)? {
        fancy(&reading)?
    } else {
        Pattern::Plain(anchored(&reading.text))
    };
    Ok((checked, alternation(pattern, &reading.bars)))
}

fn anchored(pattern: &str) -> String {
    format!(r"\A(?:{pattern})\z")
}

/// Asks `regex` for its opinion.
fn needs_backtracking(reading: &Reading) -> Result<bool, InvalidPattern> {
    let parse = |text: &str| {
        let mut parser = regex_syntax::ParserBuilder::new()
            .unicode(false)
            .utf8(false)
            .build();
        parser.parse(text).map(drop).map_err(Box::new)
    };
    let error = match parse(&reading.text) {
        // `(?x)a #` is right by itself, but swallows what closes it.
        Ok(_) if parse(&anchored(&reading.text)).is_err() => {
            return Err(InvalidPattern {
                offset: None,
                message: "the pattern does not end where the line ends".to_owned(),
                help: "leave out the comment".to_owned(),
            });
        }
        Ok(_) => return Ok(false),
        Err(error) => *error,
    };
    let (offset, message) = match error {
        regex_syntax::Error::Parse(error) => match error.kind() {
            ErrorKind::UnsupportedBackreference | ErrorKind::UnsupportedLookAround => {
                return Ok(true);
            }
            kind => (Some(error.span().start.offset), kind.to_string()),
        },
        // All that is left is Unicode: `\p{L}`, or `é` in a class.
        regex_syntax::Error::Translate(error) => {
            return Err(InvalidPattern {
                offset: Some(reading.origin(error.span().start.offset)),
                message: "this can only match Unicode text, and rules see printable ASCII"
                    .to_owned(),
                help: "use ASCII classes such as [A-Za-z], and write other bytes as \\\\c3"
                    .to_owned(),
            });
        }
        _ => (None, "it is not understood".to_owned()),
    };
    Err(invalid(reading, offset, &message))
}

fn fancy(reading: &Reading) -> Result<Pattern, InvalidPattern> {
    let weight = weight::weight(&reading.text);
    if weight > FANCY_WEIGHT_MAX {
        return Err(InvalidPattern {
            offset: None,
            message: format!(
                "the pattern has look-around, back-references or possessive repetition, and more \
                 than {FANCY_WEIGHT_MAX} characters when its counted repetition is written out"
            ),
            help: "repeat smaller groups less often".to_owned(),
        });
    }
    let build = |text: &str| {
        fancy_regex::RegexBuilder::new(text)
            .bytes_mode(BytesMode::Ascii)
            .backtrack_limit(BACKTRACK_LIMIT)
            .delegate_size_limit(FANCY_BYTES_MAX)
            .delegate_dfa_size_limit(FANCY_DFA_BYTES_MAX)
            .max_prog_size(FANCY_BYTES_MAX / 64)
            .build()
    };
    // First without the anchors: places are counted in the bare pattern, and
    // `a)|(?:b` is wrong although its anchored form looks right.
    build(&reading.text)
        .and_then(|_| build(&anchored(&reading.text)))
        .map(|regex| Pattern::Fancy(Box::new(regex), weight))
        .map_err(|error| match error {
            fancy_regex::Error::ParseError(at, ParseError::GeneralParseError(message)) => {
                invalid(reading, Some(at), &message)
            }
            fancy_regex::Error::ParseError(at, error) => {
                invalid(reading, Some(at), &error.to_string())
            }
            error => invalid(reading, None, &error.to_string()),
        })
}

fn invalid(reading: &Reading, offset: Option<usize>, message: &str) -> InvalidPattern {
    let mut letters = message.lines().last().unwrap_or_default().trim().chars();
    let message: String = letters.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(letters).collect()
    });
    InvalidPattern {
        offset: offset.map(|offset| reading.origin(offset)),
        message: format!("bad regular expression: {message}"),
        help: "correct it; a character that shall stand for itself needs a backslash before it"
            .to_owned(),
    }
}

/// lfd anchors `a|b` as text, so that only the outer ends are anchored.
fn alternation(pattern: &str, bars: &[usize]) -> Option<Alternation> {
    let offset = *bars.first()?;
    let mut starts: Vec<usize> = vec![0];
    starts.extend(bars.iter().map(|bar| bar + 1));
    let ends = bars.iter().copied().chain([pattern.len()]);
    let parts: Vec<&str> = starts
        .iter()
        .zip(ends)
        .filter_map(|(start, end)| pattern.get(*start..end))
        .collect();
    let last = parts.len().saturating_sub(1);
    let words: Vec<String> = parts
        .iter()
        .enumerate()
        .map(|(index, part)| {
            let begin = if index == 0 { "^" } else { "" };
            let end = if index == last { "$" } else { "" };
            format!("'{begin}{part}{end}'")
        })
        .collect();
    Some(Alternation {
        offset,
        lfd_reading: words.join(" or "),
    })
}
