//! The differences between two documents, as lines in hunks. Pure.

use std::ops::Range;
use std::time::{Duration, Instant};

use procwarden_common::printable::printable_line;
use procwarden_proto::v1;
use similar::{Algorithm, DiffOp, DiffTag};

/// Unchanged lines around a change.
const CONTEXT_LINES: usize = 3;

/// Texts that have little in common are not compared to the last line: after
/// this time the rest counts as replaced.
const COMPARE_TIME_MAX: Duration = Duration::from_secs(2);

/// What the settings are called among the files.
const SETTINGS: &str = "settings";

/// What became of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Kept,
    Removed,
    Added,
}

/// One line of a hunk.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) change: Change,
    /// From 1; in the older revision for what was removed.
    pub(super) number: usize,
    /// In printable form.
    pub(super) text: String,
    /// It has a newline; the last one of a file may have none.
    pub(super) ended: bool,
}

/// Changes that lie close together.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hunk {
    /// `@@ -1,3 +1,4 @@`
    pub(super) heading: String,
    pub(super) lines: Vec<Line>,
}

/// One file, or the settings. Without hunks only the name changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FileChanges {
    pub(super) old_path: String,
    pub(super) new_path: String,
    pub(super) hunks: Vec<Hunk>,
}

/// A file of one side.
type Side<'a> = Option<(&'a str, &'a [u8])>;

/// Everything that differs; nothing when the content is the same.
pub(super) fn between(old: &v1::PolicyDocument, new: &v1::PolicyDocument) -> Vec<FileChanges> {
    pairs(old, new)
        .into_iter()
        .filter_map(|(old, new)| file_changes(old, new))
        .collect()
}

/// Which file is compared with which: the first ones are the policy's own
/// file, whatever it was called; included ones go by name.
fn pairs<'a>(
    old: &'a v1::PolicyDocument,
    new: &'a v1::PolicyDocument,
) -> Vec<(Side<'a>, Side<'a>)> {
    let side = |file: &'a v1::PolicyFile| (file.path.as_str(), file.content.as_ref());
    let mut pairs = vec![(old.files.first().map(side), new.files.first().map(side))];
    let (old_rest, new_rest) = (old.files.iter().skip(1), new.files.iter().skip(1));
    for file in old_rest.clone() {
        let partner = new_rest.clone().find(|other| other.path == file.path);
        pairs.push((Some(side(file)), partner.map(side)));
    }
    for file in new_rest {
        if !old_rest.clone().any(|other| other.path == file.path) {
            pairs.push((None, Some(side(file))));
        }
    }
    let settings = |text: &'a str| Some((SETTINGS, text.as_bytes()));
    pairs.push((settings(&old.settings), settings(&new.settings)));
    pairs
}

fn file_changes(old: Side<'_>, new: Side<'_>) -> Option<FileChanges> {
    if old == new {
        return None;
    }
    let path = |side: Side<'_>| side.map_or("/dev/null", |(path, _)| path).to_owned();
    Some(FileChanges {
        old_path: path(old),
        new_path: path(new),
        hunks: hunks(&lines_of(old), &lines_of(new)),
    })
}

/// Lines with their newlines; none of a file that is not there.
fn lines_of<'a>(side: Side<'a>) -> Vec<&'a [u8]> {
    let content = side.map_or(&[][..], |(_, content)| content);
    content.split_inclusive(|&byte| byte == b'\n').collect()
}

fn hunks(old: &[&[u8]], new: &[&[u8]]) -> Vec<Hunk> {
    let deadline = Instant::now() + COMPARE_TIME_MAX;
    let steps = similar::capture_diff_slices_deadline(Algorithm::Myers, old, new, Some(deadline));
    similar::group_diff_ops(steps, CONTEXT_LINES)
        .iter()
        .filter(|steps| steps.iter().any(|step| step.tag() != DiffTag::Equal))
        .map(|steps| hunk(steps, old, new))
        .collect()
}

fn hunk(steps: &[DiffOp], old: &[&[u8]], new: &[&[u8]]) -> Hunk {
    let whole = |range: fn(&DiffOp) -> Range<usize>| {
        let start = steps.first().map_or(0, |step| range(step).start);
        start..steps.last().map_or(start, |step| range(step).end)
    };
    let heading = format!(
        "@@ -{} +{} @@",
        span(&whole(DiffOp::old_range)),
        span(&whole(DiffOp::new_range))
    );
    let mut lines = Vec::new();
    for step in steps {
        if step.tag() == DiffTag::Equal {
            take(&mut lines, Change::Kept, new, step.new_range());
        } else {
            take(&mut lines, Change::Removed, old, step.old_range());
            take(&mut lines, Change::Added, new, step.new_range());
        }
    }
    Hunk { heading, lines }
}

fn take(lines: &mut Vec<Line>, change: Change, text: &[&[u8]], range: Range<usize>) {
    let first = range.start + 1;
    let raw = text.get(range).unwrap_or_default();
    lines.extend(raw.iter().enumerate().map(|(offset, raw)| {
        let bare = raw.strip_suffix(b"\n");
        Line {
            change,
            number: first + offset,
            text: printable_line(bare.unwrap_or(raw)),
            ended: bare.is_some(),
        }
    }));
}

/// `FIRST,COUNT` as `diff -u` writes it: an empty span names the line before.
fn span(range: &Range<usize>) -> String {
    match range.len() {
        0 => format!("{},0", range.start),
        1 => format!("{}", range.start + 1),
        count => format!("{},{count}", range.start + 1),
    }
}

#[cfg(test)]
mod tests;
