//! Tables of files and what is said about them.

use super::*;

fn document(files: &[(&str, &[u8])]) -> PolicyDocument {
    let file = |(path, content): &(&str, &[u8])| PolicyFile {
        path: (*path).to_owned(),
        content: content.to_vec(),
    };
    PolicyDocument {
        name: "web".to_owned(),
        revision: 3,
        files: files.iter().map(file).collect(),
        settings: String::new(),
    }
}

/// Rules as `file:line key:value`, remarks as `file:line:column message | help`.
fn parsed(files: &[(&str, &[u8])]) -> (Vec<String>, Vec<String>) {
    let outcome = parse(&document(files));
    let rules = outcome.rules.iter().map(|parsed| {
        let RuleOrigin { file, line, .. } = &parsed.rule.origin;
        format!("{file}:{line} {}", parsed.rule)
    });
    let say = |d: Diagnostic| {
        let level = if d.level == Level::Error { "!" } else { "" };
        format!(
            "{level}{}:{}:{} {} | {}",
            d.file, d.line, d.column, d.message, d.help
        )
    };
    (
        rules.collect(),
        outcome.remarks.into_vec("p").into_iter().map(say).collect(),
    )
}

#[test]
fn one_file_is_read_with_every_remark_at_its_place() {
    let no_rule = "this line is no rule and is passed over [unknown-line]";
    let begin =
        "begin the line with exe:, pexe:, user:, puser:, cmd: or pcmd:, or with # for a comment";
    let cases: [(&[u8], &[&str], &[String]); 16] = [
        (b"", &[], &[]),
        (b"# a\n\nexe:/a \nCMD:b c\t\n", &["p:3 exe:/a", "p:4 cmd:b c"], &[]),
        (b"#@ expires=2027-01-31 owner=ops\nuser:bob\n", &["p:2 user:bob"], &[]),
        (b"exe:/a\r\nuser:b\r\n", &["p:1 exe:/a", "p:2 user:b"],
            &["p:1:0 the file has CRLF line ends, which lfd misreads [line-ends] | they are understood here; save the file with LF line ends for lfd".to_owned()]),
        (b"exe:/a\ruser:b\r", &["p:1 exe:/a", "p:2 user:b"],
            &["p:1:0 the file has CR line ends, which lfd misreads [line-ends] | they are understood here; save the file with LF line ends for lfd".to_owned()]),
        (b"exec:/a\nexe:/b", &["p:2 exe:/b"], &[format!("p:1:1 {no_rule} | did you mean 'exe:'?")]),
        (b"pexec:/a", &[], &[format!("p:1:1 {no_rule} | did you mean 'pexe:'?")]),
        (b"usr:bob", &[], &[format!("p:1:1 {no_rule} | did you mean 'user:'?")]),
        (b"/usr/sbin/x", &[], &[format!("p:1:1 {no_rule} | {begin}")]),
        (b"\xff\xfe:x", &[], &[format!("p:1:1 {no_rule} | {begin}")]),
        (b"include /x", &[], &[format!("p:1:1 {no_rule} | begin the line with 'Include ', with a capital I")]),
        (b"Include ", &[], &["!p:1:1 Include names no file | write Include /path/to/file".to_owned()]),
        (b"Include /x\xff", &[], &["!p:1:1 the path of this Include is not UTF-8 | rename the file, or leave it out".to_owned()]),
        (b"exe:/caf\xe9\nuser:x\n", &["p:2 user:x"],
            &["!p:1:9 byte 0xe9 is not UTF-8 text | write \\e9 for this byte, as findings and mails show it".to_owned()]),
        ("pcmd:é.*".as_bytes(), &["p:1 pcmd:é.*"],
            &["p:1:6 byte 0xc3 can never match: rules see the printable form of a text [not-ascii] | write \\\\c3 for this byte, as findings and mails show it".to_owned()]),
        (b"cmd:a\tb", &["p:1 cmd:a\tb"],
            &["p:1:6 byte 0x09 can never match: rules see the printable form of a text [not-ascii] | write \\t for this byte, as findings and mails show it".to_owned()]),
    ];
    for (content, rules, remarks) in cases {
        let (seen_rules, seen_remarks) = parsed(&[("p", content)]);
        assert_eq!(seen_rules, rules, "{}", content.escape_ascii());
        assert_eq!(seen_remarks, remarks, "{}", content.escape_ascii());
    }
}

#[test]
fn included_rules_stand_where_the_include_is_and_only_once() {
    let (rules, remarks) = parsed(&[
        ("p", b"exe:/1\nInclude /a\nexe:/4\nInclude /b\n"),
        ("/a", b"exe:/2\nInclude /b\n"),
        ("/b", b"exe:/3\n"),
        ("/unused", b"exe:/9\n"),
    ]);
    assert_eq!(
        rules,
        ["p:1 exe:/1", "/a:1 exe:/2", "/b:1 exe:/3", "p:3 exe:/4"]
    );
    assert_eq!(remarks, [""; 0]);
}

#[test]
fn missing_and_circular_includes_are_errors_at_their_line() {
    let (rules, remarks) = parsed(&[
        ("p", b"Include /a\nInclude /gone\nexe:/1\n"),
        ("/a", b"exe:/2\nInclude /b\n"),
        ("/b", b"\nInclude /a\nInclude /b\nInclude p"),
    ]);
    assert_eq!(rules, ["/a:1 exe:/2", "p:3 exe:/1"]);
    let help = "remove one of these Include lines";
    assert_eq!(
        remarks,
        [
            format!("!/b:2:1 this Include closes a circle: /a -> /b -> /a | {help}"),
            format!("!/b:3:1 this Include closes a circle: /b -> /b | {help}"),
            format!("!/b:4:1 this Include closes a circle: p -> /a -> /b -> p | {help}"),
            "!p:2:1 the included file '/gone' is missing from the policy \
             | add the file to the policy, or remove this line"
                .to_owned(),
        ]
    );
}

#[test]
fn too_big_a_policy_is_refused_before_it_is_read() {
    let big = vec![b'#'; POLICY_BYTES_MAX];
    assert_eq!(parsed(&[("p", &big)]).1, [""; 0]);
    let (_, remarks) = parsed(&[("p", &big), ("/a", b"#")]);
    assert_eq!(remarks.len(), 1);
    assert!(
        remarks[0].starts_with("!p:0:0 the files of the policy have 2097153 bytes"),
        "{remarks:?}"
    );
    let many: Vec<(&str, &[u8])> = vec![("p", b""); POLICY_FILES_MAX + 1];
    assert!(parsed(&many).1[0].starts_with("!p:0:0 the policy has more than 64 files"));
}

#[test]
fn a_file_that_is_no_pignore_file_fills_no_memory_with_remarks() {
    let (_, remarks) = parsed(&[("p", &b"x\n".repeat(5000))]);
    assert_eq!(remarks.len(), REMARKS_MAX + 1);
    assert!(
        remarks
            .last()
            .unwrap()
            .starts_with("p:0:0 4000 more remarks are not shown")
    );
}
