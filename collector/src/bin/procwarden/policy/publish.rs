//! `procwarden policy set`: read, check, publish and assign in one request.
//!
//! Promises: a policy with an error is never sent; what was not given (rules,
//! settings or groups) stays as it is.

use std::path::{Path, PathBuf};

use procwarden_common::clock::UnixMillis;
use procwarden_common::diagnostic::Diagnostic;
use procwarden_proto::v1;
use serde::Serialize;
use tonic::Code;

use super::groups_words;
use super::local::{self, LocalPolicy};
use super::remarks::{self, Sources};
use super::view::PolicyObject;
use crate::cli::PublishArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::json::DiagnosticObject;

/// What is said when nothing came of it.
pub(crate) const NOTHING_PUBLISHED: &str = "nothing was published";

/// What the operator asked for.
pub(super) struct Wish {
    pub(super) name: String,
    pub(super) file: PathBuf,
    pub(super) comment: String,
    pub(super) settings: Option<PathBuf>,
    pub(super) how: PublishArgs,
}

/// What became of it.
#[derive(Debug, Serialize)]
struct PublishedObject {
    /// `published` where objects of other kinds stand before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(flatten)]
    policy: PolicyObject,
    /// False when the newest revision has the same text already.
    published: bool,
    diagnostics: Vec<DiagnosticObject>,
}

/// What the collector answered.
pub(crate) struct Published {
    info: v1::PolicyInfo,
    /// False when there was nothing new.
    published: bool,
    /// What its check remarked.
    remarks: Vec<Diagnostic>,
}

pub(super) async fn run(wish: Wish, context: &mut Context) -> Result<(), Failure> {
    let local = read_files(&wish.file, wish.settings.as_deref(), context.now())?;
    local.report(&context.out, wish.how.strict, NOTHING_PUBLISHED)?;
    let told = publish(wish.name, wish.comment, wish.how, local, context).await?;
    told.say(None, context)
}

/// Publishes what was read, and whose remarks were said, as one revision, and
/// gives it to the groups that are asked for.
pub(crate) async fn publish(
    name: String,
    comment: String,
    how: PublishArgs,
    local: LocalPolicy,
    context: &mut Context,
) -> Result<Published, Failure> {
    let said = local.remarks_as_published();
    let request = request(name, comment, how, local);
    send(request, &said, context).await
}

/// Reads and checks rules, settings or both, told apart by their names.
pub(super) fn read_files(
    file: &Path,
    settings: Option<&Path>,
    now: UnixMillis,
) -> Result<LocalPolicy, Failure> {
    if !local::is_settings(file) {
        return local::load(Some(file), settings, now);
    }
    if settings.is_some() {
        return Err(Failure::Usage(
            "both files hold settings: give the pignore file first, or the settings alone".into(),
        ));
    }
    local::load(None, Some(file), now)
}

/// Publishes one revision, of which `said` was said already.
async fn send(
    request: v1::PublishPolicyRequest,
    said: &[Diagnostic],
    context: &mut Context,
) -> Result<Published, Failure> {
    let answer = context.admin().await?.publish_policy(request).await;
    let answer = answer.map_err(|status| match status.code() {
        // The collector checked it against what this command can not see.
        Code::FailedPrecondition => Failure::Negative(format!(
            "the collector refused the policy: {}; {NOTHING_PUBLISHED}",
            status.message()
        )),
        _ => context.refused("publish the policy", &status),
    })?;
    let answer = answer.into_inner();
    let remarks: Vec<Diagnostic> = answer.diagnostics.into_iter().map(Into::into).collect();
    // The collector checks again; what was said already is not said twice.
    let is_new = |remark: &&Diagnostic| {
        let same = |d: &Diagnostic| (d.line, d.column) == (remark.line, remark.column);
        !said.iter().any(|d| same(d) && d.message == remark.message)
    };
    let new: Vec<Diagnostic> = remarks.iter().filter(is_new).cloned().collect();
    remarks::say(&new, &Sources::default(), &context.out);
    remarks::judge(&remarks, false, NOTHING_PUBLISHED)?;
    Ok(Published {
        info: answer.policy.unwrap_or_default(),
        published: answer.published,
        remarks,
    })
}

fn request(
    name: String,
    comment: String,
    how: PublishArgs,
    local: LocalPolicy,
) -> v1::PublishPolicyRequest {
    let mut files: Vec<v1::PolicyFile> = local.files.iter().map(Into::into).collect();
    if let (Some(first), Some(name)) = (files.first_mut(), local.published_name()) {
        first.path = name.to_owned();
    }
    v1::PublishPolicyRequest {
        name,
        files,
        settings: local.settings,
        comment,
        base_revision: how.base,
        staged: how.staged,
        groups: how.groups,
    }
}

impl Published {
    /// Says what became of it; `kind` where the object is one of several kinds.
    pub(crate) fn say(
        &self,
        kind: Option<&'static str>,
        context: &mut Context,
    ) -> Result<(), Failure> {
        let (info, published) = (&self.info, self.published);
        if info.groups.is_empty() {
            context.out.remark(&format!(
                "policy {0} is assigned to no group, so no host runs it; assign it with: \
                 procwarden policy assign {0} --group all",
                info.name
            ));
        }
        if context.out.json() {
            return context.out.object(&PublishedObject {
                kind,
                policy: info.into(),
                published,
                diagnostics: self.remarks.iter().map(Into::into).collect(),
            });
        }
        let what = match (published, info.running) {
            (true, None) => "published",
            (true, Some(_)) => "staged",
            (false, _) => "unchanged",
        };
        if let Some(running) = info.running {
            context.out.remark(&format!(
                "hosts stay on {}; bring it to them with: procwarden policy rollout {} {}",
                super::revision_words(running),
                info.name,
                info.revision
            ));
        }
        context.out.line(&format!(
            "{} r{} {what}: {} rule(s), {}",
            info.name,
            info.revision,
            info.rules,
            groups_words(&info.groups)
        ))
    }
}

#[cfg(test)]
mod tests {
    use procwarden_common::policy::PolicyFile;

    use super::*;

    #[test]
    fn the_directory_of_the_first_file_is_not_published() {
        let file = |path: &str| PolicyFile {
            path: path.into(),
            content: Vec::new(),
        };
        let local = LocalPolicy {
            files: vec![file("/home/ops/web.pignore"), file("/etc/more")],
            ..LocalPolicy::default()
        };
        let how = PublishArgs {
            base: Some(3),
            staged: true,
            ..PublishArgs::default()
        };
        let request = request("web".into(), "why".into(), how, local);
        let paths: Vec<_> = request
            .files
            .iter()
            .map(|file| file.path.as_str())
            .collect();
        assert_eq!(paths, ["web.pignore", "/etc/more"]);
        assert_eq!(request.settings, None, "settings that are not given stay");
        assert_eq!((request.base_revision, request.staged), (Some(3), true));
    }

    #[test]
    fn two_files_of_settings_are_wrong_usage() {
        let both = read_files(
            Path::new("a.toml"),
            Some(Path::new("b.toml")),
            UnixMillis(0),
        );
        let failure = both.expect_err("two files of settings");
        assert_eq!(failure.exit_code(), 64);
    }
}
