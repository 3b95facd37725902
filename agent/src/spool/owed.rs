//! What a full spool dropped and is to be told all the same, as soon as there
//! is room: ends of findings are appended again from here, and findings are
//! reported anew by whoever found them (`anew.rs`).
//!
//! An end is small and is worth the least while findings wait, so it goes
//! first. But nobody else tells it: the reported set has forgotten its subject
//! by then, and the collector would show the finding as open for ever.
//!
//! `PWOWED01 | entries | crc: u32 LE`, where an entry is a length-delimited
//! `v1::Event`: an end with the sequence number under which it was dropped; a
//! finding with its subject alone; or nothing, which says that more reports
//! were dropped than are listed. Replaced whole. Promises: bounded, the oldest
//! ends go first; a file that is damaged or cannot be read is told once, and
//! costs the ends in it: nobody knows how many, so it counts as one lost end,
//! and a list that has every finding reported anew takes its place. An end that
//! is told twice is recognised by the collector, as is the end of a finding
//! whose report was dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use procwarden_common::finding::{Ended, Subject};
use procwarden_common::wire::{Change, subject_from_wire, subject_to_wire};
use procwarden_proto::v1;
use prost::Message as _;

use super::record::HEADER_BYTES;
use super::{Place, Spool, Unread, event, read_event, segment};
use crate::files::{self, FileError};

const NAME: &str = "owed";
const MAGIC: &[u8; 8] = b"PWOWED01";

/// In memory they take a little more than a megabyte.
const ENDS_MAX: usize = 16 * 1024;

/// No entry of the file is longer.
pub(super) const ENTRY_BYTES_MAX: u64 = 80;

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Owed {
    /// By the sequence numbers under which they were dropped.
    ends: BTreeMap<u64, Ended>,
    /// Findings of which a report was dropped.
    pub(super) reports: BTreeSet<Subject>,
    /// There are more of these than are listed.
    pub(super) has_unlisted: bool,
    /// The file does not say the same.
    is_changed: bool,
}

impl Owed {
    /// Reads the file; nothing when it is lost. An error is a passing one.
    pub(super) fn load(dir: &Path) -> Result<Option<Self>, FileError> {
        match files::read_if_there(&dir.join(NAME)) {
            Ok(Some(content)) => Ok(Self::decode(&content)),
            Ok(None) => Ok(Some(Self::default())),
            Err(error) if error.is_passing() => Err(error),
            Err(error) => {
                tracing::error!(%error, "The list of dropped ends is lost.");
                Ok(None)
            }
        }
    }

    /// What has to take the place of a list that is lost: no ends, and any
    /// finding may have been in it.
    pub(super) fn in_place_of_lost() -> Self {
        Self {
            has_unlisted: true,
            is_changed: true,
            ..Self::default()
        }
    }

    /// Writes the file and waits for the disk, if there is anything new.
    pub(super) fn save(&mut self, dir: &Path) -> Result<(), FileError> {
        if self.is_changed {
            files::replace(&dir.join(NAME), &self.encode())?;
            self.is_changed = false;
        }
        Ok(())
    }

    /// Whether the file says the same.
    pub(super) const fn is_saved(&self) -> bool {
        !self.is_changed
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The lowest sequence number above those of all ends. No segment need
    /// hold an end that was dropped from memory, and its number must not be
    /// given away a second time.
    pub(super) fn next(&self) -> u64 {
        let newest = self.ends.last_key_value();
        newest.map_or(0, |(newest, _)| newest.saturating_add(1))
    }

    fn insert(&mut self, sequence: u64, ended: Ended) {
        self.is_changed |= self.ends.insert(sequence, ended) != Some(ended);
    }

    fn remove(&mut self, sequence: u64) {
        self.is_changed |= self.ends.remove(&sequence).is_some();
    }

    /// Lists a finding of which a report is dropped. Beyond `max` it is only
    /// noted that there are more; accounts and hosts are few, and stay.
    pub(super) fn insert_report(&mut self, subject: Subject, max: usize) {
        self.is_changed |= self.reports.insert(subject);
        while self.reports.len() > max {
            self.reports.pop_first();
            self.set_unlisted(true);
        }
    }

    /// Whether more are owed than are listed.
    pub(super) fn set_unlisted(&mut self, has_unlisted: bool) {
        self.is_changed |= self.has_unlisted != has_unlisted;
        self.has_unlisted = has_unlisted;
    }

    /// A finding is on somebody else's list. That is written down with the
    /// next change, or when it was the last one.
    pub(super) fn remove_report(&mut self, subject: &Subject) {
        self.is_changed |= self.reports.remove(subject) && self.reports.is_empty();
    }

    /// Forgets the oldest ends beyond `max`; how many those were.
    fn bound(&mut self, max: usize) -> usize {
        let excess = self.ends.len().saturating_sub(max);
        for _ in 0..excess {
            self.ends.pop_first();
        }
        self.is_changed |= excess > 0;
        excess
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (&sequence, ended) in &self.ends {
            let event = Some(v1::event::Event::Ended(Box::new(ended.into())));
            let entry = v1::Event { sequence, event };
            out.extend_from_slice(&entry.encode_length_delimited_to_vec());
        }
        for &subject in &self.reports {
            out.extend_from_slice(&report_entry(subject).encode_length_delimited_to_vec());
        }
        if self.has_unlisted {
            out.extend_from_slice(&v1::Event::default().encode_length_delimited_to_vec());
        }
        files::seal(MAGIC, &out)
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = files::unseal(MAGIC, bytes)?;
        let mut owed = Self::default();
        while !rest.is_empty() {
            let entry = v1::Event::decode_length_delimited(&mut rest).ok()?;
            match entry.event {
                None => owed.has_unlisted = true,
                Some(v1::event::Event::Ended(message)) => {
                    let ended = (*message).try_into().ok()?;
                    owed.ends.insert(entry.sequence, ended);
                }
                Some(v1::event::Event::Finding(message)) => {
                    owed.reports
                        .insert(subject_from_wire(message.subject).ok()?);
                }
            }
        }
        Some(owed)
    }
}

impl Spool {
    /// Remembers events that are about to be dropped; the newest ends, when
    /// there are too many. Those that cannot be read at this moment are
    /// returned, and must not be dropped now.
    pub(super) fn owe(&mut self, sequences: &[u64]) -> BTreeMap<u64, FileError> {
        let mut unread = BTreeMap::new();
        let (ends_max, reports_max) = (self.owed_max(), self.owed_reports_max());
        let mut segments = segment::Reader::new(&self.dir);
        let mut lost_ends = 0;
        for &sequence in sequences {
            let Some(entry) = self.index.get(&sequence) else {
                continue;
            };
            match read_event(&mut segments, sequence, entry).map(|event| event.event) {
                Ok(Some(v1::event::Event::Ended(message))) => match (*message).try_into() {
                    Ok(ended) => self.owed.insert(sequence, ended),
                    Err(_) => lost_ends += 1,
                },
                Ok(Some(v1::event::Event::Finding(message))) => {
                    match subject_from_wire(message.subject) {
                        Ok(subject) => self.owed.insert_report(subject, reports_max),
                        Err(_) => self.owed.set_unlisted(true),
                    }
                }
                Ok(None) => {}
                Err(Unread::NotNow(error)) => {
                    unread.insert(sequence, error);
                }
                Err(Unread::Lost(reason)) => {
                    tracing::error!(sequence, reason, "A dropped event could not be read back.");
                    if entry.is_end {
                        lost_ends += 1;
                    } else {
                        self.owed.set_unlisted(true);
                    }
                }
            }
            lost_ends += self.owed.bound(ends_max);
        }
        self.lose_ends(lost_ends);
        unread
    }

    fn lose_ends(&mut self, lost: usize) {
        self.lost_ends += lost as u64;
        if lost > 0 {
            tracing::error!(
                ends = lost,
                "More ends of findings were dropped than can be told later: the collector goes on to show those as open."
            );
        }
    }

    /// Appends what is owed again, as far as half of the spool is free: beyond
    /// that it would soon be dropped again.
    pub(crate) fn tell_owed(&mut self) -> Result<(), FileError> {
        // A disk that refuses is tried with what waits, by the next append.
        if self.first_waiting().is_none() {
            self.append_owed()?;
        }
        self.save_books()
    }

    fn append_owed(&mut self) -> Result<(), FileError> {
        let told = self.enqueue_owed();
        if told.is_empty() {
            return Ok(());
        }
        let written = self.write_in_limit();
        let ends = told.len();
        for (dropped, sequence) in told {
            let entry = self.index.get(&sequence);
            if entry.is_some_and(|entry| matches!(entry.place, Place::Memory(_))) {
                // The disk refused it: it stays owed, and is told later.
                self.forget(sequence);
            } else {
                self.owed.remove(dropped);
            }
        }
        if written.is_ok() {
            tracing::info!(
                ends,
                "Ends of findings that a full spool dropped are told again."
            );
        }
        written
    }

    /// Puts the oldest that have room behind all events: the sequence under
    /// which each was dropped, and the new one.
    fn enqueue_owed(&mut self) -> Vec<(u64, u64)> {
        let room = (self.max_bytes / 2).saturating_sub(self.index_bytes);
        let fit = room / (HEADER_BYTES as u64 + ENTRY_BYTES_MAX);
        let fit = usize::try_from(fit).unwrap_or(usize::MAX);
        let ends = self.owed.ends.iter().take(fit);
        let ends: Vec<(u64, Ended)> = ends.map(|(&dropped, &ended)| (dropped, ended)).collect();
        let enqueue = |(dropped, ended)| {
            let change = Change::Ended(ended);
            let (severity, event) = event::of_change(&change, self.event_bytes_max());
            (dropped, self.enqueue(severity, event))
        };
        ends.into_iter().map(enqueue).collect()
    }

    /// A crash came between taking ends down and dropping them: they are still
    /// there and need not be told twice. The end itself is compared, because
    /// one that is struck out for another event is never told.
    pub(super) fn disown_undropped(&mut self) {
        let mut segments = segment::Reader::new(&self.dir);
        let mut is_there = |sequence: u64, owed: &Ended| {
            let entry = self.index.get(&sequence).filter(|entry| entry.is_end);
            let event = entry.and_then(|e| read_event(&mut segments, sequence, e).ok());
            event.and_then(end_of).as_ref() == Some(owed)
        };
        let ends = self.owed.ends.iter();
        let undropped = ends.filter(|&(&sequence, ended)| is_there(sequence, ended));
        let undropped: Vec<u64> = undropped.map(|(&sequence, _)| sequence).collect();
        for sequence in undropped {
            self.owed.remove(sequence);
        }
    }

    /// They take no more than one segment of the file.
    pub(super) fn owed_max(&self) -> usize {
        let fit = self.segment_bytes() / ENTRY_BYTES_MAX;
        usize::try_from(fit).map_or(ENDS_MAX, |fit| fit.min(ENDS_MAX))
    }
}

/// How a report is listed.
fn report_entry(subject: Subject) -> v1::Event {
    let finding = v1::Finding {
        subject: Some(subject_to_wire(&subject)),
        ..Default::default()
    };
    v1::Event {
        sequence: 0,
        event: Some(v1::event::Event::Finding(Box::new(finding))),
    }
}

/// What an event says, if it is an end.
fn end_of(event: v1::Event) -> Option<Ended> {
    match event.event? {
        v1::event::Event::Ended(message) => (*message).try_into().ok(),
        v1::event::Event::Finding(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use procwarden_common::clock::UnixMillis;
    use procwarden_common::finding::Subject;
    use procwarden_common::id::BootId;
    use procwarden_common::process::ProcessKey;

    use super::*;

    /// One end of each kind, with the longest numbers.
    fn longest() -> Owed {
        let boot_id = BootId::from_slice(&[0xff; 16]).unwrap();
        let since = UnixMillis(i64::MIN);
        let process = ProcessKey {
            boot_id,
            pid: u32::MAX,
            start_time: u64::MAX,
        };
        let subjects = [
            Subject::Process(process),
            Subject::Account {
                boot_id,
                uid: u32::MAX,
                since,
            },
            Subject::Host { boot_id, since },
        ];
        let mut owed = Owed::default();
        for (at, subject) in (0..).zip(subjects) {
            let ended_at = since;
            owed.insert(u64::MAX - at, Ended { subject, ended_at });
            owed.insert_report(subject, 3);
        }
        owed.set_unlisted(true);
        owed
    }

    #[test]
    fn what_is_owed_is_read_as_it_was_written_and_damage_at_any_byte_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Owed::load(dir.path()).unwrap().unwrap().ends.is_empty());
        let mut owed = longest();
        assert!(!owed.is_saved());
        owed.save(dir.path()).unwrap();
        assert!(owed.is_saved());
        let read = Owed::load(dir.path()).unwrap().unwrap();
        assert_eq!((&read.ends, &read.reports), (&owed.ends, &owed.reports));
        assert!(read.is_saved() && read.has_unlisted);
        let whole = owed.encode();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 4;
            assert!(Owed::decode(&bytes).is_none(), "byte {at}");
            assert!(Owed::decode(&whole[..at]).is_none(), "cut at {at}");
        }
    }

    #[test]
    fn no_entry_is_longer_than_is_counted_on() {
        let mut owed = longest();
        owed.reports.clear();
        let each = owed.encode().len() / owed.len();
        assert!(each as u64 <= ENTRY_BYTES_MAX, "{each}");
        for subject in longest().reports {
            let bytes = report_entry(subject).encode_length_delimited_to_vec().len();
            assert!(bytes as u64 <= ENTRY_BYTES_MAX, "{bytes}");
        }
    }

    #[test]
    fn the_oldest_ends_are_forgotten_first() {
        let mut owed = longest();
        assert_eq!((owed.bound(9), owed.bound(2)), (0, 1));
        let left: Vec<u64> = owed.ends.keys().copied().collect();
        assert_eq!(left, [u64::MAX - 1, u64::MAX]);
    }

    #[test]
    fn reports_beyond_the_bound_are_remembered_as_some_more() {
        let mut owed = Owed::default();
        for subject in longest().reports {
            assert!(!owed.has_unlisted);
            owed.insert_report(subject, 2);
        }
        assert!(owed.has_unlisted);
        let is_process = |subject: &Subject| matches!(subject, Subject::Process(_));
        assert_eq!(owed.reports.len(), 2);
        assert!(!owed.reports.iter().any(is_process));
    }

    #[test]
    fn a_report_that_is_struck_out_is_written_down_with_the_next_change_or_as_the_last() {
        let dir = tempfile::tempdir().unwrap();
        let mut owed = longest();
        owed.save(dir.path()).unwrap();
        let subjects: Vec<Subject> = owed.reports.iter().copied().collect();
        for (subject, is_saved) in subjects.iter().zip([true, true, false]) {
            owed.remove_report(subject);
            assert_eq!(owed.is_saved(), is_saved);
        }
    }
}
