//! Small files of the state directory: written whole or not at all.
//!
//! Promises: after [`replace`] returned, the new content survives a power
//! loss; before it returned, a reader sees the old content or the new one,
//! never a part. Files are readable by their owner only. Never follows a
//! symbolic link that lies where the temporary file goes (O_EXCL).

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Something could not be done with a file or directory.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}: {error}")]
pub(crate) struct FileError {
    action: &'static str,
    path: String,
    #[source]
    error: io::Error,
}

impl FileError {
    pub(crate) fn new(action: &'static str, path: &Path, error: io::Error) -> Self {
        Self {
            action,
            path: path.display().to_string(),
            error,
        }
    }
}

impl FileError {
    /// Nothing is wrong with the file: the host has no descriptor or memory to
    /// spare at this moment.
    pub(crate) fn is_passing(&self) -> bool {
        let Some(errno) = rustix::io::Errno::from_io_error(&self.error) else {
            return false;
        };
        use rustix::io::Errno;
        matches!(
            errno,
            Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN
        )
    }
}

/// Puts `content` in the place of the file `path` (mode 0600).
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let temporary = temporary_of(path);
    write_new(&temporary, content)?;
    fs::rename(&temporary, path).map_err(|e| FileError::new("replace", path, e))?;
    sync_dir(parent_of(path))
}

/// As [`replace`], but without waiting for the disk: for content that is only
/// shown, and worth nothing after a power loss.
pub(crate) fn replace_quickly(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let temporary = temporary_of(path);
    let mut file = create_new(&temporary)?;
    file.write_all(content)
        .map_err(|e| FileError::new("write", &temporary, e))?;
    fs::rename(&temporary, path).map_err(|e| FileError::new("replace", path, e))
}

/// Writes a file that does not exist yet, and waits for the disk.
pub(crate) fn write_new(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let mut file = create_new(path)?;
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .map_err(|e| FileError::new("write", path, e))
}

/// The content of a file; nothing when there is no such file.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(FileError::new("read", path, e)),
    }
}

/// The content of a file that tells its own damage: `magic | body | crc32c`.
pub(crate) fn seal(magic: &[u8], body: &[u8]) -> Vec<u8> {
    let mut content = [magic, body].concat();
    content.extend_from_slice(&crc32c::crc32c(&content).to_le_bytes());
    content
}

/// The body of such a content; nothing when it is damaged or of another kind.
pub(crate) fn unseal<'a>(magic: &[u8], content: &'a [u8]) -> Option<&'a [u8]> {
    let (sealed, crc) = content.split_last_chunk::<4>()?;
    if crc32c::crc32c(sealed) != u32::from_le_bytes(*crc) {
        return None;
    }
    sealed.strip_prefix(magic)
}

/// Makes a directory (mode 0700) with its parents; one that exists is kept.
/// What was made survives a power loss: a file is no safer than the names of
/// the directories above it.
pub(crate) fn make_dir(path: &Path) -> Result<(), FileError> {
    let missing = path.ancestors().take_while(|dir| !is_there(dir));
    let missing: Vec<&Path> = missing.collect();
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| FileError::new("create the directory", path, e))?;
    missing
        .into_iter()
        .rev()
        .map(parent_of)
        .try_for_each(sync_dir)
}

/// The empty path above a relative one is the working directory.
fn is_there(dir: &Path) -> bool {
    dir.as_os_str().is_empty() || dir.exists()
}

/// Waits until the names in a directory are on the disk.
pub(crate) fn sync_dir(path: &Path) -> Result<(), FileError> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(|e| FileError::new("write the directory", path, e))
}

/// The directory that holds `path`.
pub(crate) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A left-over of an interrupted write is removed first: its owner is gone,
/// because the state directory has one user at a time (see `lock.rs`).
fn create_new(path: &Path) -> Result<File, FileError> {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(FileError::new("remove", path, e)),
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|e| FileError::new("create", path, e))
}

fn temporary_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_file_is_replaced_whole_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(read_if_there(&path).unwrap().unwrap(), b"two");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_left_over_and_a_planted_link_do_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "mine").unwrap();
        std::os::unix::fs::symlink(&victim, dir.path().join("x.new")).unwrap();
        replace(&dir.path().join("x"), b"new").unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"mine");
    }

    #[test]
    fn a_host_without_descriptors_is_told_from_a_bad_disk() {
        use rustix::io::Errno;
        let is_passing =
            |errno: Errno| FileError::new("read", Path::new("x"), errno.into()).is_passing();
        assert!(is_passing(Errno::MFILE) && is_passing(Errno::NFILE));
        assert!(!is_passing(Errno::IO) && !is_passing(Errno::NOENT));
    }

    #[test]
    fn a_directory_is_made_with_its_parents_and_kept_if_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/c");
        make_dir(&path).unwrap();
        fs::write(path.join("x"), "x").unwrap();
        make_dir(&path).unwrap();
        assert!(path.join("x").exists());
        for made in [&path, path.parent().unwrap()] {
            let mode = fs::metadata(made).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700);
        }
        assert!(make_dir(&path.join("x/y")).is_err());
    }

    #[test]
    fn a_missing_file_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read_if_there(&dir.path().join("x")).unwrap().is_none());
    }
}
