//! Files that a server's pignore includes: they are read on the operator's
//! machine, which is often another one and then has a copy at most.
//!
//! Promises: with a root, an absolute path of an Include never leads out of it
//! by `..`.

use std::path::{Component, Path, PathBuf};

use super::{included, shown};

/// Where an Include line points: beside the first file when it is relative,
/// below `root` when it is absolute and there is one.
pub(crate) fn place(directory: &Path, root: Option<&Path>, path: &str) -> PathBuf {
    match root {
        Some(root) if Path::new(path).is_absolute() => below(root, Path::new(path)),
        _ => included(directory, path),
    }
}

/// Reads what an Include line names; the reason says what to do when it is not
/// on this machine.
pub(super) fn read(directory: &Path, root: Option<&Path>, path: &str) -> Result<Vec<u8>, String> {
    let place = place(directory, root, path);
    if place.symlink_metadata().is_ok() {
        return super::read(&place);
    }
    if root.is_none() && Path::new(path).is_absolute() {
        return Err(
            "it does not exist on this machine; copy the server's file tree, and say with --root \
             DIR where the copy begins"
                .to_owned(),
        );
    }
    Err(format!(
        "there is no {} on this machine; copy the file from the server to that place",
        shown(&place)
    ))
}

/// The path below a root, as if that were `/`.
fn below(root: &Path, path: &Path) -> PathBuf {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::ParentDir => {
                names.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    root.join(names.into_iter().collect::<PathBuf>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_paths_are_looked_up_below_the_root_and_never_beside_it() {
        let root = Some(Path::new("copy"));
        for (root, path, expected) in [
            (None, "/etc/csf/more", "/etc/csf/more"),
            (None, "more", "dir/more"),
            (root, "more", "dir/more"),
            (root, "/etc/csf/more", "copy/etc/csf/more"),
            (root, "//etc/./csf/x/../more", "copy/etc/csf/more"),
            (root, "/../../etc/shadow", "copy/etc/shadow"),
        ] {
            let place = place(Path::new("dir"), root, path);
            assert_eq!(place, Path::new(expected), "{path}");
        }
    }

    #[test]
    fn what_is_not_on_this_machine_is_said_with_what_to_do() {
        let dir = tempfile::tempdir().expect("a directory");
        for (root, path, words) in [
            (None, "/nonexistent/more", "--root DIR"),
            (Some(dir.path()), "/etc/csf/more", "/etc/csf/more on this"),
            (None, "more", "/more on this machine; copy"),
        ] {
            let reason = read(dir.path(), root, path).expect_err("nothing is there");
            assert!(reason.contains(words), "{path}: {reason}");
        }
    }
}
