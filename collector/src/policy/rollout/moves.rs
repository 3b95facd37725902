//! The moves of a roll-out as entries of the ledger: started, paused, resumed,
//! aborted by an operator; the rest by the collector.

use procwarden_common::clock::UnixMillis;
use procwarden_common::id::HostId;
use procwarden_proto::v1;
use procwarden_proto::v1::ledger_record::Entry;

use super::{Facts, Phase, Plan, Rollout, limit_for, place_of};
use crate::ledger::LedgerState;
use crate::ledger::state::PolicyHistory;
use crate::policy::limits::check_fleet;
use crate::policy::{PolicyError, check_name, refuse_rollout};

/// Bytes of the reason of a move.
const REASON_BYTES_MAX: usize = 1024;

/// Hosts that run a policy; those that were shut out run nothing.
pub(crate) fn hosts_of(state: &LedgerState, policy: &PolicyHistory) -> Vec<HostId> {
    let hosts = state.hosts.iter();
    let covered = hosts.filter(|(id, host)| !host.revoked && policy.covers(**id, host));
    covered.map(|(id, _)| *id).collect()
}

/// Starts to bring a revision to the hosts of its policy.
pub(crate) fn start(
    state: &LedgerState,
    name: &str,
    revision: u64,
    plan: &Plan,
    now: UnixMillis,
    is_excused: impl Fn(HostId) -> bool,
) -> Result<Entry, PolicyError> {
    check_name("policy name", name)?;
    let policy = known(state, name)?;
    refuse_rollout(state, name)?;
    let wanted = policy
        .revision(revision)
        .ok_or_else(|| PolicyError::UnknownRevision {
            name: name.to_owned(),
            wanted: revision,
        })?;
    let running = policy.settled().map(|settled| settled.document.revision);
    if running == Some(revision) {
        return refuse(format!(
            "the hosts of policy {name} run revision {revision} already; publish the next one \
             with `procwarden policy set {name} FILE --staged`"
        ));
    }
    let hosts = hosts_of(state, policy);
    if hosts.is_empty() {
        return refuse(format!(
            "no host gets policy {name}, so there is nothing to roll out; assign it first, or \
             publish it without --staged"
        ));
    }
    check_fleet(state, &wanted.document)?;
    let percent = plan.steps.first().copied().unwrap_or(100);
    let place = |host| place_of(name, revision, now, host);
    Ok(Entry::RolloutStarted(v1::RolloutStarted {
        policy: name.to_owned(),
        revision,
        plan: Some(plan.into()),
        hosts: Some(chosen(&hosts, percent, 0, place, is_excused)),
    }))
}

/// The hosts of a step, for the entry that begins it.
pub(crate) fn hosts_of_step(
    state: &LedgerState,
    name: &str,
    rollout: &Rollout,
    step: usize,
    is_excused: impl Fn(HostId) -> bool,
) -> v1::RolloutHosts {
    let policy = state.policies.get(name);
    let hosts = policy.map(|policy| hosts_of(state, policy));
    let percent = rollout.plan.steps.get(step).copied().unwrap_or(100);
    let place = |host| super::place(name, rollout, host);
    // Those that were reached before are known.
    let newly_excused = |host| !rollout.reaches(name, host) && is_excused(host);
    chosen(
        &hosts.unwrap_or_default(),
        percent,
        rollout.limit,
        place,
        newly_excused,
    )
}

fn chosen(
    hosts: &[HostId],
    percent: u8,
    before: u64,
    place: impl Fn(HostId) -> u64,
    is_excused: impl Fn(HostId) -> bool,
) -> v1::RolloutHosts {
    let places = hosts.iter().map(|&host| place(host)).collect();
    let limit = limit_for(percent, places, before);
    let reached = hosts.iter().filter(|&&host| place(host) <= limit);
    let excused = reached.filter(|&&host| is_excused(host));
    v1::RolloutHosts {
        limit,
        excused: excused.map(id_bytes).collect(),
    }
}

fn id_bytes(host: &HostId) -> bytes::Bytes {
    host.as_bytes().to_vec().into()
}

/// What an operator may do with the roll-out of a policy. Who resumes one
/// accepts that the hosts which are excused by then stay as they are.
pub(crate) fn move_by_operator(
    state: &LedgerState,
    name: &str,
    wanted: v1::RolloutMove,
    reason: &str,
    is_excused: impl Fn(HostId) -> bool,
) -> Result<Entry, PolicyError> {
    use v1::RolloutMove::{Abort, Pause, Resume};
    check_name("policy name", name)?;
    if reason.len() > REASON_BYTES_MAX {
        let sentence = format!("a reason has at most {REASON_BYTES_MAX} bytes");
        return Err(PolicyError::Limit(sentence));
    }
    let policy = known(state, name)?;
    let Some(rollout) = &policy.rollout else {
        return refuse(format!("policy {name} was never rolled out step by step"));
    };
    let fits = match wanted {
        Pause => rollout.phase == Phase::Running,
        Resume => matches!(rollout.phase, Phase::Paused | Phase::Held),
        Abort => rollout.is_open(),
        _ => false,
    };
    if !fits {
        return refuse(format!(
            "the roll-out of policy {name} to revision {} is {}, so it cannot be {}",
            rollout.revision,
            phase_word(rollout.phase),
            match wanted {
                Pause => "paused",
                Resume => "resumed",
                _ => "aborted",
            }
        ));
    }
    let accepted = || {
        let reached = hosts_of(state, policy).into_iter();
        let excused = reached.filter(|host| rollout.reaches(name, *host) && is_excused(*host));
        v1::RolloutHosts {
            limit: rollout.limit,
            excused: excused.map(|host| id_bytes(&host)).collect(),
        }
    };
    Ok(Entry::RolloutMoved(v1::RolloutMoved {
        policy: name.to_owned(),
        revision: rollout.revision,
        r#move: wanted.into(),
        reason: reason.to_owned(),
        hosts: (wanted == Resume).then(accepted),
    }))
}

/// Counts what the hosts say; `tell` adds what one that was reached says.
pub(crate) fn facts_of_hosts(
    state: &LedgerState,
    name: &str,
    mut tell: impl FnMut(HostId, &mut Facts),
) -> Option<Facts> {
    let policy = state.policies.get(name)?;
    let rollout = policy.rollout.as_ref()?;
    let mut facts = Facts::default();
    for host in hosts_of(state, policy) {
        facts.hosts = facts.hosts.saturating_add(1);
        if rollout.reaches(name, host) {
            facts.reached = facts.reached.saturating_add(1);
            tell(host, &mut facts);
        }
    }
    Some(facts)
}

const fn phase_word(phase: Phase) -> &'static str {
    match phase {
        Phase::Running => "running",
        Phase::Paused => "paused",
        Phase::Held => "stopped, held",
        Phase::Reverted => "stopped, reverted",
        Phase::Aborted => "aborted",
        Phase::Finished => "finished",
    }
}

fn known<'a>(state: &'a LedgerState, name: &str) -> Result<&'a PolicyHistory, PolicyError> {
    let unknown = || PolicyError::Unknown(name.to_owned());
    state.policies.get(name).ok_or_else(unknown)
}

fn refuse<T>(sentence: String) -> Result<T, PolicyError> {
    Err(PolicyError::NotNow(sentence))
}
