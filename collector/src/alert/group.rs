//! Gathers findings into alerts: the findings of one wait window are one mail
//! per destination. Pure: time, records and configuration come in, entries for
//! the ledger go out.
//!
//! The first pending finding opens a window of `group_wait`; what arrives
//! meanwhile joins it. A destination that had `max_per_hour` mails within an
//! hour is held: its findings wait for one larger mail, the others go on.
//!
//! Promises: every alertable finding is in exactly one alert per destination
//! that it matches, whatever the order of time and wherever the process is
//! killed. The ledger's cursor never passes a finding that still waits, and an
//! alert's id says how far its recipients are served ([`AlertId::upto`]), so
//! what is read again after a crash is not queued again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use procwarden_common::clock::UnixMillis;
use procwarden_common::id::FindingId;
use procwarden_proto::v1;
use sha2::{Digest, Sha256};

use super::route::{Destination, Recipients};
use crate::findings::Recorded;
use crate::journal::Position;
use crate::ledger::state::AlertState;

#[cfg(test)]
mod tests;

/// Findings of one alert. A window that holds so many closes at once, even
/// beyond `max_per_hour`: memory and the ledger's records stay bounded.
pub(crate) const ALERT_FINDINGS_MAX: usize = 5_000;

/// Findings of all alerts of one ledger entry; the rest goes into the next.
const ENTRY_FINDINGS_MAX: usize = 20_000;

/// Bytes that the cursor may lag behind while nothing is queued: bounds what a
/// restart after a crash reads again.
const CURSOR_LAG_BYTES_MAX: u64 = 64 * 1024 * 1024;

const HOUR_MILLIS: i64 = 3_600_000;

/// When windows close.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// How long a window stays open.
    pub(crate) group_wait: Duration,
    /// Mails per destination and hour; 0 counts as 1.
    pub(crate) max_per_hour: u32,
}

/// Id of an alert: the position behind its last finding, then eight bytes of a
/// SHA-256 over recipients and findings. The same window gives the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AlertId([u8; 16]);

impl AlertId {
    fn derive(to: &Recipients, window: &Window) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"procwarden alert v1\0");
        for address in to {
            hash.update(address.as_bytes());
            hash.update(b"\0");
        }
        hash.update(window.first.0.to_be_bytes());
        for id in &window.findings {
            hash.update(id.as_bytes());
        }
        let mut id = [0; 16];
        let bytes = window
            .behind_last
            .0
            .to_be_bytes()
            .into_iter()
            .chain(hash.finalize());
        for (to, from) in id.iter_mut().zip(bytes) {
            *to = from;
        }
        Self(id)
    }

    /// Findings before this position are dealt with for the recipients.
    pub(crate) fn upto(id: &[u8; 16]) -> Position {
        Position(
            id.iter()
                .take(8)
                .fold(0, |sum, byte| (sum << 8) | u64::from(*byte)),
        )
    }
}

/// Findings of one destination that wait for their mail.
#[derive(Debug)]
struct Window {
    opened_at: UnixMillis,
    /// Position of the first finding, and the one behind the last.
    first: Position,
    behind_last: Position,
    findings: Vec<FindingId>,
    seen: BTreeSet<FindingId>,
}

impl Window {
    fn is_full(&self) -> bool {
        self.findings.len() >= ALERT_FINDINGS_MAX
    }
}

/// What is known of a destination besides its open window.
#[derive(Debug, Default)]
struct Served {
    /// Findings before this position are in alerts already.
    upto: Position,
    /// When its mails of the last hour were queued, oldest first.
    queued_at: Vec<UnixMillis>,
}

/// The gathering of findings into alerts.
#[derive(Debug)]
pub(crate) struct Grouper {
    /// The position behind the last record that was looked at.
    considered: Position,
    /// The cursor that the ledger holds.
    written: Position,
    open: BTreeMap<Recipients, Window>,
    served: BTreeMap<Recipients, Served>,
}

impl Grouper {
    /// Goes on where the ledger says that the last process came to, but not
    /// behind `end` of the journal: where that was lost or put back from a
    /// backup, what comes now is new whatever the ledger says.
    pub(crate) fn resume(state: &AlertState, end: Position) -> Self {
        let considered = state.upto.min(end);
        let mut served: BTreeMap<Recipients, Served> = BTreeMap::new();
        for alert in state.alerts.values() {
            let entry = served.entry(alert.to.clone()).or_default();
            let upto = AlertId::upto(&alert.id);
            if upto <= end {
                entry.upto = entry.upto.max(upto);
            }
            entry.queued_at.push(alert.queued_at);
        }
        for entry in served.values_mut() {
            entry.queued_at.sort();
        }
        Self {
            considered,
            written: considered,
            open: BTreeMap::new(),
            served,
        }
    }

    /// Looks at one record. `groups` are those of its host.
    pub(crate) fn consider(
        &mut self,
        now: UnixMillis,
        limits: Limits,
        recorded: &Recorded,
        groups: &[String],
        destinations: &[Destination],
    ) {
        self.considered = self.considered.max(recorded.next);
        let Some(severity) = recorded.severity().filter(|_| recorded.alertable) else {
            return;
        };
        for destination in destinations.iter().filter(|d| d.covers(groups, severity)) {
            let served = self
                .served
                .get(&destination.to)
                .map_or(Position(0), |s| s.upto);
            if recorded.position >= served {
                self.add(now, limits, &destination.to, recorded);
            }
        }
    }

    fn add(&mut self, now: UnixMillis, limits: Limits, to: &Recipients, recorded: &Recorded) {
        // Windows that are still waiting close together, in one ledger entry.
        let waiting = |w: &&Window| w.opened_at <= now && now < closes_at(w, limits);
        let opened_at = self
            .open
            .values()
            .filter(waiting)
            .map(|w| w.opened_at)
            .min()
            .unwrap_or(now);
        let window = self.open.entry(to.clone()).or_insert_with(|| Window {
            opened_at,
            first: recorded.position,
            behind_last: recorded.next,
            findings: Vec::new(),
            seen: BTreeSet::new(),
        });
        window.behind_last = window.behind_last.max(recorded.next);
        if window.seen.insert(recorded.id) {
            window.findings.push(recorded.id);
        }
    }

    /// When the next window closes, if one is open.
    pub(crate) fn due_at(&self, now: UnixMillis, limits: Limits) -> Option<UnixMillis> {
        self.open
            .iter()
            .map(|(to, window)| self.window_due_at(now, limits, to, window))
            .min()
    }

    fn window_due_at(
        &self,
        now: UnixMillis,
        limits: Limits,
        to: &Recipients,
        window: &Window,
    ) -> UnixMillis {
        // A clock that was set back must not keep a window open for long.
        if window.is_full() || window.opened_at > now {
            return now;
        }
        let allowed_at = self
            .served
            .get(to)
            .map_or(now, |s| s.allowed_at(now, limits));
        closes_at(window, limits).max(allowed_at)
    }

    /// Closes the windows whose time has come: the entry for the ledger, which
    /// must be committed before anything else is asked of the grouper. Call
    /// again until there is nothing left to close.
    pub(crate) fn close_due(
        &mut self,
        now: UnixMillis,
        limits: Limits,
    ) -> Option<v1::AlertsQueued> {
        let due: Vec<Recipients> = self
            .open
            .iter()
            .filter(|(to, window)| self.window_due_at(now, limits, to, window) <= now)
            .map(|(to, _)| to.clone())
            .collect();
        let mut alerts = Vec::new();
        let mut findings = 0;
        for to in due {
            if findings >= ENTRY_FINDINGS_MAX {
                break;
            }
            let Some(window) = self.open.remove(&to) else {
                continue;
            };
            findings += window.findings.len();
            alerts.push(self.alert(now, to, &window));
        }
        (!alerts.is_empty()).then(|| self.entry(alerts))
    }

    fn alert(&mut self, now: UnixMillis, to: Recipients, window: &Window) -> v1::Alert {
        let id = AlertId::derive(&to, window);
        let served = self.served.entry(to.clone()).or_default();
        served.upto = served.upto.max(window.behind_last);
        served
            .queued_at
            .retain(|at| at.plus_millis(HOUR_MILLIS) > now && *at <= now);
        served.queued_at.push(now);
        v1::Alert {
            id: id.0.to_vec().into(),
            to,
            finding_ids: window
                .findings
                .iter()
                .map(|id| id.as_bytes().to_vec().into())
                .collect(),
            expiring: Vec::new(),
        }
    }

    fn entry(&mut self, alerts: Vec<v1::Alert>) -> v1::AlertsQueued {
        self.written = self.cursor();
        v1::AlertsQueued {
            upto_position: self.written.0,
            alerts,
        }
    }

    /// An entry with mails that are about no findings.
    pub(crate) fn others(&mut self, alerts: Vec<v1::Alert>) -> v1::AlertsQueued {
        self.entry(alerts)
    }

    /// No finding before this position waits.
    fn cursor(&self) -> Position {
        self.open
            .values()
            .map(|window| window.first)
            .min()
            .unwrap_or(self.considered)
    }

    /// An entry that only moves the cursor, when the ledger's lags far behind.
    pub(crate) fn catch_up(&mut self) -> Option<v1::AlertsQueued> {
        let lag_bytes = self.cursor().0.saturating_sub(self.written.0);
        (lag_bytes > CURSOR_LAG_BYTES_MAX).then(|| self.entry(Vec::new()))
    }

    /// The last entry before the process ends, when the cursor moved. Open
    /// windows stay in the journal, before the cursor.
    pub(crate) fn finish(&mut self) -> Option<v1::AlertsQueued> {
        (self.cursor() > self.written).then(|| self.entry(Vec::new()))
    }
}

impl Served {
    /// When the next mail is allowed; `now` or earlier means at once.
    fn allowed_at(&self, now: UnixMillis, limits: Limits) -> UnixMillis {
        let max = usize::try_from(limits.max_per_hour)
            .unwrap_or(usize::MAX)
            .max(1);
        let recent: Vec<UnixMillis> = self
            .queued_at
            .iter()
            .copied()
            .filter(|at| at.plus_millis(HOUR_MILLIS) > now && *at <= now)
            .collect();
        let blocking = recent
            .len()
            .checked_sub(max)
            .and_then(|index| recent.get(index));
        blocking.map_or(now, |at| at.plus_millis(HOUR_MILLIS))
    }
}

fn closes_at(window: &Window, limits: Limits) -> UnixMillis {
    let wait_millis = i64::try_from(limits.group_wait.as_millis()).unwrap_or(i64::MAX);
    window.opened_at.plus_millis(wait_millis)
}
