//! What one rule ignored on several hosts. Pure.

use std::cmp::Reverse;

use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::Finding;
use procwarden_common::id::HostId;

use super::intake::{HostRule, Packed};

/// Samples of one rule over the fleet.
const SAMPLES_MAX: usize = 5;

/// Hosts named for one rule.
const HOSTS_NAMED_MAX: usize = 10;

/// The sum over the hosts that count.
#[derive(Debug, Clone, Default)]
pub(crate) struct RuleSum {
    /// Distinct processes, and accounts over a limit, since each host counts.
    pub(crate) processes: u64,
    /// Those of severity high or critical among them.
    pub(crate) severe: u64,
    pub(crate) hosts: u64,
    /// Those that ignored something most recently (bounded).
    pub(crate) host_ids: Vec<HostId>,
    pub(crate) first: Option<UnixMillis>,
    /// To the hour, while the same processes go on.
    pub(crate) last: Option<UnixMillis>,
    /// The most severe ones first, of those the newest (bounded).
    pub(crate) samples: Vec<HitSample>,
}

/// Something that a rule ignored, cut down as [`Finding::sample`] does.
#[derive(Debug, Clone)]
pub(crate) struct HitSample {
    pub(crate) host: HostId,
    pub(crate) finding: Finding,
}

/// A sum that grows host by host.
#[derive(Debug, Clone, Default)]
pub(super) struct Adding {
    sum: RuleSum,
    /// The worst first.
    samples: Vec<(HostId, Packed)>,
    /// The newest first.
    newest: Vec<(UnixMillis, HostId)>,
}

impl Adding {
    pub(super) fn add(&mut self, host: HostId, heard: &HostRule) {
        let sum = &mut self.sum;
        sum.processes = sum.processes.saturating_add(heard.processes);
        sum.severe = sum.severe.saturating_add(heard.severe);
        sum.hosts += 1;
        sum.first = Some(
            sum.first
                .map_or(heard.first, |first| first.min(heard.first)),
        );
        sum.last = sum.last.max(Some(heard.last));
        let place = self.newest.partition_point(|(last, _)| *last >= heard.last);
        insert(&mut self.newest, place, HOSTS_NAMED_MAX, || {
            (heard.last, host)
        });
        for sample in &heard.samples {
            let rank = |packed: &Packed| Reverse((packed.severity, packed.at));
            let place = self
                .samples
                .partition_point(|(_, kept)| rank(kept) <= rank(sample));
            insert(&mut self.samples, place, SAMPLES_MAX, || {
                (host, sample.clone())
            });
        }
    }

    pub(super) fn finish(&self) -> RuleSum {
        let unpack = |(host, packed): &(HostId, Packed)| {
            let (host, finding) = (*host, packed.unpack()?);
            Some(HitSample { host, finding })
        };
        RuleSum {
            host_ids: self.newest.iter().map(|(_, host)| *host).collect(),
            samples: self.samples.iter().filter_map(unpack).collect(),
            ..self.sum.clone()
        }
    }
}

/// Inserts in a list that never has more than `max`.
fn insert<T>(list: &mut Vec<T>, place: usize, max: usize, item: impl FnOnce() -> T) {
    if place < max {
        list.truncate(max - 1);
        list.insert(place, item());
    }
}
