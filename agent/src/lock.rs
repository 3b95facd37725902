//! One agent per state directory.
//!
//! The lock is the kernel's (flock): it ends with the process, however that
//! ends, so no stale lock is ever left behind. The file holds the PID, for
//! people; whether an agent runs is decided by the lock alone.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::files::{self, FileError};

const NAME: &str = "agent.lock";

/// The lock, held until it is dropped.
#[derive(Debug)]
pub(crate) struct StateLock {
    _file: File,
}

/// The lock was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    /// Another process has it.
    #[error(
        "another agent (pid {pid}) uses the state directory {dir}: stop it first, or name another \
         directory with --state-dir"
    )]
    Held {
        /// What the lock file says, digits only.
        pid: String,
        /// The directory.
        dir: String,
    },
    /// The file could not be opened.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Takes the state directory for this process; makes it where it is missing.
pub(crate) fn take(state_dir: &Path) -> Result<StateLock, LockError> {
    files::make_dir(state_dir)?;
    let path = state_dir.join(NAME);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|e| FileError::new("open", &path, e))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(LockError::Held {
                pid: pid_in(&mut file),
                dir: state_dir.display().to_string(),
            });
        }
        Err(TryLockError::Error(e)) => return Err(FileError::new("lock", &path, e).into()),
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(|e| FileError::new("write", &path, e))?;
    Ok(StateLock { _file: file })
}

/// Whether an agent holds the lock of the state directory.
pub(crate) fn is_held(state_dir: &Path) -> Result<bool, FileError> {
    let path = state_dir.join(NAME);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(FileError::new("open", &path, e)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(e)) => Err(FileError::new("lock", &path, e)),
    }
}

fn pid_in(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.take(32).read_to_string(&mut text);
    let pid: String = text.chars().take_while(char::is_ascii_digit).collect();
    if read.is_err() || pid.is_empty() {
        "unknown".to_owned()
    } else {
        pid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_agent_is_refused_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_held(dir.path()).unwrap());
        let first = take(dir.path()).unwrap();
        assert!(is_held(dir.path()).unwrap());
        let refused = take(dir.path()).unwrap_err().to_string();
        assert!(
            refused.contains(&format!("pid {}", std::process::id())),
            "{refused}"
        );
        drop(first);
        assert!(!is_held(dir.path()).unwrap());
        take(dir.path()).unwrap();
    }
}
