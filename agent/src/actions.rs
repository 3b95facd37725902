//! What this host does about its findings: scripts and kills, off by default,
//! asked for by the host's own agent.toml and by nothing else.
//!
//! Promises: only what is reported is acted upon, so a rule protects what it
//! covers; each script runs once per finding, over restarts too; a process is
//! signalled once; every action (done, refused and why, failed) is a record of
//! the finding and a line of the log. Never acts on a PID alone (kill.rs),
//! never holds up the scan for a script (runner.rs).

use std::collections::{BTreeMap, HashSet};

use procwarden_common::finding::{ActionRecord, Finding, Subject};
use procwarden_common::policy::Verdict;
use procwarden_common::process::ProcessKey;
use procwarden_common::wire::Change;

use crate::clock;
use crate::procfs::ProcRoot;
use crate::reported::Reported;
use crate::scan::Suspect;
use crate::spool::SharedSpool;

pub(crate) mod config;
mod kill;
mod plan;
mod runner;
mod script;

use config::ActionsConfig;
use kill::{Decision, Outcome, Reason};
use plan::Wanted;
use runner::{Run, Runner};

/// Processes of one finding that are signalled in one scan.
const KILLS_MAX: usize = 10_000;

/// Acts for one agent.
pub(crate) struct Actions {
    config: ActionsConfig,
    /// Nothing when the configuration names no script.
    runner: Option<Runner>,
    /// Processes that were sent SIGKILL and were still there afterwards.
    signalled: HashSet<ProcessKey>,
}

/// What is to be done about the findings of one scan, by subject.
#[derive(Default)]
pub(crate) struct Tasks(BTreeMap<Subject, Task>);

struct Task {
    members: Vec<ProcessKey>,
    kills: Vec<(&'static str, Reason)>,
    scripts: Vec<&'static str>,
}

impl Actions {
    /// Starts what scripts need.
    pub(crate) fn start(config: ActionsConfig, spool: &SharedSpool) -> std::io::Result<Self> {
        let runner = config.has_scripts().then(|| Runner::start(spool));
        Ok(Self {
            config,
            runner: runner.transpose()?,
            signalled: HashSet::new(),
        })
    }

    /// Finds what is to be done about the suspects of a scan. A finding that
    /// was reported before gets a change of its own, for the record.
    pub(crate) fn plan(
        &mut self,
        root: &ProcRoot,
        suspects: &[Suspect],
        reported: &Reported,
        changes: &mut Vec<Change>,
    ) -> Tasks {
        let mut tasks = Tasks::default();
        if self.config == ActionsConfig::default() {
            return tasks;
        }
        for suspect in suspects.iter().filter(|s| s.verdict == Verdict::Report) {
            let subject = reported.running_episode(suspect.bare.subject);
            let Some(task) = self.task(root, subject, suspect, reported) else {
                continue;
            };
            tasks.0.insert(subject, task);
            let is_said = changes.iter().any(
                |change| matches!(change, Change::Reported(finding) if finding.subject == subject),
            );
            if !is_said {
                let mut finding = suspect.finding();
                finding.subject = subject;
                changes.push(Change::Reported(Box::new(finding)));
            }
        }
        tasks
    }

    fn task(
        &self,
        root: &ProcRoot,
        subject: Subject,
        suspect: &Suspect,
        reported: &Reported,
    ) -> Option<Task> {
        let mut members: Vec<ProcessKey> = match subject {
            Subject::Process(key) => vec![key],
            Subject::Account { .. } | Subject::Host { .. } => suspect.members.clone(),
        };
        members.retain(|key| !self.signalled.contains(key));
        let (mut kills, mut scripts) = (Vec::new(), Vec::new());
        for wanted in plan::wanted(&self.config, &suspect.bare, &members) {
            let what = wanted.what();
            let is_new = !reported.has_acted(&subject, what);
            match wanted {
                Wanted::Kill { reason, .. } if is_new => kills.push((what, reason)),
                // Refused before; now there may be others.
                Wanted::Kill { reason, .. } if self.would_kill(root, &members, reason) => {
                    kills.push((what, reason));
                }
                Wanted::Script { .. } if is_new => scripts.push(what),
                Wanted::Kill { .. } | Wanted::Script { .. } => {}
            }
        }
        (!kills.is_empty() || !scripts.is_empty()).then_some(Task {
            members,
            kills,
            scripts,
        })
    }

    fn would_kill(&self, root: &ProcRoot, members: &[ProcessKey], reason: Reason) -> bool {
        members.iter().any(|key| {
            kill::facts(root, key.pid).is_ok_and(|facts| {
                kill::decide(&facts, key.start_time, reason, &self.config.kill_root)
                    == Decision::Kill
            })
        })
    }

    /// Kills what the tasks name for this finding, once its evidence is
    /// gathered and before it is spooled: the records go with the report.
    pub(crate) fn kill(
        &mut self,
        root: &ProcRoot,
        tasks: &Tasks,
        reported: &mut Reported,
        finding: &mut Finding,
    ) {
        let Some(task) = tasks.0.get(&finding.subject) else {
            return;
        };
        for &(what, reason) in &task.kills {
            let tally = self.kill_all(root, &task.members, reason);
            let record = ActionRecord::new(clock::now(), what, &tally.words());
            let subject = finding.subject;
            tracing::warn!(
                ?subject,
                action = what,
                result = record.result,
                "A finding was acted upon."
            );
            finding.actions.push(record);
            finding.quiet |= tally.killed > 0 && !self.config.alert_on_kill;
            reported.note_action(subject, what);
        }
    }

    fn kill_all(&mut self, root: &ProcRoot, members: &[ProcessKey], reason: Reason) -> Tally {
        let mut tally = Tally::default();
        for key in members.iter().take(KILLS_MAX) {
            tracing::info!(
                pid = key.pid,
                start_time = key.start_time,
                ?reason,
                "A process is to be killed."
            );
            let outcome = kill::kill(root, *key, reason, &self.config.kill_root);
            if outcome == Outcome::Killed {
                self.signalled.insert(*key);
            }
            tally.add(outcome);
        }
        tally
    }

    /// Starts the scripts of findings that are spooled.
    pub(crate) fn run_scripts(&self, tasks: &Tasks, reported: &mut Reported, changes: &[Change]) {
        for change in changes {
            let Change::Reported(finding) = change else {
                continue;
            };
            let Some(task) = tasks.0.get(&finding.subject) else {
                continue;
            };
            for &what in &task.scripts {
                self.run_script(what, finding, &task.members);
                reported.note_action(finding.subject, what);
            }
        }
    }

    /// Starts one script for a finding.
    pub(crate) fn run_script(&self, what: &'static str, finding: &Finding, members: &[ProcessKey]) {
        let Some(runner) = &self.runner else { return };
        for wanted in plan::wanted(&self.config, finding, members) {
            if let Wanted::Script {
                path, arguments, ..
            } = &wanted
                && wanted.what() == what
            {
                runner.submit(Run {
                    what,
                    path: path.to_path_buf(),
                    arguments: arguments.clone(),
                    variables: plan::variables(what, finding, members),
                    timeout: self.config.script_timeout,
                    finding: Box::new(finding.clone()),
                });
            }
        }
    }

    /// Forgets what has ended.
    pub(crate) fn keep_alive(&mut self, alive: &HashSet<ProcessKey>) {
        self.signalled.retain(|key| alive.contains(key));
    }
}

/// What came of the processes of one finding.
#[derive(Debug, Default)]
struct Tally {
    killed: usize,
    gone: usize,
    refused: BTreeMap<&'static str, usize>,
    failed: BTreeMap<String, usize>,
}

impl Tally {
    fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Killed => self.killed += 1,
            Outcome::Gone => self.gone += 1,
            Outcome::Refused(why) => *self.refused.entry(why).or_default() += 1,
            Outcome::Failed(errno) => *self.failed.entry(errno.to_string()).or_default() += 1,
        }
    }

    /// `killed`, or `killed 3; refused 1: it is root's`.
    fn words(&self) -> String {
        let total = self.killed
            + self.gone
            + self.refused.values().sum::<usize>()
            + self.failed.values().sum::<usize>();
        let number = |count: usize| match total {
            1 => String::new(),
            _ => format!(" {count}"),
        };
        let mut parts = Vec::new();
        if self.killed > 0 {
            parts.push(format!("killed{}", number(self.killed)));
        }
        for (why, &count) in &self.refused {
            parts.push(format!("refused{}: {why}", number(count)));
        }
        for (why, &count) in &self.failed {
            parts.push(format!("failed{}: {why}", number(count)));
        }
        if self.gone > 0 {
            parts.push(format!("ended by itself{}", number(self.gone)));
        }
        if parts.is_empty() {
            return "nothing was left to kill".to_owned();
        }
        parts.join("; ")
    }
}

#[cfg(test)]
mod tests;
