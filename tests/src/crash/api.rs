//! Asks a collector for its findings, over its operator's socket.

use std::path::Path;

use anyhow::Context;
use hyper_util::rt::TokioIo;
use procwarden_proto::v1;
use procwarden_proto::v1::admin_service_client::AdminServiceClient;
use procwarden_proto::v1::subject::Kind;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use super::truth::Seen;
use crate::load::findings;

/// Findings of one answer.
const PAGE: u32 = 1_000;

/// Largest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Every finding first seen at or after a time (Unix milliseconds).
///
/// # Errors
/// When the collector does not answer, or answers something about hosts that
/// no simulated agent is.
pub(super) async fn findings_since(socket: &Path, since_ms: i64) -> anyhow::Result<Vec<Seen>> {
    let mut admin = connect(socket).await?;
    let mut seen = Vec::new();
    let mut cursor = bytes::Bytes::new();
    loop {
        let request = v1::ListFindingsRequest {
            filter: Some(v1::FindingFilter {
                since_ms,
                ..v1::FindingFilter::default()
            }),
            limit: PAGE,
            cursor,
        };
        let answer = admin.list_findings(request).await?.into_inner();
        for stored in &answer.findings {
            seen.push(read(stored).context("the collector answered a finding of nobody")?);
        }
        cursor = answer.next_cursor;
        if cursor.is_empty() {
            return Ok(seen);
        }
    }
}

async fn connect(socket: &Path) -> anyhow::Result<AdminServiceClient<Channel>> {
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://collector");
    let channel = endpoint.connect_with_connector(connector).await?;
    Ok(AdminServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX))
}

fn read(stored: &v1::StoredFinding) -> Option<Seen> {
    let finding = stored.finding.as_ref()?;
    let subject = finding.subject.as_ref()?;
    let Some(Kind::Process(process)) = &subject.kind else {
        return None;
    };
    Some(Seen {
        agent: findings::number_of(&subject.boot_id)?,
        process: findings::process_of(process.start_time)?,
        indicators: finding.indicators.len(),
        ended: stored.ended_at_ms != 0,
    })
}
