//! Drives one host's stream: batches out, acknowledgements in.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use procwarden_proto::v1::connect_response::Message;
use tokio::time::{Instant, sleep_until};

use super::host::Host;
use super::requests::{Requests, kinds};
use super::stream::Stream;

/// How fast a host sends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Findings of one batch.
    pub(super) batch: usize,
    /// Batches on their way at once.
    pub(super) in_flight: usize,
    /// Time from one batch to the next; zero is as fast as acks come.
    pub(super) interval: Duration,
    /// When the first is due.
    pub(super) begin: Instant,
    /// When the last may leave; what is on its way then is waited for.
    pub(super) end: Instant,
}

/// Sends findings until the pace ends and all are acknowledged. Returns how
/// long each batch took, from the moment it was due.
///
/// # Errors
/// When the stream breaks.
pub(super) async fn drive(
    mut stream: Stream,
    requests: &Requests,
    pace: Pace,
) -> anyhow::Result<Vec<Duration>> {
    let mut on_their_way: VecDeque<(u64, Instant)> = VecDeque::new();
    let mut latencies = Vec::new();
    let (mut due, mut next) = (pace.begin, 1);
    loop {
        let now = Instant::now();
        let goes_on = now < pace.end && due < pace.end;
        if goes_on && due <= now && on_their_way.len() < pace.in_flight {
            let since = if pace.interval.is_zero() { now } else { due };
            stream.send(requests.batch(next, pace.batch))?;
            next += pace.batch as u64;
            on_their_way.push_back((next - 1, since));
            due += pace.interval;
            continue;
        }
        if !goes_on && on_their_way.is_empty() {
            return Ok(latencies);
        }
        let may_send = goes_on && on_their_way.len() < pace.in_flight;
        tokio::select! {
            message = stream.next() => {
                let Message::Ack(ack) = message? else { continue };
                while on_their_way.front().is_some_and(|(last, _)| *last <= ack.sequence) {
                    latencies.extend(on_their_way.pop_front().map(|(_, since)| since.elapsed()));
                }
            }
            () = sleep_until(due), if may_send => {}
            () = sleep_until(pace.end), if goes_on => {}
        }
    }
}

/// The requests of many hosts share their bodies.
pub(super) fn requests_of(hosts: &[Arc<Host>]) -> Vec<Requests> {
    let kinds = kinds();
    let of = |host: &Arc<Host>| Requests::new(host.number, Arc::clone(&kinds));
    hosts.iter().map(of).collect()
}

/// A stream for a host and its first words.
pub(super) async fn opened(host: &Host, hello: Bytes) -> anyhow::Result<Stream> {
    let opening = Stream::open(host, hello);
    tokio::time::timeout(super::STEP_MAX, opening).await?
}
