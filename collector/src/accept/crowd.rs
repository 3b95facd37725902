//! How many connections one peer holds: a single host or network must not
//! take the places of all others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use procwarden_common::id::HostId;

/// Whom a connection counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Party {
    /// A host, by its certificate.
    Host(HostId),
    /// Whoever has no certificate.
    Network(IpAddr),
}

/// Counts open connections; holds an entry only for parties that have some.
#[derive(Clone)]
pub(super) struct Crowd {
    each_max: usize,
    counts: Arc<Mutex<HashMap<Party, usize>>>,
}

/// A place in the crowd; dropping it leaves.
pub(super) struct Place {
    crowd: Crowd,
    party: Party,
}

impl Crowd {
    pub(super) fn new(each_max: usize) -> Self {
        Self {
            each_max,
            counts: Arc::default(),
        }
    }

    /// A place, if the party has not taken all of its own.
    pub(super) fn enter(&self, party: Party) -> Option<Place> {
        let mut counts = self.lock();
        let count = counts.entry(party).or_insert(0);
        if *count >= self.each_max {
            return None;
        }
        *count += 1;
        Some(Place {
            crowd: self.clone(),
            party,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Party, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.crowd.lock();
        if let Some(count) = counts.get_mut(&self.party) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.party);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_party_never_takes_the_places_of_another() {
        let crowd = Crowd::new(2);
        let [one, two] = ["192.0.2.1", "192.0.2.2"].map(|a| Party::Network(a.parse().unwrap()));
        let first = crowd.enter(one).unwrap();
        let _second = crowd.enter(one).unwrap();
        assert!(crowd.enter(one).is_none());
        assert!(crowd.enter(two).is_some());
        assert_eq!(crowd.lock().len(), 1, "who left is forgotten");
        drop(first);
        assert!(crowd.enter(one).is_some());
    }
}
