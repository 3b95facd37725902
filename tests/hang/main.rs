//! Processes that make whoever reads them hang, under a running agent.
//!
//! A test binary of its own: what hangs does so for every agent of the machine,
//! and those of other tests would lose half a minute to it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use procwarden_tests::binaries::binary;
use procwarden_tests::cc::compile;
use procwarden_tests::collector::text;
use procwarden_tests::fleet::Fleet;
use procwarden_tests::payload::{Payload, is_root, volatile_directory};
use procwarden_tests::wait::eventually;
use serde_json::Value;

/// The file system, and the processes of `nobody` that use it.
const SOURCE: &str = include_str!("hang.c");

/// What hangs for one agent hangs for the other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[test]
fn a_process_that_holds_back_its_arguments_is_found_and_costs_nobody_else() {
    let Some((_alone, mut file_system)) = FileSystem::mount() else {
        return;
    };
    let fleet = Fleet::start().unwrap();
    eventually("a first scan", || scans_beyond(&fleet, 0));
    let pid = file_system.holds_its_lock();
    let named = format!("{pid} of uid 65534");
    eventually("a note on who hangs", || said_by(&fleet, &named));

    others_are_found(&fleet);
    let finding = wait_for(&fleet, pid, "reading its arguments hangs");
    assert_eq!(finding["severity"], "high", "it runs from /dev/shm, too");
    assert_eq!(finding["cmdline"], "", "{finding}");

    // What hangs ends: it can be read as ever, and the agent goes on.
    file_system.tell("abort");
    eventually("its arguments", || {
        let mut scan = Command::new(binary("procwarden-agent"));
        let output = scan.args(["scan", "--json", "--min-age", "0"]).output();
        let lines = text(&output.unwrap().stdout);
        let objects = lines.lines().map(serde_json::from_str::<Value>);
        let mut objects = objects.map(Result::unwrap);
        let object = objects.find(|object| object["pid"] == pid);
        let cmdline = object.map(|object| object["cmdline"].to_string());
        match cmdline {
            Some(cmdline) if cmdline.contains("that nobody reads") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    others_are_found(&fleet);
    let findings = fleet.collector.findings_of(pid).unwrap();
    assert_eq!(findings.len(), 1, "{findings:?}");
}

#[test]
fn an_executable_that_never_answers_stops_neither_scans_nor_the_end() {
    let Some((_alone, mut file_system)) = FileSystem::mount() else {
        return;
    };
    let pid = file_system.runs_a_program();
    file_system.tell("deaf");
    let mut fleet = Fleet::start().unwrap();
    // Its digest is asked for before it is reported.
    let finding = wait_for(&fleet, pid, "from a directory for temporary files");
    assert!(finding.get("exe_sha256").is_none(), "{finding}");
    let exe = finding["exe"].as_str().unwrap();
    assert!(exe.starts_with("(unreachable)/dev/shm/"), "{exe}");
    let _finding = wait_for(&fleet, pid, "reading its executable hangs");
    others_are_found(&fleet);
    said_by(&fleet, &format!("{pid} of uid 65534")).unwrap();

    // The readers hang still.
    let end = fleet.agent.stop();
    assert!(end.success(), "{end:?}; {}", fleet.agent.log());
}

/// Whatever hangs, another process of the same account that starts now is
/// found, and read whole.
#[track_caller]
fn others_are_found(fleet: &Fleet) {
    let scans = fleet.agent.status().unwrap()["scans"].as_u64().unwrap();
    let directory = volatile_directory().unwrap();
    let payload = Payload::at(&directory.path().join("other")).start();
    let finding = wait_for(fleet, payload.pid(), "from a directory for temporary files");
    let cmdline = finding["cmdline"].as_str().unwrap();
    assert!(cmdline.ends_with("/other sleep"), "{cmdline}");
    eventually("more scans", || scans_beyond(fleet, scans));
}

/// The one finding about a process, once its evidence says this.
#[track_caller]
fn wait_for(fleet: &Fleet, pid: u32, evidence: &str) -> Value {
    eventually(&format!("'{evidence}' of {pid}"), || {
        let findings = fleet.collector.findings_of(pid)?;
        let [finding] = findings.as_slice() else {
            return Err(format!("{findings:?}; {}", fleet.agent.log()));
        };
        if finding["indicators"].to_string().contains(evidence) {
            return Ok(finding.clone());
        }
        Err(format!("only {finding}; {}", fleet.agent.log()))
    })
}

fn scans_beyond(fleet: &Fleet, scans: u64) -> Result<(), String> {
    let status = fleet.agent.status()?;
    match status["scans"].as_u64() {
        Some(now) if now > scans => Ok(()),
        _ => Err(format!("{status}; {}", fleet.agent.log())),
    }
}

fn said_by(fleet: &Fleet, words: &str) -> Result<(), String> {
    let status = fleet.agent.status()?.to_string();
    if status.contains(words) {
        return Ok(());
    }
    Err(format!("{status}; {}", fleet.agent.log()))
}

/// A mounted file system that does not answer. Everything that hangs on it
/// ends with the value, or with the test.
struct FileSystem {
    server: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    _directory: tempfile::TempDir,
}

impl FileSystem {
    /// Mounts it, where nobody else sees it; nothing where that cannot be.
    fn mount() -> Option<(MutexGuard<'static, ()>, Self)> {
        let fuse = fs::File::options().read(true).write(true).open("/dev/fuse");
        if !is_root() || fuse.is_err() {
            #[expect(clippy::print_stderr, reason = "what was not tested is said")]
            {
                eprintln!("skipped: hanging takes root and /dev/fuse");
            }
            return None;
        }
        let alone = ONE_AT_A_TIME.lock();
        let alone = alone.unwrap_or_else(PoisonError::into_inner);
        let directory = volatile_directory().unwrap();
        let program = directory.path().join("hang");
        compile(&program, SOURCE, &["-O1", "-pthread"]).unwrap();
        let mountpoint = directory.path().join("mnt");
        fs::create_dir(&mountpoint).unwrap();
        let mut server = Command::new("unshare")
            .arg("--mount")
            .arg(program)
            .arg("serve")
            .arg(mountpoint)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = server.stdin.take();
        let answers = BufReader::new(server.stdout.take().unwrap());
        let mut file_system = Self {
            server,
            commands,
            answers,
            _directory: directory,
        };
        assert_eq!(file_system.answer(), "mounted");
        Some((alone, file_system))
    }

    /// Gives a command, and waits for what comes of it.
    fn tell(&mut self, command: &str) -> String {
        let commands = self.commands.as_mut().unwrap();
        writeln!(commands, "{command}").unwrap();
        self.answer()
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// The PID of a process whose lock is held, for good.
    fn holds_its_lock(&mut self) -> u32 {
        let pid = self.tell("lock").parse().unwrap();
        // One thread waits for the file system, another one for that.
        eventually("threads that wait", || match waiting_threads(pid) {
            2 => Ok(()),
            other => Err(format!("{other} wait")),
        });
        pid
    }

    /// The PID of a process that runs a file of the file system.
    fn runs_a_program(&mut self) -> u32 {
        let pid = self.tell("program").parse().unwrap();
        let comm = format!("/proc/{pid}/comm");
        eventually("the program", || match fs::read_to_string(&comm) {
            Ok(comm) if comm == "program\n" => Ok(()),
            other => Err(format!("{other:?}")),
        });
        pid
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        drop(self.commands.take());
        let _ended = self.server.kill().is_err();
        let _gone = self.server.wait().is_err();
    }
}

/// Threads of a process that wait in the kernel for its memory, or for a page.
fn waiting_threads(pid: u32) -> usize {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter();
    let wchans = tasks.flatten().flatten().map(|task| {
        let wchan = fs::read_to_string(task.path().join("wchan"));
        wchan.unwrap_or_default()
    });
    let waits = ["request_wait_answer", "mmap", "munmap"];
    wchans
        .filter(|wchan| waits.iter().any(|wait| wchan.contains(wait)))
        .count()
}
