//! Tables of files and what is said about them.

use std::time::Duration;

use proptest::prelude::*;

use super::TomlFile;
use crate::diagnostic::Diagnostic;

/// Reads every kind of key once.
fn read(text: &str) -> Vec<Diagnostic> {
    let file = match TomlFile::parse("x.toml", text) {
        Ok(file) => file,
        Err(diagnostics) => return diagnostics,
    };
    let root = file.root();
    drop(root.take_string("name"));
    _ = root.take_u64("count", 1..=10);
    _ = root.take_bool("on");
    _ = root.take_duration("wait", Duration::from_secs(1)..=Duration::from_secs(3600));
    _ = root.take_choice("mode", &[("auto", 1), ("off", 2)]);
    drop(root.take_string_list("to"));
    _ = root.take_with("port", |text| text.parse::<u16>());
    let smtp = root.section("mail").section("smtp");
    drop(smtp.take_string("host"));
    for route in root.take_array_of_sections("route") {
        if route.take_string("to").is_none() {
            route.missing("to", "name who gets the mail");
        }
    }
    file.finish()
}

/// Line, column, what is wrong, what to write.
type Remark = (u32, u32, &'static str, &'static str);

const WRONG_VALUES: &[(&str, &[Remark])] = &[
    ("", &[]),
    ("# only a comment", &[]),
    (
        "name = 'a'\ncount = 0xa\non = true\nwait = '5m'\nmode = 'off'\nto = ['a']\n",
        &[],
    ),
    ("wait = 60", &[]),
    (
        "name = 1",
        &[(1, 8, "'name' is a whole number", "write a string")],
    ),
    (
        "\nname = ['x']",
        &[(2, 8, "'name' is a list", "write a string")],
    ),
    (
        "count = 0",
        &[(1, 9, "'count' is out of range", "use a number from 1 to 10")],
    ),
    (
        "count = -1",
        &[(1, 9, "'count' is out of range", "use a number from 1 to 10")],
    ),
    (
        "count = 99999999999999999999",
        &[(1, 9, "'count' is out of range", "use a number from 1 to 10")],
    ),
    (
        "count = 1.5",
        &[(
            1,
            9,
            "'count' is a number with a fraction",
            "write a whole number",
        )],
    ),
    (
        "count = '1'",
        &[(1, 9, "'count' is a string", "write a whole number")],
    ),
    (
        "on = 1",
        &[(1, 6, "'on' is a whole number", "write true or false")],
    ),
    (
        "wait = 0",
        &[(
            1,
            8,
            "'wait' is out of range",
            "use a duration from 1s to 1h",
        )],
    ),
    (
        "wait = -5",
        &[(
            1,
            8,
            "'wait' is out of range",
            "use a duration from 1s to 1h",
        )],
    ),
    (
        "wait = '2h'",
        &[(
            1,
            8,
            "'wait' is out of range",
            "use a duration from 1s to 1h",
        )],
    ),
    (
        "wait = 'soon'",
        &[(
            1,
            8,
            "'wait' is not a duration: write a number with s, m, h or d, such as 30s, 5m, 24h or 30d",
            "",
        )],
    ),
    (
        "wait = true",
        &[(
            1,
            8,
            "'wait' is true or false",
            "write a duration such as '30s', '5m' or '24h'",
        )],
    ),
    (
        "mode = 'of'",
        &[(
            1,
            8,
            "'mode' has the unknown value 'of'",
            "did you mean 'off'?",
        )],
    ),
    (
        "mode = 'banana'",
        &[(
            1,
            8,
            "'mode' has the unknown value 'banana'",
            "use one of 'auto', 'off'",
        )],
    ),
    (
        "to = 'a'",
        &[(1, 6, "'to' is a string", "write a list of strings")],
    ),
    (
        "to = ['a', 1, 2]",
        &[
            (1, 12, "'to' is a whole number", "write a list of strings"),
            (1, 15, "'to' is a whole number", "write a list of strings"),
        ],
    ),
    (
        "port = '70000'",
        &[(
            1,
            8,
            "'port' is wrong: number too large to fit in target type",
            "",
        )],
    ),
    (
        "mail = 1",
        &[(1, 8, "'mail' is a whole number", "write a section")],
    ),
    (
        "route = {}",
        &[(
            1,
            9,
            "'route' is a section",
            "write a list of sections, each begun with [[...]]",
        )],
    ),
    (
        "[[route]]\nto = 'a'\n[[route]]\n",
        &[(
            3,
            1,
            "key 'to' in [route] is missing",
            "name who gets the mail",
        )],
    ),
    (
        "name = 'é' \nnmae = 'é'",
        &[(2, 1, "unknown key 'nmae'", "did you mean 'name'?")],
    ),
];

#[test]
fn every_wrong_value_is_named_with_its_place_and_what_to_write() {
    for (text, expected) in WRONG_VALUES {
        let seen = read(text);
        let seen: Vec<_> = seen
            .iter()
            .map(|d| (d.line, d.column, d.message.as_str(), d.help.as_str()))
            .collect();
        assert_eq!(seen, *expected, "{text}");
    }
}

#[test]
fn unknown_keys_are_found_at_every_depth_and_all_at_once() {
    let text = "nam = 1\ncount = 'x'\n[mail]\nfrom = 1\n[mail.smtp]\nhots = 'x'\n\
                [[route]]\nto = 'x'\n[[route]]\nto = 'y'\nfrm = 1\n[other]\na = 1\n";
    let seen: Vec<_> = read(text)
        .into_iter()
        .map(|d| (d.line, d.message, d.help))
        .collect();
    let expected = [
        (1, "unknown key 'nam'", "did you mean 'name'?"),
        (2, "'count' is a string", "write a whole number"),
        (4, "unknown key 'from' in [mail]", "known keys: smtp"),
        (
            6,
            "unknown key 'hots' in [mail.smtp]",
            "did you mean 'host'?",
        ),
        (11, "unknown key 'frm' in [route]", "known keys: to"),
        (
            12,
            "unknown key 'other'",
            "known keys: count, mail, mode, name, on, port, route, to, wait",
        ),
    ];
    let expected: Vec<_> = expected
        .iter()
        .map(|(line, m, h)| (*line, (*m).to_owned(), (*h).to_owned()))
        .collect();
    assert_eq!(seen, expected);
}

#[test]
fn dotted_keys_and_inline_tables_are_sections_too() {
    for text in [
        "mail.smtp.host = 'x'",
        "mail = { smtp = { host = 'x' } }",
        "[mail]\nsmtp.host='x'",
    ] {
        let file = TomlFile::parse("x.toml", text).unwrap();
        let host = file
            .root()
            .section("mail")
            .section("smtp")
            .take_string("host");
        assert_eq!(host.as_deref(), Some("x"), "{text}");
        assert_eq!(file.finish(), [], "{text}");
    }
}

#[test]
fn one_string_may_stand_for_a_list_of_one() {
    let cases = [
        ("to = 'a'", Some(vec!["a"])),
        ("to = ['a', 'b']", Some(vec!["a", "b"])),
        ("", None),
    ];
    for (text, expected) in cases {
        let file = TomlFile::parse("x.toml", text).unwrap();
        let read = |text: &str| Ok::<_, std::convert::Infallible>(text.to_owned());
        let seen = file.root().take_one_or_list_with("to", read);
        let expected = expected.map(|list| list.into_iter().map(str::to_owned).collect());
        assert_eq!(seen, expected, "{text}");
        assert_eq!(file.finish(), [], "{text}");
    }
}

#[test]
fn syntax_errors_are_all_named() {
    let seen = read("name = \ncount = 1\non = tru\nname = 'twice'\n");
    let lines: Vec<_> = seen.iter().map(|d| d.line).collect();
    assert!(lines.contains(&1) && lines.contains(&3), "{seen:?}");
    assert!(
        seen.iter()
            .all(|d| d.message.starts_with(|c: char| !c.is_uppercase())),
        "{seen:?}"
    );
}

#[test]
fn an_absent_section_gives_nothing_and_its_keys_are_missing_from_the_one_around_it() {
    let file = TomlFile::parse("x.toml", "a = 1\n").unwrap();
    let section = file.root().section("listen");
    assert!(!section.is_present() && !section.has("fleet"));
    section.missing("fleet", "");
    section.error("fleet", "wrong", "");
    let wrong = file.finish();
    assert!(
        wrong
            .iter()
            .any(|d| d.message == "key 'fleet' in [listen] is missing"),
        "{wrong:?}"
    );
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic_or_point_outside_of_the_file(text in "[a-z=\\[\\]'\". \n\\\\é0-9#{},-]{0,60}") {
        let lines = u32::try_from(text.split('\n').count()).unwrap();
        for d in read(&text) {
            prop_assert!(d.line >= 1 && d.line <= lines && d.column >= 1, "{d:?}");
        }
    }
}
