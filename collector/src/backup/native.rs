//! The native copy: both journals up to what is durable, and what of the
//! authority is no secret.

use std::fs::File;
use std::io::Read;

use anyhow::{Context, bail};

use super::{Sink, Source};

/// Bytes that are read at once.
const PIECE_BYTES: usize = 256 * 1024;

/// The authority's files that everyone may know; the key stays.
const AUTHORITY_FILES: [&str; 2] = ["ca/ca.pem", "ca/fleet.toml"];

pub(super) fn produce(source: &Source, sink: &mut Sink<'_>) -> anyhow::Result<()> {
    // In this order: the ledger says how far the alerts are in the findings.
    let ledger = source.ledger.journal().parts();
    let ledger = ledger.context("cannot read the ledger")?;
    let findings = source.findings.journal().parts();
    let findings = findings.context("cannot read the findings journal")?;
    for (directory, parts) in [("ledger", ledger), ("findings", findings)] {
        for part in parts {
            let name = format!("{directory}/{}", part.name);
            copy(&name, part.file, part.bytes, sink)?;
        }
    }
    for name in AUTHORITY_FILES {
        let path = source.data_dir.join(name);
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {path:?}"))?;
        sink(name, &bytes)?;
    }
    Ok(())
}

fn copy(name: &str, mut file: File, bytes: u64, sink: &mut Sink<'_>) -> anyhow::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut left = bytes;
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES);
        let room = piece.get_mut(..wanted).unwrap_or_default();
        let read = file
            .read(room)
            .with_context(|| format!("cannot read {name}"))?;
        if read == 0 {
            bail!("{name} is {left} bytes shorter than the journal says");
        }
        sink(name, piece.get(..read).unwrap_or_default())?;
        left -= read as u64;
    }
    Ok(())
}
