//! What is to be said of each rule of a policy: what it ignored, and whether
//! it has expired or covers too much. Pure.

use std::collections::{HashMap, HashSet};

use procwarden_common::clock::UnixMillis;
use procwarden_common::diagnostic::Diagnostic;
use procwarden_common::policy::{self, EffectivePolicy, PolicyDocument, Rule, rules_of};
use procwarden_proto::v1;
use serde::Serialize;

use super::super::preview::view::SampleObject;
use crate::json::{shown_all, when};

/// Remarks of the check about rules that cover more than they should.
const TOO_BROAD: [&str; 4] = [
    "[everything]",
    "[empty]",
    "[interpreter]",
    "[writable-path]",
];

/// Hosts that run the revision and have said what it ignored there, from which
/// on it is of interest that a rule matched nowhere, or on one of them alone.
const TELLING_HOSTS_MIN: u64 = 2;

/// One rule with what is known of it.
#[derive(Debug, Serialize)]
pub(super) struct RuleObject {
    rule: String,
    pub(super) file: String,
    pub(super) line: u32,
    processes: u64,
    severe: u64,
    hosts: u64,
    host_names: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<String>,
    /// `never-matched`, `one-host`, `expired`, `too-broad`.
    marks: Vec<&'static str>,
    samples: Vec<SampleObject>,
}

/// Every rule in the order of the text, and the remarks about those that have
/// expired or soon will. What does not compile here was published by another
/// version: nothing is said then of what it covers.
pub(super) fn of(
    document: &PolicyDocument,
    hits: &v1::PolicyHitsResponse,
    now: UnixMillis,
) -> (Vec<RuleObject>, Vec<Diagnostic>) {
    let effective = EffectivePolicy {
        documents: vec![document.clone()],
    };
    let (expiring, remarks) = policy::check(&effective, now)
        .map(|(policy, remarks)| (policy::expiring(&policy, now), remarks))
        .unwrap_or_default();
    let broad: HashSet<(&str, u32)> = remarks
        .iter()
        .filter(|remark| TOO_BROAD.iter().any(|id| remark.message.ends_with(id)))
        .map(|remark| (remark.file.as_str(), remark.line))
        .collect();
    let sums: HashMap<&[u8], &v1::RuleHitSum> = hits
        .rules
        .iter()
        .map(|sum| (&sum.rule_id[..], sum))
        .collect();
    let none = v1::RuleHitSum::default();
    let object = |rule: &Rule| {
        let sum = sums
            .get(&rule.id().as_bytes()[..])
            .copied()
            .unwrap_or(&none);
        let is_broad = broad.contains(&(rule.origin.file.as_str(), rule.origin.line));
        let marks = marks(rule, sum, hits, is_broad, now);
        rule_object(rule, sum, marks)
    };
    let rules = rules_of(document).iter().map(|rule| object(rule)).collect();
    let expiring = expiring.iter().map(policy::Expiring::remark).collect();
    (rules, expiring)
}

fn marks(
    rule: &Rule,
    sum: &v1::RuleHitSum,
    hits: &v1::PolicyHitsResponse,
    is_broad: bool,
    now: UnixMillis,
) -> Vec<&'static str> {
    let is_complete = hits.rules_left_out == 0 && !hits.too_low;
    let is_telling = is_complete && hits.hosts_known >= TELLING_HOSTS_MIN;
    // A policy may have a single host.
    let is_all = is_complete && hits.hosts > 0 && hits.hosts_known >= hits.hosts;
    [
        ("never-matched", (is_telling || is_all) && sum.hosts == 0),
        ("one-host", is_telling && sum.hosts == 1),
        ("expired", !rule.facts.in_force(now)),
        ("too-broad", is_broad),
    ]
    .into_iter()
    .filter_map(|(mark, holds)| holds.then_some(mark))
    .collect()
}

fn rule_object(rule: &Rule, sum: &v1::RuleHitSum, marks: Vec<&'static str>) -> RuleObject {
    RuleObject {
        rule: rule.to_string(),
        file: rule.origin.file.clone(),
        line: rule.origin.line,
        processes: sum.processes,
        severe: sum.severe,
        hosts: sum.hosts,
        host_names: shown_all(&sum.host_names),
        first: when(sum.first_ms),
        last: when(sum.last_ms),
        marks,
        samples: sum.samples.iter().map(Into::into).collect(),
    }
}

impl RuleObject {
    /// What stands behind the rule for a person; nothing when all is well and
    /// nothing is known.
    pub(super) fn note(&self) -> Option<String> {
        let mut parts = Vec::new();
        if let Some(last) = &self.last {
            let severe = match self.severe {
                0 => String::new(),
                severe => format!(" ({severe} severe)"),
            };
            parts.push(format!(
                "ignored {} process(es){severe} on {} host(s), last {last}",
                self.processes, self.hosts
            ));
        }
        for mark in &self.marks {
            parts.push(match (*mark, self.host_names.first()) {
                ("never-matched", _) => "never matched".into(),
                ("one-host", Some(name)) => format!("matched on one host only: {name}"),
                ("one-host", None) => "matched on one host only".into(),
                ("too-broad", _) => "too broad".into(),
                (other, _) => other.into(),
            });
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

/// How much the counts are worth, in words.
pub(super) fn known_words(hits: &v1::PolicyHitsResponse) -> String {
    let at_least = if hits.too_low || hits.rules_left_out > 0 {
        "; too low, there was too much to count"
    } else {
        ""
    };
    format!(
        "counted on {} of {} host(s), those that have scanned under this revision{at_least}",
        hits.hosts_known, hits.hosts
    )
}

#[cfg(test)]
mod tests {
    use procwarden_common::policy::PolicyFile;

    use super::*;

    /// In November 2026.
    const NOW: UnixMillis = UnixMillis(1_795_424_400_000);

    fn document(rules: &str) -> PolicyDocument {
        PolicyDocument {
            name: "web".into(),
            revision: 1,
            files: vec![PolicyFile {
                path: "a.pignore".into(),
                content: rules.into(),
            }],
            settings: String::new(),
        }
    }

    fn sum(rule: &Rule, processes: u64, hosts: u64) -> v1::RuleHitSum {
        v1::RuleHitSum {
            rule_id: rule.id().as_bytes().to_vec().into(),
            processes,
            hosts,
            host_names: vec!["web1\u{1b}[2J".into()],
            first_ms: NOW.0,
            last_ms: NOW.0,
            ..v1::RuleHitSum::default()
        }
    }

    #[test]
    fn rules_are_marked_by_what_they_ignored_and_by_what_they_say() {
        let text = "exe:/often\nexe:/once\nexe:/never\n\
                    #@ expires=2026-11-01\nexe:/past\npexe:/tmp/.*\n";
        let document = document(text);
        let rules = rules_of(&document);
        let hits = v1::PolicyHitsResponse {
            rules: vec![
                sum(&rules[0], 5, 2),
                sum(&rules[1], 1, 1),
                sum(&rules[4], 3, 2),
            ],
            hosts: 2,
            hosts_known: 2,
            ..v1::PolicyHitsResponse::default()
        };
        let (objects, expiring) = of(&document, &hits, NOW);
        let marks: Vec<_> = objects
            .iter()
            .map(|o| (o.line, o.marks.join(" ")))
            .collect();
        let expected = [
            (1, ""),
            (2, "one-host"),
            (3, "never-matched"),
            (5, "never-matched expired"),
            (6, "too-broad"),
        ];
        assert_eq!(marks, expected.map(|(line, mark)| (line, mark.to_owned())));
        assert_eq!(expiring.len(), 1);
        let note = objects[1].note().unwrap();
        assert!(
            note.starts_with("ignored 1 process(es) on 1 host(s), last 2026-11-23"),
            "{note}"
        );
        assert!(
            note.ends_with("matched on one host only: web1\\1b[2J"),
            "{note}"
        );
    }

    #[test]
    fn a_rule_is_called_rare_only_when_enough_hosts_have_counted_all_of_it() {
        let document = document("exe:/a\n");
        let rule = &rules_of(&document)[0];
        for (hosts, hosts_known, matched, too_low, expected) in [
            (2, 0, 0, false, ""),
            (2, 1, 0, false, ""),
            (0, 0, 0, false, ""),
            (1, 0, 0, false, ""),
            (1, 1, 0, false, "never-matched"),
            (1, 1, 0, true, ""),
            (2, 2, 0, false, "never-matched"),
            (9, 2, 0, false, "never-matched"),
            (2, 2, 0, true, ""),
            (1, 1, 1, false, ""),
            (9, 1, 1, false, ""),
            (9, 2, 1, false, "one-host"),
            (9, 2, 1, true, ""),
            (9, 2, 2, false, ""),
        ] {
            let hits = v1::PolicyHitsResponse {
                rules: (matched > 0)
                    .then(|| sum(rule, 1, matched))
                    .into_iter()
                    .collect(),
                hosts,
                hosts_known,
                too_low,
                ..v1::PolicyHitsResponse::default()
            };
            let marks = of(&document, &hits, NOW).0[0].marks.join(" ");
            let case = (hosts, hosts_known, matched, too_low);
            assert_eq!(marks, expected, "{case:?}");
        }
    }

    #[test]
    fn what_counts_are_worth_is_said_once() {
        let mut hits = v1::PolicyHitsResponse {
            hosts: 2,
            hosts_known: 1,
            ..v1::PolicyHitsResponse::default()
        };
        let words = "counted on 1 of 2 host(s), those that have scanned under this revision";
        assert_eq!(known_words(&hits), words);
        hits.too_low = true;
        assert!(known_words(&hits).ends_with("too much to count"));
    }
}
