//! `procwarden status`: how the collector is doing.

use procwarden_common::printable::printable_text;
use procwarden_proto::v1;
use serde::Serialize;

use crate::context::Context;
use crate::failure::Failure;
use crate::json::{shown, shown_unless_empty, when};
use crate::table::Table;

/// The answer as an object.
#[derive(Debug, Serialize)]
struct StatusObject {
    version: String,
    fleet_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
    fleet_address: String,
    enroll_address: String,
    hosts: u64,
    hosts_connected: u64,
    findings: u64,
    findings_open: u64,
    journal_bytes: u64,
    index_lag_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    findings_held_back: Option<String>,
    outbox_alerts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    outbox_last_error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_not_after: Option<String>,
    rss_bytes: u64,
    /// Those that end first (bounded).
    rules_ending: Vec<EndingObject>,
    rules_ending_count: u64,
    rules_expired: u64,
}

/// A rule that ends within 7 days.
#[derive(Debug, Serialize)]
struct EndingObject {
    policy: String,
    rule: String,
    file: String,
    line: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ends: Option<String>,
}

impl From<v1::ExpiringRule> for EndingObject {
    fn from(rule: v1::ExpiringRule) -> Self {
        Self {
            policy: shown(&rule.policy),
            // A rule keeps its backslashes.
            rule: printable_text(&rule.rule).into_owned(),
            file: shown(&rule.file),
            line: rule.line,
            owner: shown_unless_empty(&rule.owner),
            ends: when(rule.end_ms),
        }
    }
}

impl From<v1::StatusResponse> for StatusObject {
    fn from(status: v1::StatusResponse) -> Self {
        Self {
            version: shown(&status.version),
            fleet_id: shown(&status.fleet_id),
            started_at: when(status.started_at_ms),
            fleet_address: shown(&status.fleet_address),
            enroll_address: shown(&status.enroll_address),
            hosts: status.hosts,
            hosts_connected: status.hosts_connected,
            findings: status.findings,
            findings_open: status.findings_open,
            journal_bytes: status.journal_bytes,
            index_lag_bytes: status.index_lag_bytes,
            findings_held_back: shown_unless_empty(&status.findings_held_back),
            outbox_alerts: status.outbox_alerts,
            outbox_last_error: shown_unless_empty(&status.outbox_last_error),
            ca_not_after: when(status.ca_not_after_ms),
            rss_bytes: status.rss_bytes,
            rules_ending: status.rules_ending.into_iter().map(Into::into).collect(),
            rules_ending_count: status.rules_ending_count,
            rules_expired: status.rules_expired,
        }
    }
}

impl EndingObject {
    fn line(&self) -> String {
        format!(
            "{}: {} of policy {} ({}:{})",
            self.ends.as_deref().unwrap_or("-"),
            self.rule,
            self.policy,
            self.file,
            self.line
        )
    }
}

impl StatusObject {
    fn table(&self) -> Table {
        let mut table = Table::list();
        table.fact("collector", &self.version);
        table.fact("fleet", &self.fleet_id);
        table.fact("started", self.started_at.as_deref().unwrap_or("-"));
        table.fact("agents connect to", &self.fleet_address);
        table.fact("servers enrol at", &self.enroll_address);
        table.fact(
            "hosts",
            format!("{} ({} connected)", self.hosts, self.hosts_connected),
        );
        table.fact(
            "findings",
            format!("{} ({} open)", self.findings, self.findings_open),
        );
        table.fact("journal", mebibytes(self.journal_bytes));
        table.fact("index behind by", format!("{} bytes", self.index_lag_bytes));
        if let Some(reason) = &self.findings_held_back {
            table.fact("findings held back", reason);
        }
        table.fact("mails waiting", self.outbox_alerts.to_string());
        if let Some(error) = &self.outbox_last_error {
            table.fact("last mail error", error);
        }
        table.fact(
            "CA valid until",
            self.ca_not_after.as_deref().unwrap_or("-"),
        );
        table.fact("memory", mebibytes(self.rss_bytes));
        table.fact("rules expired", self.rules_expired.to_string());
        for rule in &self.rules_ending {
            table.fact("rule ends soon", rule.line());
        }
        let unnamed = self
            .rules_ending_count
            .saturating_sub(self.rules_ending.len() as u64);
        if unnamed > 0 {
            table.fact("rules end soon", format!("{unnamed} more"));
        }
        table
    }
}

pub(crate) async fn run(context: &mut Context) -> Result<(), Failure> {
    let answer = context.admin().await?.status(v1::StatusRequest {}).await;
    let answer = answer.map_err(|status| context.refused("show the status", &status))?;
    let status = StatusObject::from(answer.into_inner());
    if context.out.json() {
        return context.out.object(&status);
    }
    context.out.table(&status.table())
}

/// A size for people, in MiB with one digit.
pub(crate) fn mebibytes(bytes: u64) -> String {
    const MEBIBYTE: u64 = 1024 * 1024;
    let tenths = bytes % MEBIBYTE * 10 / MEBIBYTE;
    format!("{}.{tenths} MiB", bytes / MEBIBYTE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_in_mebibytes() {
        for (bytes, text) in [
            (0, "0.0 MiB"),
            (1_572_864, "1.5 MiB"),
            (u64::MAX, "17592186044415.9 MiB"),
        ] {
            assert_eq!(mebibytes(bytes), text);
        }
    }

    #[test]
    fn an_error_of_the_mail_server_is_shown_in_printable_form() {
        let object = StatusObject::from(v1::StatusResponse {
            outbox_last_error: "550 \u{1b}[2J".into(),
            ..Default::default()
        });
        assert_eq!(object.outbox_last_error.as_deref(), Some("550 \\1b[2J"));
    }
}
