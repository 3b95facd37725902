//! The other floor: the same bytes appended to a file, with an fdatasync per
//! group, by one thread and without a network. No durable store is faster.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::latency::percentiles;
use super::requests::{Requests, kinds};

/// Appends groups of `findings` for a while, in a file of `directory` that is
/// gone afterwards.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn append(
    directory: &Path,
    findings: usize,
    seconds: Duration,
) -> anyhow::Result<Value> {
    let mut file: File = tempfile::tempfile_in(directory)?;
    let requests = Requests::new(0, kinds());
    let (mut written, mut syncs) = (0_u64, Vec::new());
    let begin = Instant::now();
    while begin.elapsed() < seconds {
        file.write_all(&requests.batch(written + 1, findings))?;
        let sync = Instant::now();
        file.sync_data()?;
        syncs.push(sync.elapsed());
        written += findings as u64;
    }
    let elapsed = begin.elapsed().as_secs_f64();
    Ok(json!({
        "findings_per_group": findings,
        "findings_per_sec": (written as f64 / elapsed).round(),
        "fdatasync_ms": percentiles(syncs),
    }))
}
