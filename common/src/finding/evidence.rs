//! Parts of the evidence about a process: the file it runs, the container it
//! lives in, what its environment tells. Pure values, within the bounds of
//! [`crate::limits`].

use crate::clock::UnixMillis;
use crate::limits::{CONTAINER_BYTES_MAX, RUNTIME_BYTES_MAX};

/// What identifies the file that a process runs (stat(2) through
/// `/proc/PID/exe`, so of a deleted file too).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExeFile {
    /// Major number of the device.
    pub device_major: u32,
    /// Minor number of the device.
    pub device_minor: u32,
    /// Inode number.
    pub inode: u64,
    /// Owner of the file.
    pub owner_uid: u32,
    /// st_mode: type and rights.
    pub mode: u32,
    /// When the content last changed.
    pub modified_at: UnixMillis,
    /// Its size.
    pub size_bytes: u64,
}

/// A container, as the path of a control group names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    runtime: String,
    id: String,
}

impl Container {
    /// Nothing when a text is empty, too long, or has other characters than
    /// letters, digits, `.`, `_` and `-`: names of control groups are chosen
    /// by whoever may make them.
    #[must_use]
    pub fn new(runtime: &str, id: &str) -> Option<Self> {
        let good = |text: &str, bytes_max: usize| {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
            (1..=bytes_max).contains(&text.len()) && text.bytes().all(allowed)
        };
        (good(runtime, RUNTIME_BYTES_MAX) && good(id, CONTAINER_BYTES_MAX)).then(|| Self {
            runtime: runtime.to_owned(),
            id: id.to_owned(),
        })
    }

    /// What runs it: `docker`, `podman`, `cri`, `lxc`, `systemd-nspawn`, ...
    #[must_use]
    pub fn runtime(&self) -> &str {
        &self.runtime
    }

    /// Its id, or its name where the runtime has only names.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

/// One variable of a process's environment. A process can write whatever it
/// likes there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentEntry {
    /// Its name, of the fixed list of telling ones.
    pub name: String,
    /// Its value, raw.
    pub value: Vec<u8>,
    /// The value was longer than the limit.
    pub value_truncated: bool,
}
