//! How the agent fares: gathered on one board, shown in every heartbeat and
//! in `status.json`.
//!
//! Promises: a degraded part is a note with a source, said once in the log
//! when it appears, and gone when the part works again.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use procwarden_common::clock::UnixMillis;
use procwarden_proto::v1;

use crate::events::EventCounts;
use crate::progress::Progress;
use crate::scan::ScanStats;
use crate::spool::Figures;

mod usage;

pub(crate) use usage::Usage;
use usage::{CpuMeter, own_cpu_us, own_usage};

/// Notes in one heartbeat.
const NOTES_MAX: usize = 32;
const NOTE_CHARS_MAX: usize = 500;

/// A part of the agent that can be degraded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    OpenFiles,
    Scan,
    Scanner,
    Pace,
    Events,
    Spool,
    Reported,
    Evidence,
    Hits,
    Policy,
    SlowRules,
    Certificate,
}

/// The link to the collector.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Link {
    /// Since when the stream stands; nothing while it does not.
    pub(crate) connected_since: Option<UnixMillis>,
    /// Why the newest attempt or stream ended.
    pub(crate) last_error: Option<String>,
}

/// What is known at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Health {
    pub(crate) scans: u64,
    pub(crate) last_scan_at: Option<UnixMillis>,
    pub(crate) last_scan: ScanStats,
    pub(crate) read_errors: u64,
    /// System calls that scans and looks did not need.
    pub(crate) syscalls_skipped: u64,
    /// Between two scans, as it is now.
    pub(crate) scan_interval: Duration,
    pub(crate) reported: u64,
    pub(crate) events: EventCounts,
    pub(crate) spool: Figures,
    pub(crate) policy: v1::PolicyState,
    pub(crate) link: Link,
    /// What the agent uses at this moment.
    pub(crate) usage: Usage,
    notes: BTreeMap<Part, Vec<String>>,
}

/// Where every part writes how it fares.
#[derive(Debug)]
pub(crate) struct Board {
    health: Mutex<Health>,
    cpu: Mutex<CpuMeter>,
    /// Whether the agent's loops get anywhere.
    pub(crate) progress: Progress,
}

impl Default for Board {
    fn default() -> Self {
        Self {
            health: Mutex::default(),
            cpu: Mutex::new(CpuMeter::new(Instant::now(), own_cpu_us())),
            progress: Progress::default(),
        }
    }
}

impl Board {
    /// What is known now, and what the agent uses.
    pub(crate) fn snapshot(&self) -> Health {
        let usage = {
            let mut meter = self.cpu.lock().unwrap_or_else(PoisonError::into_inner);
            own_usage(&mut meter, Instant::now())
        };
        Health {
            usage,
            ..self.lock().clone()
        }
    }

    /// Changes what is known.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Health)) {
        change(&mut self.lock());
    }

    /// Between two scans, as it is now.
    pub(crate) fn scan_interval(&self) -> Duration {
        self.lock().scan_interval
    }

    /// Replaces the notes of a part; says in the log what is new.
    pub(crate) fn set_notes(&self, part: Part, notes: Vec<String>) {
        let old = if notes.is_empty() {
            self.lock().notes.remove(&part)
        } else {
            self.lock().notes.insert(part, notes.clone())
        };
        let old = old.unwrap_or_default();
        for note in notes.iter().filter(|note| !old.contains(note)) {
            tracing::warn!(note, "The agent is degraded.");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Health> {
        // Every change leaves whole values behind, a panicking one too.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Health {
    /// Every note, bounded.
    pub(crate) fn notes(&self) -> Vec<String> {
        let bounded = |note: &String| note.chars().take(NOTE_CHARS_MAX).collect();
        self.notes
            .values()
            .flatten()
            .take(NOTES_MAX)
            .map(bounded)
            .collect()
    }

    /// The message for the collector.
    pub(crate) fn message(&self) -> v1::AgentHealth {
        v1::AgentHealth {
            scans: self.scans,
            processes: self.last_scan.processes,
            last_scan_us: self.last_scan.wall_us,
            read_errors: self.read_errors,
            spool_events: self.spool.events,
            spool_bytes: self.spool.bytes,
            spool_dropped: self.spool.dropped,
            rss_bytes: self.usage.rss_bytes,
            cpu_us: self.usage.cpu_us,
            cpu_share_ppm: self.usage.cpu_share_ppm,
            cpu_recent_ppm: self.usage.cpu_recent_ppm,
            last_scan_cpu_us: self.last_scan.cpu_us,
            syscalls_skipped: self.syscalls_skipped,
            scan_interval_s: self.scan_interval.as_secs(),
            notes: self.notes(),
            events_on: self.events.is_on,
            events_seen: self.events.seen,
            looks: self.events.looks,
            events_skipped: self.events.skipped,
            event_overflows: self.events.overflows,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_stays_until_its_part_works_again() {
        let board = Board::default();
        board.set_notes(Part::Spool, vec!["full disk".into()]);
        board.set_notes(Part::Scan, vec!["a".into(), "b".into()]);
        assert_eq!(board.snapshot().notes(), ["a", "b", "full disk"]);
        board.set_notes(Part::Scan, vec![]);
        assert_eq!(board.snapshot().notes(), ["full disk"]);
    }

    #[test]
    fn notes_are_bounded() {
        let board = Board::default();
        board.set_notes(Part::Scan, vec!["x".repeat(9999); 99]);
        let notes = board.snapshot().notes();
        assert_eq!((notes.len(), notes[0].len()), (NOTES_MAX, NOTE_CHARS_MAX));
    }
}
