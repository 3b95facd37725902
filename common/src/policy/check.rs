//! What a person should know about a policy that compiles: rules that cover
//! too much, nothing, or what somebody else can write.
//!
//! Every warning ends in an id such as `[interpreter]`. Agents do not ask for
//! them; the operator's command and the collector do, before every publish.
//! Never reads a file or a clock.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::compile::{remark, sort_as_written};
use super::expiry::Expiring;
use super::lines::{self, Content};
use super::parse::{self, Parsed, Remarks};
use super::{EffectivePolicy, Policy, PolicyFile, Rule, RuleKey};
use crate::clock::UnixMillis;
use crate::diagnostic::{Diagnostic, Level};

mod executable;
mod never;
mod probes;
mod reach;
mod shadow;
#[cfg(test)]
mod tests;

use executable::executable;
use probes::{Hits, SERVICE_ACCOUNTS};
use shadow::Shadows;

/// Compiles like [`Policy::compile`] and adds the warnings that only people
/// need.
///
/// # Errors
/// Every remark, warnings included, when at least one is an error.
pub fn check(
    effective: &EffectivePolicy,
    now: UnixMillis,
) -> Result<(Policy, Vec<Diagnostic>), Vec<Diagnostic>> {
    let mut found = Remarks::default();
    let files = effective.documents.iter().flat_map(|d| &d.files);
    files.for_each(|file| warn_of_trailing_space(file, &mut found));
    let (policy, mut remarks) = match Policy::compile_parsed(effective) {
        Ok((policy, rules, remarks)) => {
            warn_of_rules(&policy, &rules, now, &mut found);
            (Ok(policy), remarks)
        }
        Err(remarks) => {
            // A person mends a file once: what is doubtful about the other
            // rules is said beside the errors.
            let rest = without_errors(effective, &remarks);
            if let Ok((policy, rules, _)) = Policy::compile_parsed(&rest) {
                warn_of_rules(&policy, &rules, now, &mut found);
            }
            (Err(()), remarks)
        }
    };
    remarks.extend(found.into_vec(""));
    sort_as_written(&mut remarks, effective);
    match policy {
        Ok(policy) => Ok((policy, remarks)),
        Err(()) => Err(remarks),
    }
}

/// The same files with nothing in the lines that have errors.
fn without_errors(effective: &EffectivePolicy, remarks: &[Diagnostic]) -> EffectivePolicy {
    let errors = remarks.iter().filter(|r| r.level == Level::Error);
    let wrong: HashSet<(&str, u32)> = errors.map(|r| (r.file.as_str(), r.line)).collect();
    let mut rest = effective.clone();
    for document in &mut rest.documents {
        document.settings.clear();
        for file in &mut document.files {
            let mut content = Vec::with_capacity(file.content.len());
            for line in lines::split(&file.content).lines {
                if !wrong.contains(&(file.path.as_str(), line.number)) {
                    content.extend_from_slice(line.bytes);
                }
                content.push(b'\n');
            }
            file.content = content;
        }
    }
    rest
}

/// The lines of a file as remarks count them, without their ends.
#[must_use]
pub fn source_lines(content: &[u8]) -> Vec<&[u8]> {
    let lines = lines::split(content).lines.into_iter();
    lines.map(|line| line.bytes).collect()
}

/// White space that lfd drops; in a command line it may have been meant.
fn warn_of_trailing_space(file: &PolicyFile, found: &mut Remarks) {
    for line in lines::split(&file.content).lines {
        let Content::Rule {
            value, value_at, ..
        } = lines::classify(line.bytes)
        else {
            continue;
        };
        let end = value_at + value.len();
        if end < line.bytes.len() {
            found.push(Diagnostic {
                level: Level::Warning,
                file: file.path.clone(),
                line: line.number,
                column: parse::column(line.bytes, end),
                message: "white space at the end is no part of the rule [trailing-space]".into(),
                help: r"remove it, or write \x20 in a pattern if it is meant".into(),
            });
        }
    }
}

fn warn_of_rules(policy: &Policy, rules: &[Parsed], now: UnixMillis, found: &mut Remarks) {
    let hits = Hits::of(policy.matchers(), rules);
    let mut shadows = Shadows::of(rules);
    let mut seen: HashMap<(RuleKey, &str), &Parsed> = HashMap::new();
    for (index, parsed) in rules.iter().enumerate() {
        let rule = &parsed.rule;
        if let Some(expiring) = Expiring::of(rule, now) {
            let column = parsed.column;
            found.push(Diagnostic {
                column,
                ..expiring.remark()
            });
        }
        let first = seen.entry((rule.key, &rule.value)).or_insert(parsed);
        if !Arc::ptr_eq(&first.rule, rule) {
            found.push(warning(parsed, duplicate(&first.rule)));
            // The rest was said of the first one.
            continue;
        }
        let covering = shadows.find(policy.matchers(), rules, index);
        if let Some(other) = covering.and_then(|other| rules.get(other)) {
            found.push(warning(parsed, shadowed(&other.rule)));
        }
        let words = match rule.key {
            RuleKey::User | RuleKey::Puser => account(rule, hits.get(index)),
            RuleKey::Exe | RuleKey::Pexe => executable(rule, hits.get(index)),
            RuleKey::Cmd | RuleKey::Pcmd => command_line(rule, hits.get(index)),
        };
        for words in words.into_iter().chain(never::matches(rule)) {
            found.push(warning(parsed, words));
        }
    }
    // What gives up on an ordinary text does so on many hosts.
    for parsed in policy
        .matchers()
        .gave_up()
        .filter_map(|index| rules.get(index))
    {
        found.push(warning(parsed, slow()));
    }
}

/// What is wrong, and what to do.
type Words = (String, String);

fn warning(parsed: &Parsed, (message, help): Words) -> Diagnostic {
    remark(Level::Warning, parsed, parsed.column, message, help)
}

fn words(message: impl Into<String>, help: &str) -> Words {
    (message.into(), help.to_owned())
}

fn place(rule: &Rule) -> String {
    format!("{}:{}", rule.origin.file, rule.origin.line)
}

fn duplicate(first: &Rule) -> Words {
    words(
        format!("the same rule stands at {} [duplicate]", place(first)),
        "keep one of them",
    )
}

fn shadowed(other: &Rule) -> Words {
    words(
        format!(
            "the pattern at {} covers this already [shadowed]",
            place(other)
        ),
        "remove one of the two",
    )
}

fn slow() -> Words {
    words(
        "this takes too many steps on an ordinary text, or that is too long for it: it does not \
         match then [slow]",
        "write it without look-around and nested repetition",
    )
}

fn account(rule: &Rule, hits: Option<&Hits>) -> Vec<Words> {
    if let Some(broad) = hits.and_then(|hits| hits.broad("account")) {
        return vec![broad];
    }
    let is_service = !rule.key.is_pattern() && SERVICE_ACCOUNTS.contains(&rule.value.as_str());
    if is_service || rule.facts.reason.is_some() {
        return Vec::new();
    }
    vec![words(
        "this hides everything that the account runs, intruders included [user]",
        "name the executable instead, or say why with #@ reason=\"...\" above it",
    )]
}

fn command_line(rule: &Rule, hits: Option<&Hits>) -> Vec<Words> {
    if let Some(broad) = hits.and_then(|hits| hits.broad("command line")) {
        return vec![broad];
    }
    if rule.facts.reason.is_some() {
        return Vec::new();
    }
    vec![words(
        "every process writes its own command line, so any program can take this one \
         [command-line]",
        "name the executable instead, or say why with #@ reason=\"...\" above it",
    )]
}
