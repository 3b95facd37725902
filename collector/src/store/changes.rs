//! What a batch of records changes in the index. Pure: reads through a
//! function, returns every write at once.

use std::collections::BTreeMap;

use procwarden_common::finding::{FindingState, StoredFinding};
use procwarden_common::id::{FindingId, HostId};

use super::schema::{self, Meta};
use super::{StoreError, key};
use crate::findings::{FindingEntry, fold};
use crate::journal::Position;

/// Gives the value of a key as it is stored.
pub(super) type Read<'r> = &'r dyn Fn(&[u8]) -> Result<Option<Vec<u8>>, StoreError>;

/// Keys with what they get; nothing removes the key.
pub(super) type Writes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Changes that were not written yet, over what is stored.
pub(super) struct Changes<'r> {
    read: Read<'r>,
    meta: Meta,
    writes: Writes,
}

impl<'r> Changes<'r> {
    pub(super) fn new(read: Read<'r>, meta: Meta) -> Self {
        Self {
            read,
            meta,
            writes: Writes::new(),
        }
    }

    /// Takes one record in.
    pub(super) fn apply(
        &mut self,
        position: Position,
        entry: FindingEntry,
    ) -> Result<(), StoreError> {
        let id = entry.id();
        let key = key::finding(id);
        let sealed = self.current(&key)?;
        let before = sealed.as_deref().map(|s| decode(&key, s)).transpose()?;
        let was = before.as_ref().map(Summary::of);
        let Some(after) = fold(before, entry, position) else {
            return Ok(());
        };
        let value = schema::seal(&key, &schema::encode_finding(&after));
        self.write(key, sealed.as_deref(), Some(value));
        self.note(was, Some(Summary::of(&after)))
    }

    /// Removes a finding whose newest full report lies before a position.
    pub(super) fn forget(&mut self, id: FindingId, before: Position) -> Result<bool, StoreError> {
        let key = key::finding(id);
        let Some(sealed) = self.current(&key)? else {
            return Ok(false);
        };
        let stored = decode(&key, &sealed)?;
        if stored.evidence_position >= before.0 {
            return Ok(false);
        }
        self.write(key, Some(&sealed), None);
        self.note(Some(Summary::of(&stored)), None)?;
        Ok(true)
    }

    /// Everything to write, with what is then said about the whole.
    pub(super) fn finish(mut self, position: Position) -> (Meta, Writes) {
        self.meta.position = position;
        let value = schema::seal(key::META, &self.meta.encode());
        self.writes.insert(key::META.to_vec(), Some(value));
        (self.meta, self.writes)
    }

    /// Brings listings and counts in line with a finding that changed.
    fn note(&mut self, was: Option<Summary>, is: Option<Summary>) -> Result<(), StoreError> {
        if was.map(|s| s.place) != is.map(|s| s.place) {
            for key in was.iter().flat_map(Summary::listing_keys) {
                self.write(key, Some(&[]), None);
            }
            for key in is.iter().flat_map(Summary::listing_keys) {
                self.write(key, None, Some(Vec::new()));
            }
        }
        self.meta.findings = step(self.meta.findings, was.is_some(), is.is_some());
        let (was_open, is_open) = (was.is_some_and(|s| s.open), is.is_some_and(|s| s.open));
        self.meta.open = step(self.meta.open, was_open, is_open);
        match was.or(is) {
            Some(summary) if was_open != is_open => {
                self.count_open(summary.host, was_open, is_open)
            }
            _ => Ok(()),
        }
    }

    fn count_open(&mut self, host: HostId, was: bool, is: bool) -> Result<(), StoreError> {
        let key = key::open_count(host);
        let sealed = self.current(&key)?;
        let count = sealed.as_deref().map_or(Ok(0), |s| decode_count(&key, s))?;
        let count = step(count, was, is);
        let value = (count > 0).then(|| schema::seal(&key, &count.to_be_bytes()));
        self.write(key, sealed.as_deref(), value);
        Ok(())
    }

    fn current(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.writes.get(key) {
            Some(value) => Ok(value.clone()),
            None => (self.read)(key),
        }
    }

    fn write(&mut self, key: Vec<u8>, old: Option<&[u8]>, new: Option<Vec<u8>>) {
        let mark = |value: &[u8]| schema::mark(&key, value);
        let sum = self.meta.sum.wrapping_sub(old.map_or(0, mark));
        self.meta.sum = sum.wrapping_add(new.as_deref().map_or(0, mark));
        self.writes.insert(key, new);
    }
}

/// The finding that is stored under `key`.
pub(super) fn decode(key: &[u8], sealed: &[u8]) -> Result<StoredFinding, StoreError> {
    schema::decode_finding(schema::unseal(key, sealed)?)
}

/// The count that is stored under `key`.
pub(super) fn decode_count(key: &[u8], sealed: &[u8]) -> Result<u64, StoreError> {
    let value = schema::unseal(key, sealed)?;
    let bytes = value
        .try_into()
        .map_err(|_| StoreError::Damaged("a count is too long".into()))?;
    Ok(u64::from_be_bytes(bytes))
}

fn step(count: u64, was: bool, is: bool) -> u64 {
    (count + u64::from(is)).saturating_sub(u64::from(was))
}

/// What listings and counts depend on.
#[derive(Debug, Clone, Copy)]
struct Summary {
    host: HostId,
    place: key::Place,
    open: bool,
}

impl Summary {
    fn of(stored: &StoredFinding) -> Self {
        Self {
            host: stored.host_id,
            place: key::Place {
                first_seen: stored.first_seen,
                id: stored.id,
            },
            open: stored.state == FindingState::Open,
        }
    }

    fn listing_keys(&self) -> [Vec<u8>; 2] {
        [
            self.place.key(key::BY_TIME),
            self.place.key(&key::host_prefix(self.host)),
        ]
    }
}

#[cfg(test)]
mod tests;
