//! What a simulated agent reports, and what a collector that acknowledged it
//! has to answer. Pure: sequence numbers and answers in, counts out.
//!
//! Every event follows from its sequence number, so that a number is all an
//! agent has to remember, as with a real spool. Four events tell of two
//! processes: both are reported, the first one grows, the second one ends.

use std::collections::BTreeMap;

/// Events that tell of the same two processes.
const GROUP: u64 = 4;

/// One event of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// A process is reported for the first time.
    Reported(u64),
    /// It is reported again, with one indicator more.
    Grown(u64),
    /// It ended.
    Ended(u64),
}

/// The event with a sequence number; the first one has the number 1.
#[must_use]
pub fn told(sequence: u64) -> Told {
    let (group, place) = ((sequence - 1) / GROUP, (sequence - 1) % GROUP);
    let first = 2 * group + 1;
    match place {
        0 => Told::Reported(first),
        1 => Told::Reported(first + 1),
        2 => Told::Grown(first),
        _ => Told::Ended(first + 1),
    }
}

/// The first sequence number of the group that a number belongs to.
#[must_use]
pub fn group_begin(sequence: u64) -> u64 {
    (sequence.max(1) - 1) / GROUP * GROUP + 1
}

/// A finding as the collector answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The agent that reported it.
    pub agent: usize,
    /// The process that it is about.
    pub process: u64,
    /// How many indicators it has.
    pub indicators: usize,
    /// Whether it has ended.
    pub ended: bool,
}

/// Which events of an agent are asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The agent.
    pub agent: usize,
    /// First event that is looked at, the first one of a group.
    pub from: u64,
    /// Last event that was acknowledged.
    pub acked: u64,
}

/// An acknowledged event that no answer shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// The agent that told it.
    pub agent: usize,
    /// Its number.
    pub sequence: u64,
}

/// What a comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Acknowledged events that were looked for.
    pub checked: u64,
    /// Of them, those that the answers do not show.
    pub missing: Vec<Missing>,
    /// Findings that were answered more than once.
    pub doubled: u64,
}

/// Compares what was acknowledged with what is answered.
#[must_use]
pub fn compare(ranges: &[Range], answers: &[Seen]) -> Verdict {
    let mut verdict = Verdict::default();
    let mut known: BTreeMap<(usize, u64), Seen> = BTreeMap::new();
    for seen in answers {
        if known.insert((seen.agent, seen.process), *seen).is_some() {
            verdict.doubled += 1;
        }
    }
    for range in ranges {
        for sequence in range.from..=range.acked {
            verdict.checked += 1;
            let find = |process| known.get(&(range.agent, process));
            let there = match told(sequence) {
                Told::Reported(process) => find(process).is_some(),
                Told::Grown(process) => find(process).is_some_and(|seen| seen.indicators > 1),
                Told::Ended(process) => find(process).is_some_and(|seen| seen.ended),
            };
            if !there {
                let agent = range.agent;
                verdict.missing.push(Missing { agent, sequence });
            }
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(process: u64, indicators: usize, ended: bool) -> Seen {
        Seen {
            agent: 0,
            process,
            indicators,
            ended,
        }
    }

    fn acked(acked: u64) -> [Range; 1] {
        [Range {
            agent: 0,
            from: 1,
            acked,
        }]
    }

    #[test]
    fn each_group_reports_two_processes_grows_one_and_ends_the_other() {
        let of = |from: u64| (from..from + 4).map(told).collect::<Vec<_>>();
        let group = |p| {
            [
                Told::Reported(p),
                Told::Reported(p + 1),
                Told::Grown(p),
                Told::Ended(p + 1),
            ]
        };
        assert_eq!(of(1), group(1));
        assert_eq!(of(5), group(3));
        assert_eq!([0, 1, 4, 5, 8].map(group_begin), [1, 1, 1, 5, 5]);
    }

    #[test]
    fn a_complete_answer_has_no_fault_and_may_hold_more_than_was_acked() {
        let all = [seen(1, 2, false), seen(2, 1, true), seen(3, 1, false)];
        let verdict = compare(&acked(4), &all);
        assert_eq!(
            (verdict.checked, verdict.missing.len(), verdict.doubled),
            (4, 0, 0)
        );
    }

    #[test]
    fn every_event_that_is_missing_counts_and_so_does_every_double() {
        for (answers, lost, doubled) in [
            (vec![], 4, 0),
            (vec![seen(1, 1, false), seen(2, 1, true)], 1, 0),
            (vec![seen(1, 2, false), seen(2, 1, false)], 1, 0),
            (vec![seen(2, 1, true)], 2, 0),
            (
                vec![seen(1, 2, false), seen(2, 1, true), seen(1, 2, false)],
                0,
                1,
            ),
        ] {
            let verdict = compare(&acked(4), &answers);
            assert_eq!(
                (verdict.missing.len(), verdict.doubled),
                (lost, doubled),
                "{answers:?}"
            );
        }
    }

    #[test]
    fn another_agents_answers_are_no_excuse() {
        let ranges = [Range {
            agent: 1,
            from: 1,
            acked: 1,
        }];
        let missing = compare(&ranges, &[seen(1, 1, false)]).missing;
        let (agent, sequence) = (1, 1);
        assert_eq!(missing, [Missing { agent, sequence }]);
    }
}
