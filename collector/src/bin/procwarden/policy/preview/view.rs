//! A preview, for people and for programs.

use procwarden_proto::v1;
use serde::Serialize;

use crate::failure::Failure;
use crate::json::{hex_unless_empty, shown, shown_all, uuid_text, when};
use crate::output::Output;

/// What one rule changes.
#[derive(Debug, Serialize)]
pub(crate) struct RuleObject {
    rule: String,
    /// `added` or `removed`.
    change: &'static str,
    file: String,
    line: u32,
    findings: u64,
    hosts: u64,
    users: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    severity: Option<&'static str>,
    indicators: Vec<IndicatorObject>,
    samples: Vec<SampleObject>,
    /// What a rule that goes ignored, as agents counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    ignored: Option<IgnoredObject>,
}

/// What a rule ignored, of which nothing is stored.
#[derive(Debug, Serialize)]
struct IgnoredObject {
    processes: u64,
    severe: u64,
    hosts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<String>,
    /// What would be reported.
    samples: Vec<SampleObject>,
    /// Samples that another rule still ignores.
    samples_covered: u64,
}

#[derive(Debug, Serialize)]
struct IndicatorObject {
    id: String,
    findings: u64,
}

/// A finding in one line.
#[derive(Debug, Serialize)]
pub(in super::super) struct SampleObject {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    host: String,
    host_id: String,
    user: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    exe: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cmdline: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    severity: Option<&'static str>,
    indicators: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_seen: Option<String>,
}

/// What the whole text changes; the last object.
#[derive(Debug, Serialize)]
pub(crate) struct SummaryObject {
    summary: bool,
    revision: u64,
    findings: u64,
    hidden: u64,
    hidden_hosts: u64,
    shown: u64,
    shown_hosts: u64,
    rules_added: u64,
    rules_removed: u64,
    rules_left_out: u64,
    only_its_hosts: bool,
    too_low: bool,
    switched_off: u64,
    switched_off_hosts: u64,
    switched_off_indicators: Vec<IndicatorObject>,
}

impl From<&v1::RulePreview> for RuleObject {
    fn from(rule: &v1::RulePreview) -> Self {
        Self {
            rule: line_text(&rule.rule),
            change: if rule.removed { "removed" } else { "added" },
            file: shown(&rule.file),
            line: rule.line,
            findings: rule.findings,
            hosts: rule.hosts,
            users: rule.users,
            severity: severity_word(rule.severity()),
            indicators: indicators(&rule.indicators),
            samples: rule.samples.iter().map(Into::into).collect(),
            ignored: rule.ignored.as_ref().map(Into::into),
        }
    }
}

fn indicators(counts: &[v1::IndicatorCount]) -> Vec<IndicatorObject> {
    let object = |count: &v1::IndicatorCount| IndicatorObject {
        id: shown(&count.id),
        findings: count.findings,
    };
    counts.iter().map(object).collect()
}

impl From<&v1::IgnoredLately> for IgnoredObject {
    fn from(ignored: &v1::IgnoredLately) -> Self {
        Self {
            processes: ignored.processes,
            severe: ignored.severe,
            hosts: ignored.hosts,
            last: when(ignored.last_ms),
            samples: ignored.samples.iter().map(Into::into).collect(),
            samples_covered: ignored.samples_covered,
        }
    }
}

impl From<&v1::PreviewSample> for SampleObject {
    fn from(sample: &v1::PreviewSample) -> Self {
        // These texts are in printable form already.
        let text = |text: &str| (!text.is_empty()).then(|| line_text(text));
        Self {
            id: hex_unless_empty(&sample.finding_id),
            host: shown(&sample.host_name),
            host_id: uuid_text(&sample.host_id),
            user: line_text(&sample.user),
            exe: text(&sample.exe),
            cmdline: text(&sample.cmdline),
            severity: severity_word(sample.severity()),
            indicators: shown_all(&sample.indicators),
            first_seen: when(sample.first_seen_ms),
        }
    }
}

impl From<&v1::PreviewSummary> for SummaryObject {
    fn from(summary: &v1::PreviewSummary) -> Self {
        Self {
            summary: true,
            revision: summary.revision,
            findings: summary.findings,
            hidden: summary.hidden,
            hidden_hosts: summary.hidden_hosts,
            shown: summary.shown,
            shown_hosts: summary.shown_hosts,
            rules_added: summary.rules_added,
            rules_removed: summary.rules_removed,
            rules_left_out: summary.rules_left_out,
            only_its_hosts: summary.only_its_hosts,
            too_low: summary.too_low,
            switched_off: summary.switched_off,
            switched_off_hosts: summary.switched_off_hosts,
            switched_off_indicators: indicators(&summary.switched_off_indicators),
        }
    }
}

/// Writes the preview for a person.
pub(crate) fn write(
    rules: &[v1::RulePreview],
    summary: &v1::PreviewSummary,
    out: &mut Output,
) -> Result<(), Failure> {
    for rule in rules {
        out.line(&headline(rule))?;
        for sample in rule.samples.iter().map(SampleObject::from) {
            out.line(&sample_line(&sample))?;
        }
        if let Some(ignored) = rule.ignored.as_ref().map(IgnoredObject::from) {
            out.line(&ignored_line(&ignored))?;
            for sample in &ignored.samples {
                out.line(&sample_line(sample))?;
            }
        }
    }
    if summary.rules_left_out > 0 {
        let n = summary.rules_left_out;
        out.line(&format!(
            "{n} more rule(s), which change less, are not shown"
        ))?;
    }
    if summary.switched_off > 0 {
        out.line(&switched_off_line(summary))?;
    }
    out.line(&conclusion(summary))
}

fn switched_off_line(summary: &v1::PreviewSummary) -> String {
    format!(
        "the settings switch off what {} finding(s) on {} host(s) show: {}",
        summary.switched_off,
        summary.switched_off_hosts,
        counted(&indicators(&summary.switched_off_indicators))
    )
}

fn counted(indicators: &[IndicatorObject]) -> String {
    let words = indicators.iter();
    let words = words.map(|count| format!("{} x{}", count.id, count.findings));
    words.collect::<Vec<_>>().join(", ")
}

fn headline(rule: &v1::RulePreview) -> String {
    let (sign, verb) = if rule.removed {
        ('-', "brings back")
    } else {
        ('+', "hides")
    };
    let object = RuleObject::from(rule);
    let place = format!("{sign} {} ({}:{})", object.rule, object.file, object.line);
    if rule.findings == 0 {
        return format!("{place}: {verb} no stored finding");
    }
    format!(
        "{place}: {verb} {} finding(s) on {} host(s) of {} user(s), up to {}: {}",
        rule.findings,
        rule.hosts,
        rule.users,
        object.severity.unwrap_or("unknown"),
        counted(&object.indicators)
    )
}

fn ignored_line(ignored: &IgnoredObject) -> String {
    let covered = match ignored.samples_covered {
        0 => String::new(),
        covered => format!(", another rule still ignores {covered} of its samples"),
    };
    let what = match ignored.samples.len() {
        0 => "",
        _ => "; this would be reported:",
    };
    format!(
        "    ignored {} process(es) ({} severe) on {} host(s), last {}{covered}{what}",
        ignored.processes,
        ignored.severe,
        ignored.hosts,
        ignored.last.as_deref().unwrap_or("-"),
    )
}

fn sample_line(sample: &SampleObject) -> String {
    let text = sample.exe.as_deref().or(sample.cmdline.as_deref());
    format!(
        "    {} {} {} user {} {}: {}",
        sample.severity.unwrap_or("unknown"),
        sample
            .id
            .as_deref()
            .and_then(|id| id.get(..12))
            .unwrap_or("-"),
        sample.host,
        sample.user,
        text.unwrap_or("-"),
        sample.indicators.join(" ")
    )
}

fn conclusion(summary: &v1::PreviewSummary) -> String {
    let hosts = if summary.only_its_hosts {
        "the policy's hosts"
    } else {
        "all hosts (the policy has no group yet)"
    };
    let at_least = if summary.too_low {
        "; numbers of hosts and users are too low, there was too much to count"
    } else {
        ""
    };
    format!(
        "{} rule(s) added, {} removed; of {} stored finding(s) on {hosts} {} would be hidden on {} \
         host(s), {} would come back on {}{at_least}",
        summary.rules_added,
        summary.rules_removed,
        summary.findings,
        summary.hidden,
        summary.hidden_hosts,
        summary.shown,
        summary.shown_hosts
    )
}

/// Text that keeps its backslashes: a rule, or what is printable already.
pub(crate) fn line_text(text: &str) -> String {
    procwarden_common::printable::printable_text(text).into_owned()
}

const fn severity_word(severity: v1::Severity) -> Option<&'static str> {
    match severity {
        v1::Severity::Info => Some("info"),
        v1::Severity::Low => Some("low"),
        v1::Severity::Medium => Some("medium"),
        v1::Severity::High => Some("high"),
        v1::Severity::Critical => Some("critical"),
        v1::Severity::Unspecified => None,
    }
}
