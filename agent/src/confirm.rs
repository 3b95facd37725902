//! Confirmation: whatever can race is believed only when the same subject
//! shows the same indicator in two consecutive scans.
//!
//! Whatever needs no confirmation still waits one scan where the same scan saw
//! something new that does, unless it is critical: otherwise one process would
//! be reported, and mailed, twice within two scans.
//!
//! A look at single processes between two scans confirms what the last scan,
//! or the look before it, saw; whoever looks leaves time between two looks.
//!
//! Pure. Promises: remembers nothing but the last scan and a bounded number of
//! looks; a reading in which a sighting is missing begins its confirmation
//! anew. Nothing waits longer than one scan.

use std::collections::{HashMap, HashSet};

use procwarden_common::indicator::{Confirmation, Indicator, IndicatorId};
use procwarden_common::process::ProcessKey;
use procwarden_common::severity::Severity;

use crate::detect::Sighting;

/// Subjects that looks between two scans may add. Behind that many, what is
/// seen for the first time waits for the next scan.
const SUBJECTS_BETWEEN_SCANS_MAX: usize = 20_000;

/// Whom a sighting is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    waiting: HashSet<ProcessKey>,
}

impl Confirmations {
    /// Begins a scan: what the scan before it saw becomes the last.
    pub(crate) fn begin_scan(&mut self) {
        self.last = std::mem::take(&mut self.current);
        self.pending = 0;
        self.waiting.clear();
    }

    /// Keeps the sightings of a scan that are confirmed by now.
    pub(crate) fn confirmed(&mut self, whom: Whom, sightings: Vec<Sighting>) -> Vec<Indicator> {
        let last = self.last.get(&whom).map(Vec::as_slice);
        let Weighed {
            indicators,
            seen,
            pending,
        } = weigh(last, sightings);
        if !seen.is_empty() {
            self.current.insert(whom, seen);
        }
        self.add_pending(whom, pending);
        indicators
    }

    /// Keeps the sightings of a look between two scans that are confirmed by
    /// now: what the last scan, or a look since then, saw already. What is
    /// seen for the first time waits for the next look or scan.
    pub(crate) fn confirmed_between(
        &mut self,
        whom: Whom,
        sightings: Vec<Sighting>,
    ) -> Vec<Indicator> {
        let before = self.current.remove(&whom);
        let weighed = weigh(before.as_deref(), sightings);
        let has_room = self.current.len() < SUBJECTS_BETWEEN_SCANS_MAX;
        if !weighed.seen.is_empty() && (has_room || before.is_some()) {
            self.current.insert(whom, weighed.seen);
            self.add_pending(whom, weighed.pending);
        }
        weighed.indicators
    }

    /// A scan leaves the subject to looks: what those saw stays as it is.
    pub(crate) fn leave(&mut self, whom: Whom) {
        if let Some(seen) = self.last.remove(&whom) {
            self.current.insert(whom, seen);
        }
    }

    /// Processes whose sightings the next scan has to confirm: it must not
    /// believe what it remembers of them.
    pub(crate) const fn waiting(&self) -> &HashSet<ProcessKey> {
        &self.waiting
    }

    fn add_pending(&mut self, whom: Whom, pending: u64) {
        self.pending += pending;
        if let Whom::Process(key) = whom
            && pending > 0
        {
            self.waiting.insert(key);
        }
    }

    /// Sightings of this scan that another one has to confirm.
    pub(crate) const fn pending(&self) -> u64 {
        self.pending
    }
}

/// What one reading of one subject gives.
struct Weighed {
    /// Confirmed by now.
    indicators: Vec<Indicator>,
    /// Whatever another reading has to confirm, or has confirmed.
    seen: Vec<IndicatorId>,
    /// How many of those wait.
    pending: u64,
}

/// Weighs the sightings of one reading against what the last one saw.
fn weigh(last: Option<&[IndicatorId]>, sightings: Vec<Sighting>) -> Weighed {
    let (mut indicators, mut seen, mut pending) = (Vec::new(), Vec::new(), 0);
    for Sighting {
        indicator,
        confirmation,
    } in sightings
    {
        if confirmation == Confirmation::TwoScans {
            let again = last.is_some_and(|last| last.contains(&indicator.id));
            seen.push(indicator.id.clone());
            if !again {
                pending += 1;
                continue;
            }
        }
        indicators.push(indicator);
    }
    if last.is_none() && pending > 0 {
        indicators.retain(|indicator| indicator.severity == Severity::Critical);
    }
    Weighed {
        indicators,
        seen,
        pending,
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

    #[test]
    fn a_look_confirms_what_the_scan_or_the_look_before_saw() {
        let mut state = Confirmations::default();
        let look = |state: &mut Confirmations, sees: bool| {
            let seen = sighting(IndicatorId::EXE_DELETED, Confirmation::TwoScans);
            let sightings = if sees { vec![seen] } else { Vec::new() };
            let confirmed = state.confirmed_between(Whom::Account(1), sightings);
            confirmed.len()
        };
        assert_eq!(scan(&mut state, &[1]), [0; 0]);
        assert_eq!(look(&mut state, true), 1);
        assert_eq!(look(&mut state, false), 0);
        assert_eq!(look(&mut state, true), 0);
        assert_eq!(look(&mut state, true), 1);
        // A scan goes on from there, and one that leaves the subject alone
        // takes nothing from the looks.
        assert_eq!(scan(&mut state, &[1]), [1]);
        state.begin_scan();
        state.leave(Whom::Account(1));
        assert_eq!(look(&mut state, true), 1);
        state.begin_scan();
        assert_eq!(look(&mut state, true), 0);
    }

    #[test]
    fn looks_between_two_scans_fill_no_memory() {
        let mut state = Confirmations::default();
        for uid in 0..30_000 {
            let seen = sighting(IndicatorId::EXE_DELETED, Confirmation::TwoScans);
            state.confirmed_between(Whom::Account(uid), vec![seen]);
        }
        assert_eq!(state.current.len(), SUBJECTS_BETWEEN_SCANS_MAX);
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
