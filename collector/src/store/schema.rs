//! The values of the index. Pure.
//!
//! Every value begins with a CRC-32C over its key and itself. A zone holds the
//! checksums of its block and of its ends, and the mark of the whole holds a sum
//! over the zones: a value that is missing, stale or of elsewhere is found.

use prost::Message;

use super::StoreError;
use crate::journal::Position;

/// Rises when keys or values change: an index of another number is rebuilt.
pub(super) const SCHEMA: u32 = 3;

/// A block is far smaller before it is packed; one that claims more is damaged.
const PACKED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What is said about the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) schema: u32,
    /// The journal that is followed.
    pub(super) journal_id: u64,
    /// Records before it are reflected.
    pub(super) position: Position,
    /// Number of the oldest block.
    pub(super) first_block: u64,
    pub(super) blocks: u64,
    /// Sum of the marks of the zones.
    pub(super) sum: u64,
}

impl Meta {
    /// Of an index that holds nothing yet.
    pub(super) fn new(journal_id: u64) -> Self {
        Self {
            schema: SCHEMA,
            journal_id,
            position: Position(0),
            first_block: 0,
            blocks: 0,
            sum: 0,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let numbers = [
            u64::from(self.schema),
            self.journal_id,
            self.position.0,
            self.first_block,
            self.blocks,
            self.sum,
        ];
        numbers.iter().flat_map(|n| n.to_be_bytes()).collect()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (numbers, []) = bytes.as_chunks::<8>() else {
            return None;
        };
        let &[schema, journal_id, position, first_block, blocks, sum] = numbers else {
            return None;
        };
        Some(Self {
            schema: u32::try_from(u64::from_be_bytes(schema)).ok()?,
            journal_id: u64::from_be_bytes(journal_id),
            position: Position(u64::from_be_bytes(position)),
            first_block: u64::from_be_bytes(first_block),
            blocks: u64::from_be_bytes(blocks),
            sum: u64::from_be_bytes(sum),
        })
    }
}

/// A message as it is stored under `key`.
pub(super) fn seal(key: &[u8], message: &impl Message) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(4 + message.encoded_len());
    sealed.extend_from_slice(&[0; 4]);
    // A vector never runs out of room.
    message.encode(&mut sealed).unwrap_or_default();
    close_seal(key, sealed)
}

/// A message as it is stored under `key`, packed (LZ4).
pub(super) fn seal_packed(key: &[u8], message: &impl Message) -> Vec<u8> {
    seal_bytes(
        key,
        &lz4_flex::compress_prepend_size(&message.encode_to_vec()),
    )
}

/// The message that was stored packed under `key`.
pub(super) fn open_packed<M: Message + Default>(
    key: &[u8],
    sealed: &[u8],
) -> Result<M, StoreError> {
    let damaged =
        |e: &dyn std::fmt::Display| StoreError::Damaged(format!("a block cannot be unpacked: {e}"));
    let (size, packed) =
        lz4_flex::block::uncompressed_size(unseal(key, sealed)?).map_err(|e| damaged(&e))?;
    if size > PACKED_BYTES_MAX {
        return Err(damaged(&"it claims to be too large"));
    }
    let value = lz4_flex::decompress(packed, size).map_err(|e| damaged(&e))?;
    M::decode(bytes::Bytes::from(value)).map_err(|e| damaged(&e))
}

/// Bytes as they are stored under `key`.
pub(super) fn seal_bytes(key: &[u8], value: &[u8]) -> Vec<u8> {
    close_seal(key, [&[0; 4], value].concat())
}

fn close_seal(key: &[u8], mut sealed: Vec<u8>) -> Vec<u8> {
    if let Some((crc, value)) = sealed.split_first_chunk_mut() {
        *crc = seal_crc(key, value).to_be_bytes();
    }
    sealed
}

/// The value that was stored under `key`.
pub(super) fn unseal<'v>(key: &[u8], sealed: &'v [u8]) -> Result<&'v [u8], StoreError> {
    sealed
        .split_first_chunk()
        .filter(|(crc, value)| u32::from_be_bytes(**crc) == seal_crc(key, value))
        .map(|(_, value)| value)
        .ok_or_else(|| StoreError::Damaged("a value has a wrong checksum".into()))
}

/// The checksum that a sealed value begins with.
pub(super) fn crc_of(sealed: &[u8]) -> u32 {
    sealed
        .first_chunk()
        .map_or(0, |crc| u32::from_be_bytes(*crc))
}

/// The message that was stored under `key`.
pub(super) fn open<M: Message + Default>(key: &[u8], sealed: &[u8]) -> Result<M, StoreError> {
    let value = bytes::Bytes::copy_from_slice(unseal(key, sealed)?);
    M::decode(value).map_err(|e| StoreError::Damaged(format!("a value cannot be decoded: {e}")))
}

fn seal_crc(key: &[u8], value: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), value)
}

/// What one zone adds to the sum: 64 bits that depend on all of it.
pub(super) fn mark(key: &[u8], sealed: &[u8]) -> u64 {
    let key_crc = crc32c::crc32c(key);
    let both = u64::from(crc32c::crc32c_append(key_crc, sealed)) << 32;
    let mixed = both | u64::from(crc32c::crc32c(sealed).rotate_left(7) ^ key_crc);
    // Odd multiplier: what differs before differs after, in the high bits too.
    mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use procwarden_proto::v1;

    use super::*;

    #[test]
    fn a_value_belongs_to_its_key_and_to_no_other_bytes() {
        let sealed = seal_bytes(b"key", b"value");
        assert_eq!(unseal(b"key", &sealed), Ok(b"value".as_slice()));
        assert!(unseal(b"kex", &sealed).is_err());
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert!(unseal(b"key", &bad).is_err(), "byte {at}");
        }
        assert!(unseal(b"key", &[]).is_err());
        let message = v1::BlockEnd {
            position: 5,
            ..v1::BlockEnd::default()
        };
        assert_eq!(open(b"key", &seal(b"key", &message)), Ok(message));
    }

    #[test]
    fn a_packed_message_comes_back_and_a_claim_that_is_too_large_takes_no_memory() {
        let message = v1::BlockEnds {
            ends: vec![v1::BlockEnd::default(); 1000],
        };
        let sealed = seal_packed(b"key", &message);
        assert!(sealed.len() < message.encoded_len());
        assert_eq!(open_packed(b"key", &sealed), Ok(message));
        let huge = seal_bytes(b"key", &u32::MAX.to_le_bytes());
        for bad in [huge, seal_bytes(b"key", &[1, 0]), seal_bytes(b"key", b"")] {
            assert!(open_packed::<v1::BlockEnds>(b"key", &bad).is_err());
        }
    }

    #[test]
    fn what_is_said_about_the_whole_reads_back() {
        let meta = Meta {
            position: Position(9),
            first_block: 3,
            blocks: 2,
            sum: u64::MAX,
            ..Meta::new(7)
        };
        assert_eq!(Meta::decode(&meta.encode()), Some(meta));
        assert_eq!(Meta::decode(&meta.encode()[1..]), None);
        assert_eq!(Meta::decode(&[]), None);
    }

    #[test]
    fn marks_tell_entries_apart() {
        let marks = [
            mark(b"a", b"b"),
            mark(b"b", b"a"),
            mark(b"ab", b""),
            mark(b"", b"ab"),
        ];
        let distinct: std::collections::BTreeSet<_> = marks.into_iter().collect();
        assert_eq!(distinct.len(), marks.len());
    }
}
