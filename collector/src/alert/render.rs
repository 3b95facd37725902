//! What a mail says. Pure: findings in, subject, body and attachments out.
//!
//! Promises: everything is printable ASCII and line ends; the subject is one
//! line below [`SUBJECT_BYTES_MAX`]; body and attachments are bounded, and what
//! was left out is said together with the command that shows it. Plain text
//! only, never HTML.

use procwarden_common::finding::StoredFinding;
use procwarden_common::id::FindingId;
use procwarden_common::severity::Severity;

mod block;
mod evidence;
mod expiring;
mod rules;
mod subject;
mod summary;
mod table;
mod text;

#[cfg(test)]
mod tests;

pub(crate) use summary::Summary;
use text::Text;

use super::words::harmless;
use crate::ledger::state::ExpiringRule;

/// Findings of one mail that are described in full.
pub(crate) const FULL_FINDINGS_MAX: usize = 50;

/// Longest subject.
const SUBJECT_BYTES_MAX: usize = 190;

/// Longest body.
const BODY_BYTES_MAX: usize = 256 * 1024;

/// Room for the rules that end soon.
const EXPIRING_BYTES_MAX: usize = 48 * 1024;

/// All attachments together.
const ATTACHMENTS_BYTES_MAX: usize = 1024 * 1024;

/// Ids of findings that are no longer kept, in one mail.
const GONE_LINES_MAX: usize = 50;

/// A mail without its headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MailContent {
    /// One line.
    pub(crate) subject: String,
    /// Plain text.
    pub(crate) body: String,
    /// File names and plain texts.
    pub(crate) attachments: Vec<(String, String)>,
}

/// What a mail is about.
#[derive(Debug, Default)]
pub(crate) struct AlertFacts {
    /// A line of every finding, the worst first.
    pub(crate) lines: Vec<Summary>,
    /// The first of them (at most [`FULL_FINDINGS_MAX`]), in full.
    pub(crate) full: Vec<StoredFinding>,
    /// Findings that are no longer kept.
    pub(crate) gone: Vec<FindingId>,
    /// Rules that end soon.
    pub(crate) expiring: Vec<ExpiringRule>,
}

impl AlertFacts {
    /// The highest severity; nothing when no finding is kept any more.
    pub(crate) fn severity(&self) -> Option<Severity> {
        self.lines.iter().map(|line| line.severity).max()
    }
}

/// The mail about these findings.
pub(crate) fn render(facts: &AlertFacts) -> MailContent {
    let mut body = Text::default();
    introduce(&mut body, facts);
    let (blocks, described, attachments) = describe(facts, BODY_BYTES_MAX - body.len());
    body.append(&blocks);
    conclude(&mut body, facts, described);
    expiring::write(&mut body, facts);
    MailContent {
        subject: subject::subject(facts),
        body: body.into_string(),
        attachments,
    }
}

/// The mail that shows that mails arrive.
pub(crate) fn test_mail() -> MailContent {
    let mut body = Text::default();
    body.line("This mail was asked for with: procwarden alerts test");
    body.line("Alerts of procwarden reach this address.");
    MailContent {
        subject: "[procwarden] test mail".to_owned(),
        body: body.into_string(),
        attachments: Vec::new(),
    }
}

/// The mail about a roll-out that stopped by itself.
pub(crate) fn rollout_mail(
    policy: &str,
    revision: u64,
    reason: &str,
    is_held: bool,
) -> MailContent {
    let mut body = Text::default();
    body.line(&format!(
        "The roll-out of revision {revision} of policy {policy} stopped by itself:"
    ));
    body.line(&format!("    {reason}"));
    body.line(if is_held {
        "The hosts that have the revision keep it; the others stay on what they run."
    } else {
        "Every host goes back to what it ran before."
    });
    body.line(&format!(
        "Look at it with: procwarden policy rollout status {policy}"
    ));
    MailContent {
        subject: format!("[procwarden] roll-out of {policy} r{revision} stopped"),
        body: body.into_string(),
        attachments: Vec::new(),
    }
}

fn introduce(body: &mut Text, facts: &AlertFacts) {
    match facts.lines.as_slice() {
        [] => {}
        [line] => {
            body.line(&format!("{}: {}", line.severity, subject::story(line)));
            body.blank();
        }
        lines => {
            body.line(&format!("{}.", subject::count(facts)));
            body.blank();
            table::write(body, lines);
            body.blank();
        }
    }
    for id in facts.gone.iter().take(GONE_LINES_MAX) {
        body.line(&format!(
            "Finding {id} is no longer kept: it is older than the retention."
        ));
    }
    let unnamed = facts.gone.len().saturating_sub(GONE_LINES_MAX);
    if unnamed > 0 {
        body.line(&format!("{unnamed} more findings are no longer kept."));
    }
    if !facts.gone.is_empty() {
        body.blank();
    }
}

/// The findings in full, as far as `bytes_max` allows; how many those are; and
/// the attachments.
fn describe(facts: &AlertFacts, bytes_max: usize) -> (Text, usize, Vec<(String, String)>) {
    // Room for the words at the end.
    let bytes_max = bytes_max.saturating_sub(1024 + EXPIRING_BYTES_MAX);
    let mut blocks = Text::default();
    let mut attachments = Vec::new();
    let mut attached_bytes = 0;
    for (index, finding) in facts.full.iter().take(FULL_FINDINGS_MAX).enumerate() {
        let attachment = evidence::attachment(finding)
            .filter(|(_, text)| attached_bytes + text.len() <= ATTACHMENTS_BYTES_MAX);
        let name = attachment.as_ref().map(|(name, _)| name.as_str());
        let block = block::block(finding, index + 1, facts.lines.len(), name);
        if blocks.len() + block.len() > bytes_max {
            return (blocks, index, attachments);
        }
        blocks.append(&block);
        if let Some((name, text)) = attachment {
            attached_bytes += text.len();
            attachments.push((name, text));
        }
    }
    (blocks, facts.full.len().min(FULL_FINDINGS_MAX), attachments)
}

fn conclude(body: &mut Text, facts: &AlertFacts, described: usize) {
    let left_out = facts.lines.len().saturating_sub(described);
    if left_out > 0 {
        body.line(&format!(
            "{left_out} findings are not described here, to keep this mail short."
        ));
        body.line("This lists them, and this prints one in full:");
        let since = facts
            .lines
            .iter()
            .map(|line| line.first_seen)
            .min()
            .unwrap_or_default();
        body.line(&format!("    procwarden findings list --since {since}"));
        body.line("    procwarden findings show ID");
    }
}
