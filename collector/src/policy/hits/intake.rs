//! What an agent says about its rules, made fit to keep. Pure.
//!
//! Promises: bounded in every part, and copied out of the message, so that a
//! small count never keeps a large buffer alive; what makes no sense is left
//! out.

use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::Finding;
use procwarden_common::policy::RuleId;
use procwarden_common::severity::Severity;
use procwarden_common::wire::severity_from_wire;
use procwarden_proto::v1;
use prost::Message as _;

/// Rules of one heartbeat; an agent's has fewer.
const MESSAGES_MAX: usize = 1_024;

/// Samples of one rule of one host.
const SAMPLES_MAX: usize = 3;

/// What one rule ignored on one host.
#[derive(Debug, Clone)]
pub(super) struct HostRule {
    pub(super) processes: u64,
    pub(super) severe: u64,
    pub(super) first: UnixMillis,
    pub(super) last: UnixMillis,
    pub(super) last_severe: Option<UnixMillis>,
    /// What was severe and newly hidden: how many times, and the worst of it.
    pub(super) fresh: u64,
    pub(super) worst_fresh: Option<Severity>,
    pub(super) samples: Vec<Packed>,
}

/// A sample in as little space as it takes: few are ever looked at.
#[derive(Debug, Clone)]
pub(super) struct Packed {
    pub(super) severity: Severity,
    pub(super) at: UnixMillis,
    /// How many fresh ones it stands for.
    pub(super) fresh: u64,
    encoded: Box<[u8]>,
}

/// What makes sense of a heartbeat; and whether everything did and fitted.
pub(super) fn read(
    messages: Vec<v1::RuleHits>,
    now: UnixMillis,
) -> (Vec<(RuleId, HostRule)>, bool) {
    let said = messages.len();
    let heard: Vec<_> = messages
        .into_iter()
        .take(MESSAGES_MAX)
        .filter_map(|message| Some((RuleId::from_slice(&message.rule_id)?, rule(message, now))))
        .collect();
    let complete = heard.len() == said;
    (heard, complete)
}

fn rule(message: v1::RuleHits, now: UnixMillis) -> HostRule {
    // A host whose clock is ahead does not ignore in the future.
    let time = |millis: i64| UnixMillis(millis.clamp(0, now.0));
    let fresh = message.fresh_of_samples.into_iter();
    let fresh = fresh.chain(std::iter::repeat(0));
    let samples = message.samples.into_iter().take(SAMPLES_MAX).zip(fresh);
    HostRule {
        processes: message.processes,
        severe: message.severe.min(message.processes),
        first: time(message.first_ms),
        last: time(message.last_ms),
        last_severe: (message.last_severe_ms != 0).then(|| time(message.last_severe_ms)),
        fresh: message.fresh,
        worst_fresh: severity_from_wire(message.worst_fresh).ok(),
        samples: samples
            .filter_map(|(sample, fresh)| Packed::of(sample, fresh, now))
            .collect(),
    }
}

impl HostRule {
    /// Bytes of its samples.
    pub(super) fn sample_bytes(&self) -> usize {
        self.samples.iter().map(|sample| sample.encoded.len()).sum()
    }

    pub(super) fn drop_samples(&mut self) {
        self.samples = Vec::new();
    }
}

impl Packed {
    /// Nothing when it is out of bounds. What an agent should have cut is cut
    /// here.
    fn of(message: v1::Finding, fresh: u64, now: UnixMillis) -> Option<Self> {
        let finding = Finding::try_from(message).ok()?.sample();
        Some(Self {
            severity: finding.severity(),
            at: finding.observed_at.min(now),
            fresh,
            encoded: v1::Finding::from(&finding)
                .encode_to_vec()
                .into_boxed_slice(),
        })
    }

    /// The finding; it was well when it was packed.
    pub(super) fn unpack(&self) -> Option<Finding> {
        v1::Finding::decode(&*self.encoded).ok()?.try_into().ok()
    }
}
