//! The bytes of one record. Pure.
//!
//! ```text
//! length u32 | kind u32 | CRC of the payload u32 | CRC of the header u32 | payload
//! ```
//!
//! Little-endian. The header's own checksum covers the journal's salt, the
//! record's position and the three fields before it. With it, the length can be
//! trusted even where the payload is damaged, and looking for the next record
//! behind damage costs a few bytes per place instead of a payload each.

use super::RECORD_BYTES_MAX;

/// Bytes in front of the payload.
pub(super) const HEADER_BYTES: usize = 16;

/// A payload stored as it is. Other kinds are for later versions.
const KIND_PLAIN: u32 = 1;

/// The trusted header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordHeader {
    /// Length of the payload.
    pub(super) length: usize,
    payload_crc: u32,
}

impl RecordHeader {
    /// Bytes that header and payload take.
    pub(super) fn record_bytes(&self) -> u64 {
        (HEADER_BYTES + self.length) as u64
    }

    /// Whether this is the payload that was written.
    pub(super) fn covers(&self, payload: &[u8]) -> bool {
        payload.len() == self.length && crc32c::crc32c(payload) == self.payload_crc
    }
}

/// Appends a record for `position` to `out`.
pub(super) fn encode(salt: u64, position: u64, payload: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let start = out.len();
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&KIND_PLAIN.to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    let crc = header_crc(salt, position, out.get(start..).unwrap_or_default());
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(payload);
}

/// The header in the first bytes of `bytes`, if a record was written for this
/// very position.
pub(super) fn parse_header(salt: u64, position: u64, bytes: &[u8]) -> Option<RecordHeader> {
    let (fields, rest) = bytes.split_at_checked(12)?;
    let length = usize::try_from(u32_at(fields, 0)?).ok()?;
    // Cheap checks first: most places that are tried behind damage end here.
    if length == 0 || length > RECORD_BYTES_MAX || u32_at(fields, 4)? != KIND_PLAIN {
        return None;
    }
    let payload_crc = u32_at(fields, 8)?;
    (u32_at(rest, 0)? == header_crc(salt, position, fields)).then_some(RecordHeader {
        length,
        payload_crc,
    })
}

fn header_crc(salt: u64, position: u64, fields: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&salt.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &position.to_le_bytes());
    crc32c::crc32c_append(crc, fields)
}

/// The little-endian number at an offset.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The little-endian number at an offset.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_valid_at_its_own_position_and_under_its_own_salt_only() {
        let mut bytes = Vec::new();
        encode(7, 100, b"payload", &mut bytes);
        let header = parse_header(7, 100, &bytes).expect("valid");
        assert!(header.covers(&bytes[HEADER_BYTES..]));
        assert_eq!(header.record_bytes(), bytes.len() as u64);
        assert_eq!(parse_header(7, 101, &bytes), None);
        assert_eq!(parse_header(8, 100, &bytes), None);
    }

    #[test]
    fn no_flipped_bit_goes_unnoticed() {
        let mut bytes = Vec::new();
        encode(7, 0, b"some payload", &mut bytes);
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let valid = parse_header(7, 0, &bad).is_some_and(|h| h.covers(&bad[HEADER_BYTES..]));
            assert!(!valid, "bit {bit}");
        }
    }

    #[test]
    fn zeros_and_short_pieces_are_no_header() {
        assert_eq!(parse_header(0, 0, &[0; 64]), None);
        for length in 0..HEADER_BYTES {
            assert_eq!(parse_header(0, 0, &vec![1; length]), None);
        }
    }
}
