//! One host's stream on bare HTTP/2: what goes up is encoded already, so that
//! the generator leaves the machine to what it measures.

use anyhow::{Context, bail};
use bytes::{Buf, Bytes, BytesMut};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use procwarden_proto::v1;
use procwarden_proto::v1::connect_response::Message;
use prost::Message as _;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::host::{Host, tcp};

/// Bytes before each message: a flag and its length (gRPC over HTTP/2).
const PREFIX_BYTES: usize = 5;

/// The method that agents call.
const PATH: &str = "/procwarden.v1.FleetService/Connect";

/// A stream that the collector answered.
pub(super) struct Stream {
    up: SendStream<Bytes>,
    down: RecvStream,
    received: BytesMut,
    connection: JoinHandle<()>,
}

impl Stream {
    /// Connects, says hello and waits until the call is answered.
    pub(super) async fn open(host: &Host, hello: Bytes) -> anyhow::Result<Self> {
        let tcp = tcp(host.number, &host.address).await?;
        let connector = TlsConnector::from(host.tls.clone());
        let tls = connector.connect(host.server_name.clone(), tcp).await?;
        let (calls, connection) = h2::client::Builder::new()
            .enable_push(false)
            .handshake::<_, Bytes>(tls)
            .await?;
        // How a connection ends is seen by its stream.
        let connection = tokio::spawn(async move { drop(connection.await) });
        let mut stream = Self::call(calls, host, hello, connection).await?;
        stream.received.reserve(64);
        Ok(stream)
    }

    async fn call(
        calls: h2::client::SendRequest<Bytes>,
        host: &Host,
        hello: Bytes,
        connection: JoinHandle<()>,
    ) -> anyhow::Result<Self> {
        let mut calls = calls.ready().await?;
        let request = Request::post(format!("https://{}{PATH}", host.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let (response, mut up) = calls.send_request(request, false)?;
        up.send_data(hello, false)?;
        let (head, down) = response.await?.into_parts();
        refusal(&head.headers)?;
        Ok(Self {
            up,
            down,
            received: BytesMut::new(),
            connection,
        })
    }

    /// Hands a message over; it leaves as fast as the collector reads.
    pub(super) fn send(&mut self, framed: Bytes) -> anyhow::Result<()> {
        Ok(self.up.send_data(framed, false)?)
    }

    /// The next message from the collector.
    ///
    /// # Errors
    /// When the stream ends, with the collector's words if it said some.
    pub(super) async fn next(&mut self) -> anyhow::Result<Message> {
        loop {
            if let Some(response) = self.take()? {
                match response.message {
                    Some(message) => return Ok(message),
                    None => continue,
                }
            }
            let Some(data) = self.down.data().await else {
                let trailers = self.down.trailers().await?;
                refusal(&trailers.unwrap_or_default())?;
                bail!("the collector ended the stream")
            };
            let data = data.context("the stream broke")?;
            self.down.flow_control().release_capacity(data.len())?;
            self.received.extend_from_slice(&data);
        }
    }

    fn take(&mut self) -> anyhow::Result<Option<v1::ConnectResponse>> {
        let Some([_, a, b, c, d]) = self.received.first_chunk::<PREFIX_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        if self.received.len() < PREFIX_BYTES + length {
            return Ok(None);
        }
        self.received.advance(PREFIX_BYTES);
        let message = self.received.split_to(length);
        Ok(Some(v1::ConnectResponse::decode(message.freeze())?))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// The words of a gRPC status that is not "OK".
fn refusal(headers: &HeaderMap) -> anyhow::Result<()> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status") {
        None | Some("0") => Ok(()),
        Some(code) => bail!(
            "the collector ended the stream with status {code}: {}",
            text("grpc-message").unwrap_or_default()
        ),
    }
}

/// A message with its length in front.
pub(super) fn framed(message: &impl prost::Message) -> Bytes {
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + message.encoded_len());
    prefix(&mut bytes, message.encoded_len());
    bytes.extend_from_slice(&message.encode_to_vec());
    bytes.freeze()
}

/// The flag "not compressed", and the length.
pub(super) fn prefix(bytes: &mut BytesMut, length: usize) {
    bytes.extend_from_slice(&[0]);
    bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
}
