//! The floor: a server with the same TLS, HTTP/2 and messages as a collector
//! that decodes batches, stores nothing and acks at once. What a collector
//! costs beyond this is its own doing.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::Context;
use procwarden_proto::v1;
use procwarden_proto::v1::connect_request::Message as Up;
use procwarden_proto::v1::connect_response::Message as Down;
use procwarden_proto::v1::fleet_service_server::{FleetService, FleetServiceServer};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use super::host;
use crate::child::Guarded;

/// As the collector has it.
const BACKLOG: u32 = 4096;
const READY_MAX: usize = 64;
const QUEUE_MAX: usize = 32;

/// The running floor, a process of its own so that it can be measured.
pub(super) struct Bare {
    child: Guarded,
    pub(super) address: String,
    pub(super) ca: CertificateDer<'static>,
    directory: tempfile::TempDir,
}

impl Bare {
    pub(super) fn start() -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("procwarden-floor-")
            .tempdir()?;
        write_identities(directory.path())?;
        let program = std::env::current_exe()?;
        let mut command = Command::new(program);
        command.arg("floor").arg("--dir").arg(directory.path());
        let log = directory.path().join("log");
        let mut child = Guarded::start(command.stdout(Stdio::piped()), &log);
        let mut line = String::new();
        if let Some(stdout) = child.stdout() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let address = line.trim().strip_prefix("listening fleet=");
        let address = address.with_context(|| format!("the floor did not start: {}", child.log()));
        Ok(Self {
            address: address?.to_owned(),
            ca: CertificateDer::from_pem_file(directory.path().join("ca.pem"))?,
            child,
            directory,
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.pid()
    }

    pub(super) fn client(&self) -> anyhow::Result<Arc<rustls::ClientConfig>> {
        let (chain, key) = read_identity(self.directory.path(), "client")?;
        host::tls(&self.ca, Some((chain, key)))
    }
}

/// A CA, and what it says of a server and of the one client.
fn write_identities(directory: &Path) -> anyhow::Result<()> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    std::fs::write(directory.join("ca.pem"), ca.pem())?;
    for name in ["server", "client"] {
        let key = KeyPair::generate()?;
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let leaf = CertificateParams::new(names)?.signed_by(&key, &ca)?;
        std::fs::write(directory.join(format!("{name}.pem")), leaf.pem())?;
        std::fs::write(directory.join(format!("{name}.key")), key.serialize_pem())?;
    }
    Ok(())
}

fn read_identity(
    directory: &Path,
    name: &str,
) -> anyhow::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    Ok((
        vec![CertificateDer::from_pem_file(
            directory.join(format!("{name}.pem")),
        )?],
        PrivateKeyDer::from_pem_file(directory.join(format!("{name}.key")))?,
    ))
}

/// Serves until the process is ended: the program's own side of the bare server.
///
/// # Errors
/// When it cannot listen.
pub async fn serve(directory: &Path) -> anyhow::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, 1], 0).into())?;
    let listener = socket.listen(BACKLOG)?;
    let acceptor = TlsAcceptor::from(Arc::new(server_config(directory)?));
    #[expect(clippy::print_stdout, reason = "the other side reads the address")]
    {
        println!("listening fleet={}", listener.local_addr()?);
    }
    let (ready, connections) = mpsc::channel(READY_MAX);
    tokio::spawn(accept(listener, acceptor, ready));
    let served = Server::builder()
        .add_service(FleetServiceServer::new(Floor))
        .serve_with_incoming(ReceiverStream::new(connections));
    Ok(served.await?)
}

type Accepted = std::io::Result<tokio_rustls::server::TlsStream<tokio::net::TcpStream>>;

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, ready: mpsc::Sender<Accepted>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let (acceptor, ready) = (acceptor.clone(), ready.clone());
        tokio::spawn(async move {
            let without_delay = stream.set_nodelay(true).is_ok();
            if let (true, Ok(stream)) = (without_delay, acceptor.accept(stream).await) {
                drop(ready.send(Ok(stream)).await);
            }
        });
    }
}

fn server_config(directory: &Path) -> anyhow::Result<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(directory.join("ca.pem"))?)?;
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()?;
    let (chain, key) = read_identity(directory, "server")?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.send_tls13_tickets = 0;
    Ok(config)
}

struct Floor;

#[tonic::async_trait]
impl FleetService for Floor {
    type ConnectStream = ReceiverStream<Result<v1::ConnectResponse, Status>>;

    async fn connect(
        &self,
        request: Request<Streaming<v1::ConnectRequest>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let (answers, stream) = mpsc::channel(QUEUE_MAX);
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                let Some(Up::Batch(batch)) = request.message else {
                    continue;
                };
                let sequence = batch.events.last().map_or(0, |event| event.sequence);
                let ack = Down::Ack(v1::Ack { sequence });
                let ack = v1::ConnectResponse { message: Some(ack) };
                if answers.send(Ok(ack)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn renew(
        &self,
        _: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::RenewResponse>, Status> {
        Err(Status::unimplemented("the floor renews nothing"))
    }
}
