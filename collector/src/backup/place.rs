//! Where a copy goes: a directory of its own, readable by nobody else, with a
//! manifest that is written last.
//!
//! Promises: writes only below its directory, whatever names it is given, and
//! overwrites nothing; when `finish` returned, everything is on the disk.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

use super::Format;

/// Says what a complete copy consists of.
pub(super) const MANIFEST: &str = "manifest.json";

/// Version of the manifest and of what it describes.
pub(super) const VERSION: u32 = 1;

/// Bytes gathered before they are written.
const BUFFER_BYTES: usize = 256 * 1024;

/// What a copy consists of.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) version: u32,
    pub(super) format: String,
    pub(super) collector_version: String,
    pub(super) made_at: String,
    pub(super) files: Vec<CopiedFile>,
}

/// One file of a copy.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct CopiedFile {
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) crc32c: u32,
}

/// A directory that is being filled.
pub(crate) struct Place {
    directory: PathBuf,
    format: Format,
    files: Vec<CopiedFile>,
    current: Option<BufWriter<File>>,
}

impl Place {
    /// Makes the directory.
    ///
    /// # Errors
    /// When it cannot be made, or holds anything.
    pub(crate) fn create(directory: &Path, format: Format) -> anyhow::Result<Self> {
        make_empty(directory)?;
        Ok(Self {
            directory: directory.to_owned(),
            format,
            files: Vec::new(),
            current: None,
        })
    }

    /// Adds to a file; another name than the last one begins a new file.
    ///
    /// # Errors
    /// When the name is no name of a copy, comes a second time, or the disk
    /// refuses.
    pub(crate) fn add(&mut self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        if self.files.last().is_none_or(|file| file.name != name) {
            self.close()?;
            self.begin(name)?;
        }
        let (Some(file), Some(entry)) = (&mut self.current, self.files.last_mut()) else {
            bail!("no file is open for {name}");
        };
        file.write_all(bytes)
            .with_context(|| format!("cannot write {name}"))?;
        entry.bytes += bytes.len() as u64;
        entry.crc32c = crc32c::crc32c_append(entry.crc32c, bytes);
        Ok(())
    }

    fn begin(&mut self, name: &str) -> anyhow::Result<()> {
        ensure!(is_name(name), "{name:?} is no file of a copy");
        let path = self.directory.join(name);
        if let Some(parent) = path.parent() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(parent);
            made.with_context(|| format!("cannot make {}", parent.display()))?;
        }
        self.current = Some(BufWriter::with_capacity(BUFFER_BYTES, create_new(&path)?));
        self.files.push(CopiedFile {
            name: name.to_owned(),
            bytes: 0,
            crc32c: 0,
        });
        Ok(())
    }

    fn close(&mut self) -> anyhow::Result<()> {
        let Some(file) = self.current.take() else {
            return Ok(());
        };
        let file = file.into_inner().map_err(|error| error.into_error());
        let synced = file.and_then(|file| file.sync_all());
        synced.context("cannot finish a file of the copy")
    }

    /// Makes everything durable and writes the manifest. Returns how many
    /// files and bytes there are.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) fn finish(mut self, made_at: String) -> anyhow::Result<(usize, u64)> {
        self.close()?;
        let bytes = self.files.iter().map(|file| file.bytes).sum();
        let files = self.files.len();
        let mut parents: Vec<PathBuf> = self
            .files
            .iter()
            .filter_map(|file| Some(self.directory.join(&file.name).parent()?.to_owned()))
            .collect();
        parents.dedup();
        parents.iter().try_for_each(|parent| sync_dir(parent))?;
        let manifest = Manifest {
            version: VERSION,
            format: self.format.word().to_owned(),
            collector_version: env!("CARGO_PKG_VERSION").to_owned(),
            made_at,
            files: self.files,
        };
        let mut file = create_new(&self.directory.join(MANIFEST))?;
        let mut text = serde_json::to_vec_pretty(&manifest)?;
        text.push(b'\n');
        file.write_all(&text).and_then(|()| file.sync_all())?;
        sync_dir(&self.directory)?;
        Ok((files, bytes))
    }
}

/// One or two plain words with a slash between them.
pub(super) fn is_name(name: &str) -> bool {
    let is_word = |word: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        !word.is_empty() && !word.starts_with('.') && word.chars().all(fits)
    };
    name != MANIFEST && name.split('/').count() <= 2 && name.split('/').all(is_word)
}

/// A directory that is there and empty.
pub(super) fn make_empty(directory: &Path) -> anyhow::Result<()> {
    let shown = directory.display();
    let made = DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory);
    made.with_context(|| format!("cannot make the directory {shown}"))?;
    let mut entries =
        std::fs::read_dir(directory).with_context(|| format!("cannot read {shown}"))?;
    ensure!(
        entries.next().is_none(),
        "{shown} is not empty: name a new directory, nothing is overwritten"
    );
    Ok(())
}

pub(super) fn create_new(path: &Path) -> anyhow::Result<File> {
    let mut options = OpenOptions::new();
    let made = options.write(true).create_new(true).mode(0o600).open(path);
    made.with_context(|| format!("cannot make {}", path.display()))
}

pub(super) fn sync_dir(directory: &Path) -> anyhow::Result<()> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.with_context(|| format!("cannot sync {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for good in ["findings.jsonl", "ledger/0000000000000000.seg", "ca/ca.pem"] {
            assert!(is_name(good), "{good}");
        }
        for bad in [
            "",
            "/",
            "/etc/passwd",
            "../x",
            "a/../b",
            "a/b/c",
            ".hidden",
            "a/",
            "a b",
            "a\nb",
            MANIFEST,
        ] {
            assert!(!is_name(bad), "{bad:?}");
        }
        let directory = tempfile::tempdir().unwrap();
        let mut place = Place::create(directory.path(), Format::Native).unwrap();
        assert!(place.add("../escaped", b"x").is_err());
        assert!(!directory.path().parent().unwrap().join("escaped").exists());
    }

    #[test]
    fn nothing_is_overwritten_and_a_name_comes_once() {
        let directory = tempfile::tempdir().unwrap();
        let mut place = Place::create(directory.path(), Format::Jsonl).unwrap();
        place.add("a.jsonl", b"1").unwrap();
        place.add("a.jsonl", b"2").unwrap();
        place.add("b.jsonl", b"").unwrap();
        assert!(place.add("a.jsonl", b"3").is_err());
        assert!(Place::create(directory.path(), Format::Jsonl).is_err());
        assert_eq!(
            std::fs::read(directory.path().join("a.jsonl")).unwrap(),
            b"12"
        );
    }
}
