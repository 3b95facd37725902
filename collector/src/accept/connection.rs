//! An accepted TLS connection that holds its place among the connections for
//! as long as it is open.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::crowd::Place;

/// What a handler finds in a request's extensions.
#[derive(Debug, Clone)]
pub(crate) struct ConnectInfo {
    pub(crate) peer: SocketAddr,
    /// The peer's own certificate, if it showed one that the handshake
    /// accepted.
    pub(crate) certificate: Option<CertificateDer<'static>>,
}

/// Among all connections, and among those of the same peer.
type Places = (OwnedSemaphorePermit, Place);

/// See the module.
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    peer: SocketAddr,
    _places: Places,
}

impl Connection {
    pub(super) fn new(stream: TlsStream<TcpStream>, peer: SocketAddr, places: Places) -> Self {
        Self {
            stream,
            peer,
            _places: places,
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = ConnectInfo;

    fn connect_info(&self) -> ConnectInfo {
        let (_, session) = self.stream.get_ref();
        let leaf = session.peer_certificates().and_then(|chain| chain.first());
        ConnectInfo {
            peer: self.peer,
            certificate: leaf.map(|leaf| leaf.clone().into_owned()),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
