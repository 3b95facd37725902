//! `procwarden audit`: who decided what, when, and on which object.

use procwarden_proto::v1;
use serde::Serialize;

use crate::context::Context;
use crate::failure::Failure;
use crate::json::{shown, shown_unless_empty, when};
use crate::since::Since;
use crate::table::Table;

/// Decisions asked for at a time; the collector may answer with fewer.
const PAGE_ENTRIES: u64 = 500;

/// One decision.
#[derive(Debug, Serialize)]
struct EntryObject {
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    actor: String,
    what: String,
    object: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<String>,
}

impl From<v1::AuditEntry> for EntryObject {
    fn from(entry: v1::AuditEntry) -> Self {
        Self {
            time: when(entry.at_ms),
            actor: shown(&entry.actor),
            what: shown(&entry.what),
            object: shown(&entry.object),
            details: shown_unless_empty(&entry.details),
        }
    }
}

/// Follows the collector's pages until there are `limit` decisions or no more.
pub(crate) async fn run(
    since: Option<Since>,
    limit: u64,
    context: &mut Context,
) -> Result<(), Failure> {
    let since_ms = since.map_or(0, |since| since.resolve(context.now()).0);
    let mut table = Table::new(&["TIME", "BY", "WHAT", "OBJECT", "DETAILS"]);
    let mut cursor = bytes::Bytes::new();
    let mut left = limit;
    while left > 0 {
        let request = v1::ListAuditRequest {
            since_ms,
            limit: u32::try_from(left.min(PAGE_ENTRIES)).unwrap_or(u32::MAX),
            cursor,
        };
        let answer = context.admin().await?.list_audit(request).await;
        let page = answer
            .map_err(|status| context.refused("show the audit trail", &status))?
            .into_inner();
        for entry in page.entries {
            left = left.saturating_sub(1);
            let entry = EntryObject::from(entry);
            if context.out.json() {
                context.out.object(&entry)?;
            } else {
                add(&mut table, entry);
            }
        }
        cursor = page.next_cursor;
        if cursor.is_empty() {
            break;
        }
    }
    if !context.out.json() {
        context.out.table(&table)?;
    }
    if !cursor.is_empty() {
        context.out.remark(&format!(
            "there are more than {limit} decisions: raise --limit to see them"
        ));
    }
    Ok(())
}

fn add(table: &mut Table, entry: EntryObject) {
    table.row([
        entry.time.unwrap_or_else(|| "-".into()).into(),
        entry.actor.into(),
        entry.what.into(),
        entry.object.into(),
        entry.details.unwrap_or_default().into(),
    ]);
}
