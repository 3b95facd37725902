//! `procwarden policy show`: a policy's text, line by line in a form that no
//! terminal can be harmed by.

use procwarden_common::policy::{PolicyDocument, source_lines};
use procwarden_common::printable::printable_line;
use procwarden_proto::v1;
use serde::Serialize;

use super::remarks::{self, Sources};
use super::view::PolicyObject;
use super::{groups_words, hash_words, published_words, revision_words};
use crate::context::Context;
use crate::failure::Failure;
use crate::json::shown;
use crate::output::Output;
use crate::table::Table;

mod marks;

use marks::RuleObject;

/// A policy with its text.
#[derive(Debug, Serialize)]
struct ShownObject {
    #[serde(flatten)]
    policy: PolicyObject,
    files: Vec<FileObject>,
    settings: String,
    /// The rules in the order of the text, with what they ignored.
    rule_hits: Vec<RuleObject>,
    hits_hosts: u64,
    hits_hosts_known: u64,
    hits_too_low: bool,
}

#[derive(Debug, Serialize)]
struct FileObject {
    path: String,
    /// Lines in printable form, ended by newlines.
    content: String,
}

pub(super) async fn run(
    name: String,
    revision: Option<u64>,
    context: &mut Context,
) -> Result<(), Failure> {
    let revision = revision.unwrap_or(0);
    let (info, document) = text_of(name.clone(), revision, context).await?;
    // The number that was shown: a newer one may have come since.
    let hits = hits_of(name, info.revision, context).await?;
    let (rules, expiring) = PolicyDocument::try_from(document.clone())
        .map(|document| marks::of(&document, &hits, context.now()))
        .unwrap_or_default();
    remarks::say(&expiring, &Sources::default(), &context.out);
    if context.out.json() {
        return context.out.object(&object(&info, &document, rules, &hits));
    }
    let mut table = table(&info);
    table.fact("counts", marks::known_words(&hits));
    context.out.table(&table)?;
    write_text(&document, &rules, &mut context.out)
}

async fn text_of(
    name: String,
    revision: u64,
    context: &mut Context,
) -> Result<(v1::PolicyInfo, v1::PolicyDocument), Failure> {
    let request = v1::ShowPolicyRequest { name, revision };
    let answer = context.admin().await?.show_policy(request).await;
    let answer = answer
        .map_err(|status| context.refused("show the policy", &status))?
        .into_inner();
    Ok((
        answer.policy.unwrap_or_default(),
        answer.document.unwrap_or_default(),
    ))
}

async fn hits_of(
    name: String,
    revision: u64,
    context: &mut Context,
) -> Result<v1::PolicyHitsResponse, Failure> {
    let request = v1::PolicyHitsRequest { name, revision };
    let answer = context.admin().await?.policy_hits(request).await;
    let answer = answer.map_err(|status| context.refused("count what the rules ignored", &status));
    Ok(answer?.into_inner())
}

fn write_text(
    document: &v1::PolicyDocument,
    rules: &[RuleObject],
    out: &mut Output,
) -> Result<(), Failure> {
    for file in &document.files {
        out.line("")?;
        out.line(&format!("--- {}", file.path))?;
        let rules: Vec<_> = rules.iter().filter(|rule| rule.file == file.path).collect();
        for line in marked_lines(&file.content, &rules) {
            out.line(&line)?;
        }
    }
    if !document.settings.is_empty() {
        out.line("")?;
        out.line("--- settings")?;
        for line in lines(document.settings.as_bytes()) {
            out.line(&line)?;
        }
    }
    Ok(())
}

fn table(info: &v1::PolicyInfo) -> Table {
    let mut table = Table::list();
    table.fact("policy", &info.name);
    table.fact("revision", revision_words(info.revision));
    table.fact("published", published_words(info));
    table.fact("by", &info.author);
    table.fact("comment", &info.comment);
    table.fact("rules", info.rules.to_string());
    table.fact("hash", hash_words(info));
    table.fact("groups", groups_words(&info.groups));
    if let Some(running) = info.running {
        table.fact("hosts run", revision_words(running));
    }
    table
}

fn object(
    info: &v1::PolicyInfo,
    document: &v1::PolicyDocument,
    rule_hits: Vec<RuleObject>,
    hits: &v1::PolicyHitsResponse,
) -> ShownObject {
    let content = |raw: &[u8]| lines(raw).into_iter().map(|line| line + "\n").collect();
    ShownObject {
        policy: info.into(),
        files: document
            .files
            .iter()
            .map(|file| FileObject {
                path: shown(&file.path),
                content: content(&file.content),
            })
            .collect(),
        settings: content(document.settings.as_bytes()),
        rule_hits,
        hits_hosts: hits.hosts,
        hits_hosts_known: hits.hosts_known,
        hits_too_low: hits.too_low || hits.rules_left_out > 0,
    }
}

/// The lines of a file, each followed by what is known of its rule.
fn marked_lines(content: &[u8], rules: &[&RuleObject]) -> Vec<String> {
    let mut shown = Vec::new();
    let mut rules = rules.iter().peekable();
    let mut number = 0_u32;
    let raw = content.split(|&byte| byte == b'\n');
    for (line, raw) in lines(content).into_iter().zip(raw) {
        shown.push(line);
        // A bare carriage return ends a line of the file, but none here.
        let ends = source_lines(raw).len().max(1);
        number = number.saturating_add(u32::try_from(ends).unwrap_or(u32::MAX));
        while let Some(rule) = rules.next_if(|rule| rule.line <= number) {
            shown.extend(rule.note().map(|note| format!("    ^ {note}")));
        }
    }
    shown
}

/// The lines of a file. A carriage return stays visible: it is why a rule
/// does not match on a server that runs lfd.
fn lines(content: &[u8]) -> Vec<String> {
    let content = content.strip_suffix(b"\n").unwrap_or(content);
    if content.is_empty() {
        return Vec::new();
    }
    content
        .split(|&byte| byte == b'\n')
        .map(printable_line)
        .collect()
}

#[cfg(test)]
mod tests {
    use procwarden_common::clock::UnixMillis;
    use procwarden_common::policy::PolicyFile;

    use super::*;

    #[test]
    fn what_is_known_of_a_rule_stands_below_its_line() {
        let content = b"# top\nexe:/a\rexe:/b\r\n\nexe:/c\n";
        let document = PolicyDocument {
            name: "web".into(),
            revision: 1,
            files: vec![PolicyFile {
                path: "a".into(),
                content: content.to_vec(),
            }],
            settings: String::new(),
        };
        let hits = v1::PolicyHitsResponse {
            hosts: 3,
            hosts_known: 3,
            ..v1::PolicyHitsResponse::default()
        };
        let (rules, _) = marks::of(&document, &hits, UnixMillis(0));
        let never = "    ^ never matched";
        let expected = [
            "# top",
            "exe:/a\\rexe:/b\\r",
            never,
            never,
            "",
            "exe:/c",
            never,
        ];
        assert_eq!(
            marked_lines(content, &rules.iter().collect::<Vec<_>>()),
            expected
        );
    }

    #[test]
    fn rules_keep_their_backslashes_and_lose_their_control_bytes() {
        let content = b"pcmd:a\\.b \"c\"\r\n\n# \x1b[2J\xff\n";
        assert_eq!(lines(content), ["pcmd:a\\.b \"c\"\\r", "", "# \\1b[2J\\ff"]);
        assert!(lines(b"").is_empty());
        assert_eq!(lines(b"user:bob"), ["user:bob"]);
    }
}
