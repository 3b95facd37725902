//! An agent's spool as its own description has it (`agent/src/spool.rs`):
//! filled without the agent that would have to find so much first, and watched
//! from outside.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use prost::Message as _;

use crate::load::findings;

/// Where an agent begins the next segment with the spool it has by default.
const SEGMENT_BYTES: usize = 4 * 1024 * 1024;

/// The spool of an agent with this state directory.
#[must_use]
pub fn of(state_dir: &Path) -> PathBuf {
    state_dir.join("spool")
}

/// Leaves `events` findings of realistic size in a spool that is empty yet, as
/// an agent would after an outage; sequences begin with 1. Returns their bytes.
///
/// # Errors
/// When the files cannot be written.
pub fn fill(spool: &Path, events: u64) -> anyhow::Result<u64> {
    fs::create_dir_all(spool)?;
    let mut bytes = 0;
    let (mut first, mut records) = (1, Vec::new());
    for sequence in 1..=events {
        let payload = findings::reported(sequence, &findings::finding(0, sequence));
        push_record(first, &payload.encode_to_vec(), &mut records)?;
        if records.len() >= SEGMENT_BYTES || sequence == events {
            // The salt may be any number; here it is the first sequence.
            fs::write(
                spool.join(format!("{first:020}-{first:016x}.pws1")),
                &records,
            )?;
            bytes += records.len() as u64;
            (first, records) = (sequence + 1, Vec::new());
        }
    }
    Ok(bytes)
}

/// `length | CRC-32C of salt, length and payload | payload`.
fn push_record(salt: u64, payload: &[u8], records: &mut Vec<u8>) -> anyhow::Result<()> {
    let length = u32::try_from(payload.len())?.to_le_bytes();
    let head = crc32c::crc32c(&[salt.to_le_bytes().as_slice(), &length].concat());
    records.extend_from_slice(&length);
    records.extend_from_slice(&crc32c::crc32c_append(head, payload).to_le_bytes());
    records.extend_from_slice(payload);
    Ok(())
}

/// The newest event that the collector acknowledged, 0 before the first.
///
/// # Errors
/// When the spool's small file is not what it should be.
pub fn acked(spool: &Path) -> anyhow::Result<u64> {
    let path = spool.join("state");
    if !path.exists() {
        return Ok(0);
    }
    let content = fs::read(&path)?;
    let acked = content
        .strip_prefix(b"PWSPOOL2")
        .and_then(|rest| rest.first_chunk::<8>());
    let acked = acked.with_context(|| format!("{} is of another kind", path.display()))?;
    Ok(u64::from_le_bytes(*acked))
}
