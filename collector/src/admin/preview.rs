//! `policy preview`: hands the stored findings to the preview, page by page.
//!
//! Reads and compiles for seconds: call it off the threads that serve.
//! Changes nothing.

use bytes::Bytes;
use procwarden_common::clock::UnixMillis;
use procwarden_common::diagnostic::Diagnostic;
use procwarden_common::indicator::IndicatorId;
use procwarden_common::policy::{EffectivePolicy, Policy, PolicyDocument, PolicyFile};
use procwarden_common::wire::severity_to_wire;
use procwarden_proto::v1;
use prost::Message as _;
use tonic::Status;

use super::hits::CountedHosts;
use super::refusal::{internal, invalid};
use super::{AdminContext, messages};
use crate::findings::FindingFilter;
use crate::policy::preview::{Ignored, Preview, Report, RuleReport, Sample, Side};
use crate::policy::{self, Draft};

/// Bytes of rules in an answer, below the limit of a message.
const RULES_BYTES_MAX: usize = 3 * 1024 * 1024;

impl AdminContext {
    /// What publishing this text would change about the stored history.
    pub(super) fn preview_policy(
        &self,
        request: v1::PreviewPolicyRequest,
    ) -> Result<v1::PreviewPolicyResponse, Status> {
        let since_ms = request.since_ms;
        self.preview_draft(draft(request)?, since_ms)
    }

    /// The same for a draft that is at hand.
    pub(super) fn preview_draft(
        &self,
        draft: Draft,
        since_ms: i64,
    ) -> Result<v1::PreviewPolicyResponse, Status> {
        let name = draft.name.clone();
        let (newest, next) = policy::candidate(&self.ledger, draft)?;
        let revision = newest.as_ref().map_or(0, |document| document.revision);
        let (candidate, warnings) = match compile(next) {
            Ok(compiled) => compiled,
            Err(errors) => return Ok(refused(&errors)),
        };
        let newest = newest.map_or_else(|| Ok((Policy::default(), Vec::new())), compile);
        let (newest, _) =
            newest.map_err(|_| internal("the newest revision does not compile any more"))?;

        let hosts = self.counted_hosts(&name);
        let since = (since_ms != 0).then_some(UnixMillis(since_ms));
        let mut preview = Preview::new(newest, candidate, crate::clock::now());
        self.add_ignored(&mut preview, since.unwrap_or_default(), &hosts);
        let report = self.replay(preview, since, &hosts)?;
        let mut answer = answer(&report);
        if let Some(summary) = &mut answer.summary {
            summary.revision = revision;
            summary.only_its_hosts = hosts.of_groups;
        }
        answer.diagnostics = messages(&warnings);
        Ok(answer)
    }

    /// What was ignored is not stored: the agents counted it.
    fn add_ignored(&self, preview: &mut Preview, since: UnixMillis, hosts: &CountedHosts) {
        let rules = preview.newest_rules().to_vec();
        let ids: Vec<_> = rules.iter().map(|rule| rule.id()).collect();
        let hits = self.sessions.rule_hits();
        let sums = hits.of_rules_since(&ids, since, |host| hosts.has(host));
        for (rule, sum) in rules.iter().zip(&sums) {
            preview.add_ignored(rule, sum, |host| hosts.name(host));
        }
    }

    /// Judges what began since then again, and what is open still.
    fn replay(
        &self,
        mut preview: Preview,
        since: Option<UnixMillis>,
        hosts: &CountedHosts,
    ) -> Result<Report, Status> {
        let lately = FindingFilter {
            since,
            ..FindingFilter::default()
        };
        for filter in lately.and_open_from_before() {
            self.each_finding(&filter, |stored| {
                if !hosts.of_groups || hosts.has(stored.host_id) {
                    preview.add(stored);
                }
            })?;
        }
        Ok(preview.finish())
    }
}

fn draft(request: v1::PreviewPolicyRequest) -> Result<Draft, Status> {
    let files: Result<Vec<PolicyFile>, _> =
        request.files.into_iter().map(TryInto::try_into).collect();
    Ok(Draft {
        name: request.name,
        files: files.map_err(|error| invalid(error.to_string()))?,
        settings: request.settings,
        comment: String::new(),
        base: None,
        staged: false,
        groups: Vec::new(),
    })
}

fn compile(document: PolicyDocument) -> Result<(Policy, Vec<Diagnostic>), Vec<Diagnostic>> {
    Policy::compile(&EffectivePolicy {
        documents: vec![document],
    })
}

fn refused(errors: &[Diagnostic]) -> v1::PreviewPolicyResponse {
    v1::PreviewPolicyResponse {
        diagnostics: messages(errors),
        ..v1::PreviewPolicyResponse::default()
    }
}

fn answer(report: &Report) -> v1::PreviewPolicyResponse {
    let mut rules = Vec::new();
    let mut bytes = 0;
    for rule in report.rules.iter().map(rule_message) {
        bytes += rule.encoded_len();
        if bytes > RULES_BYTES_MAX {
            break;
        }
        rules.push(rule);
    }
    let totals = report.totals;
    let summary = v1::PreviewSummary {
        findings: totals.findings,
        hidden: totals.hidden,
        hidden_hosts: totals.hidden_hosts,
        shown: totals.shown,
        shown_hosts: totals.shown_hosts,
        rules_added: totals.rules_added,
        rules_removed: totals.rules_removed,
        rules_left_out: (report.rules.len() - rules.len()) as u64,
        too_low: totals.too_low,
        switched_off: totals.switched_off,
        switched_off_hosts: totals.switched_off_hosts,
        switched_off_indicators: counts(&report.switched_off),
        ..v1::PreviewSummary::default()
    };
    v1::PreviewPolicyResponse {
        rules,
        summary: Some(summary),
        diagnostics: Vec::new(),
    }
}

fn counts(indicators: &[(IndicatorId, u64)]) -> Vec<v1::IndicatorCount> {
    let count = |(id, findings): &(IndicatorId, u64)| v1::IndicatorCount {
        id: id.to_string(),
        findings: *findings,
    };
    indicators.iter().map(count).collect()
}

fn rule_message(report: &RuleReport) -> v1::RulePreview {
    let severity = |severity| severity_to_wire(severity).into();
    v1::RulePreview {
        removed: report.side == Side::Removed,
        rule: report.rule.to_string(),
        file: report.rule.origin.file.clone(),
        line: report.rule.origin.line,
        findings: report.findings,
        hosts: report.hosts,
        users: report.users,
        severity: report.severity.map(severity).unwrap_or_default(),
        indicators: counts(&report.indicators),
        samples: report.samples.iter().map(sample_message).collect(),
        ignored: report.ignored.as_ref().map(ignored_message),
    }
}

fn ignored_message(ignored: &Ignored) -> v1::IgnoredLately {
    v1::IgnoredLately {
        processes: ignored.processes,
        severe: ignored.severe,
        hosts: ignored.hosts,
        last_ms: ignored.last.0,
        samples: ignored.samples.iter().map(sample_message).collect(),
        samples_covered: ignored.covered,
    }
}

pub(super) fn sample_message(sample: &Sample) -> v1::PreviewSample {
    v1::PreviewSample {
        finding_id: sample
            .id
            .map_or_else(Bytes::new, |id| Bytes::copy_from_slice(id.as_bytes())),
        host_id: sample.host_id.as_bytes().to_vec().into(),
        host_name: sample.host_name.clone(),
        user: sample.user.clone(),
        exe: sample.exe.clone(),
        cmdline: sample.cmdline.clone(),
        severity: severity_to_wire(sample.severity).into(),
        indicators: sample.indicators.clone(),
        first_seen_ms: sample.first_seen.0,
    }
}
