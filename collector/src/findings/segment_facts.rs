//! The facts of one closed segment of the journal, in the form of a file beside
//! it: a start need not read every finding again. Pure.
//!
//! ```text
//! magic 8 | version u32 | journal id u64 | first u64 | end u64 | newest received i64
//! hosts u32 | sets u32 | entries u32
//! host 16 ... | set: count u16, (severity u8, length u8, id) ... | entry 36 ... | CRC u32
//! entry: offset u32 | host u32 | id 16 | set u16 | flags u16 | ended at i64
//! ```
//!
//! Little-endian; the CRC-32C covers everything before it. The file says
//! nothing that the segment does not: one that is missing, damaged or of
//! another segment is made again.

use std::collections::HashMap;

use procwarden_common::clock::UnixMillis;
use procwarden_common::id::{FindingId, HostId};
use procwarden_common::severity::Severity;

use super::compact::RecordFacts;
use super::facts::{Fact, Facts, Half};
use super::sets::{Set, SetId};
use crate::journal::{Position, SegmentSpan};

const MAGIC: &[u8; 8] = b"PWFACTS\n";
const VERSION: u32 = 1;
const REPORT: u16 = 1;
const HAS_ENDED: u16 = 2;

/// What the records of one segment say, as far as dedup has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SegmentFacts {
    pub(super) first: Position,
    /// When the newest of its records was received.
    pub(super) newest: UnixMillis,
    hosts: Vec<HostId>,
    sets: Vec<Set>,
    entries: Vec<Entry>,
    host_numbers: HashMap<HostId, u32>,
    set_numbers: HashMap<Set, u16>,
}

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    /// Behind the first position of the segment.
    offset: u32,
    host: u32,
    id: FindingId,
    /// In a report; `u16::MAX` when the segment has too many sets.
    set: u16,
    is_report: bool,
    ended_at: Option<UnixMillis>,
}

impl SegmentFacts {
    /// Of the segment that begins there.
    pub(super) fn new(first: Position) -> Self {
        Self {
            first,
            newest: UnixMillis(i64::MIN),
            hosts: Vec::new(),
            sets: Vec::new(),
            entries: Vec::new(),
            host_numbers: HashMap::new(),
            set_numbers: HashMap::new(),
        }
    }

    /// Takes the next record in.
    pub(super) fn add(&mut self, position: Position, facts: &RecordFacts) {
        let offset = position.0.saturating_sub(self.first.0);
        self.newest = self.newest.max(facts.received_at);
        let entry = Entry {
            // A segment is closed long before.
            offset: u32::try_from(offset).unwrap_or(u32::MAX),
            host: self.host(facts.host_id),
            id: facts.id,
            set: facts.set.as_ref().map_or(0, |set| self.set(set)),
            is_report: facts.set.is_some(),
            ended_at: facts.ended_at,
        };
        self.entries.push(entry);
    }

    fn host(&mut self, host: HostId) -> u32 {
        let next = u32::try_from(self.hosts.len()).unwrap_or(u32::MAX);
        *self.host_numbers.entry(host).or_insert_with(|| {
            self.hosts.push(host);
            next
        })
    }

    fn set(&mut self, set: &Set) -> u16 {
        if let Some(number) = self.set_numbers.get(set) {
            return *number;
        }
        let next = u16::try_from(self.sets.len()).unwrap_or(u16::MAX);
        if next < u16::MAX {
            self.sets.push(Set::clone(set));
            self.set_numbers.insert(Set::clone(set), next);
        }
        next
    }

    /// Tells those of one half of all findings, in the order of the journal.
    pub(super) fn tell(&self, facts: &Facts, half: Half) {
        let mut opened = vec![0_i64; self.hosts.len()];
        let sets: Vec<SetId> = self.sets.iter().map(|set| facts.intern(set)).collect();
        let of_half = |entry: &&Entry| Facts::half_of(entry.id) == half;
        for entry in self.entries.iter().filter(of_half) {
            let Some(opened) = opened.get_mut(entry.host as usize) else {
                continue;
            };
            if !entry.is_report {
                *opened += facts.end(entry.id);
                continue;
            }
            let fact = Fact {
                position: Position(self.first.0 + u64::from(entry.offset)),
                set: sets
                    .get(usize::from(entry.set))
                    .copied()
                    .unwrap_or(SetId::UNKNOWN),
                ended: entry.ended_at.is_some(),
            };
            *opened += facts.insert(entry.id, fact);
        }
        for (host, opened) in self.hosts.iter().zip(opened) {
            facts.count_open(*host, opened);
        }
    }

    /// When a finding ended, if a record here says so.
    pub(super) fn end_of(&self, id: FindingId) -> Option<UnixMillis> {
        let of_it = self.entries.iter().rev().filter(|entry| entry.id == id);
        of_it.filter_map(|entry| entry.ended_at).next()
    }

    /// Findings that were reported here, with their hosts.
    pub(super) fn reported(&self) -> impl Iterator<Item = (FindingId, HostId)> {
        let reports = self.entries.iter().filter(|entry| entry.is_report);
        reports.filter_map(|e| Some((e.id, *self.hosts.get(e.host as usize)?)))
    }

    /// The file of a closed segment.
    pub(super) fn encode(&self, journal_id: u64, span: SegmentSpan) -> Vec<u8> {
        let mut out = Vec::with_capacity(128 + 16 * self.hosts.len() + 36 * self.entries.len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        for number in [
            journal_id,
            span.first.0,
            span.end.0,
            self.newest.0.cast_unsigned(),
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for count in [self.hosts.len(), self.sets.len(), self.entries.len()] {
            out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
        }
        self.hosts
            .iter()
            .for_each(|host| out.extend_from_slice(host.as_bytes()));
        for set in &self.sets {
            out.extend_from_slice(&u16::try_from(set.len()).unwrap_or(u16::MAX).to_le_bytes());
            for (id, severity) in set.iter() {
                let length = u8::try_from(id.as_str().len()).unwrap_or(u8::MAX);
                out.extend_from_slice(&[severity_number(*severity), length]);
                out.extend_from_slice(id.as_str().as_bytes());
            }
        }
        for entry in &self.entries {
            let mut flags = if entry.is_report { REPORT } else { 0 };
            flags |= if entry.ended_at.is_some() {
                HAS_ENDED
            } else {
                0
            };
            out.extend_from_slice(&entry.offset.to_le_bytes());
            out.extend_from_slice(&entry.host.to_le_bytes());
            out.extend_from_slice(entry.id.as_bytes());
            out.extend_from_slice(&entry.set.to_le_bytes());
            out.extend_from_slice(&flags.to_le_bytes());
            out.extend_from_slice(&entry.ended_at.map_or(0, |at| at.0).to_le_bytes());
        }
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out
    }

    /// What a file says of a closed segment; nothing when it is damaged or of
    /// another one.
    pub(super) fn decode(bytes: &[u8], journal_id: u64, span: SegmentSpan) -> Option<Self> {
        let (fields, crc) = bytes.split_last_chunk::<4>()?;
        if u32::from_le_bytes(*crc) != crc32c::crc32c(fields) {
            return None;
        }
        let mut input = Input(fields);
        let is_this = input.take::<8>()? == *MAGIC
            && input.u32()? == VERSION
            && input.u64()? == journal_id
            && input.u64()? == span.first.0
            && input.u64()? == span.end.0;
        if !is_this {
            return None;
        }
        let mut facts = Self::new(span.first);
        facts.newest = UnixMillis(input.u64()?.cast_signed());
        let [hosts, sets, entries] = [input.u32()?, input.u32()?, input.u32()?];
        for _ in 0..hosts {
            facts
                .hosts
                .push(HostId::from_slice(&input.take::<16>()?).ok()?);
        }
        for _ in 0..sets {
            facts.sets.push(input.set()?);
        }
        for _ in 0..entries {
            facts.entries.push(input.entry()?);
        }
        input.0.is_empty().then_some(facts)
    }
}

/// Bytes that are left to read.
struct Input<'b>(&'b [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn set(&mut self) -> Option<Set> {
        let count = self.u16()?;
        let mut pairs = Vec::new();
        for _ in 0..count {
            let [severity, length] = self.take()?;
            let (id, rest) = self.0.split_at_checked(usize::from(length))?;
            self.0 = rest;
            let id = std::str::from_utf8(id).ok()?.parse().ok()?;
            pairs.push((id, *Severity::ALL.get(usize::from(severity))?));
        }
        Some(pairs.into())
    }

    fn entry(&mut self) -> Option<Entry> {
        let (offset, host) = (self.u32()?, self.u32()?);
        let id = FindingId::from_bytes(self.take()?);
        let (set, flags) = (self.u16()?, self.u16()?);
        let ended_at = UnixMillis(self.u64()?.cast_signed());
        Some(Entry {
            offset,
            host,
            id,
            set,
            is_report: flags & REPORT != 0,
            ended_at: (flags & HAS_ENDED != 0).then_some(ended_at),
        })
    }
}

fn severity_number(severity: Severity) -> u8 {
    let place = Severity::ALL.iter().position(|s| *s == severity);
    place.and_then(|n| u8::try_from(n).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use procwarden_common::finding::{Ended, Finding, Subject};
    use procwarden_common::id::BootId;
    use procwarden_common::indicator::Indicator;
    use procwarden_common::wire::Change;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::super::entry::FindingEntry;
    use super::*;

    const SPAN: SegmentSpan = SegmentSpan {
        first: Position(1000),
        end: Position(90_000),
    };

    fn entry((host, uid, step): (u8, u8, u8), at: i64) -> FindingEntry {
        let subject = Subject::Account {
            boot_id: BootId::from_uuid(Uuid::nil()),
            uid: u32::from(uid),
            since: UnixMillis(0),
        };
        let indicator = Indicator {
            id: format!("i{}", step % 3).parse().unwrap(),
            severity: Severity::ALL[usize::from(step % 5)],
            evidence: "x".into(),
        };
        let change = match step % 4 {
            0 => Change::Ended(Ended {
                subject,
                ended_at: UnixMillis(at),
            }),
            _ => Change::Reported(Box::new(Finding {
                subject,
                indicators: vec![indicator],
                observed_at: UnixMillis(at),
                uid: 1,
                user: b"u".to_vec(),
                process: None,
                host: None,
                actions: Vec::new(),
                quiet: false,
            })),
        };
        FindingEntry {
            host_id: HostId::from_uuid(Uuid::from_u128(u128::from(host))),
            host_name: "h".into(),
            received_at: UnixMillis(at),
            first_seen: UnixMillis(0),
            ended_at: (step % 8 == 7).then_some(UnixMillis(at)),
            alertable: true,
            previous: None,
            change,
        }
    }

    fn facts_of(entry: &FindingEntry) -> RecordFacts {
        RecordFacts::read(&entry.encode()).unwrap()
    }

    fn told(facts: &SegmentFacts, ids: &[FindingId]) -> (Vec<Option<Fact>>, u64, u64) {
        let all = Facts::default();
        facts.tell(&all, Half::First);
        facts.tell(&all, Half::Second);
        (
            ids.iter().map(|id| all.get(*id)).collect(),
            all.findings(),
            all.open(),
        )
    }

    proptest! {
        #[test]
        fn a_file_tells_the_facts_of_its_records(
            steps in proptest::collection::vec((0u8..3, 0u8..4, any::<u8>()), 0..40),
        ) {
            let mut facts = SegmentFacts::new(SPAN.first);
            let direct = Facts::default();
            let mut ids = Vec::new();
            for (step, at) in steps.into_iter().zip(0i64..) {
                let entry = entry(step, at);
                let (id, position) = (entry.id(), Position(1000 + at.cast_unsigned() * 100));
                let record = facts_of(&entry);
                facts.add(position, &record);
                match &record.set {
                    None => direct.ended(id, entry.host_id),
                    Some(set) => direct.reported(id, entry.host_id, Fact {
                        position,
                        set: direct.intern(set),
                        ended: record.ended_at.is_some(),
                    }),
                }
                ids.push(id);
            }
            let file = facts.encode(7, SPAN);
            let read = SegmentFacts::decode(&file, 7, SPAN).unwrap();
            let expected: Vec<_> = ids.iter().map(|id| direct.get(*id)).collect();
            prop_assert_eq!(told(&read, &ids), (expected, direct.findings(), direct.open()));
            prop_assert_eq!(read.newest, facts.newest);
            for id in ids {
                prop_assert_eq!(read.end_of(id), facts.end_of(id));
            }
        }

        #[test]
        fn other_bytes_are_no_facts(at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut facts = SegmentFacts::new(SPAN.first);
            facts.add(Position(1000), &facts_of(&entry((1, 1, 1), 5)));
            let mut file = facts.encode(7, SPAN);
            prop_assert_eq!(SegmentFacts::decode(&file, 8, SPAN), None);
            let index = at.index(file.len());
            file[index] ^= 1 << bit;
            prop_assert_eq!(SegmentFacts::decode(&file, 7, SPAN), None);
            prop_assert_eq!(SegmentFacts::decode(&file[..index], 7, SPAN), None);
        }
    }
}
