//! `procwarden policy diff`: what differs between two revisions, file by file
//! and in the settings. Computed here, from two answers of the collector.
//!
//! Promises: compares the bytes as published and shows them in printable
//! form. Not a check: the exit code is 0 whether there are differences or not.

use procwarden_proto::v1;
use serde::Serialize;

use crate::context::Context;
use crate::failure::Failure;
use crate::json::shown;
use crate::output::LineKind;

mod changes;

use changes::{Change, FileChanges, between};

/// One changed line.
#[derive(Debug, Serialize)]
struct LineObject {
    change: &'static str,
    file: String,
    /// In the older revision for what was removed, else in the newer one.
    line: usize,
    text: String,
}

pub(super) async fn run(
    name: String,
    old: u64,
    new: u64,
    context: &mut Context,
) -> Result<(), Failure> {
    let old_document = document(&name, old, context).await?;
    let new_document = document(&name, new, context).await?;
    let files = between(&old_document, &new_document);
    if files.is_empty() && !context.out.json() {
        let same = format!("{name}: revisions {old} and {new} have the same content");
        return context.out.line(&same);
    }
    for file in &files {
        if context.out.json() {
            write_objects(file, context)?;
        } else {
            let headers = (format!("{name} r{old}"), format!("{name} r{new}"));
            write_text(file, &headers, context)?;
        }
    }
    Ok(())
}

async fn document(
    name: &str,
    revision: u64,
    context: &mut Context,
) -> Result<v1::PolicyDocument, Failure> {
    let request = v1::ShowPolicyRequest {
        name: name.to_owned(),
        revision,
    };
    let answer = context.admin().await?.show_policy(request).await;
    let answer = answer.map_err(|status| context.refused("compare the revisions", &status))?;
    Ok(answer.into_inner().document.unwrap_or_default())
}

fn write_objects(file: &FileChanges, context: &mut Context) -> Result<(), Failure> {
    for line in file.hunks.iter().flat_map(|hunk| &hunk.lines) {
        let (change, path) = match line.change {
            Change::Kept => continue,
            Change::Removed => ("removed", &file.old_path),
            Change::Added => ("added", &file.new_path),
        };
        context.out.object(&LineObject {
            change,
            file: shown(path),
            line: line.number,
            text: line.text.clone(),
        })?;
    }
    Ok(())
}

/// The form of `diff -u`.
fn write_text(
    file: &FileChanges,
    (old, new): &(String, String),
    context: &mut Context,
) -> Result<(), Failure> {
    let out = &mut context.out;
    out.marked_line(LineKind::Heading, &format!("--- {} ({old})", file.old_path))?;
    out.marked_line(LineKind::Heading, &format!("+++ {} ({new})", file.new_path))?;
    for hunk in &file.hunks {
        out.marked_line(LineKind::Place, &hunk.heading)?;
        for line in &hunk.lines {
            let (kind, sign) = match line.change {
                Change::Kept => (LineKind::Plain, ' '),
                Change::Removed => (LineKind::Removed, '-'),
                Change::Added => (LineKind::Added, '+'),
            };
            out.marked_line(kind, &format!("{sign}{}", line.text))?;
            if !line.ended {
                out.marked_line(LineKind::Plain, "\\ no newline at end of file")?;
            }
        }
    }
    Ok(())
}
