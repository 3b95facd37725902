//! What is doubtful about a rule for an executable.

use super::probes::Hits;
use super::reach::Reach;
use super::{Words, words};
use crate::policy::Rule;
use crate::policy::suggest::{HOME, WRITABLE, is_interpreter, writable_place};

/// The warnings of one `exe:` or `pexe:` rule.
pub(super) fn executable(rule: &Rule, hits: Option<&Hits>) -> Vec<Words> {
    if let Some(broad) = hits.and_then(|hits| hits.broad("executable")) {
        return vec![broad];
    }
    let mut found = Vec::new();
    let pattern = rule.key.is_pattern().then_some(rule.value.as_str());
    let mut reach = pattern.and_then(Reach::of);
    let interpreter = match pattern {
        Some(pattern) => {
            let sample = hits.and_then(|hits| hits.interpreter);
            let sample = sample.map(|path| format!("interpreters such as {path}"));
            sample.or_else(|| {
                let end = named_interpreter(reach.as_ref(), pattern)?;
                Some(format!("an interpreter, because it ends in {end}"))
            })
        }
        None => is_interpreter(&rule.value).then(|| format!("the interpreter {}", rule.value)),
    };
    if let Some(what) = interpreter {
        found.push(words(
            format!("this covers {what}: every script that anybody runs with it [interpreter]"),
            "name the script in a cmd: rule, or leave the interpreter out",
        ));
    }
    let writable = match (&mut reach, pattern) {
        (Some(reach), _) => covered_place(reach),
        (None, Some(pattern)) => {
            begins_writable(pattern).or_else(|| hits.and_then(|hits| hits.writable))
        }
        (None, None) => writable_place(&rule.value),
    };
    if let Some(place) = writable {
        found.push(words(
            format!("ordinary accounts can put programs below {place} [writable-path]"),
            "install the program where only root can write",
        ));
    }
    found
}

/// An interpreter that a pattern names at its end.
fn named_interpreter(reach: Option<&Reach>, pattern: &str) -> Option<String> {
    let ends = match reach {
        Some(reach) => reach.ends(),
        None => plain_end(pattern).into_iter().collect(),
    };
    let mut ends = ends.into_iter();
    let end = ends.find(|end| end.contains('/') && is_interpreter(end))?;
    // What stands before the last directory may have been made up.
    let name_at = end.rfind('/')?;
    let from = end.get(..name_at)?.rfind('/').unwrap_or(0);
    Some(end.get(from..)?.to_owned())
}

/// What a pattern with look-around ends with, as far as it is plain text.
fn plain_end(pattern: &str) -> Option<String> {
    let pattern = pattern.strip_suffix('$').unwrap_or(pattern);
    let text = pattern
        .replace("\\.", ".")
        .replace("\\/", "/")
        .replace("\\-", "-");
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_');
    let end = text.rsplit(|c| !is_plain(c)).next()?;
    // A quantifier or a class may have taken the first letter; a path has not.
    let from = end.find('/')?;
    Some(end.get(from..)?.to_owned())
}

fn covered_place(reach: &mut Reach) -> Option<&'static str> {
    let mut places = WRITABLE.iter().copied();
    let place = places.find(|place| reach.covers_below(place));
    place.or_else(|| {
        let disks = ('0'..='9').map(|disk| format!("{}{disk}", HOME.trim_end_matches('/')));
        let mut disks = disks.map(|home| format!("{home}/"));
        disks.any(|home| reach.covers_below(&home)).then_some(HOME)
    })
}

/// The writable place that a pattern with look-around names where a path
/// begins.
fn begins_writable(pattern: &str) -> Option<&'static str> {
    let plain = pattern.replace('\\', "");
    let is_begin = |at: usize| {
        let before = plain.get(..at).unwrap_or_default();
        before.is_empty() || before.ends_with(['(', '|', '^']) || before.ends_with("(?:")
    };
    let is_named = |place: &str, is_end: &dyn Fn(&str) -> bool| {
        plain.match_indices(place).any(|(at, _)| {
            is_begin(at) && is_end(plain.get(at + place.len()..).unwrap_or_default())
        })
    };
    let place = WRITABLE.iter().find(|place| is_named(place, &|_| true));
    place.copied().or_else(|| {
        let home = HOME.trim_end_matches('/');
        is_named(home, &is_number_or_pattern).then_some(HOME)
    })
}

/// Whether `/home` ends here: its number or something of a pattern follows.
fn is_number_or_pattern(rest: &str) -> bool {
    let rest = rest.strip_prefix('d').unwrap_or(rest);
    rest.starts_with(|c: char| !c.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_pattern_counts_where_it_is_plain() {
        for (pattern, end) in [
            (
                "(?!x)/opt/my/bin/python3\\.9",
                Some("/opt/my/bin/python3.9"),
            ),
            ("(?!x)/opt/.*/bin/perl$", Some("/bin/perl")),
            ("(?!x)/opt/p?erl/x", Some("/x")),
            ("(?!x)/opt/perl?", None),
            ("(?!x)(/opt/perl)", None),
            ("(?!x)perl", None),
        ] {
            assert_eq!(plain_end(pattern).as_deref(), end, "{pattern}");
        }
    }
}
