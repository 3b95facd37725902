//! Hosts: listed, shown, moved between groups, revoked, asked to scan.

use procwarden_common::id::HostId;
use procwarden_common::printable::printable;
use procwarden_proto::v1;
use procwarden_proto::v1::ledger_record::Entry;
use tonic::Status;

use super::refusal::{not_found, not_now};
use super::{AdminContext, Caller, messages};
use crate::hosts::{self, HostView, WantedHashes};
use crate::ledger::LedgerState;
use crate::ledger::state::{HostRecord, PolicyHistory, PolicyRevision};
use crate::policy::union::{self, Change};
use crate::policy::{check_groups, effective_for, policies_for};

/// A host as the ledger has it, with what it should run.
type Known = (HostId, HostRecord, [u8; 32]);

impl AdminContext {
    /// Hosts by name; revoked ones come along and say so.
    pub(super) fn list_hosts(&self, request: &v1::ListHostsRequest) -> v1::ListHostsResponse {
        let in_group =
            |_, host: &HostRecord| request.group.is_empty() || host.is_in(&request.group);
        let mut hosts = self.host_infos(in_group);
        if request.silent {
            hosts.retain(|host| host.state() == v1::HostState::Silent);
        }
        hosts.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        v1::ListHostsResponse { hosts }
    }

    /// One host, and the text of what it should run.
    pub(super) fn show_host(
        &self,
        request: &v1::ShowHostRequest,
    ) -> Result<v1::ShowHostResponse, Status> {
        let id = self.find_host(&request.host)?;
        let (effective, sources) = self.ledger.read(|state| {
            let effective = effective_for(state, id).as_ref().map(Into::into);
            (effective, sources_of(state, id))
        });
        Ok(v1::ShowHostResponse {
            host: Some(self.host_info(id)?),
            effective,
            sources,
        })
    }

    /// Replaces a host's groups; what it should run follows at once.
    pub(super) async fn set_host_groups(
        &self,
        caller: &Caller,
        request: v1::SetHostGroupsRequest,
    ) -> Result<v1::SetHostGroupsResponse, Status> {
        let groups = check_groups(request.groups)?;
        let id = self.find_host(&request.host)?;
        let change = Change::Groups {
            host: id,
            groups: groups.clone(),
        };
        let together = union::check(&self.ledger, &change, crate::clock::now()).await?;
        self.commit(caller, |state| {
            refuse_revoked(state, id)?;
            union::still_holds(state, &change, &together)?;
            let host_id = id.as_bytes().to_vec().into();
            Ok(Entry::HostGroupsSet(v1::HostGroupsSet { host_id, groups }))
        })
        .await?;
        Ok(v1::SetHostGroupsResponse {
            host: Some(self.host_info(id)?),
            diagnostics: messages(&together.warnings),
        })
    }

    /// Refuses a host from now on and cuts its stream.
    pub(super) async fn revoke_host(
        &self,
        caller: &Caller,
        request: v1::RevokeHostRequest,
    ) -> Result<v1::RevokeHostResponse, Status> {
        let id = self.find_host(&request.host)?;
        self.commit(caller, |state| {
            refuse_revoked(state, id)?;
            let host_id = id.as_bytes().to_vec().into();
            Ok(Entry::HostRevoked(v1::HostRevoked { host_id }))
        })
        .await?;
        self.sessions.disconnect(id, "the host was revoked");
        self.sessions.rule_hits().forget(id);
        tracing::info!(host_id = %id, actor = caller.actor(), "A host was revoked.");
        Ok(v1::RevokeHostResponse {})
    }

    /// Asks a connected host to scan now.
    pub(super) fn scan_host(
        &self,
        request: &v1::ScanHostRequest,
    ) -> Result<v1::ScanHostResponse, Status> {
        let id = self.find_host(&request.host)?;
        if self.sessions.scan_now(id) {
            return Ok(v1::ScanHostResponse {});
        }
        let shown = printable(request.host.as_bytes());
        Err(not_now(format!(
            "{shown} is not connected, so it cannot be asked to scan"
        )))
    }

    /// The host that an operator names.
    pub(super) fn find_host(&self, id_or_name: &str) -> Result<HostId, Status> {
        Ok(self.ledger.read(|state| hosts::find(state, id_or_name))?)
    }

    /// Messages of the hosts that `choose` takes.
    fn host_infos(&self, choose: impl Fn(HostId, &HostRecord) -> bool) -> Vec<v1::HostInfo> {
        let at = self.moment();
        self.known_hosts(choose)
            .iter()
            .map(|known| self.view(known).info(at))
            .collect()
    }

    /// Copied out of the ledger first: sessions and findings have locks of
    /// their own, which are never taken inside the ledger's.
    pub(super) fn known_hosts(&self, choose: impl Fn(HostId, &HostRecord) -> bool) -> Vec<Known> {
        self.ledger.read(|state| {
            let mut wanted = WantedHashes::default();
            let chosen = state
                .hosts
                .iter()
                .filter(|(id, record)| choose(**id, record));
            chosen
                .map(|(id, record)| (*id, record.clone(), wanted.of(state, *id, record)))
                .collect()
        })
    }

    /// Everything known about one of them.
    pub(super) fn view<'a>(&self, (id, record, wanted_hash): &'a Known) -> HostView<'a> {
        HostView {
            id: *id,
            record,
            session: self.sessions.get(*id),
            wanted_hash: *wanted_hash,
            findings_open: self.findings.open_count(*id),
        }
    }

    fn host_info(&self, id: HostId) -> Result<v1::HostInfo, Status> {
        let known = self.ledger.read(|state| {
            let record = state.hosts.get(&id)?;
            Some((
                id,
                record.clone(),
                WantedHashes::default().of(state, id, record),
            ))
        });
        let known = known.ok_or_else(|| not_found(format!("there is no host {id}")))?;
        Ok(self.view(&known).info(self.moment()))
    }
}

/// Why a host gets what it gets.
fn sources_of(state: &LedgerState, id: HostId) -> Vec<v1::PolicySource> {
    let Some(host) = state.hosts.get(&id) else {
        return Vec::new();
    };
    let source = |(policy, revision): (&PolicyHistory, &PolicyRevision)| v1::PolicySource {
        name: revision.document.name.clone(),
        revision: revision.document.revision,
        groups: policy
            .groups_of(id, host)
            .into_iter()
            .map(str::to_owned)
            .collect(),
        rules: revision.rules,
        rolling_out: policy.is_rolling_out(revision.document.revision),
    };
    policies_for(state, id, host)
        .into_iter()
        .map(source)
        .collect()
}

fn refuse_revoked(state: &LedgerState, id: HostId) -> Result<(), Status> {
    match state.hosts.get(&id) {
        Some(host) if !host.revoked => Ok(()),
        Some(_) => Err(not_now(format!(
            "host {id} is revoked already; enrol it anew to use it"
        ))),
        None => Err(not_found(format!("there is no host {id}"))),
    }
}
