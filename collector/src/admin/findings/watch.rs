//! `procwarden findings watch`: findings as they arrive.

use procwarden_common::finding::{FindingState, StoredFinding};
use procwarden_common::wire::Change;
use procwarden_proto::v1;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::admin::AdminContext;
use crate::admin::refusal::off_thread;
use crate::findings::{FindingFilter, Findings, Recorded};

/// Answers on their way to a slow terminal.
const ANSWERS_MAX: usize = 16;

/// What the operator's command receives.
pub(in crate::admin) type FindingStream = ReceiverStream<Result<v1::WatchFindingsResponse, Status>>;

impl AdminContext {
    /// Follows the journal from its end until the operator goes away or the
    /// collector stops.
    pub(in crate::admin) fn watch_findings(
        &self,
        request: v1::WatchFindingsRequest,
    ) -> Result<FindingStream, Status> {
        let filter = self.filter(request.filter.unwrap_or_default())?;
        let recorded = self.findings.follow(self.findings.end());
        let (sender, receiver) = mpsc::channel(ANSWERS_MAX);
        let findings = self.findings.clone();
        tokio::spawn(follow(
            findings,
            recorded,
            filter,
            sender,
            self.shutdown.clone(),
        ));
        Ok(ReceiverStream::new(receiver))
    }
}

async fn follow(
    findings: Findings,
    mut recorded: mpsc::Receiver<Vec<Recorded>>,
    filter: FindingFilter,
    sender: mpsc::Sender<Result<v1::WatchFindingsResponse, Status>>,
    mut shutdown: watch::Receiver<bool>,
) {
    loop {
        let next = tokio::select! {
            next = recorded.recv() => next,
            () = sender.closed() => return,
            _ = shutdown.wait_for(|stop| *stop) => return,
        };
        let Some(next) = next else { return };
        let (lookup, wanted) = (findings.clone(), filter.clone());
        let found = off_thread(move || {
            let stored = next.iter().filter_map(|r| stored(&lookup, r));
            let wanted: Vec<_> = stored.filter(|s| matches(&wanted, s)).collect();
            wanted
        });
        let answers = match found.await {
            Ok(found) => found.iter().map(|f| Ok(answer(f))).collect(),
            Err(status) => vec![Err(status)],
        };
        for answer in answers {
            if sender.send(answer).await.is_err() {
                return;
            }
        }
    }
}

fn answer(stored: &StoredFinding) -> v1::WatchFindingsResponse {
    v1::WatchFindingsResponse {
        finding: Some(stored.into()),
    }
}

/// The finding that a record is about.
fn stored(findings: &Findings, recorded: &Recorded) -> Option<StoredFinding> {
    let entry = recorded.entry().ok()?;
    let id = recorded.id;
    match entry.change {
        Change::Reported(finding) => Some(StoredFinding {
            id,
            host_id: entry.host_id,
            host_name: entry.host_name,
            finding: *finding,
            state: FindingState::Open,
            first_seen: entry.first_seen,
            last_seen: entry.received_at,
            ended_at: None,
            evidence_position: recorded.position.0,
        }),
        Change::Ended(ended) => findings.get(id).ok().flatten().map(|known| StoredFinding {
            state: FindingState::Ended,
            last_seen: entry.received_at,
            ended_at: Some(ended.ended_at),
            ..known
        }),
    }
}

/// Ends are shown to those only who ask for ended findings.
fn matches(filter: &FindingFilter, stored: &StoredFinding) -> bool {
    filter.matches(stored) && (filter.state.is_some() || stored.state == FindingState::Open)
}
