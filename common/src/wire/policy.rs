//! Policies, as the collector pushes them, and the remarks of their check.

use procwarden_proto::v1;
use prost::Message;
use sha2::{Digest, Sha256};

use super::{InvalidMessage, bounded_bytes, bounded_count, bounded_size, to_bytes};
use crate::diagnostic::{Diagnostic, Level};
use crate::limits;
use crate::policy::{EffectivePolicy, PolicyDocument, PolicyFile};

impl TryFrom<v1::EffectivePolicy> for EffectivePolicy {
    type Error = InvalidMessage;

    fn try_from(message: v1::EffectivePolicy) -> Result<Self, InvalidMessage> {
        bounded_count("documents", message.documents.len(), limits::POLICIES_MAX)?;
        let documents = message.documents.into_iter().map(TryInto::try_into);
        Ok(Self {
            documents: documents.collect::<Result<_, _>>()?,
        })
    }
}

impl From<&EffectivePolicy> for v1::EffectivePolicy {
    fn from(policy: &EffectivePolicy) -> Self {
        Self {
            documents: policy.documents.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::PolicyDocument> for PolicyDocument {
    type Error = InvalidMessage;

    fn try_from(message: v1::PolicyDocument) -> Result<Self, InvalidMessage> {
        if !is_name(&message.name) {
            return Err(InvalidMessage::new("policy.name", "has a wrong form"));
        }
        bounded_count(
            "policy.files",
            message.files.len(),
            limits::POLICY_FILES_MAX,
        )?;
        let files_size = message
            .files
            .iter()
            .map(|file| file.content.len())
            .sum::<usize>();
        bounded_size(
            "policy",
            files_size.saturating_add(message.settings.len()),
            limits::POLICY_BYTES_MAX,
        )?;
        let files = message.files.into_iter().map(TryInto::try_into);
        Ok(Self {
            name: message.name,
            revision: message.revision,
            files: files.collect::<Result<_, _>>()?,
            settings: message.settings,
        })
    }
}

impl From<&PolicyDocument> for v1::PolicyDocument {
    fn from(document: &PolicyDocument) -> Self {
        Self {
            name: document.name.clone(),
            revision: document.revision,
            files: document.files.iter().map(Into::into).collect(),
            settings: document.settings.clone(),
        }
    }
}

impl TryFrom<v1::PolicyFile> for PolicyFile {
    type Error = InvalidMessage;

    fn try_from(message: v1::PolicyFile) -> Result<Self, InvalidMessage> {
        bounded_size(
            "policy.file.path",
            message.path.len(),
            limits::PATH_BYTES_MAX,
        )?;
        let content = bounded_bytes(
            "policy.file.content",
            message.content,
            limits::POLICY_BYTES_MAX,
        )?;
        Ok(Self {
            path: message.path,
            content,
        })
    }
}

impl From<&PolicyFile> for v1::PolicyFile {
    fn from(file: &PolicyFile) -> Self {
        Self {
            path: file.path.clone(),
            content: to_bytes(&file.content),
        }
    }
}

impl From<v1::Diagnostic> for Diagnostic {
    fn from(message: v1::Diagnostic) -> Self {
        Self {
            level: if message.error {
                Level::Error
            } else {
                Level::Warning
            },
            file: message.file,
            line: message.line,
            column: message.column,
            message: message.message,
            help: message.help,
        }
    }
}

impl From<&Diagnostic> for v1::Diagnostic {
    fn from(diagnostic: &Diagnostic) -> Self {
        Self {
            error: diagnostic.level == Level::Error,
            file: diagnostic.file.clone(),
            line: diagnostic.line,
            column: diagnostic.column,
            message: diagnostic.message.clone(),
            help: diagnostic.help.clone(),
        }
    }
}

/// Whether a text can name a policy or a group: 1 to 64 of `a-z 0-9 - _ .`.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let good = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.')
    };
    !text.is_empty() && text.len() <= limits::NAME_BYTES_MAX && text.bytes().all(good)
}

/// SHA-256 of the encoded message: what "applied" and "wanted" compare.
#[must_use]
pub fn policy_hash(policy: &EffectivePolicy) -> [u8; 32] {
    Sha256::digest(v1::EffectivePolicy::from(policy).encode_to_vec()).into()
}
