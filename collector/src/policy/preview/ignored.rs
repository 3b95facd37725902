//! What a rule ignored lately, and what of it the candidate would report.
//!
//! The stored history holds what was reported; what a rule ignored is known
//! from the agents' counts and samples alone. Pure.

use std::sync::Arc;

use procwarden_common::clock::UnixMillis;
use procwarden_common::id::HostId;
use procwarden_common::policy::{Rule, RuleText, Verdict, judge};

use super::{Preview, Sample, Side};
use crate::policy::hits::RuleSum;

/// What one rule of the newest revision ignored, as agents counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ignored {
    pub(crate) processes: u64,
    /// Those of severity high or critical among them.
    pub(crate) severe: u64,
    pub(crate) hosts: u64,
    pub(crate) last: UnixMillis,
    /// Samples that the candidate would report, the most severe ones first.
    pub(crate) samples: Vec<Sample>,
    /// Samples that it ignores by another rule.
    pub(crate) covered: u64,
}

impl Preview {
    /// The rules of the newest revision, about which [`Preview::add_ignored`]
    /// wants to know.
    pub(crate) fn newest_rules(&self) -> &[Arc<Rule>] {
        self.newest.rules()
    }

    /// Takes in what a rule of the newest revision ignored. It is reported
    /// where the candidate lacks the rule, or would report a sample of it.
    pub(crate) fn add_ignored<'a>(
        &mut self,
        rule: &Arc<Rule>,
        sum: &RuleSum,
        name_of: impl Fn(HostId) -> &'a str,
    ) {
        let Some(last) = sum.last else { return };
        let mut ignored = Ignored {
            processes: sum.processes,
            severe: sum.severe,
            hosts: sum.hosts,
            last,
            samples: Vec::new(),
            covered: 0,
        };
        for sample in &sum.samples {
            let text = RuleText::of_finding(&sample.finding);
            match judge(&self.candidate, &text, self.now) {
                Verdict::Ignored(_) => ignored.covered += 1,
                Verdict::Report => {
                    let host = (sample.host, name_of(sample.host));
                    ignored
                        .samples
                        .push(Sample::new(host, &sample.finding, &text));
                }
            }
        }
        let is_gone = self.places.contains_key(&(Side::Removed, rule.to_string()));
        if !is_gone && ignored.samples.is_empty() {
            return;
        }
        let place = self.place(Side::Removed, rule);
        if let Some(tally) = self.tallies.get_mut(place) {
            tally.ignored = Some(ignored);
        }
    }
}
