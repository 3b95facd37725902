//! An agent's messages, taken off its connection one by one.
//!
//! Promises: nothing of a message stays in memory when it has been dealt with:
//! tonic's own reader keeps the largest buffer it ever needed, and after an
//! outage every agent sends a large batch once. A length that a peer claims
//! takes no memory before the bytes are there.
//! Facts: gRPC over HTTP/2, "Length-Prefixed-Message".

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use procwarden_common::limits::MESSAGE_BYTES_MAX;
use procwarden_proto::v1;
use prost::Message as _;
use tonic::Status;
use tonic::body::Body;

/// A flag, and four bytes of length.
pub(super) const PREFIX_BYTES: usize = 5;

/// What is made ready for a message that arrives in parts.
const RESERVE_BYTES_MAX: usize = 256 * 1024;

/// See the module.
pub(crate) struct Requests {
    body: Body,
    framing: Framing,
}

/// Bytes that arrived, cut into messages. Pure.
#[derive(Default)]
struct Framing {
    /// Of the newest frame, as it was received.
    chunk: Bytes,
    /// A message whose end is missing; then `chunk` is empty.
    partial: BytesMut,
}

impl Requests {
    pub(crate) fn new(body: Body) -> Self {
        Self {
            body,
            framing: Framing::default(),
        }
    }

    /// The next message; nothing when the agent has ended its side.
    ///
    /// # Errors
    /// When the connection breaks, or what arrives is no message.
    pub(super) async fn message(&mut self) -> Result<Option<v1::ReceivedRequest>, Status> {
        loop {
            if let Some(message) = self.framing.take()? {
                let decoded = v1::ReceivedRequest::decode(message);
                return decoded
                    .map(Some)
                    .map_err(|_| Status::invalid_argument("a message cannot be decoded"));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.framing.feed(data);
                    }
                }
                Some(Err(status)) => return Err(status),
                None if self.framing.is_empty() => return Ok(None),
                None => return Err(Status::invalid_argument("the last message has no end")),
            }
        }
    }
}

impl Framing {
    fn is_empty(&self) -> bool {
        self.chunk.is_empty() && self.partial.is_empty()
    }

    fn feed(&mut self, data: Bytes) {
        if self.is_empty() {
            self.chunk = data;
            return;
        }
        if self.partial.is_empty() {
            let chunk = std::mem::take(&mut self.chunk);
            let wanted = length_of(&chunk).map_or(0, |(_, length)| length + PREFIX_BYTES);
            self.partial.reserve(wanted.min(RESERVE_BYTES_MAX));
            self.partial.extend_from_slice(&chunk);
        }
        self.partial.extend_from_slice(&data);
    }

    /// A message that has arrived as a whole.
    fn take(&mut self) -> Result<Option<Bytes>, Status> {
        let arrived = match self.partial.is_empty() {
            true => &self.chunk[..],
            false => &self.partial[..],
        };
        let Some((flag, length)) = length_of(arrived) else {
            return Ok(None);
        };
        if flag != 0 {
            return Err(Status::unimplemented("compressed messages are not read"));
        }
        if length > MESSAGE_BYTES_MAX {
            return Err(Status::out_of_range("a message is larger than 4 MiB"));
        }
        if arrived.len() < PREFIX_BYTES + length {
            return Ok(None);
        }
        if !self.partial.is_empty() {
            self.chunk = std::mem::take(&mut self.partial).freeze();
        }
        self.chunk.advance(PREFIX_BYTES);
        let message = self.chunk.split_to(length);
        if self.chunk.is_empty() {
            self.chunk = Bytes::new();
        }
        Ok(Some(message))
    }
}

fn length_of(bytes: &[u8]) -> Option<(u8, usize)> {
    let [flag, a, b, c, d] = *bytes.first_chunk::<PREFIX_BYTES>()?;
    let length = u32::from_be_bytes([a, b, c, d]);
    Some((flag, usize::try_from(length).unwrap_or(usize::MAX)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::session::outgoing::framed_bytes;

    proptest! {
        #[test]
        fn messages_come_out_whole_and_in_order_however_they_were_cut(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..8),
            cuts in proptest::collection::vec(1_usize..30, 1..40),
        ) {
            let mut wire = BytesMut::new();
            for message in &messages {
                wire.extend_from_slice(&framed_bytes(message));
            }
            let (mut wire, mut framing, mut found) = (wire.freeze(), Framing::default(), Vec::new());
            let mut cuts = cuts.into_iter().cycle();
            while !wire.is_empty() {
                let cut = cuts.next().unwrap().min(wire.len());
                framing.feed(wire.split_to(cut));
                while let Some(message) = framing.take().unwrap() {
                    found.push(message.to_vec());
                }
            }
            prop_assert_eq!(found, messages);
            prop_assert!(framing.is_empty());
        }

        #[test]
        fn hostile_bytes_are_refused_or_waited_for_and_take_no_more_memory_than_they_are(
            bytes in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let mut framing = Framing::default();
            framing.feed(Bytes::from(bytes));
            while let Ok(Some(_)) = framing.take() {}
            framing.feed(Bytes::from_static(&[0; 3]));
            prop_assert!(framing.partial.capacity() <= RESERVE_BYTES_MAX + 256);
        }
    }

    #[test]
    fn a_length_beyond_the_limit_and_a_compressed_message_are_refused() {
        for (bytes, code) in [
            ([0, 0xff, 0, 0, 0], tonic::Code::OutOfRange),
            ([1, 0, 0, 0, 0], tonic::Code::Unimplemented),
        ] {
            let mut framing = Framing::default();
            framing.feed(Bytes::copy_from_slice(&bytes));
            assert_eq!(framing.take().unwrap_err().code(), code);
        }
    }
}
