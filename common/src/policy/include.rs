//! Gathering the files of a policy: the first one and what its Include lines
//! name, at any depth. Reading is the caller's; this decides what is read.

use std::collections::{HashMap, HashSet, VecDeque};

use super::PolicyFile;
use super::lines::{self, Content};
use crate::diagnostic::{Diagnostic, Level};
use crate::limits::{POLICY_BYTES_MAX, POLICY_FILES_MAX};

/// Reads a pignore file and everything it includes into a document's files.
/// `read` gets each path as the Include line wrote it.
///
/// Returns what was read, and as errors every file that could not be read, is
/// included twice in a circle, or breaks a limit.
pub fn gather_files(
    first: PolicyFile,
    read: &mut dyn FnMut(&str) -> Result<Vec<u8>, String>,
) -> (Vec<PolicyFile>, Vec<Diagnostic>) {
    let mut errors = Vec::new();
    let mut seen = HashSet::from([first.path.clone()]);
    let mut bytes = first.content.len();
    let mut files = Vec::new();
    let mut queue = VecDeque::from([first]);
    while let Some(file) = queue.pop_front() {
        let mut is_full = false;
        for (line, path) in included(&file) {
            if !seen.insert(path.to_owned()) {
                continue;
            }
            if seen.len() > POLICY_FILES_MAX {
                errors.push(too_many_files(&file.path, line));
                is_full = true;
                break;
            }
            match read(path) {
                Ok(content) => {
                    bytes = bytes.saturating_add(content.len());
                    queue.push_back(PolicyFile {
                        path: path.to_owned(),
                        content,
                    });
                }
                Err(reason) => errors.push(error(
                    &file.path,
                    line,
                    format!("cannot read the included file '{path}': {reason}"),
                    "create the file, or remove this line",
                )),
            }
            if bytes > POLICY_BYTES_MAX {
                errors.push(too_many_bytes(&file.path, line, bytes));
                is_full = true;
                break;
            }
        }
        files.push(file);
        if is_full {
            // Nothing more is read.
            files.extend(queue.drain(..));
        }
    }
    if errors.is_empty() {
        errors = circles(&files);
    }
    (files, errors)
}

/// A policy has too many files.
pub(super) fn too_many_files(file: &str, line: u32) -> Diagnostic {
    let message = format!("the policy has more than {POLICY_FILES_MAX} files");
    error(file, line, message, "join included files into fewer")
}

/// The files of a policy are too big.
pub(super) fn too_many_bytes(file: &str, line: u32, bytes: usize) -> Diagnostic {
    let message =
        format!("the files of the policy have {bytes} bytes, {POLICY_BYTES_MAX} are allowed");
    error(file, line, message, "remove rules that are not needed")
}

/// Include lines that close a circle: the file they name is still being read.
pub(super) fn circles(files: &[PolicyFile]) -> Vec<Diagnostic> {
    let mut walk = Walk {
        files: files
            .iter()
            .rev()
            .map(|file| (file.path.as_str(), file))
            .collect(),
        open: Vec::new(),
        done: HashSet::new(),
        errors: Vec::new(),
    };
    if let Some(first) = files.first() {
        walk.visit(first);
    }
    walk.errors
}

/// A walk from a file to what it includes. Never deeper than there are files.
struct Walk<'a> {
    files: HashMap<&'a str, &'a PolicyFile>,
    open: Vec<&'a str>,
    done: HashSet<&'a str>,
    errors: Vec<Diagnostic>,
}

impl<'a> Walk<'a> {
    fn visit(&mut self, file: &'a PolicyFile) {
        self.open.push(&file.path);
        for (line, path) in included(file) {
            if self.open.contains(&path) {
                let circle = self.open.iter().skip_while(|open| **open != path);
                let way: Vec<&str> = circle.copied().chain([path]).collect();
                let message = format!("this Include closes a circle: {}", way.join(" -> "));
                self.errors.push(error(
                    &file.path,
                    line,
                    message,
                    "remove one of these Include lines",
                ));
            } else if !self.done.contains(path)
                && let Some(next) = self.files.get(path).copied()
            {
                self.visit(next);
            }
        }
        self.open.pop();
        self.done.insert(&file.path);
    }
}

/// The paths of a file's Include lines. A path that is empty or not UTF-8 is
/// left to the parser, which refuses it.
fn included<'a>(file: &'a PolicyFile) -> Vec<(u32, &'a str)> {
    let path = |line: lines::Line<'a>| match lines::classify(line.bytes) {
        Content::Include(path) => std::str::from_utf8(path)
            .ok()
            .filter(|path| !path.is_empty()),
        _ => None,
    };
    let lines = lines::split(&file.content).lines.into_iter();
    lines
        .filter_map(|line| path(line).map(|path| (line.number, path)))
        .collect()
}

fn error(file: &str, line: u32, message: String, help: &str) -> Diagnostic {
    Diagnostic {
        level: Level::Error,
        file: file.to_owned(),
        line,
        column: if line == 0 { 0 } else { 1 },
        message,
        help: help.to_owned(),
    }
}

#[cfg(test)]
mod tests;
