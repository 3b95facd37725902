//! Where paths led in the agent's own root a moment ago.
//!
//! Hundreds of processes run the same program, and looking its path up for each
//! costs three system calls. What was looked up only ever confirms: a process
//! runs the very file that its path led to then. Whatever else it runs, the
//! path is looked up anew.
//! A path can lead elsewhere by now. But whoever takes the name from the file,
//! by renaming or unlinking it, changes the time of the file's last change, and
//! a file that got the inode of one that is gone has another such time: both
//! are looked up anew. Left is a directory above it that was renamed, or a mount
//! over it, less than [`KEPT`] ago: then a process counts as one that was read
//! that much earlier. An account can do that to its own directories only, and
//! to run its own file from there is all that it could claim with it.

use std::time::{Duration, Instant};

use rustix::fs::Stat;

use super::{FileId, OwnView, file_at, file_id};

/// So long what was looked up is believed.
const KEPT: Duration = Duration::from_millis(50);
/// So many paths are kept, the newest.
const PATHS_MAX: usize = 16;

/// Some paths, each with the file that it led to.
#[derive(Default)]
pub(in crate::procfs) struct Lookups {
    seen: Vec<Seen>,
}

struct Seen {
    path: Vec<u8>,
    file: Version,
    at: Instant,
}

/// A file, and when its inode was last changed, in seconds and nanoseconds.
type Version = (FileId, i64, u64);

impl Lookups {
    /// Whether a path leads to this file in the agent's own root.
    pub(super) fn lead_to(&mut self, own: &OwnView, path: &[u8], file: &Stat) -> bool {
        let now = Instant::now();
        if self.confirm(path, version(file), now) {
            return true;
        }
        let found = own.root.as_ref().map(|root| file_at(root, path));
        let Some(Ok(Some(found))) = found else {
            return false;
        };
        self.keep(path, version(&found), now);
        file_id(&found) == file_id(file)
    }

    fn confirm(&self, path: &[u8], file: Version, now: Instant) -> bool {
        let mut seen = self.seen.iter();
        seen.any(|seen| {
            seen.file == file && seen.path == path && now.saturating_duration_since(seen.at) < KEPT
        })
    }

    fn keep(&mut self, path: &[u8], file: Version, at: Instant) {
        self.seen.retain(|seen| seen.path != path);
        if self.seen.len() == PATHS_MAX {
            self.seen.remove(0);
        }
        let path = path.to_vec();
        self.seen.push(Seen { path, file, at });
    }
}

fn version(file: &Stat) -> Version {
    (file_id(file), file.st_ctime, file.st_ctime_nsec)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    use super::*;

    fn stat(path: &Path) -> Stat {
        rustix::fs::stat(path).unwrap()
    }

    #[test]
    fn what_was_looked_up_confirms_the_same_file_for_a_while() {
        let directory = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| directory.path().join(name));
        fs::write(&one, "").unwrap();
        fs::write(&other, "").unwrap();
        let (own, mut lookups) = (OwnView::look(), Lookups::default());
        let path = one.as_os_str().as_bytes();
        assert!(lookups.lead_to(&own, path, &stat(&one)));
        assert!(!lookups.lead_to(&own, path, &stat(&other)));
        let now = Instant::now();
        let file = version(&stat(&one));
        assert!(lookups.confirm(path, file, now));
        assert!(!lookups.confirm(path, file, now + KEPT));
        assert!(!lookups.confirm(b"/elsewhere", file, now));
        assert!(!lookups.confirm(path, version(&stat(&other)), now));
    }

    #[test]
    fn a_path_that_was_taken_from_its_file_is_looked_up_anew() {
        let directory = tempfile::tempdir().unwrap();
        let [path, kept, new] = ["path", "kept", "new"].map(|name| directory.path().join(name));
        let (own, mut lookups) = (OwnView::look(), Lookups::default());
        fs::write(&path, "").unwrap();
        let bytes = path.as_os_str().as_bytes();
        assert!(lookups.lead_to(&own, bytes, &stat(&path)));
        // The clock of files goes on in ticks.
        std::thread::sleep(Duration::from_millis(20));
        fs::hard_link(&path, &kept).unwrap();
        fs::write(&new, "").unwrap();
        fs::rename(&new, &path).unwrap();
        // At once, and after more than is kept.
        assert!(!lookups.lead_to(&own, bytes, &stat(&kept)));
        assert!(lookups.lead_to(&own, bytes, &stat(&path)));
    }

    #[test]
    fn the_newest_paths_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let file = version(&stat(directory.path()));
        let (mut lookups, now) = (Lookups::default(), Instant::now());
        for number in 0..=PATHS_MAX {
            lookups.keep(number.to_string().as_bytes(), file, now);
        }
        assert_eq!(lookups.seen.len(), PATHS_MAX);
        assert!(!lookups.confirm(b"0", file, now) && lookups.confirm(b"1", file, now));
    }
}
