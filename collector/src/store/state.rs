//! What a store holds in memory: the zones of all blocks, the block that is
//! being filled, and what ended since the last flush. Pure.
//!
//! Full blocks are handed out to be written at once; everything else is written
//! together with the position, so that a crash loses nothing but work: the
//! records behind the written position are read again, and give the same
//! blocks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use procwarden_common::id::FindingId;
use procwarden_proto::v1;

use super::block::{self, BLOCK_FINDINGS};
use super::schema::{self, Meta};
use super::zone::Zone;
use super::{History, StoreError, key};
use crate::findings::{CompactRecord, Indexed, Record};
use crate::journal::Position;

/// Keys with what they get; nothing removes the key.
pub(super) type Writes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// Gives what is stored about the ends of a block under a checksum.
pub(super) type ReadEnds<'r> = &'r dyn Fn(u64, u32) -> Result<Vec<v1::BlockEnd>, StoreError>;

/// What a store holds in memory.
pub(super) struct State {
    journal_id: u64,
    pub(super) position: Position,
    first_block: u64,
    zones: VecDeque<Zone>,
    /// Findings of the last block, unless it is full.
    tail: Vec<v1::IndexedFinding>,
    /// What ended since the last flush, by block.
    ends: BTreeMap<u64, Vec<v1::BlockEnd>>,
    /// Blocks whose zones were not written as they are.
    changed: BTreeSet<u64>,
    /// Blocks that were given up and not removed yet.
    dropped: Vec<u64>,
    /// Sum of the marks of the zones as they are written.
    sum: u64,
    reports: u64,
}

/// What a flush writes.
pub(super) struct Flush {
    /// The last block, if it is not full.
    pub(super) tail: Option<(Vec<u8>, Vec<u8>)>,
    /// To be written together.
    pub(super) writes: Writes,
    /// Blocks of which something ended.
    pub(super) ended: BTreeSet<u64>,
    /// Blocks to be removed afterwards.
    pub(super) dropped: Vec<u64>,
}

impl State {
    pub(super) fn new(journal_id: u64) -> Self {
        Self {
            journal_id,
            position: Position(0),
            first_block: 0,
            zones: VecDeque::new(),
            tail: Vec::new(),
            ends: BTreeMap::new(),
            changed: BTreeSet::new(),
            dropped: Vec::new(),
            sum: 0,
            reports: 0,
        }
    }

    /// What was written by the last flush: the mark of the whole, every zone in
    /// the order of the blocks, and a way to read a block that is not full.
    pub(super) fn load(
        meta: &Meta,
        zones: impl Iterator<Item = Result<(u64, Vec<u8>), StoreError>>,
        read_block: impl FnOnce(u64) -> Result<Option<Vec<u8>>, StoreError>,
    ) -> Result<Self, StoreError> {
        let mut state = Self {
            position: meta.position,
            first_block: meta.first_block,
            ..Self::new(meta.journal_id)
        };
        for zone in zones {
            let (number, sealed) = zone?;
            let key = key::zone(number);
            if number != state.next_block() {
                return Err(StoreError::Damaged("blocks are missing or too many".into()));
            }
            let mut zone = Zone::from_message(&schema::open(&key, &sealed)?)?;
            zone.written = schema::mark(&key, &sealed);
            state.sum = state.sum.wrapping_add(zone.written);
            state.reports += u64::from(zone.findings);
            state.zones.push_back(zone);
        }
        if state.zones.len() as u64 != meta.blocks || state.sum != meta.sum {
            return Err(StoreError::Damaged(
                "zones are missing, stale or too many".into(),
            ));
        }
        let last = state.next_block().saturating_sub(1);
        if let Some(zone) = state.zones.back()
            && (zone.findings as usize) < BLOCK_FINDINGS
        {
            state.tail = tail_of(last, zone, read_block(last)?)?;
        }
        Ok(state)
    }

    /// Takes records in; gives the blocks that are full now.
    pub(super) fn apply(
        &mut self,
        records: &[Record],
        upto: Position,
        history: &dyn History,
    ) -> Writes {
        let mut full = Writes::new();
        let from = self.position;
        for Record {
            position,
            payload,
            facts,
            ..
        } in records.iter().filter(|r| r.position >= from)
        {
            let id = facts.as_ref().map(|facts| facts.id);
            let record = CompactRecord::decode(payload.clone(), id);
            match record.map(|record| record.indexed(*position)) {
                Ok(Indexed::Report(stored)) => full.extend(self.report(&stored)),
                Ok(Indexed::End(id, end)) => self.end(id, end, *position, history),
                Err(error) => tracing::error!(
                    position = position.0,
                    %error,
                    "A record of the findings journal makes no sense: skipped.",
                ),
            }
        }
        self.position = self.position.max(upto);
        full
    }

    fn report(&mut self, stored: &v1::CompactStoredFinding) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
        if self.tail.is_empty() {
            self.zones.push_back(Zone::new());
        }
        let number = self.next_block().saturating_sub(1);
        self.tail.push(block::indexed(stored));
        self.changed.insert(number);
        self.reports += 1;
        let is_full = self.tail.len() >= BLOCK_FINDINGS;
        let sealed = is_full.then(|| seal_block(number, std::mem::take(&mut self.tail)));
        let zone = self.zones.back_mut()?;
        zone.add(stored);
        let sealed = sealed?;
        zone.block_crc = schema::crc_of(&sealed);
        Some((key::block(number), Some(sealed)))
    }

    /// The end belongs to the newest report before it; one that was reported
    /// again later says in that report that it has ended.
    fn end(&mut self, id: FindingId, end: v1::BlockEnd, at: Position, history: &dyn History) {
        let report = history.newest(id).filter(|report| *report < at);
        let Some((number, report)) = report.and_then(|r| Some((self.block_at(r)?, r))) else {
            return;
        };
        self.ends.entry(number).or_default().push(v1::BlockEnd {
            position: report.0,
            ..end
        });
    }

    /// Everything that has to be written for the position to be true.
    pub(super) fn flush(&mut self, read_ends: ReadEnds<'_>) -> Result<Flush, StoreError> {
        let mut writes = Writes::new();
        for (number, new) in &self.ends {
            let crc = self.zone(*number).map_or(0, |zone| zone.ends_crc);
            let mut ends = read_ends(*number, crc)?;
            for end in new {
                if !ends.iter().any(|old| old.position == end.position) {
                    ends.push(end.clone());
                }
            }
            let key = key::ends(*number);
            let count = u32::try_from(ends.len()).unwrap_or(u32::MAX);
            let sealed = schema::seal(&key, &v1::BlockEnds { ends });
            if let Some(zone) = zone_mut(&mut self.zones, self.first_block, *number) {
                (zone.ends, zone.ends_crc) = (count, schema::crc_of(&sealed));
                self.changed.insert(*number);
                writes.push((key, Some(sealed)));
            }
        }
        let ended = std::mem::take(&mut self.ends).into_keys().collect();
        let tail = self.seal_tail();
        writes.extend(
            std::mem::take(&mut self.changed)
                .into_iter()
                .filter_map(|number| {
                    let zone = zone_mut(&mut self.zones, self.first_block, number)?;
                    let key = key::zone(number);
                    let sealed = schema::seal(&key, &zone.to_message());
                    let mark = schema::mark(&key, &sealed);
                    self.sum = self.sum.wrapping_add(mark).wrapping_sub(zone.written);
                    zone.written = mark;
                    Some((key, Some(sealed)))
                }),
        );
        for number in &self.dropped {
            writes.push((key::zone(*number), None));
            writes.push((key::ends(*number), None));
        }
        let meta = schema::seal_bytes(key::META, &self.meta().encode());
        writes.push((key::META.to_vec(), Some(meta)));
        Ok(Flush {
            tail,
            writes,
            ended,
            dropped: std::mem::take(&mut self.dropped),
        })
    }

    fn seal_tail(&mut self) -> Option<(Vec<u8>, Vec<u8>)> {
        let number = self.next_block().saturating_sub(1);
        if self.tail.is_empty() || !self.changed.contains(&number) {
            return None;
        }
        let sealed = seal_block(number, self.tail.clone());
        self.zones.back_mut()?.block_crc = schema::crc_of(&sealed);
        Some((key::block(number), sealed))
    }

    /// Gives up the full blocks that lie before a position as a whole.
    pub(super) fn drop_before(&mut self, position: Position) {
        while let Some(zone) = self.zones.front()
            && zone.last < position
            && (self.zones.len() > 1 || self.tail.is_empty())
        {
            self.sum = self.sum.wrapping_sub(zone.written);
            self.reports -= u64::from(zone.findings);
            self.ends.remove(&self.first_block);
            self.changed.remove(&self.first_block);
            self.dropped.push(self.first_block);
            self.zones.pop_front();
            self.first_block += 1;
        }
    }

    fn meta(&self) -> Meta {
        Meta {
            position: self.position,
            first_block: self.first_block,
            blocks: self.zones.len() as u64,
            sum: self.sum,
            ..Meta::new(self.journal_id)
        }
    }

    /// The block that holds the report at a position, if any does.
    pub(super) fn block_at(&self, position: Position) -> Option<u64> {
        let index = self.zones.partition_point(|zone| zone.last < position);
        let zone = self.zones.get(index)?;
        (zone.first <= position).then_some(self.first_block + index as u64)
    }

    /// Number of the newest block that begins before a position.
    pub(super) fn newest_before(&self, position: Position) -> Option<u64> {
        let index = self.zones.partition_point(|zone| zone.first < position);
        Some(self.first_block + (index as u64).checked_sub(1)?)
    }

    pub(super) fn zone(&self, number: u64) -> Option<&Zone> {
        let index = number.checked_sub(self.first_block)?;
        self.zones.get(usize::try_from(index).ok()?)
    }

    /// The findings of the block that is being filled, if it is that one.
    pub(super) fn tail(&self, number: u64) -> Option<&[v1::IndexedFinding]> {
        (!self.tail.is_empty() && number + 1 == self.next_block()).then_some(self.tail.as_slice())
    }

    /// What ended in a block since the last flush.
    pub(super) fn new_ends(&self, number: u64) -> &[v1::BlockEnd] {
        self.ends.get(&number).map_or(&[], Vec::as_slice)
    }

    pub(super) fn first_block(&self) -> u64 {
        self.first_block
    }

    pub(super) fn next_block(&self) -> u64 {
        self.first_block + self.zones.len() as u64
    }

    pub(super) fn reports(&self) -> u64 {
        self.reports
    }
}

fn zone_mut(zones: &mut VecDeque<Zone>, first: u64, number: u64) -> Option<&mut Zone> {
    zones.get_mut(usize::try_from(number.checked_sub(first)?).ok()?)
}

fn seal_block(number: u64, findings: Vec<v1::IndexedFinding>) -> Vec<u8> {
    schema::seal_packed(&key::block(number), &v1::FindingsBlock { findings })
}

/// A block may have grown since its zone was written: what the zone knows of it
/// is the beginning, which has to be what it was.
fn tail_of(
    number: u64,
    zone: &Zone,
    sealed: Option<Vec<u8>>,
) -> Result<Vec<v1::IndexedFinding>, StoreError> {
    let sealed = sealed.ok_or_else(|| StoreError::Damaged("a block is missing".into()))?;
    let block: v1::FindingsBlock = schema::open_packed(&key::block(number), &sealed)?;
    let mut findings = block.findings;
    findings.truncate(zone.findings as usize);
    if schema::crc_of(&seal_block(number, findings.clone())) != zone.block_crc {
        return Err(StoreError::Damaged("a block is stale".into()));
    }
    Ok(findings)
}
