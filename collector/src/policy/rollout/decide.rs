//! What comes next in a roll-out. Pure.

use procwarden_common::clock::UnixMillis;
use procwarden_common::severity::Severity;

use super::{Phase, Rollout};

/// What the hosts say that a roll-out has reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Facts {
    /// Hosts of the policy, reached or not.
    pub(crate) hosts: u32,
    pub(crate) reached: u32,
    pub(crate) applied: u32,
    /// Reached, not heard to have applied or refused it, and not silent.
    pub(crate) pending: Seen,
    /// Of those that applied it: who has not told yet what it ignores there.
    pub(crate) unjudged: Seen,
    pub(crate) refused: Seen,
    /// Silent by now, and not yet when they were reached.
    pub(crate) silent: Seen,
    /// The most severe process that a rule new in the revision ignored.
    pub(crate) ignored: Option<Ignored>,
}

/// How many hosts, and one of them in words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Seen {
    pub(crate) hosts: u32,
    pub(crate) example: String,
}

impl Seen {
    /// One more; the first one is the example.
    pub(crate) fn add(&mut self, words: impl FnOnce() -> String) {
        if self.hosts == 0 {
            self.example = words();
        }
        self.hosts = self.hosts.saturating_add(1);
    }
}

/// A process that was reported under the former revision and is ignored now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ignored {
    pub(crate) severity: Severity,
    /// Rule and host.
    pub(crate) example: String,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub(crate) enum Decision {
    /// Nothing yet, and what is waited for besides time.
    Wait(Option<String>),
    /// Go to the next step.
    Advance,
    /// Every host runs it, and has for the time of a step.
    Finish,
    /// Stop, and why.
    Stop(String),
}

/// What comes next. A reason to stop comes before everything else; then a step
/// lasts its time, and until every host that was reached has answered.
pub(crate) fn decide(rollout: &Rollout, now: UnixMillis, facts: &Facts) -> Decision {
    if rollout.phase != Phase::Running {
        return Decision::Wait(None);
    }
    if let Some(why) = reason_to_stop(rollout, facts) {
        return Decision::Stop(why);
    }
    if now.millis_since(rollout.step_since) < rollout.plan.every_millis {
        return Decision::Wait(None);
    }
    if facts.pending.hosts > 0 {
        let (hosts, example) = (facts.pending.hosts, &facts.pending.example);
        return Decision::Wait(Some(format!(
            "{hosts} host(s) have not applied it yet: {example}"
        )));
    }
    if facts.applied == 0 {
        return Decision::Wait(Some("no host runs it yet".into()));
    }
    if facts.unjudged.hosts > 0 {
        let (hosts, example) = (facts.unjudged.hosts, &facts.unjudged.example);
        return Decision::Wait(Some(format!(
            "{hosts} host(s) have not scanned twice with it and told what it ignores: {example}"
        )));
    }
    if rollout.step + 1 < rollout.plan.steps.len() {
        Decision::Advance
    } else {
        Decision::Finish
    }
}

fn reason_to_stop(rollout: &Rollout, facts: &Facts) -> Option<String> {
    let plan = &rollout.plan;
    let too_many = |threshold: Option<super::Threshold>, seen: &Seen| {
        threshold.is_some_and(|threshold| threshold.is_met(seen.hosts, facts.reached))
    };
    if too_many(plan.refused, &facts.refused) {
        let (hosts, example) = (facts.refused.hosts, &facts.refused.example);
        return Some(format!("{hosts} host(s) refuse it: {example}"));
    }
    if let (Some(least), Some(ignored)) = (plan.severity, &facts.ignored)
        && ignored.severity >= least
    {
        let (severity, example) = (ignored.severity, &ignored.example);
        return Some(format!("it ignores what was {severity}: {example}"));
    }
    if too_many(plan.silent, &facts.silent) {
        let (hosts, example) = (facts.silent.hosts, &facts.silent.example);
        return Some(format!("{hosts} host(s) went silent with it: {example}"));
    }
    None
}
