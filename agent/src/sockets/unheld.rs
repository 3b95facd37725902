//! Listeners that no process shows among its descriptors: one can be on its
//! way through a Unix socket (SCM_RIGHTS), or be registered with io_uring, and
//! is served all the same.
//!
//! No finding is made of one, because there is no process to name. Promises:
//! says those of accounts whose every process was searched. Pure.

use std::collections::{BTreeSet, HashMap, HashSet};

use procwarden_common::process::SocketState;

use super::table::Table;

/// So many scans before, one must have been there already: its process may
/// have been too young to be asked, or between two steps of handing it over.
const SCANS: u64 = 2;
/// Listeners that are named; the others are counted.
const NAMED_MAX: usize = 5;

/// What is remembered from scan to scan: since which scan nobody shows it.
#[derive(Debug, Default)]
pub(super) struct Unheld {
    since: HashMap<u64, u64>,
}

impl Unheld {
    /// Takes what a scan has found, and says in words which listeners of the
    /// accounts nobody shows.
    pub(super) fn note(
        &mut self,
        table: &Table,
        held: &HashSet<u64>,
        accounts: &HashSet<u32>,
        scan: u64,
    ) -> Option<String> {
        let listeners = table.iter().filter(|(inode, entry)| {
            entry.socket.state == SocketState::Listen
                && accounts.contains(&entry.uid)
                && !held.contains(inode)
        });
        let mut since = HashMap::new();
        let mut long = BTreeSet::new();
        for (inode, entry) in listeners {
            let first = self.since.get(&inode).copied().unwrap_or(scan);
            since.insert(inode, first);
            if first + SCANS <= scan {
                let port = entry.socket.local.map_or(0, |local| local.port());
                long.insert((entry.uid, port, inode));
            }
        }
        self.since = since;
        let named = long.iter().take(NAMED_MAX);
        let named: Vec<_> = named
            .map(|(uid, port, _)| format!("port {port} of account {uid}"))
            .collect();
        let more = match long.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        (!long.is_empty()).then(|| {
            let named = named.join(", ");
            format!("no process that is asked shows the listeners on {named}{more}: they may be on their way between processes, in io_uring or held by another account")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::sample::{connection, listener};
    use crate::sockets::Entry;
    use procwarden_common::process::{Protocol, Socket};

    fn table(sockets: impl IntoIterator<Item = (u64, u32, Socket)>) -> Table {
        let mut table = Table::default();
        for (inode, uid, socket) in sockets {
            table.insert(inode, Entry { socket, uid });
        }
        table
    }

    #[test]
    fn a_listener_that_stays_unheld_is_said_with_account_and_port() {
        let to = connection(Protocol::Tcp, "10.0.0.1:9", "203.0.113.1:22");
        let table = table([
            (1, 1001, listener("0.0.0.0:4444")),
            (2, 1001, listener("0.0.0.0:8080")),
            (3, 0, listener("0.0.0.0:22")),
            (4, 1001, to),
        ]);
        let (held, accounts) = (HashSet::from([2]), HashSet::from([1001]));
        let mut unheld = Unheld::default();
        assert_eq!(unheld.note(&table, &held, &accounts, 7), None);
        assert_eq!(unheld.note(&table, &held, &accounts, 8), None);
        let note = unheld.note(&table, &held, &accounts, 9).unwrap();
        assert!(note.contains("on port 4444 of account 1001:"), "{note}");
        // Somebody shows it in between: it begins anew.
        let all = HashSet::from([1, 2]);
        assert_eq!(unheld.note(&table, &all, &accounts, 10), None);
        assert_eq!(unheld.note(&table, &held, &accounts, 11), None);
    }

    #[test]
    fn of_many_some_are_named() {
        let table = table((1..=9).map(|inode| (inode, 1001, listener("0.0.0.0:4444"))));
        let mut unheld = Unheld::default();
        let accounts = HashSet::from([1001]);
        unheld.note(&table, &HashSet::new(), &accounts, 1);
        let note = unheld.note(&table, &HashSet::new(), &accounts, 3).unwrap();
        assert!(note.contains("and 4 more"), "{note}");
    }
}
