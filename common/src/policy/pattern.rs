//! One Perl pattern, checked and anchored at both ends.
//!
//! Nearly every pattern is for `regex`, whose matching takes time in
//! proportion to the text. What needs memory of what it matched
//! (look-around, back-references) is for `fancy-regex`, within a limit.

use fancy_regex::{BytesMode, CompileError, ParseError};
use regex_syntax::hir::Hir;

use super::perl::{self, Note, Reading};

mod weight;

/// Steps that a pattern with look-around may take on one text. A text that
/// takes more is not matched: a slow pattern hides nothing.
const BACKTRACK_LIMIT: usize = 10_000;

/// Bytes of a text that a pattern with look-around is asked about: as many as a
/// path has at most. Any account can make long texts.
const FANCY_TEXT_BYTES_MAX: usize = 4 * 1024;

/// The same where each of many steps may go over the rest of the text, which
/// the limit of steps does not count.
const COSTLY_TEXT_BYTES_MAX: usize = 256;

/// Bytes of each compiled part of a pattern with look-around.
const FANCY_BYTES_MAX: usize = 1 << 20;

/// Characters of a pattern with look-around, with counted repetition written
/// out. A character takes some 100 bytes of memory.
const FANCY_WEIGHT_MAX: usize = 8 * 1024;

/// Bytes that one part may take to match faster. Such patterns have many
/// parts, and the limit is not shared among them.
const FANCY_DFA_BYTES_MAX: usize = 16 * 1024;

/// Alternatives of a pattern with look-around. The engine follows them on a list
/// that has to fit into its small tables.
const FANCY_ALTERNATIVES_MAX: usize = 256;

/// A checked pattern.
#[derive(Debug)]
pub(super) enum Pattern {
    /// Anchored text, to be compiled together with the others.
    Plain(String),
    /// Compiled for itself.
    Fancy(Box<Fancy>),
}

/// A pattern with look-around.
#[derive(Debug)]
pub(super) struct Fancy {
    pub(super) regex: fancy_regex::Regex,
    /// Characters, counted repetition written out.
    pub(super) weight: usize,
    /// Bytes of the longest text that it is asked about.
    pub(super) text_bytes_max: usize,
}

/// Why a pattern was refused.
#[derive(Debug)]
pub(super) struct InvalidPattern {
    /// Byte of the pattern, where it is known.
    pub(super) offset: Option<usize>,
    pub(super) message: String,
    pub(super) help: String,
}

/// Checks a pattern; says also what a person should know about it.
pub(super) fn check(pattern: &str) -> Result<(Pattern, Vec<Note>), InvalidPattern> {
    let mut reading = perl::read(pattern).map_err(|refused| InvalidPattern {
        offset: Some(refused.offset),
        message: refused.message.to_owned(),
        help: refused.help.to_owned(),
    })?;
    let checked = if reading.backtracks {
        fancy(&reading)?
    } else {
        plain(&reading)?
    };
    let mut notes = std::mem::take(&mut reading.notes);
    notes.extend(alternation(pattern, &reading.bars));
    Ok((checked, notes))
}

fn anchored(pattern: &str) -> String {
    format!(r"\A(?:{pattern})\z")
}

/// What a pattern without look-around means; nothing for one that has it, or
/// is wrong.
pub(super) fn plain_syntax(pattern: &str) -> Option<Hir> {
    let reading = perl::read(pattern).ok()?;
    let is_plain = !reading.backtracks;
    is_plain
        .then(|| parser().parse(&reading.text).ok())
        .flatten()
}

fn parser() -> regex_syntax::Parser {
    let mut builder = regex_syntax::ParserBuilder::new();
    builder.unicode(false).utf8(false).build()
}

/// Asks `regex` for its opinion.
fn plain(reading: &Reading) -> Result<Pattern, InvalidPattern> {
    match parser().parse(&reading.text) {
        Ok(_) => Ok(Pattern::Plain(anchored(&reading.text))),
        Err(regex_syntax::Error::Parse(error)) => {
            let (offset, message) = (error.span().start.offset, error.kind().to_string());
            Err(invalid(reading, Some(offset), &message))
        }
        Err(_) => Err(invalid(reading, None, "it is not understood")),
    }
}

fn fancy(reading: &Reading) -> Result<Pattern, InvalidPattern> {
    if reading.alternatives > FANCY_ALTERNATIVES_MAX {
        return Err(InvalidPattern {
            offset: None,
            message: format!(
                "the pattern has look-around, back-references or possessive repetition, and more \
                 than {FANCY_ALTERNATIVES_MAX} alternatives"
            ),
            help: "write exact rules, or several patterns".to_owned(),
        });
    }
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
        .map(|regex| {
            let text_bytes_max = if reading.is_costly {
                COSTLY_TEXT_BYTES_MAX
            } else {
                FANCY_TEXT_BYTES_MAX
            };
            Pattern::Fancy(Box::new(Fancy {
                regex,
                weight,
                text_bytes_max,
            }))
        })
        .map_err(|error| match error {
            fancy_regex::Error::ParseError(at, ParseError::GeneralParseError(message)) => {
                invalid(reading, Some(at), &message)
            }
            fancy_regex::Error::ParseError(at, error) => {
                invalid(reading, Some(at), &error.to_string())
            }
            fancy_regex::Error::CompileError(error) if is_of_variable_length(&error) => {
                InvalidPattern {
                    offset: None,
                    message: "look-behind has to have a length that is known here".to_owned(),
                    help: "write one look-behind for each length: (?:(?<=a)|(?<=bc))".to_owned(),
                }
            }
            error => invalid(reading, None, &error.to_string()),
        })
}

/// Perl has such look-behind since 5.30 for up to 255 characters. Here it would
/// read the text again at each place, beyond what the limit on steps counts.
const fn is_of_variable_length(error: &CompileError) -> bool {
    matches!(
        error,
        CompileError::LookBehindNotConst | CompileError::VariableLookBehindRequiresFeature
    )
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
fn alternation(pattern: &str, bars: &[usize]) -> Option<Note> {
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
    Some(Note {
        offset,
        message: format!(
            "'|' outside of parentheses: lfd reads {}, procwarden reads '^({pattern})$' \
             [alternation]",
            words.join(" or ")
        ),
        help: "put the alternatives in parentheses, which both read alike".to_owned(),
    })
}
