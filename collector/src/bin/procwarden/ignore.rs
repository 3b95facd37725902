//! `procwarden ignore`: the rule that would hide a finding, what else it would
//! hide, and with `--yes` a revision with it.
//!
//! Promises: without `--yes` nothing is changed.

use procwarden_common::diagnostic::Diagnostic;
use procwarden_proto::v1;
use serde::Serialize;
use tonic::Code;

use crate::cli::IgnoreArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::json::DiagnosticObject;
use crate::policy::preview;
use crate::policy::remarks::{self, Sources};
use crate::policy::view::PolicyObject;

/// The rule, what it hides, and what became of it.
#[derive(Debug, Serialize)]
struct IgnoreObject {
    facts: String,
    rule: String,
    notes: Vec<String>,
    objections: Vec<String>,
    can_be_forced: bool,
    preview: Vec<preview::RuleObject>,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<preview::SummaryObject>,
    diagnostics: Vec<DiagnosticObject>,
    policy: PolicyObject,
    published: bool,
}

pub(crate) async fn run(args: IgnoreArgs, context: &mut Context) -> Result<(), Failure> {
    let request = v1::IgnoreFindingRequest {
        finding: args.finding,
        by: args
            .by
            .map(|key| key.as_str().to_owned())
            .unwrap_or_default(),
        policy: args.policy,
        expires: args.expires.map(|day| day.to_string()).unwrap_or_default(),
        reason: args.reason,
        force: args.force,
        publish: args.yes,
        since_ms: args.since.resolve(context.now()).0,
    };
    let answer = context.admin().await?.ignore_finding(request).await;
    let answer = answer.map_err(|status| match status.code() {
        Code::FailedPrecondition => {
            Failure::Negative(format!("{}; nothing was published", status.message()))
        }
        _ => context.refused("ignore the finding", &status),
    })?;
    let answer = answer.into_inner();
    let preview = answer.preview.clone().unwrap_or_default();
    let remarks = remarks_of(&preview, &answer);
    if context.out.json() {
        context.out.object(&object(&answer, &preview, &remarks))?;
    } else {
        remarks::say(&remarks, &Sources::default(), &context.out);
        write(&answer, &preview, context)?;
    }
    remarks::judge(&remarks, false, "nothing was published")
}

/// What the preview remarked, and then what only the publication did.
fn remarks_of(
    preview: &v1::PreviewPolicyResponse,
    answer: &v1::IgnoreFindingResponse,
) -> Vec<Diagnostic> {
    let previewed = &preview.diagnostics;
    let is_new = |remark: &&v1::Diagnostic| !previewed.contains(remark);
    let published = answer.diagnostics.iter().filter(is_new);
    let all = previewed.iter().chain(published);
    all.cloned().map(Into::into).collect()
}

fn object(
    answer: &v1::IgnoreFindingResponse,
    preview: &v1::PreviewPolicyResponse,
    remarks: &[Diagnostic],
) -> IgnoreObject {
    let text = |text: &String| preview::line_text(text);
    IgnoreObject {
        facts: text(&answer.facts),
        rule: text(&answer.rule),
        notes: answer.notes.iter().map(text).collect(),
        objections: answer.objections.iter().map(text).collect(),
        can_be_forced: answer.can_be_forced,
        preview: preview.rules.iter().map(Into::into).collect(),
        summary: preview.summary.as_ref().map(Into::into),
        diagnostics: remarks.iter().map(Into::into).collect(),
        policy: PolicyObject::from(&answer.policy.clone().unwrap_or_default()),
        published: answer.published,
    }
}

fn write(
    answer: &v1::IgnoreFindingResponse,
    preview: &v1::PreviewPolicyResponse,
    context: &mut Context,
) -> Result<(), Failure> {
    let policy = answer.policy.clone().unwrap_or_default();
    context.out.line(&answer.facts)?;
    context.out.line(&answer.rule)?;
    for note in &answer.notes {
        context.out.line(&format!("note: {note}"))?;
    }
    for objection in &answer.objections {
        context.out.line(&format!("objection: {objection}"))?;
    }
    if let Some(summary) = &preview.summary {
        preview::write(&preview.rules, summary, &mut context.out)?;
    }
    let end = if answer.published {
        format!("{} r{} published", policy.name, policy.revision)
    } else if answer.objections.is_empty() {
        format!(
            "nothing was published; --yes adds the rule to policy {}",
            policy.name
        )
    } else if answer.can_be_forced {
        "nothing was published; --yes --force would do it all the same".into()
    } else {
        "nothing was published; this rule cannot be, try another --by".into()
    };
    context.out.line(&end)
}
