//! Names a rule where its text would be too long: in counts that agents send.

use std::fmt;

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::Rule;

/// The first 16 bytes of a SHA-256 over the policy's name and the rule's text.
/// A new revision that keeps the rule keeps its id, wherever the line stands
/// and whatever its facts say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId([u8; 16]);

impl RuleId {
    /// The first one in their order.
    pub const MIN: Self = Self([0; 16]);

    /// Reads the 16 bytes of the wire form; nothing when there are not 16.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The 16 bytes of the wire form.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// Hexadecimal digits.
impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&HEXLOWER.encode(&self.0))
    }
}

impl Rule {
    /// The id of this rule in its policy.
    #[must_use]
    pub fn id(&self) -> RuleId {
        let mut hash = Sha256::new();
        hash.update(b"procwarden rule v1\0");
        hash.update(self.origin.policy.as_bytes());
        // No name and no key holds a NUL: the parts cannot run together.
        hash.update(b"\0");
        hash.update(self.key.as_str().as_bytes());
        hash.update(b"\0");
        hash.update(self.value.as_bytes());
        let mut id = [0; 16];
        for (to, from) in id.iter_mut().zip(hash.finalize()) {
            *to = from;
        }
        RuleId(id)
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::{EffectivePolicy, Policy, PolicyDocument, PolicyFile, RuleId};

    fn ids(name: &str, revision: u64, text: &str) -> Vec<RuleId> {
        let document = PolicyDocument {
            name: name.into(),
            revision,
            files: vec![PolicyFile {
                path: "a.pignore".into(),
                content: text.into(),
            }],
            settings: String::new(),
        };
        let effective = EffectivePolicy {
            documents: vec![document],
        };
        let (policy, _) = Policy::compile(&effective).unwrap();
        policy.rules().iter().map(|rule| rule.id()).collect()
    }

    #[test]
    fn a_rule_keeps_its_id_when_a_revision_moves_it() {
        let before = ids("web", 1, "exe:/a\n");
        let after = ids("web", 2, "# moved\n\n#@ owner=ops\nEXE:/a \n");
        assert_eq!(before, after);
    }

    #[test]
    fn another_key_value_or_policy_is_another_rule() {
        let all = [
            ids("web", 1, "exe:/a\n"),
            ids("web", 1, "exe:/b\n"),
            ids("web", 1, "cmd:/a\n"),
            ids("db", 1, "exe:/a\n"),
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().flatten().collect();
        assert_eq!(distinct.len(), 4);
    }

    #[test]
    fn an_id_has_sixteen_bytes() {
        let id = ids("web", 1, "exe:/a\n")[0];
        assert_eq!(RuleId::from_slice(id.as_bytes()), Some(id));
        assert_eq!(RuleId::from_slice(&[1; 15]), None);
        assert_eq!(id.to_string().len(), 32);
    }
}
