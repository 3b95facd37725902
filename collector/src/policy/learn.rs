//! Learn mode: what was found on the hosts of a group becomes a pignore file
//! for a person to edit.
//!
//! Pure. Promises: only executables by their whole path; never an interpreter,
//! a place where accounts can write, a deleted executable, a command line or an
//! account, and nothing critical. Whatever is not proposed is named with the
//! reason. Memory and text are bounded.

use std::collections::{BTreeMap, BTreeSet};

use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::{StoredFinding, Subject};
use procwarden_common::id::HostId;
use procwarden_common::policy::suggest::propose;
use procwarden_common::policy::{
    EffectivePolicy, Policy, PolicyDocument, PolicyFile, Rule, RuleKey, RuleText, Verdict, judge,
};
use procwarden_common::severity::Severity;

mod programs;
#[cfg(test)]
mod tests;
mod text;
use programs::Programs;
use text::{Text, head};

/// Accounts and indicators that are named for one program.
const NAMED_MAX: usize = 5;

/// Bytes of a path.
const PATH_BYTES_MAX: usize = 4 * 1024;

/// What findings are counted under that are about no process.
const ACCOUNT: &str = "(an account over a limit)";
const HOST: &str = "(the host itself, such as its load average)";

/// Presets, each with its rules: who needs many of them takes it whole.
const PRESETS: &[(&str, &str)] = &[
    (
        "apache",
        include_str!("../../../deploy/policies/apache.pignore"),
    ),
    (
        "base-almalinux",
        include_str!("../../../deploy/policies/base-almalinux.pignore"),
    ),
    (
        "base-debian",
        include_str!("../../../deploy/policies/base-debian.pignore"),
    ),
    (
        "cpanel",
        include_str!("../../../deploy/policies/cpanel.pignore"),
    ),
    (
        "databases",
        include_str!("../../../deploy/policies/databases.pignore"),
    ),
    (
        "directadmin",
        include_str!("../../../deploy/policies/directadmin.pignore"),
    ),
    ("dns", include_str!("../../../deploy/policies/dns.pignore")),
    ("ftp", include_str!("../../../deploy/policies/ftp.pignore")),
    (
        "litespeed",
        include_str!("../../../deploy/policies/litespeed.pignore"),
    ),
    (
        "mail",
        include_str!("../../../deploy/policies/mail.pignore"),
    ),
    (
        "monitoring",
        include_str!("../../../deploy/policies/monitoring.pignore"),
    ),
    (
        "nginx",
        include_str!("../../../deploy/policies/nginx.pignore"),
    ),
    (
        "php-fpm",
        include_str!("../../../deploy/policies/php-fpm.pignore"),
    ),
    (
        "plesk",
        include_str!("../../../deploy/policies/plesk.pignore"),
    ),
    (
        "proxy",
        include_str!("../../../deploy/policies/proxy.pignore"),
    ),
];

/// A time during which the hosts of a group are learned from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Learning {
    pub(crate) since: UnixMillis,
    /// When it ends by itself, or was ended.
    pub(crate) until: UnixMillis,
    pub(crate) started_by: String,
    /// Who ended it before its time.
    pub(crate) ended_by: Option<String>,
}

impl Learning {
    /// Whether this time is within.
    pub(crate) fn covers(&self, at: UnixMillis) -> bool {
        self.since <= at && at < self.until
    }
}

/// Severity from which alerts are sent while a host is learned from.
pub(crate) const ALERTS_FROM: Severity = Severity::High;

/// What is proposed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proposed {
    /// A pignore file.
    pub(crate) text: String,
    pub(crate) rules: u64,
    /// Programs that a person has to look at.
    pub(crate) left_out: u64,
}

/// Gathers findings, one by one.
#[derive(Debug, Default)]
pub(crate) struct Learner {
    programs: Programs,
}

/// One executable, or what stands for it.
#[derive(Debug)]
struct Program {
    /// The line; or why there is none.
    rule: Result<String, String>,
    findings: u64,
    hosts: BTreeSet<HostId>,
    /// None of a finding about the host itself.
    accounts: BTreeSet<String>,
    indicators: BTreeMap<String, u64>,
    severity: Severity,
    last_seen: UnixMillis,
}

impl Learner {
    /// Takes one finding in.
    pub(crate) fn add(&mut self, stored: &StoredFinding) {
        let (name, rule) = rule_of(stored);
        self.programs.add(stored, name, rule);
    }

    /// The file, with its head.
    pub(crate) fn finish(self, group: &str, learning: &Learning, now: UnixMillis) -> Proposed {
        let presets: Vec<(&str, Policy)> = PRESETS.iter().filter_map(compiled).collect();
        let turned_away = self.programs.turned_away();
        let mut programs: Vec<(String, Program)> = self.programs.into_programs().collect();
        programs.sort_by(|(a, one), (b, other)| other.weight().cmp(&one.weight()).then(a.cmp(b)));
        let (good, doubtful): (Vec<_>, Vec<_>) = programs
            .iter()
            .partition(|(_, program)| program.rule.is_ok());
        let mut text = Text::new(head(group, learning, now));
        for (name, program) in good {
            let preset = presets.iter().find(|(_, policy)| covers(policy, name, now));
            text.propose(program, preset.map(|(preset, _)| *preset));
        }
        for (name, program) in doubtful {
            text.leave_out(name, program);
        }
        text.finish(turned_away)
    }
}

impl Program {
    fn new(rule: Result<String, String>) -> Self {
        Self {
            rule,
            findings: 0,
            hosts: BTreeSet::new(),
            accounts: BTreeSet::new(),
            indicators: BTreeMap::new(),
            severity: Severity::Info,
            last_seen: UnixMillis(0),
        }
    }

    /// What was found on most hosts comes first.
    fn weight(&self) -> (usize, u64) {
        (self.hosts.len(), self.findings)
    }

    fn add(&mut self, stored: &StoredFinding) {
        let finding = &stored.finding;
        self.findings += 1;
        self.hosts.insert(stored.host_id);
        let is_of_account = !matches!(finding.subject, Subject::Host { .. });
        if is_of_account && self.accounts.len() <= NAMED_MAX {
            self.accounts.insert(RuleText::of_finding(finding).user);
        }
        let ids: BTreeSet<String> = finding
            .indicators
            .iter()
            .map(|i| i.id.to_string())
            .collect();
        for id in ids {
            if self.indicators.contains_key(&id) || self.indicators.len() <= NAMED_MAX {
                *self.indicators.entry(id).or_default() += 1;
            }
        }
        self.severity = self.severity.max(finding.severity());
        self.last_seen = self.last_seen.max(stored.last_seen);
    }
}

/// What a finding is counted under, and the rule for it or why there is none.
fn rule_of(stored: &StoredFinding) -> (String, Result<String, String>) {
    let finding = &stored.finding;
    let text = RuleText::of_finding(finding);
    let Some(exe) = text.exe.filter(|exe| !exe.is_empty()) else {
        let (what, why) = match finding.subject {
            Subject::Process(_) => (
                "(an executable that could not be read)",
                "it has no path to go by",
            ),
            Subject::Account { .. } => (ACCOUNT, "it is no program and has no path to go by"),
            Subject::Host { .. } => (
                HOST,
                "no rule covers a host; a limit that is too low is set higher",
            ),
        };
        return (what.into(), Err(why.into()));
    };
    if exe.len() > PATH_BYTES_MAX {
        let why = "its path is too long to be looked at";
        return ("(a very long path)".into(), Err(why.into()));
    }
    let rule = match propose(finding, Some(RuleKey::Exe)) {
        Err(_) => Err("its path was not read in full, or is empty or too long".into()),
        Ok(_) if finding.severity() == Severity::Critical => {
            Err("something critical was found about it".into())
        }
        Ok(proposal) => match proposal.objections.first() {
            Some(objection) => Err(objection.sentence.clone()),
            None if proposal.rule.line.starts_with("exe:") => Ok(proposal.rule.line),
            None => Err("its path begins or ends with white space".into()),
        },
    };
    (exe, rule)
}

fn compiled(&(name, text): &(&'static str, &str)) -> Option<(&'static str, Policy)> {
    let file = PolicyFile {
        path: name.to_owned(),
        content: text.as_bytes().to_vec(),
    };
    let document = PolicyDocument {
        name: name.to_owned(),
        revision: 0,
        files: vec![file],
        settings: String::new(),
    };
    let effective = EffectivePolicy {
        documents: vec![document],
    };
    let (policy, _) = Policy::compile(&effective).ok()?;
    Some((name, policy))
}

fn covers(preset: &Policy, exe: &str, now: UnixMillis) -> bool {
    let text = RuleText {
        user: String::new(),
        exe: Some(exe.to_owned()),
        cmd: None,
    };
    let is_by_path = |rule: &Rule| matches!(rule.key, RuleKey::Exe | RuleKey::Pexe);
    matches!(judge(preset, &text, now), Verdict::Ignored(rule) if is_by_path(&rule))
}
