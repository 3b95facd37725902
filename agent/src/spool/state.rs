//! The spool's small file: the newest ack, the count of drops, and how far
//! sequence numbers were given when something was dropped.
//!
//! `PWSPOOL2 | acked: u64 LE | dropped: u64 LE | given: u64 LE | crc: u32 LE`,
//! replaced whole; `PWSPOOL1` of older agents has no `given`.
//! Promises: a lost or damaged file costs a second delivery (which the
//! collector recognises) and the count, never an event.

use std::path::Path;

use crate::files::{self, FileError};

const NAME: &str = "state";
const MAGIC: &[u8; 8] = b"PWSPOOL2";
const MAGIC_WITHOUT_GIVEN: &[u8; 8] = b"PWSPOOL1";

/// What the file holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Every event up to this one is durable on the collector.
    pub(crate) acked: u64,
    /// Events dropped because the spool was full, ever.
    pub(crate) dropped: u64,
    /// Numbers up to this one were given to events when some were dropped: of
    /// one that never reached a segment nothing else is left.
    pub(crate) given: u64,
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
        let numbers = [self.acked, self.dropped, self.given];
        files::seal(MAGIC, &numbers.map(u64::to_le_bytes).concat())
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let body =
            files::unseal(MAGIC, bytes).or_else(|| files::unseal(MAGIC_WITHOUT_GIVEN, bytes))?;
        let (acked, rest) = body.split_first_chunk::<8>()?;
        let (dropped, given) = rest.split_first_chunk::<8>()?;
        let given = match given {
            [] => 0,
            given => u64::from_le_bytes(given.try_into().ok()?),
        };
        Some(Self {
            acked: u64::from_le_bytes(*acked),
            dropped: u64::from_le_bytes(*dropped),
            given,
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
            given: 11,
        };
        state.save(dir.path()).unwrap();
        assert_eq!(State::load(dir.path()).unwrap(), Some(state));
        let whole = state.encode();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 4;
            assert_eq!(State::decode(&bytes), None, "byte {at}");
            assert_eq!(State::decode(&whole[..at]), None, "cut at {at}");
        }
    }

    #[test]
    fn the_state_of_an_older_agent_is_read() {
        let numbers = [7_u64, 9].map(u64::to_le_bytes).concat();
        let old = files::seal(b"PWSPOOL1", &numbers);
        let state = State {
            acked: 7,
            dropped: 9,
            given: 0,
        };
        assert_eq!(State::decode(&old), Some(state));
    }
}
