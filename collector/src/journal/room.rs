//! Room on the disk: reserved before a record is written, so that a full disk
//! is met where nothing has been done yet.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::time::Duration;

use bytes::Bytes;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::{Journal, Position};

/// Room is reserved in pieces of this size: each costs a system call.
const RESERVE_BYTES: u64 = 8 * 1024 * 1024;
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Reserves room behind an offset without changing the length of the file: at
/// least `needed` bytes, more if there is any. Returns how many. A file system
/// that cannot reserve says at the write what it has to say.
pub(super) fn reserve(file: &File, offset: u64, needed: u64) -> io::Result<u64> {
    let mut last = None;
    for bytes in [needed.max(RESERVE_BYTES), needed] {
        match fallocate(file, FallocateFlags::KEEP_SIZE, offset, bytes) {
            Ok(()) => return Ok(bytes),
            Err(Errno::OPNOTSUPP | Errno::NODEV | Errno::SPIPE | Errno::NOSYS) => {
                return Ok(needed);
            }
            Err(error) => last = Some(error),
        }
    }
    last.map_or(Ok(needed), |error| Err(error.into()))
}

/// Gives back what was reserved behind the end of a segment that is closed.
pub(super) fn give_back(file: &File) {
    let cut = file.metadata().and_then(|m| file.set_len(m.len()));
    if let Err(error) = cut {
        tracing::debug!(%error, "Reserved room of a closed segment was not given back.");
    }
}

/// Whether an error says that there is no room, or that nothing may be written,
/// for now.
pub(super) fn may_pass(error: &io::Error) -> bool {
    use ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(
        error.kind(),
        QuotaExceeded | ReadOnlyFilesystem | StorageFull
    )
}

/// Appends, and where there is no room waits until there is: `hold` is told why
/// each time, and says whether to go on waiting.
///
/// # Errors
/// As [`Journal::append_durably`], or when the waiting ended.
pub(crate) fn append_patiently(
    journal: &mut Journal,
    payloads: &[Bytes],
    mut hold: impl FnMut(&mut Journal, &io::Error) -> bool,
) -> io::Result<Vec<Position>> {
    loop {
        match journal.append_durably(payloads) {
            Err(error) if journal.can_wait(&error) && hold(journal, &error) => {
                std::thread::sleep(RETRY_PAUSE);
            }
            appended => return appended,
        }
    }
}
