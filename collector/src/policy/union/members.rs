//! Who gets policies: the hosts of the fleet, and those that can still enrol.
//! Pure.

use procwarden_common::clock::UnixMillis;
use procwarden_common::id::HostId;

use super::Change;
use crate::ledger::LedgerState;
use crate::tokens::must_be_usable;

/// One that gets policies, or may some day.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    Host(HostId),
    /// Hosts that enrol with the token of this id.
    Token(String),
    /// Hosts that enrol with a token that is being made.
    NewToken,
}

/// One of them, and the groups that it has besides `all`.
#[derive(Debug)]
pub(super) struct Member<'a> {
    pub(super) who: Who,
    pub(super) groups: &'a [String],
}

/// Everybody whom a change may concern. Tokens that nobody can use any more
/// bring nothing.
pub(super) fn members<'a>(
    state: &'a LedgerState,
    change: &'a Change,
    at: UnixMillis,
) -> Vec<Member<'a>> {
    let hosts = state.hosts.iter().filter(|(_, host)| !host.revoked);
    let hosts = hosts.map(|(id, host)| Member {
        who: Who::Host(*id),
        groups: &host.groups,
    });
    let tokens = state.tokens.iter();
    let tokens = tokens.filter(|(_, token)| must_be_usable(token, at).is_ok());
    let tokens = tokens.map(|(id, token)| Member {
        who: Who::Token(id.clone()),
        groups: &token.groups,
    });
    match change {
        Change::Token { groups } => vec![Member {
            who: Who::NewToken,
            groups,
        }],
        // The groups of one host change nothing for the others.
        Change::Groups { .. } => hosts.collect(),
        Change::Document { .. } | Change::Assigned { .. } => hosts.chain(tokens).collect(),
    }
}

impl Member<'_> {
    /// Its id; who is still to come has none.
    pub(super) const fn id(&self) -> Option<HostId> {
        match self.who {
            Who::Host(id) => Some(id),
            Who::Token(_) | Who::NewToken => None,
        }
    }
}
