//! The way down to an agent: a bounded queue that waits for a slow reader, but
//! not for ever. Nothing that was handed over is dropped while it waits.
//!
//! Messages lie in the queue as they go over the wire. A policy is encoded
//! once and every session holds the same bytes; an encoder per stream would
//! copy it for each agent and keep the copy's memory.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;
use procwarden_proto::v1;
use procwarden_proto::v1::connect_response::Message;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::SendTimeoutError;
use tonic::Status;

use super::end::End;
use super::requests::PREFIX_BYTES;

/// Messages to one agent that it has not read.
const QUEUE_MAX: usize = 32;

/// An agent that leaves the queue full for this long is cut off.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Time that the last word may take.
const LAST_WORD_TIMEOUT: Duration = Duration::from_secs(1);

enum Item {
    Message(Bytes),
    End(Box<Status>),
}

/// See the module.
pub(crate) struct Outgoing {
    queue: mpsc::Sender<Item>,
}

/// The other end of the queue, as a response of HTTP/2.
pub(crate) struct ResponseBody {
    queue: mpsc::Receiver<Item>,
    ended: bool,
}

impl Outgoing {
    pub(crate) fn channel() -> (Self, ResponseBody) {
        let (sender, queue) = mpsc::channel(QUEUE_MAX);
        let body = ResponseBody {
            queue,
            ended: false,
        };
        (Self { queue: sender }, body)
    }

    /// Waits for a place in the queue.
    pub(super) async fn send(&self, message: Message) -> Result<(), End> {
        self.send_framed(framed(message)).await
    }

    /// As [`Self::send`], for what [`framed`] made.
    pub(super) async fn send_framed(&self, message: Bytes) -> Result<(), End> {
        self.queue
            .send_timeout(Item::Message(message), STALL_TIMEOUT)
            .await
            .map_err(|error| match error {
                SendTimeoutError::Timeout(_) => End::SlowReader,
                SendTimeoutError::Closed(_) => End::PeerLeft,
            })
    }

    /// Ends the stream with the reason, and with the wish when to come back.
    /// Who does not take it in time, sees the stream end without it.
    pub(crate) async fn finish(self, come_back: Option<v1::RetryAfter>, status: Option<Status>) {
        let words = async {
            if let Some(come_back) = come_back {
                let message = framed(Message::RetryAfter(come_back));
                self.queue.send(Item::Message(message)).await.ok()?;
            }
            if let Some(status) = status {
                self.queue.send(Item::End(Box::new(status))).await.ok()?;
            }
            Some(())
        };
        drop(tokio::time::timeout(LAST_WORD_TIMEOUT, words).await);
    }
}

/// A message as it goes over the wire.
pub(super) fn framed(message: Message) -> Bytes {
    let response = v1::ConnectResponse {
        message: Some(message),
    };
    framed_bytes(&response.encode_to_vec())
}

pub(super) fn framed_bytes(message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    bytes.put_u8(0);
    // No message is longer than MESSAGE_BYTES_MAX.
    bytes.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    bytes.put_slice(message);
    bytes.freeze()
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let item = ready!(self.queue.poll_recv(cx));
        Poll::Ready(Some(match item {
            Some(Item::Message(bytes)) => Ok(Frame::data(bytes)),
            Some(Item::End(status)) => self.end(&status),
            None => self.end(&Status::ok("")),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

impl ResponseBody {
    fn end(&mut self, status: &Status) -> Result<Frame<Bytes>, Status> {
        self.ended = true;
        let mut trailers = HeaderMap::with_capacity(2);
        status.add_header(&mut trailers)?;
        Ok(Frame::trailers(trailers))
    }
}
