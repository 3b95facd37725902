//! What an agent says about itself, made fit to keep and to show.
//!
//! Promises: bounded in every part, printable, and copied out of the message,
//! so that a small fact never keeps a large buffer alive. Pure.

use bytes::Bytes;
use procwarden_common::limits::HOST_NAME_BYTES_MAX;
use procwarden_common::printable::printable;
use procwarden_proto::v1;

/// Bytes of a version or of a kernel's name.
pub(crate) const WORD_BYTES_MAX: usize = 256;

const REASON_BYTES_MAX: usize = 4096;
const NOTE_BYTES_MAX: usize = 512;
const NOTES_MAX: usize = 32;
const APPLIED_MAX: usize = 256;
const HASH_BYTES: usize = 32;

/// A host's name in printable form.
///
/// # Errors
/// What is wrong with it, to be read after "the host name".
pub(crate) fn host_name(raw: &str) -> Result<String, &'static str> {
    let raw = raw.trim();
    if raw.is_empty() {
        return Err("is empty");
    }
    // Before the printable form, which may be four times as long.
    if raw.len() > HOST_NAME_BYTES_MAX {
        return Err("is longer than 253 bytes");
    }
    let name = printable(raw.as_bytes());
    if name.len() > HOST_NAME_BYTES_MAX {
        return Err("is longer than 253 bytes in printable form");
    }
    Ok(name)
}

/// Words for people: kept as they are when they are plain ASCII, in printable
/// form otherwise; the end is cut off where they are too long.
pub(crate) fn words(raw: &str, bytes_max: usize) -> String {
    let plain = |b: u8| b == b' ' || b.is_ascii_graphic();
    let head = raw.as_bytes().get(..bytes_max).unwrap_or(raw.as_bytes());
    if head.iter().copied().all(plain) {
        return String::from_utf8_lossy(head).into_owned();
    }
    let mut text = printable(head);
    // The printable form is ASCII: every byte is a boundary.
    text.truncate(bytes_max);
    text
}

/// The policies an agent runs and refused.
pub(crate) fn policy_state(state: v1::PolicyState) -> v1::PolicyState {
    let applied = state
        .applied
        .into_iter()
        .take(APPLIED_MAX)
        .map(|policy| v1::AppliedPolicy {
            name: words(&policy.name, WORD_BYTES_MAX),
            revision: policy.revision,
        });
    v1::PolicyState {
        applied_hash: hash(&state.applied_hash),
        applied: applied.collect(),
        refused_hash: hash(&state.refused_hash),
        refused_reason: words(&state.refused_reason, REASON_BYTES_MAX),
    }
}

/// How an agent is.
pub(crate) fn health(health: v1::AgentHealth) -> v1::AgentHealth {
    let notes = health
        .notes
        .iter()
        .take(NOTES_MAX)
        .map(|note| words(note, NOTE_BYTES_MAX));
    v1::AgentHealth {
        notes: notes.collect(),
        ..health
    }
}

/// A SHA-256, or nothing.
fn hash(bytes: &Bytes) -> Bytes {
    if bytes.len() == HASH_BYTES {
        Bytes::copy_from_slice(bytes)
    } else {
        Bytes::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_printable_and_bounded() {
        assert_eq!(
            host_name(" web1.example.com\n").as_deref(),
            Ok("web1.example.com")
        );
        assert_eq!(
            host_name("a\x1b[2Jb\nc").unwrap(),
            printable(b"a\x1b[2Jb\nc")
        );
        assert_eq!(host_name(" \n"), Err("is empty"));
        assert!(host_name(&"a".repeat(253)).is_ok());
        assert!(host_name(&"a".repeat(254)).is_err());
        assert!(host_name(&"\u{1}".repeat(100)).is_err());
    }

    #[test]
    fn plain_words_stay_and_hostile_ones_become_printable() {
        assert_eq!(words(r#"a "b" c\d"#, 64), r#"a "b" c\d"#);
        assert_eq!(words("abcdef", 3), "abc");
        for hostile in ["a\nb", "\u{1b}]0;x\u{7}", "größe", "a\u{202e}b"] {
            let shown = words(hostile, 64);
            assert!(
                shown.bytes().all(|b| b == b' ' || b.is_ascii_graphic()),
                "{shown}"
            );
        }
        assert!(words(&"\n".repeat(100), 64).len() <= 64);
    }

    #[test]
    fn every_part_of_a_heartbeat_is_bounded() {
        let long = "x".repeat(100_000);
        let applied = v1::AppliedPolicy {
            name: long.clone(),
            revision: 1,
        };
        let state = policy_state(v1::PolicyState {
            applied_hash: Bytes::from(vec![0; 33]),
            applied: vec![applied; 1000],
            refused_hash: Bytes::from(vec![7; 32]),
            refused_reason: long.clone(),
        });
        assert!(state.applied_hash.is_empty());
        assert_eq!(state.refused_hash.len(), 32);
        assert_eq!(state.applied.len(), APPLIED_MAX);
        assert_eq!(state.refused_reason.len(), REASON_BYTES_MAX);
        let health = health(v1::AgentHealth {
            notes: vec![long; 1000],
            scans: 7,
            ..Default::default()
        });
        assert_eq!((health.notes.len(), health.scans), (NOTES_MAX, 7));
        assert!(health.notes.iter().all(|note| note.len() == NOTE_BYTES_MAX));
    }
}
