//! Compiling and judging: tables, and a comparison with a plain matcher.

use proptest::prelude::*;

use super::*;
use crate::diagnostic::{Diagnostic, Level};

/// Any time: the rules of most tests never expire.
const NOW: UnixMillis = UnixMillis(1_795_424_400_000);

fn document(name: &str, content: &str, settings: &str) -> PolicyDocument {
    let path = format!("{name}.pignore");
    PolicyDocument {
        name: name.to_owned(),
        revision: 1,
        files: vec![PolicyFile {
            path,
            content: content.as_bytes().to_vec(),
        }],
        settings: settings.to_owned(),
    }
}

fn compile(documents: Vec<PolicyDocument>) -> Result<(Policy, Vec<Diagnostic>), Vec<Diagnostic>> {
    Policy::compile(&EffectivePolicy { documents })
}

fn policy(content: &str) -> Policy {
    compile(vec![document("p", content, "")]).unwrap().0
}

fn text(user: &str, exe: &str, cmd: &str) -> RuleText {
    RuleText {
        user: user.to_owned(),
        exe: Some(exe.to_owned()),
        cmd: Some(cmd.to_owned()),
    }
}

/// The line of the rule that ignores, or 0.
fn ignoring_line(policy: &Policy, text: &RuleText) -> u32 {
    match judge(policy, text, NOW) {
        Verdict::Report => 0,
        Verdict::Ignored(rule) => rule.origin.line,
    }
}

fn places(diagnostics: &[Diagnostic]) -> Vec<(Level, &str, u32, u32)> {
    diagnostics
        .iter()
        .map(|d| (d.level, d.file.as_str(), d.line, d.column))
        .collect()
}

#[test]
fn a_policy_is_shared_between_threads_and_the_default_ignores_nothing() {
    fn shared<T: Send + Sync>(_: &T) {}
    let policy = Policy::default();
    shared(&policy);
    assert_eq!(judge(&policy, &text("bob", "/x", ""), NOW), Verdict::Report);
    assert_eq!(*policy.settings(), Settings::default());
    assert!(policy.rules().is_empty());
}

#[test]
fn rules_are_tried_in_lfds_order_and_within_a_key_in_file_order() {
    let content = "pcmd:.*\ncmd:c\npexe:/e.*\npexe:/.*\nexe:/e\npuser:b.*\nuser:bob\nuser:bob\n";
    let all = policy(content);
    let keys: Vec<_> = all.rules().iter().map(|rule| rule.origin.line).collect();
    assert_eq!(keys, [7, 8, 6, 5, 3, 4, 2, 1]);
    let cases = [
        (("bob", "/e", "c"), 7),
        (("bill", "/e", "c"), 6),
        (("al", "/e", "c"), 5),
        (("al", "/e2", "c"), 3),
        (("al", "/x", "c"), 4),
        (("al", "x", "c"), 2),
        (("al", "x", "d"), 1),
    ];
    for ((user, exe, cmd), line) in cases {
        assert_eq!(
            ignoring_line(&all, &text(user, exe, cmd)),
            line,
            "{user} {exe} {cmd}"
        );
    }
}

#[test]
fn patterns_with_look_around_keep_their_place_among_the_others() {
    let policy = policy("pexe:/a/.*\npexe:/(?!b).*\npexe:/c\npexe:(/.)\\1\n");
    for (exe, line) in [("/a/x", 1), ("/c", 2), ("/b", 0), ("/b/b", 4), ("/x/x", 2)] {
        assert_eq!(ignoring_line(&policy, &text("u", exe, "")), line, "{exe}");
    }
}

#[test]
fn a_deleted_executable_is_not_covered_by_the_exact_rule_for_its_path() {
    let policy = policy("exe:/usr/sbin/pure-ftpd\nuser:ftp\ncmd:ftpd (SERVER)\n");
    assert_eq!(
        ignoring_line(&policy, &text("u", "/usr/sbin/pure-ftpd", "")),
        1
    );
    assert_eq!(
        ignoring_line(&policy, &text("u", "/usr/sbin/pure-ftpd (deleted)", "")),
        0
    );
    assert_eq!(
        ignoring_line(&policy, &text("ftp", "/usr/sbin/pure-ftpd (deleted)", "")),
        2
    );
    let by_cmd = text("u", "/usr/sbin/pure-ftpd (deleted)", "ftpd (SERVER)");
    assert_eq!(ignoring_line(&policy, &by_cmd), 3);
    let loose = self::policy("pexe:/usr/sbin/pure-ftpd.*\n");
    assert_eq!(
        ignoring_line(&loose, &text("u", "/usr/sbin/pure-ftpd (deleted)", "")),
        1
    );
}

#[test]
fn a_text_that_could_not_be_read_is_covered_by_nothing() {
    let policy = policy("pexe:.*\npcmd:.*\nexe:\ncmd:\n");
    let unread = RuleText {
        user: "u".to_owned(),
        exe: None,
        cmd: None,
    };
    assert_eq!(judge(&policy, &unread, NOW), Verdict::Report);
}

#[test]
fn every_error_of_every_file_is_named_at_once_with_its_column() {
    let content = "pexe:/a(b\nexe:/ok\n PCMD :*x\npuser:[z-a]\npcmd:é(\npcmd:a**\npcmd:(?=a)(\npcmd:\\p{Greek}\npcmd:a)|(?:b\n";
    let other = "pexe:a\\\nexxe:/x\n";
    let errors = compile(vec![
        document("p", content, "[scan]\nx = 1"),
        document("q", other, ""),
    ])
    .unwrap_err();
    let (w, e) = (Level::Warning, Level::Error);
    assert_eq!(
        places(&errors),
        [
            (e, "p.pignore", 1, 8),
            (e, "p.pignore", 3, 8),
            (e, "p.pignore", 4, 8),
            (w, "p.pignore", 5, 6),
            (e, "p.pignore", 5, 7),
            (e, "p.pignore", 6, 8),
            (e, "p.pignore", 7, 12),
            (e, "p.pignore", 8, 6),
            (e, "p.pignore", 9, 7),
            (e, "q.pignore", 1, 7),
            (w, "q.pignore", 2, 1),
            (e, "settings of p", 2, 1),
        ],
        "{errors:#?}"
    );
    for error in errors
        .iter()
        .filter(|error| error.message.contains("expression"))
    {
        let first = error.message.chars().next().unwrap();
        assert!(
            !first.is_uppercase() && !error.message.contains('\n'),
            "{error:?}"
        );
        assert!(!error.help.is_empty(), "{error:?}");
    }
}

#[test]
fn alternation_outside_of_parentheses_is_warned_of_with_both_readings() {
    let (policy, warnings) =
        compile(vec![document("p", "pexe:/a|/b|/c\npexe:(/d|/e)\n", "")]).unwrap();
    assert_eq!(warnings.len(), 1);
    assert_eq!((warnings[0].line, warnings[0].column), (1, 8));
    assert_eq!(
        warnings[0].message,
        "'|' outside of parentheses: lfd reads '^/a' or '/b' or '/c$', procwarden reads '^(/a|/b|/c)$' [alternation]"
    );
    for (exe, line) in [
        ("/a", 1),
        ("/b", 1),
        ("/c", 1),
        ("/a2", 0),
        ("/x/b/x", 0),
        ("/e", 2),
    ] {
        assert_eq!(ignoring_line(&policy, &text("u", exe, "")), line, "{exe}");
    }
}

#[test]
fn documents_are_joined_and_the_later_settings_win() {
    let first = document(
        "base",
        "exe:/a\n",
        "[scan]\nmin_age_secs = 5\ninterval_secs = 7\n",
    );
    let second = document("web", "exe:/a\nexe:/b\n", "[scan]\nmin_age_secs = 6\n");
    let (policy, warnings) = compile(vec![first, second]).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(
        (
            policy.settings().min_age_secs,
            policy.settings().interval_secs
        ),
        (6, 7)
    );
    let Verdict::Ignored(rule) = judge(&policy, &text("u", "/a", ""), NOW) else {
        panic!("reported")
    };
    assert_eq!(
        (rule.origin.policy.as_str(), rule.to_string().as_str()),
        ("base", "exe:/a")
    );
    assert!(
        matches!(judge(&policy, &text("u", "/b", ""), NOW), Verdict::Ignored(rule) if rule.origin.policy == "web")
    );
}

#[test]
fn what_breaks_a_limit_is_refused_and_named() {
    let many = "user:a\n".repeat(crate::limits::RULES_MAX + 1);
    let errors = compile(vec![document("p", &many, "")]).unwrap_err();
    assert_eq!(
        (errors[0].level, errors[0].line),
        (Level::Error, 50_001),
        "{:?}",
        errors[0]
    );

    let slow = "pexe:(?!a)b\n".repeat(257);
    let errors = compile(vec![document("p", &slow, "")]).unwrap_err();
    assert_eq!(
        places(&errors),
        [(Level::Error, "p.pignore", 257, 6)],
        "{errors:?}"
    );

    let heavy = format!(
        "pexe:(?!a)(x{{80}}){{100}}\n{}",
        "pexe:(?!a)(x{80}){100}\n".repeat(400)
    );
    let errors = compile(vec![document("p", &heavy, "")]).unwrap_err();
    assert_eq!(
        places(&errors),
        [(Level::Error, "p.pignore", 9, 6)],
        "the first one too many, and the others are not compiled: {errors:?}"
    );
    let errors = compile(vec![document("p", "pexe:(?!a)(x{100}){100}\n", "")]).unwrap_err();
    assert!(errors[0].message.contains("written out"), "{errors:?}");

    let content = "pexe:/a.*\npexe:((x{1000}){1000}){1000}\npexe:/b.*\n";
    let errors = compile(vec![document("p", content, "")]).unwrap_err();
    assert_eq!(
        places(&errors),
        [(Level::Error, "p.pignore", 2, 6)],
        "{errors:#?}"
    );
    assert!(errors[0].message.contains("bytes of memory"), "{errors:?}");
}

#[test]
fn a_pattern_with_look_around_is_asked_about_no_longer_text_than_a_path() {
    for (pattern, longest) in [("(?!.*evil)x*", 4096), ("((?!.*evil).)*x", 256)] {
        let policy = policy(&format!("pcmd:{pattern}\n"));
        assert!(matches!(judged(&policy, longest), Verdict::Ignored(_)));
        assert!(policy.rules_that_gave_up().is_empty());
        assert_eq!(judged(&policy, longest + 1), Verdict::Report);
        assert_eq!(policy.rules_that_gave_up().len(), 1);
    }
}

#[test]
fn a_text_that_is_made_to_be_slow_is_asked_about_a_few_times_only() {
    let slow: String = (0..20).map(|n| format!("pcmd:(?!y)(x|xx)*{n}\n")).collect();
    let policy = policy(&format!("{slow}pcmd:(?!y)x*\n"));
    assert_eq!(judged(&policy, 200), Verdict::Report);
    assert_eq!(policy.rules_that_gave_up().len(), 21);
    assert!(matches!(judged(&policy, 5), Verdict::Ignored(_)));
}

#[test]
fn any_number_of_alternatives_to_nothing_is_judged_or_refused() {
    let bars = "|".repeat(70_000);
    let grouped = "|(?:)".repeat(250);
    let lines = [
        format!("pcmd:x+(?:{bars})\n"),
        format!("pcmd:(?!y)x+(?:{bars})\n"),
        format!("pcmd:(?!y)x+(?:{grouped})\n"),
        format!("pcmd:(?!y)x+(?:{})\n", "|a{0}".repeat(250)),
    ];
    for line in lines {
        assert!(matches!(judged(&policy(&line), 9), Verdict::Ignored(_)));
    }
    let many = format!("pcmd:(?!y)x+(?:{}x)\n", "(?:)|".repeat(300));
    let errors = compile(vec![document("p", &many, "")]).unwrap_err();
    assert!(errors[0].message.contains("256 alternatives"), "{errors:?}");
}

/// The verdict on a command line of so many `x`.
fn judged(policy: &Policy, length: usize) -> Verdict {
    let text = RuleText {
        user: "bob".to_owned(),
        exe: None,
        cmd: Some("x".repeat(length)),
    };
    judge(policy, &text, UnixMillis(0))
}

#[test]
fn a_pattern_that_takes_too_long_ignores_nothing() {
    let policy = policy("pcmd:(a|b|ab)*(?=c)c\npcmd:x.*\npcmd:(?=y)y+\n");
    assert!(policy.rules_that_gave_up().is_empty());
    assert_eq!(
        ignoring_line(&policy, &text("u", "/x", &"ab".repeat(100))),
        0
    );
    assert_eq!(ignoring_line(&policy, &text("u", "/x", "abc")), 1);
    assert_eq!(ignoring_line(&policy, &text("u", "/x", "xyz")), 2);
    let gave_up = policy.rules_that_gave_up();
    let lines: Vec<_> = gave_up.iter().map(|rule| rule.origin.line).collect();
    assert_eq!(lines, [1], "it stays known");
}

#[test]
fn perl_constructs_mean_what_they_mean_in_perl() {
    let cases = [
        ("[[]kworker.*", "[kworker/0:1]", true),
        ("\\<x\\>", "<x>", true),
        ("\\<x\\>", "x", false),
        ("a*+a", "aaa", false),
        ("a++b", "aab", true),
        ("(?>a|ab)c", "abc", false),
        ("a{", "a{", true),
        ("[a&&b]", "&", true),
        ("a\\hb", "a b", true),
        ("(?i)ABC", "abc", true),
        ("\\/x\\-y\\_", "/x-y_", true),
        ("a$", "a", true),
        ("a(?#b)c", "ac", true),
        ("(?<=x)y", "y", false),
        ("x(?<=x)y", "xy", true),
        ("\\d+", "\u{661}", false),
    ];
    for (pattern, cmd, matches) in cases {
        let policy = policy(&format!("pcmd:{pattern}\n"));
        assert_eq!(
            ignoring_line(&policy, &text("u", "/x", cmd)),
            u32::from(matches),
            "{pattern}"
        );
    }
}

#[test]
fn an_expired_rule_matches_no_more_and_the_next_one_takes_over() {
    let content = "#@ expires=2026-11-22 owner=ops\nexe:/a\n\
                   #@ expires=2026-11-23\n# a comment\n\n#@ reason=\"two lines\"\nexe:/a\n\
                   #@ expires=2026-11-22\npexe:/b.*\n\
                   pexe:/b\nexe:/a\n\
                   #@ expires=2026-11-22\npexe:/(?!x)c\n";
    let policy = policy(content);
    let line = |exe, now| match judge(&policy, &text("u", exe, ""), now) {
        Verdict::Report => 0,
        Verdict::Ignored(rule) => rule.origin.line,
    };
    let day = 24 * 60 * 60 * 1000;
    for (exe, lines) in [("/a", [2, 7, 11]), ("/b", [9, 10, 10]), ("/c", [13, 0, 0])] {
        let seen = [-day, 0, day].map(|shift| line(exe, NOW.plus_millis(shift)));
        assert_eq!(seen, lines, "{exe}");
    }
    let ends: Vec<_> = expiring(&policy, NOW)
        .iter()
        .map(|e| (e.rule.origin.line, e.expired))
        .collect();
    assert_eq!(ends, [(2, true), (9, true), (13, true), (7, false)]);
    assert!(expiring(&policy, NOW.plus_millis(-9 * day)).is_empty());
}

#[test]
fn facts_that_are_wrong_or_belong_to_no_rule_are_errors() {
    let content = "#@ expires=tomorrow ownr=x\nexe:/a\n#@ owner=a\nInclude x\n  #@ owner=b\nexx:/b\n#@ owner=c\n#@ owner=d\nexe:/c\n#@ reason=\"x\"\n";
    let mut file = document("p", content, "");
    file.files.push(PolicyFile {
        path: "x".into(),
        content: b"exe:/x\n".to_vec(),
    });
    let errors = compile(vec![file]).unwrap_err();
    let (w, e) = (Level::Warning, Level::Error);
    assert_eq!(
        places(&errors),
        [
            (e, "p.pignore", 1, 12),
            (e, "p.pignore", 1, 21),
            (e, "p.pignore", 3, 1),
            (e, "p.pignore", 5, 3),
            (w, "p.pignore", 6, 1),
            (e, "p.pignore", 8, 4),
            (e, "p.pignore", 10, 1),
        ],
        "{errors:#?}"
    );
}

/// What the compiled policy does, done in the plainest way.
fn plain_first(rules: &[Arc<Rule>], text: &RuleText) -> Option<Arc<Rule>> {
    let covers = |rule: &Rule| {
        if rule.facts.end() <= NOW {
            return false;
        }
        let seen = match rule.key {
            RuleKey::User | RuleKey::Puser => Some(&text.user),
            RuleKey::Exe | RuleKey::Pexe => text.exe.as_ref(),
            RuleKey::Cmd | RuleKey::Pcmd => text.cmd.as_ref(),
        };
        let Some(seen) = seen else { return false };
        if !rule.key.is_pattern() {
            return rule.value == *seen;
        }
        let anchored = format!("\\A(?:{})\\z", rule.value);
        fancy_regex::Regex::new(&anchored)
            .unwrap()
            .is_match(seen.as_str())
            .unwrap()
    };
    let mut ordered: Vec<_> = rules.to_vec();
    ordered.sort_by_key(|rule| {
        let key = RuleKey::ALL.iter().position(|(key, _)| *key == rule.key);
        (key, rule.origin.line)
    });
    ordered.into_iter().find(|rule| covers(rule))
}

fn any_text() -> impl Strategy<Value = String> {
    "[ab/]{0,5}( \\(deleted\\))?"
}

/// `#@` lines with any text in quotes.
fn any_facts() -> impl Strategy<Value = String> {
    let text = "[ -~\u{a0}-\u{ff}]{1,20}";
    let day = proptest::option::of((1_i32..=9999, 1_u8..=12, 1_u8..=28));
    let some = (day, proptest::option::of(text), proptest::option::of(text));
    some.prop_map(|(day, owner, reason)| {
        let date = |(year, month, day)| format!("{year:04}-{month:02}-{day:02}");
        let facts = RuleFacts {
            expires: day.and_then(|day| LastDay::parse(&date(day))),
            owner,
            reason,
        };
        if facts.is_empty() {
            String::new()
        } else {
            format!("{facts}\n")
        }
    })
}

fn any_rule() -> impl Strategy<Value = String> {
    let pattern = proptest::sample::select(vec![
        "a", "b", "/", ".", ".*", "[ab]", "a?", "(a|b/)", "a+", "(?!a).", "(.)\\1", "\\w*", "[^/]+",
    ]);
    let pattern = proptest::collection::vec(pattern, 1..4).prop_map(|parts| parts.concat());
    let exact = (
        proptest::sample::select(vec!["exe", "user", "cmd"]),
        any_text(),
    );
    let fuzzy = (
        proptest::sample::select(vec!["pexe", "puser", "pcmd"]),
        pattern,
    );
    // One rule in three has expired, one expires later.
    let facts = proptest::sample::select(vec![
        "",
        "#@ expires=2026-11-22\n",
        "#@ expires=2026-11-23\n",
    ]);
    let rule = prop_oneof![
        exact.prop_map(|(key, value)| format!("{key}:{value}")),
        // Quantifiers that meet (`a+` and `a?`) stay apart in parentheses.
        fuzzy.prop_map(|(key, value)| format!("{key}:{value}")),
    ];
    (facts, rule).prop_map(|(facts, rule)| format!("{facts}{rule}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn judge_agrees_with_a_plain_matcher(
        lines in proptest::collection::vec(any_rule(), 0..12),
        texts in proptest::collection::vec((any_text(), any_text(), any_text()), 1..12),
    ) {
        let policy = policy(&lines.join("\n"));
        for (user, exe, cmd) in texts {
            let text = text(&user, &exe, &cmd);
            let expected = plain_first(policy.rules(), &text);
            let expected = expected.map_or(Verdict::Report, Verdict::Ignored);
            prop_assert_eq!(judge(&policy, &text, NOW), expected);
        }
    }

    #[test]
    fn a_printed_policy_reads_back_as_the_same_rules(
        lines in proptest::collection::vec(any_rule(), 0..12),
        facts in proptest::collection::vec(any_facts(), 12),
    ) {
        let content: Vec<String> = lines
            .iter()
            .zip(facts)
            .map(|(line, facts)| format!("{facts}{}", line.lines().last().unwrap_or_default()))
            .collect();
        let written = policy(&content.join("\n"));
        let printed = print(written.rules());
        let read = policy(&printed);
        let facts = |policy: &Policy| -> Vec<(RuleKey, String, RuleFacts)> {
            let rules = policy.rules().iter();
            rules.map(|r| (r.key, r.value.clone(), r.facts.clone())).collect()
        };
        prop_assert_eq!(facts(&read), facts(&written), "{}", printed);
        prop_assert_eq!(print(read.rules()), printed);
    }

    #[test]
    fn no_file_makes_the_compiler_panic(content in "((p?(exe|cmd|user)|Include|#|#@ (expires|owner)=|x) ?:?[\\\\ -~é|()\\[\\]*+?{}]{0,12}(\n|\r\n|\r)){0,6}") {
        let remarks = match compile(vec![document("p", &content, "")]) {
            Ok((_, warnings)) => {
                prop_assert!(!crate::diagnostic::has_errors(&warnings));
                warnings
            }
            Err(errors) => {
                prop_assert!(crate::diagnostic::has_errors(&errors));
                errors
            }
        };
        for remark in remarks {
            prop_assert!(remark.line >= 1 && remark.line <= 7, "{remark:?}");
        }
    }
}
