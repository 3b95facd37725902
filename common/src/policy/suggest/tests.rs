//! What is offered for which process, and that every offer works.

use proptest::prelude::*;

use super::*;
use crate::clock::UnixMillis;
use crate::finding::{ProcessFacts, Subject};
use crate::id::BootId;
use crate::policy::{EffectivePolicy, Policy, PolicyDocument, PolicyFile, Verdict, judge};
use crate::process::{Cmdline, ProcessKey};

fn boot_id() -> BootId {
    BootId::from_slice(&[7; 16]).unwrap()
}

pub(super) fn finding(user: &[u8], exe: Option<&[u8]>, cmdline: Cmdline) -> Finding {
    let process = ProcessFacts {
        exe: exe.map(<[u8]>::to_vec),
        cmdline,
        ..ProcessFacts::default()
    };
    Finding {
        subject: Subject::Process(ProcessKey {
            boot_id: boot_id(),
            pid: 1,
            start_time: 1,
        }),
        indicators: Vec::new(),
        observed_at: UnixMillis(0),
        uid: 1,
        user: user.to_vec(),
        process: Some(process),
        host: None,
        actions: Vec::new(),
        quiet: false,
    }
}

pub(super) fn cmdline(raw: &[u8]) -> Cmdline {
    Cmdline {
        raw: raw.to_vec(),
        truncated: false,
    }
}

fn policy_of(line: &str) -> Policy {
    let file = PolicyFile {
        path: "p".to_owned(),
        content: line.as_bytes().to_vec(),
    };
    let document = PolicyDocument {
        name: "p".to_owned(),
        revision: 1,
        files: vec![file],
        settings: String::new(),
    };
    let (policy, warnings) = Policy::compile(&EffectivePolicy {
        documents: vec![document],
    })
    .unwrap();
    assert_eq!(warnings, [], "{line}");
    assert_eq!(policy.rules().len(), 1, "{line}");
    policy
}

/// Executable, raw command line, the lines that are offered, the first note.
type Case = (
    &'static [u8],
    &'static [u8],
    &'static [&'static str],
    &'static str,
);

const PROCESSES: &[Case] = &[
    (
        b"/usr/sbin/x",
        b"x\0-d\0",
        &["exe:/usr/sbin/x", "cmd:x -d", "user:bob"],
        EXE_NOTE,
    ),
    (
        b"/usr/sbin/x (deleted)",
        b"x\0",
        &["exe:/usr/sbin/x (deleted)", "cmd:x", "user:bob"],
        DELETED_NOTE,
    ),
    (
        b"/home/bob/x",
        b"x\0",
        &["exe:/home/bob/x", "cmd:x", "user:bob"],
        WRITABLE_NOTE,
    ),
    (
        b"/dev/shm/.x (deleted)",
        b"x\0",
        &["exe:/dev/shm/.x (deleted)", "cmd:x", "user:bob"],
        WRITABLE_NOTE,
    ),
    (
        b"/memfd:x (deleted)",
        b"x\0",
        &["exe:/memfd:x (deleted)", "cmd:x", "user:bob"],
        MEMFD_NOTE,
    ),
    (
        b"/usr/bin/perl",
        b"perl\0x\0",
        &["cmd:perl x", "user:bob"],
        CMD_NOTE,
    ),
    (
        b"/usr/bin/perl5.36 (deleted)",
        b"perl\0x\0",
        &["cmd:perl x", "user:bob"],
        CMD_NOTE,
    ),
    (
        b"/usr/bin/php-cgi",
        b"php\0",
        &["cmd:php", "user:bob"],
        CMD_NOTE,
    ),
    (b"/bin/dash", b"sh\0", &["cmd:sh", "user:bob"], CMD_NOTE),
    (b"/opt/lua5.4", b"lua\0", &["cmd:lua", "user:bob"], CMD_NOTE),
    (
        b"/usr/bin/nodejs-helper",
        b"n\0",
        &["exe:/usr/bin/nodejs-helper", "cmd:n", "user:bob"],
        EXE_NOTE,
    ),
    (b"/opt/a b", b"", &["exe:/opt/a b", "user:bob"], EXE_NOTE),
    (
        b"/opt/x.y ",
        b" z+\0",
        &["pexe:/opt/x\\.y\\x20", "pcmd:\\x20z\\+", "user:bob"],
        EXE_NOTE,
    ),
    (
        b"/opt/\xff\n\"",
        b"\t\0",
        &["exe:/opt/\\ff\\n\\\"", "user:bob"],
        EXE_NOTE,
    ),
];

#[test]
fn the_safest_line_comes_first_and_interpreters_get_none_for_their_path() {
    for (exe, raw, lines, note) in PROCESSES {
        let seen = suggest(&finding(b"bob", Some(exe), cmdline(raw)));
        assert_eq!(
            seen.iter().map(|s| s.line.as_str()).collect::<Vec<_>>(),
            *lines
        );
        assert_eq!(seen[0].note, *note, "{lines:?}");
    }
}

#[test]
fn an_interpreter_is_told_from_the_tools_that_bear_its_name() {
    for name in [
        "bash",
        "lua5.4",
        "perl",
        "perl5.36.0",
        "perl5.36-x86_64-linux-gnu",
        "python",
        "python3.11",
        "python3.9d",
        "python3.13t",
        "python3-dbg",
        "platform-python3.6",
        "pypy3",
        "php",
        "php8.2",
        "php-cgi",
        "php-fpm",
        "php-fpm8.2",
        "php-fpm82",
        "phpdbg",
        "lsphp",
        "lsphp.real",
        "ld-linux-x86-64.so.2",
        "ld-musl-x86_64.so.1",
        "ld.so",
        "perl (deleted)",
    ] {
        assert!(is_interpreter(&format!("/usr/bin/{name}")), "{name}");
    }
    for name in [
        "perlbug",
        "perldoc",
        "python3-config",
        "python3.11-config",
        "phpize",
        "php-config",
        "pythonista",
        "bashful",
        "ldconfig",
    ] {
        assert!(!is_interpreter(&format!("/usr/bin/{name}")), "{name}");
    }
}

#[test]
fn what_was_not_read_in_full_is_not_offered() {
    let truncated = Cmdline {
        raw: b"x\0".to_vec(),
        truncated: true,
    };
    let seen = suggest(&finding(b"bob", None, truncated));
    assert_eq!(
        seen.iter().map(|s| s.line.as_str()).collect::<Vec<_>>(),
        ["user:bob"]
    );
    let long = cmdline(&vec![b'x'; TEXT_BYTES_MAX + 1]);
    assert_eq!(suggest(&finding(b"", None, long)), []);
}

#[test]
fn an_account_is_ignored_by_its_name_alone() {
    let subject = Subject::Account {
        boot_id: boot_id(),
        uid: 1,
        since: UnixMillis(0),
    };
    let account = Finding {
        subject,
        process: None,
        ..finding(b"bob", None, cmdline(b""))
    };
    let expected = Suggestion {
        line: "user:bob".to_owned(),
        note: USER_NOTE,
    };
    assert_eq!(suggest(&account), [expected]);
}

pub(super) fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let odd =
        proptest::sample::select(b" \t\n\r\0\\\"#:|.*+?()[]{}^$-&~<>/a\xff\xc3\xa9\x0b".to_vec());
    proptest::collection::vec(prop_oneof![odd, any::<u8>()], 0..12)
}

proptest! {
    #[test]
    fn every_line_is_read_without_a_remark_and_ignores_its_process(
        user in hostile(), exe in hostile(), raw in hostile(),
    ) {
        let finding = finding(&user, Some(&exe), cmdline(&raw));
        let text = RuleText::of_finding(&finding);
        for suggestion in suggest(&finding) {
            prop_assert!(suggestion.line.bytes().all(|b| matches!(b, b' '..=b'~')));
            let verdict = judge(&policy_of(&suggestion.line), &text, UnixMillis(0));
            prop_assert!(matches!(verdict, Verdict::Ignored(_)), "{suggestion:?} {text:?}");
        }
    }
}
