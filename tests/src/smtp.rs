//! A real SMTP server on loopback: STARTTLS with a certificate of its own CA,
//! and AUTH, which it demands before it takes a mail. The protocol is the
//! `mailin` crate's; this file moves its bytes.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mailin::{Action, AuthMechanism, Handler, Response, Session, SessionBuilder, response};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::mails::Mail;

/// The account that may send.
pub const USERNAME: &str = "alerts@example.test";
/// Its password.
pub const PASSWORD: &str = "correct horse battery staple";

/// A running server; it ends with the test.
pub struct SmtpServer {
    address: SocketAddr,
    ca_file: PathBuf,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    mails: Mutex<Vec<Mail>>,
    refuse: AtomicBool,
    hang: AtomicBool,
    hung: AtomicUsize,
    stop: AtomicBool,
}

impl SmtpServer {
    /// Starts a server; the CA that its clients must trust goes to `directory`.
    ///
    /// # Errors
    /// When it cannot listen or make its certificate.
    pub fn start(directory: &Path) -> anyhow::Result<Self> {
        let (tls, ca_pem) = tls_config()?;
        let ca_file = directory.join("smtp-ca.pem");
        std::fs::write(&ca_file, ca_pem)?;
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if shared.stop.load(Ordering::Relaxed) {
                    return;
                }
                let (state, tls) = (Arc::clone(&shared), Arc::clone(&tls));
                // A client that hangs up early is no fault of the server.
                std::thread::spawn(move || converse(stream, state, tls).is_ok());
            }
        });
        Ok(Self {
            address,
            ca_file,
            state,
        })
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// PEM file of the CA behind the server's certificate for `localhost`.
    #[must_use]
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// Every mail taken so far.
    #[must_use]
    pub fn mails(&self) -> Vec<Mail> {
        self.state
            .mails
            .lock()
            .map(|mails| mails.clone())
            .unwrap_or_default()
    }

    /// From now on every recipient is refused for a while (451), or is not.
    pub fn refuse(&self, refuse: bool) {
        self.state.refuse.store(refuse, Ordering::Relaxed);
    }

    /// From now on it takes connections and greets, then says no more, or does.
    pub fn hang(&self, hang: bool) {
        self.state.hang.store(hang, Ordering::Relaxed);
    }

    /// Clients that were left waiting.
    #[must_use]
    pub fn hung(&self) -> usize {
        self.state.hung.load(Ordering::Relaxed)
    }
}

impl Drop for SmtpServer {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
        // Wakes the accepting thread, which then sees that it is over.
        let _woken = TcpStream::connect(self.address).is_ok();
    }
}

/// A certificate for `localhost` below a CA made for this server.
fn tls_config() -> anyhow::Result<(Arc<ServerConfig>, String)> {
    let mut ca = CertificateParams::new(Vec::<String>::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec!["localhost".to_owned()])?.signed_by(&key, &ca)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    Ok((Arc::new(config), ca.pem()))
}

/// One connection: in the clear until STARTTLS, encrypted from then on.
fn converse(mut plain: TcpStream, state: Arc<State>, tls: Arc<ServerConfig>) -> anyhow::Result<()> {
    plain.set_read_timeout(Some(Duration::from_secs(60)))?;
    let peer = plain.peer_addr()?.ip();
    let mut builder = SessionBuilder::new("localhost");
    builder
        .enable_start_tls()
        .enable_auth(AuthMechanism::Plain)
        .enable_auth(AuthMechanism::Login);
    let mut session = builder.build(peer, Recorder::new(Arc::clone(&state)));
    answer(&mut plain, &session.greeting())?;
    if state.hang.load(Ordering::Relaxed) {
        state.hung.fetch_add(1, Ordering::Relaxed);
        // Until the client has had enough.
        io::copy(&mut plain, &mut io::sink())?;
        return Ok(());
    }
    if serve(&mut BufReader::new(&mut plain), &mut session)? == Action::UpgradeTls {
        let mut stream = StreamOwned::new(ServerConnection::new(tls)?, plain);
        session.tls_active();
        serve(&mut BufReader::new(&mut stream), &mut session)?;
    }
    Ok(())
}

/// Answers line by line until the client leaves or wants TLS.
fn serve<S: Read + Write>(
    reader: &mut BufReader<&mut S>,
    session: &mut Session<Recorder>,
) -> io::Result<Action> {
    loop {
        let mut line = Vec::new();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(Action::Close);
        }
        let response = session.process(&line);
        match response.action {
            Action::NoReply => {}
            Action::Reply => answer(reader.get_mut(), &response)?,
            Action::Close | Action::UpgradeTls => {
                answer(reader.get_mut(), &response)?;
                return Ok(response.action);
            }
        }
    }
}

fn answer(stream: &mut impl Write, response: &Response) -> io::Result<()> {
    stream.write_all(&response.buffer()?)?;
    stream.flush()
}

/// Takes mails of the one account, whole.
struct Recorder {
    state: Arc<State>,
    authenticated: bool,
    to: Vec<String>,
    data: Vec<u8>,
}

impl Recorder {
    fn new(state: Arc<State>) -> Self {
        Self {
            state,
            authenticated: false,
            to: Vec::new(),
            data: Vec::new(),
        }
    }

    fn check(&mut self, username: &str, password: &str) -> Response {
        self.authenticated = username == USERNAME && password == PASSWORD;
        if self.authenticated {
            response::AUTH_OK
        } else {
            response::INVALID_CREDENTIALS
        }
    }
}

impl Handler for Recorder {
    fn mail(&mut self, _ip: IpAddr, _domain: &str, _from: &str) -> Response {
        self.to.clear();
        self.data.clear();
        if self.authenticated {
            response::OK
        } else {
            response::AUTHENTICATION_REQUIRED
        }
    }

    fn rcpt(&mut self, to: &str) -> Response {
        if self.state.refuse.load(Ordering::Relaxed) {
            return response::INTERNAL_ERROR;
        }
        self.to.push(to.to_owned());
        response::OK
    }

    fn data(&mut self, line: &[u8]) -> io::Result<()> {
        self.data.extend_from_slice(line);
        Ok(())
    }

    fn data_end(&mut self) -> Response {
        let mail = Mail::parse(std::mem::take(&mut self.to), &self.data);
        match (mail, self.state.mails.lock()) {
            (Some(mail), Ok(mut mails)) => {
                mails.push(mail);
                response::OK
            }
            _ => response::TRANSACTION_FAILED,
        }
    }

    fn auth_plain(&mut self, _authorization: &str, username: &str, password: &str) -> Response {
        self.check(username, password)
    }

    fn auth_login(&mut self, username: &str, password: &str) -> Response {
        self.check(username, password)
    }
}
