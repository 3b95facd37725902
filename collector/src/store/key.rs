//! The keys of the index, and cursors. Pure.
//!
//! ```text
//! tree `blocks`:   n    findings, 64 to a block, in the order of the journal
//! default tree:    e n  what ended since it was reported in the block
//!                  m    what is said about the whole (schema.rs)
//!                  z n  what is said about the block (zone.rs)
//! ```
//!
//! `n` is the number of a block in 8 bytes, most significant first.

use crate::journal::Position;

/// Key of what is said about the whole.
pub(super) const META: &[u8] = b"m";
/// Prefix of the zones.
pub(super) const ZONE: &[u8] = b"z";
/// Prefix of the ends.
const ENDS: &[u8] = b"e";

const CURSOR_VERSION: u8 = 2;

/// Key of a block in its tree.
pub(super) fn block(number: u64) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

/// Key of what is said about a block.
pub(super) fn zone(number: u64) -> Vec<u8> {
    [ZONE, &number.to_be_bytes()].concat()
}

/// Key of what ended in a block.
pub(super) fn ends(number: u64) -> Vec<u8> {
    [ENDS, &number.to_be_bytes()].concat()
}

/// The block whose zone a key names.
pub(super) fn parse_zone(key: &[u8]) -> Option<u64> {
    let number = key.strip_prefix(ZONE)?.try_into().ok()?;
    Some(u64::from_be_bytes(number))
}

/// Where a listing goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor {
    /// How far the store had come when the listing began: what is newer is not
    /// part of it.
    pub(super) began_at: Position,
    /// Older reports than this one are still to come.
    pub(super) before: Position,
}

impl Cursor {
    pub(super) fn encode(self) -> Vec<u8> {
        let (began_at, before) = (self.began_at.0.to_be_bytes(), self.before.0.to_be_bytes());
        [&[CURSOR_VERSION], began_at.as_slice(), before.as_slice()].concat()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (began_at, before) = bytes.strip_prefix(&[CURSOR_VERSION])?.split_first_chunk()?;
        Some(Self {
            began_at: Position(u64::from_be_bytes(*began_at)),
            before: Position(u64::from_be_bytes(before.try_into().ok()?)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_later_blocks_sort_later() {
        for of in [block, zone, ends] {
            assert!([0, 1, 255, 256, u64::MAX].map(of).is_sorted());
        }
        assert_eq!(parse_zone(&zone(258)), Some(258));
        assert_eq!(parse_zone(&ends(258)), None);
    }

    #[test]
    fn other_bytes_are_no_cursor() {
        let cursor = Cursor {
            began_at: Position(9),
            before: Position(u64::MAX),
        };
        let good = cursor.encode();
        assert_eq!(Cursor::decode(&good), Some(cursor));
        let longer = [good.as_slice(), &[0]].concat();
        let other_version = [&[1], &good[1..]].concat();
        for bad in [&[][..], &good[1..], &longer, &other_version] {
            assert_eq!(Cursor::decode(bad), None, "{bad:?}");
        }
    }
}
