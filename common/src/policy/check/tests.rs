//! Which warnings which lines get.

use super::*;
use crate::policy::PolicyDocument;

/// 2026-11-23T09:00:00Z.
const NOW: UnixMillis = UnixMillis(1_795_424_400_000);

fn checked(content: &str) -> Result<(Policy, Vec<Diagnostic>), Vec<Diagnostic>> {
    let file = PolicyFile {
        path: "p".into(),
        content: content.as_bytes().to_vec(),
    };
    let document = PolicyDocument {
        name: "p".into(),
        revision: 1,
        files: vec![file],
        settings: String::new(),
    };
    check(
        &EffectivePolicy {
            documents: vec![document],
        },
        NOW,
    )
}

/// Line, column and id of each warning.
fn warnings(content: &str) -> Vec<(u32, u32, String)> {
    let id = |message: &str| {
        let (_, id) = message.rsplit_once('[').unwrap_or_default();
        id.trim_end_matches(']').to_owned()
    };
    let (_, warnings) = checked(content).unwrap();
    warnings
        .iter()
        .map(|w| (w.line, w.column, id(&w.message)))
        .collect()
}

#[test]
fn each_doubtful_line_gets_the_warning_that_is_about_it() {
    let cases: [(&str, &[&str]); 58] = [
        ("exe:/usr/sbin/sshd", &[]),
        ("exe:/usr/bin/perl", &["interpreter"]),
        ("exe:/opt/x/bin/python3.12", &["interpreter"]),
        ("exe:/usr/local/bin/lsphp", &["interpreter"]),
        ("exe:/usr/bin/perl5.36.0", &["interpreter"]),
        ("pexe:/usr/s?bin/.*", &["interpreter"]),
        ("pexe:/usr/bin/(?!x)php", &["interpreter"]),
        (
            "pexe:/opt/cpanel/ea-php\\d+/root/usr/bin/php",
            &["interpreter"],
        ),
        ("pexe:/usr/bin/python3\\.9", &["interpreter"]),
        ("pexe:/opt/x/(perl|tool)5\\.8", &["interpreter"]),
        ("pexe:/opt/x/(person|tool)", &[]),
        ("pexe:/usr/sbin/[a-z]+d", &[]),
        ("pexe:.*/node_exporter", &["writable-path"]),
        ("pexe:/(usr|tmp)/x", &["writable-path"]),
        ("pexe:(?i)/TMP/x", &["writable-path"]),
        ("pexe:/[^/]+/tmpfs", &["writable-path"]),
        ("pexe:/tmpfs/x", &[]),
        ("pexe:.*", &["everything"]),
        ("pexe:/.*", &["everything"]),
        ("pexe:(?!/opt/one).*", &["everything"]),
        ("pexe:(/opt/x)?", &["empty"]),
        ("exe:/tmp/x", &["writable-path"]),
        ("exe:/home/bob/bin/x", &["writable-path"]),
        ("exe:/home2/bob/x", &["writable-path"]),
        ("exe:/opt/tmp/x", &[]),
        ("pexe:/tmp/build-\\d+/x", &["writable-path"]),
        ("pexe:\\/var\\/tmp\\/x", &["writable-path"]),
        ("pexe:(?:/opt|/dev/shm/x)", &["writable-path"]),
        ("pexe:/[a-z]+/bob/x", &["writable-path"]),
        ("pexe:/opt/tmp/.*", &[]),
        ("cmd:spamd child", &["command-line"]),
        ("pcmd:spamd.*", &["command-line"]),
        ("#@ reason=\"no other way\"\ncmd:spamd child", &[]),
        ("#@ reason=x\npcmd:(?!x)(\\S|\\S\\S|\\s)*(?=!)!", &["slow"]),
        ("pcmd:.+", &["everything"]),
        ("#@ reason=x\npcmd:.+", &["everything"]),
        ("user:mysql", &[]),
        ("user:bob", &["user"]),
        ("user:root", &["user"]),
        ("puser:web\\d+", &["user"]),
        ("#@ reason=x\npuser:web\\d+", &[]),
        ("puser:[a-z0-9._-]+", &["everything"]),
        ("#@ expires=2026-11-22\nexe:/a", &["expired"]),
        ("#@ expires=2026-11-29\nexe:/a", &["expires-soon"]),
        ("#@ expires=2026-11-30\nexe:/a", &[]),
        ("exe:/a \t", &["trailing-space"]),
        ("pexe:/a|/b", &["alternation"]),
        ("exe:/a\r\n", &["line-ends"]),
        ("exec:/a", &["unknown-line"]),
        ("exe:/usr/bin/python3-config", &[]),
        ("exe:/usr/bin/perlbug", &[]),
        ("exe:/homeassistant/bin/hass", &[]),
        ("pexe:/homeassistant/bin/.*", &[]),
        ("pexe:/home\\d/bob/x", &["writable-path"]),
        ("pexe:(?!x)/homeassistant/x", &[]),
        ("pexe:(?!x)/home\\d*/bob/x", &["writable-path"]),
        ("pexe:(?!x)/opt/my/bin/python3.9", &["interpreter"]),
        ("pexe:(?!x)/opt/my/bin/python3-config", &[]),
    ];
    for (content, expected) in cases {
        let seen: Vec<_> = warnings(content).into_iter().map(|w| w.2).collect();
        assert_eq!(seen, expected, "{content}");
    }
}

#[test]
fn what_can_match_nothing_is_told_of() {
    let cases: [(&str, &[&str]); 11] = [
        ("exe: /usr/sbin/sshd", &["never"]),
        ("pexe: /usr/sbin/.*d", &["never"]),
        ("#@ reason=x\ncmd: spamd", &["never"]),
        ("#@ reason=x\npcmd: spamd", &["never"]),
        ("exe:sshd", &["never"]),
        ("exe:(unreachable)/x", &[]),
        ("exe:memfd:x", &[]),
        ("exe:", &["never"]),
        ("#@ reason=x\ncmd:", &["empty"]),
        ("exe:/usr/bin/*", &["never"]),
        ("exe:/opt/x?", &["never"]),
    ];
    for (content, expected) in cases {
        let seen: Vec<_> = warnings(content).into_iter().map(|w| w.2).collect();
        assert_eq!(seen, expected, "{content}");
    }
}

#[test]
fn an_interpreter_is_named_as_far_as_the_pattern_says_it() {
    for (content, words) in [
        ("exe:/usr/bin/perl", "covers the interpreter /usr/bin/perl:"),
        (
            "pexe:/usr/s?bin/.*",
            "covers interpreters such as /usr/bin/",
        ),
        ("pexe:/opt/[^/]+/bin/perl", "because it ends in /bin/perl:"),
        ("pexe:/srv/x/.*/perl", "because it ends in /perl:"),
        ("pexe:(?!x)/srv/bin/perl", "because it ends in /bin/perl:"),
    ] {
        let (_, warnings) = checked(content).unwrap();
        let message = &warnings[0].message;
        assert!(message.contains(words), "{content}: {message}");
    }
}

#[test]
fn duplicates_and_shadowed_rules_name_the_other_one() {
    let content = "exe:/a/b\nEXE: /x\nexe:/a/b\npexe:/a/[bc]\nexe:/a/c\n\
                   #@ expires=2027-01-31\npexe:/d/.\nexe:/d/e\n#@ expires=2027-01-30\nexe:/d/f\n\
                   pexe:/a/[bc]\n";
    let expected = [
        (1, 5, "shadowed"),
        (2, 5, "never"),
        (3, 5, "duplicate"),
        (5, 5, "shadowed"),
        (10, 5, "shadowed"),
        (11, 6, "duplicate"),
    ];
    let expected = expected.map(|(line, column, id)| (line, column, id.to_owned()));
    assert_eq!(warnings(content), expected);
    let (_, remarks) = checked(content).unwrap();
    assert!(remarks[2].message.contains("p:1 "), "{:?}", remarks[2]);
    assert!(remarks[3].message.contains("p:4 "), "{:?}", remarks[3]);
}

#[test]
fn a_pattern_under_an_open_one_is_shadowed_and_one_that_outlives_it_is_not() {
    for (content, lines) in [
        ("pexe:/opt/x/.*\npexe:/opt/x/[ab]\n", &[2][..]),
        ("pexe:/opt/x/.*\npexe:/opt/x/bin/.*\n", &[2]),
        ("pexe:/opt/x/bin/.*\npexe:/opt/x/.*\n", &[1]),
        ("pexe:/opt/x/.*\npexe:/opt/(x|y)/bin\n", &[]),
        ("pexe:/opt/(x|y)/.*\npexe:/opt/(x|y)/bin\n", &[2]),
        ("pexe:/opt/(x|y)/.*\npexe:/opt/(x|y)/bin/.*\n", &[2]),
        ("pexe:/opt/x/[^/]*\npexe:/opt/x/.*\n", &[1]),
        ("pexe:/opt/x/[^/]*\npexe:/opt/x/b.*\n", &[]),
        ("pexe:/opt/x/.*\npexe:/opt/.*x\n", &[]),
        (
            "#@ expires=2027-01-31\npexe:/opt/x/.*\npexe:/opt/x/bin/.*\n",
            &[],
        ),
        ("#@ reason=x\npcmd:a .*\n#@ reason=x\npcmd:a b.*\n", &[4]),
        ("pexe:/opt/x/.*\n#@ reason=x\npcmd:/opt/x/b.*\n", &[]),
    ] {
        let shadowed = warnings(content).into_iter().filter(|w| w.2 == "shadowed");
        let seen: Vec<u32> = shadowed.map(|warning| warning.0).collect();
        assert_eq!(seen, lines, "{content}");
    }
}

#[test]
fn errors_come_with_the_warnings_about_the_text_and_the_other_rules() {
    let remarks = checked("exe:/a \npexe:(\nexe:/tmp/x\n").unwrap_err();
    let places: Vec<_> = remarks
        .iter()
        .map(|r| (r.level, r.line, r.column))
        .collect();
    let expected = [
        (Level::Warning, 1, 7),
        (Level::Error, 2, 6),
        (Level::Warning, 3, 5),
    ];
    assert_eq!(places, expected, "{remarks:?}");
}
