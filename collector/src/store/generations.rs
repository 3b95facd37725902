//! The directories of an index: every index that is begun has a number and a
//! directory `index/<number>` of its own, and the highest is the one in use.
//!
//! Promises: a number is never used twice while the process lives, so that one
//! that was given up and is still being closed writes into nobody else's files.
//! One that was given up is kept as `index.damaged-<number>`, and of those the
//! last only; whatever else lies in `index/` is removed.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::StoreError;

const DAMAGED: &str = "index.damaged-";

/// The directories of the index of one data directory.
pub(super) struct Generations {
    data_dir: PathBuf,
    /// The highest number that was given to any.
    newest: u64,
}

impl Generations {
    pub(super) fn new(data_dir: &Path) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            newest: 0,
        }
    }

    /// What holds all of them.
    pub(super) fn dir(&self) -> PathBuf {
        self.data_dir.join("index")
    }

    /// The one in use, if there is any.
    pub(super) fn current(&self) -> Result<Option<PathBuf>, StoreError> {
        let highest = numbered(&self.dir(), "")?.into_iter().max();
        Ok(highest.map(|(_, path)| path))
    }

    /// A new, empty one, which takes the place of all others.
    pub(super) fn begin(&mut self) -> Result<PathBuf, StoreError> {
        self.newest = self.highest()? + 1;
        let made = self.dir().join(self.newest.to_string());
        // Command lines of other people's processes: nobody else's to read.
        let created = DirBuilder::new().recursive(true).mode(0o700).create(&made);
        created.map_err(unavailable)?;
        sync(&self.dir())?;
        sync(&self.data_dir)?;
        Ok(made)
    }

    /// Removes what is not `current` and lies where it does.
    pub(super) fn tidy(&self, current: &Path) -> Result<(), StoreError> {
        for entry in fs::read_dir(self.dir()).map_err(unavailable)? {
            let path = entry.map_err(unavailable)?.path();
            if path != current {
                remove(&path);
            }
        }
        Ok(())
    }

    /// Gives up the one in use and keeps it to be looked at, in the place of
    /// the one that was given up before.
    pub(super) fn set_aside(&mut self, reason: &str) -> Result<(), StoreError> {
        let index = self.dir();
        let given_up = match fs::symlink_metadata(&index) {
            Err(_) => return Ok(()),
            Ok(found) if found.is_dir() => self.current()?,
            Ok(_) => Some(index.clone()),
        };
        let Some(given_up) = given_up else {
            return Ok(());
        };
        tracing::warn!(
            index = %given_up.display(),
            reason,
            "The index is set aside and made again from the journal.",
        );
        self.newest = self.highest()?;
        for (_, older) in numbered(&self.data_dir, DAMAGED)? {
            remove(&older);
        }
        self.newest += 1;
        let aside = self.data_dir.join(format!("{DAMAGED}{}", self.newest));
        fs::rename(&given_up, aside).map_err(unavailable)?;
        if index.is_dir() {
            sync(&index)?;
        }
        sync(&self.data_dir)
    }

    fn highest(&self) -> Result<u64, StoreError> {
        let in_use = numbered(&self.dir(), "")?;
        let damaged = numbered(&self.data_dir, DAMAGED)?;
        let numbers = in_use.iter().chain(&damaged).map(|(number, _)| *number);
        Ok(numbers.max().unwrap_or(0).max(self.newest))
    }
}

/// What lies in a directory under a prefix and a number.
fn numbered(dir: &Path, prefix: &str) -> Result<Vec<(u64, PathBuf)>, StoreError> {
    use io::ErrorKind::{NotADirectory, NotFound};
    let entries = match fs::read_dir(dir) {
        Err(e) if matches!(e.kind(), NotFound | NotADirectory) => return Ok(Vec::new()),
        entries => entries.map_err(unavailable)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(unavailable)?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(prefix));
        if let Some(Ok(number)) = number.map(str::parse) {
            found.push((number, entry.path()));
        }
    }
    Ok(found)
}

/// Removes what nobody needs; it is tried again when the next one is.
fn remove(path: &Path) {
    let removed = match path.is_dir() && !path.is_symlink() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    };
    if let Err(error) = removed {
        tracing::warn!(path = %path.display(), %error, "An old index could not be removed.");
    }
}

/// Makes what was done in a directory survive a power cut.
pub(super) fn sync(dir: &Path) -> Result<(), StoreError> {
    File::open(dir)
        .and_then(|d| d.sync_all())
        .map_err(unavailable)
}

pub(super) fn unavailable(error: io::Error) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let name = |e: io::Result<fs::DirEntry>| e.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn a_number_is_never_used_twice() {
        let dir = tempfile::tempdir().unwrap();
        let mut generations = Generations::new(dir.path());
        assert_eq!(generations.current().unwrap(), None);
        let first = generations.begin().unwrap();
        assert_eq!(generations.current().unwrap(), Some(first.clone()));
        fs::remove_dir_all(&first).unwrap();
        assert_ne!(generations.begin().unwrap(), first);
        generations.set_aside("it is damaged").unwrap();
        let last = generations.begin().unwrap();
        let next = Generations::new(dir.path()).begin().unwrap();
        assert_eq!(generations.current().unwrap(), Some(next.clone()));
        assert_ne!(next, last);
    }

    #[test]
    fn however_many_are_given_up_one_of_them_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..5 {
            let mut generations = Generations::new(dir.path());
            fs::write(generations.begin().unwrap().join("db"), b"db").unwrap();
            generations.set_aside("it is damaged").unwrap();
            generations.set_aside("there is nothing left").unwrap();
        }
        let left = names(dir.path());
        assert_eq!(left.len(), 2, "{left:?}");
        assert!(names(&dir.path().join("index")).is_empty());
        assert_eq!(names(&dir.path().join(&left[1])), ["db"]);
    }

    #[test]
    fn a_file_in_the_place_of_them_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let mut generations = Generations::new(dir.path());
        fs::write(generations.dir(), b"a file").unwrap();
        assert!(generations.begin().is_err());
        generations.set_aside("it is a file").unwrap();
        assert!(generations.begin().unwrap().is_dir());
    }

    #[test]
    fn strays_are_tidied_away() {
        let dir = tempfile::tempdir().unwrap();
        let mut generations = Generations::new(dir.path());
        let old = generations.begin().unwrap();
        fs::write(old.join("db"), b"db").unwrap();
        fs::write(generations.dir().join("conf"), b"of another version").unwrap();
        let current = generations.begin().unwrap();
        generations.tidy(&current).unwrap();
        assert_eq!(names(&generations.dir()), ["2"]);
        assert_eq!(generations.current().unwrap(), Some(current));
    }
}
