//! What dedup knows of every finding, in memory: about 20 bytes each. Pure.
//!
//! Promises: a finding that is in the journal is here, whatever the index
//! says; sets of indicators are compared exactly, never by a hash. A finding is
//! named by 80 bits of its id, which is a SHA-256: two of five million are
//! taken for each other with a probability of 1 in 10^11.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use procwarden_common::id::{FindingId, HostId};

use super::sets::{IndicatorSets, Set, SetId};
use crate::journal::Position;

/// Tables; each grows alone, so that growth never doubles the memory of all.
const SHARDS: usize = 64;
/// Bytes of an id that name a finding.
const NAME_BYTES: usize = 10;
const POSITION_BYTES: usize = 7;
const ENDED: u16 = 1 << 15;

/// What is known of one finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fact {
    /// Where the journal holds its newest report.
    pub(crate) position: Position,
    /// Which indicators it has shown.
    pub(crate) set: SetId,
    pub(crate) ended: bool,
}

/// What is known of all findings. Written by the committer alone.
pub(crate) struct Facts {
    shards: Vec<Mutex<Shard>>,
    sets: Mutex<IndicatorSets>,
    /// Open findings by host; hosts without any are left out.
    open_by_host: Mutex<HashMap<HostId, u64>>,
    findings: AtomicU64,
    open: AtomicU64,
}

/// One of two halves of all findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    First,
    Second,
}

type Shard = HashMap<Name, Packed, BuildHasherDefault<NameHasher>>;

/// The beginning of an id.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Name([u8; NAME_BYTES]);

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (first, _) = self.0.split_first_chunk().unwrap_or((&[0; 8], &[]));
        state.write_u64(u64::from_le_bytes(*first));
    }
}

/// Names are as good as random already; only the bits that chose the shard have
/// to be spread.
#[derive(Default)]
struct NameHasher(u64);

impl Hasher for NameHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 ^= self.0 >> 32;
    }
}

/// A fact in nine bytes: millions of them are kept.
#[derive(Clone, Copy)]
struct Packed {
    position: [u8; POSITION_BYTES],
    set_and_ended: [u8; 2],
}

impl Packed {
    fn of(fact: Fact) -> Self {
        let mut position = [0; POSITION_BYTES];
        // 2^56 bytes are never written.
        for (to, from) in position.iter_mut().zip(fact.position.0.to_le_bytes()) {
            *to = from;
        }
        let ended = if fact.ended { ENDED } else { 0 };
        Self {
            position,
            set_and_ended: (fact.set.0 | ended).to_le_bytes(),
        }
    }

    fn fact(self) -> Fact {
        let mut position = [0; 8];
        for (to, from) in position.iter_mut().zip(self.position) {
            *to = from;
        }
        let bits = u16::from_le_bytes(self.set_and_ended);
        Fact {
            position: Position(u64::from_le_bytes(position)),
            set: SetId(bits & !ENDED),
            ended: bits & ENDED != 0,
        }
    }
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            sets: Mutex::default(),
            open_by_host: Mutex::default(),
            findings: AtomicU64::new(0),
            open: AtomicU64::new(0),
        }
    }
}

impl Facts {
    /// Makes room for this many findings at once.
    pub(super) fn reserve(&self, findings: usize) {
        for shard in &self.shards {
            lock(shard).reserve(findings / SHARDS);
        }
    }

    /// What is known of a finding.
    pub(crate) fn get(&self, id: FindingId) -> Option<Fact> {
        let found = self.shard(id).get(&name(id)).copied();
        found.map(Packed::fact)
    }

    /// A report of a finding is in the journal.
    pub(super) fn reported(&self, id: FindingId, host: HostId, fact: Fact) {
        let opened = self.insert(id, fact);
        self.count_open(host, opened);
    }

    /// The end of a finding is in the journal.
    pub(super) fn ended(&self, id: FindingId, host: HostId) {
        let opened = self.end(id);
        self.count_open(host, opened);
    }

    /// [`Self::reported`] without its host; by how much that has more open
    /// findings now.
    pub(super) fn insert(&self, id: FindingId, fact: Fact) -> i64 {
        let mut shard = self.shard(id);
        match shard.entry(name(id)) {
            Entry::Occupied(mut known) => {
                let has_ended = known.get().fact().ended;
                // An ended finding is never opened again.
                let ended = fact.ended || has_ended;
                known.insert(Packed::of(Fact { ended, ..fact }));
                i64::from(!ended) - i64::from(!has_ended)
            }
            Entry::Vacant(place) => {
                place.insert(Packed::of(fact));
                drop(shard);
                self.findings.fetch_add(1, Ordering::Relaxed);
                i64::from(!fact.ended)
            }
        }
    }

    /// [`Self::ended`] without its host, as [`Self::insert`].
    pub(super) fn end(&self, id: FindingId) -> i64 {
        let mut shard = self.shard(id);
        let Some(packed) = shard.get_mut(&name(id)) else {
            return 0;
        };
        let fact = packed.fact();
        *packed = Packed::of(Fact {
            ended: true,
            ..fact
        });
        -i64::from(!fact.ended)
    }

    /// Forgets a finding whose newest report lies before a position; whether
    /// it did.
    pub(super) fn forget(&self, id: FindingId, host: HostId, before: Position) -> bool {
        let mut shard = self.shard(id);
        let old = |packed: &&Packed| packed.fact().position < before;
        let Some(packed) = shard.get(&name(id)).filter(old).copied() else {
            return false;
        };
        shard.remove(&name(id));
        drop(shard);
        self.findings.fetch_sub(1, Ordering::Relaxed);
        self.count_open(host, -i64::from(!packed.fact().ended));
        true
    }

    /// Where the journal holds findings whose ids begin so; `digits` are
    /// lower-case hexadecimal.
    pub(super) fn find_prefix(&self, digits: &str, limit: usize) -> Vec<Position> {
        let begins = |name: &Name| {
            let digit = |at: usize| {
                let byte = name.0.get(at / 2).copied().unwrap_or(0);
                let half = if at.is_multiple_of(2) {
                    byte >> 4
                } else {
                    byte & 15
                };
                char::from_digit(u32::from(half), 16)
            };
            let known = digits.chars().take(2 * NAME_BYTES).enumerate();
            known.into_iter().all(|(at, c)| digit(at) == Some(c))
        };
        let first_byte = digits.get(..2).and_then(|d| u8::from_str_radix(d, 16).ok());
        let is_candidate = |number: usize| first_byte.is_none_or(|b| shard_of(b) == number);
        let mut found = Vec::new();
        for (number, shard) in self.shards.iter().enumerate() {
            if found.len() >= limit || !is_candidate(number) {
                continue;
            }
            let shard = lock(shard);
            let matching = shard.iter().filter(|(name, _)| begins(name));
            found.extend(matching.map(|(_, packed)| packed.fact().position));
        }
        // The oldest first, whatever the order in memory is.
        found.sort_unstable();
        found.truncate(limit);
        found
    }

    /// The set of these indicators.
    pub(super) fn intern(&self, set: &Set) -> SetId {
        lock(&self.sets).intern(set)
    }

    /// Whether a set has all that another one has; nothing when the record has
    /// to be asked.
    pub(super) fn covers(&self, set: SetId, other: &Set) -> Option<bool> {
        lock(&self.sets).covers(set, other)
    }

    pub(super) fn findings(&self) -> u64 {
        self.findings.load(Ordering::Relaxed)
    }

    pub(super) fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Open findings of a host.
    pub(super) fn open_of(&self, host: HostId) -> u64 {
        lock(&self.open_by_host).get(&host).copied().unwrap_or(0)
    }

    /// A host has so many open findings more, or less.
    pub(super) fn count_open(&self, host: HostId, more: i64) {
        if more == 0 {
            return;
        }
        let mut hosts = lock(&self.open_by_host);
        let count = hosts.entry(host).or_default();
        *count = count.saturating_add_signed(more);
        if *count == 0 {
            hosts.remove(&host);
        }
        drop(hosts);
        match more > 0 {
            true => self.open.fetch_add(more.unsigned_abs(), Ordering::Relaxed),
            false => self.open.fetch_sub(more.unsigned_abs(), Ordering::Relaxed),
        };
    }

    /// Which half of the tables knows a finding: two threads with a half each
    /// never wait for one another.
    pub(super) fn half_of(id: FindingId) -> Half {
        let [first, ..] = *id.as_bytes();
        match shard_of(first) < SHARDS / 2 {
            true => Half::First,
            false => Half::Second,
        }
    }

    fn shard(&self, id: FindingId) -> MutexGuard<'_, Shard> {
        let [first, ..] = *id.as_bytes();
        // There is a shard for every value.
        let number = shard_of(first).min(self.shards.len() - 1);
        lock(&self.shards[number])
    }
}

fn shard_of(first_byte: u8) -> usize {
    usize::from(first_byte) * SHARDS / 256
}

fn name(id: FindingId) -> Name {
    let (name, _) = id
        .as_bytes()
        .split_first_chunk()
        .unwrap_or((&[0; NAME_BYTES], &[]));
    Name(*name)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn fact(position: u64, ended: bool) -> Fact {
        Fact {
            position: Position(position),
            set: SetId(5),
            ended,
        }
    }

    #[test]
    fn facts_read_back_and_are_counted_by_host() {
        let facts = Facts::default();
        let (host, other) = (
            HostId::from_uuid(Uuid::from_u128(1)),
            HostId::from_uuid(Uuid::from_u128(2)),
        );
        let id = |n: u8| FindingId::from_bytes([n; 16]);
        let far = (1 << 56) - 1;
        facts.reported(id(1), host, fact(far, false));
        facts.reported(id(2), host, fact(20, false));
        facts.reported(id(3), other, fact(30, true));
        assert_eq!(facts.get(id(1)), Some(fact(far, false)));
        assert_eq!((facts.findings(), facts.open()), (3, 2));
        facts.ended(id(2), host);
        facts.ended(id(2), host);
        facts.ended(id(9), host);
        assert_eq!((facts.open_of(host), facts.open_of(other)), (1, 0));
        facts.reported(id(2), host, fact(40, true));
        assert!(!facts.forget(id(2), host, Position(40)));
        assert!(facts.forget(id(2), host, Position(41)));
        assert!(!facts.forget(id(2), host, Position(41)));
        assert_eq!(
            (facts.findings(), facts.open(), facts.get(id(2))),
            (2, 1, None)
        );
    }

    #[test]
    fn a_prefix_names_the_findings_that_begin_with_it() {
        let facts = Facts::default();
        let host = HostId::from_uuid(Uuid::nil());
        for n in 0..=255u8 {
            let mut id = [0xab; 16];
            id[1] = n;
            facts.reported(FindingId::from_bytes(id), host, fact(u64::from(n), false));
        }
        let found = |digits: &str| facts.find_prefix(digits, 300);
        assert_eq!(found("abcd"), [Position(0xcd)]);
        assert_eq!(found("abc").len(), 16);
        assert_eq!(found("a").len(), 256);
        assert_eq!(found("b"), []);
        assert_eq!(found("abcdab"), [Position(0xcd)]);
        assert_eq!(found("abcdac"), []);
        assert_eq!(facts.find_prefix("", 7).len(), 7);
    }
}
