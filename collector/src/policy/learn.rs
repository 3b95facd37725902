//! Learn mode: what was found on the hosts of a group becomes a pignore file
//! for a person to edit.
//!
//! Pure. Promises: only executables by their whole path; never an interpreter,
//! a place where accounts can write, a deleted executable, a command line or an
//! account, and nothing critical. Whatever is not proposed is named with the
//! reason. Memory and text are bounded.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::StoredFinding;
use procwarden_common::id::HostId;
use procwarden_common::policy::suggest::propose;
use procwarden_common::policy::{
    EffectivePolicy, Policy, PolicyDocument, PolicyFile, Rule, RuleKey, RuleText, Verdict, judge,
};
use procwarden_common::severity::Severity;

#[cfg(test)]
mod tests;

/// Programs that are told apart.
const PROGRAMS_MAX: usize = 5_000;

/// Accounts and indicators that are named for one program.
const NAMED_MAX: usize = 5;

/// Bytes of a path, and of the whole text, which fits one message.
const PATH_BYTES_MAX: usize = 4 * 1024;
const TEXT_BYTES_MAX: usize = 2 * 1024 * 1024;

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
    programs: BTreeMap<String, Program>,
    /// Findings of programs beyond the bound.
    not_counted: u64,
}

/// One executable, or what stands for it.
#[derive(Debug)]
struct Program {
    /// The line; or why there is none.
    rule: Result<String, String>,
    processes: u64,
    hosts: BTreeSet<HostId>,
    accounts: BTreeSet<String>,
    indicators: BTreeMap<String, u64>,
    severity: Severity,
    last_seen: UnixMillis,
}

impl Learner {
    /// Takes one finding in.
    pub(crate) fn add(&mut self, stored: &StoredFinding) {
        let (name, rule) = rule_of(stored);
        let room = self.programs.len() < PROGRAMS_MAX;
        if !room && !self.programs.contains_key(&name) {
            self.not_counted += 1;
            return;
        }
        let program = self.programs.entry(name).or_insert_with(|| Program {
            rule: rule.clone(),
            processes: 0,
            hosts: BTreeSet::new(),
            accounts: BTreeSet::new(),
            indicators: BTreeMap::new(),
            severity: Severity::Info,
            last_seen: UnixMillis(0),
        });
        // One doubtful process of a program is enough to leave it out.
        if program.rule.is_ok() {
            program.rule = rule;
        }
        program.add(stored);
    }

    /// The file, with its head.
    pub(crate) fn finish(self, group: &str, learning: &Learning, now: UnixMillis) -> Proposed {
        let presets: Vec<(&str, Policy)> = PRESETS.iter().filter_map(compiled).collect();
        let mut programs: Vec<(String, Program)> = self.programs.into_iter().collect();
        programs.sort_by_key(|(_, program)| Reverse((program.hosts.len(), program.processes)));
        let (good, doubtful): (Vec<_>, Vec<_>) = programs
            .iter()
            .partition(|(_, program)| program.rule.is_ok());
        let mut text = head(group, learning, now);
        let mut proposed = Proposed {
            text: String::new(),
            rules: 0,
            left_out: doubtful.len() as u64,
        };
        for (name, program) in good {
            let Ok(rule) = &program.rule else { continue };
            let preset = presets.iter().find(|(_, policy)| covers(policy, name, now));
            let preset = preset.map_or_else(String::new, |(preset, _)| {
                format!("# preset {preset} has a rule for it\n")
            });
            let block = format!("\n{preset}{}{rule}\n", program.counts());
            if text.len() + block.len() > TEXT_BYTES_MAX / 2 {
                proposed.left_out += 1;
                continue;
            }
            text.push_str(&block);
            proposed.rules += 1;
        }
        if !doubtful.is_empty() {
            text.push_str("\n# Not proposed: look at these yourself.\n");
        }
        for (name, program) in doubtful {
            let Err(why) = &program.rule else { continue };
            let block = format!("#\n# {name}: {why}\n{}", program.counts());
            if text.len() + block.len() <= TEXT_BYTES_MAX {
                text.push_str(&block);
            }
        }
        if self.not_counted > 0 {
            let more = self.not_counted;
            text.push_str(&format!(
                "#\n# {more} finding(s) of more programs are not counted.\n"
            ));
        }
        proposed.text = text;
        proposed
    }
}

impl Program {
    fn add(&mut self, stored: &StoredFinding) {
        let finding = &stored.finding;
        self.processes += 1;
        self.hosts.insert(stored.host_id);
        if self.accounts.len() <= NAMED_MAX {
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

    /// Comment lines; every text in them is in printable form.
    fn counts(&self) -> String {
        let indicators = self.indicators.iter().take(NAMED_MAX);
        let indicators: Vec<String> = indicators.map(|(id, n)| format!("{id} x{n}")).collect();
        let more = |all: usize| if all > NAMED_MAX { " ..." } else { "" };
        let accounts: Vec<&str> = self
            .accounts
            .iter()
            .take(NAMED_MAX)
            .map(String::as_str)
            .collect();
        format!(
            "# {} process(es) on {} host(s), last {}, up to {}: {}{}; as {}{}\n",
            self.processes,
            self.hosts.len(),
            self.last_seen,
            self.severity,
            indicators.join(", "),
            more(self.indicators.len()),
            accounts.join(" "),
            more(self.accounts.len()),
        )
    }
}

/// What a finding is counted under, and the rule for it or why there is none.
fn rule_of(stored: &StoredFinding) -> (String, Result<String, String>) {
    let finding = &stored.finding;
    let text = RuleText::of_finding(finding);
    let Some(exe) = text.exe.filter(|exe| !exe.is_empty()) else {
        let what = match finding.process {
            Some(_) => "(an executable that could not be read)",
            None => "(an account over a limit)",
        };
        let why = "it has no path to go by";
        return (what.into(), Err(why.into()));
    };
    if exe.len() > PATH_BYTES_MAX {
        let why = "its path is too long to be looked at";
        return ("(a very long path)".into(), Err(why.into()));
    }
    let rule = match propose(finding, Some(RuleKey::Exe)) {
        Err(none) => Err(none.to_string()),
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

fn head(group: &str, learning: &Learning, now: UnixMillis) -> String {
    let until = learning.until.min(now);
    format!(
        "# What was found on the hosts of group {group} from {} to {until}.\n\
         # A proposal to edit: take out what does not belong there, give every rule\n\
         # a reason, then look at it with `procwarden policy preview` and publish it.\n",
        learning.since
    )
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
