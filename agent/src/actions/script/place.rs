//! Where a script of the administrator lies: whoever can put another file in
//! its place says what runs as root.
//!
//! Promises: every directory on the way belongs to root or to the agent's
//! account, as does every link, and none can be written by everybody, except
//! where the sticky bit keeps what is there. Directories that a group of root's
//! can write are let be: Debian's `/usr/local` was one for long.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Stat};

use super::NotRun;

/// As many links as the kernel follows: `path_resolution(7)`.
const LINKS_MAX: usize = 40;

/// Goes the way to a script, step by step and from link to link.
///
/// # Errors
/// When somebody else could put another file there, or the way ends.
pub(super) fn check(path: &Path, own_uid: u32) -> Result<(), NotRun> {
    let mut left: VecDeque<OsString> = steps(path).collect();
    let (mut at, mut links) = (PathBuf::from("/"), 0);
    check_step(&at, own_uid)?;
    while let Some(step) = left.pop_front() {
        if step == ".." {
            at.pop();
            continue;
        }
        let next = at.join(step);
        let stat = check_step(&next, own_uid)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            at = next;
            continue;
        }
        links += 1;
        if links > LINKS_MAX {
            return Err(NotRun::Refused("too many links lead to it"));
        }
        let target = rustix::fs::readlink(&next, Vec::new()).map_err(NotRun::Open)?;
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        for step in steps(&target).collect::<Vec<_>>().into_iter().rev() {
            left.push_front(step);
        }
    }
    Ok(())
}

/// The names in a path, and `..`.
fn steps(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    })
}

fn check_step(place: &Path, own_uid: u32) -> Result<Stat, NotRun> {
    let stat = rustix::fs::lstat(place).map_err(NotRun::Open)?;
    match objection(&stat, own_uid) {
        Some(objection) => Err(NotRun::Refused(objection)),
        None => Ok(stat),
    }
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
        // By way of a second link, which lies where everybody can write.
        let (inner, relative) = (open.join("inner"), dir.path().join("open/../link2"));
        let plain = dir.path().join("plain");
        std::fs::write(&plain, "").unwrap();
        symlink(&plain, &inner).unwrap();
        symlink("open/inner", dir.path().join("link2")).unwrap();
        symlink(&script, &link).unwrap();
        let mode = |mode| set_permissions(&open, Permissions::from_mode(mode)).unwrap();
        for path in [&script, &link, &relative] {
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
        let endless = dir.path().join("endless");
        symlink("endless", &endless).unwrap();
        let endless = refusal(&endless, own_uid()).unwrap();
        assert!(endless.contains("too many links"), "{endless}");
        let gone = refusal(&dir.path().join("gone"), own_uid()).unwrap();
        assert!(gone.starts_with("failed: cannot open it"), "{gone}");
    }
}
