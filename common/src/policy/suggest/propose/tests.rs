//! Which rule is proposed, what speaks against it, and that nothing hostile
//! makes it wider than one text or longer than its lines.

use proptest::prelude::*;

use super::*;
use crate::clock::UnixMillis;
use crate::finding::Subject;
use crate::id::BootId;
use crate::policy::suggest::tests::{cmdline, finding, hostile};
use crate::policy::{EffectivePolicy, Policy, PolicyDocument, Verdict, judge};
use crate::process::ProcessKey;

const KEYS: [RuleKey; 5] = [
    RuleKey::Exe,
    RuleKey::Pexe,
    RuleKey::User,
    RuleKey::Cmd,
    RuleKey::Pcmd,
];

fn compiled(files: Vec<PolicyFile>) -> Policy {
    let document = PolicyDocument {
        name: "p".into(),
        revision: 1,
        files,
        settings: String::new(),
    };
    let effective = EffectivePolicy {
        documents: vec![document],
    };
    Policy::compile(&effective).unwrap().0
}

/// Executable, uid, the line without a wish, objections that can be forced,
/// objections that cannot.
type Case = (&'static [u8], u32, &'static str, usize, usize);

const CASES: &[Case] = &[
    (b"/usr/sbin/x", 1000, "exe:/usr/sbin/x", 0, 0),
    (b"/opt/agent/x", 1000, "exe:/opt/agent/x", 0, 0),
    (b"/var/lib/agent/x", 0, "exe:/var/lib/agent/x", 0, 0),
    (b"/var/lib/agent/x", 1000, "exe:/var/lib/agent/x", 1, 0),
    (b"/opt/bob/x", 1000, "exe:/opt/bob/x", 1, 0),
    (b"/home/bob/x", 0, "exe:/home/bob/x", 1, 0),
    (b"/tmp/x", 1000, "exe:/tmp/x", 1, 0),
    (b"/homeassistant/x", 0, "exe:/homeassistant/x", 0, 0),
    (b"/home2/bob/x", 0, "exe:/home2/bob/x", 1, 0),
    (
        b"/usr/lib/bob/sbin/x",
        1000,
        "exe:/usr/lib/bob/sbin/x",
        0,
        0,
    ),
    (b"/usr/libexec/bob/x", 1000, "exe:/usr/libexec/bob/x", 0, 0),
    (b"/usr/local/bob/x", 1000, "exe:/usr/local/bob/x", 1, 0),
    (b"/library/x", 1000, "exe:/library/x", 1, 0),
    (b"/lib64/x", 1000, "exe:/lib64/x", 0, 0),
    (b"/var/www/x", 0, "exe:/var/www/x", 1, 0),
    (b"/srv/x", 0, "exe:/srv/x", 1, 0),
    (b"/var/spool/x", 0, "exe:/var/spool/x", 1, 0),
    (b"/var/cache/x", 0, "exe:/var/cache/x", 1, 0),
    (b"/dev/fd/9", 0, "exe:/dev/fd/9", 1, 0),
    (b"(unreachable)/x", 0, "exe:(unreachable)/x", 1, 0),
    (b"/usr/bin/python3.11", 1000, "cmd:x -d", 0, 0),
    (b"/lib64/ld-linux-x86-64.so.2", 1000, "cmd:x -d", 0, 0),
    (
        b"/usr/sbin/x (deleted)",
        0,
        "exe:/usr/sbin/x (deleted)",
        0,
        1,
    ),
    (b"/memfd:x (deleted)", 0, "exe:/memfd:x (deleted)", 1, 1),
    (b"", 1000, "cmd:x -d", 0, 0),
];

#[test]
fn the_safest_rule_comes_without_a_wish_and_unsafe_ones_with_objections() {
    for &(exe, uid, line, forced, never) in CASES {
        let mut finding = finding(b"bob", Some(exe), cmdline(b"x\0-d\0"));
        finding.uid = uid;
        let proposal = propose(&finding, None).unwrap();
        assert_eq!(proposal.rule.line, line);
        let count = |can| {
            let objections = proposal.objections.iter();
            objections.filter(|o| o.can_be_forced == can).count()
        };
        assert_eq!((count(true), count(false)), (forced, never), "{proposal:?}");
    }
}

#[test]
fn no_wish_and_no_force_gets_an_interpreter_or_a_deleted_executable_by_its_path() {
    for key in [RuleKey::Exe, RuleKey::Pexe] {
        let perl = finding(b"bob", Some(b"/usr/bin/perl"), cmdline(b"perl\0x\0"));
        let objections = propose(&perl, Some(key)).unwrap().objections;
        assert!(
            objections.iter().any(|o| !o.can_be_forced),
            "{objections:?}"
        );

        let mut replaced = finding(b"bob", Some(b"/usr/sbin/x"), cmdline(b"x\0"));
        if let Some(process) = &mut replaced.process {
            process.exe_deleted = true;
        }
        let objections = propose(&replaced, Some(key)).unwrap().objections;
        assert!(
            objections.iter().any(|o| !o.can_be_forced),
            "{objections:?}"
        );
    }
}

/// A rule that does not name the program is no way around its objections.
#[test]
fn what_may_be_anybodys_program_is_ignored_by_command_line_or_account_only_by_force() {
    for (exe, is_free) in [
        (&b"/usr/sbin/x"[..], true),
        (b"/usr/bin/python3.11", true),
        (b"", true),
        (b"/tmp/x", false),
        (b"/home/bob/x", false),
        (b"/memfd:x (deleted)", false),
        (b"/usr/sbin/x (deleted)", false),
    ] {
        let finding = finding(b"bob", Some(exe), cmdline(b"x\0-d\0"));
        for key in [RuleKey::Cmd, RuleKey::Pcmd, RuleKey::User, RuleKey::Puser] {
            let objections = propose(&finding, Some(key)).unwrap().objections;
            let exe = String::from_utf8_lossy(exe);
            assert_eq!(objections.is_empty(), is_free, "{exe} {objections:?}");
            assert!(objections.iter().all(|o| o.can_be_forced));
        }
    }
}

/// Executable, raw command line, working directory, whether nothing speaks
/// against a rule.
type ScriptCase = (&'static [u8], &'static [u8], &'static [u8], bool);

/// An interpreter's command line is as good as the script that it names.
#[test]
fn a_script_that_others_can_replace_is_ignored_by_command_line_only_by_force() {
    let cases: [ScriptCase; 14] = [
        (b"/usr/bin/perl", b"perl\0/dev/shm/x/s.pl\0", b"/", false),
        (b"/usr/bin/perl", b"perl\0-w\0/tmp/a b\0", b"/", false),
        (
            b"/usr/bin/perl",
            b"perl\0/usr/share/s.pl\0-d\0",
            b"/tmp",
            true,
        ),
        (b"/usr/bin/perl", b"perl\0s.pl\0", b"/home/bob", false),
        (b"/usr/bin/perl", b"perl\0s.pl\0", b"/usr/share/x", true),
        (b"/usr/bin/perl", b"perl\0./s.pl\0", b"/tmp", false),
        (
            b"/usr/bin/perl",
            b"perl\0-I/tmp/lib\0/usr/share/s.pl\0",
            b"/",
            false,
        ),
        (
            b"/usr/bin/php",
            b"php\0--define=x=/tmp/y\0/usr/share/s\0",
            b"/",
            false,
        ),
        (b"/usr/bin/perl", b"perl /dev/shm/s.pl", b"/", false),
        (b"/bin/sh", b"sh\0/usr/bin/x\0/dev/null\0", b"/tmp", true),
        (b"/usr/sbin/php-fpm8.2", b"php-fpm: pool www\0", b"/", true),
        (b"/usr/bin/perl", b"/tmp/perl\0", b"/", false),
        (b"/usr/sbin/x", b"x\0/tmp/data\0", b"/tmp", true),
        (b"/lib64/ld-linux-x86-64.so.2", b"ld\0/tmp/x\0", b"/", false),
    ];
    for (exe, raw, cwd, is_free) in cases {
        let mut finding = finding(b"bob", Some(exe), cmdline(raw));
        if let Some(process) = &mut finding.process {
            process.cwd = Some(cwd.to_vec());
        }
        for key in [RuleKey::Cmd, RuleKey::Pcmd] {
            let objections = propose(&finding, Some(key)).unwrap().objections;
            let raw = raw.escape_ascii();
            assert_eq!(objections.is_empty(), is_free, "{raw} {objections:?}");
            assert!(objections.iter().all(|o| o.can_be_forced));
        }
    }
}

#[test]
fn an_account_is_proposed_by_name_and_root_only_by_force() {
    let mut root = finding(b"root", None, cmdline(b""));
    root.uid = 0;
    root.process = None;
    let proposal = propose(&root, None).unwrap();
    assert_eq!(proposal.rule.line, "user:root");
    assert!(proposal.objections.iter().all(|o| o.can_be_forced));
    assert_eq!(proposal.objections.len(), 1);
    assert_eq!(
        propose(&root, Some(RuleKey::Exe)),
        Err(NoRule::Unread("exe"))
    );
}

fn about(subject: Subject) -> Finding {
    Finding {
        subject,
        indicators: Vec::new(),
        observed_at: UnixMillis(1),
        uid: 1000,
        user: b"bob".to_vec(),
        process: None,
        host: None,
        actions: Vec::new(),
        quiet: false,
    }
}

#[test]
fn a_finding_without_a_rule_says_why_by_what_it_is_about() {
    let boot_id = BootId::from_slice(&[1; 16]).unwrap();
    let since = UnixMillis(1);
    let key = ProcessKey {
        boot_id,
        pid: 1,
        start_time: 1,
    };
    let account = Subject::Account {
        boot_id,
        uid: 1000,
        since,
    };
    for (subject, words) in [
        (Subject::Process(key), "was not read in full"),
        (account, "about an account over a limit"),
        (Subject::Host { boot_id, since }, "about the host itself"),
    ] {
        let finding = about(subject);
        let refused = propose(&finding, Some(RuleKey::Exe)).unwrap_err();
        let why = refused.to_string();
        assert!(why.contains(words), "{subject:?}: {why}");
    }
    let host = about(Subject::Host { boot_id, since });
    assert!(propose(&host, None).is_err(), "no rule covers a host");
    assert!(propose(&about(account), None).is_ok(), "by its name");
}

#[test]
fn facts_that_do_not_fit_on_their_line_are_refused() {
    for (expires, owner, reason) in [
        ("2027-02-30", "ops", "why"),
        ("soon", "ops", "why"),
        ("", "ops", "why\nexe:/bin/sh"),
        ("", "ops", "why\r"),
        ("", "ops\u{85}", "why"),
        ("", "ops", "\u{1b}[2J"),
    ] {
        assert!(rule_facts(expires, owner, reason).is_err(), "{reason:?}");
    }
    assert!(rule_facts("", "ops", &"x".repeat(600)).is_err());
    let facts = rule_facts("2027-01-31", "root", "a \"b\" \\ #@ c").unwrap();
    let line = facts.to_string();
    assert_eq!(
        line,
        "#@ expires=2027-01-31 owner=root reason=\"a \\\"b\\\" \\\\ #@ c\""
    );
}

#[test]
fn the_rule_is_added_behind_what_there_is() {
    let file = |content: &[u8]| PolicyFile {
        path: "web.pignore".into(),
        content: content.to_vec(),
    };
    let facts = rule_facts("", "", "why").unwrap();
    let second = file(b"exe:/second\n");
    let added = with_rule(&[file(b"exe:/a"), second.clone()], &facts, "exe:/b");
    assert_eq!(added, [file(b"exe:/a\n#@ reason=why\nexe:/b\n"), second]);
    let added = with_rule(&[], &RuleFacts::default(), "exe:/b");
    assert_eq!(added[0].content, b"exe:/b\n");
    assert_eq!(added[0].path, FILE_NAME);
}

fn reason() -> impl Strategy<Value = String> {
    let odd = proptest::sample::select(
        "\"\\#@=:\n\r\t \u{85}\u{2028}\u{202e}é"
            .chars()
            .collect::<Vec<_>>(),
    );
    proptest::collection::vec(prop_oneof![odd, any::<char>()], 1..20)
        .prop_map(|chars| chars.into_iter().collect())
}

proptest! {
    #[test]
    fn a_proposed_rule_ignores_its_process_and_adds_nothing_else(
        user in hostile(), exe in hostile(), raw in hostile(), reason in reason(),
        key in proptest::sample::select(KEYS.to_vec()),
    ) {
        let finding = finding(&user, Some(&exe), cmdline(&raw));
        let text = RuleText::of_finding(&finding);
        let (Ok(proposal), Ok(facts)) = (propose(&finding, Some(key)), rule_facts("", "ops", &reason))
        else { return Ok(()) };
        let before = PolicyFile { path: "p".into(), content: b"exe:/bin/one\r\n# end".to_vec() };
        let policy = compiled(with_rule(&[before], &facts, &proposal.rule.line));
        prop_assert_eq!(policy.rules().len(), 2);
        let line = &proposal.rule.line;
        let added = policy.rules().iter().find(|rule| rule.to_string() == *line).unwrap();
        prop_assert_eq!(&added.facts, &facts);
        let verdict = judge(&policy, &text, UnixMillis(0));
        prop_assert!(matches!(verdict, Verdict::Ignored(_)), "{:?} {:?}", proposal, text);
    }

    #[test]
    fn a_proposed_rule_covers_no_other_text(
        user in hostile(), exe in hostile(), raw in hostile(),
        other_user in hostile(), other_exe in hostile(), other_raw in hostile(),
        key in proptest::sample::select(KEYS.to_vec()),
    ) {
        let this = finding(&user, Some(&exe), cmdline(&raw));
        let other = finding(&other_user, Some(&other_exe), cmdline(&other_raw));
        let (seen, unseen) = (RuleText::of_finding(&this), RuleText::of_finding(&other));
        let same = match key {
            RuleKey::Exe | RuleKey::Pexe => seen.exe == unseen.exe,
            RuleKey::User | RuleKey::Puser => seen.user == unseen.user,
            RuleKey::Cmd | RuleKey::Pcmd => seen.cmd == unseen.cmd,
        };
        let Ok(proposal) = propose(&this, Some(key)) else { return Ok(()) };
        let policy = compiled(with_rule(&[], &RuleFacts::default(), &proposal.rule.line));
        let ignored = matches!(judge(&policy, &unseen, UnixMillis(0)), Verdict::Ignored(_));
        prop_assert_eq!(ignored, same, "{:?} {:?}", proposal, unseen);
    }
}
