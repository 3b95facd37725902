//! The counts on disk: `<state_dir>/hits`.
//!
//! `PWHITS01 | one message | crc32c: u32 LE`. Replaced whole, at most once a
//! minute: what an unclean end loses is counted again for processes that still
//! run. Promises: a damaged file is told, and the counts start anew.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::Finding;
use procwarden_common::id::BootId;
use procwarden_common::policy::RuleId;
use procwarden_common::process::ProcessKey;
use procwarden_common::severity::Severity;
use procwarden_common::wire::{severity_from_wire, severity_to_wire};
use procwarden_proto::v1;
use prost::Message;

use super::{Hits, LIVE_MAX, RULES_MAX, RuleCount, Samples, Whom};
use crate::files::{self, FileError};

const NAME: &str = "hits";
const MAGIC: &[u8; 8] = b"PWHITS01";

/// Between two writes: a flood of ignored processes is no flood of writes.
const WRITE_PAUSE: Duration = Duration::from_secs(60);

/// Live processes that are kept over a restart; others count once more.
const LIVE_KEPT_MAX: usize = 4_096;

#[derive(Clone, PartialEq, Message)]
struct Stored {
    #[prost(message, repeated, tag = "1")]
    rules: Vec<v1::RuleHits>,
    #[prost(message, repeated, tag = "2")]
    live: Vec<Live>,
}

/// One who counts already.
#[derive(Clone, PartialEq, Message)]
struct Live {
    #[prost(bytes = "vec", tag = "1")]
    rule_id: Vec<u8>,
    /// Empty for an account.
    #[prost(bytes = "vec", tag = "2")]
    boot_id: Vec<u8>,
    /// The uid of an account.
    #[prost(uint32, tag = "3")]
    pid: u32,
    #[prost(uint64, tag = "4")]
    start_time: u64,
    #[prost(enumeration = "v1::Severity", tag = "5")]
    severity: i32,
}

/// The file, and what it was last given.
#[derive(Debug)]
pub(crate) struct HitsFile {
    path: PathBuf,
    written_version: Option<u64>,
    written_at: Option<Instant>,
}

impl HitsFile {
    /// Reads the file; nothing is counted yet when there is none, or (third
    /// value true) when it is damaged.
    pub(crate) fn load(state_dir: &Path) -> Result<(Self, Hits, bool), FileError> {
        let path = state_dir.join(NAME);
        let (hits, damaged) = match files::read_if_there(&path)? {
            None => (Hits::default(), false),
            Some(bytes) => decode(&bytes).map_or((Hits::default(), true), |hits| (hits, false)),
        };
        let file = Self {
            path,
            written_version: (!damaged).then_some(hits.version),
            written_at: None,
        };
        Ok((file, hits, damaged))
    }

    /// Writes the counts if they changed and the last write is long enough ago.
    pub(crate) fn save_when_due(&mut self, hits: &Hits, now: Instant) -> Result<(), FileError> {
        let is_due = self
            .written_at
            .is_none_or(|at| now.duration_since(at) >= WRITE_PAUSE);
        if !is_due {
            return Ok(());
        }
        self.written_at = Some(now);
        self.save(hits)
    }

    /// Writes the counts if they changed.
    pub(crate) fn save(&mut self, hits: &Hits) -> Result<(), FileError> {
        if self.written_version == Some(hits.version) {
            return Ok(());
        }
        files::replace(&self.path, &encode(hits))?;
        self.written_version = Some(hits.version);
        Ok(())
    }
}

fn encode(hits: &Hits) -> Vec<u8> {
    let rules = hits.rules.iter();
    let live = hits.live.iter().take(LIVE_KEPT_MAX);
    let stored = Stored {
        rules: rules.map(|(rule, count)| count.message(*rule)).collect(),
        live: live
            .map(|((whom, rule), severity)| live_message(*whom, *rule, *severity))
            .collect(),
    };
    files::seal(MAGIC, &stored.encode_to_vec())
}

fn live_message(whom: Whom, rule: RuleId, severity: Severity) -> Live {
    let (boot_id, pid, start_time) = match whom {
        Whom::Process(key) => (key.boot_id.as_bytes().to_vec(), key.pid, key.start_time),
        Whom::Account(uid) => (Vec::new(), uid, 0),
    };
    Live {
        rule_id: rule.as_bytes().to_vec(),
        boot_id,
        pid,
        start_time,
        severity: severity_to_wire(severity).into(),
    }
}

fn decode(bytes: &[u8]) -> Option<Hits> {
    let stored = Stored::decode(files::unseal(MAGIC, bytes)?).ok()?;
    if stored.rules.len() > RULES_MAX || stored.live.len() > LIVE_MAX {
        return None;
    }
    let mut hits = Hits::default();
    for message in stored.rules {
        let rule = RuleId::from_slice(&message.rule_id)?;
        hits.version += 1;
        let count = count_of(message, hits.version)?;
        hits.sample_bytes += count.samples.bytes();
        hits.rules.insert(rule, count);
    }
    for live in stored.live {
        let rule = RuleId::from_slice(&live.rule_id)?;
        let severity = severity_from_wire(live.severity).ok()?;
        hits.live.insert((whom_of(&live)?, rule), severity);
    }
    Some(hits)
}

fn whom_of(live: &Live) -> Option<Whom> {
    if live.boot_id.is_empty() {
        return Some(Whom::Account(live.pid));
    }
    Some(Whom::Process(ProcessKey {
        boot_id: BootId::from_slice(&live.boot_id).ok()?,
        pid: live.pid,
        start_time: live.start_time,
    }))
}

fn count_of(message: v1::RuleHits, version: u64) -> Option<RuleCount> {
    let mut samples = Samples::default();
    let fresh = message.fresh_of_samples.into_iter();
    let fresh = fresh.chain(std::iter::repeat(0));
    for (sample, fresh) in message.samples.into_iter().zip(fresh) {
        // A sample is worth no count.
        if let Ok(finding) = Finding::try_from(sample) {
            samples.offer(&finding, finding.severity(), fresh);
        }
    }
    let last = UnixMillis(message.last_ms);
    Some(RuleCount {
        version,
        processes: message.processes,
        severe: message.severe,
        first: UnixMillis(message.first_ms),
        last,
        told: last,
        fresh: message.fresh,
        worst_fresh: severity_from_wire(message.worst_fresh).ok(),
        last_severe: (message.last_severe_ms != 0).then_some(UnixMillis(message.last_severe_ms)),
        samples,
    })
}
