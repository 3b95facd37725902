//! Differences between small documents.

use super::*;

fn document(files: &[(&str, &'static str)], settings: &str) -> v1::PolicyDocument {
    let file = |(path, content): &(&str, &'static str)| v1::PolicyFile {
        path: (*path).into(),
        content: content.as_bytes().into(),
    };
    v1::PolicyDocument {
        name: "web".into(),
        revision: 1,
        files: files.iter().map(file).collect(),
        settings: settings.into(),
    }
}

/// The changed lines, as sign, number and text.
fn changed(files: &[FileChanges]) -> Vec<String> {
    let lines = files.iter().flat_map(|file| &file.hunks);
    lines
        .flat_map(|hunk| &hunk.lines)
        .filter_map(|line| {
            let sign = match line.change {
                Change::Kept => return None,
                Change::Removed => '-',
                Change::Added => '+',
            };
            Some(format!("{sign}{} {}", line.number, line.text))
        })
        .collect()
}

#[test]
fn the_same_content_has_no_differences() {
    let one = document(&[("a", "exe:/a\n")], "[scan]\n");
    assert_eq!(between(&one, &one.clone()), []);
}

#[test]
fn a_changed_rule_is_removed_and_added_between_its_neighbours() {
    let old = document(&[("a", "1\n2\n3\n4\n5\n6\n7\n8\n9\n")], "");
    let new = document(&[("a", "1\n2\n3\n4\nfive\n6\n7\n8\n9\n")], "");
    let files = between(&old, &new);
    assert_eq!(files.len(), 1);
    assert_eq!(files[0].hunks[0].heading, "@@ -2,7 +2,7 @@");
    assert_eq!(changed(&files), ["-5 5", "+5 five"]);
    assert_eq!(files[0].hunks[0].lines.len(), 8);
}

#[test]
fn the_first_file_is_compared_whatever_its_name_and_included_ones_by_name() {
    let old = document(&[("a", "1\n"), ("x", "x\n"), ("gone", "g\n")], "");
    let new = document(&[("b", "1\n"), ("fresh", "f\n"), ("x", "x\n")], "");
    let files = between(&old, &new);
    let paths: Vec<_> = files
        .iter()
        .map(|file| (file.old_path.as_str(), file.new_path.as_str()))
        .collect();
    assert_eq!(
        paths,
        [("a", "b"), ("gone", "/dev/null"), ("/dev/null", "fresh")]
    );
    assert_eq!(changed(&files), ["-1 g", "+1 f"]);
}

#[test]
fn settings_and_missing_newlines_are_differences() {
    let old = document(&[("a", "1\n")], "[scan]\n");
    let new = document(&[("a", "1")], "[scan]\nmin_age_secs = 5\n");
    let files = between(&old, &new);
    assert_eq!(changed(&files), ["-1 1", "+1 1", "+2 min_age_secs = 5"]);
    assert!(!files[0].hunks[0].lines[1].ended);
    assert_eq!(files[1].new_path, "settings");
    assert_eq!(files[1].hunks[0].heading, "@@ -1 +1,2 @@");
}

#[test]
fn text_is_compared_as_bytes_and_shown_printable() {
    let old = document(&[("a", "user:\u{1b}[2J\n")], "");
    let new = document(&[("a", "user:\\1b[2J\n")], "");
    assert_eq!(
        changed(&between(&old, &new)),
        ["-1 user:\\1b[2J", "+1 user:\\1b[2J"]
    );
}
