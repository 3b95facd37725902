//! `procwarden policy`: whitelists and settings of the agents.

use data_encoding::HEXLOWER;
use procwarden_common::clock::UnixMillis;
use procwarden_common::diagnostic::Diagnostic;
use procwarden_proto::v1;

use crate::cli::PolicyCommand;
use crate::context::Context;
use crate::failure::Failure;
use crate::json::shown_all;
use crate::table::Table;

mod check;
mod diff;
mod learn;
pub(crate) mod local;
pub(crate) mod preview;
pub(crate) mod publish;
pub(crate) mod remarks;
mod rollback;
mod rollout;
mod show;
mod staged;
pub(crate) mod view;

use remarks::Sources;
use view::PolicyObject;

pub(crate) async fn run(command: PolicyCommand, context: &mut Context) -> Result<(), Failure> {
    match command {
        PolicyCommand::Check {
            file,
            settings,
            strict,
        } => check::run(&file, settings, strict, context),
        PolicyCommand::Set {
            name,
            file,
            comment,
            settings,
            how,
        } => {
            let wish = publish::Wish {
                name,
                file,
                comment,
                settings,
                how,
            };
            publish::run(wish, context).await
        }
        PolicyCommand::Preview {
            name,
            file,
            settings,
            since,
        } => {
            let wish = preview::Wish {
                name,
                file,
                settings,
                since,
            };
            preview::run(wish, context).await
        }
        PolicyCommand::Show { name, revision } => show::run(name, revision, context).await,
        PolicyCommand::List => list(context).await,
        PolicyCommand::Log { name } => log(name, context).await,
        PolicyCommand::Diff { name, old, new } => diff::run(name, old, new, context).await,
        PolicyCommand::Rollback {
            name,
            revision,
            comment,
        } => rollback::run(name, revision, comment, context).await,
        PolicyCommand::Assign { name, to } => {
            let info = assign(name, to.groups, to.hosts, context).await?;
            if context.out.json() {
                return context.out.object(&PolicyObject::from(&info));
            }
            context
                .out
                .line(&format!("{}: {}", info.name, groups_words(&info.groups)))
        }
        PolicyCommand::Learn(args) => learn::run(args, context).await,
        PolicyCommand::Rollout(args) => staged::run(args, context).await,
        PolicyCommand::Status { name } => rollout::run(name, context).await,
    }
}

async fn list(context: &mut Context) -> Result<(), Failure> {
    let answer = context
        .admin()
        .await?
        .list_policies(v1::ListPoliciesRequest {})
        .await;
    let policies = answer.map_err(|status| context.refused("list the policies", &status))?;
    let policies = policies.into_inner().policies;
    if context.out.json() {
        for policy in &policies {
            context.out.object(&PolicyObject::from(policy))?;
        }
        return Ok(());
    }
    let mut table = Table::new(&[
        "NAME",
        "REVISION",
        "RULES",
        "GROUPS",
        "PUBLISHED",
        "BY",
        "COMMENT",
    ]);
    for policy in policies {
        table.row([
            policy.name.as_str().into(),
            revision_words(policy.revision).into(),
            policy.rules.to_string().into(),
            groups_words(&policy.groups).into(),
            published_words(&policy).into(),
            policy.author.into(),
            policy.comment.into(),
        ]);
    }
    context.out.table(&table)
}

async fn log(name: String, context: &mut Context) -> Result<(), Failure> {
    let answer = context
        .admin()
        .await?
        .log_policy(v1::LogPolicyRequest { name })
        .await;
    let revisions = answer.map_err(|status| context.refused("show the policy's log", &status))?;
    let revisions = revisions.into_inner().revisions;
    if context.out.json() {
        for revision in &revisions {
            context.out.object(&PolicyObject::from(revision))?;
        }
        return Ok(());
    }
    let mut table = Table::new(&["REVISION", "RULES", "PUBLISHED", "BY", "HASH", "COMMENT"]);
    for revision in revisions {
        table.row([
            revision_words(revision.revision).into(),
            revision.rules.to_string().into(),
            published_words(&revision).into(),
            revision.author.as_str().into(),
            hash_words(&revision).into(),
            revision.comment.into(),
        ]);
    }
    context.out.table(&table)
}

/// Gives a policy to these groups and hosts, instead of those it had.
async fn assign(
    name: String,
    groups: Vec<String>,
    hosts: Vec<String>,
    context: &mut Context,
) -> Result<v1::PolicyInfo, Failure> {
    let request = v1::AssignPolicyRequest {
        name,
        groups,
        hosts,
    };
    let answer = context.admin().await?.assign_policy(request).await;
    let answer = answer.map_err(|status| context.judged("assign the policy", &status))?;
    let answer = answer.into_inner();
    let said: Vec<Diagnostic> = answer.diagnostics.into_iter().map(Into::into).collect();
    remarks::say(&said, &Sources::default(), &context.out);
    Ok(answer.policy.unwrap_or_default())
}

fn groups_words(groups: &[String]) -> String {
    if groups.is_empty() {
        "no group".into()
    } else {
        shown_all(groups).join(" ")
    }
}

fn revision_words(revision: u64) -> String {
    if revision == 0 {
        "none yet".into()
    } else {
        format!("r{revision}")
    }
}

/// The first digits of a revision's hash: enough to compare by eye.
fn hash_words(info: &v1::PolicyInfo) -> String {
    let digits = HEXLOWER.encode(info.hash.get(..6).unwrap_or_default());
    if digits.is_empty() {
        "-".into()
    } else {
        digits
    }
}

fn published_words(info: &v1::PolicyInfo) -> String {
    match info.published_at_ms {
        0 => "-".into(),
        millis => UnixMillis(millis).to_string(),
    }
}
