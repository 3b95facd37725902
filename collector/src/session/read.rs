//! Takes an agent's messages in: batches into the queue of the recorder,
//! heartbeats into the registry.

use std::time::Instant;

use procwarden_common::limits::BATCH_EVENTS_MAX;
use procwarden_common::printable::printable;
use procwarden_proto::v1;
use procwarden_proto::v1::received_request::Message;
use prost::Message as _;
use tokio::sync::mpsc;

use super::end::End;
use super::ingest::Place;
use super::{Link, Requests, intake};
use crate::clock;
use crate::findings::Incoming;
use crate::sessions::Seat;

/// A batch on its way to the disk.
pub(super) struct Received {
    pub(super) changes: Vec<Incoming>,
    /// Of its last event.
    pub(super) sequence: u64,
    pub(super) received_at: Instant,
    /// Its place among the batches of all sessions, until it is durable.
    pub(super) _place: Place,
}

/// Reads until the agent leaves or breaks the protocol.
pub(super) async fn read(
    link: &Link,
    seat: &Seat,
    mut requests: Requests,
    queue: mpsc::Sender<Received>,
) -> End {
    let mut invalid_events = 0;
    loop {
        let request = match requests.message().await {
            Ok(Some(request)) => request,
            Ok(None) => return End::PeerLeft,
            Err(status) => return End::Broken(status),
        };
        match request.message {
            // One host's lookups must not keep the committer from all others.
            Some(Message::Batch(batch)) if batch.events.len() > BATCH_EVENTS_MAX => {
                return End::Protocol("a batch of more events than any agent sends");
            }
            Some(Message::Batch(batch)) => {
                let received = match take(link, seat, batch, &mut invalid_events).await {
                    Ok(Some(received)) => received,
                    Ok(None) => continue,
                    Err(end) => return end,
                };
                if queue.send(received).await.is_err() {
                    return End::PeerLeft;
                }
            }
            Some(Message::Heartbeat(heartbeat)) => {
                let now = clock::now();
                seat.heartbeat(
                    now,
                    intake::policy_state(heartbeat.policy.unwrap_or_default()),
                    heartbeat.health.map(intake::health),
                );
                seat.rule_hits(now, heartbeat.rule_hits_anew, heartbeat.rule_hits);
            }
            Some(Message::Hello(_)) => return End::Protocol("a second hello"),
            // A kind of message that a newer agent knows.
            None => {}
        }
    }
}

/// Turns a batch into changes once there is room for it; nothing when it is
/// empty.
async fn take(
    link: &Link,
    seat: &Seat,
    batch: v1::ReceivedBatch,
    invalid_events: &mut u64,
) -> Result<Option<Received>, End> {
    let received_at = Instant::now();
    let (place, waited) = link.ingest.enter(link.host_id, batch.encoded_len()).await;
    if let Some(waited) = waited {
        seat.held_back(waited);
        link.ctx.meters.held_back(waited);
    }
    let mut changes = Vec::with_capacity(batch.events.len());
    let mut newest = None;
    let mut first_invalid = None;
    let mut invalid = 0_u64;
    for event in batch.events {
        // Without its number nothing could be acked.
        let event = v1::ReceivedEvent::decode(event)
            .map_err(|_| End::Protocol("an event that cannot be decoded"))?;
        newest = Some(event.sequence);
        match Incoming::receive(link.host_id, &event) {
            Ok(change) => changes.push(change),
            Err(error) => {
                invalid += 1;
                first_invalid.get_or_insert((event.sequence, error));
            }
        }
    }
    let Some(sequence) = newest else {
        return Ok(None);
    };
    *invalid_events += invalid;
    if let Some((event_sequence, error)) = first_invalid
        && let Some(suppressed) = link.lines.admit()
    {
        tracing::warn!(
            host = %link.host_id, name = link.host_name, sequence = event_sequence,
            error = printable(error.to_string().as_bytes()),
            in_batch = invalid, in_session = *invalid_events, suppressed,
            "Events of an agent make no sense and were left out; are agent and collector of \
             versions that fit?"
        );
    }
    Ok(Some(Received {
        changes,
        sequence,
        received_at,
        _place: place,
    }))
}
