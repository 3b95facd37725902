//! The limit of open files: ten thousand streams are ten thousand of them.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Enough for every simulated fleet.
const WANTED: u64 = 131_072;

/// Raises the limit as far as this user may, and returns what it is then.
#[must_use]
pub fn raise_open_files() -> u64 {
    let now = getrlimit(Resource::Nofile);
    let hard = now.maximum.unwrap_or(WANTED);
    for files in [WANTED.max(hard), hard] {
        let limit = Rlimit {
            current: Some(files),
            maximum: Some(files),
        };
        if setrlimit(Resource::Nofile, limit).is_ok() {
            return files;
        }
    }
    now.current.unwrap_or(WANTED)
}
