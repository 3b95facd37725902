//! What rules ignored over the fleet: the counts that agents hold, kept per
//! host and added up when somebody asks.
//!
//! In memory only: every agent says all it knows on every new stream, so a
//! collector that was started again knows it as soon as its hosts are back.
//!
//! To ask: [`RuleHits::of_rules`] with the ids of rules ([`Rule::id`]) and the
//! hosts that count. A rule that is new in a revision has a new id, so what it
//! ignored since the revision is all it ever ignored.
//!
//! Promises: whatever agents send, memory is bounded per host and in all, and
//! texts are only handed out as [`Finding`]s, which are made printable where
//! they are shown. What did not fit is told by `too_low`. Never decides which
//! hosts exist: who asks says which ones count.
//!
//! [`Rule::id`]: procwarden_common::policy::Rule::id
//! [`Finding`]: procwarden_common::finding::Finding

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use procwarden_common::clock::UnixMillis;
use procwarden_common::id::HostId;
use procwarden_common::policy::RuleId;
use procwarden_proto::v1;

mod intake;
mod lately;
mod sum;
#[cfg(test)]
mod tests;

use intake::HostRule;
pub(crate) use lately::{HostHit, Mark, Marks};
pub(crate) use sum::{HitSample, RuleSum};

/// Rules of one host with counts; its agent keeps as many.
const HOST_RULES_MAX: usize = 2_048;

/// Bytes of the samples of one host; its agent keeps half of it.
const HOST_SAMPLE_BYTES_MAX: usize = 256 * 1024;

/// Bytes of rules in one heartbeat below which it had the last of what there
/// was to say on its stream: an agent fills 64 KiB and more is said in the next
/// heartbeat, so only one that was cut comes near to that.
const LAST_WORD_BYTES_MAX: usize = 32 * 1024;

/// Rules of all hosts together: some 200 MB of counts.
const FLEET_RULES_MAX: usize = 1_000_000;

/// Bytes of the samples of all hosts together.
const FLEET_SAMPLE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The shared counts; cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct RuleHits {
    table: Arc<Mutex<Table>>,
}

#[derive(Default)]
struct Table {
    hosts: HashMap<HostId, HostHits>,
    /// Of all hosts.
    rules: usize,
    sample_bytes: usize,
}

/// What one host said.
#[derive(Default)]
struct HostHits {
    rules: HashMap<RuleId, HostRule>,
    sample_bytes: usize,
    /// There was no room for everything it said.
    left_out: bool,
    /// It has said all it knew when its stream began, and what is missing here
    /// is nothing that it ignored.
    told_all: bool,
}

impl RuleHits {
    /// Takes in what a host's heartbeat says; `anew` when it is the first one
    /// of its stream.
    pub(crate) fn take(
        &self,
        host: HostId,
        anew: bool,
        messages: Vec<v1::RuleHits>,
        now: UnixMillis,
    ) {
        let bytes: usize = messages.iter().map(prost::Message::encoded_len).sum();
        let (heard, complete) = intake::read(messages, now);
        let mut table = self.lock();
        if anew {
            table.forget(host);
        }
        let hits = table.hosts.entry(host).or_default();
        hits.left_out |= !complete;
        hits.told_all |= bytes < LAST_WORD_BYTES_MAX;
        for (rule, counts) in heard {
            table.put(host, rule, counts);
        }
    }

    /// Adds up what these rules ignored on the hosts that count, in the order
    /// of the rules.
    pub(crate) fn of_rules(
        &self,
        rules: &[RuleId],
        counts: impl Fn(HostId) -> bool,
    ) -> Vec<RuleSum> {
        self.of_rules_since(rules, UnixMillis(0), counts)
    }

    /// The same, without the hosts on which a rule ignored nothing since then.
    /// Where it did, all that it ever ignored counts.
    pub(crate) fn of_rules_since(
        &self,
        rules: &[RuleId],
        since: UnixMillis,
        counts: impl Fn(HostId) -> bool,
    ) -> Vec<RuleSum> {
        let places: HashMap<RuleId, usize> = rules.iter().copied().zip(0..).collect();
        let mut sums = vec![sum::Adding::default(); rules.len()];
        let table = self.lock();
        let hosts = table.hosts.iter().filter(|(host, _)| counts(**host));
        for (host, hits) in hosts {
            let lately = hits.rules.iter().filter(|(_, heard)| heard.last >= since);
            for (rule, heard) in lately {
                if let Some(sum) = places.get(rule).and_then(|place| sums.get_mut(*place)) {
                    sum.add(*host, heard);
                }
            }
        }
        drop(table);
        let finished = |rule| {
            let sum = places.get(rule).and_then(|place| sums.get(*place));
            sum.map(sum::Adding::finish).unwrap_or_default()
        };
        rules.iter().map(finished).collect()
    }

    /// What these rules ignored, host by host, without what `is_known` says to
    /// know by how far the host's counts have come.
    pub(crate) fn by_host(
        &self,
        rules: &HashSet<RuleId>,
        counts: impl Fn(HostId) -> bool,
        is_known: impl Fn(RuleId, HostId, Mark) -> bool,
    ) -> Vec<HostHit> {
        let table = self.lock();
        let mut found = Vec::new();
        for (host, hits) in table.hosts.iter().filter(|(host, _)| counts(**host)) {
            let asked = hits.rules.iter().filter(|(rule, _)| rules.contains(rule));
            for (rule, heard) in asked {
                let mark = Mark::of(heard);
                if !is_known(*rule, *host, mark) {
                    found.push(HostHit::new(*rule, *host, heard, mark));
                }
            }
        }
        found
    }

    /// Whether a host has said all that its rules ignored.
    pub(crate) fn has_told_all(&self, host: HostId) -> bool {
        let table = self.lock();
        table.hosts.get(&host).is_some_and(|hits| hits.told_all)
    }

    /// Whether there was no room for all that one of the hosts that count said.
    pub(crate) fn too_low(&self, counts: impl Fn(HostId) -> bool) -> bool {
        let table = self.lock();
        let mut hosts = table.hosts.iter();
        hosts.any(|(host, hits)| hits.left_out && counts(*host))
    }

    /// Forgets a host that was shut out.
    pub(crate) fn forget(&self, host: HostId) {
        self.lock().forget(host);
    }

    /// A panic elsewhere cannot leave a host half written.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn forget(&mut self, host: HostId) {
        if let Some(hits) = self.hosts.remove(&host) {
            self.rules -= hits.rules.len();
            self.sample_bytes -= hits.sample_bytes;
        }
    }

    fn put(&mut self, host: HostId, rule: RuleId, mut counts: HostRule) {
        let hits = self.hosts.entry(host).or_default();
        if let Some(old) = hits.rules.remove(&rule) {
            hits.sample_bytes -= old.sample_bytes();
            self.sample_bytes -= old.sample_bytes();
            self.rules -= 1;
        }
        if hits.rules.len() >= HOST_RULES_MAX || self.rules >= FLEET_RULES_MAX {
            hits.left_out = true;
            return;
        }
        let bytes = counts.sample_bytes();
        if hits.sample_bytes + bytes > HOST_SAMPLE_BYTES_MAX
            || self.sample_bytes + bytes > FLEET_SAMPLE_BYTES_MAX
        {
            counts.drop_samples();
        }
        hits.sample_bytes += counts.sample_bytes();
        self.sample_bytes += counts.sample_bytes();
        self.rules += 1;
        hits.rules.insert(rule, counts);
    }
}
