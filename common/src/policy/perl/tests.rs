//! Patterns, and how they are written for the engines.

use super::*;

#[test]
fn what_all_spell_alike_is_copied() {
    let same = [
        "",
        "/usr/s?bin/.+",
        r"\d\W\bx\B\Ay\z",
        "[a-z]{2,4}",
        "a{2}b{3,}?",
        "(?i)/a",
        "(?i-s:a)",
        "(?!b/).*",
        "(?<=a)b(?>c)",
        "^a$",
    ];
    for pattern in same {
        assert_eq!(read(pattern).unwrap().text, pattern);
    }
}

#[test]
fn what_only_perl_spells_so_is_written_as_what_it_stands_for() {
    let changed = [
        // Characters.
        (r"\/\.\-\<\y", r"\x2f\x2e\x2d\x3cy"),
        (r"\x2f\x{5F}\101\o{102}\x", r"\x2f\x5fAB\x00"),
        (r"\e\cA\0\N{U+41}", r"\x1b\x01\x00A"),
        (r"\x{e9}\x{20ac}", r"\x7f\x7f"),
        ("é?", r"\x7f\x7f?"),
        // Sets.
        (r"\h\H", r"[\x09\x20][\x00-\x08\x0a-\x1f\x21-\x7f]"),
        (r"\N+\pL\p{Nd}", r"[^\n]+[A-Za-z][0-9]"),
        (r"[\w.]", r"[\x2e0-9A-Z\x5fa-z]"),
        ("[[:digit:]/]", r"[\x2f-9]"),
        ("[^[]", r"[^\x5b]"),
        ("[[a]]", r"[\x5ba]]"),
        ("[a-]", r"[\x2da]"),
        (r"[a-\d]", r"[\x2d0-9a]"),
        ("[]-a]", r"[\x5d-a]"),
        ("[é]", r"[\x7f]"),
        ("[ab]", "[ab]"),
        // Repetition.
        ("a{,3}b{ 2 }", "a{0,3}b{2}"),
        ("a{", r"a\{"),
        ("${x}", r"$\{x}"),
        ("a(?#no)+", "a+"),
        // Anchors.
        (r"\Ga\Kb\Z", r"\Aa(?:)b\z"),
        // Groups and references.
        (r"(?<n>a)\k<n>\g{n}(?P=n)", r"(a)(?:\1)(?:\1)(?:\1)"),
        (
            r"(a)(b)\g{-2}\g10",
            r"this refers to a group that is not there",
        ),
        (r"(a)\10", r"(?:a)\x08"),
        (r"\k<n>(?'n'a)", r"(?:\1)(a)"),
        (r"(a)?(?(1)b|c)", r"(a)?(?(1)b|c)"),
        ("(?n)(a)(?<x>b)", "(?:a)(?:b)"),
        ("(a)(?<n>b)", "(?:a)(?:b)"),
        ("(|a|||b||)|||c", "(?:|a|b|)||c"),
        ("(?|a|b)", "(?:a|b)"),
        // Flags.
        ("(?^i:a)(?^:b)", "(?i-ms:a)(?-ims:b)"),
        ("(?x) a [ ] (?-x) b", r"a[\x20] b"),
        ("(?xx)[a b]", "[ab]"),
        ("(?au)a(?xa:b )", "a(?:b)"),
    ];
    for (pattern, expected) in changed {
        let text = read(pattern).map_or_else(|refused| refused.message.to_owned(), |r| r.text);
        assert_eq!(text, expected, "{pattern}");
    }
}

#[test]
fn bars_outside_of_parentheses_and_what_needs_backtracking_are_seen() {
    let cases: [(&str, &[usize], bool); 11] = [
        ("/a|/b", &[2], false),
        ("(a|b)", &[], false),
        (r"a\|b[|]", &[], false),
        ("a|(b|c)|d", &[1, 7], false),
        ("a*+b", &[], true),
        ("a{2}+", &[], true),
        ("(?>a)", &[], true),
        ("(?<!a)b", &[], true),
        (r"(a)\1", &[], true),
        ("(?<n>a)(?|b)", &[], false),
        ("(?<n>a)?(?(<n>)b)", &[], true),
    ];
    for (pattern, bars, backtracks) in cases {
        let reading = read(pattern).unwrap();
        assert_eq!(
            (reading.bars.as_slice(), reading.backtracks),
            (bars, backtracks),
            "{pattern}"
        );
    }
}

#[test]
fn patterns_whose_steps_may_each_read_the_whole_text_are_known() {
    for (pattern, is_costly) in [
        ("(?!x).*", false),
        ("(?!.*x)/home/.*", false),
        ("/usr/(?!local/.*x).*", false),
        ("(?:(?!x).)*", false),
        (r"(\w+)/\1", false),
        ("(?:(?=.*b)|a)*c", true),
        (".*(?=.*b)c", true),
        ("(?:a(?:(?!.*b)a)+)?", true),
        ("(?:(?!x)a)*b*", true),
        ("(?:(?!x)a){2,}b*", true),
        ("(?:a*+b)*", true),
        ("a*+b", false),
        ("(?>a*)(?:b(?>c*))*", true),
    ] {
        assert_eq!(read(pattern).unwrap().is_costly, is_costly, "{pattern}");
    }
}

#[test]
fn what_cannot_be_written_is_refused_at_its_place() {
    for (pattern, offset) in [
        ("a**", 2),
        ("{3}", 0),
        ("a|{3}", 2),
        ("a{2}{3}", 4),
        ("a+?*", 3),
        ("(?R)", 0),
        ("a(?1)", 1),
        ("b(?sU:a)", 4),
        ("a(*FAIL)", 1),
        ("(?{1})", 0),
        ("(?x)a #b", 6),
        ("ab[c", 2),
        ("a[z-a]", 2),
        ("a[[:foo:]]", 2),
        (r"a\b{wb}", 1),
        (r"a\p{Greek}", 1),
        (r"a\N{DIGIT ONE}", 1),
        (r"a\x{zz}", 1),
        (r"a\c{", 1),
        (r"ab\2", 2),
        (r"(a)\k<b>", 3),
        (r"(?<n>a)(?<n>b)\k<n>", 14),
        (r"a(?|(b)|(c))\1", 1),
        ("a(?#b", 1),
        ("/a(?i", 2),
        ("/a(?", 2),
        ("a{2,1}", 1),
        ("(?!x)a{3,2}", 6),
        (r"ab\", 2),
    ] {
        assert_eq!(read(pattern).unwrap_err().offset, offset, "{pattern}");
    }
}

#[test]
fn what_not_every_perl_reads_alike_is_noted_at_its_place() {
    let offsets = |pattern| {
        let notes = read(pattern).unwrap().notes;
        notes.iter().map(|note| note.offset).collect::<Vec<_>>()
    };
    assert_eq!(offsets("ab{,3}c{1, 2}"), [2, 7]);
    assert_eq!(offsets("a{1,2}"), [0; 0]);
}

proptest::proptest! {
    /// What is written is understood by an engine, or named as wrong by it:
    /// reading ends, and never panics.
    #[test]
    fn no_pattern_is_too_strange_to_be_read(pattern in r"(\PC|[\\\[\](){}?*+|^<>'a-z0-9:,-]){0,40}") {
        if let Ok(reading) = read(&pattern) {
            proptest::prop_assert_eq!(reading.origin.len(), reading.text.len());
            proptest::prop_assert!(reading.text.is_ascii());
        }
    }
}

#[test]
fn places_lead_back_to_the_original() {
    let reading = read(r"[[é]\<q").unwrap();
    assert_eq!(reading.text, r"[\x5b\x7f]\x3cq");
    assert_eq!(reading.origin(reading.text.find("5b").unwrap()), 0);
    assert_eq!(reading.origin(reading.text.find("3c").unwrap()), 5);
    assert_eq!(reading.origin(reading.text.find('q').unwrap()), 7);
    assert_eq!(reading.origin(reading.text.len()), 8);
}
