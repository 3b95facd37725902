//! The keys of the index. Pure.
//!
//! One ordered space, so that one batch changes everything at once:
//!
//! ```text
//! f id                     the finding
//! h host, time, id         findings of a host, newest first
//! m                        what is said about the whole (schema.rs)
//! o host                   number of open findings
//! t time, id               all findings, newest first
//! ```
//!
//! `time` is when the finding was first seen, in 8 bytes whose order is newest
//! first. It never changes, so a place in a listing stays valid.

use procwarden_common::clock::UnixMillis;
use procwarden_common::id::{FindingId, HostId};

/// Key of what is said about the whole.
pub(super) const META: &[u8] = b"m";
/// Prefix of findings.
pub(super) const FINDING: &[u8] = b"f";
/// Prefix of the listing of all findings.
pub(super) const BY_TIME: &[u8] = b"t";
/// Prefix of the counts of open findings.
pub(super) const OPEN: &[u8] = b"o";

/// Bytes of time and id.
const PLACE_BYTES: usize = 8 + 16;
const CURSOR_VERSION: u8 = 1;

/// Key of a finding.
pub(super) fn finding(id: FindingId) -> Vec<u8> {
    [FINDING, id.as_bytes()].concat()
}

/// Prefix of the listing of a host.
pub(super) fn host_prefix(host: HostId) -> Vec<u8> {
    [b"h".as_slice(), host.as_bytes()].concat()
}

/// Key of the number of open findings of a host.
pub(super) fn open_count(host: HostId) -> Vec<u8> {
    [OPEN, host.as_bytes()].concat()
}

/// A place in a listing: behind it come older findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) first_seen: UnixMillis,
    pub(super) id: FindingId,
}

impl Place {
    /// Its key in the listing with this prefix.
    pub(super) fn key(&self, prefix: &[u8]) -> Vec<u8> {
        [prefix, &time_bytes(self.first_seen), self.id.as_bytes()].concat()
    }

    /// The place that a key of a listing names.
    pub(super) fn parse(prefix: &[u8], key: &[u8]) -> Option<Self> {
        let (time, id) = key.strip_prefix(prefix)?.split_first_chunk()?;
        Some(Self {
            first_seen: parse_time(*time),
            id: FindingId::from_slice(id).ok()?,
        })
    }

    /// What the asker sends to go on behind this place.
    pub(super) fn cursor(&self) -> Vec<u8> {
        self.key(&[CURSOR_VERSION])
    }

    /// The place that a cursor names.
    pub(super) fn from_cursor(cursor: &[u8]) -> Option<Self> {
        (cursor.len() == 1 + PLACE_BYTES).then(|| Self::parse(&[CURSOR_VERSION], cursor))?
    }
}

/// Later times sort first.
fn time_bytes(time: UnixMillis) -> [u8; 8] {
    (!(time.0.cast_unsigned() ^ (1 << 63))).to_be_bytes()
}

fn parse_time(bytes: [u8; 8]) -> UnixMillis {
    UnixMillis((!u64::from_be_bytes(bytes) ^ (1 << 63)).cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(millis: i64, id: u8) -> Place {
        Place {
            first_seen: UnixMillis(millis),
            id: FindingId::from_bytes([id; 16]),
        }
    }

    #[test]
    fn newer_places_sort_first_whatever_the_clock_said() {
        let times = [i64::MAX, 1_795_424_400_000, 1, 0, -1, i64::MIN];
        let keys: Vec<_> = times.iter().map(|t| place(*t, 3).key(BY_TIME)).collect();
        assert!(keys.is_sorted(), "{keys:?}");
        assert!(place(5, 1).key(BY_TIME) < place(5, 2).key(BY_TIME));
        for time in times {
            let place = place(time, 9);
            assert_eq!(Place::parse(BY_TIME, &place.key(BY_TIME)), Some(place));
            assert_eq!(Place::from_cursor(&place.cursor()), Some(place));
        }
    }

    #[test]
    fn other_bytes_are_no_cursor() {
        let good = place(7, 7).cursor();
        let longer = [good.as_slice(), &[0]].concat();
        let other_version = [&[9], &good[1..]].concat();
        for bad in [&[][..], &good[1..], &longer, &other_version] {
            assert_eq!(Place::from_cursor(bad), None, "{bad:?}");
        }
    }
}
