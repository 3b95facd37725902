//! The ledger read back as the audit trail, page by page, newest first.
//!
//! Promises: bounded memory whatever the ledger holds: only places are kept
//! while it is read, and one record at a time after that. Reads the disk, so
//! it is called off the threads that serve. A page reads the journal from its
//! beginning: decisions are few, and no second index can disagree with it.

use std::collections::VecDeque;
use std::io;

use procwarden_common::clock::UnixMillis;
use procwarden_proto::v1;
use prost::Message;

use super::Ledger;
use crate::journal::Position;

/// Some decisions, and where the older ones are.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct AuditPage<T> {
    /// Newest first.
    pub(crate) entries: Vec<T>,
    /// Ask for what is before this; nothing when there is no more.
    pub(crate) more_before: Option<Position>,
}

/// All that is needed to choose a record.
#[derive(Clone, PartialEq, Message)]
struct RecordTime {
    #[prost(int64, tag = "1")]
    at_ms: i64,
}

impl Ledger {
    /// The last `limit` decisions at or after `since`, as `tell` puts them;
    /// only those before a position when one is given.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub(crate) fn audit<T>(
        &self,
        since: UnixMillis,
        before: Option<Position>,
        limit: usize,
        mut tell: impl FnMut(v1::LedgerRecord) -> T,
    ) -> io::Result<AuditPage<T>> {
        let (places, more_before) = self.places(since, before, limit)?;
        let mut entries = Vec::with_capacity(places.len());
        for &place in places.iter().rev() {
            let payload = self.shared.reader.read_at(place)?;
            // What no version can read was left out at start as well.
            if let Ok(record) = v1::LedgerRecord::decode(payload) {
                entries.push(tell(record));
            }
        }
        Ok(AuditPage {
            entries,
            more_before,
        })
    }

    /// Where the chosen records are, oldest first.
    fn places(
        &self,
        since: UnixMillis,
        before: Option<Position>,
        limit: usize,
    ) -> io::Result<(VecDeque<Position>, Option<Position>)> {
        let mut places = VecDeque::with_capacity(limit);
        let mut more = false;
        for entry in self.shared.reader.read_from(Position::default()) {
            let entry = entry?;
            if before.is_some_and(|before| entry.position >= before) {
                break;
            }
            // The clock may have been set back: order is not time.
            if !RecordTime::decode(entry.payload).is_ok_and(|record| record.at_ms >= since.0) {
                continue;
            }
            if places.len() == limit {
                places.pop_front();
                more = true;
            }
            places.push_back(entry.position);
        }
        let oldest = places.front().copied();
        Ok((places, oldest.filter(|_| more)))
    }
}
