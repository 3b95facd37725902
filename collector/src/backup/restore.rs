//! Puts a native copy into an empty data directory.
//!
//! Promises: nothing that exists is overwritten; every byte is compared with
//! the manifest before the collector can start on it: the authority's files,
//! without which it does not start, are moved in last.

use std::fs::DirBuilder;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use anyhow::{Context, bail, ensure};

use super::place::{MANIFEST, Manifest, VERSION, create_new, is_name, make_empty, sync_dir};

/// Where the authority's files are, and the one that may be missing.
const AUTHORITY: &str = "ca";
const KEY: &str = "ca/ca.key";

/// A copy's own file that is no part of a data directory.
const CONFIGURATION: &str = "collector.toml";

/// Directories of a data directory.
const DIRECTORIES: [&str; 3] = ["ledger", "findings", AUTHORITY];

/// What is left to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Restored {
    pub(crate) files: usize,
    /// The copy was made without the authority's private key.
    pub(crate) lacks_key: bool,
}

/// Restores a copy.
///
/// # Errors
/// When the copy is not complete, not as its manifest says or of another kind,
/// or when the directory holds anything.
pub(crate) fn restore(from: &Path, data_dir: &Path) -> anyhow::Result<Restored> {
    let manifest = read_manifest(from)?;
    make_empty(data_dir)?;
    for directory in DIRECTORIES {
        let path = data_dir.join(directory);
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.with_context(|| format!("cannot make {}", path.display()))?;
    }
    let mut files: Vec<_> = manifest
        .files
        .iter()
        .filter(|file| file.name != CONFIGURATION)
        .collect();
    files.sort_by_key(|file| file.name.starts_with(AUTHORITY));
    for file in &files {
        ensure!(is_name(&file.name), "{:?} is no file of a copy", file.name);
        let path = from.join(&file.name);
        let bytes =
            std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let is_same = bytes.len() as u64 == file.bytes && crc32c::crc32c(&bytes) == file.crc32c;
        ensure!(
            is_same,
            "{} is not what was copied: the backup is damaged, use another one and empty {}",
            path.display(),
            data_dir.display()
        );
        let target = data_dir.join(&file.name);
        let mut out = create_new(&target)?;
        out.write_all(&bytes)
            .and_then(|()| out.sync_all())
            .with_context(|| format!("cannot write {}", target.display()))?;
    }
    for directory in DIRECTORIES {
        sync_dir(&data_dir.join(directory))?;
    }
    sync_dir(data_dir)?;
    Ok(Restored {
        files: files.len(),
        lacks_key: !files.iter().any(|file| file.name == KEY),
    })
}

fn read_manifest(from: &Path) -> anyhow::Result<Manifest> {
    let path = from.join(MANIFEST);
    let text = std::fs::read(&path).with_context(|| {
        let shown = path.display();
        format!("cannot read {shown}: without it this is no complete copy")
    })?;
    let manifest: Manifest = serde_json::from_slice(&text)
        .with_context(|| format!("{} is no manifest of a copy", path.display()))?;
    if manifest.version != VERSION {
        let version = manifest.version;
        bail!("the copy has version {version}, this program reads version {VERSION}");
    }
    ensure!(
        manifest.format == "native",
        "the copy has the format '{}': only native copies can be restored",
        manifest.format
    );
    Ok(manifest)
}
