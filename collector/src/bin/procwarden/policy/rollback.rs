//! `procwarden policy rollback`: an older revision's content, published anew.

use procwarden_common::diagnostic::Diagnostic;
use procwarden_proto::v1;
use serde::Serialize;

use super::remarks::{self, Sources};
use super::view::PolicyObject;
use crate::context::Context;
use crate::failure::Failure;

/// What became of it.
#[derive(Debug, Serialize)]
struct RolledBackObject {
    #[serde(flatten)]
    policy: PolicyObject,
    /// False when the newest revision has that content already.
    published: bool,
}

pub(super) async fn run(
    name: String,
    revision: u64,
    comment: String,
    context: &mut Context,
) -> Result<(), Failure> {
    let request = v1::RollbackPolicyRequest {
        name,
        revision,
        comment,
    };
    let answer = context.admin().await?.rollback_policy(request).await;
    let answer = answer
        .map_err(|status| context.refused("roll the policy back", &status))?
        .into_inner();
    let remarks: Vec<Diagnostic> = answer.diagnostics.into_iter().map(Into::into).collect();
    remarks::say(&remarks, &Sources::default(), &context.out);
    remarks::judge(&remarks, false, "nothing was published")?;
    let info = answer.policy.unwrap_or_default();
    if context.out.json() {
        return context.out.object(&RolledBackObject {
            policy: PolicyObject::from(&info),
            published: answer.published,
        });
    }
    let newest = info.revision;
    if !answer.published {
        return context.out.line(&format!(
            "{}: nothing to do, revision {newest} has the content of revision {revision}",
            info.name
        ));
    }
    context.out.line(&format!(
        "{}: revision {newest} has the content of revision {revision}; \
         `procwarden policy status {}` shows which hosts run it",
        info.name, info.name
    ))
}
