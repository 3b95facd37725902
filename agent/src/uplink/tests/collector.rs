//! A small collector for tests: enrols, acknowledges, pushes, by a script.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use procwarden_common::id::{FleetId, HostId};
use procwarden_common::token::Token;
use procwarden_proto::v1;
use procwarden_proto::v1::connect_request::Message as Up;
use procwarden_proto::v1::connect_response::Message as Down;
use procwarden_proto::v1::enrollment_service_server::{EnrollmentService, EnrollmentServiceServer};
use procwarden_proto::v1::fleet_service_server::{FleetService, FleetServiceServer};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateSigningRequestParams,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::PrivateKeyDer;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use crate::tls::provider;

/// Nothing here takes long; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// How it behaves.
#[derive(Debug, Clone, Default)]
pub(super) struct Script {
    /// Refuses every token.
    pub(super) refuses: bool,
    /// The first streams end at their first batch, without an ack.
    pub(super) streams_cut: u32,
    /// They end with this wish.
    pub(super) come_back: Option<v1::RetryAfter>,
    /// Enrolment gives certificates whose life is mostly over.
    pub(super) is_old: bool,
}

/// What reached it.
#[derive(Debug)]
pub(super) enum Saw {
    Hello(v1::Hello),
    Events(Vec<u64>),
    Heartbeat(v1::Heartbeat),
    Renewal,
}

pub(super) struct FakeCollector {
    inner: Arc<Inner>,
    enroll: SocketAddr,
    fleet: SocketAddr,
    saw: mpsc::UnboundedReceiver<Saw>,
}

struct Inner {
    script: Script,
    ca: Certificate,
    issuer: Issuer<'static, KeyPair>,
    fleet_port: u16,
    streams: AtomicU32,
    saw: mpsc::UnboundedSender<Saw>,
}

fn fleet_id() -> FleetId {
    FleetId::from_slice(&[3; 16]).unwrap()
}

fn host_id() -> HostId {
    HostId::from_slice(&[4; 16]).unwrap()
}

impl FakeCollector {
    pub(super) async fn start(script: Script) -> Self {
        let listen = || TcpListener::bind("127.0.0.1:0");
        let (enroll, fleet) = (listen().await.unwrap(), listen().await.unwrap());
        let addresses = (enroll.local_addr().unwrap(), fleet.local_addr().unwrap());
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).unwrap();
        let (saw, seen) = mpsc::unbounded_channel();
        let inner = Arc::new(Inner {
            script,
            ca,
            issuer: Issuer::new(params, key),
            fleet_port: addresses.1.port(),
            streams: AtomicU32::new(0),
            saw,
        });
        for (listener, is_fleet) in [(enroll, false), (fleet, true)] {
            let incoming = accept(listener, inner.server_config(is_fleet));
            let router = tonic::transport::Server::builder()
                .add_service(EnrollmentServiceServer::new(Service(Arc::clone(&inner))))
                .add_service(FleetServiceServer::new(Service(Arc::clone(&inner))));
            tokio::spawn(router.serve_with_incoming(incoming));
        }
        Self {
            inner,
            enroll: addresses.0,
            fleet: addresses.1,
            saw: seen,
        }
    }

    pub(super) fn token(&self) -> Token {
        Token {
            id: "t1".into(),
            secret: [9; 32],
            addresses: vec![self.enroll.to_string()],
            ca_sha256: Sha256::digest(self.inner.ca.der()).into(),
            groups: vec![],
        }
    }

    pub(super) fn fleet_address(&self) -> String {
        self.fleet.to_string()
    }

    pub(super) async fn saw(&mut self) -> Saw {
        tokio::time::timeout(PATIENCE, self.saw.recv())
            .await
            .unwrap()
            .unwrap()
    }

    async fn saw_that<T>(&mut self, mut wanted: impl FnMut(Saw) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(self.saw().await) {
                return found;
            }
        }
    }

    pub(super) async fn saw_hello(&mut self) -> v1::Hello {
        self.saw_that(|saw| {
            if let Saw::Hello(h) = saw {
                Some(h)
            } else {
                None
            }
        })
        .await
    }

    pub(super) async fn saw_events(&mut self) -> Vec<u64> {
        self.saw_that(|saw| {
            if let Saw::Events(e) = saw {
                Some(e)
            } else {
                None
            }
        })
        .await
    }

    pub(super) async fn saw_renewal(&mut self) {
        self.saw_that(|saw| matches!(saw, Saw::Renewal).then_some(()))
            .await;
    }

    pub(super) async fn saw_heartbeat(
        &mut self,
        is_it: impl Fn(&v1::Heartbeat) -> bool,
    ) -> v1::Heartbeat {
        self.saw_that(|saw| match saw {
            Saw::Heartbeat(heartbeat) if is_it(&heartbeat) => Some(heartbeat),
            _ => None,
        })
        .await
    }
}

impl Inner {
    fn server_config(&self, is_fleet: bool) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let chain = vec![leaf.der().clone(), self.ca.der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap();
        let mut config = if is_fleet {
            let mut roots = RootCertStore::empty();
            roots.add(self.ca.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
                .build()
                .unwrap();
            builder
                .with_client_cert_verifier(verifier)
                .with_single_cert(chain, key)
                .unwrap()
        } else {
            builder
                .with_no_client_auth()
                .with_single_cert(chain, key)
                .unwrap()
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    }

    /// A certificate for the host. An old one began long ago and ends soon.
    fn issue(&self, csr_pem: &str, is_old: bool) -> String {
        let mut csr = CertificateSigningRequestParams::from_pem(csr_pem).unwrap();
        csr.params = CertificateParams::default();
        let days = |n: u64| Duration::from_secs(n * 86_400);
        let (past, future) = if is_old { (29, 1) } else { (1, 29) };
        csr.params.not_before = (SystemTime::now() - days(past)).into();
        csr.params.not_after = (SystemTime::now() + days(future)).into();
        let uri = fleet_id().host_uri(host_id());
        csr.params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        csr.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        csr.signed_by(&self.issuer).unwrap().pem()
    }

    async fn answer(
        &self,
        mut up: Streaming<v1::ConnectRequest>,
        down: mpsc::Sender<Result<v1::ConnectResponse, Status>>,
    ) {
        let is_cut = self.streams.fetch_add(1, Ordering::SeqCst) < self.script.streams_cut;
        while let Ok(Some(message)) = up.message().await {
            match message.message.unwrap() {
                Up::Hello(hello) => self.saw.send(Saw::Hello(hello)).unwrap(),
                Up::Heartbeat(heartbeat) => self.saw.send(Saw::Heartbeat(heartbeat)).unwrap(),
                Up::Batch(batch) => {
                    let sequences: Vec<u64> = batch.events.iter().map(|e| e.sequence).collect();
                    let sequence = *sequences.last().unwrap();
                    self.saw.send(Saw::Events(sequences)).unwrap();
                    if is_cut {
                        let wish = self.script.come_back;
                        let message = wish.map(v1::connect_response::Message::RetryAfter);
                        drop(down.send(Ok(v1::ConnectResponse { message })).await);
                        return;
                    }
                    for message in [
                        Down::Ack(v1::Ack { sequence }),
                        Down::Policy(policy()),
                        Down::ScanNow(v1::ScanNow {}),
                    ] {
                        let message = v1::ConnectResponse {
                            message: Some(message),
                        };
                        if down.send(Ok(message)).await.is_err() {
                            return;
                        }
                    }
                }
            }
        }
    }
}

fn policy() -> v1::EffectivePolicy {
    let file = v1::PolicyFile {
        path: "p.pignore".into(),
        content: "exe:/usr/bin/x\n".into(),
    };
    v1::EffectivePolicy {
        documents: vec![v1::PolicyDocument {
            name: "default".into(),
            revision: 4,
            files: vec![file],
            settings: String::new(),
        }],
    }
}

fn accept(
    listener: TcpListener,
    config: Arc<ServerConfig>,
) -> impl Stream<Item = std::io::Result<tokio_rustls::server::TlsStream<tokio::net::TcpStream>>> {
    let acceptor = TlsAcceptor::from(config);
    let tcp = tokio_stream::wrappers::TcpListenerStream::new(listener);
    // A refused handshake must not end the listener: it is left out.
    tcp.then(move |tcp| {
        let acceptor = acceptor.clone();
        async move { acceptor.accept(tcp?).await }
    })
    .filter(Result::is_ok)
}

/// The services over what the collector holds.
struct Service(Arc<Inner>);

#[tonic::async_trait]
impl EnrollmentService for Service {
    async fn enroll(
        &self,
        request: Request<v1::EnrollRequest>,
    ) -> Result<Response<v1::EnrollResponse>, Status> {
        if self.0.script.refuses {
            return Err(Status::permission_denied("the token is used up"));
        }
        Ok(Response::new(v1::EnrollResponse {
            host_id: bytes::Bytes::copy_from_slice(host_id().as_bytes()),
            fleet_id: fleet_id().to_string(),
            ca_certificate: self.0.ca.pem(),
            certificate: self.0.issue(&request.get_ref().csr, self.0.script.is_old),
            fleet_port: self.0.fleet_port.into(),
        }))
    }
}

#[tonic::async_trait]
impl FleetService for Service {
    type ConnectStream = Pin<Box<dyn Stream<Item = Result<v1::ConnectResponse, Status>> + Send>>;

    async fn connect(
        &self,
        request: Request<Streaming<v1::ConnectRequest>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let (down, messages) = mpsc::channel(8);
        let this = Arc::clone(&self.0);
        let up = request.into_inner();
        tokio::spawn(async move { this.answer(up, down).await });
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }

    async fn renew(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::RenewResponse>, Status> {
        self.0.saw.send(Saw::Renewal).unwrap();
        Ok(Response::new(v1::RenewResponse {
            certificate: self.0.issue(&request.get_ref().csr, false),
            ca_certificate: self.0.ca.pem(),
        }))
    }
}
