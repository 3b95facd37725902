//! Keeps the spool within its limit: what is dropped, and how space comes
//! back. The order of dropping is decided by [`choose`], which is pure.

use procwarden_common::severity::Severity;

use super::segment::{self, Active, SegmentId};
use super::{MEMORY_BYTES_MAX, Place, SegmentFacts, Spool, Unread, read_payload};
use crate::files::FileError;

/// Which events go so that `excess` bytes come free: the lowest severity
/// first, the oldest among equals. Up to `spare` bytes more go with them, so
/// that the next events find room, but none that is worth more than what has
/// to go.
pub(super) fn choose(
    candidates: impl Iterator<Item = (u64, Severity, u64)>,
    excess: u64,
    spare: u64,
) -> Vec<u64> {
    let mut candidates: Vec<_> = candidates
        .map(|(seq, sev, bytes)| (sev, seq, bytes))
        .collect();
    candidates.sort_unstable();
    let mut freed = 0;
    let mut chosen = Vec::new();
    let mut worth = None;
    for (severity, sequence, bytes) in candidates {
        let is_spare = freed >= excess;
        if is_spare && (worth != Some(severity) || freed + bytes > excess + spare) {
            break;
        }
        worth = Some(severity);
        freed += bytes;
        chosen.push(sequence);
    }
    chosen
}

impl Spool {
    /// Brings the spool, with what waits in memory, below its limit.
    pub(super) fn make_room(&mut self) -> Result<(), FileError> {
        let live = self.index_bytes;
        let dropped = if live > self.max_bytes {
            let all = self
                .index
                .iter()
                .map(|(&seq, e)| (seq, e.severity, e.record_bytes()));
            // Each drop has segments rewritten: not for every few events.
            let chosen = choose(all, live - self.max_bytes, self.segment_bytes());
            self.drop_events(&chosen)
        } else {
            Ok(())
        };
        // What is not written down yet stays in its segment, and is written
        // down by the next append.
        if let Err(error) = dropped.and_then(|()| self.save_books()) {
            // Perhaps the disk is full: what is acknowledged makes way.
            self.remove_dead_segments()?;
            return Err(error);
        }
        self.reclaim()
    }

    /// Whether the disk may hold what waits in memory although space did not
    /// come back: with no more than one segment beyond the limit.
    pub(super) fn is_within_margin(&self) -> bool {
        self.file_bytes() + self.waiting_bytes() <= self.max_bytes + self.segment_bytes()
    }

    /// Writes down, if there is anything new, what is owed, how many
    /// events were dropped and what is acknowledged. What is owed goes first:
    /// below the ack it is not found in its segment any more.
    pub(super) fn save_books(&mut self) -> Result<(), FileError> {
        self.owed.save(&self.dir)?;
        if self.state != self.saved_state {
            self.state.save(&self.dir)?;
            self.saved_state = self.state;
        }
        Ok(())
    }

    /// Whether all of that is on the disk.
    pub(super) fn are_books_saved(&self) -> bool {
        self.owed.is_saved() && self.state == self.saved_state
    }

    /// Bounds what waits in memory while the disk refuses.
    pub(super) fn bound_memory(&mut self) {
        let bytes = self.waiting_bytes();
        if bytes > MEMORY_BYTES_MAX {
            let waiting = self
                .waiting()
                .map(|(seq, e)| (seq, e.severity, e.record_bytes()));
            let chosen = choose(waiting, bytes - MEMORY_BYTES_MAX, 0);
            // The disk refuses anyway: the next append saves the count.
            if let Err(error) = self.drop_events(&chosen) {
                tracing::debug!(%error, "The count of dropped events is not on the disk yet.");
            }
        }
    }

    /// Counts and takes down first, then forgets: a crash in between
    /// counts too many, never too few, and tells an end or a finding twice,
    /// never not at all. On an error the segments must stay as they are: a
    /// crash then brings the events back. An event that cannot be read at this
    /// moment stays; the next append tries again.
    fn drop_events(&mut self, sequences: &[u64]) -> Result<(), FileError> {
        let unread = self.owe(sequences);
        let is_read = |sequence: &u64| !unread.contains_key(sequence);
        let sequences: Vec<u64> = sequences.iter().copied().filter(is_read).collect();
        if !sequences.is_empty() {
            self.state.dropped += sequences.len() as u64;
            self.state.given = self.next.saturating_sub(1);
        }
        let saved = self.save_books();
        for &sequence in &sequences {
            let entry = self.index.get(&sequence);
            if let Some(Place::Disk { segment, .. }) = entry.map(|e| &e.place) {
                self.tainted.insert(*segment);
            }
            self.forget(sequence);
        }
        if !sequences.is_empty() {
            tracing::warn!(
                events = sequences.len(),
                dropped_total = self.state.dropped,
                ends_kept_for_later = self.owed.len(),
                reports_kept_for_later = self.owed.reports.len(),
                "The spool is full: events of the lowest severity were dropped."
            );
        }
        unread.into_values().next().map_or(saved, Err)
    }

    /// Takes dropped events off the disk, and gives back the space of
    /// acknowledged ones, as much as is needed for what waits in memory.
    fn reclaim(&mut self) -> Result<(), FileError> {
        let waiting = self.waiting_bytes();
        let is_full = self.file_bytes() + waiting > self.max_bytes;
        if !is_full && self.tainted.is_empty() {
            return Ok(());
        }
        self.replace_dead_active()?;
        self.remove_dead_segments()?;
        while let Some(&id) = self.tainted.first() {
            self.rewrite(id)?;
            self.tainted.remove(&id);
        }
        let ids: Vec<SegmentId> = self.segments.keys().copied().collect();
        for id in ids {
            if self.file_bytes() + waiting <= self.max_bytes {
                break;
            }
            self.rewrite(id)?;
        }
        Ok(())
    }

    fn waiting_bytes(&self) -> u64 {
        self.waiting().map(|(_, entry)| entry.record_bytes()).sum()
    }

    fn file_bytes(&self) -> u64 {
        self.segments.values().map(|facts| facts.bytes).sum()
    }

    /// A newest segment without live events makes way for an empty one, so
    /// that its name keeps the sequence numbers rising.
    fn replace_dead_active(&mut self) -> Result<(), FileError> {
        let Some(active) = &self.active else {
            return Ok(());
        };
        let dead = self
            .segments
            .get(&active.id)
            .is_some_and(|f| f.live_bytes == 0);
        if !dead || active.bytes == 0 {
            return Ok(());
        }
        let first = self.first_waiting().unwrap_or(self.next);
        let id = SegmentId {
            first,
            salt: (self.new_salt)(),
        };
        self.active = Some(Active::create(&self.dir, id)?);
        self.segments.insert(id, SegmentFacts::default());
        Ok(())
    }

    /// Rewrites a segment without the records that are not live.
    fn rewrite(&mut self, id: SegmentId) -> Result<(), FileError> {
        let Some(facts) = self.segments.get(&id).copied() else {
            return Ok(());
        };
        if facts.bytes == facts.live_bytes {
            return Ok(());
        }
        let mut kept = Vec::new();
        let mut lost = Vec::new();
        let mut segments = segment::Reader::new(&self.dir);
        for (&sequence, entry) in self.index.range(id.first..) {
            match &entry.place {
                Place::Disk { segment, .. } if *segment == id => {}
                Place::Disk { segment, .. } if segment.first > id.first => break,
                _ => continue,
            }
            match read_payload(&mut segments, entry) {
                Ok(payload) => kept.push((sequence, payload)),
                Err(Unread::NotNow(error)) => return Err(error),
                Err(Unread::Lost(reason)) => {
                    tracing::error!(
                        sequence,
                        reason,
                        "A reported event could not be read back and is lost."
                    );
                    lost.push(sequence);
                }
            }
        }
        let offsets = segment::rewrite(&self.dir, id, kept.iter().map(|(_, p)| p.as_ref()))?;
        for sequence in lost {
            self.forget(sequence);
            self.damaged += 1;
        }
        for ((sequence, _), offset) in kept.iter().zip(offsets) {
            if let Some(entry) = self.index.get_mut(sequence) {
                entry.place = Place::Disk {
                    segment: id,
                    offset,
                };
            }
        }
        self.after_rewrite(id)
    }

    fn after_rewrite(&mut self, id: SegmentId) -> Result<(), FileError> {
        let Some(facts) = self.segments.get_mut(&id) else {
            return Ok(());
        };
        facts.bytes = facts.live_bytes;
        let bytes = facts.bytes;
        if self.active.as_ref().is_some_and(|active| active.id == id) {
            // The open file is the one that was replaced.
            self.active = None;
            self.active = Some(Active::reopen(&self.dir, id, bytes)?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_goes_first_and_the_oldest_among_equals() {
        use Severity::{High, Info, Low};
        let events = [
            (1, High, 10),
            (2, Low, 10),
            (3, Info, 10),
            (4, Low, 10),
            (5, Info, 10),
        ];
        for (excess, chosen) in [
            (0, vec![]),
            (1, vec![3]),
            (11, vec![3, 5]),
            (21, vec![3, 5, 2]),
            (999, vec![3, 5, 2, 4, 1]),
        ] {
            assert_eq!(choose(events.into_iter(), excess, 0), chosen, "{excess}");
        }
        // With what goes to spare: no more than asked for, none of more worth.
        for (excess, spare, chosen) in [
            (0, 99, vec![]),
            (1, 9, vec![3]),
            (1, 19, vec![3, 5]),
            (1, 99, vec![3, 5]),
            (21, 99, vec![3, 5, 2, 4]),
        ] {
            let seen = choose(events.into_iter(), excess, spare);
            assert_eq!(seen, chosen, "{excess} {spare}");
        }
    }
}
