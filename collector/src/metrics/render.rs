//! Puts the figures of one moment into a registry and writes it as text.
//!
//! Every name is listed here; dashboard and alert rules use no other.

use std::fmt;

use procwarden_common::clock::UnixMillis;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::fleet::{self, FleetFigures};
use super::{Meters, MetricsContext, resident_bytes};
use crate::findings::FindingsFigures;
use crate::hosts::Moment;

/// Label values need no escaping: see the module above.
type Labels = Vec<(&'static str, String)>;

/// The text of one scrape.
///
/// # Errors
/// Never in practice: writing to a string does not fail.
pub(super) fn text(context: &MetricsContext, now: UnixMillis) -> Result<String, fmt::Error> {
    let mut page = Page(Registry::with_prefix("procwarden"));
    page.collector(context, now);
    let figures = context.findings.figures();
    page.ingest(&context.meters, &figures);
    page.storage(context, &figures);
    page.alerts(context, now);
    let at = Moment {
        now,
        collector_started_at: context.started_at,
    };
    let sessions = &context.sessions;
    let hosts = context
        .ledger
        .read(|state| fleet::figures(state, |id| sessions.get(id), at));
    page.fleet(&hosts);
    let mut text = String::new();
    encode(&mut text, &page.0)?;
    Ok(text)
}

struct Page(Registry);

impl Page {
    fn collector(&mut self, context: &MetricsContext, now: UnixMillis) {
        let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        let words = "The version that serves";
        self.0.register("build", words, Info::new(version));
        let started = seconds(context.started_at.0);
        self.gauge("start_time_seconds", "When the collector started", started);
        self.gauge(
            "scrape_time_seconds",
            "The collector's clock",
            seconds(now.0),
        );
        let words = "Resident memory of the collector";
        self.gauge("resident_memory_bytes", words, resident_bytes() as f64);
        let words = "When the fleet's certificate authority ends";
        let ends = seconds(context.authority.not_after().0);
        self.gauge("ca_certificate_expiry_timestamp_seconds", words, ends);
        if let Some(ends) = context.authority.server_not_after() {
            let words = "When the collector's own certificate ends; it is renewed after 60 days";
            let name = "server_certificate_expiry_timestamp_seconds";
            self.gauge(name, words, seconds(ends.0));
        }
    }

    fn ingest(&mut self, meters: &Meters, figures: &FindingsFigures) {
        let words = "Events of agents that were read: new, grown and ended findings";
        self.count("events_received", words, meters.events.get());
        let words = "Events that the journal held already";
        self.count("events_duplicate", words, figures.duplicates);
        let words = "Ends of findings that nobody had reported";
        self.count("events_unknown_end", words, figures.unknown_ends);
        let words = "From the reading of a batch to its acknowledgement";
        self.times("ack_latency", words, meters.batches.clone());
        let words = "How long batches were held back, those alone that were";
        self.times("ingest_held_back", words, meters.waits.clone());
        let blocked = figures.held_back.is_some();
        let words = "1 while nothing is taken in because the disk has no room";
        self.gauge("ingest_blocked", words, f64::from(u8::from(blocked)));
        let words = "Findings in the history";
        self.gauge("findings", words, figures.findings as f64);
        let words = "Findings in the history that have not ended";
        self.gauge("findings_open", words, figures.findings_open as f64);
    }

    fn storage(&mut self, context: &MetricsContext, figures: &FindingsFigures) {
        let ledger = context.ledger.journal();
        let sizes = [
            ("findings", figures.journal_bytes),
            ("ledger", ledger.bytes()),
        ];
        let sizes = sizes.map(|(name, bytes)| (vec![("journal", name.to_owned())], bytes));
        self.family("journal_bytes", "Size of a journal on the disk", sizes);
        let damaged = [
            ("findings", figures.journal_damaged),
            ("ledger", ledger.damaged_records()),
        ];
        let damaged = damaged.map(|(name, places)| (vec![("journal", name.to_owned())], places));
        let words = "Damaged places of a journal that were met since the start";
        self.family("journal_damaged_places", words, damaged);
        let words = "How long fdatasync of the findings journal takes";
        self.times("journal_fsync", words, context.findings.journal().syncs());
        let words = "How long fdatasync of the ledger takes";
        self.times("ledger_fsync", words, ledger.syncs());
        let words = "Journal that the index does not hold yet";
        self.gauge("index_lag_bytes", words, figures.index_lag_bytes as f64);
    }

    fn alerts(&mut self, context: &MetricsContext, now: UnixMillis) {
        let end = context.findings.end().0;
        let (lag, waiting, oldest) = context.ledger.read(|state| {
            let unsent = || state.alerts.alerts.values().filter(|a| a.sent_at.is_none());
            let oldest = unsent().map(|alert| alert.queued_at).min();
            let lag = end.saturating_sub(state.alerts.upto.0);
            (lag, unsent().count(), oldest)
        });
        let words = "Findings journal that the alerts have not dealt with yet";
        self.gauge("alerts_lag_bytes", words, lag as f64);
        self.gauge(
            "outbox_alerts",
            "Alerts that wait to be sent",
            waiting as f64,
        );
        let age = oldest.map_or(0, |queued_at| now.millis_since(queued_at));
        let words = "Age of the oldest alert that waits to be sent; 0 without one";
        self.gauge("outbox_oldest_age_seconds", words, age as f64 / 1000.0);
        let failing = context.outbox.status().last_error.is_some();
        let words = "1 while the last attempt to send an alert has failed";
        self.gauge("outbox_failing", words, f64::from(u8::from(failing)));
    }

    fn fleet(&mut self, hosts: &FleetFigures) {
        let states = hosts.states.iter();
        let states = states.map(|(word, n)| (vec![("state", (*word).to_owned())], *n));
        self.family("hosts", "Enrolled hosts by state", states);
        let applied = hosts.applied.iter().map(|((policy, revision), n)| {
            let labels = vec![("policy", policy.clone()), ("revision", revision.clone())];
            (labels, *n)
        });
        let words = "Hosts that run a revision of a policy; old revisions count as 'other'";
        self.family("policy_applied_hosts", words, applied);
        let words = "Hosts that refused what they should run";
        self.gauge("policy_refused_hosts", words, hosts.refused as f64);
        let words =
            "Events that agents ever lost because their spools were full, by their last word";
        self.gauge("spool_dropped_events", words, hosts.spool_dropped as f64);
        let words = "Events that wait in the agents' spools, by their last word";
        self.gauge("spool_waiting_events", words, hosts.spool_events as f64);
        if let Some(ends) = hosts.first_certificate_end {
            let words = "When the first certificate of a host that is not revoked ends";
            let name = "host_certificate_first_expiry_timestamp_seconds";
            self.gauge(name, words, seconds(ends));
        }
    }

    fn gauge(&mut self, name: &str, words: &str, value: f64) {
        let gauge = Gauge::<f64, std::sync::atomic::AtomicU64>::default();
        gauge.set(value);
        self.0.register(name, words, gauge);
    }

    fn count(&mut self, name: &str, words: &str, value: u64) {
        self.0.register(name, words, ConstCounter::new(value));
    }

    fn times(&mut self, name: &str, words: &str, times: Histogram) {
        self.0.register_with_unit(name, words, Unit::Seconds, times);
    }

    fn family(&mut self, name: &str, words: &str, values: impl IntoIterator<Item = (Labels, u64)>) {
        let family = Family::<Labels, Gauge>::default();
        for (labels, value) in values {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            family.get_or_create(&labels).set(value);
        }
        self.0.register(name, words, family);
    }
}

fn seconds(unix_millis: i64) -> f64 {
    unix_millis as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_shows_as_blocked_ingest() {
        for (held_back, line) in [
            (None, "procwarden_ingest_blocked 0.0\n"),
            (Some("no room"), "procwarden_ingest_blocked 1.0\n"),
        ] {
            let figures = FindingsFigures {
                held_back: held_back.map(str::to_owned),
                ..FindingsFigures::default()
            };
            let mut page = Page(Registry::with_prefix("procwarden"));
            page.ingest(&Meters::new(), &figures);
            let mut text = String::new();
            encode(&mut text, &page.0).unwrap();
            assert!(text.contains(line), "{text}");
        }
    }
}
