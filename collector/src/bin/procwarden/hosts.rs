//! `procwarden hosts`: the servers of the fleet.

use procwarden_proto::v1;

use crate::cli::HostsCommand;
use crate::context::Context;
use crate::failure::Failure;
use crate::policy::remarks;
use crate::table::Table;

mod effective;
mod view;

use view::HostObject;

pub(crate) async fn run(command: HostsCommand, context: &mut Context) -> Result<(), Failure> {
    match command {
        HostsCommand::List { group, silent } => list(group, silent, context).await,
        HostsCommand::Show { host, rules } => show(host, rules, context).await,
        HostsCommand::Set { host, groups } => set(host, groups.groups, context).await,
        HostsCommand::Revoke { host } => {
            let request = v1::RevokeHostRequest { host: host.clone() };
            let answer = context.admin().await?.revoke_host(request).await;
            answer.map_err(|status| context.refused("revoke the host", &status))?;
            context.out.remark(&format!(
                "host {host} is shut out; to come back it must enrol anew"
            ));
            Ok(())
        }
        HostsCommand::Scan { host } => {
            let request = v1::ScanHostRequest { host: host.clone() };
            let answer = context.admin().await?.scan_host(request).await;
            answer.map_err(|status| context.refused("have the host scan", &status))?;
            context.out.remark(&format!("host {host} scans now"));
            Ok(())
        }
    }
}

async fn list(group: Option<String>, silent: bool, context: &mut Context) -> Result<(), Failure> {
    let request = v1::ListHostsRequest {
        group: group.unwrap_or_default(),
        silent,
    };
    let answer = context.admin().await?.list_hosts(request).await;
    let hosts = answer.map_err(|status| context.refused("list the hosts", &status))?;
    let hosts = hosts.into_inner().hosts;
    if context.out.json() {
        for host in &hosts {
            context.out.object(&HostObject::from(host))?;
        }
        return Ok(());
    }
    let mut table = Table::new(&[
        "NAME",
        "STATE",
        "GROUPS",
        "POLICY",
        "OPEN FINDINGS",
        "LAST HEARTBEAT",
        "ID",
    ]);
    for host in hosts.iter().map(HostObject::from) {
        table.row([
            host.name.as_str().into(),
            host.state.into(),
            host.groups.join(" ").into(),
            host.policy_words().into(),
            host.findings_open.to_string().into(),
            host.last_heartbeat.unwrap_or_else(|| "-".into()).into(),
            host.id.into(),
        ]);
    }
    context.out.table(&table)
}

async fn show(host: String, rules: bool, context: &mut Context) -> Result<(), Failure> {
    let answer = context
        .admin()
        .await?
        .show_host(v1::ShowHostRequest { host })
        .await;
    let shown = answer
        .map_err(|status| context.refused("show the host", &status))?
        .into_inner();
    let documents = shown.effective.unwrap_or_default().documents;
    if rules {
        return effective::write_rules(documents, &mut context.out);
    }
    let settings = effective::settings_of(&documents);
    let sources: Vec<_> = shown.sources.iter().map(effective::source_of).collect();
    let wanted: Vec<_> = documents.iter().map(view::revision_of).collect();
    let host = HostObject::from(&shown.host.unwrap_or_default()).with_wanted(wanted);
    if context.out.json() {
        return context
            .out
            .object(&effective::object(host, sources, settings));
    }
    context.out.table(&host.table())?;
    effective::write_tables(&sources, &settings, &mut context.out)
}

async fn set(host: String, groups: Vec<String>, context: &mut Context) -> Result<(), Failure> {
    let request = v1::SetHostGroupsRequest { host, groups };
    let answer = context.admin().await?.set_host_groups(request).await;
    let answer = answer.map_err(|status| context.judged("set the host's groups", &status))?;
    let answer = answer.into_inner();
    remarks::say_of_collector(answer.diagnostics, &context.out);
    let host = HostObject::from(&answer.host.unwrap_or_default());
    if context.out.json() {
        return context.out.object(&host);
    }
    let groups = if host.groups.is_empty() {
        "no group".into()
    } else {
        host.groups.join(", ")
    };
    context.out.line(&format!("{}: {groups}", host.name))
}
