//! Makes an agent's batches durable, then acks them.

use tokio::sync::mpsc;

use procwarden_proto::v1;
use procwarden_proto::v1::connect_response::Message;

use super::end::End;
use super::outgoing::Outgoing;
use super::read::Received;
use super::{BATCHES_IN_FLIGHT_MAX, Link};
use crate::clock;
use crate::findings::Incoming;

/// Records until the queue is closed and empty. Batches that queued up while
/// the disk worked are recorded together and acked once: acks are cumulative.
pub(super) async fn record(
    link: &Link,
    mut batches: mpsc::Receiver<Received>,
    outgoing: &Outgoing,
) -> Result<(), End> {
    let mut waiting = Vec::with_capacity(BATCHES_IN_FLIGHT_MAX);
    while batches.recv_many(&mut waiting, BATCHES_IN_FLIGHT_MAX).await > 0 {
        let sequence = waiting.last().map_or(0, |batch| batch.sequence);
        let changes: Vec<Incoming> = waiting
            .iter_mut()
            .flat_map(|batch| std::mem::take(&mut batch.changes))
            .collect();
        link.ctx.meters.received(changes.len());
        if !changes.is_empty() {
            link.ctx
                .findings
                .record(link.host_id, &link.host_name, clock::now(), changes)
                .await
                .map_err(|error| End::StoreFailed(error.to_string()))?;
        }
        // Their places are free from here on, however slowly the agent reads.
        let received: Vec<_> = waiting.drain(..).map(|batch| batch.received_at).collect();
        outgoing.send(Message::Ack(v1::Ack { sequence })).await?;
        received
            .into_iter()
            .for_each(|at| link.ctx.meters.acked(at));
    }
    Ok(())
}
