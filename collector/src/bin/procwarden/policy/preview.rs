//! `procwarden policy preview`: what publishing would hide and bring back.
//!
//! Promises: nothing is changed; a file with an error is not previewed.

use std::path::PathBuf;

use procwarden_common::diagnostic::Diagnostic;
use procwarden_proto::v1;

use super::publish::read_files;
use super::remarks::{self, Sources};
use crate::context::Context;
use crate::failure::Failure;
use crate::since::Since;

pub(super) mod view;

pub(crate) use view::{RuleObject, SummaryObject, line_text, write};

/// What the operator asked for.
pub(super) struct Wish {
    pub(super) name: String,
    pub(super) file: PathBuf,
    pub(super) settings: Option<PathBuf>,
    pub(super) since: Since,
}

pub(super) async fn run(wish: Wish, context: &mut Context) -> Result<(), Failure> {
    let local = read_files(&wish.file, wish.settings.as_deref(), context.now())?;
    local.report(&context.out, false, "nothing was previewed")?;
    if local.settings.is_some() {
        context.out.remark(
            "of settings, what they switch off or leave out by age, web ports, memory and run time \
             is counted, by what was reported; what `users`, process groups of web servers and \
             limits on accounts, sessions and load leave out cannot be told from stored findings",
        );
    }
    let request = v1::PreviewPolicyRequest {
        name: wish.name,
        files: local.files.iter().map(Into::into).collect(),
        settings: local.settings,
        since_ms: wish.since.resolve(context.now()).0,
    };
    let answer = context.admin().await?.preview_policy(request).await;
    let answer = answer.map_err(|status| context.refused("preview the policy", &status))?;
    let answer = answer.into_inner();
    let Some(summary) = &answer.summary else {
        let remarks: Vec<Diagnostic> = answer.diagnostics.into_iter().map(Into::into).collect();
        remarks::say(&remarks, &Sources::default(), &context.out);
        remarks::judge(&remarks, false, "nothing was previewed")?;
        return Err(Failure::Run(
            "cannot preview the policy: the collector's answer is empty".into(),
        ));
    };
    if context.out.json() {
        for rule in &answer.rules {
            context.out.object(&RuleObject::from(rule))?;
        }
        return context.out.object(&SummaryObject::from(summary));
    }
    write(&answer.rules, summary, &mut context.out)
}
