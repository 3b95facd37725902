//! Where a script of the administrator lies: whoever can put another file in
//! its place says what runs as root.
//!
//! Promises: every directory on the way belongs to root or to the agent's
//! account, as does every link, and none can be written by everybody, except
//! where the sticky bit keeps what is there. Directories that a group of root's
//! can write are let be: Debian's `/usr/local` was one for long.

use std::path::Path;

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::NotRun;

/// Looks at the way to a script, as it is written and as it leads on.
///
/// # Errors
/// When somebody else could put another file there, or the way ends.
pub(super) fn check(path: &Path, own_uid: u32) -> Result<(), NotRun> {
    check_way(path, own_uid)?;
    let leads_to = path.canonicalize().map_err(|e| {
        let errno = Errno::from_io_error(&e).unwrap_or(Errno::IO);
        NotRun::Open(errno)
    })?;
    check_way(&leads_to, own_uid)
}

fn check_way(path: &Path, own_uid: u32) -> Result<(), NotRun> {
    for place in path.ancestors() {
        let stat = rustix::fs::lstat(place).map_err(NotRun::Open)?;
        if let Some(objection) = objection(&stat, own_uid) {
            return Err(NotRun::Refused(objection));
        }
    }
    Ok(())
}

/// What speaks against a file, link or directory on the way.
fn objection(stat: &Stat, own_uid: u32) -> Option<&'static str> {
    const STICKY: u32 = 0o1000;
    if stat.st_uid != 0 && stat.st_uid != own_uid {
        return Some(
            "something on the way to it belongs neither to root nor to the agent's account",
        );
    }
    let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let is_open = stat.st_mode & 0o002 != 0 && stat.st_mode & STICKY == 0;
    (is_dir && is_open).then_some("a directory on the way to it can be written by everybody")
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn own_uid() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    fn refusal(path: &Path, own_uid: u32) -> Option<String> {
        check(path, own_uid)
            .err()
            .map(|not_run| not_run.to_string())
    }

    #[test]
    fn a_script_below_a_directory_that_everybody_can_write_is_refused_also_behind_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("open");
        std::fs::create_dir(&open).unwrap();
        let script = open.join("script");
        std::fs::write(&script, "").unwrap();
        let link = dir.path().join("link");
        symlink(&script, &link).unwrap();
        let mode = |mode| set_permissions(&open, Permissions::from_mode(mode)).unwrap();
        for path in [&script, &link] {
            mode(0o777);
            let refusal = refusal(path, own_uid()).unwrap();
            assert!(refusal.contains("written by everybody"), "{refusal}");
            mode(0o1777);
            assert_eq!(check(path, own_uid()).err().map(|e| e.to_string()), None);
            mode(0o775);
            assert_eq!(check(path, own_uid()).err().map(|e| e.to_string()), None);
        }
    }

    #[test]
    fn what_belongs_to_somebody_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("script");
        std::fs::write(&script, "").unwrap();
        let mut stat = rustix::fs::lstat(&script).unwrap();
        stat.st_uid = 1001;
        assert!(objection(&stat, 1001).is_none());
        assert!(objection(&stat, 1002).is_some());
        let gone = refusal(&dir.path().join("gone"), own_uid()).unwrap();
        assert!(gone.starts_with("failed: cannot open it"), "{gone}");
    }
}
