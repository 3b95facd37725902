//! Runs one script of the host's administrator.
//!
//! Promises: the file is opened once, and what was checked (a plain file of
//! root or of the agent's own account, that nobody else can write or replace
//! but for groups of directories of root's (place.rs), and that may be
//! executed) is what runs, because it runs through that descriptor. No shell
//! stands in between: what a hostile process wrote is one argument or one
//! variable, whatever characters it has. A script gets its time, then its
//! process group is killed; of what it says, the beginning is kept.
//!
//! A script that puts an argument into a shell command, or prints it, makes
//! it dangerous again: see `deploy/config/agent.toml`.

use std::ffi::OsString;
use std::io::{ErrorKind, PipeReader, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use procwarden_common::printable::printable;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::{Errno, FdFlags};
use rustix::process::{Pid, Signal, kill_process_group};

mod place;

/// Bytes of its output that are kept; the rest is read and thrown away.
const OUTPUT_BYTES_MAX: usize = 1024;
/// Bytes of the output that a record shows.
const SHOWN_BYTES_MAX: usize = 200;
/// Time between two looks at a running script.
const PAUSE: Duration = Duration::from_millis(20);

/// What is run, with what.
#[derive(Debug, Clone)]
pub(crate) struct Job<'a> {
    pub(crate) path: &'a Path,
    pub(crate) arguments: &'a [OsString],
    pub(crate) variables: &'a [(&'static str, OsString)],
    pub(crate) timeout: Duration,
}

/// Why a script was not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotRun {
    #[error("refused: {0}")]
    Refused(&'static str),
    #[error("failed: cannot open it: {0}")]
    Open(Errno),
    #[error("failed: cannot be started: {0}")]
    Start(std::io::Error),
}

/// Runs it and waits. What came of it, in words for the record.
pub(crate) fn run(job: &Job<'_>, stop: &AtomicBool) -> String {
    match start(job) {
        Ok((child, output)) => wait(child, output, job.timeout, stop),
        Err(not_run) => not_run.to_string(),
    }
}

fn start(job: &Job<'_>) -> Result<(Child, PipeReader), NotRun> {
    let file = checked(job.path)?;
    let (output, writer) = std::io::pipe().map_err(NotRun::Start)?;
    let errors = writer.try_clone().map_err(NotRun::Start)?;
    // An interpreter opens the script once more by this name, in its own
    // process: the descriptor has to live there too.
    rustix::io::fcntl_setfd(&file, FdFlags::empty()).map_err(NotRun::Open)?;
    let mut command = Command::new(format!("/proc/self/fd/{}", file.as_raw_fd()));
    command
        .args(job.arguments)
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("LANG", "C")
        .env("PROCWARDEN_SCRIPT", job.path)
        .envs(job.variables.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(errors);
    let child = command.spawn().map_err(NotRun::Start)?;
    Ok((child, output))
}

/// The script, open, if it may be run.
fn checked(path: &Path) -> Result<OwnedFd, NotRun> {
    // Never waits: the path may name a pipe.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(NotRun::Open)?;
    let stat = rustix::fs::fstat(&file).map_err(NotRun::Open)?;
    let own_uid = rustix::process::geteuid().as_raw();
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(NotRun::Refused("it is no plain file"));
    }
    if stat.st_uid != 0 && stat.st_uid != own_uid {
        return Err(NotRun::Refused(
            "it belongs neither to root nor to the agent's account",
        ));
    }
    if stat.st_mode & 0o022 != 0 {
        return Err(NotRun::Refused(
            "its group or others can write it: chmod go-w",
        ));
    }
    if stat.st_mode & 0o111 == 0 {
        return Err(NotRun::Refused("it cannot be executed: chmod u+x"));
    }
    place::check(path, own_uid)?;
    Ok(file)
}

fn wait(mut child: Child, mut output: PipeReader, timeout: Duration, stop: &AtomicBool) -> String {
    let began = Instant::now();
    let mut said = Vec::new();
    // A descendant may keep the pipe for ever: it is never waited for.
    let reads = rustix::fs::fcntl_setfl(&output, OFlags::NONBLOCK).is_ok();
    let ended = loop {
        if reads {
            drain(&mut output, &mut said);
        }
        match child.try_wait() {
            Ok(Some(status)) => break words(status),
            Ok(None) => {}
            Err(error) => break format!("failed: cannot be waited for: {error}"),
        }
        let is_late = began.elapsed() >= timeout;
        if is_late || stop.load(Ordering::Relaxed) {
            break end(&mut child, is_late, timeout);
        }
        std::thread::sleep(PAUSE);
    };
    if reads {
        drain(&mut output, &mut said);
    }
    match said.trim_ascii() {
        [] => ended,
        said => {
            let shown = said.get(..SHOWN_BYTES_MAX).unwrap_or(said);
            format!("{ended}, said: {}", printable(shown))
        }
    }
}

/// Takes what is there now.
fn drain(output: &mut PipeReader, said: &mut Vec<u8>) {
    let mut buffer = [0; 4096];
    // Bounded: whoever writes without end is not listened to without end.
    for _ in 0..64 {
        match output.read(&mut buffer) {
            Ok(count) if count > 0 => {
                let room = OUTPUT_BYTES_MAX - said.len();
                said.extend_from_slice(buffer.get(..count.min(room)).unwrap_or_default());
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => return,
        }
    }
}

/// Kills its process group. The child was not waited for, so that its number
/// is still its own.
fn end(child: &mut Child, is_late: bool, timeout: Duration) -> String {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let killed = group.map(|group| kill_process_group(group, Signal::KILL));
    if let Err(error) = child.wait() {
        return format!("failed: cannot be waited for: {error}");
    }
    match (killed, is_late) {
        (Some(Err(errno)), _) => format!("failed: cannot be killed: {errno}"),
        (_, true) => format!("failed: killed after {} s", timeout.as_secs()),
        (_, false) => "failed: killed because the agent stopped".to_owned(),
    }
}

fn words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("failed: ended by signal {signal}"),
        (None, None) => "failed: ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn script(dir: &Path, mode: u32, content: &str) -> std::path::PathBuf {
        let path = dir.join("script");
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn result(path: &Path, arguments: &[&str], timeout: Duration) -> String {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        let variables = [("PROCWARDEN_USER", OsString::from("a\nb$(id)"))];
        let job = Job {
            path,
            arguments: &arguments,
            variables: &variables,
            timeout,
        };
        // Another test that forks just now may hold the file open for writing.
        for _ in 0..500 {
            let result = run(&job, &AtomicBool::new(false));
            if !result.contains("busy") {
                return result;
            }
            std::thread::sleep(PAUSE);
        }
        panic!("the script stays busy");
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn hostile_text_stays_one_argument_and_one_variable() {
        let dir = tempfile::tempdir().unwrap();
        let content =
            "#!/bin/sh\nprintf '%s|' \"$#\" \"$@\" \"$PROCWARDEN_USER\" \"$HOME\"; exit 3\n";
        let path = script(dir.path(), 0o700, content);
        assert_eq!(
            result(&path, &["$(touch x); \u{1b}[2J", "2"], LONG),
            r"exit code 3, said: 2|$(touch x); \1b[2J|2|a\nb$(id)||"
        );
    }

    #[test]
    fn what_others_could_have_written_is_not_run() {
        let dir = tempfile::tempdir().unwrap();
        for (mode, reason) in [
            (0o720, "its group or others can write it"),
            (0o702, "its group or others can write it"),
            (0o600, "it cannot be executed"),
        ] {
            let path = script(dir.path(), mode, "#!/bin/sh\necho ran\n");
            let result = result(&path, &[], LONG);
            assert!(
                result.starts_with(&format!("refused: {reason}")),
                "{result}"
            );
        }
        assert!(result(dir.path(), &[], LONG).contains("no plain file"));
        assert!(result(&dir.path().join("none"), &[], LONG).starts_with("failed: cannot open it"));
    }

    #[test]
    fn a_script_that_takes_too_long_is_killed_with_what_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let content = "#!/bin/sh\nsleep 600 &\necho $!\nwait\n";
        let path = script(dir.path(), 0o700, content);
        let result = result(&path, &[], Duration::from_secs(2));
        let pid = result
            .strip_prefix("failed: killed after 2 s, said: ")
            .unwrap();
        let stat = format!("/proc/{pid}/stat");
        while std::fs::read_to_string(&stat).is_ok_and(|s| !s.contains(") Z")) {
            std::thread::sleep(PAUSE);
        }
    }

    #[test]
    fn endless_output_and_a_kept_pipe_hold_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = script(
            dir.path(),
            0o700,
            "#!/bin/sh\nhead -c 300000 /dev/zero\nexit 0\n",
        );
        let result = result(&path, &[], LONG);
        assert!(result.starts_with(r"exit code 0, said: \00\00"), "{result}");
        assert!(result.len() < 4 * SHOWN_BYTES_MAX);
    }
}
