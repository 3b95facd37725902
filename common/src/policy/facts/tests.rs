//! Reading and printing facts.

use super::*;

fn facts(text: &str) -> Result<RuleFacts, Vec<usize>> {
    let mut facts = RuleFacts::default();
    let wrong = read(text, &mut facts);
    if wrong.is_empty() {
        Ok(facts)
    } else {
        Err(wrong.iter().map(|wrong| wrong.offset).collect())
    }
}

#[test]
fn facts_are_read_in_any_order_with_or_without_quotes() {
    let expected = RuleFacts {
        expires: LastDay::parse("2027-01-31"),
        owner: Some("ops".into()),
        reason: Some("the \"old\" shop \\ \u{e9}".into()),
    };
    for text in [
        " expires=2027-01-31 owner=ops reason=\"the \\\"old\\\" shop \\\\ \u{e9}\"",
        "reason=\"the \\\"old\\\" shop \\\\ \u{e9}\"\towner=\"ops\" expires=\"2027-01-31\"  ",
    ] {
        assert_eq!(facts(text), Ok(expected.clone()), "{text}");
    }
    let line = expected.to_string();
    assert_eq!(
        line,
        "#@ expires=2027-01-31 owner=ops reason=\"the \\\"old\\\" shop \\\\ \u{e9}\""
    );
    assert_eq!(facts(&line[2..]), Ok(expected));
}

#[test]
fn every_wrong_word_is_named_at_its_place() {
    let cases: [(&str, &[usize]); 14] = [
        ("", &[0]),
        ("  ", &[0]),
        ("ops", &[0]),
        (" owner= x=1", &[7, 8]),
        ("owner=\"\"", &[6]),
        ("expire=2027-01-31", &[0]),
        ("expires=2027-1-31", &[8]),
        ("expires=2027-02-30 owner=a\"b", &[8, 26]),
        ("expires=31.01.2027", &[8]),
        ("owner=a owner=b", &[8]),
        ("reason=\"open", &[7]),
        ("reason=\"a\"b owner=x y", &[10, 20]),
        ("reason=\"a\tb\"", &[7]),
        ("=x", &[0]),
    ];
    for (text, offsets) in cases {
        assert_eq!(facts(text), Err(offsets.to_vec()), "{text}");
    }
}

#[test]
fn a_rule_holds_until_its_last_day_has_ended_in_utc() {
    let facts = facts("expires=2027-01-31").unwrap();
    let end = facts.end();
    assert_eq!(end.to_string(), "2027-02-01T00:00:00Z");
    assert!(facts.in_force(end.plus_millis(-1)));
    assert!(!facts.in_force(end));
    assert!(RuleFacts::default().in_force(UnixMillis(i64::MAX)));
    let last = LastDay::parse("9999-12-31").unwrap();
    assert!(last.end() > end, "the last date of all has an end, too");
}
