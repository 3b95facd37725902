//! The few processes that stand for all that a rule ignored. Pure.
//!
//! Kept are the newest one and the most severe ones, each look (account,
//! executable, command line) once: five hundred workers of one program are one
//! sample, and the miner among them another.

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
}

impl Samples {
    /// Takes a finding in; another one may have to go.
    pub(super) fn offer(&mut self, finding: &Finding, severity: Severity) {
        let finding = v1::Finding::from(&finding.sample());
        let bytes = finding.encoded_len();
        self.samples
            .retain(|sample| !looks_alike(&sample.finding, &finding));
        self.samples.push(Sample {
            severity,
            finding,
            bytes,
        });
        if self.samples.len() > SAMPLES_MAX {
            // The newest stays in any case; of equally severe ones the oldest goes.
            let older = self.samples.iter().take(SAMPLES_MAX).enumerate();
            if let Some((place, _)) = older.min_by_key(|(_, sample)| sample.severity) {
                self.samples.remove(place);
            }
        }
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
