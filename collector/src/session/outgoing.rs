//! The way down to an agent: a bounded queue that waits for a slow reader, but
//! not for ever. Nothing that was handed over is dropped while it waits.

use std::time::Duration;

use procwarden_proto::v1;
use procwarden_proto::v1::connect_response::Message;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::end::End;

/// Messages to one agent that it has not read.
const QUEUE_MAX: usize = 32;

/// An agent that leaves the queue full for this long is cut off.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Time that the last word may take.
const LAST_WORD_TIMEOUT: Duration = Duration::from_secs(1);

type Item = Result<v1::ConnectResponse, Status>;

/// See the module.
pub(crate) struct Outgoing {
    queue: mpsc::Sender<Item>,
}

impl Outgoing {
    pub(crate) fn channel() -> (Self, ReceiverStream<Item>) {
        let (queue, responses) = mpsc::channel(QUEUE_MAX);
        (Self { queue }, ReceiverStream::new(responses))
    }

    /// Waits for a place in the queue.
    pub(super) async fn send(&self, message: Message) -> Result<(), End> {
        let response = v1::ConnectResponse {
            message: Some(message),
        };
        self.queue
            .send_timeout(Ok(response), STALL_TIMEOUT)
            .await
            .map_err(|error| match error {
                SendTimeoutError::Timeout(_) => End::SlowReader,
                SendTimeoutError::Closed(_) => End::PeerLeft,
            })
    }

    /// Ends the stream with the reason.
    pub(super) async fn finish(self, end: &End) {
        if let Some(status) = end.status() {
            // Who does not take it in time, sees the stream end without it.
            drop(
                self.queue
                    .send_timeout(Err(status), LAST_WORD_TIMEOUT)
                    .await,
            );
        }
    }
}
