//! The evidence about a process in the JSON object of a finding.

use serde::Serialize;

use crate::finding::{Container, EnvironmentEntry, ExeFile};
use crate::printable::{printable, printable_text};

/// The file that a process runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExeFileView {
    /// `major:minor`, as in `/proc/self/mountinfo`.
    pub device: String,
    /// Inode number.
    pub inode: u64,
    /// Owner of the file.
    pub owner_uid: u32,
    /// Rights in octal digits, such as `0755`.
    pub mode: String,
    /// When its content last changed.
    pub modified_at: String,
    /// Its size in bytes.
    pub size_bytes: u64,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ContainerView {
    /// What runs it.
    pub runtime: String,
    /// Its id or name.
    pub id: String,
}

/// One variable of the environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EnvironmentView {
    /// Its name.
    pub name: String,
    /// Its value, or the beginning of it.
    pub value: String,
    /// The value was longer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub value_truncated: bool,
}

impl ExeFileView {
    /// In printable form.
    #[must_use]
    pub fn new(file: &ExeFile) -> Self {
        Self {
            device: format!("{}:{}", file.device_major, file.device_minor),
            inode: file.inode,
            owner_uid: file.owner_uid,
            mode: format!("{:04o}", file.mode & 0o7777),
            modified_at: file.modified_at.to_string(),
            size_bytes: file.size_bytes,
        }
    }
}

impl std::fmt::Display for ExeFileView {
    /// In one line, for tables and mails.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "device {} inode {}, owner uid {}, mode {}, {} bytes, modified {}",
            self.device, self.inode, self.owner_uid, self.mode, self.size_bytes, self.modified_at
        )
    }
}

impl ContainerView {
    /// In printable form.
    #[must_use]
    pub fn new(container: &Container) -> Self {
        Self {
            runtime: container.runtime().to_owned(),
            id: container.id().to_owned(),
        }
    }
}

impl std::fmt::Display for ContainerView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.id, self.runtime)
    }
}

impl EnvironmentView {
    /// In printable form.
    #[must_use]
    pub fn new(entry: &EnvironmentEntry) -> Self {
        Self {
            name: printable_text(&entry.name).into_owned(),
            value: printable(&entry.value),
            value_truncated: entry.value_truncated,
        }
    }
}

impl std::fmt::Display for EnvironmentView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cut = if self.value_truncated {
            " [longer]"
        } else {
            ""
        };
        write!(f, "{}={}{cut}", self.name, self.value)
    }
}
