//! A host, as objects and tables show it.
//!
//! Names, versions and notes come from the agents: each is printable here.

use procwarden_proto::v1;
use serde::Serialize;

use crate::json::{hex_unless_empty, shown, shown_all, shown_unless_empty, uuid_text, when};
use crate::status::mebibytes;
use crate::table::Table;

/// A host.
#[derive(Debug, Serialize)]
pub(super) struct HostObject {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) groups: Vec<String>,
    pub(super) state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) enrolled_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_heartbeat: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel: Option<String>,
    policy: PolicyObject,
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<HealthObject>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_not_after: Option<String>,
    pub(super) findings_open: u64,
    /// Batches that waited for room since the host connected, and how long
    /// they did together.
    held_back_batches: u64,
    held_back_ms: u64,
}

/// What the host runs, and what it should run.
#[derive(Debug, Serialize)]
struct PolicyObject {
    /// The host runs what it should run.
    current: bool,
    applied: Vec<Revision>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wanted: Option<Vec<Revision>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    applied_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wanted_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused_reason: Option<String>,
}

/// A revision of a policy.
#[derive(Debug, Serialize)]
pub(super) struct Revision {
    name: String,
    revision: u64,
}

/// How the agent is doing.
#[derive(Debug, Serialize)]
struct HealthObject {
    scans: u64,
    processes: u64,
    last_scan_us: u64,
    read_errors: u64,
    spool_events: u64,
    spool_bytes: u64,
    spool_dropped: u64,
    rss_bytes: u64,
    cpu_us: u64,
    cpu_share_ppm: u64,
    cpu_recent_ppm: u64,
    last_scan_cpu_us: u64,
    scan_interval_s: u64,
    syscalls_skipped: u64,
    events_on: bool,
    events_seen: u64,
    looks: u64,
    events_skipped: u64,
    event_overflows: u64,
    notes: Vec<String>,
}

impl From<&v1::HostInfo> for HostObject {
    fn from(info: &v1::HostInfo) -> Self {
        let held_back = info.held_back.unwrap_or_default();
        Self {
            id: uuid_text(&info.id),
            name: shown(&info.name),
            groups: shown_all(&info.groups),
            state: state_word(info.state()),
            enrolled_at: when(info.enrolled_at_ms),
            last_heartbeat: when(info.last_heartbeat_ms),
            agent_version: shown_unless_empty(&info.agent_version),
            kernel: shown_unless_empty(&info.kernel),
            policy: PolicyObject::new(info),
            health: info.health.as_ref().map(HealthObject::from),
            certificate_not_after: when(info.certificate_not_after_ms),
            findings_open: info.findings_open,
            held_back_batches: held_back.batches,
            held_back_ms: held_back.millis,
        }
    }
}

impl PolicyObject {
    fn new(info: &v1::HostInfo) -> Self {
        let state = info.policy.clone().unwrap_or_default();
        let refuses_wanted =
            !state.refused_hash.is_empty() && state.refused_hash == info.wanted_hash;
        Self {
            current: !info.wanted_hash.is_empty() && state.applied_hash == info.wanted_hash,
            applied: state
                .applied
                .iter()
                .map(|p| Revision {
                    name: shown(&p.name),
                    revision: p.revision,
                })
                .collect(),
            wanted: None,
            applied_hash: hex_unless_empty(&state.applied_hash),
            wanted_hash: hex_unless_empty(&info.wanted_hash),
            refused_reason: refuses_wanted.then(|| shown(&state.refused_reason)),
        }
    }
}

impl From<&v1::AgentHealth> for HealthObject {
    fn from(health: &v1::AgentHealth) -> Self {
        Self {
            scans: health.scans,
            processes: health.processes,
            last_scan_us: health.last_scan_us,
            read_errors: health.read_errors,
            spool_events: health.spool_events,
            spool_bytes: health.spool_bytes,
            spool_dropped: health.spool_dropped,
            rss_bytes: health.rss_bytes,
            cpu_us: health.cpu_us,
            cpu_share_ppm: health.cpu_share_ppm,
            cpu_recent_ppm: health.cpu_recent_ppm,
            last_scan_cpu_us: health.last_scan_cpu_us,
            scan_interval_s: health.scan_interval_s,
            syscalls_skipped: health.syscalls_skipped,
            events_on: health.events_on,
            events_seen: health.events_seen,
            looks: health.looks,
            events_skipped: health.events_skipped,
            event_overflows: health.event_overflows,
            notes: shown_all(&health.notes),
        }
    }
}

impl HostObject {
    /// The same host, with the revisions that it should run.
    pub(super) fn with_wanted(mut self, wanted: Vec<Revision>) -> Self {
        self.policy.wanted = Some(wanted);
        self
    }

    /// What the host runs, in a few words.
    pub(super) fn policy_words(&self) -> String {
        let applied = words_of(&self.policy.applied);
        if self.policy.refused_reason.is_some() {
            format!("{applied} (refused the newest)")
        } else if self.policy.current {
            applied
        } else {
            format!("{applied} (pending)")
        }
    }

    /// Everything, for `hosts show`.
    pub(super) fn table(&self) -> Table {
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
        let mut table = Table::list();
        table.fact("name", &self.name);
        table.fact("id", &self.id);
        table.fact("state", self.state);
        table.fact("groups", self.groups.join(" "));
        table.fact("enrolled", or_dash(&self.enrolled_at));
        table.fact("last heartbeat", or_dash(&self.last_heartbeat));
        table.fact("certificate until", or_dash(&self.certificate_not_after));
        table.fact("agent", or_dash(&self.agent_version));
        table.fact("kernel", or_dash(&self.kernel));
        table.fact("open findings", self.findings_open.to_string());
        table.fact("policy", self.policy_words());
        if let Some(wanted) = &self.policy.wanted {
            table.fact("should run", words_of(wanted));
        }
        if let Some(reason) = &self.policy.refused_reason {
            table.fact("refused because", reason);
        }
        if self.held_back_batches > 0 {
            let (batches, secs) = (self.held_back_batches, self.held_back_ms / 1000);
            table.fact(
                "held back",
                format!("{batches} batches, for {secs} s in all (the rest waits in its spool)"),
            );
        }
        if let Some(health) = &self.health {
            health.add_to(&mut table);
        }
        table
    }
}

impl HealthObject {
    fn add_to(&self, table: &mut Table) {
        table.fact(
            "scans",
            format!(
                "{}, one every {} s, the last one of {} processes in {} ms",
                self.scans,
                self.scan_interval_s,
                self.processes,
                self.last_scan_us / 1000
            ),
        );
        table.fact("read errors", self.read_errors.to_string());
        table.fact(
            "spool",
            format!("{} events, {} bytes", self.spool_events, self.spool_bytes),
        );
        if self.spool_dropped > 0 {
            table.fact(
                "events lost",
                format!("{} (the spool was full)", self.spool_dropped),
            );
        }
        table.fact("events", self.events_words());
        table.fact("agent's memory", mebibytes(self.rss_bytes));
        table.fact(
            "agent's CPU",
            format!(
                "{} of a processor, {} lately",
                percent(self.cpu_share_ppm),
                percent(self.cpu_recent_ppm)
            ),
        );
        for note in &self.notes {
            table.fact("note", note);
        }
    }
}

impl HealthObject {
    fn events_words(&self) -> String {
        if !self.events_on && self.events_seen == 0 {
            return "none: it scans at intervals only".into();
        }
        let lost = if self.events_skipped + self.event_overflows > 0 {
            format!(
                ", {} skipped, {} overflows",
                self.events_skipped, self.event_overflows
            )
        } else {
            String::new()
        };
        format!("{} seen, {} looks{lost}", self.events_seen, self.looks)
    }
}

/// Millionths as a percentage.
fn percent(ppm: u64) -> String {
    format!("{}.{:02} %", ppm / 10_000, ppm % 10_000 / 100)
}

/// The revision of a document that the host should run.
pub(super) fn revision_of(document: &v1::PolicyDocument) -> Revision {
    Revision {
        name: shown(&document.name),
        revision: document.revision,
    }
}

fn words_of(revisions: &[Revision]) -> String {
    if revisions.is_empty() {
        return "none".into();
    }
    let words = revisions
        .iter()
        .map(|r| format!("{} r{}", r.name, r.revision));
    words.collect::<Vec<_>>().join(" ")
}

const fn state_word(state: v1::HostState) -> &'static str {
    match state {
        v1::HostState::Enrolled => "enrolled",
        v1::HostState::Connected => "connected",
        v1::HostState::Away => "away",
        v1::HostState::Silent => "silent",
        v1::HostState::Revoked => "revoked",
        v1::HostState::Unspecified => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(applied_hash: &'static [u8], refused_hash: &'static [u8]) -> HostObject {
        HostObject::from(&v1::HostInfo {
            name: "web\u{1b}1".into(),
            wanted_hash: b"new".as_slice().into(),
            policy: Some(v1::PolicyState {
                applied_hash: applied_hash.into(),
                applied: vec![v1::AppliedPolicy {
                    name: "web".into(),
                    revision: 3,
                }],
                refused_hash: refused_hash.into(),
                refused_reason: "bad\npattern".into(),
            }),
            ..Default::default()
        })
    }

    #[test]
    fn the_policy_of_a_host_is_current_pending_or_refused() {
        assert_eq!(host(b"new", b"").policy_words(), "web r3");
        assert_eq!(host(b"old", b"").policy_words(), "web r3 (pending)");
        assert_eq!(
            host(b"old", b"new").policy_words(),
            "web r3 (refused the newest)"
        );
        assert_eq!(host(b"new", b"old").policy_words(), "web r3");
    }

    #[test]
    fn what_events_lost_is_said_where_they_lost_anything() {
        let words = |health: v1::AgentHealth| HealthObject::from(&health).events_words();
        let mut health = v1::AgentHealth::default();
        assert_eq!(words(health.clone()), "none: it scans at intervals only");
        (health.events_on, health.events_seen, health.looks) = (true, 9, 7);
        assert_eq!(words(health.clone()), "9 seen, 7 looks");
        health.events_skipped = 2;
        assert_eq!(words(health), "9 seen, 7 looks, 2 skipped, 0 overflows");
        assert_eq!(percent(123_456), "12.34 %");
    }

    #[test]
    fn what_an_agent_says_is_printable() {
        let host = host(b"old", b"new");
        assert_eq!(host.name, "web\\1b1");
        assert_eq!(host.policy.refused_reason.as_deref(), Some("bad\\npattern"));
    }
}
