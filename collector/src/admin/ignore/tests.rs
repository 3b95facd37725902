//! What is said of a rule before it is published, and of a finding that gets
//! none.

use procwarden_common::id::BootId;
use procwarden_common::policy::PolicyFile;
use procwarden_common::process::ProcessKey;

use super::*;

/// In November 2026.
const NOW: UnixMillis = UnixMillis(1_795_424_400_000);

fn file(text: &str) -> PolicyFile {
    PolicyFile {
        path: "web.pignore".into(),
        content: text.into(),
    }
}

/// The ids of the remarks on a rule that is added to these, with their lines.
fn said(rules: &str, rule: &str) -> Vec<(u32, String)> {
    let before = [file(rules)];
    let facts = RuleFacts {
        reason: Some("why".into()),
        ..RuleFacts::default()
    };
    let next = PolicyDocument {
        name: "web".into(),
        revision: 2,
        files: with_rule(&before, &facts, rule),
        settings: String::new(),
    };
    let remarks = remarks::about_last_rule(&before, next, NOW).into_iter();
    remarks
        .map(|r| {
            let id = r.message.rsplit(' ').next();
            (r.line, id.unwrap_or_default().to_owned())
        })
        .collect()
}

#[test]
fn the_check_of_the_new_rule_is_said_and_not_that_of_the_others() {
    let others = "exe:/usr/bin/perl\nexe:/opt/a\nexe:/opt/ab\npexe:/srv/.*\n";
    let one = |line, id: &str| vec![(line, id.to_owned())];
    assert_eq!(said(others, "exe:/usr/sbin/nginx"), []);
    assert_eq!(said(others, "exe:/tmp/x"), one(6, "[writable-path]"));
    assert_eq!(said(others, "exe:/opt/a"), one(6, "[duplicate]"));
    assert_eq!(said(others, "exe:/srv/x"), one(6, "[shadowed]"));
    let covering = said(others, "pexe:/opt/ab");
    assert_eq!(covering, one(3, "[shadowed]"), "by the new one");
    assert_eq!(said("", "exe:/tmp/x"), one(2, "[writable-path]"));
}

fn about(subject: Subject) -> Finding {
    Finding {
        subject,
        indicators: Vec::new(),
        observed_at: NOW,
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
    let since = NOW;
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
        let why = why_no_rule(&finding, &refused);
        assert!(why.contains(words), "{subject:?}: {why}");
    }
    let host = about(Subject::Host { boot_id, since });
    assert!(propose(&host, None).is_err(), "no rule covers a host");
    assert!(propose(&about(account), None).is_ok(), "by its name");
}
