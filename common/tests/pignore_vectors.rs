//! lfd's own answers: every recorded line and text goes through the parser,
//! the compiler and `judge`, and has to come out as lfd has it.

use std::collections::BTreeMap;

use procwarden_common::clock::UnixMillis;
use procwarden_common::policy::{
    EffectivePolicy, Policy, PolicyDocument, PolicyFile, RuleText, Verdict, judge,
};

/// Lines that procwarden reads otherwise on purpose: it anchors the whole of
/// an alternation outside of parentheses, lfd only its outer ends. None of
/// the recorded lines is of this kind; what differs goes here, with lfd's
/// answer left as it is in the file.
const INTENDED_DIFFERENCES: &[&str] = &[];

#[derive(serde::Deserialize)]
struct Vector {
    line: String,
    field: String,
    text: String,
    #[serde(rename = "match")]
    matches: u8,
}

/// What is said of patterns that not every Perl reads alike, or that can match
/// less than they seem to.
const NOTES_ON_PATTERNS: &[&str] = &["[braces]", "[not-ascii]", "[alternation]"];

fn compile(line: &str, notes: &[&str]) -> Policy {
    let file = PolicyFile {
        path: "vector".to_owned(),
        content: line.as_bytes().to_vec(),
    };
    let document = PolicyDocument {
        name: "vector".to_owned(),
        revision: 0,
        files: vec![file],
        settings: String::new(),
    };
    let effective = EffectivePolicy {
        documents: vec![document],
    };
    let (policy, warnings) =
        Policy::compile(&effective).unwrap_or_else(|e| panic!("{line}: {e:?}"));
    let is_known = |message: &str| notes.iter().any(|note| message.ends_with(note));
    let strange = warnings.iter().find(|w| !is_known(&w.message));
    assert_eq!(strange, None, "{line}");
    assert_eq!(policy.rules().len(), 1, "{line}");
    policy
}

/// A process of which only the field in question could be read.
fn process_with(field: &str, text: &str) -> RuleText {
    let mut process = RuleText {
        user: "(nobody looks at this)".to_owned(),
        exe: None,
        cmd: None,
    };
    match field {
        "exe" => process.exe = Some(text.to_owned()),
        "cmd" => process.cmd = Some(text.to_owned()),
        "user" => process.user = text.to_owned(),
        other => panic!("unknown field {other}"),
    }
    process
}

#[test]
fn every_recorded_answer_of_lfd_is_ours_too() {
    let seen = compare(include_str!("fixtures/pignore.jsonl"), &[]);
    assert!(seen >= 500, "only {seen} answers were compared");
}

#[test]
fn what_only_perl_has_is_answered_as_perl_answers_it() {
    let records = include_str!("fixtures/perl_patterns.jsonl");
    let seen = compare(records, NOTES_ON_PATTERNS);
    assert!(seen >= 1_000, "only {seen} answers were compared");
}

/// Compares the answers, and says how many there were.
fn compare(records: &str, notes: &[&str]) -> usize {
    let mut wrong = Vec::new();
    let mut policies: BTreeMap<String, Policy> = BTreeMap::new();
    let mut seen = 0;
    for record in records.lines() {
        let vector: Vector =
            serde_json::from_str(record).unwrap_or_else(|error| panic!("{record}: {error}"));
        if INTENDED_DIFFERENCES.contains(&vector.line.as_str()) {
            continue;
        }
        let policy = policies
            .entry(vector.line.clone())
            .or_insert_with(|| compile(&vector.line, notes));
        let verdict = judge(
            policy,
            &process_with(&vector.field, &vector.text),
            UnixMillis(0),
        );
        if (verdict != Verdict::Report) != (vector.matches == 1) {
            wrong.push(record);
        }
        seen += 1;
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    seen
}

#[test]
fn the_shipped_lfd_defaults_are_those_of_lfd() {
    let text = include_str!("../../deploy/policies/lfd-defaults.toml");
    let mut settings = procwarden_common::policy::Settings::default();
    assert_eq!(settings.overlay("lfd-defaults.toml", text), Ok(Vec::new()));
    assert_eq!(
        (
            settings.min_age_secs,
            settings.interval_secs,
            settings.skip_http
        ),
        (60, 60, false)
    );
    assert_eq!(
        settings.users,
        procwarden_common::policy::settings::Users::Cpanel
    );
    assert!(!settings.report_deleted);
    assert_eq!(
        (settings.user_processes, settings.process_vsz_mb),
        (Some(10), Some(512))
    );
    assert_eq!(
        (settings.process_rss_mb, settings.process_age_secs),
        (Some(256), Some(1800))
    );
    assert!(settings.detectors.is_empty());
}
