//! The sockets of a scan by inode, within bounds.
//!
//! Promises: of bounded size; an account that makes more sockets than any
//! other finds room for no more than are free, so it cannot take the room of
//! those that come after it. Pure.

use std::collections::HashMap;

use procwarden_common::process::SocketState;

use super::Entry;

/// Sockets of all tables of one scan that are kept; each takes about 100 bytes.
pub(super) const SOCKETS_MAX: usize = 200_000;

/// The sockets, and how many each account has there.
#[derive(Debug, Default)]
pub(super) struct Table {
    by_inode: HashMap<u64, Entry>,
    by_account: HashMap<u32, usize>,
    is_full: bool,
}

impl Table {
    /// Keeps a socket, if its account has fewer than are free: one account
    /// gets half of the room, a second one half of the rest, and so on.
    pub(super) fn insert(&mut self, inode: u64, entry: Entry) {
        if let Some(known) = self.by_inode.get_mut(&inode) {
            // One of SCTP can wait for connections and have some.
            if known.socket.state != SocketState::Listen {
                *known = entry;
            }
            return;
        }
        let free = SOCKETS_MAX.saturating_sub(self.by_inode.len());
        let of_account = self.by_account.entry(entry.uid).or_default();
        if *of_account < free {
            *of_account += 1;
            self.by_inode.insert(inode, entry);
        } else {
            self.is_full = true;
        }
    }

    /// Some sockets found no room.
    pub(super) const fn is_full(&self) -> bool {
        self.is_full
    }

    pub(super) fn get(&self, inode: u64) -> Option<&Entry> {
        self.by_inode.get(&inode)
    }

    pub(super) fn contains(&self, inode: u64) -> bool {
        self.by_inode.contains_key(&inode)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_inode.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Entry)> {
        self.by_inode.iter().map(|(inode, entry)| (*inode, entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::sample::listener;

    fn of(uid: u32) -> Entry {
        let socket = listener("0.0.0.0:1");
        Entry { socket, uid }
    }

    #[test]
    fn an_account_with_countless_sockets_leaves_room_for_the_others() {
        let mut table = Table::default();
        for inode in 0..SOCKETS_MAX as u64 + 9 {
            table.insert(inode, of(1001));
        }
        assert!(table.is_full());
        let kept = table.iter().count();
        assert_eq!(kept, SOCKETS_MAX / 2);
        for (inode, uid) in (1_000_000..).zip(2000..3000) {
            table.insert(inode, of(uid));
            assert!(table.contains(inode), "{uid}");
        }
        assert_eq!(table.iter().count(), kept + 1000);
    }

    #[test]
    fn accounts_together_fill_no_more_than_the_bound() {
        let mut table = Table::default();
        for inode in 0..2 * SOCKETS_MAX as u64 {
            table.insert(inode, of(u32::try_from(inode % 50).unwrap()));
        }
        assert!(table.is_full() && table.iter().count() <= SOCKETS_MAX);
    }
}
