//! `procwarden policy status`: which hosts run what they should, which is the
//! newest revision unless one is staged or rolled out.
//! Exit code 2 unless all of them do, so a script can wait for it.

use procwarden_proto::v1;
use serde::Serialize;

use super::revision_words;
use crate::context::Context;
use crate::failure::Failure;
use crate::json::{shown, shown_unless_empty, uuid_text};
use crate::table::Table;

/// One host and the policy on it.
#[derive(Debug, Serialize)]
struct HostObject {
    policy: String,
    revision: u64,
    wanted_revision: u64,
    host: String,
    host_id: String,
    state: &'static str,
    applied_revision: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

pub(super) async fn run(name: String, context: &mut Context) -> Result<(), Failure> {
    let request = v1::PolicyStatusRequest { name: name.clone() };
    let answer = context.admin().await?.policy_status(request).await;
    let answer = answer.map_err(|status| context.refused("show the policy's status", &status))?;
    let status = answer.into_inner();
    let hosts = objects(&status);
    if context.out.json() {
        for host in &hosts {
            context.out.object(host)?;
        }
    } else {
        context.out.table(&table(&hosts))?;
    }
    if hosts.is_empty() {
        context
            .out
            .remark(&format!("no host has the policy {name}"));
    }
    outcome(&status)
}

fn objects(status: &v1::PolicyStatusResponse) -> Vec<HostObject> {
    let policy = status.policy.clone().unwrap_or_default();
    let hosts = status.hosts.iter().map(|host| HostObject {
        policy: shown(&policy.name),
        revision: policy.revision,
        wanted_revision: host.wanted_revision,
        host: shown(&host.host_name),
        host_id: uuid_text(&host.host_id),
        state: state_word(host.state()),
        applied_revision: host.applied_revision,
        reason: shown_unless_empty(&host.reason),
    });
    hosts.collect()
}

fn table(hosts: &[HostObject]) -> Table {
    let mut table = Table::new(&["HOST", "STATE", "RUNS", "SHOULD RUN", "REASON"]);
    for host in hosts {
        let runs = if host.applied_revision == 0 {
            "none".into()
        } else {
            revision_words(host.applied_revision)
        };
        table.row([
            host.host.as_str().into(),
            host.state.into(),
            runs.into(),
            revision_words(host.wanted_revision).into(),
            host.reason.as_deref().unwrap_or_default().into(),
        ]);
    }
    table
}

fn outcome(status: &v1::PolicyStatusResponse) -> Result<(), Failure> {
    let hosts = status.hosts.len();
    let applied = |host: &&v1::PolicyHost| host.state() == v1::PolicyHostState::Applied;
    let applied = status.hosts.iter().filter(applied).count();
    if applied == hosts {
        return Ok(());
    }
    Err(Failure::Negative(format!(
        "{applied} of {hosts} hosts run what they should"
    )))
}

const fn state_word(state: v1::PolicyHostState) -> &'static str {
    match state {
        v1::PolicyHostState::Applied => "applied",
        v1::PolicyHostState::Pending => "pending",
        v1::PolicyHostState::Refused => "refused",
        v1::PolicyHostState::Silent => "silent",
        v1::PolicyHostState::Unspecified => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_policy_that_every_host_applied_is_a_success() {
        use v1::PolicyHostState::{Applied, Pending, Refused, Silent};
        for (states, code) in [
            (&[][..], None),
            (&[Applied, Applied][..], None),
            (&[Applied, Pending][..], Some(2)),
            (&[Refused][..], Some(2)),
            (&[Silent][..], Some(2)),
        ] {
            let hosts = states.iter().map(|&state| v1::PolicyHost {
                state: state.into(),
                ..Default::default()
            });
            let status = v1::PolicyStatusResponse {
                policy: None,
                hosts: hosts.collect(),
            };
            let failure = outcome(&status).err();
            assert_eq!(failure.map(|f| f.exit_code()), code, "{states:?}");
        }
    }
}
