//! `procwarden policy show`: a policy's text, line by line in a form that no
//! terminal can be harmed by.

use procwarden_common::clock::UnixMillis;
use procwarden_common::diagnostic::Diagnostic;
use procwarden_common::policy::{self, EffectivePolicy, Policy, PolicyDocument};
use procwarden_common::printable::printable_line;
use procwarden_proto::v1;
use serde::Serialize;

use super::remarks::{self, Sources};
use super::view::PolicyObject;
use super::{groups_words, hash_words, published_words, revision_words};
use crate::context::Context;
use crate::failure::Failure;
use crate::json::shown;
use crate::table::Table;

/// A policy with its text.
#[derive(Debug, Serialize)]
struct ShownObject {
    #[serde(flatten)]
    policy: PolicyObject,
    files: Vec<FileObject>,
    settings: String,
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
    let request = v1::ShowPolicyRequest {
        name,
        revision: revision.unwrap_or(0),
    };
    let answer = context.admin().await?.show_policy(request).await;
    let answer = answer
        .map_err(|status| context.refused("show the policy", &status))?
        .into_inner();
    let info = answer.policy.unwrap_or_default();
    let document = answer.document.unwrap_or_default();
    remarks::say(
        &expiring(&document, context.now()),
        &Sources::default(),
        &context.out,
    );
    if context.out.json() {
        return context.out.object(&object(&info, &document));
    }
    context.out.table(&table(&info))?;
    for file in &document.files {
        context.out.line("")?;
        context.out.line(&format!("--- {}", file.path))?;
        for line in lines(&file.content) {
            context.out.line(&line)?;
        }
    }
    if !document.settings.is_empty() {
        context.out.line("")?;
        context.out.line("--- settings")?;
        for line in lines(document.settings.as_bytes()) {
            context.out.line(&line)?;
        }
    }
    Ok(())
}

/// The rules that have expired or soon will. What does not compile here was
/// published by another version, and its text is shown all the same.
fn expiring(document: &v1::PolicyDocument, now: UnixMillis) -> Vec<Diagnostic> {
    let Ok(document) = PolicyDocument::try_from(document.clone()) else {
        return Vec::new();
    };
    let effective = EffectivePolicy {
        documents: vec![document],
    };
    let Ok((policy, _)) = Policy::compile(&effective) else {
        return Vec::new();
    };
    let found = policy::expiring(&policy, now).into_iter();
    found.map(|expiring| expiring.remark()).collect()
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
    table
}

fn object(info: &v1::PolicyInfo, document: &v1::PolicyDocument) -> ShownObject {
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
    }
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
    use super::*;

    #[test]
    fn rules_near_their_end_are_named_with_their_line() {
        let file = v1::PolicyFile {
            path: "a.pignore".into(),
            content: b"exe:/a\n#@ expires=2026-11-22 owner=ops\nexe:/b\n"
                .to_vec()
                .into(),
        };
        let document = v1::PolicyDocument {
            name: "web".into(),
            revision: 1,
            files: vec![file],
            settings: String::new(),
        };
        let said: Vec<String> = expiring(&document, UnixMillis(1_795_424_400_000))
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with("a.pignore:3: warning: "), "{said:?}");
        assert!(expiring(&document, UnixMillis(0)).is_empty());
    }

    #[test]
    fn rules_keep_their_backslashes_and_lose_their_control_bytes() {
        let content = b"pcmd:a\\.b \"c\"\r\n\n# \x1b[2J\xff\n";
        assert_eq!(lines(content), ["pcmd:a\\.b \"c\"\\r", "", "# \\1b[2J\\ff"]);
        assert!(lines(b"").is_empty());
        assert_eq!(lines(b"user:bob"), ["user:bob"]);
    }
}
