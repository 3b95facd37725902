//! What is known of findings whose records the index does not reflect yet.
//! Pure.

use std::collections::{HashMap, VecDeque};

use procwarden_common::id::FindingId;

use crate::dedup::Known;
use crate::journal::Position;

/// Findings between journal and index.
#[derive(Default)]
pub(super) struct Pending {
    known: HashMap<FindingId, (Known, Position)>,
    /// In the order of the journal.
    order: VecDeque<(Position, FindingId)>,
}

impl Pending {
    pub(super) fn get(&self, id: FindingId) -> Option<&Known> {
        self.known.get(&id).map(|(known, _)| known)
    }

    /// Remembers what a record will say that has no position yet.
    pub(super) fn hold(&mut self, id: FindingId, known: Known) {
        self.known.insert(id, (known, Position(u64::MAX)));
    }

    /// The record of a held finding is in the journal.
    pub(super) fn placed(&mut self, id: FindingId, position: Position) {
        if let Some((_, newest)) = self.known.get_mut(&id) {
            *newest = position;
        }
        self.order.push_back((position, id));
    }

    /// Forgets what the index reflects: records before `indexed`.
    pub(super) fn trim(&mut self, indexed: Position) {
        while let Some((position, id)) = self.order.front().copied().filter(|(p, _)| *p < indexed) {
            self.order.pop_front();
            if self
                .known
                .get(&id)
                .is_some_and(|(_, newest)| *newest == position)
            {
                self.known.remove(&id);
            }
        }
    }

    /// Records that the index does not reflect.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }
}

#[cfg(test)]
mod tests {
    use procwarden_common::clock::UnixMillis;

    use super::*;

    #[test]
    fn a_finding_is_known_until_its_newest_record_is_indexed() {
        let known = |ended: bool| Known {
            indicators: Vec::new(),
            first_seen: UnixMillis(1),
            ended_at: ended.then_some(UnixMillis(2)),
        };
        let (a, b) = (
            FindingId::from_bytes([1; 16]),
            FindingId::from_bytes([2; 16]),
        );
        let mut pending = Pending::default();
        for (id, position, ended) in [(a, 0, false), (b, 10, false), (a, 20, true)] {
            pending.hold(id, known(ended));
            pending.placed(id, Position(position));
        }
        pending.hold(b, known(true));
        pending.trim(Position(20));
        assert_eq!((pending.get(a), pending.len()), (Some(&known(true)), 1));
        assert_eq!(
            pending.get(b),
            Some(&known(true)),
            "held again, not placed yet"
        );
        pending.placed(b, Position(30));
        pending.trim(Position(31));
        assert_eq!(
            (pending.get(a), pending.get(b), pending.len()),
            (None, None, 0)
        );
    }
}
