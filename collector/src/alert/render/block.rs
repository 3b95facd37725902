//! One finding in full: the facts for whoever has to decide. Pure.

use procwarden_common::finding::view::{ActionView, ContainerView, ExeFileView, HostView};
use procwarden_common::finding::{ActionRecord, Finding, ProcessFacts, StoredFinding, Subject};
use procwarden_common::indicator::Indicator;
use procwarden_common::printable::{printable, printable_cmdline};
use procwarden_common::process::ProcessKey;

use super::text::Text;
use super::{evidence, rules, summary};
use crate::alert::words::{clip, harmless};

/// Longest value of a field.
const VALUE_BYTES_MAX: usize = 4096;

/// Indicators that are explained.
const INDICATORS_MAX: usize = 16;

/// Describes a finding. `attachment` names the file with its longer evidence,
/// when it is attached.
pub(super) fn block(
    stored: &StoredFinding,
    number: usize,
    count: usize,
    attachment: Option<&str>,
) -> Text {
    let mut text = Text::default();
    if count > 1 {
        text.line(&format!(
            "{:=<70}",
            format!("== Finding {number} of {count} ")
        ));
        text.blank();
    }
    let finding = &stored.finding;
    text.field("Time", &finding.observed_at.to_string());
    text.field("Host", &value(&harmless(&stored.host_name)));
    match (&finding.subject, &finding.process) {
        (Subject::Process(key), Some(process)) => {
            process_fields(&mut text, key, finding, process);
        }
        (Subject::Process(key), None) => {
            text.field(
                "PID",
                &format!("{} (start time {})", key.pid, key.start_time),
            );
            account_field(&mut text, finding);
        }
        (Subject::Account { since, .. }, _) => {
            account_field(&mut text, finding);
            text.field("Since", &since.to_string());
        }
        (Subject::Host { since, .. }, _) => text.field("Since", &since.to_string()),
    }
    if let Some(host) = &finding.host {
        host_fields(&mut text, &HostView::new(host));
    }
    text.field("Severity", finding.severity().as_str());
    if let Some(ended_at) = stored.ended_at {
        text.field("Ended", &ended_at.to_string());
    }
    text.blank();
    indicators(&mut text, &finding.indicators);
    actions(&mut text, &finding.actions);
    evidence::sections(&mut text, finding, attachment);
    rules::section(&mut text, finding);
    text.line("To see it again, with everything that is known of it now:");
    text.line(&format!("    procwarden findings show {}", stored.id));
    text.blank();
    text
}

fn process_fields(text: &mut Text, key: &ProcessKey, finding: &Finding, process: &ProcessFacts) {
    text.field(
        "PID",
        &format!("{} (start time {})", key.pid, key.start_time),
    );
    let parent = match process.parent_start_time {
        0 => format!("{} (gone)", process.ppid),
        start_time => format!("{} (start time {start_time})", process.ppid),
    };
    text.field("Parent PID", &parent);
    account_field(text, finding);
    let uptime = format!(
        "{} seconds (since {})",
        process.age_secs, process.started_at
    );
    text.field("Uptime", &uptime);
    text.field("Name", &value(&printable(&process.comm)));
    match &process.exe {
        Some(exe) => text.field("Executable", &value(&printable(exe))),
        None => text.field("Executable", "(could not be read)"),
    }
    if process.exe_deleted {
        text.field(
            "Executable file",
            "the path does not name the file that runs any more",
        );
    }
    if let Some(digest) = &process.exe_sha256 {
        text.field("SHA-256", &data_encoding::HEXLOWER.encode(digest));
    }
    if let Some(file) = &process.exe_file {
        text.field("File", &ExeFileView::new(file).to_string());
    }
    command_line(text, process);
    place_fields(text, process);
}

fn command_line(text: &mut Text, process: &ProcessFacts) {
    let mut words = value(&printable_cmdline(&process.cmdline.raw));
    if process.cmdline.truncated {
        words.push_str(" [longer than what was read]");
    }
    text.line("Command line (often faked in exploits):");
    text.line(&format!("    {words}"));
}

fn place_fields(text: &mut Text, process: &ProcessFacts) {
    if let Some(cwd) = &process.cwd {
        text.field("Directory", &value(&printable(cwd)));
    }
    if !process.cgroup.is_empty() {
        text.field("Control group", &value(&printable(&process.cgroup)));
    }
    if let Some(container) = &process.container {
        text.field("Container", &ContainerView::new(container).to_string());
    }
    if process.session != 0 {
        text.field("Session", &process.session.to_string());
    }
    if !process.tty.is_empty() {
        text.field("Terminal", &value(&harmless(&process.tty)));
    }
    if let Some(loginuid) = process.loginuid {
        text.field("Login uid", &loginuid.to_string());
    }
    let memory = format!(
        "{} KiB resident, {} KiB virtual",
        process.rss_bytes / 1024,
        process.vsz_bytes / 1024
    );
    text.field("Memory", &memory);
}

fn account_field(text: &mut Text, finding: &Finding) {
    let name = value(&printable(&finding.user));
    text.field("Account", &format!("{name} (uid {})", finding.uid));
}

fn host_fields(text: &mut Text, host: &HostView) {
    text.field("Load averages", &host.averages.join(" "));
    text.field("Processors", &host.processors.to_string());
    text.field("Processes", &host.processes.to_string());
}

fn actions(text: &mut Text, all: &[ActionRecord]) {
    if all.is_empty() {
        return;
    }
    text.line("What the host did about it:");
    for action in all {
        text.line(&format!(
            "  {}",
            value(&ActionView::new(action).to_string())
        ));
    }
    text.blank();
}

fn indicators(text: &mut Text, all: &[Indicator]) {
    text.line("Why it is suspicious:");
    for indicator in summary::worst_first(all).into_iter().take(INDICATORS_MAX) {
        text.line(&format!("  {} ({})", indicator.id, indicator.severity));
        if let Some(info) = indicator.id.info() {
            text.line(&format!("    {}", info.words));
        }
        if !indicator.evidence.is_empty() {
            text.line(&format!("    {}", value(&harmless(&indicator.evidence))));
        }
    }
    let more = all.len().saturating_sub(INDICATORS_MAX);
    if more > 0 {
        text.line(&format!("  and {more} more"));
    }
    text.blank();
}

/// A printable text, cut when it is very long.
fn value(printable: &str) -> String {
    let mark = format!(" [cut: {} bytes in all]", printable.len());
    clip(printable, VALUE_BYTES_MAX, &mark)
}
