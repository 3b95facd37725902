//! `procwarden policy learn`: fewer alerts of a group for a while, and a policy
//! file at its end.

use std::io::Write;
use std::path::Path;

use procwarden_common::clock::UnixMillis;
use procwarden_proto::v1;
use serde::Serialize;

use crate::cli::{LearnArgs, LearnCommand, LearnGroupArgs};
use crate::context::Context;
use crate::failure::Failure;
use crate::json::{shown, shown_unless_empty, when};
use crate::table::Table;

/// One group.
#[derive(Debug, Serialize)]
struct LearningObject {
    group: String,
    running: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    started_by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_by: Option<String>,
    hosts: u64,
}

/// A proposed policy.
#[derive(Debug, Serialize)]
struct ProposedObject {
    #[serde(flatten)]
    learning: LearningObject,
    rules: u64,
    left_out: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

pub(super) async fn run(args: LearnArgs, context: &mut Context) -> Result<(), Failure> {
    match (args.command, args.group) {
        (Some(LearnCommand::List), _) => list(None, context).await,
        (Some(LearnCommand::Show { name }), _) => list(Some(name), context).await,
        (Some(LearnCommand::End { name }), _) => end(name, context).await,
        (None, Some(args)) => start_or_propose(args, context).await,
        (None, None) => {
            let usage = "say of what to learn: procwarden policy learn GROUP --for 7d";
            Err(Failure::Usage(usage.into()))
        }
    }
}

async fn start_or_propose(args: LearnGroupArgs, context: &mut Context) -> Result<(), Failure> {
    if let Some(file) = args.propose {
        return propose(args.name, &file, context).await;
    }
    let span = args.span.unwrap_or_default();
    let request = v1::StartLearningRequest {
        group: args.name,
        for_ms: u64::try_from(span.as_millis()).unwrap_or(u64::MAX),
    };
    let answer = context.admin().await?.start_learning(request).await;
    let answer = answer.map_err(|status| context.judged("learn", &status))?;
    let learning = answer.into_inner().learning;
    if let Some(empty) = learning.as_ref().filter(|learning| learning.hosts == 0) {
        context.out.remark(&format!(
            "no host is in group {}, so nothing is learned until one is; `procwarden hosts list` \
             shows the groups of each",
            empty.group
        ));
    }
    show(learning.into_iter().collect(), context)
}

async fn end(group: String, context: &mut Context) -> Result<(), Failure> {
    let request = v1::EndLearningRequest { group };
    let answer = context.admin().await?.end_learning(request).await;
    let answer = answer.map_err(|status| context.judged("end learning", &status))?;
    show(answer.into_inner().learning.into_iter().collect(), context)
}

async fn list(group: Option<String>, context: &mut Context) -> Result<(), Failure> {
    let request = v1::ListLearningRequest {};
    let answer = context.admin().await?.list_learning(request).await;
    let answer = answer.map_err(|status| context.refused("list what is learned", &status))?;
    let mut all = answer.into_inner().learning;
    if let Some(group) = group {
        all.retain(|learning| learning.group == group);
        if all.is_empty() {
            return Err(Failure::Run(format!(
                "group {group} was never learned from"
            )));
        }
    }
    show(all, context)
}

async fn propose(group: String, file: &Path, context: &mut Context) -> Result<(), Failure> {
    let request = v1::ProposePolicyRequest { group };
    let answer = context.admin().await?.propose_policy(request).await;
    let answer = answer.map_err(|status| context.judged("propose a policy", &status))?;
    let answer = answer.into_inner();
    let learning = answer.learning.clone().unwrap_or_default();
    if learning.running {
        let until = UnixMillis(learning.until_ms);
        let group = &learning.group;
        context.out.remark(&format!(
            "group {group} is still learned from, until {until}: more may come"
        ));
    }
    let to_file = file != Path::new("-");
    if to_file {
        write(file, &answer.text)?;
    }
    if context.out.json() {
        return context.out.object(&ProposedObject {
            learning: object(&learning),
            rules: answer.rules,
            left_out: answer.left_out,
            file: to_file.then(|| shown(&file.to_string_lossy())),
            text: (!to_file).then_some(answer.text),
        });
    }
    if !to_file {
        for line in answer.text.lines() {
            context.out.line(line)?;
        }
    }
    context.out.remark(&format!(
        "{} rule(s) proposed, {} program(s) to look at yourself",
        answer.rules, answer.left_out
    ));
    Ok(())
}

/// Never over a file that is there: somebody may have edited it.
fn write(file: &Path, text: &str) -> Result<(), Failure> {
    let created = std::fs::File::options()
        .write(true)
        .create_new(true)
        .open(file);
    let written = created.and_then(|mut created| created.write_all(text.as_bytes()));
    written.map_err(|error| {
        let file = shown(&file.to_string_lossy());
        Failure::Run(format!("cannot write {file}: {error}; name a new file"))
    })
}

fn show(all: Vec<v1::LearningInfo>, context: &mut Context) -> Result<(), Failure> {
    if context.out.json() {
        for learning in &all {
            context.out.object(&object(learning))?;
        }
        return Ok(());
    }
    let mut table = Table::new(&[
        "GROUP", "STATE", "SINCE", "UNTIL", "BY", "ENDED BY", "HOSTS",
    ]);
    for learning in &all {
        let object = object(learning);
        table.row([
            object.group.as_str().into(),
            if object.running { "learning" } else { "over" }.into(),
            object.since.unwrap_or_default().into(),
            object.until.unwrap_or_default().into(),
            object.started_by.into(),
            object.ended_by.unwrap_or_default().into(),
            object.hosts.to_string().into(),
        ]);
    }
    context.out.table(&table)
}

fn object(learning: &v1::LearningInfo) -> LearningObject {
    LearningObject {
        group: shown(&learning.group),
        running: learning.running,
        since: when(learning.since_ms),
        until: when(learning.until_ms),
        started_by: shown(&learning.started_by),
        ended_by: shown_unless_empty(&learning.ended_by),
        hosts: learning.hosts,
    }
}
