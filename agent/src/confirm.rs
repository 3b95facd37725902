//! Confirmation: whatever can race is believed only when the same subject
//! shows the same indicator in two consecutive scans.
//!
//! Whatever needs no confirmation still waits one scan where the same scan saw
//! something new that does, unless it is critical: otherwise one process would
//! be reported, and mailed, twice within two scans.
//!
//! Pure. Promises: remembers nothing but the last scan, so it never grows
//! beyond what one scan saw; a scan in which a sighting is missing begins
//! its confirmation anew. Nothing waits longer than one scan.

use std::collections::HashMap;

use procwarden_common::indicator::{Confirmation, Indicator, IndicatorId};
use procwarden_common::process::ProcessKey;
use procwarden_common::severity::Severity;

use crate::detect::Sighting;

/// Whom a sighting is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Whom {
    /// A process.
    Process(ProcessKey),
    /// An account, by uid.
    Account(u32),
}

/// What the last scan saw, and what this one sees.
#[derive(Debug, Default)]
pub(crate) struct Confirmations {
    last: HashMap<Whom, Vec<IndicatorId>>,
    current: HashMap<Whom, Vec<IndicatorId>>,
    pending: u64,
}

impl Confirmations {
    /// Begins a scan: what the scan before it saw becomes the last.
    pub(crate) fn begin_scan(&mut self) {
        self.last = std::mem::take(&mut self.current);
        self.pending = 0;
    }

    /// Keeps the sightings that are confirmed by now.
    pub(crate) fn confirmed(&mut self, whom: Whom, sightings: Vec<Sighting>) -> Vec<Indicator> {
        let last = self.last.get(&whom);
        let is_new = last.is_none();
        let pending_before = self.pending;
        let mut indicators = Vec::new();
        for Sighting {
            indicator,
            confirmation,
        } in sightings
        {
            if confirmation == Confirmation::TwoScans {
                let again = last.is_some_and(|seen| seen.contains(&indicator.id));
                let seen = self.current.entry(whom).or_default();
                seen.push(indicator.id.clone());
                if !again {
                    self.pending += 1;
                    continue;
                }
            }
            indicators.push(indicator);
        }
        if is_new && self.pending > pending_before {
            indicators.retain(|indicator| indicator.severity == Severity::Critical);
        }
        indicators
    }

    /// Sightings of this scan that another one has to confirm.
    pub(crate) const fn pending(&self) -> u64 {
        self.pending
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sighting(id: IndicatorId, confirmation: Confirmation) -> Sighting {
        let indicator = Indicator {
            id,
            severity: Severity::High,
            evidence: String::new(),
        };
        Sighting {
            indicator,
            confirmation,
        }
    }

    /// One scan in which some accounts show a two-scan indicator.
    fn scan(confirmations: &mut Confirmations, accounts: &[u32]) -> Vec<u32> {
        confirmations.begin_scan();
        let seen = |uid: &u32| {
            let sightings = vec![sighting(IndicatorId::EXE_DELETED, Confirmation::TwoScans)];
            !confirmations
                .confirmed(Whom::Account(*uid), sightings)
                .is_empty()
        };
        accounts.iter().copied().filter(seen).collect()
    }

    #[test]
    fn two_consecutive_scans_confirm() {
        let mut state = Confirmations::default();
        assert!(scan(&mut state, &[1]).is_empty());
        assert_eq!(state.pending(), 1);
        assert_eq!(scan(&mut state, &[1, 2]), [1]);
        assert_eq!(scan(&mut state, &[2]), [2]);
        assert!(scan(&mut state, &[1]).is_empty());
    }

    #[test]
    fn one_scan_is_enough_where_nothing_can_race() {
        let mut state = Confirmations::default();
        state.begin_scan();
        let sightings = vec![sighting(
            IndicatorId::FAKE_KERNEL_THREAD,
            Confirmation::OneScan,
        )];
        assert_eq!(state.confirmed(Whom::Account(1), sightings).len(), 1);
        assert_eq!(state.pending(), 0);
    }

    #[test]
    fn what_needs_no_confirmation_waits_for_what_does_once_at_most() {
        let mut state = Confirmations::default();
        let both = |second: IndicatorId| {
            vec![
                sighting(IndicatorId::NETWORK_CONNECTION, Confirmation::OneScan),
                sighting(second, Confirmation::TwoScans),
            ]
        };
        let mut scan = |sightings| {
            state.begin_scan();
            state.confirmed(Whom::Account(1), sightings).len()
        };
        assert_eq!(scan(both(IndicatorId::EXE_DELETED)), 0);
        assert_eq!(scan(both(IndicatorId::EXE_DELETED)), 2);
        // Another new sighting holds nothing back any more.
        assert_eq!(scan(both(IndicatorId::UNEXPECTED_LISTENER)), 1);
    }

    #[test]
    fn what_is_critical_waits_for_nothing() {
        let mut state = Confirmations::default();
        state.begin_scan();
        let mut memfd = sighting(IndicatorId::EXE_MEMFD, Confirmation::OneScan);
        memfd.indicator.severity = Severity::Critical;
        let other = sighting(IndicatorId::UNEXPECTED_LISTENER, Confirmation::TwoScans);
        let confirmed = state.confirmed(Whom::Account(1), vec![memfd, other]);
        assert_eq!(confirmed.len(), 1);
    }

    proptest! {
        #[test]
        fn confirmed_is_what_both_scans_saw(
            scans in proptest::collection::vec(proptest::collection::btree_set(0u32..6, 0..6), 1..8)
        ) {
            let mut state = Confirmations::default();
            let mut last = std::collections::BTreeSet::new();
            for seen in scans {
                let accounts: Vec<u32> = seen.iter().copied().collect();
                let expected: Vec<u32> = seen.intersection(&last).copied().collect();
                prop_assert_eq!(scan(&mut state, &accounts), expected);
                prop_assert!(state.current.len() <= seen.len());
                last = seen;
            }
        }
    }
}
