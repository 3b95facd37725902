//! The load watch on disk: `PWLOAD01 | boot id | since: i64 LE | began: u64 LE
//! | crc: u32 LE`, replaced whole; absent numbers are all ones.
//!
//! Promises: a damaged or missing file costs a repeated finding, nothing else.

use std::path::Path;

use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::Subject;
use procwarden_common::id::BootId;

use super::episode::Episodes;
use crate::files::{self, FileError};

const NAME: &str = "load";
const MAGIC: &[u8; 8] = b"PWLOAD01";
/// Stands for "never" and "none".
const ABSENT: [u8; 8] = [0xff; 8];

/// What is remembered of this boot, and the episode that a reboot ended.
pub(super) fn load(state_dir: &Path, boot_id: BootId) -> (Episodes, Option<Subject>) {
    let bytes = match files::read_if_there(&state_dir.join(NAME)) {
        Ok(bytes) => bytes.unwrap_or_default(),
        Err(error) => {
            tracing::warn!(%error, "The load watch starts anew.");
            Vec::new()
        }
    };
    match decode(&bytes) {
        Some((boot, episodes)) if boot == boot_id => (episodes, None),
        Some((boot_id, episodes)) => {
            let stale = episodes.since.map(|since| Subject::Host { boot_id, since });
            (Episodes::default(), stale)
        }
        None => (Episodes::default(), None),
    }
}

/// Writes it, if it is not what the file holds.
pub(super) fn save(
    state_dir: &Path,
    boot_id: BootId,
    episodes: &Episodes,
) -> Result<(), FileError> {
    let (path, bytes) = (state_dir.join(NAME), encode(boot_id, episodes));
    let held = files::read_if_there(&path)?;
    let is_same = held.as_ref() == Some(&bytes);
    if is_same || (held.is_none() && *episodes == Episodes::default()) {
        return Ok(());
    }
    files::replace(&path, &bytes)
}

fn encode(boot_id: BootId, episodes: &Episodes) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(boot_id.as_bytes());
    let since = episodes.since.map(|since| since.0.to_le_bytes());
    out.extend_from_slice(&since.unwrap_or(ABSENT));
    let began = episodes.began_uptime_millis.map(u64::to_le_bytes);
    out.extend_from_slice(&began.unwrap_or(ABSENT));
    out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
    out
}

fn decode(bytes: &[u8]) -> Option<(BootId, Episodes)> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return None;
    }
    let (boot_id, rest) = body.strip_prefix(MAGIC)?.split_first_chunk::<16>()?;
    let (since, began) = rest.split_first_chunk::<8>()?;
    let began: &[u8; 8] = began.try_into().ok()?;
    let episodes = Episodes {
        since: (*since != ABSENT).then(|| UnixMillis(i64::from_le_bytes(*since))),
        began_uptime_millis: (*began != ABSENT).then(|| u64::from_le_bytes(*began)),
    };
    Some((BootId::from_slice(boot_id).ok()?, episodes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written_and_damage_at_any_byte_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let boot = |n| BootId::from_slice(&[n; 16]).unwrap();
        assert_eq!(load(dir.path(), boot(1)), (Episodes::default(), None));
        let episodes = Episodes {
            since: Some(UnixMillis(77)),
            began_uptime_millis: Some(9),
        };
        save(dir.path(), boot(1), &episodes).unwrap();
        assert_eq!(load(dir.path(), boot(1)), (episodes, None));
        // After a reboot the episode has ended, and none is remembered.
        let stale = Subject::Host {
            boot_id: boot(1),
            since: UnixMillis(77),
        };
        assert_eq!(
            load(dir.path(), boot(2)),
            (Episodes::default(), Some(stale))
        );
        let whole = encode(boot(1), &episodes);
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 2;
            assert_eq!(decode(&bytes), None, "byte {at}");
            assert_eq!(decode(&whole[..at]), None, "cut at {at}");
        }
    }
}
