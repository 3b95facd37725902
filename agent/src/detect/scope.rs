//! Which accounts are looked at.

use std::collections::HashSet;

use procwarden_common::process::Process;

/// Runs what the web server runs for everybody; in scope wherever accounts
/// are named one by one, but never counted against limits.
pub(crate) const NOBODY: &[u8] = b"nobody";
/// Its number on most systems, for a process whose account has no name.
const NOBODY_UID: u32 = 65534;

/// The accounts in scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Every account but root.
    Everyone,
    /// These, and `nobody`.
    Named(HashSet<Vec<u8>>),
}

/// How a process stands to the scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Root: looked at for what root never does by itself.
    Root,
    /// Everything is looked at.
    InScope,
    /// An account that the policy leaves out. Only disguises count, which no
    /// program of any account has a reason to wear.
    OutOfScope,
}

impl Scope {
    /// How a process stands to the scope.
    pub(crate) fn standing(&self, process: &Process) -> Standing {
        match self {
            _ if process.uid == 0 => Standing::Root,
            Self::Everyone => Standing::InScope,
            Self::Named(names) if is_nobody(process) || names.contains(&*process.user) => {
                Standing::InScope
            }
            Self::Named(_) => Standing::OutOfScope,
        }
    }
}

/// Whether a process belongs to `nobody`.
pub(crate) fn is_nobody(process: &Process) -> bool {
    &*process.user == NOBODY || process.uid == NOBODY_UID
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::sample;

    #[test]
    fn root_is_root_and_named_scopes_take_nobody_in() {
        let named = Scope::Named(HashSet::from([b"alice".to_vec()]));
        let table = [
            (0, &b"root"[..], Standing::Root, Standing::Root),
            (1000, b"alice", Standing::InScope, Standing::InScope),
            (1001, b"mysql", Standing::InScope, Standing::OutOfScope),
            (99, b"nobody", Standing::InScope, Standing::InScope),
            (65534, b"65534", Standing::InScope, Standing::InScope),
        ];
        for (uid, user, everyone, limited) in table {
            let process = sample::of_account(uid, user);
            assert_eq!(Scope::Everyone.standing(&process), everyone);
            assert_eq!(named.standing(&process), limited, "{uid}");
        }
    }
}
