//! Gathers what a mail is about and renders it. The findings are read again at
//! every attempt: the mail says how things stand when it is sent.

use std::cmp::Reverse;
use std::time::Duration;

use procwarden_common::finding::StoredFinding;
use procwarden_common::id::FindingId;

use super::name;
use crate::alert::AlertContext;
use crate::alert::group::AlertId;
use crate::alert::mailer::Mail;
use crate::alert::render::{AlertFacts, FULL_FINDINGS_MAX, Summary, render};
use crate::findings::{Findings, FindingsError};
use crate::ledger::state::AlertRecord;

/// How long findings are waited for that the index does not show yet.
const INDEX_WAIT: Duration = Duration::from_millis(100);
const INDEX_WAITS_MAX: u32 = 50;

/// The mail of an alert.
pub(super) async fn mail(context: &AlertContext, alert: &AlertRecord) -> Result<Mail, String> {
    let mut facts = facts(&context.findings, alert).await?;
    facts.expiring.clone_from(&alert.expiring);
    let name = name(&alert.id);
    Ok(Mail {
        message_id: format!("{name}.{}", context.fleet_id),
        name,
        date: alert.queued_at,
        to: alert.to.clone(),
        severity: facts.severity(),
        content: render(&facts),
    })
}

async fn facts(findings: &Findings, alert: &AlertRecord) -> Result<AlertFacts, String> {
    // Behind the alert's last finding new ones may come all the time: waiting
    // until the index has them as well could take for ever.
    let behind_last = AlertId::upto(&alert.id).min(findings.end());
    for _ in 0..INDEX_WAITS_MAX {
        let has_all = findings.has_indexed(behind_last);
        let (reader, ids) = (findings.clone(), alert.finding_ids.clone());
        let facts = tokio::task::spawn_blocking(move || read(&reader, &ids))
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())?;
        // Unknown may mean that retention removed it, or not indexed yet.
        if facts.gone.is_empty() || has_all {
            return Ok(facts);
        }
        tokio::time::sleep(INDEX_WAIT).await;
    }
    Err("the index of findings lags behind the journal: the mail waits for it".to_owned())
}

/// Reads all findings, keeps a line of each, and the worst ones in full.
fn read(findings: &Findings, ids: &[FindingId]) -> Result<AlertFacts, FindingsError> {
    let mut facts = AlertFacts::default();
    for id in ids {
        match findings.get(*id)? {
            Some(finding) => facts.lines.push(Summary::of(&finding)),
            None => facts.gone.push(*id),
        }
    }
    facts.lines.sort_by_key(|line| Reverse(line.severity));
    let worst = facts.lines.iter().take(FULL_FINDINGS_MAX);
    let full: Result<Vec<Option<StoredFinding>>, _> =
        worst.map(|line| findings.get(line.id)).collect();
    facts.full = full?.into_iter().flatten().collect();
    Ok(facts)
}
