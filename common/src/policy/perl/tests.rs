//! Patterns, and how they are written for the engines.

use super::*;

#[test]
fn what_the_engines_would_misread_is_rewritten() {
    let same = [
        "",
        "/usr/s?bin/.+",
        r"\/usr\.x",
        "[a-z]{2,4}",
        "a{2}b{3,}?",
        "(?i)/a",
        "(?<n>a)",
        "é+",
        "[[:alpha:]/]+",
        r"[\w.]",
        r"(\w)\1",
        r"\x{41}",
        "[a-zA-Z0-9_.]",
        "(?!b/).*",
    ];
    for pattern in same {
        assert_eq!(read(pattern).unwrap().text, pattern);
    }
    let changed = [
        (r"\<b\>", "<b>"),
        (r"a\Z", r"a\z"),
        (r"\h+", r"[ \t]+"),
        ("[[]kworker.*", r"[\[]kworker.*"),
        ("[[a]]", r"[\[a]]"),
        ("[a&&b~~c]", r"[a\&\&b\~\~c]"),
        ("[a-]", r"[a\-]"),
        ("[-a]", r"[\-a]"),
        (r"[\w-.]", r"[\w\-.]"),
        (r"[a-\d]", r"[a\-\d]"),
        ("[+--]", r"[+-\-]"),
        ("[--/]", r"[\--/]"),
        ("[]a]", r"[\]a]"),
        ("[^]-a]", r"[^\]-a]"),
        (r"[\w--a-c]", r"[\w\-\-a-c]"),
        ("a{", r"a\{"),
        ("${x}", r"$\{x}"),
        ("a{,3}", r"a\{,3}"),
        ("a(?#no)b", "ab"),
    ];
    for (pattern, expected) in changed {
        assert_eq!(read(pattern).unwrap().text, expected, "{pattern}");
    }
}

#[test]
fn bars_outside_of_parentheses_and_possession_are_seen() {
    let cases: [(&str, &[usize], bool); 7] = [
        ("/a|/b", &[2], false),
        ("(a|b)", &[], false),
        (r"a\|b[|]", &[], false),
        ("a|(b|c)|d", &[1, 7], false),
        ("a*+b", &[], true),
        ("a{2}+", &[], true),
        ("(?>a)", &[], true),
    ];
    for (pattern, bars, possessive) in cases {
        let reading = read(pattern).unwrap();
        assert_eq!(
            (reading.bars.as_slice(), reading.possessive),
            (bars, possessive),
            "{pattern}"
        );
    }
}

#[test]
fn what_perl_refuses_is_refused_at_its_place() {
    for (pattern, offset) in [
        ("a**", 2),
        ("{3}", 0),
        ("a|{3}", 2),
        ("a{2}{3}", 4),
        ("a+?*", 3),
        ("(?R)", 2),
        ("b(?sU:a)", 4),
    ] {
        assert_eq!(read(pattern).unwrap_err().offset, offset, "{pattern}");
    }
}

#[test]
fn places_lead_back_to_the_original() {
    let reading = read(r"[[é]\<x").unwrap();
    assert_eq!(reading.text, r"[\[é]<x");
    assert_eq!(reading.origin(reading.text.find('<').unwrap()), 5);
    assert_eq!(reading.origin(reading.text.find('x').unwrap()), 7);
    assert_eq!(reading.origin(reading.text.len()), 8);
}
