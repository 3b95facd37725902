//! Records of the spool as bytes. Pure: takes and returns bytes.
//!
//! A record is `length: u32 LE | crc: u32 LE | payload`. The CRC-32C covers a
//! salt, the length and the payload, so a damaged length is as visible as a
//! damaged payload. The payload is an encoded `v1::Event`; it is never empty.
//! The salt is random per segment and kept in the segment's name: payloads
//! carry what hostile processes wrote, and none of them can place bytes that
//! pass for a record when its own record is damaged.
//!
//! Promises: [`scan`] finds every whole record, whatever lies between them,
//! and never returns bytes whose checksum does not fit.

/// What the checksums of one segment begin with.
pub(crate) type Salt = u64;

/// Bytes before the payload.
pub(crate) const HEADER_BYTES: usize = 8;

/// Longest payload. What is longer was not written by this program.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;

/// Appends the record of a payload.
pub(crate) fn encode(salt: Salt, payload: &[u8], out: &mut Vec<u8>) {
    debug_assert!(!payload.is_empty() && payload.len() <= PAYLOAD_BYTES_MAX);
    let length = u32::try_from(payload.len())
        .unwrap_or(u32::MAX)
        .to_le_bytes();
    out.extend_from_slice(&length);
    out.extend_from_slice(&checksum(salt, length, payload).to_le_bytes());
    out.extend_from_slice(payload);
}

/// The payload of the record at the beginning of `bytes`, if a whole,
/// undamaged one is there.
pub(crate) fn decode(salt: Salt, bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let payload_bytes = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    if payload_bytes == 0 || payload_bytes > PAYLOAD_BYTES_MAX {
        return None;
    }
    let payload = rest.get(..payload_bytes)?;
    (checksum(salt, *length, payload) == u32::from_le_bytes(*crc)).then_some(payload)
}

/// One thing that [`scan`] met.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Met<'a> {
    /// A whole record, at this offset.
    Record(usize, &'a [u8]),
    /// Bytes that are no record, followed by a record.
    Damage(std::ops::Range<usize>),
    /// Bytes at the end that are no record.
    Torn(std::ops::Range<usize>),
}

/// Walks over the records in `bytes`. Behind damage it looks for the next record byte by byte: one bad record costs only itself.
pub(crate) fn scan(salt: Salt, bytes: &[u8]) -> Vec<Met<'_>> {
    let is_record = |at: usize| bytes.get(at..).and_then(|b| decode(salt, b));
    let mut met = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if let Some(payload) = is_record(at) {
            met.push(Met::Record(at, payload));
            at += HEADER_BYTES + payload.len();
            continue;
        }
        let next = (at + 1..bytes.len()).find(|&o| is_record(o).is_some());
        match next {
            Some(next) => met.push(Met::Damage(at..next)),
            None => met.push(Met::Torn(at..bytes.len())),
        }
        at = next.unwrap_or(bytes.len());
    }
    met
}

fn checksum(salt: Salt, length: [u8; 4], payload: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), &length);
    crc32c::crc32c_append(crc, payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SALT: Salt = 0x1122_3344_5566_7788;

    fn encoded(payloads: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for payload in payloads {
            encode(SALT, payload, &mut out);
        }
        out
    }

    fn records(bytes: &[u8]) -> Vec<Vec<u8>> {
        scan(SALT, bytes)
            .into_iter()
            .filter_map(|m| {
                if let Met::Record(_, p) = m {
                    Some(p.to_vec())
                } else {
                    None
                }
            })
            .collect()
    }

    fn payloads() -> impl Strategy<Value = Vec<Vec<u8>>> {
        proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..60), 1..8)
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(payloads in payloads()) {
            prop_assert_eq!(records(&encoded(&payloads)), payloads);
        }

        #[test]
        fn a_cut_costs_the_cut_record_only(payloads in payloads(), cut in any::<prop::sample::Index>()) {
            let mut bytes = encoded(&payloads);
            let cut = cut.index(bytes.len());
            bytes.truncate(cut);
            let mut whole = 0;
            let mut end = 0;
            for payload in &payloads {
                end += HEADER_BYTES + payload.len();
                whole += usize::from(end <= cut);
            }
            prop_assert_eq!(records(&bytes), &payloads[..whole]);
        }

        #[test]
        fn a_flipped_bit_costs_the_flipped_record_only(
            payloads in payloads(), at in any::<prop::sample::Index>(), bit in 0u8..8
        ) {
            let mut bytes = encoded(&payloads);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let mut end = 0;
            let hit = payloads.iter().position(|p| { end += HEADER_BYTES + p.len(); at < end }).unwrap();
            let mut expected = payloads.clone();
            expected.remove(hit);
            prop_assert_eq!(records(&bytes), expected);
        }

        #[test]
        fn garbage_is_never_a_record(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            // A random CRC-32 hit in this many tries is next to impossible.
            prop_assert!(records(&bytes).is_empty());
        }
    }

    #[test]
    fn a_record_inside_a_damaged_payload_is_not_taken_for_one() {
        let mut forged = Vec::new();
        encode(SALT + 1, b"forged", &mut forged);
        let mut bytes = encoded(&[forged, b"after".to_vec()]);
        bytes[4] ^= 1;
        assert_eq!(records(&bytes), [b"after".to_vec()]);
    }

    #[test]
    fn zeroes_are_torn_not_records() {
        assert_eq!(scan(SALT, &[0; 64]), [Met::Torn(0..64)]);
    }
}
