//! The spool's small file: the newest ack and the count of drops.
//!
//! `PWSPOOL1 | acked: u64 LE | dropped: u64 LE | crc: u32 LE`, replaced whole.
//! Promises: a lost or damaged file costs a second delivery (which the
//! collector recognises) and the count, never an event.

use std::path::Path;

use crate::files::{self, FileError};

const NAME: &str = "state";
const MAGIC: &[u8; 8] = b"PWSPOOL1";
const BYTES: usize = 28;

/// What the file holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Every event up to this one is durable on the collector.
    pub(crate) acked: u64,
    /// Events dropped because the spool was full, ever.
    pub(crate) dropped: u64,
}

impl State {
    /// Reads the file; nothing when it is damaged.
    pub(crate) fn load(dir: &Path) -> Result<Option<Self>, FileError> {
        let content = files::read_if_there(&dir.join(NAME))?;
        Ok(content.map_or(Some(Self::default()), |content| Self::decode(&content)))
    }

    /// Writes the file and waits for the disk.
    pub(crate) fn save(&self, dir: &Path) -> Result<(), FileError> {
        files::replace(&dir.join(NAME), &self.encode())
    }

    fn encode(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.acked.to_le_bytes());
        out.extend_from_slice(&self.dropped.to_le_bytes());
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        let (acked, dropped) = body.strip_prefix(MAGIC)?.split_first_chunk::<8>()?;
        let dropped: &[u8; 8] = dropped.try_into().ok()?;
        (crc32c::crc32c(body) == u32::from_le_bytes(*crc)).then(|| Self {
            acked: u64::from_le_bytes(*acked),
            dropped: u64::from_le_bytes(*dropped),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_state_is_told_from_a_missing_one() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(State::load(dir.path()).unwrap(), Some(State::default()));
        let state = State {
            acked: 7,
            dropped: 9,
        };
        state.save(dir.path()).unwrap();
        assert_eq!(State::load(dir.path()).unwrap(), Some(state));
        for at in 0..BYTES {
            let mut bytes = state.encode();
            bytes[at] ^= 4;
            assert_eq!(State::decode(&bytes), None, "byte {at}");
        }
        assert_eq!(State::decode(&state.encode()[..BYTES - 1]), None);
    }
}
