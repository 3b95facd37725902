//! The store as JSON lines: `findings.jsonl` with the objects of
//! `procwarden findings list --json`, `hosts.jsonl`, `policies.jsonl` with
//! every revision and its text, `audit.jsonl` with the objects of
//! `procwarden audit --json`. Newest findings and decisions come first.

use std::time::{Duration, Instant};

use anyhow::Context;
use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::view::FindingView;
use procwarden_common::id::HostId;
use procwarden_common::printable::printable;
use procwarden_proto::v1;
use serde::Serialize;
use serde_json::json;

use super::{Sink, Source};
use crate::admin::audit_entry;
use crate::findings::{FindingFilter, FindingPage, Findings, FindingsError};
use crate::ledger::state::HostRecord;

/// Findings of one look at the index.
const PAGE: usize = 256;

/// Longest wait for an index that is not there yet, and between two looks.
const INDEX_WAIT: Duration = Duration::from_secs(300);
const INDEX_PAUSE: Duration = Duration::from_millis(500);

/// Decisions of one look at the ledger, each of which reads all of it.
const AUDIT_PAGE: usize = 50_000;

pub(super) fn produce(source: &Source, sink: &mut Sink<'_>) -> anyhow::Result<()> {
    hosts(source, sink)?;
    policies(source, sink)?;
    audit(source, sink)?;
    findings(source, sink)
}

fn findings(source: &Source, sink: &mut Sink<'_>) -> anyhow::Result<()> {
    const FILE: &str = "findings.jsonl";
    sink(FILE, &[])?;
    let mut cursor = None;
    loop {
        let page = page(&source.findings, cursor.as_deref())?;
        for stored in &page.findings {
            line(FILE, &FindingView::of_stored(stored), sink)?;
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok(());
        }
    }
}

/// One page, waiting for an index that is being opened or made anew.
fn page(findings: &Findings, cursor: Option<&[u8]>) -> Result<FindingPage, FindingsError> {
    let begin = Instant::now();
    loop {
        match findings.list(&FindingFilter::default(), cursor, PAGE) {
            Err(FindingsError::Read(_)) if begin.elapsed() < INDEX_WAIT => {
                std::thread::sleep(INDEX_PAUSE);
            }
            answer => return answer,
        }
    }
}

fn hosts(source: &Source, sink: &mut Sink<'_>) -> anyhow::Result<()> {
    const FILE: &str = "hosts.jsonl";
    let objects: Vec<_> = source.ledger.read(|state| {
        let object = |(id, host): (&HostId, &HostRecord)| {
            json!({
                "id": id.to_string(),
                "name": host.name,
                "groups": host.groups,
                "enrolled_at": host.enrolled_at.to_string(),
                "certificate_not_after": host.certificate_not_after.to_string(),
                "revoked": host.revoked,
            })
        };
        state.hosts.iter().map(object).collect()
    });
    lines(FILE, &objects, sink)
}

fn policies(source: &Source, sink: &mut Sink<'_>) -> anyhow::Result<()> {
    const FILE: &str = "policies.jsonl";
    let objects: Vec<_> = source.ledger.read(|state| {
        let mut objects = Vec::new();
        for (name, history) in &state.policies {
            for revision in &history.revisions {
                let files = revision.document.files.iter().map(|file| {
                    json!({
                        "path": file.path,
                        "content": String::from_utf8_lossy(&file.content),
                    })
                });
                objects.push(json!({
                    "name": name,
                    "revision": revision.document.revision,
                    "published_at": revision.published_at.to_string(),
                    "author": revision.author,
                    "comment": revision.comment,
                    "rules": revision.rules,
                    "groups": history.groups,
                    "files": files.collect::<Vec<_>>(),
                    "settings": revision.document.settings,
                }));
            }
        }
        objects
    });
    lines(FILE, &objects, sink)
}

fn audit(source: &Source, sink: &mut Sink<'_>) -> anyhow::Result<()> {
    const FILE: &str = "audit.jsonl";
    sink(FILE, &[])?;
    let mut before = None;
    loop {
        let tell = |record| source.ledger.read(|state| audit_entry(state, record));
        let page = source
            .ledger
            .audit(UnixMillis(i64::MIN), before, AUDIT_PAGE, tell)
            .context("cannot read the ledger")?;
        for entry in &page.entries {
            line(FILE, &Decision::of(entry), sink)?;
        }
        before = page.more_before;
        if before.is_none() {
            return Ok(());
        }
    }
}

/// A decision as `procwarden audit --json` shows it.
#[derive(Serialize)]
struct Decision {
    time: String,
    actor: String,
    what: String,
    object: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    details: String,
}

impl Decision {
    fn of(entry: &v1::AuditEntry) -> Self {
        let shown = |text: &str| printable(text.as_bytes());
        Self {
            time: UnixMillis(entry.at_ms).to_string(),
            actor: shown(&entry.actor),
            what: shown(&entry.what),
            object: shown(&entry.object),
            details: shown(&entry.details),
        }
    }
}

fn lines(file: &str, objects: &[impl Serialize], sink: &mut Sink<'_>) -> anyhow::Result<()> {
    // A file without lines is there too.
    sink(file, &[])?;
    objects
        .iter()
        .try_for_each(|object| line(file, object, sink))
}

fn line(file: &str, object: &impl Serialize, sink: &mut Sink<'_>) -> anyhow::Result<()> {
    let mut text = serde_json::to_vec(object).context("cannot write JSON")?;
    text.push(b'\n');
    sink(file, &text)
}
