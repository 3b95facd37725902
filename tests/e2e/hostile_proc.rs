//! A hostile /proc: names, arguments and descriptors of any size and bytes,
//! directories that something is mounted over, and processes that change while
//! they are read. Real processes, and the real scan looks at each.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use procwarden_tests::binaries::binary;
use procwarden_tests::collector::text;
use procwarden_tests::payload::{NOBODY, Payload, is_root, volatile_directory};
use serde_json::Value;

const SCAN: &str = "scan --json --stats --min-age 0";

fn scan() -> Output {
    let mut command = Command::new(binary("procwarden-agent"));
    command.args(SCAN.split(' ')).output().unwrap()
}

/// Runs a script in namespaces of its own; `$AGENT` is the agent.
fn in_namespaces(namespaces: &[&str], agent: &Path, script: &str) -> Output {
    let mut command = Command::new("unshare");
    command.args(namespaces).args(["sh", "-ec", script]);
    command.env("AGENT", agent).output().unwrap()
}

#[track_caller]
fn object_of(output: &Output, pid: u32) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let lines = text(&output.stdout);
    let mut objects = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let object = objects.find(|object| object["pid"] == pid);
    object.unwrap_or_else(|| panic!("{pid} is not seen: {}", text(&output.stderr)))
}

fn notes(output: &Output) -> String {
    let stderr = text(&output.stderr);
    let notes = stderr.lines().filter(|line| line.starts_with("note: "));
    notes.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_megabyte_of_arguments_is_cut_and_hides_nothing() {
    let directory = volatile_directory().unwrap();
    let long = vec![b'x'; 120_000];
    let mut arguments = vec![&b"sleep"[..]];
    arguments.extend([&long[..]; 9]);
    let payload = Payload::at(&directory.path().join("long"))
        .does(&arguments)
        .start();
    let object = object_of(&scan(), payload.pid());
    let cmdline = object["cmdline"].as_str().unwrap();
    assert!(cmdline.contains("long sleep xxx"), "{cmdline:.100}");
    assert!(cmdline.len() < 40_000, "{}", cmdline.len());
}

#[test]
fn blank_bidirectional_and_broken_names_are_shown_escaped() {
    let directory = volatile_directory().unwrap();
    let names: [(&[u8], &str); 4] = [
        (b"   ", "   "),
        ("\u{202e}gnp.exe".as_bytes(), "\\e2\\80\\aegnp.exe"),
        (b"a\nb\tc", "a\\nb\\tc"),
        (b"\xff\xfe\x1b[2J", "\\ff\\fe\\1b[2J"),
    ];
    let payloads: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(number, (name, _))| {
            Payload::at(&directory.path().join(number.to_string()))
                .does(&[b"rename", *name])
                .start()
        })
        .collect();
    let output = scan();
    for (payload, (_, shown)) in payloads.iter().zip(names) {
        assert_eq!(object_of(&output, payload.pid())["comm"], shown);
    }
    let hostile = output
        .stdout
        .iter()
        .find(|b| **b != b'\n' && !(32..127).contains(*b));
    assert_eq!(hostile, None);
}

#[test]
fn bytes_that_are_no_text_are_kept_wherever_they_stand() {
    let directory = volatile_directory().unwrap();
    let inner = directory.path().join(OsStr::from_bytes(b"d\xff\ni"));
    fs::create_dir(&inner).unwrap();
    let program = inner.join(OsStr::from_bytes(b"p\xfe"));
    let _copied = Payload::at(&program);
    let held = fs::File::create(inner.join(OsStr::from_bytes(b"f\xfd"))).unwrap();
    let mut command = Command::new(&program);
    command.arg(OsStr::from_bytes(b"sleep")).current_dir(&inner);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(held);
    if is_root() {
        // Of root's programs only those that talk to the network are told.
        command.uid(NOBODY).gid(NOBODY);
    }
    let mut child = procwarden_tests::wait::eventually("a start", || {
        command.spawn().map_err(|error| error.to_string())
    });
    let output = scan();
    child.kill().unwrap();
    child.wait().unwrap();
    let object = object_of(&output, child.id());
    let ends = |field: &Value, end: &str| field.as_str().is_some_and(|text| text.ends_with(end));
    assert!(ends(&object["exe"], "/d\\ff\\ni/p\\fe"), "{object}");
    assert!(ends(&object["cwd"], "/d\\ff\\ni"), "{object}");
    let files = object["files"].as_array().unwrap();
    assert!(files.iter().any(|file| ends(file, "/f\\fd")), "{object}");
}

#[test]
fn a_hundred_thousand_descriptors_hide_no_listener() {
    if !is_root() {
        // More descriptors than the limit take root.
        return;
    }
    let directory = volatile_directory().unwrap();
    let path = directory.path().join("many");
    let _copied = Payload::at(&path);
    // In a container the hard limit may be lower: then as many as it allows.
    let script = format!(
        "ulimit -n 100100 2>/dev/null || ulimit -n $(ulimit -H -n); \
         exec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups {} hold $(($(ulimit -n) - 100)) 1",
        path.display()
    );
    let mut child = Command::new("sh")
        .args(["-ec", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
    let output = scan();
    child.kill().unwrap();
    child.wait().unwrap();
    let object = object_of(&output, child.id());
    let indicators = object["indicators"].to_string();
    assert!(indicators.contains("unexpected-listener"), "{object}");
}

/// A process with something mounted over its directory, by a script that gets
/// its PID as `$PID`.
fn covered_by(script: &str) {
    if !is_root() {
        // Mounting takes root.
        return;
    }
    let directory = volatile_directory().unwrap();
    let payload = Payload::at(&directory.path().join("covered")).start();
    let agent = binary("procwarden-agent");
    let script = format!("PID={}; {script}; exec $AGENT {SCAN}", payload.pid());
    let output = in_namespaces(&["--mount"], &agent, &script);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = notes(&output);
    assert!(said.contains("mounted over 1 directories"), "{said}");
    // The others are seen as ever.
    let other = Payload::at(&directory.path().join("other")).start();
    object_of(&scan(), other.pid());
    object_of(&scan(), payload.pid());
}

#[test]
fn an_empty_directory_over_a_process_is_said() {
    covered_by("mount -t tmpfs none /proc/$PID");
}

#[test]
fn another_process_over_a_process_is_said() {
    covered_by("mount --bind /proc/1 /proc/$PID");
}

#[test]
fn a_made_up_kernel_thread_over_a_process_is_said() {
    covered_by(
        "mount -t tmpfs none /proc/$PID; \
         echo \"$PID (kworker/0:1) I 2 0 0 0 -1 69238880 0 0 0 0 0 0 0 0 20 0 1 0 29 0 0\" >/proc/$PID/stat",
    );
}

#[test]
fn a_proc_that_hides_other_accounts_is_said() {
    if !is_root() {
        // Mounting takes root.
        return;
    }
    let directory = volatile_directory().unwrap();
    let agent = directory.path().join("agent");
    fs::copy(binary("procwarden-agent"), &agent).unwrap();
    let script = format!(
        "mount -t proc -o hidepid=2 proc /proc; \
         setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups $AGENT {SCAN}"
    );
    let namespaces = ["--mount", "--pid", "--fork"];
    let output = in_namespaces(&namespaces, &agent, &script);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(
        notes(&output).contains("hidepid"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn processes_that_come_go_and_change_all_the_time_disturb_no_scan() {
    let directory = volatile_directory().unwrap();
    let payload = Payload::at(&directory.path().join("steady")).start();
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for script in ["exit 0", "exec true", "sleep 0 & exec sh -c 'exec true'"] {
            scope.spawn(|| {
                while !ends.load(Ordering::Relaxed) {
                    let mut command = Command::new("sh");
                    command.args(["-c", script]).arg0("[x]");
                    drop(command.status());
                }
            });
        }
        let seen = std::panic::catch_unwind(|| {
            for _ in 0..3 {
                object_of(&scan(), payload.pid());
            }
        });
        ends.store(true, Ordering::Relaxed);
        seen.unwrap();
    });
}
