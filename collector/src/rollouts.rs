//! Moves roll-outs on: every second it asks of each open one what its hosts
//! say and what comes next, and writes that to the ledger.
//!
//! Promises: nothing is decided here; a decision that the ledger does not hold
//! was not made. Survives a restart, because the ledger is all that it knows.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use procwarden_common::clock::UnixMillis;
use procwarden_common::id::HostId;
use procwarden_common::policy::{Rule, RuleId};
use procwarden_common::printable::{printable, printable_text};
use procwarden_proto::v1;
use procwarden_proto::v1::ledger_record::Entry;
use tokio::sync::watch;

use crate::clock;
use crate::config::Config;
use crate::hosts::{HostView, Moment, WantedHashes};
use crate::ledger::{CommitError, Ledger, LedgerState};
use crate::policy::PolicyError;
use crate::policy::rollout::{
    Decision, Facts, Ignored, Phase, Rollout, decide, facts_of_hosts, hosts_of, hosts_of_step,
};
use crate::sessions::{SessionInfo, Sessions};

mod baseline;
mod evidence;
mod new_rules;
mod notice;

use evidence::Evidence;
use new_rules::NewRules;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// What hosts say happened is told by their own clocks.
const CLOCKS_DIFFER_MILLIS: i64 = 5 * 60 * 1000;

/// The actor of the moves in the ledger.
const ACTOR: &str = "collector";

/// What the hosts are asked through.
#[derive(Clone)]
pub(crate) struct Rollouts {
    ledger: Ledger,
    sessions: Sessions,
    started_at: UnixMillis,
    /// Roll-outs that were begun or resumed before this collector was started.
    from_before: Arc<HashSet<Since>>,
    /// What is known of the roll-outs that run.
    new_rules: NewRules,
}

/// Starts to move roll-outs on, and to mail why one stopped.
pub(crate) fn start(
    rollouts: Rollouts,
    config: Arc<ArcSwap<Config>>,
    shutdown: &watch::Receiver<bool>,
) {
    let ledger = rollouts.ledger.clone();
    tokio::spawn(notice::run(ledger, config, shutdown.clone()));
    tokio::spawn(run(rollouts, shutdown.clone()));
}

/// Works until `shutdown` becomes true.
async fn run(rollouts: Rollouts, mut shutdown: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        let running = rollouts.running();
        rollouts.new_rules.retain(&running);
        for name in running {
            if let Err(error) = rollouts.move_on(&name, clock::now()).await {
                tracing::error!(policy = %name, %error, "A roll-out could not be moved on.");
            }
        }
    }
}

impl Rollouts {
    /// Hosts may be silent since this start of the collector only.
    pub(crate) fn new(ledger: Ledger, sessions: Sessions, started_at: UnixMillis) -> Self {
        let from_before = ledger.read(|state| {
            let rollouts = state.policies.iter();
            let rollouts = rollouts.filter_map(|(name, p)| Some((name, p.rollout.as_ref()?)));
            rollouts
                .map(|(name, rollout)| since_of(name, rollout))
                .collect()
        });
        Self {
            ledger,
            sessions,
            started_at,
            from_before: Arc::new(from_before),
            new_rules: NewRules::default(),
        }
    }

    fn running(&self) -> Vec<String> {
        let is_running = |rollout: &Rollout| rollout.phase == Phase::Running;
        self.ledger.read(|state| {
            let policies = state.policies.iter();
            let running = policies.filter(|(_, p)| p.rollout.as_ref().is_some_and(is_running));
            running.map(|(name, _)| name.clone()).collect()
        })
    }

    async fn move_on(&self, name: &str, now: UnixMillis) -> Result<(), PolicyError> {
        let this = self.clone();
        let policy = name.to_owned();
        // Reading and hashing what hosts should run takes a while for long
        // policies.
        let facts = tokio::task::spawn_blocking(move || this.facts(&policy, now));
        let facts = facts.await;
        let facts = facts.map_err(|error| PolicyError::Stopped(error.to_string()))?;
        let Some((seen, facts)) = facts else {
            return Ok(());
        };
        if self.keep_baseline(name, &seen, now).await? {
            // The next look finds it there.
            return Ok(());
        }
        let decision = decide(&seen, now, &facts);
        if matches!(decision, Decision::Wait(_)) {
            return Ok(());
        }
        let heard = self.hear(name, now);
        let commit = self.ledger.commit(now, ACTOR, |state| {
            entry(state, name, &seen, &decision, &heard)
        });
        match commit.await {
            Ok(()) => {
                tell(name, &seen, &decision);
                Ok(())
            }
            // An operator was faster: there is another look in a second.
            Err(CommitError::Refused(PolicyError::Raced(_))) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A roll-out as it is, and what its hosts say.
    pub(crate) fn facts(&self, name: &str, now: UnixMillis) -> Option<(Rollout, Facts)> {
        let heard = self.hear(name, now);
        let (rollout, mut facts) = self.ledger.read(|state| {
            let rollout = state.policies.get(name)?.rollout.clone()?;
            let mut wanted = WantedHashes::default();
            let facts = facts_of_hosts(state, name, |host, facts| {
                add(state, &rollout, (host, &heard), &mut wanted, facts);
            })?;
            Some((rollout, facts))
        })?;
        facts.ignored = self.newly_ignored(name, &rollout);
        Some((rollout, facts))
    }

    /// What the sessions of a policy's hosts say. They have a lock of their
    /// own, which is never taken inside the ledger's.
    pub(crate) fn hear(&self, name: &str, now: UnixMillis) -> Heard {
        let (hosts, revision) = self.ledger.read(|state| {
            let policy = state.policies.get(name);
            let rollout = policy.and_then(|policy| policy.rollout.as_ref());
            let hosts = policy.map(|policy| hosts_of(state, policy));
            (
                hosts.unwrap_or_default(),
                rollout.map_or(0, |rollout| rollout.revision),
            )
        });
        let session = |host: HostId| Some((host, self.sessions.get(host)?));
        let judged = self.sessions.judged_under(name, revision);
        Heard {
            judged,
            sessions: hosts.into_iter().filter_map(session).collect(),
            at: Moment {
                now,
                collector_started_at: self.started_at,
            },
        }
    }

    /// The worst of what rules that are new in the revision ignored and nothing
    /// else would have, on the hosts that it has reached.
    fn newly_ignored(&self, name: &str, rollout: &Rollout) -> Option<Ignored> {
        rollout.plan.severity?;
        let names = self.ledger.read(|state| {
            let policy = state.policies.get(name)?;
            let reached = hosts_of(state, policy).into_iter();
            let reached = reached.filter(|host| rollout.reaches(name, *host));
            let name_of = |host| Some((host, state.hosts.get(&host)?.name.clone()));
            Some(reached.filter_map(name_of).collect::<HashMap<_, _>>())
        })?;
        let (since, margin) = evidence_since(rollout);
        let look = |rules: &[Arc<Rule>], evidence: &mut Evidence| {
            let ids: HashSet<RuleId> = rules.iter().map(|rule| rule.id()).collect();
            let is_reached = |host| names.contains_key(&host);
            let hits = self.sessions.rule_hits();
            if evidence.begins(since) {
                let known = || hits.by_host(&ids, |_| true, |_, _, _| false);
                evidence.begin(since, self.baseline(name, rollout, known));
            }
            evidence.judge_by(&self.ledger);
            let is_known = |rule, host, mark| evidence.is_known(rule, host, mark);
            let news = hits.by_host(&ids, is_reached, is_known);
            evidence.add(&self.ledger, name, news, margin);
            let (severity, rule, host) = evidence.worst()?;
            let rule = rules.iter().find(|known| known.id() == rule)?.to_string();
            let host = names.get(&host).map_or("", String::as_str);
            let (rule, host) = (printable_text(&rule), printable(host.as_bytes()));
            let example = format!("{rule} on {host}");
            Some(Ignored { severity, example })
        };
        self.new_rules
            .with(&self.ledger, name, rollout.revision, look)
    }
}

/// What sessions said at one moment.
pub(crate) struct Heard {
    sessions: HashMap<HostId, SessionInfo>,
    /// Who has scanned under the revision that is rolled out, and told all that
    /// its rules ignored.
    judged: HashSet<HostId>,
    at: Moment,
}

impl Heard {
    /// Whether a host has not been heard of for long or at all, or runs an older
    /// policy because it refuses the one that it was sent.
    pub(crate) fn is_excused(&self, state: &LedgerState, host: HostId) -> bool {
        let session = self.sessions.get(&host);
        let refuses = session.is_none_or(|session| !session.policy.refused_hash.is_empty());
        let view = self.view(state, host, [0; 32]);
        refuses || view.is_some_and(|view| view.state(self.at) == v1::HostState::Silent)
    }

    fn view<'a>(
        &self,
        state: &'a LedgerState,
        id: HostId,
        wanted_hash: [u8; 32],
    ) -> Option<HostView<'a>> {
        Some(HostView {
            id,
            record: state.hosts.get(&id)?,
            session: self.sessions.get(&id).cloned(),
            wanted_hash,
            findings_open: 0,
        })
    }
}

/// Adds what one host says that the roll-out has reached.
fn add(
    state: &LedgerState,
    rollout: &Rollout,
    (host, heard): (HostId, &Heard),
    wanted: &mut WantedHashes,
    facts: &mut Facts,
) {
    use v1::PolicyHostState::{Applied, Pending, Refused, Silent, Unspecified};
    let Some(record) = state.hosts.get(&host) else {
        return;
    };
    let Some(view) = heard.view(state, host, wanted.of(state, host, record)) else {
        return;
    };
    let name = printable(record.name.as_bytes());
    match view.policy_state(heard.at) {
        (Applied, _) => {
            facts.applied = facts.applied.saturating_add(1);
            if !heard.judged.contains(&host) {
                facts.unjudged.add(|| name);
            }
        }
        (Refused | Silent, _) if rollout.excused.contains(&host) => {}
        (Refused, why) => {
            let why = printable(why.as_bytes());
            facts.refused.add(|| format!("{name}: {why}"));
        }
        // It cannot have gone silent with what it never got.
        (Silent, _) if view.heard().is_none_or(|heard| heard < rollout.started_at) => {
            facts
                .pending
                .add(|| format!("{name}, not heard of since the start"));
        }
        (Silent, _) => facts.silent.add(|| name),
        (Pending | Unspecified, why) if why.is_empty() => facts.pending.add(|| name),
        (Pending | Unspecified, why) => facts.pending.add(|| format!("{name}, {why}")),
    }
}

/// The entry of a decision about a roll-out as it was `seen`.
fn entry(
    state: &LedgerState,
    name: &str,
    seen: &Rollout,
    decision: &Decision,
    heard: &Heard,
) -> Result<Entry, PolicyError> {
    let raced = || PolicyError::Raced(name.to_owned());
    let current = state.policies.get(name).and_then(|p| p.rollout.as_ref());
    if current != Some(seen) {
        return Err(raced());
    }
    let (wanted, reason) = match decision {
        Decision::Wait(_) => return Err(raced()),
        Decision::Advance => (v1::RolloutMove::Advance, String::new()),
        Decision::Finish => (v1::RolloutMove::Finish, String::new()),
        Decision::Stop(why) => (v1::RolloutMove::Stop, why.clone()),
    };
    let is_excused = |host| heard.is_excused(state, host);
    let hosts = (*decision == Decision::Advance)
        .then(|| hosts_of_step(state, name, seen, seen.step + 1, is_excused));
    Ok(Entry::RolloutMoved(v1::RolloutMoved {
        policy: name.to_owned(),
        revision: seen.revision,
        r#move: wanted.into(),
        reason,
        hosts,
    }))
}

/// A start or a resumption: policy, revision and time.
type Since = (String, u64, UnixMillis);

fn since_of(name: &str, rollout: &Rollout) -> Since {
    (name.to_owned(), rollout.revision, evidence_since(rollout).0)
}

/// Since when what rules ignored speaks against a roll-out: since its start, or
/// since somebody resumed it, who accepted what was seen until then. And the
/// time before which a host that nothing was known of then ignored nothing that
/// counts, by its clock.
fn evidence_since(rollout: &Rollout) -> (UnixMillis, UnixMillis) {
    let resumed = rollout.moved.as_ref();
    let resumed = resumed.filter(|_| rollout.phase == Phase::Running);
    let since = resumed.map_or(rollout.started_at, |resumed| resumed.at);
    (since, since.plus_millis(-CLOCKS_DIFFER_MILLIS))
}

fn tell(policy: &str, rollout: &Rollout, decision: &Decision) {
    let revision = rollout.revision;
    match decision {
        Decision::Wait(_) => {}
        Decision::Advance => tracing::info!(policy, revision, "A roll-out goes on."),
        Decision::Finish => tracing::info!(policy, revision, "A roll-out is finished."),
        Decision::Stop(why) => {
            tracing::warn!(policy, revision, reason = %why, "A roll-out stopped by itself.");
        }
    }
}

#[cfg(test)]
mod tests;
