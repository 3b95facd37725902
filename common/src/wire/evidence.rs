//! Parts of the evidence about a process, as agents send them.

use procwarden_proto::v1;

use super::{InvalidMessage, bounded_bytes, bounded_count, bounded_size, to_bytes};
use crate::clock::UnixMillis;
use crate::finding::{Container, EnvironmentEntry, ExeFile};
use crate::limits;

pub(super) const fn exe_file_from_wire(message: &v1::ExeFile) -> ExeFile {
    ExeFile {
        device_major: message.device_major,
        device_minor: message.device_minor,
        inode: message.inode,
        owner_uid: message.owner_uid,
        mode: message.mode,
        modified_at: UnixMillis(message.modified_at_ms),
        size_bytes: message.size_bytes,
    }
}

pub(super) const fn exe_file_to_wire(file: &ExeFile) -> v1::ExeFile {
    v1::ExeFile {
        device_major: file.device_major,
        device_minor: file.device_minor,
        inode: file.inode,
        owner_uid: file.owner_uid,
        mode: file.mode,
        modified_at_ms: file.modified_at.0,
        size_bytes: file.size_bytes,
    }
}

pub(super) fn container_from_wire(message: &v1::Container) -> Result<Container, InvalidMessage> {
    Container::new(&message.runtime, &message.id).ok_or_else(|| {
        InvalidMessage::new(
            "container",
            "is no runtime and id of letters, digits and ._-",
        )
    })
}

pub(super) fn container_to_wire(container: &Container) -> v1::Container {
    v1::Container {
        runtime: container.runtime().to_owned(),
        id: container.id().to_owned(),
    }
}

pub(super) fn environment_from_wire(
    entries: Vec<v1::EnvironmentEntry>,
) -> Result<Vec<EnvironmentEntry>, InvalidMessage> {
    bounded_count("environment", entries.len(), limits::ENVIRONMENT_MAX)?;
    let entry = |entry: v1::EnvironmentEntry| {
        let name = "environment.name";
        bounded_size(name, entry.name.len(), limits::ENVIRONMENT_NAME_BYTES_MAX)?;
        if entry.name.is_empty() || !entry.name.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(InvalidMessage::new(name, "is not printable ASCII"));
        }
        Ok(EnvironmentEntry {
            name: entry.name,
            value: bounded_bytes(
                "environment.value",
                entry.value,
                limits::ENVIRONMENT_VALUE_BYTES_MAX,
            )?,
            value_truncated: entry.value_truncated,
        })
    };
    entries.into_iter().map(entry).collect()
}

pub(super) fn environment_to_wire(entries: &[EnvironmentEntry]) -> Vec<v1::EnvironmentEntry> {
    let entry = |entry: &EnvironmentEntry| v1::EnvironmentEntry {
        name: entry.name.clone(),
        value: to_bytes(&entry.value),
        value_truncated: entry.value_truncated,
    };
    entries.iter().map(entry).collect()
}
