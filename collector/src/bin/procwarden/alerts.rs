//! `procwarden alerts`: the mails about findings.

use procwarden_proto::v1;
use serde::Serialize;

use crate::cli::AlertsCommand;
use crate::context::Context;
use crate::failure::Failure;
use crate::json::{hex_unless_empty, shown, shown_all, shown_unless_empty, when};
use crate::table::Table;

/// One mail.
#[derive(Debug, Serialize)]
struct AlertObject {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queued_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent_at: Option<String>,
    to: Vec<String>,
    findings: u32,
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
}

impl From<&v1::AlertInfo> for AlertObject {
    fn from(info: &v1::AlertInfo) -> Self {
        Self {
            id: hex_unless_empty(&info.id),
            queued_at: when(info.queued_at_ms),
            sent_at: when(info.sent_at_ms),
            to: shown_all(&info.to),
            findings: info.findings,
            attempts: info.attempts,
            last_error: shown_unless_empty(&info.last_error),
        }
    }
}

/// The answer of the mail transport.
#[derive(Debug, Serialize)]
struct TestObject {
    to: String,
    answer: String,
}

pub(crate) async fn run(command: AlertsCommand, context: &mut Context) -> Result<(), Failure> {
    match command {
        AlertsCommand::Test { to } => test(to, context).await,
        AlertsCommand::List => list(context).await,
    }
}

async fn test(to: String, context: &mut Context) -> Result<(), Failure> {
    let request = v1::TestAlertRequest { to: to.clone() };
    let answer = context.admin().await?.test_alert(request).await;
    let answer = answer.map_err(|status| context.refused("send a test mail", &status))?;
    let object = TestObject {
        to: shown(&to),
        answer: shown(&answer.into_inner().answer),
    };
    if context.out.json() {
        return context.out.object(&object);
    }
    context.out.line(&format!(
        "test mail for {} handed over: {}",
        object.to, object.answer
    ))
}

async fn list(context: &mut Context) -> Result<(), Failure> {
    let answer = context
        .admin()
        .await?
        .list_alerts(v1::ListAlertsRequest {})
        .await;
    let alerts = answer.map_err(|status| context.refused("list the mails", &status))?;
    let alerts = alerts.into_inner().alerts;
    if context.out.json() {
        for alert in &alerts {
            context.out.object(&AlertObject::from(alert))?;
        }
        return Ok(());
    }
    let mut table = Table::new(&["QUEUED", "SENT", "TO", "FINDINGS", "ATTEMPTS", "LAST ERROR"]);
    for alert in alerts.iter().map(AlertObject::from) {
        table.row([
            alert.queued_at.unwrap_or_default().into(),
            alert.sent_at.unwrap_or_else(|| "waiting".into()).into(),
            alert.to.join(" ").into(),
            alert.findings.to_string().into(),
            alert.attempts.to_string().into(),
            alert.last_error.unwrap_or_default().into(),
        ]);
    }
    context.out.table(&table)
}
