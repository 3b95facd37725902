//! What is said of a block, so that a question it cannot answer does not read
//! it. Pure.
//!
//! Promises: a block that holds a finding that is asked for is never passed
//! over. The other way round is allowed: Bloom filters err on that side.

use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::FindingState;
use procwarden_common::wire::severity_to_wire;
use procwarden_proto::v1;

use super::StoreError;
use crate::findings::{ExeFilter, FindingFilter};
use crate::journal::Position;

/// Bytes of the filters: about a tenth of the blocks pass in vain when every
/// finding of them is another's.
const HOSTS_BYTES: usize = 32;
const USERS_BYTES: usize = 64;
const EXECUTABLES_BYTES: usize = 128;
const INDICATORS_BYTES: usize = 16;
/// Bits that one text sets.
const BITS_PER_TEXT: u64 = 3;

/// What is said of a block.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Zone {
    pub(super) findings: u32,
    pub(super) first: Position,
    pub(super) last: Position,
    first_seen: (i64, i64),
    severities: u32,
    pub(super) reported_ended: u32,
    pub(super) ends: u32,
    pub(super) block_crc: u32,
    pub(super) ends_crc: u32,
    /// Mark of the zone as it was written last; 0 before.
    pub(super) written: u64,
    hosts: Bloom<HOSTS_BYTES>,
    users: Bloom<USERS_BYTES>,
    executables: Bloom<EXECUTABLES_BYTES>,
    indicators: Bloom<INDICATORS_BYTES>,
}

impl Zone {
    /// Of a block that holds nothing yet.
    pub(super) fn new() -> Self {
        Self {
            findings: 0,
            first: Position(u64::MAX),
            last: Position(0),
            first_seen: (i64::MAX, i64::MIN),
            severities: 0,
            reported_ended: 0,
            ends: 0,
            block_crc: 0,
            ends_crc: 0,
            written: 0,
            hosts: Bloom::default(),
            users: Bloom::default(),
            executables: Bloom::default(),
            indicators: Bloom::default(),
        }
    }

    /// Takes one more finding in.
    pub(super) fn add(&mut self, stored: &v1::CompactStoredFinding) {
        let at = Position(stored.evidence_position);
        self.findings += 1;
        (self.first, self.last) = (self.first.min(at), self.last.max(at));
        let (earliest, latest) = self.first_seen;
        let time = stored.first_seen_ms;
        self.first_seen = (earliest.min(time), latest.max(time));
        self.reported_ended += u32::from(stored.state() != v1::FindingState::Open);
        self.hosts.add(&stored.host_id);
        stored.finding.iter().for_each(|f| self.add_finding(f));
    }

    fn add_finding(&mut self, finding: &v1::CompactFinding) {
        self.users.add(&finding.user);
        let worst = finding.indicators.iter().map(|i| i.severity()).max();
        self.severities |= worst.map_or(0, |severity| 1 << (severity as u32));
        for indicator in &finding.indicators {
            self.indicators.add(&indicator.id);
        }
        if let Some(process) = &finding.process {
            process.exe.iter().for_each(|exe| self.executables.add(exe));
            if !process.exe_sha256.is_empty() {
                self.executables.add(&process.exe_sha256);
            }
        }
    }

    /// Whether the block may hold a finding that is asked for; `new_ends` says
    /// that something ended that the zone does not count yet.
    pub(super) fn may_hold(&self, filter: &FindingFilter, new_ends: bool) -> bool {
        let ended = self.reported_ended + self.ends;
        let state_fits = match filter.state {
            None => true,
            Some(FindingState::Open) => ended < self.findings,
            Some(FindingState::Ended) => ended > 0 || new_ends,
            Some(FindingState::Resolved) => true,
        };
        let severity_fits = filter
            .min_severity
            .is_none_or(|least| self.severities >> (severity_to_wire(least) as u32) != 0);
        let (earliest, latest) = self.first_seen;
        state_fits
            && severity_fits
            && filter.since.is_none_or(|UnixMillis(since)| latest >= since)
            && filter
                .until
                .is_none_or(|UnixMillis(until)| earliest < until)
            && filter
                .host
                .is_none_or(|host| self.hosts.may_have(host.as_bytes()))
            && filter
                .user
                .as_ref()
                .is_none_or(|user| self.users.may_have(user))
            && filter
                .indicator
                .as_ref()
                .is_none_or(|id| self.indicators.may_have(id.as_str().as_bytes()))
            && filter
                .exe
                .as_ref()
                .is_none_or(|exe| self.executables.may_have(exe.bytes()))
    }

    pub(super) fn to_message(&self) -> v1::BlockZone {
        v1::BlockZone {
            findings: self.findings,
            first_position: self.first.0,
            last_position: self.last.0,
            first_seen_min_ms: self.first_seen.0,
            first_seen_max_ms: self.first_seen.1,
            severities: self.severities,
            reported_ended: self.reported_ended,
            ends: self.ends,
            hosts: self.hosts.to_bytes(),
            users: self.users.to_bytes(),
            executables: self.executables.to_bytes(),
            indicators: self.indicators.to_bytes(),
            block_crc: self.block_crc,
            ends_crc: self.ends_crc,
        }
    }

    pub(super) fn from_message(message: &v1::BlockZone) -> Result<Self, StoreError> {
        Ok(Self {
            findings: message.findings,
            first: Position(message.first_position),
            last: Position(message.last_position),
            first_seen: (message.first_seen_min_ms, message.first_seen_max_ms),
            severities: message.severities,
            reported_ended: message.reported_ended,
            ends: message.ends,
            block_crc: message.block_crc,
            ends_crc: message.ends_crc,
            written: 0,
            hosts: Bloom::from_bytes(&message.hosts)?,
            users: Bloom::from_bytes(&message.users)?,
            executables: Bloom::from_bytes(&message.executables)?,
            indicators: Bloom::from_bytes(&message.indicators)?,
        })
    }
}

impl ExeFilter {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Path(path) => path,
            Self::Sha256(sum) => sum,
        }
    }
}

/// A Bloom filter: says "not here" only when it is so.
#[derive(Debug, Clone, PartialEq)]
struct Bloom<const BYTES: usize>([u8; BYTES]);

impl<const BYTES: usize> Default for Bloom<BYTES> {
    fn default() -> Self {
        Self([0; BYTES])
    }
}

impl<const BYTES: usize> Bloom<BYTES> {
    fn add(&mut self, text: &[u8]) {
        for (byte, mask) in Self::places(text) {
            if let Some(byte) = self.0.get_mut(byte) {
                *byte |= mask;
            }
        }
    }

    fn may_have(&self, text: &[u8]) -> bool {
        Self::places(text).all(|(byte, mask)| self.0.get(byte).is_some_and(|b| b & mask != 0))
    }

    /// Bytes with the bit that a text sets in each.
    fn places(text: &[u8]) -> impl Iterator<Item = (usize, u8)> {
        let low = u64::from(crc32c::crc32c(text));
        let high = u64::from(crc32c::crc32c_append(0x9e37_79b9, text));
        // Two checksums of one polynomial differ by a constant: mixed first.
        let mixed = (low << 32 | high).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let (one, two) = (mixed >> 32, mixed & 0xffff_ffff | 1);
        (0..BITS_PER_TEXT).map(move |n| {
            let bit = one.wrapping_add(n.wrapping_mul(two)) % (8 * BYTES as u64);
            (usize::try_from(bit / 8).unwrap_or(0), 1u8 << (bit % 8))
        })
    }

    fn to_bytes(&self) -> bytes::Bytes {
        bytes::Bytes::copy_from_slice(&self.0)
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, StoreError> {
        let bits = bytes.try_into();
        bits.map(Self)
            .map_err(|_| StoreError::Damaged("a filter has a wrong length".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_has_what_was_added_and_little_else() {
        let mut filter = Bloom::<USERS_BYTES>::default();
        let text = |n: u32| format!("customer{n}").into_bytes();
        (0..64).for_each(|n| filter.add(&text(n)));
        assert!((0..64).all(|n| filter.may_have(&text(n))));
        let wrong = (1000..11_000)
            .filter(|n| filter.may_have(&text(*n)))
            .count();
        assert!(wrong < 1000, "{wrong} of 10000");
        assert_eq!(Bloom::from_bytes(&filter.to_bytes()), Ok(filter));
        assert!(Bloom::<7>::from_bytes(&[0; 8]).is_err());
    }
}
