//! PIDs that the kernel really gives out twice. In a PID namespace of its own
//! this program may say which PID comes next (/proc/sys/kernel/ns_last_pid), so
//! the test runs itself again in one.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use procwarden_common::finding::{Finding, Subject};
use procwarden_common::process::ProcessKey;

use super::tests::{NOW, live_policy, suspect_of};
use super::{Scanner, is_alive};
use crate::evidence::Depth;
use crate::procfs::live::Running;
use crate::procfs::{Failed, ProcRoot};

/// Says to the inner run that it is the inner one.
const INSIDE: &str = "PROCWARDEN_TEST_IN_PID_NAMESPACE";
const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";
/// Start times count in ticks: two processes of one tick could have the same.
const SOME_TICKS: Duration = Duration::from_millis(50);

#[test]
fn a_pid_that_the_kernel_gives_out_again_is_another_process() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    let namespace = |command: &mut Command| {
        command.args(["--user", "--map-root-user", "--pid", "--fork"]);
        command.args(["--mount-proc", "--kill-child"]);
    };
    let mut trial = Command::new("unshare");
    namespace(&mut trial);
    // Writing what is there already: the last PID is that of the shell.
    let write = format!("echo $(cat {LAST_PID}) > {LAST_PID}");
    let tried = trial.args(["sh", "-c", &write]).output();
    if !tried.as_ref().is_ok_and(|output| output.status.success()) {
        println!("skipped: no PID can be chosen in a namespace of its own: {tried:?}");
        return;
    }
    let mut again = Command::new("unshare");
    namespace(&mut again);
    again.arg(std::env::current_exe().unwrap()).env(INSIDE, "1");
    again.args(["--exact", "--nocapture", "--test-threads", "1"]);
    again.arg("scan::reused_pid::a_pid_that_the_kernel_gives_out_again_is_another_process");
    let output = again.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let is_passed = output.status.success() && said.contains("1 passed");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(is_passed, "{said}\n{errors}");
}

fn inside() {
    let root = ProcRoot::open(Path::new("/proc")).unwrap();
    let mut scanner = Scanner::new(Path::new("/proc")).unwrap();
    let mut scan = || scanner.scan(&live_policy(), NOW);
    let first = sleeping("sleep");
    let pid = first.pid();
    let first_key = key_of(&root, pid);
    // Often enough that nothing more is read of one that does nothing.
    for _ in 0..3 {
        assert!(suspect_of(scan(), pid).is_none());
    }
    let handle = root.process(pid).unwrap();
    let place = root.place(pid).unwrap();

    // The same program for the same account, in disguise.
    let second = instead_of(first, "[kworker/0:1]");
    assert!(handle.stat().is_err() && handle.link("exe").is_err());
    let cmdline = handle.read("cmdline", 4096, &mut Vec::new());
    assert_eq!(cmdline, Err(Failed::Vanished));
    assert_eq!(root.reopen(first_key).err(), Some(Failed::Vanished));
    assert_ne!(root.place(pid).unwrap().inode, place.inode);
    let outcome = scan();
    assert!(!outcome.alive.contains(&first_key));
    let second_key = key_of(&root, pid);
    let finding = suspect_of(outcome, pid).unwrap();
    assert_eq!(finding.subject, Subject::Process(second_key));

    // A third has nothing of the second, nor the second of the third.
    let third = instead_of(second, "sleep");
    let outcome = scan();
    assert!(!is_alive(&outcome, &finding.subject));
    assert!(outcome.alive.contains(&key_of(&root, pid)));
    assert!(suspect_of(outcome, pid).is_none());
    let mut late: Finding = finding.clone();
    assert!(!scanner.gatherer().gather(&mut late, Depth::Whole));
    assert_eq!(late, finding);
    drop(third);
}

fn sleeping(name: &str) -> Running {
    let mut command = Command::new("/bin/sleep");
    Running::start(command.arg0(name).arg("600").stdin(Stdio::null()))
}

/// Ends a process, and starts another that gets its PID.
fn instead_of(former: Running, name: &str) -> Running {
    let pid = former.pid();
    drop(former);
    std::thread::sleep(SOME_TICKS);
    std::fs::write(LAST_PID, (pid - 1).to_string()).unwrap();
    let next = sleeping(name);
    assert_eq!(next.pid(), pid);
    next
}

fn key_of(root: &ProcRoot, pid: u32) -> ProcessKey {
    ProcessKey {
        boot_id: root.boot_id(),
        pid,
        start_time: root.process(pid).unwrap().stat().unwrap().start_time,
    }
}
