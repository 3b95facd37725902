//! From a pushed policy to the one that judges: check, keep, swap.
//!
//! `<state_dir>/policy/last-good` holds the newest policy that passed every
//! check: `PWPOLCY1 | SHA-256 of the message | encoded v1::EffectivePolicy`.
//!
//! Promises: a policy judges only after it passed the whole check and is
//! durable; a refused one changes nothing and is told with its reason. With
//! no policy, or a damaged file, nothing is ignored. Never: guesses what a
//! broken policy may have meant.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use procwarden_common::diagnostic::{Diagnostic, Level};
use procwarden_common::policy::{EffectivePolicy, Policy, PolicyDocument};
use procwarden_common::printable::printable_text;
use procwarden_proto::v1;
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::files::{self, FileError};

#[cfg(test)]
mod tests;

const DIR: &str = "policy";
const NAME: &str = "last-good";
const MAGIC: &[u8; 8] = b"PWPOLCY1";

/// Remarks that go into the reason of a refusal.
const REASONS_MAX: usize = 5;
const REASON_BYTES_MAX: usize = 2000;

/// Slow rules that are named, and characters of each.
const SLOW_RULES_MAX: usize = 8;
const SLOW_RULE_CHARS_MAX: usize = 160;

/// Keeps the last good policy, and knows which one was refused.
#[derive(Debug)]
pub(crate) struct PolicyStore {
    path: PathBuf,
    applied: Option<Applied>,
    refused: Option<Refused>,
}

/// Which policy judges.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Applied {
    hash: [u8; 32],
    documents: Vec<v1::AppliedPolicy>,
}

/// The newest policy that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Refused {
    hash: [u8; 32],
    reason: String,
}

/// What came of a push.
#[derive(Debug)]
#[must_use]
pub(crate) enum Pushed {
    /// This one judges from now on.
    Applied(Arc<Policy>),
    /// It is the one that judges already.
    Unchanged,
    /// It was refused; the last good one stays.
    Refused(String),
}

/// The store, the policy to begin with, and what is wrong with the file.
pub(crate) struct Loaded {
    pub(crate) store: PolicyStore,
    pub(crate) policy: Arc<Policy>,
    /// Nothing is ignored because the last good policy cannot be used.
    pub(crate) damaged: Option<String>,
}

impl PolicyStore {
    /// Reads the last good policy.
    pub(crate) fn load(state_dir: &Path) -> Result<Loaded, FileError> {
        let dir = state_dir.join(DIR);
        files::make_dir(&dir)?;
        let path = dir.join(NAME);
        let read = files::read_if_there(&path)?.map(|bytes| decode(&bytes));
        let (applied, policy, damaged) = match read {
            None => (None, Policy::default(), None),
            Some(Ok((applied, policy))) => (Some(applied), policy, None),
            Some(Err(reason)) => (None, Policy::default(), Some(reason)),
        };
        let store = Self {
            path,
            applied,
            refused: None,
        };
        Ok(Loaded {
            store,
            policy: Arc::new(policy),
            damaged,
        })
    }

    /// Checks a pushed policy and, if it is good, keeps it. Takes as long as
    /// its patterns take to compile.
    pub(crate) fn push(&mut self, message: v1::EffectivePolicy) -> Pushed {
        let encoded = message.encode_to_vec();
        let hash = hash_of(&encoded);
        if self.applied.as_ref().is_some_and(|a| a.hash == hash) {
            self.refused = None;
            return Pushed::Unchanged;
        }
        let checked = compile(message).and_then(|(documents, policy)| {
            self.keep(&hash, &encoded)
                .map_err(|e| format!("it cannot be kept on this host: {e}"))?;
            Ok((documents, policy))
        });
        match checked {
            Ok((documents, policy)) => {
                self.applied = Some(Applied { hash, documents });
                self.refused = None;
                Pushed::Applied(Arc::new(policy))
            }
            Err(reason) => {
                self.refused = Some(Refused {
                    hash,
                    reason: reason.clone(),
                });
                Pushed::Refused(reason)
            }
        }
    }

    /// The truth for hello and heartbeat.
    pub(crate) fn state(&self) -> v1::PolicyState {
        let mut state = v1::PolicyState::default();
        if let Some(applied) = &self.applied {
            state.applied_hash = Bytes::copy_from_slice(&applied.hash);
            state.applied.clone_from(&applied.documents);
        }
        if let Some(refused) = &self.refused {
            state.refused_hash = Bytes::copy_from_slice(&refused.hash);
            state.refused_reason.clone_from(&refused.reason);
        }
        state
    }

    fn keep(&self, hash: &[u8; 32], encoded: &[u8]) -> Result<(), FileError> {
        let mut content = MAGIC.to_vec();
        content.extend_from_slice(hash);
        content.extend_from_slice(encoded);
        files::replace(&self.path, &content)
    }
}

fn decode(bytes: &[u8]) -> Result<(Applied, Policy), String> {
    let rest = bytes
        .strip_prefix(MAGIC)
        .ok_or("it is no policy file of this version")?;
    let (hash, encoded) = rest.split_first_chunk::<32>().ok_or("it is cut short")?;
    if hash_of(encoded) != *hash {
        return Err("its checksum does not fit".to_owned());
    }
    let message = v1::EffectivePolicy::decode(encoded).map_err(|e| e.to_string())?;
    let (documents, policy) = compile(message)?;
    Ok((
        Applied {
            hash: *hash,
            documents,
        },
        policy,
    ))
}

fn compile(message: v1::EffectivePolicy) -> Result<(Vec<v1::AppliedPolicy>, Policy), String> {
    let effective = EffectivePolicy::try_from(message).map_err(|e| e.to_string())?;
    let (policy, _warnings) =
        Policy::compile(&effective).map_err(|all| reason_of(&effective, &all))?;
    let named = |d: &PolicyDocument| v1::AppliedPolicy {
        name: d.name.clone(),
        revision: d.revision,
    };
    Ok((effective.documents.iter().map(named).collect(), policy))
}

/// The first errors, as one bounded line, each with the policy that it is in.
fn reason_of(effective: &EffectivePolicy, diagnostics: &[Diagnostic]) -> String {
    let errors: Vec<_> = diagnostics
        .iter()
        .filter(|d| d.level == Level::Error)
        .collect();
    let mut reason = errors
        .iter()
        .take(REASONS_MAX)
        .map(|error| match effective.policy_with(&error.file) {
            Some(name) => format!("policy {name}: {error}"),
            None => error.to_string(),
        })
        .collect::<Vec<_>>()
        .join("; ");
    if errors.len() > REASONS_MAX {
        reason.push_str(&format!("; and {} more", errors.len() - REASONS_MAX));
    }
    if reason.len() > REASON_BYTES_MAX {
        // Diagnostics print as ASCII; where one should not, it is cut earlier.
        let cut = (0..=REASON_BYTES_MAX)
            .rev()
            .find(|&at| reason.is_char_boundary(at));
        reason.truncate(cut.unwrap_or(0));
    }
    reason
}

/// A note about each rule that a process was too much for: it hides nothing
/// of what it was written to hide, and nobody would know why.
pub(crate) fn notes_on_slow_rules(policy: &Policy) -> Vec<String> {
    let rules = policy.rules_that_gave_up();
    let cut = |text: &str| -> String {
        let shown = printable_text(text);
        shown.chars().take(SLOW_RULE_CHARS_MAX).collect()
    };
    let mut notes: Vec<String> = rules
        .iter()
        .take(SLOW_RULES_MAX)
        .map(|rule| {
            let (origin, rule) = (&rule.origin, cut(&rule.to_string()));
            let (policy, file) = (cut(&origin.policy), cut(&origin.file));
            format!(
                "the pattern of a rule takes too many steps on the text of some process, or that is \
                 too long for it, and does not match it; write it without look-around and nested \
                 repetition: {policy} revision {}, \
                 {file}:{}: {rule}",
                origin.revision, origin.line
            )
        })
        .collect();
    if rules.len() > SLOW_RULES_MAX {
        let more = rules.len() - SLOW_RULES_MAX;
        notes.push(format!("the same is true of {more} more rules"));
    }
    notes
}

fn hash_of(encoded: &[u8]) -> [u8; 32] {
    Sha256::digest(encoded).into()
}
