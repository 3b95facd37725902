//! Between messages and domain types. What is out of bounds is rejected here,
//! so the rest of the program never meets it.
//!
//! Promises: a domain value that keeps the bounds of [`crate::limits`] comes
//! back from its message unchanged. Never repairs or cuts: a message is taken
//! whole or refused with the field and the reason.

use std::time::Duration;

use bytes::Bytes;
use procwarden_proto::v1;

use crate::finding::{Ended, Finding};

mod evidence;
mod finding;
mod host;
mod policy;
mod storage;
#[cfg(test)]
mod tests;

pub use finding::{severity_from_wire, severity_to_wire, subject_from_wire, subject_to_wire};
pub use policy::{is_name, policy_hash};
pub use storage::{state_from_wire, state_to_wire};

/// Between two heartbeats of an agent. A host counts as silent after fifteen
/// of them; what an operator waits for (a policy that was applied) is told at
/// once.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(20);

/// A message that breaks a bound or lacks a part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid message: {field} {reason}")]
pub struct InvalidMessage {
    /// Which field.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

impl InvalidMessage {
    /// Names the field and what is wrong with it.
    pub fn new(field: &'static str, reason: impl ToString) -> Self {
        Self {
            field,
            reason: reason.to_string(),
        }
    }

    fn missing(field: &'static str) -> Self {
        Self::new(field, "is missing")
    }
}

/// What an agent reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A finding, new or grown.
    Reported(Box<Finding>),
    /// Its end.
    Ended(Ended),
}

/// The event of the stream that carries a change.
#[must_use]
pub fn event_to_wire(sequence: u64, change: &Change) -> v1::Event {
    let event = match change {
        Change::Reported(finding) => v1::event::Event::Finding(Box::new(finding.as_ref().into())),
        Change::Ended(ended) => v1::event::Event::Ended(Box::new(ended.into())),
    };
    v1::Event {
        sequence,
        event: Some(event),
    }
}

/// The sequence number and the change that an event carries.
///
/// # Errors
/// When the event is empty or its content is out of bounds.
pub fn event_from_wire(message: v1::Event) -> Result<(u64, Change), InvalidMessage> {
    let change = match message.event {
        Some(v1::event::Event::Finding(finding)) => {
            Change::Reported(Box::new((*finding).try_into()?))
        }
        Some(v1::event::Event::Ended(ended)) => Change::Ended((*ended).try_into()?),
        None => return Err(InvalidMessage::missing("event")),
    };
    Ok((message.sequence, change))
}

fn bounded_size(field: &'static str, bytes: usize, bytes_max: usize) -> Result<(), InvalidMessage> {
    if bytes > bytes_max {
        return Err(InvalidMessage::new(
            field,
            format!("has {bytes} bytes, more than {bytes_max}"),
        ));
    }
    Ok(())
}

fn bounded_count(field: &'static str, count: usize, max: usize) -> Result<(), InvalidMessage> {
    if count > max {
        return Err(InvalidMessage::new(
            field,
            format!("has {count} entries, more than {max}"),
        ));
    }
    Ok(())
}

fn bounded_bytes(
    field: &'static str,
    bytes: Bytes,
    bytes_max: usize,
) -> Result<Vec<u8>, InvalidMessage> {
    bounded_size(field, bytes.len(), bytes_max)?;
    Ok(bytes.into())
}

fn bounded_list(
    field: &'static str,
    list: Vec<Bytes>,
    max: usize,
    bytes_max: usize,
) -> Result<Vec<Vec<u8>>, InvalidMessage> {
    bounded_count(field, list.len(), max)?;
    list.into_iter()
        .map(|bytes| bounded_bytes(field, bytes, bytes_max))
        .collect()
}

fn to_bytes(raw: &[u8]) -> Bytes {
    Bytes::copy_from_slice(raw)
}
