//! Opens and closes the index of a data directory, and never trusts it blindly.
//!
//! Beside `index/` lie `index.clean`, which says what the files looked like
//! when they were closed, and `index.opening`, which counts attempts that did
//! not come to an end. Whether an index that was not closed, or was touched
//! since, agrees with itself has to be verified, which its user does while it
//! is used: a value is never believed without its checksum. One that fails, or
//! cannot be opened, is set aside and an empty one takes its place, to be filled
//! from the journal (directories: see `generations`).

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::thread::sleep;
use std::time::Duration;

use super::generations::{Generations, sync, unavailable};
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
    generations: Generations,
    /// A store that was given up or closed, until its last user let go.
    released: Option<Weak<dyn Store>>,
}

impl Keeper {
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            generations: Generations::new(data_dir),
            released: None,
        }
    }

    /// Opens the index of a journal, or begins an empty one. The caller brings
    /// it up to date.
    pub(crate) fn open(&mut self, journal: &JournalReader) -> Result<Opened, StoreError> {
        self.await_release();
        let clean = self.take_clean_mark()?;
        let mut attempts = fs::read(self.opening()).map_or(0, |text| text.len());
        if attempts >= ATTEMPTS_MAX {
            self.set_aside("the last attempts to open it did not come to an end")?;
            attempts = 0;
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
        let Some(dir) = self.written()? else {
            return Ok(None);
        };
        let store = SledStore::open(&dir, journal.id(), journal.end())?;
        store.verify(&|| false)?;
        Ok(Some(store.position()))
    }

    fn open_store(&mut self, journal: &JournalReader) -> Result<SledStore, StoreError> {
        let dir = match self.written()? {
            Some(dir) => dir,
            None => self.generations.begin()?,
        };
        self.generations.tidy(&dir)?;
        SledStore::open(&dir, journal.id(), journal.end())
    }

    /// The directory of the index in use, if anything was ever written to it.
    fn written(&self) -> Result<Option<PathBuf>, StoreError> {
        let found = fs::symlink_metadata(self.generations.dir());
        if found.is_ok_and(|found| !found.is_dir()) {
            return Err(StoreError::Damaged("there is a file in its place".into()));
        }
        let current = self.generations.current()?;
        Ok(current.filter(|dir| !SledStore::is_blank(dir)))
    }

    /// Moves an index that cannot be trusted out of the way. The next one has a
    /// directory of its own, so nobody waits for the users of this one.
    pub(crate) fn set_aside(&mut self, reason: &str) -> Result<(), StoreError> {
        self.released = None;
        self.generations.set_aside(reason)
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
            for path in files_below(&self.generations.dir())? {
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
        for path in files_below(&self.generations.dir())? {
            let m = fs::symlink_metadata(&path)?;
            let (mtime, ctime) = ((m.mtime(), m.mtime_nsec()), (m.ctime(), m.ctime_nsec()));
            let line = writeln!(text, "{path:?} {} {} {mtime:?} {ctime:?}", m.ino(), m.len());
            line.map_err(io::Error::other)?;
        }
        Ok(text)
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
