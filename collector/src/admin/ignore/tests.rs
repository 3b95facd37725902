//! What is said of a rule before it is published.

use procwarden_common::policy::PolicyFile;

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
