//! The few processes that stand for all that a rule ignored. Pure.
//!
//! Kept are the newest one and the most severe ones, each look (account,
//! executable, command line) once: five hundred workers of one program are one
//! sample, and the miner among them another. What is fresh, which is what a
//! rule newly hides, gives way to other fresh ones only: it may stop a roll-out.

use procwarden_common::finding::Finding;
use procwarden_common::severity::Severity;
use procwarden_proto::v1;
use prost::Message as _;

/// Samples of one rule.
const SAMPLES_MAX: usize = 3;

/// Oldest first.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Samples {
    samples: Vec<Sample>,
}

#[derive(Debug, Clone, PartialEq)]
struct Sample {
    severity: Severity,
    finding: v1::Finding,
    bytes: usize,
    /// How many fresh ones it stands for.
    fresh: u64,
}

impl Samples {
    /// Takes a finding in that stands for so many fresh ones; another one may
    /// have to go.
    pub(super) fn offer(&mut self, finding: &Finding, severity: Severity, fresh: u64) {
        let finding = v1::Finding::from(&finding.sample());
        let bytes = finding.encoded_len();
        let mut sample = Sample {
            severity,
            finding,
            bytes,
            fresh,
        };
        self.samples.retain(|known| {
            let is_known = looks_alike(&known.finding, &sample.finding);
            if is_known {
                sample.fresh = sample.fresh.saturating_add(known.fresh);
            }
            !is_known
        });
        self.samples.push(sample);
        if self.samples.len() > SAMPLES_MAX {
            // The newest stays, unless all others are fresh and it is not; of
            // equally severe ones the oldest goes.
            let worth = |(place, sample): &(usize, &Sample)| {
                let is_newest = *place == SAMPLES_MAX;
                (sample.fresh > 0, is_newest, sample.severity)
            };
            if let Some((place, _)) = self.samples.iter().enumerate().min_by_key(worth) {
                self.samples.remove(place);
            }
        }
    }

    /// For each of the messages, how many fresh ones it stands for.
    pub(super) fn fresh(&self) -> Vec<u64> {
        self.samples.iter().map(|sample| sample.fresh).collect()
    }

    /// Bytes that they take in a message.
    pub(super) fn bytes(&self) -> usize {
        self.samples.iter().map(|sample| sample.bytes).sum()
    }

    /// The samples as messages, oldest first.
    pub(super) fn messages(&self) -> Vec<v1::Finding> {
        self.samples.iter().map(|s| s.finding.clone()).collect()
    }
}

fn looks_alike(one: &v1::Finding, other: &v1::Finding) -> bool {
    let process = |finding: &v1::Finding| {
        let process = finding.process.as_ref();
        process.map(|p| (p.exe.clone(), p.cmdline.clone()))
    };
    one.user == other.user && process(one) == process(other)
}
