//! Opens and closes the index of a data directory, and never trusts it blindly.
//!
//! Beside `index/` lie `index.clean`, which says what the files looked like
//! when they were closed, and `index.opening`, which counts attempts that did
//! not come to an end. Whether an index that was not closed, or was touched
//! since, agrees with itself has to be verified, which its user does while it
//! is used: a value is never believed without its checksum. One that fails, or
//! cannot be opened, is moved aside to `index.damaged-<n>` (one is kept) and an
//! empty one takes its place, to be filled from the journal.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::thread::sleep;
use std::time::Duration;

use super::sled::SledStore;
use super::{Store, StoreError};
use crate::journal::{JournalReader, Position};

/// Unfinished openings after which an index is given up: it may well be what
/// ended them.
const ATTEMPTS_MAX: usize = 2;
/// How long a closed index may take to let go of its files.
const RELEASE_TRIES: u32 = 500;
const RELEASE_PAUSE: Duration = Duration::from_millis(10);

/// An index, and whether it is as it was closed.
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn Store>,
    /// Otherwise it has to be verified.
    pub(crate) is_trusted: bool,
}

/// Looks after the index of one data directory.
pub(crate) struct Keeper {
    data_dir: PathBuf,
    /// A store that was given up or closed, until its last user let go.
    released: Option<Weak<dyn Store>>,
}

impl Keeper {
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            released: None,
        }
    }

    /// Opens the index of a journal, or begins an empty one. The caller brings
    /// it up to date.
    pub(crate) fn open(&mut self, journal: &JournalReader) -> Result<Opened, StoreError> {
        self.await_release();
        let clean = self.take_clean_mark()?;
        let attempts = fs::read(self.opening()).map_or(0, |text| text.len());
        if attempts >= ATTEMPTS_MAX {
            self.set_aside("the last attempts to open it did not come to an end")?;
        }
        fs::write(self.opening(), "x".repeat(attempts + 1)).map_err(unavailable)?;
        let untouched = clean.is_some() && clean == self.fingerprint().ok();
        let opened = self.open_store(journal);
        fs::remove_file(self.opening()).map_err(unavailable)?;
        let store = match opened {
            Err(StoreError::Damaged(reason)) => {
                self.set_aside(&reason)?;
                self.open_store(journal)?
            }
            opened => opened?,
        };
        sync(&self.data_dir)?;
        Ok(Opened {
            store: Arc::new(store),
            is_trusted: untouched,
        })
    }

    /// Reads the whole index without changing what it says: how far it has
    /// come, if there is one.
    pub(crate) fn check(&self, journal: &JournalReader) -> Result<Option<Position>, StoreError> {
        if fs::symlink_metadata(self.index()).is_err() {
            return Ok(None);
        }
        let store = self.open_store(journal)?;
        store.verify(&|| false)?;
        Ok(Some(store.position()))
    }

    fn open_store(&self, journal: &JournalReader) -> Result<SledStore, StoreError> {
        // Command lines of other people's processes: nobody else's to read.
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(self.index());
        made.map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
                StoreError::Damaged("there is a file in its place".into())
            }
            _ => unavailable(e),
        })?;
        SledStore::open(&self.index(), journal.id(), journal.end())
    }

    /// Moves an index that cannot be trusted out of the way.
    pub(crate) fn set_aside(&mut self, reason: &str) -> Result<(), StoreError> {
        let index = self.index();
        if fs::symlink_metadata(&index).is_err() {
            return Ok(());
        }
        tracing::warn!(
            index = %index.display(),
            reason,
            "The index is set aside and made again from the journal.",
        );
        let older = self.set_aside_before().map_err(unavailable)?;
        let number = older.iter().map(|(number, _)| *number).max().unwrap_or(0) + 1;
        fs::rename(
            &index,
            self.data_dir.join(format!("index.damaged-{number}")),
        )
        .map_err(unavailable)?;
        for (_, path) in older {
            let removed = match path.is_dir() {
                true => fs::remove_dir_all(path),
                false => fs::remove_file(path),
            };
            removed.map_err(unavailable)?;
        }
        sync(&self.data_dir)
    }

    /// Closes an index and notes what its files look like, so that the next
    /// opening need not read them all.
    pub(crate) fn close(&mut self, store: Arc<dyn Store>) -> Result<(), StoreError> {
        let flushed = store.flush();
        self.released(Arc::downgrade(&store));
        drop(store);
        flushed?;
        if !self.await_release() {
            return Ok(());
        }
        let noted = || -> io::Result<()> {
            for path in files_below(&self.index())? {
                File::open(path)?.sync_all()?;
            }
            let new = self.data_dir.join("index.clean.new");
            fs::write(&new, self.fingerprint()?)?;
            File::open(&new)?.sync_all()?;
            fs::rename(&new, self.clean())
        };
        noted().map_err(unavailable)?;
        sync(&self.data_dir)
    }

    /// This store was let go of; others may use it for a moment still.
    pub(crate) fn released(&mut self, store: Weak<dyn Store>) {
        self.released = Some(store);
    }

    /// Waits until nobody uses the store that was let go of.
    fn await_release(&mut self) -> bool {
        let Some(store) = self.released.take() else {
            return true;
        };
        for _ in 0..RELEASE_TRIES {
            if store.strong_count() == 0 {
                return true;
            }
            sleep(RELEASE_PAUSE);
        }
        self.released = Some(store);
        false
    }

    /// The fingerprint that the last closing left. It holds once: whoever
    /// opens the index may change it.
    fn take_clean_mark(&self) -> Result<Option<String>, StoreError> {
        let mark = match fs::read_to_string(self.clean()) {
            Ok(mark) => mark,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => String::new(),
            Err(error) => return Err(unavailable(error)),
        };
        fs::remove_file(self.clean()).map_err(unavailable)?;
        sync(&self.data_dir)?;
        Ok(Some(mark))
    }

    /// What every file of the index looks like from outside.
    fn fingerprint(&self) -> io::Result<String> {
        let mut text = String::new();
        for path in files_below(&self.index())? {
            let m = fs::symlink_metadata(&path)?;
            let (mtime, ctime) = ((m.mtime(), m.mtime_nsec()), (m.ctime(), m.ctime_nsec()));
            let line = writeln!(text, "{path:?} {} {} {mtime:?} {ctime:?}", m.ino(), m.len());
            line.map_err(io::Error::other)?;
        }
        Ok(text)
    }

    fn set_aside_before(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.data_dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|n| n.strip_prefix("index.damaged-"));
            if let Some(Ok(number)) = number.map(str::parse) {
                found.push((number, entry.path()));
            }
        }
        Ok(found)
    }

    fn index(&self) -> PathBuf {
        self.data_dir.join("index")
    }

    fn clean(&self) -> PathBuf {
        self.data_dir.join("index.clean")
    }

    fn opening(&self) -> PathBuf {
        self.data_dir.join("index.opening")
    }
}

/// Files of a directory and of those in it, in a fixed order.
fn files_below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => dirs.push(entry.path()),
                false => files.push(entry.path()),
            }
        }
    }
    files.sort();
    Ok(files)
}

fn sync(dir: &Path) -> Result<(), StoreError> {
    File::open(dir)
        .and_then(|d| d.sync_all())
        .map_err(unavailable)
}

fn unavailable(error: io::Error) -> StoreError {
    StoreError::Unavailable(error.to_string())
}
