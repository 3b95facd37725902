//! Follows the findings journal and writes alerts to the ledger: the edge
//! around [`Grouper`].
//!
//! Nothing is kept here that a restart needs: windows that are open when the
//! process ends are read again from the journal.

use std::convert::Infallible;
use std::time::Duration;

use procwarden_common::clock::UnixMillis;
use procwarden_common::id::HostId;
use procwarden_common::severity::Severity;
use procwarden_proto::v1::AlertsQueued;
use procwarden_proto::v1::ledger_record::Entry;
use tokio::sync::watch;

use super::group::{Grouper, Limits};
use super::route::destinations;
use super::{ACTOR, AlertContext, stopped};
use crate::clock;
use crate::config::Config;
use crate::findings::Recorded;
use crate::ledger::{CommitError, LedgerState};
use crate::policy::Expiries;
use crate::policy::learn::ALERTS_FROM;

/// Longest sleep, so that a clock that jumps is noticed.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// Runs until `shutdown`, or until findings or ledger are closed.
pub(crate) async fn run(context: AlertContext, mut shutdown: watch::Receiver<bool>) {
    if context.config.load().mail.is_none() {
        tracing::warn!("No [mail] is configured: findings are recorded, but nobody is written to.");
    }
    let end = context.findings.end();
    let (mut grouper, upto) = context.ledger.read(|state| {
        let alerts = &state.alerts;
        (Grouper::resume(alerts, end), alerts.upto)
    });
    if upto > end {
        tracing::warn!(
            ledger = upto.0,
            journal_end = end.0,
            "The findings journal is shorter than the ledger says: was it lost, or put back from a \
             backup? Findings that come from now on are alerted.",
        );
    }
    let mut feed = context.findings.follow(upto);
    let mut expiries = Expiries::default();
    let mut changes = context.ledger.changes();
    loop {
        let wait = sleep_until_due(&grouper, &context.config.load());
        tokio::select! {
            // A policy may have a rule that ends soon. An error means that the
            // ledger is closed.
            changed = changes.changed() => if changed.is_err() { break },
            () = stopped(&mut shutdown) => break,
            records = feed.recv() => match records {
                Some(records) => consider_all(&context, &mut grouper, &records),
                None => break,
            },
            () = tokio::time::sleep(wait) => {}
        }
        context.ledger.read(|state| expiries.refresh(state));
        if let Err(error) = write_due(&context, &mut grouper, &expiries).await {
            tracing::error!(error = %error, "Alerts can not be queued: the ledger failed.");
            return;
        }
    }
    if let Some(entry) = grouper.finish()
        && let Err(error) = commit(&context, clock::now(), entry).await
    {
        tracing::warn!(error = %error, "The place in the findings journal was not saved.");
    }
}

fn limits(config: &Config) -> Limits {
    Limits {
        group_wait: config.alert.group_wait,
        max_per_hour: config.alert.max_per_hour,
    }
}

fn sleep_until_due(grouper: &Grouper, config: &Config) -> Duration {
    let now = clock::now();
    grouper
        .due_at(now, limits(config))
        .map_or(SLEEP_MAX, |due| {
            Duration::from_millis(due.millis_since(now)).min(SLEEP_MAX)
        })
}

fn consider_all(context: &AlertContext, grouper: &mut Grouper, records: &[Recorded]) {
    let config = context.config.load();
    let destinations = destinations(&config);
    let now = clock::now();
    for recorded in records {
        let groups = groups_of(context, recorded);
        let wanted = groups.as_ref().map_or(&[][..], |_| &destinations);
        let groups = groups.unwrap_or_default();
        grouper.consider(now, limits(&config), recorded, &groups, wanted);
    }
}

/// The groups of a host that reported something worth an alert.
fn groups_of(context: &AlertContext, recorded: &Recorded) -> Option<Vec<String>> {
    let severity = recorded.severity().filter(|_| recorded.alertable);
    context.ledger.read(|state| {
        // By the time of the record: a replay comes to the same alerts.
        groups_to_alert(state, recorded.host_id, severity?, recorded.received_at)
    })
}

/// The groups of a host whose finding is worth an alert; nothing when the host
/// was learned from and the finding is below what is sent then.
fn groups_to_alert(
    state: &LedgerState,
    host: HostId,
    severity: Severity,
    at: UnixMillis,
) -> Option<Vec<String>> {
    let Some(record) = state.hosts.get(&host) else {
        return Some(Vec::new());
    };
    let is_quiet = severity < ALERTS_FROM && state.is_learned_from(record, at);
    (!is_quiet).then(|| record.groups.clone())
}

async fn write_due(
    context: &AlertContext,
    grouper: &mut Grouper,
    expiries: &Expiries,
) -> Result<(), CommitError<Infallible>> {
    let now = clock::now();
    let limits = limits(&context.config.load());
    while let Some(mut entry) = grouper.close_due(now, limits) {
        let alerts = &mut entry.alerts;
        context
            .ledger
            .read(|state| expiries.join(&state.alerts, alerts, now));
        for alert in &entry.alerts {
            tracing::info!(
                alert = %data_encoding::HEXLOWER.encode(&alert.id),
                findings = alert.finding_ids.len(),
                recipients = alert.to.len(),
                "An alert was queued."
            );
        }
        commit(context, now, entry).await?;
    }
    if let Some(entry) = grouper.catch_up() {
        commit(context, now, entry).await?;
    }
    let destinations = destinations(&context.config.load());
    let own = context
        .ledger
        .read(|state| expiries.own_mails(state, &destinations, now));
    if !own.is_empty() {
        tracing::info!(
            mails = own.len(),
            "Mails about rules that end soon were queued."
        );
        commit(context, now, grouper.others(own)).await?;
    }
    Ok(())
}

async fn commit(
    context: &AlertContext,
    now: UnixMillis,
    entry: AlertsQueued,
) -> Result<(), CommitError<Infallible>> {
    context
        .ledger
        .commit(now, ACTOR, |_| Ok(Entry::AlertsQueued(entry)))
        .await
}
