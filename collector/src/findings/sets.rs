//! Which indicators a finding has shown, as a small number. Pure.
//!
//! A fleet shows few different sets, and most reports are of one that is known:
//! comparing them needs no record. Sets past the limit are not kept: then the
//! record is asked.

use std::collections::HashMap;
use std::sync::Arc;

use procwarden_common::indicator::{Indicator, IndicatorId};
use procwarden_common::limits::INDICATORS_MAX;
use procwarden_common::severity::Severity;

/// Sets that are kept; an agent that invents indicators fills no memory.
const SETS_MAX: u16 = 4096;

/// A set of indicators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SetId(pub(crate) u16);

impl SetId {
    /// A set that is not kept.
    pub(super) const UNKNOWN: Self = Self(SETS_MAX);
}

/// Indicators with their severities, in the order of their ids.
pub(crate) type Set = Arc<[(IndicatorId, Severity)]>;

/// The sets that are kept.
#[derive(Default)]
pub(super) struct IndicatorSets {
    sets: Vec<Set>,
    ids: HashMap<Set, SetId>,
}

/// The set of indicators.
pub(super) fn set_of(indicators: &[Indicator]) -> Set {
    let pair = |i: &Indicator| (i.id.clone(), i.severity);
    let mut pairs: Vec<_> = indicators.iter().map(pair).collect();
    pairs.sort_unstable();
    pairs.into()
}

impl IndicatorSets {
    /// The number of a set.
    pub(super) fn intern(&mut self, set: &Set) -> SetId {
        if let Some(id) = self.ids.get(set) {
            return *id;
        }
        let Some(id) = u16::try_from(self.sets.len())
            .ok()
            .filter(|n| *n < SETS_MAX)
        else {
            return SetId::UNKNOWN;
        };
        self.sets.push(Arc::clone(set));
        self.ids.insert(Arc::clone(set), SetId(id));
        SetId(id)
    }

    /// Whether a set has all that was shown; nothing when it is not kept.
    pub(super) fn covers(&self, set: SetId, shown: &[(IndicatorId, Severity)]) -> Option<bool> {
        let known = self.sets.get(usize::from(set.0))?;
        let is_full = known.len() >= INDICATORS_MAX;
        let covered =
            |new: &(IndicatorId, Severity)| match known.iter().find(|(id, _)| *id == new.0) {
                Some((_, severity)) => *severity >= new.1,
                None => is_full,
            };
        Some(shown.iter().all(covered))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn indicators(all: &[(&str, Severity)]) -> Vec<Indicator> {
        let indicator = |(id, severity): &(&str, Severity)| Indicator {
            id: id.parse().unwrap(),
            severity: *severity,
            evidence: String::new(),
        };
        all.iter().map(indicator).collect()
    }

    #[test]
    fn a_set_covers_what_it_has_with_as_high_a_severity() {
        use Severity::{High, Low};
        let mut sets = IndicatorSets::default();
        let id = sets.intern(&set_of(&indicators(&[("b", High), ("a", Low)])));
        assert_eq!(
            sets.intern(&set_of(&indicators(&[("a", Low), ("b", High)]))),
            id
        );
        for (new, covered) in [
            (vec![("a", Low)], true),
            (vec![("b", Low), ("a", Low)], true),
            (vec![("a", High)], false),
            (vec![("b", High), ("c", Low)], false),
            (vec![], true),
        ] {
            assert_eq!(
                sets.covers(id, &set_of(&indicators(&new))),
                Some(covered),
                "{new:?}"
            );
        }
    }

    #[test]
    fn sets_past_the_limit_say_that_they_do_not_know() {
        let mut sets = IndicatorSets::default();
        for n in 0..=SETS_MAX {
            let named = indicators(&[(format!("i{n}").as_str(), Severity::Low)]);
            let id = sets.intern(&set_of(&named));
            assert_eq!(id == SetId::UNKNOWN, n == SETS_MAX);
        }
        assert_eq!(sets.covers(SetId::UNKNOWN, &[]), None);
    }
}
