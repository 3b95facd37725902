//! Hostile processes, real ones: each is seen for what it is, and what it
//! wrote reaches nobody unescaped.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use procwarden_tests::fleet::Fleet;
use procwarden_tests::payload::{Payload, Running, is_root, volatile_directory};
use procwarden_tests::wait::eventually;
use serde_json::Value;

/// One fleet looks at all of them at once: starting it is the slow part.
#[test]
fn hostile_processes_are_judged_right() {
    let fleet = Fleet::start().unwrap();
    let directory = volatile_directory().unwrap();
    let at = |name: &str| Payload::at(&directory.path().join(name));

    let argv = at("argv")
        .does(&[b"sleep".as_slice(), b"\xff\xfe\n\x1b[31mred", b"", b"\"q\\"])
        .start();
    let comm = at("comm")
        .does(&[b"rename".as_slice(), b"a) R\n0 (b"])
        .start();
    let named_deleted = at("x (deleted)").start();
    let kernel = at("kernel").argv0("[kworker/0:1]").start();
    let path_bytes = {
        let name = std::ffi::OsStr::from_bytes(b"n\xffn\nl");
        Payload::at(&directory.path().join(name)).start()
    };
    let deleted = gone(&at("deleted"), &directory.path().join("deleted"));
    let replaced = {
        let path = directory.path().join("replaced");
        let running = Payload::at(&path).start();
        let newer = directory.path().join("newer");
        fs::copy(&path, &newer).unwrap();
        fs::rename(&newer, &path).unwrap();
        running
    };
    let hard_linked = {
        let path = directory.path().join("linked");
        let payload = Payload::at(&path);
        let running = payload.start();
        fs::hard_link(&path, directory.path().join("other-name")).unwrap();
        fs::remove_file(&path).unwrap();
        running
    };

    let finding = wait_for(&fleet, &argv, "exe-in-volatile-dir");
    assert_eq!(
        finding["cmdline"],
        format!(
            "{} sleep \\ff\\fe\\n\\1b[31mred  \\\"q\\\\",
            directory.path().join("argv").display()
        )
    );
    let finding = wait_for(&fleet, &comm, "exe-in-volatile-dir");
    assert_eq!(finding["comm"], "a) R\\n0 (b");
    let finding = wait_for(&fleet, &named_deleted, "exe-in-volatile-dir");
    assert_eq!(
        finding["exe_deleted"], false,
        "a live file may be named so: {finding}"
    );
    assert!(!has(&finding, "exe-deleted"), "{finding}");
    wait_for(&fleet, &kernel, "fake-kernel-thread");
    let finding = wait_for(&fleet, &path_bytes, "exe-in-volatile-dir");
    assert!(
        finding["exe"].as_str().unwrap().ends_with("/n\\ffn\\nl"),
        "{finding}"
    );
    let finding = wait_for(&fleet, &deleted, "exe-deleted");
    assert_eq!(finding["exe_deleted"], true);
    let finding = wait_for(&fleet, &hard_linked, "exe-deleted");
    assert_eq!(
        finding["exe_deleted"], true,
        "another hard link does not make it less deleted"
    );
    let finding = wait_for(&fleet, &replaced, "exe-replaced");
    assert!(!has(&finding, "exe-deleted"), "{finding}");
    nothing_raw_was_mailed(&fleet);
}

/// A payload whose file is removed once it runs.
fn gone(payload: &Payload, path: &Path) -> Running {
    let running = payload.start();
    fs::remove_file(path).unwrap();
    running
}

#[test]
fn a_program_that_lives_in_memory_only_is_critical() {
    let fleet = Fleet::start().unwrap();
    let directory = volatile_directory().unwrap();
    let payload = Payload::at(&directory.path().join("loader"))
        .does(&["memfd", "sleep"])
        .start();
    let finding = wait_for(&fleet, &payload, "exe-memfd");
    assert_eq!(finding["severity"], "critical", "{finding}");
    assert!(
        finding["exe"].as_str().unwrap().starts_with("/memfd:"),
        "{finding}"
    );
}

#[test]
fn a_process_in_another_network_namespace_cannot_hide_its_listener() {
    if !is_root() {
        // Making a namespace takes root; every other test covers plain users.
        return;
    }
    let fleet = Fleet::start().unwrap();
    let directory = volatile_directory().unwrap();
    let path = directory.path().join("inner");
    let _copied = Payload::at(&path);
    let unshare = Path::new("/usr/bin/unshare");
    assert!(
        unshare.exists(),
        "util-linux is needed to make a network namespace"
    );
    let script = format!(
        "ip link set lo up 2>/dev/null; exec setpriv --reuid=65534 --regid=65534 --clear-groups {} listen",
        path.display()
    );
    let mut child = std::process::Command::new(unshare)
        .args(["--net", "sh", "-c", &script])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually("the listener in its namespace", || {
            let findings = fleet.collector.findings_of(pid)?;
            let found = findings.iter().any(|f| has(f, "unexpected-listener"));
            if found {
                Ok(())
            } else {
                Err(format!("{findings:?}; {}", fleet.agent.log()))
            }
        });
    }));
    child.kill().unwrap();
    child.wait().unwrap();
    seen.unwrap();
}

fn has(finding: &Value, indicator: &str) -> bool {
    let indicators = finding["indicators"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    indicators.iter().any(|i| i["id"] == indicator)
}

/// The finding about a payload, once it has the indicator.
#[track_caller]
fn wait_for(fleet: &Fleet, payload: &Running, indicator: &str) -> Value {
    let _id = fleet.wait_for_finding(payload, indicator);
    fleet
        .collector
        .findings_of(payload.pid())
        .unwrap()
        .remove(0)
}

/// What hostile processes wrote reached the mails as printable text only.
fn nothing_raw_was_mailed(fleet: &Fleet) {
    eventually("mails", || match fleet.smtp.mails().len() {
        0 => Err("none yet".to_owned()),
        _ => Ok(()),
    });
    for mail in fleet.smtp.mails() {
        for (place, text) in [("subject", &mail.subject), ("text", &mail.text)] {
            let hostile = text
                .chars()
                .find(|c| !c.is_ascii_graphic() && !" \r\n\t".contains(*c));
            assert_eq!(hostile, None, "raw character in the {place} of:\n{text}");
        }
        assert!(!mail.subject.contains(['\r', '\n']), "{:?}", mail.subject);
    }
}
