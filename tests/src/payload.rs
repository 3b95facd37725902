//! Suspicious processes that do no harm, from files the test made itself.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::binaries::binary;
use crate::wait::eventually;

/// uid and gid of `nobody` on Debian and its kin.
pub const NOBODY: u32 = 65534;

/// Whether the tests run as root: only then can they start processes of
/// another account, and scan the processes of all.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The uid of the payloads: `nobody`, or the tests' own.
#[must_use]
pub fn payload_uid() -> u32 {
    if is_root() {
        NOBODY
    } else {
        rustix::process::geteuid().as_raw()
    }
}

/// A directory below a volatile one, removed with the test. Tests as root
/// need it readable by `nobody`.
///
/// # Errors
/// When it cannot be made.
pub fn volatile_directory() -> anyhow::Result<tempfile::TempDir> {
    let parent = if Path::new("/dev/shm").is_dir() {
        "/dev/shm"
    } else {
        "/tmp"
    };
    let directory = tempfile::Builder::new()
        .prefix("procwarden-test-")
        .tempdir_in(parent)?;
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755))?;
    Ok(directory)
}

/// How to start a payload.
pub struct Payload {
    path: PathBuf,
    argv0: Option<Vec<u8>>,
    arguments: Vec<Vec<u8>>,
    variables: Vec<(String, Vec<u8>)>,
    uid: u32,
}

impl Payload {
    /// Copies the payload program to `path`, ready to run there.
    ///
    /// # Panics
    /// When it cannot be copied.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        let copied = std::fs::copy(binary("procwarden-payload"), path);
        copied.unwrap_or_else(|e| panic!("cannot make {}: {e}", path.display()));
        Self {
            path: path.to_owned(),
            argv0: None,
            arguments: vec![b"sleep".to_vec()],
            variables: Vec::new(),
            uid: NOBODY,
        }
    }

    /// What it calls itself, instead of its path.
    #[must_use]
    pub fn argv0(mut self, argv0: impl AsRef<[u8]>) -> Self {
        self.argv0 = Some(argv0.as_ref().to_vec());
        self
    }

    /// What it does, instead of sleeping.
    #[must_use]
    pub fn does<A: AsRef<[u8]>>(mut self, arguments: &[A]) -> Self {
        self.arguments = arguments.iter().map(|a| a.as_ref().to_vec()).collect();
        self
    }

    /// A variable of its environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.variables
            .push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// The account it runs as where the tests are root, instead of `nobody`.
    #[must_use]
    pub fn account(mut self, uid: u32) -> Self {
        self.uid = uid;
        self
    }

    /// Starts it as `nobody`, or as oneself where the tests are not root.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(&self) -> Running {
        let mut command = Command::new(&self.path);
        if let Some(argv0) = &self.argv0 {
            command.arg0(OsStr::from_bytes(argv0));
        }
        command.args(self.arguments.iter().map(|a| OsStr::from_bytes(a)));
        for (name, value) in &self.variables {
            command.env(name, OsStr::from_bytes(value));
        }
        if is_root() {
            command.uid(self.uid).gid(self.uid);
        }
        command
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = eventually("a payload to start", || match command.spawn() {
            Ok(child) => Ok(child),
            // Another test forked while this file was being copied, and holds
            // it open for writing until its own child runs.
            Err(e) if e.kind() == ErrorKind::ExecutableFileBusy => Err(e.to_string()),
            Err(e) => panic!("cannot start {command:?}: {e}"),
        });
        let is_quiet = |argument: &Vec<u8>| argument == b"sleep" || argument == b"hold";
        let quiet = self.arguments.iter().any(is_quiet);
        let said = if quiet {
            String::new()
        } else {
            first_line(&mut child)
        };
        Running { child, said }
    }
}

/// What the payload prints once it is ready.
fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        let _hung_up = BufReader::new(stdout).read_line(&mut line).is_err();
    }
    line.trim().to_owned()
}

/// A running payload; it ends with the value.
pub struct Running {
    child: Child,
    said: String,
}

impl Running {
    /// Its PID.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it printed once it was ready: the port of a listener.
    #[must_use]
    pub fn said(&self) -> &str {
        &self.said
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.child.kill().is_err();
        let _gone = self.child.wait().is_err();
    }
}
