//! Gathering through a reader that is a table.

use super::*;

fn gather(first: &[u8], files: &[(&str, &[u8])]) -> Result<Vec<String>, Vec<String>> {
    let first = PolicyFile {
        path: "p".to_owned(),
        content: first.to_vec(),
    };
    let mut read = |path: &str| {
        let found = files.iter().find(|(name, _)| *name == path);
        found
            .map(|(_, content)| content.to_vec())
            .ok_or_else(|| "no such file".to_owned())
    };
    let (files, errors) = gather_files(first, &mut read);
    if errors.is_empty() {
        return Ok(files.into_iter().map(|file| file.path).collect());
    }
    let say = |d: Diagnostic| format!("{}:{}:{} {}", d.file, d.line, d.column, d.message);
    Err(errors.into_iter().map(say).collect())
}

#[test]
fn every_included_file_is_read_once_at_any_depth() {
    let files: [(&str, &[u8]); 3] = [
        ("/a", b"Include /c\nInclude /b"),
        ("/b", b"Include /c\r\n"),
        ("/c", b"exe:/x"),
    ];
    assert_eq!(gather(b"exe:/x\n", &files).unwrap(), ["p"]);
    assert_eq!(
        gather(b"Include /a\rInclude /b\r", &files).unwrap(),
        ["p", "/a", "/b", "/c"]
    );
}

#[test]
fn every_file_that_cannot_be_read_is_named_with_its_line() {
    let seen = gather(
        b"Include /x\n# Include /y\nInclude /a",
        &[("/a", b"\n\nInclude /z\n")],
    );
    assert_eq!(
        seen.unwrap_err(),
        [
            "p:1:1 cannot read the included file '/x': no such file",
            "/a:3:1 cannot read the included file '/z': no such file",
        ]
    );
}

#[test]
fn circles_and_floods_are_refused() {
    let seen = gather(b"Include /a", &[("/a", b"exe:/x\nInclude /a\n")]);
    assert_eq!(
        seen.unwrap_err(),
        ["/a:2:1 this Include closes a circle: /a -> /a"]
    );

    let first: String = (0..POLICY_FILES_MAX)
        .map(|n| format!("Include /{n}\n"))
        .collect();
    let mut read = |_: &str| Ok(Vec::new());
    let file = PolicyFile {
        path: "p".to_owned(),
        content: first.into_bytes(),
    };
    let (_, errors) = gather_files(file, &mut read);
    assert_eq!(errors[0].message, "the policy has more than 64 files");
    assert_eq!(errors[0].line, 64);

    let big = vec![b'#'; POLICY_BYTES_MAX];
    let seen = gather(b"Include /a", &[("/a", &big)]).unwrap_err();
    assert!(
        seen[0].starts_with("p:1:1 the files of the policy have"),
        "{seen:?}"
    );
}
