//! The store on sled 0.34. The only file that imports sled.
//!
//! Promises: what a flush writes is written as a whole or not at all, position
//! included. Values are checked when they are read; [`Store::verify`] checks
//! everything. A panic of sled becomes [`StoreError::Damaged`]. A store that
//! failed once is not asked again, and nobody waits for its database to close:
//! what failed halfway keeps every later flush waiting.
//!
//! sled's flush does not sync its file on Linux (spacejam/sled#1351); this one
//! does. Even so, power loss may leave an index that has to be rebuilt: what is
//! acked never depends on it.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
};
use std::thread::sleep;
use std::time::Duration;

use procwarden_common::finding::StoredFinding;
use procwarden_proto::v1;

use super::block::{self, Block, Take};
use super::closing::close;
use super::key::{self, Cursor};
use super::listing::Listing;
use super::schema::{self, Meta, SCHEMA};
use super::state::State;
use super::{History, Store, StoreError};
use crate::findings::{FindingFilter, FindingPage, Record};
use crate::journal::Position;

const CACHE_BYTES: u64 = 32 * 1024 * 1024;
/// Blocks that are kept as they were read.
const CACHED_BLOCKS: usize = 32;
/// Blocks that one page of a listing reads: a question that nothing answers
/// comes back after about half a second and goes on behind its cursor.
const LISTED_BLOCKS_MAX: usize = 2048;
/// sled's name of its file.
const DB_FILE: &str = "db";
const BLOCKS_TREE: &str = "blocks";
const LOCK_TRIES: u32 = 500;
const LOCK_PAUSE: Duration = Duration::from_millis(10);
/// How long a sound database may take to close.
const CLOSE_TIME: Duration = Duration::from_secs(10);

/// Findings in a sled database.
pub(crate) struct SledStore {
    dir: PathBuf,
    /// Nothing only while it is dropped.
    trees: Option<Trees>,
    /// Why it is not asked any more.
    failed: OnceLock<StoreError>,
    /// Written to by one thread; values are read while it is held, so that they
    /// fit what it says.
    state: RwLock<State>,
    /// Full blocks that were read last, the newest at the end.
    cache: Mutex<VecDeque<(u64, Arc<Block>)>>,
}

struct Trees {
    db: sled::Db,
    blocks: sled::Tree,
}

impl Trees {
    fn open(dir: &Path) -> Result<Self, StoreError> {
        let config = sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE_BYTES)
            // Flushed by the indexer, which syncs the file as well.
            .flush_every_ms(None);
        let db = guarded(|| open_db(&config))?;
        match guarded(|| db.open_tree(BLOCKS_TREE).map_err(failed)) {
            Ok(blocks) => Ok(Self { db, blocks }),
            Err(error) => {
                close(db, dir, Duration::ZERO);
                Err(error)
            }
        }
    }
}

impl SledStore {
    /// Opens or makes the database of a directory, as the index of a journal.
    pub(crate) fn open(
        dir: &Path,
        journal_id: u64,
        journal_end: Position,
    ) -> Result<Self, StoreError> {
        let mut store = Self {
            dir: dir.to_owned(),
            trees: Some(Trees::open(dir)?),
            failed: OnceLock::new(),
            state: RwLock::new(State::new(journal_id)),
            cache: Mutex::default(),
        };
        if let Some(state) = store.ask(|| store.load(journal_id, journal_end))? {
            store.state = RwLock::new(state);
        }
        Ok(store)
    }

    /// Whether a directory holds no database. There may be files all the same,
    /// of writes that never came to be: sled does not remove them when its own
    /// file is empty, and fails where it would write them again.
    pub(super) fn is_blank(dir: &Path) -> bool {
        match fs::metadata(dir.join(DB_FILE)) {
            Ok(file) => file.len() == 0,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }

    /// What the last flush wrote; nothing when there was none.
    fn load(&self, journal_id: u64, journal_end: Position) -> Result<Option<State>, StoreError> {
        let Trees { db, blocks } = self.trees()?;
        let Some(sealed) = db.get(key::META).map_err(failed)? else {
            return match db.is_empty() {
                true => Ok(None),
                false => Err(StoreError::Damaged("it has no mark of its schema".into())),
            };
        };
        let meta = checked_meta(&sealed, journal_id, journal_end)?;
        let zones = db.scan_prefix(key::ZONE).map(|item| {
            let (key, sealed) = item.map_err(failed)?;
            let number = key::parse_zone(&key);
            let number =
                number.ok_or_else(|| StoreError::Damaged("a key makes no sense".into()))?;
            Ok((number, sealed.to_vec()))
        });
        State::load(&meta, zones, |number| read(blocks, &key::block(number))).map(Some)
    }

    /// Asks sled, until it fails for the first time.
    fn ask<R>(&self, question: impl FnOnce() -> Result<R, StoreError>) -> Result<R, StoreError> {
        if let Some(error) = self.failed.get() {
            return Err(error.clone());
        }
        let answer = guarded(question);
        if let Err(error @ (StoreError::Damaged(_) | StoreError::Unavailable(_))) = &answer {
            // Another thread may have been first.
            drop(self.failed.set(error.clone()));
        }
        answer
    }

    fn trees(&self) -> Result<&Trees, StoreError> {
        let closed = || StoreError::Unavailable("it is closed".into());
        self.trees.as_ref().ok_or_else(closed)
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn cache(&self) -> MutexGuard<'_, VecDeque<(u64, Arc<Block>)>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A full block, as it was at the last flush.
    fn block(&self, state: &State, number: u64) -> Result<Arc<Block>, StoreError> {
        let mut cache = self.cache();
        if let Some(index) = cache.iter().position(|(n, _)| *n == number)
            && let Some(entry) = cache.remove(index)
        {
            let block = Arc::clone(&entry.1);
            cache.push_back(entry);
            return Ok(block);
        }
        drop(cache);
        let block = Arc::new(self.read_block(state, number)?);
        let mut cache = self.cache();
        if cache.len() >= CACHED_BLOCKS {
            cache.pop_front();
        }
        cache.push_back((number, Arc::clone(&block)));
        Ok(block)
    }

    fn read_block(&self, state: &State, number: u64) -> Result<Block, StoreError> {
        let gone = || StoreError::Damaged("a block is missing or stale".into());
        let zone = state.zone(number).ok_or_else(gone)?;
        let key = key::block(number);
        let sealed = read(&self.trees()?.blocks, &key)?.ok_or_else(gone)?;
        if schema::crc_of(&sealed) != zone.block_crc {
            return Err(gone());
        }
        let block: v1::FindingsBlock = schema::open_packed(&key, &sealed)?;
        Ok(Block {
            findings: block.findings,
            ends: self.read_ends(number, zone.ends_crc)?,
        })
    }

    fn read_ends(&self, number: u64, crc: u32) -> Result<Vec<v1::BlockEnd>, StoreError> {
        if crc == 0 {
            return Ok(Vec::new());
        }
        let key = key::ends(number);
        let gone = || StoreError::Damaged("what ended is missing or stale".into());
        let sealed = read(&self.trees()?.db, &key)?.ok_or_else(gone)?;
        if schema::crc_of(&sealed) != crc {
            return Err(gone());
        }
        Ok(schema::open::<v1::BlockEnds>(&key, &sealed)?.ends)
    }

    /// Gives the findings of a block, the newest first, until `take` has
    /// enough; nothing when there is no such block.
    fn look(
        &self,
        number: u64,
        filter: Option<&FindingFilter>,
        take: Take<'_>,
    ) -> Result<Looked, StoreError> {
        let state = self.state();
        let Some(zone) = state.zone(number) else {
            return Ok(Looked::Passed);
        };
        let new_ends = state.new_ends(number);
        if filter.is_some_and(|filter| !zone.may_hold(filter, !new_ends.is_empty())) {
            return Ok(Looked::Passed);
        }
        let block = match state.tail(number) {
            Some(findings) => Arc::new(Block {
                findings: findings.to_vec(),
                ends: self.read_ends(number, zone.ends_crc)?,
            }),
            None => self.block(&state, number)?,
        };
        for indexed in block.findings.iter().rev() {
            if let ControlFlow::Break(()) = take(indexed, new_ends, &block.ends)? {
                return Ok(Looked::Enough);
            }
        }
        Ok(Looked::Read { first: zone.first })
    }

    fn list_unguarded(
        &self,
        filter: &FindingFilter,
        cursor: Option<&[u8]>,
        limit: usize,
        history: &dyn History,
    ) -> Result<FindingPage, StoreError> {
        let began_at = self.position();
        let cursor = match cursor.map(|c| Cursor::decode(c).ok_or(StoreError::InvalidCursor)) {
            Some(cursor) => cursor?,
            None => Cursor {
                began_at,
                before: began_at,
            },
        };
        let mut listing = Listing::new(filter, cursor, limit, history);
        let (first, newest) = {
            let state = self.state();
            (state.first_block(), state.newest_before(cursor.before))
        };
        let mut read = 0;
        for number in (first..newest.map_or(first, |n| n + 1)).rev() {
            let looked = self.look(number, Some(filter), &mut |indexed, new, old| {
                listing.take(indexed, new, old)
            })?;
            match looked {
                Looked::Enough => break,
                Looked::Passed => {}
                Looked::Read { first: before } => {
                    read += 1;
                    if read >= LISTED_BLOCKS_MAX && number > first {
                        listing.cut(before);
                        break;
                    }
                }
            }
        }
        Ok(listing.finish())
    }

    fn finding_unguarded(&self, position: Position) -> Result<Option<StoredFinding>, StoreError> {
        let Some(number) = self.state().block_at(position) else {
            return Ok(None);
        };
        let mut found = None;
        self.look(number, None, &mut |indexed, new, old| {
            if indexed.position != position.0 {
                return Ok(ControlFlow::Continue(()));
            }
            found = Some(block::stored(indexed, new.iter().chain(old))?);
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    fn apply_unguarded(
        &self,
        records: &[Record],
        upto: Position,
        history: &dyn History,
    ) -> Result<(), StoreError> {
        let trees = self.trees()?;
        let mut state = self.state_mut();
        for (key, value) in state.apply(records, upto, history) {
            if let Some(value) = value {
                trees.blocks.insert(key, value).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn flush_unguarded(&self) -> Result<(), StoreError> {
        let Trees { db, blocks } = self.trees()?;
        let mut state = self.state_mut();
        let flush = state.flush(&|number, crc| self.read_ends(number, crc))?;
        if let Some((key, sealed)) = flush.tail {
            blocks.insert(key, sealed).map_err(failed)?;
        }
        let mut batch = sled::Batch::default();
        for (key, value) in flush.writes {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        db.apply_batch(batch).map_err(failed)?;
        self.cache()
            .retain(|(number, _)| !flush.ended.contains(number));
        drop(state);
        for number in flush.dropped {
            blocks.remove(key::block(number)).map_err(failed)?;
        }
        db.flush().map_err(failed)?;
        let synced = File::open(self.dir.join(DB_FILE)).and_then(|file| file.sync_data());
        synced.map_err(|e| failed(sled::Error::Io(e)))
    }

    fn verify_unguarded(&self, stop: &dyn Fn() -> bool) -> Result<(), StoreError> {
        let mut number = self.state().first_block();
        while !stop() {
            let state = self.state();
            number = number.max(state.first_block());
            if number >= state.next_block() {
                return Ok(());
            }
            if state.tail(number).is_none() {
                let block = self.read_block(&state, number)?;
                let zone = state.zone(number).map_or(0, |zone| zone.findings as usize);
                if block.findings.len() != zone {
                    return Err(StoreError::Damaged(
                        "findings are missing or too many".into(),
                    ));
                }
                for indexed in &block.findings {
                    block::stored(indexed, &block.ends)?;
                }
            }
            number += 1;
        }
        Ok(())
    }
}

/// What came of a look at a block.
enum Looked {
    /// It holds nothing that is asked for.
    Passed,
    /// Nothing before its first report was looked at.
    Read {
        first: Position,
    },
    Enough,
}

impl Store for SledStore {
    fn position(&self) -> Position {
        self.state().position
    }

    fn apply(
        &self,
        records: &[Record],
        upto: Position,
        history: &dyn History,
    ) -> Result<(), StoreError> {
        self.ask(|| self.apply_unguarded(records, upto, history))
    }

    fn drop_before(&self, position: Position) -> Result<(), StoreError> {
        self.state_mut().drop_before(position);
        self.flush()
    }

    fn finding(&self, position: Position) -> Result<Option<StoredFinding>, StoreError> {
        self.ask(|| self.finding_unguarded(position))
    }

    fn list(
        &self,
        filter: &FindingFilter,
        cursor: Option<&[u8]>,
        limit: usize,
        history: &dyn History,
    ) -> Result<FindingPage, StoreError> {
        self.ask(|| self.list_unguarded(filter, cursor, limit, history))
    }

    fn reports(&self) -> u64 {
        self.state().reports()
    }

    fn verify(&self, stop: &dyn Fn() -> bool) -> Result<(), StoreError> {
        self.ask(|| self.verify_unguarded(stop))
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.ask(|| self.flush_unguarded())
    }
}

fn read(tree: &sled::Tree, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    let value = tree.get(key).map_err(failed)?;
    Ok(value.map(|value| value.to_vec()))
}

impl Drop for SledStore {
    fn drop(&mut self) {
        let Some(trees) = self.trees.take() else {
            return;
        };
        let patience = match self.failed.get() {
            Some(_) => Duration::ZERO,
            None => CLOSE_TIME,
        };
        close(trees, &self.dir, patience);
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
    error.raw_os_error().is_some() && !nonsense.contains(&error.kind())
}

fn is_lock_held(error: &io::Error) -> bool {
    error.to_string().contains("could not acquire lock")
}

/// Opens a database. Threads of one that was just closed in this process may
/// hold its lock for a moment; one that never lets go of it is given up.
fn open_db(config: &sled::Config) -> Result<sled::Db, StoreError> {
    let mut tries = 0;
    loop {
        match config.open() {
            Err(sled::Error::Io(e)) if is_lock_held(&e) && tries < LOCK_TRIES => {
                tries += 1;
                sleep(LOCK_PAUSE);
            }
            Err(sled::Error::Io(e)) if is_lock_held(&e) => {
                return Err(StoreError::Damaged("its last user holds it".into()));
            }
            opened => return opened.map_err(failed),
        }
    }
}
