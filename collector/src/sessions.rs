//! Which hosts are connected, and what each last said of itself.
//!
//! Promises: one live session per host: a newer one replaces the older; a
//! session that is told to end is forgotten at once, whatever its peer does.
//! Holds one small entry per enrolled host that ever connected since the
//! collector started, never more: only sessions whose host the ledger knows
//! get a seat.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use procwarden_common::clock::UnixMillis;
use procwarden_common::id::{BootId, HostId};
use procwarden_proto::v1;
use tokio::sync::{Notify, watch};

use crate::policy::RuleHits;

/// The shared registry; cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Sessions {
    registry: Arc<Mutex<Registry>>,
    rule_hits: RuleHits,
}

/// What is known of a host's session; it stays known after a disconnect.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SessionInfo {
    pub(crate) connected: bool,
    /// As the host calls itself now; printable.
    pub(crate) host_name: String,
    pub(crate) agent_version: String,
    pub(crate) kernel: String,
    pub(crate) boot_id: BootId,
    /// By the collector's clock; a hello counts as one.
    pub(crate) last_heartbeat: Option<UnixMillis>,
    pub(crate) policy: v1::PolicyState,
    pub(crate) health: Option<v1::AgentHealth>,
    /// Since it connected.
    pub(crate) held_back: v1::HeldBack,
}

/// Why a session was told to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cut {
    /// A newer connection of the same host took the seat.
    Replaced,
    /// An operator's decision, in words.
    Disconnected(String),
}

#[derive(Default)]
struct Registry {
    entries: HashMap<HostId, Entry>,
    /// Entries with a live session.
    connected: usize,
    seats: u64,
}

struct Entry {
    info: SessionInfo,
    live: Option<Live>,
    trial: Trial,
}

/// Since when a host scans under what it runs.
#[derive(Default)]
struct Trial {
    applied: Vec<v1::AppliedPolicy>,
    /// Scans that its agent had counted when it first said so.
    scans_before: Option<u64>,
}

/// The registry's end of a live session.
struct Live {
    seat: u64,
    cut: watch::Sender<Option<Cut>>,
    scan_now: Arc<Notify>,
}

/// The session's end: dropping it leaves the registry.
pub(crate) struct Seat {
    sessions: Sessions,
    host_id: HostId,
    number: u64,
    cut: watch::Receiver<Option<Cut>>,
    scan_now: Arc<Notify>,
    /// Boot id of the live session that this one replaced.
    pub(crate) replaced: Option<BootId>,
}

// === impl Sessions ===

impl Sessions {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// What is known of a host; nothing before its first session.
    pub(crate) fn get(&self, host: HostId) -> Option<SessionInfo> {
        self.lock()
            .entries
            .get(&host)
            .map(|entry| entry.info.clone())
    }

    /// Hosts that said, when they were last heard of, that they run this
    /// revision of a policy, and have scanned under it.
    fn scanned_under(&self, policy: &str, revision: u64) -> HashSet<HostId> {
        let is_it = |p: &v1::AppliedPolicy| p.name == policy && p.revision == revision;
        let registry = self.lock();
        let entries = registry.entries.iter();
        entries
            .filter(|(_, entry)| entry.info.policy.applied.iter().any(is_it))
            .filter(|(_, entry)| entry.trial.is_over(entry.info.health.as_ref()))
            .map(|(host, _)| *host)
            .collect()
    }

    /// Those of them that have told all that their rules ignored: what rules
    /// did not ignore there, they did not match.
    pub(crate) fn judged_under(&self, policy: &str, revision: u64) -> HashSet<HostId> {
        let mut hosts = self.scanned_under(policy, revision);
        hosts.retain(|host| self.rule_hits.has_told_all(*host));
        hosts
    }

    /// What the hosts said that their rules ignored.
    pub(crate) const fn rule_hits(&self) -> &RuleHits {
        &self.rule_hits
    }

    /// Hosts with a live session.
    pub(crate) fn connected_count(&self) -> usize {
        self.lock().connected
    }

    /// Hosts that had a session since the collector started.
    pub(crate) fn known_count(&self) -> usize {
        self.lock().entries.len()
    }

    /// Ends the session of a host, if it has one.
    pub(crate) fn disconnect(&self, host: HostId, reason: &str) {
        let mut registry = self.lock();
        if let Some(entry) = registry.entries.get_mut(&host) {
            entry.info.connected = false;
            if let Some(live) = entry.live.take() {
                registry.connected -= 1;
                live.cut
                    .send_replace(Some(Cut::Disconnected(reason.to_owned())));
            }
        }
    }

    /// Asks a host to scan; false when it is not connected.
    pub(crate) fn scan_now(&self, host: HostId) -> bool {
        let registry = self.lock();
        let live = registry
            .entries
            .get(&host)
            .and_then(|entry| entry.live.as_ref());
        if let Some(live) = live {
            live.scan_now.notify_one();
        }
        live.is_some()
    }

    /// Takes the seat of a host, whose older session is told to end.
    pub(crate) fn open(&self, host_id: HostId, info: SessionInfo) -> Seat {
        let mut registry = self.lock();
        registry.seats += 1;
        let number = registry.seats;
        let (cut_sender, cut) = watch::channel(None);
        let scan_now = Arc::new(Notify::new());
        let live = Live {
            seat: number,
            cut: cut_sender,
            scan_now: Arc::clone(&scan_now),
        };
        let mut old = registry.entries.remove(&host_id);
        let trial = old.as_mut().map(|old| std::mem::take(&mut old.trial));
        let mut entry = Entry {
            info,
            live: Some(live),
            trial: trial.unwrap_or_default(),
        };
        entry.trial.note(&entry.info);
        registry.entries.insert(host_id, entry);
        if old.as_ref().is_none_or(|old| old.live.is_none()) {
            registry.connected += 1;
        }
        drop(registry);
        let replaced = old.and_then(|old| {
            let live = old.live?;
            live.cut.send_replace(Some(Cut::Replaced));
            Some(old.info.boot_id)
        });
        Seat {
            sessions: self.clone(),
            host_id,
            number,
            cut,
            scan_now,
            replaced,
        }
    }

    /// A panic elsewhere cannot leave an entry half written.
    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Seat ===

impl Seat {
    /// Notes a heartbeat; one that arrives after the seat was taken is of no
    /// interest any more.
    pub(crate) fn heartbeat(
        &self,
        at: UnixMillis,
        policy: v1::PolicyState,
        health: Option<v1::AgentHealth>,
    ) {
        self.update(|info| {
            info.last_heartbeat = Some(at);
            info.policy = policy;
            info.health = health;
        });
    }

    /// Notes what the host's rules ignored, unless the seat was taken.
    pub(crate) fn rule_hits(&self, at: UnixMillis, anew: bool, hits: Vec<v1::RuleHits>) {
        if self.is_taken() {
            return;
        }
        self.sessions.rule_hits.take(self.host_id, anew, hits, at);
    }

    /// Notes that a batch waited so long before it was taken.
    pub(crate) fn held_back(&self, waited: Duration) {
        let millis = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        self.update(|info| {
            info.held_back.batches += 1;
            info.held_back.millis = info.held_back.millis.saturating_add(millis);
        });
    }

    /// Resolves when the session has to end.
    pub(crate) async fn cut(&self) -> Cut {
        let mut cut = self.cut.clone();
        match cut.wait_for(Option::is_some).await {
            Ok(cut) => cut.clone().unwrap_or(Cut::Replaced),
            // The registry dropped its end without a word: only a newer
            // session does that.
            Err(_) => Cut::Replaced,
        }
    }

    /// Resolves when an operator wants a scan.
    pub(crate) async fn scan_wanted(&self) {
        self.scan_now.notified().await;
    }

    fn is_taken(&self) -> bool {
        let mut is_ours = false;
        self.update(|_| is_ours = true);
        !is_ours
    }

    fn update(&self, change: impl FnOnce(&mut SessionInfo)) {
        let mut registry = self.sessions.lock();
        if let Some(entry) = registry.entries.get_mut(&self.host_id)
            && entry
                .live
                .as_ref()
                .is_some_and(|live| live.seat == self.number)
        {
            change(&mut entry.info);
            entry.trial.note(&entry.info);
        }
    }
}

// === impl Trial ===

/// Scans that end an agent's trial: one that was under way when the policy was
/// applied, and one under it from its beginning.
const TRIAL_SCANS: u64 = 2;

impl Trial {
    /// Begins anew with every other policy. An agent that was started again
    /// counts its scans from nothing.
    fn note(&mut self, info: &SessionInfo) {
        if self.applied != info.policy.applied {
            self.applied.clone_from(&info.policy.applied);
            self.scans_before = None;
        }
        if let Some(health) = &info.health {
            let before = self.scans_before.unwrap_or(health.scans);
            self.scans_before = Some(before.min(health.scans));
        }
    }

    fn is_over(&self, health: Option<&v1::AgentHealth>) -> bool {
        let (Some(health), Some(before)) = (health, self.scans_before) else {
            return false;
        };
        health.scans >= before.saturating_add(TRIAL_SCANS)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut registry = self.sessions.lock();
        if let Some(entry) = registry.entries.get_mut(&self.host_id)
            && entry
                .live
                .as_ref()
                .is_some_and(|live| live.seat == self.number)
        {
            entry.live = None;
            entry.info.connected = false;
            registry.connected -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn host() -> HostId {
        HostId::from_uuid(Uuid::from_u128(1))
    }

    fn info(boot: u128) -> SessionInfo {
        SessionInfo {
            connected: true,
            host_name: "web1".into(),
            agent_version: "0.1.0".into(),
            kernel: "6.1".into(),
            boot_id: BootId::from_uuid(Uuid::from_u128(boot)),
            last_heartbeat: Some(UnixMillis(1)),
            policy: v1::PolicyState::default(),
            health: None,
            held_back: v1::HeldBack::default(),
        }
    }

    #[tokio::test]
    async fn a_newer_session_replaces_the_older_and_the_older_leaves_no_trace() {
        let sessions = Sessions::new();
        let old = sessions.open(host(), info(1));
        assert_eq!(old.replaced, None);
        let new = sessions.open(host(), info(2));
        assert_eq!(new.replaced, Some(info(1).boot_id));
        assert_eq!(old.cut().await, Cut::Replaced);
        old.heartbeat(UnixMillis(99), v1::PolicyState::default(), None);
        drop(old);
        let known = sessions.get(host()).unwrap();
        assert!(known.connected);
        assert_eq!(known.last_heartbeat, Some(UnixMillis(1)));
        assert_eq!(sessions.connected_count(), 1);
    }

    #[test]
    fn a_host_scanned_under_what_it_said_last_also_while_it_is_away() {
        let sessions = Sessions::new();
        let applied = |name: &str, revision| v1::AppliedPolicy {
            name: name.into(),
            revision,
        };
        let state = |applied| v1::PolicyState {
            applied,
            ..v1::PolicyState::default()
        };
        let scans = |scans| {
            Some(v1::AgentHealth {
                scans,
                ..v1::AgentHealth::default()
            })
        };
        let seat = sessions.open(host(), info(1));
        let runs = || !sessions.scanned_under("web", 1).is_empty();
        assert!(!runs(), "nothing was heard");
        let both = state(vec![applied("web", 1), applied("default", 4)]);
        seat.heartbeat(UnixMillis(2), both.clone(), None);
        for (count, is_over) in [(7, false), (8, false), (9, true), (1, false), (3, true)] {
            seat.heartbeat(UnixMillis(2), both.clone(), scans(count));
            assert_eq!(runs(), is_over, "{count}");
        }
        seat.heartbeat(UnixMillis(3), state(vec![applied("web", 1)]), scans(4));
        assert!(!runs(), "other policies may hide what this one would");
        seat.heartbeat(UnixMillis(4), both.clone(), scans(5));
        seat.heartbeat(UnixMillis(5), both, scans(7));
        drop(seat);
        for (name, revision, runs) in [
            ("web", 1, true),
            ("default", 4, true),
            ("web", 4, false),
            ("web", 2, false),
            ("db", 1, false),
        ] {
            let running = sessions.scanned_under(name, revision);
            assert_eq!(running.contains(&host()), runs, "{name} r{revision}");
        }
    }

    #[tokio::test]
    async fn a_disconnect_counts_at_once_and_says_why() {
        let sessions = Sessions::new();
        let seat = sessions.open(host(), info(1));
        sessions.disconnect(host(), "the host was revoked");
        assert_eq!(sessions.connected_count(), 0);
        assert!(!sessions.get(host()).unwrap().connected);
        assert!(!sessions.scan_now(host()));
        assert_eq!(
            seat.cut().await,
            Cut::Disconnected("the host was revoked".into())
        );
    }

    #[tokio::test]
    async fn a_scan_is_asked_for_where_someone_listens() {
        let sessions = Sessions::new();
        assert!(!sessions.scan_now(host()));
        let seat = sessions.open(host(), info(1));
        assert!(sessions.scan_now(host()));
        seat.scan_wanted().await;
        drop(seat);
        assert!(!sessions.scan_now(host()));
        assert!(!sessions.get(host()).unwrap().connected);
    }
}
