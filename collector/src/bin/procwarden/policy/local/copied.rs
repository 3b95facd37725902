//! A server's files on the operator's machine, which is often another one and
//! then has a copy at most.
//!
//! Promises: with a root, a path of an Include line, and every file below the
//! root, is looked up as the server would do it: nothing leads out of the copy.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{bounded, directory_of, included, regular, shown};

pub(crate) use root::Root;

mod root;

/// Where a file stands.
#[derive(Debug)]
pub(crate) enum Place<'a> {
    /// In a copy of a server's tree, under the server's path.
    Copied(&'a Root, PathBuf),
    /// Outside of the copy, where there is one.
    Here(Option<&'a Root>, PathBuf),
}

impl<'a> Place<'a> {
    /// Of a file that the operator named.
    pub(crate) fn named(file: &Path, root: Option<&'a Root>) -> Self {
        let copied = root.and_then(|root| Some((root, root.relative(file)?)));
        match copied {
            Some((root, path)) => Self::Copied(root, path),
            None => Self::Here(root, file.to_owned()),
        }
    }

    /// Of what an Include line of the first file names: beside that file when
    /// it is relative, in the copy when it is absolute and there is one.
    pub(crate) fn included(&self, path: &str) -> Self {
        match *self {
            Self::Copied(root, ref first) => {
                Self::Copied(root, included(directory_of(first), path))
            }
            Self::Here(Some(root), _) if Path::new(path).is_absolute() => {
                Self::Copied(root, path.into())
            }
            Self::Here(root, ref first) => Self::Here(root, included(directory_of(first), path)),
        }
    }

    /// What people on this machine call it.
    pub(crate) fn path(&self) -> PathBuf {
        match self {
            Self::Copied(root, path) => root.place(path),
            Self::Here(_, path) => path.clone(),
        }
    }

    /// Reads a file that the operator named.
    pub(crate) fn read(&self) -> Result<Vec<u8>, String> {
        match self {
            Self::Copied(root, path) => bounded(root.file(path)?),
            Self::Here(_, path) => super::read(path),
        }
    }

    /// Reads what an Include line names; the reason says what to do when it is
    /// not on this machine.
    pub(super) fn read_included(&self) -> Result<Vec<u8>, String> {
        let Self::Here(root, path) = self else {
            return self.read();
        };
        match regular::open(path) {
            Ok(file) => bounded(file),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(missing(*root, path)),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn missing(root: Option<&Root>, path: &Path) -> String {
    if root.is_none() && path.is_absolute() {
        return "it does not exist on this machine; copy the server's file tree, and say with \
                --root DIR where the copy begins"
            .to_owned();
    }
    format!(
        "there is no {} on this machine; copy the file from the server to that place",
        shown(path)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn includes_stand_beside_the_first_file_or_in_the_copy() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |path: &str| dir.path().join(path);
        std::fs::create_dir_all(at("copy/etc/csf")).expect("made");
        let root = Root::open(&at("copy")).expect("a copy");
        let (inside, beside) = (at("copy/etc/csf/csf.pignore"), at("csf.pignore"));
        for (root, first, path, expected, is_copied) in [
            (
                None,
                &inside,
                "/etc/csf/more",
                "/etc/csf/more".into(),
                false,
            ),
            (None, &inside, "more", at("copy/etc/csf/more"), false),
            (Some(&root), &inside, "more", at("copy/etc/csf/more"), true),
            (Some(&root), &inside, "../more", at("copy/etc/more"), true),
            (Some(&root), &inside, "../../../../x", at("copy/x"), true),
            (Some(&root), &inside, "/etc/more", at("copy/etc/more"), true),
            (Some(&root), &beside, "/etc/more", at("copy/etc/more"), true),
            (Some(&root), &beside, "more", at("more"), false),
        ] {
            let place = Place::named(first, root).included(path);
            assert_eq!(place.path(), expected, "{path}");
            assert_eq!(matches!(place, Place::Copied(..)), is_copied, "{path}");
        }
    }

    #[test]
    fn what_is_not_on_this_machine_is_said_with_what_to_do() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = Root::open(dir.path()).expect("a copy");
        let inside = dir.path().join("csf.pignore");
        for (root, first, path, words) in [
            (None, &inside, "/nonexistent/more", "--root DIR"),
            (
                Some(&root),
                &inside,
                "/etc/csf/more",
                "/etc/csf/more on this",
            ),
            (
                Some(&root),
                &inside,
                "more",
                "/more on this machine, looked",
            ),
            (
                None,
                &"x/csf.pignore".into(),
                "more",
                "x/more on this machine; copy",
            ),
        ] {
            let place = Place::named(first, root).included(path);
            let reason = place.read_included().expect_err("nothing is there");
            assert!(reason.contains(words), "{path}: {reason}");
        }
    }
}
