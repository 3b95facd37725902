//! The store on sled 0.34. The only file that imports sled.
//!
//! Promises: a batch is written as a whole or not at all, position included.
//! Values are checked when they are read; [`Store::verify`] checks everything.
//! A panic of sled becomes [`StoreError::Damaged`].
//!
//! sled's flush does not sync its file on Linux (spacejam/sled#1351); this one
//! does. Even so, power loss may leave an index that has to be rebuilt: what is
//! acked never depends on it.

use std::fs::File;
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use procwarden_common::finding::{FindingState, StoredFinding};
use procwarden_common::id::{FindingId, HostId};

use super::changes::{self, Changes};
use super::key::{self, Place};
use super::schema::{self, Meta, SCHEMA};
use super::{Counts, Store, StoreError};
use crate::dedup::Known;
use crate::findings::{FindingEntry, FindingFilter, FindingPage};
use crate::journal::Position;

const CACHE_BYTES: u64 = 64 * 1024 * 1024;
const LOCK_TRIES: u32 = 500;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Findings in a sled database.
pub(crate) struct SledStore {
    dir: PathBuf,
    /// Nothing only while it is dropped.
    db: Option<sled::Db>,
    /// Locked by whoever writes, and while it is read.
    meta: Mutex<Meta>,
}

impl SledStore {
    /// Opens or makes the database of a directory, as the index of a journal.
    pub(crate) fn open(
        dir: &Path,
        journal_id: u64,
        journal_end: Position,
    ) -> Result<Self, StoreError> {
        guarded(|| {
            let config = sled::Config::new()
                .path(dir)
                .cache_capacity(CACHE_BYTES)
                // Flushed by the indexer, which syncs the file as well.
                .flush_every_ms(None);
            let db = open_db(&config)?;
            let found = db.get(key::META).map_err(failed)?;
            let meta = match found {
                Some(sealed) => checked_meta(&sealed, journal_id, journal_end)?,
                None if !db.was_recovered() && db.is_empty() => {
                    let meta = Meta::new(journal_id);
                    let value = schema::seal(key::META, &meta.encode());
                    db.insert(key::META, value).map_err(failed)?;
                    meta
                }
                None => return Err(StoreError::Damaged("it has no mark of its schema".into())),
            };
            Ok(Self {
                dir: dir.to_owned(),
                db: Some(db),
                meta: Mutex::new(meta),
            })
        })
    }

    fn db(&self) -> Result<&sled::Db, StoreError> {
        self.db
            .as_ref()
            .ok_or_else(|| StoreError::Unavailable("it is closed".into()))
    }

    fn meta(&self) -> MutexGuard<'_, Meta> {
        self.meta.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self
            .db()?
            .get(key)
            .map_err(failed)?
            .map(|value| value.to_vec()))
    }

    /// Writes changes that `make` finds; the caller's only way to write.
    fn change<R>(
        &self,
        upto: Option<Position>,
        make: impl FnOnce(&mut Changes<'_>) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        guarded(|| {
            let mut meta = self.meta();
            let read = |key: &[u8]| self.read(key);
            let mut changes = Changes::new(&read, *meta);
            let made = make(&mut changes)?;
            let (after, writes) = changes.finish(upto.unwrap_or(meta.position));
            let mut batch = sled::Batch::default();
            for (key, value) in writes {
                match value {
                    Some(value) => batch.insert(key, value),
                    None => batch.remove(key),
                }
            }
            self.db()?.apply_batch(batch).map_err(failed)?;
            *meta = after;
            Ok(made)
        })
    }

    fn finding_unguarded(&self, id: FindingId) -> Result<Option<StoredFinding>, StoreError> {
        let key = key::finding(id);
        let sealed = self.read(&key)?;
        sealed
            .map(|sealed| changes::decode(&key, &sealed))
            .transpose()
    }

    /// The finding of a place in a listing; nothing when it went meanwhile.
    fn listed(
        &self,
        id: FindingId,
        listing_key: &[u8],
    ) -> Result<Option<StoredFinding>, StoreError> {
        match self.finding_unguarded(id)? {
            None if self.read(listing_key)?.is_some() => Err(StoreError::Damaged(format!(
                "finding {id} is listed and missing"
            ))),
            found => Ok(found),
        }
    }

    fn list_unguarded(
        &self,
        filter: &FindingFilter,
        cursor: Option<&[u8]>,
        limit: usize,
    ) -> Result<FindingPage, StoreError> {
        let prefix = filter
            .host
            .map_or_else(|| key::BY_TIME.to_vec(), key::host_prefix);
        let start = match cursor.map(|c| Place::from_cursor(c).ok_or(StoreError::InvalidCursor)) {
            Some(place) => Bound::Excluded(place?.key(&prefix)),
            None => Bound::Included(prefix.clone()),
        };
        let mut findings = Vec::new();
        let mut last = None;
        for item in self.db()?.range((start, Bound::Unbounded)) {
            let (key, _) = item.map_err(failed)?;
            let Some(place) = Place::parse(&prefix, &key) else {
                break;
            };
            if filter.since.is_some_and(|since| place.first_seen < since) {
                break;
            }
            let Some(stored) = self.listed(place.id, &key)?.filter(|s| filter.matches(s)) else {
                continue;
            };
            if findings.len() >= limit.max(1) {
                let next_cursor = last.map(|place: Place| place.cursor());
                return Ok(FindingPage {
                    findings,
                    next_cursor,
                });
            }
            findings.push(stored);
            last = Some(place);
        }
        Ok(FindingPage {
            findings,
            next_cursor: None,
        })
    }

    fn verify_unguarded(&self) -> Result<(), StoreError> {
        let meta = self.meta();
        let (mut seen, mut listed) = (
            Meta {
                findings: 0,
                open: 0,
                sum: 0,
                ..*meta
            },
            0u64,
        );
        for item in self.db()?.iter() {
            let (key, value) = item.map_err(failed)?;
            if key.as_ref() == key::META {
                continue;
            }
            seen.sum = seen.sum.wrapping_add(schema::mark(&key, &value));
            if key.starts_with(key::FINDING) {
                let stored = changes::decode(&key, &value)?;
                seen.findings += 1;
                seen.open += u64::from(stored.state == FindingState::Open);
            }
            listed += u64::from(key.starts_with(key::BY_TIME));
        }
        if seen != *meta || listed != meta.findings {
            return Err(StoreError::Damaged(
                "entries are missing, stale or too many".into(),
            ));
        }
        Ok(())
    }
}

impl Store for SledStore {
    fn position(&self) -> Position {
        self.meta().position
    }

    fn apply(
        &self,
        entries: Vec<(Position, FindingEntry)>,
        upto: Position,
    ) -> Result<(), StoreError> {
        self.change(Some(upto), |changes| {
            entries
                .into_iter()
                .try_for_each(|(position, entry)| changes.apply(position, entry))
        })
    }

    fn forget(&self, ids: &[FindingId], before: Position) -> Result<u64, StoreError> {
        self.change(None, |changes| {
            ids.iter()
                .try_fold(0, |n, id| Ok(n + u64::from(changes.forget(*id, before)?)))
        })
    }

    fn known(&self, id: FindingId) -> Result<Option<Known>, StoreError> {
        let known = |stored: StoredFinding| Known {
            ended_at: (stored.state != FindingState::Open)
                .then(|| stored.ended_at.unwrap_or(stored.last_seen)),
            first_seen: stored.first_seen,
            indicators: stored.finding.indicators,
        };
        Ok(self.finding(id)?.map(known))
    }

    fn finding(&self, id: FindingId) -> Result<Option<StoredFinding>, StoreError> {
        guarded(|| self.finding_unguarded(id))
    }

    fn list(
        &self,
        filter: &FindingFilter,
        cursor: Option<&[u8]>,
        limit: usize,
    ) -> Result<FindingPage, StoreError> {
        guarded(|| self.list_unguarded(filter, cursor, limit))
    }

    fn find_prefix(&self, hex: &str, limit: usize) -> Result<Vec<FindingId>, StoreError> {
        let hex = hex.to_ascii_lowercase();
        let whole = hex.len() & !1;
        let decoded = hex
            .get(..whole)
            .map(|d| data_encoding::HEXLOWER.decode(d.as_bytes()));
        let Some(Ok(bytes)) = decoded else {
            return Ok(Vec::new());
        };
        guarded(|| {
            let mut ids = Vec::new();
            for item in self.db()?.scan_prefix([key::FINDING, &bytes].concat()) {
                let (key, _) = item.map_err(failed)?;
                let id = key.get(key::FINDING.len()..).map(FindingId::from_slice);
                let Some(Ok(id)) = id else {
                    return Err(StoreError::Damaged("a key has a wrong length".into()));
                };
                if ids.len() >= limit {
                    break;
                }
                if id.to_string().starts_with(&hex) {
                    ids.push(id);
                }
            }
            Ok(ids)
        })
    }

    fn counts(&self) -> Counts {
        let meta = self.meta();
        Counts {
            findings: meta.findings,
            open: meta.open,
        }
    }

    fn open_count(&self, host: HostId) -> Result<u64, StoreError> {
        let key = key::open_count(host);
        guarded(|| {
            let sealed = self.read(&key)?;
            sealed.map_or(Ok(0), |sealed| changes::decode_count(&key, &sealed))
        })
    }

    fn verify(&self) -> Result<(), StoreError> {
        guarded(|| self.verify_unguarded())
    }

    fn flush(&self) -> Result<(), StoreError> {
        guarded(|| {
            self.db()?.flush().map_err(failed)?;
            let synced = File::open(self.dir.join("db")).and_then(|file| file.sync_data());
            synced.map_err(|e| failed(sled::Error::Io(e)))
        })
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        let db = self.db.take();
        // sled writes while it is dropped, and may panic over a damaged file.
        if catch_unwind(AssertUnwindSafe(|| drop(db))).is_err() {
            tracing::warn!(index = %self.dir.display(), "The index could not be closed cleanly.");
        }
    }
}

fn checked_meta(sealed: &[u8], journal_id: u64, end: Position) -> Result<Meta, StoreError> {
    let meta = Meta::decode(schema::unseal(key::META, sealed)?);
    let meta = meta.ok_or_else(|| StoreError::Damaged("its mark cannot be read".into()))?;
    let wrong = if meta.schema != SCHEMA {
        format!("its schema is {} and not {SCHEMA}", meta.schema)
    } else if meta.journal_id != journal_id {
        "it belongs to another journal".to_owned()
    } else if meta.position > end {
        "it is ahead of the journal".to_owned()
    } else {
        return Ok(meta);
    };
    Err(StoreError::Damaged(wrong))
}

/// Turns a panic into an error: sled asserts what a damaged file can break.
fn guarded<R>(ask: impl FnOnce() -> Result<R, StoreError>) -> Result<R, StoreError> {
    let panicked = |_| Err(StoreError::Damaged("sled panicked over it".into()));
    catch_unwind(AssertUnwindSafe(ask)).unwrap_or_else(panicked)
}

fn failed(error: sled::Error) -> StoreError {
    match error {
        sled::Error::Io(e) if is_refusal(&e) => StoreError::Unavailable(e.to_string()),
        error => StoreError::Damaged(error.to_string()),
    }
}

/// Whether the system refused, as opposed to files that make no sense.
fn is_refusal(error: &io::Error) -> bool {
    use io::ErrorKind::{
        AlreadyExists, InvalidInput, IsADirectory, NotADirectory, NotFound, UnexpectedEof,
    };
    let nonsense = [
        AlreadyExists,
        InvalidInput,
        IsADirectory,
        NotADirectory,
        NotFound,
        UnexpectedEof,
    ];
    is_lock_held(error) || (error.raw_os_error().is_some() && !nonsense.contains(&error.kind()))
}

fn is_lock_held(error: &io::Error) -> bool {
    error.to_string().contains("could not acquire lock")
}

/// Opens a database. Threads of one that was just closed in this process may
/// hold its lock for a moment.
fn open_db(config: &sled::Config) -> Result<sled::Db, StoreError> {
    let mut tries = 0;
    loop {
        match config.open() {
            Err(sled::Error::Io(e)) if is_lock_held(&e) && tries < LOCK_TRIES => {
                tries += 1;
                sleep(LOCK_PAUSE);
            }
            opened => return opened.map_err(failed),
        }
    }
}
